"""A whole recipe in small: four stages, skipping, resuming, refusing."""

import hashlib
import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml
from basicsr.utils.matlab_functions import imresize
from numpy.typing import NDArray
from support import REPOSITORY, save_rgb

from basicsr_distill.config.recipe import Recipe
from basicsr_distill.errors import InputError
from basicsr_distill.io.manifest import SampleRow, read_table
from basicsr_distill.stages.pipeline import distill

STAGES = ('extract', 'cluster', 'finetune', 'sample')


def recipe() -> dict[str, Any]:
    return {
        'extract': {
            'dataroot': 'photos',
            'save_dir': 'out/patches',
            'patch_size': 64,
            'stride': 32,
            'threshold': 'q80',
        },
        'cluster': {'encoder': {'type': 'texture'}, 'num_clusters': 2, 'save_dir': 'out/clusters'},
        'sample': {
            'images_per_cluster': 2,
            'save_dir': 'out/distilled',
            'num_steps': 4,
            'guidance_scale': 1.5,
            'init': {'type': 'prototype', 'strength': 0.3},
        },
        'name': 'tiny',
        'model_type': 'MinimaxDiTModel',
        'num_gpu': 0,
        'manual_seed': 0,
        'scale': 4,
        'datasets': {
            'train': {
                'name': 'latents',
                'type': 'LatentPatchDataset',
                'dataroot': 'out/patches',
                'labels_file': 'out/clusters/labels.csv',
                'codec': {'type': 'block_pca', 'block_px': 8, 'components': 8},
                'batch_size_per_gpu': 4,
            }
        },
        'network_g': {
            'type': 'MinimaxDiT',
            'num_labels': 2,
            'tuning': 'full',
            'from_scratch': {
                'num_layers': 1,
                'num_attention_heads': 2,
                'attention_head_dim': 8,
                'patch_size': 2,
                'in_channels': 8,
                'sample_size': 8,
            },
        },
        'train': {
            'total_iter': 6,
            'optim_g': {'type': 'AdamW', 'lr': 1e-3, 'weight_decay': 0},
            'scheduler': {'type': 'MultiStepLR', 'milestones': [100]},
            'representativeness_opt': {},
            'diversity_opt': {},
            'high_frequency_opt': {},
        },
        'logger': {'print_freq': 2, 'save_checkpoint_freq': 3},
    }


@pytest.fixture
def in_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, astronaut: NDArray[np.uint8], chelsea: NDArray[np.uint8]
) -> Path:
    save_rgb(tmp_path / 'photos' / 'astronaut.png', astronaut[:192, 160:352])
    save_rgb(tmp_path / 'photos' / 'chelsea.png', chelsea[:192, :192])
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(options: dict[str, Any]) -> Path:
    path = Path('recipe.yml')
    path.write_text(yaml.safe_dump(options))
    return path


def digests(folder: str) -> dict[str, str]:
    return {
        str(path): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(Path(folder).rglob('*'))
        if path.is_file()
    }


def test_four_stages_leave_a_native_distilled_set(in_folder: Path) -> None:
    distill(Recipe.load(write(recipe())), STAGES)
    rows = read_table(Path('out/distilled/manifest.csv'), SampleRow)
    assert [(row.label, row.index) for row in rows] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert Path('out/distilled/meta_info.txt').read_text() == ''.join(f'{row.name} (64,64,3)\n' for row in rows)
    for row in rows:
        hr = cv2.imread(f'out/distilled/HR/{row.name}')
        lr = cv2.imread(f'out/distilled/LR_bicubic/X4/{row.name}')
        assert hr.shape == (64, 64, 3)
        assert np.abs(lr - (imresize(hr / 255.0, 1 / 4) * 255).clip(0, 255)).max() < 0.51
    for name in ('README.md', 'stage.json'):
        assert Path('out/distilled', name).is_file()
    before = digests('out')
    weights = digests('experiments')
    distill(Recipe.load(Path('recipe.yml')), STAGES)
    assert digests('out') == before and digests('experiments') == weights


def test_the_set_depends_on_seeds_alone(in_folder: Path) -> None:
    distill(Recipe.load(write(recipe())), STAGES)
    first = digests('out/distilled')
    for folder in ('out', 'experiments'):
        Path(folder).rename(f'first_{folder}')
    options = recipe()
    options['datasets']['train']['num_worker_per_gpu'] = 2
    distill(Recipe.load(write(options)), STAGES)
    second = digests('out/distilled')
    assert {name: digest for name, digest in first.items() if name.endswith('.png')} == {
        name: digest for name, digest in second.items() if name.endswith('.png')
    }


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda o: o['extract'].update(treshold=3), r"extract: unknown key 'treshold'; did you mean 'threshold'"),
        (lambda o: o['sample']['init'].update(strenght=0.2), r"did you mean 'strength'"),
        (lambda o: o['network_g'].update(tunning='full'), r"network_g: unknown key 'tunning'; did you mean 'tuning'"),
        (lambda o: o['train']['diversity_opt'].update(wheight=1), r'train: unknown key .*diversity_opt'),
        (lambda o: o.update(extrakt=o.pop('extract')), r"unknown key 'extrakt'; did you mean 'extract'"),
        (lambda o: o['extract'].update(dataroot='nothing'), 'nothing'),
        (
            lambda o: o['extract'].update(save_dir='mine/patches'),
            r'datasets\.train\.dataroot: is out/patches, but .* mine/patches',
        ),
        (lambda o: o['sample'].update(scale=2), r'extract\.scale is 4, sample\.scale is 2'),
    ],
)
def test_every_section_is_checked_before_the_first_stage(in_folder: Path, change: Any, message: str) -> None:
    options = recipe()
    change(options)
    with pytest.raises(InputError, match=message):
        distill(Recipe.load(write(options)), STAGES)
    assert not Path('out/patches/images').exists()


def test_changed_options_are_refused_with_the_difference(in_folder: Path) -> None:
    distill(Recipe.load(write(recipe())), ('extract', 'cluster'))
    options = recipe()
    options['extract']['threshold'] = 'median'
    with pytest.raises(InputError, match=r"options\.threshold: was 'q80', now 'median'"):
        distill(Recipe.load(write(options)), STAGES)


def test_the_recipe_is_an_option_file_of_basicsr_train(in_folder: Path) -> None:
    distill(Recipe.load(write(recipe())), ('extract', 'cluster'))
    result = subprocess.run(
        [sys.executable, '-m', 'basicsr_distill', 'train', '-opt', 'recipe.yml'], capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    assert Path('experiments/tiny/models/net_g_latest.pth').is_file()


def test_a_checkpoint_trained_further_is_not_taken_for_the_recipe(in_folder: Path) -> None:
    path = write(recipe())
    distill(Recipe.load(path), ('extract', 'cluster', 'finetune'))
    weights = Path('experiments/tiny/models/net_g_latest.pth')
    weights.write_bytes(weights.read_bytes() + b' ')
    with pytest.raises(InputError, match='was changed after the stage finished'):
        distill(Recipe.load(path), ('finetune',))


def test_labels_outside_the_table_are_refused_before_the_patches_are_encoded(in_folder: Path) -> None:
    options = recipe()
    options['network_g']['num_labels'] = 1
    with pytest.raises(InputError, match='leave num_labels out'):
        distill(Recipe.load(write(options)), STAGES)
    assert not list(Path('experiments').rglob('*.npy'))


def test_a_recipe_of_stages_alone_runs_those_it_has(in_folder: Path) -> None:
    options = {key: value for key, value in recipe().items() if key in ('extract', 'cluster', 'name', 'scale')}
    distill(Recipe.load(write({**options, 'sample': None})))
    assert Path('out/patches/stage.json').is_file() and Path('out/clusters/stage.json').is_file()
    assert not Path('experiments').exists()


def test_a_misspelt_key_of_basicsr_is_found_before_the_first_stage(in_folder: Path) -> None:
    options = recipe()
    options['train']['optim_g']['weight_decai'] = 0
    with pytest.raises(InputError, match="AdamW takes no key 'weight_decai'; did you mean 'weight_decay'"):
        distill(Recipe.load(write(options)))
    assert not Path('out').exists()


def launcher_lines() -> list[str]:
    """What README and docs ask people to type on several ranks."""
    texts = [
        path.read_text(encoding='utf-8')
        for path in (REPOSITORY / 'README.md', *sorted((REPOSITORY / 'docs').glob('*.md')))
    ]
    lines = [line for text in texts for line in re.findall(r'torchrun [^`\n]+', text)]
    assert lines
    return sorted(set(lines))


@pytest.mark.long
@pytest.mark.parametrize('line', launcher_lines())
def test_the_lines_for_several_ranks_end_in_0_on_a_fresh_recipe(in_folder: Path, line: str) -> None:
    """Also by the older launcher, which puts --local-rank before the command; there, every stage is done."""
    write(recipe())
    Path('basicsr').write_text('import sys\nfrom basicsr_distill.cli import main\nsys.exit(main())\n')
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        port = probe.getsockname()[1]
    arguments = re.sub(
        r'--nproc_per_node=\d+', f'--nproc_per_node=2 --master_port={port}', line.removeprefix('torchrun ')
    )
    arguments = re.sub(r'-opt \S+', '-opt recipe.yml', arguments.replace('$(which basicsr)', 'basicsr'))
    environment = {**os.environ, 'PYTHONPATH': str(REPOSITORY), 'CUDA_VISIBLE_DEVICES': ''}
    for module, expected in (('run', 'images kept 4 (0:'), ('launch', 'images kept 4 (done before)')):
        result = subprocess.run(
            [sys.executable, '-m', f'torch.distributed.{module}', *arguments.split()],
            env=environment,
            capture_output=True,
            text=True,
        )
        assert result.returncode == 0, result.stderr[-3000:]
        stages = [text for text in result.stderr.splitlines() if text.split()[:1] in ([stage] for stage in STAGES)]
        assert len(stages) == 4 and expected in stages[-1], result.stderr
        assert 'network_g:[' not in result.stderr, 'the options go to the log file alone'
    assert 'network_g:[' in next(Path('experiments/tiny').glob('train_*.log')).read_text()
