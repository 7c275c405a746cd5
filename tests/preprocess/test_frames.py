"""Resampling by time, cuts and boxes."""

from __future__ import annotations

import zipfile
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from patch_face import write_patch_video
from PIL import Image

from export3d.errors import ImageSizeError, UnreadableVideoError
from export3d.preprocess.frames import (
    FrameStream,
    SourceFrame,
    cut_box,
    cut_frames,
    guide_points,
    passes,
    read_frames,
    resample,
)
from export3d.preprocess.jobs import Cut, VideoJob

PIXEL = np.zeros((64, 80, 3), np.uint8)


def frames_at(times: list[Fraction]) -> list[SourceFrame]:
    return [SourceFrame(PIXEL, index, time, (80, 64)) for index, time in enumerate(times)]


def indices(times: list[Fraction], fps: int = 25) -> list[int]:
    out = list(resample(frames_at(times), Fraction(fps)))
    assert [number for number, _ in out] == list(range(len(out)))
    return [frame.index for _, frame in out]


@pytest.mark.parametrize(
    "fps", [Fraction(24000, 1001), Fraction(25), Fraction(30000, 1001), Fraction(30), Fraction(50), Fraction(60)]
)
def test_output_k_takes_source_frame_round_k_fps_over_25(fps: Fraction) -> None:
    got = indices([n / fps for n in range(100)])
    expected = [round(k * fps / 25) for k in range(200)]
    expected = expected[: sum(index <= 99 for index in expected)]
    assert abs(len(got) - len(expected)) <= 1  # the last frame may be shown for half a period
    assert got[: len(expected)] == expected[: len(got)]


def test_25_fps_stays_as_it_is() -> None:
    assert indices([Fraction(n, 25) for n in range(10)]) == list(range(10))


def test_half_the_rate_gives_each_frame_twice() -> None:
    # 12.5 fps: output k lies at k / 25 = 0.04 k, source n at 0.08 n; odd k lie exactly between and take the earlier.
    assert indices([Fraction(2 * n, 25) for n in range(3)]) == [0, 0, 1, 1, 2, 2]


def test_a_variable_rate_takes_the_nearest_frame_in_time() -> None:
    # Outputs at 0, 40, 80, ... ms; sources at 0, 10, 100, 110, 250 ms; the middle between 110 and 250 is 180.
    times = [Fraction(ms, 1000) for ms in (0, 10, 100, 110, 250)]
    # 0: 0; 40: nearest of 10 (30 away) and 100 (60); 80: 100; 120: 110; 160: 110; 200: 250; 240: 250; 280 and 320:
    # the last frame is shown for half of its period of 140 ms, so until 320.
    assert indices(times) == [0, 1, 2, 3, 3, 4, 4, 4, 4]


def test_times_may_start_anywhere() -> None:
    assert indices([Fraction(7, 3) + Fraction(n, 30) for n in range(12)]) == [
        round(k * Fraction(30, 25)) for k in range(10)
    ]


def test_a_single_frame_gives_a_single_output() -> None:
    assert indices([Fraction(0)]) == [0]
    assert indices([]) == []


def test_frame_ranges_are_inclusive_and_times_end_before_their_end() -> None:
    times = [Fraction(n, 25) for n in range(20)]
    frames = cut_frames(FrameStream(iter(frames_at(times))), Cut(first_frame=3, last_frame=5))
    assert [frame.index for frame in frames] == [3, 4, 5]
    frames = cut_frames(FrameStream(iter(frames_at(times))), Cut(start_s=Fraction(2, 25), end_s=Fraction(4, 25)))
    assert [frame.index for frame in frames] == [2, 3]


def test_cuts_that_follow_each_other_share_one_decoding_and_lose_no_frame() -> None:
    stream = FrameStream(iter(frames_at([Fraction(n, 25) for n in range(10)])))
    first = [f.index for f in cut_frames(stream, Cut(name="a", first_frame=0, last_frame=3))]
    second = [f.index for f in cut_frames(stream, Cut(name="b", first_frame=4, last_frame=6))]
    assert (first, second) == ([0, 1, 2, 3], [4, 5, 6]) and stream.num_read == 8


def test_overlapping_cuts_need_another_pass() -> None:
    a, b, c = (
        Cut(name="a", first_frame=0, last_frame=9),
        Cut(name="b", first_frame=5, last_frame=14),
        Cut(name="c", first_frame=10, last_frame=20),
    )
    assert [[cut.name for cut in group] for group in passes((c, b, a))] == [["a", "c"], ["b"]]
    d, e = Cut(name="d", start_s=Fraction(0), end_s=Fraction(2)), Cut(name="e", start_s=Fraction(2))
    assert [[cut.name for cut in group] for group in passes((e, d))] == [["d", "e"]]
    assert len(passes((Cut(name="x"), Cut(name="y")))) == 2


def test_a_cut_after_the_end_is_refused() -> None:
    stream = FrameStream(iter(frames_at([Fraction(0)])))
    with pytest.raises(UnreadableVideoError, match="ends before this cut begins"):
        list(cut_frames(stream, Cut(first_frame=5)))


def test_a_box_is_scaled_by_actual_over_listed_size() -> None:
    # listed 1920 x 1080, actual 960 x 540: everything halves
    cut = Cut(box=(400, 200, 900, 700), listed_size=(1920, 1080))
    assert cut_box(cut, (960, 540)) == (200, 100, 450, 350)
    assert cut_box(cut, (1920, 1080)) == (400, 200, 900, 700)
    assert cut_box(Cut(box=(-5, 10, 5000, 400)), (640, 480)) == (0, 10, 640, 400)
    with pytest.raises(ImageSizeError, match="leaves 10x200 pixels of the 640x480 frame"):
        cut_box(Cut(box=(0, 0, 10, 200)), (640, 480))


def test_a_box_cuts_the_picture() -> None:
    picture = np.arange(64 * 80 * 3, dtype=np.uint32).astype(np.uint8).reshape(64, 80, 3)
    stream = FrameStream(iter([SourceFrame(picture, 0, Fraction(0), (80, 64))]))
    (frame,) = cut_frames(stream, Cut(box=(10, 5, 50, 45)))
    assert np.array_equal(frame.image, picture[5:45, 10:50]) and frame.full_size == (80, 64)


def test_the_guide_moves_with_scale_and_crop_and_follows_the_native_frames() -> None:
    points = np.zeros((3, 5, 2), np.float32)
    points[:] = [100.0, 60.0]
    points[1] = [110.0, 60.0]
    cut = Cut(
        box=(40, 20, 140, 120),
        listed_size=(160, 128),
        guide=points.tobytes(),
        guide_fps=Fraction(30),
        start_s=Fraction(10),
    )
    # actual size is half the listed one: box starts at (20, 10); point (110, 60) -> (55, 30) -> (35, 20)
    frame = SourceFrame(PIXEL, 301, Fraction(301, 30), (80, 64))
    found = guide_points(cut, frame, Fraction(10))
    assert found is not None and np.allclose(found, [[35.0, 20.0]] * 5)
    late = guide_points(cut, SourceFrame(PIXEL, 999, Fraction(40), (80, 64)), Fraction(10))
    assert late is not None and np.allclose(late, [[30.0, 20.0]] * 5)  # the last entry holds on
    assert guide_points(Cut(), frame, Fraction(0)) is None


def test_folders_and_archives_of_frames_are_read_in_the_order_of_names(tmp_path: Path) -> None:
    folder = tmp_path / "frames"
    folder.mkdir()
    for number in (2, 0, 1):
        Image.fromarray(np.full((40, 50, 3), number * 50, np.uint8)).save(folder / f"{number:08d}.png")
    (folder / "notes.txt").write_text("not a frame")
    job = VideoJob(key="k", path=folder, source="s", kind="frames", fps=Fraction(30))
    frames = list(read_frames(job))
    assert [frame.image[0, 0, 0] for frame in frames] == [0, 50, 100]
    assert [frame.time for frame in frames] == [0, Fraction(1, 30), Fraction(2, 30)]
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for path in folder.iterdir():
            archive.write(path, f"top/clip/{path.name}")
        archive.writestr("top/other/00000000.png", b"")
    job = VideoJob(key="k", path=tmp_path / "a.zip", source="s", kind="archive", inside="top/clip", fps=Fraction(30))
    assert [frame.image[0, 0, 0] for frame in read_frames(job)] == [0, 50, 100]


def test_damaged_and_differing_frames_are_named(tmp_path: Path) -> None:
    job = VideoJob(key="k", path=tmp_path, source="s", kind="frames", fps=Fraction(30))
    with pytest.raises(UnreadableVideoError, match="no frame in it"):
        list(read_frames(job))
    Image.fromarray(np.zeros((40, 50, 3), np.uint8)).save(tmp_path / "0.png")
    Image.fromarray(np.zeros((40, 51, 3), np.uint8)).save(tmp_path / "1.png")
    with pytest.raises(UnreadableVideoError, match=r"1\.png: the frame is 51x40; the first one is 50x40"):
        list(read_frames(job))
    (tmp_path / "0.png").write_bytes(b"\x89PNG")
    with pytest.raises(UnreadableVideoError, match=r"0\.png: not an image that can be read"):
        list(read_frames(job))


def test_a_video_file_gives_its_exact_times(tmp_path: Path) -> None:
    path = write_patch_video(tmp_path / "v.mp4", 6, fps=Fraction(30000, 1001))
    frames = list(read_frames(VideoJob(key="k", path=path, source="v.mp4")))
    assert [frame.time for frame in frames] == [n * Fraction(1001, 30000) for n in range(6)]
    assert frames[0].full_size == (128, 96) and frames[0].image.shape == (96, 128, 3)
