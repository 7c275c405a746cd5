"""Frames of the training clips, decoded once, and the changes that training makes to them (Sec. 3.4)."""

from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from export3d.camera import Camera
from export3d.data.source import ClipSource
from export3d.training.batches.augment import Change, recolor, replace_background
from export3d.training.batches.mirrored_truth import mirrored_truth, mirrored_truth_map


class FrameStore:
    """Decoded frames of a data set, kept in memory as uint8 up to a limit; beyond it frames are decoded each time.

    Args:
        limit_bytes: memory for decoded pictures; 0 caches none. A source that keeps its own pictures is not cached.
        size: side to which larger frames, masks and backgrounds are reduced before they are kept; None keeps them.
    """

    def __init__(self, dataset: ClipSource, limit_bytes: int, size: int | None = None) -> None:
        self.dataset = dataset
        self._size = size if size is not None and size < dataset.size else None
        self._limit = 0 if dataset.in_memory else limit_bytes
        self._used = 0
        self._pictures: dict[tuple[str, int, int], np.ndarray] = {}
        self._arrays: dict[int, dict[str, np.ndarray]] = {}
        self._known: dict[tuple[int, str], bool] = {}
        self._truth_map: np.ndarray | None = None
        self._silent_clips: tuple[int, ...] | None = None  # those that gave no map
        self._lock = threading.Lock()

    def frame(self, clip: int, time: int) -> np.ndarray:
        """``(H, W, 3)`` uint8; do not change it."""
        return self._picture("frame", clip, time)

    def mask(self, clip: int, time: int) -> np.ndarray:
        """``(H, W)`` uint8."""
        return self._picture("mask", clip, time)

    def depth(self, clip: int, time: int) -> np.ndarray:
        """``(H, W)`` uint16."""
        return self._picture("depth", clip, time)

    def background(self, clip: int) -> np.ndarray:
        """``(H, W, 3)`` uint8."""
        return self._picture("background", clip, 0)

    def arrays(self, clip: int) -> dict[str, np.ndarray]:
        """The clip's arrays; these are small and always kept, except those of a source that keeps its own."""
        if self.dataset.in_memory:
            return self.dataset.arrays(clip)
        found = self._arrays.get(clip)
        if found is None:
            found = self._arrays[clip] = self.dataset.arrays(clip)
        return found

    def leak(self, clip: int, *, mirrored: bool = False, step: int = 0) -> np.ndarray | None:
        """``(64,)`` float32 mean over the clip of beta less the true expression: what the extractor mixes of the person into
        beta.

        Args:
            mirrored: of the mirrored frames.
            step: training step, whose clips tell how the true expression of a mirrored face follows from the weights.

        Returns:
            None for clips without the truth, or where that cannot be told.
        """
        arrays = self.arrays(clip)
        if "true_beta" not in arrays:
            return None
        if not mirrored:
            mean: np.ndarray = (arrays["beta"] - arrays["true_beta"]).mean(axis=0)
            return mean
        truth_map = self._mirrored_truth_map(step)
        if truth_map is None or not {"beta_mirror", "weights"} <= arrays.keys():
            return None
        mean = (arrays["beta_mirror"] - mirrored_truth(arrays["weights"], truth_map)).mean(axis=0)
        return mean

    def _mirrored_truth_map(self, step: int) -> np.ndarray | None:
        if self._truth_map is None:
            clips = tuple(int(clip) for clip in self.dataset.clips_at(step))
            if clips != self._silent_clips:  # asked for every mirrored pair, but other clips come only with a stream
                self._truth_map = mirrored_truth_map(self.arrays(clip) for clip in clips)
                self._silent_clips = clips
        return self._truth_map

    def has_truth(self, clip: int) -> bool:
        """Whether the clip has masks and depths."""
        return self._has(clip, "0000.mask.png") and self._has(clip, "0000.depth.png")

    def has_background(self, clip: int) -> bool:
        """Whether the clip has masks and its clean background."""
        return self._has(clip, "0000.mask.png") and self._has(clip, "background.png")

    def _has(self, clip: int, member: str) -> bool:
        if (clip, member) not in self._known:
            self._known[clip, member] = self.dataset.has(clip, member)
        return self._known[clip, member]

    def _picture(self, kind: str, clip: int, time: int) -> np.ndarray:
        key = (kind, clip, time)
        found = self._pictures.get(key)
        if found is not None:
            return found
        if kind == "background":
            picture = self.dataset.background(clip)
        else:
            read = {"frame": self.dataset.frame, "mask": self.dataset.mask, "depth": self.dataset.depth}[kind]
            picture = read(clip, time)
        if self._size is not None and kind != "depth":
            shrunk = Image.fromarray(picture).resize((self._size, self._size), Image.Resampling.BILINEAR)
            picture = np.asarray(shrunk)
        with self._lock:
            if self._used + picture.nbytes <= self._limit and key not in self._pictures:
                self._pictures[key] = picture
                self._used += picture.nbytes
        return picture


def possible_change(store: FrameStore, clip: int, change: Change) -> Change:
    """The change without what the clip's stored members do not allow."""
    if change.background != "own" and not store.has_background(clip):
        change = replace(change, background="own")
    if change.mirrored and "beta_mirror" not in store.arrays(clip):
        change = replace(change, mirrored=False)
    return change


def changed_frame(store: FrameStore, clip: int, time: int, change: Change, step: int) -> np.ndarray:
    """A frame ``(H, W, 3)`` uint8 with the change; another background comes from a clip that step `step` may draw."""
    image = store.frame(clip, time)
    if change.background != "own":
        other: np.ndarray = change.flat_color
        if change.background == "other":
            clips = store.dataset.clips_at(step)
            chosen = int(clips[int(change.background_draw * len(clips))])
            other = store.background(chosen) if store.has_background(chosen) else change.flat_color
        image = replace_background(image, store.mask(clip, time), store.background(clip), other)
    image = recolor(image, change.table)
    return np.ascontiguousarray(image[:, ::-1]) if change.mirrored else image


def mirror_cameras(p: Tensor, mirrored: Tensor) -> Tensor:
    """Mirror the cameras ``(B, 25)`` of the samples where `mirrored` ``(B,)`` is true."""
    if not bool(mirrored.any()):
        return p
    return torch.where(mirrored[:, None], Camera.from_vector(p).mirrored().to_vector(), p)
