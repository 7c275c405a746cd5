"""Which invisible mark survives what: the program's own one against rivaGan's, on videos of different people.

    python benchmarks/watermark.py --videos FOLDER --unmarked FOLDER ... --rivagan FOLDER --work FOLDER --save

FOLDER holds unmarked videos, made with `export3d animate ... --no-mark --crf 0` or written from rendered clips. rivaGan's
folder holds rivagan_encoder.onnx and rivagan_decoder.onnx of the wheel `invisible-watermark` (onnxruntime runs them; neither is
a dependency). Each video is marked, written as the program writes videos (CRF 18), attacked, written again and read again.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from attacks import ATTACKS, BEYOND, Frames
from export3d.images import read_image
from export3d.provenance.detect import MarkDetector, all_scales, match, score_threshold, spectrum
from export3d.provenance.mark import Marker
from export3d.provenance.waves import GRID, PLACES, PROJECT, places_of
from export3d.video import VideoReader, VideoWriter
from material import save

FRAMES = 75
FPS = 25
RIVAGAN_EVERY = 25  # its encoder takes some tenths of a second for a frame
VIDEOS_RIVAGAN = 24


Reading = tuple[bool, float, float]
"""Whether the payload was recovered, the share of right bits before correction, the score (0: none)."""


class Own:
    """The program's mark."""

    name = "own"

    def mark(self, frames: Frames, draw: np.random.Generator) -> Frames:
        self.payload = PROJECT << 24 | int(draw.integers(2**24))
        marker = Marker(self.payload)
        return [marker(frame) for frame in frames]

    def read(self, frames: Frames, scale: float) -> Reading:
        """As `export3d verify` reads, from at most 16 frames; the bits before correction at the true size."""
        detector = MarkDetector()
        for frame in frames[:: max(1, len(frames) // 16)]:
            detector.add(frame)
        found = detector.read()
        right = found is not None and found.payload == self.payload
        values = detector._sum[:, ::-1] if found is not None and found.mirrored else detector._sum
        bits = self._raw_bits(values, found.scale if found is not None else scale)
        return right, bits, found.score if found is not None else 0.0

    def _raw_bits(self, values: np.ndarray, scale: float) -> float:
        best = match(spectrum(values, scale)).fits.argmax(axis=1)
        places = np.stack([best // PLACES, best % PLACES], axis=1)
        got, true = (places[1:] - places[0]) % PLACES, places_of(self.payload) // GRID
        different = got ^ true
        return 1.0 - sum(int(v).bit_count() for v in different.ravel()) / 48


class RivaGan:
    """rivaGan's network on every 25th frame; the reader is told which, its best case."""

    name = "rivagan"

    def __init__(self, folder: Path) -> None:
        import onnxruntime

        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = 1
        parts = (str(folder / f"rivagan_{part}.onnx") for part in ("encoder", "decoder"))
        self.encoder, self.decoder = (onnxruntime.InferenceSession(part, settings) for part in parts)

    def mark(self, frames: Frames, draw: np.random.Generator) -> Frames:
        self.bits = draw.integers(0, 2, 32).astype(np.float32)
        return [self._marked(f) if index % RIVAGAN_EVERY == 0 else f for index, f in enumerate(frames)]

    def _marked(self, frame: np.ndarray) -> np.ndarray:
        out = self.encoder.run(None, {"frame": self._input(frame), "data": self.bits[None]})[0]
        return np.round((np.clip(out[0, :, 0].transpose(1, 2, 0), -1, 1) + 1) * 127.5).astype(np.uint8)

    def read(self, frames: Frames, scale: float) -> Reading:
        said = [self.decoder.run(None, {"frame": self._input(f)})[0][0] for f in frames[::RIVAGAN_EVERY]]
        right = float(np.mean((np.mean(said, axis=0) > 0.52) == (self.bits > 0.5)))
        return right == 1.0, right, 0.0

    @staticmethod
    def _input(frame: np.ndarray) -> np.ndarray:
        return (frame.transpose(2, 0, 1)[None, :, None] / 127.5 - 1.0).astype(np.float32)


def written(frames: Frames, path: Path, crf: int, preset: str) -> Frames:
    height, width = frames[0].shape[:2]
    with VideoWriter(path, FPS, (width, height), crf=crf, preset=preset) as writer:
        for frame in frames:
            writer.write(frame)
    with VideoReader(path) as reader:
        return [frame.image for frame in reader]


def try_video(candidate: Any, frames: Frames, draw: np.random.Generator) -> dict[str, Any]:
    """Mark one video with a payload that is drawn, attack it in every way, read it again."""
    from skimage.metrics import structural_similarity

    marked = candidate.mark(frames, draw)
    shown = list(range(0, len(frames), RIVAGAN_EVERY))  # the frames that both candidates change
    error = np.mean([np.mean((frames[i].astype(float) - marked[i]) ** 2) for i in shown])
    alike = [structural_similarity(frames[i], marked[i], channel_axis=2) for i in shown[::3]]
    record: dict[str, Any] = {
        "psnr_db": float(10 * np.log10(255**2 / error)),
        "ssim": float(np.mean(alike)),
        "attacks": {},
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "video.mp4"
        own = written(marked, path, 18, "superfast")
        for name, (change, crf) in ATTACKS.items():
            if name in BEYOND and candidate.name != "own":
                continue
            attacked = change(own)
            if crf is not None:
                attacked = written(attacked, path, crf, "medium")
            scale = 0.5 if "kept at half" in name else 1.0
            scale *= 1 / 0.9 if "crop" in name else 1.0
            record["attacks"][name] = candidate.read(attacked, scale)
    return record


def unmarked_frames(places: list[Path]) -> Iterator[np.ndarray]:
    """Every frame of videos, pictures and data sets."""
    from export3d.data import ClipDataset

    for place in places:
        if (place / "manifest.json").is_file():
            data = ClipDataset(place)
            yield from (data.frame(i, t) for i in range(len(data)) for t in range(data.num_frames(i)))
            continue
        for path in sorted(place.iterdir()):
            if path.suffix in (".mp4", ".mov"):
                with VideoReader(path) as reader:
                    yield from (frame.image for frame in reader)
            elif path.suffix in (".jpg", ".png"):
                yield read_image(path)


def false_alarms(places: list[Path], videos: list[Path], wanted: int) -> dict[str, Any]:
    """Highest scores of unmarked frames, each at its own size, and of unmarked videos, at every size."""
    highest, count = 0.0, 0
    for frame in unmarked_frames(places):
        detector = MarkDetector()
        detector.add(frame)
        found = detector.best_unscaled()
        highest, count = max(highest, found), count + 1
        if count == wanted:
            break
    alarms, seconds = 0, []
    for path in videos:
        detector = MarkDetector()
        for frame in read_frames(path)[::5]:
            detector.add(frame)
        started = time.process_time()
        alarms += detector.read() is not None
        seconds.append(time.process_time() - started)
    return {
        "threshold": round(score_threshold(), 3),
        "risk_per_video": "1e-6 by calculation (src/export3d/provenance/detect.py)",
        "frames_at_their_own_size": count,
        "highest_score_of_a_frame": round(highest, 3),
        "videos_at_every_size": len(videos),
        "sizes_tried": 2 * len(all_scales()),
        "alarms": alarms + int(highest >= score_threshold()),
        "search_cpu_s": round(statistics.median(seconds), 2),
    }


def cost_ms(candidate: Any, frame: np.ndarray, repeats: int) -> float:
    """Smallest wall-clock time for one frame of one thread: what is left when nobody else uses the core."""
    candidate.mark([frame], np.random.default_rng(0))
    times = []
    marker = Marker(candidate.payload) if isinstance(candidate, Own) else candidate._marked
    marker(frame)
    for _ in range(repeats):
        started = time.perf_counter()
        marker(frame)
        times.append(1000 * (time.perf_counter() - started))
    return round(min(times), 2)


def read_frames(path: Path) -> Frames:
    with VideoReader(path) as reader:
        return [frame.image for frame in islice(reader, FRAMES)]


def measure(candidate: Any, videos: list[Path], work: Path, seed: int) -> dict[str, Any]:
    """All figures of one candidate, by the height of the videos; one finished file per video, so a run can go on later."""
    records: dict[int, list[dict[str, Any]]] = {}
    first: dict[int, np.ndarray] = {}
    for number, path in enumerate(videos):
        frames = read_frames(path)
        height = frames[0].shape[0]
        first.setdefault(height, frames[0])
        done = work / f"{candidate.name}-{path.stem}.json"
        if not done.is_file():
            done.write_text(
                json.dumps(try_video(candidate, frames, np.random.default_rng([seed, number]))), encoding="utf-8"
            )
            print(f"{candidate.name}: {path.stem}", flush=True)
        records.setdefault(height, []).append(json.loads(done.read_text(encoding="utf-8")))
    repeats = 50 if candidate.name == "own" else 3
    return {
        str(height): summary(found) | {"ms_per_marked_frame": cost_ms(candidate, first[height], repeats)}
        for height, found in sorted(records.items())
    }


def summary(found: list[dict[str, Any]]) -> dict[str, Any]:
    """Of all videos of one size."""
    psnr, ssim = ([one[key] for one in found] for key in ("psnr_db", "ssim"))
    attacks = {}
    for name in found[0]["attacks"]:
        recovered, bits, scores = zip(*(one["attacks"][name] for one in found), strict=True)
        attacks[name] = {"recovered": sum(recovered), "bit_accuracy": round(statistics.mean(bits), 4)}
        if any(scores):
            attacks[name]["lowest_score"] = round(min(scores), 2)
    return {
        "videos": len(found),
        "psnr_db": {"mean": round(statistics.mean(psnr), 2), "lowest": round(min(psnr), 2)},
        "ssim": {"mean": round(statistics.mean(ssim), 4), "lowest": round(min(ssim), 4)},
        "attacks": attacks,
    }


def table(result: dict[str, Any]) -> str:
    """The figures as Markdown, one column for each candidate and size."""
    columns = [(name, size) for name in ("own", "rivagan") for size in result.get(name, {})]
    lines = ["| | " + " | ".join(f"{name}, {size} px" for name, size in columns) + " |"]
    lines.append("|---" * (len(columns) + 1) + "|")
    cells = [result[name][size] for name, size in columns]
    for key, label in (("psnr_db", "PSNR dB, mean (lowest)"), ("ssim", "SSIM, mean (lowest)")):
        lines.append(f"| {label} | " + " | ".join(f"{c[key]['mean']} ({c[key]['lowest']})" for c in cells) + " |")
    lines.append("| ms per marked frame | " + " | ".join(str(c["ms_per_marked_frame"]) for c in cells) + " |")
    for name in ATTACKS:
        said = [(c["attacks"].get(name), c["videos"]) for c in cells]
        shown = (f"{s['recovered']} of {n} ({100 * s['bit_accuracy']:.1f} % of bits)" if s else "-" for s, n in said)
        lines.append(f"| {name} | " + " | ".join(shown) + " |")
    return "\n".join(lines)


def main() -> None:
    """Measure, print the table, save on request."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=Path, required=True, help="folder of unmarked videos")
    parser.add_argument("--unmarked", type=Path, nargs="+", default=[], help="folders or data sets of unmarked frames")
    parser.add_argument("--unmarked-frames", type=int, default=10_000)
    parser.add_argument("--rivagan", type=Path, help="folder of rivaGan's two ONNX files")
    parser.add_argument("--work", type=Path, required=True, help="folder for finished videos; a run goes on from there")
    parser.add_argument("--seed", type=int, default=0, help="of the payloads")
    parser.add_argument("--part", choices=["own", "rivagan", "alarms"], nargs="+", default=["own", "rivagan", "alarms"])
    parser.add_argument("--save", action="store_true", help="write results/watermark.json; parts not measured are kept")
    options = parser.parse_args()
    videos = sorted(options.videos.glob("*.mp4"))
    options.work.mkdir(parents=True, exist_ok=True)
    result: dict[str, Any] = {}
    kept = Path(__file__).resolve().parents[1] / "results" / "watermark.json"
    if options.save and kept.is_file():
        before = json.loads(kept.read_text(encoding="utf-8"))
        result = {key: before[key] for key in ("own", "rivagan", "false_alarms") if key in before}
    if "own" in options.part:
        result["own"] = measure(Own(), videos, options.work, options.seed)
    if "rivagan" in options.part and options.rivagan:
        small = [path for path in videos if VideoReader(path).height <= 256]
        result["rivagan"] = measure(RivaGan(options.rivagan), small[:VIDEOS_RIVAGAN], options.work, options.seed)
    if "alarms" in options.part:
        result["false_alarms"] = false_alarms([*options.unmarked, options.videos], videos, options.unmarked_frames)
    print("\n" + table(result))
    print(json.dumps(result.get("false_alarms", {}), indent=2))
    if options.save:
        print(f"saved {save('watermark', {'seed': options.seed, **result})}")


if __name__ == "__main__":
    main()
