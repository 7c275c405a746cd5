"""The bundled weights show what they showed when they were made: tests/assets/portrait_reference.png.

The strip was rendered by the code of version 0.1, when both models were one class. It fails if loading, driving, rendering
or the bundled file change by more than rounding; a new model needs a new strip.
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from export3d.camera import Camera
from export3d.face_state import FaceState
from export3d.portrait import PortraitModel, load_model

STRIP = Path(__file__).parents[1] / "assets" / "portrait_reference.png"
SAMPLES = Path(str(resources.files("export3d"))) / "assets" / "samples"
PORTRAITS = ("portrait_1.png", "portrait_2.png", "portrait_3.png", "portrait_1.png", "portrait_2.png")
SIZE = 128


def _portrait(number: int) -> torch.Tensor:
    image = Image.open(SAMPLES / PORTRAITS[number]).convert("RGB").resize((SIZE, SIZE), Image.Resampling.LANCZOS)
    pixels = np.array(image)
    if number >= 3:
        pixels = pixels[:, ::-1].copy()
    return torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 127.5 - 1.0


def test_the_bundled_model_shows_the_stored_pictures_within_one_level() -> None:
    model = load_model()
    assert isinstance(model, PortraitModel)
    random, shown = np.random.default_rng(7), []

    def draw(width: int, scale: float) -> np.ndarray:
        return random.normal(size=width) * scale

    for number in range(len(PORTRAITS)):
        beta, driving_beta = draw(64, 1.0), draw(64, 1.0)
        cameras = [Camera.look_at_head(float(y), float(p)) for y, p in draw(4, 0.15).reshape(2, 2)]
        gaze, driving_gaze = draw(2, 0.2), draw(2, 0.2)
        turn, driving_turn = draw(3, 0.2), draw(3, 0.2)
        own = FaceState.of(beta=beta, gaze=None if number == 4 else gaze, turn=None if number == 2 else turn)
        driving = FaceState.of(beta=driving_beta, gaze=driving_gaze, turn=None if number == 3 else driving_turn)
        with torch.inference_mode():
            image = model(_portrait(number), cameras[0], own, driving, cameras[1]).image[0]
        shown.append(((image.clamp(-1.0, 1.0) + 1.0) * 127.5).round().byte().permute(1, 2, 0).numpy())
    stored = np.array(Image.open(STRIP).convert("RGB")).astype(int)
    difference = np.abs(np.concatenate(shown, axis=1).astype(int) - stored)
    assert stored.std() > 20.0 and difference.max() <= 1
