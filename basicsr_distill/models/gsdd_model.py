"""``GSDDModel``: latents behind a frozen SR generator, trained until their images match the real ones on average."""

from collections import OrderedDict
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from basicsr.archs import build_network
from basicsr.archs.vgg_arch import VGGFeatureExtractor
from basicsr.models.base_model import BaseModel
from basicsr.utils import get_root_logger
from basicsr.utils.registry import MODEL_REGISTRY
from numpy.typing import NDArray
from torch import Tensor, nn

from basicsr_distill.config.sections.base import bind
from basicsr_distill.config.sections.gsdd import GSDDTrainOptions, RandomConvOptions, Vgg19Options
from basicsr_distill.data.labelled_patch_dataset import LabelledPatchDataset
from basicsr_distill.diffusion.denoiser_quality import save_grid
from basicsr_distill.errors import InputError
from basicsr_distill.io.weights import load_weights
from basicsr_distill.losses.distribution_matching import (
    distribution_distance,
    mean_pairwise_cosine,
    random_features,
)
from basicsr_distill.losses.memory import gather_batch
from basicsr_distill.ops.bicubic import bicubic_downsample, bicubic_upsample
from basicsr_distill.ops.siamese_augmentation import augment, draw_augmentation
from basicsr_distill.runtime import distributed
from basicsr_distill.selection.random_choice import choose_random


@MODEL_REGISTRY.register()
class GSDDModel(BaseModel):
    """Trains ``network_g: LatentImages`` on a LabelledPatchDataset; nothing else moves.

    L = mean over the labels of a batch of ||mean psi(A(T_c)) - mean psi(A(G(Z_c)))||^2 + lambda mean cosine(Z_c): T_c
    real patches of the label, Z_c its latents, which start as LR patches of it, G the frozen generator, A one
    augmentation for both, psi the frozen extractor. Labels that are not in the batch keep their latents. See
    :class:`~basicsr_distill.config.sections.GSDDTrainOptions` for the ``train`` section. What an iteration draws
    depends on ``manual_seed`` and its number alone.

    Source: Zhang et al. (AAAI 2024), "GSDD", whose code is not public; iterations, learning rate and extractor are
    ours.

    Raises:
        InputError: labels, latents, patches and generator do not fit each other, or weights cannot be read.
    """

    def __init__(self, opt: dict[str, Any]) -> None:
        super().__init__(opt)
        self.train_options = bind(GSDDTrainOptions, opt['train'], 'train')
        self.net_g = build_network(opt['network_g']).to(self.device)
        self.generator = build_generator(self.train_options, opt['scale'], self.device)
        self.extractor = _build_extractor(self.train_options.extractor).to(self.device)
        self.log_dict: dict[str, float] = OrderedDict()
        if path := opt['path'].get('pretrain_network_g'):
            self.load_network(self.net_g, path, strict=True, param_key='params')
        else:
            self._start_from_patches()
        # The same memory, label by label: an optimizer leaves alone what has no gradient, its moments included.
        self.label_images = [nn.Parameter(images) for images in self.net_g.images.detach()]
        optimizer = dict(opt['train']['optim_g'])
        self.optimizer_g = self.get_optimizer(optimizer.pop('type'), self.label_images, **optimizer)
        self.optimizers.append(self.optimizer_g)
        self.setup_schedulers()

    def _start_from_patches(self) -> None:
        """Let every latent be the LR image of a patch of its label, drawn with ``manual_seed``."""
        patches, latents = LabelledPatchDataset(self.opt['datasets']['train']), self.net_g.images
        labels = np.array(patches.labels)
        if labels.max() >= len(latents):
            raise InputError(
                f'network_g.num_labels: the patches have labels up to {labels.max()}; set num_labels: '
                f'{labels.max() + 1}.'
            )
        for label in range(len(latents)):
            members = np.flatnonzero(labels == label)
            if len(members) < latents.shape[1]:
                raise InputError(
                    f'network_g.images_per_label: label {label} has {len(members)} patches, fewer than '
                    f'{latents.shape[1]}; use fewer images or labels.'
                )
            chosen = choose_starts(labels, label, latents.shape[1], self.opt['manual_seed'])
            lr = torch.stack([bicubic_downsample(patches[int(index)]['gt'], self.opt['scale']) for index in chosen])
            if lr.shape != latents[label].shape:
                raise InputError(
                    f'network_g.size_px: the patches make LR images of {lr.shape[-1]} px at scale '
                    f'{self.opt["scale"]}; set size_px: {lr.shape[-1]}.'
                )
            latents.data[label] = lr.to(self.device)

    def feed_data(self, data: dict[str, Any]) -> None:
        """Take a batch of a LabelledPatchDataset; every rank sees that of all."""
        real, labels = (data[key].to(self.device, non_blocking=True) for key in ('gt', 'label'))
        self.real, self.labels = gather_batch(real, labels)

    def optimize_parameters(self, current_iter: int) -> None:
        """One step; label after label, so that memory holds the images of one."""
        images = self.net_g.images
        images.grad = torch.zeros_like(images)
        present = self.labels.unique().tolist()
        total = {name: self.real.new_zeros(()) for name in ('l_match', 'l_diversity')}
        # Labels share nothing, so that ranks may share them out: gradients of different ranks meet zeros alone.
        for label in present[distributed.rank() :: distributed.world_size()]:
            terms = self._terms(label, current_iter)
            (torch.stack(list(terms.values())).sum() / len(present)).backward()
            for name, value in terms.items():
                total[name] += value.detach() * distributed.world_size() / len(present)
        if self.opt['dist']:
            torch.distributed.all_reduce(images.grad)
        for label, own in enumerate(self.label_images):
            own.grad = images.grad[label] if label in present else None
        self.optimizer_g.step()
        self.log_dict = self.reduce_loss_dict(total)

    def _terms(self, label: int, current_iter: int) -> dict[str, Tensor]:
        """The weighted terms of a label."""
        words = np.random.SeedSequence([self.opt['manual_seed'], current_iter, label]).generate_state(2)
        generator = torch.Generator().manual_seed(int(words[0]) << 31 ^ int(words[1]))
        change = draw_augmentation(generator, self.train_options.cutout)
        latents = self.net_g(label)
        order = torch.randperm(len(latents), generator=generator).to(self.device)
        latents = latents[order[: self.train_options.synthetic_batch].sort().values]
        with torch.no_grad():
            wanted = self.extractor(augment(self.real[self.labels == label], change))
        found = self.extractor(augment(self.generator(latents), change))
        return {
            'l_match': distribution_distance(wanted, found),
            'l_diversity': self.train_options.diversity_weight * mean_pairwise_cosine(latents),
        }

    @torch.no_grad()
    def synthetic_images(self, label: int) -> Tensor:
        """The images of a label as they are published, (images_per_label, 3, H, W), float32, [0, 1]."""
        return torch.cat([self.generator(latent[None]) for latent in self.net_g(label)]).clamp(0, 1)

    def dist_validation(self, dataloader: Any, current_iter: int, tb_logger: Any, save_img: bool) -> None:
        """Rank 0 alone validates."""
        if self.opt['rank'] == 0:
            self.nondist_validation(dataloader, current_iter, tb_logger, save_img)

    def nondist_validation(self, dataloader: Any, current_iter: int, tb_logger: Any, save_img: bool) -> None:
        """With ``save_img``, the images as they are, a row a label."""
        if save_img:
            rows = [torch.cat(list(self.synthetic_images(label).cpu()), -1) for label in range(len(self.net_g.images))]
            path = Path(self.opt['path']['visualization']) / f'images_{current_iter}.png'
            save_grid(path, torch.cat(rows, -2))

    def resume_training(self, resume_state: dict[str, Any]) -> None:
        """Go on from a training state; one of release 0.1.0 has the moments of all labels in one tensor."""
        for state in resume_state['optimizers']:
            group = state['param_groups'][0]
            if len(group['params']) == 1:
                group['params'], whole = list(range(len(self.label_images))), state['state'].get(0)
                shape = self.net_g.images.shape
                state['state'] = (
                    {}
                    if whole is None
                    else {
                        label: {
                            key: value[label] if torch.is_tensor(value) and value.shape == shape else deepcopy(value)
                            for key, value in whole.items()
                        }
                        for label in group['params']
                    }
                )
        super().resume_training(resume_state)

    def save(self, epoch: int, current_iter: int) -> None:
        """Write ``net_g_<iter>.pth``, the latents, and the training state."""
        self.save_network(self.net_g, 'net_g', current_iter)
        self.save_training_state(epoch, current_iter)


def choose_starts(labels: NDArray[np.int64], label: int, count: int, seed: int) -> list[int]:
    """Indices of the patches of a label that its latents start from."""
    members = np.flatnonzero(labels == label)
    return members[choose_random(len(members), count, seed)].tolist()


def build_generator(
    options: GSDDTrainOptions, scale: int, device: torch.device | None = None
) -> Callable[[Tensor], Tensor]:
    """The frozen network from latents (N, 3, h, w) to images (N, 3, scale * h, scale * w).

    Raises:
        InputError: the file of its weights is damaged or not of this network.
    """
    if options.generator is None:
        get_root_logger().warning('GSDD: no train.generator: latents are enlarged by bicubic interpolation.')
        return lambda latents: bicubic_upsample(latents, scale)
    generator = build_network(dict(options.generator))
    states = load_weights(str(options.generator_weights))
    try:
        generator.load_state_dict(states.get('params_ema', states.get('params', states)))
    except RuntimeError as error:
        raise InputError(
            f'train.generator_weights: {options.generator_weights}: not of {options.generator["type"]} '
            f'({str(error).splitlines()[-1].strip()[:160]}).'
        ) from error
    return generator.requires_grad_(False).eval().to(device or torch.device('cpu'))


def _build_extractor(options: RandomConvOptions | Vgg19Options) -> nn.Module:
    if isinstance(options, RandomConvOptions):
        return random_features(options.seed, options.width, options.depth)
    return _Vgg19(options.layer)


class _Vgg19(nn.Module):
    """Features of a layer of VGG19, as means over a 4x4 grid."""

    def __init__(self, layer: str) -> None:
        super().__init__()
        self.layer = layer
        self.vgg = VGGFeatureExtractor([layer], 'vgg19', use_input_norm=True, range_norm=False)
        self.pool = nn.AdaptiveAvgPool2d(4)

    def forward(self, images: Tensor) -> Tensor:
        """Images (N, 3, H, W) to features (N, D)."""
        return self.pool(self.vgg(images)[self.layer]).flatten(1)
