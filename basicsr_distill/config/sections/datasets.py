"""Sections under ``datasets``."""

from typing import Literal

from pydantic import Field, field_validator

from basicsr_distill.config.registry import register
from basicsr_distill.config.sections.base import (
    Count,
    DataFolder,
    Fraction,
    FreeSection,
    HostOptions,
    NumberRange,
    Options,
    OutputFolder,
    PositiveInt,
    Source,
    Word,
)
from basicsr_distill.config.sections.codecs import CodecOptions


class LoaderOptions(Options):
    """What the data loader reads from any dataset section, a stock one's too."""

    batch_size_per_gpu: PositiveInt = Field(1, description='Samples of a batch on each GPU; a train set must give it.')
    num_worker_per_gpu: Count = Field(
        0, description='Processes that load data, for each GPU; 0 loads in the main process.'
    )
    dataset_enlarge_ratio: PositiveInt = Field(
        1, description='How often an epoch goes over the set; small sets need a large one.'
    )
    use_shuffle: bool = Field(True, description='Draw samples in random order; read by no dataset, kept for BasicSR.')
    prefetch_mode: Literal['cuda', 'cpu'] | None = Field(
        None, description='Load ahead: to the GPU, on the CPU, or not at all.'
    )
    num_prefetch_queue: PositiveInt = Field(1, description='Batches loaded ahead by prefetch_mode: cpu.')
    pin_memory: bool = Field(False, description='Page-locked memory for copies to the GPU.')
    persistent_workers: bool = Field(False, description='Keep the loading processes from one epoch to the next.')


class DatasetOptions(LoaderOptions):
    """The base of our datasets' own options."""

    name: Word = Field(description='Name of the set, in logs and of its folder of validation images.')
    type: Word = Field(description='Registered name of the dataset.')
    io_backend: FreeSection = Field(
        {'type': 'disk'}, description="BasicSR's way of reading files; ours reads from disk."
    )


class IoBackendOptions(HostOptions):
    """``io_backend`` of a dataset of BasicSR."""

    type: Literal['disk', 'lmdb', 'memcached'] = Field(description='Folders of files, an lmdb, or a memcached server.')
    readonly: bool = Field(True, description='Of lmdb.')
    lock: bool = Field(False, description='Of lmdb.')
    readahead: bool = Field(False, description='Of lmdb.')
    server_list_cfg: Word | None = Field(None, description='Of memcached: the list of its servers.')
    client_cfg: Word | None = Field(None, description='Of memcached: the configuration of the client.')
    sys_path: Word | None = Field(None, description='Of memcached: a folder for the search path of Python.')


class HostDatasetOptions(LoaderOptions, HostOptions):
    """What the sections of BasicSR's datasets of images have in common."""

    name: Word = Field(description='Name of the set, in logs and of its folder of validation images.')
    type: Word = Field(description='Registered name of the dataset.')
    io_backend: IoBackendOptions = Field(description='How files are read: {type: disk}, or {type: lmdb}.')
    task: Word | None = Field(None, description="Of HiT-SR's option files; unused.")
    gt_size: PositiveInt | None = Field(
        None, description='Side of the square HR crops for training, pixels; a multiple of scale.'
    )
    use_hflip: bool = Field(False, description='Flip training crops left to right at random; a train set must say.')
    use_rot: bool = Field(
        False, description='Turn training crops by multiples of 90 degrees at random; a train set must say.'
    )


class _NormalisedDatasetOptions(HostDatasetOptions):
    """Adds the normalisation."""

    mean: list[float] | None = Field(None, description='Subtracted from every channel, with std.')
    std: list[float] | None = Field(None, description='Every channel is divided by it, with mean.')


class PairedDatasetOptions(_NormalisedDatasetOptions):
    """Adds the two sides of pairs."""

    dataroot_gt: DataFolder = Field(description='Folder, or lmdb, of HR images.')
    dataroot_lq: DataFolder = Field(description='Folder, or lmdb, of their LR partners.')
    filename_tmpl: Word = Field('{}', description="Name of an LR image by its HR image's, without the suffix: '{}x4'.")

    @field_validator('filename_tmpl')
    @classmethod
    def _has_a_place(cls, template: str) -> str:
        if '{}' not in template:
            raise ValueError(f'{template!r} holds no {{}}, where the HR name goes')
        return template


@register('dataset')
class PairedImageDatasetOptions(PairedDatasetOptions):
    """BasicSR's HR images with LR partners."""

    type: Literal['PairedImageDataset'] = Field(description='HR images with LR partners.')
    meta_info_file: Source | None = Field(None, description='List of the HR images to use, a name a line.')
    color: Literal['y'] | None = Field(None, description='y: luma alone.')


@register('dataset')
class RealESRGANPairedDatasetOptions(PairedDatasetOptions):
    """Real-ESRGAN's HR images with LR partners."""

    type: Literal['RealESRGANPairedDataset'] = Field(description='HR images with LR partners, by a list of both.')
    meta_info: Source | None = Field(None, description='List of pairs: two paths a line, with a comma between them.')


@register('dataset')
class SingleImageDatasetOptions(_NormalisedDatasetOptions):
    """BasicSR's LR images without HR partners."""

    type: Literal['SingleImageDataset'] = Field(description='LR images without HR partners, to be super-resolved.')
    dataroot_lq: DataFolder = Field(description='Folder, or lmdb, of LR images.')
    meta_info_file: Source | None = Field(None, description='List of the LR images to use, a name a line.')
    color: Literal['y'] | None = Field(None, description='y: luma alone.')


@register('dataset')
class RealESRGANDatasetOptions(HostDatasetOptions):
    """Real-ESRGAN's HR images with random blur kernels, of which the model makes LR images."""

    type: Literal['RealESRGANDataset'] = Field(description='HR images with random blur kernels.')
    dataroot_gt: DataFolder = Field(description='Folder, or lmdb, of HR images.')
    meta_info: Source | None = Field(None, description='List of the HR images to use, a name a line; not for an lmdb.')
    blur_kernel_size: PositiveInt = Field(description='Largest side of the kernels of the first blur, pixels.')
    kernel_list: list[Word] = Field(description='Kinds of kernels of the first blur: iso, aniso, generalized_iso, ...')
    kernel_prob: list[Fraction] = Field(description='Probability of each kind of the first blur.')
    blur_sigma: NumberRange = Field(description='Standard deviation of the first blur, pixels: from, to.')
    betag_range: NumberRange = Field(
        description='Shape of the generalised Gaussian kernels of the first blur: from, to.'
    )
    betap_range: NumberRange = Field(description='Shape of the plateau kernels of the first blur: from, to.')
    sinc_prob: Fraction = Field(description='Probability of a sinc kernel in the first blur.')
    blur_kernel_size2: PositiveInt = Field(description='Largest side of the kernels of the second blur, pixels.')
    kernel_list2: list[Word] = Field(description='Kinds of kernels of the second blur.')
    kernel_prob2: list[Fraction] = Field(description='Probability of each kind of the second blur.')
    blur_sigma2: NumberRange = Field(description='Standard deviation of the second blur, pixels: from, to.')
    betag_range2: NumberRange = Field(description='As betag_range, of the second blur.')
    betap_range2: NumberRange = Field(description='As betap_range, of the second blur.')
    sinc_prob2: Fraction = Field(description='Probability of a sinc kernel in the second blur.')
    final_sinc_prob: Fraction = Field(description='Probability of a sinc kernel at the end.')


@register('dataset')
class DistilledPatchDatasetOptions(DatasetOptions):
    """PairedImageDataset's keys, and what a distilled set adds."""

    type: Literal['DistilledPatchDataset'] = Field('DistilledPatchDataset', description='HR images with LR partners.')
    dataroot_gt: DataFolder = Field(
        description='A distilled set, its HR folder, or any folder of HR images, searched recursively.'
    )
    dataroot_lq: DataFolder | None = Field(
        None, description='Folder of LR images; when absent, they are made from the HR images.'
    )
    meta_info_file: Source | None = Field(None, description='List of the HR images to use, a name a line.')
    meta_info: Source | None = Field(
        None, description="RealESRGANPairedDataset's list of pairs; may stay, for a distilled set brings its own."
    )
    task: Word | None = Field(None, description="Of HiT-SR's option files; unused.")
    filename_tmpl: Word = Field('{}', description="Name of an LR image by its HR image's, without the suffix: '{}x4'.")
    gt_size: PositiveInt | None = Field(
        None, description='Side of the square HR crops for training, pixels; a multiple of scale.'
    )
    use_hflip: bool = Field(False, description='Flip training crops left to right at random.')
    use_rot: bool = Field(False, description='Turn training crops by multiples of 90 degrees at random.')
    mean: list[float] | None = Field(None, description='Subtracted from every channel, with std.')
    std: list[float] | None = Field(None, description='Every channel is divided by it, with mean.')
    color: Literal['y'] | None = Field(None, description='y: luma alone.')
    num_images: PositiveInt | None = Field(
        None, description='At most so many images, taken evenly from the clusters, or from the list of a plain folder.'
    )
    labels: list[Count] | None = Field(None, description='Only images of these clusters.')
    cache: Literal['auto', 'ram', 'none'] = Field(
        'auto', description='Keep decoded images in memory: always (ram), never (none), or where the set takes little.'
    )


@register('dataset')
class LatentPatchDatasetOptions(DatasetOptions):
    """Patches as latents, encoded once."""

    type: Literal['LatentPatchDataset'] = Field(
        'LatentPatchDataset', description='Latents of patches with their labels.'
    )
    dataroot: DataFolder = Field(description='Folder of the extract stage.')
    labels_file: DataFolder = Field(description='labels.csv of the cluster stage.')
    codec: CodecOptions = Field(description='Between pixels and latents.')
    use_hflip: bool = Field(False, description='Also encode the mirror image of every patch, and draw from both.')
    latents_dir: OutputFolder | None = Field(
        None, description="Where the latents are kept; the experiment's folder latents when absent."
    )
    encode_batch_size: PositiveInt = Field(16, description='Images encoded at once.')
