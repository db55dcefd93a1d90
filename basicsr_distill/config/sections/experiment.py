"""What every BasicSR option file has at its root: the parts that need no component to be understood."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field

from basicsr_distill.config.sections.base import (
    DEFAULT_SCALE,
    Count,
    FreeSection,
    HostOptions,
    Options,
    PositiveInt,
    Word,
)


def _whole(value: Any) -> Any:
    """Published files write counts as 5e3 too."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


WholeNumber = Annotated[PositiveInt, BeforeValidator(_whole)]


class WandbOptions(Options):
    """``logger.wandb``."""

    project: Word | None = Field(None, description='Project at Weights & Biases; null switches it off.')
    resume_id: Word | None = Field(None, description='Run to go on with.')


class LoggerOptions(Options):
    """The ``logger`` section."""

    print_freq: WholeNumber = Field(100, description='Iterations between lines of the log.')
    save_checkpoint_freq: WholeNumber = Field(5000, description='Iterations between checkpoints.')
    keep_last: WholeNumber | None = Field(
        None,
        description='Checkpoints that are kept: so many of the newest, and those of the best validations; all '
        'when absent.',
    )
    use_tb_logger: bool = Field(False, description='Write TensorBoard logs to tb_logger/.')
    wandb: WandbOptions | None = Field(None, description='Weights & Biases, which needs use_tb_logger.')


class TrainOptions(HostOptions):
    """What the training loop and every model of BasicSR read from ``train``."""

    total_iter: WholeNumber = Field(description='Iterations of the whole training.')
    warmup_iter: Annotated[int, BeforeValidator(_whole)] = Field(
        -1, description='Iterations in which the learning rate rises; -1 for none.'
    )
    optim_g: FreeSection = Field(description='Optimizer: type of torch.optim, and its arguments.')
    scheduler: FreeSection = Field(description="Learning rate: type of BasicSR's schedulers, and its arguments.")


class OtherTrainOptions(TrainOptions, extra='allow'):
    """The ``train`` section of a model without one of its own here, which reads what it likes."""


class ValidationOptions(Options, extra='allow'):
    """The ``val`` section; more keys are refused but for models that may read what they like."""

    val_freq: WholeNumber | None = Field(
        None, description='Iterations between validations; those between checkpoints when absent.'
    )
    save_img: bool = Field(False, description='Write the images.')
    suffix: Word | None = Field(None, description="Added to the images' names; the experiment's name when absent.")
    pbar: bool = Field(False, description='Show a progress bar.')
    metrics: dict[str, FreeSection | None] | None = Field(
        None, description='What is measured: a name and a section each.'
    )
    tile: FreeSection | None = Field(
        None, description='Super-resolve in overlapping tiles: size_px and overlap_px, LR pixels.'
    )
    use_chop: bool = Field(False, description="Of HiT-SR's files: HITModel super-resolves in tiles of 256 pixels.")


class DistributedOptions(Options):
    """``dist_params``, which BasicSR reads under slurm; here the launcher's environment decides."""

    backend: Word | None = Field(None, description="torch.distributed's backend; unused.")
    port: int | None = Field(None, description='Of the first rank; unused.')


class RootOptions(Options, extra='allow'):
    """Root keys that every file may have; some models read more, and those without a section here what they like."""

    # Keys that the model looks up in its first iteration.
    looked_up: ClassVar[tuple[str, ...]] = ()

    name: Word | None = Field(None, description='Of the experiment: its folder under experiments/ or results/.')
    model_type: Word | None = Field(None, description='Registered name of the model.')
    scale: PositiveInt | None = Field(None, description=f'Factor between LR and HR; {DEFAULT_SCALE} when absent.')
    num_gpu: Count | Literal['auto'] = Field('auto', description='GPUs to use in one process; auto is all.')
    manual_seed: Count | None = Field(None, description='Of all random numbers; 0 when absent.')
    find_unused_parameters: bool = Field(
        False, description="DistributedDataParallel's flag, for networks with idle parameters."
    )
    datasets: dict[str, FreeSection | None] | None = Field(
        None, description='The data sets: train, val, val_2, test_1, ...'
    )
    network_g: FreeSection | None = Field(None, description='The network that is trained: type and its arguments.')
    print_network: bool | None = Field(None, description="Of SRFormer's files; unused.")
    path: FreeSection | None = Field(None, description='Checkpoints to start from.')
    train: FreeSection | None = Field(None, description='Optimizers, learning rate, losses.')
    val: ValidationOptions | None = Field(None, description='Validation.')
    logger: LoggerOptions | None = Field(None, description='What is logged and saved, and when.')
    dist_params: DistributedOptions | None = Field(None, description='Of published files; unused.')

    def missing_to_train(self) -> list[str]:
        """Return the keys that are absent and without which no training runs."""
        return [name for name in self.looked_up if getattr(self, name) is None]
