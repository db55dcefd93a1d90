"""Weights, states, tables and option files from outside, at every place that a command reads: refused, and not run."""

import csv
import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from dying import run
from small_project import COMMANDS, distill, make_project, run_all

from basicsr_distill.stages.record import STAGE_NAME, STARTED_NAME

pytestmark = pytest.mark.long  # only `bash scripts/test.sh --all` and CI run it

CANARY = 'canary'


class Trap:
    """Unpickled carelessly, it breaks into the cage."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return shutil.rmtree, (str(self.canary),)


def checkpoint(canary: Path) -> bytes:
    """What torch < 1.6 wrote: a bare pickle."""
    return pickle.dumps({'params': Trap(canary), 'iter': 5, 'optimizers': [], 'schedulers': []})


def archive(canary: Path) -> bytes:
    """What torch writes today: a zip that holds a pickle."""
    import io

    import torch

    buffer = io.BytesIO()
    torch.save({'params': Trap(canary), 'iter': 5, 'optimizers': [], 'schedulers': []}, buffer)
    return buffer.getvalue()


def array(canary: Path) -> bytes:
    """An array of objects, which numpy pickles."""
    import io

    buffer = io.BytesIO()
    np.save(buffer, np.array([Trap(canary)], dtype=object), allow_pickle=True)
    return buffer.getvalue()


def arrays(canary: Path) -> bytes:
    """The same as ``.npz``."""
    import io

    buffer = io.BytesIO()
    np.savez(buffer, features=np.array([Trap(canary)], dtype=object), start=np.array([Trap(canary)], dtype=object))
    return buffer.getvalue()


def table(canary: Path) -> bytes:
    """Names that climb out of the folder, and what a spreadsheet would run."""
    return (
        f'name,label,index,seed,checkpoint,guidance_scale,init,metric,psnr_db\n'
        f"../../{canary.name},0,0,0,x,1,,matlab_rgb,20\n=cmd|'/c calc'!A1,1,0,0,x,1,,matlab_rgb,20\n"
    ).encode()


def document(canary: Path) -> bytes:
    """YAML that would call a function."""
    return f'name: !!python/object/apply:shutil.rmtree ["{canary}"]\n'.encode()


def text(canary: Path) -> bytes:
    """No JSON."""
    return b'{"stage": __import__("shutil")'


def ready(folder: Path) -> Path:
    """A project in which everything has run, and its canary beside it."""
    folder.mkdir()
    make_project(folder)
    for before, command, _ in COMMANDS.values():
        run_all(folder, *before, command)
    return folder


@pytest.fixture(scope='module')
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project in which everything has run."""
    return ready(tmp_path_factory.mktemp('hostile') / 'project')


# A finetune stage that was killed before its first checkpoint.
UNFINISHED = ['experiments/tiny/models', 'experiments/tiny/training_states', 'experiments/tiny/stage.json']
# What is replaced, by what, what is removed so that it is read again, and the command.
PLACES: dict[str, tuple[str, Callable[[Path], bytes], list[str], list[str]]] = {
    'test, weights': ('experiments/sr/models/net_g_latest.pth', checkpoint, [], COMMANDS['test'][1]),
    'test, zipped weights': ('experiments/sr/models/net_g_latest.pth', archive, [], COMMANDS['test'][1]),
    'train, pretrained': (
        'start.pth',
        archive,
        ['experiments/sr'],
        ['train', '-opt', 'train.yml', '--force_yml', 'path:pretrain_network_g=start.pth'],
    ),
    'train, state': (
        'start.state',
        checkpoint,
        [],
        ['train', '-opt', 'train.yml', '--force_yml', 'path:resume_state=start.state'],
    ),
    'train, options': ('train.yml', document, [], COMMANDS['train'][1]),
    'test, options': ('test.yml', document, [], COMMANDS['test'][1]),
    'distill, options': ('recipe.yml', document, [], distill('extract')),
    'benchmark, options': ('benchmark.yml', document, [], ['benchmark', '-opt', 'benchmark.yml']),
    'benchmark, network': ('train.yml', document, [], ['benchmark', '-opt', 'benchmark.yml']),
    'benchmark, recipe': ('recipe.yml', document, [], ['benchmark', '-opt', 'benchmark.yml']),
    'extract, record': ('out/patches/stage.json', text, [], distill('extract')),
    'cluster, patches': ('out/patches/manifest.csv', table, ['out/clusters'], distill('cluster')),
    'cluster, record': ('out/patches/stage.json', text, ['out/clusters'], distill('cluster')),
    'select, features': ('out/clusters/features.npy', array, ['out/medoids'], distill('select')),
    'select, labels': ('out/clusters/labels.csv', table, ['out/medoids'], distill('select')),
    'select, scores': (
        'scores.csv',
        table,
        ['out/medoids'],
        [
            *distill('select'),
            '--force_yml',
            'select:method=file',
            'select:scores={path: scores.csv, score_column: psnr_db}',
        ],
    ),
    'finetune, labels': ('out/clusters/labels.csv', table, ['experiments/tiny'], distill('finetune')),
    'finetune, latents': ('experiments/tiny/latents/patches/00000.npy', array, UNFINISHED, distill('finetune')),
    'finetune, their record': ('experiments/tiny/latents/patches/latents.json', text, UNFINISHED, distill('finetune')),
    'sample, weights': ('experiments/tiny/models/net_g_latest.pth', archive, ['out/set'], distill('sample')),
    'sample, codec': ('experiments/tiny/latents/codec.safetensors', checkpoint, ['out/set'], distill('sample')),
    'gsdd, weights': (
        'experiments/tiny_gsdd/models/net_g_latest.pth',
        checkpoint,
        ['out/gsdd'],
        distill('sample', 'gsdd.yml'),
    ),
    'train, list of images': (
        'out/set/manifest.csv',
        table,
        ['experiments/sr'],
        [
            'train',
            '-opt',
            'train.yml',
            '--force_yml',
            'datasets:train:dataroot_gt=out/set',
            'datasets:train:num_images=3',
        ],
    ),
}


@pytest.mark.parametrize('place', PLACES)
def test_refused_in_one_sentence_and_not_run(place: str, finished: Path, tmp_path: Path) -> None:
    name, content, removed, command = PLACES[place]
    project, canary = tmp_path / 'project', tmp_path / CANARY
    shutil.copytree(finished, project)
    canary.mkdir()
    for path in removed:
        target = project / path
        if target.name == STAGE_NAME:
            record = json.loads(target.read_text())
            header = {key: record[key] for key in ('stage', 'options', 'inputs')}
            target.with_name(STARTED_NAME).write_text(json.dumps(header))
        shutil.rmtree(target) if target.is_dir() else target.unlink()
    (project / name).write_bytes(content(canary))
    code, output = run(project, *command)
    said = [line for line in output.splitlines() if line.startswith('basicsr: ')]
    assert canary.is_dir(), 'it was run'
    assert code == 2 and len(said) == 1 and 'Traceback' not in output, output
    assert any(part in said[0] for part in Path(name).parts[-2:])


@pytest.mark.parametrize('content', [checkpoint, archive])
def test_hostile_checkpoints_are_passed_over(content: Callable[[Path], bytes], finished: Path, tmp_path: Path) -> None:
    """``--auto_resume`` and the finetune stage take the newest that is whole."""
    project, canary = tmp_path / 'project', tmp_path / CANARY
    shutil.copytree(finished, project)
    canary.mkdir()
    states = project / 'experiments' / 'sr' / 'training_states'
    (states / '30.state').write_bytes(content(canary))
    (project / 'experiments' / 'sr' / 'models' / 'net_g_latest.pth').unlink()
    code, output = run(project, *COMMANDS['train'][1])
    assert code == 0 and '30.state is damaged' in output and 'Resuming training from iteration 25.' in output, output
    assert canary.is_dir()


def test_parts_of_features_are_read_without_pickle(finished: Path, tmp_path: Path) -> None:
    """What an interrupted cluster stage left is made again when it holds objects."""
    project, canary = tmp_path / 'project', tmp_path / CANARY
    shutil.copytree(finished, project)
    canary.mkdir()
    expected = (project / 'out/clusters/labels.csv').read_bytes()
    (project / 'out/clusters/stage.json').unlink()
    parts = project / 'out/clusters/.parts'
    parts.mkdir(exist_ok=True)
    for number in range(3):
        (parts / f'{number:05d}.npz').write_bytes(arrays(canary))
    code, output = run(project, *distill('cluster'))
    assert canary.is_dir() and code in (0, 2), output
    if code == 0:
        assert (project / 'out/clusters/labels.csv').read_bytes() == expected


def test_tables_that_we_write_start_no_formula(finished: Path) -> None:
    for path in finished.rglob('*.csv'):
        with path.open(newline='') as file:
            assert not [cell for row in csv.reader(file) for cell in row if cell[:1] in ('=', '@', '\t')]


def test_every_place_has_its_document() -> None:
    """The traps do what they are feared for, where nobody takes care."""
    assert yaml.unsafe_load('x: !!python/object/apply:os.path.basename ["/a/b"]') == {'x': 'b'}
    with pytest.raises(json.JSONDecodeError):
        json.loads(text(Path('x')))


@pytest.mark.parametrize('content', [checkpoint, archive, array])
def test_the_traps_work_when_read_carelessly(content: Callable[[Path], bytes], tmp_path: Path) -> None:
    import io

    import torch

    canary = tmp_path / CANARY
    canary.mkdir()
    stream = io.BytesIO(content(canary))
    if content is checkpoint:
        pickle.loads(stream.read())
    elif content is archive:
        torch.load(stream, weights_only=False)
    else:
        np.load(stream, allow_pickle=True)
    assert not canary.exists()
