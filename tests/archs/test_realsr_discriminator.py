import pytest
import torch
from basicsr.archs import build_network
from torch.nn import functional as F

SHAPES = {
    'model.0.weight': (64, 3, 4, 4),
    'model.0.bias': (64,),
    'model.2.weight': (128, 64, 4, 4),
    'model.5.weight': (256, 128, 4, 4),
    'model.8.weight': (512, 256, 4, 4),
    'model.11.weight': (1, 512, 4, 4),
    'model.11.bias': (1,),
} | {
    f'model.{index}.{key}': shape
    for index, channels in ((3, 128), (6, 256), (9, 512))
    for key, shape in {
        'weight': (channels,),
        'bias': (channels,),
        'running_mean': (channels,),
        'running_var': (channels,),
        'num_batches_tracked': (),
    }.items()
}


def test_keys_and_shapes_are_those_of_official_checkpoints():
    net = build_network({'type': 'RealSRPatchDiscriminator'})
    assert {key: tuple(value.shape) for key, value in net.state_dict().items()} == SHAPES


def test_output_from_the_description():
    torch.manual_seed(0)
    net = build_network({'type': 'RealSRPatchDiscriminator', 'num_in_ch': 1, 'num_feat': 4}).eval()
    weights = dict(net.named_parameters()) | dict(net.named_buffers())
    for key in ('3', '6', '9'):
        weights[f'model.{key}.running_mean'].normal_()
        weights[f'model.{key}.running_var'].uniform_(0.5, 2)
    x = torch.rand(2, 1, 45, 32)
    t = F.leaky_relu(F.conv2d(x, weights['model.0.weight'], weights['model.0.bias'], stride=2, padding=1), 0.2)
    for conv, norm, stride in (('2', '3', 2), ('5', '6', 2), ('8', '9', 1)):
        t = F.conv2d(t, weights[f'model.{conv}.weight'], stride=stride, padding=1)
        mean, var, gain, bias = (
            weights[f'model.{norm}.{key}'].view(1, -1, 1, 1)
            for key in ('running_mean', 'running_var', 'weight', 'bias')
        )
        t = F.leaky_relu((t - mean) / (var + 1e-5).sqrt() * gain + bias, 0.2)
    expected = F.conv2d(t, weights['model.11.weight'], weights['model.11.bias'], padding=1)
    torch.testing.assert_close(net(x), expected)


@pytest.mark.parametrize('size_px', [(24, 24), (128, 128), (45, 33)])
def test_one_logit_per_patch(size_px):
    net = build_network({'type': 'RealSRPatchDiscriminator', 'num_feat': 4})
    assert net(torch.rand(2, 3, *size_px)).shape == (2, 1, size_px[0] // 8 - 2, size_px[1] // 8 - 2)


def test_a_logit_sees_70_pixels():
    net = build_network({'type': 'RealSRPatchDiscriminator', 'num_feat': 4}).eval()
    x = torch.rand(1, 3, 160, 160, requires_grad=True)
    net(x)[0, 0, 9, 9].backward()
    assert x.grad.abs().sum((0, 1, 2)).count_nonzero() == 70
