"""What a pre-training run leaves behind, and who may go on with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from export3d.checkpoint import load_strictly, read_checkpoint
from export3d.configs import config_from_dict
from export3d.errors import TrainingError
from export3d.expression.image_encoder import ImageEncoder, ImageEncoderConfig
from export3d.expression.lebs import LeBS, LeBSConfig

EXPRESSION_FILE = "expression.safetensors"
FACE_NETWORK_FILE = "face_network.safetensors"
EXPRESSION_KIND = "lebs"
FACE_NETWORK_KIND = "image-encoder"


def check_space(extractor: dict[str, str], space: str, where: str, option: str = "--expression.space") -> None:
    """Raise `TrainingError` if the data's beta does not mean what the expression encoder expects; `option` changes that."""
    given = extractor["expression_space"]
    if given != space:
        raise TrainingError(
            f"{where}: its beta is in the expression space '{given}'; the configuration expects '{space}'. "
            f"Set {option} {given}, or prepare the data with another extractor."
        )


def load_expression(folder: str | Path) -> tuple[LeBS, dict[str, Any]]:
    """The frozen expression encoder of a pre-training run, and its notes (extractor, step, configuration).

    Raises:
        CheckpointError: Missing, damaged, or of another format.
    """
    path = _part_path(folder, EXPRESSION_FILE)
    stored = read_checkpoint(path, kind=EXPRESSION_KIND)
    expression = LeBS(config_from_dict(LeBSConfig, stored.config))
    load_strictly(expression, stored.tensors, str(path))
    return expression.requires_grad_(False), stored.extra


def load_face_network(path: str | Path) -> tuple[ImageEncoder, str]:
    """The image encoder of a pre-training run for the substitute perceptual distance, and its digest."""
    path = _part_path(path, FACE_NETWORK_FILE)
    stored = read_checkpoint(path, kind=FACE_NETWORK_KIND)
    encoder = ImageEncoder(config_from_dict(ImageEncoderConfig, stored.config))
    load_strictly(encoder, stored.tensors, str(path))
    return encoder.eval().requires_grad_(False), stored.sha256


def _part_path(path: str | Path, name: str) -> Path:
    path = Path(path)
    return path / name if path.is_dir() else path
