"""Eyes: the painted eyeball, gaze, lids that just close, lashes (no paper section)."""

from __future__ import annotations

import functools

import torch
import torch.nn.functional as F
from torch import Tensor

from export3d.heads.look.appearance import Traits
from export3d.heads.raster.fields import shared_noise, smoothstep
from export3d.heads.shape.parametric import ParametricHead

EYE_EXTENT_RAD = 1.3
"""The eye texture reaches this far from the eyeball's axis."""

_IRIS_RAD, _PUPIL_RAD = 0.46, 0.185


def paint_eye(traits: Traits, device: torch.device, size: int = 128) -> Tensor:
    """``(size, size, 3)`` eyeball around its axis: pupil, iris with fibres and rim, sclera with veins."""
    line = torch.linspace(-EYE_EXTENT_RAD, EYE_EXTENT_RAD, size, device=device)
    yy, xx = torch.meshgrid(line, line, indexing="ij")
    angle, turn = torch.hypot(xx, yy).reshape(-1), torch.atan2(yy, xx).reshape(-1)
    noise = shared_noise(51)
    salt = float(traits.seed % 97)

    def fibres(frequency: float, run: float) -> Tensor:
        ring = torch.stack([turn.cos() * frequency, turn.sin() * frequency, angle * run + salt], 1)
        return noise(ring)[:, 0] * 0.5 + 0.5

    color = torch.tensor(traits.iris, device=device)
    iris = (
        color * (0.55 + 0.54 * fibres(7, 4) + 0.3 * fibres(16, 9))[:, None] * (1.25 - 0.5 * angle / _IRIS_RAD)[:, None]
    )
    ring = smoothstep(0.14, 0.0, (angle - _PUPIL_RAD - 0.05).abs())[:, None]
    iris = iris * (1 + 0.5 * ring * torch.tensor([1.0, 0.8, 0.5], device=device))
    iris = iris * (1 - 0.7 * smoothstep(_IRIS_RAD - 0.10, _IRIS_RAD - 0.005, angle))[:, None]
    iris = iris * smoothstep(_PUPIL_RAD - 0.015, _PUPIL_RAD + 0.02, angle)[:, None] + 0.004
    place = torch.stack([xx.reshape(-1), yy.reshape(-1), torch.zeros_like(angle)], 1) * 3.3
    veins = noise.octaves(place + salt, 3)
    sclera = torch.tensor([0.72, 0.68, 0.66], device=device) * (1 - 0.06 * veins)
    sclera = sclera * (1 - smoothstep(0.5, 1.15, angle)[:, None] * torch.tensor([0.05, 0.30, 0.30], device=device))
    mask = smoothstep(_IRIS_RAD + 0.03, _IRIS_RAD - 0.02, angle)[:, None]
    return (sclera * (1 - mask) + iris * mask).reshape(size, size, 3)


def eye_uv(head: ParametricHead, neutral: Tensor, centers: Tensor) -> Tensor:
    """Place of the eyeballs' vertices in the eye texture."""
    uv = torch.zeros(neutral.shape[0], 2, device=neutral.device)
    for eye, part in enumerate(("sclera_left", "sclera_right")):
        index = head.vertices_of(part).nonzero()[:, 0]
        axis = F.normalize(head.eye_axes[eye], dim=0)
        right = F.normalize(torch.linalg.cross(axis.new_tensor([0.0, 1.0, 0.0]), axis), dim=0)
        up = torch.linalg.cross(axis, right)
        direction = F.normalize(neutral[index] - centers[eye], dim=1)
        angle = torch.acos((direction @ axis).clamp(-1, 1))
        flat = F.normalize(torch.stack([direction @ right, direction @ up], 1), dim=1)
        uv[index] = (flat * angle[:, None] / EYE_EXTENT_RAD).clamp(-1, 1) * 0.5 + 0.5
    return uv


def blink_scale(head: ParametricHead, rest: Tensor) -> Tensor:
    """``(2,)`` how much of eyeBlink closes each eye of the resting head: lid gap / gap closed by weight 1."""
    scales = []
    for name, upper, lower in (("eyeBlink_L", (43, 44), (47, 46)), ("eyeBlink_R", (37, 38), (41, 40))):
        mode = head.expression_basis[head.expression_index[name], :, 1]
        up, low = head.landmark_vertices[list(upper)], head.landmark_vertices[list(lower)]
        gap = (rest[up, 1] - rest[low, 1]).mean()
        closing = (mode[low] - mode[up]).mean().clamp(min=1e-3)
        scales.append((gap / closing).clamp(0.5, 1.15))
    return torch.stack(scales)


def gaze_rotation(yaw: Tensor, pitch: Tensor) -> Tensor:
    """``(T, 3, 3)`` Ry(yaw) Rx(pitch)."""
    cy, sy, cp, sp = yaw.cos(), yaw.sin(), pitch.cos(), pitch.sin()
    zero = torch.zeros_like(yaw)
    rows = [cy, sy * sp, sy * cp, zero, cp, -sp, -sy, cy * sp, cy * cp]
    return torch.stack(rows, -1).reshape(-1, 3, 3)


@functools.lru_cache(maxsize=4)
def lash_reach(head: ParametricHead) -> Tensor:
    """``(V,)`` cm from the lashes' vertices to the lids; 0 elsewhere."""
    reach = torch.zeros(head.vertices.shape[0], device=head.vertices.device)
    lashes = head.vertices_of("lashes_left", "lashes_right")
    near = head.vertices_of("face") & (head.vertices[:, 1] > 1.0) & (head.vertices[:, 1] < 6.5)
    if bool(lashes.any()):
        reach[lashes] = torch.cdist(head.vertices[lashes], head.vertices[near]).amin(1)
    return reach
