"""A folder of odd videos, prepared with the real tracker: each ends as docs/data.md says, and every loss is named."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image, ImageFilter
from skimage import data

from clips import make_clip
from export3d.cli.data import data_main
from export3d.cli.prepare import prepare_main
from export3d.data import ClipDataset
from export3d.tracking.alignment import STANDARD_POINTS
from export3d.tracking.regressor import LandmarkRegressor

pytest.importorskip("mediapipe")

ARGUMENTS = ("--size", "64", "--min-frames", "12", "--max-frames", "40", "--workers", "0", "--min-face-px", "50")


def picture(
    x: float = 0.0, *, size: tuple[int, int] = (240, 200), face_px: float = 100.0, left: float = 0.5, blur: float = 0.0
) -> np.ndarray:
    """scikit-image's astronaut on a blue ground: the face `face_px` high, its middle at `left` of the width + x."""
    photo = Image.fromarray(data.astronaut()).crop((110, 10, 340, 240))  # the face is about 115 px high in 230
    side = round(230 * face_px / 115)
    photo = photo.resize((side, side), Image.Resampling.LANCZOS)
    canvas = Image.new("RGB", size, (40, 60, 110))
    canvas.paste(photo, (round(left * size[0] + x - side * 0.49), round(size[1] / 2 - side * 0.5)))
    if blur:
        canvas = canvas.filter(ImageFilter.GaussianBlur(blur))
    return np.asarray(canvas)


def wander(count: int, **keywords: float) -> list[np.ndarray]:
    return [picture(8 * np.sin(n / 5), **keywords) for n in range(count)]  # type: ignore[arg-type]


def two_faces(count: int) -> list[np.ndarray]:
    frames = []
    for n in range(count):
        canvas = picture(4 * np.sin(n / 5), size=(420, 200), left=0.25, face_px=105).copy()
        canvas[:, 220:] = picture(size=(200, 200), face_px=75)
        frames.append(canvas)
    return frames


def write(path: Path, frames: list[np.ndarray], **keywords: object) -> None:
    keywords = {"audio": None, **keywords}
    make_clip(path, frames=frames, **keywords)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    """The folder of videos, prepared once; the data set and its report."""
    folder = tmp_path_factory.mktemp("odd") / "in"
    folder.mkdir()
    write(folder / "plain 25.mp4", wander(20), audio="aac")  # a path with a space, and sound
    write(folder / "rate 30.mp4", wander(24), fps=30)
    write(folder / "rate 23.976.mp4", wander(18), fps=Fraction(24000, 1001))
    write(folder / "rate 60.mp4", wander(40), fps=60)
    times = np.cumsum([0] + [20, 60, 40, 90] * 5).tolist()  # 21 frames in 1.05 s
    write(folder / "variable.mp4", wander(21), pts=times, time_base=Fraction(1, 1000))
    turned = [np.ascontiguousarray(np.rot90(frame)) for frame in wander(15)]
    write(folder / "turned.mp4", turned, display_rotation=-90)
    write(folder / "two faces.mp4", two_faces(15))
    cut = [*wander(16), *(np.ascontiguousarray(frame[:, ::-1, ::-1]) for frame in wander(16, left=0.45))]
    write(folder / "cut.mp4", cut)
    write(folder / "leaves.mp4", [*wander(15), *(picture(400) for _ in range(10))])
    black = [*wander(14), *[np.zeros((200, 240, 3), np.uint8)] * 75, *wander(14)]
    write(folder / "three seconds of black.mp4", black)
    write(folder / "truncated.mp4", wander(20))
    content = (folder / "truncated.mp4").read_bytes()
    (folder / "truncated.mp4").write_bytes(content[: len(content) * 2 // 3])
    with av.open(str(folder / "sound only.mp4"), "w") as container:
        sound = container.add_stream("aac", rate=44100)
        tone = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        tone.sample_rate, tone.pts = 44100, 0
        container.mux(sound.encode(tone))
        container.mux(sound.encode(None))
    (folder / "text.mp4").write_text("this is not a video\n" * 50)
    (folder / "empty.mp4").write_bytes(b"")
    write(folder / "Küchenschrank 顔 émoji😀.mp4", wander(14))
    write(folder / "blurred.mp4", wander(14, blur=3.5))
    write(folder / "far away.mp4", wander(14, face_px=40.0))
    write(folder / "short.mp4", wander(8))
    write(folder / "nobody.mp4", [np.full((200, 240, 3), (90, 120, 60), np.uint8)] * 12)
    (folder / "notes.txt").write_text("a file that is no video")
    out = folder.parent / "out"
    prepare_main([str(folder), "-o", str(out), *ARGUMENTS])
    return out, json.loads((out / "report.json").read_text())


def clips_of(out: Path, name: str) -> list[int]:
    data_set = ClipDataset(out)
    return [i for i in range(len(data_set)) if data_set.meta(i)["source"] == f"in/{name}"]


def reasons(report: dict, name: str) -> list[str]:
    dropped = [entry["reason"] for entry in report["dropped"] if entry["source"] == f"in/{name}"]
    lost = [reason for entry in report["lost"] if entry["source"] == f"in/{name}" for reason in entry["reasons"]]
    return dropped + lost


@pytest.mark.parametrize(
    ("name", "frames"),
    [
        ("plain 25.mp4", 20),
        ("rate 30.mp4", 20),  # 24 frames = 0.8 s
        ("rate 23.976.mp4", 19),  # k 0.95904 <= 17.5, so k <= 18
        ("rate 60.mp4", 17),  # 2.4 k <= 39.5, so k <= 16
        ("variable.mp4", 28),  # until 1050 + 45 ms, so k <= 27
        ("turned.mp4", 15),
        ("two faces.mp4", 15),
        ("Küchenschrank 顔 émoji😀.mp4", 14),
    ],
)
def test_a_usable_video_becomes_one_clip_of_all_its_time(prepared: tuple[Path, dict], name: str, frames: int) -> None:
    out, report = prepared
    (index,) = clips_of(out, name)
    assert ClipDataset(out).num_frames(index) == frames
    assert reasons(report, name) == []


@pytest.mark.parametrize(
    ("name", "frames", "loss"),
    [
        ("cut.mp4", [16, 16], None),
        ("leaves.mp4", [15], "no face"),
        ("three seconds of black.mp4", [14, 14], "no face"),
    ],
)
def test_a_video_is_cut_where_the_shot_or_the_face_ends(
    prepared: tuple[Path, dict], name: str, frames: list[int], loss: str | None
) -> None:
    out, report = prepared
    data_set = ClipDataset(out)
    got = [data_set.num_frames(i) for i in clips_of(out, name)]
    # MediaPipe may hold on to a face for a frame or two where it leaves
    assert len(got) == len(frames) and all(abs(a - b) <= 2 for a, b in zip(got, frames, strict=True))
    if loss is None:
        assert reasons(report, name) == []
    else:
        (stretch,) = [entry for entry in report["dropped"] if entry["source"] == f"in/{name}"]
        assert stretch["reason"] == loss and stretch["frames"] >= 8
    if name.startswith("three"):
        stretch = next(entry for entry in report["dropped"] if entry["source"] == f"in/{name}")
        assert stretch["frames"] == pytest.approx(75, abs=2) and stretch["start_s"] == pytest.approx(14 / 25, abs=0.1)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("truncated.mp4", "truncated"),
        ("sound only.mp4", "no video stream"),
        ("text.mp4", "not a video"),
        ("empty.mp4", "the file is empty"),
        ("blurred.mp4", "blurred (sharpness"),
        ("far away.mp4", "face too small ("),
        ("short.mp4", "too short (8 frames; --min-frames 12), up to the end"),
        ("nobody.mp4", "no face"),
    ],
)
def test_a_useless_video_is_named_with_the_reason(prepared: tuple[Path, dict], name: str, reason: str) -> None:
    out, report = prepared
    assert clips_of(out, name) == []
    (entry,) = [entry for entry in report["lost"] if entry["source"] == f"in/{name}"]
    assert any(reason in text for text in entry["reasons"]), entry
    assert not any(str(out.parent) in text for text in entry["reasons"])  # names, not this machine's paths


def test_the_report_counts_everything_and_names_the_other_files(prepared: tuple[Path, dict]) -> None:
    out, report = prepared
    data_set = ClipDataset(out)
    assert report["videos"] == 19 and report["videos_lost"] == 8
    assert report["ignored"] == ["in/notes.txt"]
    assert report["clips"] == len(data_set) == 13
    assert report["frames"] == sum(data_set.num_frames(i) for i in range(len(data_set)))
    assert report["hours"] == pytest.approx(report["frames"] / 25 / 3600, abs=1e-6)
    for name in ("yaw_deg", "pitch_deg"):
        assert sum(report["histograms"][name]["count"]) == report["frames"]
    assert sum(report["histograms"]["sharpness"]["count"]) == report["clips"]
    page = (out / "report.html").read_text()
    for word in (
        "nobody.mp4",
        "too short",
        "data:image/jpeg;base64",
        "<svg",
        "Küchenschrank 顔 émoji😀.mp4",
        "notes.txt",
    ):
        assert word in page or word.startswith("Küchen")


def test_the_clips_pass_the_check_and_show_an_upright_centred_face(prepared: tuple[Path, dict], tmp_path: Path) -> None:
    out, _ = prepared
    data_main(["check", str(out)])
    data_main(["show", str(out), "-o", str(tmp_path / "sheet.png")])
    data_set = ClipDataset(out)
    assert data_set.extractor["expression_space"] == "ict64"
    alignment = LandmarkRegressor.load().alignment  # the crop that the coefficient model asks for
    standard = (STANDARD_POINTS - alignment.origin)[:, :2] * [1, -1]
    expected = 0.5 + standard * alignment.rescale / alignment.crop  # (5, 2): where a frontal face's points lie
    for index in range(len(data_set)):
        landmarks = data_set.arrays(index)["landmarks"]
        eyes, mouth = landmarks[:, 36:48].mean(axis=(0, 1)), landmarks[:, 48:].mean(axis=(0, 1))
        assert np.abs(eyes - expected[:2].mean(0)).max() < 0.06, data_set.keys[index]
        assert np.abs(mouth - expected[3:].mean(0)).max() < 0.06, data_set.keys[index]
        meta = data_set.meta(index)
        assert meta["extra"]["face_tracker"]["name"].startswith("mediapipe")
        assert meta["quality"]["face_px"] > 50
    (plain,) = clips_of(out, "plain 25.mp4")
    assert np.abs(np.degrees(data_set.head_angles(plain))).max() < 25  # the astronaut looks at us


def test_both_faces_become_clips_when_all_are_asked_for(prepared: tuple[Path, dict], tmp_path: Path) -> None:
    video = prepared[0].parent / "in" / "two faces.mp4"
    prepare_main([str(video), "-o", str(tmp_path / "out"), *ARGUMENTS, "--faces", "all"])
    data_set = ClipDataset(tmp_path / "out")
    centers = sorted(data_set.arrays(i)["crop"][:, 0].mean() for i in range(len(data_set)))
    assert len(centers) == 2 and centers[0] == pytest.approx(105, abs=12) and centers[1] > 290
