"""Synthetic clips as users' files are seen: portrait and driver as pictures alone, and what each part of the truth brings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial

import torch

from export3d.animation import DrivingFrame, TransferOptions
from export3d.animation.framing import turned_by
from export3d.animation.transfer import transfer
from export3d.camera import Camera
from export3d.data import ClipDataset
from export3d.face_state import FaceState
from export3d.portrait import Model, PortraitModel
from export3d.tracking import Crop, Tracker
from export3d.tracking.head_fit import HeadPose
from export3d.training.batches.stored_portrait import StoredPortrait, View, stored_camera, stored_state

PARTS = ("camera", "expression", "gaze", "torso")

WHOLE = Crop(0.5, 0.5, 1.0)


@dataclass(frozen=True, kw_only=True)
class Known:
    """What is known of a face: its state and its one camera, in the whole frame."""

    state: FaceState
    camera: Camera

    @staticmethod
    def stored(dataset: ClipDataset, index: int, time: int) -> Known:
        """The truth of a frame."""
        return Known(state=stored_state(dataset, index, time), camera=stored_camera(dataset, index, time))

    def with_true(self, part: str | None, truth: Known) -> Known:
        """The same with one of `PARTS` as it truly is."""
        own, other = self.state, truth.state
        states = {
            "expression": replace(own, beta=other.beta, weights=None),
            "gaze": replace(own, gaze=other.gaze),
            "torso": replace(own, turn=other.turn),
        }
        camera = truth.camera if part == "camera" else self.camera
        return Known(state=states.get(part or "", own), camera=camera)


def variants(brief: bool) -> dict[str, str | None]:
    """Row of the scores -> the part that is true in it."""
    return {"tracked": None} | ({} if brief else {f"tracked_true_{part}": part for part in PARTS})


def tracked_clip(
    model: Model, dataset: ClipDataset, index: int, source: int, tracker: Tracker
) -> tuple[Known, list[Known]]:
    """The portrait, which is frame `source`, and the frames of the clip as `animate` has them: each read by the tracker
    anew, lost ones held (a lost portrait is taken as it truly is)."""
    start = Known.stored(dataset, index, source)
    (portrait,) = _seen(dataset, index, [source], tracker, start)
    own = turned_by(portrait.state, portrait.camera)
    maps = None
    if isinstance(model, PortraitModel):
        own, maps = replace(own, weights=model.cues.weights(own.beta)), model.cues.maps()
    with torch.inference_mode():
        frames = list(_seen(dataset, index, range(dataset.num_frames(index)), tracker, start))
        given = {"own": own, "camera": portrait.camera, "maps": maps}
        moved = list(transfer(frames, TransferOptions(), **given, time_base=Fraction(1, 25), ahead=len(frames)))
        still = not dataset.in_room(index)  # the scene turns with the head; who films it knows that
        known = [
            Known(state=turned_by(frame.state, frame.camera), camera=Camera.of_array(frame.camera))
            for frame in (replace(portrait, state=own), *moved)
        ]
        if still:
            known = [replace(one, state=replace(one.state, turn=torch.zeros(1, 3))) for one in known]
    return known[0], known[1:]


class TrackedPortraits:
    """A clip's portrait as the tracker sees it, encoded once for each of the `variants`, and driven by the clip's frames.

    Args:
        source, index, size: as of `StoredPortrait`.
        brief: only `tracked`.
    """

    def __init__(
        self,
        model: Model,
        dataset: ClipDataset,
        source: int,
        index: int,
        size: int | None,
        *,
        tracker: Tracker,
        brief: bool,
    ) -> None:
        self._truth = partial(Known.stored, dataset, index)
        own, self._frames = tracked_clip(model, dataset, index, source, tracker)
        self._parts = variants(brief)
        self._portraits = {}
        for name, part in self._parts.items():
            known = own.with_true(part, self._truth(source))
            self._portraits[name] = StoredPortrait(
                model, dataset, index, source, size, known=(known.camera, known.state)
            )

    def views(self, time: int) -> dict[str, View]:
        """Frame `time` in every variant."""
        seen = {name: self._frames[time].with_true(part, self._truth(time)) for name, part in self._parts.items()}
        return {name: self._portraits[name].views(known.state, [known.camera])[0] for name, known in seen.items()}


def _seen(
    dataset: ClipDataset, index: int, times: Sequence[int], tracker: Tracker, start: Known
) -> Iterator[DrivingFrame]:
    state, camera = start.state, start.camera.to_vector()[0].numpy()
    for time in times:
        tracker.reset()  # each frame anew: synthetic clips jump from frame to frame, and are no film to be calmed over time
        found = tracker.frame(dataset.frame(index, time))
        if found.crop is not None:
            crop, size = found.crop, dataset.size
            unit = Crop(crop.center_x / size, crop.center_y / size, crop.side / size)
            state, camera = found.state, HeadPose.of_camera(found.camera).seen_in(unit, WHOLE).camera()
        yield DrivingFrame(state=state, camera=camera, found=found.found, index=time, pts=time, duration=1)
