"""What may change in an option file before ``--auto_resume``.

A training state carries the options it was made with. The rule: what was trained so far must be what the option file
now says, so an edit is refused unless it leaves the past as it was; those that do are applied and logged. The table is
in docs/RESUME.md.
"""

import json
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any

from basicsr.utils import get_root_logger

from basicsr_distill.config.differences import describe, differences
from basicsr_distill.config.experiment import Experiment
from basicsr_distill.errors import InputError

# How fast, where from and under which name: nothing of what is trained. Not recorded.
UNRECORDED = (
    'name',
    'path',
    'num_gpu',
    'dist',
    'dist_params',
    'rank',
    'world_size',
    'is_train',
    'auto_resume',
    'root_path',
    'find_unused_parameters',
    'datasets',
)
UNRECORDED_OF_TRAIN_SET = (
    'name',
    'phase',
    'scale',
    'batch_size_per_gpu',
    'num_worker_per_gpu',
    'prefetch_mode',
    'pin_memory',
    'num_prefetch_queue',
    'persistent_workers',
    'use_shuffle',
    'cache',
    'latents_dir',
    'encode_batch_size',
)
# Facts beside the options of the file.
_OWN_KEYS = ('ranks', 'global_batch', 'images')
# Applied from here on, and logged.
APPLIED = (
    'train.total_iter',
    'val',
    'val.*',
    'logger',
    'logger.*',
    'datasets.val*',
    'ranks',
    'images',
    # other photographs, or more of them
    'datasets.train.dataroot*',
    'datasets.train.meta_info*',
    'datasets.train.filename_tmpl',
    'datasets.train.io_backend*',
    'datasets.train.num_images',
    'datasets.train.labels',
    'datasets.train.dataset_enlarge_ratio',
    # what to change when memory or the number format does not suffice
    'train.accumulation',
    'train.precision',
    'train.compile',
    'network_*.gradient_checkpointing',
    'network_*.use_checkpoint',
)


def options_record(experiment: Experiment, num_images: int) -> dict[str, Any]:
    """What a training state says about its options: plain JSON values, defaults included.

    Args:
        experiment: before the models take types out of its dictionary.
        num_images: length of the training set.
    """
    opt = experiment.opt
    train_set = opt['datasets']['train']
    shares = opt['world_size'] if opt['dist'] else max(1, opt['num_gpu'])
    record = {key: value for key, value in opt.items() if key not in UNRECORDED}
    record['datasets'] = {
        **opt['datasets'],
        'train': {key: value for key, value in train_set.items() if key not in UNRECORDED_OF_TRAIN_SET},
    }
    record.update(ranks=opt['world_size'], global_batch=train_set['batch_size_per_gpu'] * shares, images=num_images)
    return dict(json.loads(json.dumps(record, default=str)))


def check_edits(experiment: Experiment, state: dict[str, Any], record: dict[str, Any]) -> None:
    """Compare the options with those of the training state: log the edits that are applied, refuse the others.

    Args:
        experiment: about to go on; its ``path.resume_state`` names the training state.
        state: the content of that.
        record: of the options now, by :func:`options_record`.

    Raises:
        InputError: names every key that may not change, with its old and its new value.
    """
    logger, state_path = get_root_logger(), experiment.opt['path']['resume_state']
    if 'options' not in state:
        logger.warning(
            '%s does not say with which options it was made: edits of the option file since then cannot be seen.',
            state_path,
        )
        return
    found = [
        (key, old, new)
        for key, old, new in differences(state['options'], record)
        if old is not None or not _is_new_default(key, experiment.recipe.options)
    ]
    applied = [edit for edit in found if any(fnmatchcase(edit[0], pattern) for pattern in APPLIED)]
    refused = [edit for edit in found if edit not in applied]
    if refused:
        raise InputError(
            f'{experiment.path}: {state_path} was trained with other options ({describe(refused)}); take these '
            'back, or give the experiment another name and let path.pretrain_network_g start it from '
            'those weights.'
        )
    if applied:
        logger.info('Edited since the checkpoint, and applied from here on: %s.', describe(applied))


def _is_new_default(key: str, written: Mapping[str, Any]) -> bool:
    """Whether an option that the training state lacks is not in the file either: it came with a newer version."""
    if key in _OWN_KEYS:
        return False
    section: Any = written
    for part in key.split('.'):
        if not isinstance(section, Mapping) or section.get(part) is None:
            return True
        section = section[part]
    return False
