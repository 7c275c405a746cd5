"""The page's own line: messages, errors that stay kind, the newest picture wins, clients that go."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("starlette")

from starlette.websockets import WebSocketDisconnect

from conftest import picture_file
from export3d.errors import UsageError
from export3d.studio.live import Live
from export3d.studio.socket import OOPS, Client, pack, serve, unpack
from export3d.studio.videos import Limits
from export3d.studio.workshop import Workshop


@pytest.fixture
def client(workshop: Workshop) -> Client:
    """A page with a portrait."""
    made = Client(workshop)
    made.do({"do": "portrait", "name": "photo.png"}, picture_file())
    return made


class Page:
    """A page's end of the socket: sends its messages, then waits for so many answers, then goes."""

    def __init__(self, *messages: bytes, answers: int) -> None:
        self._messages, self._wanted = list(messages), answers
        self.answers: list[tuple[dict[str, Any], bytes]] = []
        self.closed: int | None = None

    async def accept(self) -> None: ...

    async def receive_bytes(self) -> bytes:
        if self._messages:
            return self._messages.pop(0)
        while len(self.answers) < self._wanted:
            await asyncio.sleep(0.01)
        raise WebSocketDisconnect

    async def send_bytes(self, message: bytes) -> None:
        self.answers.append(unpack(message))

    async def close(self, code: int) -> None:
        self.closed = code


def test_a_message_comes_back_as_it_was() -> None:
    assert unpack(pack({"do": "face", "n": 3}, b"picture")) == ({"do": "face", "n": 3}, b"picture")


@pytest.mark.parametrize("message", [b"", b"\x00", b"\x00\x00\x00\x09{}", b"\x00\x00\x00\x02[]"])
def test_what_is_no_message_is_refused(message: bytes) -> None:
    with pytest.raises(UsageError, match="not a message"):
        unpack(message)


def test_a_portrait_is_answered_by_its_picture_and_sliders(workshop: Workshop) -> None:
    answer, picture = Client(workshop).do({"do": "portrait", "name": "a.png", "n": 1}, picture_file())
    assert (answer["did"], answer["n"], picture[:2]) == ("portrait", 1, b"\xff\xd8")
    assert answer["sliders"][0]["title"] == "Brows"


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ({"do": "portrait", "name": "a.png"}, "a.png: not an image"),
        ({"do": "face", "wish": {"nearer": "x"}}, "face: "),
        ({"do": "frame"}, "start the camera first"),
        ({"do": "calibrate"}, "start the camera first"),
        ({"do": "recorded"}, "nothing is being recorded"),
        ({"do": "live", "options": {"strength": 7}}, "live: "),
        ({"do": "motion", "keyframes": []}, "keyframes: "),
        ({"do": "__init__"}, "there is no '__init__'"),
        ({}, "there is no 'None'"),
    ],
)
def test_what_cannot_be_done_is_answered_by_a_sentence(client: Client, message: dict[str, Any], text: str) -> None:
    answer, content = client.do(message, b"")
    assert text in answer["error"] and content == b""


def test_a_fault_of_ours_is_logged_and_not_shown(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "stage", SimpleNamespace())  # without anything that a stage has
    answer, _ = client.do({"do": "face"}, b"")
    assert answer["error"] == OOPS


def test_live_frames_come_back_and_go_into_the_recording_and_the_camera(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[np.ndarray] = []
    camera = SimpleNamespace(width=64, height=64, send=sent.append, close=lambda: None)
    monkeypatch.setattr("export3d.studio.socket.open_virtual_camera", lambda size: camera)
    for message in ({"do": "live"}, {"do": "record"}, {"do": "camera", "on": True}):
        assert "error" not in client.do(message, b"")[0]
    answer, shown = client.do({"do": "frame"}, picture_file())
    assert answer["found"] and shown[:2] == b"\xff\xd8"
    assert sent[0].shape == (64, 64, 3)
    assert client.do({"do": "recorded"}, b"")[0]["frames"] == 1
    assert client.do({"do": "camera", "on": False}, b"")[0]["on"] is False
    client.do({"do": "stop"}, b"")
    assert client.live is None


def test_a_face_is_saved_as_a_picture_and_as_a_motion(client: Client) -> None:
    still, _ = client.do({"do": "still", "wish": {"turn": [10, 0, 0]}}, b"")
    motion, _ = client.do({"do": "motion", "keyframes": [{"time_s": 0, "wish": {}}]}, b"")
    for answer in (still, motion):
        assert (client.workshop.folder / answer["file"]).stat().st_size > 0


def test_of_faces_that_wait_only_the_newest_is_made(workshop: Workshop) -> None:
    first = pack({"do": "portrait", "name": "a.png", "n": 0}, picture_file())
    page = Page(first, *(pack({"do": "face", "n": n}) for n in (1, 2, 3)), answers=4)
    asyncio.run(serve(page, workshop=workshop))
    late = {answer["n"]: answer.get("late", False) for answer, _ in page.answers}
    assert late == {0: False, 1: True, 2: True, 3: False}


def test_a_page_that_goes_frees_its_place_and_its_files(workshop: Workshop) -> None:
    messages = [pack({"do": "portrait", "name": "a"}, picture_file()), pack({"do": "live"}), pack({"do": "record"})]
    asyncio.run(serve(Page(*messages, answers=3), workshop=workshop))
    assert workshop.clients == 0
    assert list(workshop.folder.glob("*.recording")) == []


def test_a_page_too_many_is_turned_away(make_workshop: Callable[..., Workshop]) -> None:
    workshop = make_workshop(limits=Limits(clients=1))
    workshop.clients = 1
    page = Page(answers=0)
    asyncio.run(serve(page, workshop=workshop))
    assert page.closed == 1013 and "full" in page.answers[0][0]["error"]
    assert workshop.clients == 1


def test_nonsense_ends_the_line_and_nothing_else(workshop: Workshop) -> None:
    asyncio.run(serve(Page(b"nonsense", answers=0), workshop=workshop))
    assert workshop.clients == 0


def test_a_picture_is_looked_at_while_the_one_before_is_made(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, beside = [], []

    def look(live: Live, picture: bytes) -> None:
        begun.append(picture)

    def show(live: Live, seen: None) -> np.ndarray:
        end = time.monotonic() + 5.0
        while len(begun) < 2 and time.monotonic() < end:
            time.sleep(0.005)
        beside.append(len(begun))
        return np.zeros((8, 8, 3), dtype=np.uint8)

    monkeypatch.setattr(Live, "look", look)
    monkeypatch.setattr(Live, "show", show)
    monkeypatch.setattr("export3d.studio.socket.NEWEST_WINS", ())
    first = [pack({"do": "portrait", "name": "a.png", "n": 0}, picture_file()), pack({"do": "live", "n": 1})]
    frames = [pack({"do": "frame", "n": n}, bytes([n])) for n in (2, 3, 4)]
    page = Page(*first, *frames, pack({"do": "stop", "n": 5}), answers=6)
    asyncio.run(serve(page, workshop=workshop))
    assert [answer["n"] for answer, _ in page.answers] == [0, 1, 2, 3, 4, 5]
    assert not any("error" in answer for answer, _ in page.answers)
    assert begun == [b"\x02", b"\x03", b"\x04"] and beside[0] == 2


def test_a_picture_that_cannot_be_read_is_answered_in_its_turn(workshop: Workshop) -> None:
    first = [pack({"do": "portrait", "name": "a.png", "n": 0}, picture_file()), pack({"do": "live", "n": 1})]
    page = Page(*first, pack({"do": "frame", "n": 2}, b"none"), pack({"do": "calibrate", "n": 3}), answers=4)
    asyncio.run(serve(page, workshop=workshop))
    assert ["not an image" in answer.get("error", "") for answer, _ in page.answers] == [False, False, True, False]


def test_a_tracker_is_freed_after_the_picture_that_it_still_looks_at(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    looking = threading.Event()

    def look(live: Live, picture: bytes) -> None:
        looking.set()
        time.sleep(0.2)
        said.append("looked")

    class Gone(Page):
        async def receive_bytes(self) -> bytes:
            if not self._messages:
                await asyncio.to_thread(looking.wait, 5.0)
                raise WebSocketDisconnect
            return self._messages.pop(0)

    monkeypatch.setattr(Live, "look", look)
    monkeypatch.setattr(Live, "close", lambda live: said.append("freed"))
    first = [pack({"do": "portrait", "name": "a.png"}, picture_file()), pack({"do": "live"})]
    asyncio.run(serve(Gone(*first, pack({"do": "frame"}, b"x"), answers=0), workshop=workshop))
    assert said == ["looked", "freed"]
