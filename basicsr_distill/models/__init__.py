"""Models, in ``*_model.py``; ``host.hooks`` registers them with BasicSR."""
