"""evaluation/scores/protocol.py: pairs fixed by seed, and files of pairs."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from export3d.errors import DataError, OutputError
from export3d.evaluation.scores.protocol import (
    ClipFacts,
    ProtocolConfig,
    cross_identity_pairs,
    frontal_frame,
    read_pairs,
    same_identity_pairs,
    write_pairs,
)


def _clip(key: str, identity: str | None = None, yaw_deg: list[float] | None = None) -> ClipFacts:
    yaw = np.radians(yaw_deg if yaw_deg is not None else [0.0, 5.0, -5.0, 30.0])
    angles = np.stack([yaw, np.zeros_like(yaw), np.full_like(yaw, 1.0)], axis=1)  # roll does not count
    return ClipFacts(key=key, identity=identity or key, head_angles=angles, usable=np.ones(len(yaw), dtype=bool))


def test_the_source_is_one_of_the_frontal_frames_and_all_of_them_are_drawn_by_some_seed() -> None:
    drawn = {frontal_frame(_clip("a"), ProtocolConfig(seed=seed)) for seed in range(40)}
    assert drawn == {0, 1, 2}


def test_without_a_frontal_frame_the_most_frontal_one_is_taken() -> None:
    assert frontal_frame(_clip("a", yaw_deg=[40.0, -25.0, 60.0])) == 1


def test_pitch_counts_as_well_as_yaw() -> None:
    clip = _clip("a", yaw_deg=[0.0, 2.0])
    clip.head_angles[0, 1] = math.radians(20)
    assert frontal_frame(clip) == 1


def test_frames_without_a_face_are_never_the_source() -> None:
    clip = _clip("a", yaw_deg=[0.0, 50.0])
    clip.usable[0] = False
    assert frontal_frame(clip) == 1
    clip.usable[1] = False
    with pytest.raises(DataError, match="clip a: no frame has a face"):
        frontal_frame(clip)


def test_a_clips_source_depends_on_the_seed_and_its_key_only() -> None:
    clips = [_clip(k) for k in "abcdef"]
    config = ProtocolConfig(seed=5)
    whole = {p.source_clip: p.source_frame for p in same_identity_pairs(clips, config)}
    part = {p.source_clip: p.source_frame for p in same_identity_pairs(clips[::-2], config)}
    assert all(whole[key] == frame for key, frame in part.items())
    assert (
        len({tuple(p.source_frame for p in same_identity_pairs(clips, ProtocolConfig(seed=s))) for s in range(9)}) > 3
    )


def test_same_identity_clips_drive_themselves_in_order() -> None:
    pairs = same_identity_pairs([_clip("b"), _clip("a")])
    assert [(p.kind, p.source_clip, p.driving_clip) for p in pairs] == [("same", "a", "a"), ("same", "b", "b")]


def test_cross_identity_clips_are_driven_by_the_next_one_and_the_last_by_the_first() -> None:
    pairs = cross_identity_pairs([_clip("c"), _clip("a"), _clip("b")])
    assert [(p.source_clip, p.driving_clip) for p in pairs] == [("a", "b"), ("b", "c"), ("c", "a")]
    assert {p.kind for p in pairs} == {"cross"}


def test_clips_of_the_same_person_are_skipped() -> None:
    pairs = cross_identity_pairs([_clip("a", "x"), _clip("b", "x"), _clip("c", "y")])
    assert [(p.source_clip, p.driving_clip) for p in pairs] == [("a", "c"), ("b", "c"), ("c", "a")]


def test_one_person_alone_has_no_cross_identity_pairs() -> None:
    with pytest.raises(DataError, match="at least two people"):
        cross_identity_pairs([_clip("a", "x"), _clip("b", "x")])


def test_an_empty_data_set_is_an_error() -> None:
    with pytest.raises(DataError, match="no clips; there is nothing to evaluate"):
        same_identity_pairs([])


def test_pairs_survive_a_file(tmp_path: Path) -> None:
    clips = [_clip(k) for k in "abc"]
    pairs = [*same_identity_pairs(clips), *cross_identity_pairs(clips)]
    write_pairs(tmp_path / "pairs.json", pairs)
    assert read_pairs(tmp_path / "pairs.json", clips) == pairs
    assert [p.name for p in tmp_path.iterdir()] == ["pairs.json"]


def test_pairs_of_another_data_set_are_named(tmp_path: Path) -> None:
    clips = [_clip(k) for k in "abc"]
    write_pairs(tmp_path / "p.json", same_identity_pairs(clips))
    with pytest.raises(DataError, match=r"p\.json: clip 'c' is not in the data set"):
        read_pairs(tmp_path / "p.json", clips[:2])
    with pytest.raises(DataError, match=r"frame \d of clip 'a' does not exist"):
        read_pairs(tmp_path / "p.json", [_clip("a", yaw_deg=[]), *clips[1:]])


@pytest.mark.parametrize("text", ["", "[]", '{"format": "export3d-pairs", "version": 1, "pairs": [{}]}'])
def test_a_damaged_file_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "p.json").write_text(text)
    with pytest.raises(DataError, match=r"p\.json: not a readable list of pairs"):
        read_pairs(tmp_path / "p.json", [])


def test_another_version_is_named(tmp_path: Path) -> None:
    (tmp_path / "p.json").write_text("{}")
    with pytest.raises(DataError, match=r"p\.json: format 'None' version None; expected 'export3d-pairs' version 1"):
        read_pairs(tmp_path / "p.json", [])
    (tmp_path / "p.json").write_text('{"format": "export3d-pairs", "version": 2, "pairs": []}')
    with pytest.raises(DataError, match="version 2; expected 'export3d-pairs' version 1"):
        read_pairs(tmp_path / "p.json", [])


def test_a_missing_folder_is_an_output_error(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"pairs\.json: cannot be written"):
        write_pairs(tmp_path / "gone" / "pairs.json", [])
