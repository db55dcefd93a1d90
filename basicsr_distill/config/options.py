"""Option files: safe YAML in, frozen and checked options out.

BasicSR reads its option files with an unsafe loader; here nothing but plain data comes out of a file. Sections of our own
are bound to the models below, where an unknown key is an error that names the nearest known one; the sections of
stock BasicSR components pass untouched.
"""

import difflib
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    NonNegativeFloat,
    PositiveFloat,
    ValidationError,
    field_validator,
    model_validator,
)

from basicsr_distill.errors import InputError

MAX_FILE_BYTES = 1 << 20
MAX_DEPTH = 32
MAX_NODES = 100_000


class _Loader(getattr(yaml, 'CSafeLoader', yaml.SafeLoader)):  # type: ignore[misc]
    """PyYAML's safe loader with duplicate keys refused and 1e-4 read as a float."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:  # as written: a merged key (<<) may be given again, which replaces it
            if key_node.tag == 'tag:yaml.org,2002:merge':
                continue
            key = self.construct_object(key_node)
            if not isinstance(key, (str, int)):
                raise yaml.constructor.ConstructorError(None, None, f'key {key!r} is not a word', key_node.start_mark)
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f'key {key!r} occurs twice', key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


# YAML 1.1 as PyYAML reads it takes 1e-4 for a string; every learning rate is written so.
_Loader.add_implicit_resolver(
    'tag:yaml.org,2002:float', re.compile(r'^[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)[eE][-+]?[0-9]+$'), list('-+.0123456789'))


def _check_depth(text: str) -> None:
    """Refuse deep nesting from the flat stream of events: composing nodes recurses, in C without a guard."""
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise yaml.constructor.ConstructorError(
                None, None, 'it is nested too deeply', event.start_mark)  # type: ignore[arg-type]


def _check_expansion(node: yaml.Node | None, sizes: dict[int, int], depth: int = 0) -> int:
    """Nodes that ``node`` stands for once its aliases are written out; refuses bombs before anything is built."""
    if node is None:
        return 0
    if depth > MAX_DEPTH:
        raise yaml.constructor.ConstructorError(None, None, 'it is nested too deeply', node.start_mark)
    if id(node) not in sizes:
        children: list[yaml.Node] = []
        if isinstance(node, yaml.MappingNode):
            children = [child for pair in node.value for child in pair]
        elif isinstance(node, yaml.SequenceNode):
            children = node.value
        sizes[id(node)] = 1 + sum(_check_expansion(child, sizes, depth + 1) for child in children)
    if sizes[id(node)] > MAX_NODES:
        raise yaml.constructor.ConstructorError(None, None, 'its aliases expand to too much', node.start_mark)
    return sizes[id(node)]


def parse_yaml(text: str, origin: str) -> Any:
    """Plain data from YAML text.

    Raises:
        InputError: malformed, tagged, nested too deeply, too large, or with a key given twice; names ``origin`` and line.
    """
    try:
        _check_depth(text)
    except yaml.YAMLError as error:
        raise _explained(error, origin) from None
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        _check_expansion(node, {})
        return None if node is None else loader.construct_document(node)
    except yaml.YAMLError as error:
        raise _explained(error, origin) from None
    except ValueError as error:
        raise InputError(f'{origin}: {error}.') from None
    finally:
        loader.dispose()


def _explained(error: yaml.YAMLError, origin: str) -> InputError:
    mark = getattr(error, 'problem_mark', None)
    line = f', line {mark.line + 1}' if mark else ''
    problem = getattr(error, 'problem', None) or str(error).splitlines()[0]
    if 'could not determine a constructor' in problem:
        problem = f'{problem.split(" for ")[-1]} is not allowed, only plain values are'
    return InputError(f'{origin}{line}: {problem}.')


def load_option_file(path: Path) -> dict[str, Any]:
    """Read an option file.

    Raises:
        InputError: unreadable, not UTF-8, over 1 MiB, not a mapping, or refused by :func:`parse_yaml`.
    """
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise InputError(f'{path}: larger than 1 MiB; this is not an option file.')
        text = path.read_text(encoding='utf-8')
    except OSError as error:
        raise InputError(f'{path}: cannot be read ({error.strerror}); give the path of an option file.') from error
    except UnicodeDecodeError:
        raise InputError(f'{path}: not a text file in UTF-8.') from None
    options = parse_yaml(text, str(path))
    if not isinstance(options, dict):
        raise InputError(f'{path}: holds no options; it must be a mapping of keys to values.')
    return options


class Options(BaseModel):
    """Base of every section: frozen, and unknown keys are errors."""

    model_config = ConfigDict(extra='forbid', frozen=True, protected_namespaces=())


Section = TypeVar('Section', bound=Options)


def bind(section: type[Section], values: Any, where: str) -> Section:
    """Check ``values`` against a section's model.

    Args:
        where: how messages name the place, such as ``options/distill/demo.yml: extract``.

    Raises:
        InputError: for the first thing that is wrong; an unknown key is answered with the nearest known one.
    """
    if not isinstance(values, dict):
        raise InputError(f'{where}: must be a mapping of keys to values.')
    try:
        return section.model_validate(values)
    except ValidationError as error:
        # An unknown key comes first: a misspelt one often causes the other complaints.
        first = min(error.errors(), key=lambda item: item['type'] != 'extra_forbidden')
        place = [str(part) for part in first['loc']]
        if first['type'] == 'extra_forbidden':
            known = _keys_at(section, place[:-1])
            raise InputError(f'{where}: unknown key {".".join(place)!r}; '
                             f'did you mean {nearest_name(place[-1], known)!r}?') from None
        message = first['msg'].removeprefix('Value error, ')
        raise InputError(f'{where}: {".".join(place) or "section"}: {message[0].lower()}{message[1:]}.') from None


def nearest_name(name: str, known: Iterable[str]) -> str:
    """The known name most like a wrong one, whatever its case."""
    folded = {candidate.lower(): candidate for candidate in sorted(known)}
    return folded[difflib.get_close_matches(name.lower(), folded, n=1, cutoff=0)[0]]


def _keys_at(section: type[Options], place: list[str]) -> list[str]:
    """Known keys of the model that ``place`` leads to (unions are walked through by their tag)."""
    models: list[type[Options]] = [section]
    for part in place:
        inner = [model for owner in models for name, field in owner.model_fields.items() if name == part
                 for model in _models_in(field.annotation)]
        tagged = [model for model in models if part in _tags(model)]
        models = inner or tagged or models
    return sorted({name for model in models for name in model.model_fields})


def _models_in(annotation: Any) -> list[type[Options]]:
    if isinstance(annotation, type) and issubclass(annotation, Options):
        return [annotation]
    return [model for part in getattr(annotation, '__args__', ()) for model in _models_in(part)]


def _tags(model: type[Options]) -> tuple[Any, ...]:
    kind = model.model_fields.get('type')
    return getattr(kind.annotation, '__args__', ()) if kind else ()


PositiveInt = Annotated[int, Field(ge=1)]
Fraction = Annotated[float, Field(ge=0, le=1)]
# YAML 1.1 reads a bare `off` as false.
_OFF = BeforeValidator(lambda value: 'off' if value is False else value)
PsnrMetric = Literal['matlab_rgb', 'matlab_y', 'cv2_grey']
Precision = Literal['fp32', 'bf16', 'fp16']


class DatasetOptions(Options):
    """What BasicSR's loader reads from any dataset section; the base of our datasets' own options."""

    name: str
    type: str
    io_backend: dict[str, Any] = {'type': 'disk'}
    batch_size_per_gpu: PositiveInt = 1
    num_worker_per_gpu: Annotated[int, Field(ge=0)] = 0
    dataset_enlarge_ratio: PositiveInt = 1
    use_shuffle: bool = True
    prefetch_mode: Literal['cuda', 'cpu'] | None = None
    num_prefetch_queue: PositiveInt = 1
    pin_memory: bool = False
    persistent_workers: bool = False


class DistilledPatchDatasetOptions(DatasetOptions):
    """PairedImageDataset's keys, and what a distilled set adds.

    meta_info: RealESRGANPairedDataset's list of pairs, accepted so that it may stay in an option file that is moved to
    a distilled set.  task: of HiT-SR's option files; unused.  cache: decoded images kept in memory, ``auto`` where the
    whole set takes little of it.
    """

    type: Literal['DistilledPatchDataset'] = 'DistilledPatchDataset'
    dataroot_gt: str
    dataroot_lq: str | None = None
    meta_info_file: str | None = None
    meta_info: str | None = None
    task: str | None = None
    filename_tmpl: str = '{}'
    gt_size: PositiveInt | None = None
    use_hflip: bool = False
    use_rot: bool = False
    mean: list[float] | None = None
    std: list[float] | None = None
    color: Literal['y'] | None = None
    num_images: PositiveInt | None = None
    labels: list[Annotated[int, Field(ge=0)]] | None = None
    cache: Literal['auto', 'ram', 'none'] = 'auto'


class TileOptions(Options):
    """``val.tile``: tiles of ``size_px``, of which ``overlap_px`` on each side only serve as context; LR pixels."""

    size_px: PositiveInt
    overlap_px: Annotated[int, Field(ge=0)]

    @model_validator(mode='after')
    def _something_is_kept(self) -> 'TileOptions':
        if self.size_px <= 2 * self.overlap_px:
            raise ValueError(f'size_px {self.size_px} is not more than twice overlap_px {self.overlap_px}')
        return self


class LpipsMetricOptions(Options):
    """A metric of type ``calculate_lpips``.

    net: the backbone.  weights: a local file, either torchvision's weights of the backbone or a whole LPIPS network; when
    absent, the backbone is looked for in ``experiments/pretrained_models`` and in torch's cache, then downloaded.
    crop_border: HR pixels cut off each side.
    """

    type: Literal['calculate_lpips'] = 'calculate_lpips'
    net: Literal['alex', 'vgg', 'squeeze'] = 'alex'
    weights: str | None = None
    crop_border: Annotated[int, Field(ge=0)] = 0
    better: Literal['lower'] = 'lower'


class BlockPcaCodecOptions(Options):
    """Closed-form codec: principal components of square pixel blocks, fitted to the patches.

    whitening: 0 keeps the components' variances, 1 makes them equal, between them std ** (1 - whitening).
    """

    type: Literal['block_pca'] = 'block_pca'
    block_px: PositiveInt = 8
    components: PositiveInt = 32
    whitening: Fraction = 0.5


class AutoencoderKlCodecOptions(Options):
    """A diffusers AutoencoderKL: hub id, or a local folder (``subfolder`` inside a pipeline, often ``vae``)."""

    type: Literal['autoencoder_kl'] = 'autoencoder_kl'
    pretrained: str = 'stabilityai/sd-vae-ft-mse'
    subfolder: str | None = None
    local_files_only: bool = False
    precision: Precision = 'fp32'


class AutoencoderTinyCodecOptions(Options):
    """A diffusers AutoencoderTiny: hub id or local folder."""

    type: Literal['autoencoder_tiny'] = 'autoencoder_tiny'
    pretrained: str = 'madebyollin/taesd'
    subfolder: str | None = None
    local_files_only: bool = False
    precision: Precision = 'fp32'


CodecOptions = Annotated[BlockPcaCodecOptions | AutoencoderKlCodecOptions | AutoencoderTinyCodecOptions,
                         Field(discriminator='type')]


class LatentPatchDatasetOptions(DatasetOptions):
    """Patches as latents, encoded once.

    dataroot: folder of the extract stage.  labels_file: ``labels.csv`` of the cluster stage.  latents_dir: where the
    latents are kept (set by the training loop, inside the experiment).
    """

    type: Literal['LatentPatchDataset'] = 'LatentPatchDataset'
    dataroot: str
    labels_file: str
    codec: CodecOptions
    use_hflip: bool = False
    latents_dir: str | None = None
    encode_batch_size: PositiveInt = 16


class ScratchDiTOptions(Options):
    """A DiT with random weights: a published ``size`` or the three numbers that make one."""

    size: Literal['S', 'B', 'L', 'XL'] | None = None
    num_layers: PositiveInt | None = None
    num_attention_heads: PositiveInt | None = None
    attention_head_dim: PositiveInt | None = None
    patch_size: PositiveInt = 2
    in_channels: PositiveInt = 4
    sample_size: PositiveInt = 32
    learn_variance: bool = True

    @model_validator(mode='after')
    def _one_way(self) -> 'ScratchDiTOptions':
        numbers = [self.num_layers, self.num_attention_heads, self.attention_head_dim]
        if (self.size is None) == (None in numbers) or (self.size and any(numbers)):
            raise ValueError('give either size or all of num_layers, num_attention_heads, attention_head_dim')
        if self.sample_size % self.patch_size:
            raise ValueError(f'sample_size {self.sample_size} is not a multiple of patch_size {self.patch_size}')
        return self


class MinimaxDiTNetworkOptions(Options):
    """The denoiser: pretrained weights or ``from_scratch``, and which of its parameters are trained."""

    type: Literal['MinimaxDiT'] = 'MinimaxDiT'
    num_labels: PositiveInt
    pretrained: str | None = None
    subfolder: str | None = None
    local_files_only: bool = False
    from_scratch: ScratchDiTOptions | None = None
    label_init: Literal['null_row', 'rows', 'mean'] = 'null_row'
    tuning: Literal['difffit', 'lora', 'full'] = 'difffit'
    lora_rank: PositiveInt = 8
    gradient_checkpointing: bool = False

    @model_validator(mode='after')
    def _one_source(self) -> 'MinimaxDiTNetworkOptions':
        if (self.pretrained is None) == (self.from_scratch is None):
            raise ValueError('give either pretrained or from_scratch')
        if self.from_scratch and self.tuning != 'full':
            raise ValueError('random weights need tuning: full')
        return self


TWeight = Literal['none', 'alpha_bar']


class RepresentativenessLossOptions(Options):
    """Eq. (3); ``t_weight: alpha_bar`` weights a sample by how reliable its x0_pred is."""

    type: Literal['RepresentativenessLoss'] = 'RepresentativenessLoss'
    loss_weight: NonNegativeFloat = 0.002
    memory_size: PositiveInt = 64
    t_weight: TWeight = 'none'


class DiversityLossOptions(Options):
    """Eq. (4)."""

    type: Literal['DiversityLoss'] = 'DiversityLoss'
    loss_weight: NonNegativeFloat = 0.008
    memory_size: PositiveInt = 64
    t_weight: TWeight = 'none'


class HighFrequencyLossOptions(Options):
    """Eq. (5); ``pixel`` decodes samples below ``pixel_max_timestep``, by ``pixel_codec`` or the data's own codec."""

    type: Literal['HighFrequencyLoss'] = 'HighFrequencyLoss'
    loss_weight: NonNegativeFloat = 0.05
    mode: Annotated[Literal['off', 'latent', 'pixel', 'literal'], _OFF] = 'latent'
    scale: PositiveInt = 4
    pixel_max_timestep: PositiveInt = 300
    pixel_codec: AutoencoderTinyCodecOptions | None = None


class MinimaxDiTTrainOptions(Options):
    """The ``train`` section of MinimaxDiTModel.

    optim_g, scheduler, warmup_iter, total_iter: as in BasicSR.  accumulation: parts that a batch is cut into.
    label_dropout: share of samples trained without their label.  max_timestep: only timesteps below it are trained,
    useful when sampling starts from noised prototypes.  ema_decay: with 0 the average is the newest weights.
    """

    total_iter: PositiveInt
    warmup_iter: int = -1
    optim_g: dict[str, Any]
    scheduler: dict[str, Any]
    precision: Precision = 'fp32'
    accumulation: PositiveInt = 1
    compile: bool = False
    clip_grad_norm: PositiveFloat | None = None
    label_dropout: Fraction = 0.1
    max_timestep: Annotated[int, Field(ge=1, le=1000)] = 1000
    min_snr_gamma: PositiveFloat | None = None
    vlb_weight: NonNegativeFloat = 1.0
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.9999
    ema_warmup: bool = True
    representativeness_opt: RepresentativenessLossOptions | None = None
    diversity_opt: DiversityLossOptions | None = None
    high_frequency_opt: HighFrequencyLossOptions | None = None


class NoiseInitOptions(Options):
    """Sampling starts from pure noise."""

    type: Literal['noise'] = 'noise'


class PrototypeInitOptions(Options):
    """Sampling starts from real latents of the label, noised as far as ``strength`` of the whole way (D4M)."""

    type: Literal['prototype'] = 'prototype'
    strength: Annotated[float, Field(gt=0, le=1)]


class SampleOptions(Options):
    """The ``sample`` stage.

    num_steps: over the whole noise range; a prototype of strength s takes s of them.  guidance_interval: part of the
    noise range (0 clean, 1 noise) in which guidance acts.  guidance_channels: how many latent channels it moves, all
    when absent.  oversample: images drawn per image kept.  psnr_band: quantiles of the patches' psnr_db between which
    drawn images are kept ([0, 1]: from the lowest to the highest patch).  select: how images_per_cluster are chosen
    among those, by the encoder's features.
    """

    images_per_cluster: PositiveInt
    save_dir: str
    num_steps: PositiveInt = 20
    guidance_scale: NonNegativeFloat = 1.5
    guidance_interval: tuple[Fraction, Fraction] = (0.0, 1.0)
    guidance_channels: PositiveInt | None = None
    scheduler: Literal['dpmsolver++', 'unipc', 'ddim', 'ddpm'] = 'dpmsolver++'
    init: Annotated[NoiseInitOptions | PrototypeInitOptions, Field(discriminator='type')] = NoiseInitOptions()
    weights: Literal['params_ema', 'params'] = 'params_ema'
    seed: Annotated[int, Field(ge=0)] = 0
    batch_size: PositiveInt = 8
    precision: Precision = 'fp32'
    scale: PositiveInt = 4
    oversample: PositiveInt = 1
    psnr_band: tuple[Fraction, Fraction] | None = None
    select: Literal['first', 'k_center', 'herding'] = 'herding'

    @model_validator(mode='after')
    def _intervals_have_a_length(self) -> 'SampleOptions':
        for name in ('guidance_interval', 'psnr_band'):
            interval = getattr(self, name)
            if interval is not None and interval[0] >= interval[1]:
                raise ValueError(f'{name} {list(interval)} must rise')
        return self


class ExtractOptions(Options):
    """The ``extract`` stage.

    dataroot: one folder of images or several, searched recursively.  patch_size, stride: of the grid of square windows,
    pixels; the stride is the patch size when absent.  scale, metric: of the score psnr_db.  threshold: patches below it
    are kept: decibels, ``median``, or ``qNN`` (NN per cent of all scored patches lie below it).  drop_hardest: share of
    the scored patches, lowest psnr_db first, that is left out.  deduplicate: drop patches equal to an earlier one, or
    (``perceptual``) nearly so.  leak_check: folders of test images; images that show the same scene are left out.
    max_patches: at most so many, drawn with ``seed``.  strict: refuse broken images instead of setting them aside.
    png_level: 0 stores the patches as they are, which is fastest to write and to read; 1 (fast) to 12 (small) deflate
    them, to six tenths of the size and less.
    lmdb: pack the patches into ``images.lmdb`` as well.  num_workers: threads, one a core when absent; the result does
    not depend on it.
    """

    dataroot: Annotated[list[str], Field(min_length=1)]
    save_dir: str
    patch_size: PositiveInt = 256
    stride: PositiveInt | None = None
    scale: Annotated[int, Field(ge=2)] = 4
    metric: PsnrMetric = 'matlab_rgb'
    threshold: float | str = 'median'
    drop_hardest: Annotated[float, Field(ge=0, lt=1)] = 0.0
    deduplicate: Annotated[Literal['off', 'exact', 'perceptual'], _OFF] = 'off'
    leak_check: list[str] = []
    max_patches: PositiveInt | None = None
    seed: Annotated[int, Field(ge=0)] = 0
    strict: bool = False
    png_level: Annotated[int, Field(ge=0, le=12)] = 0
    lmdb: bool = False
    num_workers: Annotated[PositiveInt | None, Field(exclude=True)] = None

    @field_validator('dataroot', mode='before')
    @classmethod
    def _one_root(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    @field_validator('threshold', mode='before')
    @classmethod
    def _threshold(cls, value: Any) -> float | str:
        if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < float('inf'):
            return float(value)
        quantile = re.fullmatch(r'q(\d+(?:\.\d+)?)', value) if isinstance(value, str) else None
        if value == 'median' or (quantile and 0 < float(quantile[1]) <= 100):
            return str(value)
        raise ValueError(f'{value!r} is neither decibels, nor median, nor a quantile such as q40')

    @model_validator(mode='after')
    def _whole_lr_pixels(self) -> 'ExtractOptions':
        if self.patch_size % self.scale:
            raise ValueError(f'patch_size {self.patch_size} is not a multiple of scale {self.scale}')
        return self


class OpenClipEncoderOptions(Options):
    """An image tower of open_clip.

    name: as open_clip knows it, or ``local-dir:FOLDER`` (its configuration and weights), or ``hf-hub:...``.
    pretrained: open_clip's tag, or a file of weights; none for a ``local-dir:`` or ``hf-hub:`` model.
    precision: ``auto`` is bf16 on a GPU and fp32 on a CPU.
    """

    type: Literal['open_clip'] = 'open_clip'
    name: str = 'ViT-B-32'
    pretrained: str | None = 'openai'
    batch_size: PositiveInt = 64
    precision: Precision | Literal['auto'] = 'auto'


class TextureEncoderOptions(Options):
    """Hand-made texture and colour statistics: no weights."""

    type: Literal['texture'] = 'texture'


EncoderOptions = Annotated[OpenClipEncoderOptions | TextureEncoderOptions, Field(discriminator='type')]


class ClusterOptions(Options):
    """The ``cluster`` stage.

    num_clusters: k of k-means, or ``auto`` (best silhouette).  balance: make all clusters of equal size (within one
    patch) by moving the patches that lose least.  num_workers: threads that decode patches; the result does not depend
    on it.
    """

    save_dir: str
    encoder: EncoderOptions = OpenClipEncoderOptions()
    num_clusters: PositiveInt | Literal['auto'] = 7
    balance: bool = False
    seed: Annotated[int, Field(ge=0)] = 0
    num_workers: Annotated[PositiveInt | None, Field(exclude=True)] = None
