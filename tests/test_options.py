"""Every command and option that users have stays: the command line is compared with tests/assets/options.txt.

The list was made by `python tests/test_options.py`. A line leaves it only together with a line in CHANGELOG.md; a renamed
option keeps its old name as an alias with a hint. New options may be added to it with the release that brings them.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin

import pytest
import tyro

LIST = Path(__file__).parent / "assets" / "options.txt"


class _Seen(Exception):
    """Carries what a command gives to the option reader: (options' type, settings)."""


def asked_by(command: str) -> tuple[Any, dict[str, Any]]:
    """The type of a command's options, caught where the command would read its arguments."""
    from export3d.cli import main

    def catch(options: Any, *_: Any, **given: Any) -> None:
        raise _Seen(options, {name: value for name, value in given.items() if name in ("default", "config")})

    real = tyro.cli
    tyro.cli = catch  # type: ignore[assignment]
    try:
        main([command])
    except _Seen as seen:
        return seen.args
    finally:
        tyro.cli = real  # type: ignore[assignment]
    raise AssertionError(f"{command} reads no arguments")


def lines_of(command: str) -> Iterator[str]:
    """`command`, then `command OPTION` for each name of each option; likewise for each subcommand."""
    options, settings = asked_by(command)
    parts = get_args(options) if get_origin(options) in (Union, UnionType) else ()
    named = [(f"{command} {next(m.name for m in get_args(part)[1:])}", get_args(part)[0]) for part in parts]
    for words, kind in named or [(command, options)]:
        yield words
        for action in tyro.extras.get_parser(kind, **settings)._actions:
            yield from (f"{words} {name}" for name in action.option_strings if name not in ("-h", "--help"))


def all_options() -> set[str]:
    """One line for each command, subcommand and option name."""
    from export3d.cli import COMMANDS

    return {line for command in COMMANDS for line in lines_of(command)}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_every_command_and_option_of_the_stored_list_is_still_there() -> None:
    missing = sorted(set(LIST.read_text(encoding="utf-8").splitlines()) - all_options())
    assert missing == [], "give a renamed option an alias with a hint; name a removed one in CHANGELOG.md"


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_comparison_sees_options_aliases_and_subcommands() -> None:
    found = all_options()
    assert {"animate --source", "animate -o", "heads render --identities", "data merge --output"} <= found
    assert {"train --model.neck.lag", "train --weights.depth"} <= found


if __name__ == "__main__":
    sys.stdout.write("".join(f"{line}\n" for line in sorted(all_options())))
