"""Consent is asked for once and never blocks a program; the label is legible and in its corner."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from export3d.errors import UsageError
from export3d.provenance.consent import consent_of, may_ask, remember_consent, remembered_consent
from export3d.provenance.label import Label
from pictures import a_picture


def test_consent_is_a_sentence_or_the_content_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "consent.txt"
    path.write_text("  Bob signed on 1 May.\n", encoding="utf-8")
    assert consent_of("Ann agreed.") == "Ann agreed." and consent_of(str(path)) == "Bob signed on 1 May."


@pytest.mark.parametrize("text", ["", "  ", "x" * 2001])
def test_consent_of_no_or_endless_length_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="1 to 2000 characters"):
        consent_of(text)


def test_a_consent_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "consent.bin"
    path.write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(UsageError, match="not a readable text file"):
        consent_of(str(path))


def test_the_answer_is_remembered_an_empty_one_too() -> None:
    assert remembered_consent() is None
    assert remember_consent("It is me.") and remembered_consent() == "It is me."
    assert remember_consent("") and remembered_consent() == ""


def test_an_answer_that_cannot_be_kept_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("EXPORT3D_CONFIG", str(tmp_path / "file" / "config"))
    assert not remember_consent("It is me.") and remembered_consent() is None


def test_only_a_person_at_a_terminal_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    assert may_ask(yes=False, terminal=True)
    assert not may_ask(yes=True, terminal=True) and not may_ask(yes=False, terminal=False)
    monkeypatch.setenv("EXPORT3D_YES", "1")
    assert not may_ask(yes=False, terminal=True)


@pytest.mark.parametrize("size", [64, 256, 512])
def test_the_label_keeps_to_the_lower_right_corner(size: int) -> None:
    image = a_picture(0, size)
    changed = (Label()(image) != image).any(axis=-1)
    rows, columns = np.nonzero(changed)
    assert rows.min() > 0.75 * size and rows.max() < size and (size < 256 or columns.min() > 0.6 * size)


@pytest.mark.parametrize("ground", [0, 128, 255])
def test_the_label_stands_out_from_any_ground_at_256(ground: int) -> None:
    shown = Label()(np.full((256, 256, 3), ground, dtype=np.uint8)).astype(int)[230:252, 160:250].mean(axis=-1)
    assert shown.max() - shown.min() > 130 and shown.max() > 200


def test_the_label_follows_a_change_of_size_and_leaves_the_frame_given_alone() -> None:
    label, small, large = Label("made by a machine"), a_picture(0, 100), a_picture(0, 300)
    before = small.copy()
    first = label(small)
    label(large)
    assert (label(small) == first).all() and (small == before).all()


@pytest.mark.parametrize("text", ["", "   ", "x" * 41])
def test_a_label_of_no_or_endless_length_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--label must have 1 to 40 characters"):
        Label(text)


def test_letters_that_cannot_be_drawn_are_named() -> None:
    with pytest.raises(UsageError, match="the built-in font has no 'é生'"):
        Label("généré 生")
