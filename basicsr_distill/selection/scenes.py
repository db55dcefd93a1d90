"""Scenes of a test set in other pictures: cropped, resized, rotated, saved again, mirrored, as negatives."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

# Longer sides are reduced to this, pixels: keypoints of larger ones would be of finer detail than a test image keeps.
_MAX_SIDE = 640
_KEYPOINTS = 800
# A descriptor's nearest neighbour must be this much nearer than the next one.
_RATIO = 0.8
# Keypoints that agree on one similarity transform; of 416 photographs against 19 unrelated ones in every alteration
# below none reached more than four.
_MIN_INLIERS = 10
# All keypoints are matched only where every third of them hints at a scene by so many that agree, as 26 of 1,664
# unrelated comparisons do; every second finds no copy more among the usual alterations.
_HINT_STEP = 3
_MIN_HINT_INLIERS = 3
# What ORB does not see through, done to the few test images: a mirror (an upside-down picture is a mirror image,
# turned), a negative, both.
_ALTERATIONS: tuple[Callable[[NDArray[np.uint8]], NDArray[np.uint8]], ...] = (
    lambda rgb: rgb,
    lambda rgb: np.ascontiguousarray(rgb[:, ::-1]),
    lambda rgb: 255 - rgb,
    lambda rgb: np.ascontiguousarray(255 - rgb[:, ::-1]),
)


class _Keypoints(NamedTuple):
    """Keypoints of some images."""

    points: NDArray[np.float32]  # (N, 2), pixels
    descriptors: NDArray[np.uint8]  # (N, 32)
    owner: NDArray[np.int64]  # (N,), number of the image of each


class SceneIndex:
    """ORB keypoints of test images, asked whether another image shares a scene with one of them.

    >>> photo = cv2.resize(np.random.default_rng(0).integers(0, 256, (24, 24, 3), np.uint8), (240, 240))
    >>> index = SceneIndex(['butterfly.png'], [photo])
    >>> index.find(photo[20:, 30:]), index.find(255 - photo[20:, ::-1])
    ('butterfly.png', 'butterfly.png')
    """

    def __init__(self, names: Sequence[str], images: Sequence[NDArray[np.uint8]]) -> None:
        """Describe the test images.

        Args:
            names: one an image, returned by :meth:`find`.
            images: (H, W, 3), uint8, RGB.
        """
        self._names = names
        self._altered = [_join([_keypoints(alter(image)) for image in images]) for alter in _ALTERATIONS]

    def find(self, rgb: NDArray[np.uint8]) -> str | None:
        """The name of a test image that shows the same scene as ``rgb``, (H, W, 3), uint8; None if there is none."""
        points, descriptors = _keypoints(rgb)
        if len(points) < _MIN_INLIERS:
            return None
        for tests in self._altered:
            hint = _owner_of_scene(points[::_HINT_STEP], descriptors[::_HINT_STEP], tests, _MIN_HINT_INLIERS)
            owner = None if hint is None else _owner_of_scene(points, descriptors, tests, _MIN_INLIERS)
            if owner is not None:
                return self._names[owner]
        return None


def _owner_of_scene(
    points: NDArray[np.float32], descriptors: NDArray[np.uint8], tests: _Keypoints, min_inliers: int
) -> int | None:
    """The number of the test image with which that many keypoints agree on one similarity transform."""
    if len(tests.points) < 2:
        return None
    # One partner each: many keypoints that look like the same one would all agree on shrinking the picture to a point.
    partners: dict[int, Any] = {}
    for nearest, *others in cv2.BFMatcher(cv2.NORM_HAMMING).knnMatch(descriptors, tests.descriptors, k=2):
        if others and nearest.distance >= _RATIO * others[0].distance:
            continue
        rival = partners.get(nearest.trainIdx)
        if rival is None or nearest.distance < rival.distance:
            partners[nearest.trainIdx] = nearest
    matches = list(partners.values())
    by_owner = Counter(int(tests.owner[match.trainIdx]) for match in matches)
    for owner, count in by_owner.most_common(3):
        if count < min_inliers:
            break
        pairs = [match for match in matches if tests.owner[match.trainIdx] == owner]
        # Fixed seed inside OpenCV: the same pairs always give the same inliers.
        _, inliers = cv2.estimateAffinePartial2D(
            points[[match.queryIdx for match in pairs]],
            tests.points[[match.trainIdx for match in pairs]],
            ransacReprojThreshold=4,
        )
        if inliers is not None and int(inliers.sum()) >= min_inliers:
            return owner
    return None


def _join(images: Sequence[tuple[NDArray[np.float32], NDArray[np.uint8]]]) -> _Keypoints:
    return _Keypoints(
        np.concatenate([np.zeros((0, 2), np.float32), *(points for points, _ in images)]),
        np.concatenate([np.zeros((0, 32), np.uint8), *(descriptors for _, descriptors in images)]),
        np.repeat(np.arange(len(images)), [len(points) for points, _ in images]),
    )


def _keypoints(rgb: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Positions, (N, 2), and descriptors, (N, 32)."""
    grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
    reduction = _MAX_SIDE / max(grey.shape)
    if reduction < 1:
        grey = cv2.resize(grey, None, fx=reduction, fy=reduction, interpolation=cv2.INTER_AREA)
    # A small picture has little room for the default margin and pyramid.
    keypoints, descriptors = cv2.ORB.create(_KEYPOINTS, edgeThreshold=15, patchSize=15).detectAndCompute(grey, None)
    if descriptors is None:
        return np.zeros((0, 2), np.float32), np.zeros((0, 32), np.uint8)
    return np.array([keypoint.pt for keypoint in keypoints], np.float32), descriptors
