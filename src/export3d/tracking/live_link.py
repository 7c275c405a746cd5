"""Takes of ARKit weights: the CSV of Apple's face tracking as Live Link Face writes it, read and written (no paper section).

A row is a time code `HH:MM:SS:FF.fff`, the number 61, 52 weights in Apple's order, then yaw, pitch and roll of the head and of
each eye in radians, in the axes of ARKit's face anchor: x to the right of who looks at the face, y up, z towards them, rotation
Ry(yaw) Rx(pitch) Rz(roll). So a positive yaw turns to the image right and a positive pitch looks down, as
`Camera.look_at_head` has it.
"""

from __future__ import annotations

import csv
import io
import re
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch

from export3d.camera import Camera
from export3d.errors import MotionFileError
from export3d.face_state import ARKIT_NAMES
from export3d.files import write_atomically
from export3d.reading import reading, shortened
from export3d.tracking import brows
from export3d.tracking.motion import Motion

SUFFIX = ".csv"

GAZE_PER_WEIGHT_RAD = 0.5
"""An eyeLook weight of 1 goes with this turn of the eye, where a recorder leaves the eyes' angles at zero."""

_EYE = ("Blink", "LookDown", "LookIn", "LookOut", "LookUp", "Squint", "Wide")
# fmt: off
_APPLE_ORDER = (
    *(f"eye{part}{side}" for side in ("Left", "Right") for part in _EYE),
    "jawForward", "jawRight", "jawLeft", "jawOpen", "mouthClose", "mouthFunnel", "mouthPucker", "mouthRight", "mouthLeft",
    *(f"mouth{part}{side}" for part in ("Smile", "Frown", "Dimple", "Stretch") for side in ("Left", "Right")),
    "mouthRollLower", "mouthRollUpper", "mouthShrugLower", "mouthShrugUpper",
    *(f"mouth{part}{side}" for part in ("Press", "LowerDown", "UpperUp") for side in ("Left", "Right")),
    "browDownLeft", "browDownRight", "browInnerUp", "browOuterUpLeft", "browOuterUpRight", "cheekPuff", "cheekSquintLeft",
    "cheekSquintRight", "noseSneerLeft", "noseSneerRight", "tongueOut",
)
# fmt: on
_PLACES = [ARKIT_NAMES.index(name) for name in _APPLE_ORDER]
_ANGLES = [f"{part}{angle}" for part in ("Head", "LeftEye", "RightEye") for angle in ("Yaw", "Pitch", "Roll")]
HEADER = ["Timecode", "BlendShapeCount", *(name[0].upper() + name[1:] for name in _APPLE_ORDER), *_ANGLES]

_LOWER = [name.lower() for name in HEADER]
_REQUIRED = {name for name in _LOWER[2:] if name not in ("tongueout", *(a.lower() for a in _ANGLES))}
_CODE = re.compile(r"(\d{1,2}):(\d{1,2}):(\d{1,2}):(\d{1,3}(?:\.\d{1,9})?)")
_RATES = (60, 30, 24, 25, 48, 50, 120, 15)
"""Frames per second of the time code, likeliest first; the file does not say it."""

_WRITTEN_RATE = 60
_DAY_S = 86_400.0
_MAX_ROWS = 10_000_000
_FARTHEST_RAD = 2.0 * np.pi
_REMEDY = "Record or export the take again as a CSV of Live Link Face, or make one: export3d track clip.mp4 -o take.csv"


@dataclass(frozen=True, kw_only=True)
class Take:
    """A recorded performance."""

    weights: np.ndarray
    """``(T, 52)`` float32, order of `ARKIT_NAMES`."""
    head: np.ndarray
    """``(T, 3)`` float32 yaw, pitch, roll in radians."""
    gaze: np.ndarray
    """``(T, 2)`` float32 radians in the head's frame, sideways (+ to the image right) and up: the mean of both eyes."""
    time_s: np.ndarray
    """``(T,)`` float64 seconds from the first row, increasing."""

    def __len__(self) -> int:
        return len(self.weights)

    @property
    def fps(self) -> Fraction:
        """The usual rate of the rows; 25 of a single one."""
        if len(self) < 2:
            return Fraction(25)
        return Fraction(1.0 / float(np.median(np.diff(self.time_s)))).limit_denominator(1001)

    @property
    def cameras(self) -> np.ndarray:
        """``(T, 25)`` float32: cameras that see the head turned like that."""
        yaw, pitch, roll = torch.from_numpy(self.head).unbind(1)
        return Camera.look_at_head(yaw, pitch, roll).to_vector().float().numpy()

    @staticmethod
    def of_motion(motion: Motion) -> Take:
        """What a tracked clip says; weights that are unknown become 0, an unknown gaze looks straight ahead. A weight that
        falls below 0, as a person's jaw may be read, is lifted over the whole take, so that its lowest is 0; brows rest at 0.

        Raises:
            MotionFileError: The motion has no single weights.
        """
        if motion.weights is None or np.isnan(motion.weights).all():
            raise MotionFileError(
                "the motion has no single weights, which a take consists of. Track the clip again: export3d track"
            )
        weights = np.nan_to_num(motion.weights)
        weights[:, brows.COLUMNS] = np.maximum(weights - np.median(weights, axis=0), 0.0)[:, brows.COLUMNS]
        gaze = np.zeros((len(motion), 2), np.float32) if motion.gaze is None else motion.gaze
        return Take(
            weights=weights - weights.min(axis=0).clip(max=0.0),
            head=Camera.from_vector(torch.from_numpy(motion.camera)).head_angles().float().numpy(),
            gaze=np.nan_to_num(gaze),
            time_s=motion.time_s - motion.time_s[0],
        )

    def save(self, path: str | Path) -> None:
        """Write the CSV under a temporary name, then rename it; the time code counts 60 frames per second.

        Raises:
            OutputError: The folder is missing or not writable, or the disk is full.
        """
        text = io.StringIO()
        rows = csv.writer(text, lineterminator="\n")
        rows.writerow(HEADER)
        for time_s, weights, head, gaze in zip(self.time_s, self.weights, self.head, self.gaze, strict=True):
            eye = (gaze[0], -gaze[1], 0.0)
            numbers = (*weights[_PLACES], *head, *eye, *eye)
            rows.writerow([_time_code(float(time_s)), len(HEADER) - 2, *(f"{float(number):.8f}" for number in numbers)])
        write_atomically(Path(path), text.getvalue().encode(), "Choose another place with -o.")

    @staticmethod
    def load(path: str | Path) -> Take:
        """Read a CSV of Live Link Face, or of who writes like it: columns are found by name, capitals do not matter; the
        tongue and the angles may be missing.

        Raises:
            MotionFileError: No such file, no text, no such header, a column twice, a row of another length, a cell that is
                no number or far out of range, a time code that is none or does not increase, or no rows.
        """
        path = Path(path)
        with reading(path, "not a CSV text file", MotionFileError, _REMEDY):
            with path.open(encoding="utf-8-sig", newline="") as file:
                lines = [line for line in csv.reader(file) if any(cell.strip() for cell in line)]
        names = [cell.strip().lower() for cell in lines[0]] if lines else []
        missing = sorted(({"timecode"} | _REQUIRED) - set(names))
        doubled = sorted({name for name in names if name in _LOWER and names.count(name) > 1})
        if missing or doubled:
            raise MotionFileError(
                f"{path}, row 1: expected the columns of Live Link Face ({', '.join(HEADER[:4])}, ...); missing: "
                f"{shortened(', '.join(missing) or 'none')}; twice: {', '.join(doubled) or 'none'}. {_REMEDY}"
            )
        if not 2 <= len(lines) <= _MAX_ROWS:
            raise MotionFileError(f"{path}: expected 1 to {_MAX_ROWS} rows below the header; got {len(lines) - 1}.")
        cells = {name: [] for name in names if name in _LOWER}
        for number, line in enumerate(lines[1:], start=2):
            if len(line) != len(names):
                raise MotionFileError(
                    f"{path}, row {number}: expected {len(names)} cells as in the header; got {len(line)}. {_REMEDY}"
                )
            for name, cell in zip(names, line, strict=True):
                if name in cells:
                    cells[name].append(cell.strip())
        return _take(path, cells)


def _take(path: Path, cells: dict[str, list[str]]) -> Take:
    rows = len(cells["timecode"])
    columns = {name: np.zeros(rows) for name in _LOWER[2:]}
    columns |= {name: _numbers(path, name, column) for name, column in cells.items() if name in columns}
    weights = np.zeros((rows, len(ARKIT_NAMES)), np.float32)
    weights[:, _PLACES] = np.stack([columns[name.lower()] for name in _APPLE_ORDER], axis=1)
    head, left, right = (
        np.stack([columns[f"{part}{angle}"] for angle in ("yaw", "pitch", "roll")], axis=1).astype(np.float32)
        for part in ("head", "lefteye", "righteye")
    )
    eyes = (left + right) / 2.0
    gaze = np.stack([eyes[:, 0], -eyes[:, 1]], axis=1) if np.any(eyes) else gaze_of_weights(weights)
    return Take(weights=np.clip(weights, 0.0, 1.0), head=head, gaze=gaze, time_s=_times(path, cells["timecode"]))


def gaze_of_weights(weights: np.ndarray) -> np.ndarray:
    """``(T, 2)`` float32 radians, sideways and up, from the eyeLook weights ``(T, 52)``."""
    by = {name: weights[:, index] for index, name in enumerate(ARKIT_NAMES) if name.startswith("eyeLook")}
    sideways = by["eyeLookOutLeft"] - by["eyeLookInLeft"] + by["eyeLookInRight"] - by["eyeLookOutRight"]
    up = by["eyeLookUpLeft"] - by["eyeLookDownLeft"] + by["eyeLookUpRight"] - by["eyeLookDownRight"]
    return np.stack([sideways, up], axis=1).astype(np.float32) * (GAZE_PER_WEIGHT_RAD / 2.0)


def _numbers(path: Path, name: str, column: list[str]) -> np.ndarray:
    """A column's numbers; an empty cell is 0."""
    low, high = (-_FARTHEST_RAD, _FARTHEST_RAD) if name.endswith(("yaw", "pitch", "roll")) else (-0.5, 2.0)
    values = np.zeros(len(column))
    for row, cell in enumerate(column):
        try:
            values[row] = float(cell or 0.0)
        except ValueError:
            values[row] = np.nan
        if not low <= values[row] <= high:
            raise MotionFileError(
                f"{path}, row {row + 2}, column {HEADER[_LOWER.index(name)]}: expected a number from {low:.3g} to "
                f"{high:.3g}; got '{shortened(cell)}'. {_REMEDY}"
            )
    return values


def _times(path: Path, codes: list[str]) -> np.ndarray:
    """``(T,)`` float64 seconds. Of the usual rates of a time code, the one that makes the rows most even."""
    fields = np.zeros((len(codes), 4))
    for row, code in enumerate(codes):
        found = _CODE.fullmatch(code)
        if found is None:
            raise MotionFileError(
                f"{path}, row {row + 2}: expected a time code HH:MM:SS:FF.fff; got '{shortened(code)}'. {_REMEDY}"
            )
        fields[row] = [float(part) for part in found.groups()]
    whole = fields[:, :3] @ [3600.0, 60.0, 1.0]
    whole[1:] += _DAY_S * np.cumsum(np.diff(whole) < -_DAY_S / 2.0)  # past midnight
    best, least = whole, np.inf
    for rate in _RATES:
        if fields[:, 3].max() >= rate:
            continue
        seconds = whole + fields[:, 3] / rate
        steps = np.diff(seconds)
        uneven = float(np.abs(steps - np.median(steps)).mean()) if len(steps) else 0.0
        if uneven < least - 1e-4:
            best, least = seconds, uneven
    if np.any(np.diff(best) <= 0.0):
        row = int(np.argmax(np.diff(best) <= 0.0)) + 3
        raise MotionFileError(
            f"{path}, row {row}: its time code '{codes[row - 2]}' is not after the row before. {_REMEDY}"
        )
    return best - best[0]


def _time_code(time_s: float) -> str:
    frames = round(time_s * _WRITTEN_RATE, 3)
    seconds = int(frames // _WRITTEN_RATE)
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}:{frames - seconds * _WRITTEN_RATE:06.3f}"
