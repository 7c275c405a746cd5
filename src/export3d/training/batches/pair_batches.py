"""Pair batches as a pure function of (seed, step, places in the batch), from cached clip frames (Sec. 3.4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from export3d.camera import Camera
from export3d.data.pairs import counter_rng, pair_at
from export3d.landmarks import EYES, MOUTH, mirror_points
from export3d.training.batches.augment import AugmentConfig, Change, draw_change
from export3d.training.batches.frame_store import FrameStore, changed_frame, mirror_cameras, possible_change
from export3d.training.batches.space_points import space_points

_AUGMENT_STREAM = 11
_WINDOW_STREAM = 12
_SURFACE_STREAM = 14
_SPACE_STREAM = 15
_GAZE_STREAM = 16
_LEAK_STREAM = 17

_MOVED = 0.003
"""Scene units (1.4 mm): a point that moved so far is half as likely to be drawn as one that moved very far."""

DEPTH_UNITS = 16384.0
"""Stored depth levels per scene unit (docs/architecture.md, clip shards)."""


@dataclass(frozen=True, kw_only=True)
class PairSampling:
    """Which source frames and which windows of the raw image a pair batch holds."""

    frontal_share: float = 0.0
    """Share of pairs whose source is drawn among near-frontal frames (paper: 0, any frame)."""
    frontal_deg: float = 15.0
    """Yaw and pitch up to which a frame counts as near-frontal."""
    raw_size: int = 64
    """Side of the model's raw image, in rays."""
    window: int | None = None
    """Side of the square window of rays that is rendered; None renders the whole raw image (paper)."""
    surface_points: int = 0
    """Surface points of each pair that are read, for the training of a source lookup (synthetic clips)."""
    moving_share: float = 0.0
    """Share of those points that is drawn among the ones that moved between the two frames. Most of a face stands still;
    brows and lids are few points that move a little."""
    space_points: int = 0
    """Points of air and of solid head drawn in each driving frame, for the occupancy term (synthetic clips)."""
    gaze_unknown: float = 0.0
    """Share of pairs whose gaze is withheld, as on clips whose tracker does not give it."""
    centred_share: float = 0.7
    """Share of windows centred near the mouth, the eyes or the face; the others lie anywhere."""

    def __post_init__(self) -> None:
        if not 0.0 <= self.moving_share <= 1.0:
            raise ValueError(f"sampling.moving_share must lie in 0..1; got {self.moving_share}")


@dataclass(frozen=True, kw_only=True)
class PairBatch:
    """B pairs of one step, still as stored (uint8), so that a transfer to a device is small."""

    source: Tensor
    """``(B, H, W, 3)`` uint8."""
    driving: Tensor
    """``(B, H, W, 3)`` uint8."""
    source_camera: Tensor
    """``(B, 25)``."""
    camera: Tensor
    """``(B, 25)`` of the driving frame."""
    beta: Tensor
    """``(B, 64)`` of the driving frame."""
    landmarks: Tensor
    """``(B, 68, 2)`` of the driving frame, [0, 1]."""
    window_top: Tensor
    """``(B,)`` int64, first ray row of the window."""
    window_left: Tensor
    """``(B,)`` int64, first ray column."""
    mask: Tensor | None = None
    """``(B, H, W)`` uint8 foreground alpha of the driving frame; only if every clip of the batch has one."""
    source_mask: Tensor | None = None
    """``(B, H, W)`` uint8 foreground alpha of the source."""
    depth: Tensor | None = None
    """``(B, H, W)`` float32 distance along the ray, scene units, 0 where unknown."""
    source_beta: Tensor | None = None
    """``(B, 64)`` of the source."""
    gaze: Tensor | None = None
    """``(B, 2)`` of the driving frame, yaw and pitch in radians, NaN where unknown; only if every clip has it."""
    source_gaze: Tensor | None = None
    """``(B, 2)`` of the source."""
    turn: Tensor | None = None
    """``(B, 3)`` of the driving frame: the head's turn against torso and room (`Camera.head_turn`), 0 where all is rigid."""
    source_turn: Tensor | None = None
    """``(B, 3)`` of the source."""
    surface: Tensor | None = None
    """``(B, P, 3)`` points of the surface in the driving frame's head, scene units; only if every clip has them."""
    source_surface: Tensor | None = None
    """``(B, P, 3)`` the same points in the source."""
    source_depth: Tensor | None = None
    """``(B, H, W)`` float32, as `depth`, of the source; read together with `surface`."""
    space: Tensor | None = None
    """``(B, Q, 3)`` points in and around the driving frame's head, scene units."""
    solid: Tensor | None = None
    """``(B, Q)`` 1 where such a point lies in the head, 0 in the air, NaN where that is unknown."""

    def to(self, device: torch.device) -> PairBatch:
        """The same batch on a device."""
        if device.type == "cpu":
            return self
        moved: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if value is not None and field.name not in ("window_top", "window_left"):  # those are read on the CPU
                value = value.to(device, non_blocking=True)
            moved[field.name] = value
        return PairBatch(**moved)

    def __getitem__(self, index: slice) -> PairBatch:
        parts: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(self)}
        for name, value in parts.items():
            parts[name] = None if value is None else value[index]
        return PairBatch(**parts)

    def __len__(self) -> int:
        return self.source.shape[0]

    def without_truth(self) -> PairBatch:
        """Without masks and depth (as on real clips)."""
        return replace(
            self,
            mask=None,
            source_mask=None,
            depth=None,
            gaze=None,
            source_gaze=None,
            surface=None,
            source_surface=None,
            source_depth=None,
            space=None,
            solid=None,
        )


def pair_batch(
    store: FrameStore,
    seed: int,
    step: int,
    places: Sequence[int],
    *,
    sampling: PairSampling,
    augment: AugmentConfig,
    with_truth: bool = False,
) -> PairBatch:
    """The pairs at `places` of batch `step`: nothing but the arguments decides what is drawn.

    Args:
        places: places in the whole batch (over all processes) that this process needs.
        with_truth: also read masks, and depth of the driving frame, where all drawn clips have them.
    """
    rows = [_pair(store, seed, step, place, sampling, augment, with_truth) for place in places]
    stacked: dict[str, Any] = {}
    for name in rows[0]:
        values = [row[name] for row in rows]
        complete = all(value is not None for value in values)
        stacked[name] = torch.from_numpy(np.stack([np.asarray(v) for v in values])) if complete else None
    mirrored = stacked.pop("mirrored")
    for name in ("camera", "source_camera"):
        stacked[name] = mirror_cameras(stacked[name], mirrored)
    in_room = stacked.pop("in_room")[:, None]
    for name, camera in (("turn", "camera"), ("source_turn", "source_camera")):
        stacked[name] = Camera.from_vector(stacked[camera]).head_turn() * in_room
    return PairBatch(**stacked)


def _pair(
    store: FrameStore,
    seed: int,
    step: int,
    place: int,
    sampling: PairSampling,
    augment: AugmentConfig,
    with_truth: bool,
) -> dict[str, np.ndarray | bool | None]:
    rng = counter_rng(seed, _AUGMENT_STREAM, step, place)
    bound = sampling.frontal_deg if rng.random() < sampling.frontal_share else None
    clip, source, driving = pair_at(
        store.dataset, seed, step, place, max_source_yaw_deg=bound, max_source_pitch_deg=bound
    )
    change = possible_change(store, clip, draw_change(augment, rng))
    arrays = store.arrays(clip)
    landmarks = mirror_points(arrays["landmarks"][driving], change.mirrored)
    source_image = changed_frame(store, clip, source, change, step)
    if change.noise > 0:
        noisy = source_image + rng.normal(0.0, change.noise, source_image.shape)
        source_image = np.clip(np.rint(noisy), 0, 255).astype(np.uint8)
    mask = source_mask = depth = None
    if with_truth and store.has_truth(clip):
        kept = (store.mask(clip, driving), store.mask(clip, source), store.depth(clip, driving))
        mask, source_mask, stored = (np.ascontiguousarray(k[:, ::-1]) if change.mirrored else k for k in kept)
        depth = stored.astype(np.float32) / np.float32(DEPTH_UNITS)
    leaked = _leaked(store, clip, driving, change, counter_rng(seed, _LEAK_STREAM, step, place), step, augment)
    truth = _surface(
        store, clip, source, driving, change.mirrored, counter_rng(seed, _SURFACE_STREAM, step, place), sampling
    )
    withheld = counter_rng(seed, _GAZE_STREAM, step, place).random() < sampling.gaze_unknown
    truth |= _space(store, clip, driving, change.mirrored, counter_rng(seed, _SPACE_STREAM, step, place), sampling)
    top, left = _window(landmarks, counter_rng(seed, _WINDOW_STREAM, step, place), sampling)
    return {
        "source": source_image,
        "driving": changed_frame(store, clip, driving, change, step),
        "source_camera": arrays["camera"][source],
        "camera": arrays["camera"][driving],
        "beta": arrays[change.beta_name][driving] if leaked is None else leaked,
        "source_beta": arrays[change.beta_name][source],
        "landmarks": landmarks,
        "window_top": np.asarray(top, dtype=np.int64),
        "window_left": np.asarray(left, dtype=np.int64),
        "mask": mask,
        "source_mask": source_mask,
        "depth": depth,
        "mirrored": change.mirrored,
        "in_room": store.dataset.in_room(clip),
        **_gazes(arrays, source, driving, change.mirrored, withheld=withheld),
        **truth,
    }


def _gazes(
    arrays: dict[str, np.ndarray], source: int, driving: int, mirrored: bool, *, withheld: bool
) -> dict[str, np.ndarray | None]:
    """Gaze of both frames, NaN where it is withheld; a mirrored eye looks the other way."""
    gaze = arrays.get("gaze")
    if gaze is None:
        return {"gaze": None, "source_gaze": None}
    sign = np.array([-1.0, 1.0] if mirrored else [1.0, 1.0], dtype=np.float32)
    if withheld:
        sign = sign * np.float32(np.nan)
    return {"gaze": gaze[driving] * sign, "source_gaze": gaze[source] * sign}


def _surface(
    store: FrameStore,
    clip: int,
    source: int,
    driving: int,
    mirrored: bool,
    rng: np.random.Generator,
    sampling: PairSampling,
) -> dict[str, np.ndarray | None]:
    """Some of the points whose place is known in both frames, and the source's depth, which tells the visible ones."""
    arrays = store.arrays(clip)
    points = arrays.get("surface") if sampling.surface_points else None
    if points is None or not store.has_truth(clip):
        return {"surface": None, "source_surface": None, "source_depth": None}
    chosen = _chosen_points(points[source], points[driving], rng, sampling)
    sign = np.array([-1.0, 1.0, 1.0] if mirrored else [1.0, 1.0, 1.0], dtype=np.float32)
    depth = store.depth(clip, source)
    return {
        "surface": points[driving, chosen] * sign,
        "source_surface": points[source, chosen] * sign,
        "source_depth": (depth[:, ::-1] if mirrored else depth).astype(np.float32) / np.float32(DEPTH_UNITS),
    }


def _chosen_points(
    source: np.ndarray, driving: np.ndarray, rng: np.random.Generator, sampling: PairSampling
) -> np.ndarray:
    """Which of the points ``(N, 3)`` are read: first those drawn among the moving ones, then any of the others."""
    order = rng.permutation(len(source))
    if sampling.moving_share > 0:
        distance = np.linalg.norm(driving - source, axis=1)
        weight = distance / (distance + _MOVED)
        # The smallest of exponential waiting times at these rates are a weighted draw without replacement.
        waiting = rng.exponential(size=len(source)) / np.maximum(weight, 1e-9)
        moving = np.argsort(waiting)[: round(sampling.moving_share * sampling.surface_points)]
        order = np.concatenate([moving, order[~np.isin(order, moving)]])
    return order[: sampling.surface_points]


def _leaked(
    store: FrameStore,
    clip: int,
    driving: int,
    change: Change,
    rng: np.random.Generator,
    step: int,
    augment: AugmentConfig,
) -> np.ndarray | None:
    """The driver's beta ``(64,)`` with another person's leak, for the share of pairs that `other_leak` says; else None."""
    if rng.random() >= augment.other_leak:
        return None
    clips = store.dataset.clips_at(step)
    chosen = int(clips[int(rng.random() * len(clips))])
    own, other = (store.leak(index, mirrored=change.mirrored, step=step) for index in (clip, chosen))
    if own is None or other is None:
        return None
    leaked: np.ndarray = store.arrays(clip)[change.beta_name][driving] + other - own
    return leaked


def _space(
    store: FrameStore, clip: int, driving: int, mirrored: bool, rng: np.random.Generator, sampling: PairSampling
) -> dict[str, np.ndarray | None]:
    """Points of air and of solid head in the driving frame."""
    if not sampling.space_points or not store.has_truth(clip):
        return {"space": None, "solid": None}
    points, solid = space_points(
        store.depth(clip, driving).astype(np.float32) / np.float32(DEPTH_UNITS),
        store.mask(clip, driving),
        store.arrays(clip)["camera"][driving],
        sampling.space_points,
        rng,
    )
    return {"space": points * np.array([-1.0 if mirrored else 1.0, 1.0, 1.0], dtype=np.float32), "solid": solid}


def _window(landmarks: np.ndarray, rng: np.random.Generator, sampling: PairSampling) -> tuple[int, int]:
    """First row and column of the window of rays: near mouth, eyes or face, or anywhere."""
    size = sampling.window
    if size is None or size >= sampling.raw_size:
        return 0, 0
    kind, anywhere, jitter = rng.random(), rng.random(2), rng.normal(size=2)
    free = sampling.raw_size - size
    if kind < sampling.centred_share:
        third = int(3 * kind / sampling.centred_share)
        points = (landmarks[MOUTH], landmarks[EYES], landmarks)[third]
        centre = points.mean(axis=0) + 0.05 * jitter  # x, y in [0, 1]
        left, top = np.rint(centre * sampling.raw_size - size / 2)
    else:
        # The centre lies anywhere in the picture: were it the corner that does, hardly a window would reach the border.
        left, top = np.rint(anywhere * sampling.raw_size - size / 2)
    return int(np.clip(top, 0, free)), int(np.clip(left, 0, free))
