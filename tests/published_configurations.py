"""What published training configurations set, as facts (hyperparameters, paths, keys); tests write files of them.

Sources: BasicSR 1.4.2 (options/train), Real-ESRGAN, SRFormer and HiT-SR (their own option folders).
"""

from copy import deepcopy
from typing import Any

import yaml

Facts = dict[str, Any]


class _Dumper(yaml.SafeDumper):
    """Writes floats as published files do: ``!!float 1e-4``."""


_Dumper.add_representer(float, lambda dumper, value: dumper.represent_scalar('tag:yaml.org,2002:float', f'{value:g}'))


def yaml_text(name: str) -> str:
    """The option file of a name, with keys in the order in which such files have them."""
    text = yaml.dump(CONFIGURATIONS[name], Dumper=_Dumper, sort_keys=False, default_flow_style=False)
    # One line of SRFormer's files is indented wrongly.
    return text.replace('    name: DIV2K\n', ' name: DIV2K\n', 1) if 'SRFormer' in name else text


def _pairs(
    kind: str, gt: str, lq: str, batch: int, crop: int, workers: int = 6, enlarge: int = 1, **more: Any
) -> Facts:
    """A training set; ``more`` goes behind the folders and before what follows them everywhere."""
    return {
        'name': 'DIV2K',
        'type': kind,
        'dataroot_gt': gt,
        'dataroot_lq': lq,
        **more,
        'io_backend': {'type': 'disk'},
        'gt_size': crop,
        'use_hflip': True,
        'use_rot': True,
        'num_worker_per_gpu': workers,
        'batch_size_per_gpu': batch,
        'dataset_enlarge_ratio': enlarge,
        'prefetch_mode': None,
    }


def _test_set(gt: str, lq: str, name: str = 'Set5', **more: Any) -> Facts:
    return {
        'name': name,
        'type': 'PairedImageDataset',
        'dataroot_gt': gt,
        'dataroot_lq': lq,
        **more,
        'io_backend': {'type': 'disk'},
    }


def _adam(rate: float) -> Facts:
    return {'type': 'Adam', 'lr': rate, 'weight_decay': 0, 'betas': [0.9, 0.99]}


def _training(rate: float, total: int, milestones: list[int], pixel: float = 1.0, **more: Any) -> Facts:
    return {
        'optim_g': _adam(rate),
        'scheduler': {'type': 'MultiStepLR', 'milestones': milestones, 'gamma': 0.5},
        'total_iter': total,
        'warmup_iter': -1,
        'pixel_opt': {'type': 'L1Loss', 'loss_weight': pixel, 'reduction': 'mean'},
        **more,
    }


def _adversarial(layers: Facts, weight: float) -> Facts:
    return {
        'optim_d': _adam(1e-4),
        'perceptual_opt': {
            'type': 'PerceptualLoss',
            'layer_weights': layers,
            'vgg_type': 'vgg19',
            'use_input_norm': True,
            'range_norm': False,
            'perceptual_weight': 1.0,
            'style_weight': 0,
            'criterion': 'l1',
        },
        'gan_opt': {
            'type': 'GANLoss',
            'gan_type': 'vanilla',
            'real_label_val': 1.0,
            'fake_label_val': 0.0,
            'loss_weight': weight,
        },
        'net_d_iters': 1,
        'net_d_init_iters': 0,
    }


def _validation(crop: int, luma: bool, ssim: bool = False, save: bool = False) -> Facts:
    measures = ('psnr', 'ssim') if ssim else ('psnr',)
    return {
        'val_freq': 5e3,
        'save_img': save,
        'metrics': {
            name: {'type': f'calculate_{name}', 'crop_border': crop, 'test_y_channel': luma} for name in measures
        },
    }


def _rest(print_freq: int = 100, port: int = 29500) -> Facts:
    return {
        'logger': {
            'print_freq': print_freq,
            'save_checkpoint_freq': 5e3,
            'use_tb_logger': True,
            'wandb': {'project': None, 'resume_id': None},
        },
        'dist_params': {'backend': 'nccl', 'port': port},
    }


def _start(path: str | None = None, strict: bool = True, **more: Any) -> Facts:
    return {'pretrain_network_g': path, 'strict_load_g': strict, **more, 'resume_state': None}


_DIV2K = 'datasets/DIV2K/DIV2K_train'
_RGB = {'img_range': 255.0, 'rgb_mean': [0.4488, 0.4371, 0.4040]}
_RRDB = {'type': 'RRDBNet', 'num_in_ch': 3, 'num_out_ch': 3, 'num_feat': 64, 'num_block': 23}
_LONG = [250000, 400000, 450000, 475000]
_VGG = {'conv1_2': 0.1, 'conv2_2': 0.1, 'conv3_4': 1, 'conv4_4': 1, 'conv5_4': 1}


def _transformer(kind: str, width: int, blocks: int, patch: int, upsampler: str, **more: Any) -> Facts:
    return {
        'type': kind,
        'upscale': 4,
        'in_chans': 3,
        'img_size': patch,
        'img_range': 1.0,
        'depths': [6] * blocks,
        'embed_dim': width,
        'num_heads': [6] * blocks,
        'upsampler': upsampler,
        'resi_connection': '1conv',
        **more,
    }


def _srformer(model_type: str, network: Facts, batch: int, crop: int) -> Facts:
    return {
        'name': 'train_SRFormer_SRx4_scratch',
        'model_type': model_type,
        'scale': 4,
        'num_gpu': 4,
        'manual_seed': 0,
        'datasets': {
            'train': {
                **_pairs(
                    'PairedImageDataset', f'{_DIV2K}_HR', f'{_DIV2K}_LR_bicubic/X4', batch, crop, 8, filename_tmpl='{}'
                ),
                'use_shuffle': True,
            },
            'val_1': _test_set('./datasets/Set5/HR/x4', './datasets/Set5/LR/LRBI/x4'),
        },
        'network_g': network,
        'print_network': False,
        'path': _start(),
        'train': _training(2e-4, 500000, _LONG),
        'val': _validation(4, luma=True, ssim=True),
        **_rest(port=28500),
    }


def _realesrgan(name: str, num_gpu: int | str, train_set: Facts, path: Facts, **more: Any) -> Facts:
    shared = {
        'io_backend': {'type': 'disk'},
        'gt_size': 256,
        'use_hflip': True,
        'use_rot': False,
        'use_shuffle': True,
        'num_worker_per_gpu': 5,
        'batch_size_per_gpu': 12,
        'dataset_enlarge_ratio': 1,
        'prefetch_mode': None,
    }
    return {
        'name': name,
        'model_type': 'RealESRGANModel',
        'scale': 4,
        'num_gpu': num_gpu,
        'manual_seed': 0,
        'l1_gt_usm': True,
        'percep_gt_usm': True,
        'gan_gt_usm': False,
        **more,
        'datasets': {'train': {**train_set, **shared}},
        'network_g': {**_RRDB, 'num_grow_ch': 32},
        'network_d': {'type': 'UNetDiscriminatorSN', 'num_in_ch': 3, 'num_feat': 64, 'skip_connection': True},
        'path': path,
        'train': {'ema_decay': 0.999, **_training(1e-4, 400000, [400000], **_adversarial(_VGG, 0.1))},
        **_rest(),
    }


def _degradations(stage: str, resize: list[float], widths: list[float], noise: int, poisson: float) -> Facts:
    """Of one of Real-ESRGAN's two rounds; the second's keys end in 2."""
    return {
        f'{key}{stage}': value
        for key, value in {
            'resize_prob': resize,
            'resize_range': widths,
            'gaussian_noise_prob': 0.5,
            'noise_range': [1, noise],
            'poisson_scale_range': [0.05, poisson],
            'gray_noise_prob': 0.4,
            'jpeg_range': [30, 95],
        }.items()
    }


def _kernels(stage: str, sigma: list[float]) -> Facts:
    kinds = ['iso', 'aniso', 'generalized_iso', 'generalized_aniso', 'plateau_iso', 'plateau_aniso']
    return {
        f'{key}{stage}': value
        for key, value in {
            'blur_kernel_size': 21,
            'kernel_list': kinds,
            'kernel_prob': [0.45, 0.25, 0.12, 0.03, 0.12, 0.03],
            'sinc_prob': 0.1,
            'blur_sigma': sigma,
            'betag_range': [0.5, 4],
            'betap_range': [1, 2],
        }.items()
    }


def _basicsr(
    name: str,
    train_set: Facts,
    network: Facts,
    path: Facts,
    train: Facts,
    val: Facts,
    seed: int = 0,
    scale: int = 4,
    num_gpu: int | str = 1,
    model_type: str = 'SRModel',
    test: str = 'Set5',
    **more: Any,
) -> Facts:
    return {
        'name': name,
        'model_type': model_type,
        'scale': scale,
        'num_gpu': num_gpu,
        'manual_seed': seed,
        'datasets': {
            'train': train_set,
            'val': _test_set(f'datasets/{test}/GTmod12', f'datasets/{test}/LRbicx{scale}', test),
        },
        'network_g': network,
        **more,
        'path': path,
        'train': {'ema_decay': 0.999, **train},
        'val': val,
        **_rest(),
    }


def _div2k(scale: int, crop: int) -> Facts:
    return _pairs(
        'PairedImageDataset',
        f'{_DIV2K}_HR_sub',
        f'{_DIV2K}_LR_bicubic/X{scale}_sub',
        16,
        crop,
        enlarge=100,
        filename_tmpl='{}',
    )


CONFIGURATIONS: dict[str, Facts] = deepcopy(
    {
        'train_EDSR_Mx4.yml': _basicsr(
            '203_EDSR_Mx4_f64b16_DIV2K_300k_B16G1_201pretrain_wandb',
            _div2k(4, 192),
            {
                'type': 'EDSR',
                'num_in_ch': 3,
                'num_out_ch': 3,
                'num_feat': 64,
                'num_block': 16,
                'upscale': 4,
                'res_scale': 1,
                **_RGB,
            },
            _start('experiments/201_EDSR_Mx2_f64b16_DIV2K_300k_B16G1_wandb/models/net_g_300000.pth', strict=False),
            _training(1e-4, 300000, [200000]),
            _validation(4, luma=False),
            seed=10,
        ),
        'train_RCAN_x2.yml': _basicsr(
            '201_RCANx2_scratch_DIV2K_rand0',
            _div2k(2, 96),
            {
                'type': 'RCAN',
                'num_in_ch': 3,
                'num_out_ch': 3,
                'num_feat': 64,
                'num_group': 10,
                'num_block': 20,
                'squeeze_factor': 16,
                'upscale': 4,
                'res_scale': 1,
                **_RGB,
            },
            _start(),
            _training(1e-4, 300000, [200000]),
            _validation(2, luma=False),
            seed=10,
            scale=2,
        ),
        'train_SwinIR_SRx4_scratch.yml': _basicsr(
            'train_SwinIR_SRx4_scratch_P48W8_DIV2K_500k_B4G8',
            _pairs(
                'PairedImageDataset',
                'datasets/DF2K/DIV2K_train_HR_sub',
                'datasets/DF2K/DIV2K_train_LR_bicubic_X4_sub',
                4,
                192,
                meta_info_file='basicsr/data/meta_info/meta_info_DIV2K800sub_GT.txt',
                filename_tmpl='{}',
            ),
            _transformer('SwinIR', 180, 6, 48, 'pixelshuffle', window_size=8, mlp_ratio=2),
            _start(),
            _training(2e-4, 500000, _LONG),
            _validation(4, luma=False),
            num_gpu='auto',
            model_type='SwinIRModel',
        ),
        'train_ESRGAN_x4.yml': _basicsr(
            '052_ESRGAN_x4_f64b23_DIV2K_400k_B16G1_051pretrain_wandb',
            _div2k(4, 128),
            _RRDB,
            _start('experiments/051_RRDBNet_PSNR_x4_f64b23_DIV2K_1000k_B16G1_wandb/models/net_g_1000000.pth'),
            _training(1e-4, 400000, [50000, 100000, 200000, 300000], 1e-2, **_adversarial({'conv5_4': 1}, 5e-3)),
            _validation(4, luma=False, save=True),
            model_type='ESRGANModel',
            test='Set14',
            network_d={'type': 'VGGStyleDiscriminator', 'num_in_ch': 3, 'num_feat': 64},
        ),
        'train_realesrgan_x4plus.yml': _realesrgan(
            'train_RealESRGANx4plus_400k_B12G4_fromRealESRNet',
            4,
            {
                'name': 'DF2K+OST',
                'type': 'RealESRGANDataset',
                'dataroot_gt': 'datasets/DF2K',
                'meta_info': 'datasets/DF2K/meta_info/meta_info_DF2Kmultiscale+OST_sub.txt',
                **_kernels('', [0.2, 3]),
                **_kernels('2', [0.2, 1.5]),
                'final_sinc_prob': 0.8,
            },
            _start('experiments/pretrained_models/RealESRNet_x4plus.pth', param_key_g='params_ema'),
            **_degradations('', [0.2, 0.7, 0.1], [0.15, 1.5], 30, 3),
            second_blur_prob=0.8,
            **_degradations('2', [0.3, 0.4, 0.3], [0.3, 1.2], 25, 2.5),
            gt_size=256,
            queue_size=180,
        ),
        'finetune_realesrgan_x4plus_pairdata.yml': _realesrgan(
            'finetune_RealESRGANx4plus_400k_pairdata',
            'auto',
            {
                'name': 'DIV2K',
                'type': 'RealESRGANPairedDataset',
                'dataroot_gt': 'datasets/DF2K',
                'dataroot_lq': 'datasets/DF2K',
                'meta_info': 'datasets/DF2K/meta_info/meta_info_DIV2K_sub_pair.txt',
            },
            _start(
                'experiments/pretrained_models/RealESRNet_x4plus.pth',
                param_key_g='params_ema',
                param_key_d='params',
                pretrain_network_d='experiments/pretrained_models/RealESRGAN_x4plus_netD.pth',
                strict_load_d=True,
            ),
            high_order_degradation=False,
        ),
        'train_SRFormer_light_SRx4_scratch.yml': _srformer(
            'SRModel', _transformer('SRFormer', 60, 4, 64, 'pixelshuffledirect', window_size=16, mlp_ratio=2), 16, 256
        ),
        'train_SRFormer_SRx4_scratch.yml': _srformer(
            'SwinIRModel', _transformer('SRFormer', 180, 6, 48, 'pixelshuffle', window_size=24, mlp_ratio=2), 8, 192
        ),
        'train_HiT_SRF_x4.yml': {
            'name': 'HiT_SRF_x4',
            'model_type': 'HITModel',
            'scale': 4,
            'num_gpu': 'auto',
            'manual_seed': 1226,
            'datasets': {
                'train': {
                    'task': 'SR',
                    'use_shuffle': True,
                    **_pairs(
                        'PairedImageDataset',
                        'datasets/DIV2K/HR',
                        'datasets/DIV2K/LR_bicubic/X4',
                        16,
                        256,
                        2,
                        filename_tmpl='{}x4',
                    ),
                },
                'val': {
                    'task': 'SR',
                    **_test_set(
                        'datasets/benchmark/Set5/HR', 'datasets/benchmark/Set5/LR_bicubic/X4', filename_tmpl='{}x4'
                    ),
                },
            },
            'network_g': _transformer(
                'HiT_SRF',
                60,
                4,
                64,
                'pixelshuffledirect',
                base_win_size=[8, 8],
                expansion_factor=2,
                hier_win_ratios=[0.5, 1, 2, 4, 6, 8],
            ),
            'path': _start('experiments/pretrained_models/HiT-SRF-2x.pth', strict=False),
            'train': _training(5e-4, 500000, _LONG),
            'val': _validation(4, luma=True, ssim=True),
            **_rest(print_freq=200),
        },
    }
)
