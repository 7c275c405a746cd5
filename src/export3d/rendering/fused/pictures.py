"""Pictures with the photograph's detail by the compiled kernel: the head composed at that size, and put into the photograph."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from export3d.camera import Camera
from export3d.checks import check_shape
from export3d.rendering.fused import binding
from export3d.rendering.fused.render import FusedJoint, joint_of, pinhole_of

_MARGIN, _LINES, _CLUES, _SAID = 4, 9, 28, 8  # kMargin, kLines, kClues, kSaid of the kernel
_TILE, _BLOCK = 128, 8  # kTile, kBlock

Corrections = tuple[Tensor, Callable[[Tensor], Tensor]]
"""State ``(K, s, t)`` that the correcting network reads beside the rest, and the network: ``(1, 28 + K, h / 2, w / 2)`` ->
``(1, 8, h / 2, w / 2)``, as `portrait.detail.DetailNet` has them."""


@dataclass(frozen=True, kw_only=True)
class FusedHead:
    """What one pass at the model's size leaves of a rectangle of the picture, B = 1, and the photograph."""

    guide: Tensor
    """``(6, r, q)``: the guide and the opacity."""
    photo: Tensor
    """From `interleaved`."""
    camera: Camera
    """The portrait's."""
    pose: FusedJoint | None
    """From the unturned volume to the portrait's torso."""
    choice: Tensor | None = None
    """``(10, s, t)``: raw image 3, logits 3, residual 3, opacity 1; not for `read_head`."""
    gain: float = 0.0
    """Share of its own fine detail that the photograph gets on top, before what the corrections say."""
    corrections: Corrections | None = None


def interleaved(picture: Tensor) -> Tensor:
    """``(C, H, W)``, C at most 4 -> float32 ``(H + 8, W + 8, 4)``: colours beside each other, the border repeated."""
    channels, height, width = picture.shape
    picture = picture.detach().float().contiguous()
    out = torch.empty(height + 2 * _MARGIN, width + 2 * _MARGIN, 4)
    call = binding.Picture(channels, height, width, picture.data_ptr(), out.data_ptr())
    binding.run("interleave", call)
    return out


def rounded(picture: Tensor) -> np.ndarray:
    """``(3, H, W)`` in [-1, 1] -> uint8 ``(H, W, 3)``, as `images.to_uint8`."""
    check_shape("picture", picture, 3, None, None)
    picture = picture.detach().float().contiguous()
    out = np.empty((*picture.shape[1:], 3), dtype=np.uint8)
    call = binding.Picture(*picture.shape, picture.data_ptr(), out.ctypes.data)
    binding.run("round", call)
    return out


def repainted(picture: Tensor, parts: Sequence[tuple[tuple[slice, slice], Tensor]]) -> Tensor:
    """A copy of an `interleaved` picture with parts ``(1, C, h, w)`` in these rows and columns, not up to its border."""
    made = picture.clone()
    inside = made[_MARGIN:-_MARGIN, _MARGIN:-_MARGIN]
    for (rows, columns), part in parts:
        inside[rows, columns, : part.shape[1]] = part[0].movedim(0, -1)
    return made


def read_head(head: FusedHead, height: int, width: int) -> tuple[Tensor, Tensor]:
    """What is mixed, read at that size: ``(9, height, width)`` colours of the portrait and of its mirror image, their priors,
    opacity; ``(4, height, width)`` both gates, and both times the picture's fourth channel."""
    check_shape("guide", head.guide, 6, None, None)
    guide, line = head.guide.detach().float().contiguous(), -(-width // 16) * 16
    layers, clues = torch.empty(height, _LINES, line), torch.empty(height, 4, line)
    call = binding.Head(
        **dict(rays_height=guide.shape[1], rays_width=guide.shape[2], small_height=1, small_width=1),
        **dict(side=head.photo.shape[0] - 2 * _MARGIN, height=height, width=width, guide=guide.data_ptr()),
        **dict(picture=head.photo.data_ptr(), portrait=pinhole_of(head.camera), pose=joint_of(head.pose)),
        **dict(layers=layers.data_ptr(), clues=clues.data_ptr()),
    )
    threads = torch.get_num_threads()  # the same for all: by them goes the room
    work = torch.empty(binding.run("head_floats", call, threads=threads))
    binding.run("head", call, 0, work.data_ptr(), threads=threads)
    return layers[..., :width].transpose(0, 1), clues[..., :width].transpose(0, 1)


def paint_head(head: FusedHead, image: Tensor, opacity: Tensor) -> None:
    """Put the head before what stands in a rectangle of a picture, float32 ``(3, h, w)``, and write its opacity ``(h, w)``.

    Both may be views of larger pictures of one size; h and w are even.
    """
    height, width = opacity.shape
    check_shape("guide", head.guide, 6, None, None)
    assert head.choice is not None  # only reading does without
    check_shape("choice", head.choice, 10, None, None)
    check_shape("image", image, 3, height, width)
    strides = (image.stride(0), image.stride(1), image.stride(2), opacity.stride(0), opacity.stride(1))
    if height % 2 or width % 2 or strides[1:] != (strides[1], 1, strides[1], 1):
        raise ValueError(f"paint_head: expected even sides and rows alike; got {height}x{width} with strides {strides}")
    state = None if head.corrections is None else head.corrections[0]
    count = 0 if state is None else state.shape[0]
    given = {"guide": head.guide, "choice": head.choice} | ({} if state is None else {"state": state})
    kept = {name: x.detach().float().contiguous() for name, x in given.items()}
    layers = torch.empty(height, _LINES, -(-width // 16) * 16)
    seen = torch.empty(1, height // 2, width // 2, _CLUES + count) if state is not None else None
    call = binding.Head(
        **dict(rays_height=head.guide.shape[1], rays_width=head.guide.shape[2]),
        **dict(small_height=head.choice.shape[1], small_width=head.choice.shape[2], state_channels=count),
        **dict(side=head.photo.shape[0] - 2 * _MARGIN, height=height, width=width, gain=head.gain),
        **{name: x.data_ptr() for name, x in kept.items()},
        **dict(picture=head.photo.data_ptr(), portrait=pinhole_of(head.camera), pose=joint_of(head.pose)),
        **dict(layers=layers.data_ptr(), seen=None if seen is None else seen.data_ptr()),
        **dict(plane=strides[0], stride=strides[1], image=image.data_ptr(), opacity=opacity.data_ptr()),
    )
    threads = torch.get_num_threads()  # the same for all: by them goes the room
    work = torch.empty(binding.run("head_floats", call, threads=threads))
    binding.run("head", call, 0, work.data_ptr(), threads=threads)
    if head.corrections is not None and seen is not None:
        said = head.corrections[1](seen.permute(0, 3, 1, 2))
        check_shape("corrections", said, 1, _SAID, height // 2, width // 2)
        said = said.detach().float().contiguous()
        call.said = said.data_ptr()
    binding.run("head", call, 1, work.data_ptr(), threads=threads)


def head_layer(
    picture: Tensor,
    opacity: Tensor,
    behind: Tensor,
    *,
    haze: float,
    room: int,
    crown: tuple[Tensor, np.ndarray, np.ndarray] | None,
    shown: tuple[Tensor, Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """Colours ``(3, H, W)`` in [0, 255] times the opacity, and opacity ``(1, H, W)``, of the head in a `picture` before
    `behind`, both ``(3, S, S)`` in [-1, 1], with its `opacity` ``(1, S, S)``; behind it its crown.

    Args:
        haze: opacity below it shows nothing.
        room: pixels above the picture and at both sides, H - S; there is nothing but the crown.
        crown: ``(h + 2, W + 2, 4)``, colours and opacity like the result's, of the upper rows, with a border of zeros; from
            `spans` of its opacity; and ``(2, 3)``: the pixel across and down where pixel (x, y) lies in it is this times
            (1, x, y).
        shown: float32 ``(S,)`` twice, shares of the head that the columns and rows of the picture show; None: all of it.
    """
    side = picture.shape[-1]
    if side < 16:
        raise ValueError(f"head_layer: expected at least 16 pixels; got {side}")
    check_shape("picture", picture, 3, side, side)
    check_shape("behind", behind, 3, side, side)
    check_shape("opacity", opacity, 1, side, side)
    kept = [x.detach().float().contiguous() for x in (picture, opacity, behind)]
    height, width = side + room, side + 2 * room
    colours, clear = torch.empty(3, height, width), torch.empty(1, height, width)
    call = binding.Layered(height, width, 0, room, haze, *(x.data_ptr() for x in kept))
    call.colours, call.clear = colours.data_ptr(), clear.data_ptr()
    if shown is not None:
        call.columns, call.rows_shown = (x.data_ptr() for x in shown)
    if crown is not None:
        check_shape("crown", crown[0], None, width + 2, 4)
        call.rows, call.crown, call.spans = crown[0].shape[0] - 2, crown[0].data_ptr(), crown[1].ctypes.data
        call.across[:], call.down[:] = crown[2].tolist()
    binding.run("layer", call)
    return colours, clear


def spans(opacity: np.ndarray) -> np.ndarray:
    """int32 ``(H, 2)``: the first column of each row of an opacity ``(H, W)`` that shows anything, and one past the last; W and
    0 where nothing does."""
    shows, width = opacity > 0.0, opacity.shape[1]
    some = shows.any(axis=1)
    ends = (np.where(some, shows.argmax(axis=1), width), np.where(some, width - shows[:, ::-1].argmax(axis=1), 0))
    return np.stack(ends, axis=1).astype(np.int32)


def paste_head(made: np.ndarray, head: Tensor, lines: np.ndarray, share: Tensor) -> None:
    """Put a head before what is in a rectangle of a photograph, `made`, uint8 ``(h, w, 3)`` (its rows may lie apart).

    Args:
        head: ``(4, H, W)``, colours in [0, 255] times the opacity, and the opacity.
        lines: ``(h, 2, 2)``: pixel (x, y) lies at the pixel of the head across and down that is the first of row y plus x times
            the second.
        share: float32 ``(h, w)``, how far each pixel may change.
    """
    height, width = share.shape
    if made.dtype != np.uint8 or made.shape != (height, width, 3) or made.strides[1:] != (3, 1):
        raise ValueError(f"paste_head: photo must be uint8 {(height, width, 3)}; got {made.dtype} {made.shape}")
    if lines.shape != (height, 2, 2):
        raise ValueError(f"paste_head: expected lines of {(height, 2, 2)}; got {lines.shape}")
    square, met, kept = interleaved(head), _met(head[3]), share.detach().float().contiguous()
    lines = np.ascontiguousarray(lines, dtype=np.float32)
    call = binding.Pasted(
        **dict(head_height=head.shape[1], head_width=head.shape[2], height=height, width=width),
        **dict(head=square.data_ptr(), met=met.ctypes.data, lines=lines.ctypes.data),
        **dict(share=kept.data_ptr(), made=made.ctypes.data, stride=made.strides[0]),
    )
    threads = torch.get_num_threads()  # the same for all: by them goes the room
    work = torch.empty(binding.run("paste_floats", call, threads=threads))
    binding.run("paste", call, work.data_ptr(), threads=threads)


def _met(opacity: Tensor) -> np.ndarray:
    """Opacity ``(H, W)`` -> bool ``(H + 8, W + 8)``, with the margin of `interleaved`: whether the square of 4 x 4 pixels from
    here on holds any of the head."""
    met = np.pad(opacity.detach().cpu().numpy() > 0.0, _MARGIN, mode="edge")
    for step in (1, 2):
        met[:-step] |= met[step:]
        met[:, :-step] |= met[:, step:]
    return met


def rgb_to_yuv(image: np.ndarray, planes: Sequence[np.ndarray]) -> None:
    """A uint8 ``(H, W, 3)`` image, both sides even, as 4:2:0 of BT.709 in TV range, written into three uint8 planes: at least
    ``(H, W)``, ``(H / 2, W / 2)`` and ``(H / 2, W / 2)``, whose rows may be longer. A colour is the mean of its four pixels."""
    height, width = image.shape[:2]
    image = np.ascontiguousarray(image)
    sizes = [(height, width), (height // 2, width // 2), (height // 2, width // 2)]
    fits = all(
        p.dtype == np.uint8 and p.shape[0] >= h and p.shape[1] >= w and p.strides[1] == 1
        for p, (h, w) in zip(planes, sizes, strict=True)
    )
    if image.dtype != np.uint8 or image.shape[2:] != (3,) or height % 2 or width % 2 or not fits:
        raise ValueError(f"rgb_to_yuv: expected a uint8 image with even sides and planes of {sizes}; got {image.shape}")
    call = binding.Converted(
        height, width, image.ctypes.data, *(p.ctypes.data for p in planes), *(p.strides[0] for p in planes)
    )
    binding.run("convert", call)


def add_pattern(image: np.ndarray, pattern: np.ndarray, gain: np.ndarray) -> np.ndarray:
    """A uint8 ``(H, W, 3)`` image plus a repeated pattern times a gain, their product in 1/512 of a level, rounded.

    Args:
        pattern: int16 ``(128, 128, 3)``.
        gain: int16 ``(ceil(H / 8), ceil(W / 8))``, at the middles of blocks of 8 x 8 pixels, at most 127; bilinear between
            them, rounded. Its product with the pattern stays within 16 bits.
    """
    height, width = image.shape[:2]
    kept = [np.ascontiguousarray(x) for x in (pattern, gain, image)]
    blocks = (-(-height // _BLOCK), -(-width // _BLOCK))
    wanted = [((_TILE, _TILE, 3), np.int16), (blocks, np.int16), ((height, width, 3), np.uint8)]
    if [(x.shape, x.dtype) for x in kept] != wanted:
        raise ValueError(f"add_pattern: expected {wanted}; got {[(x.shape, x.dtype) for x in kept]}")
    out = np.empty_like(kept[2])
    call = binding.Patterned(height, width, *(x.ctypes.data for x in (*kept, out)))
    binding.run("add_pattern", call)
    return out
