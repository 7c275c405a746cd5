"""PyTorch for commands that make one picture or film: a fifth of its import is for exports and compilers alone."""

from __future__ import annotations

import sys
from types import ModuleType

SHAPES = "torch._meta_registrations"
"""Tells what operations would give without running them."""


def import_pytorch() -> None:
    """Import PyTorch without `SHAPES`, which nothing that really calculates asks for. Who does gets it: a later import of it is
    the true one. Nothing happens where PyTorch is imported already."""
    if "torch" in sys.modules:
        return
    sys.modules[SHAPES] = ModuleType(SHAPES)
    try:
        import torch
    finally:
        del sys.modules[SHAPES]
    name = SHAPES.rpartition(".")[2]
    if hasattr(torch, name):
        delattr(torch, name)
