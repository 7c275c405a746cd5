"""How still and how faithfully a film turns: drivers made of a photograph, driven through the command line.

    python benchmarks/steadiness.py --save

Driver 1 is a photograph that stands still under noise: the mean change of the result from frame to frame, in levels of 255.
Driver 2 is the same photograph turned about the face by 90 degrees, step by step: how far the result's face turns, as
the Face Landmarker reads it. Driver 3 turns to and fro: by how many frames the result lags behind, at the best correlation.
Portraits are the bundled ones, the photograph itself, and further files that are named.
"""

from __future__ import annotations

import argparse
import tempfile
from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image

from export3d.cli import main as export3d
from export3d.files import file_sha256
from export3d.portrait.loading import checkpoint_path
from export3d.tracking.mediapipe_tracker import MediaPipeTracker
from export3d.video import VideoReader, VideoWriter
from material import face_photo, save, write_photo

SAMPLES = Path(__file__).parents[1] / "src" / "export3d" / "assets" / "samples"
FPS = Fraction(25)
STILL_FRAMES, TURN_FRAMES, SWING_FRAMES = 30, 46, 75
FACE = (226, 120)  # its place in the photograph, px: the pictures turn about it
NOISE = 4.0  # levels, standard deviation
SWING_DEG, SWING_PERIOD = 15.0, 25  # frames
SEEN_PX = 384  # side of what the landmarker sees
SETTLED = 5  # first frames that are left out


def main() -> None:
    """Measure, print, save on request."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--portraits", type=Path, nargs="*", default=[], help="further portraits")
    parser.add_argument("--save", action="store_true", help="write results/steadiness.json")
    options = parser.parse_args()
    rows: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        swing = SWING_DEG * np.sin(np.arange(SWING_FRAMES) * 2.0 * np.pi / SWING_PERIOD)
        turns = np.concatenate([np.linspace(0.0, 90.0, TURN_FRAMES - 10), np.full(10, 90.0)])
        still = write(work / "still.mp4", np.zeros(STILL_FRAMES), noise=NOISE)
        turning, swinging = write(work / "turning.mp4", turns), write(work / "swinging.mp4", swing)
        portraits = [*sorted(SAMPLES.glob("portrait_*.png")), write_photo(work / "photograph.png"), *options.portraits]
        for portrait in portraits:
            film = animated(portrait, still, work)[SETTLED:]
            start, *_, end = rolls(animated(portrait, turning, work)[[0, -1]])
            lag = lag_of(rolls(animated(portrait, swinging, work)), rolls(frames_of(swinging)))
            rows[portrait.stem] = {
                "levels per frame": round(float(np.abs(np.diff(film.astype(np.float32), axis=0)).mean()), 3),
                "turned by": round((end - start) % 360.0, 2),
                "lag in frames": lag,
            }
            print(portrait.stem, rows[portrait.stem], flush=True)
    if options.save:
        model = {"model": checkpoint_path(None).name, "weights_sha256": file_sha256(checkpoint_path(None))}
        settings = {"seed": 0, **model, "noise_levels": NOISE, "swing_degrees": SWING_DEG, "swing_frames": SWING_PERIOD}
        print(save("steadiness", {**settings, "portraits": rows}))


def write(path: Path, angles: np.ndarray, *, noise: float = 0.0) -> Path:
    """The photograph, turned clockwise about its face by these degrees, frame by frame; its border is repeated."""
    rng = np.random.default_rng(0)
    photo = face_photo()
    side, margin = photo.shape[0], photo.shape[0] // 4
    wide = Image.fromarray(np.pad(photo, ((margin, margin), (margin, margin), (0, 0)), mode="edge"))
    with VideoWriter(path, FPS, (side, side)) as writer:
        for angle in angles:
            frame = np.asarray(
                wide.rotate(-angle, Image.Resampling.BICUBIC, center=(margin + FACE[0], margin + FACE[1])),
                dtype=np.float32,
            )
            frame = frame[margin : margin + side, margin : margin + side]
            frame = frame + noise * rng.normal(size=frame.shape)
            writer.write(np.ascontiguousarray(np.clip(frame, 0, 255).astype(np.uint8)))
    return path


def animated(portrait: Path, driver: Path, work: Path) -> np.ndarray:
    """The frames of the film that the command makes, uint8 ``(T, H, W, 3)``."""
    made = work / "made.mp4"
    command = ["animate", "--source", portrait, "--driving", driver, "-o", made, "--framing", "face"]
    if code := export3d([str(part) for part in command]):
        raise SystemExit(code)
    return frames_of(made)


def frames_of(path: Path) -> np.ndarray:
    """All frames of a film, uint8 ``(T, H, W, 3)``."""
    with VideoReader(path) as reader:
        return np.stack([frame.image for frame in reader])


def rolls(frames: np.ndarray) -> np.ndarray:
    """Roll ``(T,)`` of the face in each frame, looked at anew, degrees; NaN where none is found."""
    tracker = MediaPipeTracker()
    told = []
    for frame in frames:
        tracker.reset()
        large = np.asarray(Image.fromarray(frame).resize((SEEN_PX, SEEN_PX), Image.Resampling.BICUBIC))
        face = max(tracker.detect(large), key=lambda found: found.area_px, default=None)
        told.append(np.nan if face is None else face.roll)
    tracker.close()
    return np.degrees(np.array(told))


def lag_of(result: np.ndarray, driver: np.ndarray) -> float:
    """Frames by which one swing follows the other, to a tenth: their phase at the period of the swing."""
    wave = np.exp(-2j * np.pi * np.arange(SWING_FRAMES) / SWING_PERIOD)
    phase = np.angle((driver * wave).sum()) - np.angle((result * wave).sum())
    return round(float(np.angle(np.exp(1j * phase)) * SWING_PERIOD / (2.0 * np.pi)), 1)


if __name__ == "__main__":
    main()
