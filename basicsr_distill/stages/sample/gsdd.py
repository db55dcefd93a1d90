"""The images of a GSDD training: latents through its frozen generator, in the place of drawing."""

from collections.abc import Sequence
from pathlib import Path

import torch

from basicsr_distill.config.experiment import Experiment
from basicsr_distill.config.sections.gsdd import GSDDTrainOptions, LatentImagesOptions
from basicsr_distill.config.sections.sample import SampleOptions
from basicsr_distill.diffusion.codec import to_uint8
from basicsr_distill.errors import InputError
from basicsr_distill.io.images import write_png
from basicsr_distill.io.weights import load_weights
from basicsr_distill.models.gsdd_model import build_generator, choose_starts
from basicsr_distill.runtime import distributed
from basicsr_distill.stages.licences import Weights, generator_weights
from basicsr_distill.stages.sample.plan import Draw
from basicsr_distill.stages.sample.source import Source

# What of the sample section has a meaning without a denoiser.
_KEYS = {'images_per_cluster', 'save_dir', 'scale', 'seed'}


def is_gsdd(experiment: Experiment) -> bool:
    """Return whether the training is one of latent images."""
    sections = experiment.recipe.experiment
    return sections is not None and isinstance(sections.networks.get('network_g'), LatentImagesOptions)


def refuse_other_keys(options: SampleOptions, experiment: Experiment) -> None:
    """Refuse what would have no effect.

    Raises:
        InputError: a key is about drawing from a denoiser, or another number of images is asked for than was trained.
    """
    if others := sorted(options.model_fields_set - _KEYS):
        raise InputError(f'sample.{others[0]}: GSDD draws nothing, its images are trained; remove the key.')
    trained = experiment.opt['network_g']['images_per_label']
    if options.images_per_cluster != trained:
        raise InputError(
            f'sample.images_per_cluster: {options.images_per_cluster}, but network_g.images_per_label is '
            f'{trained}; let them agree.'
        )


def plan_images(source: Source, experiment: Experiment) -> list[Draw]:
    """Every trained image, with the patch that its latent started from."""
    network, seed = experiment.opt['network_g'], experiment.opt['manual_seed']
    return [
        Draw(label, index, start)
        for label in range(network['num_labels'])
        for index, start in enumerate(choose_starts(source.labels, label, network['images_per_label'], seed))
    ]


def render_images(draws: Sequence[Draw], source: Source, experiment: Experiment, folder: Path) -> None:
    """Write every image into a folder; rank 0 alone has something to do.

    Raises:
        InputError: a file of weights is damaged or not of these networks.
    """
    if not distributed.is_main():
        return
    assert source.checkpoint is not None
    latents = load_weights(source.checkpoint).get('params', {}).get('images')
    if latents is None:
        raise InputError(f'{source.checkpoint}: holds no latent images; it is not of a GSDD training.')
    generator = build_generator(train_options(experiment), experiment.opt['scale'])
    for draw in draws:
        with torch.inference_mode():
            write_png(folder / draw.name, to_uint8(generator(latents[draw.label, draw.index][None]).clamp(0, 1))[0])


def train_options(experiment: Experiment) -> GSDDTrainOptions:
    """The ``train`` section."""
    sections = experiment.recipe.experiment
    assert sections is not None and isinstance(sections.train, GSDDTrainOptions)
    return sections.train


def generator_of(experiment: Experiment) -> Weights:
    """The generator's weights, for the card."""
    options = train_options(experiment)
    return generator_weights(options.generator, options.generator_weights)
