"""Corners of a mouth that go as far as the driver's: what the model leaves of their way is added where its rays look.

The model moves the corners of a photograph's mouth about two thirds as far as it is told, and hardly when lips pucker. A ray
finds a place of the portrait, and where it met the skin is where that place has moved to. What is left of the way that single
weights ask of a corner is taken off the places around it, so that rays there read the photograph from farther back.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from export3d.animation.head import rising
from export3d.animation.lips import Rays, found_places
from export3d.camera import Camera
from export3d.face_state import ARKIT_NAMES, FaceState
from export3d.landmarks import MOUTH_CORNERS
from export3d.model import Render
from export3d.portrait.state import DrivenPlanes
from export3d.rendering.rays import cast_rays, met_at
from export3d.tracking.mouth import WIDENS

_UPWARDS = {"mouthSmile": 0.207, "mouthDimple": 0.054, "mouthFrown": -0.09, "mouthStretch": -0.06}
"""How far a weight of 1 lifts a corner of the mouth, in widths of it: measured on the head model."""

_SIDES = {"Right": -1.0, "Left": 1.0}
"""Of the person, and where x grows."""

_ASIDE, _LIFT = 1.3, 0.5
"""How far corners go of that, sideways in all and upwards beside what the model does: the readings of photographs are shrunk.
Chosen on 8 portraits and 12 clips; upwards the model's own way cannot be told from the jaw's."""

_BACK = np.array([0.4, 0.0])
"""So much counts, aside and up, of a weight that falls below the portrait's own: how far a face smiles in its photograph is
read too high, and mouths that lose all of it looked puckered."""

_MOST = np.array([0.12, 0.17])
"""No corner is carried farther aside and up than so many widths: lips that are drawn in more look crumpled."""

_AROUND = np.array([0.12, 0.15])
"""Standard deviation of a corner's own place along and across the mouth, widths."""

_BEYOND, _ABOVE, _BELOW = 1.15, 0.4, 0.7
"""So far from the mouth's middle nothing moves along it, above and below it, widths: nose and chin stay."""


@dataclass(frozen=True)
class Bend:
    """Where a portrait's mouth ends, and how its weights stand there.

    Attributes:
        corners: ``(2, 2)`` x and y of the person's right and left one in the head, scene units.
        width: between them.
        weights: ``(52,)`` the portrait's own.
        rest: ``(2,)`` how far aside they are found to have moved in the portrait itself, widths.
        shown: ``(2,)`` how many rays find them there.
    """

    corners: np.ndarray
    width: float
    weights: np.ndarray
    rest: np.ndarray
    shown: np.ndarray

    @staticmethod
    def of(own: Render, camera: Camera, state: FaceState, landmarks: np.ndarray) -> Bend | None:
        """From the portrait in its own `state`, seen by its `camera`, and its landmarks ``(68, 2)`` in [0, 1] of the picture;
        None where its weights are unknown, or rays do not find both corners."""
        if state.weights is None or own.guide is None:
            return None
        rays = Rays.of(own)
        away = np.linalg.norm(rays.seen - landmarks.astype(np.float64)[MOUTH_CORNERS][:, None, None], axis=-1)
        near = np.exp(-0.5 * (away * len(rays.seen)) ** 2) * rays.met  # a ray's own width around
        total = near.sum(axis=(1, 2))
        if total.min() < 1.0:
            return None
        corners = np.einsum("kij,ijc->kc", near, rays.points[..., :2]) / total[:, None]
        bend = Bend(
            corners=corners,
            width=float(np.linalg.norm(corners[1] - corners[0])),
            weights=state.weights[0].double().cpu().numpy(),
            rest=np.zeros(2),
            shown=np.ones(2),
        )
        met = met_at(cast_rays(camera, own.depth.shape[-1]), own.depth)[0].double().cpu().numpy()
        rest, shown = bend._moved(rays.points[rays.met], np.moveaxis(met, 0, -1)[rays.met])
        return replace(bend, rest=rest, shown=shown) if shown.min() > 1.0 else None

    def told(self, driven: DrivenPlanes, state: FaceState) -> DrivenPlanes:
        """The portrait in this state (B = 1), its corners carried as far as the state says."""
        if state.weights is None:
            return driven
        change = np.nan_to_num(state.weights[0].double().cpu().numpy() - self.weights)
        change = np.where(change[:, None] < 0.0, _BACK, 1.0) * change[:, None]
        asked = np.einsum("wc,wkc->kc", change, _CARRIED)
        return replace(driven, bend=lambda guide, opacity, met: self._bent(guide, opacity, met, asked))

    def _bent(self, guide: Tensor, opacity: Tensor, met: Tensor, asked: np.ndarray) -> Tensor:
        """As `DrivenPlanes.bend`."""
        places, share = (values.reshape(-1, *values.shape[2:]) for values in found_places(guide, opacity))
        away = np.abs(places[:, :2] - self.corners.mean(axis=0)) / self.width
        near = np.flatnonzero((share > 0.5) & (away < (_BEYOND, _BELOW)).all(axis=-1))
        at = places[near]
        moved, shown = self._moved(at, met[0].flatten(1).T[torch.from_numpy(near)].double().cpu().numpy())
        left = np.stack([_ASIDE * asked[:, 0] - (moved - self.rest), _LIFT * asked[:, 1]], axis=-1)
        left = left.clip(-_MOST, _MOST) * (2.0 * shown / self.shown).clip(max=1.0)[:, None]
        change = np.zeros_like(at[:, :2])
        for _ in range(4):  # until what is carried here is what lies that far back
            change = self._carried(at[:, :2] - change, left)
        bent = guide.clone()
        bent[0, :2].flatten(1)[:, torch.from_numpy(near)] -= torch.from_numpy((change * share[near, None]).T).to(guide)
        return bent

    def _moved(self, places: np.ndarray, met: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """How far aside each corner is found to have moved ``(2,)``, widths, and by how many rays, from places ``(N, 3)`` and
        where they were met."""
        away = (places[:, None, :2] - self.corners) / (self.width * _AROUND)
        near = np.exp(-0.5 * (away**2).sum(axis=-1))
        shown = near.sum(axis=0)
        return (met[:, 0] - places[:, 0]) @ near / shown.clip(min=1e-6) / self.width, shown

    def _carried(self, places: np.ndarray, left: np.ndarray) -> np.ndarray:
        """How far places ``(N, 2)`` go ``(N, 2)`` when the corners go `left` ``(2, 2)`` widths: lips are drawn out between
        them, and all beside them comes to rest."""
        s, t = ((places - self.corners.mean(axis=0)) / self.width).T
        far = rising(1.0 - np.where(t > 0.0, t / _ABOVE, -t / _BELOW))
        out = np.zeros_like(places)
        for side, way in zip(_SIDES.values(), left, strict=True):
            along = np.clip(2.0 * side * s, 0.0, 1.0)
            beside = rising((_BEYOND - side * s) / (_BEYOND - 0.5)) * far * self.width
            out += np.stack([along, along**2], axis=-1) * beside[:, None] * way
        return out


def _table() -> np.ndarray:
    """``(52, 2, 2)``: how far each weight carries both corners, x and y in widths."""
    carried = np.zeros((len(ARKIT_NAMES), len(_SIDES), 2))
    for place, (name, way) in enumerate(_SIDES.items()):
        for weight, wider in WIDENS.items():
            sided = weight + name in ARKIT_NAMES
            carried[ARKIT_NAMES.index(weight + name * sided), place, 0] = way * wider / (2 - sided)
        for weight, far in _UPWARDS.items():
            carried[ARKIT_NAMES.index(weight + name), place, 1] = far
    return carried


_CARRIED = _table()
