"""Exit codes: every kind of error has its own, and docs/exit_codes.md has each with the words of the code."""

from __future__ import annotations

import re
from pathlib import Path

from export3d import errors
from export3d.cli import BROKEN_PIPE_CODE, INTERRUPTED_CODE
from export3d.errors import Export3DError
from export3d.provenance import verify
from export3d.stopping import SIGNALS, StoppedBySignal

PAGE = (Path(__file__).parents[1] / "docs" / "exit_codes.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| (\d+) \| (\w*) \| (.+) \|$", PAGE, re.MULTILINE)


def kinds() -> list[type[Export3DError]]:
    """The base and every class of errors.py."""
    return [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Export3DError)]


def test_no_two_kinds_of_errors_share_a_code_and_all_of_them_are_in_one_file() -> None:
    codes = [kind.exit_code for kind in kinds()]
    assert len(set(codes)) == len(codes) and len(codes) > 20
    assert set(Export3DError.__subclasses__()) <= set(kinds())


def test_the_table_has_every_error_with_its_code_and_its_own_words() -> None:
    written = {name: (int(code), meaning) for code, name, meaning in ROWS if name}
    assert written == {kind.__name__: (kind.exit_code, kind.__doc__) for kind in kinds() if kind is not Export3DError}


def test_the_table_has_the_codes_that_are_no_errors_and_names_each_code_once_in_order() -> None:
    codes = [int(code) for code, _, _ in ROWS]
    others = {0, 1, INTERRUPTED_CODE, BROKEN_PIPE_CODE, *(StoppedBySignal(number).exit_code for number in SIGNALS)}
    others |= {verify.MANIFEST_ONLY, verify.MARK_ONLY, verify.NOTHING, verify.TAMPERED}
    assert codes == sorted(others | {kind.exit_code for kind in kinds()})
