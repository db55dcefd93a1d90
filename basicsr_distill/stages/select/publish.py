"""The folder of a chosen set: pairs, tables, pictures, card, and stage.json last."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from basicsr_distill.config.sections.codecs import BlockPcaCodecOptions
from basicsr_distill.config.sections.select import SelectOptions
from basicsr_distill.io.files import write_atomic
from basicsr_distill.io.manifest import MANIFEST_NAME, META_INFO_NAME, SelectRow
from basicsr_distill.stages.codec_trip import through_codec
from basicsr_distill.stages.dataset_card import coverage_figures, licence_section, psnr_figures, render_card
from basicsr_distill.stages.licences import Weights, codec_weights, encoder_weights, teacher_weights
from basicsr_distill.stages.published_set import CARD_NAME, coverage_facts, quantiles, write_montage, write_set
from basicsr_distill.stages.record import StageRun
from basicsr_distill.stages.select.choose import METHODS
from basicsr_distill.stages.select.pool import Pool
from basicsr_distill.stages.targets import make_targets


def publish(
    options: SelectOptions,
    name: str,
    pool: Pool,
    chosen: Sequence[int],
    features: Mapping[str, NDArray[np.float32]],
    stage: StageRun,
) -> None:
    """Write the set; the folder is finished afterwards.

    Args:
        options: of the stage.
        name: of the set, for its card.
        pool: the patches chosen from.
        chosen: indices of the patches, in the order of the set.
        features: of the pool, (N, D), by encoder; the last is the one chosen by.
        stage: its folder.
    """
    images = [pool.image(number) for number in chosen]
    if options.codec is not None:
        images = through_codec(options.codec, images, pool.paths())
    rows = _rows(options, pool, chosen)
    write_set(
        stage.folder,
        images,
        rows,
        SelectRow,
        options.scale,
        make_targets(options.targets, images, options.scale, 'select.targets'),
    )
    write_montage(stage.folder, images, [row.label for row in rows])
    facts: dict[str, Any] = {
        'psnr_db': quantiles([row.psnr_db for row in rows]),
        'patches_psnr_db': quantiles(pool.psnr_db[np.isfinite(pool.psnr_db)]),
    }
    covered = {encoder: coverage_facts(np.asarray(own[chosen]), own, options.seed) for encoder, own in features.items()}
    write_atomic(stage.folder / CARD_NAME, _card(options, name, rows, facts, covered))
    stage.finish(
        {'patches': len(pool.rows), 'images_kept': len(rows)},
        [MANIFEST_NAME, META_INFO_NAME],
        figures=['montage.png'],
        **facts,
        **covered[list(features)[-1]],
        coverage_by_encoder=covered,
    )


def _rows(options: SelectOptions, pool: Pool, chosen: Sequence[int]) -> list[SelectRow]:
    """Names begin with the number of the choice, so that any listing has the order of the set."""
    seen: Counter[int] = Counter()
    rows = []
    for number, patch in enumerate(chosen):
        own, label = pool.rows[patch], int(pool.labels[patch])
        rows.append(
            SelectRow(
                f'{number:05d}_{own.name}',
                label,
                seen[label],
                options.seed,
                options.method,
                own.name,
                own.source,
                own.source_sha256,
                own.top,
                own.left,
                own.size,
                own.metric,
                own.psnr_db,
            )
        )
        seen[label] += 1
    return rows


def _card(
    options: SelectOptions,
    name: str,
    rows: Sequence[SelectRow],
    facts: Mapping[str, Any],
    covered: Mapping[str, Mapping[str, Any]],
) -> str:
    passed = _passed_through(options)
    looked = [encoder_weights(encoder) for encoder in options.encoders] if METHODS[options.method].uses_features else []
    kept = 'real patches, chosen from photographs to train a network almost as well as all of them'
    return render_card(
        name,
        len(rows),
        options.scale,
        passed,
        title='real patches for super-resolution',
        introduction=f'{kept}.',
        rows=_table(options, rows, facts, covered),
        other_sizes=_other_sizes(options),
        likeness='`manifest.csv` names the photograph and the place of every patch.',
        licence=licence_section([*passed, *looked], 'The images are parts of them: their terms apply.'),
    )


def _passed_through(options: SelectOptions) -> list[Weights]:
    """Weights that the pixels went through."""
    passed = [] if options.codec is None else [codec_weights(options.codec)]
    return passed if options.targets.type == 'hr' else [*passed, teacher_weights(str(options.targets.weights))]


def _table(
    options: SelectOptions,
    rows: Sequence[SelectRow],
    facts: Mapping[str, Any],
    covered: Mapping[str, Mapping[str, Any]],
) -> dict[str, str]:
    band = 'all' if options.band is None else 'psnr_db at {:g}-{:g} of the pool'.format(*options.band)
    table = {
        'images': f'{len(rows)}, {len({row.label for row in rows})} labels',
        'HR size': f'{rows[0].size} x {rows[0].size} px, RGB PNG',
        'HR': {
            'hr': 'the patches',
            'teacher': f'made by the SR network of {options.targets.weights}',
            'mix': f'mean of the patches and of what {options.targets.weights} makes',
        }[options.targets.type],
        'LR': f'MATLAB-compatible bicubic, x{options.scale}, of the patches',
        'chosen': f'{options.method}, from {band}',
        'encoder': ' and '.join(encoder.type for encoder in options.encoders),
        'seed': str(options.seed),
    }
    if options.codec is not None:
        table['codec'] = 'the patches went through it: ' + (
            options.codec.type if isinstance(options.codec, BlockPcaCodecOptions) else options.codec.pretrained
        )
    table |= psnr_figures(rows[0].metric, **facts)
    for encoder, coverage in covered.items():
        table |= coverage_figures(**coverage, encoder=encoder)
    return table


def _other_sizes(options: SelectOptions) -> str:
    """Say whether a set of another size shares images with this one."""
    count = 'num_images' if options.num_images is not None else 'images_per_cluster'
    if METHODS[options.method].is_nested:
        return f'A set chosen with a smaller `{count}` is a part of this one.'
    return f'A set chosen with another `{count}` has other centres: it may share no image with this one.'
