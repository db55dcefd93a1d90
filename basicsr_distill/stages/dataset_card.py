"""README.md of a distilled set: what it is, how it was made, what may be done with it."""

from dataclasses import dataclass
from typing import Any

from basicsr_distill import __version__
from basicsr_distill.config.sections import BlockPcaCodecOptions, PrototypeInitOptions, SampleOptions


@dataclass(frozen=True)
class CardFacts:
    """What a card tells; its figures are quantiles.

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
    return f"""# {facts.name}: a distilled set for super-resolution

Made by basicsr-distill {__version__}: a diffusion model learned hard patches of photographs with minimax losses and drew
these images in their place.

![A row of images for every label](montage.png)

| | (three figures: 5 %, median, 95 %) |
|---|---|
{table}

## Use

`HR/` and `LR_bicubic/X{facts.scale}/` hold pairs of the same names, `meta_info.txt` lists them for BasicSR, and `manifest.csv`
says for every image its label, seed and start. In a BasicSR option file:

```yaml
datasets:
  train:
    type: DistilledPatchDataset
    dataroot_gt: <this folder>
```

`nearest.csv` and `nearest.png` show the real patch most like each image, by the encoder's features. An image much nearer to a
real patch than real patches are to each other is a copy; so is one whose `psnr_db` there, pixel against pixel, is over 25 dB.

## Licence

{_licence(facts)}
"""


def _quantiles(values: dict[str, float]) -> str:
    return ' / '.join(f'{values[key]:.3g}' for key in ('q05', 'median', 'q95'))


def _licence(facts: CardFacts) -> str:
    lines = []
    if facts.network.get('pretrained'):
        lines.append('- The published DiT weights are CC BY-NC 4.0: images made with them are for non-commercial use.')
    if isinstance(facts.options.init, PrototypeInitOptions):
        lines.append('- The images start from real patches and may be close to them: the terms of the photographs apply.')
    lines.append('- The terms of the photographs that the patches were cut from apply to what resembles them.')
    return '\n'.join(lines)
