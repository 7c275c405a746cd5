"""A rendered batch, and how rays become pictures."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from export3d.rendering.renderer import RayResult


@dataclass(frozen=True)
class Render:
    """A rendered batch; r is the raw size or the window side, s the output size or the side of the same window there.

    Attributes:
        image: ``(B, 3, s, s)`` in about [-1, 1] (D-hat), or None if only the raw image was asked for.
        raw: ``(B, 3, r, r)`` in about [-1, 1] (D-hat raw).
        depth: ``(B, 1, r, r)`` distance along the ray, scene units.
        opacity: ``(B, 1, r, r)`` in [0, 1].
        image_opacity: ``(B, 1, s, s)`` the same at the output size, of the shipped model; None otherwise.
        guide: ``(B, 5, r, r)`` of the shipped model's source lookup, premultiplied by the opacity; None otherwise.
        planes: ``(B, 3, C, P, P)`` the generator's output before the running mean is added (for Eq. 12's update).
    """

    image: Tensor | None
    raw: Tensor
    depth: Tensor
    opacity: Tensor
    planes: Tensor
    image_opacity: Tensor | None = None
    guide: Tensor | None = None


def as_images(met: RayResult, side: int) -> tuple[Tensor, Tensor, Tensor]:
    """Rays in row-major order -> features (B, C, r, r), depth and opacity (B, 1, r, r) of a square of `side` rays."""
    features, depth, opacity = (
        x.transpose(1, 2).reshape(x.shape[0], -1, side, side)
        for x in (met.features, met.depth[..., None], met.opacity[..., None])
    )
    return features, depth, opacity
