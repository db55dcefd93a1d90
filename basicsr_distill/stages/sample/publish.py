"""The folder of a drawn set: pairs, tables, pictures, card, and stage.json last."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from basicsr_distill.config.sections.sample import SampleOptions
from basicsr_distill.io.figures import save_montage
from basicsr_distill.io.files import sha256_file, write_atomic
from basicsr_distill.io.images import read_rgb
from basicsr_distill.io.manifest import IMAGES_FOLDER, MANIFEST_NAME, META_INFO_NAME, SampleRow, write_csv
from basicsr_distill.selection.distances import nearest
from basicsr_distill.stages.dataset_card import CardFacts, dataset_card, gsdd_card
from basicsr_distill.stages.licences import Weights
from basicsr_distill.stages.published_set import CARD_NAME, coverage_facts, quantiles, write_montage, write_set
from basicsr_distill.stages.record import StageRun
from basicsr_distill.stages.sample.choose import Candidate
from basicsr_distill.stages.sample.source import Source
from basicsr_distill.stages.targets import make_targets

NEAREST_NAME = 'nearest.csv'
_CLOSEST_PAIRS = 8


def publish(
    options: SampleOptions,
    source: Source,
    kept: Sequence[Candidate],
    features: NDArray[np.float32],
    counts: dict[str, int],
    stage: StageRun,
    generator: Weights | None = None,
) -> None:
    """Write the set; the folder is finished afterwards.

    Args:
        options: of the stage.
        source: the training that was sampled from.
        kept: the images, in the order of the set.
        features: of them, (N, D), float32.
        counts: for stage.json.
        stage: its folder.
        generator: of a GSDD training, whose card says other things.
    """
    images = [item.rgb for item in kept]
    targets = make_targets(options.targets, images, options.scale, 'sample.targets') if options.targets else None
    write_set(stage.folder, images, _rows(options, source, kept), SampleRow, options.scale, targets)
    write_montage(stage.folder, images, [item.draw.label for item in kept])
    _write_nearest(source, kept, features, stage)
    facts: dict[str, Any] = {
        'psnr_db': quantiles([item.psnr_db for item in kept]),
        'patches_psnr_db': quantiles([row.psnr_db for row in source.patches.rows]),
        **coverage_facts(features, source.features, options.seed),
    }
    card_facts = CardFacts(
        name=source.name,
        num_images=len(kept),
        num_labels=len({item.draw.label for item in kept}),
        size_px=kept[0].rgb.shape[0],
        scale=options.scale,
        metric=source.patches.rows[0].metric,
        options=options,
        network=dict(source.network),
        codec=getattr(source.patches.options, 'codec', None),
        encoder=source.encoder,
        **facts,
    )
    card = dataset_card(card_facts) if generator is None else gsdd_card(card_facts, generator)
    write_atomic(stage.folder / CARD_NAME, card)
    stage.finish(counts, [MANIFEST_NAME, META_INFO_NAME, NEAREST_NAME], figures=['montage.png', 'nearest.png'], **facts)


def _rows(options: SampleOptions, source: Source, kept: Sequence[Candidate]) -> list[SampleRow]:
    names = [row.name for row in source.patches.rows]
    make = partial(
        SampleRow,
        seed=options.seed,
        checkpoint_sha256='' if source.checkpoint is None else sha256_file(source.checkpoint),
        guidance_scale=options.guidance_scale,
        metric=source.patches.rows[0].metric,
    )
    return [
        make(
            name=item.draw.name,
            label=item.draw.label,
            index=item.draw.index,
            psnr_db=item.psnr_db,
            prototype='' if item.draw.prototype is None else names[item.draw.prototype],
        )
        for item in kept
    ]


def _write_nearest(source: Source, kept: Sequence[Candidate], features: NDArray[np.float32], stage: StageRun) -> None:
    """The real patch most like each image, as a table and, of the closest, as a picture."""
    names = [row.name for row in source.patches.rows]
    index, distance = nearest(features, source.features)

    def patch(number: int) -> NDArray[np.uint8]:
        return read_rgb(source.patches.dataroot / IMAGES_FOLDER / names[number])

    alike = [
        (item.draw.name, names[number], f'{gap:.6g}', f'{_psnr_db(item.rgb, patch(number)):.4f}')
        for item, number, gap in zip(kept, index.tolist(), distance.tolist())
    ]
    write_csv(stage.folder / NEAREST_NAME, ('name', 'patch', 'feature_distance', 'psnr_db'), alike)
    closest = np.argsort(distance, kind='stable')[:_CLOSEST_PAIRS]
    save_montage(
        stage.folder / 'nearest.png',
        [[kept[number].rgb for number in closest], [patch(int(index[number])) for number in closest]],
    )


def _psnr_db(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    """PSNR of two images, at most 100 dB."""
    error = float(np.square(a.astype(np.float64) - b).mean())
    return min(100.0, 10 * np.log10(255**2 / max(error, 1e-9)))
