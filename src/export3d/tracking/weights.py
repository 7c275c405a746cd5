"""Single expression weights of a tracked face: the face tracker's scores, but jaw, lips and brows by where their points lie."""

from __future__ import annotations

import numpy as np

from export3d.tracking import brows, mouth
from export3d.tracking.faces import Face, arkit_weights_of
from export3d.tracking.mouth import MouthMap, facing_front


def weights_of(face: Face, lips: MouthMap) -> np.ndarray:
    """`FaceState.weights` ``(52,)`` float32: those of jaw, lips and brows change as the face does, from a level that is each
    person's own and may lie below 0. The scores alone, NaN where there are none, of a tracker that gives no mesh."""
    weights = arkit_weights_of(face)
    if face.mesh is not None and face.blendshapes is not None:
        turned = facing_front(face.mesh[None])
        weights[mouth.COLUMNS] = lips.read(turned, face.blendshapes[None])[0]
        weights[brows.COLUMNS] = brows.brow_weights(turned[0])
    return weights
