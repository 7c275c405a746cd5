"""Pair batches as a pure function of (seed, step, places in the batch), from cached clip frames (Sec. 3.4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from export3d.camera import Camera
from export3d.data.clip import DEPTH_STEPS
from export3d.data.pairs import counter_rng, pair_at
from export3d.face_state import MIRRORED_ARKIT, FaceState
from export3d.heads.clips.motion import arkit_weights
from export3d.landmarks import EYES, MOUTH, mirror_points
from export3d.training.batches.augment import AugmentConfig, Change, draw_change
from export3d.training.batches.frame_store import FrameStore, changed_frame, mirror_cameras, possible_change
from export3d.training.batches.pair_batch import PairBatch, PairSampling
from export3d.training.batches.space_points import space_points

_AUGMENT_STREAM = 11
_WINDOW_STREAM = 12
_SURFACE_STREAM = 14
_SPACE_STREAM = 15
_GAZE_STREAM = 16
_LEAK_STREAM = 17
_WEIGHTS_STREAM = 18

_MOVED = 0.003
"""Scene units (1.4 mm): a point that moved so far is half as likely to be drawn as one that moved very far."""


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
    rows = [
        _pair(store, (seed, step, place), sampling=sampling, augment=augment, with_truth=with_truth) for place in places
    ]
    stacked: dict[str, Any] = {}
    for name in rows[0]:
        values = [row[name] for row in rows]
        complete = all(value is not None for value in values)
        stacked[name] = torch.from_numpy(np.stack([np.asarray(v) for v in values])) if complete else None
    mirrored = stacked.pop("mirrored")
    for name in ("camera", "source_camera"):
        stacked[name] = mirror_cameras(stacked[name], mirrored)
    in_room = stacked.pop("in_room")[:, None]
    for name, of in (("state", ""), ("source_state", "source_")):
        turn = Camera.from_vector(stacked[f"{of}camera"]).head_turn() * in_room
        beta, gaze, weights = (stacked.pop(f"{of}{part}") for part in ("beta", "gaze", "weights"))
        stacked[name] = FaceState(beta=beta, gaze=gaze, weights=weights, turn=turn)
    return PairBatch(**stacked)


def _pair(
    store: FrameStore, at: tuple[int, int, int], *, sampling: PairSampling, augment: AugmentConfig, with_truth: bool
) -> dict[str, np.ndarray | bool | None]:
    """One pair, drawn at (seed, step, place)."""
    seed, step, place = at

    def stream(name: int) -> np.random.Generator:
        return counter_rng(seed, name, step, place)

    rng = stream(_AUGMENT_STREAM)
    bound = sampling.frontal_deg if rng.random() < sampling.frontal_share else None
    clip, source, driving = pair_at(
        store.dataset, seed, step, place, max_source_yaw_deg=bound, max_source_pitch_deg=bound
    )
    drawn = Drawn(clip, source, driving, possible_change(store, clip, draw_change(augment, rng)), step)
    change, arrays = drawn.change, store.arrays(clip)
    source_image = changed_frame(store, clip, source, change, step)
    if change.noise > 0:
        noisy = source_image + rng.normal(0.0, change.noise, source_image.shape)
        source_image = np.clip(np.rint(noisy), 0, 255).astype(np.uint8)
    landmarks = arrays["landmarks"][driving]
    landmarks = mirror_points(landmarks) if change.mirrored else landmarks
    top, left = window_at(landmarks, stream(_WINDOW_STREAM), sampling)
    leaked = _leaked(store, drawn, stream(_LEAK_STREAM), augment)
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
        "mirrored": change.mirrored,
        "in_room": store.dataset.in_room(clip),
        **_gazes(arrays, drawn, stream(_GAZE_STREAM), sampling),
        **_weights(arrays, drawn, stream(_WEIGHTS_STREAM), sampling),
        **_masks(store, drawn, with_truth),
        **_surface(store, drawn, stream(_SURFACE_STREAM), sampling),
        **_space(store, drawn, stream(_SPACE_STREAM), sampling),
    }


@dataclass(frozen=True)
class Drawn:
    """What a pair is made of: a clip, two of its frames, and how both are changed."""

    clip: int
    source: int
    driving: int
    change: Change
    step: int

    def flipped(self, picture: np.ndarray) -> np.ndarray:
        """A picture of the clip, mirrored if the pair is."""
        return np.ascontiguousarray(picture[:, ::-1]) if self.change.mirrored else picture

    @property
    def side(self) -> float:
        """-1 for a mirrored pair, whose x axis is turned round, else 1."""
        return -1.0 if self.change.mirrored else 1.0


def _masks(store: FrameStore, drawn: Drawn, with_truth: bool) -> dict[str, np.ndarray | None]:
    """Foreground of both frames and depth of the driving one, where the clip has them."""
    if not with_truth or not store.has_truth(drawn.clip):
        return {"mask": None, "source_mask": None, "depth": None}
    kept = store.mask(drawn.clip, drawn.driving), store.mask(drawn.clip, drawn.source)
    mask, source_mask = (np.ascontiguousarray(drawn.flipped(k)) for k in kept)
    depth = drawn.flipped(store.depth(drawn.clip, drawn.driving)).astype(np.float32) / np.float32(DEPTH_STEPS)
    return {"mask": mask, "source_mask": source_mask, "depth": depth}


def _gazes(
    arrays: dict[str, np.ndarray], drawn: Drawn, rng: np.random.Generator, sampling: PairSampling
) -> dict[str, np.ndarray | None]:
    """Gaze of both frames, NaN where it is withheld; a mirrored eye looks the other way."""
    gaze, withheld = arrays.get("gaze"), rng.random() < sampling.gaze_unknown
    if gaze is None:
        return {"gaze": None, "source_gaze": None}
    sign = np.array([drawn.side, 1.0], dtype=np.float32) * np.float32(np.nan if withheld else 1.0)
    return {"gaze": gaze[drawn.driving] * sign, "source_gaze": gaze[drawn.source] * sign}


def _weights(
    arrays: dict[str, np.ndarray], drawn: Drawn, rng: np.random.Generator, sampling: PairSampling
) -> dict[str, np.ndarray | None]:
    """Single weights of both frames with a tracker's error, NaN where they are withheld."""
    weights, told = arrays.get("weights"), rng.random() < sampling.weights_known
    if weights is None or not sampling.weights_known:
        return {"weights": None, "source_weights": None}
    names = MIRRORED_ARKIT if drawn.change.mirrored else slice(None)
    both = arkit_weights(weights[[drawn.driving, drawn.source]])[:, names]
    noisy = both + rng.normal(0.0, sampling.weights_noise, both.shape) if told else np.full(both.shape, np.nan)
    return dict(zip(("weights", "source_weights"), noisy.astype(np.float32), strict=True))


def _surface(
    store: FrameStore, drawn: Drawn, rng: np.random.Generator, sampling: PairSampling
) -> dict[str, np.ndarray | None]:
    """Some of the points whose place is known in both frames, and the source's depth, which tells the visible ones."""
    points = store.arrays(drawn.clip).get("surface") if sampling.surface_points else None
    if points is None or not store.has_truth(drawn.clip):
        return {"surface": None, "source_surface": None, "source_depth": None}
    chosen = _chosen_points(points[drawn.source], points[drawn.driving], rng, sampling)
    sign = np.array([drawn.side, 1.0, 1.0], dtype=np.float32)
    depth = drawn.flipped(store.depth(drawn.clip, drawn.source))
    return {
        "surface": points[drawn.driving, chosen] * sign,
        "source_surface": points[drawn.source, chosen] * sign,
        "source_depth": depth.astype(np.float32) / np.float32(DEPTH_STEPS),
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


def _leaked(store: FrameStore, drawn: Drawn, rng: np.random.Generator, augment: AugmentConfig) -> np.ndarray | None:
    """The driver's beta ``(64,)`` with another person's leak, for the share of pairs that `other_leak` says; else None."""
    if rng.random() >= augment.other_leak:
        return None
    clips = store.dataset.clips_at(drawn.step)
    chosen = int(clips[int(rng.random() * len(clips))])
    mirrored = drawn.change.mirrored
    own, other = (store.leak(index, mirrored=mirrored, step=drawn.step) for index in (drawn.clip, chosen))
    if own is None or other is None:
        return None
    leaked: np.ndarray = store.arrays(drawn.clip)[drawn.change.beta_name][drawn.driving] + other - own
    return leaked


def _space(
    store: FrameStore, drawn: Drawn, rng: np.random.Generator, sampling: PairSampling
) -> dict[str, np.ndarray | None]:
    """Points of air and of solid head in the driving frame."""
    if not sampling.space_points or not store.has_truth(drawn.clip):
        return {"space": None, "solid": None}
    points, solid = space_points(
        store.depth(drawn.clip, drawn.driving).astype(np.float32) / np.float32(DEPTH_STEPS),
        store.mask(drawn.clip, drawn.driving),
        store.arrays(drawn.clip)["camera"][drawn.driving],
        sampling.space_points,
        rng,
    )
    return {"space": points * np.array([drawn.side, 1.0, 1.0], dtype=np.float32), "solid": solid}


def window_at(landmarks: np.ndarray, rng: np.random.Generator, sampling: PairSampling) -> tuple[int, int]:
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
