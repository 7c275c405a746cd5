"""ARKit's shapes as displacements of a mesh, from the model's own warp; blinks from landmarks (`lids.py`).

The warp goes backwards: of a point of the driven head it says where that skin lies in the portrait. A vertex goes to the
point that the warp leads back to the vertex's own place; that point is found by repeated correction.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch

from export3d.face_state import ARKIT_NAMES, FaceState
from export3d.mesh.lids import blink_offsets
from export3d.mesh.surface import HeadMesh, warp
from export3d.portrait import PortraitModel
from export3d.portrait.state import PortraitCode

_STEPS = 6

_LEAST = 1e-3
"""Scene units (half a millimetre): vertices that the warp moves less are not corrected; a shape without others is left out."""


@torch.inference_mode()
def shape_offsets(
    model: PortraitModel,
    code: PortraitCode,
    mesh: HeadMesh,
    *,
    names: Sequence[str] = ARKIT_NAMES,
    landmarks: np.ndarray | None = None,
    progress: Callable[[int], None] | None = None,
) -> dict[str, np.ndarray]:
    """How far each shape at weight 1 moves the vertices ``(V, 3)``, scene units; shapes that move none are left out.

    Args:
        names: of :data:`ARKIT_NAMES`.
        landmarks: ``(68, 2)`` in [0, 1] of the portrait's crop; None: blinks by the warp too, which hardly has any.
        progress: told the number of shapes done.
    """
    own = code.state
    rest = model.cues.weights(own.beta) if own.weights is None else own.weights
    device = code.tokens.device
    start, goal = (torch.from_numpy(a).to(device) for a in (mesh.vertices, mesh.places))
    blinks = {} if landmarks is None else blink_offsets(mesh, landmarks)
    maps = model.cues.maps()
    offsets = {name: offset for name, offset in blinks.items() if name in names}
    for count, name in enumerate([name for name in names if name not in offsets], start=1 + len(offsets)):
        change = torch.zeros(1, len(ARKIT_NAMES))
        change[0, ARKIT_NAMES.index(name)] = 1.0
        state: FaceState = replace(
            own,
            beta=own.beta + maps.beta_change(change).to(device),
            weights=torch.nan_to_num(rest.to(device)) + change.to(device),
        )
        driven = model.drive(code, state)
        offset = goal - warp(model, driven, start)
        some = (offset.norm(dim=1) > _LEAST).nonzero()[:, 0]  # most of a head stays
        for _ in range(_STEPS if len(some) else 0):
            offset[some] += goal[some] - warp(model, driven, start[some] + offset[some])
        if len(some):
            offsets[name] = offset.cpu().numpy()
        if progress is not None:
            progress(count)
    return offsets
