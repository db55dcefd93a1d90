"""The first stage: patches of photographs that lose much when they are shrunk and enlarged again.

Two passes. The first (:mod:`scoring`) decodes every image once and scores all its windows; its results are kept in
small parts, so an interrupted run goes on where it was. Then the threshold is known, every rank picks the same patches
(:mod:`choosing`), and the second pass (:mod:`writing`) writes them: from decoded images that are still in memory, else
decoding those again that hold a chosen patch. Where the threshold is given in decibels and nothing else has a say,
patches are written while scoring: one pass does it all.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from basicsr_distill.config.recipe import Recipe
from basicsr_distill.config.sections.extract import ExtractOptions
from basicsr_distill.errors import InputError
from basicsr_distill.io.images import FoundImage, find_images, fingerprint_images
from basicsr_distill.io.inputs import file_inputs
from basicsr_distill.runtime import distributed
from basicsr_distill.runtime.parallel import default_workers, one_thread_per_operation
from basicsr_distill.stages.extract.choosing import choose, refuse_unusable, threshold_known_before
from basicsr_distill.stages.extract.leaks import LeakIndex
from basicsr_distill.stages.extract.publishing import publish
from basicsr_distill.stages.extract.scores import Scores
from basicsr_distill.stages.extract.scoring import Scoring
from basicsr_distill.stages.extract.writing import Writing
from basicsr_distill.stages.record import StagePlan, StageResult, StageRun, refuse_overlap
from basicsr_distill.stages.sharding import shared_stage_folder


def run(recipe: Recipe) -> StageResult:
    """Extract patches into ``extract.save_dir``; see DistilledPatchDataset for what can read them.

    Returns:
        Its folder holds images/, manifest.csv, meta_info.txt, measures.npz, psnr.png, stage.json, quarantine.csv
        if images were set aside, and scores.csv if they have scores.

    Raises:
        InputError: nothing to extract, a broken image under ``strict``, an image that changes meanwhile, or a folder
            that cannot be used.
        OSError: the disk is full, or too small for what is to come.
    """
    options = recipe.extract
    assert options is not None
    images, tests = _find(options)
    with shared_stage_folder(_plan(options, images, tests)) as stage:
        if not stage.finished:
            with one_thread_per_operation():
                _extract(options, images, tests, stage)
    return stage.result


def plan(recipe: Recipe) -> StagePlan:
    """Return what the stage is asked to make.

    Raises:
        InputError: nothing to extract, or a folder that cannot be used.
    """
    assert recipe.extract is not None
    return _plan(recipe.extract, *_find(recipe.extract))


def _find(options: ExtractOptions) -> tuple[list[FoundImage], list[FoundImage]]:
    """The photographs and the images of the tests."""
    refuse_overlap(options.save_dir, options.dataroot, 'extract.save_dir')
    images = find_images([Path(root) for root in options.dataroot])
    if not images:
        raise InputError(
            f'{" and ".join(options.dataroot)}: no image found; extract.dataroot must hold PNG, JPEG, '
            'BMP, WebP, TIFF or PPM files.'
        )
    for root in options.leak_check:
        if not Path(root).is_dir():
            raise InputError(f'extract.leak_check: {root} is not a folder of test images; correct it or remove it.')
    return images, find_images([Path(root) for root in options.leak_check]) if options.leak_check else []


def _plan(options: ExtractOptions, images: Sequence[FoundImage], tests: Sequence[FoundImage]) -> StagePlan:
    files = file_inputs(options, 'extract')
    # Records have one entry for all files of scores and their weights.
    scores = [files.pop(key) for key in list(files) if key.startswith('scores.')]
    inputs = {
        'dataroot': fingerprint_images(images),
        'leak_check': fingerprint_images(tests),
        **files,
        **({'scores': ' '.join(scores)} if scores else {}),
    }
    return StagePlan(Path(options.save_dir), 'extract', options.model_dump(mode='json'), inputs)


def _extract(
    options: ExtractOptions, images: Sequence[FoundImage], tests: Sequence[FoundImage], stage: StageRun
) -> None:
    """Both passes, on one rank, and what rank 0 publishes."""
    num_workers = options.num_workers or default_workers()
    writing = Writing(options, images, stage.folder, stage.resumed)
    known_db = threshold_known_before(options)
    leaks = LeakIndex(tests)
    stage.parts.mkdir(exist_ok=True)
    scores = Scores(options, images, stage.parts)
    try:
        with distributed.broadcast_failure():
            scores.compute_own(num_workers)
        with distributed.broadcast_failure():
            aside = scores.read()
        scoring = Scoring(
            options,
            images,
            leaks,
            aside,
            stage.parts,
            writing.keep if known_db is None else partial(writing.write_below, known_db),
        )
        with distributed.broadcast_failure():
            scoring.run(num_workers)
        with distributed.broadcast_failure():
            scored = scoring.read_parts()
            refuse_unusable(options, scored)
            patches = choose(options, scored)
        with distributed.broadcast_failure():
            writing.write_own(scored, patches, num_workers)
    except InputError:
        # What corrects it changes the options or the photographs, so no rerun could go on from here.
        if distributed.is_main() and not stage.resumed:
            stage.clear()
        raise
    with distributed.broadcast_failure():
        if distributed.is_main():
            publish(options, images, scored, patches, scores, stage)
