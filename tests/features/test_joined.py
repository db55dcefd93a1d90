"""Joined features against the definition, number by number."""

import numpy as np
import pytest

from basicsr_distill.features.joined import join_features


@pytest.fixture
def blocks():
    generator = np.random.default_rng(0)
    return [generator.normal(3, 1e-3, (40, 5)).astype(np.float32), generator.normal(-1, 50, (40, 9)).astype(np.float32)]


def test_blocks_are_centred_and_of_total_variance_one(blocks):
    expected = []
    for block in blocks:
        columns = [[float(value) for value in column] for column in block.T]
        centred = [[value - sum(column) / 40 for value in column] for column in columns]
        total = sum(value**2 for column in centred for value in column) / 40
        expected += [[value / total**0.5 for value in column] for column in centred]
    joined = join_features(blocks)
    assert joined.dtype == np.float32
    np.testing.assert_allclose(joined, np.array(expected).T, atol=2e-4)  # the first block's values hold 3 +- 1e-7


def test_units_of_an_encoder_do_not_matter(blocks):
    np.testing.assert_allclose(join_features(blocks), join_features([blocks[0], blocks[1] * 1e-4 + 2]), atol=1e-3)


def test_distances_within_a_block_keep_their_proportions(blocks):
    own, joined = blocks[1].astype(np.float64), join_features(blocks)[:, 5:].astype(np.float64)
    before, after = (np.linalg.norm(rows[1:] - rows[0], axis=1) for rows in (own, joined))
    np.testing.assert_allclose(after / after[0], before / before[0], rtol=1e-5)


def test_a_block_that_says_nothing_has_no_say(blocks):
    joined = join_features([np.full((40, 3), 7, np.float32), blocks[1]])
    assert not joined[:, :3].any() and np.isfinite(joined).all()


def test_nor_has_one_in_which_rounding_alone_differs(blocks):
    rounded = 7 * (1 + 1e-6 * np.random.default_rng(1).uniform(-1, 1, (40, 3)))
    assert not join_features([rounded.astype(np.float32), blocks[1]])[:, :3].any()


def test_blocks_of_other_patches_are_refused(blocks):
    with pytest.raises(ValueError, match=r'blocks of \[40, 39\] rows'):
        join_features([blocks[0], blocks[1][1:]])
    with pytest.raises(ValueError, match=r'blocks of \[\] rows'):
        join_features([])
