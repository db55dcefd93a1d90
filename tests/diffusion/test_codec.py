"""Codecs: ranges, factors, round trips, and the closed form against scikit-learn."""

import diffusers
import numpy as np
import pytest
import skimage.data
import torch
from sklearn.decomposition import PCA

from basicsr_distill.config.sections.codecs import (
    AutoencoderKlCodecOptions,
    AutoencoderTinyCodecOptions,
    BlockPcaCodecOptions,
)
from basicsr_distill.diffusion.block_pca import BlockPca
from basicsr_distill.diffusion.codec import FITTED_NAME, build_codec, save_fitted
from basicsr_distill.errors import InputError


@pytest.fixture(scope='module')
def patches():
    photo = torch.from_numpy(skimage.data.astronaut()).permute(2, 0, 1).float() / 255
    return photo.unfold(1, 128, 96).unfold(2, 128, 96).permute(1, 2, 0, 3, 4).reshape(-1, 3, 128, 128)


@pytest.fixture(scope='module')
def block_pca(patches):
    codec = BlockPca()
    codec.fit(lambda: patches.split(7))
    return codec


def blocks_of(patches):
    """(blocks, 192) pixels, channels first, by slicing."""
    return np.stack(
        [
            patch[:, y : y + 8, x : x + 8].reshape(-1)
            for patch in patches.numpy()
            for y in range(0, 128, 8)
            for x in range(0, 128, 8)
        ]
    )


def psnr_db(a, b):
    return float(-10 * (a - b).square().mean().log10())


def test_block_pca_latents_equal_scikit_learn_up_to_scale_and_sign(patches, block_pca):
    latents, std = block_pca.encode(patches)
    assert latents.shape == (len(patches), *block_pca.latent_shape(128)) == (25, 32, 16, 16)
    assert not std.any()
    assert float(latents.square().mean()) == pytest.approx(1, rel=1e-3)
    reference = PCA(32, svd_solver='full').fit(blocks_of(patches))
    expected = reference.transform(blocks_of(patches)) / np.sqrt(reference.singular_values_ / np.sqrt(25 * 256 - 1))
    flat = latents.permute(0, 2, 3, 1).reshape(-1, 32).numpy()
    for component in range(8):
        correlation = np.corrcoef(flat[:, component], expected[:, component])[0, 1]
        assert abs(correlation) == pytest.approx(1, abs=1e-4)
    scales = flat.std(0)[:8] / expected.std(0)[:8]
    np.testing.assert_allclose(scales, scales[0], rtol=1e-3)


def test_whitening_sets_the_spread_of_the_components(patches):
    for whitening, expected in ((1.0, 1.0), (0.0, None)):
        codec = BlockPca(whitening=whitening)
        codec.fit(lambda: [patches])
        spread = codec.encode(patches)[0].std((0, 2, 3))
        if expected:
            np.testing.assert_allclose(spread, expected, rtol=2e-2)
        else:
            assert spread[0] > 10 * spread[-1]


@pytest.mark.parametrize('whitening', [0.5, 1.0])
def test_components_without_variance_are_zero(patches, whitening):
    """Grey images have none of colour; rounding must not be enlarged to some."""
    grey = patches.mean(1, keepdim=True).expand(-1, 3, -1, -1)
    for rounding in (0, 1e-7):
        codec = BlockPca(block_px=2, components=12, whitening=whitening)
        codec.fit(lambda: [grey + rounding * torch.randn(grey.shape, generator=torch.Generator().manual_seed(0))])  # noqa: B023
        latents = codec.encode(grey)[0]
        assert not latents[:, 4:].any() and float(latents.square().mean()) == pytest.approx(1, rel=1e-3)
        assert psnr_db(codec.decode(latents), grey) > 40


def test_flat_images_are_their_mean():
    flat = torch.full((4, 3, 8, 8), 0.3)
    codec = BlockPca(block_px=2, components=12)
    codec.fit(lambda: [flat])
    latents = codec.encode(flat)[0]
    assert not latents.any()
    torch.testing.assert_close(codec.decode(latents), flat)


def test_decoding_beats_the_plain_inverse_and_follows_its_definition(patches, block_pca):
    latents, _ = block_pca.encode(patches)
    decoded = block_pca.decode(latents)
    basis = block_pca.basis.double()
    inverse = torch.linalg.pinv(basis.T) @ latents.flatten(2).double() + block_pca.mean.double()[:, None]
    plain = torch.nn.functional.fold(inverse.float(), 128, 8, stride=8).clamp(0, 1)
    assert psnr_db(decoded, patches) > psnr_db(plain, patches) + 0.4 > 29
    # One block, by hand: latents of the 3 x 3 blocks around it times the synthesis matrix.
    around = latents[3, :, 4:7, 8:11].reshape(-1)
    block = (around @ block_pca.synthesis + block_pca.mean).reshape(3, 8, 8).clamp(0, 1)
    torch.testing.assert_close(decoded[3, :, 40:48, 72:80], block, rtol=0, atol=1e-5)
    assert decoded.min() >= 0 and decoded.max() <= 1


def test_fit_does_not_depend_on_batches_and_survives_saving(patches, block_pca, tmp_path):
    other = BlockPca()
    other.fit(lambda: [patches])
    torch.testing.assert_close(other.basis, block_pca.basis, rtol=1e-4, atol=1e-6)
    save_fitted(block_pca, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [FITTED_NAME]
    loaded = build_codec(BlockPcaCodecOptions(), tmp_path)
    assert torch.equal(loaded.encode(patches)[0], block_pca.encode(patches)[0])


def test_an_unfitted_codec_is_refused(tmp_path):
    with pytest.raises(InputError, match='train first'):
        build_codec(BlockPcaCodecOptions(), tmp_path)


def test_sizes_that_do_not_fit_are_refused(block_pca):
    with pytest.raises(ValueError, match='multiple of 8'):
        block_pca.latent_shape(100)
    with pytest.raises(ValueError, match='192'):
        BlockPca(components=193)


@pytest.fixture(scope='module')
def autoencoder_kl(tmp_path_factory):
    torch.manual_seed(0)
    network = diffusers.AutoencoderKL(
        block_out_channels=(8, 8, 8, 8),
        down_block_types=['DownEncoderBlock2D'] * 4,
        up_block_types=['UpDecoderBlock2D'] * 4,
        norm_num_groups=4,
        latent_channels=4,
    )
    folder = tmp_path_factory.mktemp('kl')
    network.save_pretrained(folder / 'vae')
    return folder, network


def test_autoencoder_kl_is_diffusers_with_its_factor_and_range(autoencoder_kl):
    folder, network = autoencoder_kl
    codec = build_codec(AutoencoderKlCodecOptions(pretrained=str(folder), subfolder='vae', local_files_only=True))
    pixels = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        mean, std = codec.encode(pixels)
        posterior = network.encode(pixels * 2 - 1).latent_dist
        torch.testing.assert_close(mean, posterior.mean * 0.18215)
        torch.testing.assert_close(std, posterior.std * 0.18215)
        expected = (network.decode(mean / 0.18215).sample / 2 + 0.5).clamp(0, 1)
        torch.testing.assert_close(codec.decode(mean), expected)
    assert mean.shape[1:] == codec.latent_shape(64) == (4, 8, 8)
    assert not any(parameter.requires_grad for parameter in codec.network.parameters())


def test_autoencoder_tiny_is_diffusers_with_its_range(tmp_path):
    torch.manual_seed(0)
    network = diffusers.AutoencoderTiny(
        encoder_block_out_channels=(8, 8, 8, 8),
        decoder_block_out_channels=(8, 8, 8, 8),
        num_encoder_blocks=(1, 1, 1, 1),
        num_decoder_blocks=(1, 1, 1, 1),
    )
    network.save_pretrained(tmp_path)
    codec = build_codec(AutoencoderTinyCodecOptions(pretrained=str(tmp_path), local_files_only=True))
    pixels = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        mean, std = codec.encode(pixels)
        torch.testing.assert_close(mean, network.encode(pixels * 2 - 1).latents)
        torch.testing.assert_close(codec.decode(mean), (network.decode(mean).sample / 2 + 0.5).clamp(0, 1))
    assert not std.any() and mean.shape[1:] == codec.latent_shape(32)


def test_decoding_is_differentiable(block_pca):
    latents = (torch.randn(1, 32, 4, 4) * 0.1).requires_grad_()
    block_pca.decode(latents).sum().backward()
    assert latents.grad.abs().sum() > 0


def test_missing_weights_are_named(tmp_path):
    with pytest.raises(InputError, match='AutoencoderKL could be loaded'):
        build_codec(AutoencoderKlCodecOptions(pretrained=str(tmp_path / 'none'), local_files_only=True))
