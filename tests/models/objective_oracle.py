"""The objective of fine-tuning written plainly from the equations, in double precision, with lists for memories."""

import math
from collections import defaultdict, deque

import numpy as np
import torch
from torch.distributions import Normal, kl_divergence

WEIGHTS = {'l_simple': 1.0, 'l_vlb': 1.0, 'l_representativeness': 0.002, 'l_diversity': 0.008, 'l_high_frequency': 0.05}


def cubic(x):
    """Keys' kernel with a = -1/2."""
    x = abs(x)
    return 1.5 * x**3 - 2.5 * x**2 + 1 if x <= 1 else -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2 if x <= 2 else 0.0


def resize_matrix(size, factor):
    """MATLAB's imresize along an axis; the border is mirrored as often as a small image needs it."""
    matrix, width = np.zeros((round(size * factor), size)), min(factor, 1)
    for row, weights in enumerate(matrix):
        center = (row + 0.5) / factor - 0.5
        for place in range(math.floor(center - 2 / width), math.ceil(center + 2 / width) + 1):
            mirrored = place % (2 * size)
            weights[min(mirrored, 2 * size - 1 - mirrored)] += cubic((center - place) * width)
        weights /= weights.sum()
    return matrix


def bicubic_matrix(size, scale):
    """up(down(z)) of flattened squares as one matrix."""
    axis = resize_matrix(size // scale, scale) @ resize_matrix(size, 1 / scale)
    return torch.from_numpy(np.kron(axis, axis))


class ObjectiveOracle:
    """Terms of a batch whose timesteps are all at least 1, and the memories of up to ``memory`` latents a label."""

    def __init__(self, memory):
        self.real = defaultdict(lambda: deque(maxlen=memory))
        self.drawn = defaultdict(lambda: deque(maxlen=memory))
        self.alpha_bar = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))

    def terms(self, net, batch):
        """The weighted terms, with gradients to the network, and x0_pred."""
        x0, noise, labels = batch['latent'].double(), batch['noise'].double(), batch['label']
        channels = x0.shape[1]
        t = (batch['time'] * 1000).long()
        assert t.min() >= 1
        a, before = (torch.from_numpy(self.alpha_bar[index.numpy()]).view(-1, 1, 1, 1) for index in (t, t - 1))
        x_t = a.sqrt() * x0 + (1 - a).sqrt() * noise
        output = net(x_t.float(), t, labels, drop_mask=batch['drop'] < 0.1).double()
        eps, v = output[:, :channels], output[:, channels:]
        x0_pred = (x_t - (1 - a).sqrt() * eps) / a.sqrt()
        values = {'l_simple': ((eps - noise) ** 2).mean()}

        beta = 1 - a / before
        deviation = ((1 - before) / (1 - a) * beta).sqrt()

        def posterior_mean(clean):
            return before.sqrt() * beta / (1 - a) * clean + (1 - beta).sqrt() * (1 - before) / (1 - a) * x_t

        learned = ((v + 1) / 2 * beta.sqrt().log() + (1 - v) / 2 * deviation.log()).exp()
        frozen = (x_t - (1 - a).sqrt() * eps.detach()) / a.sqrt()
        divergence = kl_divergence(Normal(posterior_mean(x0), deviation), Normal(posterior_mean(frozen), learned))
        values['l_vlb'] = (divergence / np.log(2)).mean()

        for name, memory, pick in (
            ('l_representativeness', self.real, lambda pairs: 1 - torch.stack(pairs).min()),
            ('l_diversity', self.drawn, lambda pairs: torch.stack(pairs).max()),
        ):
            heights = []
            for label in sorted(set(labels.tolist())):
                pairs = [
                    torch.cosine_similarity(x0_pred[n].flatten(), stored.flatten(), dim=0)
                    for n in range(len(labels))
                    if int(labels[n]) == label
                    for stored in memory[label]
                ]
                if pairs:
                    heights.append(pick(pairs))
            values[name] = sum(heights) / len(heights) if heights else x0_pred.sum() * 0

        high = torch.eye(x0[0, 0].numel(), dtype=torch.float64) - bicubic_matrix(x0.shape[-1], 4)
        energies = [((z.flatten(2) @ high.T) ** 2).sum((1, 2)).log() for z in (x0_pred, x0)]
        values['l_high_frequency'] = (a.flatten() * (energies[0] - energies[1]).abs()).mean()
        return {name: WEIGHTS[name] * value for name, value in values.items()}, x0_pred.detach()

    def remember(self, batch, x0_pred):
        """End a step."""
        for label, real, drawn in zip(batch['label'].tolist(), batch['latent'].double(), x0_pred):
            self.real[label].append(real)
            self.drawn[label].append(drawn)
