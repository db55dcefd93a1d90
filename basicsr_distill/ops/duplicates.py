"""Fingerprints of patches, exact and perceptual, and the search for repeated ones."""

import hashlib
from collections import defaultdict

import cv2
import numpy as np
from numpy.typing import NDArray

# Fingerprints that differ in at most this many of 64 bits are taken for the same picture.
NEAR_BITS = 3


def exact_fingerprint(rgb: NDArray[np.uint8]) -> int:
    """64-bit digest of an image's pixels; equal for equal pixels alone, but for chances of 2^-64."""
    return int.from_bytes(hashlib.blake2b(rgb.tobytes(), digest_size=8).digest(), 'little')


def perceptual_fingerprint(rgb: NDArray[np.uint8]) -> int:
    """64-bit pHash: signs of the lowest 8x8 cosine terms of the 32x32 grey thumbnail, about their median.

    It hardly changes with size, compression or brightness. Source: Zauner (2010), section 3.2.1.

    Args:
        rgb: (H, W, 3), uint8.
    """
    grey = cv2.resize(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), (32, 32), interpolation=cv2.INTER_AREA)
    terms = cv2.dct(grey.astype(np.float32))[:8, :8].ravel()
    return int.from_bytes(np.packbits(terms > np.median(terms[1:])), 'little')


def repeated(fingerprints: NDArray[np.uint64], near_bits: int = 0) -> NDArray[np.bool_]:
    """Mark what repeats an earlier, unmarked fingerprint, but for ``near_bits`` bits.

    Args:
        fingerprints: (N,), in order of preference.
        near_bits: less than 4.

    Returns:
        (N,), True for repetitions; the first of its kind is False.
    """
    if near_bits == 0:
        marks = np.ones(len(fingerprints), np.bool_)
        marks[np.unique(fingerprints, return_index=True)[1]] = False
        return marks
    # Fingerprints that differ in fewer than four bits share at least one of their four 16-bit words.
    words = fingerprints.astype('<u8').view(np.uint16).reshape(-1, 4)
    kept: list[defaultdict[int, list[int]]] = [defaultdict(list) for _ in range(4)]
    marks = np.zeros(len(fingerprints), np.bool_)
    for index, row in enumerate(words.tolist()):
        fingerprint = int(fingerprints[index])
        marks[index] = any((other ^ fingerprint).bit_count() <= near_bits
                           for table, word in zip(kept, row) for other in table[word])
        if not marks[index]:
            for table, word in zip(kept, row):
                table[word].append(fingerprint)
    return marks
