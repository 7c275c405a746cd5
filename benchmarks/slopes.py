"""How much of what a real clip does reaches a portrait: correlation and slope over time, read again from the result.

    python benchmarks/slopes.py --media FOLDER --portraits 30 --save

FOLDER holds `portraits/*.jpg` (one face each) and `clips/*.mp4`. Each clip is tracked whole and drives each portrait as
`export3d animate --framing face` does; every second frame is rendered. Driver and result are read by the Face Landmarker, each
frame anew. Correlation over the frames of a pair, and slope (movement of the result per movement of the driver), medians over
the pairs whose driver moves: `measures` by `LEAST_SPREAD`, `clear` those whose spread is also at least three times the noise of
the reading (the second differences of the driver's own), so that what is compared is movement and not noise. `perfect` are
those of the driver itself in place of the result: its film cut to one square of `DETAIL` pixels and read again.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from export3d.animation import Animator, TransferOptions
from export3d.animation.drivers import ClipDriver, DrivingFrame
from export3d.animation.framing import facing, turned_by
from export3d.animation.transfer import AHEAD, transfer
from export3d.camera import Camera
from export3d.files import file_sha256
from export3d.portrait import load_model
from export3d.portrait.loading import checkpoint_path
from export3d.tracking import Crop, Tracker, crop_image, crop_transform
from export3d.tracking.faces import BLENDSHAPE_NAMES
from export3d.tracking.mouth import facing_front
from export3d.tracking.regressor import LandmarkRegressor
from face_shapes import EYE_IMAGE_LEFT, EYE_IMAGE_RIGHT, measures
from material import save

IRIS_IMAGE_LEFT, IRIS_IMAGE_RIGHT = 468, 473
MOUTH_CORNERS = (61, 291)
DETAIL, SIDE = (
    512,
    256,
)  # px of a result at most, as `export3d animate` makes it, and at least as the landmarker is shown it

LEAST_SPREAD = {"yaw": 2.0, "pitch": 2.0, "roll": 2.0}
"""Standard deviation from which a driver moves, degrees; others, in widths of an eye or as scores:"""
LEAST_SPREAD_ELSE = 0.04

CLEAR = 3.0
"""Times the noise of its reading by which a driver clearly moves."""

SCORES = {
    "blink score": ("eyeBlinkLeft", "eyeBlinkRight"),
    "jaw score": ("jawOpen",),
    "smile score": ("mouthSmileLeft", "mouthSmileRight"),
    "pucker score": ("mouthPucker",),
    "brow score": ("browInnerUp", "browOuterUpLeft", "browOuterUpRight"),
}


@dataclass(frozen=True, kw_only=True)
class Clip:
    """A driver: its frames, which of them are rendered, what is read of those and of their square cut out, and the noise of
    each measure's reading."""

    name: str
    frames: list[DrivingFrame]
    every: int
    read: dict[str, np.ndarray]
    again: dict[str, np.ndarray]
    noise: dict[str, float]


Pair = tuple[Clip, dict[str, np.ndarray], dict[str, np.ndarray]]
"""A clip, and the measures ``(T,)`` of the driver and of the result."""


def main() -> None:
    """Measure, print, save on request."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--media", type=Path, required=True, help="folder with portraits/*.jpg and clips/*.mp4")
    parser.add_argument("--portraits", type=int, default=30, help="how many portraits, evenly over the folder")
    parser.add_argument("--clips", nargs="*", default=None, help="names of the clips; all when left out")
    parser.add_argument("--every", type=int, default=2, help="of so many frames one is rendered")
    parser.add_argument("--model", default=None, help="bundled name or file; the bundled model when left out")
    parser.add_argument("--save", action="store_true", help="write results/slopes.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    model = load_model(options.model)
    photos = sorted(options.media.glob("portraits/*.jpg"))
    photos = photos[:: max(1, len(photos) // options.portraits)][: options.portraits]
    with Tracker(choice="largest", size=model.config.image_size) as tracker:
        animator = Animator(model, tracker, detail=DETAIL)
        films = [
            path for path in sorted(options.media.glob("clips/*.mp4")) if path.stem in (options.clips or [path.stem])
        ]
        clips = [read_clip(path, tracker, options.every) for path in films]
        pairs = [pair for photo in photos for pair in drive(animator, photo, clips)]
    rows, clear = ({name: summary(name, pairs, times) for name in clips[0].read} for times in (0.0, CLEAR))
    themselves = [(clip, clip.read, clip.again) for clip in clips]
    perfect = {name: summary(name, themselves, CLEAR) for name in clips[0].read}
    faces = np.concatenate([np.isfinite(result["yaw"]) for _, _, result in pairs])
    found = float(faces.mean())
    print(f"{len(photos)} portraits, {len(clips)} clips, a face in {found:.4f} of the frames")
    for name in rows:
        shown = (" ".join(f"{k} {v}" for k, v in row[name].items()).ljust(60) for row in (rows, clear, perfect))
        print(f"{name:14s}", *shown)
    if options.save:
        path = checkpoint_path(options.model)
        facts = {
            "seed": 0,
            "model": path.name,
            "weights_sha256": file_sha256(path),
            "portraits": len(photos),
            "clips": len(clips),
            "frames": len(faces),
        }
        print(save("slopes", {**facts, "found": round(found, 4), "measures": rows, "clear": clear, "perfect": perfect}))


def read_clip(path: Path, tracker: Tracker, every: int) -> Clip:
    """Track a clip and read it frame by frame."""
    driver = ClipDriver(path, tracker)
    frames = list(driver)
    driver.close()
    read = read_all([frame.image for frame in frames], tracker, [frame.crop for frame in frames])
    square = next(frame.crop for frame in frames if frame.crop is not None)
    cut = [crop_image(frame.image, square, DETAIL) for frame in frames[::every] if frame.image is not None]
    return Clip(
        name=path.stem,
        frames=[replace(frame, image=None) for frame in frames],
        every=every,
        read={name: values[::every] for name, values in read.items()},
        again=read_squares(cut, tracker),
        noise={name: noise(values) for name, values in read.items()},
    )


def noise(values: np.ndarray) -> float:
    """Standard deviation of the noise in a series ``(T,)``, from the median of its second differences; NaN when too short."""
    second = values[2:] - 2.0 * values[1:-1] + values[:-2]
    second = np.abs(second[np.isfinite(second)])
    return float(np.median(second) * 1.4826 / np.sqrt(6.0)) if len(second) else float("nan")


def drive(animator: Animator, photo: Path, clips: list[Clip]) -> list[Pair]:
    """Each clip, and the measures of the driver and of the result of one portrait with it."""
    subject = animator.portrait(photo)
    pairs = []
    for clip in clips:
        own = {"own": subject.state, "camera": subject.camera, "maps": animator.weight_maps, "ahead": AHEAD}
        moved = facing(transfer(clip.frames, TransferOptions(), **own, time_base=Fraction(1, 1000)), subject.camera)
        images = [
            enlarged(animator.frame(turned_by(frame.state, frame.camera), frame.camera))
            for frame in islice(moved, 0, None, clip.every)
        ]
        pairs.append((clip, clip.read, read_squares(images, animator.tracker)))
    return pairs


def enlarged(image: np.ndarray) -> np.ndarray:
    """A result as the landmarker is shown it."""
    if image.shape[0] >= SIDE:
        return image
    return np.asarray(Image.fromarray(image).resize((SIDE, SIDE), Image.Resampling.BICUBIC))


def read_squares(images: list[np.ndarray], tracker: Tracker) -> dict[str, np.ndarray]:
    """As `read_all`, of the face in the middle of squares of one size."""
    side = images[0].shape[0]
    return read_all(images, tracker, [Crop(side / 2, side / 2, side)] * len(images))


def read_all(images: list[Any], tracker: Tracker, crops: list[Crop | None]) -> dict[str, np.ndarray]:
    """Every measure ``(T,)`` of the faces in the middle of the crops, each picture looked at anew; NaN without a face."""
    rows = [{} if crop is None else read_one(image, tracker, crop) for image, crop in zip(images, crops, strict=True)]
    names = next(row for row in rows if row)
    return {name: np.array([row.get(name, np.nan) for row in rows]) for name in names}


def read_one(image: np.ndarray, tracker: Tracker, crop: Crop) -> dict[str, float]:
    """The measures of one face: pose in degrees, shapes in widths of an eye, scores; empty without a face."""
    tracker.reset()
    faces = tracker.face_tracker.detect(image)
    middle = np.array([crop.center_x, crop.center_y])
    face = min(faces, key=lambda found: float(np.linalg.norm(found.landmarks_px.mean(axis=0) - middle)), default=None)
    if face is None:
        return {}
    assert isinstance(tracker.coefficients, LandmarkRegressor)
    own = crop_transform(face.landmarks_px, tracker.coefficients.alignment)
    _, camera = tracker.coefficients.observe(image, face, own)
    assert face.mesh is not None and face.blendshapes is not None
    angles = np.degrees(Camera.from_vector(torch.from_numpy(camera[None])).head_angles()[0].numpy())
    turned = facing_front(face.mesh[None])[0]
    opening, brows, gap = measures(face.mesh)
    widths, gaze = [], []
    for eye, iris in ((EYE_IMAGE_LEFT, IRIS_IMAGE_LEFT), (EYE_IMAGE_RIGHT, IRIS_IMAGE_RIGHT)):
        corners = turned[[eye[0], eye[8]], 0]
        widths.append(abs(corners[0] - corners[1]))
        gaze.append((turned[iris, 0] - corners.mean()) / widths[-1])
    mouth = np.linalg.norm(turned[MOUTH_CORNERS[0], :2] - turned[MOUTH_CORNERS[1], :2]) / np.mean(widths)
    named = dict(zip(BLENDSHAPE_NAMES, face.blendshapes, strict=True))
    return {
        **dict(zip(("yaw", "pitch", "roll"), angles.tolist(), strict=True)),
        "gaze sideways": float(np.mean(gaze)),
        "eye opening": float(opening),
        "brow height": float(brows),
        "mouth opening": float(gap),
        "mouth width": float(mouth),
        **{name: float(np.mean([named[part] for part in parts])) for name, parts in SCORES.items()},
    }


def summary(name: str, pairs: list[Pair], times: float) -> dict[str, float | int | None]:
    """Medians of correlation and slope of one measure over the pairs whose driver moves, and by at least so many times the
    noise of its reading; of poses also the mean error after each pair's own offset."""
    correlations, slopes, errors = [], [], []
    for clip, driver, result in pairs:
        known = np.isfinite(driver[name]) & np.isfinite(result[name])
        least = max(LEAST_SPREAD.get(name, LEAST_SPREAD_ELSE), times * clip.noise[name])
        if known.sum() < 5 or driver[name][known].std() < least:
            continue
        asked, shown = (values[name][known] - values[name][known].mean() for values in (driver, result))
        correlations.append(float((asked * shown).sum() / max(np.linalg.norm(asked) * np.linalg.norm(shown), 1e-9)))
        slopes.append(float((asked * shown).sum() / (asked * asked).sum()))
        errors.append(float(np.abs(shown - asked).mean()))
    if not slopes:
        return {"pairs": 0}
    row: dict[str, float | int | None] = {
        "correlation": round(float(np.median(correlations)), 3),
        "slope": round(float(np.median(slopes)), 3),
        "pairs": len(slopes),
    }
    return {**row, "error": round(float(np.mean(errors)), 3)} if name in LEAST_SPREAD else row


if __name__ == "__main__":
    main()
