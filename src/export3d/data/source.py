"""What training reads clips from: a folder of shards, or heads that are rendered while training goes on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np


class ClipSource(Protocol):
    """Random access to clips. `ClipDataset` and `heads.stream.HeadStream` satisfy it."""

    @property
    def name(self) -> str:
        """Where the clips come from, for messages."""
        ...

    @property
    def keys(self) -> tuple[str, ...]:
        """Clip keys in order."""
        ...

    @property
    def size(self) -> int:
        """Side of the square frames in pixels."""
        ...

    @property
    def extractor(self) -> dict[str, str]:
        """`name`, `version`, `sha256`, `expression_space` of what made `beta`."""
        ...

    @property
    def in_memory(self) -> bool:
        """Whether decoded pictures are at hand, so that a reader should keep none of its own."""
        ...

    def __len__(self) -> int: ...

    def facts(self) -> dict[str, Any]:
        """What decides the samples, JSON-ready: a resumed run must find the same."""
        ...

    def clips_at(self, step: int, min_frames: int = 1) -> Sequence[int] | np.ndarray:
        """Indices of the clips with at least `min_frames` frames that training step `step` may draw."""
        ...

    def num_frames(self, index: int) -> int: ...

    def identity(self, index: int) -> str: ...

    def arrays(self, index: int) -> dict[str, np.ndarray]: ...

    def head_angles(self, index: int) -> np.ndarray: ...

    def in_room(self, index: int) -> bool:
        """Whether the head turns against torso and light, as before a resting camera; not in a static synthetic scene."""
        ...

    def frame(self, index: int, time: int) -> np.ndarray: ...

    def mask(self, index: int, time: int) -> np.ndarray: ...

    def depth(self, index: int, time: int) -> np.ndarray: ...

    def background(self, index: int) -> np.ndarray: ...

    def has(self, index: int, member: str) -> bool: ...
