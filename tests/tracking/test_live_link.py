"""Takes of ARKit weights: the CSV of Live Link Face, there and back, and everything that may be wrong with one."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from export3d.camera import Camera
from export3d.errors import MotionFileError
from export3d.face_state import ARKIT_NAMES
from export3d.tracking.live_link import HEADER, Take

APPLE_FIRST = (
    "EyeBlinkLeft,EyeLookDownLeft,EyeLookInLeft,EyeLookOutLeft,EyeLookUpLeft,EyeSquintLeft,EyeWideLeft,EyeBlinkRight"
)

EYES = "LeftEyeYaw,LeftEyePitch,LeftEyeRoll,RightEyeYaw,RightEyePitch,RightEyeRoll"


def take(rows: int = 40, fps: float = 25.0) -> Take:
    rng = np.random.default_rng(0)
    return Take(
        weights=rng.uniform(size=(rows, 52)).astype(np.float32),
        head=rng.uniform(-0.6, 0.6, size=(rows, 3)).astype(np.float32),
        gaze=rng.uniform(-0.4, 0.4, size=(rows, 2)).astype(np.float32),
        time_s=np.arange(rows) / fps,
    )


def changed(path: Path, row: int, column: str, value: str) -> Path:
    """The file with one cell exchanged; row 1 is the header."""
    lines = [line.split(",") for line in path.read_text().splitlines()]
    lines[row - 1][HEADER.index(column)] = value
    path.write_text("\n".join(",".join(line) for line in lines))
    return path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    take().save(tmp_path / "take.csv")
    return tmp_path / "take.csv"


def test_the_header_is_that_of_live_link_face() -> None:
    text = ",".join(HEADER)
    assert len(HEADER) == 63 and text.startswith(f"Timecode,BlendShapeCount,{APPLE_FIRST},")
    assert text.endswith(
        "TongueOut,HeadYaw,HeadPitch,HeadRoll,LeftEyeYaw,LeftEyePitch,LeftEyeRoll,RightEyeYaw,RightEyePitch,RightEyeRoll"
    )
    assert sorted(name.lower() for name in HEADER[2:54]) == sorted(name.lower() for name in ARKIT_NAMES)


@pytest.mark.parametrize("fps", [12.0, 24.0, 25.0, 30000 / 1001, 50.0, 60.0])
def test_what_is_written_is_read_again(tmp_path: Path, fps: float) -> None:
    given = take(rows=130, fps=fps)
    given.save(tmp_path / "take.csv")
    got = Take.load(tmp_path / "take.csv")
    for name in ("weights", "head", "gaze"):
        assert np.abs(getattr(got, name) - getattr(given, name)).max() < 1e-6, name
    assert np.abs(got.time_s - given.time_s).max() < 1e-4
    assert float(got.fps) == pytest.approx(fps, rel=1e-3)


def test_a_time_code_of_thirty_frames_is_told_from_one_of_sixty(tmp_path: Path, file: Path) -> None:
    lines = file.read_text().splitlines()
    for index in range(1, len(lines)):
        lines[index] = ",".join(
            [f"23:59:{59 + (index - 1) // 30:02d}:{(index - 1) % 30:02d}", *lines[index].split(",")[1:]]
        )
    late = [line.replace("23:59:60", "00:00:00") for line in lines]  # past midnight
    file.write_text("\n".join(late))
    got = Take.load(file)
    assert got.fps == Fraction(30) and got.time_s[-1] == pytest.approx(39 / 30)


def test_angles_are_radians_in_the_axes_of_the_face(tmp_path: Path, file: Path) -> None:
    for column, value in (("HeadYaw", "0.3"), ("HeadPitch", "-0.2"), ("HeadRoll", "0.1")):
        changed(file, 2, column, value)
    for column in ("LeftEyeYaw", "RightEyeYaw", "LeftEyePitch", "RightEyePitch"):
        changed(file, 2, column, "0.25")
    got = Take.load(file)
    wanted = Camera.look_at_head(torch.tensor([0.3]), torch.tensor([-0.2]), torch.tensor([0.1])).to_vector()[0]
    assert np.allclose(got.cameras[0], wanted.numpy(), atol=1e-6)
    assert got.gaze[0].tolist() == pytest.approx([0.25, -0.25])  # a positive pitch looks down


def test_without_eye_angles_the_gaze_follows_the_weights(file: Path) -> None:
    lines = [line.split(",")[:-6] for line in file.read_text().splitlines()]
    file.write_text("\n".join(",".join(line) for line in lines))
    for column in HEADER[2:54]:
        changed_line = "1" if column in ("EyeLookOutLeft", "EyeLookInRight") else "0"
        rows = [line.split(",") for line in file.read_text().splitlines()]
        rows[1][HEADER.index(column)] = changed_line
        file.write_text("\n".join(",".join(row) for row in rows))
    assert Take.load(file).gaze[0].tolist() == pytest.approx([0.5, 0.0])


def test_columns_are_found_by_name_in_any_order_and_capitals(file: Path) -> None:
    wanted = Take.load(file)
    lines = [line.split(",") for line in file.read_text().splitlines()]
    lines[0] = [name.lower() for name in lines[0]]
    file.write_text("\n".join(",".join(line[::-1]) for line in lines) + "\n\n")
    assert np.array_equal(Take.load(file).weights, wanted.weights)


@pytest.mark.parametrize(
    ("row", "column", "value", "text"),
    [
        (1, "JawOpen", "Jaw", "missing: jawopen"),
        (1, "JawOpen", "JawLeft", "twice: jawleft"),
        (3, "JawOpen", "wide", "row 3, column JawOpen: expected a number from -0.5 to 2; got 'wide'"),
        (3, "JawOpen", "nan", "row 3, column JawOpen"),
        (4, "HeadYaw", "17", "row 4, column HeadYaw: expected a number from -6.28"),
        (5, "Timecode", "0.12", "row 5: expected a time code HH:MM:SS:FF.fff; got '0.12'"),
        (5, "Timecode", "00:00:00:00.000", "row 5: its time code '00:00:00:00.000' is not after the row before"),
        (6, "JawOpen", "0.1,0.2", "row 6: expected 63 cells as in the header; got 64"),
    ],
)
def test_damage_is_named_with_its_place_and_a_remedy(file: Path, row: int, column: str, value: str, text: str) -> None:
    with pytest.raises(MotionFileError) as caught:
        Take.load(changed(file, row, column, value))
    assert text in str(caught.value) and str(file) in str(caught.value)
    assert caught.value.exit_code == MotionFileError.exit_code != 1


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00a", b"a,b\n1,2\n", b'"' + b"x" * 200_000])
def test_what_is_no_take_is_a_typed_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "take.csv"
    path.write_bytes(content)
    with pytest.raises(MotionFileError, match="take"):
        Take.load(path)


def test_a_missing_file_and_a_header_alone_are_typed_errors(tmp_path: Path) -> None:
    with pytest.raises(MotionFileError, match="No such file"):
        Take.load(tmp_path / "no.csv")
    (tmp_path / "take.csv").write_text(",".join(HEADER))
    with pytest.raises(MotionFileError, match=r"expected 1 to .* rows below the header; got 0"):
        Take.load(tmp_path / "take.csv")
