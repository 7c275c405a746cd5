"""Sample sheets of a training run: source, target, output, depth and two novel views of held-out clips."""

from __future__ import annotations

import math

import numpy as np
import torch
from PIL import Image

from export3d.camera import Camera
from export3d.data.source import ClipSource
from export3d.images import to_tensor, to_uint8
from export3d.model.export3d import Export3D
from export3d.training.loop.run_folder import RunFolder
from export3d.training.phases.train import TrainTask

SHEET_ROWS = 6
VIEW_YAW_DEG = 25.0


def make_sheet(task: TrainTask, model: Export3D, run: RunFolder, step: int) -> dict[str, float]:
    """Write `sheets/step-<step>.png`; returns PSNR and L1 on its rows (held-out clips if there are any)."""
    sheet, measured = sample_sheet(model, task.sheet_clips, SHEET_ROWS)
    folder = run.path / "sheets"
    folder.mkdir(exist_ok=True)
    Image.fromarray(sheet).save(folder / f"step-{step:08d}.png")
    return measured


@torch.no_grad()
def sample_sheet(model: Export3D, dataset: ClipSource, rows: int) -> tuple[np.ndarray, dict[str, float]]:
    """One row per clip: source, driving frame, output, enlarged raw image, depth, views at -25 and +25 degrees.

    Returns:
        uint8 ``(rows * S, 7 * S, 3)`` and `held_out_psnr`, `held_out_l1` over the rows.
    """
    device = next(model.parameters()).device
    size = model.config.image_size
    lines, errors = [], []
    for index in range(min(rows, len(dataset))):
        clip = index * len(dataset) // min(rows, len(dataset))
        times = dataset.num_frames(clip)
        angles = dataset.head_angles(clip)
        source_time = int(np.argmin(np.abs(angles[:, :2]).sum(axis=1)))
        target_time = (source_time + max(times // 2, 1)) % times
        arrays = dataset.arrays(clip)
        source_image = _fit(dataset.frame(clip, source_time), size)
        target_image = _fit(dataset.frame(clip, target_time), size)
        source = to_tensor(source_image)[None].to(device)
        cameras = torch.from_numpy(np.stack([arrays["camera"][source_time], arrays["camera"][target_time]])).to(device)
        beta = torch.from_numpy(arrays["beta"][target_time][None].copy()).to(device)
        own_beta = torch.from_numpy(arrays["beta"][source_time][None].copy()).to(device)
        own_gaze, gaze = (gaze_at(arrays, t, device) for t in (source_time, target_time))
        own_turn, turn = (turn_at(dataset, clip, t, device) for t in (source_time, target_time))
        code = model.encode(
            *(source, Camera.from_vector(cameras[:1])), source_beta=own_beta, source_gaze=own_gaze, source_turn=own_turn
        )
        planes = model.planes(code, beta, gaze, turn)
        output = model.render(planes, Camera.from_vector(cameras[1:]), code, turn=turn)
        assert output.image is not None
        result = to_uint8(output.image[0])
        errors.append((result.astype(np.float32) - target_image) / 255.0)
        views = []
        for sign in (-1.0, 1.0):
            camera = Camera.look_at_head(yaw=sign * math.radians(VIEW_YAW_DEG)).to(device)
            view = model.render(planes, camera, code, turn=turn).image
            assert view is not None
            views.append(to_uint8(view[0]))
        raw = _fit(to_uint8(output.raw[0]), size)
        lines.append(np.concatenate([source_image, target_image, result, raw, _depth(output.depth, size), *views], 1))
    stacked = np.stack(errors)
    mse = (stacked**2).mean(axis=(1, 2, 3)).clip(min=1e-10)
    measured = {"held_out_psnr": float((-10 * np.log10(mse)).mean()), "held_out_l1": float(np.abs(stacked).mean())}
    return np.concatenate(lines), measured


def gaze_at(arrays: dict[str, np.ndarray], time: int, device: torch.device | None = None) -> torch.Tensor | None:
    """``(1, 2)`` gaze of a frame in radians, or None where the clip has none."""
    gaze = arrays.get("gaze")
    return None if gaze is None else torch.from_numpy(gaze[time][None].copy()).to(device)


def turn_at(dataset: ClipSource, index: int, time: int, device: torch.device | None = None) -> torch.Tensor:
    """``(1, 3)`` the head's turn against torso and room in a stored frame (`Camera.head_turn`); 0 in a static scene."""
    camera = torch.from_numpy(dataset.arrays(index)["camera"][time][None].copy()).to(device)
    return Camera.from_vector(camera).head_turn() * dataset.in_room(index)


def _fit(image: np.ndarray, size: int) -> np.ndarray:
    if image.shape[0] == size:
        return image
    return np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR))


def _depth(depth: torch.Tensor, size: int) -> np.ndarray:
    """Near is bright; the range is that of the picture."""
    values = depth[0, 0].cpu().numpy()
    low, high = float(values.min()), float(values.max())
    gray = ((high - values) / max(high - low, 1e-6) * 255).astype(np.uint8)
    return _fit(np.repeat(gray[..., None], 3, axis=-1), size)
