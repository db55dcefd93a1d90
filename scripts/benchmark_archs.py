"""Time and memory of a training step of the SR networks, side by side on this machine.

    python scripts/benchmark_archs.py --archs SRFormer HiT_SRF

The networks take turns, so that other load on the machine meets all of them alike; the median step of each is reported,
in processor time (which other load hardly changes) and in wall time. Peak memory is the growth of the process over one
step, in a fresh process per network.
"""

import argparse
import multiprocessing
import os
import platform
import statistics
from collections.abc import Callable
from functools import partial

import torch
from measuring import peak_mib, timed
from torch import Tensor, nn

from basicsr_distill.archs.hit_arch import HiT_SIR, HiT_SNG, HiT_SRF
from basicsr_distill.archs.srformer_arch import SRFormer

NETWORKS: dict[str, Callable[..., nn.Module]] = {
    'SRFormer': SRFormer,
    'SRFormer_checkpointed': partial(SRFormer, use_checkpoint=True),
    'HiT_SIR': HiT_SIR,
    'HiT_SNG': HiT_SNG,
    'HiT_SRF': HiT_SRF,
}


def step(net: nn.Module, lr_images: Tensor) -> tuple[float, float]:
    """Forward and backward once; seconds of processor time and of wall time."""
    wall_s, cpu_s = timed(lambda: net(lr_images).abs().mean().backward())
    net.zero_grad(set_to_none=True)
    return cpu_s, wall_s


def peak_memory_mib(arch: str, shape: tuple[int, ...], threads: int) -> float:
    """Growth of the resident set over one step, in MiB; meant for a fresh process."""
    torch.set_num_threads(threads)
    net, lr_images = NETWORKS[arch](upscale=4), torch.rand(shape)
    step(net, lr_images[:1, :, :16, :16])  # what the libraries take once
    before_mib = peak_mib()
    step(net, lr_images)
    return peak_mib() - before_mib


def main() -> None:
    """Measure and print a table and the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--archs', nargs='+', choices=NETWORKS, default=list(NETWORKS), help='x4, light options')
    parser.add_argument('--batch', type=int, default=4)
    parser.add_argument('--size_px', type=int, default=64, help='side of the LR images')
    parser.add_argument('--rounds', type=int, default=5, help='steps timed per network, after one to warm up')
    parser.add_argument('--threads', type=int, default=1)
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    shape = (args.batch, 3, args.size_px, args.size_px)
    # First, while this process is small: a child inherits its parent's peak. With each tensor in a mapping of its own,
    # freed memory leaves the process at once; else glibc's fragmentation is measured too, up to several times as much.
    os.environ['MALLOC_MMAP_THRESHOLD_'] = '65536'
    with multiprocessing.get_context('spawn').Pool(1, maxtasksperchild=1) as pool:
        memory = {arch: pool.apply(peak_memory_mib, (arch, shape, args.threads)) for arch in args.archs}

    lr_images = torch.rand(shape)
    nets = {arch: NETWORKS[arch](upscale=4) for arch in args.archs}
    steps: dict[str, list[tuple[float, float]]] = {arch: [] for arch in args.archs}
    for net in nets.values():
        step(net, lr_images)
    for _ in range(args.rounds):
        for arch, net in nets.items():
            steps[arch].append(step(net, lr_images))
    cpu_s, wall_s = ({arch: statistics.median(s[i] for s in steps[arch]) for arch in args.archs} for i in (0, 1))

    print(f'{platform.machine()}, torch {torch.__version__}, {args.threads} thread(s), LR {shape}, forward + backward')
    reference = args.archs[0]
    print(f'| network | CPU s | over {reference} | wall s | peak MiB |\n| --- | --- | --- | --- | --- |')
    for arch in args.archs:
        ratio = cpu_s[arch] / cpu_s[reference]
        print(f'| {arch} | {cpu_s[arch]:.2f} | {ratio:.2f} | {wall_s[arch]:.2f} | {memory[arch]:.0f} |')
    for arch in args.archs:
        print(f'RESULT {arch}_step_cpu_s={cpu_s[arch]:.3f}')
        print(f'RESULT {arch}_peak_mib={memory[arch]:.0f}')
        print(f'RESULT {arch}_over_{reference}={cpu_s[arch] / cpu_s[reference]:.3f}')


if __name__ == '__main__':
    main()
