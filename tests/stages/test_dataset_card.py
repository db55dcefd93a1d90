"""What a card says of its sources: the truth by where they come from, and unknown where nobody said."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from basicsr_distill.config.sections.base import bind
from basicsr_distill.config.sections.codecs import (
    AutoencoderKlCodecOptions,
    AutoencoderTinyCodecOptions,
    BlockPcaCodecOptions,
)
from basicsr_distill.config.sections.encoders import OpenClipEncoderOptions, TextureEncoderOptions
from basicsr_distill.config.sections.sample import SampleOptions
from basicsr_distill.io.manifest import write_json
from basicsr_distill.stages.dataset_card import CardFacts, dataset_card

QUANTILES = {'q05': 1.0, 'median': 2.0, 'q95': 3.0}


def card(network: dict[str, Any], codec: Any = None, encoder: Any = None, num_images: int = 6, **sample: Any) -> str:
    options = bind(SampleOptions, {'save_dir': 'set', 'images_per_cluster': 3, **sample}, 'sample')
    return dataset_card(
        CardFacts(
            name='tiny',
            num_images=num_images,
            num_labels=2,
            size_px=32,
            scale=4,
            metric='matlab_rgb',
            options=options,
            network=network,
            codec=codec or BlockPcaCodecOptions(),
            encoder=encoder,
            psnr_db=QUANTILES,
            patches_psnr_db=QUANTILES,
            nearest_patch=QUANTILES,
            patches_nearest_patch=QUANTILES,
            coverage=QUANTILES,
            patches_coverage=QUANTILES,
        )
    )


def front(text: str) -> dict[str, Any]:
    start, matter, _ = text.split('---\n', 2)
    assert start == ''
    return yaml.safe_load(matter)


def licence_lines(text: str) -> list[str]:
    return text.split('## Licence')[1].strip().splitlines()


@pytest.mark.parametrize(
    ('pretrained', 'licence', 'words'),
    [
        (
            'facebook/DiT-XL-2-256',
            'cc-by-nc-4.0',
            'facebook/DiT-XL-2-256, CC BY-NC 4.0; images made with it are for non-commercial',
        ),
        ('facebook/DiT-XL-2-512', 'cc-by-nc-4.0', 'CC BY-NC 4.0'),
        ('weights/DiT-XL-2-256x256.pt', 'cc-by-nc-4.0', 'weights/DiT-XL-2-256x256.pt, CC BY-NC 4.0'),
        ('someone/other-DiT', 'unknown', 'someone/other-DiT. Its licence is not known here'),
        ('own', 'unknown', 'own. Its licence is not known here'),  # a folder without a note
        ('export', 'cc-by-nc-4.0', 'facebook/DiT-XL-2-256, CC BY-NC 4.0'),  # of ours, made from those
        ('export_of_random', 'unknown', 'no published weights'),
        (None, 'unknown', 'no published weights'),
    ],
)
def test_the_denoiser_s_licence_is_that_of_its_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pretrained: str | None, licence: str, words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, origin in (('export', 'facebook/DiT-XL-2-256'), ('export_of_random', None)):
        Path(name).mkdir()
        write_json(Path(name, 'origin.json'), {'made_by': 'basicsr-distill', 'pretrained': origin})
    Path('own').mkdir()
    text = card({'pretrained': pretrained} if pretrained else {'from_scratch': {}})
    assert front(text)['license'] == licence
    assert licence_lines(text)[0].startswith('- Denoiser: ') and words in licence_lines(text)[0]


@pytest.mark.parametrize(
    ('codec', 'words'),
    [
        (AutoencoderKlCodecOptions(), 'Codec: stabilityai/sd-vae-ft-mse, MIT.'),
        (AutoencoderTinyCodecOptions(), 'Codec: madebyollin/taesd, MIT.'),
        (AutoencoderKlCodecOptions(pretrained='someone/vae'), 'Codec: someone/vae. Its licence is not known here'),
        (BlockPcaCodecOptions(), 'Codec: no published weights'),
    ],
)
def test_the_codec_is_named(codec: Any, words: str) -> None:
    assert words in licence_lines(card({}, codec))[1]


@pytest.mark.parametrize(
    ('encoder', 'words'),
    [
        (OpenClipEncoderOptions(), 'Encoder: open_clip ViT-B-32, openai, MIT.'),
        (OpenClipEncoderOptions(pretrained='laion2b_s34b_b79k'), 'laion2b_s34b_b79k, MIT.'),
        (OpenClipEncoderOptions(pretrained='metaclip_400m'), 'Its licence is not known here'),
        (
            OpenClipEncoderOptions(name='local-dir:clip', pretrained=None),
            'open_clip local-dir:clip. Its licence is not known',
        ),
        (TextureEncoderOptions(), 'Encoder: no published weights'),
    ],
)
def test_the_encoder_is_named(encoder: Any, words: str) -> None:
    assert words in licence_lines(card({}, encoder=encoder))[2]


def test_a_known_licence_of_the_encoder_alone_is_not_the_set_s(tmp_path: Path) -> None:
    text = card({}, AutoencoderKlCodecOptions(), OpenClipEncoderOptions())
    assert front(text)['license'] == 'unknown'
    assert licence_lines(text)[3] == (
        '- Photographs that the patches were cut from: their terms are not known here. '
        'Their terms apply to what resembles them.'
    )
    started = licence_lines(card({}, init={'type': 'prototype', 'strength': 0.3}))
    assert 'start from real patches' in started[-1]


@pytest.mark.parametrize(
    ('num_images', 'size'), [(999, 'n<1K'), (1000, '1K<n<10K'), (99_999, '10K<n<100K'), (10**8, 'n>10M')]
)
def test_the_front_matter_is_what_the_hub_reads(num_images: int, size: str) -> None:
    matter = front(card({}, num_images=num_images))
    assert matter['size_categories'] == [size] and matter['task_categories'] == ['image-to-image']
    assert 'super-resolution' in matter['tags'] and matter['pretty_name'] == 'tiny'
