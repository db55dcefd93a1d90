"""The table of mends to BasicSR 1.4.2: where it breaks, why, and what stands there instead.

Each entry makes a replacement from the host's own function, which stays reachable as ``replacement.host_original``.
Paths in ``where`` are relative to the host's folder, lines are those of the 1.4.2 sdist.
"""

import difflib
import functools
import importlib
import inspect
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from basicsr.archs.rrdbnet_arch import RRDBNet
from basicsr.models.realesrgan_model import RealESRGANModel
from basicsr.models.realesrnet_model import RealESRNetModel
from basicsr.utils import DiffJPEG, USMSharp, get_root_logger
from basicsr.utils.dist_util import master_only
from torch.nn.parallel import DataParallel, DistributedDataParallel

from basicsr_distill import distributed
from basicsr_distill.checkpoint import capture_rng, load_weights, save_atomic
from basicsr_distill.errors import InputError

HostFunction = Callable[..., Any]


@dataclass(frozen=True)
class HostPatch:
    """One mend."""

    target: str  # 'module:function' or 'module:Class.method'
    where: str  # file:line of the defect in the host
    cause: str  # what changed, or was always wrong
    make: Callable[[HostFunction], HostFunction]  # the replacement, given what it replaces

    @property
    def name(self) -> str:
        """The target without its module."""
        return self.target.split(':')[1]

    def resolve(self) -> tuple[Any, str]:
        """The module or class that holds the target, and the target's name there.

        Raises:
            ImportError: the host lacks it.
        """
        module_name, qualified_name = self.target.split(':')
        *class_name, name = qualified_name.split('.')
        owner: Any = importlib.import_module(module_name)
        for attribute in class_name:
            owner = getattr(owner, attribute, None)
        if not hasattr(owner, name):
            raise ImportError(f'it lacks {self.target}', name=module_name)
        return owner, name

    def apply(self) -> None:
        """Put the replacement in place, also where the host's modules imported the function by name; once only."""
        owner, name = self.resolve()
        original = getattr(owner, name)
        if hasattr(original, 'host_original'):
            return
        replacement = functools.update_wrapper(self.make(original), original)
        vars(replacement)['host_original'] = original
        setattr(owner, name, replacement)
        if isinstance(owner, ModuleType):
            for module in _host_modules():
                for alias in [key for key, value in vars(module).items() if value is original]:
                    setattr(module, alias, replacement)


def _host_modules() -> Iterator[ModuleType]:
    for name, module in list(sys.modules.items()):
        if name.split('.')[0] == 'basicsr' and isinstance(module, ModuleType):
            yield module


PATCHES: list[HostPatch] = []


def _patch(target: str, where: str, cause: str) -> Callable[[Callable[[HostFunction], HostFunction]], Any]:
    """Add the decorated maker to the table."""

    def add(make: Callable[[HostFunction], HostFunction]) -> Callable[[HostFunction], HostFunction]:
        PATCHES.append(HostPatch(target, where, cause, make))
        return make

    return add


def apply_all() -> list[HostPatch]:
    """Mend the host; a second call changes nothing.

    Returns:
        The mends in force.

    Raises:
        ImportError: the host lacks a function of the table; then nothing is changed.
    """
    for patch in PATCHES:
        patch.resolve()
    for patch in PATCHES:
        patch.apply()
    return PATCHES


# Devices and process groups ------------------------------------------------------------------------------------------


@_patch('basicsr.utils.dist_util:init_dist', 'utils/dist_util.py:24',
        'takes the rank modulo the number of GPUs: division by zero on a CPU, the wrong GPU on a second machine')
def _init_dist(original: HostFunction) -> HostFunction:
    def init_dist(launcher: str, backend: str = 'nccl', port: int | None = None) -> None:
        """The backend follows from the device; ``backend`` is what option files for GPUs say."""
        distributed.init(launcher, port)

    return init_dist


@_patch('basicsr.models.base_model:BaseModel.model_to_device', 'models/base_model.py:98',
        'asks for the current CUDA device even on a CPU')
def _model_to_device(original: HostFunction) -> HostFunction:
    def model_to_device(self: Any, net: torch.nn.Module) -> torch.nn.Module:
        net = net.to(self.device)
        if self.opt['dist']:
            devices = [torch.cuda.current_device()] if self.device.type == 'cuda' else None
            unused = self.opt.get('find_unused_parameters', False)
            return DistributedDataParallel(net, device_ids=devices, find_unused_parameters=unused)
        return DataParallel(net) if self.opt['num_gpu'] > 1 else net

    return model_to_device


@_patch('basicsr.models.sr_model:SRModel.dist_validation', 'models/sr_model.py:136',
        'rank 0 validates alone through DistributedDataParallel, whose forward broadcasts buffers (those of SwinIR, '
        'SRFormer, HiT): the ranks then wait for different collectives')
def _dist_validation(original: HostFunction) -> HostFunction:
    def dist_validation(self: Any, *args: Any) -> None:
        wrapped = self.net_g
        self.net_g = self.get_bare_model(wrapped)
        try:
            original(self, *args)
        finally:
            self.net_g = wrapped

    return dist_validation


def _init_on_device(model: Any, original: HostFunction) -> HostFunction:
    def init(self: Any, opt: dict[str, Any]) -> None:
        super(model, self).__init__(opt)
        self.jpeger = DiffJPEG(differentiable=False).to(self.device)
        self.usm_sharpener = USMSharp().to(self.device)
        self.queue_size = opt.get('queue_size', 180)

    return init


_CUDA_ONLY = 'calls .cuda() whatever the device of the model'
_patch('basicsr.models.realesrnet_model:RealESRNetModel.__init__', 'models/realesrnet_model.py:26',
       _CUDA_ONLY)(partial(_init_on_device, RealESRNetModel))
_patch('basicsr.models.realesrgan_model:RealESRGANModel.__init__', 'models/realesrgan_model.py:27',
       _CUDA_ONLY)(partial(_init_on_device, RealESRGANModel))


@_patch('basicsr.models.realesrnet_model:RealESRNetModel._dequeue_and_enqueue', 'models/realesrnet_model.py:42',
        _CUDA_ONLY)
@_patch('basicsr.models.realesrgan_model:RealESRGANModel._dequeue_and_enqueue', 'models/realesrgan_model.py:43',
        _CUDA_ONLY)
def _queue_on_device(original: HostFunction) -> HostFunction:
    def _dequeue_and_enqueue(self: Any) -> None:
        if not hasattr(self, 'queue_lr'):
            batch_size = len(self.lq)
            if self.queue_size % batch_size:
                raise InputError(f'queue_size: {self.queue_size} is not a multiple of the batch size {batch_size}; '
                                 f'set queue_size: {batch_size * max(1, round(self.queue_size / batch_size))}.')
            self.queue_lr = self.lq.new_zeros(self.queue_size, *self.lq.shape[1:])
            self.queue_gt = self.gt.new_zeros(self.queue_size, *self.gt.shape[1:])
            self.queue_ptr = 0
        original(self)

    return _dequeue_and_enqueue


@_patch('basicsr.utils.img_process_util:filter2D', 'utils/img_process_util.py:29',
        'views what may be in channels_last order (the output of DiffJPEG is, on a CPU)')
def _filter2d(original: HostFunction) -> HostFunction:
    def filter2D(img: torch.Tensor, kernel: torch.Tensor) -> torch.Tensor:
        return original(img.contiguous(), kernel)

    return filter2D


# Newer libraries -----------------------------------------------------------------------------------------------------


@_patch('basicsr.models.base_model:BaseModel.get_optimizer', 'models/base_model.py:107',
        'knows Adam only')
def _get_optimizer(original: HostFunction) -> HostFunction:
    def get_optimizer(self: Any, optim_type: str, params: Any, lr: float, **kwargs: Any) -> torch.optim.Optimizer:
        """Any class of torch.optim by its exact name."""
        classes: dict[str, Any] = {name: value for name, value in vars(torch.optim).items()
                   if inspect.isclass(value) and issubclass(value, torch.optim.Optimizer) and name != 'Optimizer'}
        if optim_type not in classes:
            by_lower_case = {name.lower(): name for name in classes}
            nearest = difflib.get_close_matches(str(optim_type).lower(), by_lower_case, n=1, cutoff=0)
            raise InputError(f'train: optimizer type {optim_type} is not one of torch.optim; '
                             f'did you mean {by_lower_case[nearest[0]]}?')
        optimizer = classes[optim_type]
        try:
            inspect.signature(optimizer).bind(params, lr=lr, **kwargs)
        except TypeError as error:
            raise InputError(f'train: optimizer {optim_type}: {error}.') from error
        return optimizer(params, lr=lr, **kwargs)

    return get_optimizer


@_patch('basicsr.data.degradations:add_jpg_compression', 'data/degradations.py:745',
        'OpenCV 5 takes integer parameters only; earlier ones cut the fraction off')
def _add_jpg_compression(original: HostFunction) -> HostFunction:
    def add_jpg_compression(img: np.ndarray, quality: float = 90) -> np.ndarray:
        return original(img, int(quality))

    return add_jpg_compression


@_patch('basicsr.metrics.fid:calculate_fid', 'metrics/fid.py:73',
        'SciPy 1.18 removed the disp argument of sqrtm')
def _calculate_fid(original: HostFunction) -> HostFunction:
    def calculate_fid(mu1: np.ndarray, sigma1: np.ndarray, mu2: np.ndarray, sigma2: np.ndarray) -> float:
        """Frechet distance |mu1 - mu2|^2 + tr(S1) + tr(S2) - 2 tr((S1 S2)^(1/2)) (Heusel et al., 2017, Eq. 6).

        S1 S2 has the eigenvalues of the symmetric R S2 R with R = S1^(1/2), so no matrix root of an unsymmetric,
        perhaps singular, product is needed.
        """
        values, vectors = np.linalg.eigh(sigma1)
        root = (vectors * np.sqrt(values.clip(min=0))) @ vectors.T
        eigenvalues = np.linalg.eigvalsh(root @ sigma2 @ root).clip(min=0)
        distance = np.sum((mu1 - mu2) ** 2) + np.trace(sigma1) + np.trace(sigma2) - 2 * np.sqrt(eigenvalues).sum()
        return float(distance)

    return calculate_fid


@_patch('basicsr.utils.logger:init_wandb_logger', 'utils/logger.py:138',
        'wandb 0.31 removed wandb.util.generate_id')
def _init_wandb_logger(original: HostFunction) -> HostFunction:
    def init_wandb_logger(opt: dict[str, Any]) -> None:
        import secrets

        import wandb  # type: ignore[import-not-found]

        if not hasattr(wandb.util, 'generate_id'):
            wandb.util.generate_id = partial(secrets.token_hex, 4)
        original(opt)

    return init_wandb_logger


@_patch('basicsr.archs.vgg_arch:VGGFeatureExtractor.__init__', 'archs/vgg_arch.py:103',
        'ends in a traceback of the downloader, or of the unpickler, where weights are missing or damaged')
def _vgg_init(original: HostFunction) -> HostFunction:
    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        from basicsr.archs.vgg_arch import VGG_PRETRAIN_PATH

        if os.path.exists(VGG_PRETRAIN_PATH):
            load_weights(VGG_PRETRAIN_PATH)  # refuses what is damaged or unsafe with a sentence
        try:
            original(self, *args, **kwargs)
        except OSError as error:
            raise InputError(f'train: perceptual_opt: the VGG weights cannot be downloaded ({error}); put '
                             f'{os.path.basename(VGG_PRETRAIN_PATH)} from https://download.pytorch.org/models/ at '
                             f'{os.path.abspath(VGG_PRETRAIN_PATH)}.') from error

    return init


# Checkpoints ---------------------------------------------------------------------------------------------------------


@_patch('basicsr.models.base_model:BaseModel.save_network', 'models/base_model.py:245',
        'writes in place, and logs a failure as "Just ignore it"')
def _save_network(original: HostFunction) -> HostFunction:
    @master_only
    def save_network(self: Any, net: Any, net_label: str, current_iter: int, param_key: Any = 'params') -> None:
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


@_patch('basicsr.models.base_model:BaseModel.save_training_state', 'models/base_model.py:315',
        'writes in place, ignores failures, and leaves out the random state and the best metric')
def _save_training_state(original: HostFunction) -> HostFunction:
    def save_training_state(self: Any, epoch: int, current_iter: int) -> None:
        """Written after the networks, and so the mark of a whole checkpoint. All ranks must call it.

        Beside the host's keys: ``rng`` (one entry per rank), ``best_metric_results``, and ``model_state`` from the
        model's ``extra_state()``, a dict of tensors and numbers, where it defines one.
        """
        if current_iter == -1:
            return
        state = {
            'epoch': epoch,
            'iter': current_iter,
            'optimizers': [optimizer.state_dict() for optimizer in self.optimizers],
            'schedulers': [scheduler.state_dict() for scheduler in self.schedulers],
            'rng': distributed.gather(capture_rng()),
        }
        if hasattr(self, 'extra_state'):
            state['model_state'] = self.extra_state()
        if hasattr(self, 'best_metric_results'):
            # Metrics come as numpy scalars, which a safe loader refuses.
            state['best_metric_results'] = {
                dataset: {metric: {**record, 'val': float(record['val'])} for metric, record in records.items()}
                for dataset, records in self.best_metric_results.items()
            }
        if distributed.is_main():
            save_atomic(state, Path(self.opt['path']['training_states']) / f'{current_iter}.state')

    return save_training_state


@_patch('basicsr.models.base_model:BaseModel.resume_training', 'models/base_model.py:345',
        'loses the best metric and what else a model remembers')
def _resume_training(original: HostFunction) -> HostFunction:
    def resume_training(self: Any, resume_state: dict[str, Any]) -> None:
        """Everything but the random state, which the training loop restores last (``checkpoint.restore_rng``)."""
        for key, current in (('optimizers', self.optimizers), ('schedulers', self.schedulers)):
            if len(resume_state[key]) != len(current):
                raise InputError(f'path: resume_state: the training state holds {len(resume_state[key])} {key}, the '
                                 f'options make {len(current)}; resume with the options it was made with.')
        original(self, resume_state)
        if 'best_metric_results' in resume_state:
            metrics = ((self.opt.get('val') or {}).get('metrics') or {}).keys()
            # A record of other metrics cannot be continued: validation looks up every metric of the options in it.
            best = resume_state['best_metric_results']
            self.best_metric_results = {dataset: best[dataset] for dataset in best if best[dataset].keys() == metrics}
        if 'model_state' in resume_state:
            self.load_extra_state(resume_state['model_state'])

    return resume_training


@_patch('basicsr.models.base_model:BaseModel.load_network', 'models/base_model.py:290',
        'leaves safe loading to torch\'s default, and knows neither safetensors, bare state_dicts nor old key names')
def _load_network(original: HostFunction) -> HostFunction:
    def load_network(self: Any, net: torch.nn.Module, load_path: str, strict: bool = True,
                     param_key: str | None = 'params') -> None:
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
            raise InputError(f'{load_path}: does not fit {type(net).__name__} ({first[:200]}); choose the network '
                             'options it was made with, or set strict_load_g: false to load what fits.') from error

    return load_network


def _select_weights(loaded: dict[str, Any], param_key: str | None, path: str) -> tuple[dict[str, Any], str | None]:
    """The state_dict inside a checkpoint, and the key it lay under (None for the root)."""
    for key in (param_key, 'params'):
        if param_key is not None and key in loaded and isinstance(loaded[key], dict):
            return loaded[key], key
    if all(isinstance(value, torch.Tensor) for value in loaded.values()):
        return loaded, None
    raise InputError(f'{path}: no weights under {param_key!r}, only {", ".join(map(repr, list(loaded)[:5]))}; '
                     'set param_key_g (or param_key_d) to one of these.')


# Data ----------------------------------------------------------------------------------------------------------------


@_patch('basicsr.utils.misc:scandir', 'utils/misc.py:74',
        'lists in the file system\'s order, so that a seed means other samples on another machine')
def _scandir(original: HostFunction) -> HostFunction:
    def scandir(dir_path: str, suffix: str | tuple[str, ...] | None = None, recursive: bool = False,
                full_path: bool = False) -> Iterator[str]:
        """Visible files in the order of their names.

        Raises:
            InputError: the folder does not exist.
        """
        if not os.path.isdir(dir_path):
            raise InputError(f'{dir_path}: no such folder; correct the path in the option file.')
        return _visible_files(dir_path, dir_path, suffix or '', recursive, full_path)

    return scandir


def _visible_files(folder: str, root: str, suffix: str | tuple[str, ...], recursive: bool,
                   full_path: bool) -> Iterator[str]:
    with os.scandir(folder) as entries:
        in_order = sorted(entries, key=lambda entry: entry.name)
    for entry in in_order:
        if recursive and entry.is_dir():
            yield from _visible_files(entry.path, root, suffix, recursive, full_path)
        elif entry.is_file() and not entry.name.startswith('.') and entry.name.endswith(suffix):
            yield entry.path if full_path else os.path.relpath(entry.path, root)


@_patch('basicsr.data.data_util:paired_paths_from_folder', 'data/data_util.py:228',
        'looks every name up in a list, O(N^2): 13 s for DIV2K\'s sub-images')
def _paired_paths_from_folder(original: HostFunction) -> HostFunction:
    def paired_paths_from_folder(folders: list[str], keys: list[str], filename_tmpl: str) -> list[dict[str, str]]:
        """Pairs in the order of the GT names.

        Raises:
            InputError: a folder is missing or empty, or names have no partner.
        """
        from basicsr.utils import scandir

        (lq_folder, gt_folder), (lq_key, gt_key) = folders, keys
        lq_names, gt_names = set(scandir(lq_folder)), list(scandir(gt_folder))
        for key, folder, names in ((gt_key, gt_folder, gt_names), (lq_key, lq_folder, lq_names)):
            if not names:
                raise InputError(f'dataroot_{key}: {folder} holds no images.')
        pairs = {}
        for gt_name in gt_names:
            stem, extension = os.path.splitext(gt_name)
            pairs[f'{filename_tmpl.format(stem)}{extension}'] = gt_name
        missing, extra = sorted(pairs.keys() - lq_names), sorted(lq_names - pairs.keys())
        if missing:
            raise InputError(f'dataroot_{lq_key}: {lq_folder} lacks {len(missing)} of {len(pairs)} partners of '
                             f'{gt_folder}, first {missing[0]}; check filename_tmpl ({filename_tmpl}).')
        if extra:
            raise InputError(f'dataroot_{lq_key}: {lq_folder} holds {len(extra)} files without a partner in '
                             f'{gt_folder}, first {extra[0]}.')
        join = os.path.join
        return [{f'{lq_key}_path': join(lq_folder, lq_name), f'{gt_key}_path': join(gt_folder, gt_name)}
                for lq_name, gt_name in pairs.items()]

    return paired_paths_from_folder


_LISTED = 'joins what a meta_info file says to the folder, also absolute names and ../'


@_patch('basicsr.data.paired_image_dataset:PairedImageDataset.__init__', 'data/paired_image_dataset.py:60', _LISTED)
@_patch('basicsr.data.single_image_dataset:SingleImageDataset.__init__', 'data/single_image_dataset.py:43', _LISTED)
@_patch('basicsr.data.realesrgan_dataset:RealESRGANDataset.__init__', 'data/realesrgan_dataset.py:56', _LISTED)
@_patch('basicsr.data.realesrgan_paired_dataset:RealESRGANPairedDataset.__init__',
        'data/realesrgan_paired_dataset.py:64', _LISTED)
def _dataset_init(original: HostFunction) -> HostFunction:
    def init(self: Any, opt: dict[str, Any]) -> None:
        table = opt.get('meta_info_file') or opt.get('meta_info')
        try:
            original(self, opt)
        except FileNotFoundError as error:
            raise InputError(f'{error.filename}: no such file; correct the path in the option file.') from error
        except ValueError as error:
            raise InputError(f'{table or opt.get("dataroot_gt")}: not what {type(self).__name__} reads ({error}).') from error
        if opt['io_backend'].get('type') == 'lmdb':
            return
        folders = [opt[key] for key in ('dataroot_gt', 'dataroot_lq') if opt.get(key)]
        roots = tuple(os.path.join(os.path.abspath(folder), '') for folder in folders)
        for entry in self.paths:
            for path in entry.values() if isinstance(entry, dict) else [entry]:
                if not os.path.abspath(path).startswith(roots):
                    raise InputError(f'{table}: {path!r} is not a file inside the dataset\'s folder; '
                                     'give names relative to it, one a line.')

    return init
