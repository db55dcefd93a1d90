"""The last stage: the trained denoiser draws images for every label, and a distilled set is published.

What is drawn is planned (:mod:`plan`), drawn (:mod:`draw`), chosen from (:mod:`choose`) and written (:mod:`publish`).
The images of a GSDD training are rendered instead of drawn (:mod:`gsdd`).
"""

from pathlib import Path

from basicsr_distill.config.experiment import Experiment, to_experiment
from basicsr_distill.config.recipe import Recipe
from basicsr_distill.config.sections.sample import SampleOptions
from basicsr_distill.features.encoders import Encoder, build_encoder, encode_images
from basicsr_distill.io.inputs import file_inputs
from basicsr_distill.runtime import distributed
from basicsr_distill.stages.record import StagePlan, StageResult, StageRun
from basicsr_distill.stages.sample import gsdd
from basicsr_distill.stages.sample.choose import choose, read_candidates
from basicsr_distill.stages.sample.denoiser import own_errors
from basicsr_distill.stages.sample.draw import draw_own
from basicsr_distill.stages.sample.plan import plan_draws
from basicsr_distill.stages.sample.publish import publish
from basicsr_distill.stages.sample.source import Source, find_checkpoint, fingerprints, open_source
from basicsr_distill.stages.sharding import shared_stage_folder


def run(recipe: Recipe) -> StageResult:
    """Draw and publish a distilled set; see :func:`draw_set`."""
    assert recipe.sample is not None
    return draw_set(recipe.sample, to_experiment(recipe, is_train=True, root=Path.cwd()))


def plan(recipe: Recipe) -> StagePlan:
    """Return what the stage is asked to make.

    Raises:
        InputError: nothing was trained there, or the folder cannot be used.
    """
    assert recipe.sample is not None
    return _plan(recipe.sample, to_experiment(recipe, is_train=True, root=Path.cwd()))


def draw_set(options: SampleOptions, experiment: Experiment) -> StageResult:
    """Draw and publish a distilled set.

    Args:
        options: of the stage.
        experiment: the training that it samples from.

    Returns:
        Its folder, ``options.save_dir``, holds HR/, LR_bicubic/X<scale>/, manifest.csv, meta_info.txt, metadata.csv,
        nearest.csv (the real patch most like each image), README.md, montage.png, nearest.png and stage.json.

    Raises:
        InputError: nothing was trained there, or the folder holds the work of other options or inputs.
        OSError: the disk is full.
    """
    with shared_stage_folder(_plan(options, experiment)) as stage:
        if not stage.finished:
            _sample(options, experiment, open_source(experiment, find_checkpoint(experiment)), stage)
    return stage.result


def _plan(options: SampleOptions, experiment: Experiment) -> StagePlan:
    if gsdd.is_gsdd(experiment):
        gsdd.refuse_other_keys(options, experiment)
    inputs = fingerprints(experiment, find_checkpoint(experiment), options.save_dir) | file_inputs(options, 'sample')
    return StagePlan(Path(options.save_dir), 'sample', options.model_dump(mode='json'), inputs)


def _sample(options: SampleOptions, experiment: Experiment, source: Source, stage: StageRun) -> None:
    """Draw this rank's images; rank 0 publishes all."""
    trained_images = gsdd.is_gsdd(experiment)
    draws = gsdd.plan_images(source, experiment) if trained_images else plan_draws(options, source)
    stage.parts.mkdir(exist_ok=True)
    encoder: Encoder | None = None
    with distributed.broadcast_failure():
        if distributed.is_main():
            # Needed last, but what is missing for it must be known before the long work.
            encoder = build_encoder(source.encoder)
    with distributed.broadcast_failure():
        if trained_images:
            gsdd.render_images(draws, source, experiment, stage.parts)
        else:
            draw_own(draws, options, source, stage.parts)
    with distributed.broadcast_failure():
        if encoder is not None:
            candidates = read_candidates(draws, stage.parts, options.scale, source.patches.rows[0].metric)
            features = encode_images(encoder, [candidate.rgb for candidate in candidates])
            errors = None
            if options.select == 'own_error':
                errors = own_errors(
                    options,
                    source,
                    [candidate.rgb for candidate in candidates],
                    [candidate.draw.label for candidate in candidates],
                )
            chosen, counts = choose(options, candidates, features, source, errors)
            publish(
                options,
                source,
                [candidates[number] for number in chosen],
                features[chosen],
                counts,
                stage,
                gsdd.generator_of(experiment) if trained_images else None,
            )
