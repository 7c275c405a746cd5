"""images.py: value ranges, and one typed error for each kind of bad picture."""

from __future__ import annotations

import struct
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms

from export3d.errors import ImageSizeError, UnreadableImageError
from export3d.images import is_moving, read_cutout, read_image, to_tensor, to_uint8


def test_every_8_bit_value_survives_the_round_trip() -> None:
    values = np.repeat(np.arange(256, dtype=np.uint8).reshape(16, 16, 1), 3, axis=2)
    assert np.array_equal(to_uint8(to_tensor(values)), values)


def test_black_is_minus_one_white_is_one_and_channels_come_first() -> None:
    image = np.zeros((2, 3, 3), dtype=np.uint8)
    image[0, 2] = (255, 0, 51)  # 51 / 127.5 - 1 = -0.6
    tensor = to_tensor(image)
    assert tensor.shape == (3, 2, 3)
    assert torch.allclose(tensor[:, 0, 2], torch.tensor([1.0, -1.0, -0.6]), atol=1e-6)


def test_a_batch_keeps_its_leading_dimensions() -> None:
    clip = np.zeros((5, 4, 6, 3), dtype=np.uint8)
    assert to_tensor(clip).shape == (5, 3, 4, 6)
    assert to_uint8(to_tensor(clip)).shape == (5, 4, 6, 3)


def test_values_outside_the_range_are_clipped_not_wrapped() -> None:
    tensor = torch.tensor([-1.002, 1.002, 7.0]).reshape(3, 1, 1)
    assert to_uint8(tensor).tolist() == [[[0, 255, 255]]]


def test_a_float_image_is_refused_with_its_type_and_shape() -> None:
    with pytest.raises(ValueError, match=r"image must be uint8 \(\.\.\., H, W, 3\); got float32 \(4, 4, 3\)"):
        to_tensor(np.zeros((4, 4, 3), dtype=np.float32))


def _picture(width: int = 40, height: int = 36) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def test_a_png_is_read_exactly(tmp_path: Path) -> None:
    picture = _picture()
    picture.save(tmp_path / "a.png")
    assert np.array_equal(read_image(tmp_path / "a.png"), np.asarray(picture))


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "LA", "CMYK", "1"])
def test_every_colour_mode_becomes_three_channels(tmp_path: Path, mode: str) -> None:
    name = tmp_path / ("a.tif" if mode == "CMYK" else "a.png")
    _picture().convert(mode).save(name)
    image = read_image(name)
    assert image.shape == (36, 40, 3) and image.dtype == np.uint8


def test_a_16_bit_grey_image_keeps_its_greys(tmp_path: Path) -> None:
    grey = np.full((40, 40), 128 * 257, dtype=np.uint16)  # 16-bit 32896 is 8-bit 128
    Image.fromarray(grey).save(tmp_path / "a.png")
    assert np.abs(read_image(tmp_path / "a.png").astype(int) - 128).max() <= 1


def test_exif_rotation_is_applied(tmp_path: Path) -> None:
    picture = _picture()
    exif = Image.Exif()
    exif[0x0112] = 6  # stored turned by 90 degrees: turn clockwise to show
    picture.save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(read_image(tmp_path / "a.png"), np.rot90(np.asarray(picture), k=-1))


def test_transparent_pixels_are_laid_over_black(tmp_path: Path) -> None:
    pixels = np.full((32, 32, 4), 200, dtype=np.uint8)
    pixels[:16, :, 3] = 0
    pixels[16:, :, 3] = 255
    Image.fromarray(pixels).save(tmp_path / "a.png")
    image = read_image(tmp_path / "a.png")
    assert (image[:16] == 0).all() and (image[16:] == 200).all()


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UnreadableImageError, match=r"gone\.png: no such image file"):
        read_image(tmp_path / "gone.png")


def test_a_text_file_is_not_an_image(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("hello")
    with pytest.raises(UnreadableImageError, match=r"a\.png: not an image"):
        read_image(tmp_path / "a.png")


def test_an_empty_file_is_not_an_image(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(UnreadableImageError, match=r"a\.png: not an image"):
        read_image(tmp_path / "a.png")


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_a_truncated_image_says_so_and_what_to_do(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    _picture(200, 200).save(path)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(UnreadableImageError, match=r"damaged or truncated .*Export it again"):
        read_image(path)


def test_a_one_pixel_image_is_too_small(tmp_path: Path) -> None:
    Image.new("RGB", (1, 1)).save(tmp_path / "a.png")
    with pytest.raises(ImageSizeError, match=r"the image is 1x1; expected at least 32 pixels"):
        read_image(tmp_path / "a.png")


def _png_that_claims(width: int, height: int) -> bytes:
    """A PNG header of any size without the pixels, so that the test costs no memory."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize(("width", "height"), [(20_000, 20_000), (12_000, 9_000)])
def test_an_absurdly_large_image_is_refused_before_it_is_decoded(tmp_path: Path, width: int, height: int) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(_png_that_claims(width, height))
    with pytest.raises(ImageSizeError, match="megapixels"):
        read_image(path)


def test_a_folder_is_not_an_image(tmp_path: Path) -> None:
    with pytest.raises(UnreadableImageError, match="no such image file"):
        read_image(tmp_path)


def test_a_phones_mpo_and_the_pages_of_a_tiff_are_stills_and_a_gif_is_a_film(tmp_path: Path) -> None:
    picture, small = Image.new("RGB", (64, 48), "red"), Image.new("RGB", (40, 40))
    exif = Image.Exif()
    exif[0x010F] = "Phone"
    picture.save(tmp_path / "a.tiff", save_all=True, append_images=[small])
    picture.save(tmp_path / "a.gif", save_all=True, append_images=[Image.new("RGB", (64, 48), "blue")])
    # The last one: saving it leaves options in the pictures that other formats stumble over.
    picture.save(tmp_path / "a.jpg", format="MPO", save_all=True, append_images=[small], exif=exif)
    (tmp_path / "a.txt").write_text("words")
    moving = [is_moving(tmp_path / name) for name in ("a.jpg", "a.tiff", "a.gif", "a.txt")]
    assert moving == [False, False, True, None]
    assert read_image(tmp_path / "a.jpg").shape == (48, 64, 3)


def test_a_program_in_a_pictures_clothes_is_not_started(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\nshowpage\n")
    with pytest.raises(UnreadableImageError):
        read_image(tmp_path / "a.png")


def test_a_heic_picture_is_named_with_what_helps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    (tmp_path / "a.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(64))
    with pytest.raises(UnreadableImageError, match="pip install pillow-heif"):
        read_image(tmp_path / "a.heic")


def test_a_colour_profile_is_applied(tmp_path: Path) -> None:
    """An image whose profile is sRGB itself stays; a profile that is damaged is ignored."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    colour = Image.new("RGB", (40, 40), (200, 80, 30))
    colour.save(tmp_path / "a.png", icc_profile=profile)
    colour.save(tmp_path / "b.png", icc_profile=b"not a profile")
    for name in ("a.png", "b.png"):
        assert np.abs(read_image(tmp_path / name)[0, 0].astype(int) - (200, 80, 30)).max() <= 1
    grey = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    colour.save(tmp_path / "c.png", icc_profile=grey)
    assert read_image(tmp_path / "c.png").shape == (40, 40, 3)


SRGB_CURVE = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
SRGB_XYZ = [[0.43607, 0.38515, 0.14307], [0.22249, 0.71687, 0.06061], [0.01392, 0.09708, 0.71410]]
WIDE = {
    "Adobe RGB": ([[0.60974, 0.20528, 0.14919], [0.31111, 0.62567, 0.06322], [0.01947, 0.06087, 0.74457]], 563 / 256),
    "Display P3": (
        [[0.51512, 0.29198, 0.15710], [0.24120, 0.69225, 0.06657], [-0.00105, 0.04189, 0.78407]],
        SRGB_CURVE,
    ),
    "ProPhoto RGB": ([[0.79767, 0.13519, 0.03135], [0.28804, 0.71187, 0.00009], [0.0, 0.0, 0.82521]], 461 / 256),
}
"""Published numbers: what red, green and blue (columns) are in XYZ at D50, and the exponent or ICC's curve of type 3."""


def light_of(value: np.ndarray, curve: float | tuple[float, ...]) -> np.ndarray:
    """Linear light of values in 0..1."""
    if isinstance(curve, float):
        return value**curve
    power, scale, offset, slope, limit = curve
    return np.where(value < limit, slope * value, (scale * value + offset) ** power)


def profile_of(space: str) -> bytes:
    """An ICC profile with the published numbers of a colour space."""

    def fixed(*values: float) -> bytes:
        return b"".join(round(value * 65536).to_bytes(4, "big", signed=True) for value in values)

    primaries, curve = WIDE[space]
    text = b"made up"
    tags = {b"desc": b"desc" + bytes(4) + (len(text) + 1).to_bytes(4, "big") + text + bytes(1 + 79)}
    tags[b"cprt"] = b"text" + bytes(4) + text + bytes(1)
    tags[b"wtpt"] = b"XYZ " + bytes(4) + fixed(0.9642, 1.0, 0.8249)
    for name, column in zip((b"rXYZ", b"gXYZ", b"bXYZ"), np.array(primaries).T, strict=True):
        tags[name] = b"XYZ " + bytes(4) + fixed(*column)
    for name in (b"rTRC", b"gTRC", b"bTRC"):
        if isinstance(curve, float):
            tags[name] = b"curv" + bytes(4) + (1).to_bytes(4, "big") + round(256 * curve).to_bytes(2, "big")
        else:
            tags[name] = b"para" + bytes(4) + (3).to_bytes(2, "big") + bytes(2) + fixed(*curve)
    at, table, body = 128 + 4 + 12 * len(tags), b"", b""
    for name, content in tags.items():
        content += bytes(-len(content) % 4)
        table += name + (at + len(body)).to_bytes(4, "big") + len(content).to_bytes(4, "big")
        body += content
    head = bytearray(128)
    head[0:4] = (at + len(body)).to_bytes(4, "big")
    head[8:12], head[12:24], head[36:40] = bytes([2, 16, 0, 0]), b"mntrRGB XYZ ", b"acsp"
    head[68:80] = fixed(0.9642, 1.0, 0.8249)
    return bytes(head) + len(tags).to_bytes(4, "big") + table + body


@pytest.mark.parametrize("space", list(WIDE))
@pytest.mark.parametrize("suffix", ["png", "tiff", "webp"])
def test_colours_of_a_wide_space_come_out_as_its_definition_has_them(tmp_path: Path, suffix: str, space: str) -> None:
    steps = np.array([30, 90, 150, 210], dtype=np.uint8)
    given = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(1, 64, 3).repeat(32, axis=0)
    lossless = {"lossless": True} if suffix == "webp" else {}
    Image.fromarray(given).save(tmp_path / f"a.{suffix}", icc_profile=profile_of(space), **lossless)
    primaries, curve = WIDE[space]
    light = light_of(given / 255.0, curve) @ (np.linalg.inv(SRGB_XYZ) @ primaries).T
    light = light.clip(0.0, 1.0)
    wanted = 255.0 * np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    assert np.abs(wanted - given).max() > 20.0  # or the test could not fail
    assert np.abs(read_image(tmp_path / f"a.{suffix}") - wanted).max() <= 2.0


@pytest.mark.parametrize(
    ("space", "given", "wanted"),
    [
        # Light .3515, .1022, .0612; in sRGB 1.2249 R - .2249 G, -.0420 R + 1.0420 G, -.0196 R - .0786 G + 1.0983 B.
        ("Display P3", (160, 90, 70), (171, 85, 65)),
        # Light .3846, .2200, .1533; in sRGB .5752, .1826, .1411 by the rows 2.0341 -.7277 -.3068, -.2288 1.2318 -.0029,
        # -.0085 -.1533 1.1620 (both seen under D50).
        ("ProPhoto RGB", (150, 110, 90), (200, 118, 105)),
    ],
)
def test_one_colour_by_hand(tmp_path: Path, space: str, given: tuple[int, ...], wanted: tuple[int, ...]) -> None:
    Image.new("RGB", (40, 40), given).save(tmp_path / "a.png", icc_profile=profile_of(space))
    assert np.abs(read_image(tmp_path / "a.png")[20, 20].astype(int) - wanted).max() <= 1


def test_the_opacity_of_a_cutout_is_read_with_it_and_that_of_others_is_none(tmp_path: Path) -> None:
    opacity = np.full((40, 50), 255, dtype=np.uint8)
    for name, least in (("cut.png", 10), ("whole.png", 255)):
        opacity[:10] = least
        Image.fromarray(np.dstack([np.full((40, 50, 3), 200, np.uint8), opacity])).save(tmp_path / name)
    image, read = read_cutout(tmp_path / "cut.png")
    assert image.shape == (40, 50, 3) and read is not None and (read[:10] == 10).all() and (read[10:] == 255).all()
    assert read_cutout(tmp_path / "whole.png")[1] is None
