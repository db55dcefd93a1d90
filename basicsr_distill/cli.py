"""The ``basicsr`` command: train, test, distill, benchmark, schema, doctor.

Nothing heavy is imported before the arguments are known to be right, so that a usage message is immediate.
"""

import argparse
import atexit
import contextlib
import errno
import logging
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NoReturn

from basicsr_distill import __version__
from basicsr_distill.config import SCHEMA_KINDS, STAGE_ORDER
from basicsr_distill.errors import InputError, LostRankError
from basicsr_distill.host import hooks
from basicsr_distill.runtime.interrupts import Terminated, uninterrupted_imports, unwinding_signals

# Launchers whose process group this process was in.
_joined: list[str] = []
_DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS}


def build_parser() -> argparse.ArgumentParser:
    """The command line; ``train`` and ``test`` take exactly BasicSR's flags."""
    parser = argparse.ArgumentParser(
        prog='basicsr', description='BasicSR with dataset distillation for super-resolution.'
    )
    parser.add_argument('--version', action='version', version=f'basicsr-distill {__version__}')
    _add_local_rank(parser)  # `python -m torch.distributed.launch` puts it before the command
    commands = parser.add_subparsers(
        dest='command', required=True, metavar='{train,test,distill,benchmark,schema,doctor}'
    )

    experiment = argparse.ArgumentParser(add_help=False)
    experiment.add_argument('-opt', type=Path, required=True, metavar='FILE', help='option file (YAML)')
    experiment.add_argument('--launcher', choices=['none', 'pytorch', 'slurm'], default='none', help='job launcher')
    experiment.add_argument(
        '--force_yml',
        nargs='+',
        default=[],
        metavar='KEY=VALUE',
        help='replace options, for example train:ema_decay=0.999',
    )
    _add_local_rank(experiment)

    loop = argparse.ArgumentParser(add_help=False)
    loop.add_argument('--auto_resume', action='store_true', help='go on from the newest valid training state')
    loop.add_argument('--debug', action='store_true', help='log and validate every few iterations')

    commands.add_parser('train', parents=[experiment, loop], help='train a network')
    commands.add_parser('test', parents=[experiment, loop], help='test a network')
    distill = commands.add_parser('distill', parents=[experiment], help='make a distilled set from photos')
    distill.add_argument(
        '--stage',
        nargs='+',
        choices=STAGE_ORDER,
        help='only these stages; without it, those whose sections the file has',
    )
    distill.add_argument(
        '--report',
        action='store_true',
        help='write report.html beside the patches: what extract kept and dropped, in pictures',
    )
    compare = commands.add_parser('benchmark', help='compare sets: train networks on each and test them')
    compare.add_argument('-opt', type=Path, required=True, metavar='FILE', help='benchmark file (YAML)')
    compare.add_argument('--dry-run', action='store_true', help='print the cells, their time and disk; run nothing')
    compare.add_argument(
        '--force_yml',
        nargs='+',
        default=[],
        metavar='KEY=VALUE',
        help='replace options, for example benchmark:seeds=[0,1]',
    )
    schema = commands.add_parser('schema', help='print the JSON schema of option files, for editors')
    schema.add_argument('kind', nargs='?', choices=SCHEMA_KINDS, default=SCHEMA_KINDS[0], help='kind of option file')
    commands.add_parser('doctor', help='show versions, device and weights, and what to install')
    return parser


def _add_local_rank(parser: argparse.ArgumentParser) -> None:
    """Launchers have spelt this flag both ways; the rank itself is read from the environment."""
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Returns:
        0 done, 2 the user's input is wrong, 1 the loss is not finite or the disk is full (each one line on stderr), 130
        or 143 stopped by SIGINT or SIGTERM. Any other failure is raised.
    """
    args = build_parser().parse_args(arguments)
    hooks.fix_main_spec()
    _log_progress(getattr(args, 'launcher', 'none'))
    # Stages only need to unwind (their folders resume); the training loop replaces this by "checkpoint first".
    with unwinding_signals():
        try:
            return _run(args)
        except InputError as error:
            return _fail(2, str(error))
        except UnicodeEncodeError as error:
            if sys.getfilesystemencoding() == 'utf-8':
                raise
            return _fail(
                2,
                f'this locale ({sys.getfilesystemencoding()}) has no name for {error.object!a}; set '
                'PYTHONUTF8=1 or a UTF-8 locale.',
            )
        except FloatingPointError as error:
            return _fail(1, str(error))
        except PermissionError as error:
            return _fail(
                2,
                f'{error.filename or error}: permission denied; it belongs to another user or is '
                'write-protected: choose another name or folder, or have its owner allow it.',
            )
        except OSError as error:
            if error.errno not in _DISK_ERRORS:
                raise
            return _fail(1, str(error))
        except LostRankError:
            return _fail(1, 'another rank has ended; its own output says why. Run the same command again to go on.')
        except KeyboardInterrupt:
            return _fail(128 + signal.SIGINT, 'interrupted; run the same command again to go on.')
        except Terminated:
            return _fail(128 + signal.SIGTERM, 'terminated; run the same command again to go on.')


def _fail(code: int, message: str) -> int:
    print(f'basicsr: {message}', file=sys.stderr)
    return code


def _run(args: argparse.Namespace) -> int:
    if args.command == 'doctor':
        with uninterrupted_imports():
            from basicsr_distill.doctor import report

        return report()
    if args.command == 'schema':
        from basicsr_distill.config.schema import schema_text

        print(schema_text(args.kind), end='')
        return 0
    if args.command == 'benchmark':
        return _benchmark(args)
    # Wrong options are refused at once; torch and BasicSR take seconds to import.
    with uninterrupted_imports():
        from basicsr_distill.config.recipe import Recipe

    recipe = Recipe.load(args.opt, args.force_yml)
    if args.command == 'distill':
        with uninterrupted_imports():
            from basicsr_distill.stages.pipeline import distill

        with _process_group(args.launcher):
            distill(recipe, args.stage, args.report)
        return 0

    from basicsr_distill.config.experiment import to_experiment

    is_train = args.command == 'train'
    experiment = to_experiment(recipe, is_train, root=Path.cwd(), debug=args.debug, auto_resume=args.auto_resume)
    with _process_group(args.launcher):
        with uninterrupted_imports():
            hooks.require_host()
            from basicsr_distill.training.test import test
            from basicsr_distill.training.train import train

        (train if is_train else test)(experiment)
    return 0


def _benchmark(args: argparse.Namespace) -> int:
    from basicsr_distill.config.benchmark_file import BenchmarkFile

    file = BenchmarkFile.load(args.opt, args.force_yml)
    with uninterrupted_imports():
        hooks.require_host()
        from basicsr_distill.benchmark.run import benchmark

    return benchmark(file, args.dry_run)


def _log_progress(launcher: str) -> None:
    """Show what the stages say, once; BasicSR's logger looks after itself."""
    logger = logging.getLogger('basicsr_distill')
    if not logger.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter('%(message)s'))
        logger.addHandler(handler)
    # Launchers name the rank in the environment; the first one speaks for all.
    rank = os.environ.get('SLURM_PROCID' if launcher == 'slurm' else 'RANK', '0')
    logger.setLevel(logging.INFO if rank == '0' else logging.ERROR)


@contextlib.contextmanager
def _process_group(launcher: str) -> Iterator[None]:
    with uninterrupted_imports():
        from basicsr_distill.runtime import distributed

    try:
        distributed.init(launcher)
        if launcher != 'none':
            _joined.append(launcher)
        yield
    except RuntimeError as error:
        if distributed.is_lost_rank(error):
            raise LostRankError from error
        raise
    finally:
        distributed.cleanup()


def command() -> NoReturn:
    """The installed ``basicsr``: :func:`main`, and the end of the process.

    A rank ends at once when all is done: threads of gloo or NCCL that outlive Python's interpreter abort the process
    now and then, and an exit code of 134 would tell the launcher that finished work had failed.
    """
    try:
        code = main()
    except SystemExit as error:
        if not isinstance(error.code, int):
            raise
        code = error.code
    if _joined:
        atexit._run_exitfuncs()  # what others wish to finish, as the interpreter's own end would
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


if __name__ == '__main__':
    command()
