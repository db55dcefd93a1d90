"""Metrics; importing this package registers them with BasicSR."""
