"""Write a recipe's trained DiT as a plain diffusers model: scales folded into the weights, nothing of ours left.

python scripts/export_dit.py -opt options/distill/demo.yml --output demo/dit
"""

import argparse
import sys
from pathlib import Path

from basicsr_distill.archs.minimax_dit_arch import load_trained
from basicsr_distill.config.experiment import to_experiment
from basicsr_distill.config.recipe import Recipe
from basicsr_distill.diffusion.export import export_dit
from basicsr_distill.errors import InputError


def main() -> int:
    """Run the command line; 2 if the input is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('-opt', type=Path, required=True, help='the recipe that was trained')
    parser.add_argument('--output', type=Path, required=True, help='folder to make')
    parser.add_argument('--weights', choices=['params_ema', 'params'], default='params_ema')
    args = parser.parse_args()
    try:
        host = to_experiment(Recipe.load(args.opt), is_train=True, root=Path.cwd()).opt
        if host['network_g'].get('type') != 'MinimaxDiT':
            raise InputError(f'{args.opt}: network_g.type: only a MinimaxDiT can be exported.')
        checkpoint = Path(host['path']['models']) / 'net_g_latest.pth'
        export_dit(load_trained(host['network_g'], checkpoint, args.weights), args.output)
    except InputError as error:
        print(f'export_dit: {error}', file=sys.stderr)
        return 2
    print(f'{args.output}: written')
    return 0


if __name__ == '__main__':
    sys.exit(main())
