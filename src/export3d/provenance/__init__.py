"""Provenance: what a film says about how it was made, who may be animated, and how anyone can check it (no section).

Every output passes `Finish`: visible label (on request), invisible mark, signed manifest. See docs/provenance.md.
"""

from export3d.provenance.allowed import AllowedSources
from export3d.provenance.finish import Facts, Finish, ProvenanceOptions
from export3d.provenance.mark import Marker
from export3d.provenance.verify import FileReport, verify_file

__all__ = [
    "AllowedSources",
    "Facts",
    "FileReport",
    "Finish",
    "Marker",
    "ProvenanceOptions",
    "verify_file",
]
