"""How well the tracker finds and reads faces: share found, stillness, roll, cameras and gaze of rendered people, cost.

    python benchmarks/tracking.py --media FOLDER --data val256 --save

FOLDER holds `portraits/*.jpg` (one face each) and `clips/*.mp4`; --data is a folder of rendered clips with exact truth.
Cost is processor time of one core; on a busy machine compare it with the bare landmarker's beside it.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from export3d.camera import Camera
from export3d.data import ClipDataset
from export3d.fitting.detections import Detections
from export3d.fitting.head_fit import measure_poses
from export3d.heads.clips.motion import weights_to_gaze
from export3d.tracking import Crop, Tracker, crop_transform
from export3d.tracking.faces import BLENDSHAPE_NAMES, Face
from export3d.tracking.head_fit import HeadFit, HeadPose
from export3d.tracking.mediapipe_tracker import MediaPipeTracker
from export3d.tracking.regressor import LandmarkRegressor, mesh_in_crop
from export3d.tracking.shots import ShotDetector
from export3d.video import VideoReader
from material import face_photo, save

TILTS = (10, 20, 30, 45, 90, 135, 180, 270)
SIDE = 512


def main() -> None:
    """Measure what the options allow, print, save on request."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--media", type=Path, help="folder with portraits/*.jpg and clips/*.mp4")
    parser.add_argument("--data", type=Path, help="folder of rendered clips")
    parser.add_argument("--tilted", type=int, default=40, help="how many portraits are tilted too")
    parser.add_argument(
        "--every", type=int, default=5, help="take every so many frames of the clips for the share found"
    )
    parser.add_argument("--save", action="store_true", help="write results/tracking.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    results: dict[str, Any] = {"seed": 0, "landmarker": None}
    faces = MediaPipeTracker()
    with Tracker(faces, choice="largest") as tracker:
        results["landmarker"] = {"mediapipe": faces.info.version, "sha256": faces.info.sha256}
        results["cost_ms_per_frame"] = cost(faces, tracker)
        results["still"] = stillness(tracker)
        results["roll_deg"] = rolls(tracker, face_photo())
        if options.media:
            results["found"] = found(faces, tracker, options)
        if options.data:
            results |= rendered(faces, ClipDataset(options.data))
    for name, value in results.items():
        print(name, value)
    if options.save:
        save("tracking", results)


def cost(faces: MediaPipeTracker, tracker: Tracker, frames: int = 200) -> dict[str, float]:
    """Processor milliseconds per frame of 512 pixels: all of it, and its parts, in turns."""
    photo = np.asarray(Image.fromarray(face_photo()).resize((SIDE, SIDE)))
    moving = [np.ascontiguousarray(np.roll(photo, step % 7, axis=1)) for step in range(14)]
    tracker.reset()
    tracker.frame(photo)
    (face,) = faces.detect(photo)
    crop = crop_transform(face.landmarks_px, tracker.coefficients.alignment)
    mesh, shots, regressor = mesh_in_crop(face.mesh, crop), ShotDetector(), LandmarkRegressor.load()  # type: ignore[arg-type]
    steps: dict[str, Callable[[np.ndarray], Any]] = {
        "whole": tracker.frame,
        "landmarker, scores and matrix": lambda frame: faces.detect(frame, face),
        "camera": lambda frame: HeadFit.load().fit(mesh),
        "expression": lambda frame: regressor.coefficients_of_meshes(mesh[None]),
        "cuts": shots.is_cut,
    }
    spent = dict.fromkeys(steps, 0.0)
    for number in range(frames):
        for name, step in steps.items():
            if name != "whole":
                started = time.process_time()
                step(moving[number % len(moving)])
                spent[name] += time.process_time() - started
    for number in range(frames):  # by itself: the landmarker goes from frame to frame
        started = time.process_time()
        steps["whole"](moving[number % len(moving)])
        spent["whole"] += time.process_time() - started
    return {name: round(1000.0 * seconds / frames, 2) for name, seconds in spent.items()}


def stillness(tracker: Tracker, frames: int = 60, noise: float = 4.0) -> dict[str, float]:
    """Mean change from frame to frame of a photo that is repeated with noise of so many levels."""
    rng = np.random.default_rng(0)
    photo = np.asarray(Image.fromarray(face_photo()).resize((SIDE, SIDE)), dtype=np.float64)
    tracker.reset()
    seen = []
    for _ in range(frames):
        picture = np.clip(photo + rng.normal(size=photo.shape) * noise, 0, 255).astype(np.uint8)
        seen.append(tracker.frame(picture))
    points = np.stack([frame.crop.from_crop(frame.landmarks) for frame in seen if frame.crop])[5:]
    cameras = Camera.from_vector(torch.from_numpy(np.stack([frame.camera for frame in seen])))
    angles = np.degrees(cameras.head_angles().numpy())[5:]
    beta = np.stack([frame.beta for frame in seen])[5:]
    return {
        "points_px": round(float(np.linalg.norm(np.diff(points, axis=0), axis=-1).mean()), 4),
        "angles_deg": round(float(np.abs(np.diff(angles, axis=0)).mean()), 4),
        "beta": round(float(np.abs(np.diff(beta, axis=0)).mean()), 4),
    }


def rolls(tracker: Tracker, photo: np.ndarray) -> dict[str, float]:
    """Roll of the camera against that of the upright photo, degrees, for each tilt of the photo."""

    def roll(degrees: float) -> float:
        tracker.reset()
        frame = tracker.frame(tilted(photo, degrees))
        if not frame.found:
            return float("nan")
        rotation = HeadPose.of_camera(frame.camera).rotation
        return float(np.degrees(np.arctan2(rotation[1, 0], rotation[0, 0])))

    return {str(tilt): round((roll(tilt) - roll(0)) % 360.0, 2) for tilt in TILTS}


def tilted(photo: np.ndarray, degrees: float) -> np.ndarray:
    """The photo turned clockwise; corners are black."""
    return np.asarray(Image.fromarray(photo).rotate(-degrees, Image.Resampling.BICUBIC))


def found(faces: MediaPipeTracker, tracker: Tracker, options: argparse.Namespace) -> dict[str, Any]:
    """Shares of portraits, of tilted portraits (with the roll right to 15 degrees) and of frames of clips with a face."""
    photos = [np.asarray(Image.open(path).convert("RGB")) for path in sorted(options.media.glob("portraits/*.jpg"))]
    upright = [first(faces, photo) for photo in photos]
    shares: dict[str, Any] = {"portraits": len(photos), "upright": share([face is not None for face in upright])}
    for tilt in (45, 90, 180):
        right = []
        for photo, level in list(zip(photos, upright, strict=True))[: options.tilted]:
            face = first(faces, tilted(photo, tilt))
            away = None if face is None or level is None else np.degrees(face.roll - level.roll) - tilt
            right.append(away is not None and abs((away + 180.0) % 360.0 - 180.0) < 15.0)
        shares[f"tilted by {tilt}"] = share(right)
    for path in sorted(options.media.glob("clips/*.mp4")):
        tracker.reset()
        with VideoReader(path) as reader:
            shares[path.stem] = share(
                [tracker.frame(frame.image).found for frame in reader if frame.index % options.every == 0]
            )
    return shares


def first(faces: MediaPipeTracker, photo: np.ndarray) -> Face | None:
    """The largest face of a picture."""
    faces.reset()
    return max(faces.detect(photo), key=lambda face: face.area_px, default=None)


def share(values: list[bool]) -> float | None:
    """Share of true ones; None where there are none at all."""
    return round(float(np.mean(values)), 4) if values else None


def rendered(faces: MediaPipeTracker, dataset: ClipDataset) -> dict[str, Any]:
    """Cameras in the whole frame and gaze against the truth, each frame looked at anew."""
    regressor = LandmarkRegressor.load()
    poses: dict[str, list[HeadPose]] = {"crop as if it were the frame": [], "network": [], "head fit": []}
    truth: dict[str, list[np.ndarray]] = {name: [] for name in ("camera", "weights")}
    clips, scores, whole = [], [], Crop(0.5, 0.5, 1.0)
    for index in range(len(dataset)):
        arrays = dataset.arrays(index)
        for time_index in range(dataset.num_frames(index)):
            image = dataset.frame(index, time_index)
            face = first(faces, image)
            if face is None or face.mesh is None or face.blendshapes is None:
                continue
            crop = crop_transform(face.landmarks_px, regressor.alignment)
            side = float(image.shape[1])
            unit = Crop(crop.center_x / side, crop.center_y / side, crop.side / side)
            mesh = mesh_in_crop(face.mesh, crop)
            network = HeadPose.of_camera(regressor.coefficients_of_meshes(mesh[None])[1][0])
            poses["crop as if it were the frame"].append(network)
            poses["network"].append(network.seen_in(unit, whole))
            poses["head fit"].append(HeadFit.load().fit(mesh).seen_in(unit, whole))
            for name, rows in truth.items():
                rows.append(arrays[name][time_index])
            scores.append(face.blendshapes)
            clips.append(index)
    seen = _detections(truth, np.array(clips))
    return {
        "rendered": {
            "people": len(dataset),
            "frames": sum(map(dataset.num_frames, range(len(dataset)))),
            "read": len(clips),
        },
        "cameras": {name: measure_poses(found, seen, HeadFit.load()) for name, found in poses.items()},
        "gaze_by_scores": gaze_by_scores(np.stack(scores), weights_to_gaze(seen.true_weights)),
    }


def _detections(truth: dict[str, list[np.ndarray]], clip: np.ndarray) -> Detections:
    """The truth as `measure_poses` takes it."""
    count = len(clip)
    return Detections(
        found_landmarks=np.zeros((count, 68, 2), np.float32),
        mesh=np.zeros((0, 478, 3), np.float32),
        scores=np.zeros((0, 52), np.float32),
        true_landmarks=np.zeros((count, 68, 2), np.float32),
        true_camera=np.stack(truth["camera"]),
        true_beta=np.zeros((count, 64), np.float32),
        true_weights=np.stack(truth["weights"]),
        asked_yaw=np.zeros(count, np.float32),
        found=np.ones(count, bool),
        clip=clip,
    )


def gaze_by_scores(scores: np.ndarray, gaze: np.ndarray) -> dict[str, dict[str, float]]:
    """Correlation and slope (per weight of 0.5 rad) of the eyeLook scores on the true gaze ``(N, 2)`` in radians."""
    by = {name: scores[:, index] for index, name in enumerate(BLENDSHAPE_NAMES)}
    told = {
        "sideways": (by["eyeLookOutLeft"] - by["eyeLookInLeft"] + by["eyeLookInRight"] - by["eyeLookOutRight"]) / 2.0,
        "up and down": (by["eyeLookUpLeft"] + by["eyeLookUpRight"] - by["eyeLookDownLeft"] - by["eyeLookDownRight"])
        / 2.0,
    }
    rows = {}
    for axis, (name, value) in enumerate(told.items()):
        true = gaze[:, axis]
        slope = np.polyfit(true, value, 1)[0]
        rows[name] = {
            "correlation": round(float(np.corrcoef(true, value)[0, 1]), 4),
            "per_radian": round(float(slope), 4),
        }
    return rows


if __name__ == "__main__":
    main()
