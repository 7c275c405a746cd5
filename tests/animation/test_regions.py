"""Regions of the face: each follows the driver by its own strength, and no other moves with it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from export3d.animation.regions import (
    REGIONS,
    BetaReading,
    mixed_camera,
    mixed_state,
    parse_strengths,
    region_of,
)
from export3d.camera import Camera
from export3d.errors import UsageError
from export3d.face_state import ARKIT_NAMES, FaceState
from export3d.portrait import PortraitModel, load_model


@pytest.fixture(scope="module")
def model() -> PortraitModel:
    model = load_model(None)
    assert isinstance(model, PortraitModel)
    return model


def faces(seed: int) -> tuple[FaceState, FaceState]:
    random = torch.Generator().manual_seed(seed)
    betas, weights, gazes = (torch.randn(2, n, generator=random) for n in (64, 52, 2))
    both = FaceState(beta=betas, weights=weights.sigmoid(), gaze=gazes / 10)
    return both[:1], both[1:]


def test_every_weight_has_one_region_and_every_region_of_the_face_has_weights() -> None:
    found = {region_of(name) for name in ARKIT_NAMES}
    assert found == set(REGIONS) - {"pose"}
    assert (
        region_of("mouthSmile_L") == "lips" and region_of("jawOpen") == "jaw" and region_of("eyeLookInLeft") == "gaze"
    )


def test_full_strength_is_the_driver_and_none_the_portrait() -> None:
    own, driving = faces(0)
    assert mixed_state(own, driving, parse_strengths(None, "1"), None).same_as(driving)
    kept = mixed_state(own, driving, parse_strengths("pose", "1"), None)
    assert torch.equal(kept.beta, own.beta) and torch.equal(kept.weights, own.weights) and kept.gaze is None


def test_one_strength_for_all_needs_no_reading_and_overdoes_the_change() -> None:
    own, driving = faces(1)
    strong = mixed_state(own, driving, parse_strengths(None, "1.5"), None)
    torch.testing.assert_close(strong.beta, own.beta + 1.5 * (driving.beta - own.beta))
    assert strong.weights is not None and own.weights is not None and driving.weights is not None
    torch.testing.assert_close(strong.weights, (own.weights + 1.5 * (driving.weights - own.weights)).clamp(0, 1))


@pytest.mark.parametrize("region", ["lips", "jaw", "eyes", "brows"])
def test_what_the_model_reads_changes_in_that_region_alone(model: PortraitModel, region: str) -> None:
    reading = BetaReading.of(model)
    assert reading is not None
    own, driving = faces(2)
    mixed = mixed_state(own, driving, parse_strengths(region, "1"), reading)
    read = {name: state.beta @ reading.weight for name, state in (("own", own), ("mixed", mixed), ("driving", driving))}
    moved = torch.tensor([name == region for name in reading.regions])
    assert moved.any() and not moved.all()
    change, wanted = read["mixed"] - read["own"], read["driving"] - read["own"]
    assert change[:, ~moved].abs().max() < 1e-4
    torch.testing.assert_close(change[:, moved], wanted[:, moved], atol=1e-4, rtol=0.0)
    assert mixed.weights is not None and own.weights is not None and driving.weights is not None
    for column, name in enumerate(ARKIT_NAMES):
        wanted_from = driving if region_of(name) == region else own
        assert mixed.weights[0, column].item() == pytest.approx(wanted_from.weights[0, column].item())  # type: ignore[index]


def test_regions_of_the_face_need_a_model_that_tells_them_apart() -> None:
    own, driving = faces(3)
    with pytest.raises(UsageError, match="regions of the face need the bundled model"):
        mixed_state(own, driving, parse_strengths("lips", "1"), None)


def test_a_head_goes_half_as_far_at_half_strength_and_twice_as_far_at_two() -> None:
    def camera(yaw_deg: float) -> np.ndarray:
        return Camera.look_at_head(math.radians(yaw_deg)).to_vector()[0].numpy()

    def yaw_deg(vector: np.ndarray) -> float:
        return math.degrees(float(Camera.from_vector(torch.from_numpy(vector)[None]).head_angles()[0, 0]))

    for strength, wanted in ((0.0, 4.0), (0.5, 12.0), (1.0, 20.0), (2.0, 36.0)):
        assert yaw_deg(mixed_camera(camera(4.0), camera(20.0), strength)) == pytest.approx(wanted, abs=0.05)


def test_strengths_are_parsed_for_all_and_for_some() -> None:
    assert parse_strengths(None, "1") == dict.fromkeys(REGIONS, 1.0)
    assert parse_strengths("lips, jaw", "1.2") == {**dict.fromkeys(REGIONS, 0.0), "lips": 1.2, "jaw": 1.2}
    assert parse_strengths(None, "lips=1.2,brows=.8") == {**dict.fromkeys(REGIONS, 1.0), "lips": 1.2, "brows": 0.8}


@pytest.mark.parametrize(
    ("regions", "strength", "text"),
    [
        ("nose", "1", "--regions: 'nose' is no region; choose from lips, jaw, eyes, brows, gaze, pose"),
        ("", "1", "--regions: '' is no region"),
        (None, "much", "a number from 0 to 2 for all, or lips=1.2,brows=0.8; got 'much'"),
        (None, "lips=2.5", "got '2.5'"),
        (None, "nan", "got 'nan'"),
        (None, "ear=1", "--strength: 'ear' is no region"),
        ("lips", "jaw=1", "--strength: 'jaw' is not among --regions lips"),
    ],
)
def test_what_is_no_region_or_strength_is_refused(regions: str | None, strength: str, text: str) -> None:
    with pytest.raises(UsageError, match=text):
        parse_strengths(regions, strength)
