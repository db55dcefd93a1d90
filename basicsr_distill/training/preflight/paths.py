"""Whether what an option file names exists and can be opened: data sets, weights, labels, backbones."""

import importlib.util
import os
from collections.abc import Iterator, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

from basicsr.archs import build_network
from basicsr.data import build_dataset

from basicsr_distill.config.experiment import Experiment
from basicsr_distill.config.sections.datasets import HostDatasetOptions
from basicsr_distill.errors import InputError
from basicsr_distill.features.backbones import backbone_file
from basicsr_distill.io.manifest import read_labels
from basicsr_distill.io.weights import load_weights
from basicsr_distill.metrics.lpips_metric import load_lpips

_STAGE_MARK = 'stage.json'
# Where the images of a stage's folder lie.
_STAGE_IMAGES = ('images', 'HR')


def check_pretrained(experiment: Experiment) -> None:
    """Refuse a damaged or malicious checkpoint before anything is written.

    Raises:
        InputError: as :func:`basicsr_distill.io.weights.load_weights`.
    """
    path, opt = experiment.path, experiment.opt
    files = {f'path.{key}': value for key, value in opt['path'].items() if 'pretrain_network' in key}
    files['train.generator_weights'] = (opt.get('train') or {}).get('generator_weights')
    for key, value in files.items():
        if isinstance(value, str):
            try:
                load_weights(value)
            except InputError as error:
                raise InputError(f'{path}: {key}: {error}') from error


def check_labels(experiment: Experiment) -> None:
    """Refuse pseudo-labels outside the network's table before the patches are encoded.

    Raises:
        InputError: names the number that is needed.
    """
    path, opt = experiment.path, experiment.opt
    section = opt['datasets']['train']
    if section['type'] == 'LatentPatchDataset' and 'num_labels' in opt['network_g']:
        highest = max(read_labels(Path(section['labels_file'])).values(), default=0)
        if highest >= opt['network_g']['num_labels']:
            raise InputError(
                f'{path}: network_g.num_labels: {section["labels_file"]} has labels up to {highest}; '
                f'set num_labels: {highest + 1}.'
            )


def check_backbones(experiment: Experiment) -> None:
    """Refuse a run whose perceptual loss or LPIPS lacks its weights now, not when they are first needed."""
    path, opt = experiment.path, experiment.opt
    perceptual = [
        (key, value)
        for key, value in (opt.get('train') or {}).items()
        if isinstance(value, dict) and value.get('type') == 'PerceptualLoss'
    ]
    for key, value in perceptual:
        try:
            backbone_file(value.get('vgg_type', 'vgg19'))
        except InputError as error:
            raise InputError(f'{path}: train.{key}: {error}.') from error
    for key, value in ((opt.get('val') or {}).get('metrics') or {}).items():
        if value['type'] == 'calculate_lpips':
            try:
                load_lpips(value['net'], value['weights'])
            except InputError as error:
                raise InputError(
                    f'{path}: val.metrics.{key}: {error}; or leave the metric out with '
                    f'--force_yml val:metrics:{key}=none.'
                ) from error


def build_checked_dataset(experiment: Experiment, name: str) -> Any:
    """A data set of the experiment that holds something.

    Raises:
        InputError: it cannot be built, or is empty.
    """
    path, section = experiment.path, experiment.opt['datasets'][name]
    try:
        dataset = build_dataset(section)
        if not hasattr(dataset, 'options'):  # ours read their own lists
            _check_inside(section, dataset)
    except FileNotFoundError as error:
        raise InputError(f'{path}: datasets.{name}: {error.filename}: no such file; correct the path.') from error
    except KeyError as error:
        raise InputError(f'{path}: datasets.{name}: {section["type"]} needs the key {error}.') from error
    except InputError as error:
        raise InputError(f'{path}: datasets.{name}: {error}') from error
    except (TypeError, ValueError, AttributeError, IndexError, AssertionError) as error:
        raise InputError(
            f'{path}: datasets.{name}: {section["type"]} cannot be built with these values ({error}).'
        ) from error
    if len(dataset) == 0:
        raise InputError(
            f'{path}: datasets.{name}: {section.get("dataroot_gt") or section.get("dataroot_lq")} holds no images.'
        )
    return dataset


def _check_inside(section: dict[str, Any], dataset: Any) -> None:
    """Refuse lists that lead out of the data set's folder: BasicSR joins absolute names and ``../`` too."""
    if (section.get('io_backend') or {}).get('type') == 'lmdb':
        return
    folders = [section[key] for key in ('dataroot_gt', 'dataroot_lq') if section.get(key)]
    roots = tuple(os.path.join(os.path.abspath(folder), '') for folder in folders)
    for entry in getattr(dataset, 'paths', ()) if roots else ():
        for path in entry.values() if isinstance(entry, dict) else [entry]:
            if not os.path.abspath(path).startswith(roots):
                table = section.get('meta_info_file') or section.get('meta_info')
                raise InputError(
                    f"{table}: {path!r} is not a file inside the dataset's folder; "
                    'give names relative to it, one a line.'
                )


def check_roots(experiment: Experiment) -> None:
    """Refuse folders and lmdbs that BasicSR's data sets cannot read, before any file in them is opened.

    Raises:
        InputError: names the key.
    """
    opened: dict[str, str] = {}
    for name, section in _host_datasets(experiment):
        where = f'{experiment.path}: datasets.{name}'
        roots = {
            key: root for key in ('dataroot_gt', 'dataroot_lq') if (root := experiment.opt['datasets'][name].get(key))
        }
        _check_backend(where, section.io_backend.type, roots)
        if section.io_backend.type == 'lmdb':
            # Workers are processes of their own; validation has none.
            if not (name == 'train' and section.num_worker_per_gpu):
                _check_opened_once(experiment.path, name, roots, opened)
        elif not (getattr(section, 'meta_info_file', None) or getattr(section, 'meta_info', None)):
            _check_no_stage(where, roots)


def _host_datasets(experiment: Experiment) -> Iterator[tuple[str, HostDatasetOptions]]:
    sections = experiment.recipe.experiment
    assert sections is not None
    yield from (
        (name, section) for name, section in sections.datasets.items() if isinstance(section, HostDatasetOptions)
    )


def _check_backend(where: str, backend: str, roots: Mapping[str, str]) -> None:
    if backend == 'memcached' and importlib.util.find_spec('mc') is None:
        raise InputError(
            f'{where}.io_backend: memcached needs the package mc, which is not installed; write type: disk.'
        )
    for key, root in roots.items():
        is_lmdb = root.rstrip('/').endswith('.lmdb') or os.path.isfile(os.path.join(root, 'data.mdb'))
        if backend == 'lmdb' and not root.endswith('.lmdb'):
            raise InputError(
                f'{where}.{key}: {root} does not end in .lmdb; write io_backend: {{type: disk}} for a folder of images.'
            )
        if backend == 'lmdb' and not os.path.isfile(os.path.join(root, 'meta_info.txt')):
            raise InputError(
                f'{where}.{key}: {root} has no meta_info.txt, the list that BasicSR reads; make the lmdb anew.'
            )
        if backend == 'disk' and is_lmdb:
            raise InputError(f'{where}.io_backend: disk, but {key} {root} is an lmdb; write type: lmdb.')
    if backend == 'lmdb' and len({os.path.realpath(root) for root in roots.values()}) < len(roots):
        raise InputError(f'{where}.dataroot_lq: is the same lmdb as dataroot_gt; give that of the LR images.')


def _check_opened_once(path: Path, name: str, roots: Mapping[str, str], opened: dict[str, str]) -> None:
    for key, root in roots.items():
        where = f'datasets.{name}.{key}'
        earlier = opened.setdefault(os.path.realpath(root), where)
        if earlier != where:
            raise InputError(
                f'{path}: {where}: {root} is already opened for {earlier}, and an lmdb cannot be opened twice in one '
                'process; copy it, or set num_worker_per_gpu: 1 where one of them is the training set.'
            )


def _check_no_stage(where: str, roots: Mapping[str, str]) -> None:
    """The folder of a stage holds figures and tables beside its images, which BasicSR would take for images."""
    for key, root in roots.items():
        if os.path.isfile(os.path.join(root, _STAGE_MARK)):
            images = next((name for name in _STAGE_IMAGES if os.path.isdir(os.path.join(root, name))), None)
            raise InputError(
                f'{where}.{key}: {root} is the folder of a stage, which holds more than images'
                + (f'; write {os.path.join(root, images)}.' if images else '; correct the path.')
            )


def check_weights_given(experiment: Experiment) -> None:
    """Refuse a test of random weights.

    Raises:
        InputError: names the key.
    """
    opt = experiment.opt
    if opt['is_train'] or opt['path'].get('pretrain_network_g') is not None:
        return
    # Some networks only interpolate.
    if any(True for _ in build_network(deepcopy(opt['network_g'])).parameters()):
        raise InputError(
            f'{experiment.path}: path.pretrain_network_g: is missing or empty, and a test of '
            f'{opt["network_g"]["type"]} with random weights measures nothing; give a checkpoint.'
        )
