"""The server: who may come in, what is served, the named endpoints, and the examples of docs/http.md."""

from __future__ import annotations

import base64
import gc
import re
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("gradio")

import httpx
import uvicorn
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from websockets.sync.client import connect

from clips import a_motion, clip_facts
from conftest import picture_file
from export3d.provenance import AllowedSources
from export3d.studio.live import Live
from export3d.studio.server import LOCAL, build_app
from export3d.studio.socket import Client as Page
from export3d.studio.socket import pack, unpack
from export3d.studio.videos import Limits
from export3d.studio.workshop import Workshop

pytestmark = pytest.mark.filterwarnings("ignore")

Serve = Callable[..., str]
PAGE = Path(__file__).parents[2] / "docs" / "http.md"


@pytest.fixture
def serve(make_workshop: Callable[..., Workshop]) -> Iterator[Serve]:
    """Serve a workshop on a free port; gives its address."""
    servers: list[tuple[uvicorn.Server, threading.Thread]] = []

    def start(workshop: Workshop | None = None, **given: Any) -> str:
        listener = socket.socket()
        listener.bind(("127.0.0.1", 0))
        app = build_app(workshop or make_workshop(), **given)
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=1))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        servers.append((server, thread))
        while not server.started:
            time.sleep(0.01)
        return f"http://127.0.0.1:{listener.getsockname()[1]}"

    yield start
    for server, thread in servers:
        server.should_exit = True
        thread.join(timeout=10)


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """A portrait."""
    path = tmp_path / "photo.png"
    path.write_bytes(picture_file())
    return path


def test_the_page_and_its_parts_are_served_with_a_policy_that_keeps_it_at_home(serve: Serve, photo: Path) -> None:
    address = serve(samples=[photo])
    page = httpx.get(address)
    assert "default-src 'self'" in page.headers["content-security-policy"]
    parts = re.findall(r'(?:src|href)="(page/[^"]+)"', page.text)
    assert len(parts) == 3
    for part in parts:
        assert httpx.get(f"{address}/{part}").status_code == 200
    assert httpx.get(f"{address}/studio/offered").json()["portraits"] == ["photo.png"]
    assert httpx.get(f"{address}/studio/offered/portraits/photo.png").content == photo.read_bytes()


def test_no_part_of_the_page_names_another_server() -> None:
    from export3d.studio.server import PAGE as FOLDER

    for path in FOLDER.iterdir():
        outside = [
            url for url in re.findall(r"(?:https?:)?//[\w.-]+\.\w+", path.read_text()) if "www.w3.org" not in url
        ]
        assert outside == []


def test_only_files_that_the_studio_made_or_offers_are_served(serve: Serve, workshop: Workshop, photo: Path) -> None:
    address = serve(workshop, samples=[photo])
    made = workshop.new_file(".png")
    made.write_bytes(b"picture")
    assert (
        httpx.get(f"{address}/studio/made/{made.name}?called=../x.png")
        .headers["content-disposition"]
        .endswith('"x.png"')
    )
    hidden = workshop.new_file(".recording")
    hidden.write_bytes(b"x")
    for path in (
        f"studio/made/{hidden.name}",
        "studio/made/..%2f..%2fetc%2fpasswd",
        "studio/offered/portraits/..%2fphoto.png",
        "gradio_api/file=/etc/passwd",
        f"gradio_api/file={photo.parent / 'other.png'}",
        "page/../server.py",
    ):
        assert httpx.get(f"{address}/{path}").status_code in (403, 404), path


def test_pages_from_elsewhere_and_other_names_are_refused(serve: Serve) -> None:
    address = serve()
    assert httpx.get(address, headers={"origin": "https://evil.example"}).status_code == 403
    assert httpx.get(address, headers={"host": "evil.example"}).status_code == 403
    assert httpx.get(address, headers={"origin": address}).status_code == 200
    assert LOCAL == ("127.0.0.1", "localhost", "::1")


def test_a_password_is_asked_for_once(serve: Serve) -> None:
    address = serve(password="open sesame")
    assert httpx.get(address).status_code == 401
    assert httpx.get(address, auth=("me", "wrong")).status_code == 401
    assert httpx.get(address, headers={"authorization": "Basic ???"}).status_code == 401
    with httpx.Client(auth=("anybody", "open sesame")) as client:
        assert client.get(address).status_code == 200
        cookies = dict(client.cookies)
    assert httpx.get(f"{address}/gradio_api/info", cookies=cookies).status_code == 200
    assert httpx.get(f"{address}/gradio_api/info").status_code == 401


def test_the_socket_wants_the_password_and_the_own_page_too(serve: Serve) -> None:
    from websockets.exceptions import InvalidStatus

    address = serve(password="open sesame").replace("http", "ws") + "/studio/socket"
    word = {"Authorization": "Basic " + base64.b64encode(b":open sesame").decode()}
    for headers in ({}, {**word, "Origin": "https://evil.example"}):
        with pytest.raises(InvalidStatus):
            connect(address, additional_headers=headers)
    with connect(address, additional_headers=word) as line:
        line.close()


def test_with_api_only_there_is_no_page(serve: Serve) -> None:
    address = serve(api_only=True)
    assert httpx.get(address).headers["content-type"].startswith("text/plain")
    assert httpx.get(f"{address}/studio/offered").status_code == 404
    names = httpx.get(f"{address}/gradio_api/info").json()["named_endpoints"]
    assert set(names) == {"/animate", "/turn", "/mesh", "/face", "/motion", "/own", "/check", "/about"}


def test_the_document_lists_the_endpoints_with_their_inputs(serve: Serve) -> None:
    names = httpx.get(f"{serve()}/gradio_api/info").json()["named_endpoints"]
    text = PAGE.read_text(encoding="utf-8")
    for name, facts in names.items():
        row = next(line for line in text.splitlines() if line.startswith(f"| `{name}` |"))
        for parameter in facts["parameters"]:
            assert parameter["parameter_name"] in row


def test_the_examples_of_the_document_run(serve: Serve, photo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    address = serve()
    monkeypatch.chdir(photo.parent)
    blocks = dict(re.findall(r"```(\w+)\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL))
    found: dict[str, Any] = {}
    exec(blocks["python"].replace("http://127.0.0.1:7860", address), found)
    assert clip_facts(Path(found["film"])).num_frames == 6
    script = blocks["bash"].replace("http://127.0.0.1:7860", address)
    done = subprocess.run(["bash", "-euc", script], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert (photo.parent / "face.png").read_bytes()[:4] == b"\x89PNG"


def test_errors_are_those_of_the_command_line_with_the_users_file_names(serve: Serve, photo: Path) -> None:
    client = Client(serve(), verbose=False)
    empty = photo.with_name("my clip.safetensors")
    empty.write_bytes(b"nothing")
    for call, text in (
        (lambda: client.predict(handle_file(photo), handle_file(empty), {}, api_name="/animate"), "clip.safetensors: "),
        (
            lambda: client.predict(handle_file(photo), handle_file(photo), {"strength": 3}, api_name="/animate"),
            "options: ",
        ),
        (lambda: client.predict(handle_file(photo), {"weights": {"ear": 1}}, 256, api_name="/face"), "does not know"),
        (lambda: client.predict(handle_file(photo), [], api_name="/motion"), "keyframes: "),
        (lambda: client.predict(handle_file(empty), api_name="/own"), "not an image"),
        (lambda: client.predict(handle_file(photo), 30, 15, 1e9, 256, True, api_name="/turn"), "seconds must be"),
        (
            lambda: client.predict(handle_file(photo), handle_file(photo), {"regions": []}, api_name="/animate"),
            "options: ",
        ),
        (lambda: client.predict(handle_file(photo), "stl", False, api_name="/mesh"), "kind must be one of"),
        (lambda: client.predict(None, api_name="/own"), "no file was given"),
    ):
        with pytest.raises(AppError) as caught:
            call()
        assert text in str(caught.value) and "uploads" not in str(caught.value)


def test_addresses_are_not_fetched_and_foreign_paths_not_read(serve: Serve, tmp_path: Path) -> None:
    asked: list[Any] = []
    with socket.socket() as bait:
        bait.bind(("127.0.0.1", 0))
        bait.listen()
        bait.settimeout(0.1)
        address = serve()
        for path in (f"http://127.0.0.1:{bait.getsockname()[1]}/a.png", "/etc/hostname"):
            data = {"data": [{"path": path, "meta": {"_type": "gradio.FileData"}}]}
            event = httpx.post(f"{address}/gradio_api/call/check", json=data).json()["event_id"]
            told = httpx.get(f"{address}/gradio_api/call/check/{event}", timeout=30).text
            assert "event: error" in told and "event: complete" not in told
        with pytest.raises(TimeoutError):
            asked.append(bait.accept())
    assert asked == []


def test_files_over_the_limit_are_refused(serve: Serve, make_workshop: Callable[..., Workshop]) -> None:
    address = serve(make_workshop(limits=Limits(upload_mb=1)))
    reply = httpx.post(f"{address}/gradio_api/upload", files={"files": ("a.bin", b"0" * 2_500_000)})
    assert reply.status_code == 413


def test_with_sources_only_those_portraits_are_animated(
    serve: Serve, make_workshop: Callable[..., Workshop], photo: Path
) -> None:
    address = serve(make_workshop(allowed=AllowedSources.load(photo.parent)), samples=[photo])
    client = Client(address, verbose=False)
    assert client.predict(handle_file(photo), api_name="/own")["sliders"]
    other = photo.with_name("other.png")
    other.write_bytes(picture_file(1))
    with pytest.raises(AppError, match="not among the allowed ones"):
        client.predict(handle_file(other), api_name="/own")
    assert httpx.get(f"{address}/studio/offered").json()["restricted"] is True


def test_a_client_that_vanishes_frees_the_work_for_the_next(serve: Serve, workshop: Workshop, photo: Path) -> None:
    address = serve(workshop)
    motion = photo.with_name("long.safetensors")
    a_motion(1500).save(motion)
    files = [
        httpx.post(f"{address}/gradio_api/upload", files={"files": (path.name, path.read_bytes())}).json()[0]
        for path in (photo, motion)
    ]
    data = [{"path": path, "meta": {"_type": "gradio.FileData"}} for path in files]
    event = httpx.post(f"{address}/gradio_api/call/animate", json={"data": [*data, {"size": 64}]}).json()["event_id"]
    with httpx.stream("GET", f"{address}/gradio_api/call/animate/{event}", timeout=30) as told:
        for line in told.iter_lines():
            if '"done"' in line:
                break
        assert workshop.videos.busy
    soon(lambda: not workshop.videos.busy)
    assert list(workshop.folder.glob("*.mp4")) == []


def test_eight_pages_at_once_are_served_and_leave_no_memory_behind(serve: Serve, workshop: Workshop) -> None:
    address = serve(workshop).replace("http", "ws") + "/studio/socket"

    def page(seed: int) -> list[bool]:
        """A page that drags a slider and goes without a word."""
        with connect(address) as line:
            asked = [{"do": "portrait", "name": "a.png", "n": 0}, {"do": "live", "n": 1}]
            asked += [{"do": "face", "wish": {"turn": [turn, 0, 0]}, "n": 2 + turn} for turn in range(4)]
            for header in asked:
                line.send(pack(header, picture_file(seed) if header["n"] == 0 else b""))
            answers = [unpack(line.recv())[0] for _ in asked]
            line.socket.shutdown(socket.SHUT_RDWR)
        return ["error" in answer for answer in answers]

    def held() -> list[object]:
        """What is still there of pages."""
        workshop.submit(gc.collect).result()
        # type(): isinstance asks a dead weak proxy for its class, which raises
        return [each for each in gc.get_objects() if issubclass(type(each), (Page, Live))]

    def eight() -> int:
        """Memory after eight pages came and went."""
        with ThreadPoolExecutor(8) as pool:
            assert not any(error for errors in pool.map(page, range(8)) for error in errors)
        soon(lambda: workshop.clients == 0)
        soon(lambda: held() == [])
        return resident()

    before = eight()  # the first time imports and caches
    assert max(eight() for _ in range(2)) < 1.1 * before


def soon(true: Callable[[], bool]) -> None:
    """Within the 5 seconds in which a client's work is to be freed."""
    end = time.monotonic() + 5.0
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


def resident() -> int:
    """Memory of this process, in pages; 1 where that is not told."""
    pages = Path("/proc/self/statm")
    return int(pages.read_text().split()[1]) if pages.exists() else 1


def test_two_films_at_once_are_both_made_in_turn(serve: Serve, photo: Path) -> None:
    client = Client(serve(), verbose=False)
    motion = photo.with_name("motion.safetensors")
    a_motion(4).save(motion)
    given = (handle_file(photo), handle_file(motion), {"size": 64})
    jobs = [client.submit(*given, api_name="/animate") for _ in range(2)]
    assert [clip_facts(Path(job.result(timeout=60)[1])).num_frames for job in jobs] == [4, 4]
