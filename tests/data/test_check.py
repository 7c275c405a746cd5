"""`data check` finds every kind of damage; `data show` draws what it should."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from export3d.camera import Camera
from export3d.cli.data import data_main
from export3d.data import ClipDataset, ShardWriter
from export3d.data.check import check_dataset
from export3d.data.sheet import AXIS_LENGTH, contact_sheet, draw_pose
from export3d.errors import DataError, UsageError


def test_a_sound_data_set_has_no_problem_and_its_counts_are_right(folder: Path, capsys) -> None:
    calls: list[tuple[str, int, int]] = []
    report = check_dataset(folder, progress=lambda *a: calls.append(a))
    assert report.problems == ()
    assert (report.clips, report.frames, report.identities) == (5, 4 + 5 + 6 + 7 + 8, 5)
    assert calls[-1] == ("clips", 5, 5) and calls[2] == ("shards", 3, 3)
    data_main(["check", str(folder), "--quick"])
    assert "5 clips, 30 frames, 5 identities, extractor 'test' 1 (ict64, abababababab): no problem" in (
        capsys.readouterr().out
    )


def test_one_flipped_byte_in_a_picture_is_found_by_checksum(folder: Path, capsys) -> None:
    shard = folder / "clips-000001.tar"
    content = bytearray(shard.read_bytes())
    content[2200] ^= 1
    shard.write_bytes(content)
    problems = check_dataset(folder).problems
    assert any("clips-000001.tar: checksum mismatch" in problem for problem in problems)
    with pytest.raises(DataError, match=r"problem\(s\) in 5 clips") as caught:
        data_main(["check", str(folder)])
    assert caught.value.exit_code == 24
    assert "checksum mismatch" in capsys.readouterr().out


def test_files_that_the_manifest_does_not_list_are_reported(folder: Path) -> None:
    (folder / "clips-000009.tar").write_bytes(b"")
    (folder / ".clips-000010.tar.tmp77").write_bytes(b"")
    problems = check_dataset(folder).problems
    assert len(problems) == 2 and all("not listed in the manifest" in problem for problem in problems)


def test_a_manifest_that_contradicts_the_clip_is_reported(folder: Path) -> None:
    path = folder / "manifest.json"
    content = json.loads(path.read_text())
    content["clips"][3]["identity"] = "somebody"
    path.write_text(json.dumps(content))
    (problem,) = check_dataset(folder).problems
    assert "clip clip-3: identity is 'id-clip-3'; the manifest says 'somebody'" in problem


def test_damage_in_one_clip_does_not_hide_damage_in_another(folder: Path) -> None:
    data = ClipDataset(folder)
    for number in (0, 3):
        entry = data.manifest.clips[number]
        shard = folder / entry.shard
        content = bytearray(shard.read_bytes())
        content[entry.offset + 3] ^= 255  # in the name of the first header
        shard.write_bytes(content)
    text = "\n".join(check_dataset(folder).problems)
    assert "clip clip-0, byte 0: damaged tar" in text and "clip clip-3, byte" in text


def test_the_axes_are_drawn_where_the_camera_projects_them() -> None:
    picture = Image.new("RGB", (200, 200))
    yaw = 0.6
    camera = Camera.look_at_head(yaw)
    draw_pose(picture, np.full((68, 2), 0.05, np.float32), camera.to_vector()[0].numpy())
    pixels = np.asarray(picture)
    # The z axis points out of a face turned to the image right. Its end in camera coordinates: right = L
    # sin(yaw), distance = 2.7 - L cos(yaw), so x = 0.5 + f right / distance.
    right, distance = AXIS_LENGTH * np.sin(yaw), 2.7 - AXIS_LENGTH * np.cos(yaw)
    x = 0.5 + 4.26470 * right / distance
    blue = np.argwhere((pixels == (70, 120, 255)).all(-1))
    assert abs(blue[:, 1].max() - x * 200) < 3 and abs(blue[:, 0].mean() - 100) < 3
    green = np.argwhere((pixels == (60, 200, 70)).all(-1))
    assert abs(green[:, 0].min() - (0.5 - 4.26470 * AXIS_LENGTH / 2.7) * 200) < 3  # y is up
    assert tuple(pixels[10, 10]) == (255, 230, 0)  # the landmarks
    assert torch.allclose(camera.head_angles()[0, 0], torch.tensor(yaw))


def test_the_sheet_shows_one_row_per_clip_and_the_first_and_last_frame(folder: Path) -> None:
    data = ClipDataset(folder)
    sheet = contact_sheet(data, max_clips=3, columns=2, tile_px=24, draw=False)
    assert sheet.shape == (3 * (24 + 14), 2 * 24, 3)
    assert np.array_equal(sheet[14:38, :24], data.frame(0, 0))
    assert np.array_equal(sheet[-24:, 24:], data.frame(4, data.num_frames(4) - 1))


def test_show_writes_a_picture_and_refuses_what_it_cannot_do(folder: Path, tmp_path: Path, capsys) -> None:
    data_main(["show", str(folder), "-o", str(tmp_path / "sheet.png"), "--tile", "32", "--split", "val"])
    assert Image.open(tmp_path / "sheet.png").size == (6 * 32, 46)
    assert "wrote" in capsys.readouterr().out
    with pytest.raises(UsageError, match="--tile: expected at least 1"):
        data_main(["show", str(folder), "--tile", "0"])
    with pytest.raises(UsageError, match=r"'\.gif' is not known"):
        data_main(["show", str(folder), "-o", "a.gif"])
    with pytest.raises(DataError, match="no manifest"):
        data_main(["show", str(tmp_path)])


def test_a_data_set_of_synthetic_clips_is_checked_with_its_masks(tmp_path: Path, make_clip) -> None:
    with ShardWriter(tmp_path) as writer:
        writer.write(make_clip("a", synthetic=True))
    assert check_dataset(tmp_path).problems == ()
