"""Stage evaluate: the scores of one model, clip by clip, in one file that the tables are made from (Sec. 4.2)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import asdict, dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from export3d.checkpoint import read_checkpoint
from export3d.data import ClipDataset
from export3d.data.manifest import MANIFEST_NAME
from export3d.errors import CheckpointError, DataError
from export3d.evaluation.metrics.pictures import summarise
from export3d.evaluation.scores.makers import BASELINES, ModelFrames
from export3d.evaluation.scores.run import Backends, choose_pairs, evaluate
from export3d.evaluation.scores.scoring import ClipScores
from export3d.evaluation.scores.swap import render_settings, score_swap
from export3d.evaluation.scores.synthetic import score_synthetic
from export3d.evaluation.scores.tables import without_source
from export3d.files import file_sha256, finite, make_folder, measured_now, write_json
from export3d.heads.shape.model_file import load_head
from export3d.portrait.loading import checkpoint_path, load_model
from export3d.reading import read_json, reading
from export3d.reproduce.settings import MAIN, Reporter, Settings
from export3d.reproduce.training import is_trained, trained_data, training_hours
from export3d.training.phases.config import TrainConfig

FORMAT = "export3d-reproduce-scores"
VERSION = 2

OpenBackends = Callable[[], AbstractContextManager[Backends]]
"""Opens what measures faces."""


def score_models(settings: Settings, choice: dict[str, str], open_backends: OpenBackends, report: Reporter) -> None:
    """Score every variant that was trained to its end, and the model of the main table where it is asked for.

    Args:
        choice: names of the back ends, part of what must be the same to skip. They are opened once, where something is left.

    Raises:
        CheckpointError: There is nothing to score, or a model is damaged.
    """
    names = [name for name in settings.variants if is_trained(settings, name)]
    for name in settings.variants:
        if name not in names:
            report.line(
                f"evaluate {name}: {settings.model_file(name)} is missing or not trained to its end; not scored"
            )
    names += [MAIN] if settings.asks_for_main else []
    if not names:
        raise CheckpointError(f"{settings.output}: no variant is trained to its end; there is nothing to score.")
    with ExitStack() as stack:
        opened = cache(lambda: stack.enter_context(open_backends()))
        for name in names:
            score_model(settings, name, choice, opened, report)


@dataclass(frozen=True, kw_only=True)
class Scores:
    """What one model scored.

    Attributes:
        name: a variant, or `main`.
        facts: the file's facts: fingerprint, model, data, backends, date, times.
        pairs: kind -> names of the pairs, in order.
        values: kind -> method -> metric -> ``(pairs,)``, the mean over the frames of each pair; NaN for no value.
        quality: variant -> score against exact truth, or None for clips without truth.
    """

    name: str
    facts: dict[str, Any]
    pairs: dict[str, list[str]]
    values: dict[str, dict[str, dict[str, np.ndarray]]]
    quality: dict[str, dict[str, float]] | None


def score_model(
    settings: Settings, name: str, choice: dict[str, str], opened: Callable[[], Backends], report: Reporter
) -> None:
    """Score a variant, or the model of the main table (`main`), into WORK/evaluation/NAME.json; skipped when it is done.

    Raises:
        CheckpointError: The model is missing or damaged.
        OutputError: Something cannot be written.
    """
    path = checkpoint_path(settings.model) if name == MAIN else settings.model_file(name)
    stored = read_checkpoint(path, kind="export3d")
    dataset = settings.open_test()
    given = {"model": stored.sha256, "data": file_sha256(dataset.folder / MANIFEST_NAME)}
    fingerprint = {**given, "clips": settings.num_clips, "seed": settings.seed, **choice}
    file = scores_file(settings, name)
    before = _read(file) if file.is_file() else None
    if before is not None and before["facts"]["fingerprint"] == fingerprint:
        report.line(f"evaluate {name}: {file} is finished")
        return
    model = load_model(path, device=settings.device)
    pairs = choose_pairs(dataset, "both", clips=settings.num_clips, seed=settings.seed)
    maker = ModelFrames(model, dataset, {"name": path.name, "sha256": file_sha256(path)})
    head = None
    if (dataset.folder / "render.json").is_file():  # otherwise nothing says how to render its people
        head = load_head(settings.head_model)
        render_settings(dataset, head)  # refuses another head before anything is scored
    # Other settings get another folder: the finished pairs of each stay usable.
    place = make_folder(settings.output / "evaluation" / name / _short(fingerprint))
    backends = opened()
    result = evaluate(
        dataset,
        maker,
        pairs,
        backends,
        place,
        seed=settings.seed,
        baselines=BASELINES if name == MAIN else (),
        on_progress=lambda done: report.advance(f"evaluate {name}", done, len(pairs)),
    )
    facts = {
        "fingerprint": fingerprint,
        **measured_now(),
        "model": model_facts(path, stored.extra, stored.config),
        "data": trained_data(dataset),
        "backends": backends.facts(),
        "seconds_making": round(result.seconds_making, 3),
        "seconds_scoring": round(result.seconds_scoring, 3),
        "driving_frames": result.frames,
    }
    content = {"format": FORMAT, "version": VERSION, "name": name, "facts": facts, **_by_clip(result.clips)}
    content["quality"] = _quality(model, dataset, settings, name, report)
    if head is not None:
        cross = [pair for pair in pairs if pair.kind == "cross"]
        kept, shown = make_folder(settings.output / "evaluation" / "swaps"), partial(report.advance, f"swap {name}")
        content["values"]["cross"]["model"] |= score_swap(model, dataset, cross, head, folder=kept, on_progress=shown)
    write_json(file, finite(content))
    report.line(f"evaluate {name}: {len(pairs)} pairs, {result.resumed} from before; wrote {file}")


def scores_file(settings: Settings, name: str) -> Path:
    """Where the scores of a variant, or of `main`, lie."""
    return settings.output / "evaluation" / f"{name}.json"


def read_scores(settings: Settings, name: str) -> Scores | None:
    """What `score_model` wrote, or None where it was not called.

    Raises:
        DataError: The file is damaged.
    """
    path = scores_file(settings, name)
    if not path.is_file():
        return None
    content = _read(path)
    try:
        values = {
            kind: {
                method: {metric: np.array([float(x) for x in row]) for metric, row in metrics.items()}
                for method, metrics in methods.items()
            }
            for kind, methods in content["values"].items()
        }
        quality = content["quality"]
        if quality is not None:
            quality = {row: {metric: float(x) for metric, x in cells.items()} for row, cells in quality.items()}
        return Scores(name=name, facts=content["facts"], pairs=content["pairs"], values=values, quality=quality)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{path}: the scores are damaged ({error!r}). Remove the file and evaluate again.") from error


def model_facts(path: Path, extra: dict[str, Any], config: dict[str, Any]) -> dict[str, Any]:
    """What the model file says of its own training; None for what it does not say."""
    stored = extra.get("train") or {}
    known = {name: stored.get(name) for name in ("batch", "learning_rate", "warmup_steps", "seed", "precision")}
    samples = extra.get("samples")
    return {
        "file": path.name,
        "sha256": file_sha256(path),
        "samples": samples,
        "share_of_the_papers_samples": None if samples is None else samples / TrainConfig().samples,
        "steps": extra.get("step"),
        "hours": training_hours(path.parent),
        "expression": config["expression"]["kind"],
        "expression_pretrained": config["expression"]["pretrained"],
        "basis_vectors": config["expression"]["num_basis"] if config["expression"]["kind"] == "lebs" else None,
        "conditioning": config["generator"]["conditioning"],
        **known,
    }


def _by_clip(clips: list[ClipScores]) -> dict[str, Any]:
    pairs: dict[str, list[str]] = {}
    values: dict[str, dict[str, dict[str, list[float]]]] = {}
    for clip in clips:
        names = pairs.setdefault(clip.pair.kind, [])
        key = f"{clip.pair.source_clip}--by--{clip.pair.driving_clip}"
        if key not in names:
            names.append(key)
        rows = values.setdefault(clip.pair.kind, {}).setdefault(clip.method, {})
        for metric, per_frame in without_source(clip).values.items():
            rows.setdefault(metric, []).append(summarise(per_frame).value)
    return {"pairs": pairs, "values": values}


def _quality(model: Any, dataset: ClipDataset, settings: Settings, name: str, report: Reporter) -> Any:
    if not all(dataset.has(i, "0000.mask.png") for i in range(len(dataset))):
        return None
    scores = score_synthetic(
        model,
        dataset,
        clips=settings.num_clips,
        seed=settings.seed,
        brief=name != MAIN,
        on_progress=lambda done, total: report.advance(f"exact truth {name}", done, total),
    )
    return {row: asdict(cells) for row, cells in scores.items()}


def _short(fingerprint: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(fingerprint, sort_keys=True).encode()).hexdigest()[:12]


def _read(path: Path) -> dict[str, Any]:
    remedy = "Remove the file and evaluate again."
    content = read_json(path, "the scores are damaged", DataError, remedy)
    if (content.get("format"), content.get("version")) != (FORMAT, VERSION):
        raise DataError(f"{path}: written by another version of export3d. {remedy}")
    with reading(path, "the scores are damaged", DataError, remedy):
        dict(content["facts"]["fingerprint"])
    return content
