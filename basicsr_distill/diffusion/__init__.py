"""Diffusion on image latents: noise process, codec, denoiser, sampler. Knows diffusers, not BasicSR."""
