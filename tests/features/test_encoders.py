import json
import logging
from pathlib import Path

import numpy as np
import open_clip
import pytest
import skimage.data
import torch
from PIL import Image
from safetensors.torch import save_file
from support import run_cluster, run_extract

from basicsr_distill.config.sections.cluster import ClusterOptions
from basicsr_distill.config.sections.encoders import OpenClipEncoderOptions, TextureEncoderOptions
from basicsr_distill.config.sections.extract import ExtractOptions
from basicsr_distill.errors import InputError
from basicsr_distill.features import encoders
from basicsr_distill.features.encoders import build_encoder, encode_images
from basicsr_distill.io.images import write_png

TINY = {
    'embed_dim': 24,
    'vision_cfg': {'image_size': 32, 'layers': 2, 'width': 32, 'patch_size': 8, 'head_width': 16},
    'text_cfg': {'context_length': 8, 'vocab_size': 64, 'width': 16, 'heads': 2, 'layers': 1},
}


@pytest.fixture(scope='module')
def tiny_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small open_clip model with random weights, saved as open_clip saves models for the hub."""
    folder = tmp_path_factory.mktemp('tiny_clip')
    config = {
        'model_cfg': TINY,
        'preprocess_cfg': {'mean': [0.4, 0.5, 0.6], 'std': [0.2, 0.3, 0.25], 'interpolation': 'bicubic'},
    }
    (folder / 'open_clip_config.json').write_text(json.dumps(config))
    torch.manual_seed(0)
    model = open_clip.CLIP(embed_dim=24, vision_cfg=TINY['vision_cfg'], text_cfg=TINY['text_cfg'])
    save_file(
        {key: value.contiguous() for key, value in model.state_dict().items()}, folder / 'open_clip_model.safetensors'
    )
    return folder


@pytest.fixture(scope='module')
def patches() -> list[np.ndarray]:
    photos = (skimage.data.astronaut(), skimage.data.coffee(), skimage.data.chelsea(), skimage.data.rocket())
    return [photo[top : top + 96, left : left + 96] for photo in photos for top in (0, 150) for left in (10, 180)]


def test_features_equal_open_clips_own(tiny_clip: Path, patches: list[np.ndarray]) -> None:
    encoder = build_encoder(OpenClipEncoderOptions(name=f'local-dir:{tiny_clip}', batch_size=3))
    features = encode_images(encoder, patches)
    model, _, preprocess = open_clip.create_model_and_transforms(f'local-dir:{tiny_clip}')
    with torch.no_grad():
        expected = torch.cat([model.eval().encode_image(preprocess(Image.fromarray(rgb))[None]) for rgb in patches])
    assert features.dtype == np.float32
    assert features.shape == (16, 24)
    np.testing.assert_allclose(features, expected.numpy(), rtol=0, atol=1e-6)
    assert np.abs(np.linalg.norm(features, axis=1) - 1).min() > 1e-3, 'projected, not normalised'


def test_the_cluster_stage_stores_open_clips_features(
    tiny_clip: Path, patches: list[np.ndarray], tmp_path: Path
) -> None:
    for number, rgb in enumerate(patches):
        (tmp_path / 'photos').mkdir(exist_ok=True)
        write_png(tmp_path / 'photos' / f'{number:02d}.png', rgb)
    run_extract(
        ExtractOptions(
            dataroot=[str(tmp_path / 'photos')], save_dir=str(tmp_path / 'patches'), patch_size=96, threshold='q100'
        )
    )
    folder = run_cluster(
        ClusterOptions(
            save_dir=str(tmp_path / 'clusters'),
            num_clusters=4,
            encoder=OpenClipEncoderOptions(name=f'local-dir:{tiny_clip}', batch_size=5),
        ),
        tmp_path / 'patches',
    )
    model, _, preprocess = open_clip.create_model_and_transforms(f'local-dir:{tiny_clip}')
    with torch.no_grad():
        expected = model.eval().encode_image(torch.stack([preprocess(Image.fromarray(rgb)) for rgb in patches]))
    np.testing.assert_allclose(np.load(folder / 'features.npy'), expected.numpy(), rtol=0, atol=1e-6)


def test_weights_from_a_file(tiny_clip: Path, patches: list[np.ndarray], tmp_path: Path) -> None:
    (tmp_path / 'tiny.json').write_text(json.dumps(TINY))
    open_clip.add_model_config(tmp_path / 'tiny.json')
    weights = str(tiny_clip / 'open_clip_model.safetensors')
    features = encode_images(build_encoder(OpenClipEncoderOptions(name='tiny', pretrained=weights)), patches)
    model, _, preprocess = open_clip.create_model_and_transforms('tiny', pretrained=weights)
    with torch.no_grad():
        expected = model.eval().encode_image(torch.stack([preprocess(Image.fromarray(rgb)) for rgb in patches]))
    np.testing.assert_allclose(features, expected.numpy(), rtol=0, atol=1e-6)


def test_bf16_is_close_to_fp32(tiny_clip: Path, patches: list[np.ndarray]) -> None:
    name = f'local-dir:{tiny_clip}'
    full, half = (
        encode_images(build_encoder(OpenClipEncoderOptions(name=name, precision=precision)), patches)
        for precision in ('fp32', 'bf16')
    )
    assert (half != full).any()
    np.testing.assert_allclose(half, full, rtol=0, atol=0.05 * np.abs(full).max())


@pytest.mark.parametrize(('pretrained', 'quick'), [('openai', True), ('laion2b_s34b_b79k', False)])
def test_the_activation_is_the_one_the_weights_were_trained_with(
    monkeypatch: pytest.MonkeyPatch, pretrained: str, quick: bool
) -> None:
    asked: dict[str, object] = {}

    def record(*_: object, **options: object) -> tuple[torch.nn.Module, None, None]:
        asked.update(options)
        return torch.nn.Identity(), None, None

    monkeypatch.setattr(open_clip, 'create_model_and_transforms', record)
    build_encoder(OpenClipEncoderOptions(name='ViT-B-32', pretrained=pretrained))
    assert asked['force_quick_gelu'] is quick


@pytest.mark.parametrize(
    ('name', 'pretrained'),
    [('ViT-B-32', 'openai'), ('ViT-B-32', '/nowhere/weights.pt'), ('ViT-B-99', 'openai'), ('local-dir:/nowhere', None)],
)
def test_missing_weights_are_one_sentence_with_the_way_out(
    name: str, pretrained: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr('huggingface_hub.constants.HF_HUB_CACHE', str(tmp_path))
    monkeypatch.setattr('huggingface_hub.constants.HF_HUB_OFFLINE', True)
    with caplog.at_level(logging.DEBUG), pytest.raises(InputError) as raised:
        build_encoder(OpenClipEncoderOptions(name=name, pretrained=pretrained))
    assert 'encoder: {type: texture}' in str(raised.value)
    assert '\n' not in str(raised.value)
    assert not caplog.records
    assert logging.root.manager.disable == logging.NOTSET


class _Bomb:
    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (Path(self.path),)


def test_a_malicious_file_is_refused_and_not_run(tmp_path: Path) -> None:
    torch.save({'state_dict': _Bomb(str(tmp_path / 'ran'))}, tmp_path / 'weights.pt')
    with pytest.raises(InputError, match='cannot be loaded'):
        build_encoder(OpenClipEncoderOptions(pretrained=str(tmp_path / 'weights.pt')))
    assert not (tmp_path / 'ran').exists()


def test_random_weights_are_refused() -> None:
    with pytest.raises(InputError, match='random weights'):
        build_encoder(OpenClipEncoderOptions(pretrained=None))


# Texture


def texture(images: list[np.ndarray]) -> np.ndarray:
    return encode_images(build_encoder(TextureEncoderOptions()), images)


def test_texture_features_do_not_depend_on_the_batch(patches: list[np.ndarray]) -> None:
    batched = texture(patches)
    assert batched.dtype == np.float32
    np.testing.assert_array_equal(batched, np.concatenate([texture([rgb]) for rgb in patches]))


def test_texture_features_tell_photographs_apart(patches: list[np.ndarray]) -> None:
    features = texture(patches)
    gap = np.linalg.norm(features[:, None] - features[None], axis=2)
    np.fill_diagonal(gap, np.inf)
    # Half of the time the nearest of 15 patches is one of the 3 of the same photograph; chance is one in five.
    assert np.mean(gap.argmin(axis=1) // 4 == np.arange(16) // 4) >= 0.5


def test_gabor_energies_know_direction_and_scale() -> None:
    ramp = np.arange(128)
    stripes = {
        period: np.uint8(127 + 100 * np.sin(2 * np.pi * ramp / period))[None].repeat(128, axis=0) for period in (5, 20)
    }
    fine, coarse = (encoders._gabor_log_energies(stripes[period]).reshape(3, 4) for period in (5, 20))
    assert fine[0].argmax() == 0, 'vertical stripes answer to the horizontal wave'
    assert encoders._gabor_log_energies(stripes[5].T.copy()).reshape(3, 4)[0].argmax() == 2
    assert fine[:, 0].argmax() == 0
    assert coarse[:, 0].argmax() == 2


def test_histograms_are_square_roots_of_shares(astronaut: np.ndarray) -> None:
    patterns = encoders._pattern_histograms(astronaut[..., 0].copy())
    np.testing.assert_allclose(np.square(patterns).reshape(2, 10).sum(axis=1), 1)
    flat = np.full((32, 32, 3), 0.5, np.float32) * np.array([100, 0, 0], np.float32)
    colours = np.square(encoders._colour_histograms(flat)).reshape(3, 8)
    np.testing.assert_allclose(colours.sum(axis=1), 1)
    assert colours[0].argmax() == 4
    np.testing.assert_allclose(encoders._colour_statistics(flat), [0.5, 0, 0, 0, 0, 0])
