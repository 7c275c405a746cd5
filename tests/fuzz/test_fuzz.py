"""A few damaged files of each kind through its reader: a typed error or a value, nothing else. `make fuzz` does thousands."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from attack import attempt
from damage import flipped
from readers import READERS

FILES = 12
FLIPS = 40


@pytest.mark.parametrize("kind", READERS)
def test_damaged_files_give_a_typed_error_or_a_value(kind: str, tmp_path: Path) -> None:
    (tmp_path / "good").mkdir()
    good = READERS[kind].make(tmp_path / "good")
    READERS[kind].read(good)  # the good one is good
    content = good.read_bytes()
    for seed in range(FILES):
        outcome, text = attempt(kind, good, tmp_path / "work", READERS[kind].damage(content, seed))
        assert outcome in ("read", "refused"), f"seed {seed}: {text}"


@pytest.mark.parametrize("kind", [kind for kind, reader in READERS.items() if reader.sealed])
def test_no_single_bit_changes_unnoticed(kind: str, tmp_path: Path) -> None:
    (tmp_path / "good").mkdir()
    good = READERS[kind].make(tmp_path / "good")
    for seed in range(FLIPS):
        outcome, text = attempt(kind, good, tmp_path / "work", flipped(good.read_bytes(), seed))
        assert outcome == "refused", f"seed {seed}: {outcome} {text}"
