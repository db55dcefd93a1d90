"""What a recipe need not say, because it follows from the rest: folders from ``name``, and facts that are said once.

======================================  =================================================
absent key                              what stands for it
======================================  =================================================
``extract.save_dir``                    ``datasets/<name>/patches``
``cluster.save_dir``                    ``datasets/<name>/clusters``
``select.save_dir``                     ``datasets/<name>/selected``
``sample.save_dir``                     ``datasets/<name>/distilled``
``dataroot`` and ``labels_file`` of     ``extract.save_dir`` and ``labels.csv`` in ``cluster.save_dir``
data sets of patches
``name`` of a data set                  its key: ``train``, ``val``, ``test_1``
``network_g.num_labels``                ``cluster.num_clusters``, where that is a number
``network_g.images_per_label``          ``sample.images_per_cluster``
``scale`` of ``extract``, ``select``    that of the root, or of the other sections
and ``sample``
======================================  =================================================
"""

import os
from collections.abc import Mapping
from typing import Any

from basicsr_distill.config.sections.cluster import ClusterOptions
from basicsr_distill.errors import InputError

_FOLDERS = {'extract': 'patches', 'cluster': 'clusters', 'select': 'selected', 'sample': 'distilled'}
_SCALED = ('extract', 'select', 'sample')
_PATCH_DATASETS = ('LatentPatchDataset', 'LabelledPatchDataset')
# Keys that a section may leave to this module, by its model: for the JSON schema.
DERIVED_KEYS = {
    'ExtractOptions': ('save_dir',),
    'ClusterOptions': ('save_dir',),
    'SelectOptions': ('save_dir',),
    'SampleOptions': ('save_dir',),
    'LatentPatchDatasetOptions': ('dataroot', 'labels_file'),
    'LabelledPatchDatasetOptions': ('dataroot', 'labels_file'),
    'MinimaxDiTNetworkOptions': ('num_labels',),
    'LatentImagesOptions': ('num_labels', 'images_per_label'),
}


def complete(options: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Fill in what follows from the rest of a recipe; what the file states stays as it is.

    Args:
        options: content of an option file, which is not changed.
        name: of the experiment.

    >>> complete({'extract': {'dataroot': 'photos'}, 'scale': 2}, 'mine')['extract']
    {'save_dir': 'datasets/mine/patches', 'scale': 2, 'dataroot': 'photos'}
    """
    made, scale = dict(options), stated_scale(options)
    folders = {}
    for stage, folder in _FOLDERS.items():
        derived = {'save_dir': f'datasets/{name}/{folder}'}
        folders[stage] = _section(options, stage).get('save_dir') or derived['save_dir']
        _fill(made, stage, derived if scale is None or stage not in _SCALED else {**derived, 'scale': scale})
    made_before = {'dataroot': folders['extract'], 'labels_file': f'{folders["cluster"]}/labels.csv'}
    if datasets := _section(made, 'datasets'):
        made['datasets'] = datasets = dict(datasets)
        for phase in datasets:
            is_patches = _section(datasets, phase).get('type') in _PATCH_DATASETS
            _fill(datasets, phase, {'name': phase, **(made_before if is_patches else {})})
    cluster, sample, network = (_section(made, key) for key in ('cluster', 'sample', 'network_g'))
    kind = network.get('type')
    if cluster and kind in ('MinimaxDiT', 'LatentImages'):
        num_clusters = cluster.get('num_clusters', ClusterOptions.model_fields['num_clusters'].default)
        _fill(made, 'network_g', {'num_labels': num_clusters} if isinstance(num_clusters, int) else {})
    if 'images_per_cluster' in sample and kind == 'LatentImages':
        _fill(made, 'network_g', {'images_per_label': sample['images_per_cluster']})
    return made


def stated_scale(options: Mapping[str, Any]) -> Any:
    """Return the scale that a file states, the root's first; None where it states none."""
    stated = [options.get('scale'), *(_section(options, stage).get('scale') for stage in _SCALED)]
    return next((scale for scale in stated if scale is not None), None)


def check_agreement(path: Any, options: Mapping[str, Any], scale: int) -> None:
    """Refuse a recipe that says two things of one fact: a training on another's patches, mixed scales, lost labels.

    Args:
        path: of the file, for messages.
        options: of :func:`complete`.
        scale: of the experiment.

    Raises:
        InputError: names both keys.
    """
    extract, cluster, network = (_section(options, key) for key in ('extract', 'cluster', 'network_g'))
    train_set = _section(_section(options, 'datasets'), 'train')
    expected = {
        'dataroot': extract.get('save_dir'),
        'labels_file': f'{cluster["save_dir"]}/labels.csv' if cluster else None,
    }
    for key, folder in expected.items():
        given = train_set.get(key)
        if train_set.get('type') not in _PATCH_DATASETS or given is None or folder is None:
            continue
        if os.path.normpath(given) != os.path.normpath(folder):
            raise InputError(
                f'{path}: datasets.train.{key}: is {given}, but this recipe makes {folder}; leave the key out.'
            )
    scales = {f'{stage}.scale': _section(options, stage).get('scale') for stage in _SCALED} | {'scale': scale}
    scales = {key: value for key, value in scales.items() if value is not None}
    if len(set(scales.values())) > 1:
        listed = ', '.join(f'{key} is {value}' for key, value in scales.items())
        raise InputError(f'{path}: {listed}; let them agree.')
    num_labels, num_clusters = network.get('num_labels'), cluster.get('num_clusters')
    if isinstance(num_labels, int) and isinstance(num_clusters, int) and num_labels < num_clusters:
        raise InputError(
            f'{path}: network_g.num_labels: is {num_labels}, but cluster.num_clusters is {num_clusters}; leave '
            'num_labels out.'
        )


def _section(options: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    section = options.get(key)
    return section if isinstance(section, Mapping) else {}


def _fill(options: dict[str, Any], key: str, derived: Mapping[str, Any]) -> None:
    """Put values into a section, where the file has that section and leaves them out."""
    section = options.get(key)
    if isinstance(section, Mapping):
        stated = {name: value for name, value in section.items() if name not in derived or value is not None}
        options[key] = {**derived, **stated}
