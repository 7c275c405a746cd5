"""Export3D: one portrait and a driving clip become a 3D-aware, expression- and camera-controllable video."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.2.0"

_PUBLIC = {
    "Animator": "export3d.animation",
    "Camera": "export3d.camera",
    "FaceState": "export3d.face_state",
    "Motion": "export3d.tracking",
    "Tracker": "export3d.tracking",
    "load_model": "export3d.portrait",
}
"""Public name -> module. They are imported on first use, so that `import export3d` stays light."""

__all__ = ["Animator", "Camera", "FaceState", "Motion", "Tracker", "__version__", "load_model"]

if TYPE_CHECKING:
    from export3d.animation import Animator
    from export3d.camera import Camera
    from export3d.face_state import FaceState
    from export3d.portrait import load_model
    from export3d.tracking import Motion, Tracker


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(importlib.import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'export3d' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted(__all__)
