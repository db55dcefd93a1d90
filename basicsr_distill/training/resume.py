"""Going on from a training state."""

import io
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from basicsr.utils import check_resume, get_root_logger

from basicsr_distill.errors import InputError
from basicsr_distill.io.weights import load_weights
from basicsr_distill.runtime import distributed
from basicsr_distill.runtime.rng import restore_rng
from basicsr_distill.training.checkpoint import newest_valid_state, restore_model


def resume_state(path: Path, opt: dict[str, Any]) -> dict[str, Any] | None:
    """The training state to go on from; points the networks' paths at its checkpoint.

    Raises:
        InputError: ``path.resume_state`` is no training state, or this experiment lacks its networks.
    """
    states, models = Path(opt['path']['training_states']), Path(opt['path']['models'])
    if opt['auto_resume']:
        newest: Path | None = None
        with distributed.broadcast_failure():
            if distributed.is_main() and states.is_dir():
                newest = newest_valid_state(states, models)
        # One rank decides: on a network disk another might see other files.
        newest = distributed.gather(newest)[0]
        opt['path']['resume_state'] = None if newest is None else str(newest)
    state_path = opt['path'].get('resume_state')
    if not state_path:
        return None
    try:
        state = load_weights(state_path)
    except InputError as error:
        raise InputError(f'{path}: path.resume_state: {error}') from error
    if missing := [key for key in ('iter', 'optimizers', 'schedulers') if key not in state]:
        raise InputError(
            f'{path}: path.resume_state: {state_path} is no training state (it lacks {missing[0]!r}); give a '
            'file of training_states/.'
        )
    _point_networks(path, opt, state_path, state['iter'])
    return state


def _point_networks(path: Path, opt: dict[str, Any], state_path: str, iteration: int) -> None:
    """Let BasicSR choose the networks' files; it prints, where we log."""
    before = dict(opt['path'])
    with redirect_stdout(io.StringIO()) as printed:
        check_resume(opt, iteration)
    for line in printed.getvalue().splitlines():
        get_root_logger().info(line)
    for key, value in opt['path'].items():
        if key.startswith('pretrain_network') and value != before.get(key) and not Path(value).is_file():
            raise InputError(
                f'{path}: path.resume_state: {state_path} goes with {Path(value).name}, which {Path(value).parent} '
                'does not hold; resume in the experiment that it belongs to, or start from weights with '
                'path.pretrain_network_g.'
            )


def resume_training(path: Path, opt: dict[str, Any], model: Any, state: dict[str, Any]) -> None:
    """Load optimizers, schedulers and what else the model remembers.

    Raises:
        InputError: the state is of other options.
    """
    try:
        restore_model(model, state)
    except (InputError, ValueError, KeyError, RuntimeError) as error:
        raise InputError(
            f'{path}: path.resume_state: {opt["path"]["resume_state"]} does not fit these options ({error}); '
            'resume with those that it was made with.'
        ) from error


def restore_generators(state: dict[str, Any], rank: int) -> None:
    """Go on with the generators of the interrupted run; BasicSR's own states hold none."""
    states = state.get('rng', [])
    if rank < len(states):
        restore_rng(states[rank])
    else:
        get_root_logger().warning(
            'The training state holds no generators for rank %d: what follows is sound, but not the exact '
            'continuation.',
            rank,
        )
