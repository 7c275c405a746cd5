"""A stored frame as a portrait, encoded once and driven by any stored frame: what sample sheets, scores and figures share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from export3d.camera import Camera
from export3d.data.source import ClipSource
from export3d.face_state import FaceState
from export3d.images import to_tensor, to_uint8
from export3d.model.superres import resize
from export3d.portrait.drivable import Model, drivable
from export3d.portrait.model import PortraitModel
from export3d.rendering.fused import EVERYTHING


@dataclass(frozen=True, kw_only=True)
class View:
    """One rendered picture.

    Attributes:
        image: uint8 ``(H, H, 3)`` at the model's size, or the one asked for.
        raw: uint8 ``(h, h, 3)``, the raw image.
        depth: ``(1, 1, h, h)`` float32 on the CPU, distance along the ray in scene units.
        opacity: ``(1, 1, h, h)`` float32 on the CPU, in [0, 1].
        camera: the one camera it was seen from, on the CPU.
    """

    image: np.ndarray
    raw: np.ndarray
    depth: Tensor
    opacity: Tensor
    camera: Camera


class StoredPortrait:
    """Frame `time` of clip `index`, seen by `model`.

    Args:
        model: in evaluation mode, on any device.
        dataset: where the frame, its camera and the driving frames lie.
        index: number of the clip.
        time: number of the frame.
        size: side of the pictures, composed with the frame's own detail; None is the model's, without it.
        known: camera and face in place of the stored ones.

    Attributes:
        code: what the model keeps of the frame.
    """

    @torch.inference_mode()
    def __init__(
        self,
        model: Model,
        dataset: ClipSource,
        index: int,
        time: int,
        size: int | None = None,
        *,
        known: tuple[Camera, FaceState] | None = None,
    ) -> None:
        self._model, self._dataset = drivable(model), dataset
        self._fast = None if isinstance(model, PortraitModel) else EVERYTHING  # the compiled loop; leaves nothing out
        self._device = next(model.parameters()).device
        frame = to_tensor(dataset.frame(index, time))[None].to(self._device)
        image = resize(frame, model.config.image_size)
        photo = None if size is None else resize(frame, size)
        camera, state = known or (stored_camera(dataset, index, time), stored_state(dataset, index, time))
        self.code = self._model.encode(image, camera.to(self._device), state.to(self._device), photo=photo)

    def drive(self, index: int, time: int) -> View:
        """The portrait with the stored face and camera of frame `time` of clip `index`."""
        return self.views(stored_state(self._dataset, index, time), [stored_camera(self._dataset, index, time)])[0]

    @torch.inference_mode()
    def views(self, state: FaceState, cameras: Sequence[Camera]) -> list[View]:
        """One driving face (B = 1) from several single cameras; the planes are made once."""
        driven = self._model.drive(self.code, state.to(self._device))
        out = []
        for camera in cameras:
            render = self._model.render(driven, camera.to(self._device), fast=self._fast)
            assert render.image is not None  # only a changed raw size leaves it out
            image, raw = to_uint8(render.image[0]), to_uint8(render.raw[0])
            depth, opacity = render.depth.float().cpu(), render.opacity.float().cpu()
            out.append(View(image=image, raw=raw, depth=depth, opacity=opacity, camera=camera))
        return out


def stored_camera(dataset: ClipSource, index: int, time: int) -> Camera:
    """The one camera of a stored frame."""
    return Camera.from_vector(torch.tensor(dataset.arrays(index)["camera"][time : time + 1]))


def stored_state(dataset: ClipSource, index: int, time: int) -> FaceState:
    """The face of a stored frame (B = 1): beta as the data set's extractor read it, gaze where the clip has it, and the
    head's turn against torso and room (`Camera.head_turn`; 0 in a static scene)."""
    arrays = dataset.arrays(index)
    gaze = arrays.get("gaze")
    state = FaceState.of(beta=arrays["beta"][time], gaze=None if gaze is None else gaze[time])
    turn = stored_camera(dataset, index, time).head_turn() * dataset.in_room(index)
    return replace(state, turn=turn)


def to_size(image: np.ndarray, size: int) -> np.ndarray:
    """uint8 ``(H, H, 3)`` at another size."""
    return image if image.shape[0] == size else to_uint8(resize(to_tensor(image)[None], size)[0])


def depth_picture(depth: Tensor, size: int) -> np.ndarray:
    """Depth ``(1, 1, h, h)`` as a grey uint8 ``(size, size, 3)``: near is bright, scaled to the depths that occur."""
    full = F.interpolate(depth, size=(size, size), mode="bilinear", align_corners=False)[0, 0]
    near, far = full.min(), full.max()
    shade = (255.0 * (far - full) / (far - near).clamp_min(1e-6)).to(torch.uint8).numpy()
    return np.repeat(shade[..., None], 3, axis=-1)
