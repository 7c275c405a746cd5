"""`export3d data merge` and `export3d data export`: joined sets read as one, clips come out as films and pictures."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from export3d.cli import main
from export3d.data import Clip, ClipDataset, ShardWriter
from export3d.data.check import check_dataset
from export3d.data.merge import merge_datasets
from export3d.errors import DataError
from export3d.video import VideoReader

MakeClip = Callable[..., Clip]


@pytest.fixture
def other(tmp_path: Path, make_clip: MakeClip) -> Path:
    """A second data set of three clips in two shards."""
    with ShardWriter(tmp_path / "other", clips_per_shard=2) as writer:
        for number in range(3):
            writer.write(make_clip(f"other-{number}", seed=40 + number, split="train"))
    return tmp_path / "other"


def write_one(folder: Path, clip: Clip, frame_format: str = "png") -> Path:
    with ShardWriter(folder, frame_format=frame_format) as writer:
        writer.write(clip)
    return folder


def test_a_joined_set_holds_the_clips_of_all_parts_in_order(folder: Path, other: Path, tmp_path: Path) -> None:
    assert main(["data", "merge", str(folder), str(other), "-o", str(tmp_path / "new" / "both")]) == 0
    joined, first, second = ClipDataset(tmp_path / "new" / "both"), ClipDataset(folder), ClipDataset(other)
    assert joined.keys == (*first.keys, *second.keys)
    assert [shard.name for shard in joined.manifest.shards] == [f"clips-{n:06d}.tar" for n in range(5)]  # 3 + 2
    for place, (part, index) in enumerate([*((first, i) for i in range(5)), *((second, i) for i in range(3))]):
        ours, theirs = joined.clip(place), part.clip(index)
        assert np.array_equal(ours.frames, theirs.frames)
        assert all(np.array_equal(ours.arrays[name], array) for name, array in theirs.arrays.items())
        assert ours.meta == theirs.meta
    assert check_dataset(tmp_path / "new" / "both").problems == ()
    assert len(ClipDataset(tmp_path / "new" / "both", split="val")) == 1


def test_on_one_disk_joined_shards_take_no_space(folder: Path, other: Path, tmp_path: Path) -> None:
    merge_datasets([folder, other], tmp_path / "both")
    assert (tmp_path / "both" / "clips-000003.tar").samefile(other / "clips-000000.tar")


def test_sets_that_do_not_fit_are_refused_before_anything_is_written(
    folder: Path, tmp_path: Path, make_clip: MakeClip
) -> None:
    extractor = {"name": "another", "version": "1", "sha256": "cd" * 32, "expression_space": "ict64"}
    wrong = {
        "made with the extractor 'another' 1": write_one(tmp_path / "a", make_clip("a", extractor=extractor)),
        "holds 16 px png frames, but .* holds 24 px png frames": write_one(tmp_path / "b", make_clip("b", size=16)),
        "holds 24 px jpg frames, but .* holds 24 px png": write_one(tmp_path / "c", make_clip("c"), "jpg"),
        "clip key 'clip-1' appears twice": write_one(tmp_path / "d", make_clip("clip-1")),
    }
    for message, part in wrong.items():
        with pytest.raises(DataError, match=message):
            merge_datasets([folder, part], tmp_path / "both")
    assert not (tmp_path / "both").exists()


def test_a_set_with_a_missing_shard_and_a_taken_output_are_refused(folder: Path, other: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="already holds a data set; name a new folder"):
        merge_datasets([folder, other], other)
    (other / "clips-000001.tar").unlink()
    with pytest.raises(DataError, match=r"clips-000001\.tar: the shard is missing"):
        merge_datasets([folder, other], tmp_path / "both")
    assert not (tmp_path / "both").exists()


def test_one_set_cannot_be_joined_and_an_output_that_cannot_be_made_is_named(
    folder: Path, other: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["data", "merge", str(folder), "-o", str(tmp_path / "both")]) == 2
    assert "two or more data sets; got 1" in capsys.readouterr().err
    (tmp_path / "file").touch()
    assert main(["data", "merge", str(folder), str(other), "-o", str(tmp_path / "file" / "both")]) == 30
    assert "could not be joined" in capsys.readouterr().err


def test_a_frame_comes_out_exactly_as_a_png(folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "frame.png"
    assert main(["data", "export", str(folder), "--clip", "clip-2", "-o", str(output), "--frame", "3"]) == 0
    data = ClipDataset(folder)
    assert np.array_equal(np.asarray(Image.open(output)), data.frame(2, 3))
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["frame.png"]  # nothing temporary is left


def test_a_clip_comes_out_as_a_film_of_its_length_and_rate(tmp_path: Path, make_clip: MakeClip) -> None:
    smooth = make_clip("smooth", num_frames=5, size=64, fps=Fraction(30000, 1001))
    levels = np.linspace(40, 200, 5).astype(np.uint8)
    smooth.frames[:] = levels[:, None, None, None]  # a grey that H.264 keeps
    folder = write_one(tmp_path / "set", smooth)
    output = tmp_path / "clip.mp4"
    assert main(["data", "export", str(folder), "--clip", "smooth", "-o", str(output)]) == 0
    with VideoReader(output) as reader:
        assert (reader.width, reader.height, reader.fps) == (64, 64, Fraction(30000, 1001))
        means = [frame.image.mean() for frame in reader]
    assert means == pytest.approx(levels.tolist(), abs=3)


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["--clip", "nobody", "-o", "a.png"], 24, "no clip 'nobody'"),
        (["--clip", "clip-0", "-o", "a.png", "--frame", "4"], 2, "--frame must be from 0 to 3; got 4"),
        (["--clip", "clip-0", "-o", "a.gif"], 2, "cannot tell the video format"),
        (["--clip", "clip-0", "-o", "missing/a.png"], 30, "cannot be written"),
        (["--clip", "clip-0", "-o", "missing/a.mp4"], 30, "does not exist"),
    ],
)
def test_mistakes_of_export_are_named(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    code: int,
    text: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["data", "export", str(folder), *arguments]) == code
    assert text in " ".join(capsys.readouterr().err.split())
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_a_shard_name_that_leaves_the_folder_is_refused(folder: Path, other: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("of someone else")
    manifest = other / "manifest.json"
    manifest.write_text(manifest.read_text().replace("clips-000000.tar", "../secret"))
    with pytest.raises(DataError, match="manifest"):
        merge_datasets([folder, other], tmp_path / "both")
    assert not (tmp_path / "both").exists()
