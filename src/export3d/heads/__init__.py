"""Synthetic talking heads with exact ground truth: parametric head, appearance, renderer, motion, clips (Eq. 11)."""
