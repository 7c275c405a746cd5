"""The pictures of docs/control.md and docs/mesh.md, made by the commands that stand there.

    python benchmarks/control_pictures.py --data CLIP_A CLIP_B CLIP_C --sound speech.wav --node-modules out/node/node_modules

docs/control.md says where the clips and the sound come from. All people are rendered, but for the astronaut of scikit-image
(NASA, public domain). The mesh is drawn by three.js.
"""

from __future__ import annotations

import argparse
import base64
import functools
import http.server
import io
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from export3d.cli.demo import sample_portraits, samples_folder
from export3d.data import ClipDataset
from export3d.video import VideoReader, VideoWriter
from material import write_photo

DOCS = Path(__file__).resolve().parents[1] / "docs" / "pictures"
SIDE = 176
FRAMES = (2, 12, 18, 26, 34, 42)
CAPTION = 18

VIEWS = (
    ("at rest", {}, 0),
    ("turned", {}, 35),
    ("jawOpen", {"jawOpen": 1}, 0),
    ("smiles", {"mouthSmileLeft": 1, "mouthSmileRight": 1}, 20),
    ("blinks", {"eyeBlinkLeft": 1, "eyeBlinkRight": 1}, 0),
    ("left blink", {"eyeBlinkLeft": 1}, -35),
)
"""Name, weights of the shapes, degrees to the side."""

PAGE = """<!doctype html><script type="importmap">
{"imports": {"three": "./node_modules/three/build/three.module.js", "three/": "./node_modules/three/"}}
</script><script type="module">
import * as THREE from "three";
import { GLTFLoader } from "three/examples/jsm/loaders/GLTFLoader.js";
const head = (await new GLTFLoader().loadAsync("head.glb")).scene;
const renderer = new THREE.WebGLRenderer({ antialias: true, preserveDrawingBuffer: true });
renderer.setSize(352, 352);
const camera = new THREE.PerspectiveCamera(15, 1, 0.1, 5);
const scene = new THREE.Scene();
scene.background = new THREE.Color(0xdddddd);
scene.add(head, new THREE.AmbientLight(0xffffff, 2.6));
window.shot = (weights, degrees) => {
  head.traverse((part) => {
    for (const [name, index] of Object.entries(part.morphTargetDictionary ?? {}))
      part.morphTargetInfluences[index] = weights[name] ?? 0;
  });
  const angle = degrees * Math.PI / 180;
  camera.position.set(1.15 * Math.sin(angle), 0.01, 1.15 * Math.cos(angle));
  camera.lookAt(0, 0.01, 0);
  renderer.render(scene, camera);
  return renderer.domElement.toDataURL("image/png");
};
window.ready = true;
</script>"""


def run(*words: Any) -> None:
    """One command of the program."""
    print("export3d", *words, flush=True)
    subprocess.run([sys.executable, "-m", "export3d", *map(str, words)], check=True, stdout=subprocess.DEVNULL)


def write_films(folders: Sequence[Path], out: Path) -> list[Path]:
    """The clips of data folders as films."""
    films = []
    for folder in folders:
        data = ClipDataset(folder)
        for index in range(len(data)):
            films.append(out / f"clip{len(films)}.mp4")
            with VideoWriter(films[-1], Fraction(25), (data.size, data.size), crf=8) as writer:
                for time in range(data.num_frames(index)):
                    writer.write(np.ascontiguousarray(data.frame(index, time)))
    return films


def frames(path: Path, chosen: Sequence[int] = FRAMES) -> list[np.ndarray]:
    with VideoReader(path) as reader:
        return [frame.image for frame in reader if frame.index in chosen]


def row(caption: str, images: Sequence[np.ndarray], height: int = SIDE) -> Image.Image:
    """Pictures side by side under a line of text."""
    small = [Image.fromarray(image) for image in images]
    small = [
        each.resize((round(each.width * height / each.height), height), Image.Resampling.LANCZOS) for each in small
    ]
    made = Image.new("RGB", (sum(each.width for each in small), height + CAPTION), "white")
    ImageDraw.Draw(made).text((4, 2), caption, fill="black", font=ImageFont.load_default(13))
    left = 0
    for each in small:
        made.paste(each, (left, CAPTION))
        left += each.width
    return made


def sheet(name: str, rows: Sequence[Image.Image]) -> None:
    """Rows under each other, as a file of the documentation."""
    made = Image.new("RGB", (max(each.width for each in rows), sum(each.height for each in rows)), "white")
    top = 0
    for each in rows:
        made.paste(each, (0, top))
        top += each.height
    made.save(DOCS / name, quality=78, method=6)
    print(DOCS / name, made.size, (DOCS / name).stat().st_size, flush=True)


def one_face(photo: Path, driver: Path, other: Path, out: Path) -> None:
    """Regions, strengths, and drivers that are combined."""

    def made(*words: Any) -> list[np.ndarray]:
        run("animate", "--source", photo, "--driving", driver, "--framing", "face", "-o", out / "o.mp4", *words)
        return frames(out / "o.mp4")

    whole = made()
    rows = [row("the driver", frames(driver)), row("all of it", whole)]
    for words in ("--regions lips,jaw", "--regions eyes,brows,gaze", "--pose-only"):
        rows.append(row(words, made(*words.split())))
    sheet("control_regions.webp", rows)
    rows = [row("the driver", frames(driver))]
    for words in ("--strength 0.5", "--strength 1", "--strength lips=1.3,jaw=1.2,brows=0.5", "--strength pose=0.3"):
        rows.append(row(words, whole if words == "--strength 1" else made(*words.split())))
    sheet("control_strength.webp", rows)
    rows = [row("--driving", frames(driver)), row("the other clip", frames(other)), row("the first alone", whole)]
    for word in ("--pose-from", "--lips-from"):
        rows.append(row(f"{word} the other clip", made(word, other)))
    sheet("control_combined.webp", rows)


def dubs(film: Path, clip: Path, sound: Path, out: Path) -> None:
    """A film, dubbed."""
    rows = [row("the film", frames(film)), row("the clip", frames(clip))]
    for caption, words in (("dubbed by the clip", (clip,)), ("dubbed by a voice", (sound, "--sound", "driving"))):
        run("animate", "--source", film, "--driving", *words, "-o", out / "o.mp4")
        rows.append(row(caption, frames(out / "o.mp4")))
    sheet("control_dub.webp", rows)


def faces(photos: Sequence[Path], clips: Sequence[Path], out: Path) -> None:
    """Four people of one picture, each with a driver."""
    people = [np.asarray(Image.open(photo).convert("RGB").resize((320, 320))) for photo in photos]
    Image.fromarray(np.concatenate(people, axis=1)).save(out / "group.png")
    run("animate", "--source", out / "group.png", "--face", "all", "--driving", *clips, "-o", out / "o.mp4")
    rows = [row("the picture", people, 264)]
    for index in FRAMES[2:5]:
        drivers = [frames(clip, [index])[0] for clip in clips]
        aside = [((0, 0), (driver.shape[1] // 2,) * 2, (0, 0)) for driver in drivers]  # each above the one it drives
        wide = [np.pad(driver, pads, constant_values=255) for driver, pads in zip(drivers, aside, strict=True)]
        rows.append(row("the four drivers", wide, 132))
        rows.append(row("", frames(out / "o.mp4", [index]), 264))
    sheet("control_faces.webp", rows)


def mesh(photos: Sequence[Path], modules: Path, out: Path) -> None:
    """Heads in three.js."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "studio"))
    from browser import browser

    (out / "page.html").write_text(PAGE)
    shutil.copytree(modules / "three", out / "node_modules" / "three", dirs_exist_ok=True)
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(out))
    rows = []
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        for photo in photos:
            run("mesh", "--source", photo, "-o", out / "head.glb", "--shapes")
            with browser(flags=["--use-angle=swiftshader", "--enable-unsafe-swiftshader"]) as found:
                page = found.new_page()
                page.goto(f"http://127.0.0.1:{server.server_port}/page.html")
                page.wait_for_function("window.ready")
                shots = [page.evaluate("([w, d]) => window.shot(w, d)", [weights, turn]) for _, weights, turn in VIEWS]
            images = [Image.open(io.BytesIO(base64.b64decode(shot.split(",")[1]))).convert("RGB") for shot in shots]
            rows.append(row(", ".join(name for name, _, _ in VIEWS), [np.asarray(image) for image in images]))
        server.shutdown()
    sheet("mesh.webp", rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, nargs="+", help="folders with three rendered continuous clips")
    parser.add_argument("--sound", type=Path, help="speech of two seconds or more")
    parser.add_argument("--node-modules", type=Path, help="folder that has three")
    parser.add_argument("--only", nargs="*", default=["one", "dub", "faces", "mesh"])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        out, portraits, first = Path(name), sample_portraits(), samples_folder() / "driving.mp4"
        clips = write_films(options.data or [], out)
        if "one" in options.only:
            one_face(portraits[1], clips[0], clips[1], out)
        if "dub" in options.only:
            dubs(first, clips[0], options.sound, out)
        if "faces" in options.only:
            Image.fromarray(frames(clips[1], [FRAMES[-1]])[0]).save(out / "fourth.png")
            faces([*portraits[:3], out / "fourth.png"], [*clips[:3], first], out)
        if "mesh" in options.only:
            mesh([write_photo(out / "astronaut.png"), portraits[1]], options.node_modules, out)


if __name__ == "__main__":
    main()
