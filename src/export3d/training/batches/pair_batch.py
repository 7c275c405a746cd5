"""A batch of pairs as it is stored, and how its pairs are drawn (Sec. 3.4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from export3d.face_state import FaceState


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
    weights_known: float = 0.0
    """Share of pairs whose single weights are told, as a tracker with scores tells them; the others have beta alone."""
    weights_noise: float = 0.05
    """Standard deviation of the error of those weights."""
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
    state: FaceState
    """Of the driving frame; its turn is 0 where torso and room are as rigid as the head."""
    source_state: FaceState
    """Of the source."""
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

        def move(tensor: Tensor) -> Tensor:
            return tensor.to(device, non_blocking=True)

        for field in fields(self):
            value = getattr(self, field.name)
            if value is not None and field.name not in ("window_top", "window_left"):  # those are read on the CPU
                value = value.map(move) if isinstance(value, FaceState) else move(value)
            moved[field.name] = value
        return PairBatch(**moved)

    def __getitem__(self, index: slice) -> PairBatch:
        parts: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(self)}
        for name, value in parts.items():
            parts[name] = None if value is None else value[index]
        return PairBatch(**parts)

    @staticmethod
    def joined(batches: Sequence[PairBatch]) -> PairBatch:
        """Several batches as one; what one of them lacks is left out of all."""
        parts: dict[str, Any] = {}
        for field in fields(PairBatch):
            values = [getattr(batch, field.name) for batch in batches]
            if any(value is None for value in values):
                parts[field.name] = None
            else:
                parts[field.name] = FaceState.cat(values) if isinstance(values[0], FaceState) else torch.cat(values)
        return PairBatch(**parts)

    def __len__(self) -> int:
        return self.source.shape[0]
