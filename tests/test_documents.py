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


def foreign_numbers(page: str, folder: Path, with_percent: bool = False) -> list[str]:
    """Decimals of a page that are no rounding of a number in the files (section numbers of the paper are no decimals)."""
    numbers, texts = known_numbers(folder)
    page = re.sub(r"Secs?\. [\d., and]+", "", page)
    rounded: dict[tuple[str, int], set[str]] = {}
    found = []
    for text in DECIMAL.findall(page):
        mantissa = text.split("e")[0]
        form = f".{len(mantissa.split('.')[1])}{'e' if 'e' in text else 'f'}"
        for scale in (1, 100) if with_percent else (1,):
            if (form, scale) not in rounded:
                rounded[form, scale] = {f"{scale * n:{form}}" for n in numbers}
        if text not in texts and not any(text in seen for (kind, _), seen in rounded.items() if kind == form):
            found.append(text)
    return found


@pytest.mark.parametrize("page", RESULT_PAGES, ids=lambda p: p.name)
def test_every_decimal_of_a_results_page_is_in_a_result_file(page: Path) -> None:
    assert foreign_numbers(page.read_text(encoding="utf-8"), ROOT / "results") == []


@pytest.mark.parametrize("name", ["model_card.md", "provenance.md", "reliability.md", "mutations.md"])
def test_every_decimal_of_a_page_that_reports_is_in_a_result_file_as_it_is_or_in_percent(name: str) -> None:
    assert foreign_numbers((DOCS / name).read_text(encoding="utf-8"), ROOT / "results", with_percent=True) == []


WITHOUT_TRAINED_MODEL = {
    *("allowed", "entanglement", "fuzz", "heads", "heads_detector", "memory", "mutations", "prepare", "train_speed"),
    *("watermark", "kills", "speech", "c2pa_reader", "transport"),
}
"""Results that rest on no trained weights of this project, or on none that a figure depends on."""


INPUTS = {"extractor", "data", "face_tracker", "training"}
"""Keys under which a file describes what the measured model was given."""


def weights_of(content: Any) -> Iterator[str]:
    """The digests of what was measured."""
    for key, inner in content.items():
        if key in ("sha256", "weights_sha256") and re.fullmatch("[0-9a-f]{64}", str(inner)):
            yield inner
        elif isinstance(inner, dict) and key not in INPUTS:
            yield from weights_of(inner)


@pytest.mark.parametrize("path", sorted((ROOT / "results").glob("*.json")), ids=lambda path: path.stem)
def test_a_result_names_command_date_seed_commit_and_the_weights_that_were_measured(path: Path) -> None:
    """`commit` is that of the code; where it was not kept, `recorded_in` is the commit that brought the figures. A seed of
    null: nothing is drawn."""
    content = json.loads(path.read_text(encoding="utf-8"))
    facts = {**content.get("facts", {}), **content}
    assert facts["command"].split()[0] in ("export3d", "python", "node")
    assert re.match(r"2\d{3}-\d\d-\d\d", facts.get("date") or facts["finished"])
    assert facts["seed"] is None or isinstance(facts["seed"], int)
    assert re.fullmatch(r"[0-9a-f]{7,40}", facts.get("commit") or facts["recorded_in"])
    assert path.stem in WITHOUT_TRAINED_MODEL or list(weights_of(content))


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
