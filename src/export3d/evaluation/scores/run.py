"""The whole evaluation (Sec. 4.2): pairs, frames, scores, one finished file per pair, so that a stopped run goes on."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from export3d.data import ClipDataset
from export3d.data.manifest import MANIFEST_NAME
from export3d.errors import DataError, OutputError
from export3d.evaluation.metrics.backends import FaceBackend, IdentityBackend, PictureDistance
from export3d.evaluation.metrics.truth import read_truth, score_truth
from export3d.evaluation.scores.makers import BASELINES, FrameMaker, Made, baseline_frames, mean_face
from export3d.evaluation.scores.predictions import frame_names, pair_folder
from export3d.evaluation.scores.protocol import (
    Pair,
    ProtocolConfig,
    cross_identity_pairs,
    dataset_facts,
    read_pairs,
    same_identity_pairs,
)
from export3d.evaluation.scores.scoring import ClipScores, score_clip
from export3d.files import file_sha256, finite, make_folder, write_atomically
from export3d.reading import read_json, reading

PAIR_FORMAT = "export3d-pair-scores"
PAIR_VERSION = 2

Protocol = Literal["same", "cross", "both"]
Progress = Callable[[int], None]
"""Called with the number of finished pairs."""


@dataclass(frozen=True, kw_only=True)
class Backends:
    """What measures faces and pictures; None leaves its metrics out."""

    faces: FaceBackend | None = None
    identities: IdentityBackend | None = None
    pictures: PictureDistance | None = None

    def facts(self) -> dict[str, Any]:
        """Name, version and hash of what gives each metric."""
        out: dict[str, Any] = {}
        if self.faces is not None:
            out["landmarks (AKD)"] = asdict(self.faces.landmark_info)
            out["expression and pose (AED, APD)"] = asdict(self.faces.info)
        if self.identities is not None:
            facts = getattr(self.identities, "facts", None)
            out["identity (CSIM)"] = {
                **asdict(self.identities.info),
                **({"verification": facts["verification"]} if facts else {}),
            }
        if self.pictures is not None:
            out[self.pictures.label] = dict(self.pictures.facts)
        return out


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What an evaluation gave.

    Attributes:
        clips: scores of every pair and method, in the order of the pairs.
        resumed: pairs that were taken from an earlier run.
        seconds_making: wall-clock seconds spent making frames, those of earlier runs included.
        seconds_scoring: the same for scoring.
        frames: driving frames in all pairs.
    """

    clips: list[ClipScores]
    resumed: int
    seconds_making: float
    seconds_scoring: float
    frames: int


def choose_pairs(
    dataset: ClipDataset, protocol: Protocol, *, pairs_file: Path | None = None, clips: int | None = None, seed: int = 0
) -> list[Pair]:
    """The pairs of a protocol, or those of a file; of each kind the first `clips`.

    Raises:
        DataError: No pair is left, two pairs have one name, or the file does not fit the data.
    """
    facts = dataset_facts(dataset)
    config = ProtocolConfig(seed=seed)
    kinds = ("same", "cross") if protocol == "both" else (protocol,)
    if pairs_file is not None:
        pairs = read_pairs(pairs_file, facts)
    else:
        pairs = same_identity_pairs(facts, config) if "same" in kinds else []
        pairs += cross_identity_pairs(facts, config) if "cross" in kinds else []
    chosen = [pair for kind in kinds for pair in [p for p in pairs if p.kind == kind][:clips]]
    if not chosen:
        raise DataError(f"{pairs_file or dataset.folder}: no pair of protocol '{protocol}'.")
    folders = [str(pair_folder("", pair)) for pair in chosen]
    twice = next((name for name in folders if folders.count(name) > 1), None)
    if twice is not None:
        raise DataError(f"{pairs_file}: two pairs would have the frames '{twice}'; list each pair of clips once.")
    return chosen


def evaluate(
    dataset: ClipDataset,
    maker: FrameMaker,
    pairs: Sequence[Pair],
    backends: Backends,
    folder: Path,
    *,
    seed: int = 0,
    save_frames: bool = False,
    baselines: Sequence[str] = BASELINES,
    on_progress: Progress | None = None,
) -> Evaluation:
    """Make and score the frames of every pair, and those of trivial baselines.

    Each pair is finished by one file in ``folder/pairs``; a later call with the same settings takes it from there.

    Args:
        folder: of the results; it must exist.
        save_frames: keep the frames in ``folder/frames``, in the layout of predictions.
        baselines: which of `BASELINES` are scored, too; they are the same for every maker.

    Raises:
        OutputError: The folder holds results of other settings, or cannot be written.
    """
    data = {"data": file_sha256(dataset.folder / MANIFEST_NAME), "split": dataset.split}
    settings = {**data, "seed": seed, "maker": maker.facts, "backends": backends.facts()}
    settings = json.loads(json.dumps(finite(settings)))  # as a file gives it
    mean = mean_face(dataset, same_identity_pairs(dataset_facts(dataset), ProtocolConfig(seed=seed)))
    clips: list[ClipScores] = []
    resumed, making, scoring, frames = 0, 0.0, 0.0, 0
    for done, pair in enumerate(pairs):
        path = folder / "pairs" / pair.kind / f"{pair.source_clip}--by--{pair.driving_clip}.json"
        digest = maker.digest(pair)
        kept = pair_folder(folder / "frames", pair)
        finished = _read_pair(path, pair, settings, digest)
        if finished is None or (save_frames and not kept.is_dir()):
            started = time.monotonic()
            made = maker.make(pair)
            made_at = time.monotonic()
            values = _score(dataset, pair, {maker.method: made}, baselines=(baselines, mean), backends=backends)
            if save_frames:
                _save_frames(kept, made.frames)
            seconds = {"seconds_making": made_at - started, "seconds_scoring": time.monotonic() - made_at}
            finished = {"settings": settings, "digest": digest, "pair": asdict(pair), **seconds}
            finished = _write_pair(path, finished, values)
        else:
            resumed += 1
        for method, metrics in finished["values"].items():
            read = {name: np.array([float(x) for x in row]) for name, row in metrics.items()}
            clips.append(ClipScores(pair=pair, values=read, method=method))
        making += finished["seconds_making"]
        scoring += finished["seconds_scoring"]
        frames += dataset.num_frames(dataset.places[pair.driving_clip])
        if on_progress is not None:
            on_progress(done + 1)
    return Evaluation(clips=clips, resumed=resumed, seconds_making=making, seconds_scoring=scoring, frames=frames)


def _write_pair(path: Path, facts: dict[str, Any], values: Mapping[str, Mapping[str, np.ndarray]]) -> dict[str, Any]:
    """Write one finished pair, and return what `_read_pair` will give."""
    rows = {method: {name: v.tolist() for name, v in metrics.items()} for method, metrics in values.items()}
    finished = {"format": PAIR_FORMAT, "version": PAIR_VERSION, **facts, "values": rows}
    make_folder(path.parent)
    write_atomically(path, (json.dumps(finite(finished)) + "\n").encode())
    return finished


def _score(
    dataset: ClipDataset,
    pair: Pair,
    rows: dict[str, Made],
    *,
    baselines: tuple[Sequence[str], np.ndarray],
    backends: Backends,
) -> dict[str, dict[str, np.ndarray]]:
    """Method -> metric -> ``(T,)``, the baselines (their names, and the mean face) after the methods of `rows`."""
    index = dataset.places[pair.driving_clip]
    driving = dataset.frames(index)
    source = dataset.frame(dataset.places[pair.source_clip], pair.source_frame)
    truth, faces, is_same = read_truth(dataset, index), backends.faces, pair.kind == "same"
    space = "" if faces is None else faces.info.expression_space
    names, mean = baselines
    rows = rows | {name: Made(frames=baseline_frames(name, source, driving, mean)) for name in names}
    out: dict[str, dict[str, np.ndarray]] = {}
    for name, row in rows.items():
        scores = score_clip(
            pair, source, row.frames, driving, faces, identities=backends.identities, pictures=backends.pictures
        )
        values = dict(scores.values)
        if row.views is not None:
            values |= {"view_error": row.views.error, "view_shared": row.views.shared}
        if truth is not None:
            read = None if faces is None else faces.measure(row.frames)
            values |= score_truth(truth, measured=read, expression_space=space, depth=row.depth, same_identity=is_same)
        out[name] = values
    return out


def _read_pair(path: Path, pair: Pair, settings: dict[str, Any], digest: str) -> dict[str, Any] | None:
    """A finished pair, or None where it must be scored (again)."""
    if not path.is_file():
        return None
    remedy = "Remove it and run again."
    content = read_json(path, "the file is damaged", OutputError, remedy)
    if (content.get("format"), content.get("version")) != (PAIR_FORMAT, PAIR_VERSION):
        raise OutputError(f"{path}: made by another version of export3d. Choose another -o folder.")
    with reading(path, "the file is damaged", OutputError, remedy):
        stored, stored_digest, stored_pair = dict(content["settings"]), content["digest"], content["pair"]
    different = sorted(name for name in settings if stored.get(name) != settings[name])
    if different or stored_pair != asdict(pair):
        what = ", ".join(different) or "source frame"
        raise OutputError(
            f"{path.parents[2]}: holds results of other settings (different: {what}). Choose another -o folder."
        )
    return content if stored_digest == digest else None


def _save_frames(folder: Path, frames: np.ndarray) -> None:
    """Write the frames into a temporary folder, then rename it."""
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        for name, frame in zip(frame_names(len(frames)), frames, strict=True):
            Image.fromarray(frame).save(temporary / name)
        if folder.is_dir():
            shutil.rmtree(folder)
        temporary.rename(folder)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise OutputError(f"{folder}: the frames could not be written ({error}). Check the disk.") from error
