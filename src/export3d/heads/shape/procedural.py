"""A small head written in code, with the interface of the imported one (Eq. 11): for tests and runs without any file."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch

from export3d.heads.shape.parametric import EXPRESSION_NAMES, PARTS, ParametricHead
from export3d.heads.shape.procedural_modes import EYES, expression_modes, identity_modes
from export3d.heads.shape.procedural_parts import ears, eyes, joined, mouth, skin_piece
from export3d.heads.shape.procedural_skin import skin_grid


@lru_cache(maxsize=1)
def procedural_head() -> ParametricHead:
    """Build the head: about 2,000 vertices, all parts of :data:`PARTS`, 100 identity and 53 expression modes."""
    skin = skin_grid()
    whole = joined([skin_piece(skin), *ears(), *eyes(skin), *mouth(skin)])
    moving = expression_modes(whole.points[: skin.count], skin.tags)
    expression = moving[:, whole.parents.clip(0)] * whole.factors[None, :, None]
    # Teeth and tongue hang on the jaw alone: they have no parent, but a jaw weight.
    hanging = expression_modes(whole.points, None, whole.jaw)
    expression += np.where(whole.parents[None, :, None] < 0, hanging, 0.0)
    return ParametricHead(
        vertices=_floats(whole.points),
        triangles=_ints(whole.triangles),
        uv=_floats(whole.uv),
        triangle_uv=_ints(whole.triangle_uv),
        part_names=PARTS,
        triangle_part=_ints(whole.triangle_part),
        vertex_part=_ints(whole.vertex_part),
        identity_basis=_floats(identity_modes(whole.points, EYES)),
        expression_basis=_floats(expression),
        expression_names=EXPRESSION_NAMES,
        landmark_vertices=_ints(skin.landmarks()),
        eye_centers=_floats(EYES),
        eye_axes=torch.tensor([[0.0, 0.0, 1.0], [0.0, 0.0, 1.0]]),
        name="procedural",
    )


def _floats(array: np.ndarray) -> torch.Tensor:
    """float32 in steps of 2^-14 cm: another machine's last bit of a sine does not change the head."""
    return torch.from_numpy((np.rint(array * 16384.0) / 16384.0).astype(np.float32))


def _ints(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.int64))
