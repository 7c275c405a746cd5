"""The compiled renderer as ctypes sees it: where the library lies, whether it runs here, and what a call is given."""

from __future__ import annotations

import ctypes
import os
from functools import lru_cache
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Any

import torch

VARIABLE = "EXPORT3D_FUSED"
"""Environment variable: `0` never takes the fused renderer; `plain`, `avx2` or `avx512` takes this version of it."""

_VERSION = 11  # kVersion of kernel/scene.h

_F, _I, _L, _P = ctypes.c_float, ctypes.c_int32, ctypes.c_int64, ctypes.c_void_p


class Joint(ctypes.Structure):
    """`Joint` of kernel/scene.h."""

    _fields_ = [("on", _I), ("extra", _F * 9), ("pivot", _F * 3), ("top", _F), ("bottom", _F)]


class Pinhole(ctypes.Structure):
    """`Pinhole` of kernel/scene.h."""

    _fields_ = [("rotation", _F * 9), ("centre", _F * 3), ("focal", _F * 2), ("middle", _F * 2), ("distance", _F)]


class Scene(ctypes.Structure):
    """`Scene` of kernel/scene.h: pointers are addresses of float32 numbers."""

    _fields_ = [
        ("planes", _P),
        *((name, _I) for name in ("channels", "motion", "resolution", "ring")),
        ("box_side", _F),
        *((name, _I) for name in ("hidden", "outputs", "colours")),
        *((f"{layer}_{part}", _P) for layer in ("first", "second", "density", "last") for part in ("weight", "bias")),
        *((name, _F) for name in ("margin", "offset_scale")),
        *((name, _P) for name in ("maps", "clue_weight")),
        *((name, _I) for name in ("map_channels", "map_height", "map_width")),
        ("portrait", Pinhole),
        ("unpose", Joint),
        ("pose", Joint),
        *((name, _I) for name in ("num_coarse", "num_fine", "composite_coarse")),
        *((name, _F) for name in ("near", "far", "floor", "shift", "gain")),
        *((name, _I) for name in ("rays_per_coarse", "fine_samples", "faint_samples")),
        *((name, _F) for name in ("empty_opacity", "faint_opacity", "least_share")),
        *((name, _I) for name in ("rays", "side")),
        *((name, _P) for name in ("origins", "directions", "features", "depth", "opacity")),
    ]


class Picture(ctypes.Structure):
    """`Picture` of kernel/scene.h."""

    _fields_ = [*((name, _I) for name in ("channels", "height", "width")), ("source", _P), ("to", _P)]


class Head(ctypes.Structure):
    """`Head` of kernel/scene.h."""

    _fields_ = [
        *((name, _I) for name in ("rays_height", "rays_width", "small_height", "small_width", "state_channels")),
        *((name, _I) for name in ("side", "height", "width")),
        ("gain", ctypes.c_float),
        *((name, _P) for name in ("guide", "choice", "state", "picture")),
        ("portrait", Pinhole),
        ("pose", Joint),
        *((name, _P) for name in ("layers", "seen", "clues", "said")),
        *(("plane", _L), ("stride", _L), ("image", _P), ("opacity", _P)),
    ]


class Layered(ctypes.Structure):
    """`Layered` of kernel/scene.h."""

    _fields_ = [
        *((name, _I) for name in ("height", "width", "rows", "room")),
        ("haze", _F),
        *((name, _P) for name in ("picture", "opacity", "behind", "crown", "spans")),
        *((name, _F * 3) for name in ("across", "down")),
        *((name, _P) for name in ("columns", "rows_shown", "colours", "clear")),
    ]


class Pasted(ctypes.Structure):
    """`Pasted` of kernel/scene.h."""

    _fields_ = [
        *((name, _I) for name in ("head_height", "head_width", "height", "width")),
        *((name, _P) for name in ("head", "met", "lines", "share", "made")),
        ("stride", _L),
    ]


class Patterned(ctypes.Structure):
    """`Patterned` of kernel/scene.h."""

    _fields_ = [
        *((name, _I) for name in ("height", "width")),
        *((name, _P) for name in ("pattern", "gain", "from", "to")),
    ]


class Converted(ctypes.Structure):
    """`Converted` of kernel/scene.h."""

    _fields_ = [
        *((name, _I) for name in ("height", "width")),
        *((name, _P) for name in ("from", "luma", "blue", "red")),
        *((name, _L) for name in ("luma_stride", "blue_stride", "red_stride")),
    ]


_CALLS: dict[str, tuple[Any, ...]] = {
    **dict(floats=(Scene,), head_floats=(Head,), paste_floats=(Pasted,), interleave=(Picture,), round=(Picture,)),
    **dict(add_pattern=(Patterned,), convert=(Converted,), layer=(Layered,)),
    **dict(render=(Scene, _P), paste=(Pasted, _P), head=(Head, ctypes.c_int, _P)),
}
"""Function -> what it is given: its structure, and after the version and the number of threads perhaps more."""


def fused_status() -> tuple[bool, str]:
    """Whether the fused renderer runs here, and which version of it, or why not."""
    wanted = os.environ.get(VARIABLE, "")
    if wanted == "0":
        return False, f"switched off by {VARIABLE}=0"
    library, reason = _load()
    if library is None:
        return False, reason
    name = library.export3d_fused_kernel(wanted.encode())
    if name is None:
        return False, f"{VARIABLE}={wanted} names no version of it that this processor can run"
    return True, name.decode()


def library() -> ctypes.CDLL:
    """The library. RuntimeError where `fused_status` says that it does not run."""
    runs, reason = fused_status()
    if not runs:
        raise RuntimeError(f"the fused renderer does not run here: {reason}")
    found = _load()[0]
    assert found is not None
    return found


def run(what: str, call: ctypes.Structure, *more: int, threads: int | None = None) -> int:
    """Call one of the library's functions, by as many threads as PyTorch uses when None."""
    function, version = getattr(library(), f"export3d_fused_{what}"), os.environ.get(VARIABLE, "").encode()
    return function(ctypes.byref(call), version, torch.get_num_threads() if threads is None else threads, *more)


@lru_cache(maxsize=1)
def _load() -> tuple[ctypes.CDLL | None, str]:
    """The library and "", or None and why there is none."""
    folder = Path(__file__).parent
    paths = [path for suffix in EXTENSION_SUFFIXES if (path := folder / f"_kernel{suffix}").is_file()]
    if not paths:
        return None, "not built: no C++ compiler was found when export3d was installed; install it again with one"
    try:
        found = ctypes.CDLL(str(paths[0]))
        version, size = found.export3d_fused_version(), found.export3d_fused_scene_bytes
    except (OSError, AttributeError) as error:
        return None, f"{paths[0].name} cannot be loaded ({error}); install export3d again"
    size.restype = ctypes.c_size_t
    if version != _VERSION or size() != ctypes.sizeof(Scene):
        return None, f"{paths[0].name} was built from other sources; install export3d again"
    found.export3d_fused_kernel.restype = ctypes.c_char_p
    found.export3d_fused_kernel.argtypes = [ctypes.c_char_p]
    for what, (structure, *more) in _CALLS.items():
        function = getattr(found, f"export3d_fused_{what}")
        function.argtypes = [ctypes.POINTER(structure), ctypes.c_char_p, ctypes.c_int, *more]
        if what.endswith("floats"):
            function.restype = ctypes.c_size_t
    return found, ""
