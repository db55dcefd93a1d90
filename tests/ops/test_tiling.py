"""Tiles against the whole image, with networks whose reach is known."""

import pytest
import torch
from torch import Tensor, nn

from basicsr_distill.ops.tiling import apply_in_tiles, tile_spans

REACH_PX = 5  # of five 3x3 convolutions


def make_network(scale: int) -> nn.Module:
    """Five 3x3 convolutions and a pixel shuffle, in double precision, so that equality is not a matter of rounding."""
    torch.manual_seed(0)
    layers: list[nn.Module] = [nn.Conv2d(3, 6, 3, padding=1)]
    for _ in range(3):
        layers += [nn.ReLU(), nn.Conv2d(6, 6, 3, padding=1)]
    layers += [nn.Conv2d(6, 3 * scale**2, 3, padding=1), nn.PixelShuffle(scale)]
    return nn.Sequential(*layers).double().requires_grad_(False)


def image(height: int, width: int) -> Tensor:
    return torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize('scale', [1, 2, 3])
@pytest.mark.parametrize(('height', 'width'), [(40, 57), (16, 16), (17, 90), (3, 50), (1, 1), (22, 23)])
@pytest.mark.parametrize(('size_px', 'overlap_px'), [(16, REACH_PX), (24, 7), (11, REACH_PX)])
def test_equal_to_the_whole_image_when_the_overlap_covers_the_reach(
    scale: int, height: int, width: int, size_px: int, overlap_px: int
) -> None:
    network = make_network(scale)
    lq = image(height, width)
    torch.testing.assert_close(apply_in_tiles(network, lq, scale, size_px, overlap_px), network(lq), rtol=0, atol=1e-13)


def test_a_smaller_overlap_shows_at_the_seams_and_only_there() -> None:
    network, lq = make_network(2), image(40, 40)
    size_px, overlap_px = 20, 2
    wrong = (apply_in_tiles(network, lq, 2, size_px, overlap_px) - network(lq)).abs().amax((0, 1)) > 1e-9
    seams = [span.keep_start for span in tile_spans(40, size_px, overlap_px)][1:]
    distance = torch.full((80, 80), 1000)
    for seam in seams:
        across = (torch.arange(80) + 0.5 - 2 * seam).abs().ceil().long()
        distance = distance.minimum(across[:, None]).minimum(across[None, :])
    assert wrong.any()
    assert distance[wrong].max() <= 2 * (REACH_PX - overlap_px)


def test_an_image_no_larger_than_a_tile_is_not_cut() -> None:
    sizes = []
    apply_in_tiles(lambda tile: (sizes.append(tuple(tile.shape[-2:])), tile)[1], image(16, 9), 1, 16, 4)
    assert sizes == [(16, 9)]


def test_memory_is_bounded_by_the_tile() -> None:
    sizes = []
    apply_in_tiles(lambda tile: (sizes.append(tuple(tile.shape[-2:])), tile)[1], image(100, 61), 1, 24, 4)
    assert max(height for height, _ in sizes) == max(width for _, width in sizes) == 24


@pytest.mark.parametrize('length_px', range(1, 70))
def test_kept_parts_cover_the_axis_once(length_px: int) -> None:
    spans = list(tile_spans(length_px, size_px=16, overlap_px=4))
    kept = [position for span in spans for position in range(span.keep_start, span.keep_stop)]
    assert kept == list(range(length_px))
    for span in spans:
        assert span.start % 8 == 0 and 0 <= span.start < span.stop <= length_px and span.stop - span.start <= 16
        assert span.start == 0 or span.keep_start - span.start >= 4
        assert span.stop == length_px or span.stop - span.keep_stop >= 4


def test_tiles_that_are_all_overlap_are_refused() -> None:
    with pytest.raises(ValueError, match='more than twice overlap_px 8'):
        list(tile_spans(100, 16, 8))
