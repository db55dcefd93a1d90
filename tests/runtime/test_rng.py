"""Random state that goes on exactly."""

import random

import numpy as np
import torch

from basicsr_distill.io.weights import load_weights, save_atomic
from basicsr_distill.runtime.rng import capture_rng, restore_rng


def draw() -> list[float]:
    """One number of every generator, of every kind that keeps a spare value."""
    return [random.random(), random.gauss(0, 1), np.random.rand(), np.random.randn(), torch.rand(()).item()]


def test_rng_goes_on_exactly_after_a_safe_round_trip(tmp_path):
    random.seed(3)
    np.random.seed(4)
    torch.manual_seed(5)
    draw()  # leaves half a Gaussian pair in Python's and numpy's generators
    save_atomic({'rng': [capture_rng()]}, tmp_path / '1.state')
    expected = [draw() for _ in range(3)]
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    restore_rng(load_weights(tmp_path / '1.state')['rng'][0])
    assert [draw() for _ in range(3)] == expected
