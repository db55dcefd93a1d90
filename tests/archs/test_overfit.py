"""Every SR network learns: shrunk, it beats bicubic by far on the patches that it is trained on."""

import numpy as np
import pytest
import torch
from basicsr.archs import build_network
from basicsr.utils.matlab_functions import imresize
from torch import Tensor
from torch.nn import functional as F

SCALE = 4
TRANSFORMER = {'embed_dim': 60, 'depths': [2, 2], 'num_heads': [6, 6]}
WINDOWS = {'window_size': 8, 'img_size': 16, 'drop_path_rate': 0.0, 'upsampler': 'pixelshuffledirect'}
HIT = {**TRANSFORMER, 'hier_win_ratios': [0.5, 2]}
RRDB = {'num_in_ch': 3, 'num_out_ch': 3, 'num_feat': 64, 'num_block': 1, 'num_grow_ch': 16}
RESIDUAL = {'num_in_ch': 3, 'num_out_ch': 3, 'num_feat': 32, 'rgb_mean': [0.4488, 0.4371, 0.4040], 'img_range': 1.0}
NETWORKS = {
    'SRFormer': {**TRANSFORMER, **WINDOWS},
    'HiT_SIR': HIT,
    'HiT_SNG': HIT,
    'HiT_SRF': HIT,
    'EDSR': {**RESIDUAL, 'num_block': 4},
    'RCAN': {**RESIDUAL, 'num_group': 2, 'num_block': 2, 'squeeze_factor': 8},
    'RRDBNet': RRDB,
    'SwinIR': {**TRANSFORMER, **WINDOWS, 'mlp_ratio': 2},
}


def psnr_db(image: Tensor, target: Tensor) -> float:
    return -10 * (image.clamp(0, 1) - target).square().mean().log10().item()


@pytest.fixture(scope='module')
def patches(astronaut) -> tuple[Tensor, Tensor]:
    """Two textured 64 px patches and their LR images."""
    image = astronaut.astype(np.float32) / 255
    hr = [image[64:128, left : left + 64] for left in (160, 224)]
    lr = [imresize(patch, 1 / SCALE) for patch in hr]
    hr_images, lr_images = (torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous() for images in (hr, lr))
    return hr_images, lr_images


@pytest.mark.slow
@pytest.mark.parametrize('name', NETWORKS)
def test_beats_bicubic_by_one_db_on_its_training_patches(name, patches):
    hr, lr = patches
    bicubic = torch.stack([imresize(image, SCALE) for image in lr])
    torch.manual_seed(0)
    scale = {} if name == 'RRDBNet' else {'upscale': SCALE}
    net = build_network({'type': name, **scale, **NETWORKS[name]})
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3, betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=3e-3, total_steps=300)
    for _ in range(300):
        optimizer.zero_grad()
        F.l1_loss(net(lr), hr).backward()
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        gain_db = psnr_db(net.eval()(lr), hr) - psnr_db(bicubic, hr)
    print(f'{name}: {gain_db:+.2f} dB over bicubic')
    assert gain_db >= 1
