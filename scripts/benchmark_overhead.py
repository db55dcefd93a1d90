#!/usr/bin/env python3
"""What reliability costs: stages without locks and fsync, and BasicSR's own training loop, in the same run.

Each measurement is a process of its own, forked when everything is imported; the two of a pair take turns. Of a
training it is the processor time between two lengths, so that neither start nor last checkpoint counts. Prints
``RESULT``: times (median of the rounds) and ratios; of a ratio, time without over time with.
"""

import argparse
import contextlib
import multiprocessing
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import skimage
import torch
import yaml

import basicsr_distill
from basicsr_distill.cli import main as basicsr
from basicsr_distill.config.yaml_files import load_option_file

REPOSITORY = Path(__file__).resolve().parents[1]
OWN = Path(basicsr_distill.__file__).parent / 'photos'
THEIRS = Path(skimage.__file__).parent / 'data'
KINDS = ('extract', 'finetune', 'train')
_FORK = multiprocessing.get_context('fork')


@contextlib.contextmanager
def careless() -> Iterator[None]:
    """No lock is taken, and nothing waits for the disk."""

    @contextlib.contextmanager
    def unlocked(*given: object, **more: object) -> Iterator[None]:
        Path(given[1]).mkdir(parents=True, exist_ok=True)  # type: ignore[arg-type]
        yield

    with (
        mock.patch('basicsr_distill.io.locks.locked', unlocked),
        mock.patch('basicsr_distill.training.run.locked', unlocked),
        mock.patch('os.fsync', lambda file: None),
    ):
        yield


def seconds(work: Callable[[], object], clock: Callable[[], float] = time.perf_counter) -> float:
    """Time of work in a process of its own."""

    def timed(pipe: object) -> None:
        torch.set_num_threads(1)
        with open(os.devnull, 'w') as nothing:
            os.dup2(nothing.fileno(), 1)
            os.dup2(nothing.fileno(), 2)
        started = clock()
        work()
        pipe.send(clock() - started)  # type: ignore[attr-defined]

    ours, theirs = _FORK.Pipe(duplex=False)
    process = _FORK.Process(target=timed, args=(theirs,))
    process.start()
    process.join()
    if process.exitcode or not ours.poll():
        sys.exit(f'a measurement ended with {process.exitcode}')
    return float(ours.recv())


def command(*arguments: str) -> None:
    """A ``basicsr`` command; ends the process where it fails."""
    if code := basicsr(arguments):
        os._exit(code)


def write(name: str, options: dict[str, object]) -> str:
    """An option file in the working folder."""
    Path(name).write_text(yaml.safe_dump(options), encoding='utf-8')
    return name


def prepare(iterations: int) -> None:
    """Photographs, the demo's recipe with a short training, and the demo's EDSR on the photographs."""
    for split in ('train', 'test'):
        Path('demo', 'photos', split).mkdir(parents=True)
    for photo in (*OWN.glob('*.jpg'), THEIRS / 'astronaut.png', THEIRS / 'coffee.png'):
        shutil.copyfile(photo, Path('demo', 'photos', 'train', photo.name))
    recipe = load_option_file(REPOSITORY / 'options' / 'distill' / 'demo.yml')
    recipe['extract']['stride'] = 32
    recipe['train'].update(total_iter=iterations)
    recipe['train']['scheduler']['periods'] = [iterations]
    recipe['logger']['save_checkpoint_freq'] = max(1, iterations // 4)
    write('recipe.yml', recipe)


def stage(name: str, with_care: bool, folder: Path) -> float:
    """A stage of the recipe, made anew."""
    made = {'extract': 'datasets/demo/patches', 'finetune': 'experiments/demo'}[name]
    shutil.rmtree(folder / made, ignore_errors=True)
    with contextlib.nullcontext() if with_care else careless():
        return seconds(lambda: command('distill', '-opt', 'recipe.yml', '--stage', name))


def training(total_iter: int, ours: bool) -> float:
    """A training of the demo's EDSR, by our command or by BasicSR's own."""
    options = load_option_file(REPOSITORY / 'options' / 'train' / 'EDSR' / 'train_EDSR_x4_demo.yml')
    name = f'{"ours" if ours else "theirs"}_{total_iter}'
    options.update(name=name, num_gpu=0)
    options['datasets']['train'].update(
        dataroot_gt='datasets/demo/patches',
        io_backend={'type': 'disk'},
        use_shuffle=True,
        dataset_enlarge_ratio=1,
        prefetch_mode=None,
    )
    options['train'].update(total_iter=total_iter, warmup_iter=-1)
    options['train']['scheduler']['periods'] = [total_iter]
    options['path'] = {'pretrain_network_g': None, 'strict_load_g': True, 'resume_state': None}
    options['logger'] = {'print_freq': 100, 'save_checkpoint_freq': 10**6, 'use_tb_logger': False, 'wandb': None}
    options['dist_params'] = {'backend': 'gloo', 'port': 29500}
    file = write(f'{name}.yml', options)
    shutil.rmtree(Path('experiments', name), ignore_errors=True)

    def theirs() -> None:
        from basicsr.train import train_pipeline

        sys.argv = ['train.py', '-opt', file]
        train_pipeline(os.getcwd())

    # Nothing waits for the disk here, and other load hardly changes processor time.
    return seconds((lambda: command('train', '-opt', file)) if ours else theirs, time.process_time)


def report(name: str, with_s: list[float], without_s: list[float], what: str) -> None:
    """Medians, and the ratio of them."""
    print(f'RESULT {name}_s={statistics.median(with_s):.3f}')
    print(f'RESULT {name}_{what}_s={statistics.median(without_s):.3f}')
    print(f'RESULT {name}_ratio={statistics.median(without_s) / statistics.median(with_s):.3f}', flush=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--kinds', nargs='+', choices=KINDS, default=list(KINDS))
    parser.add_argument('--rounds', type=int, default=5)
    parser.add_argument('--iterations', type=int, default=200, help='of a training, beyond a few')
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        prepare(args.iterations)
        command('distill', '-opt', 'recipe.yml', '--stage', 'extract', 'cluster')
        for name in [kind for kind in KINDS[:2] if kind in args.kinds]:
            times: dict[bool, list[float]] = {True: [], False: []}
            for number in range(args.rounds):
                for with_care in (True, False) if number % 2 else (False, True):
                    times[with_care].append(stage(name, with_care, Path(folder)))
            report(name, times[True], times[False], 'careless')
        if 'train' not in args.kinds:
            return
        few = max(2, args.iterations // 10)
        times = {True: [], False: []}
        for number in range(args.rounds):
            for ours in (True, False) if number % 2 else (False, True):
                times[ours].append(training(few + args.iterations, ours) - training(few, ours))
        report('train', times[True], times[False], 'basicsr')


if __name__ == '__main__':
    main()
