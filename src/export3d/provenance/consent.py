"""Consent: what the animated person (or whoever speaks for them) agreed to, in one sentence that goes into the manifest."""

from __future__ import annotations

import os
from pathlib import Path

from export3d.errors import UsageError
from export3d.provenance.folder import config_folder, write_private

YES_VARIABLE = "EXPORT3D_YES"
"""Environment variable that, set to anything, keeps programs from being asked."""

MAX_LENGTH = 2000

QUESTION = (
    "You are about to animate a person's portrait. In one sentence: who is shown, and did they agree?\n"
    "It is signed into each video as it stands; Enter leaves it out. Asked only once; --consent says it for one video."
)


def consent_of(text_or_file: str) -> str:
    """The sentence itself, or the content of the text file of that name.

    Raises:
        UsageError: Longer than 2000 characters, empty, or a file that is not text.
    """
    path = Path(text_or_file)
    try:
        text = path.read_text(encoding="utf-8") if len(text_or_file) < 256 and path.is_file() else text_or_file
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--consent {text_or_file}: not a readable text file ({error}).") from error
    text = text.strip()
    if not 0 < len(text) <= MAX_LENGTH:
        raise UsageError(f"--consent must have 1 to {MAX_LENGTH} characters; got {len(text)}.")
    return text


def remembered_consent() -> str | None:
    """What was answered at first use; empty for an answer that left it out, None if nobody was asked yet."""
    try:
        return _file().read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return None


def remember_consent(text: str) -> bool:
    """Keep the answer in the configuration folder; False where it cannot be written."""
    try:
        write_private(_file(), text.strip()[:MAX_LENGTH].encode() + b"\n")
    except OSError:
        return False
    return True


def may_ask(*, yes: bool, terminal: bool) -> bool:
    """Whether a person can be asked: only on a terminal, and not where --yes or the environment says no."""
    return terminal and not yes and not os.environ.get(YES_VARIABLE)


def _file() -> Path:
    return config_folder() / "consent.txt"
