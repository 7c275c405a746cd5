"""Allowed sources: copies of a listed portrait pass, others do not."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from export3d.errors import SourceNotAllowedError
from export3d.images import read_image
from export3d.provenance.allowed import MAX_DIFFERENT_BITS, AllowedSources, look_of
from pictures import a_picture


def save(path: Path, image: np.ndarray, **options: int) -> Path:
    Image.fromarray(image).save(path, **options)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "allowed" / "inner"
    folder.mkdir(parents=True)
    for seed in range(3):
        save(folder / f"{seed}.png", a_picture(seed))
    return folder.parent


def test_the_file_itself_passes_and_so_does_its_picture(folder: Path) -> None:
    allowed, path = AllowedSources.load(folder), folder / "inner" / "1.png"
    allowed.check(read_image(path), path)
    allowed.check(read_image(path))


@pytest.mark.parametrize("side", [96, 200, 700])
@pytest.mark.parametrize("quality", [40, 90])
def test_a_copy_that_was_saved_again_at_another_size_passes(
    folder: Path, tmp_path: Path, side: int, quality: int
) -> None:
    small = np.asarray(Image.fromarray(a_picture(2)).resize((side, side), Image.Resampling.LANCZOS))
    path = save(tmp_path / "copy.jpg", small, quality=quality)
    AllowedSources.load(folder).check(read_image(path), path)


def test_another_portrait_is_refused_by_name(folder: Path, tmp_path: Path) -> None:
    path = save(tmp_path / "stranger.png", a_picture(9))
    with pytest.raises(
        SourceNotAllowedError, match=r"stranger\.png: this portrait is not among the allowed ones"
    ) as caught:
        AllowedSources.load(folder).check(read_image(path), path, where=str(path))
    assert caught.value.exit_code == 51


@pytest.mark.slow
def test_a_thousand_other_pictures_are_refused(folder: Path) -> None:
    allowed = AllowedSources.load(folder)
    nearest = min(int((allowed.looks ^ look_of(a_picture(seed, 64))).sum(axis=1).min()) for seed in range(100, 1100))
    assert nearest > MAX_DIFFERENT_BITS


def test_a_list_holds_names_and_hashes(folder: Path) -> None:
    digest = hashlib.sha256((folder / "inner" / "0.png").read_bytes()).hexdigest()
    listed = folder / "list.txt"
    listed.write_text(f"# people who agreed\n\n{digest.upper()}\ninner/1.png\n")
    allowed = AllowedSources.load(listed)
    allowed.check(a_picture(0), folder / "inner" / "0.png")
    allowed.check(a_picture(1))
    with pytest.raises(SourceNotAllowedError):
        allowed.check(a_picture(0))  # a hash alone says nothing about how a picture looks
    with pytest.raises(SourceNotAllowedError):
        allowed.check(a_picture(2), folder / "inner" / "2.png")


def test_lists_that_cannot_be_used_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "wrong.txt").write_text("nobody.png\n")
    (tmp_path / "binary").write_bytes(b"\xff\x00\xfe")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "a.png").write_bytes(b"not a picture")
    cases = {
        "empty": "there is no picture in it",
        "wrong.txt": "line 1: 'nobody.png' is neither a picture nor a SHA-256",
        "binary": "neither a folder nor a readable text file",
        "gone": "neither a folder nor a readable text file",
        "broken": "a.png: not an image",
    }
    for name, message in cases.items():
        with pytest.raises(SourceNotAllowedError, match=message):
            AllowedSources.load(tmp_path / name)


def test_a_list_of_hashes_alone_allows_these_files_and_no_others(folder: Path, tmp_path: Path) -> None:
    file = folder / "inner" / "0.png"
    (tmp_path / "list.txt").write_text(hashlib.sha256(file.read_bytes()).hexdigest() + "\n")
    allowed = AllowedSources.load(tmp_path / "list.txt")
    allowed.check(a_picture(0), file)
    with pytest.raises(SourceNotAllowedError):
        allowed.check(a_picture(1))
