"""The options of provenance, the same for every command that makes pictures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from export3d.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class ProvenanceOptions:
    """What outputs say about themselves, and who may be animated."""

    label: str | None = None
    """Words to show in the lower right corner, such as "AI-generated"."""

    no_label: bool = False
    """Show no words."""

    no_mark: bool = False
    """Leave out the invisible mark."""

    no_manifest: bool = False
    """Leave out the signed manifest."""

    consent: str | None = None
    """One sentence, or a text file: who is shown and that they agreed. Goes into the signed manifest."""

    allow: Path | None = None
    """Folder or list of pictures: only these portraits may be animated, or copies that look the same."""

    certificate: Path | None = None
    """Certificate (PEM, with those above it) that signs the manifest. A local one is made at first use when left out."""

    key: Path | None = None
    """Its private key (PEM, no password)."""

    yes: bool = False
    """Ask nothing; the environment variable EXPORT3D_YES does the same."""

    def __post_init__(self) -> None:
        if (self.certificate is None) != (self.key is None):
            raise UsageError("--certificate and --key belong together; give both or neither.")
