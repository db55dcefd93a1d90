"""Latents that are encoded once, whole or again, and drawn as the codec's distribution says."""

import os
import pickle

import cv2
import diffusers
import numpy as np
import pytest
import torch
from latent_recipe import dataset_section, make_stages
from safetensors.torch import load_file

from basicsr_distill.config.sections.codecs import BlockPcaCodecOptions
from basicsr_distill.data import latent_patch_dataset
from basicsr_distill.data.latent_patch_dataset import LatentPatchDataset
from basicsr_distill.diffusion.codec import build_codec
from basicsr_distill.errors import InputError


@pytest.fixture
def root(tmp_path):
    make_stages(tmp_path, count=12, num_labels=3)
    return tmp_path


def prepared(root, **more):
    dataset = LatentPatchDataset(dataset_section(root, **more))
    dataset.prepare()
    return dataset


def pixels_of(root, index):
    bgr = cv2.imread(str(root / 'patches' / 'images' / f'astronaut_{index:06d}.png'))
    return torch.from_numpy(bgr[..., ::-1].copy()).permute(2, 0, 1)[None].float() / 255


def test_items_are_latents_of_patches_and_of_their_mirror_images(root, monkeypatch):
    monkeypatch.setattr(latent_patch_dataset, 'SHARD_SIZE', 5)
    dataset = prepared(root, use_hflip=True)
    assert len(dataset) == 12
    codec = build_codec(BlockPcaCodecOptions(components=16), root / 'latents')
    for index in (0, 4, 5, 11):
        pixels = pixels_of(root, index)
        plain, mirrored = codec.encode(pixels)[0][0], codec.encode(pixels.flip(-1))[0][0]
        seen = set()
        for seed in range(12):
            torch.manual_seed(seed)
            item = dataset[index]
            which = 'plain' if torch.allclose(item['latent'], plain, atol=1e-5) else 'mirrored'
            torch.testing.assert_close(item['latent'], plain if which == 'plain' else mirrored, atol=1e-5, rtol=0)
            seen.add(which)
            assert item['label'] == index % 3
            assert item['noise'].shape == item['latent'].shape == (16, 4, 4)
            assert 0 <= item['time'] < 1 and 0 <= item['drop'] < 1
        assert seen == {'plain', 'mirrored'}


def test_items_follow_torchs_seed(root):
    dataset = prepared(root, use_hflip=True)
    items = []
    for _ in range(2):
        torch.manual_seed(7)
        items.append(dataset[3])
    assert all(torch.equal(torch.as_tensor(items[0][key]), torch.as_tensor(items[1][key])) for key in items[0])
    assert not torch.equal(dataset[3]['noise'], dataset[3]['noise'])


def test_a_variational_codec_is_sampled(root):
    torch.manual_seed(0)
    network = diffusers.AutoencoderKL(
        block_out_channels=(8, 8),
        down_block_types=['DownEncoderBlock2D'] * 2,
        up_block_types=['UpDecoderBlock2D'] * 2,
        norm_num_groups=4,
        latent_channels=4,
    )
    network.save_pretrained(root / 'vae')
    dataset = prepared(
        root, codec={'type': 'autoencoder_kl', 'pretrained': str(root / 'vae'), 'local_files_only': True}
    )
    with torch.no_grad():
        posterior = network.encode(pixels_of(root, 2) * 2 - 1).latent_dist
    draws = torch.stack([dataset[2]['latent'] for _ in range(400)])
    torch.testing.assert_close(draws.mean(0), posterior.mean[0] * 0.18215, atol=0.06, rtol=0)
    torch.testing.assert_close(draws.std(0), posterior.std[0] * 0.18215, atol=0.05, rtol=0)
    torch.testing.assert_close(dataset.latent_mean(2), posterior.mean[0] * 0.18215, atol=1e-5, rtol=1e-4)


def test_finished_work_is_kept_and_missing_work_done_again(root, monkeypatch):
    monkeypatch.setattr(latent_patch_dataset, 'SHARD_SIZE', 5)
    prepared(root)
    files = sorted((root / 'latents').rglob('*.*'))
    assert [path.name for path in files] == ['codec.safetensors', '00000.npy', '00001.npy', '00002.npy', 'latents.json']
    before = {path: path.read_bytes() for path in files}
    for path in files:
        os.utime(path, (1, 1))

    prepared(root)
    assert all(path.stat().st_mtime == 1 for path in files)

    # As after a kill between two files, or a file that was lost later.
    (root / 'latents' / 'train' / '00001.npy').rename(root / 'latents' / 'train' / '00001.npy.part')
    prepared(root)
    assert {path: path.read_bytes() for path in files} == before
    assert (root / 'latents' / 'train' / '00000.npy').stat().st_mtime == 1


def test_a_kill_before_the_record_fits_the_same_codec_again(root):
    prepared(root)
    codec = (root / 'latents' / 'codec.safetensors').read_bytes()
    for path in (root / 'latents' / 'train').iterdir():
        path.unlink()
    prepared(root)
    assert (root / 'latents' / 'codec.safetensors').read_bytes() == codec


@pytest.mark.parametrize(
    ('change', 'message'),
    [({'use_hflip': True}, 'another hflip'), ({'codec': {'type': 'block_pca', 'components': 8}}, 'another codec')],
)
def test_other_options_are_refused_over_old_latents(root, change, message):
    prepared(root)
    with pytest.raises(InputError, match=message):
        prepared(root, **change)


def test_a_validation_set_uses_the_codec_of_the_training_set(root, tmp_path):
    with pytest.raises(InputError, match='train first'):
        prepared(root, name='val', phase='val')
    prepared(root)
    codec = load_file(root / 'latents' / 'codec.safetensors')
    other = tmp_path / 'other'
    make_stages(other, count=3)
    val = prepared(other, name='val', phase='val', latents_dir=str(root / 'latents'))
    flat = (pixels_of(other, 1)[0, :, :8, :8].reshape(-1) - codec['mean']) @ codec['basis']
    np.testing.assert_allclose(val.latent_mean(1)[:, 0, 0], flat, atol=1e-5)


def test_a_full_disk_is_told_before_encoding(root, monkeypatch):
    usage = type('Usage', (), {'free': 1000})
    monkeypatch.setattr(latent_patch_dataset.shutil, 'disk_usage', lambda path: usage)
    with pytest.raises(InputError, match=r'the latents need \d+ MB, 0 MB are free'):
        prepared(root)
    assert not list((root / 'latents').rglob('*.npy'))


def test_workers_get_no_copy_of_the_latents(root):
    dataset = prepared(root)
    dataset.latent_mean(0)
    copy = pickle.loads(pickle.dumps(dataset))
    assert not copy._shards and torch.equal(copy.latent_mean(0), dataset.latent_mean(0))


def test_missing_inputs_are_named(root):
    labels = root / 'clusters' / 'labels.csv'
    lines = labels.read_text().splitlines()
    labels.write_text('\n'.join(lines[:-1]))
    with pytest.raises(InputError, match=r'labels\.csv: no label for astronaut_000011\.png'):
        LatentPatchDataset(dataset_section(root))
    labels.unlink()
    with pytest.raises(InputError, match='cluster stage first'):
        LatentPatchDataset(dataset_section(root))
    with pytest.raises(InputError, match="did you mean 'use_hflip'"):
        LatentPatchDataset(dataset_section(root, use_hflp=True))
    (root / 'patches' / 'manifest.csv').unlink()
    with pytest.raises(InputError, match=r'manifest\.csv'):
        LatentPatchDataset(dataset_section(root))


def test_patches_that_do_not_fit_the_codec_are_refused(root, tmp_path):
    make_stages(tmp_path / 'odd', size=30)
    with pytest.raises(InputError, match='multiple of 8'):
        prepared(tmp_path / 'odd')
