"""The studio over HTTP: each action is an endpoint with a name and typed inputs, served by Gradio (docs/http.md)."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

import msgspec

from export3d.animation.paths import OrbitOptions
from export3d.animation.targets import write_picture
from export3d.errors import Export3DError, UsageError
from export3d.provenance.verify import in_words, verify_file
from export3d.reading import checked, shortened
from export3d.studio.face import Keyframe, Wish, keyframe_motion, read_weights, sliders
from export3d.studio.videos import Made, Tell, VideoWish
from export3d.studio.workshop import KEPT_S, Stage, Workshop

T = TypeVar("T")
Progress = dict[str, Any]

_TELL_EVERY_S = 0.3
_CHECK_S = 30.0


def kindly(error: Export3DError, *files: Path) -> str:
    """The error's text with the names that people gave their files, not where they lie here."""
    text = str(error)
    for path in files:
        text = text.replace(str(path), path.name).replace(str(path.parent), "the studio")
    return text


def read_as(kind: type[T], values: Any, what: str) -> T:
    """Plain values as a wish, keyframes or options; a `UsageError` says what does not fit."""
    try:
        return checked(values, kind)
    except msgspec.ValidationError as error:
        raise UsageError(f"{what}: {shortened(str(error))}.") from error


def save_still(workshop: Workshop, stage: Stage, wish: Wish, size: int | None = None) -> Path:
    """A picture of the wish as a signed .png in the workshop's folder; in the queue's thread."""
    path = workshop.new_file(".png")
    stage.finish = workshop.finish()
    image = stage.bare(wish, size)
    write_picture(path, image, stage.finish)
    return path


def save_motion(workshop: Workshop, stage: Stage, keyframes: list[Keyframe]) -> Path:
    """A motion file from keyframes in the workshop's folder; in the queue's thread."""
    path = workshop.new_file(".safetensors")
    model, subject = workshop.model, stage.subject
    keyframe_motion(keyframes, model=model, subject=subject, extractor=workshop.extractor).save(path)
    return path


def while_running(work: Callable[[Tell, threading.Event], Made]) -> Iterator[tuple[Progress, str | None]]:
    """Make a video in a thread of its own and say how far it is; it stops within moments when nobody listens any more."""
    told: SimpleQueue[tuple[int, int | None]] = SimpleQueue()
    outcome: SimpleQueue[Any] = SimpleQueue()
    stop, started = threading.Event(), time.monotonic()

    def run() -> None:
        try:
            outcome.put(work(lambda done, of: told.put((done, of)), stop))
        except BaseException as error:
            outcome.put(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    done, of = 0, None
    try:
        while True:
            try:
                result = outcome.get(timeout=_TELL_EVERY_S)
                break
            except Empty:
                while not told.empty():
                    done, of = told.get()
                passed = time.monotonic() - started
                left = None if not done or not of else round(passed / done * max(of - done, 0), 1)
                yield {"done": done, "of": of, "left_s": left}, None
    finally:
        stop.set()
    if isinstance(result, BaseException):
        raise result
    path, said = result
    yield {"done": of or done, "of": of or done, "left_s": 0.0, "said": said}, str(path)


class Endpoints:
    """What can be asked for; the names and arguments are those of the endpoints."""

    def __init__(self, workshop: Workshop, gr: Any) -> None:
        self._workshop, self._gr = workshop, gr

    def _stage(self, source: str) -> Stage:
        path = _given(source, "source")
        return self._workshop.submit(self._workshop.stage, path.read_bytes(), path.name).result()

    def animate(
        self, source: str, driving: str, options: dict[str, Any] | None = None
    ) -> Iterator[tuple[Progress, str | None]]:
        """A portrait, driven by a video, photo, sound, motion file or take."""
        with _errors(self._gr, source, driving):
            photo, clip = _given(source, "source"), _given(driving, "driving")
            wish = read_as(VideoWish, options or {}, "options")
            yield from while_running(lambda tell, stop: self._workshop.videos.animate(photo, clip, wish, tell, stop))

    def turn(
        self,
        source: str,
        yaw_deg: float = 30.0,
        pitch_deg: float = 15.0,
        seconds: float = 4.0,
        size: int = 256,
        depth: bool = True,
    ) -> Iterator[tuple[Progress, str | None]]:
        """A portrait from a camera that goes round it."""
        with _errors(self._gr, source):
            if not 0 < seconds <= self._workshop.limits.seconds:
                raise UsageError(
                    f"seconds must be above 0 and at most {self._workshop.limits.seconds:g}; got {seconds}."
                )
            orbit = OrbitOptions(yaw_deg=yaw_deg, pitch_deg=pitch_deg, num_frames=max(round(25 * seconds), 1))
            photo = _given(source, "source")
            yield from while_running(
                lambda tell, stop: self._workshop.videos.turn(
                    photo, orbit, int(size), depth=depth, tell=tell, stop=stop
                )
            )

    def mesh(self, source: str, kind: str = "glb", shapes: bool = False) -> Iterator[tuple[Progress, str | None]]:
        """A portrait's head as a mesh for other programs."""
        with _errors(self._gr, source):
            photo = _given(source, "source")
            yield from while_running(
                lambda tell, stop: self._workshop.videos.mesh(photo, kind, shapes=bool(shapes), tell=tell, stop=stop)
            )

    def face(self, source: str, wish: dict[str, Any] | None = None, size: int = 512) -> str:
        """A portrait with a face, turn and camera of one's own."""
        with _errors(self._gr, source):
            wished, stage = read_as(Wish, wish or {}, "face"), self._stage(source)
            return str(self._workshop.submit(save_still, self._workshop, stage, wished, int(size)).result())

    def motion(self, source: str, keyframes: list[Any]) -> str:
        """A motion file from keyframes."""
        with _errors(self._gr, source):
            frames, stage = read_as(list[Keyframe], keyframes, "keyframes"), self._stage(source)
            return str(self._workshop.submit(save_motion, self._workshop, stage, frames).result())

    def own(self, source: str) -> dict[str, Any]:
        """The portrait's own values of all sliders."""
        with _errors(self._gr, source):
            return {"sliders": sliders(self._workshop.model, self._stage(source).subject)}

    def check(self, file: str) -> dict[str, Any]:
        """What `export3d verify` says of a file."""
        with _errors(self._gr, file):
            path = _given(file, "file")
            report = verify_file(path, time_limit_s=_CHECK_S)
            words = in_words(report).replace(str(path), path.name)
            return {**report.as_json(), "file": path.name, "words": words}

    def about(self) -> dict[str, Any]:
        """What the model listens to, and the limits."""
        limits = self._workshop.limits
        return {
            "weights": read_weights(self._workshop.model),
            "limits": {"upload_mb": limits.upload_mb, "seconds": limits.seconds},
            "restricted": self._workshop.allowed is not None,
        }


def build_api(workshop: Workshop) -> Any:
    """The Gradio application; needs the extra `studio`."""
    os.environ["GRADIO_TEMP_DIR"] = str(workshop.folder / "uploads")  # read when gradio is imported
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    import gradio as gr
    from gradio import processing_utils

    def refuse(*given: Any, **named: Any) -> Any:
        raise gr.Error("addresses are not fetched; upload the file")

    for name in ("ssrf_protected_download", "async_ssrf_protected_download", "save_url_to_cache"):
        if hasattr(processing_utils, name):
            setattr(processing_utils, name, refuse)

    ask = Endpoints(workshop, gr)
    with gr.Blocks(title="Export3D", analytics_enabled=False, delete_cache=(600, KEPT_S)) as blocks:
        source = gr.File(type="filepath", label="source")
        driving = gr.File(type="filepath", label="driving")
        made, result = gr.JSON(label="progress"), gr.File(label="result")
        yaw, pitch, seconds = (gr.Number(v, label=n) for n, v in (("yaw_deg", 30), ("pitch_deg", 15), ("seconds", 4)))
        size, depth = gr.Number(256, precision=0, label="size"), gr.Checkbox(True, label="depth")
        kind, shapes = gr.Textbox("glb", label="kind"), gr.Checkbox(False, label="shapes")
        wish, options, keyframes = (
            gr.JSON(value=v, label=n) for n, v in (("wish", {}), ("options", {}), ("keyframes", []))
        )
        endpoints: list[tuple[Any, list[Any], list[Any], bool]] = [
            (ask.animate, [source, driving, options], [made, result], True),
            (ask.turn, [source, yaw, pitch, seconds, size, depth], [made, result], True),
            (ask.mesh, [source, kind, shapes], [made, result], True),
            (ask.face, [source, wish, size], [result], False),
            (ask.motion, [source, keyframes], [result], False),
            (ask.own, [source], [made], False),
            (ask.check, [source], [made], True),
            (ask.about, [], [made], False),
        ]
        for action, given, gives, long in endpoints:
            button = gr.Button(action.__name__)
            turns = {"concurrency_id": "work", "concurrency_limit": 1} if long else {"concurrency_limit": 8}
            on_click: Any = button.click
            on_click(action, given, gives, api_name=action.__name__, **turns)
    return blocks.queue(max_size=4 * workshop.limits.clients)


def _given(path: Any, what: str) -> Path:
    if not isinstance(path, str):
        raise UsageError(f"{what}: no file was given. Choose one.")
    return Path(path)


class _errors:
    """Typed errors as Gradio's, with kind words."""

    def __init__(self, gr: Any, *files: Any) -> None:
        self._gr, self._files = gr, [Path(file) for file in files if isinstance(file, str)]

    def __enter__(self) -> None: ...

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, Export3DError):
            raise self._gr.Error(kindly(error, *self._files), print_exception=False) from error
