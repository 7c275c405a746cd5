"""docs/results.md says what the files under results/ say, and nothing else."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from export3d.errors import DataError
from export3d.evaluation.figures.markdown import shown
from export3d.evaluation.figures.results_page import INTRO, MEASURED, VERDICTS, results_page, write_page

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "results.md"
NUMBER = re.compile(r"(?<![\w.^])-?\d+(?:\.\d+)?(?:e[-+]\d+)?(?!\w)")

FIXED = {*INTRO, *(about for _, _, about in MEASURED.values()), *(f"## {title}" for title, _, _ in MEASURED.values())}
FIXED |= {f"Not measured yet. `{command}` makes `results/{name}.json`." for name, (_, command, _) in MEASURED.items()}


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield key
            yield from _leaves(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _leaves(inner)
    else:
        yield value


def _allowed(results: Path) -> set[str]:
    """Every number of the files as the page would write it, and the numbers inside their names and texts."""
    allowed = set()
    for path in results.glob("*.json"):
        for leaf in _leaves(json.loads(path.read_text(encoding="utf-8"))):
            allowed |= set(NUMBER.findall(shown(leaf)))
    return allowed


def _foreign_numbers(page: str, results: Path) -> list[str]:
    allowed = _allowed(results)
    found = []
    for line in page.splitlines():
        if line in FIXED:
            continue
        text = line
        for verdict in VERDICTS.values():
            text = text.replace(verdict, "")
        found += [f"{number} in: {line}" for number in NUMBER.findall(text) if number not in allowed]
    return found


def test_the_page_is_up_to_date_with_the_files() -> None:
    fresh = results_page(ROOT / "results", ROOT / "docs" / "pictures")
    assert PAGE.read_text(encoding="utf-8") == fresh, "run: python -m export3d.evaluation.figures.results_page"


def test_every_number_of_the_page_comes_from_a_file() -> None:
    assert _foreign_numbers(PAGE.read_text(encoding="utf-8"), ROOT / "results") == []


def test_a_number_typed_by_hand_is_noticed() -> None:
    page = PAGE.read_text(encoding="utf-8") + "\nWe reach 31.4159 dB.\n"
    assert _foreign_numbers(page, ROOT / "results") == ["31.4159 in: We reach 31.4159 dB."]


def _page(folder: Path, **files: Any) -> str:
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return results_page(folder, folder)


def test_missing_files_are_named_with_the_command_that_makes_them(tmp_path: Path) -> None:
    page = _page(tmp_path)
    assert page.count("Not measured yet.") == len(MEASURED)
    assert "`export3d quality` makes `results/quality.json`." in page


def test_tables_facts_and_what_was_not_recorded(tmp_path: Path) -> None:
    scores = {"model": {"psnr": 21.23456, "depth": 0.01}, "copy": {"psnr": 15.0, "depth": math.nan}}
    page = _page(tmp_path, quality={"command": "export3d quality --seed 3", "seed": 3, "clips": 24, "scores": scores})
    assert "From `results/quality.json`: command `export3d quality --seed 3`; date not recorded; seed 3." in page
    assert "|  | psnr | depth |\n|---|---|---|\n| model | 21.23 | 0.01 |\n| copy | 15 | - |" in page
    assert "| clips | 24 |" in page


def test_long_lists_stay_in_the_file_and_nested_facts_get_dotted_names(tmp_path: Path) -> None:
    page = _page(tmp_path, other={"a": {"b": 1.5, "modes": list(range(64)), "pair": [1, 2]}})
    assert "## other" in page and "| a.b | 1.5 |" in page and "| a.pair | 1, 2 |" in page
    assert "modes" not in page


def test_the_verdicts_on_clebs_are_made_from_its_numbers(tmp_path: Path) -> None:
    rows = [
        {"code": code, "identity_1nn": hit, "identity_1nn_frames": hit / 2, "r2": r2}
        for code, hit, r2 in (
            ("beta-hat", 0.98, 0.9),
            ("beta-hat minus clip mean", 0.0, 0.85),
            ("beta' (lambda)", 0.07, 0.53),
        )
    ]
    content = {
        "rows": rows,
        "verdicts": dict.fromkeys(VERDICTS, False),
        "chance": {"identity_1nn": 0.01, "identity_1nn_frames": 0.0097},
        "near_chance_factor": 2.0,
        "contrast": {"train_retrieval": 0.9, "retrieval": 0.49, "retrieval_at_chance": 0.0625},
    }
    page = _page(tmp_path, clebs=content)
    assert "Identity accuracy of beta' is near chance: **no**." in page
    assert "0.98 in beta-hat, 0.07 in beta', chance 0.01" in page
    assert "0.85 from beta-hat minus its clip mean, 0.53 from beta'" in page
    assert "0.9 on the people of the training, 0.49 on test people (chance 0.0625)" in page


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "memory.json").write_text("{")
    with pytest.raises(DataError, match=r"memory\.json: not readable"):
        results_page(tmp_path, tmp_path)


def test_the_page_is_written_where_the_documents_are(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    assert write_page(tmp_path).read_text().startswith("# Results\n")
