"""The command line as a user meets it: exit codes, messages, interruption."""

import logging
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from sr_experiments import train_options, write_options

from basicsr_distill import cli
from basicsr_distill.cli import build_parser, main
from basicsr_distill.runtime.interrupts import Terminated


def command(*arguments: str, cwd: Path, timeout: float = 240) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, '-m', 'basicsr_distill', *arguments], cwd=cwd, capture_output=True, text=True, timeout=timeout
    )


def test_usage_needs_no_torch(tmp_path: Path) -> None:
    script = (
        'import sys\nfrom basicsr_distill.cli import main\n'
        'try:\n main(["train", "-h"])\nexcept SystemExit: pass\n'
        'sys.exit(any(name in sys.modules for name in ("torch", "basicsr", "numpy", "pydantic")))'
    )
    result = subprocess.run([sys.executable, '-c', script], cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 0 and '--auto_resume' in result.stdout


def test_flags_are_basicsr_own() -> None:
    arguments = build_parser().parse_args(
        [
            'train',
            '-opt',
            'x.yml',
            '--launcher',
            'pytorch',
            '--auto_resume',
            '--debug',
            '--local-rank',
            '1',
            '--force_yml',
            'a=1',
            'b:c=2',
        ]
    )
    assert arguments.force_yml == ['a=1', 'b:c=2'] and arguments.local_rank == 1 and arguments.auto_resume
    assert build_parser().parse_args(['test', '-opt', 'x.yml', '--local_rank=2']).local_rank == 2
    # As `python -m torch.distributed.launch` puts it.
    assert build_parser().parse_args(['--local-rank=1', 'train', '-opt', 'x.yml']).command == 'train'


@pytest.mark.parametrize('content', ['a: !!python/object/apply:os.system ["echo"]', 'a: [', 'name: x'])
def test_wrong_input_is_one_line_and_exit_code_2(
    tmp_path: Path, content: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / 'x.yml'
    path.write_text(content)
    assert main(['train', '-opt', str(path)]) == 2
    message = capsys.readouterr().err
    assert message.startswith('basicsr: ') and 'x.yml' in message and message.count('\n') == 1


def test_missing_option_file(tmp_path: Path) -> None:
    result = command('train', '-opt', 'no.yml', cwd=tmp_path)
    assert result.returncode == 2
    assert (
        result.stderr.splitlines()[-1].startswith('basicsr: no.yml: cannot be read')
        and 'Traceback' not in result.stderr
    )


def test_doctor_reports(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(['doctor']) == 0
    report = capsys.readouterr().out
    assert f'torch             {torch.__version__.split("+")[0]}' in report
    assert 'sd-vae-ft-mse' in report and 'host: BasicSR 1.4.2' in report
    assert 'IQA-PyTorch-Weights (CC BY-NC-SA 4.0)' in report


@pytest.mark.parametrize(
    ('launcher', 'variables', 'level'),
    [
        ('slurm', {'SLURM_PROCID': '3'}, logging.ERROR),
        ('slurm', {'SLURM_PROCID': '0'}, logging.INFO),
        ('none', {'SLURM_PROCID': '3'}, logging.INFO),  # one of many single processes that srun started
        ('pytorch', {'RANK': '1'}, logging.ERROR),
        ('pytorch', {'RANK': '0', 'SLURM_PROCID': '1'}, logging.INFO),
    ],
)
def test_only_the_first_rank_shows_progress_from_the_start(
    monkeypatch: pytest.MonkeyPatch, launcher: str, variables: dict[str, str], level: int
) -> None:
    for name in ('RANK', 'SLURM_PROCID'):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    logger = logging.getLogger('basicsr_distill')
    before = logger.level
    try:
        assert main(['distill', '-opt', 'no.yml', '--launcher', launcher, '--stage', 'extract']) == 2
        assert logger.level == level
    finally:
        logger.setLevel(before)


def test_a_name_that_the_locale_lacks_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / 'x.yml').write_text(
        'extract: {dataroot: grün, save_dir: out}\ncluster: {save_dir: c}\n', encoding='utf-8'
    )
    run = subprocess.run(
        [sys.executable, '-m', 'basicsr_distill', 'distill', '-opt', 'x.yml', '--stage', 'extract'],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, 'LC_ALL': 'C', 'PYTHONUTF8': '0', 'PYTHONCOERCECLOCALE': '0'},
    )
    assert run.returncode == 2
    # Which call meets the name first, as it is written or as a whole path, differs among Pythons.
    assert re.fullmatch(
        r"basicsr: this locale \(ascii\) has no name for '(/.*/)?gr\\xfcn'; set PYTHONUTF8=1 or a UTF-8 locale\.",
        run.stderr.splitlines()[-1],
    )


@pytest.mark.long
def test_kill_minus_nine_and_auto_resume_end_in_the_same_weights(hr_folder: Path, tmp_path: Path) -> None:
    for name in ('whole', 'killed'):
        options = train_options(hr_folder, name, total_iter=200, num_worker_per_gpu=1)
        options['logger']['save_checkpoint_freq'] = 20
        write_options(tmp_path / f'{name}.yml', options)
    assert command('train', '-opt', 'whole.yml', cwd=tmp_path).returncode == 0

    process = subprocess.Popen(
        [sys.executable, '-m', 'basicsr_distill', 'train', '-opt', 'killed.yml'],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    states = tmp_path / 'experiments' / 'killed' / 'training_states'
    while not list(states.glob('1[0-9]0.state')) and process.poll() is None:
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, 'the run ended before it could be killed'
    assert command('train', '-opt', 'killed.yml', '--auto_resume', cwd=tmp_path).returncode == 0

    whole, killed = (
        torch.load(tmp_path / 'experiments' / name / 'models' / 'net_g_latest.pth', weights_only=True)
        for name in ('whole', 'killed')
    )
    for key in ('params', 'params_ema'):
        assert all(torch.equal(whole[key][name], value) for name, value in killed[key].items())


@pytest.mark.long
def test_a_signal_to_the_whole_group_still_ends_in_a_checkpoint(hr_folder: Path, tmp_path: Path) -> None:
    """Job schedulers signal the data workers too."""
    options = train_options(hr_folder, 'long', total_iter=1_000_000, num_worker_per_gpu=2)
    options['logger'] = {'print_freq': 1, 'save_checkpoint_freq': 1_000_000}
    write_options(tmp_path / 'long.yml', options)
    with (tmp_path / 'log').open('w') as log:
        process = subprocess.Popen(
            [sys.executable, '-m', 'basicsr_distill', 'train', '-opt', 'long.yml'],
            cwd=tmp_path,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    while 'iter:       3' not in (tmp_path / 'log').read_text() and process.poll() is None:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGTERM)
    assert process.wait(60) == 143
    assert list((tmp_path / 'experiments/long/training_states').glob('*.state'))


@pytest.mark.parametrize(
    ('failure', 'code', 'message'),
    [
        (Terminated(143), 143, 'basicsr: terminated; run the same command again to go on.'),
        (KeyboardInterrupt(), 130, 'basicsr: interrupted; run the same command again to go on.'),
        (
            PermissionError(13, 'Permission denied', 'experiments/theirs'),
            2,
            'basicsr: experiments/theirs: permission denied; ',
        ),
    ],
)
def test_what_ends_a_stage_is_said(
    failure: BaseException, code: int, message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(args: object) -> int:
        raise failure

    monkeypatch.setattr(cli, '_run', run)
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    assert main(['doctor']) == code
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before
    error = capsys.readouterr().err
    assert error.startswith(message) and error.count('\n') == 1


@pytest.mark.parametrize('signum', [signal.SIGINT, signal.SIGTERM])
def test_a_signal_during_imports_ends_the_process_without_a_traceback(tmp_path: Path, signum: signal.Signals) -> None:
    (tmp_path / 'x.yml').write_text('name: x')
    script = f"""
import os, sys
from basicsr_distill.cli import main
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == 'pydantic':
            os.kill(os.getpid(), {int(signum)})
sys.meta_path.insert(0, Finder())
main(['train', '-opt', 'x.yml'])
"""
    result = subprocess.run([sys.executable, '-c', script], cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == -signum and not result.stderr


@pytest.mark.parametrize('ends', [0, 2, SystemExit(143)])
def test_a_rank_ends_without_pythons_own_end(ends: int | SystemExit, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whose threads may abort a process that has done its work; what others wish to finish is finished."""

    def run() -> int:
        if isinstance(ends, SystemExit):
            raise ends
        return ends

    class Ended(BaseException):
        pass

    def end(code: int) -> None:
        raise Ended(code)

    finished: list[str] = []
    monkeypatch.setattr(cli, 'main', run)
    monkeypatch.setattr(cli.os, '_exit', end)
    monkeypatch.setattr(cli.atexit, '_run_exitfuncs', lambda: finished.append('all'))
    code = 143 if isinstance(ends, SystemExit) else ends
    with pytest.raises(SystemExit) as left:
        cli.command()
    assert left.value.code == code and not finished
    monkeypatch.setattr(cli, '_joined', ['pytorch'])
    with pytest.raises(Ended) as ended:
        cli.command()
    assert ended.value.args == (code,) and finished == ['all']
