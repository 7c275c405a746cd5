"""The Export3D model: presets, generator, decoder, renderer and super-resolution in one forward pass."""

from export3d.model.config import ABLATIONS, PRESETS, ModelConfig, ablation, preset
from export3d.model.export3d import Export3D, Render, SourceCode
from export3d.model.loading import load_model, save_model
from export3d.rendering.fast import FastConfig

__all__ = [
    "ABLATIONS",
    "PRESETS",
    "Export3D",
    "FastConfig",
    "ModelConfig",
    "Render",
    "SourceCode",
    "ablation",
    "load_model",
    "preset",
    "save_model",
]
