"""The workshop: one model, one queue for short work, one film at a time; knows nothing of browsers.

Portraits and single pictures are made by one thread in the order in which they were asked for, so that every client gets its
turn. Another looks at the pictures of webcams meanwhile. A film is made beside them.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import time
import uuid
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from export3d.animation import Animator, Subject
from export3d.animation.compose import depth_picture, depth_range, resize
from export3d.animation.paste import DETAIL_PX
from export3d.errors import Export3DError, UsageError
from export3d.portrait import Model
from export3d.provenance import AllowedSources, Facts, Finish, ProvenanceOptions
from export3d.studio.face import Wish, posed
from export3d.studio.videos import Limits, VideoMaker
from export3d.tracking import Tracker
from export3d.tracking.head_fit import HeadPose

Result = TypeVar("Result")

KEPT_S = 3600
"""How long what was made can be fetched."""


@dataclass
class Stage:
    """One client's animator and its portrait; its pictures go through the workshop's queue."""

    animator: Animator
    finish: Finish
    _depths: tuple[float, float] | None = None

    @property
    def subject(self) -> Subject:
        """The client's portrait."""
        if self.animator.subject is None:
            raise UsageError("choose a portrait first.")
        return self.animator.subject

    def picture(self, wish: Wish, size: int | None = None) -> np.ndarray:
        """The portrait as wished, labelled and marked, uint8 ``(S, S, 3)``; at its own size, at most `size`."""
        return self.finish.frame(self.bare(wish, size))

    def bare(self, wish: Wish, size: int | None = None) -> np.ndarray:
        """The same without label and mark."""
        state, camera = posed(self.animator.model, self.subject, wish)
        return self.shrunk(self.animator.frame(state, camera), size)

    def depth(self, wish: Wish) -> np.ndarray:
        """The depth of that view as a picture, light is near; the range is that of the photo's own view, and goes with the
        camera where it goes nearer."""
        if self._depths is None:
            own = self.animator.render(self.subject.state, self.subject.camera)
            self._depths = depth_range(*(part[0, 0].float().cpu().numpy() for part in (own.depth, own.opacity)))
        state, camera = posed(self.animator.model, self.subject, wish)
        seen = self.animator.render(state, camera)
        far, own_far = (np.linalg.norm(HeadPose.of_camera(one).origin) for one in (camera, self.subject.camera))
        depth, opacity = (part[0, 0].float().cpu().numpy() for part in (seen.depth, seen.opacity))
        assert seen.image is not None
        side = seen.image.shape[-1]
        return self.finish.frame(
            resize(depth_picture(depth, opacity, *(end + far - own_far for end in self._depths)), side, side)
        )

    @staticmethod
    def shrunk(image: np.ndarray, size: int | None) -> np.ndarray:
        """The picture with at most so many pixels a side."""
        return image if size is None or image.shape[0] <= size else resize(image, size, size)


class Workshop:
    """Everything that clients share.

    Args:
        model: from `load_model`.
        make_tracker: a new tracker with a face finder of its own.
        limits: what one client may ask for.
        allowed: the only portraits that are taken; all when None.
        provenance: label, mark and manifest of what is made.
        model_path: goes into manifests by its hash.
    """

    def __init__(
        self,
        model: Model,
        make_tracker: Callable[[], Tracker],
        *,
        limits: Limits | None = None,
        allowed: AllowedSources | None = None,
        provenance: ProvenanceOptions | None = None,
        model_path: Path | None = None,
    ) -> None:
        self.limits = limits or Limits()
        self.allowed = allowed
        self.make_tracker = make_tracker
        self.folder = Path(tempfile.mkdtemp(prefix="export3d-studio-"))
        self._provenance = provenance or ProvenanceOptions(label="AI-generated")
        self._model_path = model_path
        self._tracker = make_tracker()
        self._animator = Animator(model, self._tracker, detail=DETAIL_PX, allowed=allowed)
        self._portraits: OrderedDict[str, Subject] = OrderedDict()
        self._queue = ThreadPoolExecutor(1, thread_name_prefix="studio")
        self._eyes = ThreadPoolExecutor(1, thread_name_prefix="looking")
        self.clients = 0
        """Pages that are open."""
        self.videos = VideoMaker(self._animator, make_tracker, self.limits, new_file=self.new_file, finish=self.finish)

    @property
    def model(self) -> Model:
        """The one model."""
        return self._animator.model

    @property
    def extractor(self) -> Any:
        """What made beta, for motion files."""
        return self._tracker.info

    def submit(self, work: Callable[..., Result], *given: Any) -> Future[Result]:
        """Short work at the end of the queue."""
        return self._queue.submit(work, *given)

    def look(self, work: Callable[..., Result], *given: Any) -> Future[Result]:
        """The same for what needs a tracker and not the model, beside the queue; it must not wait for the queue."""
        return self._eyes.submit(work, *given)

    def stage(self, photo: bytes, name: str) -> Stage:
        """A client's stage with the portrait in this picture file; in the queue's thread.

        Raises:
            Export3DError: The file or its face cannot be used, or this portrait is not allowed.
        """
        key = hashlib.sha256(photo).hexdigest()
        own = self._animator.twin()
        if key not in self._portraits:
            path = self.new_file(".picture")
            try:
                path.write_bytes(photo)
                self.limits.check_photo(path, name)
                self._portraits[key] = own.portrait(path, where=name)
            except Export3DError as error:
                raise type(error)(str(error).replace(str(path), name)) from error
            finally:
                path.unlink(missing_ok=True)
        self._portraits.move_to_end(key)
        own.subject = self._portraits[key]
        while len(self._portraits) > self.limits.portraits:
            self._portraits.popitem(last=False)
        return Stage(own, self.finish())

    def finish(self, **facts: Any) -> Finish:
        """Label, mark and manifest of one output."""
        return Finish(self._provenance, Facts(model=self._model_path, consent=self._provenance.consent or "", **facts))

    def new_file(self, suffix: str) -> Path:
        """A name in the workshop's folder that nobody has; what is older than an hour goes."""
        for path in self.folder.iterdir():
            with suppress(OSError):
                if path.is_file() and time.time() - path.stat().st_mtime > KEPT_S:
                    path.unlink()
        return self.folder / f"{uuid.uuid4().hex}{suffix}"

    def close(self) -> None:
        """End the queue, free the trackers and remove all files."""
        for pool in (self._queue, self._eyes):
            pool.shutdown(cancel_futures=True)
        self._tracker.close()
        self.videos.close()
        shutil.rmtree(self.folder, ignore_errors=True)
