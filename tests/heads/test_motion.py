"""Motion of synthetic heads: reproducible, inside its limits, continuous, and readable from a CSV."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from export3d.camera import RADIUS
from export3d.errors import MotionFileError
from export3d.heads.clips.acting import (
    MAX_YAW_RAD,
    NEAR_FRONTAL_FRAMES,
    independent,
    trajectory,
)
from export3d.heads.clips.motion import (
    Motion,
    expression_weights,
    gaze_to_weights,
    weights_to_gaze,
)
from export3d.heads.clips.motion_csv import from_csv
from export3d.heads.shape.parametric import EXPRESSION_NAMES

INDEX = {name: index for index, name in enumerate(EXPRESSION_NAMES)}


@pytest.fixture(scope="module")
def many() -> list[Motion]:
    return [independent(seed, 40) for seed in range(60)]


def same(a: Motion, b: Motion) -> bool:
    names = ("weights", "gaze", "yaw", "pitch", "roll", "shift")
    return all(np.array_equal(getattr(a, name), getattr(b, name)) for name in names)


@pytest.mark.parametrize("make", [independent, trajectory])
def test_the_same_seed_gives_the_same_motion_and_another_seed_another(make) -> None:
    assert same(make(3, 40), make(3, 40))
    assert not same(make(3, 40), make(4, 40))


@pytest.mark.parametrize("make", [independent, trajectory])
def test_weights_gaze_and_pose_stay_inside_their_limits(make) -> None:
    for seed in range(5):
        motion = make(seed, 200)
        assert len(motion) == 200
        assert motion.weights.min() >= 0.0 and motion.weights.max() <= 1.0
        assert np.abs(motion.gaze).max() <= 0.45 + 1e-6
        assert np.isfinite(motion.shift).all()
        assert np.abs(motion.yaw).max() < 1.2


def test_a_longer_independent_motion_starts_with_the_shorter_one() -> None:
    assert same(independent(7, 30).first(10), independent(7, 10))


def test_independent_frames_start_near_frontal_and_then_reach_far_to_both_sides(many: list[Motion]) -> None:
    first = np.concatenate([m.yaw[:NEAR_FRONTAL_FRAMES] for m in many])
    later = np.concatenate([m.yaw[NEAR_FRONTAL_FRAMES:] for m in many])
    assert abs(first.std() - 0.13) < 0.02
    assert np.abs(later).max() <= MAX_YAW_RAD
    assert later.min() < -0.7 and later.max() > 0.7
    assert (np.abs(later) > 0.5).mean() > 0.1


def test_the_camera_jitters_as_crops_of_real_photographs_do(many: list[Motion]) -> None:
    shift = np.concatenate([motion.shift for motion in many])
    # 2,400 draws: the standard error of a standard deviation is 1 / sqrt(2 * 2400) = 1.4 %; 6 % is four of them.
    np.testing.assert_allclose(shift.std(0), [0.02, 0.02, 0.03 * RADIUS], rtol=0.06)


def test_every_shape_that_a_face_shows_is_excited_somewhere(many: list[Motion]) -> None:
    highest = np.max([motion.weights.max(0) for motion in many], axis=0)
    silent = {name for name, value in zip(EXPRESSION_NAMES, highest, strict=True) if value < 0.15}
    assert silent == {"jawForward", "mouthClose"}


def test_wide_motion_shuts_eyes_winks_and_raises_one_brow_and_keeps_poses_and_first_frames() -> None:
    wide, plain = ([independent(seed, 24, wide=wide) for seed in range(20)] for wide in (True, False))
    blink, brow = (
        [m.weights[:, [EXPRESSION_NAMES.index(f"{n}_{s}") for s in "LR"]] for m in wide]
        for n in ("eyeBlink", "browOuterUp")
    )
    shut, raised = np.concatenate(blink), np.concatenate(brow)
    assert 0.05 < (shut.min(axis=1) == 1.0).mean() < 0.3
    assert (np.abs(shut[:, 0] - shut[:, 1]) > 0.4).mean() > 0.03
    assert (np.abs(raised[:, 0] - raised[:, 1]) > 0.4).mean() > 0.03
    spread = [np.concatenate([m.gaze for m in motions])[:, 0].std() for motions in (wide, plain)]
    assert spread[0] > 1.2 * spread[1]
    for a, b in zip(wide, plain, strict=True):
        np.testing.assert_array_equal(a.yaw, b.yaw)
        np.testing.assert_array_equal(a.weights[:3], b.weights[:3])


def test_the_resting_face_is_added_to_every_frame() -> None:
    resting = expression_weights({"browDown": 0.1}).astype(np.float32)
    for make in (independent, trajectory):
        plain, rested = make(5, 60), make(5, 60, resting=resting)
        expected = np.clip(plain.weights + resting, 0.0, 1.0)
        below = plain.weights[:, INDEX["browDown_L"]] < 1.0  # a clipped weight has lost what was above 1
        np.testing.assert_allclose(rested.weights[below], expected[below], atol=1e-6)


def test_the_lids_follow_the_gaze() -> None:
    gaze = np.array([[0.2, 0.0], [-0.3, 0.1], [0.0, -0.25]])
    weights = np.zeros((3, 53))
    for name, values in gaze_to_weights(gaze).items():
        weights[:, INDEX[name]] = values
    # Frame 0 looks 0.2 rad to the image right, the subject's left: left eye out, right eye in, weight 0.2 / 0.5.
    assert weights[0, INDEX["eyeLookOut_L"]] == pytest.approx(0.4)
    assert weights[0, INDEX["eyeLookIn_R"]] == pytest.approx(0.4)
    assert weights[0, INDEX["eyeLookIn_L"]] == 0.0
    assert weights[2, INDEX["eyeLookDown_L"]] == pytest.approx(0.5)
    np.testing.assert_allclose(weights_to_gaze(weights), gaze, atol=1e-12)
    motion = independent(1, 50)
    np.testing.assert_allclose(weights_to_gaze(motion.weights), motion.gaze, atol=1e-6)


def test_a_talking_sequence_moves_smoothly_blinks_and_opens_the_mouth() -> None:
    motion = trajectory(2, 1500)  # one minute
    for angle in (motion.yaw, motion.pitch, motion.roll):
        assert np.abs(np.diff(angle)).max() < 0.12  # rad per frame: 170 degrees per second
    assert abs(motion.yaw.std() - 0.22) < 0.1
    shut = motion.weights[:, INDEX["eyeBlink_L"]] > 0.6
    blinks = int((np.diff(shut.astype(int)) == 1).sum())
    assert 8 <= blinks <= 40  # one in 3 s is 20
    # Lids fall in 80 ms and rise in 160 ms: no lid stays over 0.6 for more than 8 frames (0.32 s).
    runs = np.diff(np.flatnonzero(np.diff(np.r_[0, shut.astype(int), 0])))[::2]
    assert runs.max() <= 8
    jaw = motion.weights[:, INDEX["jawOpen"]]
    assert jaw.max() > 0.25 and (jaw < 0.02).mean() > 0.05


def test_fps_changes_the_sampling_and_not_the_pace() -> None:
    for fps in (25.0, 50.0):
        motion = trajectory(4, int(60 * fps), fps)
        shut = motion.weights[:, INDEX["eyeBlink_L"]] > 0.6
        blinks = int((np.diff(shut.astype(int)) == 1).sum())
        assert 8 <= blinks <= 40
    with pytest.raises(ValueError, match="fps must be positive"):
        trajectory(4, 10, 0.0)


def test_the_camera_holds_the_head_pose() -> None:
    motion = independent(11, 20)
    angles = motion.camera().head_angles().numpy()
    np.testing.assert_allclose(angles, np.stack([motion.yaw, motion.pitch, motion.roll], 1), atol=1e-5)
    distance = motion.camera().cam_to_world[:, :3, 3].norm(dim=1)
    expected = (torch.from_numpy(motion.shift) + torch.tensor([0.0, 0.0, RADIUS])).norm(dim=1)
    torch.testing.assert_close(distance, expected)


def test_a_motion_of_wrong_shape_is_refused() -> None:
    good = independent(1, 4)
    with pytest.raises(ValueError, match=r"Motion.gaze must be float32 \(4, 2\); got float32 \(3, 2\)"):
        Motion(
            weights=good.weights,
            gaze=good.gaze[:3],
            yaw=good.yaw,
            pitch=good.pitch,
            roll=good.roll,
            shift=good.shift,
        )


def write(folder: Path, text: str) -> Path:
    path = folder / "motion.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_live_link_file_is_read_by_its_column_names(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "Timecode,BlendShapeCount,EyeBlinkLeft,JawOpen,BrowInnerUp,MouthLeft,TongueOut,HeadYaw\n"
        "11:22:33:04.500,61,0.25,0.5,0.75,0.125,0.9,0.1\n"
        "11:22:33:05.500,61,1.5,,0,0,0,0\n",
    )
    motion = from_csv(path)
    assert len(motion) == 2
    expected = {"eyeBlink_L": 0.25, "jawOpen": 0.5, "browInnerUp_L": 0.75, "browInnerUp_R": 0.75, "mouthLeft": 0.125}
    for name in EXPRESSION_NAMES:
        assert motion.weights[0, INDEX[name]] == pytest.approx(expected.get(name, 0.0))
    assert motion.weights[1].sum() == 1.0  # cut to 1; the empty cell is 0
    assert motion.yaw.tolist() == [0.0, 0.0]  # the recorder's head angles have signs of their own


def test_our_names_arkit_names_and_a_byte_order_mark_are_understood(tmp_path: Path) -> None:
    path = tmp_path / "motion.csv"
    path.write_bytes(
        "\ufeffeyeBlink_R, mouthSmileLeft ,eyeLookOut_L,eyeLookIn_R,yaw\n0.5,0.25,0.2,0.2,-0.3\n\n".encode()
    )
    motion = from_csv(path)
    assert motion.weights[0, INDEX["eyeBlink_R"]] == 0.5
    assert motion.weights[0, INDEX["mouthSmile_L"]] == 0.25
    assert motion.gaze[0, 0] == pytest.approx(0.1)  # (0.2 + 0.2) / 2 of 0.5 rad
    assert motion.yaw[0] == pytest.approx(-0.3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the file is empty"),
        ("jawOpen\n", "a header without rows"),
        ("a,b,c\n1,2,3\n", "no column is named after a blendshape"),
        ("jawOpenn,eyeBlinkLeft\n1,1\n", "column 'jawOpenn' is not a blendshape. Did you mean 'jawopen'"),
        ("jawOpen,JawOpen\n1,1\n", "column 'jawopen' appears twice"),
        ("jawOpen,mouthFunnel\n0.1\n", "row 2: expected 2 cells as in the header; got 1"),
        ("jawOpen\nmuch\n", "row 2, column 'jawopen': expected a number; got 'much'"),
        ("jawOpen\n0.1\nnan\n", "row 3, column 'jawopen': expected a number; got 'nan'"),
    ],
)
def test_a_wrong_csv_is_refused_with_the_place(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(MotionFileError) as caught:
        from_csv(write(tmp_path, text))
    assert message in str(caught.value) and caught.value.exit_code == 22


def test_a_missing_or_binary_csv_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MotionFileError, match="no such CSV file"):
        from_csv(tmp_path / "none.csv")
    (tmp_path / "binary.csv").write_bytes(bytes([0xFF, 0xFE, 0x00, 0x80] * 10))
    with pytest.raises(MotionFileError, match="not a CSV text file"):
        from_csv(tmp_path / "binary.csv")
