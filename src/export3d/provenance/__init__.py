"""Provenance (Sec. 5): what a video says about how it was made, who may be animated, and how anyone can check it.

Every output passes `Finish`: visible label (on request), invisible mark, signed manifest. See docs/provenance.md.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_PUBLIC = {
    "AllowedSources": "allowed",
    "Facts": "finish",
    "FileReport": "verify",
    "Finish": "finish",
    "Marker": "mark",
    "ProvenanceOptions": "options",
    "verify_file": "verify",
}
"""Public name -> module. They are imported on first use: the options are read before PyTorch is wanted."""

__all__ = ["AllowedSources", "Facts", "FileReport", "Finish", "Marker", "ProvenanceOptions", "verify_file"]

if TYPE_CHECKING:
    from export3d.provenance.allowed import AllowedSources
    from export3d.provenance.finish import Facts, Finish
    from export3d.provenance.mark import Marker
    from export3d.provenance.options import ProvenanceOptions
    from export3d.provenance.verify import FileReport, verify_file


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(importlib.import_module(f"export3d.provenance.{_PUBLIC[name]}"), name)
    raise AttributeError(f"module 'export3d.provenance' has no attribute '{name}'")
