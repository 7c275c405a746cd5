"""The preset tables of docs/training.md are the presets of the code, and its commands name options that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from export3d.training.phases.config import TRAIN_PRESETS
from export3d.training.phases.pretrain_config import PRETRAIN_PRESETS

DOCUMENT = (Path(__file__).parents[2] / "docs" / "training.md").read_text(encoding="utf-8")


def table(title: str) -> dict[str, list[str]]:
    """Option -> cells of the table whose first header cell is `title`."""
    block = DOCUMENT.split(f"| {title} | paper | portrait | tiny |\n|---|---|---|---|\n")[1].split("\n\n")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in block.splitlines()]
    return {row[0].strip("`"): row[1:] for row in rows}


@pytest.mark.parametrize(("title", "presets"), [("pretrain option", PRETRAIN_PRESETS), ("train option", TRAIN_PRESETS)])
def test_the_preset_table_equals_the_code(title: str, presets: dict[str, object]) -> None:
    rows = table(title)
    assert len(rows) > 10
    for option, cells in rows.items():
        for name, cell in zip(("paper", "portrait", "tiny"), cells, strict=True):
            value: object = presets[name]
            for part in option.split("."):
                value = getattr(value, part)
            assert cell == str(value), f"{option} of {name}"


def test_every_weight_of_the_loss_is_in_the_table() -> None:
    from dataclasses import fields

    from export3d.training.losses.terms import LossWeights

    listed = {name.removeprefix("weights.") for name in table("train option") if name.startswith("weights.")}
    assert listed == {field.name for field in fields(LossWeights)}


def test_every_option_in_the_commands_exists(capsys: pytest.CaptureFixture[str]) -> None:
    from export3d.cli.train import pretrain_main, train_main

    for command, main in (("pretrain", pretrain_main), ("train", train_main)):
        with pytest.raises(SystemExit):
            main(["--help"])
        text = capsys.readouterr().out
        used = {
            option
            for line in DOCUMENT.splitlines()
            if f"export3d {command} " in line
            for option in re.findall(r"(--[a-z-]+)", line.split(f"export3d {command} ")[1])
        }
        assert used
        for option in used:
            assert re.search(rf"{option}\b", text), f"export3d {command} has no {option}"
