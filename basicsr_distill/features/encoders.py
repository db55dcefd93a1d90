"""Image encoders: what a patch shows, as a vector. CLIP where its weights are, else texture statistics."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from skimage.feature import local_binary_pattern
from torch import Tensor

from basicsr_distill.config.sections.encoders import OpenClipEncoderOptions, TextureEncoderOptions
from basicsr_distill.errors import InputError
from basicsr_distill.runtime.device import DTYPES

# The batch decides the last bits of a feature, so the texture encoder, which works image by image, may use any.
_TEXTURE_BATCH = 32


class Encoder(Protocol):
    """Anything that turns images into features.

    batch_size: images to give :meth:`encode` at once.
    """

    batch_size: int

    def prepare(self, rgb: NDArray[np.uint8]) -> Any:
        """The part of encoding that threads may do, image by image, (H, W, 3), uint8."""

    def encode(self, prepared: Sequence[Any]) -> NDArray[np.float32]:
        """Features of prepared images, (N, D), float32."""


def build_encoder(options: OpenClipEncoderOptions | TextureEncoderOptions) -> Encoder:
    """The encoder that options describe.

    Raises:
        InputError: its weights cannot be loaded.
    """
    return OpenClipEncoder(options) if isinstance(options, OpenClipEncoderOptions) else TextureEncoder()


def encode_images(encoder: Encoder, images: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
    """Features of images in memory.

    Args:
        encoder: of :func:`build_encoder`.
        images: (H, W, 3), uint8, RGB.

    Returns:
        (N, D), float32.
    """
    prepared = [encoder.prepare(image) for image in images]
    batches = range(0, len(prepared), encoder.batch_size)
    return np.concatenate([encoder.encode(prepared[first : first + encoder.batch_size]) for first in batches])


class OpenClipEncoder:
    """Image features of an open_clip model, projected and not normalised, after its own preprocessing."""

    def __init__(self, options: OpenClipEncoderOptions) -> None:
        self.batch_size = options.batch_size
        self._device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')
        precision = options.precision
        if precision == 'auto':
            precision = 'bf16' if self._device.type == 'cuda' else 'fp32'
        self._dtype = DTYPES[precision]
        self._model, self._preprocess = _load_open_clip(options, self._device)

    def prepare(self, rgb: NDArray[np.uint8]) -> Tensor:
        """Resize, crop and normalise as the model's own preprocessing does; (3, h, w), float32."""
        return self._preprocess(Image.fromarray(rgb))

    def encode(self, prepared: Sequence[Tensor]) -> NDArray[np.float32]:
        """Features of a batch, (N, D), float32; arithmetic in the chosen precision."""
        batch = torch.stack(list(prepared)).to(self._device)
        mixed = self._dtype != torch.float32
        with torch.inference_mode(), torch.autocast(self._device.type, self._dtype, enabled=mixed):
            return self._model.encode_image(batch).float().cpu().numpy()


def _load_open_clip(
    options: OpenClipEncoderOptions, device: torch.device
) -> tuple[Any, Callable[[Image.Image], Tensor]]:
    import open_clip

    has_own_weights = options.name.startswith(('local-dir:', 'hf-hub:'))
    if not has_own_weights and options.pretrained is None:
        raise InputError(
            f'cluster.encoder: {options.name} without pretrained has random weights; name a tag or a file.'
        )
    # Tags trained with QuickGELU only draw a warning from open_clip when the model has another activation, and the
    # features are then wrong; ViT-B-32 with the tag openai is such a pair.
    tag = {} if has_own_weights else open_clip.get_pretrained_cfg(options.name, options.pretrained) or {}
    try:
        with _quiet_logging():
            model, _, preprocess = open_clip.create_model_and_transforms(
                options.name,
                pretrained=None if has_own_weights else options.pretrained,
                device=device,
                force_quick_gelu=tag.get('quick_gelu', False),
            )
    except Exception as error:  # unknown names, missing files and every network fault have classes of their own
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise InputError(
            f'cluster.encoder: the weights of {options.name} ({options.pretrained}) cannot be loaded ({reason}); '
            'download them into the Hugging Face cache, or set pretrained to a local file or name to '
            'local-dir:FOLDER, or use encoder: {type: texture}, which needs none.'
        ) from error
    return model.eval(), preprocess


@contextmanager
def _quiet_logging() -> Iterator[None]:
    """open_clip and the hub client repeat on the log what their exception says."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)


class TextureEncoder:
    """Texture and colour statistics on fixed scales, needing no weights.

    Histograms of uniform local binary patterns at two octaves (Ojala et al., 2002), log-energies of Gabor filters at
    three octaves and four directions (Manjunath and Ma, 1996), and CIELAB means, spreads and histograms. Histograms
    enter as square roots, so that Euclidean distance is Hellinger's. The blocks are weighted to vary alike over
    photographs.
    """

    batch_size = _TEXTURE_BATCH

    def prepare(self, rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The features of one image, (D,), float32."""
        lab = cv2.cvtColor(rgb.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
        grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
        blocks = {
            'colour': _colour_statistics(lab),
            'colour_histogram': _colour_histograms(lab),
            'patterns': _pattern_histograms(grey),
            'energies': _gabor_log_energies(grey),
        }
        return np.concatenate([block * _BLOCK_WEIGHTS[name] for name, block in blocks.items()]).astype(np.float32)

    def encode(self, prepared: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
        """Stack the features, (N, D)."""
        return np.stack(list(prepared))


# One over the root of a block's total variance over patches of photographs.
_BLOCK_WEIGHTS = {'colour': 3.5, 'colour_histogram': 1.0, 'patterns': 4.7, 'energies': 0.8}


def _colour_statistics(lab: NDArray[np.float32]) -> NDArray[np.float64]:
    mean, spread = cv2.meanStdDev(lab)
    return np.concatenate([mean.ravel(), spread.ravel()]) / 100


def _colour_histograms(lab: NDArray[np.float32]) -> NDArray[np.float64]:
    ranges = ((0, 100), (-60, 60), (-60, 60))
    counts = [cv2.calcHist([lab], [channel], None, [8], list(limits)).ravel() for channel, limits in enumerate(ranges)]
    return np.sqrt(np.concatenate(counts) / lab[..., 0].size)


def _pattern_histograms(grey: NDArray[np.uint8], octaves: int = 2, points: int = 8) -> NDArray[np.float64]:
    histograms = []
    for _ in range(octaves):
        codes = local_binary_pattern(grey, points, 1, 'uniform').astype(np.int64)
        histograms.append(np.bincount(codes.ravel(), minlength=points + 2) / codes.size)
        grey = cv2.pyrDown(grey)
    return np.sqrt(np.concatenate(histograms))


def _gabor_log_energies(grey: NDArray[np.uint8], octaves: int = 3, directions: int = 4) -> NDArray[np.float64]:
    level = grey.astype(np.float32) / 255
    energies = []
    for _ in range(octaves):
        for direction in range(directions):
            kernel = cv2.getGaborKernel((9, 9), 2.0, np.pi * direction / directions, 5.0, 1.0)
            response = cv2.filter2D(level, cv2.CV_32F, kernel - kernel.mean())
            energies.append(np.log10(np.mean(np.square(response), dtype=np.float64) + 1e-6))
        level = cv2.pyrDown(level)
    return np.array(energies)
