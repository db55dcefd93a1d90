"""Which checkpoint a run goes on from."""

import logging
from pathlib import Path

from basicsr_distill.io.files import remove_temporaries
from basicsr_distill.io.weights import is_loadable

_LOGGER = logging.getLogger('basicsr')


def newest_valid_state(states_dir: str | Path, models_dir: str | Path) -> Path | None:
    """The training state to resume from: the newest that is whole, and its networks with it.

    Files that an interrupted writer left behind are removed, so no one may be writing there.

    Args:
        states_dir: folder of ``{iter}.state``.
        models_dir: folder of ``net_*_{iter}.pth`` (or ``.safetensors``).

    Returns:
        The ``.state`` of the highest iteration that loads and whose networks all load; None when there is none. Each
        state passed over is named in a warning.
    """
    states_dir, models_dir = Path(states_dir), Path(models_dir)
    for folder in (states_dir, models_dir):
        remove_temporaries(folder)
    iterations = [int(path.stem) for path in states_dir.glob('*.state') if path.stem.isdecimal()]
    for iteration in sorted(iterations, reverse=True):
        state = states_dir / f'{iteration}.state'
        networks = [*models_dir.glob(f'net_*_{iteration}.pth'), *models_dir.glob(f'net_*_{iteration}.safetensors')]
        broken = [path for path in (state, *networks) if not is_loadable(path)]
        if networks and not broken:
            return state
        reason = f'{broken[0].name} is damaged' if broken else f'{models_dir} holds no network of it'
        _LOGGER.warning(f'Training state {state} is passed over: {reason}.')
    return None
