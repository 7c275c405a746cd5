"""The offline identity network (Sec. 4.2, CSIM): a small CNN trained on rendered heads, with its own accuracy in its file.

It reads the face alone: the five-point crop under a soft ellipse. It was trained on synthetic heads and knows nothing of
real faces; its numbers cannot be compared with those of ArcFace.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib import resources
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from export3d.checkpoint import load_strictly, read_checkpoint, write_checkpoint
from export3d.checks import check_shape
from export3d.configs import config_from_dict, config_to_dict
from export3d.errors import CheckpointError
from export3d.identity.crops import crop_faces
from export3d.images import to_tensor
from export3d.tracking.faces import ExtractorInfo

KIND = "identity"
NAME = "identity-net"
VERSION = "1"

_BATCH = 64


@dataclass(frozen=True, kw_only=True)
class IdentityConfig:
    """Size of the network."""

    size: int = 64
    """Side of the crop in pixels."""
    stem: int = 24
    """Channels of the first convolution, which halves the picture."""
    widths: tuple[int, ...] = (40, 72, 112)
    """Channels of the stages; each halves the picture and adds a residual block."""
    dim: int = 80
    """Length of the embedding."""


class IdentityNet(nn.Module):
    """Face crops -> embeddings of length 1."""

    def __init__(self, config: IdentityConfig) -> None:
        super().__init__()
        self.config = config
        widths = (config.stem, *config.widths)
        self.stem = _conv(3, config.stem, stride=2)
        self.stages = nn.ModuleList(_conv(a, b, stride=2) for a, b in pairwise(widths))
        self.blocks = nn.ModuleList(nn.Sequential(_conv(width, width), _conv(width, width)) for width in widths[1:])
        side = config.size // 2 ** (1 + len(config.widths))
        self.head = nn.Linear(widths[-1] * side * side, config.dim)
        self.register_buffer("window", _ellipse(config.size), persistent=False)

    def forward(self, crops: Tensor) -> Tensor:
        """``(N, 3, S, S)`` in [-1, 1] -> ``(N, dim)``, each of length 1."""
        check_shape("crops", crops, None, 3, self.config.size, self.config.size)
        x = self.stem(crops * self.get_buffer("window"))
        for stage, block in zip(self.stages, self.blocks, strict=True):
            x = stage(x)
            x = x + block(x)
        return F.normalize(self.head(x.flatten(1)), dim=1)


class Landmarks(Protocol):
    """What was read in T frames, as far as the crop needs it."""

    @property
    def landmarks(self) -> np.ndarray:
        """``(T, 68, 2)`` pixels of a 256-pixel image; NaN rows where no face was found."""
        ...


class LandmarkReader(Protocol):
    """Finds the landmarks of each frame, NaN where there is no face; evaluation's face back ends do."""

    def measure(self, frames: np.ndarray) -> Landmarks:
        """uint8 ``(T, H, H, 3)`` frames of one clip in order -> what was read in them."""
        ...


class IdentityNetwork:
    """An `IdentityBackend`: finds the face with `faces`, crops it, embeds it.

    Args:
        net: the network.
        info: name, version and hash of the file.
        faces: gives the landmarks of the crop.
        facts: how it was trained and how well it tells held-out identities apart.
    """

    def __init__(self, net: IdentityNet, info: ExtractorInfo, faces: LandmarkReader, facts: dict[str, Any]) -> None:
        self.net = net.eval().requires_grad_(False)
        self.info = info
        self.facts = facts
        self._faces = faces

    def embeddings(self, frames: np.ndarray) -> np.ndarray:
        """See `IdentityBackend.embeddings`."""
        return self.embed(frames, self._faces.measure(frames).landmarks)

    @torch.inference_mode()
    def embed(self, frames: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
        """Embeddings ``(T, dim)`` of frames whose landmarks ``(T, 68, 2)``, pixels at 256, are known already."""
        crops = crop_faces(frames, landmarks, self.net.config.size)
        parts = [self.net(to_tensor(crops[i : i + _BATCH])).numpy() for i in range(0, len(crops), _BATCH)]
        out = np.concatenate(parts).astype(np.float64)
        out[~np.isfinite(landmarks).all(axis=(1, 2))] = np.nan
        return out

    @staticmethod
    def load(path: str | Path | None, faces: LandmarkReader) -> IdentityNetwork:
        """Read a file of :func:`save_identity`; None is the bundled one.

        Raises:
            CheckpointError: Missing, damaged, of another kind, or without its measured accuracy.
        """
        path = bundled_identity() if path is None else Path(path)
        stored = read_checkpoint(path, KIND)
        if "verification" not in stored.extra:
            raise CheckpointError(
                f"{path}: its accuracy on held-out identities is not stored, so that its scores mean nothing. "
                "Train it again: export3d train-identity"
            )
        net = IdentityNet(config_from_dict(IdentityConfig, stored.config))
        load_strictly(net, stored.tensors, str(path))
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        return IdentityNetwork(net, ExtractorInfo(NAME, VERSION, digest, ""), faces, stored.extra)


def bundled_identity() -> Path:
    """Where the bundled identity network lies, if this installation has it."""
    return Path(str(resources.files("export3d"))) / "assets" / "identity.safetensors"


def save_identity(path: str | Path, net: IdentityNet, facts: dict[str, Any]) -> str:
    """Write the network with float16 weights and the facts about it, which must hold `verification`."""
    if "verification" not in facts:
        raise ValueError("save_identity: facts must hold 'verification'")
    tensors = {name: t.half() if t.is_floating_point() else t for name, t in net.state_dict().items()}
    return write_checkpoint(path, tensors, kind=KIND, config=config_to_dict(net.config), extra=facts)


def _conv(num_in: int, num_out: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(num_in, num_out, 3, stride, 1, bias=False), nn.BatchNorm2d(num_out), nn.PReLU(num_out)
    )


def _ellipse(size: int) -> Tensor:
    """``(size, size)``: 1 on the face, 0 in the corners, so that background and most of the hair do not count."""
    centres = (torch.arange(size) + 0.5) / size
    y, x = torch.meshgrid(centres, centres, indexing="ij")
    distance = torch.sqrt(((x - 0.5) / 0.5) ** 2 + ((y - 0.55) / 0.6) ** 2)
    return ((1.0 - distance) / 0.1).clamp(0.0, 1.0)
