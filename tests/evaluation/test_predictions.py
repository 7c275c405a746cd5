"""evaluation/scores/predictions.py: frames from elsewhere; missing and surplus files are named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from export3d.errors import DataError, UnreadableImageError
from export3d.evaluation.scores.predictions import check_predictions, pair_folder, read_predictions
from export3d.evaluation.scores.protocol import Pair

SAME = Pair(kind="same", source_clip="a", source_frame=0, driving_clip="a")
CROSS = Pair(kind="cross", source_clip="a", source_frame=0, driving_clip="b")


def _fill(root: Path, pair: Pair, count: int, size: int = 32) -> np.ndarray:
    frames = np.random.default_rng(0).integers(0, 256, (count, size, size, 3), dtype=np.uint8)
    folder = pair_folder(root, pair)
    folder.mkdir(parents=True)
    for t, frame in enumerate(frames):
        Image.fromarray(frame).save(folder / f"{t:06d}.png")
    return frames


def test_the_layout_is_the_documented_one() -> None:
    assert pair_folder("p", SAME) == Path("p/same/a")
    assert pair_folder("p", CROSS) == Path("p/cross/a--by--b")


def test_frames_come_back_exactly_and_in_order(tmp_path: Path) -> None:
    frames = _fill(tmp_path, CROSS, 12)
    check_predictions(tmp_path, [(CROSS, 12)])
    assert np.array_equal(read_predictions(tmp_path, CROSS, 12, 32), frames)


def test_missing_and_surplus_frames_are_named_before_anything_is_scored(tmp_path: Path) -> None:
    _fill(tmp_path, SAME, 3)
    _fill(tmp_path, CROSS, 4)
    (tmp_path / "same" / "a" / "000001.png").unlink()
    with pytest.raises(DataError) as error:
        check_predictions(tmp_path, [(SAME, 3), (CROSS, 2)])
    assert "1 missing: same/a/000001.png" in str(error.value)
    assert "2 too many: cross/a--by--b/000002.png, cross/a--by--b/000003.png" in str(error.value)


def test_a_missing_pair_lists_the_first_frames_and_the_number(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"9 missing: same/a/000000\.png, .*000004\.png, \.\.\."):
        check_predictions(tmp_path, [(SAME, 9)])


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="gone: no such folder of predictions"):
        check_predictions(tmp_path / "gone", [])


def test_frames_of_another_size_are_refused_not_resized(tmp_path: Path) -> None:
    _fill(tmp_path, SAME, 1, size=48)
    with pytest.raises(DataError, match=r"000000\.png: the frame is 48x48; expected 32x32"):
        read_predictions(tmp_path, SAME, 1, 32)


def test_a_damaged_frame_is_named(tmp_path: Path) -> None:
    _fill(tmp_path, SAME, 1)
    (tmp_path / "same" / "a" / "000000.png").write_bytes(b"no image")
    with pytest.raises(UnreadableImageError, match=r"000000\.png: not an image"):
        read_predictions(tmp_path, SAME, 1, 32)
