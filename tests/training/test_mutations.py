"""Option files with something wrong in them: each runs, or is refused in one sentence and makes no folder."""

import logging
import os
import random
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from published_configurations import CONFIGURATIONS
from sr_experiments import SlimVgg19, make_surroundings, save_slim_vgg19, shrink, write_options
from support import REPOSITORY

from basicsr_distill.cli import main
from basicsr_distill.config.yaml_files import read_option_file

FILES = (
    'options/train/EDSR/train_EDSR_Mx4_DIV2K.yml',
    'options/train/RCAN/train_RCAN_x4_distilled.yml',
    'options/train/SwinIR/train_SwinIR_x4_distilled.yml',
    'options/train/HiT_SR/train_HiT_SRF_x4_DIV2K.yml',
    'options/train/RealESRGAN/train_RealESRGAN_x4_distilled.yml',
    'options/train/RealSR/train_RealSR_x4_DIV2K.yml',
    'options/test/SRFormer/test_SRFormer_light_x4.yml',
    'options/test/EDSR/test_EDSR_Mx4.yml',
    'train_EDSR_Mx4.yml',
    'finetune_realesrgan_x4plus_pairdata.yml',
)
MUTATIONS_PER_FILE = int(os.environ.get('MUTATIONS_PER_FILE', '5'))


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every key of an option file, sections and values alike."""
    if isinstance(value, dict):
        for key, entry in value.items():
            yield (*path, key)
            yield from places(entry, (*path, key))


def retyped(value: Any) -> Any:
    if isinstance(value, bool):
        return 'perhaps'
    if isinstance(value, (int, float, dict)):
        return 'word'
    return 7 if isinstance(value, str) else 3


def mutate(options: dict[str, Any], dice: random.Random) -> str:
    """Change one thing in place; what was changed, in words."""
    *parents, leaf = dice.choice(list(places(options)))
    section = options
    for key in parents:
        section = section[key]
    kinds = ['drop', 'rename', 'retype'] + (['path'] if isinstance(section[leaf], str) and '/' in section[leaf] else [])
    kind = dice.choice(kinds)
    where = '.'.join(map(str, (*parents, leaf)))
    if kind == 'drop':
        del section[leaf]
    elif kind == 'rename':
        section[f'{leaf}x'] = section.pop(leaf)
    elif kind == 'retype':
        section[leaf] = retyped(section[leaf])
    else:
        section[leaf] = f'no{section[leaf]}'
    return f'{kind} {where}'


@pytest.fixture(scope='module')
def surroundings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Data and weights of each file, made once."""
    before = os.getcwd()
    roots = {file: tmp_path_factory.mktemp(Path(file).stem) for file in FILES}
    try:
        for file, root in roots.items():
            os.chdir(root)
            save_slim_vgg19()
            make_surroundings(small(file))
    finally:
        os.chdir(before)
    return roots


def small(file: str) -> dict[str, Any]:
    published = CONFIGURATIONS.get(file)
    options = shrink(deepcopy(published) if published else read_option_file(REPOSITORY / file))
    if 'train' in options:
        options['train']['total_iter'] = 1
        options['val']['val_freq'] = 1
    if (val := options.get('val')) and (metrics := val.get('metrics')):
        metrics.pop('lpips', None)
    for phase in list(options['datasets'])[2:]:  # six sets are tested alike
        del options['datasets'][phase]
    return options


@pytest.mark.parametrize('number', range(MUTATIONS_PER_FILE))
@pytest.mark.parametrize('file', FILES, ids=[Path(file).stem for file in FILES])
def test_a_mutation_runs_or_is_refused_in_one_sentence(
    file: str,
    number: int,
    surroundings: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    root = surroundings[file]
    monkeypatch.chdir(root)
    monkeypatch.setattr('torchvision.models.vgg.vgg19', SlimVgg19)
    options = small(file)
    options['name'] += f'_{number}'
    command = 'train' if 'train' in options else 'test'
    change = mutate(options, random.Random(f'{file} {number}'))
    option_file = write_options(Path('x.yml'), options)
    before = sorted(root.rglob('*'))
    capsys.readouterr()
    code = main([command, '-opt', str(option_file)])
    err = capsys.readouterr().err
    lines = [line for line in err.splitlines() if line.startswith('basicsr: ')]
    assert 'Traceback' not in err
    if code == 2:
        assert len(lines) == 1, change
        assert sorted(root.rglob('*')) == before, f'{change}: {lines[0]}'
    else:
        assert code == 0, change
    logging.getLogger('basicsr').handlers.clear()
