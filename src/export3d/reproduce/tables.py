"""The result files of a reproduction: main table, Table 3 and Table 4, with intervals, budgets and verdicts (Sec. 4)."""

from __future__ import annotations

import json
import platform
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from export3d import __version__
from export3d.errors import DataError
from export3d.evaluation.metrics.bootstrap import DRAWS, bootstrap_interval
from export3d.evaluation.scores.scoring import METRICS
from export3d.files import finite, make_folder, measured_now, write_json
from export3d.reading import read_json
from export3d.reproduce.claims import (
    MAIN_CLAIMS,
    NOT_TESTED,
    SECOND_HAND,
    SECOND_HAND_SOURCE,
    TABLE3_CLAIMS,
    TABLE4_CLAIMS,
    judge,
)
from export3d.reproduce.scores import Scores, read_scores
from export3d.reproduce.settings import MAIN, TABLE3, TABLE4, Reporter, Settings
from export3d.reproduce.training import trained_data
from export3d.training.phases.config import TrainConfig
from export3d.training.phases.pretrain_files import load_expression

FORMAT = "export3d-reproduction"
VERSION = 1
LEVEL = 0.95

FILES = {"reproduce_main": (MAIN,), "reproduce_table3": TABLE3, "reproduce_table4": TABLE4}
"""Result file -> the evaluations it is made of."""


def write_results(settings: Settings, folder: Path, command: str, report: Reporter) -> list[Path]:
    """Write each file of `FILES` for which there are scores; returns what was written.

    Raises:
        DataError: Stored scores are damaged.
        OutputError: A file cannot be written.
    """
    make_folder(folder)
    written = []
    for name, members in FILES.items():
        found = {member: read_scores(settings, member) for member in members}
        scores = {member: value for member, value in found.items() if value is not None}
        # Table 4 without cross-attention, or Table 3 with nothing but the full model, is no table.
        if not scores or (name != "reproduce_main" and set(scores) == {"full"}):
            report.line(f"page: no scores for {name}; evaluate {', '.join(members)} first")
            continue
        path = folder / f"{name}.json"
        write_json(path, result_file(settings, name, scores, command))
        report.line(f"page: wrote {path}")
        written.append(path)
    return written


def result_file(settings: Settings, name: str, scores: dict[str, Scores], command: str) -> dict[str, Any]:
    """The content of one result file, JSON-ready: no number is missing that the page shows."""
    first = next(iter(scores.values()))
    paper = TrainConfig()
    content: dict[str, Any] = {
        "format": FORMAT,
        "version": VERSION,
        "command": command,
        **measured_now(),
        "seed": settings.seed,
        "scale": settings.scale,
        "versions": {
            "export3d": __version__,
            "torch": torch.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
            "system": f"{platform.system()} {platform.machine()}",
        },
        "bootstrap": {"draws": DRAWS, "level": LEVEL, "over": "clips", "seed": settings.seed},
        "data": {"test": first.facts["data"], "train": _train_facts(settings)},
        "backends": {what: _short(info) for what, info in first.facts["backends"].items()},
        "paper_budget": {"samples": paper.samples, "batch": paper.batch, "steps": paper.phase1_steps},
        "budget": {member: value.facts["model"] for member, value in scores.items()},
        "clebs": _clebs_facts(settings),
        "pairs": {kind: len(names) for kind, names in first.pairs.items()},
    }
    if name == "reproduce_main":
        for kind, methods in first.values.items():
            content[kind] = {m: intervals(values, settings.seed) for m, values in methods.items()}
        content["quality"] = finite(first.quality, nan=None)
        content["claims"] = [{**asdict(claim), "verdict": NOT_TESTED} for claim in MAIN_CLAIMS]
    else:
        for kind in ("same", "cross"):
            content[kind] = {
                member: intervals(value.values[kind]["model"], settings.seed)
                for member, value in scores.items()
                if kind in value.values
            }
        content["quality"] = {
            member: finite(value.quality["model"], nan=None)
            for member, value in scores.items()
            if value.quality is not None
        }
        claims = TABLE3_CLAIMS if name == "reproduce_table3" else TABLE4_CLAIMS
        content["claims"] = [judge(claim, scores, seed=settings.seed) for claim in claims]
        content["verdicts"] = dict(Counter(row["verdict"] for row in content["claims"]))
        content["equal_budget"] = len({value.facts["model"]["samples"] for value in scores.values()}) == 1
        content["equal_test"] = len({_test_print(value) for value in scores.values()}) == 1
    content["second_hand"] = {"source": SECOND_HAND_SOURCE, "rows": SECOND_HAND[name]}
    return content


def read_result(path: Path) -> dict[str, Any]:
    """A result file.

    Raises:
        DataError: It is not a JSON object.
    """
    return read_json(path, "not readable as JSON", DataError, "Measure it again.")


def intervals(values: dict[str, np.ndarray], seed: int) -> dict[str, dict[str, Any]]:
    """Metric -> mean over clips with its bootstrap interval; NaN becomes None, infinity a string."""
    rows = {}
    for metric in METRICS:
        if metric in values:
            rows[metric] = finite(asdict(bootstrap_interval(values[metric], level=LEVEL, seed=seed)), nan=None)
    return rows


def _train_facts(settings: Settings) -> dict[str, Any] | None:
    """None where the training clips are not at hand (finished runs taken from elsewhere)."""
    if not (settings.train_folder / "manifest.json").is_file():
        return None
    return trained_data(settings.open_train())


def _clebs_facts(settings: Settings) -> dict[str, Any] | None:
    """What decided the frozen encoder; None where its run is not at hand."""
    if not settings.expression_run.exists():
        return None
    asked = load_expression(settings.expression_run)[1]["pretrain"]
    return {name: asked[name] for name in ("steps", "frames_per_clip", "temperature", "include_positive", "symmetric")}


def _short(info: dict[str, Any]) -> dict[str, Any]:
    return {"name": info["name"], "version": info["version"], "sha256": info["sha256"]}


def _test_print(scores: Scores) -> str:
    prints = {name: value for name, value in scores.facts["fingerprint"].items() if name != "model"}
    return json.dumps(prints, sort_keys=True)
