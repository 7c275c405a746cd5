"""The animator: a portrait is encoded once, then every expression and camera gives an image (Fig. 1)."""

from __future__ import annotations

import math
from copy import copy
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from export3d.camera import Camera
from export3d.errors import UsageError
from export3d.images import read_image, to_tensor, to_uint8
from export3d.model import Export3D, FastConfig, Render, SourceCode
from export3d.precision import uses_bf16
from export3d.tracking import Crop, Tracker, crop_image, unknown_gaze
from export3d.tracking.alignment import plane_turn
from export3d.tracking.head_fit import HeadPose


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A portrait that is ready to be driven.

    Attributes:
        image: uint8 ``(H, W, 3)``, the photo as it was given.
        crop: the square of the photo that the network sees.
        beta: ``(64,)`` float32, the portrait's own expression.
        camera: ``(25,)`` float32, the portrait's own camera.
        code: what the network keeps of the portrait.
        gaze: ``(2,)`` float32, the portrait's own gaze in radians; NaN where it is unknown.
        turn: ``(3,)`` float32, how the portrait's head is turned against its torso, see `head_turn`.
    """

    image: np.ndarray
    crop: Crop
    beta: np.ndarray
    camera: np.ndarray
    code: SourceCode
    gaze: np.ndarray = field(default_factory=unknown_gaze)
    turn: np.ndarray = field(default_factory=lambda: np.zeros(3, dtype=np.float32))

    def picture(self, size: int) -> np.ndarray:
        """The aligned portrait as uint8 ``(size, size, 3)``, as the photo stands."""
        return crop_image(self.image, replace(self.crop, angle=0.0), size)

    def turned_back(self, picture: np.ndarray) -> np.ndarray:
        """A uint8 ``(S, S, 3)`` picture of the levelled person, turned to where the photo stands; quarter turns are exact.

        Corners that stay empty show the photo.
        """
        if not self.crop.angle:
            return picture
        size = picture.shape[0]
        quarters = round(self.crop.angle / (math.pi / 2.0))
        rest = self.crop.angle - quarters * math.pi / 2.0
        if abs(rest) < LEVEL_ENOUGH_RAD:
            return np.ascontiguousarray(np.rot90(picture, -quarters))
        turned = Image.fromarray(picture).convert("RGBA")
        turned = turned.rotate(-math.degrees(self.crop.angle), Image.Resampling.BICUBIC)
        behind = Image.fromarray(self.picture(size))
        behind.paste(turned.convert("RGB"), mask=turned.getchannel("A"))
        return np.asarray(behind)


LEVEL_ENOUGH_RAD = math.radians(8.0)
"""A photo this near to a quarter turn is turned back by the quarter turn alone."""

NECK_ROLL_RAD = math.radians(30.0)
"""A neck bends a head sideways no further; what a driver's head is tilted beyond that, the whole person is."""


def head_turn(camera: np.ndarray) -> np.ndarray:
    """Turn of the head against a torso that faces the camera ``(25,)``: a rotation vector ``(3,)`` in radians. The torso
    is upright as long as the neck allows; beyond that it tilts with the head."""
    pose = HeadPose.of_camera(camera)
    tilt = float(np.arctan2(pose.rotation[1, 0], pose.rotation[0, 0]))
    upright = np.eye(3)
    upright[:2, :2] = plane_turn(np.clip(tilt, -NECK_ROLL_RAD, NECK_ROLL_RAD) - tilt)
    seen = HeadPose(rotation=upright @ pose.rotation, origin=upright @ pose.origin).camera()
    turn: np.ndarray = Camera.from_vector(torch.from_numpy(seen)[None]).head_turn()[0].numpy()
    return turn


class Animator:
    """Drives one portrait after another with a trained model.

    Nothing is computed twice: the portrait is encoded once, the planes are kept while expression and gaze stay the same,
    and the picture while the camera does too.

    Args:
        model: from `load_model`.
        tracker: finds the face in the portrait; the default is MediaPipe with the bundled regressor.
        exact: render every sample of every ray in single precision, as evaluation does. Otherwise, on a CPU, what does
            not show is left out (`rendering/fast.py`), where the model can do that, and the networks around the renderer
            calculate in bf16 where that is faster (`precision.py`).

    Raises:
        UsageError: The tracker's coefficients are not in the model's expression space.
    """

    def __init__(self, model: Export3D, tracker: Tracker | None = None, *, exact: bool = False) -> None:
        self.model = model
        self.tracker = tracker if tracker is not None else Tracker(size=model.config.image_size)
        given, wanted = self.tracker.info.expression_space, model.config.expression.space
        if given != wanted:
            raise UsageError(
                f"the tracker '{self.tracker.info.name}' gives coefficients in the expression space '{given}', "
                f"but the model was trained on '{wanted}'. Use a tracker for '{wanted}' or another model."
            )
        self.device = next(model.parameters()).device
        # Measured on CPUs only; a GPU would wait for the number of rays that are left.
        pays = self.device.type == "cpu" and model.can_be_fast
        self.fast = FastConfig() if pays and not exact else None
        self.half = self.fast is not None and uses_bf16("auto", self.device)
        self.subject: Subject | None = None
        self._beta: np.ndarray | None = None
        self._gaze: np.ndarray | None = None
        self._turn: np.ndarray | None = None
        self._planes: Tensor | None = None
        self._camera: np.ndarray | None = None
        self._render: Render | None = None

    def twin(self) -> Animator:
        """Another animator with the same model, tracker and portrait, for another thread; it keeps planes of its own."""
        other = copy(self)
        other._forget()
        return other

    def _forget(self) -> None:
        """Drop what is kept of earlier frames."""
        self._beta = self._gaze = self._turn = self._planes = self._camera = self._render = None

    @property
    def image_size(self) -> int:
        """Side of the rendered image, pixels."""
        return self.model.config.image_size

    def portrait(self, image: np.ndarray | str | Path, where: str | None = None) -> Subject:
        """Take a new portrait: find its face, crop it, encode it.

        Args:
            image: a file, or uint8 ``(H, W, 3)`` RGB of any size.
            where: what to call it in error texts.

        Raises:
            UnreadableImageError, ImageSizeError: The file cannot be used.
            NoFaceError, SeveralFacesError, FaceTooSmallError, FaceCutOffError: The face cannot be used.
        """
        if not isinstance(image, np.ndarray):
            where = where or str(image)
            image = read_image(image)
        found = self.tracker.portrait(image, where=where or "the source image")
        self.subject = self.encode(image, found.crop, found.beta, found.camera, found.gaze)
        return self.subject

    def encode(
        self,
        image: np.ndarray,
        crop: Crop,
        beta: np.ndarray,
        camera: np.ndarray,
        gaze: np.ndarray | None = None,
        turn: np.ndarray | None = None,
    ) -> Subject:
        """Encode a portrait whose crop, expression and camera are known already, and make it the current one.

        Its `gaze` (2,) in radians is unknown when None or NaN. Its `turn` (3,) of the head against the torso, a rotation
        vector in radians, is taken from the camera when None, as if the torso faced it.
        """
        gaze = unknown_gaze() if gaze is None else gaze
        turn = head_turn(camera) if turn is None else turn
        own = np.array(crop_image(image, crop, self.image_size))  # a writable copy, as PyTorch wants it
        source = to_tensor(own)[None].to(self.device)
        with torch.inference_mode():
            own_beta = torch.from_numpy(np.asarray(beta, dtype=np.float32))[None].to(self.device)
            code = self.model.encode(
                *(source, self._to_camera(camera)),
                source_beta=own_beta,
                source_gaze=self._to_row(gaze),
                source_turn=self._to_row(turn),
            )
        self._forget()
        self.subject = Subject(image=image, crop=crop, beta=beta, camera=camera, code=code, gaze=gaze, turn=turn)
        return self.subject

    def frame(
        self,
        beta: np.ndarray,
        camera: np.ndarray | Camera,
        gaze: np.ndarray | None = None,
        turn: np.ndarray | None = None,
    ) -> np.ndarray:
        """The portrait with expression `beta` (64,), seen by `camera` (25,), as uint8 ``(S, S, 3)``.

        `gaze` (2,) turns the eyes: radians in the head's frame, sideways (+ to the image right) and up. None or NaN, or
        a model that was trained without gaze, leaves them alone. `turn` (3,) turns the head against the torso, see
        `head_turn`. None, or a model that was trained without a neck, leaves the torso as it stands in the portrait: the
        camera goes round the person.
        """
        image = self.render(beta, camera, gaze, turn).image
        assert image is not None  # only raw renderings have none
        return to_uint8(image[0])

    def render(
        self,
        beta: np.ndarray,
        camera: np.ndarray | Camera,
        gaze: np.ndarray | None = None,
        turn: np.ndarray | None = None,
    ) -> Render:
        """Like `frame`, with depth, opacity and the raw image."""
        if self.subject is None:
            raise RuntimeError("Animator: give a portrait first: animator.portrait(image)")
        vector = camera.to_vector()[0].cpu().numpy() if isinstance(camera, Camera) else np.asarray(camera)
        beta = np.asarray(beta, dtype=np.float32)
        gaze = np.array(unknown_gaze() if gaze is None else gaze, dtype=np.float32)
        turn = np.array(self.subject.turn if turn is None else turn, dtype=np.float32)
        with torch.inference_mode(), torch.autocast(self.device.type, torch.bfloat16, enabled=self.half):
            if self._planes is None or not self._holds(beta, gaze, turn):
                betas = torch.from_numpy(beta)[None].to(self.device)
                own = (self.subject.code, betas, self._to_row(gaze), self._to_row(turn))
                self._planes = self.model.planes(*own)
                self._beta, self._gaze, self._turn, self._render = beta.copy(), gaze, turn, None
            if self._render is None or not np.array_equal(vector, self._camera):  # type: ignore[arg-type]
                self._render = self.model.render(
                    *(self._planes, self._to_camera(vector), self.subject.code), turn=self._to_row(turn), fast=self.fast
                )
                self._camera = vector.copy()
        return self._render

    def _holds(self, beta: np.ndarray, gaze: np.ndarray, turn: np.ndarray) -> bool:
        """Whether the planes are those of this expression and, for a model that reads them, this gaze and turn."""
        assert self._beta is not None and self._gaze is not None and self._turn is not None
        same_gaze = not self.model.config.gaze or np.array_equal(gaze, self._gaze, equal_nan=True)
        same_turn = self.model.neck is None or np.array_equal(turn, self._turn)
        return same_gaze and same_turn and np.array_equal(beta, self._beta)

    def _to_row(self, values: np.ndarray) -> Tensor:
        return torch.from_numpy(np.asarray(values, dtype=np.float32))[None].to(self.device)

    def _to_camera(self, vector: np.ndarray) -> Camera:
        return Camera.from_vector(torch.from_numpy(np.asarray(vector, dtype=np.float32))[None]).to(self.device)
