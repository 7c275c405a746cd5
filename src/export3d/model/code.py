"""What goes in and out of a model's parts: a portrait's code, and a rendered batch."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from export3d.camera import Camera


@dataclass(frozen=True)
class SourceCode:
    """What depends on the portrait only; computed once and reused for every frame.

    Attributes:
        tokens: ``(B, N, h)`` visual tokens (Sec. 3.2).
        highres: high-resolution features ``(B, C, P, P)``, or None.
        pixels: features of the portrait for the pixel-aligned branch or the source lookup ``(B, C, H/2, W/2)``, or None.
        camera: the portrait's camera.
        background: ``(B, 3, H, W)`` in [-1, 1] with the head filled in, or None.
        matte_logits: ``(B, 1, H/2, W/2)`` foreground of the portrait, or None.
        picture: ``(B, 4, H, W)`` the portrait in [-1, 1] and its foreground in [0, 1], for the source lookup, or None.
        condition: the portrait's own expression, as it joins that of the driver (B, d) or (B, n, d), or None.
        gaze: ``(B, 2)`` the portrait's gaze, yaw and pitch in radians; None where it is unknown.
        depth: ``(B, 2 + channels, H/2, W/2)`` depth map and more (`SourceDepth.maps`), or None.
        shapes: ``(B, S)`` expression weights read off the portrait's beta (`Export3D.read_shapes`), or None.
        turn: ``(B, 3)`` the portrait's turn of the head against torso and room, a rotation vector in radians
            (`Camera.head_turn`); None: the torso is as rigid as the head.
    """

    tokens: Tensor
    highres: Tensor | None
    pixels: Tensor | None
    camera: Camera
    background: Tensor | None
    matte_logits: Tensor | None
    picture: Tensor | None = None
    condition: Tensor | None = None
    gaze: Tensor | None = None
    depth: Tensor | None = None
    shapes: Tensor | None = None
    turn: Tensor | None = None


@dataclass(frozen=True)
class Render:
    """A rendered batch; r is the raw size or the window side, s the output size or the side of the same window there.

    Attributes:
        image: ``(B, 3, s, s)`` in about [-1, 1] (D-hat), or None if only the raw image was asked for.
        raw: ``(B, 3, r, r)`` in about [-1, 1] (D-hat raw).
        depth: ``(B, 1, r, r)`` distance along the ray, scene units.
        opacity: ``(B, 1, r, r)`` in [0, 1].
        image_opacity: ``(B, 1, s, s)`` the same at the output size, from a model with a source lookup; None otherwise.
        planes: ``(B, 3, C, P, P)`` the generator's output before the running mean is added (for Eq. 12's update).
    """

    image: Tensor | None
    raw: Tensor
    depth: Tensor
    opacity: Tensor
    planes: Tensor
    image_opacity: Tensor | None = None
