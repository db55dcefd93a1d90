"""The estimate against what is known of a small network."""

import torch
from torch import nn

from basicsr_distill.diffusion.step_cost import StepEstimate, estimate_step


def test_saved_activations_and_state_are_counted():
    net = nn.Sequential(nn.Linear(10, 20), nn.Tanh(), nn.Linear(20, 5))
    net[0].weight.requires_grad_(False)
    x = torch.randn(3, 10)
    estimate = estimate_step(net, lambda: net(x))
    # Kept for backward: the output of tanh, twice used, and the output, for its square.
    assert estimate.activation_bytes == 4 * 3 * (20 + 5)
    total, trained = 10 * 20 + 20 + 20 * 5 + 5, 20 + 20 * 5 + 5
    assert estimate.state_bytes == 4 * total + 16 * trained
    assert estimate.seconds > 0 and all(p.grad is None for p in net.parameters())


def test_the_sentence_adds_up():
    text = StepEstimate(0.5, 10**9, 10**8).describe(batch_size=8, parts=4, iterations=900)
    assert '4 s an iteration and 1 h in all' in text and '1.2 GB' in text
