"""Fingerprints of patches, exact and perceptual, and the search for repeated ones."""

import hashlib
from collections import defaultdict

import cv2
import numpy as np
from numpy.typing import NDArray

# Fingerprints that differ in at most this many of 64 bits are taken for the same picture: patches saved again as JPEG
# of quality 80 differ in 0 to 4 (6 at times), unrelated ones in 12 and more.
NEAR_BITS = 4
# Cut into more words than bits may differ, two near fingerprints have a word in common.
_WORD_BITS = 13
_WORDS = NEAR_BITS + 1
# Terms that are equal in theory, such as the zeros of a flat or symmetric picture, differ by rounding, which depends on
# the processor: up to 1e-3. Rounding the thumbnail to 8 bits makes 0.3.
_ROUNDING = 0.02


def exact_fingerprint(rgb: NDArray[np.uint8]) -> int:
    """64-bit digest of an image's pixels; equal for equal pixels alone, but for chances of 2^-64.

    >>> exact_fingerprint(np.zeros((8, 8, 3), np.uint8)) == exact_fingerprint(np.ones((8, 8, 3), np.uint8))
    False
    """
    return int.from_bytes(hashlib.blake2b(rgb.tobytes(), digest_size=8).digest(), 'little')


def perceptual_fingerprint(rgb: NDArray[np.uint8]) -> int:
    """64-bit pHash: signs of the lowest 8x8 cosine terms of the 32x32 grey thumbnail, about their median.

    It hardly changes with size, compression or brightness. Source: Zauner (2010), section 3.2.1.

    >>> rgb = np.random.default_rng(0).integers(0, 128, (64, 64, 3), np.uint8)
    >>> (perceptual_fingerprint(rgb) ^ perceptual_fingerprint(2 * rgb)).bit_count() <= NEAR_BITS
    True

    Args:
        rgb: (H, W, 3), uint8.
    """
    grey = cv2.resize(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), (32, 32), interpolation=cv2.INTER_AREA)
    terms = cv2.dct(grey.astype(np.float32))[:8, :8].ravel()
    return int.from_bytes(np.packbits(terms > np.median(terms[1:]) + _ROUNDING), 'little')


def repeated(fingerprints: NDArray[np.uint64], near: bool = False) -> NDArray[np.bool_]:
    """Mark what repeats an earlier, unmarked fingerprint.

    >>> repeated(np.uint64([5, 7, 5]), near=False).tolist(), repeated(np.uint64([5, 7, 5]), near=True).tolist()
    ([False, False, True], [False, True, True])

    Args:
        fingerprints: (N,), in order of preference.
        near: repeat it but for ``NEAR_BITS`` bits, instead of exactly.

    Returns:
        (N,), True for repetitions; the first of its kind is False.
    """
    if not near:
        marks = np.ones(len(fingerprints), np.bool_)
        marks[np.unique(fingerprints, return_index=True)[1]] = False
        return marks
    kept: list[defaultdict[int, list[int]]] = [defaultdict(list) for _ in range(_WORDS)]
    marks = np.zeros(len(fingerprints), np.bool_)
    for index, fingerprint in enumerate(fingerprints.tolist()):
        words = [fingerprint >> _WORD_BITS * number & (1 << _WORD_BITS) - 1 for number in range(_WORDS)]
        marks[index] = any(
            (other ^ fingerprint).bit_count() <= NEAR_BITS for table, word in zip(kept, words) for other in table[word]
        )
        if not marks[index]:
            for table, word in zip(kept, words):
                table[word].append(fingerprint)
    return marks
