"""``calculate_lpips`` against the ``lpips`` package with the same weights, and what happens without weights."""

import urllib.error
from pathlib import Path
from typing import Any

import cv2
import lpips
import numpy as np
import pytest
import torch
from basicsr.metrics import calculate_metric
from numpy.typing import NDArray
from support import keys_of, save_rgb

from basicsr_distill.config.sections.validation import LpipsMetricOptions
from basicsr_distill.errors import InputError
from basicsr_distill.features.backbones import backbone_file
from basicsr_distill.metrics.lpips_metric import calculate_lpips, load_lpips

BACKBONES = {'alex': 'alexnet', 'squeeze': 'squeezenet1_1'}


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A working folder and a torch cache without weights, and no network."""

    def refuse(*args: object, **kwargs: object) -> None:
        raise urllib.error.URLError('no network')

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'torch'))
    monkeypatch.setattr(torch.hub, 'download_url_to_file', refuse)
    load_lpips.cache_clear()


def random_lpips(net: str) -> lpips.LPIPS:
    torch.manual_seed(3)
    return lpips.LPIPS(net=net, pnet_rand=True, verbose=False)


def torchvision_weights(reference: lpips.LPIPS, classes: bool = True) -> dict[str, torch.Tensor]:
    """The backbone of an LPIPS network under torchvision's names."""
    weights = {f'features.{name.split(".", 1)[1]}': value for name, value in reference.net.state_dict().items()}
    return {**weights, 'classifier.1.weight': torch.zeros(2, 2)} if classes else weights


def lpips_of(img: NDArray[Any], img2: NDArray[Any], crop_border: int, **given: Any) -> float:
    return calculate_lpips(img, img2, **keys_of(LpipsMetricOptions, crop_border=crop_border, **given))


def pair(image: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """A photograph and itself after bicubic x4, BGR."""
    hr = np.ascontiguousarray(image[80:208, 100:260, ::-1])
    return hr, cv2.resize(
        cv2.resize(hr, (40, 32), interpolation=cv2.INTER_AREA), (160, 128), interpolation=cv2.INTER_CUBIC
    )


def by_the_package(
    reference: lpips.LPIPS, tmp_path: Path, first: NDArray[np.uint8], second: NDArray[np.uint8]
) -> float:
    """The package's own way from PNG files to a distance."""
    tensors = [
        lpips.im2tensor(lpips.load_image(str(save_rgb(tmp_path / name, image[..., ::-1]))))
        for name, image in (('a.png', first), ('b.png', second))
    ]
    with torch.no_grad():
        return float(reference(*tensors))


@pytest.mark.parametrize('net', ['alex', 'squeeze'])
@pytest.mark.parametrize('kind', ['backbone', 'whole'])
def test_equal_to_the_package_on_real_pairs(
    net: str, kind: str, tmp_path: Path, astronaut: NDArray[np.uint8], chelsea: NDArray[np.uint8]
) -> None:
    reference = random_lpips(net)
    weights = torchvision_weights(reference) if kind == 'backbone' else reference.state_dict()
    torch.save(weights, tmp_path / 'weights.pth')
    for image in (astronaut, chelsea):
        hr, blurred = pair(image)
        value = calculate_metric(
            {'img': blurred, 'img2': hr},
            LpipsMetricOptions(net=net, crop_border=4, weights=str(tmp_path / 'weights.pth')).model_dump(),
        )
        expected = by_the_package(reference, tmp_path, blurred[4:-4, 4:-4], hr[4:-4, 4:-4])
        assert value == pytest.approx(expected, rel=1e-5)
        assert value > 1e-3


def test_layouts_of_images(tmp_path: Path, astronaut: NDArray[np.uint8]) -> None:
    torch.save(random_lpips('alex').state_dict(), tmp_path / 'weights.pth')
    weights = str(tmp_path / 'weights.pth')
    hr, blurred = pair(astronaut)
    value = lpips_of(blurred, hr, 0, weights=weights)
    assert lpips_of(hr, hr, 0, weights=weights) == 0
    assert lpips_of(blurred.transpose(2, 0, 1), hr.transpose(2, 0, 1), 0, input_order='CHW', weights=weights) == value
    assert lpips_of(blurred.astype(np.float64), hr.astype(np.float64), 0, weights=weights) == pytest.approx(value)
    grey, grey_blurred = hr[..., 0], blurred[..., 0]
    replicated = (np.repeat(image[..., None], 3, axis=2) for image in (grey_blurred, grey))
    assert lpips_of(grey_blurred, grey, 0, weights=weights) == lpips_of(*replicated, 0, weights=weights)
    # Channel order matters to the backbone.
    assert lpips_of(blurred[..., ::-1], hr[..., ::-1], 0, weights=weights) != pytest.approx(value, rel=1e-3)


def test_found_where_basicsr_keeps_weights(tmp_path: Path, astronaut: NDArray[np.uint8]) -> None:
    folder = tmp_path / 'experiments' / 'pretrained_models'
    folder.mkdir(parents=True)
    torch.save(torchvision_weights(random_lpips('alex')), folder / 'alexnet-owt-7be5be79.pth')
    hr, blurred = pair(astronaut)
    expected = by_the_package(random_lpips('alex'), tmp_path, blurred, hr)
    assert lpips_of(blurred, hr, 0) == pytest.approx(expected, rel=1e-5)


def test_found_in_torchs_cache(tmp_path: Path) -> None:
    cached = tmp_path / 'torch' / 'hub' / 'checkpoints' / 'vgg19-dcbb9e9d.pth'
    cached.parent.mkdir(parents=True)
    cached.write_bytes(b'weights')
    assert backbone_file('vgg19') == cached


@pytest.mark.parametrize(
    ('name', 'file_name'),
    [
        ('vgg19', 'vgg19-dcbb9e9d.pth'),
        ('vgg16', 'vgg16-397923af.pth'),
        ('alexnet', 'alexnet-owt-7be5be79.pth'),
        ('squeezenet1_1', 'squeezenet1_1-b8a52dc0.pth'),
    ],
)
def test_missing_weights_are_answered_with_the_place_for_them(tmp_path: Path, name: str, file_name: str) -> None:
    with pytest.raises(InputError, match='no network') as error:
        backbone_file(name)
    place = tmp_path / 'experiments' / 'pretrained_models' / file_name
    assert f'put https://download.pytorch.org/models/{file_name} at {place}' in str(error.value)


def test_downloaded_weights_are_checked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    calls = []
    monkeypatch.setattr(torch.hub, 'download_url_to_file', lambda *args, **kwargs: calls.append((args, kwargs)))
    path = backbone_file('alexnet')
    assert calls == [
        (('https://download.pytorch.org/models/alexnet-owt-7be5be79.pth', str(path)), {'hash_prefix': '7be5be79'})
    ]
    assert path == tmp_path / 'torch' / 'hub' / 'checkpoints' / 'alexnet-owt-7be5be79.pth' and path.parent.is_dir()


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    torch.save(torchvision_weights(random_lpips('squeeze')), tmp_path / 'squeeze.pth')
    torch.save(random_lpips('squeeze').state_dict(), tmp_path / 'whole.pth')
    for name in ('squeeze.pth', 'whole.pth'):
        with pytest.raises(InputError, match=f'{name}: not the weights of alexnet'):
            load_lpips('alex', str(tmp_path / name))


def test_tiny_images_are_refused(tmp_path: Path) -> None:
    torch.save(random_lpips('alex').state_dict(), tmp_path / 'weights.pth')
    image = np.zeros((40, 39, 3), np.uint8)
    assert lpips_of(image, image, 3, weights=str(tmp_path / 'weights.pth')) == 0
    with pytest.raises(InputError, match='31x32 after cropping are too small'):
        lpips_of(image, image, 4, weights=str(tmp_path / 'weights.pth'))
