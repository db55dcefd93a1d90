"""Representativeness and diversity against loops written from the equations."""

import math
from collections import defaultdict, deque
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from support import keys_of

from basicsr_distill.config.sections.losses import DiversityLossOptions, RepresentativenessLossOptions
from basicsr_distill.losses.memory import LatentMemory
from basicsr_distill.losses.minimax_loss import DiversityLoss, RepresentativenessLoss

LABELS, SHAPE, MEMORY = 3, (4, 5, 6), 4
DIM = math.prod(SHAPE)


def representativeness_loss(**given):
    return RepresentativenessLoss(LABELS, DIM, **keys_of(RepresentativenessLossOptions, **given))


def diversity_loss(**given):
    return DiversityLoss(LABELS, DIM, **keys_of(DiversityLossOptions, **given))


def value(loss, x0_pred, x0, labels, alpha_bar_t):
    return loss(SimpleNamespace(x0_pred=x0_pred), SimpleNamespace(x0=x0, labels=labels, alpha_bar_t=alpha_bar_t))


def cosine(a, b):
    a, b = a.flatten().double(), b.flatten().double()
    return float((a * b).sum() / (a.square().sum().sqrt() * b.square().sum().sqrt()))


class LoopOracle:
    """Lists of latents per label and four nested loops."""

    def __init__(self, weighted):
        self.memory = defaultdict(lambda: deque(maxlen=MEMORY))
        self.weighted = weighted

    def extreme(self, x0_pred, labels, alpha_bar_t, pick):
        terms = []
        for label in sorted(set(labels.tolist())):
            pairs = [
                (cosine(x0_pred[i], stored), float(alpha_bar_t[i]))
                for i in range(len(labels))
                if int(labels[i]) == label
                for stored in self.memory[label]
            ]
            if pairs:
                value, weight = pick(pairs)
                terms.append((value, weight if self.weighted else 1.0))
        return terms

    def representativeness(self, x0_pred, x0, labels, alpha_bar_t):
        terms = self.extreme(x0_pred, labels, alpha_bar_t, min)
        for latent, label in zip(x0, labels):
            self.memory[int(label)].append(latent)
        return sum(weight * (1 - value) for value, weight in terms) / len(terms) if terms else 0.0

    def diversity(self, x0_pred, labels, alpha_bar_t):
        terms = self.extreme(x0_pred, labels, alpha_bar_t, max)
        for latent, label in zip(x0_pred, labels):
            self.memory[int(label)].append(latent)
        return sum(weight * value for value, weight in terms) / len(terms) if terms else 0.0


def batches(count, size=7):
    generator = torch.Generator().manual_seed(0)
    for _ in range(count):
        yield (
            torch.randn(size, *SHAPE, generator=generator),
            torch.randn(size, *SHAPE, generator=generator),
            torch.randint(0, LABELS, (size,), generator=generator),
            torch.rand(size, generator=generator),
        )


@pytest.mark.parametrize('t_weight', ['none', 'alpha_bar'])
def test_losses_equal_the_loop_over_many_batches(t_weight):
    # Seven samples of three labels against memories of four: queues overflow within a batch and across batches.
    representativeness = representativeness_loss(loss_weight=1.0, memory_size=MEMORY, t_weight=t_weight)
    diversity = diversity_loss(loss_weight=1.0, memory_size=MEMORY, t_weight=t_weight)
    real, drawn = LoopOracle(t_weight == 'alpha_bar'), LoopOracle(t_weight == 'alpha_bar')
    for x0_pred, x0, labels, alpha_bar_t in batches(8):
        assert float(value(representativeness, x0_pred, x0, labels, alpha_bar_t)) == pytest.approx(
            real.representativeness(x0_pred, x0, labels, alpha_bar_t), abs=1e-6
        )
        assert float(value(diversity, x0_pred, x0, labels, alpha_bar_t)) == pytest.approx(
            drawn.diversity(x0_pred, labels, alpha_bar_t), abs=1e-6
        )
        representativeness.commit()
        diversity.commit()


def test_a_batch_is_remembered_once_however_often_its_loss_is_computed():
    loss, oracle = diversity_loss(loss_weight=1.0, memory_size=MEMORY), LoopOracle(weighted=False)
    for x0_pred, x0, labels, alpha_bar_t in batches(3):
        value(loss, x0_pred.flip(0), x0, labels, alpha_bar_t)  # a step that was not taken
        values = [float(value(loss, x0_pred, x0, labels, alpha_bar_t)) for _ in range(3)]
        assert values == [pytest.approx(oracle.diversity(x0_pred, labels, alpha_bar_t), abs=1e-6)] * 3
        loss.commit()
        loss.commit()
    assert int(loss.memory.pushed.sum()) == 3 * 7


def test_a_batch_larger_than_the_memory_keeps_its_last_samples():
    memory = LatentMemory(1, 2, size=3)
    latents = torch.tensor([[1.0, 0], [0, 1], [-1, 0], [0, -1], [3, 4]])
    memory.push(latents, torch.zeros(5, dtype=torch.int64))
    kept = {tuple(row) for row in memory.directions.tolist()}
    assert kept == {tuple(row) for row in F.normalize(latents[2:], dim=1).tolist()}


def test_empty_memories_give_zero_and_a_gradient_of_zero():
    loss = diversity_loss()
    x0_pred = torch.randn(2, *SHAPE, requires_grad=True)
    zero = value(loss, x0_pred, None, torch.tensor([0, 1]), torch.ones(2))
    zero.backward()
    assert zero.item() == 0 and not x0_pred.grad.any()


def test_gradients_raise_similarity_to_real_latents_and_lower_it_to_drawn_ones():
    x0_pred, x0, labels, alpha_bar_t = next(batches(1))
    x0_pred.requires_grad_()
    for loss, direction in ((representativeness_loss(), 1), (diversity_loss(), -1)):
        loss.memory.push(x0, labels)
        cosines, exists = loss.memory.similarities(x0_pred, labels)
        before = cosines[exists].detach()
        (gradient,) = torch.autograd.grad(value(loss, x0_pred, x0, labels, alpha_bar_t), x0_pred)
        loss.memory.pushed.zero_()
        loss.memory.push(x0, labels)
        after = loss.memory.similarities(x0_pred - 100 * gradient, labels)[0][exists]
        extreme = torch.min if direction == 1 else torch.max
        assert direction * (extreme(after) - extreme(before)) > 0


def test_memories_survive_save_and_load_with_the_same_next_loss():
    *seen, last = batches(5)
    loss = representativeness_loss(memory_size=MEMORY)
    for batch in seen:
        value(loss, *batch)
        loss.commit()
    restored = representativeness_loss(memory_size=MEMORY)
    restored.load_state_dict(loss.state_dict())
    assert torch.equal(value(loss, *last), value(restored, *last))
    assert torch.equal(loss.memory.directions, restored.memory.directions)
