"""Documents: every number of the results pages is in a file under results/, every link leads somewhere, no page is too long."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
RESULT_PAGES = [DOCS / "results.md", *sorted((DOCS / "results").glob("*.md"))]
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
DECIMAL = re.compile(r"(?<![\w.])-?\d+\.\d+(?:e[-+]\d+)?(?![\w.])")
LONGEST = {"results.md": 200, "history.md": 120, "model_card.md": 120}


def leaves(value: Any) -> Iterator[Any]:
    """Every number and text inside a JSON value, names included."""
    if isinstance(value, dict):
        yield from value
        for inner in value.values():
            yield from leaves(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from leaves(inner)
    else:
        yield value


def known_numbers(folder: Path) -> tuple[set[float], set[str]]:
    """The numbers of all result files, and the decimals inside their texts (versions, commands)."""
    numbers: set[float] = set()
    texts: set[str] = set()
    for path in folder.glob("*.json"):
        for leaf in leaves(json.loads(path.read_text(encoding="utf-8"))):
            if isinstance(leaf, bool) or leaf is None:
                continue
            if isinstance(leaf, str):
                texts |= set(DECIMAL.findall(leaf))
            else:
                numbers.add(float(leaf))
    return numbers, texts


def foreign_numbers(page: str, folder: Path) -> list[str]:
    """Decimals of a page that are no rounding of a number in the files (section numbers of the paper are no decimals)."""
    numbers, texts = known_numbers(folder)
    page = re.sub(r"Secs?\. [\d., and]+", "", page)
    rounded: dict[str, set[str]] = {}
    found = []
    for text in DECIMAL.findall(page):
        mantissa = text.split("e")[0]
        form = f".{len(mantissa.split('.')[1])}{'e' if 'e' in text else 'f'}"
        if form not in rounded:
            rounded[form] = {f"{n:{form}}" for n in numbers}
        if text not in rounded[form] and text not in texts:
            found.append(text)
    return found


@pytest.mark.parametrize("page", RESULT_PAGES, ids=lambda p: p.name)
def test_every_decimal_of_a_results_page_is_in_a_result_file(page: Path) -> None:
    assert foreign_numbers(page.read_text(encoding="utf-8"), ROOT / "results") == []


def test_a_number_typed_by_hand_is_noticed() -> None:
    assert foreign_numbers("We reach 31.4159 dB.", ROOT / "results") == ["31.4159"]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_every_link_and_picture_of_a_page_exists(page: Path) -> None:
    targets = [t for t in re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8")) if "://" not in t]
    missing = [t for t in targets if not (page.parent / t).exists()]
    assert missing == []


@pytest.mark.parametrize("name", LONGEST)
def test_the_short_pages_stay_short(name: str) -> None:
    assert len((DOCS / name).read_text(encoding="utf-8").splitlines()) <= LONGEST[name]


def test_every_result_file_is_named_by_a_page_or_by_the_code_that_writes_it() -> None:
    pages = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    unused = [path.name for path in sorted((ROOT / "results").glob("*")) if f"results/{path.name}" not in pages]
    assert unused == []


def test_no_source_file_names_a_document_that_is_not_in_the_repository() -> None:
    secret = re.compile(r"\((facts|decision|issue)(: (?!dict)| \d)|\b(facts|decision) \d")
    found = [
        f"{path.relative_to(ROOT)}: {line}"
        for folder in ("src", "tests", "benchmarks", "docs")
        for path in (ROOT / folder).rglob("*.*")
        if path.suffix in (".py", ".md") and path.name != Path(__file__).name
        for line in path.read_text(encoding="utf-8").splitlines()
        if secret.search(line)
    ]
    assert found == []
