"""``LabelledPatchDataset``: the patches of a recipe with their pseudo-labels."""

from pathlib import Path
from typing import Any

import torch
from basicsr.utils.registry import DATASET_REGISTRY
from torch.utils.data import Dataset

from basicsr_distill.config.registry import bind_dataset
from basicsr_distill.config.sections.gsdd import LabelledPatchDatasetOptions
from basicsr_distill.errors import InputError
from basicsr_distill.io.files import safe_join
from basicsr_distill.io.images import read_rgb
from basicsr_distill.io.manifest import IMAGES_FOLDER, MANIFEST_NAME, PatchRow, labels_of, read_table


@DATASET_REGISTRY.register()
class LabelledPatchDataset(Dataset[dict[str, Any]]):
    """Patches of the extract stage with the labels of the cluster stage.

    Items: ``gt`` (3, H, W), float32, RGB, [0, 1]; ``label``, int.

    Args:
        opt: the section of the option file with BasicSR's ``phase`` and ``scale``; its keys are those of
            :class:`~basicsr_distill.config.sections.LabelledPatchDatasetOptions`.

    Raises:
        InputError: the patches or labels are missing or do not match.
    """

    def __init__(self, opt: dict[str, Any]) -> None:
        self.opt = opt
        self.options: LabelledPatchDatasetOptions = bind_dataset(opt)
        self.dataroot = Path(self.options.dataroot)
        self.rows = read_table(self.dataroot / MANIFEST_NAME, PatchRow)
        if not self.rows:
            raise InputError(f'{self.dataroot / MANIFEST_NAME}: lists no patches; extract some first.')
        self.labels = labels_of(self.rows, self.dataroot, Path(self.options.labels_file))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        path = safe_join(self.dataroot / IMAGES_FOLDER, self.rows[index].name, listed_in=self.dataroot / MANIFEST_NAME)
        pixels = torch.from_numpy(read_rgb(path)).permute(2, 0, 1).float() / 255
        return {'gt': pixels, 'label': self.labels[index]}
