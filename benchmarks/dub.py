"""Dubbed films, measured: what changes, what stays, does it flicker; and how the time of a photo grows with its faces.

    python benchmarks/dub.py --film A.mp4 B.mp4 --clip C.mp4 --sound S.wav --save   (results/dub.json)

Each film is dubbed by the clip, by the sound, and by itself (with --relative, so that nothing shall change). Of every row:

- outside: pixels that no mask touches. `outside_max` is the largest difference in levels before encoding; `outside_mean_after`
  the mean difference between the dubbed file and one of the unchanged film that is encoded alike (both without the mark);
  `encoder_mean` the mean difference between the latter and the film.
- inside: mean difference from the film where the mask is above one half, before encoding.
- flicker: the warping error inside the mask over that of the film: each frame against the one before, moved to it by its own
  optical flow (DIS), where the flow back agrees with it. What moves is no flicker, what changes otherwise is.
- second_difference: mean absolute, over time inside the mask, of result and film. Lips that move have one too.
- times, sound: whether the file's times equal the film's, and the packets of its sound.

Several faces: rendered portraits side by side, each driven by the clip; milliseconds of processor time per frame for 1 to 4
faces, in turns (tracking, drawing and encoding; the photograph itself is read before).
"""

from __future__ import annotations

import argparse
import tempfile
import time
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any
from unittest.mock import patch

import av
import cv2
import numpy as np
import torch
from PIL import Image

from export3d.animation import Animator, ClipDriver, SoundDriver, TransferOptions, VideoOptions
from export3d.animation import dub as dubbing
from export3d.animation.dub import DubOptions, dub_video, patched, region_mask
from export3d.animation.group import animate_group, find_everyone
from export3d.cli.demo import sample_portraits
from export3d.files import file_sha256
from export3d.portrait import load_model
from export3d.portrait.loading import checkpoint_path
from export3d.provenance import Finish, ProvenanceOptions
from export3d.tracking import Tracker
from export3d.video import VideoReader, VideoWriter
from material import save

GROUP_FRAMES = 10
PLAIN = ProvenanceOptions(no_label=True, no_mark=True, no_manifest=True)


class Noted:
    """Stands in for the drawing of a frame: keeps film, result and mask; or leaves the film as it is."""

    def __init__(self, *, change: bool) -> None:
        self.change, self.real = change, dubbing._picture
        self.films: list[np.ndarray] = []
        self.made: list[np.ndarray] = []
        self.masks: list[np.ndarray] = []

    def __call__(self, pair: Any, worker: Animator, *, strengths: Any) -> np.ndarray:
        frame, own = pair
        if not self.change:
            return frame.image
        image = self.real(pair, worker, strengths=strengths)
        mask = np.zeros(image.shape[:2], dtype=np.uint8)
        if own is not None and frame.crop is not None and frame.landmarks is not None:
            white = np.full((64, 64, 3), 255, dtype=np.uint8)
            mask = patched(np.zeros_like(image), white, frame.crop, region_mask(frame.landmarks, strengths))[..., 0]
        for kept, each in ((self.films, frame.image), (self.made, image), (self.masks, mask)):
            kept.append(each)
        return image


def pictures(path: Path) -> np.ndarray:
    """int16 ``(T, H, W, 3)``."""
    with VideoReader(path) as reader:
        return np.stack([frame.image for frame in reader]).astype(np.int16)


def warping_error(frames: np.ndarray, inside: np.ndarray) -> float:
    """Mean absolute difference in levels of uint8 ``(T, H, W, 3)`` from the frame before, moved by the optical flow.

    Only where `inside`, bool ``(T, H, W)``, holds and the flow there and back ends within half a pixel of where it began.
    """
    flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    grey = [frame.mean(axis=2).astype(np.uint8) for frame in frames]
    y, x = np.mgrid[: frames.shape[1], : frames.shape[2]].astype(np.float32)
    found = []
    for now in range(1, len(frames)):
        back, forth = flow.calc(grey[now], grey[now - 1], None), flow.calc(grey[now - 1], grey[now], None)
        there = x + back[..., 0], y + back[..., 1]
        agrees = np.hypot(*np.moveaxis(back + cv2.remap(forth, *there, cv2.INTER_LINEAR), 2, 0)) < 0.5
        moved = cv2.remap(frames[now - 1], *there, cv2.INTER_CUBIC).astype(int)
        found.append(np.abs(frames[now] - moved)[inside[now] & agrees].ravel())
    return float(np.concatenate(found).mean())


def stored(path: Path) -> tuple[list[Any], list[bytes]]:
    """Times of the pictures, and the packets of the sound."""
    with av.open(str(path)) as container:
        times = [frame.time for frame in container.decode(video=0)]
    with av.open(str(path)) as container:
        sound = (
            [bytes(p) for p in container.demux(container.streams.audio[0]) if p.size] if container.streams.audio else []
        )
    return [round(time - times[0], 5) for time in times], sound


def dubbed(
    animator: Animator, source: Path, driver: Any, target: Path, noted: Noted, *, relative: bool = False
) -> Path:
    """The film as `export3d animate` dubs it, without the mark."""
    with Tracker(choice="largest", size=animator.image_size) as tracker, patch.object(dubbing, "_picture", noted):
        how = {
            "dub": DubOptions(),
            "video": VideoOptions(workers=1),
            "motion": TransferOptions(relative=relative),
            "finish": Finish(PLAIN),
        }
        dub_video(animator, partial(ClipDriver, source, tracker), driver, target, **how)
    return target


def measured(noted: Noted, source: Path, target: Path, alone: Path) -> dict[str, Any]:
    """One row."""
    own, made = (np.stack(frames).astype(np.int16) for frames in (noted.films, noted.made))
    mask = np.stack(noted.masks)
    outside, inside = mask == 0, mask > 127
    decoded, plain = pictures(target), pictures(alone)
    times, sound = stored(source)
    told, heard = stored(target)
    steady = inside[1:-1] & inside[:-2] & inside[2:]
    second = [float(np.abs(x[2:] - 2 * x[1:-1] + x[:-2])[steady].mean()) for x in (made, own)]
    errors = [warping_error(x.astype(np.uint8), inside) for x in (made, own)]
    return {
        "frames": len(made),
        "share_of_picture": float((~outside).mean()),
        "outside_max": int(np.abs(made - own)[outside].max()),
        "outside_mean_after": float(np.abs(decoded - plain)[outside].mean()),
        "encoder_mean": float(np.abs(plain - own)[outside].mean()),
        "inside_mean": float(np.abs(made - own)[inside].mean()),
        "second_difference": second,
        "warping_error": errors,
        "flicker": errors[0] / errors[1],
        "times": told == times[: len(told)] and len(told) == len(times),
        "sound": heard == sound and len(sound) > 0,
    }


def dubs(animator: Animator, options: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    rows = []
    for source in options.film:
        alone = dubbed(
            animator, source, ClipDriver(source, animator.tracker), folder / "alone.mp4", Noted(change=False)
        )
        for by in ("clip", "sound", "itself"):
            path = {"clip": options.clip, "sound": options.sound, "itself": source}[by]
            driver = SoundDriver(path, animator.model) if by == "sound" else ClipDriver(path, animator.tracker)
            noted = Noted(change=True)
            target = dubbed(animator, source, driver, folder / f"{by}.mp4", noted, relative=by == "itself")
            driver.close()
            rows.append({"film": source.name, "by": by, **measured(noted, source, target, alone)})
            print(rows[-1], flush=True)
    return rows


def several(model: Any, clip: Path, folder: Path, rounds: int) -> list[dict[str, float]]:
    """Processor time per frame for 1 to 4 faces of one photograph: the least of some rounds, the counts in turns."""
    faces = [np.asarray(Image.open(path).convert("RGB").resize((384, 384))) for path in sample_portraits()[:3]]
    photo = folder / "group.png"
    Image.fromarray(np.concatenate([*faces, faces[0][:, ::-1]], axis=1)).save(photo)
    short = folder / "short.mp4"
    with VideoReader(clip) as reader, VideoWriter(short, reader.fps, (reader.width, reader.height)) as writer:
        for frame in islice(reader, GROUP_FRAMES):
            writer.write(frame.image)
    taken: dict[int, list[float]] = {count: [] for count in (1, 2, 3, 4)}
    for _ in range(rounds):
        for count in taken:
            with Tracker(size=model.config.image_size) as tracker:
                animator = Animator(model, tracker, framing="photo")
                people, _ = find_everyone(animator, photo, range(count))
                drivers = [ClipDriver(short, Tracker(tracker.face_tracker, tracker.coefficients)) for _ in people]
                how = {"motion": [TransferOptions()] * count, "finish": Finish(PLAIN)}
                started = time.process_time()
                report = animate_group(people, drivers, folder / "group.mp4", video=VideoOptions(workers=1), **how)
            taken[count].append(1000.0 * (time.process_time() - started) / report.frames)
            print(count, taken[count], flush=True)
    return [{"faces": count, "cpu_ms_per_frame": min(each)} for count, each in taken.items()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--film", type=Path, nargs="+", required=True)
    parser.add_argument("--clip", type=Path, required=True)
    parser.add_argument("--sound", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--save", action="store_true", help="write results/dub.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    model = load_model(None)
    with tempfile.TemporaryDirectory() as name:
        with Tracker(choice="largest", size=model.config.image_size) as tracker:
            rows = dubs(Animator(model, tracker, detail=1024), options, Path(name))
        faces = several(model, options.clip, Path(name), options.rounds)
    if options.save:
        print(save("dub", {"weights_sha256": file_sha256(checkpoint_path()), "seed": 0, "films": rows, "faces": faces}))


if __name__ == "__main__":
    main()
