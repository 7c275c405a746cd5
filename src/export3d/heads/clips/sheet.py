"""Contact sheets for people to look at: unpicked seeds, one identity in many poses or expressions, a clip strip."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import cycle
from types import MappingProxyType

import numpy as np
import torch
from torch import Tensor

from export3d.camera import Camera
from export3d.heads.clips.acting import trajectory
from export3d.heads.clips.motion import Motion
from export3d.heads.look.appearance import AppearanceOptions, draw_traits
from export3d.heads.look.identity import Identity
from export3d.heads.look.render import render_frames
from export3d.heads.shape.parametric import ParametricHead

EXPRESSIONS: Mapping[str, Mapping[str, float]] = MappingProxyType(
    {
        "neutral": {},
        "smile": {"mouthSmile": 0.85, "cheekSquint": 0.5, "eyeSquint": 0.3, "mouthUpperUp": 0.35, "jawOpen": 0.08},
        "surprise": {"jawOpen": 0.5, "browInnerUp": 0.7, "browOuterUp": 0.6, "eyeWide": 0.5, "mouthLowerDown": 0.3},
        "shut eyes": {"eyeBlink": 1.0, "mouthPress": 0.3},
        "anger": {"browDown": 0.9, "noseSneer": 0.4, "mouthFrown": 0.6, "eyeSquint": 0.4, "mouthShrugLower": 0.4},
        "pucker": {"mouthPucker": 0.9, "jawOpen": 0.1, "browInnerUp": 0.3, "mouthFunnel": 0.2},
        "one-sided": {"mouthSmile_L": 0.8, "browOuterUp_L": 0.8, "eyeBlink_R": 0.9, "cheekSquint_R": 0.5},
        "laugh": {"jawOpen": 0.4, "mouthSmile": 0.9, "cheekSquint": 0.7, "eyeSquint": 0.5, "mouthUpperUp": 0.5},
    }
)
"""Names and weights of the expressions on the expression sheet."""


def contact_sheet(images: Tensor, columns: int) -> np.ndarray:
    """Tile pictures row by row.

    Args:
        images: ``(N, 3, H, W)`` in [0, 1].
        columns: Pictures in a row; the last row is filled with white.

    Returns:
        uint8 RGB.
    """
    white = images.new_ones(-len(images) % columns, *images.shape[1:])
    tiles = torch.cat([images, white]).unflatten(0, (-1, columns))  # (rows, columns, 3, H, W)
    sheet = tiles.permute(0, 3, 1, 4, 2).flatten(0, 1).flatten(1, 2)
    return (sheet.cpu().clamp(0, 1) * 255.0).round().to(torch.uint8).numpy()


def random_sheet(
    head: ParametricHead,
    seeds: Iterable[int],
    *,
    size: int = 256,
    columns: int = 8,
    options: AppearanceOptions | None = None,
) -> np.ndarray:
    """One picture of each seed, nothing picked: pose and gaze are drawn, expressions take turns."""
    pictures, expressions = [], cycle(EXPRESSIONS.values())
    for seed in seeds:
        person = Identity.create(head, seed, options)
        rng = np.random.default_rng([seed, 20])
        yaw, pitch, roll = (float(rng.normal() * sd) for sd in (0.25, 0.1, 0.06))
        gaze = torch.tensor([[rng.normal() * 0.15 - 0.4 * yaw, 0.0]], dtype=torch.float32)
        weights = _total(person, head.weights(**next(expressions))[None])
        frame = render_frames(person, weights, gaze, Camera.look_at_head(yaw, pitch, roll), size=size)
        pictures.append(frame.color)
    return contact_sheet(torch.cat(pictures), columns)


def pose_sheet(identity: Identity, *, size: int = 256) -> np.ndarray:
    """One identity at rest, seen at several yaws, the scene static."""
    yaw = torch.tensor([math.radians(y) for y in (-45, -32, -19, -6, 6, 19, 32, 45)])
    weights = identity.resting_weights.expand(len(yaw), -1)
    frames = render_frames(identity, weights, torch.zeros(len(yaw), 2), Camera.look_at_head(yaw), size=size)
    return contact_sheet(frames.color, len(yaw))


def expression_sheet(identity: Identity, *, size: int = 256) -> np.ndarray:
    """One identity with each of :data:`EXPRESSIONS`, from one camera."""
    weights = torch.stack([identity.head.weights(**values) for values in EXPRESSIONS.values()])
    count = len(weights)
    camera = Camera.look_at_head(torch.full((count,), math.radians(12.0)))
    frames = render_frames(identity, _total(identity, weights), torch.zeros(count, 2), camera, size=size)
    return contact_sheet(frames.color, count)


def clip_strip(identity: Identity, seed: int, *, columns: int = 8, size: int = 192) -> np.ndarray:
    """Every sixth frame of a generated clip at 25 fps, with room light and a lagging torso as in real videos."""
    motion: Motion = trajectory(seed, 96, resting=identity.resting_weights.cpu().numpy())
    chosen = torch.arange(0, 96, 6)
    weights, gaze = (torch.as_tensor(v, dtype=torch.float32)[chosen] for v in (motion.weights, motion.gaze))
    frames = render_frames(identity, weights, gaze, motion.camera()[chosen], size=size, static_scene=False)
    return contact_sheet(frames.color, columns)


def spread_report(seeds: Iterable[int], options: AppearanceOptions | None = None) -> str:
    """How skin tones, ages, hair and worn things are spread over seeds, as a table in Markdown.

    Skin tone is counted in six steps of the melanin scale of :func:`draw_traits`.
    """
    traits = [draw_traits(seed, options or AppearanceOptions()) for seed in seeds]
    steps = np.linspace(0.0, 1.0, 7)
    tone = np.array([((t.melanin - 0.12) / 1.38) ** (1 / 1.3) for t in traits])
    age = np.array([t.age for t in traits])
    lines = [f"Spread over {len(traits)} seeds", "", "| What | Share |", "|---|---|"]
    tones, _ = np.histogram(tone.clip(0, 1), steps)
    lines.append(f"| skin tone, six steps from fair to dark | {_shares(tones)} |")
    ages, _ = np.histogram(age, np.linspace(18, 78, 7))
    lines.append(f"| age, six steps from 18 to 78 | {_shares(ages)} |")
    lines.append(
        f"| feminine / masculine | {_shares([sum(t.is_feminine for t in traits), sum(not t.is_feminine for t in traits)])} |"
    )
    styles = sorted({t.style for t in traits})
    lines.append(
        "| hair | " + ", ".join(f"{s} {_share(sum(t.style == s for t in traits), len(traits))}" for s in styles) + " |"
    )
    beards = [sum(low <= t.beard < high for t in traits) for low, high in ((0, 0.1), (0.1, 0.5), (0.5, 2))]
    lines.append(f"| no beard, stubble, beard | {_shares(beards)} |")
    worn = sum(t.glasses is not None for t in traits), sum(t.earrings is not None for t in traits)
    lines.append(f"| glasses, earrings | {_share(worn[0], len(traits))}, {_share(worn[1], len(traits))} |")
    return "\n".join(lines) + "\n"


def _total(identity: Identity, weights: Tensor) -> Tensor:
    """Weights of an expression plus the identity's resting expression, as motion does it."""
    return (weights + identity.resting_weights).clamp(0.0, 1.0)


def _share(count: int, total: int) -> str:
    return f"{100 * count / max(total, 1):.0f} %"


def _shares(counts: Sequence[int] | np.ndarray) -> str:
    total = int(np.sum(counts))
    return ", ".join(_share(int(c), total) for c in counts)
