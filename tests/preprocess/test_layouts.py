"""VFHQ, TalkingHead-1KH, CSV lists and folders are read exactly as published."""

from __future__ import annotations

import zipfile
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from export3d.errors import UsageError
from export3d.preprocess import PrepareOptions, find_inputs
from export3d.preprocess.jobs import make_key, split_of
from export3d.preprocess.layouts import detect_layout
from export3d.preprocess.talkinghead import Tube, identity_of
from export3d.preprocess.vfhq_meta import ClipName, MetaInfo, exact_fps

OPTIONS = PrepareOptions()

META = """Video ID: -Abc_12+x
H: 720
W: 1280
FPS: 29.97

FRAME INDEX X0 Y0 W H [Landmarks (5 Points)]

100 00000000 500 100 200 240 540 180 620 180 580 220 550 270 610 270
101 00000001 502 101 200 240 541 181 621 181 581 221 551 271 611 271
CROP 400 50 880 530
""".replace("+x", "")


def meta_text(video_id: str = "-Abc_12", fps: str = "29.97") -> str:
    return META.replace("-Abc_12", video_id).replace("29.97", fps)


def save_frames(folder: Path, count: int = 3) -> None:
    folder.mkdir(parents=True)
    for number in range(count):
        Image.fromarray(np.zeros((40, 40, 3), np.uint8)).save(folder / f"{number:08d}.png")


def test_a_vfhq_name_has_five_parts_and_the_id_may_start_with_a_minus() -> None:
    name = ClipName.parse("Clip+-Abc_12+P3+C10+F123-456")
    assert name == ClipName("-Abc_12", 3, 10, 123, 456)
    assert name.identity == "-Abc_12-P3"
    for wrong in ("Clip+a+b+P0+C0+F1-2", "Clip+a+P0+C0", "Clop+a+P0+C0+F1-2", "Clip++P0+C0+F1-2", "Clip+a+Px+C0+F1-2"):
        assert ClipName.parse(wrong) is None


def test_a_meta_file_gives_size_rate_landmarks_and_crop() -> None:
    meta = MetaInfo.parse(META, "m.txt")
    assert (meta.video_id, meta.width, meta.height, meta.fps) == ("-Abc_12", 1280, 720, Fraction(30000, 1001))
    assert meta.crop == (400, 50, 880, 530)
    assert meta.landmarks.shape == (2, 5, 2) and meta.landmarks.dtype == np.float32
    assert meta.landmarks[1].tolist() == [[541, 181], [621, 181], [581, 221], [551, 271], [611, 271]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("CROP 400 50 880 530\n", ""), "m.txt: not a VFHQ meta_info file: no line CROP"),
        (("FPS: 29.97\n", ""), "no line FPS"),
        (("610 270\n", "610\n"), "m.txt, line 8: expected 16 numbers; got 15"),
        (("H: 720", "H: tall"), "H and W must be whole numbers"),
        (("CROP 400 50 880 530", "CROP 880 50 400 530"), "CROP must be x0 y0 x1 y1"),
        (("29.97", "0"), "expected a frame rate of 1 to 240"),
        (("29.97", "1e100000000"), "expected a frame rate such as"),
    ],
)
def test_a_malformed_meta_file_is_refused_by_line(change: tuple[str, str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        MetaInfo.parse(META.replace(*change), "m.txt")


@pytest.mark.parametrize(
    ("text", "fps"),
    [
        ("23.976", Fraction(24000, 1001)),
        ("23.98", Fraction(24000, 1001)),
        ("25", Fraction(25)),
        ("25.0", Fraction(25)),
        ("29.97002997", Fraction(30000, 1001)),
        ("59.94", Fraction(60000, 1001)),
        ("60.0", Fraction(60)),
        ("30000/1001", Fraction(30000, 1001)),
        ("12.5", Fraction(25, 2)),
    ],
)
def test_rounded_rates_become_the_exact_ones(text: str, fps: Fraction) -> None:
    assert exact_fps(text, "x") == fps


def test_vfhq_frame_folders_take_rate_and_landmarks_from_the_meta_file(tmp_path: Path) -> None:
    clip = "Clip+-Abc_12+P3+C10+F100-102"
    save_frames(tmp_path / "train" / clip)
    (tmp_path / "meta_info").mkdir()
    (tmp_path / "meta_info" / f"{clip}.txt").write_text(META)
    assert detect_layout(tmp_path) == "vfhq"
    found = find_inputs([tmp_path], OPTIONS)
    (job,) = found.jobs
    assert (job.kind, job.fps, job.path.name) == ("frames", Fraction(30000, 1001), clip)
    (cut,) = job.cuts
    assert (cut.identity, cut.split, cut.box, cut.listed_size) == ("-Abc_12-P3", "train", None, (480, 480))
    guide = np.frombuffer(cut.guide, np.float32).reshape(-1, 5, 2)
    assert guide[0, 0].tolist() == [140, 130]  # (540, 180) minus the crop's corner (400, 50)


def test_vfhq_frames_without_a_rate_are_lost_by_name_unless_one_is_given(tmp_path: Path) -> None:
    save_frames(tmp_path / "VFHQ-Test" / "GT" / "Interval1_512x512_LANCZOS4" / "Clip+abc+P0+C1+F10-13")
    (loss,) = find_inputs([tmp_path], OPTIONS).losses
    assert loss.source == "Clip+abc+P0+C1+F10-13" and "--native-fps" in loss.reason
    (job,) = find_inputs([tmp_path], PrepareOptions(native_fps="30")).jobs
    assert job.fps == 30 and job.cuts[0].split == "test"  # the official test folder


def test_vfhq_archives_of_frames_and_meta_files_are_read_without_unpacking(tmp_path: Path) -> None:
    clip = "Clip+abc+P0+C1+F10-12"
    save_frames(tmp_path / "x" / clip)
    with zipfile.ZipFile(tmp_path / "part1.zip", "w") as archive:
        for path in (tmp_path / "x" / clip).iterdir():
            archive.write(path, f"VFHQ/{clip}/{path.name}")
    for path in (tmp_path / "x" / clip).iterdir():
        path.unlink()
    with zipfile.ZipFile(tmp_path / "meta_info.zip", "w") as archive:
        archive.writestr(f"meta_info/{clip}.txt", meta_text("abc", "60"))
    (job,) = find_inputs([tmp_path], OPTIONS).jobs
    assert (job.kind, job.inside, job.fps) == ("archive", f"VFHQ/{clip}", 60)


def test_vfhq_clips_of_own_downloads_are_cut_out_of_the_video(tmp_path: Path) -> None:
    (tmp_path / "-Abc_12.mp4").write_bytes(b"x")
    for person, place in ((0, "100-190"), (1, "200-260")):
        (tmp_path / f"Clip+-Abc_12+P{person}+C0+F{place}.txt").write_text(META)
    (tmp_path / "Clip+gone+P0+C0+F1-90.txt").write_text(meta_text("gone"))
    (tmp_path / "Clip+a+b+P0+C0+F1-90.txt").write_text(META)
    found = find_inputs([tmp_path], OPTIONS)
    (job,) = found.jobs
    assert job.path.name == "-Abc_12.mp4" and len(job.cuts) == 2
    cut = job.cuts[0]
    assert cut.start_s == 100 * Fraction(1001, 30000) and cut.end_s == 190 * Fraction(1001, 30000)
    assert cut.box == (400, 50, 880, 530) and cut.listed_size == (1280, 720)
    assert [c.identity for c in job.cuts] == ["-Abc_12-P0", "-Abc_12-P1"]
    assert {loss.source: loss.reason for loss in found.losses} == {
        "Clip+gone+P0+C0+F1-90": "neither its frames nor the video 'gone' are here",
        "Clip+a+b+P0+C0+F1-90": "not a VFHQ clip name of five parts",
    }
    (job,) = find_inputs([tmp_path], PrepareOptions(context="full")).jobs
    assert job.cuts[0].box is None and len(job.cuts[0].guide) == 2 * 10 * 4


def test_a_damaged_archive_is_a_loss_and_not_the_end(tmp_path: Path) -> None:
    (tmp_path / "Clip+abc+P0+C1+F10-12.zip").write_bytes(b"PK\x03\x04nothing")
    (loss,) = find_inputs([tmp_path], OPTIONS).losses
    assert "damaged archive" in loss.reason


def test_a_talkinghead_line_is_name_h_w_s_e_l_t_r_b() -> None:
    tube = Tube.parse("ab-c_D_0003,1080,1920,30,129,100,200,700,800", "x")
    assert (tube.name, tube.height, tube.width) == ("ab-c_D_0003", 1080, 1920)
    assert (tube.first_frame, tube.last_frame) == (30, 129)
    assert (tube.left, tube.top, tube.right, tube.bottom) == (100, 200, 700, 800)
    assert tube.cropped_name == "ab-c_D_0003_S30_E129_L100_T200_R700_B800"
    assert identity_of(tube.name) == "ab-c_D"
    for wrong in ("a,1,2,3", "a,1,2,3,4,5,6,7,x", "a,10,10,5,4,0,0,5,5", "a,10,10,1,4,5,0,5,5"):
        with pytest.raises(UsageError, match=r"^list\.txt, line 4: expected"):
            Tube.parse(wrong, "list.txt, line 4")


def test_a_list_of_tubes_that_is_no_text_is_refused(tmp_path: Path) -> None:
    for content in (b"a\xff,1,2\n", b"a,10,10,1,4,0,0,5," + b"9" * 5000):
        (tmp_path / "train_video_tubes.txt").write_bytes(content)
        with pytest.raises(UsageError, match=r"train_video_tubes\.txt.*(not a list in UTF-8|expected name,H,W)"):
            find_inputs([tmp_path], replace(OPTIONS, layout="talkinghead"))


def test_talkinghead_tubes_are_cut_out_of_one_minute_clips(tmp_path: Path) -> None:
    minutes = tmp_path / "val" / "1min_clips"
    minutes.mkdir(parents=True)
    (minutes / "idA_0000.mp4").write_bytes(b"x")
    lines = [
        "idA_0000,1080,1920,0,99,100,200,700,800",
        "idA_0000,1080,1920,100,180,120,200,720,800",
        "",
        "idB_0001,1080,1920,0,99,100,200,700,800",
    ]
    (tmp_path / "val_video_tubes.txt").write_text("\n".join(lines))
    assert detect_layout(tmp_path) == "talkinghead"
    found = find_inputs([tmp_path], OPTIONS)
    (job,) = found.jobs
    first = job.cuts[0]
    assert (first.first_frame, first.last_frame) == (0, 99)
    assert first.box == (100, 200, 700, 800) and first.listed_size == (1920, 1080)
    assert (first.identity, first.split) == ("idA", "test")  # the paper tests on clips of val
    assert found.losses[0].source == "idB_0001_S0_E99_L100_T200_R700_B800"
    assert "neither the cropped clip nor the one-minute clip 'idB_0001'" in found.losses[0].reason
    (job,) = find_inputs([tmp_path], PrepareOptions(context="full")).jobs
    guide = np.frombuffer(job.cuts[0].guide, np.float32).reshape(-1, 5, 2)
    assert job.cuts[0].box is None and (guide == [400, 500]).all()  # the middle of the box


def test_talkinghead_cropped_clips_are_used_as_they_are(tmp_path: Path) -> None:
    cropped = tmp_path / "train" / "cropped_clips"
    cropped.mkdir(parents=True)
    (cropped / "idA_0000_S0_E99_L100_T200_R700_B800.mp4").write_bytes(b"x")
    (job,) = find_inputs([tmp_path], OPTIONS).jobs
    assert (job.cuts[0].identity, job.cuts[0].split, job.cuts[0].box) == ("idA", "train", None)
    (tmp_path / "train_video_tubes.txt").write_text("idA_0000,1080,1920,0,99,100,200,700,800\n")
    (again,) = find_inputs([tmp_path], OPTIONS).jobs
    assert again == job


def test_a_csv_list_names_files_people_splits_and_times(tmp_path: Path) -> None:
    for name in ("a.mp4", "b.mp4"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "list.csv").write_text(
        "path,identity,split,start_s,end_s\na.mp4,ann,test,1.5,3\na.mp4,ann,test,4,\nb.mp4,,,,\nc.mp4,,,,\n"
    )
    found = find_inputs([tmp_path / "list.csv"], OPTIONS)
    a, b = found.jobs
    assert [(cut.start_s, cut.end_s) for cut in a.cuts] == [(Fraction(3, 2), 3), (4, None)]
    assert {(cut.identity, cut.split) for cut in a.cuts} == {("ann", "test")}
    assert (b.cuts[0].identity, b.cuts[0].split, b.cuts[0].name) == ("b.mp4", "train", "")
    assert (found.losses[0].source, found.losses[0].reason) == ("list.csv/c.mp4", "no such file")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file\na.mp4\n", "unknown column 'file'"),
        ("path,identiy\na.mp4,x\n", "Did you mean 'identity'"),
        ("identity\nx\n", "'path' is needed"),
        ("path,start_s\na.mp4,soon\n", r"line 2, start_s: expected seconds; got 'soon'"),
        ("path,start_s\na.mp4,1e100000000\n", r"line 2, start_s: expected seconds; got '1e100000000'"),
        ("path,start_s,end_s\na.mp4,3,2\n", "end_s must be above start_s"),
        ("path,split\na.mp4,dev\n", "split 'dev'"),
    ],
)
def test_a_wrong_csv_list_is_refused_by_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "list.csv").write_text(text)
    with pytest.raises(UsageError, match=message):
        find_inputs([tmp_path / "list.csv"], OPTIONS)


def test_a_folder_gives_its_videos_in_order_and_lists_the_rest(tmp_path: Path) -> None:
    for name in ("b/2.MP4", "b/1.webm", "a b/ü.mkv", "notes.txt", ".hidden.mp4"):
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    found = find_inputs([tmp_path / "in"], OPTIONS)
    assert [job.source for job in found.jobs] == ["in/a b/ü.mkv", "in/b/1.webm", "in/b/2.MP4"]
    assert found.ignored == ("in/notes.txt",)
    assert len({job.key for job in found.jobs}) == 3
    by_folder = find_inputs([tmp_path / "in"], PrepareOptions(identity="folder")).jobs
    assert [job.cuts[0].identity for job in by_folder] == ["in/a b", "in/b", "in/b"]


def test_keys_depend_on_the_name_inside_the_input_only(tmp_path: Path) -> None:
    keys = []
    for place in ("x", "y"):
        path = tmp_path / place / "in" / "ä ö.mp4"
        path.parent.mkdir(parents=True)
        path.write_bytes(b"x")
        keys.append(find_inputs([path.parent], OPTIONS).jobs[0].key)
    assert keys[0] == keys[1] == make_key("in/ä ö.mp4", "ä ö")
    with pytest.raises(UsageError, match=r"has the same name 'in/ä ö\.mp4' as"):
        find_inputs([tmp_path / "x" / "in", tmp_path / "y" / "in"], OPTIONS)


def test_what_cannot_be_an_input_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no input was given"):
        find_inputs([], OPTIONS)
    with pytest.raises(UsageError, match="nowhere: no such file or folder"):
        find_inputs([tmp_path / "nowhere"], OPTIONS)
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(UsageError, match=r"no video was found in the inputs \(1 other files\)"):
        find_inputs([tmp_path], OPTIONS)
    with pytest.raises(UsageError, match="--layout csv needs a CSV file"):
        find_inputs([tmp_path], PrepareOptions(layout="csv"))
    with pytest.raises(UsageError, match="--layout vfhq needs the data set's folder"):
        find_inputs([tmp_path / "notes.txt"], PrepareOptions(layout="vfhq"))


def test_shares_split_by_person_and_about_as_asked() -> None:
    splits = [split_of(f"person {n}", 0.1, 0.2) for n in range(2000)]
    # 2000 people: 400 test, standard deviation sqrt(2000 * 0.2 * 0.8) = 18; 200 val, 13; five of each is allowed
    assert abs(splits.count("test") - 400) < 90 and abs(splits.count("val") - 200) < 67
    assert split_of("person 1", 0.1, 0.2) == split_of("person 1", 0.1, 0.2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 8}, "--size: expected 32 to 2048; got 8"),
        ({"min_frames": 90, "max_frames": 80}, "--max-frames: expected at least --min-frames"),
        ({"val_share": 0.6, "test_share": 0.6}, "--test-share"),
        ({"coefficients": "deep3d"}, "needs --deep3d-checkpoint"),
    ],
)
def test_options_that_cannot_be_are_refused_at_once(options: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        PrepareOptions(**options)
