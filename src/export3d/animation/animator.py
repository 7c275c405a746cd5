"""The animator: a portrait is encoded once, then every expression and camera gives an image (Fig. 1)."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from export3d.animation.bend import Bend
from export3d.animation.crown import Crown, at_home, before_crown
from export3d.animation.fill import without_person
from export3d.animation.framing import TOLERATED, Framing, beyond, inside, turned_by
from export3d.animation.head import HeadLayer
from export3d.animation.lids import Lids
from export3d.animation.mouth import Mouth
from export3d.animation.paste import DETAIL_PX, LARGEST_PX
from export3d.animation.person import Person, continued, person_apart
from export3d.animation.subject import Subject
from export3d.camera import Camera
from export3d.errors import UsageError
from export3d.face_state import FaceState
from export3d.images import read_cutout, to_tensor, to_uint8
from export3d.model import Render
from export3d.portrait import Drivable, FastConfig, Model, PortraitModel, WeightMaps, drivable, quick
from export3d.precision import uses_bf16
from export3d.provenance import AllowedSources
from export3d.rendering.fused import fused_status, rounded
from export3d.tracking import Crop, Tracker, crop_image


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
        detail: pictures of the face have the photograph's own detail, in as many pixels as the crop has there but at most so
            many along each side; None: the model's own size, without it. Heads in a whole photograph always have it.
        framing: films show the whole photograph or the square around the face; None: the photograph where its person can be
            told from the background.
        apart: the person must be told from the background whatever the framing, for another background.

    Raises:
        UsageError: The tracker's coefficients are not in the model's expression space; `framing` photo or `apart` with the
            paper's model.
    """

    def __init__(
        self,
        model: Model,
        tracker: Tracker | None = None,
        *,
        exact: bool = False,
        allowed: AllowedSources | None = None,
        detail: int | None = None,
        framing: Framing | None = "face",
        apart: bool = False,
    ) -> None:
        if (apart or framing == "photo") and not isinstance(model, PortraitModel):
            raise UsageError(
                "--framing photo and --background need a model that tells the head from what is behind it; the paper's "
                "model does not. Use the bundled model, or --framing face."
            )
        self.model = model
        self.detail, self.framing, self.apart = detail, framing, apart
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
        self.fused = self.fast is not None and fused_status()[0]  # the compiled renderer makes its pictures
        pays = self.fast is not None and isinstance(model, PortraitModel)
        self.half = pays and uses_bf16("auto", self.device)
        self.subject: Subject | None = None
        self.network = drivable(quick(model) if self.half else model)
        self._forget()

    def twin(self, network: Drivable | None = None) -> Animator:
        """Another animator with the same model, tracker and portrait, for another thread; it keeps planes of its own, and may
        have another network that makes them."""
        other = copy(self)
        other.network = network or self.network
        other._forget()
        return other

    def _forget(self) -> None:
        """Drop what is kept of earlier frames."""
        self._state: FaceState | None = None
        self._driven: Any = None
        self._ahead: list[tuple[FaceState, Any]] = []
        self._vector: np.ndarray | None = None
        self._shut: tuple[float, ...] = ()
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
        path, opacity = None, None
        if not isinstance(image, np.ndarray):
            path, where = Path(image), where or str(image)
            image, opacity = read_cutout(path)
        if self.allowed is not None:
            self.allowed.check(image, path, where or "the source image")
        found = self.tracker.portrait(image, where=where or "the source image")
        more = {"others": found.others, "opacity": opacity, "landmarks": found.landmarks}
        return self.encode(image, found.crop, found.state, found.camera, **more)

    def encode(
        self,
        image: np.ndarray,
        crop: Crop,
        state: FaceState,
        camera: np.ndarray,
        *,
        others: Sequence[Crop] = (),
        opacity: np.ndarray | None = None,
        landmarks: np.ndarray | None = None,
    ) -> Subject:
        """Encode a portrait whose crop, face (B = 1) and camera ``(25,)`` are known already, and make it the current one.

        Where the turn of its head is unknown, its torso is taken to face the camera. `others` are the crops of bystanders,
        `opacity` uint8 ``(H, W)`` that of a cutout; by `landmarks` ``(68, 2)`` in [0, 1] of the crop lids and mouth are drawn.
        """
        state = self.own_state(state, camera)
        person, warnings = self._apart(image, crop, others, opacity)
        whole = person is not None and self.framing != "face"
        seen = continued(image, crop) if person is None else (person.plain, person.crop)
        person = person if person is None or whole else replace(person, room=0.0)
        photo, detail, side = None, DETAIL_PX if whole else self.detail, self.image_size
        if detail is not None and isinstance(self.model, PortraitModel):
            shown = inside(image.shape, crop).side / crop.side  # of what is cut to what is in the photo
            fine = 2 * round(min(crop.side, detail / shown, LARGEST_PX) / 2.0)
            read = seen if person is None else (person.spread, person.crop)
            if fine > self.image_size:
                photo, side = self._crop(*read, fine), 2 * round(fine * shown / 2.0)
        source = self._crop(*seen, self.image_size)
        with torch.inference_mode():
            seen_by = Camera.of_array(camera).to(self.device)
            code = self.network.encode(source, seen_by, state.to(self.device), photo=photo)
        if person is not None and not whole:  # what the model makes up behind them is blurred
            empty = continued(without_person(image, person), crop)
            code = replace(code, maps=code.maps.before(lambda size: self._crop(*empty, size)))
        person = person if whole or self.apart else None
        self._forget()
        self.subject = Subject(
            image=image,
            crop=crop,
            state=state,
            camera=camera,
            code=code,
            landmarks=landmarks,
            lids=None if photo is None else Lids.of(code, landmarks),
            person=person,
            whole=whole,
            side=side,
            warnings=warnings,
        )
        if self.subject.lids is not None and landmarks is not None:
            own = self.render(state, camera)
            bend = Bend.of(own, seen_by, state, landmarks)
            self.subject = replace(self.subject, bend=bend, mouth=Mouth.of(own, code.maps.photo.picture[0], landmarks))
        if person is not None:
            crown = Crown.of(person, crop, self.layer(state, camera), camera)
            self.subject = replace(self.subject, crown=crown)
        return self.subject

    def own_state(self, state: FaceState, camera: np.ndarray) -> FaceState:
        """A portrait's own face as the model is told it: with the turn of its head, and single weights as beta has them."""
        state = turned_by(state, camera) if state.turn is None else state
        if isinstance(self.model, PortraitModel):  # a still's scores have no resting value to be measured from
            with torch.inference_mode():
                state = replace(state, weights=self.model.cues.weights(state.beta.to(self.device)).cpu())
        return state

    def _apart(
        self, image: np.ndarray, crop: Crop, others: Sequence[Crop], opacity: np.ndarray | None
    ) -> tuple[Person | None, tuple[str, ...]]:
        """The person of a photograph where films need them, and warnings."""
        warnings: tuple[str, ...] = ()
        missing = beyond(image.shape, crop)
        if missing > TOLERATED:
            warnings = (
                f"the photo ends {missing:.0%} of the square around the face before that square does. Its border is "
                "continued; a photo with more room around the head looks better.",
            )
        asked = self.apart or self.framing == "photo"
        useful = self.framing is None or self.detail is not None
        if not (asked or (useful and isinstance(self.model, PortraitModel))):
            return None, warnings
        try:
            return person_apart(image, crop, lambda: self._matte(image, crop), others=others, opacity=opacity), warnings
        except UsageError as error:
            if asked:
                raise
            if self.framing is None:
                warnings = (*warnings, f"only the square around the face is shown: {error}")
            return None, warnings

    def _crop(self, image: np.ndarray, crop: Crop, size: int) -> torch.Tensor:
        return to_tensor(np.array(crop_image(image, crop, size)))[None].to(self.device)  # a writable copy

    def _matte(self, image: np.ndarray, crop: Crop) -> torch.Tensor:
        """How much of the crop is the person in the model's own eyes, ``(1, m, m)`` in [0, 1]."""
        assert isinstance(self.model, PortraitModel)
        with torch.inference_mode():
            return torch.sigmoid(self.model.reader.matte(self._crop(*continued(image, crop), self.image_size)))[0]

    def layer(self, state: FaceState, camera: np.ndarray | Camera) -> HeadLayer:
        """Like `frame`, the head alone; of the shipped model only."""
        subject = self.current()
        vector = camera.to_vector()[0].cpu().numpy() if isinstance(camera, Camera) else camera
        vector, place = at_home(vector, subject.camera) if subject.whole else (vector, None)
        render, maps = self.render(state, vector), subject.code.maps
        assert render.image is not None and render.image_opacity is not None
        behind = maps.background if maps.photo is None else maps.photo.background
        room = subject.person.room if subject.person else 0.0
        parts = (render.image[0], render.image_opacity[0], behind[0])
        return before_crown(parts, subject.crown, vector, place=place, room=room, fused=self.fused)

    @property
    def weight_maps(self) -> WeightMaps | None:
        """What beta and single weights tell of each other; None: the model reads none."""
        return self.model.cues.maps() if isinstance(self.model, PortraitModel) else None

    def current(self) -> Subject:
        """The portrait; RuntimeError where none was given."""
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
        return rounded(image[0]) if self.fused else to_uint8(image[0])

    def render(self, state: FaceState, camera: np.ndarray | Camera) -> Render:
        """Like `frame`, with depth, opacity and the raw image."""
        lids, mouth = (subject := self.current()).lids, subject.mouth
        vector = camera.to_vector()[0].cpu().numpy() if isinstance(camera, Camera) else np.asarray(camera)
        shut = () if lids is None else lids.shut(state)
        with torch.inference_mode(), torch.autocast(self.device.type, torch.bfloat16, enabled=self.half):
            if self._state is None or not state.same_as(self._state):
                known = (driven for face, driven in self._ahead if face.same_as(state))
                self._driven = next(known, None) or self.network.drive(subject.code, state.to(self.device))
                self._state, self._render = state.map(torch.clone), None
            if self._render is None or shut != self._shut or not np.array_equal(vector, self._vector):  # type: ignore[arg-type]
                driven = self._driven if lids is None else lids.drawn(self._driven, shut)
                driven = driven if subject.bend is None else subject.bend.told(driven, state)
                seen_by = Camera.of_array(vector).to(self.device)
                self._render = self.network.render(driven, seen_by, fast=self.fast)
                if mouth is not None:
                    mouth.drawn(self._render, seen_by)
                self._vector, self._shut = vector.copy(), shut
        return self._render

    def drive_ahead(self, states: Sequence[FaceState]) -> None:
        """Make the planes of several faces (B = 1 each) in one pass, where that is sooner; pictures of them find these."""
        self._ahead = []
        if self.fast is not None and len(states) > 1 and isinstance(model := self.network, PortraitModel):
            with torch.inference_mode(), torch.autocast(self.device.type, torch.bfloat16, enabled=self.half):
                driven = model.drive_several(self.current().code, states)
            self._ahead = [(face.map(torch.clone), planes) for face, planes in zip(states, driven, strict=True)]
