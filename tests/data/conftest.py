"""Small clips for the tests of the data set format."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from export3d.camera import Camera
from export3d.data import Clip, ShardWriter, make_meta

EXTRACTOR = {"name": "test", "version": "1", "sha256": "ab" * 32, "expression_space": "ict64"}


def build_clip(
    key: str, *, num_frames: int = 6, size: int = 24, seed: int = 0, synthetic: bool = False, **meta: object
) -> Clip:
    """A clip of noise whose head turns from -30 to 30 degrees of yaw."""
    rng = np.random.default_rng(seed)
    camera = Camera.look_at_head(torch.linspace(-0.5236, 0.5236, num_frames)).to_vector().numpy()
    arrays = {
        "beta": rng.standard_normal((num_frames, 64)).astype(np.float32),
        "camera": camera.astype(np.float32),
        "landmarks": rng.random((num_frames, 68, 2)).astype(np.float32),
        "confidence": np.ones(num_frames, np.float32),
        "crop": np.zeros((num_frames, 3), np.float32),
    }
    fields: dict = {"identity": f"id-{key}", "source": "test", "extractor": EXTRACTOR, "fps": 25, **meta}
    masks = depths = background = None
    if synthetic:
        arrays["alpha"] = rng.standard_normal(80).astype(np.float32)
        arrays["weights"] = rng.random((num_frames, 53)).astype(np.float32)
        masks = rng.integers(0, 256, (num_frames, size, size), dtype=np.uint8)
        depths = rng.integers(0, 65536, (num_frames, size, size), dtype=np.uint16)
        background = rng.integers(0, 256, (size, size, 3), dtype=np.uint8)
    return Clip(
        key=key,
        frames=rng.integers(0, 256, (num_frames, size, size, 3), dtype=np.uint8),
        arrays=arrays,
        meta=make_meta(key=key, num_frames=num_frames, size=size, **fields),
        masks=masks,
        depths=depths,
        background=background,
    )


@pytest.fixture
def make_clip() -> Callable[..., Clip]:
    """Builds one clip."""
    return build_clip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A data set of five clips in three shards; the last clip is of split `val`."""
    with ShardWriter(tmp_path / "set", clips_per_shard=2) as writer:
        for number in range(5):
            split = "val" if number == 4 else "train"
            writer.write(build_clip(f"clip-{number}", num_frames=4 + number, seed=number, split=split))
    return tmp_path / "set"
