import numpy as np
import pytest
import torch

from basicsr_distill.archs._windows import reflect_pad, relative_position_index, window_merge, window_partition


@pytest.mark.parametrize(
    ('size_px', 'multiple'), [((5, 7), 4), ((8, 4), 4), ((1, 1), 8), ((1, 3), 16), ((2, 9), 64), ((33, 17), 64)]
)
def test_reflect_pad_is_numpys_periodic_reflection(size_px, multiple):
    x = torch.rand(2, *size_px, 3)
    padded = reflect_pad(x, multiple)
    missing = [-size % multiple for size in size_px]
    expected = np.pad(x.numpy(), ((0, 0), (0, missing[0]), (0, missing[1]), (0, 0)), mode='reflect')
    np.testing.assert_array_equal(padded.numpy(), expected)


def test_reflect_pad_of_other_dimensions():
    x = torch.rand(1, 3, 5, 6)
    torch.testing.assert_close(reflect_pad(x, 4, dims=(2, 3)), torch.nn.functional.pad(x, (0, 2, 0, 3), mode='reflect'))


def test_windows_are_row_major_and_merge_back():
    x = torch.rand(2, 8, 12, 3)
    windows = window_partition(x, 4)
    assert windows.shape == (2 * 2 * 3, 16, 3)
    for image in range(2):
        for row in range(8):
            for column in range(12):
                window = image * 6 + (row // 4) * 3 + column // 4
                assert torch.equal(windows[window, (row % 4) * 4 + column % 4], x[image, row, column])
    assert torch.equal(window_merge(windows, 4, (8, 12)), x)


@pytest.mark.parametrize(('size', 'stride'), [(2, 1), (4, 1), (4, 2), (6, 2), (6, 3)])
def test_relative_position_index_by_definition(size, stride):
    p = size // stride
    index = relative_position_index(size, stride)
    assert index.shape == (size**2, p**2) and index.dtype == torch.int64
    for query in range(size**2):
        for key in range(p**2):
            down = query // size // stride - key // p
            right = query % size // stride - key % p
            assert index[query, key] == (down + p - 1) * (2 * p - 1) + right + p - 1


def test_relative_position_index_of_2x2_is_swins():
    assert relative_position_index(2).tolist() == [[4, 3, 1, 0], [5, 4, 2, 1], [7, 6, 4, 3], [8, 7, 5, 4]]
