"""``MinimaxDiTModel``: trains the denoiser on latents with the minimax losses. Orchestration only."""

import math
from collections import OrderedDict
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from basicsr.archs import build_network
from basicsr.models.base_model import BaseModel
from basicsr.utils import get_root_logger
from basicsr.utils.registry import MODEL_REGISTRY
from torch import Tensor

from basicsr_distill.config.registry import bind_dataset, models
from basicsr_distill.config.sections.base import bind
from basicsr_distill.config.sections.datasets import LatentPatchDatasetOptions
from basicsr_distill.config.sections.dit import MinimaxDiTTrainOptions
from basicsr_distill.diffusion.codec import Codec, build_codec
from basicsr_distill.diffusion.denoiser_quality import noise_errors, sample_grid, save_grid
from basicsr_distill.diffusion.ema import averaged_weights, make_average, update_average
from basicsr_distill.diffusion.process import linear_alpha_bar
from basicsr_distill.diffusion.step_cost import training_cost
from basicsr_distill.errors import InputError
from basicsr_distill.io.weights import load_weights
from basicsr_distill.losses.batch_gradient import BatchGradient
from basicsr_distill.losses.objective import Objective, build_losses
from basicsr_distill.runtime.device import DTYPES


@MODEL_REGISTRY.register()
class MinimaxDiTModel(BaseModel):
    """Fine-tunes (or trains) ``network_g: MinimaxDiT`` on a LatentPatchDataset.

    The objective is :mod:`basicsr_distill.losses.objective`'s; see
    :class:`~basicsr_distill.config.sections.MinimaxDiTTrainOptions` for the ``train`` section. Checkpoints hold the
    trained parameters alone, as ``params`` and, averaged, ``params_ema``.

    Raises:
        InputError: latents do not fit the network, or the weights cannot be read.
    """

    def __init__(self, opt: dict[str, Any]) -> None:
        super().__init__(opt)
        self.net_g = self.model_to_device(_network_to_train(opt['network_g']))
        self.net = self.get_bare_model(self.net_g)
        self.data_options: LatentPatchDatasetOptions = bind_dataset(opt['datasets']['train'])
        section: Any = models('train')['MinimaxDiTModel']  # with the terms that others have registered
        self.train_options: MinimaxDiTTrainOptions = bind(section, opt['train'], 'train')
        self.trained = [parameter for parameter in self.net.parameters() if parameter.requires_grad]
        self.average = make_average(self.trained, self.train_options.ema_decay, self.train_options.ema_warmup)
        if path := opt['path'].get('pretrain_network_g'):
            self._load(Path(path), opt['path'].get('param_key_g', 'params'))
        self.alpha_bar = linear_alpha_bar().to(self.device)
        self.log_dict: dict[str, float] = OrderedDict()
        if self.is_train:
            self._init_training()

    def _load(self, path: Path, param_key: str) -> None:
        weights = load_weights(path)
        state = weights.get(param_key, weights)
        self.net.load_trained_state(state, str(path))
        averages = weights.get('params_ema', state)
        for name, value in self._averages().items():
            value.copy_(averages[name])

    def _init_training(self) -> None:
        options = self.train_options
        self.net_g.train()
        if options.compile:
            self.net_g.compile()
        dtype = DTYPES[options.precision]
        autocast = partial(torch.autocast, self.device.type, dtype, enabled=dtype != torch.float32)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=options.precision == 'fp16')
        self.losses = build_losses(
            options,
            self.net.num_labels,
            self.net.in_channels * self.net.sample_size**2,
            decode=lambda latents: self.pixel_codec.decode(latents),
        )
        self.objective = Objective(self.losses.to(self.device), options, self.alpha_bar)
        self.gradient = BatchGradient(
            self.net_g, self.objective, autocast, self.scaler, options.accumulation, self.opt['dist']
        )
        optimizer = dict(self.opt['train']['optim_g'])
        self.optimizer_g = self.get_optimizer(optimizer.pop('type'), self.trained, **optimizer)
        self.optimizers.append(self.optimizer_g)
        self.setup_schedulers()
        get_root_logger().info(
            'MinimaxDiT: %s.',
            training_cost(
                self.net, autocast, self.data_options.batch_size_per_gpu, options.accumulation, options.total_iter
            ),
        )

    def feed_data(self, data: dict[str, Any]) -> None:
        """Take a batch of a LatentPatchDataset.

        Raises:
            InputError: the latents are not of the network's shape.
        """
        _check_shape(data['latent'], (self.net.in_channels, self.net.sample_size, self.net.sample_size))
        self.batch = {key: value.to(self.device, non_blocking=True) for key, value in data.items()}

    def optimize_parameters(self, current_iter: int) -> None:
        """One step of the optimizer; the batch is cut into ``accumulation`` parts, twice as many if memory runs out.

        Raises:
            FloatingPointError: a loss term, or the gradient, is not finite; names it, and leaves weights, averages and
                memories untouched.
            InputError: the GPU's memory does not suffice.
        """
        log_gradients = current_iter % self.opt['logger']['print_freq'] == 0
        try:
            terms = self.gradient(self.batch, log_gradients)
        except FloatingPointError as error:
            raise _not_finite(current_iter, str(error)) from error
        self._step(current_iter)
        self.log_dict = self.reduce_loss_dict(terms)

    def _step(self, current_iter: int) -> None:
        """Take the step; averages and memories follow where it is taken."""
        self.scaler.unscale_(self.optimizer_g)
        norm = torch.nn.utils.clip_grad_norm_(self.trained, self.train_options.clip_grad_norm or math.inf)
        # Under fp16 an overflow is expected now and then: the scaler skips the step and lowers its scale.
        if not self.scaler.is_enabled() and not torch.isfinite(norm):
            raise _not_finite(current_iter, 'the gradient')
        scale = self.scaler.get_scale()
        self.scaler.step(self.optimizer_g)
        self.scaler.update()
        if self.scaler.get_scale() >= scale:
            update_average(self.average, self.trained)
            self.objective.commit()

    @cached_property
    def data_codec(self) -> Codec:
        """The codec of the training set."""
        return build_codec(self.data_options.codec, Path(self.data_options.latents_dir or '')).to(self.device)

    @cached_property
    def pixel_codec(self) -> Codec:
        """The codec whose decoder the ``pixel`` high-frequency loss looks through."""
        section = self.train_options.high_frequency_opt
        if section is None or section.pixel_codec is None:
            return self.data_codec
        return build_codec(section.pixel_codec).to(self.device)

    def _averages(self) -> dict[str, Tensor]:
        return dict(zip(self.net.trained_state(), self.average.shadow_params))

    def dist_validation(self, dataloader: Any, current_iter: int, tb_logger: Any, save_img: bool) -> None:
        """Rank 0 alone validates."""
        if self.opt['rank'] == 0:
            self.nondist_validation(dataloader, current_iter, tb_logger, save_img)

    def nondist_validation(self, dataloader: Any, current_iter: int, tb_logger: Any, save_img: bool) -> None:
        """Noise errors on the set with fixed noise, and with ``save_img`` a grid of samples per label."""
        name, max_timestep = dataloader.dataset.opt['name'], self.train_options.max_timestep
        self.net_g.eval()
        with averaged_weights(self.average, self.trained):
            self.metric_results = noise_errors(self.net, dataloader.dataset, self.alpha_bar, max_timestep, self.device)
            if save_img:
                grid, figures = sample_grid(self.net, dataloader.dataset, self.data_codec, max_timestep, self.device)
                self.metric_results.update(figures)
                save_grid(Path(self.opt['path']['visualization']) / f'{name}_{current_iter}.png', grid)
                if tb_logger:
                    tb_logger.add_image(f'samples/{name}', grid, current_iter)
        self.net_g.train()
        figures_text = ', '.join(f'{key} {value:.4f}' for key, value in self.metric_results.items())
        get_root_logger().info('Validation %s: %s', name, figures_text)
        if tb_logger:
            for key, value in self.metric_results.items():
                tb_logger.add_scalar(f'metrics/{name}/{key}', value, current_iter)

    def save(self, epoch: int, current_iter: int) -> None:
        """Write ``net_g_<iter>.pth`` and the training state."""
        self.save_network(
            [_Weights(self.net.trained_state()), _Weights(self._averages())],
            'net_g',
            current_iter,
            param_key=['params', 'params_ema'],
        )
        self.save_training_state(epoch, current_iter)

    def extra_state(self) -> dict[str, Any]:
        """What resuming needs beside optimizer and scheduler."""
        return {
            'average_updates': self.average.optimization_step,
            'losses': self.losses.state_dict(),
            'scaler': self.scaler.state_dict(),
        }

    def load_extra_state(self, state: dict[str, Any]) -> None:
        """Put back what :meth:`extra_state` gave."""
        self.average.optimization_step = state['average_updates']
        self.losses.load_state_dict(state['losses'])
        self.scaler.load_state_dict(state['scaler'])


class _Weights:
    """What BasicSR's ``save_network`` asks of a network."""

    def __init__(self, state: dict[str, Tensor]) -> None:
        self._state = state

    def state_dict(self) -> dict[str, Tensor]:
        return dict(self._state)


def _check_shape(latents: Tensor, shape: tuple[int, int, int]) -> None:
    got = tuple(latents.shape[1:])
    if got != shape:
        raise InputError(
            f'network_g: takes latents of shape {list(shape)}, the codec makes {list(got)} '
            'from these patches; correct in_channels and sample_size, or patch_size of the extract stage.'
        )


def _not_finite(current_iter: int, what: str) -> FloatingPointError:
    return FloatingPointError(
        f'Iteration {current_iter}: {what} is not finite; the last checkpoint is kept. Lower the '
        'learning rate, set train.clip_grad_norm or use precision: fp32.'
    )


def _network_to_train(section: dict[str, Any]) -> Any:
    if section['tuning'] == 'none':
        raise InputError('network_g.tuning: none leaves nothing to train; set difffit, lora or full.')
    return build_network(section)
