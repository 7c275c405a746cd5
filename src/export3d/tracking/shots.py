"""Where one shot of a video ends and the next begins (Sec. 4.1: clips are cut at shot changes)."""

from __future__ import annotations

import numpy as np
from PIL import Image

_SIZE = (64, 36)
_BINS = 8  # per colour
_STRIDES = np.array([(_BINS + 2) ** 2, _BINS + 2, 1])


class ShotDetector:
    """Compares each frame with the one before it, by colour histograms.

    A cut changes the colours of the whole picture at once; a moving head or a pan changes them little. A fade is not
    seen as a cut.

    Args:
        threshold: 0 to 1: share of the pixels whose colour is not found again.
    """

    def __init__(self, threshold: float = 0.5) -> None:
        self.threshold = threshold
        self._previous: np.ndarray | None = None

    def is_cut(self, image: np.ndarray) -> bool:
        """Whether this frame, uint8 ``(H, W, 3)``, belongs to another shot than the frame before it."""
        small = reduced(image)
        previous, self._previous = self._previous, small
        if previous is None:
            return False
        # No pixel moves its share further than its own change, so small changes need no histogram.
        change = np.abs(small - previous).mean() * small.shape[-1] * _BINS / 256.0
        return (
            bool(change > self.threshold)
            and histogram_distance(*map(color_histogram, (previous, small))) > self.threshold
        )


def reduced(image: np.ndarray) -> np.ndarray:
    """A frame, uint8 ``(H, W, 3)``, averaged down to 64 x 36, float32; of large frames every so many pixels count."""
    step = max(min(image.shape[:2]) // 72, 1)
    pixels = np.ascontiguousarray(image[::step]).view("V3")[:, ::step]  # taken whole: three bytes a pixel
    few = np.ascontiguousarray(pixels).view(np.uint8)
    small = Image.fromarray(few).resize(_SIZE, Image.Resampling.BOX, reducing_gap=2.0)
    return np.asarray(small, dtype=np.float32)


def color_histogram(small: np.ndarray) -> np.ndarray:
    """``(1000,)`` shares of 10 x 10 x 10 colours in a `reduced` picture, smoothed over neighbouring bins."""
    # Each value is shared between the two nearest bins, so that a slow change of light does not jump across an edge.
    position = small.reshape(-1, 3) / 256.0 * _BINS - 0.5
    low = np.floor(position).astype(int)
    share = position - low
    total = np.zeros((_BINS + 2) ** 3)
    for corner in range(8):
        upper = np.array([corner >> 2 & 1, corner >> 1 & 1, corner & 1])
        bins = low + upper + 1  # from 0: half a bin below the darkest value
        weight = np.where(upper, share, 1.0 - share).prod(axis=1)
        total += np.bincount(bins @ _STRIDES, weight, len(total))
    return total / len(position)


def histogram_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Half the sum of absolute differences: 0 for equal histograms, 1 for histograms without a common colour."""
    return float(np.abs(a - b).sum() / 2.0)
