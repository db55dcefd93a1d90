"""Which of the scored windows become patches; every rank computes the same answer."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from basicsr_distill.config.sections.extract import ExtractOptions
from basicsr_distill.errors import InputError
from basicsr_distill.selection.duplicates import repeated
from basicsr_distill.selection.thresholds import hardest_db, histogram_text, threshold_db
from basicsr_distill.stages.extract.filters import SourceFilters, WindowFilters
from basicsr_distill.stages.extract.scoring import Scored, all_window_measures


@dataclass(frozen=True)
class Patches:
    """The chosen patches."""

    owner: NDArray[np.int64]  # (N,), index of the image of each
    window: NDArray[np.int64]  # (N,), number of its window
    psnr_db: NDArray[np.float32]  # (N,)
    all_psnr_db: NDArray[np.float32]  # finite scores of all windows that the filters let through
    counts: dict[str, int]  # windows by what became of them
    facts: dict[str, Any]  # for stage.json


def threshold_known_before(options: ExtractOptions) -> float | None:
    """The threshold, dB, where it alone decides whether a window becomes a patch: no other window has a say."""
    alone = (
        options.deduplicate == 'off'
        and not options.drop_hardest
        and options.max_patches is None
        and options.max_per_image is None
        and not SourceFilters(options.source_filters).wait_for_all
        and not WindowFilters(options.window_filters).limits
    )
    return options.threshold if alone and isinstance(options.threshold, float) else None


def refuse_unusable(options: ExtractOptions, scored: Sequence[Scored]) -> None:
    """Refuse photographs of which none can be used.

    Raises:
        InputError: with the reasons and their counts.
    """
    if all(image.reason for image in scored):
        reasons = Counter(image.reason for image in scored)
        listed = ', '.join(f'{count} {reason.replace("_", " ")}' for reason, count in sorted(reasons.items()))
        raise InputError(
            f'{" and ".join(options.dataroot)}: none of the {len(scored)} images can be used ({listed}); '
            f'extract.patch_size is {options.patch_size}.'
        )


def choose(options: ExtractOptions, scored: Sequence[Scored]) -> Patches:
    """The patches to keep, in order of image and place.

    Raises:
        InputError: none is left.
    """
    psnr_db = np.concatenate([image.psnr_db for image in scored])
    per_image = [image.psnr_db.size for image in scored]
    owner = np.repeat(np.arange(len(scored)), per_image)
    window = np.concatenate([np.arange(size) for size in per_image])
    counts = {'patches_scored': psnr_db.size}
    passed = _by_filters(options, scored, counts)
    limit = threshold_db(psnr_db[passed], options.threshold)
    chosen = passed[_by_score(options, psnr_db[passed], limit, counts)]
    if options.deduplicate != 'off':
        fingerprints = np.concatenate([image.fingerprints for image in scored])[chosen]
        marks = repeated(fingerprints, near=options.deduplicate == 'perceptual')
        counts['patches_duplicate'] = int(marks.sum())
        chosen = chosen[~marks]
    if options.max_per_image is not None:
        rank = psnr_db if options.windows is None else window
        kept = _first_of_each(owner[chosen], rank[chosen], options.max_per_image)
        counts['patches_over_maximum_of_image'] = chosen.size - kept.size
        chosen = chosen[kept]
    if options.max_patches is not None:
        order = np.random.default_rng(options.seed).permutation(chosen.size)
        counts['patches_over_maximum'] = max(0, chosen.size - options.max_patches)
        chosen = np.sort(chosen[order[: options.max_patches]])
    counts['patches_kept'] = chosen.size
    finite = psnr_db[passed][~np.isinf(psnr_db[passed])]
    if not chosen.size:
        _refuse_filtered(options, passed, counts)
        advice = f'threshold: {np.median(finite):.2f} would keep half' if finite.size else 'flat patches are never kept'
        raise InputError(
            f'{" and ".join(options.dataroot)}: no patch is left below {limit:.2f} dB '
            f'({histogram_text(psnr_db[passed])}); extract.{advice}.'
        )
    quantities = {'min': finite.min(), 'median': np.median(finite), 'max': finite.max()}
    facts = {
        'threshold_db': round(limit, 6),
        'psnr_db': {name: round(float(value), 6) for name, value in quantities.items()},
    }
    return Patches(owner[chosen], window[chosen], psnr_db[chosen], finite, counts, facts)


def _by_filters(options: ExtractOptions, scored: Sequence[Scored], counts: dict[str, int]) -> NDArray[np.int64]:
    """The windows that the window filters let through."""
    filters = WindowFilters(options.window_filters)
    refused = filters.refused(all_window_measures(scored, filters))
    counts |= {f'patches_dropped_{name}': int(bad.sum()) for name, bad in refused.items()}
    dropped = np.zeros(counts['patches_scored'], bool)
    for bad in refused.values():
        dropped |= bad
    return np.flatnonzero(~dropped)


def _by_score(
    options: ExtractOptions, psnr_db: NDArray[np.float32], limit: float, counts: dict[str, int]
) -> NDArray[np.bool_]:
    """The windows that their own scores let through."""
    flat = np.isinf(psnr_db)
    over = ~flat & ~(psnr_db < limit)
    too_hard = ~flat & (psnr_db < hardest_db(psnr_db, options.drop_hardest))
    counts |= {
        'patches_flat': int(flat.sum()),
        'patches_over_threshold': int(over.sum()),
        'patches_too_hard': int((too_hard & ~over).sum()),
    }
    return ~(flat | over | too_hard)


def _first_of_each(owner: NDArray[np.int64], rank: NDArray[Any], count: int) -> NDArray[np.int64]:
    """Return the ``count`` elements of lowest rank of every owner, in their order; owners are sorted."""
    order = np.lexsort((rank, owner))
    place = np.arange(owner.size) - np.searchsorted(owner, owner)
    return np.sort(order[place < count])


def _refuse_filtered(options: ExtractOptions, passed: NDArray[np.int64], counts: dict[str, int]) -> None:
    """Raises InputError where the window filters, or the search for windows, have left nothing."""
    if passed.size:
        return
    dropped = ', '.join(
        f'{count} {name.removeprefix("patches_dropped_")}'
        for name, count in counts.items()
        if name.startswith('patches_dropped_') and count
    )
    what = (
        f'the window filters drop all {counts["patches_scored"]} windows ({dropped})'
        if dropped
        else ('no window holds any detail')
    )
    raise InputError(
        f'{" and ".join(options.dataroot)}: {what}; extract.thresholds: suggest prints limits that keep some.'
    )
