"""The page as a person uses it, in a real browser: run by `make test-browser`, and by `make test` where there is Chromium."""

from __future__ import annotations

import base64
import io
import json
import os
import re
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("gradio")
pytest.importorskip("playwright")
pytest.importorskip("mediapipe")
pytest.importorskip("trimesh")

import trimesh
from browser import CHROMIUM, browser, write_y4m

from clips import clip_facts, make_clip
from export3d.cli.demo import sample_portraits, samples_folder
from export3d.downloads import FACE_LANDMARKER, require
from export3d.errors import Export3DError
from export3d.tracking import Tracker
from export3d.video import VideoReader

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(300)]

INNER_LIPS = (62, 66)
LONG = 120_000


def missing() -> str | None:
    """Why there can be no test in a browser here."""
    try:
        require(FACE_LANDMARKER, None)
    except Export3DError as error:
        return str(error)
    return None if Path(CHROMIUM).exists() else "there is no Chromium: apt-get install chromium"


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """`export3d studio` with the bundled model."""
    reason = missing()
    if reason:
        pytest.skip(reason)
    said = tmp_path_factory.mktemp("studio") / "out.txt"
    port = 20_000 + os.getpid() % 20_000
    command = [sys.executable, "-m", "export3d", "studio", "--no-browser", "--port", str(port), "--yes"]
    environment = {**os.environ, "OMP_NUM_THREADS": "2"}
    with open(said, "w") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, env=environment)
    try:
        wait(lambda: "Ctrl-C ends it" in said.read_text() or process.poll() is not None)
        assert process.poll() is None, said.read_text()
        yield f"http://127.0.0.1:{port}/"
    finally:
        process.terminate()
        process.wait(timeout=30)
    assert "Traceback" not in said.read_text()


@pytest.fixture(scope="module")
def webcam(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundled clip of a rendered head as a webcam."""
    with VideoReader(samples_folder() / "driving.mp4") as reader:
        frames = [np.pad(frame.image, ((0, 0), (42, 42), (0, 0)), mode="edge") for frame in reader]
    return write_y4m(tmp_path_factory.mktemp("webcam") / "clip.y4m", frames)


@pytest.fixture(scope="module")
def chromium(webcam: Path) -> Iterator[Any]:
    with browser(webcam) as found:
        yield found


@pytest.fixture
def page(chromium: Any, address: str) -> Iterator[Any]:
    """The page with the first portrait; at the end nothing was asked from elsewhere, and nothing complained of."""
    context = chromium.new_context(viewport={"width": 1280, "height": 900}, accept_downloads=True)
    page = context.new_page()
    asked: list[str] = []
    complaints: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda line: complaints.append(line.text) if line.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(address)
    page.wait_for_selector("#samples [aria-pressed=true]", timeout=LONG)
    yield page
    context.close()
    outside = [url for url in asked if not url.startswith((address, "blob:", "data:", address.replace("http", "ws")))]
    assert outside == []
    assert complaints == []


def wait(until: Callable[[], Any], seconds: float = 120.0) -> None:
    """Until something is true; the page's policy keeps Playwright from waiting in the page."""
    end = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < end, "this took too long"
        time.sleep(0.1)


def shown(page: Any, canvas: str) -> int:
    """How many pictures a canvas has shown."""
    return int(page.get_attribute(canvas, "data-shown") or 0)


def pixels(page: Any, canvas: str) -> np.ndarray:
    """What a canvas shows, uint8 ``(S, S, 3)``."""
    return decoded(page.evaluate("(name) => document.querySelector(name).toDataURL()", canvas))


def settled(page: Any, canvas: str, act: Callable[[], Any]) -> np.ndarray:
    """What a canvas shows after an action has had its picture."""
    before = shown(page, canvas)
    act()
    wait(lambda: shown(page, canvas) > before and page.get_attribute(canvas, "aria-busy") == "false")
    return pixels(page, canvas)


def mouth(face: Any) -> float:
    """How far the inner lips are apart, as a share of the face's height."""
    above, below = (face.landmarks_px[place] for place in INNER_LIPS)
    return float(np.linalg.norm(above - below) / face.height_px)


def test_a_film_is_made_downloaded_and_recognised(page: Any, tmp_path: Path) -> None:
    clip = tmp_path / "clip.mp4"
    with VideoReader(samples_folder() / "driving.mp4") as reader:
        make_clip(clip, frames=[frame.image for frame in islice(reader, 12)])
    page.set_input_files("#driving", str(clip))
    page.select_option("#film-form [name=size]", "128")
    page.uncheck("#film-form [value=brows]")
    page.click("#make")
    page.wait_for_selector("#film-link:not([hidden])", timeout=LONG)
    with page.expect_download() as waiting:
        page.click("#film-link")
    assert waiting.value.suggested_filename == "talking.mp4"
    film = tmp_path / "film.mp4"
    waiting.value.save_as(film)
    facts = clip_facts(film)
    assert (facts.num_frames, facts.audio_codec) == (12, "aac")
    page.click("#tab-check")
    page.set_input_files("#check-file", str(film))
    wait(lambda: "Made with Export3D, and unchanged since" in page.inner_text("#verdict"))


def test_a_wrong_file_is_explained_as_on_the_command_line(page: Any, tmp_path: Path) -> None:
    wrong = tmp_path / "notes.png"
    wrong.write_text("no picture")
    page.set_input_files("#photo", str(wrong))
    page.wait_for_selector("#notice:not([hidden])", timeout=LONG)
    assert page.inner_text("#notice").startswith("notes.png: not an image")
    page.set_input_files("#driving", str(wrong))
    page.click("#make")
    wait(lambda: "notes.png" in page.inner_text("#notice") and page.is_enabled("#make"))
    for box in page.locator("#film-form [name=regions]").all():
        box.uncheck()
    page.click("#make")
    wait(lambda: page.inner_text("#notice").startswith("Nothing follows"))


def test_sliders_presets_dragging_and_undo_change_the_face(page: Any) -> None:
    canvas = "#face-picture"
    own = settled(page, canvas, lambda: page.click("#tab-face"))
    surprised = settled(page, canvas, lambda: page.click("text=Surprise"))
    assert float(page.input_value("#sliders [name=jawOpen]")) == 0.5
    with Tracker(choice="largest") as tracker:
        faces = [tracker.face_tracker.detect(np.array(Image.fromarray(p).resize((512, 512)))) for p in (own, surprised)]
    assert mouth(faces[1][0]) > mouth(faces[0][0]) + 0.05
    back = settled(page, canvas, lambda: page.click("#undo"))
    assert np.abs(back.astype(int) - own).mean() < 1.0

    def drag() -> None:
        box = page.locator(canvas).bounding_box()
        page.mouse.move(box["x"] + 200, box["y"] + 200)
        page.mouse.down()
        page.mouse.move(box["x"] + 300, box["y"] + 200, steps=4)
        page.mouse.up()

    turned = settled(page, canvas, drag)
    assert np.abs(turned.astype(int) - own).mean() > 3.0
    with page.expect_download() as waiting:
        page.click("#still")
        page.click("#face-link")
    assert Image.open(waiting.value.path()).size == turned.shape[1::-1]


def test_the_keyboard_reaches_tabs_and_turns_the_head(page: Any) -> None:
    page.focus("#tab-animate")
    for _ in range(2):
        page.keyboard.press("ArrowRight")
    assert page.get_attribute("#tab-face", "aria-selected") == "true"
    wait(lambda: shown(page, "#face-picture") > 0)
    page.focus("#face-picture")
    before = pixels(page, "#face-picture")
    after = settled(page, "#face-picture", lambda: page.keyboard.press("ArrowRight"))
    assert np.abs(after.astype(int) - before).mean() > 0.5


def test_the_keyboard_goes_nearer_and_farther_again(page: Any) -> None:
    canvas = "#face-picture"
    before = settled(page, canvas, lambda: page.click("#tab-face"))
    page.focus(canvas)
    near = settled(page, canvas, lambda: [page.keyboard.press("+") for _ in range(5)])
    back = settled(page, canvas, lambda: [page.click("#undo") for _ in range(5)])
    far = settled(page, canvas, lambda: [page.focus(canvas), *(page.keyboard.press("-") for _ in range(5))])
    assert np.abs(back.astype(int) - before).mean() < 1.0
    with Tracker(choice="largest") as tracker:
        heights = [tracker.face_tracker.detect(enlarged(image))[0].height_px for image in (near, before, far)]
    assert heights[0] > 1.1 * heights[1] and heights[1] > 1.1 * heights[2]


def test_a_mesh_with_shapes_is_made_and_downloaded(page: Any) -> None:
    page.click("#tab-turn")
    page.select_option("#mesh-form [name=kind]", "ply")
    assert page.is_disabled("#mesh-form [name=shapes]")
    page.select_option("#mesh-form [name=kind]", "glb")
    page.check("#mesh-form [name=shapes]")
    page.click("#mesh-form button")
    page.wait_for_selector("#mesh-link:not([hidden])", timeout=LONG)
    shapes = int(re.findall(r"triangles, (\d+) shapes", page.inner_text("#mesh-link"))[0])
    with page.expect_download() as waiting:
        page.click("#mesh-link")
    assert waiting.value.suggested_filename == "head.glb"
    scene = trimesh.load(waiting.value.path(), file_type="glb")
    assert sum(len(part.faces) for part in scene.geometry.values()) > 50_000
    told = Path(waiting.value.path()).read_bytes()
    (length,) = struct.unpack_from("<I", told, 12)
    mesh = json.loads(told[20 : 20 + length])["meshes"][0]
    assert "jawOpen" in mesh["extras"]["targetNames"] and len(mesh["extras"]["targetNames"]) == shapes
    assert all(len(part["targets"]) == shapes for part in mesh["primitives"])


def test_a_person_is_seen_from_the_side_with_depth(page: Any) -> None:
    page.click("#tab-turn")
    wait(lambda: shown(page, "#turn-depth") > 0)
    before = pixels(page, "#turn-depth")
    page.focus("#turn-picture")
    for _ in range(4):
        page.keyboard.press("ArrowRight")
    wait(lambda: shown(page, "#turn-depth") > 1)
    assert np.abs(pixels(page, "#turn-depth").astype(int) - before).mean() > 1.0


def test_live_the_mouth_follows_the_webcam_and_is_recorded(page: Any, tmp_path: Path) -> None:
    page.click("#tab-live")
    page.select_option("#live-form [name=size]", "256")
    page.click("#live-start")
    wait(lambda: shown(page, "#live-picture") >= 5)
    page.click("#record")
    wait(lambda: page.inner_text("#record") == "Stop recording")
    seen: list[tuple[np.ndarray, np.ndarray]] = []
    end = time.monotonic() + 60.0
    while shown(page, "#live-picture") < 100:  # pairs of what the webcam showed and what the portrait made of it
        assert time.monotonic() < end, "100 pictures took too long"
        pair = page.evaluate(
            """() => { const canvas = document.querySelector("#live-picture"), reader = new FileReader();
                const made = canvas.toDataURL("image/jpeg", 0.95);
                return new Promise((done) => { reader.onload = () => done([reader.result, made]);
                    reader.readAsDataURL(canvas.sent); }); }"""
        )
        seen.append(tuple(decoded(one) for one in pair))
        page.wait_for_timeout(100)
    page.click("#record")
    page.wait_for_selector("#recording-link:not([hidden])", timeout=LONG)
    with page.expect_download() as waiting:
        page.click("#recording-link")
    film = tmp_path / "live.mp4"
    waiting.value.save_as(film)
    assert clip_facts(film).num_frames > 50 and clip_facts(film).audio_codec is not None
    assert re.search(r"pictures a second, \d+ ms behind", page.inner_text("#live-figures"))
    with Tracker(choice="largest") as tracker:
        found = [[tracker.face_tracker.detect(enlarged(image)) for image in pair] for pair in seen]
    mouths = np.array([[mouth(faces[0]) for faces in pair] for pair in found if all(pair)])
    assert len(mouths) >= 15
    assert np.corrcoef(mouths.T)[0, 1] >= 0.8


def decoded(address: str) -> np.ndarray:
    """A data address of a picture, uint8 ``(H, W, 3)``."""
    return np.array(Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2]))).convert("RGB"))


def enlarged(image: np.ndarray) -> np.ndarray:
    """At least 480 pixels high, where mouths are measured well."""
    height, width = image.shape[:2]
    return np.array(Image.fromarray(image).resize((width * 480 // height, 480), Image.Resampling.BICUBIC))


def test_the_javascript_example_of_the_document_runs(page: Any, address: str) -> None:
    text = (Path(__file__).parents[2] / "docs" / "http.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```javascript\n(.*?)```", text, re.DOTALL)
    example = example.replace("http://127.0.0.1:7860/", address)
    photo = base64.b64encode(sample_portraits()[0].read_bytes()).decode()
    take = "const photo = new Blob([Uint8Array.from(atob(given), (c) => c.charCodeAt(0))]);"
    kind = page.evaluate(f"async (given) => {{ {take}\n{example}\nreturn [file.type, file.size]; }}", photo)
    assert kind[0] == "image/png" and kind[1] > 1000


def test_no_tab_is_wider_than_the_window(page: Any) -> None:
    for tab in page.locator("[role=tab]").all():
        tab.click()
        page.evaluate("() => document.querySelectorAll('details').forEach((box) => { box.open = true; })")
        for width in (1280, 390):
            page.set_viewport_size({"width": width, "height": 844})
            assert page.evaluate("() => document.documentElement.scrollWidth") <= width


def test_the_page_is_dark_where_the_reader_wants_it(page: Any) -> None:
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        paper = page.evaluate("() => getComputedStyle(document.body).backgroundColor")
        assert (np.mean([int(n) for n in re.findall(r"\d+", paper)[:3]]) > 128) == (scheme == "light")
