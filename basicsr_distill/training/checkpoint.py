"""The checkpoints of a training: written whole, complete enough to go on exactly, and found again.

A checkpoint is ``models/net_*_{iter}.pth`` in BasicSR's format and ``training_states/{iter}.state``, written last.
Beside BasicSR's keys (``epoch``, ``iter``, ``optimizers``, ``schedulers``) a state holds ``rng`` and ``remembered``
(one entry a rank), ``frozen`` (parameters that are not trained now), ``best_metric_results``, ``model_state`` (tensors
and numbers of the model's ``extra_state()``, where it defines one), ``options`` and ``validation_due``.
"""

import logging
from pathlib import Path
from typing import Any

import torch

from basicsr_distill.errors import InputError
from basicsr_distill.io.files import remove_temporaries
from basicsr_distill.io.weights import is_loadable, save_atomic
from basicsr_distill.runtime import distributed
from basicsr_distill.runtime.rng import capture_rng

_LOGGER = logging.getLogger('basicsr')
# What BasicSR's models change in training beside weights: the pool of degraded pairs, the path length of StyleGAN2.
_REMEMBERED = ('queue_lr', 'queue_gt', 'queue_ptr', 'mean_path_length')


class CheckpointWriter:
    """Writes a model's checkpoints instead of BasicSR, which writes in place and logs a failure as "Just ignore it".

    Args:
        model: a model of BasicSR; its ``save`` says which networks a checkpoint holds, and gets this writer's
            ``save_network`` and ``save_training_state``.
        record: of the options, see :func:`basicsr_distill.training.edits.options_record`.
    """

    def __init__(self, model: Any, record: dict[str, Any]) -> None:
        self.model = model
        self.record = record
        self._validation_due = False
        model.save_network = self._write_network
        model.save_training_state = self._write_state

    def save(self, epoch: int, iteration: int, validation_due: bool = False) -> None:
        """Write the networks, then the training state.

        All ranks must call it: rank 0 writes, and its failure is that of all ranks.

        Args:
            epoch: passes over the training set so far.
            iteration: the last that is done.
            validation_due: whether that of this iteration is still to be made.

        Raises:
            OSError: a file cannot be written; the message names it.
        """
        self._validation_due = validation_due
        self.model.save(epoch, iteration)

    def save_latest(self) -> None:
        """Write ``net_*_latest.pth`` alone."""
        self.model.save(epoch=-1, current_iter=-1)

    def mark_validated(self, epoch: int, iteration: int) -> None:
        """Write the training state again: the validation of the iteration is done."""
        self._validation_due = False
        self._write_state(epoch, iteration)

    def _write_network(self, net: Any, net_label: str, current_iter: int, param_key: Any = 'params') -> None:
        nets, keys = (value if isinstance(value, list) else [value] for value in (net, param_key))
        if len(nets) != len(keys):
            raise ValueError(f'{len(nets)} networks but {len(keys)} parameter keys')
        name = f'{net_label}_{"latest" if current_iter == -1 else current_iter}.pth'
        with distributed.broadcast_failure():
            if distributed.is_main():
                checkpoint = {key: self._weights(one_net) for one_net, key in zip(nets, keys)}
                save_atomic(checkpoint, Path(self.model.opt['path']['models']) / name)

    def _weights(self, net: Any) -> dict[str, torch.Tensor]:
        weights: dict[str, torch.Tensor] = self.model.get_bare_model(net).state_dict()
        for name in list(weights):  # in place, as the dict carries version metadata beside its items
            weights[name.removeprefix('module.')] = weights.pop(name).cpu()
        return weights

    def _write_state(self, epoch: int, current_iter: int) -> None:
        if current_iter == -1:
            return
        model = self.model
        state = {
            'epoch': epoch,
            'iter': current_iter,
            'optimizers': [optimizer.state_dict() for optimizer in model.optimizers],
            'schedulers': [scheduler.state_dict() for scheduler in model.schedulers],
            'rng': distributed.gather(capture_rng()),
            'remembered': distributed.gather(_remembered(model)),
            'frozen': _frozen(model),
            'options': self.record,
            'validation_due': self._validation_due,
        }
        if hasattr(model, 'extra_state'):
            state['model_state'] = model.extra_state()
        if hasattr(model, 'best_metric_results'):
            # Metrics come as numpy scalars, which a safe loader refuses.
            state['best_metric_results'] = {
                dataset: {metric: {**record, 'val': float(record['val'])} for metric, record in records.items()}
                for dataset, records in model.best_metric_results.items()
            }
        with distributed.broadcast_failure():
            if distributed.is_main():
                save_atomic(state, Path(model.opt['path']['training_states']) / f'{current_iter}.state')
                if keep_last := (model.opt.get('logger') or {}).get('keep_last'):
                    _remove_old(model, current_iter, keep_last)


def restore_model(model: Any, state: dict[str, Any]) -> None:
    """Put back what a training state holds but the random state, which the training loop restores last.

    Args:
        model: built of the same options, its networks loaded.
        state: content of ``{iter}.state``; BasicSR's own states hold optimizers and schedulers alone.

    Raises:
        InputError: the state is of other optimizers or schedulers.
    """
    for key, current in (('optimizers', model.optimizers), ('schedulers', model.schedulers)):
        if len(state[key]) != len(current):
            raise InputError(
                f'path: resume_state: the training state holds {len(state[key])} {key}, the options make '
                f'{len(current)}; resume with the options it was made with.'
            )
    model.resume_training(state)
    if 'best_metric_results' in state:
        metrics = ((model.opt.get('val') or {}).get('metrics') or {}).keys()
        # A record of other metrics cannot be continued: validation looks up every metric of the options in it.
        best = state['best_metric_results']
        model.best_metric_results = {dataset: best[dataset] for dataset in best if best[dataset].keys() == metrics}
    for label, network in _networks(model).items():
        frozen = set(state.get('frozen', {}).get(label, ()))
        for name, parameter in network.named_parameters():
            if name in frozen:
                parameter.requires_grad_(False)
    remembered = state.get('remembered', [])
    if distributed.rank() < len(remembered):
        for name, value in remembered[distributed.rank()].items():
            setattr(model, name, value.to(model.device) if isinstance(value, torch.Tensor) else value)
    if 'model_state' in state:
        model.load_extra_state(state['model_state'])


def _remembered(model: Any) -> dict[str, Any]:
    found = {name: getattr(model, name) for name in _REMEMBERED if hasattr(model, name)}
    return {name: value.cpu() if isinstance(value, torch.Tensor) else value for name, value in found.items()}


def _networks(model: Any) -> dict[str, torch.nn.Module]:
    return {
        label: model.get_bare_model(getattr(model, label))
        for label in ('net_g', 'net_d')
        if isinstance(getattr(model, label, None), torch.nn.Module)
    }


def _frozen(model: Any) -> dict[str, list[str]]:
    """EDVR and the recurrent video models freeze parts at iteration 1, which a resumed run does not pass."""
    return {
        label: [name for name, parameter in network.named_parameters() if not parameter.requires_grad]
        for label, network in _networks(model).items()
    }


def _remove_old(model: Any, current_iter: int, keep_last: int) -> None:
    """Remove checkpoints but the last ones and those of the best metrics; states first, which mark whole ones."""
    states, networks = Path(model.opt['path']['training_states']), Path(model.opt['path']['models'])
    iterations = sorted(int(path.stem) for path in states.glob('*.state') if path.stem.isdecimal())
    best = {
        record['iter'] for records in getattr(model, 'best_metric_results', {}).values() for record in records.values()
    }
    kept = {*[iteration for iteration in iterations if iteration <= current_iter][-keep_last:], *best}
    numbered = [(path, path.stem.rpartition('_')[2]) for path in networks.glob('net_*_*.pth')]
    files = [(path, path.stem) for path in states.glob('*.state')] + numbered
    for path, iteration in files:
        if iteration.isdecimal() and int(iteration) < current_iter and int(iteration) not in kept:
            path.unlink()


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
