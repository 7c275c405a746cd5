"""Absolute and relative motion, expression or pose alone, and smoothing."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch

from export3d.animation import DrivingFrame, TransferOptions
from export3d.animation.regions import parse_strengths
from export3d.animation.transfer import neutral_face, relative_camera, smooth, transfer
from export3d.camera import Camera
from export3d.errors import UsageError
from export3d.face_state import FaceState
from export3d.portrait import WeightMaps
from export3d.tracking.gaze import GAZE_LIMIT_RAD

CLOCK = Fraction(1, 25)


def camera(yaw_deg: float, pitch_deg: float = 0.0, roll_deg: float = 0.0, shift: float = 0.0) -> np.ndarray:
    angles = (math.radians(angle) for angle in (yaw_deg, pitch_deg, roll_deg))
    moved = torch.tensor([[shift, 0.0, 0.0]])
    return Camera.look_at_head(*angles, shift=moved).to_vector()[0].numpy()


def angles_deg(vector: np.ndarray) -> list[float]:
    return torch.rad2deg(Camera.from_vector(torch.from_numpy(vector)[None]).head_angles())[0].tolist()


def frames(betas: list[float], yaws: list[float], found: list[bool] | None = None) -> list[DrivingFrame]:
    return [
        DrivingFrame(
            state=FaceState.of(beta=np.full(64, beta)),
            camera=camera(yaw),
            found=True if found is None else found[index],
            index=index,
            pts=index,
            duration=1,
        )
        for index, (beta, yaw) in enumerate(zip(betas, yaws, strict=True))
    ]


OWN, OWN_CAMERA = FaceState.of(beta=np.full(64, 10.0)), camera(5.0, -3.0, 2.0)


def alone(regions: str) -> dict[str, object]:
    """Options with which these regions alone follow the driver."""
    return {"strengths": parse_strengths(regions, "1")}


EXPRESSION = alone("lips,jaw,eyes,brows,gaze")
POSE = alone("pose")


def run(given: list[DrivingFrame], **options: object) -> list[DrivingFrame]:
    chosen = TransferOptions(**options)  # type: ignore[arg-type]
    return list(transfer(given, chosen, own=OWN, camera=OWN_CAMERA, time_base=CLOCK))


def test_the_default_is_the_drivers_motion_as_it_is() -> None:
    given = frames([1.0, 2.0], [0.0, 10.0])
    for got, wanted in zip(run(given), given, strict=True):
        assert got.state.same_as(wanted.state) and np.array_equal(got.camera, wanted.camera)


def test_expression_only_keeps_the_portraits_camera() -> None:
    got = run(frames([1.0, 2.0], [0.0, 10.0]), **EXPRESSION)
    assert [frame.state.beta[0, 0] for frame in got] == [1, 2]
    assert all(np.array_equal(frame.camera, OWN_CAMERA) for frame in got)


def test_pose_only_keeps_the_portraits_expression() -> None:
    got = run(frames([1.0, 2.0], [0.0, 10.0]), **POSE)
    assert all(frame.state.same_as(OWN) for frame in got)
    assert angles_deg(got[1].camera)[0] == pytest.approx(10.0, abs=1e-3)


def test_relative_starts_at_the_portrait_and_adds_the_change() -> None:
    got = run(frames([1.0, 4.0], [20.0, 20.0]), relative=True)
    assert [frame.state.beta[0, 0] for frame in got] == [10, 13]  # 10 + (1 - 1), 10 + (4 - 1)
    np.testing.assert_allclose(got[0].camera, OWN_CAMERA, atol=1e-6)


def test_relative_turns_add_up_about_one_axis() -> None:
    # The driver turns from 20 to 50 degrees; the portrait stands at 10: 10 + 30 = 40.
    assert angles_deg(relative_camera(camera(50), camera(20), camera(10))) == pytest.approx([40, 0, 0], abs=1e-3)


def test_relative_moves_add_up() -> None:
    moved = relative_camera(camera(0, shift=0.3), camera(0, shift=0.1), camera(0, shift=-0.05))
    np.testing.assert_allclose(moved, camera(0, shift=0.15), atol=1e-6)


def test_relative_cameras_are_rigid() -> None:
    moved = relative_camera(camera(40, 20, -15), camera(-10, 5, 8), camera(12, -9, 3))
    rotation = moved[:16].reshape(4, 4)[:3, :3].astype(np.float64)
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-6)
    assert np.linalg.det(rotation) == pytest.approx(1.0, abs=1e-6)


def test_relative_counts_from_the_first_face_and_rests_before_it() -> None:
    got = run(frames([7.0, 1.0, 3.0], [0.0, 0.0, 0.0], found=[False, True, True]), relative=True)
    assert [frame.state.beta[0, 0] for frame in got] == [10, 10, 12]
    np.testing.assert_allclose(got[0].camera, OWN_CAMERA, atol=1e-6)


def test_relative_counts_from_the_neutral_face_that_is_named() -> None:
    given = frames([7.0, 1.0, 3.0], [0.0, 0.0, 4.0])
    neutral = neutral_face(given, time_base=CLOCK, shift=False, at_s=1 / 25)
    got = run(given, relative=True, neutral=neutral)
    assert [frame.state.beta[0, 0] for frame in got] == [16, 10, 12]
    assert angles_deg(got[2].camera)[0] == pytest.approx(9.0, abs=0.2)


def test_the_neutral_face_that_is_looked_for_is_the_one_nearest_to_the_median() -> None:
    given = frames([9.0, 1.0, 2.0, 2.5, 9.0], [0.0] * 5, found=[False, True, True, True, True])
    assert neutral_face(given, time_base=CLOCK, shift=False).index == 2


@pytest.mark.parametrize("at_s", [None, 1.0])
def test_a_driver_without_a_face_at_the_neutral_time_is_named(at_s: float | None) -> None:
    with pytest.raises(UsageError, match=r"--neutral (auto|1\.0): the driver has no face at that time or after it"):
        neutral_face(frames([1.0], [0.0], found=[False]), time_base=CLOCK, shift=True, at_s=at_s)


def test_a_neutral_face_without_relative_is_refused() -> None:
    with pytest.raises(UsageError, match="give --relative too"):
        TransferOptions(neutral=frames([1.0], [0.0])[0])


def test_smoothing_leaves_a_constant_alone() -> None:
    for frame in smooth(frames([3.0] * 9, [15.0] * 9), 0.06, CLOCK):
        np.testing.assert_allclose(frame.state.beta, 3.0, atol=1e-6)
        np.testing.assert_allclose(frame.camera, camera(15.0), atol=1e-6)


def test_smoothing_leaves_a_steady_change_alone_inside() -> None:
    got = list(smooth(frames([float(k) for k in range(21)], [2.0 * k for k in range(21)]), 0.06, CLOCK))
    for index in range(5, 16):  # three sigma are 4.5 frames
        assert got[index].state.beta[0, 0].item() == pytest.approx(index, abs=1e-5)
        assert angles_deg(got[index].camera) == pytest.approx([2.0 * index, 0, 0], abs=1e-3)


def test_smoothing_weights_are_a_gaussian() -> None:
    # Sigma is one frame and the reach three, so all five frames count: weights exp(-k^2 / 2) around the middle one.
    betas = [0.0, 0.0, 1.0, 0.0, 0.0]
    got = list(smooth(frames(betas, [0.0] * 5), 0.04, CLOCK))
    total = 1 + 2 * math.exp(-0.5) + 2 * math.exp(-2.0)
    assert got[2].state.beta[0, 0].item() == pytest.approx(1 / total, rel=1e-5)
    one_sided = 1 + math.exp(-0.5) + math.exp(-2.0) + math.exp(-4.5)
    assert got[0].state.beta[0, 0].item() == pytest.approx(math.exp(-2.0) / one_sided, rel=1e-5)


def test_smoothing_hands_out_every_frame_in_order_and_keeps_few() -> None:
    pulled = 0

    def source() -> Iterator[DrivingFrame]:
        nonlocal pulled
        for frame in frames([0.0] * 60, [0.0] * 60):
            pulled += 1
            yield frame

    ahead = [pulled - frame.index for frame in smooth(source(), 0.06, CLOCK)]
    assert len(ahead) == 60
    assert max(ahead[:50]) <= 6  # ceil(4.5 frames) ahead, and the frame itself


def test_smoothing_follows_time_and_not_the_number_of_the_frame() -> None:
    given = frames([0.0, 8.0], [0.0, 0.0])
    far = [given[0], DrivingFrame(**{**vars(given[1]), "pts": 100})]  # four seconds later
    assert [frame.state.beta[0, 0] for frame in smooth(far, 0.06, CLOCK)] == [0, 8]


NAN = (math.nan, math.nan)


def with_fields(frame: DrivingFrame, **values: object) -> DrivingFrame:
    """The frame with more fields known of its face."""
    return replace(frame, state=FaceState.of(beta=frame.state.beta[0].numpy(), **values))  # type: ignore[arg-type]


def looking(gazes: list[tuple[float, float]], found: list[bool] | None = None) -> list[DrivingFrame]:
    given = frames([1.0] * len(gazes), [0.0] * len(gazes), found)
    return [with_fields(frame, gaze=gaze) for frame, gaze in zip(given, gazes, strict=True)]


def gazes(given: list[DrivingFrame], own: tuple[float, float], **options: object) -> np.ndarray:
    """``(T, 2)`` after the transfer to a portrait that looks at `own`."""
    chosen = TransferOptions(**options)  # type: ignore[arg-type]
    portrait = FaceState.of(beta=np.full(64, 10.0), gaze=np.array(own))
    passed = transfer(given, chosen, own=portrait, camera=OWN_CAMERA, time_base=CLOCK)
    return torch.cat(
        [f.state.gaze if f.state.gaze is not None else torch.full((1, 2), math.nan) for f in passed]
    ).numpy()


def test_the_drivers_gaze_is_taken_as_it_is_and_with_the_expression_alone() -> None:
    given = looking([(0.1, 0.0), (-0.2, 0.05)])
    for options in ({}, EXPRESSION):
        np.testing.assert_allclose(gazes(given, (0.3, 0.3), **options), [[0.1, 0.0], [-0.2, 0.05]], atol=1e-6)


def test_a_gaze_that_is_left_out_is_unknown_whatever_else_is_asked() -> None:
    for options in (POSE, {**alone("lips,pose,jaw,eyes,brows"), "relative": True}):
        assert np.isnan(gazes(looking([(0.1, 0.0)]), (0.3, -0.1), **options)).all()


def test_a_gaze_goes_as_far_as_its_strength_and_no_further_than_the_limit() -> None:
    strong = {"strengths": parse_strengths(None, "gaze=2")}
    np.testing.assert_allclose(gazes(looking([(0.2, 0.0)]), (0.1, 0.0), **strong), [[0.3, 0.0]], atol=1e-6)
    assert gazes(looking([(0.4, 0.0)]), (0.1, 0.0), **strong)[0, 0] == pytest.approx(GAZE_LIMIT_RAD)


def test_relative_adds_the_change_of_gaze_and_stops_at_the_limit() -> None:
    got = gazes(looking([(0.1, 0.1), (0.2, 0.0), (0.4, 0.1)]), (0.2, 0.0), relative=True)
    # 0.2 + (0.1 - 0.1); 0.2 + (0.2 - 0.1), 0 + (0 - 0.1); 0.2 + (0.4 - 0.1) = 0.5, clipped to 0.45
    np.testing.assert_allclose(got, [[0.2, 0.0], [0.3, -0.1], [0.45, 0.0]], atol=1e-6)


def test_relative_counts_from_the_first_gaze_that_is_known() -> None:
    got = gazes(looking([NAN, (0.1, 0.0), (0.2, 0.0)]), (0.2, 0.0), relative=True)
    np.testing.assert_allclose(got, [NAN, (0.2, 0.0), (0.3, 0.0)], atol=1e-6)


def test_relative_to_a_portrait_of_unknown_gaze_is_unknown() -> None:
    assert np.isnan(gazes(looking([(0.1, 0.0), (0.2, 0.0)]), NAN, relative=True)).all()


def test_smoothing_averages_the_known_gazes_and_leaves_unknown_ones_unknown() -> None:
    sigma = 0.04  # one frame: neighbours weigh exp(-1/2), and the third is unknown
    near = math.exp(-0.5)
    states = [frame.state for frame in smooth(looking([(0.3, 0.0), (0.0, 0.0), NAN]), sigma, CLOCK)]
    got = [state.gaze[0, 0].item() for state in states if state.gaze is not None]
    assert got[0] == pytest.approx(0.3 / (1.0 + near), rel=1e-5)
    assert got[1] == pytest.approx(0.3 * near / (near + 1.0), rel=1e-5)
    assert math.isnan(got[2])


def test_smoothing_gives_no_weight_to_frames_without_a_face() -> None:
    # Held values around a gap must not drag the mean: with one frame as sigma, only frames 0 and 3 count for frame 1.
    given = frames([1.0, 50.0, 50.0, 4.0], [0.0] * 4, found=[True, False, False, True])
    got = [frame.state.beta[0, 0].item() for frame in smooth(given, 0.04, CLOCK)]
    near, far = math.exp(-0.5), math.exp(-2.0)
    assert got[1] == pytest.approx((1.0 * near + 4.0 * far) / (near + far), rel=1e-5)
    assert got[0] == pytest.approx((1.0 + 4.0 * math.exp(-4.5)) / (1.0 + math.exp(-4.5)), rel=1e-5)


def test_relative_adds_the_change_of_each_weight_that_is_known_within_its_range() -> None:
    def weights(*first: float) -> np.ndarray:
        return np.concatenate([first, np.full(52 - len(first), 0.5)])

    base = frames([0.0, 0.0], [0.0, 0.0])
    given = [
        with_fields(base[0], weights=weights(0.1, 0.2, math.nan, 0.0)),
        with_fields(base[1], weights=weights(0.4, 0.9, 0.3, 0.2)),
    ]
    own = FaceState.of(beta=np.zeros(64), weights=weights(0.2, 0.6, 0.1, math.nan))
    got = list(transfer(given, TransferOptions(relative=True), own=own, camera=OWN_CAMERA, time_base=CLOCK))
    # 0.2 + 0.3; 0.6 + 0.7, clipped; first known in the second frame: unknown, then no change; the portrait's is unknown
    assert got[0].state.weights is not None and got[1].state.weights is not None
    np.testing.assert_allclose(got[0].state.weights[0, :4], [0.2, 0.6, math.nan, math.nan], atol=1e-6)
    np.testing.assert_allclose(got[1].state.weights[0, :4], [0.5, 1.0, 0.1, math.nan], atol=1e-6)
    np.testing.assert_allclose(got[1].state.weights[0, 4:], 0.5)


@pytest.mark.parametrize(("blind", "read"), [(False, 3), (True, 1)])
def test_the_first_faces_of_a_film_are_looked_at_beforehand_and_a_sender_is_not_waited_for(
    blind: bool, read: int
) -> None:
    given, taken = frames([0.1, 0.2, 0.3, 0.4], [0.0] * 4), []

    def coming() -> Iterator[DrivingFrame]:
        for frame in given:
            taken.append(frame.index)
            weights, beta = torch.full((1, 52), 0.2), frame.state.beta
            state = replace(frame.state, weights=weights, beta=torch.full_like(beta, torch.nan) if blind else beta)
            yield replace(frame, state=state)

    own = FaceState(beta=torch.zeros_like(given[0].state.beta), weights=torch.zeros(1, 52))
    count = own.beta.shape[1]
    maps = WeightMaps(rest=torch.zeros(1, 52), weight=torch.zeros(count, 52), back=torch.zeros(52, count))
    told = {"own": own, "camera": camera(0.0), "time_base": Fraction(1, 25), "maps": maps, "ahead": 3}
    driven = transfer(coming(), TransferOptions(shift=False), **told)
    assert next(driven).index == 0 and len(taken) == read
    assert [frame.index for frame in driven] == [1, 2, 3] and taken == [0, 1, 2, 3]
