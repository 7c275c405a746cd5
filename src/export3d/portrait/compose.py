"""The picture at the photograph's own size (not in the paper): what one pass at the model's size leaves, enlarged, with the
photograph itself read where the source lookup says.

The volume, its rays and the super-resolution stay as small as they are. Places, shares of the layers, residual and opacity
are smooth and may be enlarged; the detail comes from the photograph.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from export3d.camera import Camera
from export3d.images import bounds
from export3d.portrait.background import background_window
from export3d.portrait.layers import GAIN, Choice, Layers, mixed, sharper, trusting
from export3d.portrait.lookup import SourceLookup, enlarged
from export3d.portrait.state import PhotoMaps, PortraitMaps
from export3d.rendering.rays import Window

Box = tuple[int, int, int, int]
"""Top, left, height, width."""

_VISIBLE = 1 / 512
"""Half a level: opacity below it does not show."""


@dataclass(frozen=True)
class Pass:
    """What one pass at the model's size leaves of a picture or of a window of it.

    Attributes:
        guide: ``(B, 5, r, q)`` of the source lookup, premultiplied by the opacity.
        opacity: ``(B, 1, r, q)``.
        choice: of the super-resolution, ``(B, .., s, t)``.
        layers: what it chose from, ``(B, .., s, t)``; None where it is `trusting` or a `part`.
    """

    guide: Tensor
    opacity: Tensor
    choice: Choice
    layers: Layers | None = None

    def trusting(self) -> Pass:
        """The same for pictures with the photograph's detail; see `layers.trusting`."""
        return self if self.layers is None else replace(self, choice=trusting(self.choice, self.layers), layers=None)

    def part(self, box: Box) -> Pass:
        """A rectangle of rays, without layers."""
        top, left, height, width = box

        def cut(x: Tensor) -> Tensor:
            k = x.shape[-1] // self.opacity.shape[-1]
            return x[..., k * top : k * (top + height), k * left : k * (left + width)]

        return Pass(cut(self.guide), cut(self.opacity), Choice(*map(cut, self.choice)))


def compose_small(left: Pass, maps: PortraitMaps, rays: int, window: Window | None) -> tuple[Tensor, Tensor]:
    """The final image ``(B, 3, s, s)`` and the head's opacity in it ``(B, 1, s, s)`` at the model's own size; `rays` along each
    side of the whole picture, of which `left` is all or the `window`."""
    assert left.layers is not None  # only a part has none
    size = maps.background.shape[-1]
    behind = background_window(maps.background, size, _pixels(window, size, rays))
    image, opacity = mixed(left.choice, left.layers)
    return opacity * image + (1.0 - opacity) * behind, opacity


def compose_photo(
    left: Pass,
    photo: PhotoMaps,
    read: Callable[[Pass, tuple[int, int]], tuple[Tensor, Tensor]],
    *,
    rays: int,
    size: int | None = None,
    window: Window | None = None,
    paint: Callable[[Pass, Tensor, Tensor], None] | None = None,
) -> tuple[Tensor, Tensor]:
    """The final image ``(B, 3, s, s)`` and the head's opacity in it ``(B, 1, s, s)`` with the photograph's detail.

    Args:
        left: what the pass left, of the whole picture or of the window.
        photo: the photograph.
        read: `head_at` with all that it needs of model and portrait.
        rays: along each side of the whole picture.
        size: side of the whole image; None is the photograph's.
        window: which square of rays `left` is of; None is the whole picture.
        paint: does in place, sooner, what `read` and the mixture with the background do (`march.paint_portrait`).

    Raises:
        ValueError: An odd size, or a window that is no whole number of pixels at that size.
    """
    size = size or photo.picture.shape[-1]
    if size % 2:
        raise ValueError(f"render: size must be even; got {size}")
    behind = background_window(photo.background, size, _pixels(window, size, rays))
    if window is not None or len(behind) > 1 or torch.is_grad_enabled():
        image, opacity = read(left, (behind.shape[-2], behind.shape[-1]))
        return opacity * image + (1.0 - opacity) * behind, opacity
    # In films most of the picture is background.
    whole = behind.clone(memory_format=torch.contiguous_format)
    whole_opacity = whole.new_zeros(1, 1, size, size)
    found = _moving_box(left, size)
    if found is None:
        return whole, whole_opacity
    box, (top, side, height, width) = found
    inner = (..., slice(top, top + height), slice(side, side + width))
    if paint is not None:
        paint(left.part(box), whole[inner], whole_opacity[inner])
        return whole, whole_opacity
    image, opacity = read(left.part(box), (height, width))
    whole[inner] += opacity * (image - whole[inner])
    whole_opacity[inner] = opacity
    return whole, whole_opacity


def head_at(
    left: Pass,
    size: tuple[int, int],
    *,
    photo: PhotoMaps,
    camera: Camera,
    pose: Callable[[Tensor], Tensor],
    lookup: SourceLookup,
) -> tuple[Tensor, Tensor]:
    """The head's colours ``(B, 3, h, w)`` and opacity ``(B, 1, h, w)`` at `size` (h, w), both even.

    Args:
        camera: the portrait's.
        pose: from the unturned volume to the portrait's torso.
    """
    layers = lookup.layers(left.guide, left.opacity, photo.picture, camera=camera, size=size, pose=pose)
    parts = [x.float() for x in left.choice]
    choice = Choice(*enlarged(torch.cat(parts, dim=1), size).split([x.shape[1] for x in parts], dim=1))
    return mixed(choice, sharper(layers, GAIN))


def _pixels(window: Window | None, size: int, rays: int) -> Window | None:
    """A window of rays in pixels of a picture of that size."""
    if window is None:
        return None
    if size % rays:
        raise ValueError(f"render: a window needs a size that is a multiple of the {rays} rays; got {size}")
    scale = size // rays
    return window[0] * scale, window[1] * scale, window[2] * scale


def _moving_box(left: Pass, size: int) -> tuple[Box, Box] | None:
    """The rectangle that holds all of the head, in rays and in pixels of a picture of that size, both sides even; None
    where there is no head."""
    rays = left.opacity.shape[-1]
    more = F.adaptive_max_pool2d(left.choice.more.float(), (rays, rays))
    seen = (
        F.max_pool2d(((left.opacity + more) > _VISIBLE).float(), 3, 1, 1)[0, 0] > 0
    )  # enlarging spreads by half a ray
    found = bounds(seen.cpu().numpy())
    if found is None:
        return None
    step = rays // math.gcd(rays, size // 2)  # rays after which rays and pairs of pixels meet again
    ends = [(along.start // step * step, -(-along.stop // step) * step) for along in found]
    (top, height), (side, width) = ((first, last - first) for first, last in ends)
    box = (top, side, height, width)
    return box, tuple(x * size // rays for x in box)
