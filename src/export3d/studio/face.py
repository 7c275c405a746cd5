"""A face made by hand: what the sliders say, as the state and camera that the animator takes; keyframes as a motion file."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Annotated

import numpy as np
import torch
from msgspec import Meta

from export3d.animation import Subject
from export3d.animation.framing import turned_by
from export3d.animation.sweep import basis_ends, require_basis
from export3d.animation.transfer import relative_camera
from export3d.camera import Camera
from export3d.errors import UsageError
from export3d.face_state import ARKIT_NAMES, FaceState
from export3d.portrait import Model, PortraitModel
from export3d.tracking import ExtractorInfo, Motion

GROUPS = {"Brows": "brow", "Eyes": "eye", "Jaw": "jaw", "Mouth": "mouth", "Nose": "nose"}
"""Title of a group of sliders -> how the names of its weights begin."""

KEYFRAME_FPS = Fraction(25)
LONGEST_S = 600.0

Weight = Annotated[float, Meta(ge=-0.5, le=1.5)]
Degrees = Annotated[float, Meta(ge=-90.0, le=90.0)]


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What is asked of a portrait; what is left out stays as it is in the photo.

    Attributes:
        weights: ARKit name -> about 0 to 1; of the paper's model `v1` and so on, where 0 and 1 are the ends of that basis
            vector's sweep.
        gaze: degrees that the eyes turn to the image right and up, from where they look.
        turn: degrees that the head turns on its neck: to the image right, down, and sideways.
        orbit: degrees that the camera goes round the person: as if all of it turned to the image right, and down.
        nearer: how much nearer the camera comes; 1.25 shows the face a quarter larger.
    """

    weights: dict[str, Weight] = field(default_factory=dict)
    gaze: tuple[Degrees, Degrees] = (0.0, 0.0)
    turn: tuple[Degrees, Degrees, Degrees] = (0.0, 0.0, 0.0)
    orbit: tuple[Degrees, Degrees] = (0.0, 0.0)
    nearer: Annotated[float, Meta(ge=0.6, le=1.6)] = 1.0


@dataclass(frozen=True, kw_only=True)
class Keyframe:
    """A wish at a time, seconds."""

    time_s: Annotated[float, Meta(ge=0.0, le=LONGEST_S)]
    wish: Wish


def read_weights(model: Model) -> list[str]:
    """What the model listens to: ARKit names in its order, or the basis vectors of the paper's model."""
    if not isinstance(model, PortraitModel):
        return list(basis_ends(model))
    return list(dict.fromkeys(ARKIT_NAMES[column] for part in model.cues.shapes for column in part._columns))


def sliders(model: Model, subject: Subject) -> list[dict[str, object]]:
    """Groups of sliders with the portrait's own values, JSON-ready: ``{title, weights: [{name, value}]}``."""
    own, titles = dict[str, float](), GROUPS
    if subject.state.weights is not None:
        own.update(zip(ARKIT_NAMES, subject.state.weights[0].tolist(), strict=True))
    if ends := basis_ends(model):
        found = require_basis(model).coefficients(subject.state.beta)[0].tolist()
        own = {name: (found[int(name[1:]) - 1] - first) / (last - first) for name, (first, last) in ends.items()}
        titles = {"Basis": "v"}
    known = [name for name in list(ends) or read_weights(model) if math.isfinite(own.get(name, math.nan))]
    values = {name: round(min(max(own[name], 0.0), 1.0), 3) for name in known}
    groups = {
        t: [{"name": n, "value": v} for n, v in values.items() if n.startswith(begin)] for t, begin in titles.items()
    }
    return [{"title": title, "weights": weights} for title, weights in groups.items() if weights]


def posed(model: Model, subject: Subject, wish: Wish) -> tuple[FaceState, np.ndarray]:
    """The face (B = 1) and the camera ``(25,)`` of a wish.

    Raises:
        UsageError: A weight that the model does not know.
    """
    state = _with_weights(model, subject.state, wish.weights)
    if any(wish.gaze):
        own = torch.zeros(1, 2) if subject.state.gaze is None else subject.state.gaze.nan_to_num()
        state = replace(state, gaze=own + torch.tensor([[math.radians(angle) for angle in wish.gaze]]))
    yaw, pitch, roll = wish.turn
    if any(wish.turn):
        state = replace(state, turn=turned_by(state, _moved(subject, yaw, pitch, roll, 0.0)).turn)
    nearer = Camera.look_at_head().to_vector()[0, 11].item() * (1.0 / wish.nearer - 1.0)
    return state, _moved(subject, yaw + wish.orbit[0], pitch + wish.orbit[1], roll, nearer)


def keyframe_motion(
    keyframes: Sequence[Keyframe], *, model: Model, subject: Subject, extractor: ExtractorInfo
) -> Motion:
    """A motion that goes in straight lines from keyframe to keyframe, 25 frames a second.

    Raises:
        UsageError: No keyframe, or two at one time.
    """
    ordered = sorted(keyframes, key=lambda frame: frame.time_s)
    times = [frame.time_s for frame in ordered]
    if not ordered or len(set(times)) < len(times):
        raise UsageError("keyframes: expected at least one, each at a time of its own. Move or remove one of them.")
    moments = np.arange(times[0], times[-1] + 1e-9, float(1 / KEYFRAME_FPS))
    poses = [posed(model, subject, _between(ordered, moment)) for moment in moments]
    states = FaceState.cat([state for state, _ in poses])
    frames = len(moments)
    return Motion(
        beta=states.beta.numpy(),
        camera=np.stack([camera for _, camera in poses]),
        confidence=np.ones(frames, dtype=np.float32),
        found=np.ones(frames, dtype=bool),
        landmarks=np.zeros((frames, 68, 2), dtype=np.float32),
        time_s=moments - times[0],
        fps=KEYFRAME_FPS,
        extractor=extractor,
        gaze=None if states.gaze is None else states.gaze.numpy(),
    )


def _with_weights(model: Model, own: FaceState, wanted: dict[str, float]) -> FaceState:
    """The portrait's face with other weights or coefficients, and with the least change of beta that says the same."""
    if not wanted:
        return own
    ends = basis_ends(model)
    known = list(ends) or read_weights(model)
    unknown = sorted(set(wanted) - set(known))
    if unknown or (own.weights is None and isinstance(model, PortraitModel)):
        raise UsageError(
            f"this model does not know the weights {', '.join(unknown or wanted)}. It knows: {', '.join(known) or 'none'}."
        )
    if not isinstance(model, PortraitModel):
        basis = require_basis(model)
        coefficients = basis.coefficients(own.beta)
        for name, value in wanted.items():
            first, last = ends[name]
            coefficients[:, int(name[1:]) - 1] = first + value * (last - first)
        return replace(own, beta=basis.nearest_beta(coefficients, own.beta))
    assert own.weights is not None
    weights = own.weights.clone()
    for name, value in wanted.items():
        weights[0, ARKIT_NAMES.index(name)] = value
    columns = [column for part in model.cues.shapes for column in part._columns]
    reads = torch.cat([part.weight for part in model.cues.shapes], dim=1).cpu()  # (64, S)
    change = (weights - own.weights).nan_to_num()[:, columns]
    return replace(own, weights=weights, beta=own.beta + change @ torch.linalg.pinv(reads, rtol=0.02))


def _moved(subject: Subject, yaw: float, pitch: float, roll: float, nearer: float) -> np.ndarray:
    """The portrait's camera after the head turned by so many degrees and the camera went nearer, scene units."""
    angles = (math.radians(angle) for angle in (yaw, pitch, roll))
    seen = Camera.look_at_head(*angles, shift=torch.tensor([[0.0, 0.0, nearer]]))
    still, moved = (camera.to_vector()[0].numpy() for camera in (Camera.look_at_head(), seen))
    return relative_camera(moved, still, subject.camera)


def _between(ordered: Sequence[Keyframe], moment: float) -> Wish:
    """The wish of a moment between keyframes; a weight that one of two neighbours leaves out counts as the other's."""
    times = [frame.time_s for frame in ordered]
    after = min(int(np.searchsorted(times, moment)), len(ordered) - 1)
    before = max(after - 1, 0)
    gap = times[after] - times[before]
    share = 1.0 if gap == 0.0 else (moment - times[before]) / gap
    first, last = ordered[before].wish, ordered[after].wish

    def mixed(a: Sequence[float], b: Sequence[float]) -> tuple[float, ...]:
        return tuple(x + share * (y - x) for x, y in zip(a, b, strict=True))

    names = [*first.weights, *(name for name in last.weights if name not in first.weights)]
    pairs = {
        n: (first.weights.get(n, last.weights.get(n, 0.0)), last.weights.get(n, first.weights.get(n, 0.0)))
        for n in names
    }
    return Wish(
        weights={name: mixed((a,), (b,))[0] for name, (a, b) in pairs.items()},
        gaze=mixed(first.gaze, last.gaze),  # type: ignore[arg-type]
        turn=mixed(first.turn, last.turn),  # type: ignore[arg-type]
        orbit=mixed(first.orbit, last.orbit),  # type: ignore[arg-type]
        nearer=mixed((first.nearer,), (last.nearer,))[0],
    )
