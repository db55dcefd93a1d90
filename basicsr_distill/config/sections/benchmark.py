"""The one section of a benchmark file: which sets are compared, on what, with which budget."""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from basicsr_distill.config.sections.base import Count, DataFolder, FreeSection, NamedFile, Options, PositiveInt, Word
from basicsr_distill.config.sections.experiment import WholeNumber

# The metrics that a benchmark knows by name, as BasicSR's sections; the border that is cut is the scale.
METRIC_SECTIONS: Mapping[str, dict[str, Any]] = {
    'psnr_y': {'type': 'calculate_psnr', 'test_y_channel': True},
    'ssim_y': {'type': 'calculate_ssim', 'test_y_channel': True},
    'psnr_rgb': {'type': 'calculate_psnr', 'test_y_channel': False},
    'ssim_rgb': {'type': 'calculate_ssim', 'test_y_channel': False},
    'lpips': {'type': 'calculate_lpips'},
}
LOWER_IS_BETTER = frozenset({'lpips'})
MetricName = Literal['psnr_y', 'ssim_y', 'psnr_rgb', 'ssim_rgb', 'lpips']
_NAME = re.compile(r'[A-Za-z0-9][A-Za-z0-9.-]*(_[A-Za-z0-9.-]+)*')


def _names(table: dict[str, Any]) -> dict[str, Any]:
    for name in table:
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise ValueError(f'{name!r} names files: use letters, digits, dots, dashes and single underscores')
    return table


def _distinct(values: list[Any]) -> list[Any]:
    if len(set(values)) < len(values):
        raise ValueError(f'{values} names something twice')
    return values


class SetOptions(Options):
    """A row of the comparison: a folder, what a recipe's stage makes, or the full pool."""

    path: DataFolder | None = Field(
        None,
        description='A set that exists, of which smaller counts are taken evenly from its clusters, or any '
        'folder of HR images, of which they are drawn by seed, evenly over its list.',
    )
    select: FreeSection | None = Field(
        None, description="Real patches: keys that replace those of the recipe's section select."
    )
    sample: FreeSection | None = Field(
        None, description="Drawn images: keys that replace those of the recipe's section sample."
    )
    full: bool = Field(
        False, description="Everything: all patches of the recipe's extract stage, or all images of path."
    )
    real: bool = Field(
        False,
        description='Of path: its images are real patches, and it counts among the rows that a drawn set has to '
        'beat; what select makes always does.',
    )
    recipe: NamedFile | None = Field(None, description="Recipe of this set, where it is not the benchmark's.")
    force_yml: list[Word] = Field(
        [], description="Changes to that recipe, written as for --force_yml, in place of the benchmark's."
    )

    @model_validator(mode='after')
    def _one_origin(self) -> 'SetOptions':
        origins = [name for name in ('path', 'select', 'sample') if getattr(self, name) is not None]
        if len(origins) > 1 or (not origins and not self.full):
            raise ValueError('give one of path, select and sample, or full: true')
        if self.full and origins and origins != ['path']:
            raise ValueError('full: true stands alone or with path')
        if self.path is not None and (self.recipe is not None or self.force_yml):
            raise ValueError('path names what exists; recipe and force_yml say how a set is made')
        if self.real and self.path is None:
            raise ValueError('real: true is said of a path')
        return self


class TrainedNetworkOptions(Options):
    """A network that is trained on every set."""

    opt: NamedFile = Field(description='Option file of its training; data sets, seed and iterations are replaced.')
    force_yml: list[Word] = Field([], description='Changes to it, written as for --force_yml.')


class BudgetOptions(Options):
    """How long every network is trained."""

    total_iter: WholeNumber = Field(description='Iterations on every set, the full pool too; schedules are scaled.')
    full_total_iter: WholeNumber | None = Field(
        None, description='Iterations of a second training on the full pool: its own schedule.'
    )


class JobOptions(Options):
    """Where the trainings run."""

    executor: Literal['local', 'slurm', 'submitit_local'] = Field(
        'local',
        description='local: processes of this machine. slurm: jobs of Slurm, sent by submitit. '
        "submitit_local: submitit's processes on this machine.",
    )
    processes: PositiveInt | None = Field(
        None, description='Trainings at a time; when absent, one a GPU or one a core, and under slurm all of them.'
    )
    partition: Word | None = Field(None, description='Of Slurm.')
    gpus_per_node: Count | None = Field(None, description='Of Slurm, for every training.')
    cpus_per_task: PositiveInt | None = Field(None, description='Of Slurm, for every training.')
    mem_gb: PositiveInt | None = Field(None, description='Of Slurm, memory in GB for every training.')
    timeout_min: PositiveInt = Field(24 * 60, description='Of Slurm: minutes until a job is ended.')
    slurm_parameters: FreeSection = Field({}, description="More of submitit's, such as slurm_additional_parameters.")


class BenchmarkOptions(Options):
    """What sets are worth: every set, count, network and seed is a training and a test."""

    recipe: NamedFile | None = Field(None, description='Recipe whose stages make the sets; run once for all of them.')
    force_yml: list[Word] = Field([], description='Changes to it, written as for --force_yml.')
    sets: Annotated[dict[str, SetOptions], Field(min_length=1), AfterValidator(_names)] = Field(description='The rows.')
    counts: Annotated[list[PositiveInt], Field(min_length=1), AfterValidator(_distinct)] = Field(
        description='Images of a set; the full pool has its own.'
    )
    seeds: Annotated[list[Count], Field(min_length=1), AfterValidator(_distinct)] = Field(
        [0, 1, 2], description='Of choosing or drawing a set, and of training on it.'
    )
    train_seeds: Annotated[list[Count], Field(min_length=1), AfterValidator(_distinct)] | None = Field(
        None,
        description='Of training alone: every set is trained on with each of them, in place of the seed that made it.',
    )
    networks: Annotated[dict[str, TrainedNetworkOptions], Field(min_length=1), AfterValidator(_names)] = Field(
        description='What is trained.'
    )
    budget: BudgetOptions = Field(description='How long.')
    tests: Annotated[dict[str, DataFolder], Field(min_length=1), AfterValidator(_names)] = Field(
        description='Folders of HR images, by name; LR images are made from them.'
    )
    metrics: Annotated[list[MetricName], Field(min_length=1), AfterValidator(_distinct)] = Field(
        ['psnr_y', 'ssim_y'], description='What is measured; the first is that of the headline figures.'
    )
    leak_check: bool = Field(
        True, description='Refuse tests whose files are trained on, and look for their scenes in the pools.'
    )
    jobs: JobOptions = Field(JobOptions(), description='Where the trainings run.')

    @model_validator(mode='after')
    def _sets_have_a_recipe(self) -> 'BenchmarkOptions':
        for name, row in self.sets.items():
            if row.path is None and row.recipe is None and self.recipe is None:
                raise ValueError(f'sets.{name} needs a recipe: give one here, or in the row')
        return self


class BenchmarkFileOptions(Options):
    """A benchmark file."""

    name: Word = Field(description='Of the benchmark: its folder under experiments/.')
    benchmark: BenchmarkOptions = Field(description='What is compared.')
