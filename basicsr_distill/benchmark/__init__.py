"""``basicsr benchmark``: what sets are worth, by ordinary trainings and tests."""
