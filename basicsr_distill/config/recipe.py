"""An option file, read and checked once: sections of our own as models, those of stock components as they are written.

:meth:`Recipe.load` is the one way in. What it cannot know without BasicSR (the keys of stock components) is checked by
``training.preflight``; what a run needs from the disk by ``config.experiment``.
"""

import difflib
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from basicsr_distill.config import STAGE_ORDER, derived, registry
from basicsr_distill.config.sections.base import DEFAULT_SCALE, HostOptions, Options, bind, nearest_name
from basicsr_distill.config.sections.cluster import ClusterOptions
from basicsr_distill.config.sections.dit import MinimaxDiTNetworkOptions
from basicsr_distill.config.sections.experiment import LoggerOptions, OtherTrainOptions, RootOptions, ValidationOptions
from basicsr_distill.config.sections.extract import ExtractOptions
from basicsr_distill.config.sections.sample import SampleOptions
from basicsr_distill.config.sections.select import SelectOptions
from basicsr_distill.config.sections.validation import TILED_MODELS, TileOptions
from basicsr_distill.config.yaml_files import read_option_file
from basicsr_distill.errors import InputError

# One of these makes a file an experiment of BasicSR, which then needs the first three.
_EXPERIMENT_KEYS = ('model_type', 'datasets', 'network_g', 'train')
_NAME_BYTES = 200
_PHASES = ('train', 'val', 'test')

# A section of ours as its model, or a stock component's as it is written.
Section = Options | Mapping[str, Any]


@dataclass(frozen=True)
class ExperimentSections:
    """The part of a file that BasicSR reads.

    Sections whose type is in the registry are bound to their models, others are as written; what is null is left out.
    """

    model_type: str
    root: RootOptions
    datasets: Mapping[str, Section]
    networks: Mapping[str, Section]
    path: Mapping[str, Any]
    train: Options | None
    val: ValidationOptions | None
    metrics: Mapping[str, Section]
    logger: LoggerOptions


@dataclass(frozen=True)
class Recipe:
    """One option file."""

    path: Path
    options: Mapping[str, Any]  # its content, --force_yml applied, with what follows from it (config.derived)
    name: str  # of the experiment; the file's own where a file of stages alone gives none
    scale: int  # factor between LR and HR
    # Sections of the stages, None where absent or null.
    extract: ExtractOptions | None
    cluster: ClusterOptions | None
    select: SelectOptions | None
    sample: SampleOptions | None
    experiment: ExperimentSections | None  # BasicSR's part, None in a file of stages alone

    @classmethod
    def load(cls, path: Path, force_yml: Sequence[str] = ()) -> 'Recipe':
        """Read and check an option file.

        Args:
            path: of a recipe, or of any option file of BasicSR.
            force_yml: entries such as ``train:ema_decay=0.999``.

        Raises:
            InputError: the file cannot be read, or anything in it that can be judged without BasicSR is wrong.
        """
        return cls.parse(path, read_option_file(path, force_yml))

    @classmethod
    def parse(cls, path: Path, options: Mapping[str, Any]) -> 'Recipe':
        """Check the content of an option file; ``path`` is for messages.

        Raises:
            InputError: names the file and the key.
        """
        word = options.get('name')
        options = derived.complete(options, word if isinstance(word, str) else path.stem)
        root_model: Any = registry.models('root').get(str(options.get('model_type')), RootOptions)
        root: RootOptions = bind(root_model, dict(options), str(path))
        stages: dict[str, Any] = {
            name: bind(model, options[name], f'{path}: {name}')
            for name, model in registry.models('stage').items()
            if options.get(name) is not None
        }
        is_experiment = any(options.get(key) is not None for key in _EXPERIMENT_KEYS)
        experiment = _experiment(path, options, root) if is_experiment else None
        # A model that someone else has registered may read more.
        if experiment is None or experiment.model_type in registry.models('train'):
            _reject_unknown_keys(path, options, root)
        name = root.name
        if name is None and is_experiment:
            raise InputError(f"{path}: key 'name' is missing or not a word.")
        name = path.stem if name is None else name
        check_name(path, name)
        return cls(
            path,
            options,
            name,
            derived.stated_scale(options) or DEFAULT_SCALE,
            experiment=experiment,
            **{stage: stages.get(stage) for stage in registry.models('stage')},  # type: ignore[arg-type]
        )

    @property
    def stages(self) -> tuple[str, ...]:
        """The stages whose sections the file has, in the order of the method."""
        return tuple(
            stage for stage in STAGE_ORDER if self.has(stage) and not (stage == 'finetune' and self.is_untuned)
        )

    @property
    def is_untuned(self) -> bool:
        """Whether the denoiser is used as it was published."""
        network = self.experiment.networks.get('network_g') if self.experiment else None
        return isinstance(network, MinimaxDiTNetworkOptions) and network.tuning == 'none'

    def has(self, stage: str) -> bool:
        """Whether the file has what a stage is made of."""
        return (self.experiment if stage == 'finetune' else getattr(self, stage)) is not None

    def require(self, stages: Sequence[str]) -> None:
        """Refuse to run stages whose sections the file lacks.

        Raises:
            InputError: names the section, and a misspelt one if it looks like it.
        """
        if 'finetune' in stages and self.is_untuned:
            raise InputError(
                f'{self.path}: network_g.tuning: none leaves nothing to train; leave the stage finetune out, or '
                'set difffit.'
            )
        for stage in stages:
            for section in self._needs(stage):
                if self.has(section):
                    continue
                if section == 'finetune':
                    raise InputError(
                        f"{self.path}: key 'model_type' is missing: the stage {stage} needs model_type, "
                        'datasets, network_g and train.'
                    )
                nearest = difflib.get_close_matches(section, set(self.options) - set(registry.models('stage')), n=1)
                raise InputError(
                    f'{self.path}: section {section!r} is missing'
                    f'{f"; is {nearest[0]!r} meant to be it?" if nearest else "."}'
                )

    def _needs(self, stage: str) -> tuple[str, ...]:
        """Sections that a stage is made of."""
        if stage == 'select':
            by_cluster = self.select and (self.select.images_per_cluster or self.select.method == 'uniform')
            return ('extract', 'cluster', 'select') if by_cluster else ('extract', 'select')
        return {'cluster': ('extract', 'cluster'), 'sample': ('finetune', 'sample')}.get(stage, (stage,))

    def check_agreement(self) -> None:
        """Refuse sections that are not one experiment: a training on another's patches, mixed scales, idle guidance.

        Raises:
            InputError: names both keys.
        """
        derived.check_agreement(self.path, self.options, self.scale)
        self._refuse_idle_guidance()

    def _refuse_idle_guidance(self) -> None:
        """Guidance away from the null label needs labels that differ from it: trained ones, or published rows."""
        network = self.experiment.networks.get('network_g') if self.experiment else None
        if (
            self.sample
            and self.is_untuned
            and isinstance(network, MinimaxDiTNetworkOptions)
            and network.label_init == 'null_row'
            and self.sample.guidance_scale != 1
        ):
            raise InputError(
                f'{self.path}: sample.guidance_scale: is {self.sample.guidance_scale:g}, which changes '
                'nothing but the time with network_g.tuning: none and network_g.label_init: null_row; '
                'set guidance_scale: 1, or label_init: rows.'
            )


def _experiment(path: Path, options: Mapping[str, Any], root: RootOptions) -> ExperimentSections:
    for key, kind in {'name': str, 'model_type': str, 'datasets': dict, 'network_g': dict}.items():
        if not isinstance(options.get(key), kind):
            raise InputError(f'{path}: key {key!r} is missing or not a {"word" if kind is str else "section"}.')
    model_type = str(root.model_type)
    networks = {
        key: _typed(registry.models('network'), value, f'{path}: {key}')
        for key, value in options.items()
        if key.startswith('network_') and value is not None
    }
    _check_paths(path, root.path or {}, networks)
    return ExperimentSections(
        model_type,
        root,
        _datasets(path, root),
        networks,
        root.path or {},
        _train(path, root, model_type),
        root.val,
        _metrics(path, root.val, model_type),
        root.logger or LoggerOptions(),
    )


def _typed(models: registry.Models, section: Any, where: str) -> Section:
    """A section with a ``type``, bound to its model where it has one.

    Raises:
        InputError: it is no mapping, has no type, or a key is wrong.
    """
    if not isinstance(section, dict):
        raise InputError(f'{where}: must be a mapping of keys to values.')
    if not isinstance(section.get('type'), str):
        raise InputError(f"{where}: key 'type' is missing.")
    model = models.get(section['type'])
    return section if model is None else bind(model, section, where)


def _datasets(path: Path, root: RootOptions) -> dict[str, Section]:
    for phase in root.datasets or {}:
        kind, *rest = phase.split('_')
        if kind not in _PHASES:
            word = kind.rstrip(string.digits)  # test1 is meant to be test_1
            nearest = '_'.join([nearest_name(word, _PHASES), *filter(None, [kind.removeprefix(word)]), *rest])
            raise InputError(f'{path}: datasets: unknown key {phase!r}; did you mean {nearest!r}?')
    # Null switches one off: --force_yml datasets:test_6=none.
    datasets = {phase: section for phase, section in (root.datasets or {}).items() if section is not None}
    for phase, section in datasets.items():
        if not isinstance(section.get('name'), str):
            raise InputError(f'{path}: datasets.{phase}.name: {section.get("name")!r} is not a word.')
        if phase.split('_')[0] == 'train' and 'batch_size_per_gpu' not in section:
            raise InputError(f"{path}: datasets.{phase}: key 'batch_size_per_gpu' is missing.")
    return {
        phase: _typed(registry.models('dataset'), section, f'{path}: datasets.{phase}')
        for phase, section in datasets.items()
    }


def _train(path: Path, root: RootOptions, model_type: str) -> Options | None:
    if root.train is None:
        return None
    train = bind(registry.models('train').get(model_type, OtherTrainOptions), root.train, f'{path}: train')
    if not isinstance(train, HostOptions):
        return train
    components = {
        key: _typed(registry.models('loss'), section, f'{path}: train.{key}')
        for key, section in train
        if section is not None and (key.endswith('_opt') or key.startswith('optim_') or key == 'scheduler')
    }
    # Losses with a model get its defaults.
    return train.model_copy(
        update={key: section.to_plain() for key, section in components.items() if isinstance(section, Options)}
    )


def _metrics(path: Path, val: ValidationOptions | None, model_type: str) -> dict[str, Section]:
    if val is None:
        return {}
    if val.tile is not None:
        if model_type not in TILED_MODELS:
            raise InputError(f'{path}: val.tile: {model_type} knows no tiles; use one of {", ".join(TILED_MODELS)}.')
        bind(TileOptions, val.tile, f'{path}: val.tile')
    # A metric is switched off by --force_yml val:metrics:NAME=none.
    return {
        name: _typed(registry.models('metric'), metric, f'{path}: val.metrics.{name}')
        for name, metric in (val.metrics or {}).items()
        if metric is not None
    }


def _check_paths(path: Path, section: Mapping[str, Any], networks: Mapping[str, Any]) -> None:
    # Every SR model of BasicSR reads the keys of g and d, whether the file has both networks or not.
    labels = {'g', 'd', *(key.removeprefix('network_') for key in networks)}
    kinds: dict[str, tuple[type, str]] = {
        'resume_state': (str, 'a path'),
        'ignore_resume_networks': (list, 'a list of networks'),
    }
    for label in labels:
        kinds |= {
            f'pretrain_network_{label}': (str, 'a path'),
            f'param_key_{label}': (str, 'a word'),
            f'strict_load_{label}': (bool, 'true or false'),
        }
    for key, value in section.items():
        if key not in kinds:
            raise InputError(f'{path}: path: unknown key {key!r}; did you mean {nearest_name(key, kinds)!r}?')
        kind, words = kinds[key]
        if value is not None and not isinstance(value, kind):
            raise InputError(f'{path}: path.{key}: {value!r} is not {words}.')


def _reject_unknown_keys(path: Path, options: Mapping[str, Any], root: RootOptions) -> None:
    stages = registry.models('stage')
    known = {*stages, *type(root).model_fields}
    for key in options:
        if key not in known:
            raise InputError(f'{path}: unknown key {key!r}; did you mean {nearest_name(key, known)!r}?')
    for key in (root.val.model_extra or {}) if root.val else {}:
        nearest = nearest_name(key, ValidationOptions.model_fields)
        raise InputError(f'{path}: val: unknown key {key!r}; did you mean {nearest!r}?')
    if not any(options.get(key) is not None for key in (*stages, *_EXPERIMENT_KEYS)):
        raise InputError(
            f"{path}: key 'model_type' is missing; an option file is an experiment of BasicSR "
            '(model_type, datasets, network_g, train) or has one of the sections '
            f'{", ".join(stages)}.'
        )


def check_name(path: Path, name: str) -> None:
    """Refuse names that are no folder's, or not the one that they seem to be."""
    if '$' in name:
        raise InputError(
            f'{path}: name: {name!r} must be a plain folder name; variables of the shell are not replaced '
            'in option files, write the name itself or give it by --force_yml "name=...".'
        )
    if not name or name.startswith('.') or name != name.strip() or set(name) & set('/\\') or not name.isprintable():
        raise InputError(
            f'{path}: name: {name!r} must be a plain folder name, without slashes, control characters, '
            'and dots or spaces in front.'
        )
    if len(name.encode('utf-8', 'surrogateescape')) > _NAME_BYTES:
        raise InputError(
            f'{path}: name: must be a plain folder name of at most {_NAME_BYTES} bytes; shorten {name[:20]!r}...'
        )
