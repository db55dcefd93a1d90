"""README.md of a distilled set: what it is, how it was made, what may be done with it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from huggingface_hub import DatasetCardData

from basicsr_distill import __version__
from basicsr_distill.config.sections import BlockPcaCodecOptions, PrototypeInitOptions, SampleOptions
from basicsr_distill.stages.licences import (
    NON_COMMERCIAL,
    UNKNOWN,
    Weights,
    codec_weights,
    denoiser_weights,
    encoder_weights,
)

_TAGS = ('super-resolution', 'dataset-distillation', 'image')
# The hub's names of sizes, and the first number of images that is too many for each.
_SIZES = (('n<1K', 1_000), ('1K<n<10K', 10_000), ('10K<n<100K', 100_000), ('100K<n<1M', 1_000_000), ('1M<n<10M', 10_000_000))


@dataclass(frozen=True)
class CardFacts:
    """What the card of a drawn set tells; its figures are quantiles.

    network, codec, encoder: the sections of the option file; an encoder of None was not recorded.
    psnr_db: after bicubic down and up, of the images.  nearest_patch: feature distance of an image to the real patch most
    like it.  coverage: feature distance of a real patch to the image most like it.  patches_*: the same of real patches,
    to each other, and to as many of them as there are images.
    """

    name: str
    num_images: int
    num_labels: int
    size_px: int
    scale: int
    metric: str
    options: SampleOptions
    network: dict[str, Any]
    codec: Any
    psnr_db: dict[str, float]
    patches_psnr_db: dict[str, float]
    nearest_patch: dict[str, float]
    patches_nearest_patch: dict[str, float]
    coverage: dict[str, float]
    patches_coverage: dict[str, float]
    encoder: Any = None


def dataset_card(facts: CardFacts) -> str:
    """The card as Markdown."""
    options = facts.options
    start = ('noised real patches (each label\'s prototypes), strength '
             f'{options.init.strength:g}' if isinstance(options.init, PrototypeInitOptions) else 'pure noise')
    band = 'no PSNR band' if options.psnr_band is None else 'PSNR band {:g}-{:g} of the patches'.format(*options.psnr_band)
    rows = {
        'images': f'{facts.num_images}, {facts.num_labels} labels',
        'HR size': f'{facts.size_px} x {facts.size_px} px, RGB PNG',
        'LR': f'MATLAB-compatible bicubic, x{facts.scale}',
        'denoiser': f'DiT, {facts.network.get("pretrained") or "trained from random weights"}',
        'codec': facts.codec.type if isinstance(facts.codec, BlockPcaCodecOptions) else facts.codec.pretrained,
        'start': start,
        'sampler': f'{options.scheduler}, {options.num_steps} steps, guidance {options.guidance_scale:g} '
                   f'in {options.guidance_interval[0]:g}-{options.guidance_interval[1]:g} of the noise range',
        'chosen': f'{options.images_per_cluster} per label of {options.oversample} times as many drawn '
                  f'({options.select}; {band})',
        'seed': str(options.seed),
        f'PSNR after bicubic ({facts.metric}), images': f'{_quantiles(facts.psnr_db)} dB',
        'the same, real patches': f'{_quantiles(facts.patches_psnr_db)} dB',
        'feature distance of an image to the nearest real patch': _quantiles(facts.nearest_patch),
        'the same, a real patch to the nearest other': _quantiles(facts.patches_nearest_patch),
        'feature distance of a real patch to the nearest image': _quantiles(facts.coverage),
        'the same, to as many real patches drawn at random': _quantiles(facts.patches_coverage),
    }
    table = '\n'.join(f'| {key} | {value} |' for key, value in rows.items())
    made_by = [denoiser_weights(facts.network), codec_weights(facts.codec)]
    weights = made_by if facts.encoder is None else [*made_by, encoder_weights(facts.encoder)]
    return f"""{front_matter(facts.name, facts.num_images, made_by)}
# {facts.name}: a distilled set for super-resolution

Made by basicsr-distill {__version__}: a diffusion model learned hard patches of photographs with minimax losses and drew
these images in their place.

![A row of images for every label](montage.png)

| | (three figures: 5 %, median, 95 %) |
|---|---|
{table}

## Use

`HR/` and `LR_bicubic/X{facts.scale}/` hold pairs of the same names, `meta_info.txt` lists them for BasicSR, and `manifest.csv`
says for every image its label, seed and start. With `datasets`, `load_dataset('imagefolder', data_dir=...)` of this folder gives
the pairs as `image` and `lr`. In a BasicSR option file:

```yaml
datasets:
  train:
    type: DistilledPatchDataset
    dataroot_gt: <this folder>
```

`num_images: N` there takes fewer images, evenly from the labels: parts of this set. {_other_sizes(options)}

`nearest.csv` and `nearest.png` show the real patch most like each image, by the encoder's features. An image much nearer to a
real patch than real patches are to each other is a copy; so is one whose `psnr_db` there, pixel against pixel, is over 25 dB.

## Licence

{licence_section(weights, starts_from_patches=isinstance(facts.options.init, PrototypeInitOptions))}
"""


def front_matter(name: str, num_images: int, made_by: Sequence[Weights]) -> str:
    """What machines read of a card, in YAML between two rules.

    Args:
        made_by: weights that the pixels went through. Their strictest known licence is the set's; without one it is
            unknown, as the terms of the photographs are.

    >>> print(front_matter('tiny', 6, []).splitlines()[1])
    license: unknown
    """
    licence = NON_COMMERCIAL if any(weights.licence == NON_COMMERCIAL for weights in made_by) else UNKNOWN
    size = next((size for size, too_many in _SIZES if num_images < too_many), 'n>10M')
    data = DatasetCardData(license=licence, task_categories=['image-to-image'], tags=list(_TAGS), size_categories=[size],
                           pretty_name=name)
    return f'---\n{data.to_yaml()}\n---\n'


def licence_section(weights: Sequence[Weights], starts_from_patches: bool) -> str:
    """Every source of a set with its licence, the photographs last.

    Args:
        weights: all that had a part in it.
        starts_from_patches: whether images are real patches, or began as some.
    """
    photos = 'The images start from real patches and may be close to them: their terms apply.' if starts_from_patches else (
        'Their terms apply to what resembles them.')
    return '\n'.join([*(part.line() for part in weights),
                      f'- Photographs that the patches were cut from: their terms are not known here. {photos}'])


def _other_sizes(options: SampleOptions) -> str:
    """Whether a set of another size shares images with this one."""
    if isinstance(options.init, PrototypeInitOptions):
        return ('A set drawn with another `images_per_cluster` starts from other prototypes and shares no image with this '
                'one.')
    return 'A set drawn with another `images_per_cluster` starts from the same noise.'


def _quantiles(values: dict[str, float]) -> str:
    return ' / '.join(f'{values[key]:.3g}' for key in ('q05', 'median', 'q95'))
