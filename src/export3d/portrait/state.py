"""What the portrait model keeps of a portrait, and of a portrait in one state of its driver."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypeVar

from torch import Tensor

from export3d.camera import Camera
from export3d.face_state import FaceState
from export3d.rendering.fused import interleaved, repainted


@dataclass(frozen=True)
class PhotoMaps:
    """The photograph itself, the same crop at its own size (`compose.py`); S is even.

    Attributes:
        picture: ``(B, 3, S, S)`` the photograph, sharpened, in [-1, 1].
        background: ``(B, 3, S, S)`` in [-1, 1], the head filled in.
        foreground: ``(B, 1, S, S)`` of the photograph in [0, 1].
    """

    picture: Tensor
    background: Tensor
    foreground: Tensor

    @cached_property
    def interleaved(self) -> Tensor:
        """The first picture as the compiled renderer reads it."""
        return interleaved(self.picture[0])

    def half(self) -> PhotoMaps:
        """The same in half the memory."""
        return PhotoMaps(self.picture.half(), self.background.half(), self.foreground.half())

    def float(self) -> PhotoMaps:
        """The same in single precision."""
        return PhotoMaps(self.picture.float(), self.background.float(), self.foreground.float())


@dataclass(frozen=True, kw_only=True)
class PortraitMaps:
    """What is read off the portrait alone.

    Attributes:
        matte_logits: ``(B, 1, H/2, W/2)`` foreground.
        background: ``(B, 3, H, W)`` in [-1, 1], the head filled in.
        picture: ``(B, 4, H, W)`` the portrait, sharpened, in [-1, 1] and its foreground in [0, 1].
        features: ``(B, C, H/2, W/2)`` learned detail (`SourceLookup.encode`).
        depth: ``(B, 2 + C, H/2, W/2)`` depth, foreground, learned channels (`SourceDepth.maps`).
        photo: the photograph at its own size, where it was given; then pictures are composed at that size.
    """

    matte_logits: Tensor
    background: Tensor
    picture: Tensor
    features: Tensor
    depth: Tensor
    photo: PhotoMaps | None = None

    @cached_property
    def interleaved(self) -> Tensor:
        """The first picture as the compiled renderer reads it."""
        return interleaved(self.picture[0])

    def before(self, background: Callable[[int], Tensor]) -> PortraitMaps:
        """The maps with another background, as a picture ``(B, 3, s, s)`` of each side s."""
        photo = self.photo and replace(self.photo, background=background(self.photo.background.shape[-1]))
        return replace(self, background=background(self.background.shape[-1]), photo=photo)


Box = tuple[slice, slice]
"""Rows and columns of a picture."""

Maps = TypeVar("Maps", PhotoMaps, PortraitMaps)


def patched(maps: Maps, parts: Sequence[tuple[Box, Tensor]]) -> Maps:
    """The maps with these parts of their picture, each ``(B, C, h, w)``, laid over it."""
    picture = maps.picture.clone()
    for (rows, columns), part in parts:
        picture[..., rows, columns] = part
    made = replace(maps, picture=picture)
    inside = all(0 < one.start and one.stop < picture.shape[-1] for box, _ in parts for one in box)
    if inside and "interleaved" in vars(maps):  # known already: patched as well, which takes a part of the time
        vars(made)["interleaved"] = repainted(maps.interleaved, parts)
    return made


@dataclass(frozen=True, kw_only=True)
class PortraitCode:
    """What depends on the portrait only; made once, used for every frame.

    Attributes:
        tokens: ``(B, N, h)`` visual tokens (Sec. 3.2).
        detail: ``(B, C, P, P)`` high-resolution features.
        maps: what is read off the picture.
        camera: the portrait's camera.
        state: the portrait's own face.
    """

    tokens: Tensor
    detail: Tensor
    maps: PortraitMaps
    camera: Camera
    state: FaceState


@dataclass(frozen=True, kw_only=True)
class DrivenPlanes:
    """The portrait in one state of the driver: all that the renderer needs.

    Attributes:
        planes: ``(B, 3, C + 3, P, P)`` residual planes (Eq. 4), then a displacement in x, y, z.
        turn: ``(B, 3)`` of the head in this state, see `FaceState`; None: as rigid as the portrait.
        code: the portrait.
        bend: the guide of the whole picture's rays ``(1, 5, r, r)``, their opacity ``(1, 1, r, r)`` and where they met the skin
            ``(1, 3, r, r)`` -> another guide; None: it stays.
    """

    planes: Tensor
    turn: Tensor | None
    code: PortraitCode
    bend: Callable[[Tensor, Tensor, Tensor], Tensor] | None = None
