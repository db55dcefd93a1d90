"""The last stage: the trained denoiser draws a set."""
