"""The loops of ``basicsr train`` and ``basicsr test``, and what is checked before them."""
