"""Layers that know nothing of faces."""
