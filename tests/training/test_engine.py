"""Training and testing through option files, in this process."""

import json
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from basicsr.archs.edsr_arch import EDSR
from basicsr.models.sr_model import SRModel
from basicsr.utils import tensor2img
from skimage.metrics import peak_signal_noise_ratio
from sr_experiments import (
    TINY_EDSR,
    load_state,
    log_text,
    train_here,
    train_options,
    validated,
    write_options,
)

from basicsr_distill.config.experiment import to_experiment
from basicsr_distill.config.recipe import Recipe
from basicsr_distill.config.yaml_files import read_option_file
from basicsr_distill.errors import InputError
from basicsr_distill.io.locks import locked
from basicsr_distill.ops.bicubic import make_lr
from basicsr_distill.training import test as test_loop
from basicsr_distill.training import train as train_loop


def train(path: Path, auto_resume: bool = False) -> None:
    train_loop.train(to_experiment(Recipe.load(path), is_train=True, root=Path.cwd(), auto_resume=auto_resume))


def run_test(path: Path) -> None:
    test_loop.test(to_experiment(Recipe.load(path), is_train=False, root=Path.cwd()))


@pytest.fixture(autouse=True)
def _in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def weights(name: str, iteration: int | str = 'latest') -> dict[str, torch.Tensor]:
    return torch.load(f'experiments/{name}/models/net_g_{iteration}.pth', weights_only=True)['params_ema']


def assert_same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    assert first.keys() == second.keys()
    for key, value in first.items():
        assert torch.equal(value, second[key]), key


def test_small_sets_train_for_exactly_total_iter(hr_folder: Path, tmp_path: Path) -> None:
    """8 images in batches of 3: BasicSR's own loop ends at iteration 8 of 12."""
    train(write_options(tmp_path / 'x.yml', train_options(hr_folder)))
    state = torch.load('experiments/tiny/training_states/12.state', weights_only=True)
    assert state['iter'] == 12
    assert next(iter(state['optimizers'][0]['state'].values()))['step'] == 12
    assert_same(weights('tiny'), weights('tiny', 12))


def test_resume_continues_the_interrupted_stream(hr_folder: Path, tmp_path: Path) -> None:
    train(write_options(tmp_path / 'whole.yml', train_options(hr_folder, 'whole')))
    half = train_options(hr_folder, 'half', total_iter=12)
    path = write_options(tmp_path / 'half.yml', half)
    train(path)
    folder = Path('experiments/half')
    for stale in ('models/net_g_12.pth', 'models/net_g_latest.pth', 'training_states/12.state', 'models/net_g_10.pth'):
        (folder / stale).unlink()
    # Iteration 10 is as a crash leaves it: a state without its network. 5 is the newest that is whole.
    train(path, auto_resume=True)
    assert_same(weights('half'), weights('whole'))


def test_finished_training_is_not_repeated(hr_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_options(tmp_path / 'x.yml', train_options(hr_folder, total_iter=2))
    train(path)
    before = Path('experiments/tiny/models/net_g_latest.pth').stat().st_mtime_ns
    train(path, auto_resume=True)
    assert 'already trained for 2 iterations' in capsys.readouterr().out
    assert Path('experiments/tiny/models/net_g_latest.pth').stat().st_mtime_ns == before


def test_a_fresh_start_moves_the_earlier_experiment_aside(hr_folder: Path, tmp_path: Path) -> None:
    path = write_options(tmp_path / 'x.yml', train_options(hr_folder, total_iter=2))
    train(path)
    train(path)
    assert len(list(Path('experiments').glob('tiny_archived_*'))) == 1


def test_bad_inputs_leave_the_earlier_experiment_alone(hr_folder: Path, tmp_path: Path) -> None:
    train(write_options(tmp_path / 'x.yml', train_options(hr_folder, total_iter=2)))
    before = sorted(Path('.').rglob('*'))
    with pytest.raises(InputError, match='larger than the set of 8 images; set dataset_enlarge_ratio: 2'):
        train(write_options(tmp_path / 'x.yml', train_options(hr_folder, batch_size_per_gpu=9)))
    assert sorted(Path('.').rglob('*')) == before


def test_enlarged_set_takes_a_larger_batch(hr_folder: Path, tmp_path: Path) -> None:
    train(
        write_options(
            tmp_path / 'x.yml', train_options(hr_folder, total_iter=2, batch_size_per_gpu=9, dataset_enlarge_ratio=2)
        )
    )
    assert Path('experiments/tiny/models/net_g_latest.pth').is_file()


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (
            lambda o: o['datasets']['train'].update(num_imges=3),
            "datasets.train: unknown key 'num_imges'; did you mean 'num_images'",
        ),
        (
            lambda o: o['datasets']['train'].update(dataroot_gt='nowhere'),
            'datasets.train.dataroot_gt: nowhere does not exist',
        ),
        (
            lambda o: o['datasets']['train'].update(dataroot_gt='empty'),
            'datasets.train: dataroot_gt: empty holds no images',
        ),
        (lambda o: o['datasets']['train'].update(type='DistilledPatchDatset'), "did you mean 'DistilledPatchDataset'"),
        (
            lambda o: o['datasets']['train'].update(type='PairedImageDataset'),
            r'datasets\.train: io_backend: field required',
        ),
        (lambda o: o['datasets']['train'].pop('batch_size_per_gpu'), 'batch_size_per_gpu'),
        (
            lambda o: o['network_g'].update(type='EDSRR'),
            "network_g.type: 'EDSRR' is not registered; did you mean 'EDSR'",
        ),
        (lambda o: o.update(model_type='SRModl'), "did you mean 'SRModel'"),
        (lambda o: o['train']['pixel_opt'].update(type='L1Los'), "train.pixel_opt.type: .* did you mean 'L1Loss'"),
        (lambda o: o['train'].pop('total_iter'), 'total_iter'),
        (lambda o: o['train']['optim_g'].update(type='Adamw'), "train.optim_g.type: 'Adamw' .* did you mean 'AdamW'"),
        (lambda o: o['train'].update(optim_g=None), 'train: optim_g: must be a mapping of keys to values'),
        (lambda o: o['train']['optim_g'].update(lrr=1), "train.optim_g: Adam takes no key 'lrr'; did you mean 'lr'"),
        (lambda o: o['train']['scheduler'].update(gama=1), "train.scheduler: .* did you mean 'gamma'"),
        (
            lambda o: o['train'].update(total_iter='many'),
            "train: total_iter: input should be a valid integer, not 'many'",
        ),
        (
            lambda o: o['train'].update(total_iter=0),
            'train: total_iter: input should be greater than or equal to 1, not 0',
        ),
        (lambda o: o['network_g'].update(num_fea=8), "network_g: EDSR takes no key 'num_fea'; did you mean 'num_feat'"),
        (lambda o: o['network_g'].pop('num_in_ch'), "network_g: EDSR needs the key 'num_in_ch'"),
        (
            lambda o: o.update(val={'metrics': {'psnr': {'type': 'calculate_psnr', 'crop_bordr': 4}}}),
            "takes no key 'crop_bordr'; did you mean 'crop_border'",
        ),
        (lambda o: o.update(name='../up'), 'name: .*plain folder name'),
        (lambda o: o.update(path={'pretrain_network_g': 'no.pth'}), 'path.pretrain_network_g: no.pth does not exist'),
        (lambda o: o.pop('network_g'), "key 'network_g' is missing"),
        (lambda o: o.pop('datasets'), "key 'datasets' is missing"),
        (
            lambda o: o['datasets'].update(tset={'type': 'PairedImageDataset', 'name': 'x'}),
            "datasets: unknown key 'tset'; did you mean 'test'",
        ),
    ],
)
def test_wrong_options_are_named(hr_folder: Path, tmp_path: Path, change: Any, message: str) -> None:
    Path('empty').mkdir()
    options = train_options(hr_folder)
    change(options)
    with pytest.raises(InputError, match=message):
        train(write_options(tmp_path / 'x.yml', options))
    assert not [path for path in Path('experiments').rglob('*') if path.suffix in ('.pth', '.state')]


def test_a_damaged_checkpoint_leaves_the_earlier_experiment_alone(hr_folder: Path, tmp_path: Path) -> None:
    path = write_options(tmp_path / 'x.yml', train_options(hr_folder, total_iter=2))
    train(path)
    Path('bad.pth').write_bytes(b'PK damaged')
    options = train_options(hr_folder, total_iter=2)
    options['path'] = {'pretrain_network_g': 'bad.pth'}
    before = sorted(Path('.').rglob('*'))
    with pytest.raises(InputError, match=r'path\.pretrain_network_g: bad\.pth'):
        train(write_options(path, options))
    assert sorted(Path('.').rglob('*')) == before


def test_two_runs_of_one_name_do_not_meet(hr_folder: Path, tmp_path: Path) -> None:
    path = write_options(tmp_path / 'x.yml', train_options(hr_folder, total_iter=2))
    half_written = Path('experiments/tiny/models/net_g_5.pth.part')
    half_written.parent.mkdir(parents=True)
    half_written.touch()
    Path('experiments/tiny/training_states').mkdir()
    with locked(Path('experiments/.tiny.lock'), Path('experiments/tiny')):
        for auto_resume in (True, False):
            with pytest.raises(InputError, match=f'experiments/tiny: in use by process {os.getpid()}'):
                train(path, auto_resume=auto_resume)
    assert half_written.exists()


def test_the_kept_option_file_can_be_used_again(hr_folder: Path, tmp_path: Path) -> None:
    train(write_options(tmp_path / 'x.yml', train_options(hr_folder, total_iter=2)))
    kept = Path('experiments/tiny/x.yml')
    kept.write_text(kept.read_text().replace('total_iter: 2', 'total_iter: 4'))
    train(kept, auto_resume=True)
    assert Path('experiments/tiny/training_states/4.state').is_file()
    train(kept)
    assert Path('experiments/tiny/x.yml').is_file() and len(list(Path('experiments').glob('tiny_archived_*'))) == 1


def test_what_a_worker_finds_wrong_is_one_sentence(hr_folder: Path, tmp_path: Path) -> None:
    victim = hr_folder / '03.png'
    victim.write_bytes(victim.read_bytes()[:200])
    options = train_options(hr_folder, cache='none', num_worker_per_gpu=1)
    with pytest.raises(InputError) as error:
        train(write_options(tmp_path / 'x.yml', options))
    assert '\n' not in str(error.value) and '03.png' in str(error.value)


def test_force_yml(tmp_path: Path) -> None:
    path = write_options(tmp_path / 'x.yml', {'train': {'total_iter': 3}, 'name': 'x'})
    options = read_option_file(path, ['train:total_iter=1e2', 'train:new=[1, 2]', 'name = y', 'path=none'])
    assert options == {'train': {'total_iter': 100.0, 'new': [1, 2]}, 'name': 'y', 'path': None}
    for entry in ('total_iter', 'tain:total_iter=3', 'name:x=1', 'name=!!python/name:os.system', '=3'):
        with pytest.raises(InputError, match='--force_yml'):
            read_option_file(path, [entry])


def test_published_gpu_options_run_on_this_machine(hr_folder: Path, tmp_path: Path) -> None:
    options = train_options(hr_folder, total_iter=2, prefetch_mode='cuda', pin_memory=True, num_worker_per_gpu=1)
    options['num_gpu'] = 1
    train(write_options(tmp_path / 'x.yml', options))
    assert Path('experiments/tiny/models/net_g_latest.pth').is_file()


def test_only_the_flag_and_the_prefix_mean_debugging(hr_folder: Path, tmp_path: Path) -> None:
    """BasicSR takes any name with "debug" in it for a debugging run."""
    options = train_options(hr_folder, name='undebugged')
    assert to_experiment(Recipe.parse(tmp_path, options), True, tmp_path).opt['logger']['print_freq'] == 4
    opt = to_experiment(Recipe.parse(tmp_path, options), True, tmp_path, debug=True).opt
    assert opt['name'] == 'debug_undebugged' and opt['logger']['print_freq'] == 1


def test_nan_stops_before_a_checkpoint(hr_folder: Path, tmp_path: Path) -> None:
    options = train_options(hr_folder)
    options['train']['optim_g']['lr'] = 1e30
    with pytest.raises(FloatingPointError, match='l_pix is'):
        train(write_options(tmp_path / 'x.yml', options))
    assert not list(Path('experiments/tiny/models').iterdir())


@pytest.mark.parametrize(('signum', 'code'), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signals_end_in_a_checkpoint(hr_folder: Path, tmp_path: Path, signum: signal.Signals, code: int) -> None:
    options = train_options(hr_folder, total_iter=100_000)
    options['logger']['save_checkpoint_freq'] = 1_000_000
    folder = Path('experiments/tiny')

    def send() -> None:
        while not any('[epoch:' in log.read_text() for log in folder.glob('train_*.log')):
            time.sleep(0.05)
        os.kill(os.getpid(), signum)  # raise_signal would hit this thread, and Python may then be slow to notice

    threading.Thread(target=send, daemon=True).start()
    with pytest.raises(SystemExit) as stop:
        train(write_options(tmp_path / 'x.yml', options))
    assert stop.value.code == code
    state = next(Path('experiments/tiny/training_states').glob('*.state'))
    assert Path(f'experiments/tiny/models/net_g_{state.stem}.pth').is_file()


def test_a_signal_in_the_last_validation_ends_before_the_next_stage(
    hr_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    whole = SRModel.nondist_validation

    def validation(*arguments: Any) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        whole(*arguments)

    monkeypatch.setattr(SRModel, 'nondist_validation', validation)
    options = validated(train_options(hr_folder, total_iter=2), hr_folder, 2)
    with pytest.raises(SystemExit) as stop:
        train_here(options, as_stage=True)
    assert stop.value.code == 130
    assert (
        load_state('tiny', 2)['validation_due'] is False and Path('experiments/tiny/models/net_g_latest.pth').is_file()
    )
    assert 'SIGINT: finishing the validation at iteration 2' in capfd.readouterr().err
    log = log_text('tiny')
    assert 'run the same command again to go on' in log and '--auto_resume' not in log.split('Stopped by signal')[1]


def test_test_command_measures_and_records(hr_folder: Path, tmp_path: Path) -> None:
    train(write_options(tmp_path / 'x.yml', train_options(hr_folder, total_iter=3)))
    options = {
        'name': 'tiny',
        'model_type': 'SRModel',
        'scale': 4,
        'num_gpu': 0,
        'network_g': dict(TINY_EDSR),
        'datasets': {'test': {'name': 'hr', 'type': 'DistilledPatchDataset', 'dataroot_gt': str(hr_folder)}},
        'path': {'pretrain_network_g': 'experiments/tiny/models/net_g_latest.pth', 'param_key_g': 'params_ema'},
        'val': {
            'save_img': True,
            'metrics': {'psnr': {'type': 'calculate_psnr', 'crop_border': 4, 'test_y_channel': False}},
        },
    }
    run_test(write_options(tmp_path / 'test.yml', options))
    recorded = json.loads(Path('results/tiny/metrics.json').read_text())['hr']['psnr']
    expected = []
    for hr_path in sorted(hr_folder.iterdir()):
        sr = cv2.imread(f'results/tiny/visualization/hr/{hr_path.stem}_tiny.png')
        hr = cv2.imread(str(hr_path))
        expected.append(peak_signal_noise_ratio(hr[4:-4, 4:-4], sr[4:-4, 4:-4], data_range=255))
    assert recorded == pytest.approx(np.mean(expected), abs=1e-4)


def test_images_of_nested_folders_and_odd_names_are_all_saved(tmp_path: Path, astronaut: np.ndarray) -> None:
    """In one test set after the other, of which only the one at work keeps its images in memory."""
    torch.manual_seed(0)
    network = EDSR(**{key: value for key, value in TINY_EDSR.items() if key != 'type'}).eval()
    torch.save({'params': network.state_dict()}, 'x.pth')
    nested = [tmp_path / 'sets' / name for name in ('A/p0.png', 'B/p0.png', 'B/q.png')]
    odd = [tmp_path / 'odd' / os.fsdecode(name) for name in (b'latin-\xe9.png', 'grün.png'.encode())]
    for number, path in enumerate(nested + odd):
        image = astronaut[number * 32 : number * 32 + 32, :32]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(cv2.imencode('.png', image)[1])
    options = {
        'name': 'tiny',
        'model_type': 'SRModel',
        'scale': 4,
        'num_gpu': 0,
        'network_g': dict(TINY_EDSR),
        'datasets': {
            f'test_{name}': {'name': name, 'type': 'DistilledPatchDataset', 'dataroot_gt': str(tmp_path / name)}
            for name in ('odd', 'sets')
        },
        'path': {'pretrain_network_g': 'x.pth'},
        'val': {'save_img': True},
    }
    run_test(write_options(tmp_path / 'test.yml', options))
    folder = Path('results/tiny/visualization')
    assert {path.name for path in (folder / 'sets').iterdir()} == {'A_p0_tiny.png', 'B_p0_tiny.png', 'B_q_tiny.png'}
    assert {os.fsencode(path.name) for path in (folder / 'odd').iterdir()} == {
        b'latin-\xe9_tiny.png',
        'grün_tiny.png'.encode(),
    }
    for hr, saved in zip(nested, ('A_p0', 'B_p0', 'B_q')):
        lr = make_lr(cv2.imdecode(np.frombuffer(hr.read_bytes(), np.uint8), 1)[..., ::-1], 4)
        with torch.no_grad():
            sr = network(torch.from_numpy(lr).permute(2, 0, 1)[None] / 255)
        assert np.array_equal(cv2.imread(str(folder / 'sets' / f'{saved}_tiny.png')), tensor2img([sr]))
