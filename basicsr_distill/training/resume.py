"""Going on from a training state."""

from pathlib import Path
from typing import Any

from basicsr.utils import (
    check_resume,
    get_root_logger,
)

from basicsr_distill.io.weights import load_weights
from basicsr_distill.runtime import distributed
from basicsr_distill.runtime.rng import restore_rng
from basicsr_distill.training.checkpoint import newest_valid_state


def resume_state(opt: dict[str, Any]) -> dict[str, Any] | None:
    """The training state to go on from; points the networks' paths at its checkpoint."""
    states, models = Path(opt['path']['training_states']), Path(opt['path']['models'])
    if opt['auto_resume']:
        newest: Path | None = None
        with distributed.broadcast_failure():
            if distributed.is_main() and states.is_dir():
                newest = newest_valid_state(states, models)
        # One rank decides: on a network disk another might see other files.
        newest = distributed.gather(newest)[0]
        opt['path']['resume_state'] = None if newest is None else str(newest)
    if not opt['path'].get('resume_state'):
        return None
    state = load_weights(opt['path']['resume_state'])
    check_resume(opt, state['iter'])
    return state


def restore_generators(state: dict[str, Any], rank: int) -> None:
    """Go on with the generators of the interrupted run; BasicSR's own states hold none."""
    states = state.get('rng', [])
    if rank < len(states):
        restore_rng(states[rank])
    else:
        get_root_logger().warning('The training state holds no generators for rank %d: what follows is sound, but not the exact '
                                  'continuation.', rank)
