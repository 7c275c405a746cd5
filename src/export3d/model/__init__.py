"""Export3D as the paper has it: presets, generator, decoder and super-resolution in one forward pass."""

from export3d.model.config import ABLATIONS, PRESETS, ModelConfig, ablation
from export3d.model.export3d import Export3D
from export3d.model.result import Render

__all__ = ["ABLATIONS", "PRESETS", "Export3D", "ModelConfig", "Render", "ablation"]
