"""Which of the images drawn are kept."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from basicsr_distill.config.sections.sample import SampleOptions
from basicsr_distill.errors import InputError
from basicsr_distill.io.images import read_rgb
from basicsr_distill.ops.psnr import psnr_after_bicubic
from basicsr_distill.selection.core_sets import choose_by_herding, choose_k_center
from basicsr_distill.stages.sample.plan import Draw
from basicsr_distill.stages.sample.source import Source

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Candidate:
    """An image that was drawn, (H, W, 3), RGB, with its score."""

    draw: Draw
    rgb: NDArray[np.uint8]
    psnr_db: float


def read_candidates(draws: Sequence[Draw], folder: Path, scale: int, metric: str) -> list[Candidate]:
    """Images of a folder, scored as the patches were."""
    candidates = []
    for draw in draws:
        rgb = read_rgb(folder / draw.name)
        pixels = torch.from_numpy(rgb).permute(2, 0, 1)[None].float() / 255
        candidates.append(Candidate(draw, rgb, float(psnr_after_bicubic(pixels, scale, metric)[0])))  # type: ignore
    return candidates


def choose(
    options: SampleOptions,
    candidates: Sequence[Candidate],
    features: NDArray[np.float32],
    source: Source,
    errors: NDArray[np.float32] | None = None,
) -> tuple[list[int], dict[str, int]]:
    """Return the indices of the candidates to keep, label after label in the order drawn, and counts by reason.

    Args:
        options: of the stage.
        candidates: every image drawn.
        features: of the candidates, (N, D), float32.
        source: the real patches that the images stand for.
        errors: of the denoiser on the candidates, (N,), for ``select: own_error``.

    Raises:
        InputError: every candidate is flat.
    """
    low, high = -np.inf, np.inf
    if options.psnr_band is not None:
        low, high = np.quantile([row.psnr_db for row in source.patches.rows], options.psnr_band)
    scores = np.array([candidate.psnr_db for candidate in candidates])
    counts = {'images_drawn': len(candidates), 'images_flat': 0, 'images_outside_psnr_band': 0, 'images_not_chosen': 0}
    chosen: list[int] = []
    for label in np.unique(source.labels).tolist():
        own = [number for number, candidate in enumerate(candidates) if candidate.draw.label == label]
        textured = [number for number in own if np.isfinite(scores[number])]
        inside = _in_band(textured, scores, low, high, options.images_per_cluster, label)
        picked = _pick(options, inside, features, source.features[source.labels == label], errors)
        chosen += picked
        counts['images_flat'] += len(own) - len(textured)
        counts['images_outside_psnr_band'] += len(textured) - len(inside)
        counts['images_not_chosen'] += len(inside) - len(picked)
    if not chosen:
        raise InputError('sample: every image drawn is flat; train longer or lower init.strength.')
    return chosen, {**counts, 'images_kept': len(chosen)}


def _in_band(
    numbers: Sequence[int], scores: NDArray[np.float64], low: float, high: float, count: int, label: int
) -> list[int]:
    """Return those inside the band, filled up to ``count`` by the ones nearest to it."""
    inside = [number for number in numbers if low <= scores[number] <= high]
    if len(inside) >= count or len(inside) == len(numbers):
        return inside
    log.warning(
        'Label %d: %d of %d images lie in the PSNR band; the nearest others fill up the %d.',
        label,
        len(inside),
        len(numbers),
        count,
    )
    outside = sorted(set(numbers) - set(inside), key=lambda number: max(low - scores[number], scores[number] - high))
    return sorted(inside + outside[: count - len(inside)])


def _pick(
    options: SampleOptions,
    numbers: list[int],
    features: NDArray[np.float32],
    real: NDArray[np.float32],
    errors: NDArray[np.float32] | None,
) -> list[int]:
    """``images_per_cluster`` of the candidates of a label."""
    count = options.images_per_cluster
    if options.select == 'first' or len(numbers) <= count:
        return numbers[:count]
    if errors is not None:
        return sorted(sorted(numbers, key=lambda number: (errors[number], number))[:count])
    select = choose_by_herding if options.select == 'herding' else choose_k_center
    return sorted(numbers[pick] for pick in select(features[numbers], count, targets=real))
