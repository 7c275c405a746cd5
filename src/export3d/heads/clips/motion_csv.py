"""Motion from a CSV of ARKit blendshape weights, as Live Link Face and similar recorders write it."""

from __future__ import annotations

import csv
import difflib
from pathlib import Path

import numpy as np

from export3d.errors import MotionFileError
from export3d.heads.clips.motion import Motion, weights_to_gaze
from export3d.heads.shape.parametric import EXPRESSION_NAMES

POSE_COLUMNS = ("yaw", "pitch", "roll")
"""Optional columns in radians, with the signs of :class:`Motion`."""


def _column_table() -> dict[str, tuple[int, ...]]:
    """Lower-case column name -> the shapes it sets. ARKit's browInnerUp and cheekPuff set both of our sides."""
    table: dict[str, tuple[int, ...]] = {}
    for index, name in enumerate(EXPRESSION_NAMES):
        table[name.lower()] = (index,)
        if name.endswith(("_L", "_R")):
            table[(name[:-2] + {"L": "Left", "R": "Right"}[name[-1]]).lower()] = (index,)
            both = name[:-2].lower()
            table[both] = (*table.get(both, ()), index)
    return table


_COLUMNS = _column_table()


def from_csv(path: str | Path) -> Motion:
    """Read one frame per row from a CSV file with a header.

    Columns are found by name, whatever their order and capitals: Live Link's `JawOpen`, `EyeBlinkLeft`, ARKit's
    `eyeBlinkLeft`, or our `eyeBlink_L`. A missing shape is 0, and so is an empty cell. `yaw`, `pitch`, `roll` (radians)
    are read if present; the gaze follows the eyeLook shapes. Every other column (Timecode, BlendShapeCount, TongueOut,
    HeadYaw, ..., whose signs differ between recorders) is left out. Weights are cut to 0..1.

    Raises:
        MotionFileError: No such file, not text, no known column, a column named almost like a shape, a row of another
            length, a cell that is no finite number, or no row.
    """
    path = Path(path)
    if not path.is_file():
        raise MotionFileError(f"{path}: no such CSV file.")
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = [row for row in csv.reader(file) if any(cell.strip() for cell in row)]
    except (UnicodeDecodeError, csv.Error) as error:
        raise MotionFileError(f"{path}: not a CSV text file ({error}).") from error
    if not rows:
        raise MotionFileError(f"{path}: the file is empty; expected a header with the names of blendshapes.")
    names = [cell.strip().lower() for cell in rows[0]]
    _check_header(path, rows[0], names)
    if len(rows) < 2:
        raise MotionFileError(f"{path}: a header without rows; expected one row per frame.")
    weights = np.zeros((len(rows) - 1, len(EXPRESSION_NAMES)))
    pose = np.zeros((len(rows) - 1, 3))
    for frame, row in enumerate(rows[1:]):
        if len(row) != len(names):
            raise MotionFileError(
                f"{path}, row {frame + 2}: expected {len(names)} cells as in the header; got {len(row)}."
            )
        for name, cell in zip(names, row, strict=True):
            if name in _COLUMNS:
                weights[frame, list(_COLUMNS[name])] = _number(path, frame, name, cell)
            elif name in POSE_COLUMNS:
                pose[frame, POSE_COLUMNS.index(name)] = _number(path, frame, name, cell)
    weights = np.clip(weights, 0.0, 1.0)
    yaw, pitch, roll = pose.T.astype(np.float32)
    return Motion(
        weights=weights.astype(np.float32),
        gaze=weights_to_gaze(weights).astype(np.float32),
        yaw=yaw,
        pitch=pitch,
        roll=roll,
        shift=np.zeros((len(weights), 3), np.float32),
    )


def _check_header(path: Path, shown: list[str], names: list[str]) -> None:
    known = [name for name in names if name in _COLUMNS]
    for name, as_written in zip(names, shown, strict=True):
        near = difflib.get_close_matches(name, _COLUMNS, n=1, cutoff=0.9)
        if name not in _COLUMNS and near:
            raise MotionFileError(
                f"{path}: column '{as_written.strip()}' is not a blendshape. Did you mean '{near[0]}'?"
            )
    if not known:
        raise MotionFileError(
            f"{path}: no column is named after a blendshape; expected names such as jawOpen or EyeBlinkLeft; got "
            f"{', '.join(cell.strip() for cell in shown[:5])}."
        )
    twice = next((name for name in known if names.count(name) > 1), None)
    if twice is not None:
        raise MotionFileError(f"{path}: column '{twice}' appears twice. Remove one of them.")


def _number(path: Path, frame: int, name: str, cell: str) -> float:
    text = cell.strip()
    try:
        value = float(text) if text else 0.0
    except ValueError:
        value = float("nan")
    if not np.isfinite(value):
        raise MotionFileError(f"{path}, row {frame + 2}, column '{name}': expected a number; got '{text}'.")
    return value
