"""The iterations of a training, and when it logs, validates, saves and stops.

A checkpoint is written before the validation of its iteration and says that this is still due, so that neither a
failing metric nor a kill loses iterations, and a resumed run makes the validation up before it goes on.
"""

import math
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from types import FrameType
from typing import Any

import torch
from basicsr.data.prefetch_dataloader import CPUPrefetcher, CUDAPrefetcher
from basicsr.utils import AvgTimer, MessageLogger, get_root_logger

from basicsr_distill.errors import InputError
from basicsr_distill.runtime import distributed
from basicsr_distill.runtime.interrupts import SIGNALS
from basicsr_distill.runtime.progress import Silence, progress
from basicsr_distill.training.checkpoint import CheckpointWriter
from basicsr_distill.training.validation import validate, without_worker_trace


class StopRequest:
    """The signal that asked this process to stop, if any."""

    def __init__(self) -> None:
        self.signum = 0
        self.work = 'this iteration'

    def __call__(self, signum: int, frame: FrameType | None) -> None:
        self.signum = signum
        if distributed.is_main():
            # The stream's buffer may be in the midst of a write: past it, to the file.
            name = signal.Signals(signum).name
            os.write(2, f'basicsr: {name}: finishing {self.work}, then stopping with a checkpoint.\n'.encode())

    @contextmanager
    def finishing(self, work: str) -> Iterator[None]:
        """Name the work that a signal has to wait for."""
        before, self.work = self.work, work
        try:
            yield
        finally:
            self.work = before

    def agreed(self, dist: bool) -> int:
        """The signal that any rank received: all ranks stop after the same iteration."""
        if not dist:
            return self.signum
        signum = torch.tensor(self.signum)
        torch.distributed.all_reduce(signum, op=torch.distributed.ReduceOp.MAX)
        return int(signum)


@contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Turn SIGINT and SIGTERM into a request that the loop answers with a checkpoint."""
    stop = StopRequest()
    previous = {signum: signal.signal(signum, stop) for signum in SIGNALS}
    try:
        yield stop
    finally:
        for signum, handler in previous.items():
            signal.signal(signum, handler)


# Long: the steps of one loop, which share its state.
class TrainingLoop:
    """From an iteration to ``total_iter``.

    Args:
        opt: BasicSR's dictionary.
        model: built, and resumed if ``first`` is not 0.
        loader: of the batches of iterations ``first`` to ``total_iter``.
        val_loaders: one a validation set.
        tb_logger: TensorBoard's, or None.
        record: of the options, for the training states.
        as_stage: as the finetune stage of a recipe: it shows its progress, and is continued by the same command.
    """

    def __init__(
        self,
        opt: dict[str, Any],
        model: Any,
        loader: Any,
        val_loaders: list[Any],
        tb_logger: Any,
        record: dict[str, Any],
        as_stage: bool,
    ) -> None:
        self.opt = opt
        self.model = model
        self.val_loaders = val_loaders
        self.tb_logger = tb_logger
        self.checkpoints = CheckpointWriter(model, record)
        self.as_stage = as_stage
        self.logger = get_root_logger()
        self.total = opt['train']['total_iter']
        self.val_freq = opt['val']['val_freq'] if opt.get('val') else None
        section = opt['datasets']['train']
        self.num_images = len(loader.dataset.dataset)
        self.epoch_size = self.num_images * section['dataset_enlarge_ratio']
        self.batch_size = loader.batch_size * opt['world_size']
        use_cuda_prefetch = section['prefetch_mode'] == 'cuda' and torch.cuda.is_available()
        self.prefetcher = CUDAPrefetcher(loader, opt) if use_cuda_prefetch else CPUPrefetcher(loader)
        self.data_timer, self.iteration_timer = AvgTimer(), AvgTimer()

    def run(self, first: int, validation_due: bool) -> None:
        """Train.

        Args:
            first: iterations done before.
            validation_due: the checkpoint of ``first`` was written, its validation was not finished.

        Raises:
            SystemExit: 128 + signal, after a checkpoint.
            FloatingPointError: a loss or a weight is not finite; no checkpoint was written from it.
            InputError: a training image cannot be used.
        """
        self.logger.info(
            'Training from iteration %d to %d, %d samples, batch %d.',
            first,
            self.total,
            self.num_images,
            self.batch_size,
        )
        message_logger = MessageLogger(self.opt, first + 1, self.tb_logger)
        shown = progress(self.total, 'finetune: train', 'iteration', first) if self.as_stage else nullcontext(Silence())
        with stop_requests() as stop, shown as bar:
            if validation_due and first < self.total:
                self._validate(first, stop, saved=True)
            for iteration in range(first + 1, self.total + 1):
                self._step(iteration, message_logger)
                bar.update()
                if iteration < self.total:
                    self._save_and_validate(iteration, stop)
                self.data_timer.start()
                self.iteration_timer.start()
            self._finish(first, validation_due, stop)

    def _step(self, iteration: int, message_logger: Any) -> None:
        batch = _next_batch(self.prefetcher)
        self.data_timer.record()
        self.model.update_learning_rate(iteration, warmup_iter=self.opt['train']['warmup_iter'])
        self.model.feed_data(batch)
        self.model.optimize_parameters(iteration)
        self.iteration_timer.record()
        if iteration % self.opt['logger']['print_freq'] == 0:
            log = self.model.get_current_log()
            _check_finite(log, iteration)
            times = {'time': self.iteration_timer.get_avg_time(), 'data_time': self.data_timer.get_avg_time()}
            message_logger(
                {
                    'epoch': self._epoch(iteration),
                    'iter': iteration,
                    'lrs': self.model.get_current_learning_rate(),
                    **times,
                    **log,
                }
            )

    def _epoch(self, iteration: int) -> int:
        return int((iteration - 1) * self.batch_size // self.epoch_size)

    def _save_and_validate(self, iteration: int, stop: StopRequest) -> None:
        """What is due between this iteration and the next."""
        due = self.val_freq is not None and iteration % self.val_freq == 0
        saved = iteration % self.opt['logger']['save_checkpoint_freq'] == 0
        if (signum := stop.agreed(self.opt['dist'])) or saved:
            self._save(iteration, validation_due=due)
        if not signum and due:
            self._validate(iteration, stop, saved)
            if signum := stop.agreed(self.opt['dist']):
                self._save(iteration, validation_due=False)
        if signum:
            self._leave(signum, 'after a checkpoint')

    def _save(self, iteration: int, validation_due: bool) -> None:
        _check_finite(self.model.get_current_log(), iteration)
        _check_weights(self.model, iteration)
        self.logger.info('Saving models and training state at iteration %d.', iteration)
        self.checkpoints.save(self._epoch(iteration), iteration, validation_due)

    def _validate(self, iteration: int, stop: StopRequest, saved: bool) -> None:
        """Validate; what a metric cannot compute is logged, any other failure comes after a checkpoint."""
        failure: Exception | None = None
        with stop.finishing(f'the validation at iteration {iteration}'):
            try:
                for loader in self.val_loaders:
                    for clause in validate(self.opt, self.model, loader, iteration, self.tb_logger).describe():
                        self.logger.error('Iteration %d: %s; its mean is nan and never the best.', iteration, clause)
            except Exception as error:  # whatever it is, the training up to here is not at fault
                failure = error
        code = 0 if failure is None else 2 if isinstance(failure, InputError) else 1
        if code := max(distributed.gather(code)):
            if not saved:
                self._save(iteration, validation_due=True)
            if distributed.is_main():
                self.logger.error(
                    'The validation at iteration %d failed; the training up to it is kept: remove the '
                    'cause and %s, which validates first.',
                    iteration,
                    self._advice(),
                )
            raise failure or SystemExit(code)

    def _finish(self, first: int, validation_due: bool, stop: StopRequest) -> None:
        """The last checkpoint, the last validation, ``net_*_latest.pth``, and the state that says that all is done."""
        validates = self.val_freq is not None and (validation_due or first < self.total)
        if first < self.total:
            _check_finite(self.model.get_current_log(), self.total)
            _check_weights(self.model, self.total)
        epoch = math.ceil(self.total * self.batch_size / self.epoch_size)
        if validates:
            self.checkpoints.save(epoch, self.total, validation_due=True)
            if signum := stop.agreed(self.opt['dist']):
                self._leave(signum, 'before the last validation')
            self._validate(self.total, stop, saved=True)
        self.checkpoints.save_latest()
        # The training state is written last: where it stands and no validation is due, the experiment is complete.
        if validates:
            self.checkpoints.mark_validated(epoch, self.total)
        else:
            self.checkpoints.save(epoch, self.total)
        self.logger.info('End of training at iteration %d.', self.total)
        if signum := stop.agreed(self.opt['dist']):
            self._leave(signum, 'after the last checkpoint')

    def _leave(self, signum: int, when: str) -> None:
        self.logger.warning('Stopped by signal %d %s; %s.', signum, when, self._advice())
        raise SystemExit(128 + signum)

    def _advice(self) -> str:
        return 'run the same command again to go on' if self.as_stage else 'continue with --auto_resume'


def _check_finite(log: dict[str, float], iteration: int) -> None:
    bad = [name for name, value in log.items() if not math.isfinite(float(value))]
    if bad:
        raise FloatingPointError(f'Iteration {iteration}: {bad[0]} is {float(log[bad[0]])}. {_ADVICE}')


def _check_weights(model: Any, iteration: int) -> None:
    """The loss came before the update; what is saved came after it."""
    groups = (group for optimizer in model.optimizers for group in optimizer.param_groups)
    if not all(bool(torch.isfinite(parameter).all()) for group in groups for parameter in group['params']):
        raise FloatingPointError(f'Iteration {iteration}: a weight is not finite. {_ADVICE}')


_ADVICE = (
    'No checkpoint was written from it; start another experiment with a lower learning rate, from the last '
    "checkpoint's weights if they are worth it (path.pretrain_network_g)."
)


def _next_batch(prefetcher: Any) -> Any:
    try:
        return prefetcher.next()
    except InputError as error:
        raise without_worker_trace(error) from None
