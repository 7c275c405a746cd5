"""Frozen dataclass configurations to and from plain dictionaries; unknown keys are refused with the nearest name."""

from __future__ import annotations

import dataclasses
import difflib
import json
import typing
from typing import Any, TypeVar

from export3d.errors import UsageError
from export3d.reading import checked, reading

T = TypeVar("T")


def config_to_dict(config: Any) -> dict[str, Any]:
    """A JSON-ready dictionary of a (nested) dataclass; tuples become lists."""
    return {field.name: _plain(getattr(config, field.name)) for field in dataclasses.fields(config)}


def config_from_dict(cls: type[T], values: dict[str, Any], where: str = "") -> T:
    """Build a (nested) dataclass from a dictionary.

    Raises:
        UsageError: On a key that the dataclass does not have; names it, its place and the nearest known key.
    """
    fields = {field.name: field for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    hints = typing.get_type_hints(cls)
    given: dict[str, Any] = {}
    for name, value in values.items():
        place = f"{where}.{name}" if where else name
        if name not in fields:
            near = difflib.get_close_matches(name, fields, n=1, cutoff=0.4)
            hint = f" Did you mean '{near[0]}'?" if near else ""
            raise UsageError(f"configuration: unknown option '{place}'.{hint}")
        hint_type = hints[name]
        if dataclasses.is_dataclass(hint_type) and isinstance(value, dict):
            given[name] = config_from_dict(hint_type, value, place)  # type: ignore[arg-type]
            continue
        with reading("configuration", f"option '{place}' has a value of the wrong kind", UsageError):
            given[name] = checked(value, typing.cast(type, hint_type))
    return cls(**given)


def config_difference(a: Any, b: Any) -> list[str]:
    """Lines `path: a -> b` for every field in which two configurations differ; empty if they are equal."""
    return json_difference(config_to_dict(a), config_to_dict(b))


def json_difference(old: Any, new: Any, where: str = "") -> list[str]:
    """Lines `path: old -> new` for every leaf in which two JSON values differ."""
    if isinstance(old, dict) and isinstance(new, dict):
        lines: list[str] = []
        for name in sorted({*old, *new}):
            lines += json_difference(old.get(name), new.get(name), f"{where}.{name}" if where else name)
        return lines
    return [] if old == new else [f"{where}: {json.dumps(old)} -> {json.dumps(new)}"]


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return config_to_dict(value)
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value
