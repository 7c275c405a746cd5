"""Every reader of files under attack: a good file made in code, and what the program does with one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path

import av
import numpy as np
import torch
from bombs import picture_bomb, tar_bomb, zip_bomb
from damage import damaged
from lists import LISTS, SEALED
from PIL import Image

from export3d.camera import Camera
from export3d.checkpoint import read_checkpoint, write_checkpoint
from export3d.data import ClipDataset
from export3d.data.check import check_dataset
from export3d.data.clip import Clip, make_meta
from export3d.data.manifest import Manifest
from export3d.data.writer import ShardWriter
from export3d.errors import DataError
from export3d.evaluation.scores.protocol import ClipFacts, Pair, read_pairs, write_pairs
from export3d.heads.clips.motion_csv import from_csv
from export3d.heads.shape.model_file import read_head, write_head
from export3d.heads.shape.procedural import procedural_head
from export3d.images import is_moving, read_image
from export3d.preprocess.packing import PLAN_NAME, Plan
from export3d.preprocess.results import VideoResult
from export3d.preprocess.vfhq import archive_members
from export3d.reading import read_log, reading
from export3d.tracking.faces import ExtractorInfo
from export3d.tracking.motion import Motion
from export3d.training.loop.run_folder import RunFolder
from export3d.training.loop.state import load_state, save_state
from export3d.video import VideoReader

EXTRACTOR = {"name": "test", "version": "1", "sha256": "ab" * 32, "expression_space": "ict64"}


@dataclass(frozen=True)
class Reader:
    """A kind of file.

    Attributes:
        make: writes a good one into an empty folder; returns the file that is to be damaged.
        read: reads it as the program does.
        sealed: whether a single changed bit must be noticed.
        damage: makes a bad file of a good one and a seed.
    """

    make: Callable[[Path], Path]
    read: Callable[[Path], object]
    sealed: bool = False
    damage: Callable[[bytes, int], bytes] = damaged


def _picture(kind: str, **options: object) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 56, 3), dtype=np.uint8))
        exif = Image.Exif()
        exif[0x010F] = "Phone"
        image.save(folder / f"a.{kind}", exif=exif, **options)
        return folder / f"a.{kind}"

    return make


def _see(path: Path) -> None:
    is_moving(path)
    read_image(path)


def _film(suffix: str, codec: str, pixels: str = "yuv420p") -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        path = folder / f"a.{suffix}"
        with av.open(str(path), "w") as container:
            stream = container.add_stream(codec, rate=25)
            stream.width, stream.height, stream.pix_fmt = 64, 48, pixels
            for index in range(6):
                picture = np.full((48, 64, 3), 40 * index, np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            container.mux(stream.encode(None))
        return path

    return make


def _watch(path: Path) -> None:
    with VideoReader(path, threads=1) as reader:
        for frame in islice(reader, 50):
            assert frame.image.shape == (reader.height, reader.width, 3)


def _motion(folder: Path) -> Path:
    rng, frames = np.random.default_rng(0), 5
    motion = Motion(
        beta=rng.normal(size=(frames, 64)).astype(np.float32),
        camera=np.repeat(Camera.look_at_head().to_vector().numpy(), frames, axis=0),
        confidence=np.ones(frames, np.float32),
        found=np.ones(frames, bool),
        landmarks=rng.random((frames, 68, 2)).astype(np.float32),
        time_s=np.arange(frames) / 25,
        fps=Fraction(25),
        extractor=ExtractorInfo(**EXTRACTOR),
    )
    motion.save(folder / "a.safetensors")
    return folder / "a.safetensors"


def _checkpoint(folder: Path) -> Path:
    tensors = {"a": torch.arange(40.0).reshape(8, 5), "b": torch.ones(7).half()}
    write_checkpoint(folder / "a.safetensors", tensors, kind="x", config={"near": 0.42, "blocks": 4})
    return folder / "a.safetensors"


def _state(folder: Path) -> Path:
    return save_state(folder, 7, {"model": {"w": torch.arange(60.0)}, "rate": 0.1, "names": ["a", "b"]})


def _head(folder: Path) -> Path:
    write_head(folder / "a.npz", procedural_head())
    return folder / "a.npz"


def _dataset(name: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        rng, frames = np.random.default_rng(0), 2
        arrays = {
            "beta": rng.standard_normal((frames, 64)).astype(np.float32),
            "camera": np.repeat(Camera.look_at_head().to_vector().numpy(), frames, axis=0),
            "landmarks": rng.random((frames, 68, 2)).astype(np.float32),
            "confidence": np.ones(frames, np.float32),
            "crop": np.zeros((frames, 3), np.float32),
        }
        facts = {"num_frames": frames, "size": 16, "fps": 25, "identity": "i", "source": "s", "extractor": EXTRACTOR}
        with ShardWriter(folder) as writer:
            for key in ("k1", "k2"):
                pictures = rng.integers(0, 256, (frames, 16, 16, 3), dtype=np.uint8)
                writer.write(Clip(key=key, frames=pictures, arrays=arrays, meta=make_meta(key=key, **facts)))
        return folder / name

    return make


def _check(path: Path) -> None:
    data = ClipDataset(path.parent)
    data.close()
    report = check_dataset(path.parent)
    if report.problems:
        raise DataError(report.problems[0])


def _text(name: str, content: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        (folder / name).write_text(content)
        return folder / name

    return make


def _csv(folder: Path) -> Path:
    return _text("a.csv", "Timecode,jawOpen,eyeBlinkLeft,HeadYaw\n" + "0,0.5,0.1,0.2\n" * 4)(folder)


FACTS = [
    ClipFacts(key=key, identity=key, head_angles=np.zeros((3, 3)), usable=np.ones(3, bool)) for key in ("k1", "k2")
]


def _pairs(folder: Path) -> Path:
    write_pairs(folder / "a.json", [Pair(kind="cross", source_clip="k1", source_frame=1, driving_clip="k2")])
    return folder / "a.json"


def _result(folder: Path) -> Path:
    result = VideoResult(
        key="k", source="s", fingerprint="f", extractor=EXTRACTOR, num_decoded=3, num_frames=3, clips=(), drops=(),
        errors=("e",), part_bytes=0, seconds={"a": 0.5},
    )  # fmt: skip
    result.save(folder)
    return folder / "k.json"


def _plan(folder: Path) -> Path:
    Plan(size=16, frame_format="png", extractor=EXTRACTOR, shards=()).save(folder)
    return folder / PLAN_NAME


def _run(folder: Path) -> Path:
    RunFolder(folder, "train", {"rate": 0.1, "steps": 5}, {"shards": ["a"]}).close()
    return folder / "config.json"


def _archive(suffix: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        import tarfile
        import zipfile

        (folder / "0.png").write_bytes(b"picture" * 40)
        path = folder / f"a.{suffix}"
        if suffix == "zip":
            with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
                archive.write(folder / "0.png", "Clip+a/0.png")
        else:
            with tarfile.open(path, "w") as archive:
                archive.add(folder / "0.png", "Clip+a/0.png")
        return path

    return make


def _unpack(path: Path) -> None:
    with reading(path, "damaged archive", DataError):
        for _, content in archive_members(path):
            content()


READERS: dict[str, Reader] = {
    **{kind: Reader(_picture(kind), _see) for kind in ("png", "jpg", "webp", "tiff", "gif", "bmp")},
    "mp4": Reader(_film("mp4", "libx264"), _watch),
    "mkv": Reader(_film("mkv", "libx264"), _watch),
    "ts": Reader(_film("ts", "libx264"), _watch),
    "avi": Reader(_film("avi", "mjpeg", "yuvj420p"), _watch),
    "motion": Reader(_motion, Motion.load, sealed=True),
    "checkpoint": Reader(_checkpoint, lambda path: read_checkpoint(path, "x"), sealed=True),
    "state": Reader(_state, load_state, sealed=True),
    "head": Reader(_head, read_head),
    "shard": Reader(_dataset("clips-000000.tar"), _check, sealed=True),
    "manifest": Reader(_dataset("manifest.json"), lambda path: (Manifest.load(path.parent), _check(path))),
    "csv": Reader(_csv, from_csv),
    "pairs": Reader(_pairs, lambda path: read_pairs(path, FACTS)),
    "result": Reader(_result, VideoResult.load),
    "plan": Reader(_plan, lambda path: Plan.load(path.parent)),
    "run": Reader(_run, lambda path: _run(path.parent)),
    "log": Reader(_text("a.jsonl", '{"step": 1, "loss": 0.5}\n' * 3), read_log),
    "tar": Reader(_archive("tar"), _unpack),
    "zip": Reader(_archive("zip"), _unpack),
    "npz that lies": Reader(_head, read_head, damage=zip_bomb),
    "zip that lies": Reader(_archive("zip"), _unpack, damage=zip_bomb),
    "tar that lies": Reader(_archive("tar"), _unpack, damage=tar_bomb),
    "shard that lies": Reader(_dataset("clips-000000.tar"), _check, damage=tar_bomb),
    "png that lies": Reader(_picture("png"), _see, damage=picture_bomb),
    "gif that lies": Reader(_film("gif", "gif", "rgb8"), _watch, damage=picture_bomb),
    "avi that lies": Reader(_film("avi", "mjpeg", "yuvj420p"), _watch, damage=picture_bomb),
    **{kind: Reader(*pair, sealed=kind in SEALED) for kind, pair in LISTS.items()},
}
