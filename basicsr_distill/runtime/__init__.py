"""Processes, threads, precision and random state."""
