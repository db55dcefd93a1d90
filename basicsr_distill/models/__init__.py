"""Models; importing this package registers them with BasicSR."""
