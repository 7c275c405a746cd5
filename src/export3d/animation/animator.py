"""The animator: a portrait is encoded once, then every expression and camera gives an image (Fig. 1)."""

from __future__ import annotations

import math
from copy import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from export3d.animation.paste import LARGEST_PX, HeadLayer
from export3d.animation.person import Person, person_apart
from export3d.camera import Camera
from export3d.errors import UsageError
from export3d.face_state import FaceState
from export3d.images import read_image, to_tensor, to_uint8
from export3d.model import Render
from export3d.portrait import FastConfig, Model, PortraitModel, drivable
from export3d.precision import uses_bf16
from export3d.provenance import AllowedSources
from export3d.tracking import Crop, Tracker, crop_image
from export3d.tracking.alignment import plane_turn
from export3d.tracking.head_fit import HeadPose

LEVEL_ENOUGH_RAD = math.radians(8.0)
"""A photo this near to a quarter turn is turned back by the quarter turn alone."""

NECK_ROLL_RAD = math.radians(30.0)
"""A neck bends a head sideways no further; what a driver's head is tilted beyond that, the whole person is."""


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A portrait that is ready to be driven.

    Attributes:
        image: uint8 ``(H, W, 3)``, the photo as it was given.
        crop: the square of the photo that the network sees.
        state: the portrait's own face (B = 1) with the turn of its head.
        camera: ``(25,)`` float32, the portrait's own camera.
        code: what the network keeps of the portrait.
        person: apart from the background, where pictures have the photograph's own detail.
    """

    image: np.ndarray
    crop: Crop
    state: FaceState
    camera: np.ndarray
    code: Any
    person: Person | None = None

    def picture(self, size: int) -> np.ndarray:
        """The aligned portrait as uint8 ``(size, size, 3)``, as the photo stands."""
        return crop_image(self.image, replace(self.crop, angle=0.0), size)

    def turned_back(self, picture: np.ndarray) -> np.ndarray:
        """A uint8 ``(S, S, 3)`` picture of the levelled person, turned to where the photo stands; quarter turns are exact.

        Corners that stay empty show the photo.
        """
        if not self.crop.angle:
            return picture
        quarters = round(self.crop.angle / (math.pi / 2.0))
        rest = self.crop.angle - quarters * math.pi / 2.0
        if abs(rest) < LEVEL_ENOUGH_RAD:
            return np.ascontiguousarray(np.rot90(picture, -quarters))
        turned = Image.fromarray(picture).convert("RGBA")
        turned = turned.rotate(-math.degrees(self.crop.angle), Image.Resampling.BICUBIC)
        behind = Image.fromarray(self.picture(picture.shape[0]))
        behind.paste(turned.convert("RGB"), mask=turned.getchannel("A"))
        return np.asarray(behind)


def turned_by(state: FaceState, camera: np.ndarray) -> FaceState:
    """The face with the turn of its head against a torso that faces the camera ``(25,)``. The torso is upright as long as
    the neck allows; beyond that it tilts with the head."""
    pose = HeadPose.of_camera(camera)
    tilt = float(np.arctan2(pose.rotation[1, 0], pose.rotation[0, 0]))
    upright = np.eye(3)
    upright[:2, :2] = plane_turn(float(np.clip(tilt, -NECK_ROLL_RAD, NECK_ROLL_RAD)) - tilt)
    seen = HeadPose(rotation=upright @ pose.rotation, origin=upright @ pose.origin)
    return replace(state, turn=_camera(seen.camera()).head_turn())


def _camera(vector: np.ndarray) -> Camera:
    return Camera.from_vector(torch.from_numpy(np.array(vector, dtype=np.float32))[None])


class Animator:
    """Drives one portrait after another with a trained model.

    Nothing is computed twice: the portrait is encoded once, what depends on the face is kept while that stays the
    same, and the picture while the camera does too.

    Args:
        model: from `load_model`.
        tracker: finds the face in the portrait; the default is MediaPipe with the bundled regressor.
        exact: render every sample of every ray in single precision and in PyTorch, as evaluation does. Otherwise, on a
            CPU, the compiled renderer is taken where it runs (`rendering/fused`), the portrait model leaves out what does
            not show (`rendering/fast.py`), and its networks around the renderer calculate in bf16 where that is faster
            (`precision.py`).
        allowed: the only portraits that are taken; all when None.
        detail: pictures have the photograph's own detail, in as many pixels as the crop has there but at most so many along
            each side; None: the model's own size, without it.
        apart: the person is told from the background in the whole photograph (`person.py`), for `--framing photo`.

    Raises:
        UsageError: The tracker's coefficients are not in the model's expression space; `apart` with the paper's model.
    """

    def __init__(
        self,
        model: Model,
        tracker: Tracker | None = None,
        *,
        exact: bool = False,
        allowed: AllowedSources | None = None,
        detail: int | None = None,
        apart: bool = False,
    ) -> None:
        if apart and not isinstance(model, PortraitModel):
            raise UsageError(
                "--framing photo needs a model that tells the head from what is behind it; the paper's model does not. "
                "Use the bundled model, or --framing face."
            )
        self.model = model
        self.detail, self.apart = detail, apart
        self.allowed = allowed
        self.tracker = tracker if tracker is not None else Tracker(size=model.config.image_size)
        given, wanted = self.tracker.info.expression_space, model.config.expression.space
        if given != wanted:
            raise UsageError(
                f"the tracker '{self.tracker.info.name}' gives coefficients in the expression space '{given}', "
                f"but the model was trained on '{wanted}'. Use a tracker for '{wanted}' or another model."
            )
        self.device = next(model.parameters()).device
        # Measured on CPUs only; a GPU would wait for the number of rays that are left.
        self.fast = FastConfig() if self.device.type == "cpu" and not exact else None
        pays = self.fast is not None and isinstance(model, PortraitModel)
        self.half = pays and uses_bf16("auto", self.device)
        self.subject: Subject | None = None
        self._drivable = drivable(model)
        self._forget()

    def twin(self) -> Animator:
        """Another animator with the same model, tracker and portrait, for another thread; it keeps planes of its own."""
        other = copy(self)
        other._forget()
        return other

    def _forget(self) -> None:
        """Drop what is kept of earlier frames."""
        self._state: FaceState | None = None
        self._driven: Any = None
        self._vector: np.ndarray | None = None
        self._render: Render | None = None

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
            SourceNotAllowedError: It is not one of the allowed portraits.
        """
        path = None if isinstance(image, np.ndarray) else Path(image)
        if not isinstance(image, np.ndarray):
            where = where or str(image)
            image = read_image(image)
        if self.allowed is not None:
            self.allowed.check(image, path, where or "the source image")
        found = self.tracker.portrait(image, where=where or "the source image")
        return self.encode(image, found.crop, found.state, found.camera)

    def encode(self, image: np.ndarray, crop: Crop, state: FaceState, camera: np.ndarray) -> Subject:
        """Encode a portrait whose crop, face (B = 1) and camera ``(25,)`` are known already, and make it the current one.

        Where the turn of its head is unknown, its torso is taken to face the camera.
        """
        state = turned_by(state, camera) if state.turn is None else state
        if isinstance(self.model, PortraitModel):  # a still's scores have no resting value to be measured from
            with torch.inference_mode():
                state = replace(state, weights=self.model.cues.weights(state.beta.to(self.device)).cpu())
        person, seen, photo = None, (image, crop), None
        if self.apart:
            person = person_apart(image, crop, lambda: self._matte(image, crop))
            seen = (person.plain, person.crop)
        if self.detail is not None and isinstance(self.model, PortraitModel):
            fine = 2 * round(min(crop.side, self.detail, LARGEST_PX) / 2.0)
            whole = seen if person is None else (person.spread, person.crop)
            photo = self._crop(*whole, fine) if fine > self.image_size else None
        source = self._crop(*seen, self.image_size)
        with torch.inference_mode():
            code = self._drivable.encode(source, _camera(camera).to(self.device), state.to(self.device), photo=photo)
        self._forget()
        self.subject = Subject(image=image, crop=crop, state=state, camera=camera, code=code, person=person)
        return self.subject

    def _crop(self, image: np.ndarray, crop: Crop, size: int) -> torch.Tensor:
        own = np.array(crop_image(image, crop, size))  # a writable copy, as PyTorch wants it
        return to_tensor(own)[None].to(self.device)

    def _matte(self, image: np.ndarray, crop: Crop) -> torch.Tensor:
        """How much of the crop is the person in the model's own eyes, ``(1, m, m)`` in [0, 1]."""
        assert isinstance(self.model, PortraitModel)
        with torch.inference_mode():
            return torch.sigmoid(self.model.reader.matte(self._crop(image, crop, self.image_size)))[0]

    def layer(self, state: FaceState, camera: np.ndarray | Camera) -> HeadLayer:
        """Like `frame`, the head alone; of the shipped model only."""
        render, maps = self.render(state, camera), self._current().code.maps
        assert render.image is not None and render.image_opacity is not None
        behind = maps.background if maps.photo is None else maps.photo.background
        return HeadLayer.of_picture(render.image[0], render.image_opacity[0], behind[0])

    def _current(self) -> Subject:
        if self.subject is None:
            raise RuntimeError("Animator: give a portrait first: animator.portrait(image)")
        return self.subject

    def frame(self, state: FaceState, camera: np.ndarray | Camera) -> np.ndarray:
        """The portrait with the face `state` (B = 1), seen by `camera` ``(25,)``, as uint8 ``(S, S, 3)``.

        Without a gaze the eyes are left alone. Without a turn the torso stays as it stands in the portrait: the camera goes
        round the person; `turned_by` turns the head against it. The paper's model knows neither.
        """
        image = self.render(state, camera).image
        assert image is not None  # only raw renderings have none
        return to_uint8(image[0])

    def render(self, state: FaceState, camera: np.ndarray | Camera) -> Render:
        """Like `frame`, with depth, opacity and the raw image."""
        subject = self._current()
        vector = camera.to_vector()[0].cpu().numpy() if isinstance(camera, Camera) else np.asarray(camera)
        with torch.inference_mode(), torch.autocast(self.device.type, torch.bfloat16, enabled=self.half):
            if self._state is None or not state.same_as(self._state):
                self._driven = self._drivable.drive(subject.code, state.to(self.device))
                self._state, self._render = state.map(torch.clone), None
            if self._render is None or not np.array_equal(vector, self._vector):  # type: ignore[arg-type]
                view = _camera(vector).to(self.device)
                self._render = self._drivable.render(self._driven, view, fast=self.fast)
                self._vector = vector.copy()
        return self._render

    def rays(self, state: FaceState, camera: Camera, size: int) -> Render:
        """Raw picture, depth and opacity of ``size`` x ``size`` exact rays, without the final picture."""
        with torch.inference_mode():
            driven = self._drivable.drive(self._current().code, state.to(self.device))
            return self._drivable.render(driven, camera, raw_size=size)
