"""How synthetic heads act: frames drawn one by one for training, and continuous talking sequences (data for Sec. 4.1)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from export3d.camera import RADIUS
from export3d.heads.clips.motion import INDEX, MAX_GAZE_RAD, Motion, expression_weights, gaze_to_weights
from export3d.heads.shape.parametric import EXPRESSION_NAMES

NEAR_FRONTAL_FRAMES = 6
"""The first frames of an independent motion look at the camera: they serve as source portraits."""

MAX_YAW_RAD = 0.75
MAX_PITCH_RAD = 0.32

SHIFT_SD = 0.02
"""Spread of the camera's place in x and y (scene units): crops of real photographs jitter so much."""

DISTANCE_SD = 0.03
"""Spread of the camera's distance as a share of it, for the same reason."""

_VISEMES: tuple[Mapping[str, float], ...] = (
    {"jawOpen": 0.35, "mouthLowerDown": 0.20, "mouthUpperUp": 0.10},  # open, as in "ah"
    {"mouthFunnel": 0.50, "jawOpen": 0.20},  # "oh"
    {"mouthPucker": 0.60, "jawOpen": 0.05},  # "oo"
    {"mouthStretch": 0.40, "mouthSmile": 0.20, "jawOpen": 0.12},  # "ee"
    {"mouthPress": 0.50, "mouthRollLower": 0.30, "mouthRollUpper": 0.30},  # "m", "b", "p"
    {"mouthRollLower": 0.50, "mouthUpperUp": 0.20, "jawOpen": 0.05},  # "f", "v"
    {},  # rest
)

_SMILE = {"mouthSmile": 0.80, "cheekSquint": 0.50, "eyeSquint": 0.30, "mouthDimple": 0.20}
_BROW_RAISE = {"browInnerUp": 0.70, "browOuterUp": 0.50}
_FROWN = {"browDown": 0.70, "eyeSquint": 0.30}
_SAD_MOUTH = {"mouthFrown": 0.50, "mouthShrugLower": 0.30}
_SNEER = {"noseSneer": 0.50, "mouthUpperUp": 0.30}

_STRONG: tuple[Mapping[str, float], ...] = (
    {"mouthSmile": 0.90, "cheekSquint": 0.50, "eyeSquint": 0.30, "mouthUpperUp": 0.35, "mouthDimple": 0.20},
    {"mouthSmile": 0.90, "cheekSquint": 0.60, "eyeSquint": 0.40, "jawOpen": 0.25},
    {"jawOpen": 0.50, "browInnerUp": 0.50, "browOuterUp": 0.50, "eyeWide": 0.50, "mouthLowerDown": 0.35},
    {"jawOpen": 0.90},
    {"jawOpen": 0.45, "mouthSmile": 0.50},
    {"eyeBlink": 1.00, "mouthPress": 0.30},
    {"eyeBlink": 1.00},
    {"browDown": 0.90, "noseSneer": 0.40, "mouthFrown": 0.60, "eyeSquint": 0.40, "mouthShrugLower": 0.40},
    {"browDown": 0.90, "eyeSquint": 0.50},
    {"browInnerUp": 0.80, "browOuterUp": 0.70, "eyeWide": 0.50},
    {"browInnerUp": 0.90, "mouthFrown": 0.60},
    {"mouthFrown": 0.80, "mouthShrugLower": 0.40},
    {"mouthPucker": 0.90, "browInnerUp": 0.30},
    {"mouthFunnel": 0.80, "jawOpen": 0.30},
    {"mouthStretch": 0.70, "jawOpen": 0.20},
    {"noseSneer": 0.80, "mouthUpperUp": 0.60},
    {"cheekPuff": 0.80, "mouthPress": 0.30},
    {"mouthRollLower": 0.70, "mouthRollUpper": 0.70},
    {"mouthLowerDown": 0.70, "mouthUpperUp": 0.50, "jawOpen": 0.10},
    {"mouthShrugUpper": 0.60, "mouthShrugLower": 0.60},
)

_SIDEWAYS = ("mouthLeft", "mouthRight", "jawLeft", "jawRight")


def independent(seed: int, num_frames: int, *, resting: np.ndarray | None = None, wide: bool = False) -> Motion:
    """Frames drawn independently, for training: expressions from weak to strong, poses to |yaw| 0.75.

    The first :data:`NEAR_FRONTAL_FRAMES` frames are near-frontal (yaw sd 0.13), a third nearly neutral.

    Args:
        seed: Identity seed; a longer motion of the same seed starts with the shorter one.
        resting: ``(53,)`` weights of the person's resting face (`Identity.resting_weights`), added to every frame.
        wide: lids, brows and gaze go to their ends far more often than in everyday life, each side for itself too, so
            that a model learns to follow them all the way.
    """
    rng = _rng(seed, "independent")
    more = _rng(seed, "wide")  # a stream of its own: poses are the same with and without
    rest = 0.0 if resting is None else resting
    weights, gaze, pose, shift = [], [], [], []
    for frame in range(num_frames):
        expression = _draw_expression(rng)
        if frame < NEAR_FRONTAL_FRAMES:
            if rng.random() < 0.35:
                expression = expression * 0.15
            angles = rng.normal(size=3) * (0.13, 0.07, 0.04)
        else:
            yaw = rng.normal() * 0.26 if rng.random() < 0.6 else rng.uniform(-MAX_YAW_RAD, MAX_YAW_RAD)
            angles = np.array([yaw, rng.normal() * 0.12, rng.normal() * 0.06])
        angles = np.clip(angles, (-MAX_YAW_RAD, -MAX_PITCH_RAD, -0.3), (MAX_YAW_RAD, MAX_PITCH_RAD, 0.3))
        # Eyes tend to stay on the camera, so they turn against the head.
        eyes = (rng.normal() * 0.14 - 0.35 * angles[0], rng.normal() * 0.07 + 0.25 * angles[1])
        if wide and frame >= NEAR_FRONTAL_FRAMES // 2:  # portraits mostly have open eyes
            expression, eyes = _widened(more, expression, eyes)
        weights.append(expression + rest)
        gaze.append(eyes)
        pose.append(angles)
        shift.append(rng.normal(size=3) * (SHIFT_SD, SHIFT_SD, DISTANCE_SD * RADIUS))
    return _motion(np.array(weights), np.array(gaze), np.array(pose), np.array(shift))


def trajectory(seed: int, num_frames: int, fps: float = 25.0, *, resting: np.ndarray | None = None) -> Motion:
    """A continuous talking sequence: speech, blinks, brows, smiles, glances and a wandering head.

    Args:
        resting: ``(53,)`` weights of the person's resting face (`Identity.resting_weights`), added to every frame.
    """
    if not fps > 0:
        raise ValueError(f"fps must be positive; got {fps}")
    rng = _rng(seed, "trajectory")
    time_s = np.arange(num_frames) / fps
    end_s = num_frames / fps
    weights = _speech(rng, time_s, end_s) + _blinks(rng, time_s, end_s)
    for recipe, rate_hz, duration_s in (
        (_SMILE, 0.15, 1.6),
        (_BROW_RAISE, 0.30, 0.6),
        (_FROWN, 0.15, 0.9),
        (_SAD_MOUTH, 0.07, 1.0),
        (_SNEER, 0.05, 0.5),
    ):
        weights += _envelopes(rng, time_s, end_s, rate_hz, duration_s)[:, None] * expression_weights(recipe)
    if resting is not None:
        weights += resting
    pose = np.stack([_wander(rng, num_frames, fps, sd, tau) for sd, tau in ((0.22, 0.8), (0.10, 0.6), (0.06, 0.7))], 1)
    shift_sd = (SHIFT_SD, SHIFT_SD, DISTANCE_SD * RADIUS)
    shift = np.stack([_wander(rng, num_frames, fps, sd, 1.0) for sd in shift_sd], 1)
    gaze = _glances(rng, time_s, end_s) - np.stack([0.5 * pose[:, 0], -0.3 * pose[:, 1]], 1)
    return _motion(weights, gaze, pose, shift)


def listening(seed: int, num_frames: int, fps: float = 25.0) -> Motion:
    """What a person does beside speaking: blinks, raised brows, small glances and a head that hardly wanders."""
    rng = _rng(seed, "listening")
    time_s, end_s = np.arange(num_frames) / fps, num_frames / fps
    weights = _blinks(rng, time_s, end_s)
    weights += 0.6 * _envelopes(rng, time_s, end_s, 0.3, 0.6)[:, None] * expression_weights(_BROW_RAISE)
    pose = np.stack([_wander(rng, num_frames, fps, sd, tau) for sd, tau in ((0.07, 1.2), (0.04, 0.9), (0.025, 1.1))], 1)
    gaze = 0.3 * _glances(rng, time_s, end_s) - np.stack([0.7 * pose[:, 0], -0.5 * pose[:, 1]], 1)
    return _motion(weights, gaze, pose, np.zeros((num_frames, 3)))


def _motion(weights: np.ndarray, gaze: np.ndarray, pose: np.ndarray, shift: np.ndarray) -> Motion:
    gaze = np.clip(gaze, -MAX_GAZE_RAD, MAX_GAZE_RAD)
    for name, values in gaze_to_weights(gaze).items():
        weights[:, INDEX[name]] = values
    single = [a.astype(np.float32) for a in (np.clip(weights, 0.0, 1.0), gaze, *pose.T, shift)]
    names = ("weights", "gaze", "yaw", "pitch", "roll", "shift")
    return Motion(**dict(zip(names, single, strict=True)))


def _rng(seed: int, purpose: str) -> np.random.Generator:
    """A stream of its own for each purpose, so that a change of one leaves the others alone."""
    return np.random.default_rng(np.random.SeedSequence([seed, *purpose.encode()]))


def _draw_expression(rng: np.random.Generator) -> np.ndarray:
    """``(53,)`` weights: half of the time speech with some mood, else one strong expression or none."""
    weights = np.zeros(len(EXPRESSION_NAMES))
    kind = rng.random()
    if kind < 0.5:
        for _ in range(2):
            if rng.random() < 0.7:
                weights += expression_weights(_VISEMES[rng.integers(len(_VISEMES))]) * rng.uniform(0.3, 1.2)
        for recipe, chance in ((_SMILE, 0.25), (_BROW_RAISE, 0.2), (_FROWN, 0.15), (_SAD_MOUTH, 0.1)):
            if rng.random() < chance:
                weights += expression_weights(recipe) * rng.uniform(0.3, 1.0)
    elif kind < 0.9:
        weights += expression_weights(_STRONG[rng.integers(len(_STRONG))]) * rng.uniform(0.4, 1.05)
    if rng.random() < 0.15:
        weights += expression_weights({"eyeBlink": 1.0}) * rng.uniform(0.3, 1.0)
    if rng.random() < 0.15:
        weights += expression_weights({_SIDEWAYS[rng.integers(len(_SIDEWAYS))]: rng.uniform(0.2, 0.7)})
    # Faces are never quite symmetric: one side is a little weaker, now and then much (a wink).
    weaker = rng.uniform(0.75, 1.0) if rng.random() < 0.85 else rng.uniform(0.0, 0.5)
    side = "_L" if rng.random() < 0.5 else "_R"
    weights *= [weaker if name.endswith(side) else 1.0 for name in EXPRESSION_NAMES]
    return np.clip(weights, 0.0, 1.0)


def _widened(
    rng: np.random.Generator, weights: np.ndarray, gaze: tuple[float, float]
) -> tuple[np.ndarray, tuple[float, float]]:
    """One expression and gaze, stretched: stronger, eyes shut or winking, brows up or down on both sides or on one."""
    weights = weights * rng.uniform(1.0, 1.4)
    sides = (("",), ("_L",), ("_R",))[rng.choice(3, p=(0.5, 0.25, 0.25))]
    lids, brows = rng.random(), rng.random()
    if lids < 0.3:
        weights = _set(weights, ("eyeBlink",), sides[0], 1.0 if lids < 0.2 else rng.uniform(0.4, 0.9))
    if brows < 0.5:
        names = ("browInnerUp", "browOuterUp") if brows < 0.35 else ("browDown",)
        weights = _set(weights, names, sides[0], rng.uniform(0.5, 1.0))
    if rng.random() < 0.4:
        gaze = (rng.uniform(-MAX_GAZE_RAD, MAX_GAZE_RAD), rng.uniform(-0.7, 0.7) * MAX_GAZE_RAD)
    return np.clip(weights, 0.0, 1.0), gaze


def _set(weights: np.ndarray, names: tuple[str, ...], side: str, value: float) -> np.ndarray:
    """The weights with these shapes set to `value`, on one side (`_L`, `_R`) or both ("")."""
    chosen = expression_weights({name + side: 1.0 for name in names}) > 0.0
    return np.where(chosen, value, weights)


def _speech(rng: np.random.Generator, time_s: np.ndarray, end_s: float) -> np.ndarray:
    """``(T, 53)``: a viseme every 70-220 ms, each a Gaussian of sd 50 ms, while the person is speaking."""
    knots = max(2, int(end_s / 0.7) + 2)
    loud = np.interp(time_s, np.linspace(0.0, max(end_s, 1e-3), knots), rng.random(knots)) > 0.25
    gate = np.convolve(np.pad(loud.astype(float), 3, mode="edge"), np.full(7, 1 / 7), mode="valid")
    weights = np.zeros((len(time_s), len(EXPRESSION_NAMES)))
    centre = rng.uniform(-0.2, 0.1)
    while centre < end_s + 0.2:
        viseme = expression_weights(_VISEMES[rng.integers(len(_VISEMES))]) * rng.uniform(0.5, 1.1)
        weights += (gate * np.exp(-(((time_s - centre) / 0.07) ** 2)))[:, None] * viseme
        centre += rng.uniform(0.07, 0.22)
    return weights


def _blinks(rng: np.random.Generator, time_s: np.ndarray, end_s: float) -> np.ndarray:
    """``(T, 53)``: lids fall in 80 ms, rise in 160 ms; gaps are gamma-distributed with mean 3 s."""
    closed = np.zeros(len(time_s))
    centre = rng.uniform(0.3, 2.0)
    while centre < end_s + 0.2:
        distance = time_s - centre
        ramp = np.clip(1.0 - np.where(distance < 0, -distance / 0.08, distance / 0.16), 0.0, 1.0)
        closed = np.maximum(closed, ramp * ramp * (3.0 - 2.0 * ramp))
        centre += rng.gamma(3.0, 1.0)
    return closed[:, None] * expression_weights({"eyeBlink": 1.0})


def _envelopes(
    rng: np.random.Generator, time_s: np.ndarray, end_s: float, rate_hz: float, length_s: float
) -> np.ndarray:
    """``(T,)`` in [0, 1]: slow rises and falls that start `rate_hz` times a second, last about `length_s`."""
    level = np.zeros(len(time_s))
    start = rng.uniform(-1.0, 1.0 / rate_hz)
    while start < end_s:
        stop = start + length_s * rng.uniform(0.6, 1.6)
        rise = 1.0 / (1.0 + np.exp(np.clip(-(time_s - start) / 0.10, -60.0, 60.0)))
        fall = 1.0 / (1.0 + np.exp(np.clip((time_s - stop) / 0.15, -60.0, 60.0)))
        level += rise * fall * rng.uniform(0.4, 1.0)
        start = stop + rng.exponential(1.0 / rate_hz)
    return np.clip(level, 0.0, 1.0)


def _glances(rng: np.random.Generator, time_s: np.ndarray, end_s: float) -> np.ndarray:
    """``(T, 2)``: the eyes rest 0.2-0.8 s, then jump within a frame."""
    starts, targets = [0.0], [rng.normal(size=2) * (0.12, 0.06)]
    while starts[-1] < end_s:
        starts.append(starts[-1] + rng.uniform(0.2, 0.8))
        targets.append(rng.normal(size=2) * (0.12, 0.06))
    return np.array(targets)[np.searchsorted(starts, time_s, side="right") - 1]


def _wander(rng: np.random.Generator, num_frames: int, fps: float, sd: float, tau_s: float) -> np.ndarray:
    """``(T,)`` Ornstein-Uhlenbeck process of spread `sd` and memory `tau_s`, smoothed over half a second."""
    keep = np.exp(-1.0 / (fps * tau_s))
    half = max(1, round(0.24 * fps))
    noise = rng.normal(size=num_frames + 2 * half)
    state = np.empty(len(noise))
    state[0] = noise[0]
    for i in range(1, len(noise)):
        state[i] = keep * state[i - 1] + np.sqrt(1.0 - keep * keep) * noise[i]
    window = np.hanning(2 * half + 3)[1:-1]
    return np.convolve(state, window / window.sum(), mode="valid") * sd
