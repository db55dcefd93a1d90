"""What a set is drawn from: a trained denoiser, and the patches and clusters that it was trained on."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from basicsr_distill.config.experiment import Experiment
from basicsr_distill.config.sections.cluster import ClusterOptions
from basicsr_distill.config.sections.datasets import LatentPatchDatasetOptions
from basicsr_distill.config.sections.dit import MinimaxDiTNetworkOptions
from basicsr_distill.config.sections.encoders import EncoderOptions
from basicsr_distill.config.sections.gsdd import LabelledPatchDatasetOptions, LatentImagesOptions
from basicsr_distill.data.labelled_patch_dataset import LabelledPatchDataset
from basicsr_distill.data.latent_patch_dataset import LatentPatchDataset
from basicsr_distill.errors import InputError
from basicsr_distill.io.files import sha256_file
from basicsr_distill.io.inputs import changed_inputs, file_inputs, training_inputs
from basicsr_distill.stages.cluster import read_features
from basicsr_distill.stages.record import fingerprint_stage, photo_folders, read_stage, refuse_overlap


@dataclass(frozen=True)
class Source:
    """Opened inputs of the stage."""

    name: str  # of the experiment
    network: Mapping[str, Any]  # the section ``network_g``
    checkpoint: Path | None  # of the training; None for published weights as they are
    patches: LatentPatchDataset | LabelledPatchDataset  # of a denoiser, with their latents
    labels: NDArray[np.int64]  # of the patches, (N,)
    features: NDArray[np.float32]  # of the patches, (N, D)
    encoder: EncoderOptions  # that made the features


def find_checkpoint(experiment: Experiment) -> Path | None:
    """The newest checkpoint of a training of MinimaxDiT on latents, or of LatentImages on patches; None if untuned.

    Raises:
        InputError: there is none, or the file trains something else.
    """
    sections = experiment.recipe.experiment
    assert sections is not None
    pair = type(sections.networks.get('network_g')), type(sections.datasets.get('train'))
    if pair not in (
        (MinimaxDiTNetworkOptions, LatentPatchDatasetOptions),
        (LatentImagesOptions, LabelledPatchDatasetOptions),
    ):
        raise InputError(
            'sample: network_g must be a MinimaxDiT and datasets.train a LatentPatchDataset, or, for GSDD, '
            'LatentImages and a LabelledPatchDataset.'
        )
    if experiment.recipe.is_untuned:
        return None
    checkpoint = Path(experiment.opt['path']['models']) / 'net_g_latest.pth'
    if not checkpoint.is_file():
        raise InputError(f'{checkpoint}: no such checkpoint; run the finetune stage (or `basicsr train`) first.')
    return checkpoint


def fingerprints(experiment: Experiment, checkpoint: Path | None, save_dir: str) -> dict[str, str]:
    """Checksums of all that the set depends on.

    Raises:
        InputError: ``save_dir`` lies in the folder of the photographs, or they in it; or weights are others now than
            when the denoiser was trained or the patches were clustered.
    """
    section = experiment.opt['datasets']['train']
    clusters = Path(section['labels_file']).parent
    refuse_overlap(save_dir, photo_folders(Path(section['dataroot'])), 'sample.save_dir')
    weights = (
        f'pretrained {experiment.opt["network_g"]["pretrained"]}' if checkpoint is None else sha256_file(checkpoint)
    )
    stages = {'patches': fingerprint_stage(Path(section['dataroot'])), 'clusters': fingerprint_stage(clusters)}
    # What the training started from is in its checkpoint.
    files = {key: digest for key, digest in training_inputs(experiment.recipe).items() if not key.startswith('path.')}
    _refuse_changed(Path(experiment.opt['path']['experiments_root']), files)
    encoder = file_inputs(_encoder_of(clusters), 'cluster.encoder')
    _refuse_changed(clusters, {f'encoder.{key}': digest for key, digest in encoder.items()})
    return {'checkpoint': weights, **stages, **files}


def _refuse_changed(folder: Path, files: Mapping[str, str]) -> None:
    """Refuse to go on with other files than a stage has worked with."""
    if changed := changed_inputs(read_stage(folder), files):
        raise InputError(
            f'{folder}: was made with another file or folder as {changed[0]}; put that one back, or make '
            'this again under another name.'
        )


def _encoder_of(clusters: Path) -> EncoderOptions:
    return ClusterOptions(**read_stage(clusters)['options']).encoder


def open_source(experiment: Experiment, checkpoint: Path | None) -> Source:
    """Read the patches, their labels and their features; every rank must call it.

    Raises:
        InputError: they do not match.
    """
    section = experiment.opt['datasets']['train']
    patches: LatentPatchDataset | LabelledPatchDataset
    if section['type'] == 'LabelledPatchDataset':
        patches = LabelledPatchDataset(section)
    else:
        patches = LatentPatchDataset(section)
        patches.prepare()
    clusters = Path(section['labels_file']).parent
    return Source(
        experiment.opt['name'],
        experiment.opt['network_g'],
        checkpoint,
        patches,
        np.array(patches.labels),
        read_features(clusters, [row.name for row in patches.rows]),
        _encoder_of(clusters),
    )
