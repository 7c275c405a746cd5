"""Find the invisible mark again, at any size and shift: the phases of its waves against the keyed ones.

The risk of a false alarm is bounded without a word about pictures. For an unmarked picture the phases differ from the keyed
ones by angles that are independent and uniform, over the draw of the key; so a score, a weighted sum of their cosines divided
by its standard deviation, exceeds z with probability at most exp(-z^2 / 2) (Hoeffding: E exp(t cos u) = I0(t) <= exp(t^2 / 4)).
The threshold makes the sum of that over every run number, shift and size that is tried smaller than `FALSE_ALARM_RISK`. A small
picture holds too little of the mark for so many questions: there a share of the risk is kept for one of them, whether it lies
as it was written (same size, no shift), which then needs a lower score.
"""

from __future__ import annotations

import binascii
import time
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F

from export3d.provenance.waves import GRID, NUM_PATTERNS, PLACES, PROJECT, TILE, waves

FALSE_ALARM_RISK = 1e-6
"""Probability at most that an unmarked video or picture is said to be marked."""

SCALES = (0.4, 2.5)
"""Smallest and largest size, relative to the one that was marked, at which the mark is looked for."""

MAX_SIDE_PX = 512
"""Of larger pictures the middle is looked at."""

SMALL_PX = 192
"""A picture with a shorter longer side is small."""

_AS_WRITTEN_SHARE = 0.1  # of the risk, in a small picture
_LIKELY, _LEAD = 256, 1.0  # places of a pattern that are tried there; of the best payload before the next, deviations
_SCALE_STEP = 0.006  # a wave of the finest period drifts by .15 at the edge of 512 pixels for half of it
_CANDIDATES = 24  # places per pattern that are tried together
_SIZES_READ = 6  # most promising sizes that are read in full
_WHITENING, _FINE_WHITENING = 0.75, 1.0

_COARSE, FINE = (9, 17, 2.0, 2.5), (7, 9, 0.5, 2.0)
"""What `residual` takes away: means of values and of deviations over so many pixels, grey levels of noise, and deviations at
which it clips; for films, and for small pictures, whose own detail is finer."""


@dataclass(frozen=True, kw_only=True)
class FoundMark:
    """What was read.

    Attributes:
        payload: 32 bits.
        score: in standard deviations of what an unmarked picture gives.
        scale: size relative to the one that was marked.
        mirrored: left and right have changed places.
    """

    payload: int
    score: float
    scale: float
    mirrored: bool

    @property
    def run(self) -> int:
        """Number of the run, 24 bits."""
        return self.payload & 0xFFFFFF


class MarkDetector:
    """Collects frames of one video (or a single picture) and reads the mark from all of them together."""

    def __init__(self) -> None:
        self.num_frames = 0
        self._sum = self._fine = np.zeros((0, 0), dtype=np.float32)

    def add(self, image: np.ndarray) -> None:
        """Take one more uint8 ``(H, W, 3)`` frame; a change of size starts afresh."""
        own = residual(_middle(image))
        if own.shape != self._sum.shape:
            self._sum, self._fine, self.num_frames = np.zeros_like(own), np.zeros_like(own), 0
        self._sum += own
        if is_small(image):
            self._fine += residual(image, FINE)
        self.num_frames += 1

    def best_unscaled(self) -> float:
        """Highest score of any payload of this project at the original size, found or not."""
        return _decode(self._surfaces(1.0, False))[0]

    def read_unscaled(self) -> FoundMark | None:
        """The mark, if the video has the size at which it was marked; fast."""
        return self._best([(1.0, False)]) or self._as_written()

    def read(self, deadline: float | None = None) -> FoundMark | None:
        """The mark at any size within `SCALES`, mirrored or not; None where there is none.

        Args:
            deadline: by `time.monotonic()`; sizes that are not tried by then are left out.
        """
        return (
            self.read_unscaled()
            or self._search(mirrored=False, deadline=deadline)
            or self._search(mirrored=True, deadline=deadline)
        )

    def _as_written(self) -> FoundMark | None:
        """The mark of a small picture, if it has neither been resized nor cropped at the left or the top."""
        if not is_small(self._sum):
            return None
        grids = _fits(spectrum(self._fine, 1.0), _FINE_WHITENING)
        score, payload, lead = _decode_as_written(grids[0])
        if lead < _LEAD or score < score_threshold(_AS_WRITTEN_SHARE * FALSE_ALARM_RISK, poses=1, shifts=1):
            return None
        return FoundMark(payload=payload, score=score, scale=1.0, mirrored=False)

    def _search(self, *, mirrored: bool, deadline: float | None) -> FoundMark | None:
        ranked: list[tuple[float, float]] = []
        for scale in all_scales():
            if deadline is not None and time.monotonic() > deadline:
                break
            ranked.append((self._surfaces(scale, mirrored).promise, scale))
        if not ranked:
            return None
        tops = [scale for _, scale in sorted(ranked, reverse=True)[:_SIZES_READ]]
        fine = np.exp(_SCALE_STEP * np.array([-0.5, -0.25, 0.0, 0.25, 0.5]))
        return self._best([(scale * step, mirrored) for scale in tops for step in fine])

    def _best(self, poses: list[tuple[float, bool]]) -> FoundMark | None:
        found = [_decode(self._surfaces(scale, mirrored)) for scale, mirrored in poses]
        score, payload, (scale, mirrored) = max((f[0], f[1], pose) for f, pose in zip(found, poses, strict=True))
        share = 1.0 - _AS_WRITTEN_SHARE if is_small(self._sum) else 1.0
        if score < score_threshold(share * FALSE_ALARM_RISK):
            return None
        return FoundMark(payload=payload, score=score, scale=float(scale), mirrored=mirrored)

    def _surfaces(self, scale: float, mirrored: bool) -> Surfaces:
        if self.num_frames == 0:
            raise RuntimeError("MarkDetector: add a frame first")
        values = self._sum[:, ::-1] if mirrored else self._sum
        return match(spectrum(values, scale))


def all_scales() -> np.ndarray:
    """Sizes that are tried, those near the original first."""
    steps = np.arange(np.log(SCALES[0]), np.log(SCALES[1]), _SCALE_STEP)
    scales: np.ndarray = np.exp(steps[np.argsort(np.abs(steps), kind="stable")])
    return scales


def score_threshold(risk: float = FALSE_ALARM_RISK, poses: int | None = None, shifts: int = TILE**2) -> float:
    """Score above which a mark counts as found, see the top of this file; 9.66, with one pose and shift for .1 of it 8.09.

    Args:
        poses: sizes and mirrorings that are tried; None for those of `read`.
    """
    poses = poses or 1 + 2 * (len(all_scales()) + 5 * _SIZES_READ)
    return float(np.sqrt(2.0 * np.log(2.0**24 * shifts * poses / risk)))


def is_small(image: np.ndarray) -> bool:
    """Whether so little of the mark fits into a picture ``(H, W, ..)`` that it is written and read in another way."""
    return 0 < max(image.shape[:2]) < SMALL_PX


def residual(image: np.ndarray, how: tuple[int, int, float, float] = _COARSE) -> np.ndarray:
    """What is left of a picture without its slow parts, in units of the local contrast: float32 ``(H, W)``."""
    grey = torch.from_numpy(image @ np.array([0.299, 0.587, 0.114], dtype=np.float32))
    values, deviations, noise, clip = how
    high = grey - _blur(grey, values)
    return (high / (_blur(high.abs(), deviations) + noise)).clamp(-clip, clip).numpy()


def _middle(image: np.ndarray) -> np.ndarray:
    top, left = (max(0, (side - MAX_SIDE_PX) // 2) for side in image.shape[:2])
    return image[top : top + MAX_SIDE_PX, left : left + MAX_SIDE_PX]


def _blur(values: torch.Tensor, size: int) -> torch.Tensor:
    """Mean of size x size values, of fewer at the border."""
    half = size // 2
    across = F.avg_pool2d(values[None, None], (1, size), 1, (0, half), count_include_pad=False)
    return F.avg_pool2d(across, (size, 1), 1, (half, 0), count_include_pad=False)[0, 0]


def spectrum(values: np.ndarray, scale: float) -> np.ndarray:
    """Fourier coefficients ``(n,)`` of ``(H, W)`` values at the mark's waves, for a mark whose tile is `scale` as large."""
    keyed = waves()
    high = int(keyed.y.max())
    unit = -2j * np.pi / (TILE * scale)
    rows = np.exp(unit * np.outer(np.arange(high + 1), np.arange(values.shape[0]))).astype(np.complex64)
    columns = np.exp(unit * np.outer(np.arange(values.shape[1]), np.arange(-high, high + 1))).astype(np.complex64)
    coefficients: np.ndarray = ((rows @ values.astype(np.complex64)) @ columns)[keyed.y, keyed.x + high]
    return coefficients


@dataclass(frozen=True)
class Surfaces:
    """How well each pattern fits at each place.

    Attributes:
        fits: ``(5, 64 * 64)``, the share of each pattern in the score, at the places of one grid.
        promise: largest score that any payload and checksum could have.
    """

    fits: np.ndarray
    promise: float


def match(coefficients: np.ndarray) -> Surfaces:
    """Correlate with the five patterns at all shifts, on that of the 2x2 grids where they fit best."""
    grids = _fits(coefficients, _WHITENING)
    promises = grids.max(axis=2).sum(axis=1)
    best = int(promises.argmax())
    return Surfaces(grids[best], float(promises[best]))


def _fits(coefficients: np.ndarray, whitening: float) -> np.ndarray:
    """``(4, 5, 64 * 64)``: how well each pattern fits at each place of the four grids; the first holds the origin."""
    keyed = waves()
    unit = coefficients / np.maximum(np.abs(coefficients), 1e-12) ** whitening
    unit /= max(float(np.sqrt(np.sum(np.abs(unit) ** 2) / 2)), 1e-12)
    fields = np.zeros((NUM_PATTERNS, TILE, TILE), dtype=np.complex64)
    fields[keyed.pattern, keyed.y, keyed.x] = unit * np.exp(-1j * keyed.phase)
    surfaces = torch.fft.ifft2(torch.from_numpy(fields), norm="forward").real
    grids = surfaces.reshape(NUM_PATTERNS, PLACES, GRID, PLACES, GRID).permute(2, 4, 0, 1, 3)
    return grids.reshape(GRID**2, NUM_PATTERNS, PLACES**2).numpy()


@lru_cache(maxsize=1)
def _checksums() -> tuple[np.ndarray, int]:
    """XOR contributions ``(4, 4096)`` of each symbol to checksum and stored checksum, which cancel for a valid word.

    A checksum is affine over bits, so the contributions of the parts can be joined by XOR.
    """
    zero = binascii.crc_hqx(bytes(4), 0xFFFF)
    symbols = np.arange(4096, dtype=np.int64)
    table = np.zeros((4, 4096), dtype=np.int64)
    for row, shift in enumerate((36, 24, 12, 0)):
        words = symbols << shift
        crc = [binascii.crc_hqx(int(word >> 16).to_bytes(4, "big"), 0xFFFF) ^ zero for word in words]
        table[row] = np.array(crc) ^ (words & 0xFFFF)
    return table, zero


def _decode(surfaces: Surfaces) -> tuple[float, int]:
    """(score, payload) of the best fitting payload of this project among the best places of each pattern; (0, 0) if none."""
    origin = int(surfaces.fits[0].argmax())
    y0, x0 = divmod(origin, PLACES)
    places = np.argsort(surfaces.fits[1:], axis=1)[:, : -_CANDIDATES - 1 : -1]
    fits = np.take_along_axis(surfaces.fits[1:], places, axis=1)
    symbols = ((places // PLACES - y0) % PLACES) * PLACES + (places % PLACES - x0) % PLACES
    table, zero = _checksums()
    parts = table[np.arange(NUM_PATTERNS - 1)[:, None], symbols]
    scores, checks = _join(np.add, fits), _join(np.bitwise_xor, parts)
    ours = (symbols[0] >> 4) == PROJECT
    valid = (checks == zero) & ours[:, None, None, None]
    if not valid.any():
        return 0.0, 0
    flat = int(np.where(valid, scores, -np.inf).argmax())
    picks = np.unravel_index(flat, scores.shape)
    word = 0
    for row, pick in enumerate(picks):
        word = word << 12 | int(symbols[row, pick])
    return float(surfaces.fits[0, origin] + scores.flat[flat]), word >> 16


def _decode_as_written(fits: np.ndarray) -> tuple[float, int, float]:
    """(score, payload, lead over the next) of the best fitting payload of this project whose first pattern lies at the origin.

    Of the 48 bits the first 8 are known and the last 12 follow from the others: neither need fit well by themselves.
    """
    table, zero = _checksums()
    picks = [np.arange(16) + (PROJECT << 4), *(np.argpartition(row, -_LIKELY)[-_LIKELY:] for row in fits[2:4])]
    checks, scores = np.array(zero), fits[0, 0]
    for row, symbols in enumerate(picks):
        checks = np.bitwise_xor.outer(checks, table[row, symbols])
        scores = np.add.outer(scores, fits[1 + row, symbols])
    scores = np.where(checks < PLACES**2, scores + fits[4, checks % PLACES**2], -np.inf)
    second, highest = np.partition(scores, -2, axis=None)[-2:].tolist()
    best = np.unravel_index(int(scores.argmax()), scores.shape)
    symbols = [int(some[at]) for some, at in zip(picks, best, strict=True)]
    return highest, (symbols[0] << 24 | symbols[1] << 12 | symbols[2]) >> 4, highest - second


def _join(operation: np.ufunc, rows: np.ndarray) -> np.ndarray:
    """One value for each choice of one element from each of four rows: ``(c, c, c, c)``."""
    a, b, c, d = rows
    first: np.ndarray = operation.outer(operation.outer(a, b), operation.outer(c, d))
    return first
