"""What tests share beside fixtures."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from basicsr_distill.config.recipe import Recipe
from basicsr_distill.config.sections.base import Options
from basicsr_distill.config.sections.cluster import ClusterOptions
from basicsr_distill.config.sections.extract import ExtractOptions
from basicsr_distill.stages import cluster
from basicsr_distill.stages.extract import stage as extract

REPOSITORY = Path(__file__).parents[1]

# Limits of every filter of extract, which take a little from photographs.
EVERY_LIMIT: dict[str, Any] = {
    'source_filters': {
        'min_side': {'min': 96},
        'aspect': {'max': 4},
        'grey': {'min': 1},
        'blockiness': {'max': 'q95'},
        'upscaled': {'max': 1.2, 'reduce': True},
        'noise': {'max': 20},
    },
    'window_filters': {
        'flat': {'max': 0.9},
        'saturated': {'max': 0.5},
        'noise': {'max': 'q99'},
        'halftone': {'max': 20},
    },
}

CHROMIUM = next(filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))), None)
# A page, and nothing that would ask the network.
CHROMIUM_FLAGS = (
    '--headless',
    '--no-sandbox',
    '--disable-gpu',
    '--hide-scrollbars',
    '--no-first-run',
    '--disable-background-networking',
    '--disable-component-update',
    '--disable-sync',
    '--virtual-time-budget=5000',
)

# Environment variables that hold torch, its oneDNN and MKL, NumPy, its and SciPy's OpenBLAS and OpenCV to what another
# processor can do. (NumPy has called the same features by two names.)
PROCESSORS = {
    'AVX512': {
        'ATEN_CPU_CAPABILITY': 'avx512',
        'MKL_ENABLE_INSTRUCTIONS': 'AVX512',
        'ONEDNN_MAX_CPU_ISA': 'AVX512_CORE',
        'OPENBLAS_CORETYPE': 'SkylakeX',
    },
    'AVX2': {
        'ATEN_CPU_CAPABILITY': 'avx2',
        'MKL_ENABLE_INSTRUCTIONS': 'AVX2',
        'ONEDNN_MAX_CPU_ISA': 'AVX2',
        'OPENBLAS_CORETYPE': 'Haswell',
        'OPENCV_CPU_DISABLE': 'AVX512-SKX',
        'NPY_DISABLE_CPU_FEATURES': 'AVX512F AVX512CD AVX512_SKX X86_V4',
    },
    # MKL takes the way of processors that are not Intel's.
    'SSE4_2': {
        'ATEN_CPU_CAPABILITY': 'default',
        'MKL_CBWR': 'COMPATIBLE',
        'ONEDNN_MAX_CPU_ISA': 'SSE41',
        'OPENBLAS_CORETYPE': 'Nehalem',
        'OPENCV_CPU_DISABLE': 'AVX512-SKX,AVX2,AVX,FP16',
        'OPENCV_IPP': 'disabled',
        'NPY_DISABLE_CPU_FEATURES': 'AVX2 FMA3 AVX512F AVX512CD AVX512_SKX X86_V3 X86_V4',
    },
}


def save_rgb(path: Path, image: NDArray[np.uint8]) -> Path:
    """Write an RGB image, making its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image[..., ::-1])
    return path


def keys_of(model: type[Options], **given: Any) -> dict[str, Any]:
    """Arguments of a component whose defaults are in its section model."""
    return model(**given).model_dump(exclude={'type', 'pixel_codec'})


def stage_recipe(**sections: Any) -> Recipe:
    """A recipe of bound sections of stages."""
    stages = dict.fromkeys(('extract', 'cluster', 'select', 'sample', 'experiment')) | sections
    return Recipe(Path('recipe.yml'), {}, 'recipe', 4, **stages)


def run_extract(options: ExtractOptions) -> Path:
    """Run the extract stage; its folder."""
    return extract.run(stage_recipe(extract=options)).folder


def run_cluster(options: ClusterOptions, patches: Path) -> Path:
    """Run the cluster stage on a folder of patches; its folder."""
    made = ExtractOptions(dataroot='photos', save_dir=str(patches))
    return cluster.run(stage_recipe(extract=made, cluster=options)).folder


def torchrun(*arguments: object, ranks: int = 2, cwd: Path | None = None, **environment: str) -> None:
    """Run a script, or ``-m`` and a module, on several ranks of the CPU; all must end well."""
    launcher = ('-m', 'torch.distributed.run', f'--nproc_per_node={ranks}', '--standalone')
    own = {'PYTHONPATH': str(REPOSITORY), 'OMP_NUM_THREADS': '1', 'CUDA_VISIBLE_DEVICES': '', **environment}
    command = [sys.executable, *launcher, *map(str, arguments)]
    run = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=240, env={**os.environ, **own})
    assert run.returncode == 0, run.stderr[-3000:]


def on_ranks(ranks: int, work: Callable[[int], Any], folder: Path) -> list[Any]:
    """What ``work(rank)`` gives on each of several processes joined by gloo, on the CPU.

    The processes are forked, which saves their imports and lets ``work`` be any function.
    """
    context = torch.multiprocessing.get_context('fork')
    processes = [context.Process(target=_one_rank, args=(rank, ranks, work, folder)) for rank in range(ranks)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=120)
        if process.is_alive():
            process.kill()
    assert [process.exitcode for process in processes] == [0] * ranks
    return [torch.load(folder / f'rank{rank}.pt', weights_only=True) for rank in range(ranks)]


def _one_rank(rank: int, ranks: int, work: Callable[[int], Any], folder: Path) -> None:
    torch.set_num_threads(1)  # a forked process has no other threads of OpenMP
    torch.distributed.init_process_group('gloo', init_method=f'file://{folder}/store', rank=rank, world_size=ranks)
    torch.save(work(rank), folder / f'rank{rank}.pt')
    torch.distributed.destroy_process_group()
