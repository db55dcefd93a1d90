"""Sections of an option file as models, one module a family."""
