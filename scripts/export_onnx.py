"""Write the network of an option file, with its trained weights, as ONNX with dynamic height and width.

    python scripts/export_onnx.py -opt options/test/SwinIR/test_SwinIR_x4.yml --output swinir.onnx

Needs the extra [onnx]. The input is `lq`, (1, 3, H, W), float32, RGB in [0, 1]; the output is `sr`, (1, 3, scale*H,
scale*W). The file is run once with onnxruntime and compared with torch.
"""

import argparse
import importlib.util
import sys
from copy import deepcopy
from pathlib import Path

import torch
from basicsr.archs import build_network
from basicsr.models.base_model import BaseModel

from basicsr_distill.archs.export import AnySize, export_onnx, needed_multiple
from basicsr_distill.config.experiment import to_experiment
from basicsr_distill.config.recipe import Recipe
from basicsr_distill.errors import InputError

TOLERANCE = 1e-4


def export(option_file: Path, output: Path) -> float:
    """Write the file; the largest difference from torch on an image of another size than the traced one."""
    for package in ('onnx', 'onnxruntime'):
        if importlib.util.find_spec(package) is None:
            raise InputError(f'the package {package} is not installed; run pip install basicsr-distill[onnx].')
    opt = to_experiment(Recipe.load(option_file), is_train=False, root=Path.cwd()).opt
    weights, section = opt['path'].get('pretrain_network_g'), opt['network_g']
    if weights is None:
        raise InputError(f'{option_file}: path.pretrain_network_g: is missing; give the checkpoint to export.')
    if section['type'] == 'MinimaxDiT':
        raise InputError(f'{option_file}: network_g.type: a MinimaxDiT is exported by scripts/export_dit.py.')
    network = build_network(deepcopy(section))
    BaseModel({'num_gpu': 0, 'is_train': False}).load_network(
        network, weights, opt['path'].get('strict_load_g', True), opt['path'].get('param_key_g', 'params')
    )
    channels = section.get('num_in_ch', section.get('in_chans', 3))
    any_size = AnySize(network, needed_multiple(section), opt['scale']).eval()
    export_onnx(any_size, output, channels)

    import onnxruntime

    image = torch.rand(1, channels, 24, 31, generator=torch.Generator().manual_seed(1))
    written = onnxruntime.InferenceSession(str(output), providers=['CPUExecutionProvider']).run(
        None, {'lq': image.numpy()}
    )[0]
    with torch.no_grad():
        return float((any_size(image) - torch.from_numpy(written)).abs().max())


def main() -> int:
    """Run the command line; 2 if the input is wrong, 1 if the file written does not do what torch does."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('-opt', type=Path, required=True, help='option file of a test')
    parser.add_argument('--output', type=Path, required=True, help='file to write')
    args = parser.parse_args()
    try:
        difference = export(args.opt, args.output)
    except InputError as error:
        print(f'export_onnx: {error}', file=sys.stderr)
        return 2
    print(f'{args.output}: written; its output differs from that of torch by at most {difference:.1e}')
    return 0 if difference < TOLERANCE else 1


if __name__ == '__main__':
    sys.exit(main())
