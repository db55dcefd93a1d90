from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from basicsr_distill.io.figures import save_feature_map, save_montage, save_psnr_histogram
from basicsr_distill.io.images import read_rgb


def test_montage_places_pictures_in_rows(tmp_path: Path, astronaut: NDArray[np.uint8]) -> None:
    pictures = [astronaut[top : top + 20, :30] for top in range(0, 100, 20)]
    save_montage(tmp_path / 'montage.png', [pictures[:3], pictures[3:]], gap_px=2)
    montage = read_rgb(tmp_path / 'montage.png')
    assert montage.shape == (42, 94, 3)
    for number, picture in enumerate(pictures):
        row, column = divmod(number, 3)
        np.testing.assert_array_equal(montage[22 * row : 22 * row + 20, 32 * column : 32 * column + 30], picture)
    assert (montage[22:, 64:] == 255).all()


@pytest.mark.parametrize('threshold_db', [25.0, 90.0])
def test_histogram_marks_threshold_and_median(tmp_path: Path, threshold_db: float) -> None:
    scores = np.random.default_rng(0).normal(28, 4, 500).astype(np.float32)
    save_psnr_histogram(tmp_path / 'psnr.png', scores, threshold_db, 'matlab_rgb')
    picture = read_rgb(tmp_path / 'psnr.png').astype(int)
    for colour in ((0xD5, 0x5E, 0x00), (0x00, 0x72, 0xB2)):  # of the two lines
        assert (np.abs(picture - colour).max(axis=2) < 8).sum() > 100
    assert [path.name for path in tmp_path.iterdir()] == ['psnr.png']


def test_map_draws_every_cluster_in_its_own_way(tmp_path: Path) -> None:
    positions = np.random.default_rng(0).normal(size=(600, 2))
    save_feature_map(tmp_path / 'map.png', positions, np.arange(600) % 12)
    assert len(np.unique(read_rgb(tmp_path / 'map.png').reshape(-1, 3), axis=0)) > 12
