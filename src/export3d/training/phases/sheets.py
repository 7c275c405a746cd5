"""Sample sheets of a training run: source, target, output, depth and two novel views of held-out clips."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image

from export3d.camera import Camera
from export3d.data.source import ClipSource
from export3d.portrait.drivable import Model
from export3d.training.batches.stored_portrait import (
    StoredPortrait,
    depth_picture,
    stored_camera,
    stored_state,
    to_size,
)
from export3d.training.loop.run_folder import RunFolder
from export3d.training.phases.train import TrainTask

SHEET_ROWS = 6
VIEW_YAW_DEG = 25.0


def make_sheet(task: TrainTask, model: Model, run: RunFolder, step: int) -> dict[str, float]:
    """Write `sheets/step-<step>.png`; returns PSNR and L1 on its rows (held-out clips if there are any)."""
    sheet, measured = sample_sheet(model, task.sheet_clips, SHEET_ROWS)
    folder = run.path / "sheets"
    folder.mkdir(exist_ok=True)
    Image.fromarray(sheet).save(folder / f"step-{step:08d}.png")
    return measured


def sample_sheet(model: Model, dataset: ClipSource, rows: int) -> tuple[np.ndarray, dict[str, float]]:
    """One row per clip: source, driving frame, output, enlarged raw image, depth, views at -25 and +25 degrees.

    Returns:
        uint8 ``(rows * S, 7 * S, 3)`` and `held_out_psnr`, `held_out_l1` over the rows.
    """
    size = model.config.image_size
    yaw = math.radians(VIEW_YAW_DEG)
    sides = [Camera.look_at_head(yaw=sign * yaw) for sign in (-1.0, 1.0)]
    lines, errors = [], []
    for index in range(min(rows, len(dataset))):
        clip = index * len(dataset) // min(rows, len(dataset))
        times = dataset.num_frames(clip)
        source_time = int(np.argmin(np.abs(dataset.head_angles(clip)[:, :2]).sum(axis=1)))
        target_time = (source_time + max(times // 2, 1)) % times
        target = to_size(dataset.frame(clip, target_time), size)
        portrait = StoredPortrait(model, dataset, clip, source_time)
        cameras = [stored_camera(dataset, clip, target_time), *sides]
        shown, *views = portrait.views(stored_state(dataset, clip, target_time), cameras)
        errors.append((shown.image.astype(np.float32) - target) / 255.0)
        row = [to_size(dataset.frame(clip, source_time), size), target, shown.image, to_size(shown.raw, size)]
        lines.append(np.concatenate([*row, depth_picture(shown.depth, size), *(view.image for view in views)], 1))
    stacked = np.stack(errors)
    mse = (stacked**2).mean(axis=(1, 2, 3)).clip(min=1e-10)
    measured = {"held_out_psnr": float((-10 * np.log10(mse)).mean()), "held_out_l1": float(np.abs(stacked).mean())}
    return np.concatenate(lines), measured
