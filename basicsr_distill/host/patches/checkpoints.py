"""Checkpoints: atomic, safe to load, and complete enough to resume exactly."""

from pathlib import Path
from typing import Any

import torch
from basicsr.archs.rrdbnet_arch import RRDBNet
from basicsr.utils import get_root_logger

from basicsr_distill.errors import InputError
from basicsr_distill.host.patches.table import HostFunction, patch
from basicsr_distill.io.weights import load_weights, save_atomic
from basicsr_distill.runtime import distributed
from basicsr_distill.runtime.rng import capture_rng

# What BasicSR's models change in training beside weights: the pool of degraded pairs, the path length of StyleGAN2.
_REMEMBERED = ('queue_lr', 'queue_gt', 'queue_ptr', 'mean_path_length')


@patch(
    'basicsr.models.base_model:BaseModel.save_network',
    'models/base_model.py:245',
    'writes in place, and logs a failure as "Just ignore it"',
)
def _save_network(original: HostFunction) -> HostFunction:
    def save_network(self: Any, net: Any, net_label: str, current_iter: int, param_key: Any = 'params') -> None:
        """All ranks must call it: the first one writes, and what it cannot write is a failure of all."""
        with distributed.broadcast_failure():
            if distributed.is_main():
                write(self, net, net_label, current_iter, param_key)

    def write(self: Any, net: Any, net_label: str, current_iter: int, param_key: Any) -> None:
        nets, keys = (value if isinstance(value, list) else [value] for value in (net, param_key))
        if len(nets) != len(keys):
            raise ValueError(f'{len(nets)} networks but {len(keys)} parameter keys')
        checkpoint = {}
        for one_net, key in zip(nets, keys):
            weights = self.get_bare_model(one_net).state_dict()
            for name in list(weights):  # in place, as the dict carries version metadata beside its items
                weights[name.removeprefix('module.')] = weights.pop(name).cpu()
            checkpoint[key] = weights
        name = f'{net_label}_{"latest" if current_iter == -1 else current_iter}.pth'
        save_atomic(checkpoint, Path(self.opt['path']['models']) / name)

    return save_network


@patch(
    'basicsr.models.base_model:BaseModel.save_training_state',
    'models/base_model.py:315',
    'writes in place, ignores failures, and leaves out the random state and the best metric',
)
def _save_training_state(original: HostFunction) -> HostFunction:
    def save_training_state(self: Any, epoch: int, current_iter: int) -> None:
        """Written after the networks, and so the mark of a whole checkpoint. All ranks must call it.

        Beside the host's keys: ``rng`` and ``remembered`` (one entry per rank), ``frozen`` (parameters that are not
        trained now), ``best_metric_results``, what the training loop put into ``loop_state``, and ``model_state`` from
        the model's ``extra_state()``, a dict of tensors and numbers, where it defines one.
        """
        if current_iter == -1:
            return
        state = {
            'epoch': epoch,
            'iter': current_iter,
            'optimizers': [optimizer.state_dict() for optimizer in self.optimizers],
            'schedulers': [scheduler.state_dict() for scheduler in self.schedulers],
            'rng': distributed.gather(capture_rng()),
            'remembered': distributed.gather(_remembered(self)),
            'frozen': _frozen(self),
            **getattr(self, 'loop_state', {}),
        }
        if hasattr(self, 'extra_state'):
            state['model_state'] = self.extra_state()
        if hasattr(self, 'best_metric_results'):
            # Metrics come as numpy scalars, which a safe loader refuses.
            state['best_metric_results'] = {
                dataset: {metric: {**record, 'val': float(record['val'])} for metric, record in records.items()}
                for dataset, records in self.best_metric_results.items()
            }
        with distributed.broadcast_failure():
            if distributed.is_main():
                save_atomic(state, Path(self.opt['path']['training_states']) / f'{current_iter}.state')
                if keep_last := (self.opt.get('logger') or {}).get('keep_last'):
                    _remove_old(self, current_iter, keep_last)

    return save_training_state


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


@patch(
    'basicsr.models.base_model:BaseModel.resume_training',
    'models/base_model.py:345',
    'loses the best metric and what else a model remembers',
)
def _resume_training(original: HostFunction) -> HostFunction:
    def resume_training(self: Any, resume_state: dict[str, Any]) -> None:
        """Everything but the random state, which the training loop restores last (``checkpoint.restore_rng``)."""
        for key, current in (('optimizers', self.optimizers), ('schedulers', self.schedulers)):
            if len(resume_state[key]) != len(current):
                raise InputError(
                    f'path: resume_state: the training state holds {len(resume_state[key])} {key}, the '
                    f'options make {len(current)}; resume with the options it was made with.'
                )
        original(self, resume_state)
        if 'best_metric_results' in resume_state:
            metrics = ((self.opt.get('val') or {}).get('metrics') or {}).keys()
            # A record of other metrics cannot be continued: validation looks up every metric of the options in it.
            best = resume_state['best_metric_results']
            self.best_metric_results = {dataset: best[dataset] for dataset in best if best[dataset].keys() == metrics}
        for label, network in _networks(self).items():
            frozen = set(resume_state.get('frozen', {}).get(label, ()))
            for name, parameter in network.named_parameters():
                if name in frozen:
                    parameter.requires_grad_(False)
        remembered = resume_state.get('remembered', [])
        if distributed.rank() < len(remembered):
            for name, value in remembered[distributed.rank()].items():
                setattr(self, name, value.to(self.device) if isinstance(value, torch.Tensor) else value)
        if 'model_state' in resume_state:
            self.load_extra_state(resume_state['model_state'])

    return resume_training


@patch(
    'basicsr.models.base_model:BaseModel.load_network',
    'models/base_model.py:290',
    "leaves safe loading to torch's default, and knows neither safetensors, bare state_dicts nor old key names",
)
def _load_network(original: HostFunction) -> HostFunction:
    def load_network(
        self: Any, net: torch.nn.Module, load_path: str, strict: bool = True, param_key: str | None = 'params'
    ) -> None:
        """Load ``params``-style files, bare state_dicts and safetensors.

        Raises:
            InputError: the file is missing, damaged or unsafe, lacks the key, or does not fit the network.
        """
        net = self.get_bare_model(net)
        weights, used_key = _select_weights(load_weights(load_path), param_key, load_path)
        get_root_logger().info(f'Loading {type(net).__name__} from {load_path}, param key: {used_key}.')
        weights = {name.removeprefix('module.'): value for name, value in weights.items()}
        if isinstance(net, RRDBNet):
            from basicsr_distill.archs.rrdb_keys import convert_rrdb_state_dict

            weights = convert_rrdb_state_dict(weights)
        self._print_different_keys_loading(net, weights, strict)
        try:
            net.load_state_dict(weights, strict=strict)
        except RuntimeError as error:
            first = str(error).split('\n')[1].strip() if '\n' in str(error) else str(error)
            raise InputError(
                f'{load_path}: does not fit {type(net).__name__} ({first[:200]}); choose the network '
                'options it was made with, or set strict_load_g: false to load what fits.'
            ) from error

    return load_network


def _select_weights(loaded: dict[str, Any], param_key: str | None, path: str) -> tuple[dict[str, Any], str | None]:
    """The state_dict inside a checkpoint, and the key it lay under (None for the root)."""
    for key in (param_key, 'params'):
        if param_key is not None and key in loaded and isinstance(loaded[key], dict):
            return loaded[key], key
    if all(isinstance(value, torch.Tensor) for value in loaded.values()):
        return loaded, None
    raise InputError(
        f'{path}: no weights under {param_key!r}, only {", ".join(map(repr, list(loaded)[:5]))}; '
        'set param_key_g (or param_key_d) to one of these.'
    )
