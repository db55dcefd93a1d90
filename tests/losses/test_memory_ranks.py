"""The global batch of several processes over gloo."""

from types import SimpleNamespace

import pytest
import torch
from support import on_ranks

from basicsr_distill.losses.memory import gather_batch
from basicsr_distill.losses.minimax_loss import DiversityLoss


def batch_of(rank):
    generator = torch.Generator().manual_seed(rank)
    return torch.randn(64, 48, generator=generator) * 10.0 ** torch.randint(-3, 4, (64, 1), generator=generator)


def gathered(rank):
    own = batch_of(rank).requires_grad_()
    (everything,) = gather_batch(own)
    weights = torch.arange(1.0, len(everything) + 1)
    ((everything.sum(1) * weights).sum()).backward()
    loss = DiversityLoss(1, 48, loss_weight=0.008, memory_size=512, t_weight='none')
    batch = SimpleNamespace(labels=torch.zeros(64, dtype=torch.int64), alpha_bar_t=torch.ones(64))
    values = []
    for _ in range(2):
        values.append(loss(SimpleNamespace(x0_pred=own), batch).detach())
        loss.commit()
    return {
        'everything': everything.detach(),
        'gradient': own.grad,
        'loss': torch.stack(values),
        'memory': loss.memory.directions,
    }


@pytest.mark.parametrize('ranks', [2, 3, 4])
def test_every_rank_has_the_same_bits(ranks, tmp_path):
    results = on_ranks(ranks, gathered, tmp_path)
    whole = torch.cat([batch_of(rank) for rank in range(ranks)])
    for rank, result in enumerate(results):
        assert torch.equal(result['everything'].view(torch.int32), whole.view(torch.int32))
        # The gradient of a rank's own samples, enlarged so that the mean over ranks is that of the sum.
        own = torch.arange(1.0, len(whole) + 1)[64 * rank : 64 * (rank + 1), None].expand(64, 48)
        assert torch.equal(result['gradient'], ranks * own)
        for name in ('loss', 'memory'):
            assert torch.equal(result[name].view(torch.int32), results[0][name].view(torch.int32)), name
