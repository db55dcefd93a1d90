"""What a finished extraction says about itself: tables, figure, and the record that makes the folder whole."""

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import partial

from basicsr_distill.config.sections.extract import ExtractOptions
from basicsr_distill.io.figures import save_psnr_histogram
from basicsr_distill.io.images import FoundImage
from basicsr_distill.io.manifest import (
    IMAGES_FOLDER,
    MANIFEST_NAME,
    META_INFO_NAME,
    PatchRow,
    write_csv,
    write_meta_info,
    write_table,
)
from basicsr_distill.stages.extract.choosing import Patches
from basicsr_distill.stages.extract.layout import patch_name
from basicsr_distill.stages.extract.scores import Scores
from basicsr_distill.stages.extract.scoring import Scored, pack
from basicsr_distill.stages.record import StageRun
from basicsr_distill.stages.sharding import save_part

QUARANTINE_NAME = 'quarantine.csv'
# What was measured of every photograph and window: see scoring.pack.
MEASURES_NAME = 'measures.npz'

log = logging.getLogger(__name__)


def publish(
    options: ExtractOptions,
    images: Sequence[FoundImage],
    scored: Sequence[Scored],
    patches: Patches,
    scores: Scores,
    stage: StageRun,
) -> None:
    """Write everything but the patches, which are there, and ``stage.json`` last."""
    folder = stage.folder
    places = [
        tuple(scored[owner].places[window].tolist())
        for owner, window in zip(patches.owner.tolist(), patches.window.tolist())
    ]
    names = [patch_name(images[owner].relative, owner, *place) for owner, place in zip(patches.owner.tolist(), places)]
    write_table(folder / MANIFEST_NAME, _rows(options, images, scored, patches, zip(names, places)), PatchRow)
    write_meta_info(folder / META_INFO_NAME, names, (options.patch_size, options.patch_size, 3))
    save_part(folder / MEASURES_NAME, pack(scored))
    outputs = [MANIFEST_NAME, META_INFO_NAME, MEASURES_NAME, *scores.publish(folder)]
    set_aside = [
        (images[index].relative, image.reason, image.detail) for index, image in enumerate(scored) if image.reason
    ]
    if set_aside:
        write_csv(folder / QUARANTINE_NAME, ('source', 'reason', 'detail'), set_aside)
        outputs.append(QUARANTINE_NAME)
        log.warning('%d of %d images were set aside; see %s.', len(set_aside), len(scored), folder / QUARANTINE_NAME)
    counts = {**_count_images(scored), **patches.counts}
    save_psnr_histogram(folder / 'psnr.png', patches.all_psnr_db, patches.facts['threshold_db'], options.metric)
    if options.lmdb:
        from basicsr_distill.stages.pack_lmdb import pack_lmdb

        pack_lmdb(folder / IMAGES_FOLDER, names, folder / 'images.lmdb')
    stage.finish(counts, outputs, figures=['psnr.png'], **patches.facts)


def _count_images(scored: Sequence[Scored]) -> dict[str, int]:
    """Images by what they are and by why they were set aside."""
    identical = Counter(image.sha256 for image in scored if image.sha256)
    repeats = sum(count - 1 for count in identical.values())
    if repeats:
        log.warning('%d images are copies of others; extract.deduplicate: exact drops their patches.', repeats)
    kinds = Counter(f'images_{kind}' for image in scored for kind in image.kinds.split())
    reasons = Counter(f'images_dropped_{image.reason}' for image in scored if image.reason)
    reduced = sum(image.reduced_by > 1 and not image.reason for image in scored)
    return {
        'images_found': len(scored),
        'images_used': sum(not image.reason for image in scored),
        'images_identical': repeats,
        **({'images_reduced': reduced} if reduced else {}),
        **kinds,
        **reasons,
    }


def _rows(
    options: ExtractOptions,
    images: Sequence[FoundImage],
    scored: Sequence[Scored],
    patches: Patches,
    named: Iterable[tuple[str, tuple[int, int]]],
) -> Iterator[PatchRow]:
    make = partial(PatchRow, size=options.patch_size, metric=options.metric)
    for (name, (top, left)), owner, psnr_db in zip(named, patches.owner.tolist(), patches.psnr_db.tolist()):
        yield make(
            name=name,
            source=images[owner].relative,
            source_sha256=scored[owner].sha256,
            top=top,
            left=left,
            psnr_db=psnr_db,
            reduced_by=scored[owner].reduced_by,
        )
