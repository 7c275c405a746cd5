"""How fast films are made: frames per second end to end, the exact path beside, and core-milliseconds of each stage.

    python benchmarks/animate.py
    python benchmarks/animate.py --portrait photo.jpg --driving clip.mp4 --frames 100 --save

Films run from decoding and tracking to the finished file; the kinds of one size take turns, every second round in the reverse
order, and ratios are medians of the rounds' own. What marks cost is told by the clock and, since other work on the machine
moves that more than marks do, by the processor's time of all threads as well. Stages are timed by the processor's clock in a
film of their own on one thread, which tracks, too: their sum, divided by the cores, is the least time for a frame. Without
`--portrait` and `--driving` the bundled samples are taken, which are rendered heads; the portrait is enlarged into a
photograph of 1920 x 1080, in which its face is 600 pixels high.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack, closing, nullcontext
from itertools import islice
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from PIL import Image

import export3d.portrait.model
from export3d.animation import Animator, ClipDriver, TransferOptions, VideoOptions, VideoReport, animate_video
from export3d.animation.framing import Framing
from export3d.animation.paste import DETAIL_PX, Pasteboard
from export3d.checkpoint import read_checkpoint
from export3d.cli.demo import sample_portraits, samples_folder
from export3d.images import read_image
from export3d.portrait import PortraitModel, load_model
from export3d.portrait.loading import checkpoint_path
from export3d.portrait.openvino import PAYS_FROM, openvino_status
from export3d.provenance import Finish, ProvenanceOptions
from export3d.rendering.fused import fused_status
from export3d.tracking import Tracker
from export3d.training.loop.memory import keep_freed_memory
from export3d.video import VideoReader, VideoWriter
from material import save

CASES = {"face 128": None, "face 256": 256, "face 512": 512, "photo 1080p": DETAIL_PX}
"""What is made -> detail of the animator; only the last shows the whole photograph."""

PLAIN = ProvenanceOptions(no_mark=True, no_manifest=True)

STAGES: dict[str, tuple[Any, str]] = {
    "track": (Tracker, "frame"),
    "planes": (PortraitModel, "drive"),
    "rays": (export3d.portrait.model, "march_portrait"),
    "super-resolution": (PortraitModel, "look"),
    "compose": (PortraitModel, "compose"),
    "paste": (Pasteboard, "paste"),
    "mark": (Finish, "frame"),
    "encode": (VideoWriter, "write"),
}
"""Stage -> the function that does it."""


def main() -> None:
    """Measure, print tables, save on request."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--portrait", type=Path, help="photograph of a face; the bundled sample when left out")
    parser.add_argument("--driving", type=Path, help="clip of a face; the bundled sample when left out")
    parser.add_argument("--model", help="a name or a .safetensors file; the bundled model when left out")
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=list(CASES))
    parser.add_argument("--frames", type=int, default=50, help="frames of each film, at most")
    parser.add_argument("--repeats", type=int, default=3, help="films of each kind; the median counts")
    parser.add_argument("--save", action="store_true", help="write results/animate.json")
    options = parser.parse_args()
    keep_freed_memory()
    model = load_model(options.model)
    assert isinstance(model, PortraitModel)
    driving = options.driving or samples_folder() / "driving.mp4"
    films, stages = {}, {}
    with tempfile.TemporaryDirectory() as folder, Tracker(choice="largest", size=model.config.image_size) as tracker:
        clip = first_frames(driving, Path(folder) / "driving.mp4", options.frames)
        photo = sample_photo() if options.portrait is None else read_image(options.portrait)
        for case in options.cases:
            films[case] = time_films(case, model, tracker, photo, clip, options.repeats)
            stages[case] = time_stages(case, model, tracker, photo, clip)
        still = ["animate", "--source", str(sample_portraits()[0]), "--driving", str(clip), "-o", f"{folder}/still.png"]
        starts = {"export3d --help": start_seconds("--help"), "first picture": start_seconds(*still)}
    print(f"frames per second\n{table(films)}\n\ncore-milliseconds\n{table(stages)}\n\nseconds to {starts}")
    if options.save:
        weights = read_checkpoint(checkpoint_path(options.model), kind="export3d").sha256
        result = {"weights_sha256": weights, "compiled": fused_status()[1], "openvino": openvino_status()[1]}
        result |= {"openvino_from_frames": PAYS_FROM, "films": films}
        print(f"saved {save('animate', result | {'core_ms': stages, 'start_s': starts})}")


def sample_photo() -> np.ndarray:
    """The bundled portrait in a photograph of 1920 x 1080, uint8."""
    photo = Image.new("RGB", (1920, 1080), (90, 120, 110))
    photo.paste(
        Image.open(sample_portraits()[0]).convert("RGB").resize((1000, 1000), Image.Resampling.LANCZOS), (460, 40)
    )
    return np.array(photo)


def first_frames(clip: Path, path: Path, count: int) -> Path:
    """The first frames of a clip as a clip of their own."""
    with VideoReader(clip) as reader, VideoWriter(path, reader.fps, (reader.width, reader.height)) as writer:
        for frame in islice(reader, count):
            writer.write(frame.image)
    return path


def prepared(case: str, model: PortraitModel, tracker: Tracker, photo: np.ndarray, exact: bool = False) -> Animator:
    """An animator with the photograph as its portrait."""
    framing: Framing = "photo" if case.startswith("photo") else "face"
    animator = Animator(model, tracker, exact=exact, detail=CASES[case], framing=framing)
    animator.portrait(photo)
    return animator


def height(case: str) -> int | None:
    """Of the film; None is that of model or photograph."""
    return CASES[case] if case.startswith("face") else None


def time_films(
    case: str, model: PortraitModel, tracker: Tracker, photo: np.ndarray, clip: Path, repeats: int
) -> dict[str, float]:
    """Frames per second of the default film, of the exact one, and of the default one without mark and manifest, in turns."""
    kinds = {"default": (False, None), "exact": (True, None), "without marks": (False, PLAIN)}
    speeds: dict[str, list[float]] = {name: [] for name in kinds}
    costs: dict[str, list[float]] = {name: [] for name in kinds}
    for round_ in range(repeats):
        for name in list(kinds)[:: -1 if round_ % 2 else 1]:
            exact, plain = kinds[name]
            film, cost = timed_film(case, prepared(case, model, tracker, photo, exact), clip, Finish(plain))
            speeds[name].append(film.frames / film.seconds)
            costs[name].append(cost)
    found = {name: statistics.median(values) for name, values in speeds.items()}
    found |= {"frames": film.frames, "width": film.width, "height": film.height}
    found["times the exact path"] = median_ratio(speeds["default"], speeds["exact"])
    found["lost by marks"] = 1.0 - median_ratio(speeds["default"], speeds["without marks"])
    found["processor time of marks"] = 1.0 - median_ratio(costs["without marks"], costs["default"])
    return {name: round(value, 3) for name, value in found.items()}


def timed_film(case: str, animator: Animator, clip: Path, finish: Finish) -> tuple[VideoReport, float]:
    """A film's report, and the processor's seconds that all threads took for it."""
    start = time.process_time()
    with closing(ClipDriver(clip, animator.tracker)) as driver:
        film = animate_video(
            animator,
            driver,
            clip.with_name("film.mp4"),
            video=VideoOptions(size=height(case)),
            motion=TransferOptions(),
            finish=finish,
        )
    return film, time.process_time() - start


def median_ratio(values: list[float], others: list[float]) -> float:
    """Of values that were measured in the same rounds."""
    return statistics.median(one / other for one, other in zip(values, others, strict=True))


def time_stages(case: str, model: PortraitModel, tracker: Tracker, photo: np.ndarray, clip: Path) -> dict[str, float]:
    """Core-milliseconds per frame of each stage of a film that is made on one thread."""
    spent = dict.fromkeys(STAGES, 0.0)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    animator, driver = prepared(case, model, tracker, photo), ClipDriver(clip, tracker, threads=1)
    video = VideoOptions(size=height(case), workers=1, threads=1)
    with ExitStack() as stack:
        stack.enter_context(patch("export3d.animation.video_output.read_ahead", lambda frames, _: nullcontext(frames)))
        for name, (owner, function) in STAGES.items():
            stack.enter_context(patch.object(owner, function, timed(getattr(owner, function), spent, name)))
        start = time.process_time()
        film = animate_video(animator, driver, clip.with_name("film.mp4"), video=video, motion=TransferOptions())
        whole = time.process_time() - start
    driver.close()
    torch.set_num_threads(threads)
    spent["decode and the rest"] = whole - sum(spent.values())
    spent["sum"] = whole
    return {name: round(1000 * seconds / film.frames, 2) for name, seconds in spent.items()}


def timed(function: Callable, spent: dict[str, float], name: str) -> Callable:
    """The function, with the processor's time in it added up."""

    def call(*arguments: Any, **more: Any) -> Any:
        start = time.process_time()
        try:
            return function(*arguments, **more)
        finally:
            spent[name] += time.process_time() - start

    return call


def start_seconds(*arguments: str) -> float:
    """Least of five wall-clock times of `export3d` with these arguments, start of the process included."""
    times = []
    for _ in range(5):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-m", "export3d", *arguments], check=True, capture_output=True)
        times.append(time.perf_counter() - start)
    return round(min(times), 3)


def table(rows: dict[str, dict[str, float]]) -> str:
    """Plain text, a line for each case."""
    columns = list(next(iter(rows.values())))
    lines = [f"{'':12}" + "".join(f"{column:>24}" for column in columns)]
    lines += [f"{case:12}" + "".join(f"{row[column]:>22.2f}" for column in columns) for case, row in rows.items()]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
