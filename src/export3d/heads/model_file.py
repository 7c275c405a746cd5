"""Which head model is used: the one given, else the one named by an environment variable, else the one in code."""

from __future__ import annotations

import os
from pathlib import Path

from export3d.heads.parametric import ParametricHead

HEAD_MODEL_VARIABLE = "EXPORT3D_HEAD_MODEL"


def load_head(path: str | Path | None = None) -> ParametricHead:
    """Find and read the head model.

    Args:
        path: An npz of `export3d heads import`; None looks at the environment variable EXPORT3D_HEAD_MODEL, and
            without it builds the procedural head.

    Raises:
        HeadModelError: The file is missing or damaged.
    """
    named = path or os.environ.get(HEAD_MODEL_VARIABLE)
    return ParametricHead.from_npz(named) if named else ParametricHead.procedural()
