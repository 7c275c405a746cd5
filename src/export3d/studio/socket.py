"""The page's own line to the studio: small messages both ways, the newest picture wins, each client in its turn.

A message is the length of a header (4 bytes, big-endian), the header (JSON) and what belongs to it (a picture, a sound, or
nothing). Each `do` is answered by one `did` with the same `n`.
"""

from __future__ import annotations

import asyncio
import json
import logging
import struct
from collections import deque
from concurrent.futures import Future
from contextlib import suppress
from typing import Any

from export3d.animation.compose import resize
from export3d.errors import Export3DError, UsageError
from export3d.reading import parse_json, shortened
from export3d.studio.api import read_as, save_motion, save_still
from export3d.studio.face import Keyframe, Wish, sliders
from export3d.studio.live import Camera, Live, LiveOptions, Recording, jpeg, open_virtual_camera
from export3d.studio.workshop import Stage, Workshop
from export3d.tracking import TrackedFrame

log = logging.getLogger(__name__)

Answer = tuple[dict[str, Any], bytes]

NEWEST_WINS = ("face", "frame")
MOST_WAITING = 32
OOPS = "Something went wrong inside the studio; the terminal in which it was started says more."

_FAULTS = (ArithmeticError, AttributeError, LookupError, MemoryError, OSError, RuntimeError, TypeError, ValueError)
"""What NumPy, Pillow, PyAV, PyTorch and Python raise where something is wrong with the studio itself."""


def pack(header: dict[str, Any], content: bytes = b"") -> bytes:
    """A message."""
    text = json.dumps(header).encode()
    return struct.pack(">I", len(text)) + text + content


def unpack(message: bytes) -> Answer:
    """Header and content.

    Raises:
        UsageError: It is no message.
    """
    try:
        (length,) = struct.unpack_from(">I", message)
        if len(message) < 4 + length:
            raise ValueError("it is cut off")
        return parse_json(message[4 : 4 + length]), message[4 + length :]
    except (struct.error, ValueError, RecursionError) as error:
        raise UsageError(f"socket: not a message of the studio ({shortened(str(error))}).") from error


class Client:
    """What one open page has: a stage, a webcam, a recording. Its `do` runs in the queue's thread, its `look` in the one
    that looks; of a camera's picture it may have gone before."""

    def __init__(self, workshop: Workshop) -> None:
        self.workshop = workshop
        self.stage: Stage | None = None
        self.live: Live | None = None
        self.recording: Recording | None = None
        self.camera: Camera | None = None

    def look(self, picture: bytes) -> TrackedFrame | None:
        """What a camera's picture shows, as `Live.look` says."""
        return self._started().look(picture)

    def do(self, header: dict[str, Any], content: bytes | Future[Any]) -> Answer:
        """Carry out a message; typed errors become an answer. `content` may be what `look` gave, done."""
        action = str(header.get("do"))
        try:
            work = getattr(self, f"_do_{action}", None)
            if work is None:
                raise UsageError(f"socket: there is no '{shortened(action, 40)}'.")
            answer, more = work(header, content)
        except Export3DError as error:
            answer, more = {"error": str(error)}, b""
        except _FAULTS:
            log.exception("studio: %s failed", action)
            answer, more = {"error": OOPS}, b""
        return {**answer, "did": action, "n": header.get("n")}, more

    def close(self) -> None:
        """Free all of it."""
        if self.live is not None:
            self.workshop.look(self.live.close).result()  # after a picture that it still looks at
        for part in (self.recording, self.camera):
            if part is not None:
                part.close()
        self.live = self.recording = self.camera = self.stage = None

    def _stage(self) -> Stage:
        if self.stage is None:
            raise UsageError("choose a portrait first.")
        return self.stage

    def _started(self) -> Live:
        if self.live is None:
            raise UsageError("start the camera first.")
        return self.live

    def _wish(self, header: dict[str, Any]) -> Wish:
        return read_as(Wish, header.get("wish") or {}, "face")

    def _do_portrait(self, header: dict[str, Any], content: bytes) -> Answer:
        self.stage = self.workshop.stage(content, shortened(header.get("name") or "the photo", 80))
        if self.live is not None:
            self.live.stage = self.stage
            self.live.restart()
        groups = sliders(self.workshop.model, self.stage.subject)
        return {"sliders": groups}, jpeg(self.stage.picture(Wish()))

    def _do_face(self, header: dict[str, Any], content: bytes) -> Answer:
        stage, wish = self._stage(), self._wish(header)
        if header.get("depth"):
            return {"depth": True}, jpeg(stage.depth(wish))
        size = header.get("size")
        return {}, jpeg(stage.picture(wish, size if isinstance(size, int) and size >= 16 else None))

    def _do_still(self, header: dict[str, Any], content: bytes) -> Answer:
        return {"file": save_still(self.workshop, self._stage(), self._wish(header)).name}, b""

    def _do_motion(self, header: dict[str, Any], content: bytes) -> Answer:
        frames = read_as(list[Keyframe], header.get("keyframes"), "keyframes")
        return {"file": save_motion(self.workshop, self._stage(), frames).name}, b""

    def _do_live(self, header: dict[str, Any], content: bytes) -> Answer:
        options = read_as(LiveOptions, header.get("options") or {}, "live")
        if self.live is None:
            self.live = Live(self._stage(), self.workshop.make_tracker())
        self.live.set(options)
        return {}, b""

    def _do_calibrate(self, header: dict[str, Any], content: bytes) -> Answer:
        self._started().restart()
        return {}, b""

    def _do_frame(self, header: dict[str, Any], content: bytes | Future[Any]) -> Answer:
        seen = content.result() if isinstance(content, Future) else self.look(content)
        assert self.live is not None
        image = self.live.show(seen)
        shown = jpeg(image)
        if self.recording is not None:
            self.recording.add(shown)
        if self.camera is not None:
            self.camera.send(resize(image, self.camera.width, self.camera.height))
        return {"found": self.live.found}, shown

    def _do_stop(self, header: dict[str, Any], content: bytes) -> Answer:
        if self.live is not None:
            self.live.close()
        self.live = None
        return {}, b""

    def _do_record(self, header: dict[str, Any], content: bytes) -> Answer:
        if self.recording is not None:
            self.recording.close()
        self.recording = Recording(self.workshop.new_file(".recording"), self.workshop.limits.seconds)
        return {}, b""

    def _do_recorded(self, header: dict[str, Any], content: bytes) -> Answer:
        recording, self.recording = self.recording, None
        if recording is None:
            raise UsageError("nothing is being recorded.")
        sound = self.workshop.new_file(".sound") if content else None
        path = self.workshop.new_file(".mp4")
        try:
            if sound is not None:
                sound.write_bytes(content)
            frames = recording.write_video(path, self.workshop.finish(), sound)
        finally:
            recording.close()
            if sound is not None:
                sound.unlink(missing_ok=True)
        return {"file": path.name, "frames": frames}, b""

    def _do_camera(self, header: dict[str, Any], content: bytes) -> Answer:
        if self.camera is not None:
            self.camera.close()
        self.camera = open_virtual_camera(512) if header.get("on") else None
        return {"on": self.camera is not None}, b""


async def serve(connection: Any, *, workshop: Workshop) -> None:
    """One open page, until it goes."""
    from starlette.websockets import WebSocketDisconnect

    await connection.accept()
    if workshop.clients >= workshop.limits.clients:
        await connection.send_bytes(
            pack({"error": "The studio is full. Close another page of it, or try again later."})
        )
        await connection.close(1013)
        return
    workshop.clients += 1
    client, waiting, came = Client(workshop), deque[Answer](), asyncio.Event()
    worker = asyncio.create_task(_work(connection, client, waiting, came))
    try:
        while not worker.done():
            header, content = unpack(await connection.receive_bytes())
            kind = header.get("do")
            if kind in NEWEST_WINS:
                for old in [entry for entry in waiting if entry[0].get("do") == kind]:
                    waiting.remove(old)
                    await connection.send_bytes(pack({"did": kind, "n": old[0].get("n"), "late": True}))
            if len(waiting) >= MOST_WAITING:
                break
            waiting.append((header, content))
            came.set()
    except (WebSocketDisconnect, RuntimeError, KeyError, UsageError):
        pass
    finally:
        workshop.clients -= 1
        worker.cancel()
        await asyncio.wait([worker])  # asyncio logs what it did not expect
        await asyncio.wrap_future(workshop.submit(client.close))


async def _work(connection: Any, client: Client, waiting: deque[Answer], came: asyncio.Event) -> None:
    """Carry out what waits in its order, until the page goes; a camera's picture is looked at while the one before it is
    made into a portrait's."""
    made: asyncio.Task[None] | None = None
    try:
        while True:
            await came.wait()
            came.clear()
            while waiting:
                header, content = waiting.popleft()
                ahead = header.get("do") == "frame"
                if ahead:
                    content = client.workshop.look(client.look, content)
                    await asyncio.gather(asyncio.wrap_future(content), return_exceptions=True)
                if made is not None:
                    await made
                made = asyncio.create_task(_answer(connection, client, header, content))
                if not ahead:
                    await made
    finally:
        if made is not None:
            made.cancel()


async def _answer(connection: Any, client: Client, header: dict[str, Any], content: bytes | Future[Any]) -> None:
    """Carry out one message and send its answer, if the page is still there."""
    from starlette.websockets import WebSocketDisconnect

    with suppress(WebSocketDisconnect, RuntimeError):
        if header.get("do") == "recorded":  # long, and needs no model
            answer = await asyncio.to_thread(client.do, header, content)
        else:
            answer = await asyncio.wrap_future(client.workshop.submit(client.do, header, content))
        await connection.send_bytes(pack(*answer))
