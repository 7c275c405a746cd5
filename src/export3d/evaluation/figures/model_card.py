"""Puts the scores of the bundled model into docs/model_card.md, from the files under results/ (Sec. 4.2).

    python -m export3d.evaluation.figures.model_card

Only the lines between the two marks change; the text around them is written by people.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from export3d.errors import DataError
from export3d.evaluation.figures.markdown import shown, table
from export3d.evaluation.figures.results_page import read_result
from export3d.evaluation.scores.tables import LABELS, TITLES
from export3d.files import write_atomically

BEGIN = "<!-- scores: python -m export3d.evaluation.figures.model_card -->"
END = "<!-- end of scores -->"

EARLIER = {
    "quality_eighth": "eighth bundled checkpoint",
    "quality_seventh": "seventh bundled checkpoint",
    "quality_sixth": "sixth bundled checkpoint",
    "quality_fifth": "fifth bundled checkpoint",
    "quality_fourth": "fourth bundled checkpoint",
    "quality_third": "third bundled checkpoint",
    "quality_second": "second bundled checkpoint",
    "quality_first": "first bundled checkpoint",
}
"""File of an earlier model's scores on the same frames -> its name in the table."""

VARIANTS = {
    "model": "**this model**",
    "source_expression": "it, given the portrait's expression",
    "random_expression": "it, given a random expression",
    "other_leak": "it, given another person's leak in beta-hat",
    "source_turn": "it, not told the head's turn against the torso",
    "copy_source": "the portrait itself",
}
EXACT = {
    "psnr": "PSNR",
    "foreground": "PSNR of the head",
    "mouth": "PSNR of the mouth",
    "eyes": "PSNR of the eyes",
    "ssim": "SSIM",
    "depth": "depth error",
    "sharpness": "sharpness",
}
METRICS = ("psnr", "ssim_gaussian", "akd", "csim_source", "aed", "apd")


def score_lines(results: Path) -> list[str]:
    """The tables as Markdown lines.

    Raises:
        DataError: A file is missing or damaged.
    """
    quality = read_result(results / "quality.json")
    rows = [(name, quality["scores"][key]) for key, name in VARIANTS.items() if key in quality["scores"]]
    views = [("**this model**", quality["novel_views_foreground_psnr"])]
    for stem, name in EARLIER.items():
        if (results / f"{stem}.json").exists():
            earlier = read_result(results / f"{stem}.json")
            rows.append((name, earlier["scores"]["model"]))
            if (results / f"{stem}_views.json").exists():
                earlier = read_result(results / f"{stem}_views.json")
            if "novel_views_foreground_psnr" in earlier:
                views.append((name, earlier["novel_views_foreground_psnr"]))
    lines = [
        _source(quality, f"{quality['clips']} people, {quality['frames']} frames; decibels, depth in scene units"),
        "",
    ]
    lines += table([{"": name, **{EXACT[key]: scores[key] for key in EXACT}} for name, scores in rows])
    lines += ["", "PSNR of the head in views that the portrait does not show, by yaw in degrees:", ""]
    lines += table([{"": name, **found["model"]} for name, found in views])
    if (results / "evaluate.json").exists():
        lines += _evaluated(read_result(results / "evaluate.json"))
    return lines


def _evaluated(content: dict[str, Any]) -> list[str]:
    """Tables of `export3d evaluate`: means, in brackets the bootstrap intervals."""
    lines: list[str] = []
    for kind, title in TITLES.items():
        methods = content["tables"][kind]
        found = {method: {row["metric"]: row for row in rows} for method, rows in methods.items()}
        present = [m for m in METRICS if any(m in rows for rows in found.values())]
        cells = [
            {"": method.replace("_", " "), **{LABELS[metric]: _interval(rows.get(metric)) for metric in present}}
            for method, rows in found.items()
        ]
        lines += ["", _source(content["facts"], f"{title}; means and intervals over people"), ""]
        lines += table(cells)
    return lines


def _interval(row: dict[str, Any] | None) -> str:
    if row is None or not isinstance(row["interval"]["mean"], float):
        return "-"
    return "{mean} [{low}, {high}]".format(**{key: shown(value) for key, value in row["interval"].items()})


def _source(facts: dict[str, Any], about: str) -> str:
    day = facts.get("date") or str(facts.get("finished", ""))[:10]
    return f"`{facts['command']}`, {day}; {about}:"


def with_scores(card: str, lines: Sequence[str]) -> str:
    """The card with new lines between its marks.

    Raises:
        DataError: A mark is missing or they stand in the wrong order.
    """
    before, found, rest = card.partition(BEGIN)
    _, closed, after = rest.partition(END)
    if not found or not closed:
        raise DataError(f"the model card lacks '{BEGIN}' or, after it, '{END}'. Put both back, around the tables.")
    return "\n".join([before + BEGIN, "", *lines, "", END + after])


def write_card(root: Path) -> Path:
    """Update docs/model_card.md of the repository at `root`."""
    path = root / "docs" / "model_card.md"
    card = with_scores(path.read_text(encoding="utf-8"), score_lines(root / "results"))
    write_atomically(path, card.encode())
    return path


if __name__ == "__main__":
    print(f"wrote {write_card(Path(sys.argv[1] if len(sys.argv) > 1 else '.'))}")
