"""Single expression weights: what beta says of the driver, and what its scores add as they move from rest."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from export3d.animation.weights import (
    FROM_REST,
    GAIN,
    GAZE_GAIN,
    LID_SCORES,
    LID_WEIGHTS,
    MOUTH_GAINS,
    MouthReading,
    Resting,
    WeightTransfer,
)
from export3d.face_state import ARKIT_NAMES, FaceState
from export3d.portrait import WeightMaps

BROW, JAW, BLINK, OTHER_LID, SQUINT, WINK, PUFF, PUCKER = (
    ARKIT_NAMES.index(n)
    for n in (
        *("browInnerUp", "jawOpen", "eyeBlinkLeft", "eyeBlinkRight", "eyeSquintLeft"),
        *("mouthSmileLeft", "cheekPuff", "mouthPucker"),
    )
)

MAPS = WeightMaps(rest=torch.zeros(1, 52), weight=torch.eye(64, 52), back=torch.eye(52, 64))
"""The first 52 numbers of beta are the weights."""


def state(**scores: float) -> FaceState:
    weights = torch.zeros(1, len(ARKIT_NAMES))
    for name, value in scores.items():
        weights[0, ARKIT_NAMES.index(name)] = value
    return FaceState(beta=torch.zeros(1, 64), weights=weights)


def moved(transfer: WeightTransfer, driver: FaceState, found: bool = True) -> torch.Tensor:
    weights = transfer(driver, found).weights
    assert weights is not None
    return weights[0]


def test_a_driver_at_rest_leaves_the_portrait_its_own_weights() -> None:
    transfer = WeightTransfer(state(browInnerUp=0.3, jawOpen=0.1))
    weights = moved(transfer, state(browInnerUp=0.4))  # his brows are always that high
    assert weights[[BROW, JAW]].tolist() == pytest.approx([0.3, 0.1])


def test_without_betas_reading_the_change_stands_for_it() -> None:
    transfer = WeightTransfer(state(browInnerUp=0.3))
    for _ in range(9):
        moved(transfer, state(browInnerUp=0.1))
    weights = moved(transfer, state(browInnerUp=0.3, jawOpen=0.2))
    assert weights[BROW].item() == pytest.approx(0.3 + 0.2)  # brows go as far as they are told
    assert weights[JAW].item() == pytest.approx((1.0 + GAIN) * 0.2)


def test_what_beta_says_of_the_driver_counts_and_its_scores_add_to_it() -> None:
    transfer = WeightTransfer(state(cheekPuff=0.1), MAPS)
    for _ in range(9):
        moved(transfer, state(cheekPuff=0.2))
    driver = state(cheekPuff=0.3)
    driver.beta[0, [PUFF, BROW]] = 0.4
    weights = moved(transfer, driver)
    assert weights[BROW].item() == 0.0  # but brows are left to their heights
    assert weights[PUFF].item() == pytest.approx(0.1 + (0.4 - 0.1) + GAIN * (0.3 - 0.2))


def test_a_mouth_is_on_average_as_beta_says_and_changes_as_it_is_read() -> None:
    transfer, gain = WeightTransfer(state(jawOpen=0.1), MAPS), MOUTH_GAINS["jawOpen"]
    told, level, shown = [0.5, 0.3, 0.4], [0.3, 0.2, 0.1], []
    for read, beta in zip(told, level, strict=True):
        driver = state(jawOpen=read)
        driver.beta[0, JAW] = beta
        made = transfer(driver, True)
        assert made.weights is not None
        shown.append(made.weights[0, JAW].item())
        assert made.beta[0, JAW].item() == pytest.approx(shown[-1], abs=1e-5)  # beta goes along
    # By hand: the first frame is beta's; then the mean of beta so far, plus the change from the mean reading so far.
    assert shown == pytest.approx([0.3, 0.25 + gain * (0.3 - 0.4), 0.2 + gain * (0.4 - 0.4)])


def test_a_pucker_goes_on_where_other_weights_end() -> None:
    transfer = WeightTransfer(state(), MAPS)
    transfer.expect([state()] * 9)
    weights = moved(transfer, state(mouthPucker=0.3, mouthLeft=1.5))
    ends = [MOUTH_GAINS["mouthPucker"] * 0.3, 1.0]
    assert weights[[PUCKER, ARKIT_NAMES.index("mouthLeft")]].tolist() == pytest.approx(ends)
    assert moved(transfer, state(mouthPucker=1.0))[PUCKER].item() == 2.0
    assert moved(transfer, state(mouthPucker=-1.0))[PUCKER].item() == -1.0


def test_a_pucker_and_a_jaw_begin_at_rest_where_beta_says_less_than_they_do() -> None:
    transfer = WeightTransfer(state(), MAPS)
    transfer.expect([state(mouthPucker=told, mouthFunnel=told) for told in (0.0, 0.0, 0.0, 0.2, 0.3)])
    weights = moved(transfer, state(mouthPucker=0.0, mouthFunnel=0.0))
    above = FROM_REST * MOUTH_GAINS["mouthPucker"] * 0.1  # by hand: the mean is .1, rest 0, beta's level 0
    assert weights[PUCKER].item() == pytest.approx(above - MOUTH_GAINS["mouthPucker"] * 0.1)
    assert weights[ARKIT_NAMES.index("mouthFunnel")].item() == 0.0


def test_a_frame_without_a_face_or_without_scores_does_not_move_the_mean_of_the_mouth() -> None:
    transfer, blank = WeightTransfer(state(), MAPS), torch.full((1, 52), torch.nan)
    assert moved(transfer, state(jawOpen=0.2))[JAW].item() == 0.0
    moved(transfer, state(jawOpen=0.9), found=False)
    assert moved(transfer, replace(state(), weights=blank))[JAW].isnan()
    gain = MOUTH_GAINS["jawOpen"]  # by hand: the mean of .2 and .3, and at rest .215
    assert moved(transfer, state(jawOpen=0.3))[JAW].item() == pytest.approx(gain * (0.05 + FROM_REST * (0.25 - 0.215)))
    told = MouthReading(MAPS)(state(jawOpen=0.3))
    assert told[0, BROW].isnan() and told[0, PUFF].isnan()


def test_faces_that_are_known_beforehand_tell_of_rest_from_the_first_one_on_and_count_once() -> None:
    shown = [state(browInnerUp=brow, jawOpen=jaw) for brow, jaw in ((0.9, 0.6), (0.2, 0.0), (0.2, 0.0))]
    transfer, alone = WeightTransfer(state(), MAPS), WeightTransfer(state(), MAPS)
    transfer.expect(shown)
    first, unknowing = moved(transfer, shown[0]), moved(alone, shown[0])
    gain = MOUTH_GAINS["jawOpen"]
    ends = [0.7, min(gain * (0.6 - 0.2 + FROM_REST * 0.2), 1.0)]
    assert first[[BROW, JAW]].tolist() == pytest.approx(ends)  # by hand: median .2, mean .2, at rest 0
    assert unknowing[[BROW, JAW]].tolist() == [0.0, 0.0]
    for face in shown[1:]:
        both = moved(transfer, face), moved(alone, face)
    assert both[0].tolist() == pytest.approx(
        both[1].tolist(), nan_ok=True
    )  # the same faces are known by now, each once


def test_a_films_own_mouth_is_read_as_its_drivers_is() -> None:
    film, driver = MouthReading(MAPS), WeightTransfer(state(), MAPS)
    for read in (0.2, 0.5, 0.1):
        face = state(jawOpen=read, mouthSmileLeft=read / 2)
        own, moved_ = film.applied(state(browInnerUp=0.3), face), driver(face, True)
        assert own.weights is not None and moved_.weights is not None
        assert own.weights[0, [JAW, WINK]].tolist() == pytest.approx(moved_.weights[0, [JAW, WINK]].tolist())
        assert own.weights[0, BROW].item() == pytest.approx(0.3)


def test_brows_rest_in_the_middle_of_their_way_and_go_both_ways() -> None:
    transfer = WeightTransfer(state(browInnerUp=0.5), MAPS)
    for told in (0.1, 0.3, 0.2, 0.5, -0.4):  # the median is 0.2
        weights = moved(transfer, state(browInnerUp=told))
    assert weights[BROW].item() == pytest.approx(0.5 - 0.6)
    assert moved(transfer, state(browInnerUp=0.3))[BROW].item() == pytest.approx(
        0.5 + 0.3 - 0.25
    )  # the median is 0.25 now


def test_weights_end_at_0_and_1_and_squints_are_left_to_beta() -> None:
    transfer = WeightTransfer(state(browInnerUp=0.9))
    for _ in range(9):
        moved(transfer, state())
    weights = moved(transfer, state(browInnerUp=0.9, eyeSquintLeft=1.0))
    assert weights[BROW].item() == 1.0 and weights[SQUINT].isnan()


def test_one_lid_closes_by_its_curve_and_beta_goes_along_with_lids_and_brows() -> None:
    transfer = WeightTransfer(state(eyeBlinkLeft=0.1, eyeBlinkRight=0.1), MAPS)
    for _ in range(9):
        moved(transfer, state(eyeBlinkLeft=0.2))
    told = transfer(state(eyeBlinkLeft=0.2 + LID_SCORES[2], browInnerUp=0.4), True)
    assert told.weights is not None
    assert told.weights[0, [BLINK, OTHER_LID]].tolist() == pytest.approx([0.1 + LID_WEIGHTS[2], 0.1])
    assert told.beta[0, [BLINK, OTHER_LID]].tolist() == pytest.approx([0.1 + LID_WEIGHTS[2], 0.1])
    assert told.beta[0, BROW].item() == pytest.approx(0.4)  # and with the brows
    assert float(told.beta.sum()) == pytest.approx(0.2 + LID_WEIGHTS[2] + 0.4)  # nothing else of it moves


def test_a_lid_that_goes_above_its_rest_opens_no_farther() -> None:
    transfer = WeightTransfer(state(eyeBlinkLeft=0.1))
    for _ in range(9):
        moved(transfer, state(eyeBlinkLeft=0.3))
    assert moved(transfer, state(eyeBlinkLeft=0.0))[BLINK].item() == pytest.approx(0.1)


def test_one_side_moves_alone() -> None:
    transfer = WeightTransfer(state())
    for _ in range(9):
        moved(transfer, state())
    weights = moved(transfer, state(mouthSmileLeft=0.3))
    assert weights[WINK].item() == pytest.approx((1.0 + GAIN) * 0.3)
    assert weights[ARKIT_NAMES.index("mouthSmileRight")].item() == 0.0


def test_without_weights_of_either_the_model_is_told_none() -> None:
    assert WeightTransfer(replace(state(), weights=None))(state(), True).weights is None
    assert WeightTransfer(state())(replace(state(), weights=None), True).weights is None


def test_frames_without_a_face_do_not_set_the_rest() -> None:
    transfer = WeightTransfer(state())
    assert transfer(state(browInnerUp=1.0), False).weights is None
    for _ in range(9):
        moved(transfer, state(browInnerUp=0.5))
    transfer(state(), False)
    assert moved(transfer, state(browInnerUp=0.5))[BROW].item() == pytest.approx(0.0)


def test_a_voices_mouth_is_added_as_it_is_and_beta_says_the_same() -> None:
    transfer = WeightTransfer(state(jawOpen=0.1, browInnerUp=0.3), MAPS)
    for _ in range(9):
        transfer(state(jawOpen=0.4, browInnerUp=0.1), True, voiced=True)
    made = transfer(state(jawOpen=0.4, browInnerUp=0.2), True, voiced=True)
    assert made.weights is not None
    assert made.weights[0, JAW].item() == pytest.approx(0.1 + 0.4)  # no rest is taken off, no gain applied
    assert made.weights[0, BROW].item() == pytest.approx(0.3 + 0.1)
    assert made.beta[0, JAW].item() == pytest.approx(0.5, abs=0.01) and made.beta[0, BROW].item() == 0.0


def test_eyes_turn_farther_from_the_portraits_gaze_towards_the_drivers() -> None:
    own, driver = replace(state(), gaze=torch.tensor([[0.2, 0.0]])), replace(state(), gaze=torch.tensor([[0.0, 0.1]]))
    told = WeightTransfer(own, MAPS)(driver, True).gaze
    assert told is not None
    assert told[0].tolist() == pytest.approx([0.2 - GAZE_GAIN * 0.2, GAZE_GAIN * 0.1])
    assert WeightTransfer(own, MAPS)(own, True).gaze is not None
    unknown = torch.full((1, 2), torch.nan)
    told = WeightTransfer(replace(own, gaze=unknown), MAPS)(driver, True).gaze
    assert told is not None and told[0].tolist() == pytest.approx([0.0, 0.1])
    told = WeightTransfer(own, MAPS)(replace(driver, gaze=unknown), True).gaze
    assert told is not None and bool(told.isnan().all())


def test_rest_is_the_quantile_of_the_last_faces_and_unknown_weights_do_not_count() -> None:
    generator, resting, faces = torch.Generator().manual_seed(3), Resting(count=20), []
    for _ in range(50):
        face = torch.rand(52, generator=generator).round(decimals=1)  # some are alike
        face[torch.rand(52, generator=generator) < 0.2] = torch.nan
        face[7] = torch.nan
        resting.add(face)
        faces = [*faces, face][-20:]
        for share in (0.0, 0.15, 0.5, 1.0):
            expected = torch.nanquantile(torch.stack(faces), share, dim=0)
            assert torch.allclose(resting.at(share), expected, atol=1e-6, equal_nan=True)
    assert len(resting) == 20 and resting.at(0.5)[7].isnan()
