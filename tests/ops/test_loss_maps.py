"""What windows are looked for by, against BasicSR's imresize and scipy's Laplacian, cell by cell."""

import cv2
import numpy as np
import pytest
from basicsr.utils.color_util import rgb2ycbcr
from basicsr.utils.matlab_functions import imresize
from numpy.typing import NDArray
from scipy.ndimage import laplace

from basicsr_distill.config.sections.base import PsnrMetric
from basicsr_distill.ops import loss_maps
from basicsr_distill.ops.loss_maps import bicubic_error_cells, laplacian_cells


def cell_means(values: NDArray[np.floating], scale: int) -> NDArray[np.float64]:
    rows, columns = values.shape[0] // scale, values.shape[1] // scale
    return np.array(
        [
            [values[scale * r : scale * r + scale, scale * c : scale * c + scale].mean() for c in range(columns)]
            for r in range(rows)
        ]
    )


@pytest.mark.parametrize('scale', [2, 4])
@pytest.mark.parametrize('metric', ['matlab_rgb', 'matlab_y'])
@pytest.mark.parametrize('rows', [5, 64])
def test_the_error_is_that_of_the_whole_image(
    chelsea: NDArray[np.uint8], scale: int, metric: PsnrMetric, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the strips that it is computed in."""
    monkeypatch.setattr(loss_maps, '_ROWS', rows)
    rgb = chelsea[:202, :175]
    whole = rgb[: 202 // scale * scale, : 175 // scale * scale].astype(np.float32) / 255
    planes = rgb2ycbcr(whole, y_only=True)[..., None] if metric == 'matlab_y' else whole
    restored = imresize(imresize(planes, 1 / scale), float(scale)).reshape(planes.shape)
    expected = cell_means(((planes - restored) ** 2).mean(axis=2) * 255**2, scale)
    found = bicubic_error_cells(rgb, scale, metric)
    assert found.shape == (202 // scale, 175 // scale) and found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)


def test_laplacian_of_cells(chelsea: NDArray[np.uint8]) -> None:
    rgb = chelsea[:130, :171]
    grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY).astype(np.float64) / 255
    expected = cell_means(np.abs(laplace(grey, mode='mirror')), 4)
    np.testing.assert_allclose(laplacian_cells(rgb, 4), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize('metric', ['matlab_rgb', 'matlab_y', 'cv2_grey'])
def test_flat_areas_lose_nothing_but_rounding(metric: PsnrMetric) -> None:
    for value in range(3, 256, 9):
        assert not bicubic_error_cells(np.full((64, 96, 3), value, np.uint8), 4, metric).any(), value


def test_a_slope_has_no_laplacian() -> None:
    slope = np.repeat(np.arange(200, dtype=np.uint8)[None, :, None], 3, axis=2).repeat(40, axis=0)
    assert not laplacian_cells(slope, 4)[:, 1:-1].any()
