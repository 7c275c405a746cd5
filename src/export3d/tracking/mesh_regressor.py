"""The network behind the regressor's second input: MediaPipe's dense mesh to beta and the camera (Sec. 4, data).

The mesh is turned to a mean mesh first, so that what is left is the face and not its pose; that and the pose go through
principal components into a small network.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from export3d.checks import check_shape

NUM_MESH = 478
"""Points of the mesh; the last ten are the irises."""

NUM_POSE = 9
"""Two columns of a rotation (6), then the world origin in camera coordinates (3)."""

NUM_PLACE = 10
"""What turning the mesh to the mean takes out: two columns of the rotation (6), the size (1), the centre (3)."""

_FARTHEST = 4.0
"""Components count up to this many standard deviations: the mesh of an unusual face must not reach beyond what the
network has seen."""


@dataclass(frozen=True, kw_only=True)
class MeshConfig:
    """Size of the network."""

    components: int = 150
    """Principal components of the turned mesh."""
    hidden: int = 400
    """Width of the hidden layers."""
    layers: int = 2
    """Number of hidden layers."""
    beta_dim: int = 64
    """Length of beta."""
    dropout: float = 0.3
    """Share of hidden units left out in training."""

    def __post_init__(self) -> None:
        if min(self.components, self.hidden, self.layers, self.beta_dim) < 1 or not 0.0 <= self.dropout < 1.0:
            raise ValueError("MeshConfig: sizes must be at least 1, and dropout in [0, 1)")

    @staticmethod
    def from_dict(values: dict[str, Any]) -> MeshConfig:
        """The inverse of `dataclasses.asdict`; unknown keys raise a TypeError."""
        return MeshConfig(**values)


class MeshNet(nn.Module):
    """Mesh of the crop -> camera and beta. All statistics are buffers, so that the weights file holds everything."""

    def __init__(self, config: MeshConfig) -> None:
        super().__init__()
        self.config = config
        num_in = config.components + NUM_PLACE
        blocks: list[nn.Module] = []
        for width in [num_in, *[config.hidden] * (config.layers - 1)]:
            blocks += [nn.Linear(width, config.hidden), nn.SiLU(), nn.Dropout(config.dropout)]
        self.body = nn.Sequential(*blocks)
        self.head = nn.Linear(config.hidden, NUM_POSE + config.beta_dim)
        self.straight = nn.Linear(num_in, NUM_POSE + config.beta_dim)
        self.register_buffer("template", torch.zeros(NUM_MESH, 3))
        self.register_buffer("steadiness", torch.full((NUM_MESH,), 1.0 / NUM_MESH))
        self.register_buffer("basis", torch.zeros(3 * NUM_MESH, config.components))
        self.register_buffer("place_mean", torch.zeros(NUM_PLACE))
        self.register_buffer("place_scale", torch.ones(NUM_PLACE))
        self.register_buffer("pose_mean", torch.tensor([1.0, 0, 0, 0, -1.0, 0, 0, 0, 2.7]))
        self.register_buffer("pose_scale", torch.ones(NUM_POSE))
        self.register_buffer("beta_mean", torch.zeros(config.beta_dim))
        self.register_buffer("beta_gain", torch.ones(config.beta_dim))

    def features(self, mesh: Tensor) -> Tensor:
        """``(N, 478, 3)`` in units of the crop's side, x and y from its corner -> standardised ``(N, components + 10)``."""
        check_shape("mesh", mesh, None, NUM_MESH, 3)
        template = self.get_buffer("template")
        turned, place = turn_to_template(mesh, template, self.get_buffer("steadiness"))
        components = (turned - template).flatten(1) @ self.get_buffer("basis")
        place = (place - self.get_buffer("place_mean")) / self.get_buffer("place_scale")
        return torch.cat([components, place], dim=1).clamp(-_FARTHEST, _FARTHEST)

    def answer(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Features -> standardised pose ``(N, 9)`` and beta ``(N, 64)`` before the gain: what training compares."""
        out = self.head(self.body(features)) + self.straight(features)
        return out[:, :NUM_POSE], out[:, NUM_POSE:]

    def forward(self, mesh: Tensor) -> tuple[Tensor, Tensor]:
        """Mesh ``(N, 478, 3)`` as for :meth:`features` -> pose ``(N, 9)`` and beta ``(N, 64)``."""
        pose, beta = self.answer(self.features(mesh))
        mean = self.get_buffer("beta_mean")
        pose = pose * self.get_buffer("pose_scale") + self.get_buffer("pose_mean")
        return pose, mean + self.get_buffer("beta_gain") * (beta - mean)


class BetaReader:
    """The beta of one mesh after the other by a network, in NumPy: the same arithmetic in half PyTorch's time."""

    def __init__(self, net: MeshNet) -> None:
        part = {name: tensor.detach().numpy() for name, tensor in net.state_dict().items()}
        self._onto = Template(part["template"], part["steadiness"])
        self._basis = np.ascontiguousarray(part["basis"].T)
        self._place = part["place_mean"], part["place_scale"]
        self._hidden = [
            (layer.weight.numpy(), layer.bias.numpy()) for layer in net.body if isinstance(layer, nn.Linear)
        ]
        gain, mean = part["beta_gain"], part["beta_mean"]
        self._head, self._straight = (
            part[f"{name}.weight"][NUM_POSE:] * gain[:, None] for name in ("head", "straight")
        )
        self._bias = gain * (part["head.bias"] + part["straight.bias"])[NUM_POSE:] + (1.0 - gain) * mean

    def read(self, mesh: np.ndarray) -> np.ndarray:
        """Mesh ``(478, 3)`` as for :meth:`MeshNet.features` -> ``(beta_dim,)`` float32."""
        turned, place = self._onto.turned(mesh[None])
        components = self._basis @ (turned[0] - self._onto.points).reshape(-1)
        mean, scale = self._place
        features = np.concatenate([components, (place[0] - mean) / scale]).clip(-_FARTHEST, _FARTHEST)
        hidden = features
        for weight, bias in self._hidden:
            hidden = weight @ hidden + bias
            hidden = hidden / (1.0 + np.exp(-hidden))
        beta: np.ndarray = self._head @ hidden + self._straight @ features + self._bias
        return beta


def turn_to_template(mesh: Tensor, template: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """`Template.turned` of tensors; nothing is differentiated."""
    turned, place = Template(template.numpy(), weight.numpy()).turned(mesh.numpy())
    return torch.from_numpy(turned), torch.from_numpy(place)


class Template:
    """Points to which meshes are turned by weighted least squares.

    Args:
        points: ``(P, 3)``.
        weight: ``(P,)``, sum 1; large where expressions move the face little.
    """

    def __init__(self, points: np.ndarray, weight: np.ndarray) -> None:
        self.points = points
        self._weight, self._centre = weight, weight @ points
        self._weighted = (points - self._centre) * weight[:, None]

    def turned(self, mesh: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Meshes ``(N, P, 3)`` rotated, scaled and shifted onto the template ``(N, P, 3)``, and what was taken out
        ``(N, 10)``: two columns of the rotation, size, centre."""
        centre = self._weight @ mesh
        moved = mesh - centre[:, None]
        left, size, right = np.linalg.svd(np.swapaxes(moved, 1, 2) @ self._weighted)
        sign = np.sign(np.linalg.det(left @ right))  # a rotation, never a mirror image
        left[:, :, 2] *= sign[:, None]
        size[:, 2] *= sign
        rotation, scale = left @ right, size.sum(1) / (self._weight @ np.square(moved)).sum(1)
        turned = scale[:, None, None] * (moved @ rotation) + self._centre
        return turned, np.concatenate([rotation[:, :, 0], rotation[:, :, 1], 1.0 / scale[:, None], centre], axis=1)
