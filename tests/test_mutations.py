"""The named mutations stay true: what each replaces still stands once in the source, and the test that kills it exists."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
_SPEC = importlib.util.spec_from_file_location("named_mutations", ROOT / "benchmarks" / "named_mutations.py")
assert _SPEC is not None and _SPEC.loader is not None
named = importlib.util.module_from_spec(_SPEC)
sys.modules[_SPEC.name] = named  # dataclasses look their module up
_SPEC.loader.exec_module(named)


@pytest.mark.parametrize("mutation", named.NAMED, ids=lambda mutation: mutation.name)
def test_the_mutation_can_be_made_and_its_test_is_there_and_documented(mutation: named.Named) -> None:  # type: ignore[name-defined]
    source = (ROOT / "src" / "export3d" / mutation.path).read_text(encoding="utf-8")
    assert source.count(mutation.old) == 1 and mutation.new != mutation.old
    file, _, name = mutation.test.partition("::")
    assert f"def {name}(" in (ROOT / file).read_text(encoding="utf-8")
    page = (ROOT / "docs" / "mutations.md").read_text(encoding="utf-8")
    assert f"| {mutation.name} | `{Path(file).name}` {name.removeprefix('test_').replace('_', ' ')} |" in page
