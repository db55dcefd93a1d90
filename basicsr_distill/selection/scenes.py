"""Does a photograph show a scene of a test set? Survives cropping, resizing, rotation and recompression."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

# Longer sides are reduced to this, pixels: keypoints of larger ones would be of finer detail than a test image keeps.
_MAX_SIDE = 640
_KEYPOINTS = 800
# A descriptor's nearest neighbour must be this much nearer than the next one.
_RATIO = 0.8
# Keypoints that agree on one similarity transform; 200 photographs against 19 unrelated ones reached six at most.
_MIN_INLIERS = 15


class SceneIndex:
    """ORB keypoints of test images, asked whether another image shares a scene with one of them.

    >>> photo = cv2.resize(np.random.default_rng(0).integers(0, 256, (24, 24, 3), np.uint8), (240, 240))
    >>> SceneIndex(['butterfly.png'], [photo]).find(photo[20:, 30:])
    'butterfly.png'
    """

    def __init__(self, names: Sequence[str], images: Sequence[NDArray[np.uint8]]) -> None:
        """Describe the test images.

        Args:
            names: one an image, returned by :meth:`find`.
            images: (H, W, 3), uint8, RGB.
        """
        described = [_keypoints(image) for image in images]
        self._names = names
        self._points = np.concatenate([np.zeros((0, 2), np.float32), *(points for points, _ in described)])
        self._owner = np.repeat(np.arange(len(names)), [len(points) for points, _ in described])
        self._descriptors = np.concatenate([np.zeros((0, 32), np.uint8), *(rows for _, rows in described)])

    def find(self, rgb: NDArray[np.uint8]) -> str | None:
        """The name of a test image that shows the same scene as ``rgb``, (H, W, 3), uint8; None if there is none."""
        if len(self._points) < 2:
            return None
        points, descriptors = _keypoints(rgb)
        if len(points) < _MIN_INLIERS:
            return None
        matches: list[Any] = []
        for nearest, *others in cv2.BFMatcher(cv2.NORM_HAMMING).knnMatch(descriptors, self._descriptors, k=2):
            if not others or nearest.distance < _RATIO * others[0].distance:
                matches.append(nearest)
        by_owner = Counter(int(self._owner[match.trainIdx]) for match in matches)
        for owner, count in by_owner.most_common(3):
            if count < _MIN_INLIERS:
                break
            pairs = [match for match in matches if self._owner[match.trainIdx] == owner]
            # Fixed seed inside OpenCV: the same pairs always give the same inliers.
            _, inliers = cv2.estimateAffinePartial2D(points[[match.queryIdx for match in pairs]],
                                                     self._points[[match.trainIdx for match in pairs]],
                                                     ransacReprojThreshold=4)
            if inliers is not None and int(inliers.sum()) >= _MIN_INLIERS:
                return self._names[owner]
        return None


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
