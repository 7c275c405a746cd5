"""Tiny random clips for the tests of training, written through ShardWriter."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from export3d.camera import Camera
from export3d.data import Clip, ShardWriter, make_meta

EXTRACTOR = {"name": "random", "version": "1", "sha256": "0" * 64, "expression_space": "ict64"}


def write_clips(
    folder: Path,
    *,
    clips: int = 4,
    frames: int = 6,
    size: int = 32,
    truth: bool = True,
    splits: tuple[str, ...] = ("train",),
    extractor: dict[str, str] = EXTRACTOR,
) -> Path:
    """Blobs over a background; beta moves a bright mouth, so that there is something to learn."""
    writer = ShardWriter(folder, clips_per_shard=3)
    grid = (np.arange(size) + 0.5) / size
    y, x = np.meshgrid(grid, grid, indexing="ij")
    for number in range(clips):
        rng = np.random.default_rng(number)
        beta = rng.normal(size=(frames, 64)).astype(np.float32)
        yaw = rng.uniform(-0.4, 0.4, frames).astype(np.float32)
        pitch = rng.uniform(-0.2, 0.2, frames).astype(np.float32)
        camera = Camera.look_at_head(torch.from_numpy(yaw), torch.from_numpy(pitch)).to_vector().numpy()
        background = rng.integers(0, 256, (size, size, 3), dtype=np.uint8)
        skin = rng.integers(60, 256, 3)
        images, masks, depths, landmarks = [], [], [], []
        for time in range(frames):
            centre = 0.5 + 0.2 * yaw[time]
            head = ((x - centre) ** 2 + (y - 0.5) ** 2 < 0.3**2).astype(np.uint8) * 255
            image = np.where(head[..., None] > 0, skin, background).astype(np.uint8)
            mouth_y = 0.65 + 0.03 * beta[time, 0]
            image[(np.abs(x - centre) < 0.1) & (np.abs(y - mouth_y) < 0.04)] = (200, 20, 40)
            images.append(image)
            masks.append(head)
            depths.append(np.where(head > 0, 2.6 * 16384, 0).astype(np.uint16))
            points = 0.5 + 0.2 * rng.normal(size=(68, 2))
            points[48:68] = (centre, mouth_y) + 0.05 * rng.normal(size=(20, 2))
            landmarks.append(points.clip(0, 1).astype(np.float32))
        key = f"clip_{number}"
        meta = make_meta(
            key=key,
            num_frames=frames,
            size=size,
            fps=25,
            identity=f"person_{number}",
            source="test",
            extractor=extractor,
            split=splits[number % len(splits)],
        )
        arrays = {
            "beta": beta,
            "camera": camera.astype(np.float32),
            "landmarks": np.stack(landmarks),
            "confidence": np.ones(frames, np.float32),
            "crop": np.zeros((frames, 3), np.float32),
        }
        if truth:
            arrays["beta_mirror"] = -beta
            arrays["true_beta"] = beta
            arrays["weights"] = rng.random((frames, 53)).astype(np.float32)
            arrays["gaze"] = rng.normal(0.0, 0.2, (frames, 2)).astype(np.float32)
        writer.write(
            Clip(
                key=key,
                frames=np.stack(images),
                arrays=arrays,
                meta=meta,
                masks=np.stack(masks) if truth else None,
                depths=np.stack(depths) if truth else None,
                background=background if truth else None,
            )
        )
    writer.close()
    return folder
