"""A source frame of a data set, encoded once and driven by any stored frame: what scores and figures share (Sec. 4.2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from export3d.camera import Camera
from export3d.data import ClipDataset
from export3d.errors import UsageError
from export3d.images import to_tensor, to_uint8
from export3d.model import Export3D
from export3d.training.phases.sheets import gaze_at, turn_at


@dataclass(frozen=True, kw_only=True)
class View:
    """One rendered picture.

    Attributes:
        image: uint8 ``(H, H, 3)`` at the model's size.
        depth: ``(1, 1, h, h)`` float32 on the CPU, distance along the ray in scene units.
        opacity: ``(1, 1, h, h)`` float32 on the CPU, in [0, 1].
        camera: the one camera it was seen from, on the CPU.
    """

    image: np.ndarray
    depth: Tensor
    opacity: Tensor
    camera: Camera


class Portrait:
    """Frame `time` of clip `index`, seen by `model`.

    Args:
        model: in evaluation mode, on any device.
        dataset: where the frame, its camera and the driving frames lie.
        index: number of the clip.
        time: number of the frame.

    Attributes:
        code: what the model keeps of the frame.
    """

    @torch.inference_mode()
    def __init__(self, model: Export3D, dataset: ClipDataset, index: int, time: int) -> None:
        self._model, self._dataset = model, dataset
        self._device = next(model.parameters()).device
        image = fit_size(to_tensor(dataset.frame(index, time))[None], model.config.image_size)
        self.code = model.encode(
            image.to(self._device),
            stored_camera(dataset, index, time).to(self._device),
            source_beta=stored_beta(dataset, index, time).to(self._device),
            source_gaze=gaze_at(dataset.arrays(index), time, self._device),
            source_turn=turn_at(dataset, index, time, self._device),
        )

    def drive(self, index: int, time: int) -> View:
        """The portrait with the stored expression and camera of frame `time` of clip `index`."""
        beta, gaze = stored_beta(self._dataset, index, time), stored_gaze(self._dataset, index, time)
        turn = turn_at(self._dataset, index, time)
        return self.views(beta, [stored_camera(self._dataset, index, time)], gaze, turn)[0]

    @torch.inference_mode()
    def views(
        self, beta: Tensor, cameras: Sequence[Camera], gaze: Tensor | None, turn: Tensor | None = None
    ) -> list[View]:
        """One expression ``(1, 64)`` from several single cameras; the planes are made once.

        `gaze` ``(1, 2)`` and `turn` ``(1, 3)`` of the head, both in radians, are read by models that have them only; None
        leaves eyes or torso as in the portrait.
        """
        driven = None if gaze is None else gaze.to(self._device)
        turn = None if turn is None else turn.to(self._device)
        planes = self._model.planes(self.code, beta.to(self._device), driven, turn)
        out = []
        for camera in cameras:
            render = self._model.render(planes, camera.to(self._device), self.code, turn=turn)
            assert render.image is not None  # only a changed raw size leaves it out
            depth, opacity = render.depth.float().cpu(), render.opacity.float().cpu()
            out.append(View(image=to_uint8(render.image[0]), depth=depth, opacity=opacity, camera=camera))
        return out


def stored_camera(dataset: ClipDataset, index: int, time: int) -> Camera:
    """The one camera of a stored frame."""
    return Camera.from_vector(torch.tensor(dataset.arrays(index)["camera"][time : time + 1]))


def stored_beta(dataset: ClipDataset, index: int, time: int) -> Tensor:
    """``(1, 64)`` coefficients of a stored frame, as the data set's extractor read them."""
    return torch.tensor(dataset.arrays(index)["beta"][time : time + 1])


def stored_gaze(dataset: ClipDataset, index: int, time: int) -> Tensor | None:
    """``(1, 2)`` gaze of a stored frame in radians, or None where the clip has none."""
    return gaze_at(dataset.arrays(index), time)


def require_same_space(model: Export3D, dataset: ClipDataset) -> None:
    """The coefficients of the data set must mean what the model was trained on.

    Raises:
        UsageError: Another expression space.
    """
    given, wanted = dataset.extractor["expression_space"], model.config.expression.space
    if given != wanted:
        raise UsageError(
            f"{dataset.folder}: its coefficients are in the expression space '{given}', but the model was trained on "
            f"'{wanted}'. Prepare the data with an extractor for '{wanted}' or take another model."
        )


def fit_size(image: Tensor, size: int) -> Tensor:
    """Float ``(B, C, H, H)`` at another size; unchanged where it fits already."""
    if image.shape[-1] == size:
        return image
    return F.interpolate(image, size=(size, size), mode="bilinear", antialias=True, align_corners=False)


def to_size(image: np.ndarray, size: int) -> np.ndarray:
    """uint8 ``(H, H, 3)`` at another size."""
    return image if image.shape[0] == size else to_uint8(fit_size(to_tensor(image)[None], size)[0])
