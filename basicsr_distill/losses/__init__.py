"""Losses registered with BasicSR: representativeness, diversity, high frequencies."""

from basicsr_distill.losses.diversity_loss import DiversityLoss
from basicsr_distill.losses.high_frequency_loss import HighFrequencyLoss
from basicsr_distill.losses.representativeness_loss import RepresentativenessLoss

__all__ = ['DiversityLoss', 'HighFrequencyLoss', 'RepresentativenessLoss']
