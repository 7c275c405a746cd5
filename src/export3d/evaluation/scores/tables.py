"""The tables of an evaluation: methods side by side, as text, Markdown and JSON (Sec. 4.2)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from export3d.evaluation.scores.scoring import METRICS, ClipScores, Row, score_table
from export3d.files import finite, write_json

FORMAT = "export3d-evaluation"
VERSION = 1

TITLES = {"same": "Same identity", "cross": "Cross identity"}

Tables = dict[str, dict[str, list[Row]]]
"""Kind of pair -> method -> rows."""


def make_tables(clips: Sequence[ClipScores], *, seed: int = 0) -> Tables:
    """One table per kind of pair, one column per method, in the order of the clips.

    A same-identity source frame drives itself; it is left out for every method, since a copy would be perfect there
    (and its PSNR infinite). `frames.csv` keeps it.

    Raises:
        DataError: No clips.
    """
    if not clips:
        score_table([])  # raises with the right words
    tables: Tables = {}
    for kind in TITLES:
        of_kind = [without_source(clip) for clip in clips if clip.pair.kind == kind]
        for method in dict.fromkeys(clip.method for clip in of_kind):
            rows = score_table([clip for clip in of_kind if clip.method == method], seed=seed)
            tables.setdefault(kind, {})[method] = rows
    return tables


def text_table(methods: dict[str, list[Row]]) -> str:
    """Metrics down, methods across; means only, for a terminal."""
    cells = _cells(methods, lambda row: _number(row.interval.mean))
    wide = max(len(line[0]) for line in cells)
    columns = [max(len(line[i]) for line in cells) for i in range(1, len(cells[0]))]
    return "\n".join(
        "  ".join([line[0].ljust(wide), *(c.rjust(w) for c, w in zip(line[1:], columns, strict=True))])
        for line in cells
    )


def markdown(tables: Tables, facts: dict[str, Any]) -> str:
    """`table.md`: each table with its confidence intervals, what could not be measured, and what measured it."""
    data, maker = facts["data"], facts["maker"]
    lines = [
        f"# Evaluation: {maker.get('name') or maker.get('folder', '')}",
        "",
        f"Data: `{data['name']}`, {data['size']} px, split {data['split'] or 'all'}; seed {facts['seed']}. Mean over frames, "
        "then over clips; in brackets the 95 % bootstrap interval over clips.",
    ]
    for kind, methods in tables.items():
        counts = next(iter(methods.values()))[0].interval
        cells = _cells(methods, _with_interval)
        lines += ["", f"## {TITLES[kind]} ({counts.clips + counts.missing} pairs)", "", _line(cells[0])]
        lines += ["|---|" + "---:|" * (len(cells[0]) - 1), *(_line(line) for line in cells[1:])]
        missing = _missing(methods)
        lines += ["", *missing] if missing else []
    lines += ["", "Back ends:", ""]
    for what, info in facts["backends"].items():
        lines.append(f"- {what}: {info['name']} {info['version']}, sha256 {info['sha256'][:12] or 'unknown'}")
        if "verification" in info:
            measured = info["verification"]
            lines.append(
                f"  (trained on synthetic heads; accuracy on {measured['identities']} held-out identities "
                f"{measured['accuracy']:.3f}, AUC {measured['auc']:.3f})"
            )
    if all(what.startswith("pictures") for what in facts["backends"]):
        lines.append("- none: no metric of faces was measured")
    return "\n".join(lines) + "\n"


def write_tables_json(path: Path, tables: Tables, facts: dict[str, Any]) -> None:
    """`table.json`: ``tables[kind][method]`` is a list of rows; NaN and infinity are strings."""
    rows = {kind: {m: [asdict(r) for r in of_m] for m, of_m in methods.items()} for kind, methods in tables.items()}
    content = {"format": FORMAT, "version": VERSION, "facts": facts, "tables": rows}
    write_json(path, finite(content))


def without_source(clip: ClipScores) -> ClipScores:
    """A same-identity clip without its source frame, which drives itself; other clips as they are."""
    if clip.pair.kind != "same" or any(len(values) < 2 for values in clip.values.values()):
        return clip
    return replace(clip, values={name: np.delete(v, clip.pair.source_frame) for name, v in clip.values.items()})


def _cells(methods: dict[str, list[Row]], show: Any) -> list[list[str]]:
    found = {(method, row.metric): row for method, rows in methods.items() for row in rows}
    lines = [["metric", *(method.replace("_", " ") for method in methods)]]
    for metric, (label, higher) in METRICS.items():
        rows = [found.get((method, metric)) for method in methods]
        if any(rows):
            arrow = "↑" if higher else "↓"
            lines.append([f"{label} {arrow}", *(show(row) if row else "-" for row in rows)])
    return lines


def _missing(methods: dict[str, list[Row]]) -> list[str]:
    """A line for each method in whose frames a metric had no value where faces were looked for."""
    lines = []
    for method, rows in methods.items():
        of_faces = [row for row in rows if not row.metric.startswith(("flicker", "view"))]  # flicker lacks two frames
        worst = max(of_faces, key=lambda row: row.missing, default=None)
        if worst is not None and worst.missing:
            total = worst.missing + worst.frames
            lines.append(
                f"- {method.replace('_', ' ')}: no value of {worst.metric} in {worst.missing} of {total} frames"
            )
    return ["Frames without a face are left out of the means and counted:", "", *lines] if lines else []


def _with_interval(row: Row) -> str:
    low, high = row.interval.low, row.interval.high
    if math.isnan(row.interval.mean):
        return "-"
    return f"{_number(row.interval.mean)} [{_number(low)}, {_number(high)}]"


def _number(value: float) -> str:
    if math.isnan(value):
        return "-"
    return "inf" if math.isinf(value) else f"{value:.4g}" if abs(value) < 10 else f"{value:.2f}"


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"
