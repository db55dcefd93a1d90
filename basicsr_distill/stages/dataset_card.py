"""README.md of a distilled set: what it is, how it was made, what may be done with it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from huggingface_hub import DatasetCardData

from basicsr_distill import __version__
from basicsr_distill.config.sections.codecs import BlockPcaCodecOptions
from basicsr_distill.config.sections.sample import PrototypeInitOptions, SampleOptions
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
_SIZES = (
    ('n<1K', 1_000),
    ('1K<n<10K', 10_000),
    ('10K<n<100K', 100_000),
    ('100K<n<1M', 1_000_000),
    ('1M<n<10M', 10_000_000),
)
# 5 %, median and 95 % of a figure.
Quantiles = Mapping[str, float]


@dataclass(frozen=True)
class CardFacts:
    """What the card of a drawn set says; its figures are quantiles."""

    name: str
    num_images: int
    num_labels: int
    size_px: int
    scale: int
    metric: str
    options: SampleOptions
    network: dict[str, Any]  # section of the option file
    codec: Any  # section of the option file
    psnr_db: dict[str, float]  # after bicubic down and up, of the images
    patches_psnr_db: dict[str, float]  # the same of the real patches
    nearest_patch: dict[str, float]  # feature distance of an image to the real patch most like it
    patches_nearest_patch: dict[str, float]  # of a real patch to the other most like it
    coverage: dict[str, float]  # feature distance of a real patch to the image most like it
    patches_coverage: dict[str, float]  # of a real patch to as many real patches as there are images
    encoder: Any = None  # section of the option file; None where it was not recorded


_LIKENESS = (
    "`nearest.csv` and `nearest.png` show the real patch most like each image, by the encoder's features. An "
    'image much nearer to a\nreal patch than real patches are to each other is a copy; so is one whose '
    '`psnr_db` there, pixel against pixel, is over 25 dB.'
)


def dataset_card(facts: CardFacts) -> str:
    """The card of a drawn set, as Markdown."""
    made_by = [denoiser_weights(facts.network), codec_weights(facts.codec)]
    weights = made_by if facts.encoder is None else [*made_by, encoder_weights(facts.encoder)]
    return render_card(
        facts.name,
        facts.num_images,
        facts.scale,
        made_by,
        title='a distilled set for super-resolution',
        introduction='a diffusion model learned hard patches of photographs with minimax losses and drew\n'
        'these images in their place.',
        rows=_rows(facts),
        other_sizes=_other_sizes(facts.options),
        likeness=_LIKENESS,
        licence=licence_section(weights, _about_photos(facts.options)),
    )


def gsdd_card(facts: CardFacts, generator: Weights) -> str:
    """The card of a set of GSDD, as Markdown."""
    weights = [generator] if facts.encoder is None else [generator, encoder_weights(facts.encoder)]
    rows = {
        'images': f'{facts.num_images}, {facts.num_labels} labels',
        'HR size': f'{facts.size_px} x {facts.size_px} px, RGB PNG',
        'LR': f'MATLAB-compatible bicubic, x{facts.scale}',
        'generator': generator.name or 'none: bicubic interpolation of the latents',
        'start': 'LR images of real patches of each label',
        **psnr_figures(facts.metric, facts.psnr_db, facts.patches_psnr_db),
        **coverage_figures(facts.nearest_patch, facts.patches_nearest_patch, facts.coverage, facts.patches_coverage),
    }
    return render_card(
        facts.name,
        facts.num_images,
        facts.scale,
        [generator],
        title='a distilled set for super-resolution (GSDD)',
        introduction='latents behind a frozen SR generator were trained until their images matched real\n'
        'patches on average.',
        rows=rows,
        other_sizes='A set of another size is another training.',
        likeness=_LIKENESS,
        licence=licence_section(
            weights, 'The images start from real patches and may be close to them: their terms apply.'
        ),
    )


def _rows(facts: CardFacts) -> dict[str, str]:
    """The table of the card."""
    options = facts.options
    start, band = 'pure noise', 'no PSNR band'
    if isinstance(options.init, PrototypeInitOptions):
        start = f"noised real patches (each label's prototypes), strength {options.init.strength:g}"
    if options.psnr_band is not None:
        band = 'PSNR band {:g}-{:g} of the patches'.format(*options.psnr_band)
    return {
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
        **_steering(options),
        **psnr_figures(facts.metric, facts.psnr_db, facts.patches_psnr_db),
        **coverage_figures(facts.nearest_patch, facts.patches_nearest_patch, facts.coverage, facts.patches_coverage),
    }


def _steering(options: SampleOptions) -> dict[str, str]:
    """Rows of what is not done by default."""
    rows = {}
    if options.mode_guidance is not None:
        guidance = options.mode_guidance
        along = ', along the data' if guidance.manifold else ''
        until = f'stops at {guidance.stop:g} of the noise'
        rows['mode guidance'] = f'{guidance.modes}{along}, scale {guidance.scale:g}, {until}'
    if options.clip_x0 is not None:
        rows['clipping'] = f'clean latents within the {options.clip_x0:g} quantiles of real ones'
    if options.refine is not None:
        rows['refined'] = f'{options.refine.steps} steps from strength {options.refine.strength:g}'
    if options.targets is not None and options.targets.type != 'hr':
        mixed = 'mean of the images and of' if options.targets.type == 'mix' else 'in place of the images,'
        rows['HR'] = f'{mixed} what the SR network of {options.targets.weights} makes of their LR images'
    return rows


def psnr_figures(metric: str, psnr_db: Quantiles, patches_psnr_db: Quantiles) -> dict[str, str]:
    """Rows of a card's table: how hard the images and the patches are."""
    return {
        f'PSNR after bicubic ({metric}), images': f'{_three(psnr_db)} dB',
        'the same, real patches': f'{_three(patches_psnr_db)} dB',
    }


def coverage_figures(
    nearest_patch: Quantiles,
    patches_nearest_patch: Quantiles,
    coverage: Quantiles,
    patches_coverage: Quantiles,
    encoder: str = '',
) -> dict[str, str]:
    """Rows of a card's table: how near images and patches are to each other; ``encoder`` by which features."""
    distance = f'{encoder} feature distance'.strip()
    of = f', {encoder}' if encoder else ''
    return {
        f'{distance} of an image to the nearest real patch': _three(nearest_patch),
        f'the same, a real patch to the nearest other{of}': _three(patches_nearest_patch),
        f'{distance} of a real patch to the nearest image': _three(coverage),
        f'the same, to as many real patches drawn at random{of}': _three(patches_coverage),
    }


# Long: most of it is the page as it reads.
def render_card(
    name: str,
    num_images: int,
    scale: int,
    made_by: Sequence[Weights],
    *,
    title: str,
    introduction: str,
    rows: Mapping[str, str],
    other_sizes: str,
    likeness: str,
    licence: str,
) -> str:
    """Return the card of any set as Markdown.

    Args:
        name: of the set.
        num_images: images in it.
        scale: factor between HR and LR images.
        made_by: weights that the pixels went through.
        title: what the set is, in a few words.
        introduction: how the images came about, after "Made by basicsr-distill 0.1.0: ".
        rows: of the table.
        other_sizes: whether a set of another size shares images with this one.
        likeness: how near the images are to real patches.
        licence: of :func:`licence_section`.
    """
    table = '\n'.join(f'| {key} | {value} |' for key, value in rows.items())
    return f"""{front_matter(name, num_images, made_by)}
# {name}: {title}

Made by basicsr-distill {__version__}: {introduction}

![A row of images for every label](montage.png)

| | (three figures: 5 %, median, 95 %) |
|---|---|
{table}

## Use

`HR/` and `LR_bicubic/X{scale}/` hold pairs of the same names, `meta_info.txt` lists them for BasicSR, and
`manifest.csv` says for every image its label and where it comes from. With `datasets`,
`load_dataset('imagefolder', data_dir=...)` of this folder gives the pairs as `image` and `lr`. In a BasicSR option
file:

```yaml
datasets:
  train:
    type: DistilledPatchDataset
    dataroot_gt: <this folder>
```

`num_images: N` there takes fewer images, evenly from the labels: parts of this set. {other_sizes}

{likeness}

## Licence

{licence}
"""


def front_matter(name: str, num_images: int, made_by: Sequence[Weights]) -> str:
    """Return what machines read of a card, in YAML between two rules.

    Args:
        name: of the set.
        num_images: images in it.
        made_by: weights that the pixels went through. Their strictest known licence is the set's; without one it is
            unknown, as the terms of the photographs are.

    >>> print(front_matter('tiny', 6, []).splitlines()[1])
    license: unknown
    """
    licence = NON_COMMERCIAL if any(weights.licence == NON_COMMERCIAL for weights in made_by) else UNKNOWN
    size = next((size for size, too_many in _SIZES if num_images < too_many), 'n>10M')
    data = DatasetCardData(
        license=licence, task_categories=['image-to-image'], tags=list(_TAGS), size_categories=[size], pretty_name=name
    )
    return f'---\n{data.to_yaml()}\n---\n'


def licence_section(weights: Sequence[Weights], photos: str) -> str:
    """Every source of a set with its licence, the photographs last.

    Args:
        weights: all that had a part in it.
        photos: a sentence about the terms of the photographs.
    """
    return '\n'.join(
        [
            *(part.line() for part in weights),
            f'- Photographs that the patches were cut from: their terms are not known here. {photos}',
        ]
    )


def _about_photos(options: SampleOptions) -> str:
    if isinstance(options.init, PrototypeInitOptions):
        return 'The images start from real patches and may be close to them: their terms apply.'
    return 'Their terms apply to what resembles them.'


def _other_sizes(options: SampleOptions) -> str:
    """Say whether a set of another size shares images with this one."""
    if isinstance(options.init, PrototypeInitOptions):
        return (
            'A set drawn with another `images_per_cluster` starts from other prototypes and shares no image with '
            'this one.'
        )
    return 'A set drawn with another `images_per_cluster` starts from the same noise.'


def _three(values: Quantiles) -> str:
    return ' / '.join(f'{values[key]:.3g}' for key in ('q05', 'median', 'q95'))
