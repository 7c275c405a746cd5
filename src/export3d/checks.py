"""Shape and option checks whose errors name the argument, what was expected and what was given."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from torch import Tensor

from export3d.errors import UsageError


def check_shape(name: str, tensor: Tensor, *expected: int | None) -> None:
    """Check a tensor's shape; `None` in `expected` accepts any size in that place.

    Raises:
        ValueError: Names the argument, the expected shape and the given shape.
    """
    given = tuple(tensor.shape)
    fits = len(given) == len(expected) and all(e is None or e == g for e, g in zip(expected, given, strict=True))
    if not fits:
        wanted = ", ".join("*" if size is None else str(size) for size in expected)
        raise ValueError(f"{name} must have shape ({wanted}); got {given}")


def check_choice(name: str, value: str, choices: Iterable[str]) -> str:
    """Return `value` if it is one of `choices`, else raise a `UsageError` that suggests the nearest choice."""
    known = sorted(choices)
    if value in known:
        return value
    near = difflib.get_close_matches(value, known, n=1, cutoff=0.4)
    hint = f" Did you mean '{near[0]}'?" if near else ""
    raise UsageError(f"{name}: '{value}' is not known.{hint} Choose one of: {', '.join(known)}.")
