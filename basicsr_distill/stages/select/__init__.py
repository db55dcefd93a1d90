"""Real patches chosen as a set: what a drawn set has to beat."""
