"""Time of drawing and decoding images against a plain loop, side by side on this machine.

    python scripts/benchmark_sampling.py                        # DiT-S/2, 256 px, CPU
    python scripts/benchmark_sampling.py --size XL --device cuda --batch 32

The plain loop does what the published code does: 50-step DDPM with guidance 4 on three of the four channels, one image
at a time, float32, and a float32 AutoencoderKL to decode. Ours draws batches with DPM-Solver++ and decodes with
AutoencoderKL or AutoencoderTiny. Weights are random: they cost as much time as trained ones. The two take turns, so
that other load on the machine meets both alike.
"""

import argparse
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from diffusers import AutoencoderKL, AutoencoderTiny
from measuring import peak_mib
from torch import Tensor

from basicsr_distill.archs.minimax_dit_arch import MinimaxDiT, build_dit
from basicsr_distill.config.sections.codecs import AutoencoderKlCodecOptions, AutoencoderTinyCodecOptions
from basicsr_distill.config.sections.dit import MinimaxDiTNetworkOptions, ScratchDiTOptions
from basicsr_distill.config.sections.sample import SamplerSettings
from basicsr_distill.diffusion.codec import build_codec
from basicsr_distill.diffusion.sampler import image_generator, sample_latents

NUM_LABELS = 7
DTYPES = {'fp32': torch.float32, 'bf16': torch.bfloat16}
PLAIN = SamplerSettings(scheduler='ddpm', num_steps=50, guidance_scale=4.0, guidance_channels=3)


def save_autoencoders(root: Path) -> None:
    """The architectures of stabilityai/sd-vae-ft-mse and madebyollin/taesd, with random weights, on disk."""
    AutoencoderKL(
        block_out_channels=(128, 256, 512, 512),
        down_block_types=['DownEncoderBlock2D'] * 4,
        up_block_types=['UpDecoderBlock2D'] * 4,
        layers_per_block=2,
        latent_channels=4,
    ).save_pretrained(root / 'kl')
    AutoencoderTiny().save_pretrained(root / 'tiny')


def images_per_call(
    network: MinimaxDiT,
    decode: Callable[[Tensor], Tensor],
    settings: SamplerSettings,
    batch: int,
    dtype: torch.dtype,
    device: torch.device,
) -> Callable[[], Tensor]:
    """A function that draws and decodes ``batch`` images."""
    shape = (network.in_channels, network.sample_size, network.sample_size)
    labels = torch.arange(batch, device=device) % NUM_LABELS

    def denoise(x_t: Tensor, timesteps: Tensor, labels: Tensor, drop_mask: Tensor | None = None) -> Tensor:
        return network(x_t.to(dtype), timesteps, labels, drop_mask)

    def draw() -> Tensor:
        generators = [image_generator(0, int(label), index) for index, label in enumerate(labels)]
        latents = sample_latents(denoise, labels, shape, generators, settings, network.learns_variance)
        with torch.inference_mode():
            return decode(latents).cpu()

    return draw


def main() -> None:
    """Measure and print the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--size', choices=['S', 'B', 'L', 'XL'], default='S')
    parser.add_argument('--size_px', type=int, default=256)
    parser.add_argument('--batch', type=int, default=4)
    parser.add_argument('--rounds', type=int, default=2, help='calls timed of each kind')
    parser.add_argument('--threads', type=int, default=1)
    parser.add_argument('--device', default='cpu')
    parser.add_argument('--guidance_interval', type=float, nargs=2, default=[0.1, 0.7])
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    device = torch.device(args.device)
    ours = SamplerSettings(
        scheduler='dpmsolver++',
        num_steps=20,
        guidance_scale=4.0,
        guidance_channels=3,
        guidance_interval=tuple(args.guidance_interval),
    )

    with tempfile.TemporaryDirectory() as folder:
        save_autoencoders(Path(folder))
        calls: dict[str, tuple[Callable[[], Tensor], int]] = {}
        for precision, dtype in DTYPES.items():
            scratch = ScratchDiTOptions(size=args.size, sample_size=args.size_px // 8)
            network = build_dit(MinimaxDiTNetworkOptions(num_labels=NUM_LABELS, from_scratch=scratch, tuning='full'))
            network = network.eval().to(device, dtype)
            codecs = {
                'kl': AutoencoderKlCodecOptions(pretrained=f'{folder}/kl', precision=precision),
                'tiny': AutoencoderTinyCodecOptions(pretrained=f'{folder}/tiny', precision=precision),
            }
            for name, options in codecs.items():
                codec = build_codec(options).to(device)
                if precision == 'fp32' and name == 'kl':
                    calls['plain'] = images_per_call(network, codec.decode, PLAIN, 1, dtype, device), 1
                calls[f'{precision}_{name}'] = (
                    images_per_call(network, codec.decode, ours, args.batch, dtype, device),
                    args.batch,
                )
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    clock = time.perf_counter if device.type == 'cuda' else time.process_time
    for number in range(args.rounds + (device.type == 'cuda')):
        for name, (draw, count) in calls.items():
            start = clock()
            draw()
            if number or device.type != 'cuda':
                seconds[name].append((clock() - start) / count)

    print(
        f'DiT-{args.size}/2, {args.size_px} px, batch {args.batch}, {args.threads} thread(s), {device}, '
        f'torch {torch.__version__}, {platform.machine()}'
    )
    median = {name: statistics.median(values) for name, values in seconds.items()}
    for name, value in median.items():
        print(f'RESULT {name}_s_per_image={value:.3f}')
    for name, value in median.items():
        if name != 'plain':
            print(f'RESULT {name}_speedup={median["plain"] / value:.2f}')
    peak = torch.cuda.max_memory_allocated() / 2**20 if device.type == 'cuda' else peak_mib()
    print(f'RESULT peak_memory_mib={peak:.0f}')


if __name__ == '__main__':
    main()
