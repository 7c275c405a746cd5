"""What of a portrait a film shows: the whole photograph, or the square around the face (not in the paper)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from export3d.animation.backdrop import Backdrop, as_picture, laid
from export3d.animation.compose import fit_height, resize, side_by_side
from export3d.animation.drivers import DrivingFrame
from export3d.animation.paste import Pasteboard, pasteboard
from export3d.animation.person import planes
from export3d.errors import UsageError
from export3d.rendering.fused import fused_status
from export3d.tracking import Crop
from export3d.tracking.head_fit import HeadPose

if TYPE_CHECKING:
    from export3d.animation.animator import Animator
    from export3d.animation.subject import Subject

Framing = Literal["photo", "face"]

LARGER = 1.25
"""A photograph is larger than the crop from this ratio of areas on."""

TOLERATED = 0.02
"""A crop may reach beyond the photograph by this share of its side without being cut or warned of."""

WANDER, ZOOM = 0.12, 1.1
"""How far a head goes from where it sits on its shoulders, in scene units, and by what factor it grows or shrinks at most:
the shoulders of the photograph stay where they are."""


def is_larger(shape: tuple[int, ...], crop: Crop) -> bool:
    """Whether a photograph of shape (H, W, ..) shows more than the crop of the face."""
    return shape[0] * shape[1] >= LARGER * crop.side**2


def beyond(shape: tuple[int, ...], crop: Crop) -> float:
    """How far the square of a crop, set upright, reaches beyond a photograph of shape (H, W, ..), as a share of its side."""
    half = crop.side / 2.0
    far = max(
        half - crop.center_x, half - crop.center_y, crop.center_x + half - shape[1], crop.center_y + half - shape[0]
    )
    return max(far, 0.0) / crop.side


def inside(shape: tuple[int, ...], crop: Crop) -> Crop:
    """The largest upright square that lies in both a photograph of shape (H, W, ..) and a crop of it, near the crop's middle;
    the upright crop itself where it hardly reaches beyond."""
    upright = replace(crop, angle=0.0)
    if beyond(shape, crop) <= TOLERATED:
        return upright
    half = crop.side / 2.0
    at = np.array([crop.center_x, crop.center_y])
    low, high = np.maximum(at - half, 0.0), np.minimum(at + half, [shape[1], shape[0]])
    side = float((high - low).min())
    x, y = np.clip(at, low + side / 2.0, high - side / 2.0).tolist()
    return Crop(x, y, side)


def anchored(frames: Iterable[DrivingFrame], camera: np.ndarray) -> Iterator[DrivingFrame]:
    """Driving frames whose head begins where the portrait's is, by its own camera ``(25,)``, and never leaves its shoulders."""
    home, first = HeadPose.of_camera(camera).origin, None
    for frame in frames:
        pose = HeadPose.of_camera(frame.camera)
        if first is None and frame.found:
            first = pose.origin
        start = pose.origin if first is None else first
        away = pose.origin[:2] - start[:2]
        length = max(float(np.hypot(*away)), 1e-6)
        aside = home[:2] + away * (WANDER * np.tanh(length / WANDER) / length)
        depth = home[2] * float(np.clip(pose.origin[2] / start[2], 1.0 / ZOOM, ZOOM))
        yield replace(frame, camera=replace(pose, origin=np.append(aside, depth)).camera())


@dataclass(frozen=True, kw_only=True)
class Scene:
    """What is shown around the driven head.

    Attributes:
        source: uint8 ``(H, W, 3)`` the portrait, as high as the film.
        board: the photograph into which heads are put; None for the square around the face.
        backdrop: what is behind the square; None is the portrait's own background.
        beside: portrait and driver are shown, too.
    """

    source: np.ndarray
    board: Pasteboard | None
    backdrop: Backdrop | None
    beside: bool

    @classmethod
    def of(
        cls, animator: Animator, subject: Subject, *, size: int | None, backdrop: Backdrop | None, beside: bool
    ) -> Scene:
        """Of the animator's portrait; `size` is the film's height."""
        if beside and backdrop is not None and backdrop.picture is None:
            raise UsageError("--background transparent and --side-by-side exclude each other; leave one out.")
        board, source = None, subject.picture(size or animator.image_size)
        if subject.whole and subject.person is not None:
            own = animator.layer(subject.state, subject.camera).opacity
            board = pasteboard(subject.image, subject.crop, subject.person, own, height=size, backdrop=backdrop)
            board = replace(board, fused=animator.fast is not None and len(board.behind) == 3 and fused_status()[0])
            source = board.photo
        return cls(source=source, board=board, backdrop=backdrop, beside=beside)

    def picture(self, frame: DrivingFrame, animator: Animator, *, name: str) -> np.ndarray:
        """One picture of the film, uint8 ``(H, W, 3)``, or 4 channels before nothing; `name` is the driver's."""
        result = self._result(frame, animator)
        if not self.beside:
            return result
        if frame.image is None:
            raise UsageError(
                f"{name}: --side-by-side needs the driving clip; a motion file holds no pictures. "
                "Give the clip itself, or leave --side-by-side out."
            )
        return side_by_side([self.source, fit_height(frame.image, len(self.source)), result])

    def _result(self, frame: DrivingFrame, animator: Animator) -> np.ndarray:
        if self.board is not None:
            return self.board.paste(animator.layer(frame.state, frame.camera))
        assert animator.subject is not None
        height, back = len(self.source), animator.subject.turned_back
        if self.backdrop is None:
            return resize(back(animator.frame(frame.state, frame.camera)), height, height)
        head = animator.layer(frame.state, frame.camera)
        nothing = Backdrop(picture=None).behind(*head.opacity.shape[1:])
        alone = resize(back(as_picture(laid(head.colours, head.opacity, nothing))), height, height)
        if self.backdrop.picture is None:
            return alone
        opacity = planes(alone)[3:] / 255.0
        return as_picture(laid(planes(alone)[:3] * opacity, opacity, self.backdrop.behind(height, height)))
