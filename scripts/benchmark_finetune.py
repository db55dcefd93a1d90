"""Time and memory of a fine-tuning step against a plain loop, side by side on this machine.

    python scripts/benchmark_finetune.py                        # DiT-S/2, 256 px, batch 8, CPU
    python scripts/benchmark_finetune.py --size XL --device cuda --no_plain --peak_tflops 989

The plain loop does what the published code does: it encodes the pixels anew in every step, keeps its memories in lists
and loops over them, averages all weights, frozen ones too, and computes in float32. Both train the same random-weight
DiT with DiffFit and the same losses. The two take turns, so that other load on the machine meets both alike.
"""

import argparse
import csv
import multiprocessing
import platform
import statistics
import tempfile
from collections import defaultdict, deque
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, DiTTransformer2DModel
from measuring import peak_mib, timed
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from basicsr_distill.archs.minimax_dit_arch import build_dit
from basicsr_distill.config.experiment import to_experiment
from basicsr_distill.config.recipe import Recipe
from basicsr_distill.config.sections.dit import MinimaxDiTNetworkOptions
from basicsr_distill.diffusion.process import add_noise, linear_alpha_bar, predict_x0, simple_loss, variational_bound
from basicsr_distill.models.minimax_dit_model import MinimaxDiTModel

NUM_LABELS, MEMORY, LATENT_SCALE = 7, 64, 0.18215
LAYERS_HEADS_WIDTH = {'S': (12, 6, 64), 'B': (12, 12, 64), 'L': (24, 16, 64), 'XL': (28, 16, 72)}


def random_dit_folder(size: str, size_px: int, folder: Path) -> Path:
    """A DiT/2 with random weights in diffusers' layout, as a pretrained one lies on disk."""
    layers, heads, width = LAYERS_HEADS_WIDTH[size]
    dit = DiTTransformer2DModel(
        num_layers=layers,
        num_attention_heads=heads,
        attention_head_dim=width,
        in_channels=4,
        out_channels=8,
        sample_size=size_px // 8,
        num_embeds_ada_norm=1000,
    )
    for block in dit.transformer_blocks:
        block.norm1.emb.load_state_dict(dit.transformer_blocks[0].norm1.emb.state_dict())
    dit.save_pretrained(folder)
    return folder


def stable_diffusion_vae() -> AutoencoderKL:
    """The architecture of stabilityai/sd-vae-ft-mse, with random weights."""
    return AutoencoderKL(
        block_out_channels=(128, 256, 512, 512),
        down_block_types=['DownEncoderBlock2D'] * 4,
        up_block_types=['UpDecoderBlock2D'] * 4,
        layers_per_block=2,
        latent_channels=4,
    )


class PlainLoop:
    """The published procedure, step by step."""

    def __init__(self, dit_folder: Path, device: torch.device) -> None:
        self.vae = stable_diffusion_vae().to(device).eval().requires_grad_(False)
        options = MinimaxDiTNetworkOptions(num_labels=NUM_LABELS, pretrained=str(dit_folder), local_files_only=True)
        self.net = build_dit(options).to(device).train()
        self.average = deepcopy(self.net).requires_grad_(False)
        self.trained = [p for p in self.net.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(self.trained, lr=1e-3, weight_decay=0)
        self.alpha_bar = linear_alpha_bar().to(device)
        self.real: dict[int, deque[Tensor]] = defaultdict(lambda: deque(maxlen=MEMORY))
        self.drawn: dict[int, deque[Tensor]] = defaultdict(lambda: deque(maxlen=MEMORY))

    def step(self, pixels: Tensor, labels: Tensor) -> float:
        """Train on pixels (N, 3, H, W) in [0, 1]; returns the loss."""
        with torch.no_grad():
            x0 = self.vae.encode(pixels * 2 - 1).latent_dist.sample() * LATENT_SCALE
        timesteps = torch.randint(0, 1000, labels.shape, device=labels.device)
        noise, a = torch.randn_like(x0), self.alpha_bar[timesteps]
        x_t = add_noise(x0, noise, a)
        output = self.net(x_t, timesteps, labels, drop_mask=torch.rand(labels.shape, device=labels.device) < 0.1)
        eps_pred, variance_pred = output.chunk(2, 1)
        x0_pred = predict_x0(x_t, eps_pred, a)
        loss = simple_loss(eps_pred, noise, a) + variational_bound(
            x0, x_t, timesteps, eps_pred, variance_pred, self.alpha_bar
        )
        for label in labels.unique().tolist():
            own = x0_pred[labels == label].flatten(1)
            if self.real[label]:
                cosines = [F.cosine_similarity(own, stored.flatten()[None]) for stored in self.real[label]]
                loss = loss + 0.002 * (1 - torch.stack(cosines).min())
                cosines = [F.cosine_similarity(own, stored.flatten()[None]) for stored in self.drawn[label]]
                loss = loss + 0.008 * torch.stack(cosines).max()
            self.real[label].extend(x0[labels == label])
            self.drawn[label].extend(x0_pred[labels == label].detach())
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        with torch.no_grad():
            for kept, new in zip(self.average.parameters(), self.net.parameters()):
                kept.mul_(0.9999).add_(new, alpha=1e-4)
        return float(loss.detach())


def our_model(
    dit_folder: Path, root: Path, precision: str, device: torch.device, checkpointing: bool
) -> MinimaxDiTModel:
    """MinimaxDiTModel as an option file would build it."""
    labels_file = root / 'labels.csv'
    with labels_file.open('w', newline='') as file:
        csv.writer(file).writerows([['name', 'label'], *((f'{label}.png', label) for label in range(NUM_LABELS))])
    recipe = Recipe.parse(
        Path('benchmark.yml'),
        {
            'name': 'benchmark',
            'model_type': 'MinimaxDiTModel',
            'scale': 4,
            'num_gpu': int(device.type == 'cuda'),
            'network_g': {
                'type': 'MinimaxDiT',
                'num_labels': NUM_LABELS,
                'pretrained': str(dit_folder),
                'local_files_only': True,
                'gradient_checkpointing': checkpointing,
            },
            'datasets': {
                'train': {
                    'name': 'benchmark',
                    'type': 'LatentPatchDataset',
                    'dataroot': str(root),
                    'batch_size_per_gpu': 1,
                    'labels_file': str(labels_file),
                    'codec': {'type': 'autoencoder_kl'},
                }
            },
            'train': {
                'total_iter': 10**6,
                'optim_g': {'type': 'AdamW', 'lr': 1e-3, 'weight_decay': 0},
                'precision': precision,
                'scheduler': {'type': 'MultiStepLR', 'milestones': [10**6], 'gamma': 0.5},
                'representativeness_opt': {'type': 'RepresentativenessLoss'},
                'diversity_opt': {'type': 'DiversityLoss'},
                'high_frequency_opt': {'type': 'HighFrequencyLoss'},
            },
        },
    )
    return MinimaxDiTModel({**to_experiment(recipe, is_train=True, root=root).opt, 'dist': False})


def make_step(kind: str, args: argparse.Namespace, root: Path) -> Callable[[], Any]:
    """One training step of the plain loop (``plain``) or of ours in a precision."""
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    device, latent_px = torch.device(args.device), args.size_px // 8
    labels = torch.arange(args.batch, device=device) % NUM_LABELS
    if kind == 'plain':
        plain = PlainLoop(root / 'dit', device)
        pixels = torch.rand(args.batch, 3, args.size_px, args.size_px, device=device)
        return lambda: plain.step(pixels, labels)
    model = our_model(root / 'dit', root, kind, device, args.gradient_checkpointing)
    shape = (args.batch, 4, latent_px, latent_px)
    batch = {
        'latent': torch.randn(shape),
        'noise': torch.randn(shape),
        'label': labels.cpu(),
        'time': torch.rand(args.batch),
        'drop': torch.rand(args.batch),
    }

    def step() -> None:
        model.feed_data(batch)
        model.optimize_parameters(1)

    return step


def peak_memory_mib(kind: str, args: argparse.Namespace, root: Path) -> float:
    """Peak of two steps, MiB: of the GPU's memory, or growth of a fresh process."""
    before_mib = peak_mib()
    step = make_step(kind, args, root)
    step()
    step()
    if args.device != 'cpu':
        return torch.cuda.max_memory_allocated() / 2**20
    return peak_mib() - before_mib


def main() -> None:
    """Measure and print the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--size', choices=LAYERS_HEADS_WIDTH, default='S')
    parser.add_argument('--size_px', type=int, default=256)
    parser.add_argument('--batch', type=int, default=8)
    parser.add_argument('--rounds', type=int, default=3, help='steps timed of each kind, after one to warm up')
    parser.add_argument('--threads', type=int, default=1)
    parser.add_argument('--device', default='cpu')
    parser.add_argument('--precisions', nargs='+', default=['fp32', 'bf16'])
    parser.add_argument('--no_plain', action='store_true', help='leave the plain loop out')
    parser.add_argument('--gradient_checkpointing', action='store_true')
    parser.add_argument(
        '--peak_tflops', type=float, help='of the device in bf16, to print the share of it that is reached'
    )
    args = parser.parse_args()
    device, kinds = torch.device(args.device), [*([] if args.no_plain else ['plain']), *args.precisions]

    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        random_dit_folder(args.size, args.size_px, root / 'dit')
        with multiprocessing.get_context('spawn').Pool(1, maxtasksperchild=1) as pool:
            peak_mib = {kind: pool.apply(peak_memory_mib, (kind, args, root)) for kind in kinds}
        steps = {kind: make_step(kind, args, root) for kind in kinds}
        with FlopCounterMode(display=False) as flops:
            steps[kinds[-1]]()
        seconds: dict[str, list[tuple[float, float]]] = {kind: [] for kind in kinds}
        for number in range(args.rounds + 1):
            for kind, run in steps.items():
                elapsed = timed(run, device)
                if number:
                    seconds[kind].append(elapsed)

    wall, processor = (
        {kind: statistics.median(value[part] for value in values) for kind, values in seconds.items()}
        for part in (0, 1)
    )
    print(
        f'DiT-{args.size}/2, {args.size_px} px, batch {args.batch}, {args.threads} thread(s), {device}, '
        f'torch {torch.__version__}, {platform.machine()}'
    )
    for kind in kinds:
        print(f'{kind:>6}: {wall[kind]:8.3f} s wall, {processor[kind]:8.3f} s processor, peak {peak_mib[kind]:.0f} MiB')
    clock = wall if device.type == 'cuda' else processor
    for kind in kinds:
        print(f'RESULT {kind}_step_s={clock[kind]:.3f}')
        print(f'RESULT {kind}_peak_memory_mib={peak_mib[kind]:.0f}')
        if kind != 'plain':
            print(f'RESULT {kind}_samples_per_s={args.batch / clock[kind]:.2f}')
        if kind != 'plain' and not args.no_plain:
            print(f'RESULT {kind}_speedup={clock["plain"] / clock[kind]:.2f}')
    if args.peak_tflops:
        share = flops.get_total_flops() / clock[kinds[-1]] / (args.peak_tflops * 1e12)
        print(f'RESULT {kinds[-1]}_share_of_peak={share:.3f}')


if __name__ == '__main__':
    main()
