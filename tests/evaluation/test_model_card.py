"""The model card's tables are those of the files under results/, and only the lines between the marks change."""

from __future__ import annotations

from pathlib import Path

import pytest

from export3d.errors import DataError
from export3d.evaluation.figures.markdown import table
from export3d.evaluation.figures.model_card import BEGIN, END, score_lines, with_scores

ROOT = Path(__file__).resolve().parents[2]
CARD = (ROOT / "docs" / "model_card.md").read_text(encoding="utf-8")


def test_the_card_is_up_to_date_with_the_files() -> None:
    fresh = with_scores(CARD, score_lines(ROOT / "results"))
    assert fresh == CARD, "run: python -m export3d.evaluation.figures.model_card"


def test_only_the_lines_between_the_marks_change() -> None:
    card = f"before\n{BEGIN}\nold\n{END}\nafter"
    assert with_scores(card, ["new"]) == f"before\n{BEGIN}\n\nnew\n\n{END}\nafter"


@pytest.mark.parametrize("card", ["nothing", f"{BEGIN}\n", f"{END}\n{BEGIN}\n"])
def test_a_card_without_its_marks_is_refused(card: str) -> None:
    with pytest.raises(DataError, match="the model card lacks"):
        with_scores(card, ["new"])


def test_a_table_shows_four_digits() -> None:
    assert table([{"": "x", "a": 1.23456}]) == ["|  | a |", "|---|---|", "| x | 1.235 |"]
