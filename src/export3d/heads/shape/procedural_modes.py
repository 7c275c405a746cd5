"""Identity and expression modes of the procedural head (U_id and U_exp of Eq. 11), as fields over its points."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from export3d.heads.shape.parametric import EXPRESSION_NAMES

LID_RADIUS = 1.62
"""The lids lie on a sphere a little larger than the eyeball (cm), so that they never cut into it."""

EYES = np.array([[3.1, 3.45, 7.95], [-3.1, 3.45, 7.95]])
"""Centres of the eyeballs (cm), left (image right) first."""

NUM_IDENTITY_MODES = 100

_JAW_ANGLE = 0.36  # radians that the jaw turns for jawOpen = 1
_JAW_HINGE = np.array([0.0, 0.5, 0.0])  # below the ears


@dataclass(frozen=True, kw_only=True)
class SkinTags:
    """What the place of a vertex does not say.

    Attributes:
        below_mouth: ``(n,)`` 1 on the lower lip's side of the mouth, 0 on the upper, 0.5 on the line beside it.
        lid_x, lid_top, lid_bottom: ``(k,)`` the rims of the left eye's lids from the inner to the outer corner, cm.
    """

    below_mouth: np.ndarray
    lid_x: np.ndarray
    lid_top: np.ndarray
    lid_bottom: np.ndarray


def smoothstep(start: float, stop: float, value: np.ndarray) -> np.ndarray:
    """0 before `start`, 1 after `stop`, a smooth cubic between; `start` may be larger than `stop`."""
    t = np.clip((value - start) / (stop - start), 0.0, 1.0)
    return t * t * (3.0 - 2.0 * t)


def lift_off_eyes(points: np.ndarray, eyes: np.ndarray) -> np.ndarray:
    """Push points ``(n, 3)`` that are inside a lid sphere forward onto it."""
    lifted = points.copy()
    for centre in eyes:
        beside = ((lifted[:, :2] - centre[:2]) ** 2).sum(1)
        surface = centre[2] + np.sqrt(np.clip(LID_RADIUS**2 - beside, 0.0, None))
        inside = (beside < LID_RADIUS**2) & (lifted[:, 2] > 0.0) & (lifted[:, 2] < surface)
        lifted[inside, 2] = surface[inside]
    return lifted


def identity_modes(points: np.ndarray, eyes: np.ndarray) -> np.ndarray:
    """``(100, n, 3)`` cm: smooth fields, in order of size, that carry the eyeballs along without bending them.

    The first ones have a meaning (width, height, jaw, nose, ...); the rest are waves of rising frequency. Nine
    tenths are symmetric. Modes 1 to 80 hold more than 99 % of the variance, as those of scanned heads do.
    """
    on_face = (points[:, 2] > 0.0) & (points[:, 1] > -9.0)
    modes = []
    for number, displacement in enumerate(_identity_fields()):
        moved = _keep_eyes_rigid(points, eyes, displacement)
        size = 0.32 * (number + 1.0) ** -0.8 * np.exp(-number / 60.0)  # cm, root mean square over the face
        modes.append(moved * size / np.sqrt((moved[on_face] ** 2).sum(1).mean()))
    return np.array(modes)


_Field = Callable[[np.ndarray], np.ndarray]


def _identity_fields() -> list[_Field]:
    rng = np.random.default_rng(20240400636)
    fields = _named_fields()
    while len(fields) < NUM_IDENTITY_MODES:
        number = len(fields)
        wave = rng.normal(size=(3, 3)) * (0.10 + 0.0028 * number)  # radians per cm
        phase = rng.uniform(0.0, 2.0 * np.pi, size=3)
        fields.append(_wave_field(wave, phase, 1.0 if number % 10 != 9 else -1.0))
    return fields


def _wave_field(wave: np.ndarray, phase: np.ndarray, sign: float) -> _Field:
    mirror = np.array([-1.0, 1.0, 1.0])

    def displacement(at: np.ndarray) -> np.ndarray:
        return np.cos(at @ wave.T + phase) + sign * mirror * np.cos(at * mirror @ wave.T + phase)

    return displacement


def _named_fields() -> list[_Field]:
    def near(at: np.ndarray, x: float, y: float, z: float, size: float) -> np.ndarray:
        return np.exp(-((np.abs(at[:, :1]) - x) ** 2 + (at[:, 1:2] - y) ** 2 + (at[:, 2:] - z) ** 2) / size**2)

    def low(at: np.ndarray) -> np.ndarray:
        return smoothstep(3.0, -7.0, at[:, 1:2])

    x, y, z = np.array([1.0, 0, 0]), np.array([0, 1.0, 0]), np.array([0, 0, 1.0])
    return [
        lambda at: at[:, :1] * x * 0.1,  # width
        lambda at: (at[:, 1:2] - 3.0) * y * 0.1,  # height
        lambda at: at[:, 2:] * z * 0.1,  # depth
        lambda at: low(at) * at[:, :1] * x,  # width of the jaw
        lambda at: low(at) * (at[:, 1:2] - 3.0) * y,  # length of the lower face
        lambda at: near(at, 0.0, 0.0, 12.5, 3.0) * z,  # nose
        lambda at: near(at, 0.0, -7.0, 10.0, 3.5) * z,  # chin
        lambda at: near(at, 3.0, 6.2, 9.5, 3.0) * (z - 0.4 * y),  # brow ridge
        lambda at: near(at, 0.0, -3.4, 11.0, 3.0) * (z + at * [0.4, 0.0, 0.0]),  # lips
    ]


def _keep_eyes_rigid(points: np.ndarray, eyes: np.ndarray, displacement: _Field) -> np.ndarray:
    """The field at the points, but near an eyeball the field at its centre."""
    moved = displacement(points)
    at_eyes = displacement(eyes)
    for centre, shift in zip(eyes, at_eyes, strict=True):
        rigid = smoothstep(3.2, LID_RADIUS + 0.1, np.linalg.norm(points - centre, axis=1))[:, None]
        moved = moved + rigid * (shift - moved)
    return moved


def jaw_modes(points: np.ndarray, weight: np.ndarray) -> dict[str, np.ndarray]:
    """The four modes that move the lower jaw as a whole; `weight` ``(n,)`` is how much a point belongs to it."""
    from_hinge = points - _JAW_HINGE
    turned = np.stack([0 * weight, -_JAW_ANGLE * from_hinge[:, 2], _JAW_ANGLE * from_hinge[:, 1]], 1)
    side = np.array([0.8, 0.0, 0.0])
    w = weight[:, None]
    return {"jawOpen": w * turned, "jawForward": w * [0, 0, 0.8], "jawLeft": w * side, "jawRight": -w * side}


def expression_modes(points: np.ndarray, tags: SkinTags | None, jaw: np.ndarray | None = None) -> np.ndarray:
    """``(53, n, 3)`` cm at weight 1, in the order of the names.

    Args:
        points: ``(n, 3)``.
        tags: For skin; None for teeth and tongue, which only follow the jaw.
        jaw: ``(n,)`` weights of the jaw where `tags` is None.
    """
    if tags is None:
        modes = jaw_modes(points, np.zeros(len(points)) if jaw is None else jaw)
    else:
        modes = _skin_modes(points, tags)
    none = np.zeros_like(points)
    return np.array([modes.get(name, none) for name in EXPRESSION_NAMES])


def _jaw_weight(points: np.ndarray, tags: SkinTags) -> np.ndarray:
    """``(n,)`` how far the skin follows the jaw."""
    ax, y, z = np.abs(points[:, 0]), points[:, 1], points[:, 2]
    below = tags.below_mouth
    beside = smoothstep(1.8, 3.6, ax)
    rim = np.clip(ax / 2.2, 0.0, 1.0) * np.exp(-(((y + 3.4) / 1.1) ** 2))  # at the corners both lips follow by half
    lip = below * (1.0 - 0.5 * rim**3) + (1.0 - below) * 0.5 * rim**4 * smoothstep(-1.3, -2.4, y)
    weight = (1.0 - beside) * lip + beside * smoothstep(-1.0, -6.0, y)
    return weight * smoothstep(-12.5, -8.4, y) * smoothstep(-1.5, 4.5, z) * (y < 0.5)


def _skin_modes(points: np.ndarray, tags: SkinTags) -> dict[str, np.ndarray]:
    ax, y, z = np.abs(points[:, 0]), points[:, 1], points[:, 2]
    out = np.sign(points[:, :1])  # away from the midline
    front = smoothstep(2.0, 5.0, z)
    below = tags.below_mouth
    above = 1.0 - below

    def near(x0: float, y0: float, sx: float, sy: float) -> np.ndarray:
        return (np.exp(-(((ax - x0) / sx) ** 2) - ((y - y0) / sy) ** 2) * front)[:, None]

    def push(area: np.ndarray, outward: float, up: float, forward: float) -> np.ndarray:
        return area * np.concatenate([outward * out, np.full_like(out, up), np.full_like(out, forward)], 1)

    lower, upper = below[:, None], above[:, None]
    corner = near(2.4, -3.4, 1.4, 1.3)
    lips = near(0.0, -3.4, 2.6, 1.4)
    weight = _jaw_weight(points, tags)
    modes = jaw_modes(points, weight)
    # Both lips then follow the jaw by the same share, which closes the mouth again.
    turned = jaw_modes(points, np.ones(len(points)))["jawOpen"]
    modes["mouthClose"] = near(0.0, -3.4, 4.5, 1.6) * (0.45 - weight)[:, None] * turned
    narrower = near(0.0, -3.4, 3.6, 1.4) * points * [-0.5, 0.0, 0.0]
    modes["mouthPucker"] = narrower + lips * [0.0, 0.0, 0.7]
    funnel = 0.4 * (above - below)[:, None]
    modes["mouthFunnel"] = lips * np.concatenate([-0.25 * points[:, :1], funnel, 0.8 + 0 * out], 1)
    modes["mouthRollLower"] = near(0.0, -3.8, 1.9, 0.6) * lower * [0.0, 0.25, -0.5]
    modes["mouthRollUpper"] = near(0.0, -3.0, 1.9, 0.6) * upper * [0.0, -0.2, -0.45]
    modes["mouthShrugLower"] = near(0.0, -4.8, 2.0, 1.6) * lower * [0, 0.5, 0.3] + lips * upper * [0, 0.3, 0.1]
    modes["mouthShrugUpper"] = lips * upper * [0.0, 0.35, 0.15]
    sideways = near(0.0, -3.4, 3.0, 1.7) * [1.0, 0.0, 0.0]
    modes["mouthLeft"], modes["mouthRight"] = sideways, -sideways
    lids = _lid_modes(points, tags)
    both = {
        "browDown": push(near(2.6, 5.8, 2.0, 1.0), -0.15, -0.6, 0.05),
        "browInnerUp": push(near(1.3, 6.0, 1.3, 1.2), 0.0, 0.65, 0.05),
        "browOuterUp": push(near(4.5, 6.0, 1.5, 1.2), 0.0, 0.75, 0.0),
        "cheekPuff": push(near(4.4, -2.8, 1.8, 1.9), 0.7, 0.0, 0.9),
        "cheekSquint": push(near(3.9, 1.5, 1.6, 1.0), 0.0, 0.45, 0.2),
        "eyeSquint": lids["squint"] + push(near(3.4, 2.0, 1.5, 0.7), 0.0, 0.2, 0.05),
        "eyeBlink": lids["blink"],
        "eyeWide": lids["wide"],
        "eyeLookDown": lids["down"],
        "eyeLookUp": lids["up"],
        "eyeLookIn": lids["in"],
        "eyeLookOut": lids["out"],
        "mouthDimple": push(near(2.6, -3.4, 1.0, 1.0), 0.35, 0.1, -0.5),
        "mouthFrown": push(corner, 0.1, -0.65, -0.1),
        "mouthLowerDown": push(near(0.9, -3.9, 1.2, 1.0) * lower, 0.0, -0.6, 0.0),
        "mouthPress": near(1.2, -3.4, 1.3, 0.6) * (lower * [0, 0.12, -0.2] + upper * [0, -0.12, -0.2]),
        "mouthSmile": push(corner, 0.8, 0.8, -0.5) + push(near(4.0, -0.8, 1.7, 1.5), 0.1, 0.3, 0.25),
        "mouthStretch": push(near(2.5, -3.6, 1.7, 1.5), 0.75, -0.3, -0.35),
        "mouthUpperUp": push(near(0.9, -2.8, 1.2, 1.0) * upper, 0.0, 0.5, 0.05),
        "noseSneer": push(near(1.5, -0.4, 1.1, 1.4), 0.0, 0.5, 0.0)
        + push(near(1.2, -2.6, 1.0, 0.8) * upper, 0, 0.25, 0),
    }
    for name, mode in both.items():
        left = smoothstep(-0.7, 0.7, points[:, :1])
        modes[f"{name}_L"], modes[f"{name}_R"] = left * mode, (1.0 - left) * mode
    return modes


def _lid_modes(points: np.ndarray, tags: SkinTags) -> dict[str, np.ndarray]:
    """Motions of the lids of both eyes; every point that moves ends on or outside the lid sphere."""
    ax, y = np.abs(points[:, 0]), points[:, 1]
    front = smoothstep(4.0, 6.0, points[:, 2])
    top = np.interp(ax, tags.lid_x, tags.lid_top)
    bottom = np.interp(ax, tags.lid_x, tags.lid_bottom)
    gap = top - bottom
    in_eye = smoothstep(1.2, 2.2, ax) * smoothstep(5.4, 4.2, ax) * front
    is_upper = y >= top - 1e-6
    # 1 on the rim of the upper (lower) lid, falling to 0 at the brow (at the cheek).
    upper = np.where(is_upper, np.clip(1.0 - (y - top) / 1.7, 0.0, 1.0), 0.0) * in_eye
    lower = np.where(~is_upper, np.clip(1.0 - (bottom - y) / 1.5, 0.0, 1.0), 0.0) * in_eye

    def move(x_shift: np.ndarray | float, y_shift: np.ndarray) -> np.ndarray:
        shift = np.stack([np.broadcast_to(x_shift, y.shape), y_shift, 0.0 * y], 1)
        target = points + shift
        return np.where((np.abs(shift).sum(1) > 1e-9)[:, None], lift_off_eyes(target, EYES) - points, 0.0)

    moving = upper + lower
    inwards = -np.sign(points[:, 0]) * 0.12 * moving
    return {
        "blink": move(0.0, -0.92 * gap * upper + 0.08 * gap * lower),
        "squint": move(0.0, 0.25 * gap * lower - 0.08 * gap * upper),
        "wide": move(0.0, 0.30 * upper - 0.06 * lower),
        "down": move(0.0, -0.45 * gap * upper - 0.08 * lower),
        "up": move(0.0, 0.18 * upper + 0.05 * lower),
        "in": move(inwards, 0.0 * y),
        "out": move(-inwards, 0.0 * y),
    }
