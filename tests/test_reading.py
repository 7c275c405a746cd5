"""reading.py: whatever a library raises becomes the typed error, with the place, a short reason and what to do."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest

from export3d.errors import DataError, UsageError
from export3d.reading import parse_json, read_json, read_log, read_number, read_rate, reading, shortened


@pytest.mark.parametrize(
    "error", [KeyError("x"), RecursionError("deep"), MemoryError(), AttributeError("a"), OSError(5, "b")]
)
def test_any_error_becomes_the_typed_one_with_place_and_remedy(error: Exception) -> None:
    with pytest.raises(DataError, match=r"a\.json: damaged \(.+\)\. Copy it again\."):
        with reading("a.json", "damaged", DataError, "Copy it again."):
            raise error


def test_typed_errors_and_ctrl_c_pass_as_they_are() -> None:
    with pytest.raises(UsageError, match=r"^mine$"), reading("a", "b", DataError):
        raise UsageError("mine")
    with pytest.raises(KeyboardInterrupt), reading("a", "b", DataError):
        raise KeyboardInterrupt


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a": NaN}', '{"a": Infinity}', "[1]", "", "null", '{"a": 1e999}'])
def test_what_is_no_json_object_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(DataError, match=r"a\.json: not readable"):
        read_json(tmp_path / "a.json", "not readable", DataError)


def test_an_object_comes_back() -> None:
    assert parse_json('{"a": [1, 2.5, "x"]}') == {"a": [1, 2.5, "x"]}


def test_long_values_are_cut_and_stay_on_one_line() -> None:
    assert shortened("a\nb\x1b[31m \udc80") == "a b?[31m \\udc80"
    assert len(shortened("9" * 5000)) < 200


@pytest.mark.parametrize(
    "value", ["1e100000000", "0/1", "1/0", "-1/2", "2000/1", [25], ["25", None], "9" * 5000, "x/y"]
)
def test_a_rate_that_no_film_has_is_refused_at_once(value: object) -> None:
    with pytest.raises((ValueError, ZeroDivisionError)):
        read_rate(value)


@pytest.mark.parametrize(
    ("text", "number"),
    [("29.97", Fraction(2997, 100)), (" 30000/1001 ", Fraction(30000, 1001)), (".5", Fraction(1, 2))],
)
def test_a_written_number_is_exact(text: str, number: Fraction) -> None:
    assert read_number(text) == number


@pytest.mark.parametrize("text", ["1e100000000", "9" * 5000, "nan", "Infinity", "", "1/0", "1_000", "\u0663"])
def test_what_is_no_plain_number_is_refused_at_once(text: str) -> None:
    with pytest.raises((ValueError, ZeroDivisionError)):
        read_number(text)


def test_rates_are_exact() -> None:
    assert read_rate("30000/1001") == read_rate([30000, 1001]) == Fraction(30000, 1001)


def test_a_log_leaves_out_a_line_that_was_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text('{"step": 1, "a": NaN}\n{"step": 2}\n{"ste')
    assert [entry["step"] for entry in read_log(path)] == [1, 2]
    assert read_log(tmp_path / "none") == []
