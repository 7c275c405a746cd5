"""The model that ships, and the paper's model behind the same calls."""

from export3d.portrait.config import PORTRAIT_PRESETS, PortraitConfig
from export3d.portrait.cues import WeightMaps
from export3d.portrait.drivable import Drivable, Model, drivable
from export3d.portrait.loading import build_model, load_model, preset, save_model
from export3d.portrait.model import PortraitModel
from export3d.portrait.quick import quick
from export3d.portrait.state import DrivenPlanes, PortraitCode
from export3d.rendering.fast import FastConfig

__all__ = [
    "PORTRAIT_PRESETS",
    "Drivable",
    "DrivenPlanes",
    "FastConfig",
    "Model",
    "PortraitCode",
    "PortraitConfig",
    "PortraitModel",
    "WeightMaps",
    "build_model",
    "drivable",
    "load_model",
    "preset",
    "quick",
    "save_model",
]
