"""Synthetic clip shards: many heads rendered by parallel workers, resumable, the same bytes for the same seed (Sec. 4.1).

A run keeps one small finished data set per identity in the hidden folder `.work`; when all are there, they are copied
in seed order into the shards, the manifest is written and `.work` is removed. A killed run goes on where it stopped.
"""

from __future__ import annotations

import multiprocessing
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from export3d.data import Clip, ClipDataset, Manifest, ShardWriter
from export3d.data.manifest import MANIFEST_NAME
from export3d.errors import DataError, OutputError, UsageError
from export3d.files import clear_leftovers, file_sha256, make_folder, only_user, write_json
from export3d.heads.clips.extractor import ExtractorConfig, LinearExtractor
from export3d.heads.clips.motion_csv import from_csv
from export3d.heads.clips.one_clip import ClipsConfig, clip_key, render_clip
from export3d.heads.shape.model_file import load_head
from export3d.heads.shape.parametric import ParametricHead
from export3d.reading import read_json, reading, shortened
from export3d.stopping import obey_parent_only

Progress = Callable[[str, int, int], None]
"""Called with the stage ("render" or "pack"), how many identities are done, and how many there are."""

_RENDER_FILE = "render.json"
_EXTRACTOR_FILE = "extractor.safetensors"
_WORK_FOLDER = ".work"
_RENDERER_VERSION = 2  # raise it when pictures change, so that no half-rendered folder mixes two renderers


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
        workers: Processes of one thread each; 1 renders in this process.

    Raises:
        DataError: The folder holds clips of other settings or of another head model.
        OutputError: Something cannot be written, or a worker died.
        HeadModelError: The head model cannot be read.
    """
    folder = Path(folder)
    if workers < 1:
        raise UsageError(f"--workers: expected at least 1; got {workers}.")
    report = on_progress or (lambda stage, done, total: None)
    make_folder(folder / _WORK_FOLDER)
    with only_user(folder, DataError):
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
        for _ in _render_all(_Job(folder, config, head, extractor), head_model, missing, workers):
            done += 1
            report("render", done, config.identities)
        return _pack(folder, config, report)


@dataclass(frozen=True)
class _Job:
    """What renders identities; a worker process keeps one between them."""

    folder: Path
    config: ClipsConfig
    head: ParametricHead
    extractor: LinearExtractor

    def do(self, seed: int) -> int:
        """Render one identity into the work folder."""
        _store(self.folder, render_clip(self.head, self.extractor, seed, self.config))
        return seed


def _render_all(job: _Job, head_model: str | Path | None, seeds: list[int], workers: int) -> Iterator[int]:
    """Render the seeds into the work folder, yielding each one when it is finished, in any order."""
    if workers == 1 or len(seeds) <= 1:
        with _one_thread():
            for seed in seeds:
                yield job.do(seed)
        return
    arguments = (job.folder, job.config, None if head_model is None else str(head_model))
    pool = ProcessPoolExecutor(
        min(workers, len(seeds)),
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_start_worker,
        initargs=arguments,
    )
    try:
        jobs = [pool.submit(_work, seed) for seed in seeds]
        for done in as_completed(jobs):
            yield done.result()
    except BrokenProcessPool as error:
        raise OutputError(
            f"{job.folder}: a rendering worker died (out of memory?). What is finished is kept: run the same command "
            "again, with fewer --workers."
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


_worker: _Job | None = None


def _start_worker(folder: Path, config: ClipsConfig, head_model: str | None) -> None:
    global _worker
    torch.set_num_threads(1)
    obey_parent_only()
    _worker = _Job(folder, config, load_head(head_model), LinearExtractor.load(folder / _EXTRACTOR_FILE))


def _work(seed: int) -> int:
    assert _worker is not None, "the pool starts each worker with _start_worker"
    return _worker.do(seed)


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
        write_json(path, settings)
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
