"""What official checkpoints and users rely on, for all SR networks alike."""

import re

import pytest
import torch
from archs.networks import HIT, PUBLISHED, SR_ARCHS, published, shrunk
from basicsr.utils.registry import ARCH_REGISTRY
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

PARAMETERS = {
    'SRFormer-light': (853_272, 861_387, 872_748),
    'SRFormer-w24': (10_395_791, 10_580_431, 10_543_503),
    'SRFormer-w22': (10_376_783, 10_561_423, 10_524_495),
    'HiT_SIR': (772_064, 780_179, 791_540),
    'HiT_SNG': (1_012_584, 1_020_699, 1_032_060),
    'HiT_SRF': (846_944, 855_059, 866_420),
}


def layer(name: str, *weight: int) -> dict[str, tuple[int, ...]]:
    """A layer with bias."""
    return {f'{name}.weight': weight, f'{name}.bias': weight[:1]}


def feed_forward(c: int, depthwise: bool) -> dict[str, tuple[int, ...]]:
    keys = {**layer('norm1', c), **layer('norm2', c), **layer('mlp.fc1', 2 * c, c), **layer('mlp.fc2', c, 2 * c)}
    return keys | layer('mlp.dwconv.depthwise_conv.0', 2 * c, 1, 5, 5) if depthwise else keys


def srformer_block(c: int, window: int, num_windows: int, odd: bool) -> dict[str, tuple[int, ...]]:
    n = window**2
    keys = {
        **feed_forward(c, depthwise=True),
        'attn.relative_position_bias_table': ((window - 1) ** 2, 6),
        'attn.aligned_relative_position_index': (n, n // 4),
        **layer('attn.q', c, c),
        **layer('attn.kv', c // 2, c),
        **layer('attn.proj', c, c),
    }
    return keys | {'attn_mask': (num_windows, n, n // 4)} if odd else keys


def hit_block(name: str, window: int) -> dict[str, tuple[int, ...]]:
    keys = {
        **layer('qv.conv.0', 12, 60, 1, 1),
        **layer('qv.conv.2', 12, 12, 3, 3),
        **layer('qv.conv.4', 60, 12, 1, 1),
        **layer('qv.linear', 60, 60, 1, 1),
        **layer('proj', 60, 60),
        **layer('spatial_linear', 1, max(window // 8, 1) ** 2),
        **layer('pos.pos_proj', 3, 2),
        **layer('pos.pos1.0', 3),
        **layer('pos.pos1.2', 3, 3),
        **layer('pos.pos2.0', 3),
        **layer('pos.pos2.2', 3, 3),
        **layer('pos.pos3.0', 3),
        **layer('pos.pos3.2', 6, 3),
    }
    if name == 'HiT_SNG':
        context = 'ngram_window_partition.ngram_context'
        keys |= {
            **layer(f'{context}.unigram_embed', 1, 2, window, window),
            f'{context}.ngram_attn.relative_position_bias_table': (9, 6),
            f'{context}.ngram_attn.relative_position_index': (4, 4),
            **layer(f'{context}.ngram_attn.qkv', 90, 30),
            **layer(f'{context}.ngram_attn.proj', 30, 30),
            **layer(f'{context}.merge', 60, 60, 1, 1),
        }
    keys = {f'correlation.{key}': shape for key, shape in keys.items()}
    return keys | feed_forward(60, depthwise=name == 'HiT_SRF')


def checkpoint_keys(name: str) -> dict[str, tuple[int, ...]]:
    """Names and shapes in the official x4 checkpoint."""
    light = name in ('SRFormer-light', *HIT)
    c = 60 if light else 180
    keys = {
        **layer('conv_first', c, 3, 3, 3),
        **layer('patch_embed.norm', c),
        **layer('norm', c),
        **layer('conv_after_body', c, c, 3, 3),
    }
    if light:
        keys |= layer('upsample.0', 48, 60, 3, 3)
    else:
        keys |= layer('conv_before_upsample.0', 64, 180, 3, 3) | layer('conv_last', 3, 64, 3, 3)
        keys |= layer('upsample.0', 256, 64, 3, 3) | layer('upsample.2', 256, 64, 3, 3)
    for i in range(4 if light else 6):
        keys |= layer(f'layers.{i}.conv', c, c, 3, 3)
        for j in range(6):
            if name in HIT:
                block = hit_block(name, (4, 8, 16, 32, 48, 64)[j])
            else:
                window, num_windows = {
                    'SRFormer-light': (16, 16),
                    'SRFormer-w24': (24, 4),
                    'SRFormer-w22': (22, 9),
                }[name]
                block = srformer_block(c, window, num_windows, odd=j % 2 == 1)
            keys |= {f'layers.{i}.residual_group.blocks.{j}.{key}': shape for key, shape in block.items()}
    return keys


@pytest.mark.parametrize('name', PUBLISHED)
def test_keys_shapes_and_dtypes_are_those_of_official_checkpoints(name):
    state_dict = published(name, upscale=4).state_dict()
    assert {key: tuple(value.shape) for key, value in state_dict.items()} == checkpoint_keys(name)
    for key, value in state_dict.items():
        assert value.dtype == (torch.int64 if key.endswith('position_index') else torch.float32), key


@pytest.mark.parametrize('name', PUBLISHED)
@pytest.mark.parametrize('upscale', [2, 3, 4])
def test_parameter_counts(name, upscale):
    net = published(name, upscale)
    assert sum(parameter.numel() for parameter in net.parameters()) == PARAMETERS[name][upscale - 2]


@pytest.mark.parametrize('name', SR_ARCHS)
def test_registered_under_its_published_name(name):
    assert ARCH_REGISTRY.get(name).__name__ == name


@pytest.mark.parametrize('name', SR_ARCHS)
@pytest.mark.parametrize('size_px', [(1, 1), (1, 9), (3, 2), (15, 16), (17, 33), (24, 40)])
def test_any_input_size(name, size_px):
    net = shrunk(name, upscale=3).eval()
    with torch.no_grad():
        out = net(torch.rand(2, 3, *size_px))
    assert out.shape == (2, 3, 3 * size_px[0], 3 * size_px[1])
    assert out.isfinite().all() and out.is_contiguous()


@pytest.mark.parametrize('name', HIT)
def test_published_windows_take_the_smallest_inputs(name):
    net = published(name, upscale=2).eval()
    with torch.no_grad():
        for size_px in ((1, 1), (7, 5)):
            assert net(torch.rand(1, 3, *size_px)).isfinite().all()


@pytest.mark.parametrize(
    ('upsampler', 'upscale'),
    [
        ('pixelshuffledirect', 1),
        ('pixelshuffledirect', 3),
        ('pixelshuffle', 2),
        ('pixelshuffle', 3),
        ('pixelshuffle', 8),
        ('nearest+conv', 4),
    ],
)
@pytest.mark.parametrize('name', ['SRFormer', 'HiT_SRF'])
def test_heads(name, upsampler, upscale):
    net = shrunk(name, upscale=upscale, upsampler=upsampler).eval()
    assert net(torch.rand(1, 3, 9, 8)).shape == (1, 3, 9 * upscale, 8 * upscale)


@pytest.mark.parametrize(
    ('upsampler', 'upscale'), [('pixelshuffledirect', 3), ('pixelshuffle', 4), ('pixelshuffle', 3), ('nearest+conv', 4)]
)
def test_skeleton_from_the_description(upsampler, upscale):
    """All but the blocks, in the order of the description, on torch's usual (B, C, H, W)."""
    net = shrunk('HiT_SIR', upscale=upscale, upsampler=upsampler, depths=[1, 1], num_heads=[2, 2]).eval().double()
    weights = net.state_dict()

    def conv(t: torch.Tensor, name: str) -> torch.Tensor:
        return F.conv2d(t, weights[f'{name}.weight'], weights[f'{name}.bias'], padding=1)

    def norm(t: torch.Tensor, name: str) -> torch.Tensor:
        return F.layer_norm(t, (24,), weights[f'{name}.weight'], weights[f'{name}.bias'], eps=1e-5)

    def on_tokens(function, t: torch.Tensor, *args: str) -> torch.Tensor:
        return function(t.permute(0, 2, 3, 1).contiguous(), *args).permute(0, 3, 1, 2)

    x = torch.rand(1, 3, 9, 10, dtype=torch.float64)
    mean = torch.tensor([0.4488, 0.4371, 0.4040]).double().view(1, 3, 1, 1)
    f = conv(x - mean, 'conv_first')
    t = on_tokens(norm, f, 'patch_embed.norm')
    for i in (0, 1):
        block = net.layers[i].residual_group['blocks'][0]
        t = conv(on_tokens(block, t), f'layers.{i}.conv') + t
    f = conv(on_tokens(norm, t, 'norm'), 'conv_after_body') + f
    if upsampler == 'pixelshuffledirect':
        sr = F.pixel_shuffle(conv(f, 'upsample.0'), upscale)
    else:
        f = F.leaky_relu(conv(f, 'conv_before_upsample.0'), 0.01)
        if upsampler == 'pixelshuffle':
            for name, factor in (('upsample.0', 3),) if upscale == 3 else (('upsample.0', 2), ('upsample.2', 2)):
                f = F.pixel_shuffle(conv(f, name), factor)
        else:
            for name in ('conv_up1', 'conv_up2'):
                f = F.leaky_relu(conv(f.repeat_interleave(2, 2).repeat_interleave(2, 3), name), 0.2)
            f = F.leaky_relu(conv(f, 'conv_hr'), 0.2)
        sr = conv(f, 'conv_last')
    torch.testing.assert_close(net(x), sr + mean)


def test_head_keys_of_the_real_world_network():
    keys = {key for key in shrunk('SRFormer', upscale=4, upsampler='nearest+conv').state_dict() if 'layers' not in key}
    heads = {re.sub(r'\.(weight|bias)$', '', key) for key in keys}
    assert heads >= {'conv_before_upsample.0', 'conv_up1', 'conv_up2', 'conv_hr', 'conv_last'}
    assert not any(key.startswith('upsample') for key in keys)


def test_three_convolutions_as_residual_connection():
    net = shrunk('HiT_SIR', resi_connection='3conv')
    shapes = {key: tuple(value.shape) for key, value in net.state_dict().items()}
    for place in ('conv_after_body', 'layers.0.conv'):
        assert shapes[f'{place}.0.weight'] == (6, 24, 3, 3)
        assert shapes[f'{place}.2.weight'] == (6, 6, 1, 1)
        assert shapes[f'{place}.4.weight'] == (24, 6, 3, 3)
    assert net(torch.rand(1, 3, 8, 8)).shape == (1, 3, 16, 16)


@pytest.mark.parametrize('name', SR_ARCHS)
def test_the_mean_is_a_plain_attribute_that_the_image_range_multiplies(name):
    net = shrunk(name).eval()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.zero_()
        out = net(torch.rand(1, 3, 8, 8))
    torch.testing.assert_close(out, torch.tensor([0.4488, 0.4371, 0.4040]).view(1, 3, 1, 1).expand_as(out))
    assert not any('mean' in key for key in net.state_dict())


def test_image_range_scales_the_mean_free_image_there_and_back():
    one, two = (shrunk('SRFormer', img_range=factor).eval().double() for factor in (1.0, 2.0))
    x, mean = torch.rand(1, 3, 8, 8, dtype=torch.float64), one.mean.double()
    torch.testing.assert_close(two(x), (one((x - mean) * 2 + mean) - mean) / 2 + mean)


@pytest.mark.parametrize('name', SR_ARCHS)
def test_other_channels_than_rgb(name):
    assert shrunk(name, in_chans=1)(torch.rand(1, 1, 8, 8)).shape == (1, 1, 16, 16)


@pytest.mark.parametrize('name', PUBLISHED)
def test_gradients_reach_every_parameter(name):
    if name in ('SRFormer-w24', 'SRFormer-w22'):
        net = shrunk('SRFormer', window_size=6, upsampler='pixelshuffle').eval()
    else:
        net = published(name, upscale=4).eval()
    net(torch.rand(1, 3, 18, 20)).square().mean().backward()
    without = [key for key, p in net.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert without == []


@pytest.mark.parametrize('name', HIT)
def test_checkpointing_changes_neither_outputs_nor_gradients(name):
    results = []
    for use_checkpoint in (False, True):
        net = shrunk(name, use_checkpoint=use_checkpoint).double()
        torch.manual_seed(3)
        out = net(torch.rand(2, 3, 16, 24, dtype=torch.float64))
        out.square().mean().backward()
        results.append((out, *(parameter.grad for parameter in net.parameters())))
    torch.testing.assert_close(results[0], results[1])


@pytest.mark.parametrize('name', SR_ARCHS)
def test_safetensors_round_trip(name, tmp_path):
    trained, fresh = shrunk(name, seed=1).eval(), shrunk(name, seed=2).eval()
    save_file(trained.state_dict(), tmp_path / 'net.safetensors')
    fresh.load_state_dict(load_file(tmp_path / 'net.safetensors'), strict=True)
    x = torch.rand(1, 3, 9, 12)
    assert torch.equal(fresh(x), trained(x))


@pytest.mark.parametrize('name', SR_ARCHS)
def test_initial_weights(name):
    torch.manual_seed(0)
    net = ARCH_REGISTRY.get(name)(upscale=4, depths=(2,), num_heads=(6,))
    for key, parameter in net.named_parameters():
        if re.search(r'mlp\.fc1\.weight|qkv\.weight|attn\.q\.weight|relative_position_bias_table', key):
            if parameter.numel() > 1000:
                assert parameter.std().item() == pytest.approx(0.02, rel=0.1), key
        elif re.search(r'(fc1|fc2|proj|qkv|spatial_linear|pos_proj)\.bias', key):
            assert not parameter.any(), key
