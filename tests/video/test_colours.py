"""HDR, wide and finely sampled films: known levels of light come out as the grey that a display would show."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc

from export3d.video import VideoReader


def write(path: Path, levels: tuple[int, int, int], *, pixels: str = "yuv420p10le", **tags: int) -> Path:
    """Three frames of one colour, given as the code values of Y, Cb and Cr."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"qp": "0"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, pixels
        for name, value in tags.items():
            setattr(stream.codec_context, name, value)
        for _ in range(3):
            frame = av.VideoFrame(64, 48, pixels)
            for plane, level in zip(frame.planes, levels, strict=True):
                kind = np.uint16 if "10" in pixels else np.uint8
                plane.update(np.full(plane.buffer_size // kind().itemsize, level, kind))
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def seen(path: Path) -> np.ndarray:
    """The colour in the middle of the last frame."""
    with VideoReader(path) as reader:
        return [frame.image for frame in reader][-1][24, 32].astype(int)


HDR = {"color_primaries": ColorPrimaries.BT2020, "colorspace": Colorspace.BT2020, "color_range": ColorRange.MPEG}


def code(signal: float) -> int:
    """10-bit code value of a signal in 0..1, narrow range."""
    return round(64 + 876 * signal)


@pytest.mark.parametrize(
    ("transfer", "signal", "shown"),
    [
        # 20.3 cd/m2 is a tenth of reference white: 0.1^(1/2.4) = .3831 of 255.
        (ColorTrc.SMPTE2084, 0.3581, 97.7),
        # Reference white, 203 cd/m2, is pressed to 1 - .2 exp(-1) = .9264: 255 * .9264^(1/2.4).
        (ColorTrc.SMPTE2084, 0.5807, 247.0),
        (ColorTrc.SMPTE2084, 1.0, 255.0),  # 10,000 cd/m2
        # HLG 75 % is reference white too (BT.2408); 38 % is 26 cd/m2: .1444 / 3 of the scene, ^1.2 * 1000 / 203 = .1294.
        (ColorTrc.ARIB_STD_B67, 0.75, 247.0),
        (ColorTrc.ARIB_STD_B67, 0.38, 108.8),
    ],
)
def test_light_of_a_known_level_comes_out_at_the_level_of_other_films(
    tmp_path: Path, transfer: int, signal: float, shown: float
) -> None:
    path = write(tmp_path / "a.mp4", (code(signal), 512, 512), color_trc=transfer, **HDR)
    assert np.abs(seen(path) - shown).max() <= 1.5


def test_a_wide_red_is_a_stronger_red_and_grey_stays(tmp_path: Path) -> None:
    """R = .6, G = B = .3 of BT.2020, by hand: linear .2935, .0556; in BT.709 .4508 (R), .0259 (G), .0512 (B)."""
    red, green = 0.6, 0.3
    luma = 0.2627 * red + 0.7373 * green
    levels = (code(luma), round(512 + 896 * (green - luma) / 1.8814), round(512 + 896 * (red - luma) / 1.4746))
    path = write(tmp_path / "a.mp4", levels, color_trc=ColorTrc.BT2020_10, **HDR)
    assert np.abs(seen(path) - 255 * np.array([0.4508, 0.0259, 0.0512]) ** (1 / 2.4)).max() <= 3
    path = write(tmp_path / "b.mp4", (code(0.5), 512, 512), color_trc=ColorTrc.BT2020_10, **HDR)
    assert np.abs(seen(path) - 127.5).max() <= 1.5


def test_the_red_of_display_p3_is_a_stronger_red_and_grey_stays(tmp_path: Path) -> None:
    """R = .6, G = B = .3 of P3 (D65), by hand: linear .2935, .0556; in BT.709 .3470 (R), .0456 (G), .0510 (B)."""
    tags = {"color_primaries": ColorPrimaries.SMPTE432, "color_trc": ColorTrc.BT709, "colorspace": Colorspace.ITU709}
    red, green = 0.6, 0.3
    luma = 0.2126 * red + 0.7874 * green
    levels = (code(luma), round(512 + 896 * (green - luma) / 1.8556), round(512 + 896 * (red - luma) / 1.5748))
    wanted = 255 * np.array([0.3470, 0.0456, 0.0510]) ** (1 / 2.4)
    assert np.abs(wanted - 255 * np.array([red, green, green])).max() > 6  # or the test could not fail
    assert np.abs(seen(write(tmp_path / "a.mp4", levels, **tags)) - wanted).max() <= 1.5
    assert np.abs(seen(write(tmp_path / "b.mp4", (code(0.5), 512, 512), **tags)) - 127.5).max() <= 1.5


def test_a_film_with_colour_for_every_pixel_reads_like_any_other(tmp_path: Path) -> None:
    """4:4:4: Y 100, Cb 110, Cr 170 of BT.601 are 164.8, 70.7, 61.5 by hand."""
    tags = {"colorspace": Colorspace.ITU601, "color_range": ColorRange.MPEG}
    for pixels in ("yuv444p", "yuv420p"):
        path = write(tmp_path / f"{pixels}.mp4", (100, 110, 170), pixels=pixels, **tags)
        assert np.abs(seen(path) - [164.8, 70.7, 61.5]).max() <= 2
