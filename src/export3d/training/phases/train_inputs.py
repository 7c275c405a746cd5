"""What `export3d train` reads besides clips: perceptual networks and starting weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from export3d.checkpoint import load_strictly, read_checkpoint
from export3d.configs import config_difference, config_to_dict
from export3d.errors import TrainingError, UsageError
from export3d.expression.lebs import LeBS
from export3d.model.config import ModelConfig
from export3d.portrait.drivable import Model
from export3d.portrait.loading import KIND, config_of
from export3d.training.losses.perceptual import FaceNetworkDistance, load_lpips
from export3d.training.phases.config import TrainConfig
from export3d.training.phases.pretrain_files import load_face_network


def find_perceptual(
    config: TrainConfig, face_network: Path | None, vgg: Path | None, lpips_heads: Path | None
) -> tuple[nn.Module | None, dict[str, Any]]:
    """The perceptual distance that the configuration names, and what to write down about it.

    Raises:
        UsageError: A file that it needs was not given.
        CheckpointError: A file cannot be read.
    """
    weights = config.weights
    if weights.perceptual == 0 and weights.perceptual_raw == 0:
        return None, {"kind": "none"}
    if config.perceptual == "face_network":
        if face_network is None:
            raise UsageError(
                "--perceptual face_network needs the network: give --face-network RUN (or --expression RUN) of a "
                "pre-training run, or --perceptual none --weights.perceptual 0 --weights.perceptual-raw 0."
            )
        encoder, digest = load_face_network(face_network)
        return FaceNetworkDistance(encoder), {"kind": "face_network", "sha256": digest}
    if vgg is None or lpips_heads is None:
        raise UsageError(
            "--perceptual lpips needs --vgg and --lpips-heads (docs/training.md names the files); without them use "
            "--perceptual face_network with the network of a pre-training run."
        )
    network, digests = load_lpips(vgg, lpips_heads)
    return network, {"kind": "lpips", **digests}


def install_expression(model: Model, expression: LeBS | None) -> None:
    """Put the pre-trained expression encoder into the model.

    A model with `expression.pretrained` keeps it frozen (the paper). Without, it starts there and is trained on, at
    `expression_rate` times the learning rate (not the paper); without an encoder it starts at random (Table 3, E2E LeBS).

    Raises:
        UsageError: The model wants one and none is given, or it has no place for one (Table 3, Direct 3DMM).
        TrainingError: Its configuration differs from the model's; the differences are shown.
    """
    wanted = model.config.expression
    if expression is None:
        if wanted.pretrained:
            raise UsageError(
                "this model needs a pre-trained expression encoder: run 'export3d pretrain' and give --expression RUN."
            )
        return
    if not isinstance(model.expression, LeBS):
        raise UsageError("--expression: this model has no basis to fill (kind 'direct'); leave the option out.")
    if replace(expression.config, pretrained=wanted.pretrained) != wanted:
        given, asked = config_to_dict(expression.config), config_to_dict(wanted)
        lines = [f"{name}: {given[name]} -> {asked[name]}" for name in asked if given[name] != asked[name]]
        raise TrainingError(
            "the pre-trained expression encoder does not fit the model (it has -> model wants): " + "; ".join(lines)
        )
    if wanted.pretrained:
        model.expression.load_state_dict(expression.state_dict())
        model.expression.requires_grad_(False)
        return
    with torch.no_grad():
        model.expression.layers.load_state_dict(expression.layers.state_dict())
        model.expression.coeff_scale.copy_(expression.coeff_scale)
        model.expression.free_basis.copy_(expression.basis)  # orthonormal: its own QR gives it back


def check_same_extractor(expression_notes: dict[str, Any], data_extractor: dict[str, str]) -> None:
    """Raise `TrainingError` if the expression encoder was trained on another extractor's beta than the data holds."""
    given = expression_notes["extractor"]
    if given == data_extractor:
        return
    lines = [
        f"{name}: {given.get(name)} -> {data_extractor.get(name)}"
        for name in sorted({*given, *data_extractor})
        if given.get(name) != data_extractor.get(name)
    ]
    raise TrainingError(
        "the expression encoder was pre-trained on another extractor than the data has (pre-training -> data): "
        + "; ".join(lines)
        + ". Pre-train on this data, or prepare it with the same extractor."
    )


def expression_of_model(path: Path) -> tuple[LeBS, dict[str, Any]]:
    """The frozen expression encoder of a model file, and the file's notes (extractor).

    Raises:
        CheckpointError: Missing, damaged, or of another format.
        UsageError: The model has none that is frozen.
    """
    stored = read_checkpoint(path, kind=KIND)
    config = config_of(stored.config, str(path)).expression
    if config.kind != "lebs" or not config.pretrained:
        raise UsageError(
            f"--start {path}: this model has no frozen expression encoder; give one with --expression RUN."
        )
    prefix = "expression."
    tensors = {name.removeprefix(prefix): t.float() for name, t in stored.tensors.items() if name.startswith(prefix)}
    expression = LeBS(config)
    load_strictly(expression, tensors, str(path))
    return expression.requires_grad_(False), stored.extra


def start_weights(path: Path, config: ModelConfig) -> tuple[dict[str, Tensor], str]:
    """Weights of a model file to begin with, and its digest.

    The configurations must be equal, except that a frozen expression encoder may go on as a trainable one.

    Raises:
        CheckpointError: The file is missing, damaged, or of another format.
        TrainingError: Another model or other sizes; the differences are shown.
    """
    stored = read_checkpoint(path, kind=KIND)
    given, tensors = config_of(stored.config, str(path)), dict(stored.tensors)
    if given.expression.pretrained and not config.expression.pretrained and config.expression.kind == "lebs":
        tensors["expression.free_basis"] = tensors.pop("expression.stored_basis")
        given = replace(given, expression=replace(given.expression, pretrained=False))
    differences = config_difference(given, config)
    if type(given) is not type(config):
        differences = [f"model: {type(given).__name__} -> {type(config).__name__}"]
    if differences:
        raise TrainingError(
            f"{path}: the model differs from the one to train (there -> here): " + "; ".join(differences)
        )
    return tensors, stored.sha256
