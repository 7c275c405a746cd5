"""The invisible mark: what is written is read, after every attack, and nothing is read where nothing was written."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from export3d.provenance import detect, mark, waves
from export3d.provenance.detect import MarkDetector, score_threshold
from export3d.provenance.mark import Marker, new_payload
from export3d.provenance.waves import BAND, TILE, places_of, tile
from export3d.rendering.fused import binding
from pictures import a_picture, a_video, resized, through_h264

PAYLOAD = 0xE3ABCDEF


def read(frames: list[np.ndarray]) -> int | None:
    detector = MarkDetector()
    for frame in frames:
        detector.add(frame)
    found = detector.read()
    return None if found is None else found.payload


@pytest.fixture(scope="module")
def marked() -> list[np.ndarray]:
    marker = Marker(PAYLOAD)
    return [marker(frame) for frame in a_video()]


def test_the_tile_holds_only_the_middle_frequencies_each_with_the_same_strength() -> None:
    strength = np.abs(np.fft.fft2(tile(PAYLOAD)))
    y, x = np.meshgrid(np.fft.fftfreq(TILE, 1 / TILE), np.fft.fftfreq(TILE, 1 / TILE), indexing="ij")
    inside = (np.hypot(y, x) >= BAND[0]) & (np.hypot(y, x) <= BAND[1])
    assert strength[~inside].max() < 1e-6
    assert np.ptp(strength[inside]) < 1e-6 * strength[inside].mean()


def test_the_tile_is_the_same_on_every_machine() -> None:
    """The key, not a library's random numbers: a change here makes old videos unreadable."""
    assert np.round(tile(0xE3000001)[:2, :3], 4).tolist() == TILE_CORNER


TILE_CORNER = [[-0.1001, -1.0244, -1.4357], [-0.0884, -1.2172, -1.892]]


def test_places_say_the_payload_and_its_checksum() -> None:
    """CRC-16/CCITT of 'e3000000' worked out bit by bit."""
    crc = 0xFFFF
    for byte in (0xE3, 0, 0, 0):
        crc ^= byte << 8
        for _ in range(8):
            crc = (crc << 1 ^ (0x1021 if crc & 0x8000 else 0)) & 0xFFFF
    word = 0xE3000000 << 16 | crc
    expected = [[(word >> s) % 4096 // 64 * 2, (word >> s) % 64 * 2] for s in (36, 24, 12, 0)]
    assert places_of(0xE3000000).tolist() == expected


def test_a_payload_of_more_than_32_bits_is_refused() -> None:
    with pytest.raises(ValueError, match="32 bits"):
        places_of(2**32)


def test_new_payloads_carry_the_project_and_differ() -> None:
    payloads = {new_payload() for _ in range(50)}
    assert len(payloads) > 45 and {p >> 24 for p in payloads} == {waves.PROJECT}


@pytest.mark.parametrize("shape", [(256, 256), (512, 512), (256, 768), (130, 97), (17, 40)])
def test_the_change_is_small_and_alike_in_all_channels(shape: tuple[int, int]) -> None:
    image = np.clip(a_picture(1, max(shape)), 16, 239)[: shape[0], : shape[1]]
    change = Marker(PAYLOAD)(image).astype(int) - image
    assert (
        change.shape == image.shape
        and (change[..., 0] == change[..., 1]).all()
        and (change[..., 0] == change[..., 2]).all()
    )
    assert 10 * np.log10(255**2 / np.mean(change**2)) > 41.9
    assert np.abs(change).max() > 0


@pytest.mark.parametrize("kernel", ["0", "plain", "avx2", "avx512"])
@pytest.mark.parametrize("shape", [(256, 300), (130, 97), (17, 40), (9, 2)])
def test_the_compiled_renderer_and_numpy_write_the_same_mark(
    kernel: str, shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both against the definition: tile times gain, in 1/512 grey levels, rounded, in every channel."""
    monkeypatch.setenv(binding.VARIABLE, kernel)
    if kernel != "0" and not binding.fused_status()[0]:
        pytest.skip(binding.fused_status()[1])
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    image[: shape[0] // 2] = 250  # a part of it is flat and nearly white
    y, x = np.mgrid[: shape[0], : shape[1]]
    units = np.round(tile(PAYLOAD) * 32).astype(int)[y % TILE, x % TILE] * slow_gain(image)[y, x]
    expected = np.clip(image + (units + 256 >> 9)[..., None], 0, 255)
    assert (Marker(PAYLOAD)(image) == expected).all()


def slow_gain(image: np.ndarray) -> np.ndarray:
    """`mark.gain` at each pixel: linear between the middles of its blocks, four rows alike."""
    blocks, (height, width) = mark.gain(image), image.shape[:2]
    down, across = np.arange(blocks.shape[0]) * 8 + 3.5, np.arange(blocks.shape[1]) * 8 + 3.5
    rows = np.stack([np.interp(np.arange(width), across, line) for line in blocks])
    middles = np.arange(height) // 4 * 4 + 1.5
    return np.floor(np.stack([np.interp(middles, down, line) for line in rows.T], axis=1) + 0.5).astype(int)


def test_black_and_white_do_not_wrap_round() -> None:
    for value in (0, 255):
        image = np.full((128, 128, 3), value, dtype=np.uint8)
        assert np.abs(Marker(PAYLOAD)(image).astype(int) - value).max() < 16


def test_frames_are_marked_for_themselves() -> None:
    """The same frame gets the same mark, whatever came before it and whatever its size was."""
    marker, frames = Marker(PAYLOAD), a_video(num_frames=3)
    first = marker(frames[0])
    marker(a_picture(3, 128))
    assert (marker(frames[0]) == first).all()


def test_lively_places_change_more_than_flat_ones() -> None:
    image = np.full((256, 256, 3), 128, dtype=np.uint8)
    image[:, 128:] = np.random.default_rng(0).integers(60, 200, (256, 128, 3))
    change = Marker(PAYLOAD)(image).astype(float) - image
    assert change[:, 144:].std() > 1.5 * change[:, :112].std()


ATTACKS = {
    "unchanged": lambda frames, path: frames,
    "H.264 at CRF 23": lambda frames, path: through_h264(path, frames, 23),
    "H.264 at CRF 28": lambda frames, path: through_h264(path, frames, 28),
    "half size and back": lambda frames, path: resized(resized(frames, 128, 128), 256, 256),
    "a crop of 10 %": lambda frames, path: [f[13:243, 13:243] for f in frames],
    "a crop of 10 %, made as large as before": lambda frames, path: resized(
        [f[13:243, 13:243] for f in frames], 256, 256
    ),
    "brighter, more contrast": lambda frames, path: [np.clip(f * 1.32 - 2, 0, 255).astype(np.uint8) for f in frames],
    "darker, less contrast": lambda frames, path: [(f * 0.72 + 4).astype(np.uint8) for f in frames],
    "JPEG 75": lambda frames, path: [_jpeg(f) for f in frames],
    "one frame alone": lambda frames, path: frames[5:6],
    "mirrored": lambda frames, path: [f[:, ::-1] for f in frames],
    "1.9 times as large": lambda frames, path: resized(frames, 486, 486),
}


def _jpeg(frame: np.ndarray, quality: int = 75) -> np.ndarray:
    content = io.BytesIO()
    Image.fromarray(frame).save(content, "JPEG", quality=quality)
    return np.asarray(Image.open(content))


@pytest.mark.parametrize("name", ATTACKS)
def test_the_payload_survives(name: str, marked: list[np.ndarray], tmp_path: Path) -> None:
    assert read(ATTACKS[name](marked, tmp_path / "video.mp4")[::4]) == PAYLOAD


@pytest.mark.parametrize("quality", [75, 95])
def test_a_small_jpeg_says_what_was_written(quality: int) -> None:
    """128 pixels hold one tile. These pictures are so lively that as frames of a film half of them would lose the mark."""
    for seed in range(4):
        image = np.clip(2.0 * a_picture(seed, 128) - 128.0, 0, 255).astype(np.uint8)
        marked = Marker(PAYLOAD + seed).still(image)
        assert 10 * np.log10(255**2 / np.mean((marked.astype(float) - image) ** 2)) > 41.9
        assert read([_jpeg(marked, quality)]) == PAYLOAD + seed


def test_a_large_still_is_marked_as_a_frame_is() -> None:
    image = a_picture(0, 200)
    assert (Marker(PAYLOAD).still(image) == Marker(PAYLOAD)(image)).all()


def test_nothing_is_found_in_small_unmarked_pictures() -> None:
    assert [read([a_picture(seed, 128)]) for seed in range(3)] == [None] * 3


def test_a_small_picture_shares_its_risk_among_two_questions() -> None:
    both = [2**24 * np.exp(-(detect.score_threshold(0.1e-6, poses=1, shifts=1) ** 2) / 2)]
    poses = 1 + 2 * (len(detect.all_scales()) + 30)
    both.append(2**24 * 128**2 * poses * np.exp(-(detect.score_threshold(0.9e-6) ** 2) / 2))
    assert sum(both) == pytest.approx(1e-6, rel=1e-6)


def test_nothing_is_found_in_unmarked_videos() -> None:
    assert [read(a_video(seed, 4)) for seed in range(2)] == [None] * 2


@pytest.mark.parametrize("value", [0, 128, 255])
def test_nothing_is_found_in_an_empty_picture(value: int) -> None:
    assert read([np.full((64, 64, 3), value, dtype=np.uint8)]) is None


def test_scores_of_unmarked_pictures_stay_under_the_bound() -> None:
    """For random phases a score of one hypothesis has deviation 1, so the best of 4096 places stays under 6."""
    generator = np.random.default_rng(0)
    count = len(waves.waves().y)
    for _ in range(20):
        phases = np.exp(2j * np.pi * generator.random(count)).astype(np.complex64)
        fits = detect.match(phases).fits
        assert fits.max() < 6 / np.sqrt(waves.NUM_PATTERNS) * 1.05
        assert abs(fits.std() * np.sqrt(waves.NUM_PATTERNS) - 1) < 0.1


def test_the_threshold_keeps_the_risk_for_all_hypotheses_together() -> None:
    poses = 1 + 2 * (len(detect.all_scales()) + 30)
    hypotheses = 2**24 * 128 * 128 * poses
    assert hypotheses * np.exp(-(score_threshold() ** 2) / 2) == pytest.approx(1e-6, rel=1e-6)


def test_a_mark_of_another_project_is_not_ours() -> None:
    assert read([Marker(0x11ABCDEF)(frame) for frame in a_video(num_frames=2)]) is None


def test_the_time_limit_ends_the_search() -> None:
    detector = MarkDetector()
    detector.add(a_picture())
    assert detector.read(deadline=0.0) is None


def test_a_detector_without_frames_says_so() -> None:
    with pytest.raises(RuntimeError, match="add a frame"):
        MarkDetector().read()


def test_spectrum_agrees_with_a_slow_sum_at_a_crooked_size() -> None:
    values = np.random.default_rng(0).normal(size=(9, 7)).astype(np.float32)
    keyed, scale = waves.waves(), 1.37
    y, x = np.mgrid[0:9, 0:7]
    slow = [
        np.sum(values * np.exp(-2j * np.pi * (keyed.y[k] * y + keyed.x[k] * x) / (128 * scale)))
        for k in range(0, 500, 97)
    ]
    assert np.allclose(detect.spectrum(values, scale)[:500:97], slow, atol=1e-3)
