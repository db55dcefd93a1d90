"""Models, in ``*_model.py``; ``host.registration`` registers them with BasicSR."""
