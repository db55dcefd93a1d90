"""Validation in tiles, through BasicSR's own models."""

from pathlib import Path
from typing import Any

import pytest
import torch
from basicsr.models import build_model
from torch import Tensor

from basicsr_distill.config.experiment import to_experiment
from basicsr_distill.config.recipe import Recipe
from basicsr_distill.errors import InputError

EDSR = {'type': 'EDSR', 'num_in_ch': 3, 'num_out_ch': 3, 'num_feat': 8, 'num_block': 1, 'upscale': 4}
# 3x3 convolutions: 1 in front, 2 in the block, 1 behind it, and 3 in and behind the upsampler, at 1, 2 and 4 times the
# size.
EDSR_REACH_PX = 6  # 1 + 2 + 1 + 1 + 1/2 + 1/4, rounded up
SWINIR = {
    'type': 'SwinIR',
    'upscale': 4,
    'img_size': 16,
    'window_size': 8,
    'depths': [2],
    'embed_dim': 8,
    'num_heads': [2],
    'mlp_ratio': 2,
    'upsampler': 'pixelshuffledirect',
}


def options(model_type: str, network: dict[str, Any], **val: Any) -> dict[str, Any]:
    return {
        'name': 'x',
        'model_type': model_type,
        'scale': 4,
        'num_gpu': 0,
        'network_g': dict(network),
        'val': val,
        'datasets': {'test': {'name': 'x', 'type': 'DistilledPatchDataset', 'dataroot_gt': '.'}},
    }


def super_resolve(model_type: str, network: dict[str, Any], lq: Tensor, **val: Any) -> Tensor:
    torch.manual_seed(0)
    opt = to_experiment(
        Recipe.parse(Path('x.yml'), options(model_type, network, **val)), is_train=False, root=Path('.')
    ).opt
    opt.update(dist=False, rank=0, world_size=1)
    model = build_model(opt)
    for parameter in model.net_g.parameters():  # the initial ones hide differences, being small
        parameter.data.add_(torch.randn_like(parameter), alpha=0.05)
    model.feed_data({'lq': lq})
    model.test()
    assert torch.equal(model.lq, lq)
    return model.get_current_visuals()['result']


@pytest.fixture
def lq() -> Tensor:
    return torch.rand(1, 3, 29, 45, generator=torch.Generator().manual_seed(1))


def test_tiles_equal_the_whole_image(lq: Tensor) -> None:
    whole = super_resolve('SRModel', EDSR, lq)
    tile = {'size_px': 20, 'overlap_px': EDSR_REACH_PX}
    tiled = super_resolve('TiledSRModel', EDSR, lq, tile=tile)
    assert whole.shape == (1, 3, 116, 180)
    torch.testing.assert_close(tiled, whole, rtol=0, atol=1e-5 * float(whole.abs().max()))
    cut = super_resolve('TiledSRModel', EDSR, lq, tile={'size_px': 20, 'overlap_px': 0})
    assert not torch.allclose(cut, whole, rtol=0, atol=1e-3 * float(whole.abs().max()))


def test_without_a_tile_it_is_sr_model(lq: Tensor) -> None:
    assert torch.equal(super_resolve('TiledSRModel', EDSR, lq), super_resolve('SRModel', EDSR, lq))
    large = super_resolve('TiledSRModel', EDSR, lq, tile={'size_px': 45, 'overlap_px': 2})
    assert torch.equal(large, super_resolve('SRModel', EDSR, lq))


def test_windows_of_tiles_are_those_of_the_whole_image(lq: Tensor) -> None:
    """Two blocks with windows of 8 px, one shifted by 4, between 3x3 convolutions: nothing beyond 16 px is seen."""
    whole = super_resolve('SwinIRModel', SWINIR, lq)
    tiled = super_resolve('TiledSwinIRModel', SWINIR, lq, tile={'size_px': 40, 'overlap_px': 16})
    assert tiled.shape == whole.shape == (1, 3, 116, 180)
    torch.testing.assert_close(tiled, whole, rtol=0, atol=1e-5 * float(whole.abs().max()))


def test_the_chopping_of_hit_sr_means_tiles(lq: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr('basicsr_distill.models.tiled_sr_model._CHOP_TILE', {'size_px': 20, 'overlap_px': 0})
    tiled = super_resolve('TiledSRModel', EDSR, lq, tile={'size_px': 20, 'overlap_px': 0})
    assert torch.equal(super_resolve('HITModel', EDSR, lq, use_chop=True), tiled)
    assert torch.equal(super_resolve('HITModel', EDSR, lq, use_chop=False), super_resolve('SRModel', EDSR, lq))


@pytest.mark.parametrize(
    ('model_type', 'tile', 'message'),
    [
        (
            'TiledSRModel',
            {'size_px': 16, 'overlap_px': 8},
            r'x.yml: val.tile: .*16 is not more than twice overlap_px 8',
        ),
        ('TiledSRModel', {'size_px': 16}, r'val.tile: overlap_px: field required'),
        ('TiledSRModel', {'size': 16, 'overlap_px': 2}, r"val.tile: unknown key 'size'; did you mean 'size_px'"),
        ('SRModel', {'size_px': 16, 'overlap_px': 2}, r'val.tile: SRModel knows no tiles; use one of TiledSRModel'),
    ],
)
def test_wrong_tiles_are_refused(model_type: str, tile: dict[str, int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        to_experiment(Recipe.parse(Path('x.yml'), options(model_type, EDSR, tile=tile)), is_train=False, root=Path('.'))
