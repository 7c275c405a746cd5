"""tracking/coefficients.py: which model of coefficients is opened, and what is said where its file is missing."""

from __future__ import annotations

from pathlib import Path

import pytest

from export3d.errors import CheckpointError, UsageError
from export3d.tracking.coefficients import SPACE_OF, open_coefficients
from export3d.tracking.faces import ExtractorInfo

FACES = ExtractorInfo("a-tracker", "7", "0" * 64, "")


@pytest.mark.parametrize("space", ["ict64", "arkit52"])
def test_auto_opens_what_reads_the_models_space(space: str) -> None:
    assert open_coefficients("auto", faces=FACES, space=space).info.expression_space == space


@pytest.mark.parametrize("name", ["regressor", "arkit52"])
def test_a_name_opens_the_model_of_its_space_whatever_the_other_says(name: str) -> None:
    assert open_coefficients(name, faces=FACES, space="bfm64").info.expression_space == SPACE_OF[name]


@pytest.mark.parametrize("name", ["auto", "deep3d"])
def test_deep3d_without_its_checkpoint_names_the_option(name: str) -> None:
    with pytest.raises(UsageError, match=r"--extractor epoch_20\.pth"):
        open_coefficients(name, faces=FACES, space="bfm64")


def test_blendshapes_have_no_file_of_their_own() -> None:
    with pytest.raises(UsageError, match=r"--extractor x\.pth: blendshapes come from the face tracker"):
        open_coefficients("arkit52", faces=FACES, file=Path("x.pth"))


def test_a_missing_regressor_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"mine\.safetensors"):
        open_coefficients("regressor", faces=FACES, file=tmp_path / "mine.safetensors")


def test_an_unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(UsageError, match="Did you mean 'regressor'"):
        open_coefficients("regresor", faces=FACES)
