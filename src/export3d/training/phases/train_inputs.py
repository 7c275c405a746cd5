"""What `export3d train` reads besides clips: perceptual networks and starting weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from export3d.checkpoint import load_strictly, read_checkpoint
from export3d.configs import config_difference, config_from_dict
from export3d.errors import TrainingError, UsageError
from export3d.expression.lebs import LeBS
from export3d.model.config import ModelConfig
from export3d.model.export3d import Export3D
from export3d.training.losses.perceptual import FaceNetworkDistance, load_lpips
from export3d.training.phases.config import TrainConfig
from export3d.training.phases.pretrain import load_face_network


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


def expression_of_model(path: Path) -> tuple[LeBS, dict[str, Any]]:
    """The frozen expression encoder of a model file, and the file's notes (extractor).

    Raises:
        CheckpointError: Missing, damaged, or of another format.
        UsageError: The model has none that is frozen.
    """
    stored = read_checkpoint(path, kind="export3d")
    config = config_from_dict(ModelConfig, stored.config).expression
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

    The configurations must be equal, except that a frozen expression encoder may go on as a trainable one, and that a motion
    basis, a source depth, a neck, the upper and the lower face may be added. They begin without a say, so the grown model gives
    the same pictures; with a neck, those of a torso that stands as in the portrait.

    Raises:
        TrainingError: The configurations differ; the differences are shown.
    """
    stored = read_checkpoint(path, kind="export3d")
    # Files may hold half precision; training goes on in single precision.
    tensors = {name: t.float() if t.is_floating_point() else t for name, t in stored.tensors.items()}
    given = config_from_dict(ModelConfig, stored.config)
    if given.expression.pretrained and not config.expression.pretrained and config.expression.kind == "lebs":
        tensors["expression.free_basis"] = tensors.pop("expression.stored_basis")
        given = replace(given, expression=replace(given.expression, pretrained=False))
    added: tuple[str, ...] = ()
    if not given.generator.motion_basis and config.generator.motion_basis:
        given = replace(given, generator=replace(given.generator, motion_basis=config.generator.motion_basis))
        added += ("generator.motion.",)
    if not given.source_depth.enabled and config.source_depth.enabled:
        given = replace(given, source_depth=config.source_depth)
        added += ("source_depth.",)
    if not given.neck.enabled and config.neck.enabled:
        given = replace(given, neck=config.neck)
        added += ("neck.",)
    for part in ("upper_face", "lower_face"):
        if getattr(config, part) and not getattr(given, part):
            given = replace(given, **{part: True})
            added += (f"{part}.",)
    if added and given == config:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            grown = Export3D(config).state_dict()
        tensors |= {name: t for name, t in grown.items() if name.startswith(added)}
    differences = config_difference(given, config)
    if differences:
        raise TrainingError(
            f"{path}: the model differs from the one to train (there -> here): " + "; ".join(differences)
        )
    return tensors, stored.sha256
