"""Sections of an option file as models, one module a family: what a key means is the description of its field."""
