"""Faces made by hand: sliders, turns, cameras and keyframes."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from conftest import make_tracker, picture_file
from export3d.animation.sweep import coefficient_spread
from export3d.camera import Camera
from export3d.errors import UsageError
from export3d.face_state import ARKIT_NAMES
from export3d.portrait import build_model, preset
from export3d.studio.api import read_as
from export3d.studio.face import Keyframe, Wish, keyframe_motion, posed, read_weights, sliders
from export3d.studio.workshop import Stage, Workshop


def angles(vector: np.ndarray) -> np.ndarray:
    """Yaw, pitch, roll in degrees."""
    return np.degrees(Camera.from_vector(torch.from_numpy(vector)[None]).head_angles()[0].numpy())


def test_a_wish_that_asks_for_nothing_is_the_portrait_as_it_is(workshop: Workshop, stage: Stage) -> None:
    state, camera = posed(workshop.model, stage.subject, Wish())
    assert state.same_as(stage.subject.state)
    np.testing.assert_allclose(camera, stage.subject.camera, atol=1e-6)


def test_a_weight_is_reached_by_the_weights_and_by_beta(workshop: Workshop, stage: Stage) -> None:
    own = stage.subject.state
    state, _ = posed(workshop.model, stage.subject, Wish(weights={"jawOpen": 0.9}))
    column = ARKIT_NAMES.index("jawOpen")
    assert state.weights is not None and own.weights is not None
    assert state.weights[0, column] == pytest.approx(0.9)
    read = workshop.model.cues.weights(state.beta)[0]
    assert float(read[column]) == pytest.approx(0.9, abs=0.02)
    others = [n for n in range(52) if n != column and math.isfinite(float(read[n]))]
    assert float((read - own.weights[0])[others].abs().max()) < 0.05


def test_a_turn_moves_the_head_against_the_torso_and_an_orbit_moves_both(workshop: Workshop, stage: Stage) -> None:
    before = angles(stage.subject.camera)
    turned, seen = posed(workshop.model, stage.subject, Wish(turn=(20.0, 0.0, 0.0)))
    orbit, gone_round = posed(workshop.model, stage.subject, Wish(orbit=(20.0, 0.0)))
    assert angles(seen)[0] - before[0] == pytest.approx(20.0, abs=0.5)
    np.testing.assert_allclose(seen, gone_round, atol=1e-6)
    assert turned.turn is not None and float(turned.turn[0, 1]) == pytest.approx(math.radians(20.0), abs=0.02)
    assert orbit.same_as(stage.subject.state)


def test_nearer_makes_the_face_larger_by_that_factor(workshop: Workshop, stage: Stage) -> None:
    _, camera = posed(workshop.model, stage.subject, Wish(nearer=1.25))

    def distance(vector: np.ndarray) -> float:
        return float(np.linalg.norm(vector[:16].reshape(4, 4)[:3, 3]))

    assert distance(stage.subject.camera) - distance(camera) == pytest.approx(2.7 * (1 - 1 / 1.25), abs=1e-3)


def test_sliders_show_what_the_model_listens_to_with_the_portraits_own_values(workshop: Workshop, stage: Stage) -> None:
    groups = sliders(workshop.model, stage.subject)
    shown = [one["name"] for group in groups for one in group["weights"]]  # type: ignore[attr-defined]
    assert sorted(shown) == sorted(read_weights(workshop.model))
    assert [group["title"] for group in groups] == ["Brows", "Eyes", "Jaw", "Mouth", "Nose"]
    assert all(0.0 <= one["value"] <= 1.0 for group in groups for one in group["weights"])  # type: ignore[attr-defined]


def test_a_weight_that_no_model_knows_is_named(workshop: Workshop, stage: Stage) -> None:
    with pytest.raises(UsageError, match="does not know the weights earWiggle"):
        posed(workshop.model, stage.subject, Wish(weights={"earWiggle": 0.5}))


def test_values_out_of_range_are_named() -> None:
    with pytest.raises(UsageError, match="nearer"):
        read_as(Wish, {"nearer": 9.0}, "face")
    with pytest.raises(UsageError, match=r"turn"):
        read_as(Wish, {"turn": [200.0, 0.0, 0.0]}, "face")
    with pytest.raises(UsageError, match="time_s"):
        read_as(list[Keyframe], [{"time_s": -1, "wish": {}}], "keyframes")


def test_keyframes_go_in_straight_lines_from_one_to_the_next(workshop: Workshop, stage: Stage) -> None:
    frames = [
        Keyframe(time_s=1.4, wish=Wish(weights={"jawOpen": 0.8}, turn=(20.0, 0.0, 0.0))),
        Keyframe(time_s=1.0, wish=Wish(weights={"jawOpen": 0.2})),
    ]
    motion = keyframe_motion(frames, model=workshop.model, subject=stage.subject, extractor=workshop.extractor)
    assert (len(motion), float(motion.time_s[-1])) == (11, pytest.approx(0.4))
    middle, _ = posed(workshop.model, stage.subject, Wish(weights={"jawOpen": 0.5}))
    np.testing.assert_allclose(motion.beta[5], middle.beta[0].numpy(), atol=1e-5)
    assert angles(motion.camera[5])[0] - angles(motion.camera[0])[0] == pytest.approx(10.0, abs=0.3)


def test_two_keyframes_at_one_time_are_refused(workshop: Workshop, stage: Stage) -> None:
    for frames in ([], [Keyframe(time_s=1.0, wish=Wish())] * 2):
        with pytest.raises(UsageError, match="at least one, each at a time of its own"):
            keyframe_motion(frames, model=workshop.model, subject=stage.subject, extractor=workshop.extractor)


def test_the_papers_model_has_a_slider_for_each_vector_of_its_basis() -> None:
    torch.manual_seed(3)
    model = build_model(preset("tiny")).eval().requires_grad_(False)
    tracker = make_tracker()
    workshop = Workshop(model, lambda: tracker)
    try:
        stage = workshop.submit(workshop.stage, picture_file(), "photo.png").result()
        (group,) = sliders(model, stage.subject)
        assert group["title"] == "Basis" and read_weights(model) == [f"v{k}" for k in range(1, 11)]
        own = model.expression.coefficients(stage.subject.state.beta)
        state, _ = posed(model, stage.subject, Wish(weights={"v3": 0.5}))
        found = model.expression.coefficients(state.beta)
        mean, _ = coefficient_spread(model)
        assert float(found[0, 2]) == pytest.approx(float(mean[2]), abs=0.05)
        others = [k for k in range(10) if k != 2]
        torch.testing.assert_close(found[:, others], own[:, others], atol=0.05, rtol=0.0)
        with pytest.raises(UsageError, match=r"does not know the weights jawOpen\. It knows: v1, v2"):
            posed(model, stage.subject, Wish(weights={"jawOpen": 0.5}))
    finally:
        workshop.close()
