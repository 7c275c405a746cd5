"""Photographs brought alive, measured: is the face as sharp, is nothing black, is there a halo? (results/photographs.json)

    python benchmarks/photographs.py --portraits FOLDER --clips FOLDER --keep KEPT --save

Portraits are drawn by a seed; each is driven by frames of one clip, as `export3d animate` does. In every frame:

- sharpness: mean absolute Laplacian inside the 68 points' hull over that of the photograph, both faces cropped alike and of
  the same number of pixels; `still` is the portrait's own face and pose.
- identity: cosine of dlib's embedding with that of the photograph, over the photograph's own under the same jitter of the crop.
  `identity_of_films` is the same of the clips' own people, later frames against the first: a turned, moving face of one person.
- black: share of the picture that is black (no channel above 8 of 255) and is not near anything black in the photograph.
- halo: width of the rim around the driven head, above the chin, in which the picture differs by more than 16 levels from
  what is put behind it, in pixels of a crop of 512: mean over 5-degree sectors of how many such pixels lie outside opacity
  1/2. Soft hair counts, too.
- left: share of the old head (the person's own pixels in the upper half of the crop) that is not taken away.
- unchanged: whether every pixel away from both heads equals the photograph's.
- film, still_film: share of the pixels away from both heads that are within a level of the photograph's after H.264 at crf 10
  and decoding: of the film, and of as many frames of the photograph itself; film_error, still_film_error: mean difference.

`--keep` holds a row and a strip of pictures for each portrait; those of this commit are not measured again.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from scipy.ndimage import binary_dilation, distance_transform_edt
from scipy.spatial import ConvexHull

from export3d.animation import Animator, MotionDriver, TransferOptions
from export3d.animation.driven import driven_frames
from export3d.animation.drivers import ClipDriver
from export3d.animation.head import HeadLayer
from export3d.animation.paste import Pasteboard, pasteboard
from export3d.evaluation.metrics.backends import TrackerBackend
from export3d.evaluation.metrics.dlib_identity import DlibIdentity
from export3d.files import file_sha256, measured_now
from export3d.images import read_image
from export3d.portrait.loading import checkpoint_path, load_model
from export3d.tracking import Crop, LostFaces, Motion, Tracker, crop_image, crop_transform
from export3d.tracking.clip import track_clip
from export3d.video import VideoReader, VideoWriter
from material import save

SIZE = 512
"""Widths of halos are in pixels of a crop of this size."""

DIFFERS = 16.0
BLACK = 8
SECTORS = 72
LONGEST = 100  # frames of a clip
FILM_FRAMES, FILM_CRF = 8, 10
NEIGHBOURHOOD_PX = 16  # so far a codec carries what changes

JITTERS = 2
SHIFT, SCALE, ROLL = 0.04, 0.05, 0.07
"""Of the crop for identities: up to so much of its side, and radians."""


@dataclass(frozen=True)
class Frame:
    """A driven picture and what it was made of."""

    picture: np.ndarray
    opacity: np.ndarray
    changing: np.ndarray


def main() -> None:
    """Measure; a sheet and a result file on request."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--portraits", type=Path, required=True)
    parser.add_argument("--clips", type=Path, required=True)
    parser.add_argument("--model", default=None)
    parser.add_argument("--count", type=int, default=30)
    parser.add_argument("--frames", type=int, default=3, help="frames of a clip, evenly spaced")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, required=True, help="folder for each portrait's row and strip")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after so long; call again to go on")
    parser.add_argument("--save", action="store_true", help="write results/photographs.json")
    options = parser.parse_args()
    paths = sorted(p for p in options.portraits.iterdir() if p.suffix in (".jpg", ".png"))
    drawn = sorted(np.random.default_rng(options.seed).permutation(len(paths))[: options.count].tolist())
    options.keep.mkdir(parents=True, exist_ok=True)
    rows = measured_rows(options, [paths[index] for index in drawn])
    table = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    means = {name: {"mean": float(np.nanmean(x)), "worst": float(worst(name, x))} for name, x in table.items()}
    print({name: {key: round(value, 4) for key, value in row.items()} for name, row in means.items()})
    strips = [np.asarray(Image.open(options.keep / f"{paths[index].stem}.png")) for index in drawn]
    for first in range(0, len(strips), 6):
        Image.fromarray(np.concatenate(strips[first : first + 6])).save(options.keep / f"sheet_{first // 6}.png")
    if options.save:
        drawn_names = [paths[index].name for index in drawn]
        weights = file_sha256(checkpoint_path(options.model))
        facts = {"seed": options.seed, "weights_sha256": weights, "people": len(rows), "portraits": drawn_names}
        real = identity_of_films(sorted(options.clips.glob("*.mp4")))
        facts = {**facts, "frames": options.frames, "means": means, "identity_of_films": real}
        print(save("photographs", facts))


def measured_rows(options: argparse.Namespace, drawn: list[Path]) -> list[dict[str, float]]:
    """A row for each portrait; what this commit has measured already is read."""
    started, rows = time.perf_counter(), []
    setting = {"commit": measured_now()["commit"], "model": options.model, "frames": options.frames}
    model = load_model(options.model)
    with Tracker(size=model.config.image_size) as tracker:
        animator, clips = Animator(model, tracker, framing="photo"), sorted(options.clips.glob("*.mp4"))
        motions: dict[Path, Motion] = {}
        for place, path in enumerate(drawn):
            kept, clip = options.keep / f"{path.stem}.json", clips[place % len(clips)]
            if kept.is_file() and (found := json.loads(kept.read_text()))["setting"] == setting:
                rows.append(found["row"])
                continue
            if time.perf_counter() - started > options.seconds:
                sys.exit(f"{len(rows)} of {len(drawn)} portraits measured; call again.")
            if clip not in motions:
                motions[clip] = motion_of(clip, tracker)
            row, strip = measured(animator, path, motions[clip], options.frames)
            print(path.name, {key: round(value, 3) for key, value in row.items()}, flush=True)
            Image.fromarray(strip).save(kept.with_suffix(".png"))
            kept.write_text(json.dumps({"setting": setting, "row": row}))
            rows.append(row)
    return rows


def worst(name: str, values: np.ndarray) -> float:
    """The lowest of what should be high, else the highest."""
    high = ("sharpness", "still", "identity", "unchanged", "film", "still_film")
    return np.nanmin(values) if name in high else np.nanmax(values)


def motion_of(path: Path, tracker: Tracker) -> Motion:
    """A clip's motion; the largest face drives."""
    with VideoReader(path) as reader:
        follower = Tracker(tracker.face_tracker, tracker.coefficients, choice="largest")
        return track_clip(follower, islice(reader, LONGEST), reader.fps, name=path.name)


def measured(animator: Animator, path: Path, motion: Motion, count: int) -> tuple[dict[str, float], np.ndarray]:
    """One portrait: its numbers, and a strip of pictures."""
    image = read_image(path)
    subject = animator.portrait(image, where=path.name)
    assert subject.person is not None
    own = animator.layer(subject.state, subject.camera)
    board = pasteboard(image, subject.crop, subject.person, own.opacity, landmarks=subject.landmarks)
    still = Frame(board.paste(own), opacity_of(board, own), board.changing(own))
    frames = list(driven(animator, board, motion, np.linspace(0, len(motion) - 1, count + 1).astype(int)[1:].tolist()))
    sharp = [sharpness(animator.tracker, frame.picture, board.photo, subject.crop) for frame in (still, *frames)]
    chin = float(animator.tracker.portrait(image, where=path.name).landmarks[8, 1])
    widths = [halo(frame, board, subject.crop, chin) for frame in frames]
    row = {
        "sharpness": float(np.nanmean(sharp[1:])),
        "still": sharp[0],
        "identity": identity(animator.tracker, [(f.picture, subject.crop) for f in frames], board.photo, subject.crop),
        "black": max(black(frame.picture, board.photo) for frame in frames),
        "halo": float(np.nanmean(widths)),
        "left": left(board, subject.person.own, subject.crop),
        "unchanged": float(all((f.picture == board.photo)[~f.changing].all() for f in frames)),
        **as_film(
            board, list(driven(animator, board, motion, range(len(motion) // 2, len(motion) // 2 + FILM_FRAMES)))
        ),
    }
    shown = [board.photo, *(frame.picture for frame in (still, *frames)), board.empty()]
    return row, np.concatenate([tile(picture) for picture in shown], axis=1)


def driven(animator: Animator, board: Pasteboard, motion: Motion, wanted: Sequence[int]) -> Iterator[Frame]:
    """Frames of the film."""
    lost = LostFaces("hold", name="the clip")
    moved = driven_frames(animator, MotionDriver(motion), lost, motion=TransferOptions(), rigid=False)
    for index, frame in enumerate(moved):
        if index in wanted:
            head = animator.layer(frame.state, frame.camera)
            yield Frame(board.paste(head), opacity_of(board, head), board.changing(head))


def opacity_of(board: Pasteboard, head: HeadLayer) -> np.ndarray:
    """float32 ``(H, W)`` in [0, 1]: how much this head covers of each pixel of the photograph: a white one before black."""
    white = replace(head, colours=255.0 * head.opacity.repeat(3, 1, 1))
    return board.lay(white, np.zeros_like(board.photo))[..., 0].astype(np.float32) / 255.0


def identity(tracker: Tracker, faces: list[tuple[np.ndarray, Crop]], photo: np.ndarray, crop: Crop) -> float:
    """How far the faces show the photograph's person; 1 is as far as the photograph itself, 0 is a stranger."""
    chance = np.random.default_rng(0)
    jitters = [chance.uniform(-1.0, 1.0, 4) * (SHIFT, SHIFT, SCALE, ROLL) for _ in range(JITTERS)]
    reader = DlibIdentity(TrackerBackend(tracker))
    seen = []
    for picture, place in ((photo, crop), *faces):
        crops = [place, *(jittered(place, jitter) for jitter in jitters)]
        found = reader.embeddings(np.stack([crop_image(picture, each, SIZE) for each in crops]))
        seen.append(found / np.linalg.norm(found, axis=1, keepdims=True))
    own = seen[0][0]
    return float(np.nanmean(np.stack(seen[1:])[:, 1:] @ own) / np.nanmean(seen[0][1:] @ own))


def jittered(crop: Crop, by: np.ndarray) -> Crop:
    """A crop moved aside and down by shares of its side, enlarged and turned."""
    x, y = crop.center_x + by[0] * crop.side, crop.center_y + by[1] * crop.side
    return Crop(x, y, crop.side * (1.0 + by[2]), crop.angle + by[3])


def identity_of_films(paths: list[Path]) -> float:
    """The same of real people: later frames of their films against the first; mean over the films."""
    found = []
    with Tracker(choice="largest") as tracker:
        for path in paths:
            driver = ClipDriver(path, tracker)
            faces = [(f.image, f.crop) for f in driver if f.found and f.image is not None and f.crop is not None]
            driver.close()
            later = [faces[place] for place in np.linspace(0, len(faces) - 1, FILM_FRAMES + 1).astype(int)[1:]]
            found.append(identity(tracker, later, *faces[0]))
    return float(np.mean(found))


def as_film(board: Pasteboard, frames: list[Frame]) -> dict[str, float]:
    """How near to the photograph a film and one of the photograph itself are away from both heads, after decoding."""
    away = ~binary_dilation(np.any([frame.changing for frame in frames], axis=0), iterations=NEIGHBOURHOOD_PX)
    found = {}
    for name, pictures in (("film", [f.picture for f in frames]), ("still_film", [board.photo] * len(frames))):
        differs = [np.abs(x.astype(int) - board.photo)[away] for x in decoded(pictures)]
        found[name] = float(np.mean([(x.max(axis=-1) <= 1).mean() for x in differs]))
        found[f"{name}_error"] = float(np.mean([x.mean() for x in differs]))
    return found


def decoded(pictures: list[np.ndarray]) -> list[np.ndarray]:
    """Pictures as a film's decoder gives them back."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "film.mp4"
        with VideoWriter(path, Fraction(25), pictures[0].shape[1::-1], crf=FILM_CRF) as writer:
            for picture in pictures:
                writer.write(picture)
        with VideoReader(path) as reader:
            return [frame.image for frame in reader]


def sharpness(tracker: Tracker, picture: np.ndarray, photo: np.ndarray, crop: Crop) -> float:
    """Of the face in `picture` over that of the face in `photo`; NaN where a face is not found."""
    values = []
    for image in (picture, photo):
        faces = tracker.face_tracker.detect(image)
        tracker.reset()
        if not faces:
            return float("nan")
        points = max(faces, key=lambda face: face.area_px).landmarks_px
        square = crop_transform(points, tracker.coefficients.alignment)
        size = min(round(crop.side), SIZE)
        grey = np.asarray(Image.fromarray(crop_image(image, square, size)).convert("L"), dtype=np.float32)
        inside = hull(square.to_crop(points) * size, size)[1:-1, 1:-1]
        edges = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:] - 4.0 * grey[1:-1, 1:-1]
        values.append(float(np.abs(edges)[inside].mean()))
    return values[0] / values[1]


def hull(points: np.ndarray, size: int) -> np.ndarray:
    """bool ``(size, size)``: inside the convex hull of points ``(N, 2)``, pixels."""
    drawn = Image.new("1", (size, size))
    corners = points[ConvexHull(points).vertices]
    ImageDraw.Draw(drawn).polygon([tuple(corner) for corner in corners.tolist()], fill=1)
    return np.asarray(drawn)


def black(picture: np.ndarray, photo: np.ndarray) -> float:
    """Share of a picture that is black and not near anything black in the photograph."""
    near = binary_dilation(photo.max(axis=-1) <= 2 * BLACK, iterations=max(len(photo) // 40, 1))
    return float(((picture.max(axis=-1) <= BLACK) & ~near).mean())


def left(board: Pasteboard, own: np.ndarray, crop: Crop) -> float:
    """Share of the old head that stays."""
    own = own[: len(board.photo), : board.photo.shape[1]]
    places = places_in(crop, board)
    inside = ((places > 0.05) & (places < 0.95)).all(axis=-1) & (places[..., 1] < 0.5)
    hole = np.zeros(board.photo.shape[:2], dtype=bool)
    hole[board.rows, board.columns] = board.hole.numpy()
    return float((~hole)[inside & (own > 0.5)].mean())


def places_in(crop: Crop, board: Pasteboard) -> np.ndarray:
    """``(H, W, 2)``: where the photograph's pixels lie in the crop."""
    y, x = np.mgrid[: board.photo.shape[0], : board.photo.shape[1]] + 0.5
    return crop.to_crop(np.stack([x, y], axis=-1))


def halo(frame: Frame, board: Pasteboard, crop: Crop, chin: float) -> float:
    """Width of what differs from what is behind outside the head, pixels of a crop of 512, mean over sectors."""
    places = places_in(crop, board)
    inside = ((places > 0.05) & (places < 0.95)).all(axis=-1) & (places[..., 1] < chin)
    away = distance_transform_edt(frame.opacity < 0.5) * SIZE / crop.side
    ring = inside & (away > 0.0) & (away <= 24.0)
    differs = np.abs(frame.picture - board.empty().astype(float)).max(axis=-1) > DIFFERS
    sector = ((np.arctan2(places[..., 1] - 0.45, places[..., 0] - 0.5) / (2 * np.pi) + 0.5) * SECTORS).astype(int)
    widths = []
    for number in range(SECTORS):
        here = ring & (sector == number)
        if here.sum() < 50:
            continue
        steps = [differs[here & (away > d) & (away <= d + 2.0)] for d in range(0, 24, 2)]
        shares = [float(step.mean()) if step.size else 0.0 for step in steps]
        widths.append(2.0 * sum(np.minimum.accumulate(shares)))  # what lies farther off, after a gap, is no rim
    return float(np.mean(widths)) if widths else float("nan")


def tile(picture: np.ndarray, side: int = 320) -> np.ndarray:
    """As a square of the sheet."""
    return np.asarray(Image.fromarray(picture).resize((side, side), Image.Resampling.LANCZOS))


if __name__ == "__main__":
    main()
