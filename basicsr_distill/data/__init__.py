"""Datasets; importing this package registers them with BasicSR."""

from basicsr_distill.data import distilled_patch_dataset, labelled_patch_dataset, latent_patch_dataset

__all__ = ['distilled_patch_dataset', 'labelled_patch_dataset', 'latent_patch_dataset']
