"""``MinimaxDiTModel``: trains the denoiser on latents with the minimax losses. Orchestration only."""

import math
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from basicsr.archs import build_network
from basicsr.losses import build_loss
from basicsr.models.base_model import BaseModel
from basicsr.utils import get_root_logger
from basicsr.utils.registry import MODEL_REGISTRY
from torch import Tensor

from basicsr_distill.config.registry import bind_dataset
from basicsr_distill.config.sections import LatentPatchDatasetOptions, MinimaxDiTTrainOptions, bind
from basicsr_distill.diffusion.codec import Codec, build_codec
from basicsr_distill.diffusion.ema import ParameterAverage
from basicsr_distill.diffusion.process import (
    add_noise,
    linear_alpha_bar,
    predict_x0,
    simple_loss,
    variational_bound,
)
from basicsr_distill.diffusion.step_cost import estimate_step
from basicsr_distill.diffusion.validation import noise_errors, sample_grid, save_grid
from basicsr_distill.errors import InputError
from basicsr_distill.io.weights import load_weights
from basicsr_distill.runtime.precision import DTYPES


@MODEL_REGISTRY.register()
class MinimaxDiTModel(BaseModel):
    """Fine-tunes (or trains) ``network_g: MinimaxDiT`` on a LatentPatchDataset.

    L = L_simple (+ L_vlb where the variance is learned) + L_representativeness + L_diversity + L_high-frequency; see
    :class:`~basicsr_distill.config.sections.MinimaxDiTTrainOptions` for the ``train`` section. Checkpoints hold the trained
    parameters alone, as ``params`` and, averaged, ``params_ema``.

    Source: Cho et al. (2025), Eq. 6.

    Raises:
        InputError: latents do not fit the network, or the weights cannot be read.
    """

    def __init__(self, opt: dict[str, Any]) -> None:
        super().__init__(opt)
        self.net_g = self.model_to_device(build_network(opt['network_g']))
        self.net = self.get_bare_model(self.net_g)
        self.data_options: LatentPatchDatasetOptions = bind_dataset(opt['datasets']['train'])
        self.average = ParameterAverage(self.net.trained_state())
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
        self.average.set(weights.get('params_ema', state))

    def _init_training(self) -> None:
        self.train_options = bind(MinimaxDiTTrainOptions, self.opt['train'], 'train')
        self.net_g.train()
        if self.train_options.compile:
            self.net_g.compile()
        dtype = DTYPES[self.train_options.precision]
        self.autocast = partial(torch.autocast, self.device.type, dtype, enabled=dtype != torch.float32)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.train_options.precision == 'fp16')
        self.num_parts = self.train_options.accumulation
        self.trained = [parameter for parameter in self.net.parameters() if parameter.requires_grad]
        self.losses = self._build_losses()
        optimizer = dict(self.opt['train']['optim_g'])
        self.optimizer_g = self.get_optimizer(optimizer.pop('type'), self.trained, **optimizer)
        self.optimizers.append(self.optimizer_g)
        self.setup_schedulers()
        self._tell_cost()

    def _tell_cost(self) -> None:
        """Log what is trained and what it will take."""
        count, trained = (sum(p.numel() for p in ps) for ps in (self.net.parameters(), self.trained))
        x_t = torch.zeros(1, self.net.in_channels, self.net.sample_size, self.net.sample_size, device=self.device)
        zero = torch.zeros(1, dtype=torch.int64, device=self.device)

        def run() -> Tensor:
            with self.autocast():
                return self.net(x_t, zero, zero).float()

        estimate = estimate_step(self.net, run)
        get_root_logger().info(
            'MinimaxDiT: %.2f of %.2f million parameters are trained; %s.', trained / 1e6, count / 1e6,
            estimate.describe(self.data_options.batch_size_per_gpu, self.train_options.accumulation,
                              self.train_options.total_iter))

    def _build_losses(self) -> torch.nn.ModuleDict:
        """The terms beside L_simple; their memories are part of the training state."""
        options = self.train_options
        data = {'num_labels': self.net.num_labels, 'latent_dim': self.net.in_channels * self.net.sample_size**2}
        sections = {'representativeness': (options.representativeness_opt, data),
                    'diversity': (options.diversity_opt, data), 'high_frequency': (options.high_frequency_opt, {})}
        losses = torch.nn.ModuleDict()
        for name, (section, arguments) in sections.items():
            if section is not None and section.loss_weight > 0 and getattr(section, 'mode', None) != 'off':
                losses[name] = build_loss({**section.model_dump(exclude={'pixel_codec'}), **arguments})
        return losses.to(self.device)

    def feed_data(self, data: dict[str, Any]) -> None:
        """Take a batch of a LatentPatchDataset.

        Raises:
            InputError: the latents are not of the network's shape.
        """
        shape = (self.net.in_channels, self.net.sample_size, self.net.sample_size)
        if tuple(data['latent'].shape[1:]) != shape:
            raise InputError(f'network_g: takes latents of shape {list(shape)}, the codec makes {list(data["latent"].shape[1:])} '
                             'from these patches; correct in_channels and sample_size, or patch_size of the extract stage.')
        self.batch = {key: value.to(self.device, non_blocking=True) for key, value in data.items()}

    def optimize_parameters(self, current_iter: int) -> None:
        """One step of the optimizer; the batch is cut into ``accumulation`` parts, once twice as many if memory runs out.

        Raises:
            FloatingPointError: a loss term, or the gradient, is not finite; names it, and leaves the weights untouched.
            InputError: the GPU's memory does not suffice.
        """
        try:
            self._train(current_iter)
        except torch.OutOfMemoryError as error:
            halved = 2 * self.train_options.accumulation
            # One rank alone must not change its ways: the others would wait for collectives that it skips.
            if self.opt['dist'] or self.num_parts == halved or halved > len(self.batch['label']):
                raise InputError(f'train.accumulation: out of GPU memory with {self.num_parts} part(s) a batch; set '
                                 f'{2 * self.num_parts} or more, network_g.gradient_checkpointing: true or a smaller '
                                 'batch.') from error
            self.num_parts = halved
            get_root_logger().warning('Out of GPU memory: batches are now cut into %d parts; set train.accumulation: %d.',
                                      halved, halved)
            torch.cuda.empty_cache()
            self._train(current_iter)

    def _train(self, current_iter: int) -> None:
        parts = self._parts()
        log_gradients = current_iter % self.opt['logger']['print_freq'] == 0
        self.optimizer_g.zero_grad(set_to_none=True)
        total: dict[str, Tensor] = OrderedDict()
        for number, part in enumerate(parts):
            last = number == len(parts) - 1
            with nullcontext() if last or not self.opt['dist'] else self.net_g.no_sync():
                terms, output = self._terms(part)
                self._check_finite(terms, current_iter)
                if last and log_gradients:
                    total.update(_gradient_norms(terms, output))
                self.scaler.scale(torch.stack(list(terms.values())).sum() / len(parts)).backward()
            for name, value in terms.items():
                total[name] = total.get(name, 0) + value.detach() / len(parts)
        self._step(current_iter)
        self.log_dict = self.reduce_loss_dict(total)

    def _parts(self) -> list[dict[str, Tensor]]:
        count = min(self.num_parts, len(self.batch['label']))
        chunks = {key: value.tensor_split(count) for key, value in self.batch.items()}
        return [{key: value[number] for key, value in chunks.items()} for number in range(count)]

    def _terms(self, part: dict[str, Tensor]) -> tuple[dict[str, Tensor], Tensor]:
        """The weighted loss terms of a part of the batch, and the network's output."""
        options = self.train_options
        x0, labels = part['latent'], part['label']
        timesteps = (part['time'] * options.max_timestep).long()
        alpha_bar_t = self.alpha_bar[timesteps]
        x_t = add_noise(x0, part['noise'], alpha_bar_t)
        with self.autocast():
            output = self.net_g(x_t, timesteps, labels, drop_mask=part['drop'] < options.label_dropout)
        output = output.float()
        eps_pred = output[:, : x0.shape[1]]
        x0_pred = predict_x0(x_t, eps_pred, alpha_bar_t)

        terms = OrderedDict(l_simple=simple_loss(eps_pred, part['noise'], alpha_bar_t, options.min_snr_gamma))
        if self.net.learns_variance and options.vlb_weight > 0:
            terms['l_vlb'] = options.vlb_weight * variational_bound(
                x0, x_t, timesteps, eps_pred, output[:, x0.shape[1]:], self.alpha_bar)
        if 'representativeness' in self.losses:
            terms['l_representativeness'] = self.losses['representativeness'](x0_pred, x0, labels, alpha_bar_t)
        if 'diversity' in self.losses:
            terms['l_diversity'] = self.losses['diversity'](x0_pred, labels, alpha_bar_t)
        if 'high_frequency' in self.losses:
            terms['l_high_frequency'] = self.losses['high_frequency'](
                x0_pred, x0, alpha_bar_t, timesteps, decode=lambda latents: self.pixel_codec.decode(latents))
        return terms, output

    def _step(self, current_iter: int) -> None:
        self.scaler.unscale_(self.optimizer_g)
        limit = self.train_options.clip_grad_norm or math.inf
        norm = torch.nn.utils.clip_grad_norm_(self.trained, limit)
        scale = self.scaler.get_scale()
        # Under fp16 an overflow is expected now and then: the scaler skips the step and halves its scale.
        if not self.scaler.is_enabled():
            self._check_finite({'the gradient': norm}, current_iter)
        self.scaler.step(self.optimizer_g)
        self.scaler.update()
        if self.scaler.get_scale() >= scale:
            self.average.update(self.net.trained_state(), self.train_options.ema_decay, self.train_options.ema_warmup)

    def _check_finite(self, terms: dict[str, Tensor], current_iter: int) -> None:
        values = torch.stack([value.detach() for value in terms.values()])
        if not torch.isfinite(values).all():
            bad = [name for name, value in terms.items() if not torch.isfinite(value)]
            raise FloatingPointError(f'Iteration {current_iter}: {" and ".join(bad)} is not finite; the last checkpoint '
                                     'is kept. Lower the learning rate, set train.clip_grad_norm or use precision: fp32.')

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

    @contextmanager
    def averaged_weights(self) -> Iterator[None]:
        """The averaged parameters in the network's place."""
        live = {name: value.clone() for name, value in self.net.trained_state().items()}
        self.net.load_trained_state(self.average.state_dict(), 'average')
        try:
            yield
        finally:
            self.net.load_trained_state(live, 'live')

    def dist_validation(self, dataloader: Any, current_iter: int, tb_logger: Any, save_img: bool) -> None:
        """Rank 0 alone validates."""
        if self.opt['rank'] == 0:
            self.nondist_validation(dataloader, current_iter, tb_logger, save_img)

    def nondist_validation(self, dataloader: Any, current_iter: int, tb_logger: Any, save_img: bool) -> None:
        """Noise errors on the set with fixed noise, and with ``save_img`` a grid of samples per label."""
        name = dataloader.dataset.opt['name']
        self.net_g.eval()
        with self.averaged_weights():
            self.metric_results = noise_errors(self.net, dataloader.dataset, self.alpha_bar,
                                               self.train_options.max_timestep, self.device)
            if save_img:
                grid, figures = sample_grid(self.net, dataloader.dataset, self.data_codec, self.device)
                self.metric_results.update(figures)
                path = Path(self.opt['path']['visualization']) / f'{name}_{current_iter}.png'
                save_grid(path, grid)
                if tb_logger:
                    tb_logger.add_image(f'samples/{name}', grid, current_iter)
        self.net_g.train()
        get_root_logger().info('Validation %s: %s', name, ', '.join(
            f'{key} {value:.4f}' for key, value in self.metric_results.items()))
        if tb_logger:
            for key, value in self.metric_results.items():
                tb_logger.add_scalar(f'metrics/{name}/{key}', value, current_iter)

    def save(self, epoch: int, current_iter: int) -> None:
        """Write ``net_g_<iter>.pth`` and the training state."""
        self.save_network([_Weights(self.net.trained_state()), _Weights(self.average.state_dict())], 'net_g',
                          current_iter, param_key=['params', 'params_ema'])
        self.save_training_state(epoch, current_iter)

    def extra_state(self) -> dict[str, Any]:
        """What resuming needs beside optimizer and scheduler."""
        return {'average_updates': self.average.updates, 'losses': self.losses.state_dict(),
                'scaler': self.scaler.state_dict()}

    def load_extra_state(self, state: dict[str, Any]) -> None:
        """Put back what :meth:`extra_state` gave."""
        self.average.updates = state['average_updates']
        self.losses.load_state_dict(state['losses'])
        self.scaler.load_state_dict(state['scaler'])


class _Weights:
    """What BasicSR's ``save_network`` asks of a network."""

    def __init__(self, state: dict[str, Tensor]) -> None:
        self._state = state

    def state_dict(self) -> dict[str, Tensor]:
        return dict(self._state)


def _gradient_norms(terms: dict[str, Tensor], output: Tensor) -> dict[str, Tensor]:
    """Norm of each term's gradient at the network's output: how strongly it pulls."""
    norms = {}
    for name, value in terms.items():
        (gradient,) = torch.autograd.grad(value, output, retain_graph=True, allow_unused=True)
        norms[name.replace('l_', 'g_', 1)] = value.new_zeros(()) if gradient is None else gradient.norm()
    return norms
