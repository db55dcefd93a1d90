"""torchvision's ImageNet weights, which LPIPS and perceptual losses need: at hand before a run starts, or refused."""

from pathlib import Path
from urllib.parse import urlparse

import torch
from torchvision.models import get_model_weights

from basicsr_distill.errors import InputError

# Where BasicSR's option files keep weights, and where its perceptual loss looks first; relative to the working folder.
PRETRAINED_DIR = Path('experiments/pretrained_models')


def backbone_file(name: str) -> Path:
    """The weights of a torchvision network: in ``experiments/pretrained_models``, torch's cache, or downloaded there.

    Args:
        name: as torchvision spells it, such as ``vgg19`` or ``alexnet``.

    Raises:
        InputError: the weights are not here and cannot be downloaded; the message says where to put them.
    """
    url = get_model_weights(name)['IMAGENET1K_V1'].url
    file_name = Path(urlparse(url).path).name
    local = PRETRAINED_DIR / file_name
    cached = Path(torch.hub.get_dir(), 'checkpoints', file_name)
    for path in (local, cached):
        if path.is_file():
            return path
    try:
        cached.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(cached), hash_prefix=cached.stem.rpartition('-')[2])
    except (OSError, RuntimeError) as error:  # no network, or what came is not the file
        raise InputError(
            f'the weights of {name} are not here and cannot be downloaded ({error}); put {url} at {local.absolute()}'
        ) from error
    return cached
