"""Jaw and lips of a face: weights from where the points of its mouth lie, and from its scores (no paper section).

Beta's reading of the whole mesh says how a mouth is at most times, but shrinks how it moves; its scores move too much or too
little. Where lips and chin lie against the nose tells nearly all of it, on photographs as on rendered heads.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import ClassVar

import numpy as np

from export3d.face_state import ARKIT_NAMES
from export3d.tracking.faces import BLENDSHAPE_NAMES
from export3d.tracking.head_fit import HeadFit
from export3d.tracking.linear_map import LinearMap
from export3d.tracking.mesh_regressor import Template

NOSE = 2
"""Under its tip: the point of the mesh from which the others are measured."""

_SIDES = ((61, 291), (78, 308), (37, 267), (39, 269), (81, 311), (178, 402), (84, 314), (181, 405), (50, 280))
LIPS = (13, 14, 0, 17, 152, *(point for pair in _SIDES for point in pair))
"""Points of the mesh: the middles of the inner and outer lips, the chin, then pairs of image left and right: outer and inner
corners, upper and lower edges, cheeks."""

MIRROR_LIPS = (*range(5), *(5 + (place ^ 1) for place in range(2 * len(_SIDES))))
"""Point i of the mirrored mouth is point [i] of the mouth."""

_FRONT = np.array([1.0, -1.0, -1.0], np.float32)  # from the axes of the world to those of a picture

MOUTH_SCORES = tuple(place for place, name in enumerate(BLENDSHAPE_NAMES) if name.startswith(("jaw", "mouth")))
"""Which of the 52 scores count."""

MOUTH_WEIGHTS = tuple(
    name
    for name in ARKIT_NAMES
    if name == "jawOpen"
    or (name.startswith("mouth") and name not in ("mouthClose", "mouthShrugLower", "mouthShrugUpper"))
)
"""What is read; of the others, which the points hardly show, the scores stay."""

COLUMNS = [ARKIT_NAMES.index(name) for name in MOUTH_WEIGHTS]


@dataclass(frozen=True, kw_only=True)
class MouthMap(LinearMap):
    """The map from :func:`mouth_features` to `MOUTH_WEIGHTS`. It knows the change of a face better than its level."""

    NAME, COMMAND, VERSION = "mouth", "train-mouth", "1"
    SHAPES: ClassVar[dict[str, tuple[int, ...]]] = {
        "weight": (3 * len(LIPS) + len(MOUTH_SCORES), len(MOUTH_WEIGHTS)),
        "bias": (len(MOUTH_WEIGHTS),),
    }

    def read(self, turned: np.ndarray, scores: np.ndarray) -> np.ndarray:
        """`MOUTH_WEIGHTS` ``(N, Q)`` of faces, about 0 to 1 and not cut off there; arguments as of :func:`mouth_features`."""
        return mouth_features(turned, scores) @ self.weight + self.bias


def mouth_features(turned: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Meshes ``(N, 478, 3)`` that face the front, and scores ``(N, 52)`` -> ``(N, P)`` float32."""
    lips = turned[:, list(LIPS)] - turned[:, [NOSE]]
    return np.concatenate([lips.reshape(len(turned), -1), scores[:, list(MOUTH_SCORES)]], axis=1).astype(np.float32)


def facing_front(mesh: np.ndarray) -> np.ndarray:
    """Meshes ``(N, 478, 3)`` as `Face.mesh` with the head's pose and size taken out; x right, y down, scene units."""
    return _front().turned(mesh.astype(np.float32))[0]


@cache
def _front() -> Template:
    fit = HeadFit.load()
    return Template(fit.template * _FRONT, fit.weight)
