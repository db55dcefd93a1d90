"""The last stage: the trained denoiser draws images for every label, and a distilled set is published.

Images are drawn in fixed micro-batches, each from its own seed, and kept one by one, so that interruptions, ranks and
devices do not change which set comes out. Then the ones to keep are chosen and published with their LR partners.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from basicsr_distill.archs.minimax_dit_arch import MinimaxDiT, load_trained
from basicsr_distill.config.sections import ClusterOptions, PrototypeInitOptions, SampleOptions
from basicsr_distill.data.latent_patch_dataset import LatentPatchDataset
from basicsr_distill.diffusion.codec import build_codec, to_uint8
from basicsr_distill.diffusion.sampler import image_generator, sample_latents
from basicsr_distill.errors import InputError
from basicsr_distill.features.encoders import Encoder, build_encoder, encode_images
from basicsr_distill.io.figures import save_montage
from basicsr_distill.io.files import sha256_file, write_atomic
from basicsr_distill.io.images import is_whole_png, read_rgb, write_png
from basicsr_distill.io.manifest import (
    HR_FOLDER,
    IMAGES_FOLDER,
    MANIFEST_NAME,
    META_INFO_NAME,
    SampleRow,
    write_csv,
    write_meta_info,
    write_metadata,
    write_table,
)
from basicsr_distill.ops.bicubic import make_lr
from basicsr_distill.ops.psnr import psnr_after_bicubic
from basicsr_distill.runtime import distributed
from basicsr_distill.runtime.precision import DTYPES
from basicsr_distill.runtime.progress import progress
from basicsr_distill.selection.coverage import distance_to_others, herding, k_center, nearest
from basicsr_distill.selection.kmeans import cluster, distances
from basicsr_distill.stages.cluster import FEATURES_NAME
from basicsr_distill.stages.dataset_card import CardFacts, dataset_card
from basicsr_distill.stages.record import StageRun, fingerprint_stage, photo_folders, read_stage, refuse_overlap
from basicsr_distill.stages.sharding import own_parts, shared_stage_folder

CARD_NAME = 'README.md'
NEAREST_NAME = 'nearest.csv'
_MONTAGE_COLUMNS = 10
_CLOSEST_PAIRS = 8
# Patches whose nearest other patch is sought, for comparison.
_PROBES = 128

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Draw:
    """One image to draw. prototype: index of the patch that it starts from, or None for noise."""

    label: int
    index: int
    prototype: int | None

    @property
    def name(self) -> str:
        return f'label{self.label:03d}_{self.index:05d}.png'


@dataclass(frozen=True)
class _Candidate:
    """An image that was drawn, with its score."""

    draw: _Draw
    rgb: NDArray[np.uint8]
    psnr_db: float


def run(options: SampleOptions, host: dict[str, Any]) -> Path:
    """Draw and publish a distilled set.

    Args:
        options: of the stage.
        host: option dictionary of the training that it samples from.

    Returns:
        ``options.save_dir``, holding HR/, LR_bicubic/X<scale>/, manifest.csv, meta_info.txt, metadata.csv, nearest.csv (the
        real patch most like each image), README.md, montage.png, nearest.png and stage.json.

    Raises:
        InputError: nothing was trained there, or the folder holds the work of other options or inputs.
        OSError: the disk is full.
    """
    checkpoint = Path(host['path']['models']) / 'net_g_latest.pth'
    if not checkpoint.is_file():
        raise InputError(f'{checkpoint}: no such checkpoint; run the finetune stage (or `basicsr train`) first.')
    section = host['datasets']['train']
    if host['network_g'].get('type') != 'MinimaxDiT' or section.get('type') != 'LatentPatchDataset':
        raise InputError('sample: network_g must be a MinimaxDiT and datasets.train a LatentPatchDataset.')
    refuse_overlap(options.save_dir, photo_folders(Path(section['dataroot'])), 'sample.save_dir')
    inputs = {'checkpoint': sha256_file(checkpoint), 'patches': fingerprint_stage(Path(section['dataroot'])),
              'clusters': fingerprint_stage(Path(section['labels_file']).parent)}
    folder = Path(options.save_dir)
    with shared_stage_folder(folder, 'sample', options.model_dump(mode='json'), inputs) as stage:
        if not stage.finished:
            _Sampling(options, host, checkpoint, stage).run()
    return folder


class _Sampling:
    """One run of the stage, on one rank."""

    def __init__(self, options: SampleOptions, host: dict[str, Any], checkpoint: Path, stage: StageRun) -> None:
        self.options = options
        self.host = host
        self.checkpoint = checkpoint
        self.stage = stage
        self.folder = stage.folder
        self.patches = LatentPatchDataset(host['datasets']['train'])
        self.patches.prepare()
        clusters = Path(self.patches.options.labels_file).parent
        self.features: NDArray[np.float32] = np.load(clusters / FEATURES_NAME, allow_pickle=False)
        self.encoder_options = ClusterOptions(**read_stage(clusters)['options']).encoder
        self.labels = np.array(self.patches.labels)
        self.device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')

    def run(self) -> None:
        """Draw this rank's images; rank 0 publishes all."""
        draws = self._plan()
        self.stage.parts.mkdir(exist_ok=True)
        encoder: Encoder | None = None
        with distributed.broadcast_failure():
            if distributed.is_main():
                # Needed last, but what is missing for it must be known before the long work.
                encoder = build_encoder(self.encoder_options)
        with distributed.broadcast_failure():
            self._draw_own(draws)
        with distributed.broadcast_failure():
            if encoder is not None:
                self._publish(draws, encoder)

    # Drawing

    def _plan(self) -> list[_Draw]:
        count = self.options.images_per_cluster
        draws = []
        for label in np.unique(self.labels).tolist():
            prototypes: list[int] = []
            if isinstance(self.options.init, PrototypeInitOptions):
                prototypes = self._prototypes(label, count)
            for index in range(count * self.options.oversample):
                draws.append(_Draw(label, index, prototypes[index % len(prototypes)] if prototypes else None))
        return draws

    def _prototypes(self, label: int, count: int) -> list[int]:
        """The label's patches nearest to the centres of ``count`` clusters of its features."""
        members = np.flatnonzero(self.labels == label)
        if len(members) <= count:
            return members.tolist()
        centers = cluster(self.features[members], count, self.options.seed).centers
        chosen: list[int] = []
        for column in distances(self.features[members], centers).T:
            order = members[np.argsort(column, kind='stable')]
            chosen.append(next(int(member) for member in order if member not in chosen))
        return chosen

    def _draw_own(self, draws: Sequence[_Draw]) -> None:
        pending = [part for _, part in own_parts(draws, self.options.batch_size)
                   if not all(is_whole_png(self._candidate_path(draw)) for draw in part)]
        if not pending:
            return
        network, codec = self._network(), build_codec(
            self.patches.options.codec, Path(str(self.patches.options.latents_dir))).to(self.device)
        dtype = DTYPES[self.options.precision]

        def denoise(x_t: Tensor, timesteps: Tensor, labels: Tensor, drop_mask: Tensor | None = None) -> Tensor:
            return network(x_t.to(dtype), timesteps, labels, drop_mask)

        shape = (network.in_channels, network.sample_size, network.sample_size)
        options = self.options
        strength = options.init.strength if isinstance(options.init, PrototypeInitOptions) else 1.0
        with progress(sum(len(part) for part in pending), 'sample: draw', 'image') as bar:
            for part in pending:
                labels = torch.tensor([draw.label for draw in part], device=self.device)
                generators = [image_generator(options.seed, draw.label, draw.index) for draw in part]
                start = None
                if isinstance(options.init, PrototypeInitOptions):
                    start = torch.stack([self.patches.latent_mean(draw.prototype or 0) for draw in part])
                latents = sample_latents(denoise, labels, shape, generators, options, network.learns_variance, start,
                                         strength)
                with torch.inference_mode():
                    pixels = codec.decode(latents)
                if not torch.isfinite(pixels).all():
                    raise InputError('sample.precision: the images are not finite; use fp32 or bf16.')
                for draw, rgb in zip(part, to_uint8(pixels)):
                    write_png(self._candidate_path(draw), rgb)
                bar.update(len(part))

    def _network(self) -> MinimaxDiT:
        network = load_trained(self.host['network_g'], self.checkpoint, self.options.weights)
        if self.labels.max() >= network.num_labels:
            raise InputError(f'network_g.num_labels: the patches have labels up to {self.labels.max()}.')
        return network.requires_grad_(False).eval().to(self.device, DTYPES[self.options.precision])

    def _candidate_path(self, draw: _Draw) -> Path:
        return self.stage.parts / draw.name

    # Choice and publication

    def _publish(self, draws: Sequence[_Draw], encoder: Encoder) -> None:
        candidates = [_Candidate(draw, rgb, score) for draw, rgb, score in self._scored(draws)]
        features = encode_images(encoder, [candidate.rgb for candidate in candidates])
        chosen, counts = self._choose(candidates, features)
        kept = [candidates[number] for number in chosen]
        for candidate in kept:
            self._write_pair(candidate)
        self._write_tables(kept, features[chosen])
        facts = self._facts(kept, features[chosen])
        self.stage.finish(counts, [MANIFEST_NAME, META_INFO_NAME, NEAREST_NAME],
                          figures=['montage.png', 'nearest.png'], **facts)

    def _scored(self, draws: Sequence[_Draw]) -> list[tuple[_Draw, NDArray[np.uint8], float]]:
        metric = self.patches.rows[0].metric
        scored = []
        for draw in draws:
            rgb = read_rgb(self._candidate_path(draw))
            pixels = torch.from_numpy(rgb).permute(2, 0, 1)[None].float() / 255
            scored.append((draw, rgb, float(psnr_after_bicubic(pixels, self.options.scale, metric)[0])))  # type: ignore
        return scored

    def _choose(self, candidates: Sequence[_Candidate],
                features: NDArray[np.float32]) -> tuple[list[int], dict[str, int]]:
        """Indices of the candidates to keep, label after label in the order drawn, and counts by reason."""
        low, high = -np.inf, np.inf
        if self.options.psnr_band is not None:
            low, high = np.quantile([row.psnr_db for row in self.patches.rows], self.options.psnr_band)
        counts = {'images_drawn': len(candidates), 'images_flat': 0, 'images_outside_psnr_band': 0, 'images_not_chosen': 0}
        chosen: list[int] = []
        for label in np.unique(self.labels).tolist():
            own = [number for number, candidate in enumerate(candidates) if candidate.draw.label == label]
            textured = [number for number in own if np.isfinite(candidates[number].psnr_db)]
            inside = [number for number in textured if low <= candidates[number].psnr_db <= high]
            count = self.options.images_per_cluster
            if len(inside) < count and len(inside) < len(textured):
                log.warning('Label %d: %d of %d images lie in the PSNR band; the nearest others fill up the %d.', label,
                            len(inside), len(own), count)
                outside = sorted(set(textured) - set(inside), key=lambda number: max(
                    low - candidates[number].psnr_db, candidates[number].psnr_db - high))
                inside = sorted(inside + outside[:count - len(inside)])
            picked = inside[:count]
            if self.options.select != 'first' and len(inside) > count:
                select = herding if self.options.select == 'herding' else k_center
                picks = select(features[inside], self.features[self.labels == label], count)
                picked = sorted(inside[pick] for pick in picks)
            chosen += picked
            counts['images_flat'] += len(own) - len(textured)
            counts['images_outside_psnr_band'] += len(textured) - len(inside)
            counts['images_not_chosen'] += len(inside) - len(picked)
        if not chosen:
            raise InputError('sample: every image drawn is flat; train longer or lower init.strength.')
        return chosen, {**counts, 'images_kept': len(chosen)}

    def _write_pair(self, candidate: _Candidate) -> None:
        for path, rgb in ((self.folder / HR_FOLDER, candidate.rgb),
                          (self._lr_folder(), make_lr(candidate.rgb, self.options.scale))):
            path.mkdir(parents=True, exist_ok=True)
            write_png(path / candidate.draw.name, rgb)

    def _lr_folder(self) -> Path:
        return self.folder / 'LR_bicubic' / f'X{self.options.scale}'

    def _write_tables(self, kept: Sequence[_Candidate], features: NDArray[np.float32]) -> None:
        digest = sha256_file(self.checkpoint)
        names = [row.name for row in self.patches.rows]
        make = partial(SampleRow, seed=self.options.seed, checkpoint_sha256=digest,
                       guidance_scale=self.options.guidance_scale, metric=self.patches.rows[0].metric)
        rows = [make(name=item.draw.name, label=item.draw.label, index=item.draw.index, psnr_db=item.psnr_db,
                     prototype='' if item.draw.prototype is None else names[item.draw.prototype]) for item in kept]
        write_table(self.folder / MANIFEST_NAME, rows, SampleRow)
        write_meta_info(self.folder / META_INFO_NAME, [row.name for row in rows], kept[0].rgb.shape)
        write_metadata(self.folder, rows, self._lr_folder())

        index, distance = nearest(features, self.features)
        alike = [(item.draw.name, names[patch], f'{gap:.6g}', f'{_psnr_db(item.rgb, self._patch(patch)):.4f}')
                 for item, patch, gap in zip(kept, index.tolist(), distance.tolist())]
        write_csv(self.folder / NEAREST_NAME, ('name', 'patch', 'feature_distance', 'psnr_db'), alike)
        closest = np.argsort(distance, kind='stable')[:_CLOSEST_PAIRS]
        save_montage(self.folder / 'nearest.png', [[kept[number].rgb for number in closest],
                                                   [self._patch(int(index[number])) for number in closest]])
        self._write_montage(kept)

    def _write_montage(self, kept: Sequence[_Candidate]) -> None:
        labels = sorted({item.draw.label for item in kept})
        save_montage(self.folder / 'montage.png', [[item.rgb for item in kept if item.draw.label == label]
                                                   [:_MONTAGE_COLUMNS] for label in labels])

    def _patch(self, number: int) -> NDArray[np.uint8]:
        return read_rgb(self.patches.dataroot / IMAGES_FOLDER / self.patches.rows[number].name)

    def _facts(self, kept: Sequence[_Candidate], features: NDArray[np.float32]) -> dict[str, Any]:
        """Figures for stage.json, after the dataset card was written from them."""
        real = self.features
        probes = np.arange(0, len(real), -(-len(real) // _PROBES))
        as_many = np.random.default_rng(self.options.seed).permutation(len(real))[:len(kept)]
        facts = {'psnr_db': _quantiles([item.psnr_db for item in kept]),
                 'patches_psnr_db': _quantiles([row.psnr_db for row in self.patches.rows]),
                 'nearest_patch': _quantiles(nearest(features, real)[1]),
                 'patches_nearest_patch': _quantiles(distance_to_others(real, probes)),
                 'coverage': _quantiles(nearest(real, features)[1]),
                 'patches_coverage': _quantiles(nearest(real, real[as_many])[1])}
        card = dataset_card(CardFacts(
            name=self.host['name'], num_images=len(kept), num_labels=len({item.draw.label for item in kept}),
            size_px=kept[0].rgb.shape[0], scale=self.options.scale, metric=self.patches.rows[0].metric,
            options=self.options, network=self.host['network_g'], codec=self.patches.options.codec,
            encoder=self.encoder_options, **facts))
        write_atomic(self.folder / CARD_NAME, card)
        return facts


def _quantiles(values: Sequence[float] | NDArray[Any]) -> dict[str, float]:
    return {name: round(float(np.quantile(values, q)), 4) for name, q in (('q05', 0.05), ('median', 0.5), ('q95', 0.95))}


def _psnr_db(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    """PSNR of two images, at most 100 dB."""
    error = float(np.square(a.astype(np.float64) - b).mean())
    return min(100.0, 10 * np.log10(255**2 / max(error, 1e-9)))
