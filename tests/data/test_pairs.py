"""Sampling is a pure function of (seed, step, place in the batch)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from export3d.data import ClipDataset, ShardWriter, contrastive_clip_at, pair_at
from export3d.errors import DataError


def test_the_same_arguments_give_the_same_pair_and_other_arguments_another(folder: Path) -> None:
    data, again = ClipDataset(folder), ClipDataset(folder)
    draws = [pair_at(data, 1, step, index) for step in range(8) for index in range(4)]
    assert draws == [pair_at(again, 1, step, index) for step in range(8) for index in range(4)]
    assert draws != [pair_at(data, 2, step, index) for step in range(8) for index in range(4)]
    assert len(set(draws)) > 16


def test_a_pair_is_two_different_frames_and_every_clip_is_drawn(folder: Path) -> None:
    data = ClipDataset(folder)
    draws = np.array([pair_at(data, 0, step, 0) for step in range(2000)])
    assert (draws[:, 1] != draws[:, 2]).all()
    counts = np.bincount(draws[:, 0], minlength=5)
    # 2000 draws over 5 clips: 400 each, standard deviation sqrt(2000 * 0.2 * 0.8) = 18; five of them is 90.
    assert (np.abs(counts - 400) < 90).all()
    first = draws[draws[:, 0] == 0]  # 4 frames: 12 ordered pairs, each drawn
    assert len({tuple(row[1:]) for row in first.tolist()}) == 12


def test_near_frontal_sources_stay_inside_the_bounds(folder: Path) -> None:
    data = ClipDataset(folder)
    for step in range(200):
        clip, source, _ = pair_at(data, 0, step, 0, max_source_yaw_deg=15.0)
        assert abs(np.degrees(data.head_angles(clip)[source, 0])) <= 15.0


def test_a_clip_without_a_frontal_frame_gives_its_most_frontal_one(folder: Path) -> None:
    data = ClipDataset(folder, split="train")
    for step in range(50):
        clip, source, _ = pair_at(data, 0, step, 0, max_source_yaw_deg=0.5, max_source_pitch_deg=0.5)
        yaw = np.abs(data.head_angles(clip)[:, 0])
        assert yaw[source] == yaw.min()


def test_a_clip_of_one_frame_cannot_give_a_pair(tmp_path: Path, make_clip) -> None:
    with ShardWriter(tmp_path) as writer:
        writer.write(make_clip("single", num_frames=1))
    with pytest.raises(DataError, match="clip single has one frame"):
        pair_at(ClipDataset(tmp_path), 0, 0, 0)


def test_contrastive_frames_are_33_different_ones_spread_over_the_clip(tmp_path: Path, make_clip) -> None:
    with ShardWriter(tmp_path) as writer:
        writer.write(make_clip("short", num_frames=32, size=2))
        writer.write(make_clip("long", num_frames=100, size=2))
    data = ClipDataset(tmp_path)
    for step in range(50):
        clip, frames = contrastive_clip_at(data, 0, step, 0)
        assert data.keys[clip] == "long" and frames.shape == (33,)
        assert (np.diff(frames) >= 1).all() and 0 <= frames[0] and frames[-1] < 100
        assert (frames // 10).min() == 0 and len(set((frames // 10).tolist())) == 10  # every tenth of the clip
    assert np.array_equal(frames, contrastive_clip_at(data, 0, 49, 0)[1])


def test_contrastive_sampling_says_when_no_clip_is_long_enough(folder: Path) -> None:
    with pytest.raises(DataError, match="no clip has 33 frames"):
        contrastive_clip_at(ClipDataset(folder), 0, 0, 0)
