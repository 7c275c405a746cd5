"""docs/paper.md: every file and option it names exists, defaults and parameter counts are those of the code."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import pytest

import export3d
from export3d.animation.transfer import TransferOptions
from export3d.evaluation.scores.protocol import ProtocolConfig
from export3d.model.config import ABLATIONS, PAPER, PRESETS
from export3d.model.export3d import Export3D
from export3d.portrait.config import PORTRAIT, PORTRAIT_PRESETS
from export3d.portrait.count import count_parameters
from export3d.preprocess.options import PrepareOptions
from export3d.training.phases.config import TrainConfig
from export3d.training.phases.pretrain_config import PretrainConfig

PACKAGE = Path(export3d.__file__).parent
ROOT = PACKAGE.parent.parent
DOCUMENT = ROOT / "docs" / "paper.md"
TEXT = DOCUMENT.read_text(encoding="utf-8")
SPANS = re.findall(r"`([^`]+)`", TEXT)

ROOTS: dict[str, Any] = {
    "model": PAPER,
    "portrait": PORTRAIT,
    "train": TrainConfig(),
    "pretrain": PretrainConfig(),
    "prepare": PrepareOptions(),
    "transfer": TransferOptions(),
    "protocol": ProtocolConfig(),
}

OPTIONS = sorted({s for s in SPANS if " = " in s})
FILES = sorted({s for s in SPANS if re.fullmatch(r"[\w/]+(\.py|\.md|/)", s)})


def _value(path: str) -> Any:
    root, *names = path.split(".")
    value = ROOTS[root]
    for name in names:
        value = getattr(value, name)
    return value


@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_exists_with_the_default_that_is_printed(option: str) -> None:
    path, _, printed = option.partition(" = ")
    assert _value(path) == ast.literal_eval(printed)


@pytest.mark.parametrize("name", FILES)
def test_every_file_exists(name: str) -> None:
    base = ROOT if name.split("/")[0] in ("src", "tests", "docs") else PACKAGE
    assert (base / name).exists()


def test_there_is_enough_to_check() -> None:
    assert len(OPTIONS) > 60 and len(FILES) > 25


def test_every_decision_of_the_list_has_a_row() -> None:
    assert re.findall(r"^\| (9\.\d+) \|", TEXT, flags=re.MULTILINE) == [f"9.{i}" for i in range(1, 35)]


def test_every_equation_has_a_row() -> None:
    index = TEXT.split("## 2.")[1].split("## 3.")[0]
    assert [n for n in range(1, 15) if f"Eq. {n} " not in index] == []


def test_every_class_and_function_named_beside_a_file_is_in_that_file() -> None:
    for name, symbols in re.findall(r"`([\w/]+\.py)`: ((?:`[\w.]+`(?:, | = )?)+)", TEXT):
        source = (PACKAGE / name).read_text(encoding="utf-8")
        for symbol in re.findall(r"`([\w.]+)`", symbols):
            assert re.search(rf"\b{symbol.split('.')[-1]}\b", source), f"{symbol} is not in {name}"


def test_presets_and_ablations_that_are_named_exist() -> None:
    assert set(PRESETS) == {"paper", "paper-small", "tiny"} and "portrait" in PORTRAIT_PRESETS
    assert {"direct-3dmm", "cross-attention"} <= set(ABLATIONS)


def test_no_preset_that_is_gone_is_named() -> None:
    assert [span for span in SPANS if span in ("lp3d", "small", "small-literal")] == []


def test_the_parameter_counts_are_those_of_the_code() -> None:
    table = TEXT.split("## 4.")[1].split("## 5.")[0]
    printed = {k: int(v.replace(",", "")) for k, v in re.findall(r"^\| ([\w.]+) \| ([\d,]+) \|", table, re.MULTILINE)}
    counts = count_parameters(Export3D(PAPER))
    assert printed == counts
    share = counts["generator.blocks"] / counts["total"]
    assert f"hold {100 * share:.0f} % of them" in table
