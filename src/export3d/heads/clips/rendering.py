"""Synthetic clip shards: many heads rendered by parallel workers, resumable, the same bytes for the same seed (Sec. 4.1).

A run keeps one small finished data set per identity in the hidden folder `.work`; when all are there, they are copied
in seed order into the shards, the manifest is written and `.work` is removed. A killed run goes on where it stopped.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from export3d.checks import check_choice
from export3d.data import Clip, ClipDataset, Manifest, ShardWriter, make_meta
from export3d.data.manifest import MANIFEST_NAME, file_sha256
from export3d.errors import DataError, OutputError, UsageError
from export3d.files import clear_leftovers, only_user, write_atomically
from export3d.heads.clips.extractor import ExtractorConfig, LinearExtractor, add_noise, mirror_landmarks
from export3d.heads.clips.motion import Motion, independent, trajectory
from export3d.heads.clips.motion_csv import from_csv
from export3d.heads.clips.splits import identity_seeds
from export3d.heads.clips.surface import surface_points
from export3d.heads.look.appearance import AppearanceOptions
from export3d.heads.look.identity import Identity
from export3d.heads.look.render import render_frames
from export3d.heads.shape.model_file import load_head
from export3d.heads.shape.parametric import ParametricHead
from export3d.reading import read_json, reading, shortened
from export3d.stopping import ignore_stop_signals

Progress = Callable[[str, int, int], None]
"""Called with the stage ("render" or "pack"), how many identities are done, and how many there are."""

DEPTH_STEPS = 16384.0
"""Stored depth per scene unit."""

NOVEL_VIEWS_DEG = (-30.0, 0.0, 30.0)
"""Yaw of the frames that `novel_views` adds; a clip's `extra` names them."""

_RENDER_FILE = "render.json"
_EXTRACTOR_FILE = "extractor.safetensors"
_WORK_FOLDER = ".work"
_RENDERER_VERSION = 2  # raise it when pictures change, so that no half-rendered folder mixes two renderers


@dataclass(frozen=True, kw_only=True)
class ClipsConfig:
    """What is rendered. Everything but the number of identities is the same in all clips of a folder."""

    identities: int
    """Heads, one clip each."""
    frames: int
    """Frames of a clip."""
    size: int = 256
    """Side of a frame in pixels."""
    seed: int = 0
    """Position of the first identity in its split: runs with other positions share no identity."""
    split: Literal["train", "validation", "test"] = "train"
    motion: Literal["independent", "wide", "trajectory"] = "independent"
    """Frames drawn one by one; the same with lids, brows and gaze at their ends (training); or a continuous sequence."""
    motion_file: str | None = None
    """A CSV of blendshape weights that drives every head instead; see :func:`from_csv`."""
    fps: int = 25
    supersample: int = 2
    """Rendered at this many times the size, then averaged."""
    quality: Literal["fast", "full"] = "full"
    """`fast` halves textures, light directions and hair layers."""
    static_share: float = 0.7
    """Share of heads whose light, body and backdrop are fixed to the head (exactly consistent views); the
    others turn in front of a fixed light and body, as people in real videos do."""
    resting_offset: bool = True
    """Give each head a resting face of its own."""
    novel_views: bool = False
    """Three more frames at the end: the expression of the middle frame seen from yaw -30, 0 and +30 degrees."""

    def __post_init__(self) -> None:
        for name, least in (("frames", 1), ("size", 16), ("fps", 1), ("supersample", 1)):
            if getattr(self, name) < least:
                raise UsageError(f"--{name}: expected at least {least}; got {getattr(self, name)}.")
        if not 0.0 <= self.static_share <= 1.0:
            raise UsageError(f"--static-share: expected a share in 0..1; got {self.static_share}.")
        check_choice("--motion", self.motion, ("independent", "wide", "trajectory"))
        check_choice("--quality", self.quality, ("fast", "full"))
        identity_seeds(self.split, self.seed, self.identities)

    def seeds(self) -> list[int]:
        """The identity seeds, in the order of the clips."""
        return identity_seeds(self.split, self.seed, self.identities)


def clip_key(split: str, seed: int) -> str:
    """Key and identity name of a synthetic clip."""
    return f"head-{split}-{seed:07d}"


def render_clips(
    folder: str | Path,
    config: ClipsConfig,
    *,
    head_model: str | Path | None = None,
    workers: int = 1,
    extractor_config: ExtractorConfig | None = None,
    on_progress: Progress | None = None,
) -> Manifest:
    """Render a data set of synthetic clips, or finish one that was interrupted.

    The pictures depend on the head model and the settings alone, not on the number of workers. If the folder already
    holds the finished data set of the same settings, nothing is done.

    Args:
        folder: Made if missing.
        head_model: See :func:`load_head`.
        workers: Processes of one thread each; 1 renders in this process.
        extractor_config: Settings of the extractor that makes beta-hat.
        on_progress: Called after each identity.

    Raises:
        DataError: The folder holds clips of other settings or of another head model.
        OutputError: Something cannot be written, or a worker died.
        HeadModelError: The head model cannot be read.
    """
    folder = Path(folder)
    if workers < 1:
        raise UsageError(f"--workers: expected at least 1; got {workers}.")
    report = on_progress or (lambda stage, done, total: None)
    try:
        (folder / _WORK_FOLDER).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder}: the folder cannot be made ({error.strerror or error}).") from error
    with only_user(folder, DataError):
        return _render_into(folder, config, head_model, workers, extractor_config, report)


def _render_into(
    folder: Path,
    config: ClipsConfig,
    head_model: str | Path | None,
    workers: int,
    extractor_config: ExtractorConfig | None,
    report: Progress,
) -> Manifest:
    clear_leftovers(folder)
    with _one_thread():
        head = load_head(head_model)
        extractor = LinearExtractor.build(head, extractor_config)
    _check_same_run(folder, config, head, extractor)
    if (folder / MANIFEST_NAME).exists():
        shutil.rmtree(folder / _WORK_FOLDER, ignore_errors=True)
        with closing(ClipDataset(folder)) as finished:  # every shard there, of the right length
            return finished.manifest
    extractor.save(folder / _EXTRACTOR_FILE)
    missing = [seed for seed in config.seeds() if not _is_finished(folder, config, seed)]
    done = config.identities - len(missing)
    report("render", done, config.identities)
    for _ in _render_all(folder, config, head, extractor, head_model, missing, workers):
        done += 1
        report("render", done, config.identities)
    return _pack(folder, config, report)


def render_clip(head: ParametricHead, extractor: LinearExtractor, seed: int, config: ClipsConfig) -> Clip:
    """Render one identity: a pure function of its arguments, on one thread.

    Returns:
        The clip with every synthetic member of the format (docs/data.md).
    """
    identity, motion = _draw(head, seed, config)
    static = static_scene(seed, config)
    camera = motion.camera()
    weights = torch.from_numpy(motion.weights)
    gaze = torch.from_numpy(motion.gaze)
    rendered = render_frames(
        identity, weights, gaze, camera, size=config.size, supersample=config.supersample, static_scene=static
    )
    masks = _to_uint8(rendered.alpha)
    depths = (rendered.depth * DEPTH_STEPS).round().clamp(0, 65535).cpu().numpy()
    key = clip_key(config.split, seed)
    split = "val" if config.split == "validation" else config.split
    return Clip(
        key=key,
        frames=_to_uint8(rendered.color.movedim(1, -1)),
        masks=masks,
        depths=np.where(masks == 0, 0, depths).astype(np.uint16),  # a trace of hair that the mask rounds away is none
        background=_to_uint8(identity.background(config.size, config.supersample).movedim(0, -1)),
        arrays=_arrays(identity, extractor, motion, _rng(seed, "landmark noise")),
        meta=make_meta(
            key=key,
            num_frames=len(motion),
            size=config.size,
            fps=Fraction(config.fps),
            identity=key,
            source="export3d heads render",
            extractor=extractor.info,
            split=split,
            extra={
                "seed": seed,
                "motion": "file" if config.motion_file else config.motion,
                "static_scene": static,
                **({"novel_views_deg": list(NOVEL_VIEWS_DEG)} if config.novel_views else {}),
                "head": head.name,
                "style": identity.style,
                "age": round(identity.traits.age, 1),
                "melanin": round(identity.traits.melanin, 3),
                "femininity": round(identity.traits.femininity, 3),
            },
        ),
    )


def static_scene(seed: int, config: ClipsConfig) -> bool:
    """Whether light and torso are fixed to the head in the clip of this identity."""
    return bool(_rng(seed, "scene").random() < config.static_share)


def clip_arrays(
    head: ParametricHead, extractor: LinearExtractor, seed: int, config: ClipsConfig
) -> dict[str, np.ndarray]:
    """The arrays of :func:`render_clip` without its pictures."""
    identity, motion = _draw(head, seed, config)
    return _arrays(identity, extractor, motion, _rng(seed, "landmark noise"))


def _draw(head: ParametricHead, seed: int, config: ClipsConfig) -> tuple[Identity, Motion]:
    options = AppearanceOptions(quality=config.quality, resting_offset=config.resting_offset)
    identity = Identity.create(head, seed, options)
    return identity, _motion_of(seed, config, identity.resting_weights.cpu().numpy())


def _motion_of(seed: int, config: ClipsConfig, resting: np.ndarray) -> Motion:
    motion = _frames_of(seed, config, resting)
    return motion.with_views(config.frames // 2, np.radians(NOVEL_VIEWS_DEG)) if config.novel_views else motion


def _frames_of(seed: int, config: ClipsConfig, resting: np.ndarray) -> Motion:
    if config.motion_file is not None:
        motion = from_csv(config.motion_file)
        if len(motion) < config.frames:
            raise UsageError(f"--frames: {config.motion_file} has {len(motion)} rows; got {config.frames}.")
        return motion.first(config.frames, resting=resting)
    if config.motion != "trajectory":
        return independent(seed, config.frames, resting=resting, wide=config.motion == "wide")
    return trajectory(seed, config.frames, config.fps, resting=resting)


def _arrays(
    identity: Identity,
    extractor: LinearExtractor,
    motion: Motion,
    rng: np.random.Generator,
) -> dict[str, np.ndarray]:
    """Every array of the clip. Noise is drawn anew for the mirrored picture, as a detector would err anew."""
    camera = motion.camera()
    weights, gaze = torch.from_numpy(motion.weights), torch.from_numpy(motion.gaze)
    landmarks = camera.project(identity.landmarks_world(weights.to(identity.rest.device)).cpu())[0]
    noise_px = extractor.config.noise_px
    beta = extractor.fit(add_noise(landmarks, rng, noise_px), camera)
    mirrored = extractor.fit(add_noise(mirror_landmarks(landmarks), rng, noise_px), camera.mirrored())
    tensors = {
        "beta": beta,
        "camera": camera.to_vector(),
        "landmarks": landmarks,
        "confidence": torch.ones(len(motion)),
        "crop": torch.zeros(len(motion), 3),
        "true_beta": extractor.true_beta(weights),
        "weights": weights,
        "alpha": identity.alpha,
        "gaze": gaze,
        "beta_mirror": mirrored,
        "surface": surface_points(identity, weights.to(identity.rest.device), gaze.to(identity.rest.device)),
    }
    return {name: np.ascontiguousarray(tensor.float().cpu().numpy()) for name, tensor in tensors.items()}


def _to_uint8(values: torch.Tensor) -> np.ndarray:
    return np.ascontiguousarray((values * 255.0).round().clamp(0, 255).to(torch.uint8).cpu().numpy())


def _render_all(
    folder: Path,
    config: ClipsConfig,
    head: ParametricHead,
    extractor: LinearExtractor,
    head_model: str | Path | None,
    seeds: list[int],
    workers: int,
) -> Iterator[int]:
    """Render the seeds into the work folder, yielding each one when it is finished, in any order."""
    if workers == 1 or len(seeds) <= 1:
        with _one_thread():
            for seed in seeds:
                _store(folder, render_clip(head, extractor, seed, config))
                yield seed
        return
    arguments = (folder, config, None if head_model is None else str(head_model))
    pool = ProcessPoolExecutor(
        min(workers, len(seeds)),
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_start_worker,
        initargs=arguments,
    )
    try:
        jobs = [pool.submit(_work, seed) for seed in seeds]
        for job in as_completed(jobs):
            yield job.result()
    except BrokenProcessPool as error:
        raise OutputError(
            f"{folder}: a rendering worker died (out of memory?). What is finished is kept: run the same command "
            "again, with fewer --workers."
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


@dataclass
class _Worker:
    """What a worker process keeps between identities."""

    folder: Path
    config: ClipsConfig
    head: ParametricHead
    extractor: LinearExtractor


_worker: _Worker | None = None


def _start_worker(folder: Path, config: ClipsConfig, head_model: str | None) -> None:
    global _worker
    torch.set_num_threads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    ignore_stop_signals()  # Ctrl-C reaches the parent, which ends the pool
    _worker = _Worker(folder, config, load_head(head_model), LinearExtractor.load(folder / _EXTRACTOR_FILE))


def _end_with_parent() -> None:
    """A killed parent cannot end its workers; each one watches for that."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _work(seed: int) -> int:
    assert _worker is not None, "the pool starts each worker with _start_worker"
    _store(_worker.folder, render_clip(_worker.head, _worker.extractor, seed, _worker.config))
    return seed


def _store(folder: Path, clip: Clip) -> None:
    """Write a finished clip as a small data set of its own; its manifest, written last, says that it is complete."""
    place = folder / _WORK_FOLDER / clip.key
    if place.exists():  # left by a killed run
        shutil.rmtree(place)
    with ShardWriter(place, clips_per_shard=1) as writer:
        writer.write(clip)


def _is_finished(folder: Path, config: ClipsConfig, seed: int) -> bool:
    place = folder / _WORK_FOLDER / clip_key(config.split, seed)
    try:
        with closing(ClipDataset(place)):  # its shard is there too, of the right length
            return True
    except DataError:
        return False


def _pack(folder: Path, config: ClipsConfig, report: Progress) -> Manifest:
    """Copy the finished clips into shards in seed order, then drop the work folder."""
    with ShardWriter(folder) as writer:
        for number, seed in enumerate(config.seeds()):
            with closing(ClipDataset(folder / _WORK_FOLDER / clip_key(config.split, seed))) as finished:
                writer.write(finished.clip(0))
            report("pack", number + 1, config.identities)
    shutil.rmtree(folder / _WORK_FOLDER)
    return Manifest.load(folder)


def _check_same_run(folder: Path, config: ClipsConfig, head: ParametricHead, extractor: LinearExtractor) -> None:
    """Compare the settings with those of an earlier run in the folder; write them if there is none."""
    chosen = asdict(config)
    if config.motion_file is not None:
        from_csv(config.motion_file)  # a wrong file should be told before anything is rendered
        chosen["motion_file"] = file_sha256(Path(config.motion_file))
    settings: dict[str, Any] = {
        "format": "export3d-render",
        "version": _RENDERER_VERSION,
        "settings": chosen,
        "head": head.name,
        "extractor": extractor.info,
    }
    path = folder / _RENDER_FILE
    if not path.exists():
        if (folder / MANIFEST_NAME).exists():
            raise DataError(f"{folder}: already holds another data set. Choose another folder.")
        write_atomically(path, (json.dumps(settings, indent=1) + "\n").encode())
        return
    problem, remedy = "not readable as JSON", "Choose another folder or remove this one."
    earlier = read_json(path, problem, DataError, remedy)
    changed = [key for key in ("format", "version", "head", "extractor") if earlier.get(key) != settings[key]]
    with reading(path, problem, DataError, remedy):
        before = dict(earlier.get("settings", {}))
    changed += [f"{key} {shortened(before.get(key))} -> {new}" for key, new in chosen.items() if before.get(key) != new]
    if changed:
        raise DataError(
            f"{folder}: holds a render of other settings ({', '.join(changed)}). Run the first command again to finish "
            "it, or choose another folder."
        )


@contextmanager
def _one_thread() -> Iterator[None]:
    """Sums in torch depend on the number of threads in the last bit; one thread makes the bytes reproducible."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _rng(seed: int, purpose: str) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence([seed, *purpose.encode()]))
