"""Wrinkles that come with the expression, as bump on the face tile: forehead, frown, crow's feet, cheek folds."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from export3d.heads.look.atlas import canvas
from export3d.heads.raster.fields import along_curve, curve, shared_noise, smoothstep
from export3d.heads.shape.parametric import ParametricHead

GROUPS = 4
"""Forehead lines, frown lines, crow's feet, folds from nose to mouth."""

_DRIVERS: tuple[dict[str, float], ...] = (
    {"browInnerUp": 0.6, "browOuterUp": 0.6},
    {"browDown": 0.9, "noseSneer": 0.4, "browInnerUp": 0.2},
    {"eyeSquint": 0.7, "cheekSquint": 0.7, "mouthSmile": 0.35, "eyeBlink": 0.1},
    {"mouthSmile": 0.9, "noseSneer": 0.7, "mouthUpperUp": 0.3, "mouthStretch": 0.2, "cheekSquint": 0.2},
)
_AT_AGE_75 = (0.55, 0.35, 0.55, 0.65)  # depth of each group in a resting old face


@functools.lru_cache(maxsize=4)
def _drivers(head: ParametricHead) -> Tensor:
    """``(53, 4)`` weights -> wrinkle groups; left and right count half each."""
    table = torch.zeros(len(head.expression_names), GROUPS, device=head.vertices.device)
    for group, drivers in enumerate(_DRIVERS):
        for name, amount in drivers.items():
            for side in (f"{name}_L", f"{name}_R"):
                table[head.expression_index[side], group] = amount / 2
    return table


def wrinkle_depth(head: ParametricHead, weights: Tensor, age: float) -> Tensor:
    """``(T, 4)`` depth of each group of wrinkles in about [0, 1.2] for ``(T, 53)`` weights and an age in years."""
    old = min(max((age - 25.0) / 50.0, 0.0), 1.0)
    moved = (weights.clamp(0, 1) @ _drivers(head)).clamp(0, 1)
    return moved * (0.55 + 0.55 * old) + weights.new_tensor(_AT_AGE_75) * old**1.3


@functools.lru_cache(maxsize=4)
def wrinkle_fields(head: ParametricHead, size: int) -> Tensor:
    """``(size, size, 4 groups, 4)`` on the face tile: bump direction (3) and crease darkness (1)."""
    c = canvas(head, size)
    x, y, z = c.position.unbind(1)
    ax = x.abs()
    front = smoothstep(0.0, 0.3, c.normal[:, 2])
    landmarks = head.vertices[head.landmark_vertices]
    noise = shared_noise(61)
    wander = noise(c.position * 0.6)[:, 0]
    values = torch.zeros(len(x), GROUPS, 4, device=x.device)
    # Forehead: wavy horizontal lines above the brows.
    brow = float(landmarks[17:27, 1].amax())
    phase = 2 * torch.pi * (y + 0.35 * wander + 0.012 * x * x) / 1.05
    mask = smoothstep(brow + 0.2, brow + 1.2, y) * smoothstep(brow + 5.0, brow + 3.4, y) * smoothstep(5.8, 3.6, ax)
    mask = mask * front * (0.75 + 0.25 * noise(c.position * 0.9 + 4)[:, 0])
    values[:, 0, 1] = phase.cos() * mask
    values[:, 0, 3] = smoothstep(0.55, 1.0, -phase.sin()) * mask
    # Frown: two vertical creases between the brows.
    low = float(landmarks[27, 1])
    mask = smoothstep(low - 0.4, low + 0.8, y) * smoothstep(low + 3.8, low + 2.2, y) * front
    gap = (ax - 0.55 - 0.06 * wander) / 0.26
    crease = torch.exp(-gap * gap)
    values[:, 1, 0] = 2.2 * gap * crease * mask * x.sign()
    values[:, 1, 3] = crease * mask
    # Crow's feet: rays from the outer corners of the eyes.
    corner_x, corner_y = float(landmarks[45, 0] - landmarks[36, 0]) / 2, float(landmarks[[36, 45], 1].mean())
    dx, dy = ax - corner_x + 0.5, y - corner_y
    radius, angle = torch.hypot(dx, dy), torch.atan2(dy, dx)
    phase = 2 * torch.pi * (angle + 0.12 * wander) / 0.42
    mask = smoothstep(0.85, 1.3, radius) * smoothstep(3.0, 1.7, radius) * smoothstep(1.0, 0.6, angle.abs())
    values[:, 2, 0] = -phase.cos() * angle.sin() * mask * x.sign()
    values[:, 2, 1] = phase.cos() * angle.cos() * mask
    values[:, 2, 3] = smoothstep(0.55, 1.0, -phase.sin()) * mask
    # Folds from the wings of the nose around the corners of the mouth.
    wing, mouth = landmarks[35, :2], landmarks[54, :2]
    line = torch.stack(
        [
            wing + wing.new_tensor([0.25, 0.75]),
            wing + wing.new_tensor([0.95, -0.15]),
            mouth + mouth.new_tensor([0.75, 0.65]),
            mouth + mouth.new_tensor([0.85, -0.7]),
        ]
    )
    near = ((ax < 6) & (y > -7) & (y < 2.5) & (z > 3)).nonzero()[:, 0]
    along, across = along_curve(curve(line, 32), torch.stack([ax[near], y[near]], 1))
    fade = smoothstep(0.0, 0.2, along) * smoothstep(1.0, 0.75, along) * front[near]
    gap = across / 0.34
    crease = torch.exp(-gap * gap)
    values[near, 3, 0] = 1.9 * gap * crease * fade * x[near].sign() * 0.8
    values[near, 3, 1] = 1.9 * gap * crease * fade * 0.5
    values[near, 3, 3] = crease * fade
    atlas = c.assemble(values.reshape(len(x), -1))
    return atlas[:, :size].reshape(size, size, GROUPS, 4).contiguous()
