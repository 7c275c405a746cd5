"""The pictures of a film: the driven head with what is around it (not in the paper)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from export3d.animation.animator import Animator
from export3d.animation.backdrop import Backdrop, as_picture, laid
from export3d.animation.compose import fit_height, resize, side_by_side
from export3d.animation.drivers import DrivingFrame
from export3d.animation.paste import Pasteboard, pasteboard
from export3d.animation.person import planes
from export3d.animation.subject import Subject
from export3d.errors import UsageError


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
        board = board_of(animator, height=size, backdrop=backdrop) if subject.whole else None
        source = subject.picture(size or subject.side) if board is None else board.photo
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


def board_of(animator: Animator, *, height: int | None, backdrop: Backdrop | None = None) -> Pasteboard:
    """The whole photograph of the animator's portrait, for its head; the rest as `pasteboard` has it."""
    subject = animator.subject
    if subject is None or subject.person is None:
        raise RuntimeError("board_of: the animator needs a portrait in a whole photograph")
    own = animator.layer(subject.state, subject.camera).opacity
    how = {"landmarks": subject.landmarks, "height": height, "backdrop": backdrop}
    board = pasteboard(subject.image, subject.crop, subject.person, own, **how)
    return replace(board, fused=animator.fused and len(board.behind) == 3)
