"""Jaw and lips of a face: weights from where the points of its mouth lie, and from its scores (no paper section).

Beta's reading of the whole mesh says how a mouth is at most times, but shrinks how it moves; its scores move too much or too
little. Where lips and chin lie against the nose tells nearly all of it, on photographs as on rendered heads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

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


def by_name(told: dict[str, Any], names: Sequence[str], other: Any) -> list[Any]:
    """What is told of each weight, of both sides together, or the `other`."""
    return [told.get(name.removesuffix("Left").removesuffix("Right"), other) for name in names]


WIDENS = {"mouthSmile": 0.139, "mouthStretch": 0.13, "mouthFrown": 0.037, "mouthDimple": 0.017} | {
    "mouthPucker": -0.182,
    "mouthFunnel": -0.134,
    "jawOpen": -0.112,
}
_OPENS = {"jawOpen": 0.65, "mouthFunnel": 0.27, "mouthUpperUp": 0.07, "mouthLowerDown": 0.067, "mouthRollLower": -0.074}
"""How much a weight of 1, of one side where there are two, widens and opens a mouth, in widths: measured on the head model."""

SHOWN = np.stack([by_name(told, MOUTH_WEIGHTS, 0.0) for told in (WIDENS, _OPENS)], axis=1).astype(np.float32)
_TAKEN = np.stack(by_name({"jawOpen": (0, 1), "mouthPucker": (-0.2, 0), "mouthStretch": (1, 0)}, MOUTH_WEIGHTS, (0, 0)))
_TAKING = (np.linalg.inv(_TAKEN.T @ SHOWN) @ _TAKEN.T).astype(np.float32)
"""``(Q, 2)`` how much each of `MOUTH_WEIGHTS` widens and opens a mouth; ``(2, Q)`` those that take up what the others lack."""

_ENDS, _WIDTH, _EYE = np.array([[61, 291], [33, 133], [263, 362]]), np.float32(0.104), np.float32(0.056)
"""Points at both ends of the mouth and of the eyes, and how wide these are, about, scene units."""

_MEASURED, _BELIEVED = 0.6, 0.3
"""So much width and opening as measured count beside what weights say of them, and so much the scores of smiles and puckers
beside what points say: on films of people they tell more than these, on rendered heads as much or little less."""

_SCORED = [MOUTH_WEIGHTS.index(name) for name in ("mouthSmileLeft", "mouthSmileRight", "mouthPucker")]
_SCORES, _SCALES = (
    [BLENDSHAPE_NAMES.index(MOUTH_WEIGHTS[place]) for place in _SCORED],
    np.array([1.33, 1.33, 1.0], np.float32),
)
"""Weights per score as of rendered heads."""


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
        told: np.ndarray = mouth_features(turned, scores) @ self.weight + self.bias
        told[:, _SCORED] += _BELIEVED * (scores[:, _SCORES] * _SCALES - told[:, _SCORED])
        return told + _MEASURED * (mouth_sizes(turned) - told @ SHOWN) @ _TAKING


def mouth_sizes(turned: np.ndarray) -> np.ndarray:
    """Meshes as of :func:`mouth_features` -> ``(N, 2)`` float32: how much wider than usual and how far open mouths are."""
    ends = turned[:, _ENDS, :2]
    mouth, *eyes = np.moveaxis(np.linalg.norm(ends[:, :, 1] - ends[:, :, 0], axis=-1), 1, 0)
    open_by = turned[:, 14, 1] - turned[:, 13, 1]
    size = np.sqrt((eyes[0] + eyes[1]) / (2.0 * _EYE)) * _WIDTH  # as much by the eyes as by the face
    return np.stack([mouth / size - 1.0, open_by / size], axis=-1)


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
