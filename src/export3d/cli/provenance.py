"""What the commands that make pictures share: the question for consent, who may be animated, and warnings."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from export3d.cli.common import warn
from export3d.provenance import ProvenanceOptions

if TYPE_CHECKING:
    from export3d.provenance import AllowedSources, Finish


def start_finish(
    options: ProvenanceOptions,
    *,
    source: Path,
    drivers: Sequence[Path] = (),
    model: str | None = None,
    composite: bool = False,
) -> Finish:
    """Label, mark and manifest for what is made from these files; asks for consent where nobody was asked yet.

    Raises:
        UsageError: A label or consent that cannot be used.
        CertificateError, MissingExtraError: The given certificate cannot be used.
    """
    from export3d.portrait.loading import checkpoint_path
    from export3d.provenance import Facts, Finish

    consent = find_consent(options)
    facts = Facts(
        source=source, drivers=tuple(drivers), model=checkpoint_path(model), consent=consent or "", composite=composite
    )
    return Finish(options, facts)


def find_consent(options: ProvenanceOptions) -> str | None:
    """The given sentence, else the remembered one, else a person's answer, which is remembered; None without any."""
    from export3d.provenance.consent import QUESTION, consent_of, may_ask, remember_consent, remembered_consent

    if options.consent is not None:
        return consent_of(options.consent)
    known = remembered_consent()
    if known is not None or not may_ask(yes=options.yes, terminal=sys.stdin.isatty() and sys.stderr.isatty()):
        return known
    print(f"{QUESTION}\n> ", end="", file=sys.stderr, flush=True)
    answer = sys.stdin.readline().strip()
    if not remember_consent(answer):
        warn("warning: the answer cannot be kept; the next run asks again")
    return answer


def allowed_sources(allow: Path | None) -> AllowedSources | None:
    """The portraits of --allow; None where all may be animated."""
    from export3d.provenance import AllowedSources

    return None if allow is None else AllowedSources.load(allow)


def warn_of_missing_manifest(finish: Finish) -> None:
    """Say on stderr why an output has no signed manifest."""
    for warning in finish.warnings:
        warn(f"warning: {warning}")
