"""`export3d verify`: what a video or picture says about how it was made."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from export3d.cli.common import entry, say, set_threads
from export3d.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class VerifyOptions:
    """Look for a signed manifest and the invisible mark in videos and pictures of any origin.

    Exit code 0: valid manifest and mark. 60: manifest alone. 61: mark alone. 62: neither. 63: changed after signing. Of several
    files the highest counts. A file that cannot be read ends with its own code.
    """

    files: tyro.conf.Positional[tuple[Path, ...]]
    """Videos or pictures."""

    json: bool = False
    """Print one JSON list instead of sentences."""

    time_limit: Annotated[float, tyro.conf.arg(metavar="SECONDS")] = 60.0
    """Longest time for one file, seconds."""

    threads: int = 0
    """Threads; 0 is automatic."""


def run(options: VerifyOptions) -> int:
    """Check each file and print what was found; returns the exit code."""
    from export3d.provenance.verify import in_words, verify_file

    if not options.files:
        raise UsageError("verify: name at least one file.")
    if not 0 < options.time_limit <= 86400:
        raise UsageError(f"--time-limit must be above 0 and at most 86400 seconds; got {options.time_limit}.")
    set_threads(options.threads)
    reports = []
    for path in options.files:
        reports.append(verify_file(path, time_limit_s=options.time_limit))
        if not options.json:
            say(in_words(reports[-1]))
    if options.json:
        say(json.dumps([report.as_json() for report in reports], indent=2))
    return max(report.exit_code for report in reports)


verify_main = entry("verify", VerifyOptions, run)
