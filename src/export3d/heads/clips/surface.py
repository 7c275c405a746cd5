"""Points of the skin, eyes and teeth that keep their place on the surface from frame to frame: exact correspondences.

Where the same point lies in two frames of a clip says how the surface moved between them. Training uses it to teach the
pixel-aligned lookup where a point of the driving frame lay in the portrait (not in the paper).
"""

from __future__ import annotations

import functools

import numpy as np
import torch
from torch import Tensor

from export3d.errors import HeadModelError
from export3d.heads.look.identity import Identity, to_world
from export3d.heads.shape.parametric import ParametricHead

NUM_POINTS = 1024
"""Points of a clip's `surface` array."""

_LOWEST_CM = -8.5  # below it the neck may follow the torso, which no expression explains
_SHARES = {
    ("mouth",): 0.30,
    ("eyes",): 0.16,
    ("face", "head_neck"): 0.36,
    ("sclera_left", "sclera_right"): 0.08,
    ("teeth", "gums_tongue"): 0.10,
}
_MOUTH_REACH_CM, _EYE_REACH_CM = 2.0, 1.4


@functools.lru_cache(maxsize=4)
def surface_vertices(head: ParametricHead) -> Tensor:
    """``(NUM_POINTS,)`` vertices, denser around mouth and eyes; the same for every identity of a head model.

    Raises:
        HeadModelError: The head has too few vertices above the neck.
    """
    rng = np.random.default_rng(20)
    landmarks = head.vertices[head.landmark_vertices]
    skin = head.vertices_of("face", "head_neck") & (head.vertices[:, 1] > _LOWEST_CM)
    pools: dict[str, Tensor] = {}
    for name, points, reach in (
        ("mouth", landmarks[48:68], _MOUTH_REACH_CM),
        ("eyes", landmarks[36:48], _EYE_REACH_CM),
    ):
        pools[name] = skin & (torch.cdist(head.vertices, points).amin(1) < reach)
    chosen = torch.zeros(len(head.vertices), dtype=torch.bool)
    for names, share in _SHARES.items():
        pool = pools[names[0]] if names[0] in pools else head.vertices_of(*names) & (head.vertices[:, 1] > _LOWEST_CM)
        free = (pool.cpu() & ~chosen).nonzero()[:, 0].numpy()
        count = min(len(free), round(share * NUM_POINTS))
        chosen[torch.from_numpy(rng.permutation(free)[:count])] = True
    rest = (skin.cpu() & ~chosen).nonzero()[:, 0].numpy()
    missing = NUM_POINTS - int(chosen.sum())
    if missing > len(rest):
        raise HeadModelError(
            f"head model '{head.name}': {NUM_POINTS} surface points need as many vertices above the neck; "
            f"got {int(chosen.sum()) + len(rest)}."
        )
    chosen[torch.from_numpy(rng.permutation(rest)[: max(missing, 0)])] = True
    return chosen.nonzero()[:NUM_POINTS, 0].to(head.vertices.device)


def surface_points(identity: Identity, weights: Tensor, gaze: Tensor) -> Tensor:
    """``(T, NUM_POINTS, 3)`` places of the surface points in scene units (the head's frame).

    Args:
        weights: ``(T, 53)`` total expression weights.
        gaze: ``(T, 2)`` radians, as in :meth:`Identity.vertices`.
    """
    return to_world(identity.vertices(weights, gaze)[:, surface_vertices(identity.head)])
