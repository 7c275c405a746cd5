"""The animator gives what the model gives, whatever it has kept from earlier frames."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from export3d.animation import Animator
from export3d.animation.framing import turned_by
from export3d.camera import Camera
from export3d.errors import NoFaceError, UnreadableImageError, UsageError
from export3d.face_state import FaceState
from export3d.images import to_uint8
from export3d.portrait import PortraitModel, build_model, drivable, preset
from export3d.tracking import Tracker
from export3d.tracking.standin import GivenLandmarks, MeasuredCoefficients

REST = FaceState(beta=torch.zeros(1, 64))


def direct(animator: Animator, state: FaceState, camera: Camera) -> np.ndarray:
    """The same picture by the model's three verbs, with nothing kept."""
    subject, calls = animator.subject, drivable(animator.model)
    assert subject is not None
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=animator.half):
        image = calls.render(calls.drive(subject.code, state), camera, fast=animator.fast).image
    assert image is not None
    return to_uint8(image[0])


def test_frames_equal_the_model_in_any_order_of_faces_and_cameras(animator: Animator) -> None:
    states = [FaceState(beta=torch.randn(1, 64)) for _ in range(2)]
    cameras = [Camera.look_at_head(yaw) for yaw in (0.0, 0.4)]
    for s, c in [(0, 0), (0, 0), (0, 1), (1, 1), (0, 1), (1, 0), (1, 0)]:
        assert np.array_equal(animator.frame(states[s], cameras[c]), direct(animator, states[s], cameras[c]))
    pictures = [direct(animator, state, camera) for state in states for camera in cameras]
    assert len({picture.tobytes() for picture in pictures}) == 4  # or the test could not fail


def test_faces_driven_ahead_give_the_same_frames_and_are_not_driven_again(
    animator: Animator, monkeypatch: pytest.MonkeyPatch
) -> None:
    camera = Camera.look_at_head(0.1)
    states = [turned_by(FaceState(beta=torch.randn(1, 64)), camera.to_vector()[0].numpy()) for _ in range(3)]
    wanted = [direct(animator, state, camera).astype(int) for state in states]
    assert np.abs(wanted[0] - wanted[1]).max() > 3  # or the test could not fail
    animator.drive_ahead(states[:2])
    drive = animator.model.drive
    driven: list[FaceState] = []
    monkeypatch.setattr(animator.model, "drive", lambda code, state: driven.append(state) or drive(code, state))
    for state, picture in zip(states, wanted, strict=True):
        assert np.abs(animator.frame(state, camera) - picture).max() <= 1
    assert len(driven) == 1 and driven[0].same_as(states[2])
    states[1].beta.add_(3.0)  # another face now, though the same object
    assert np.array_equal(animator.frame(states[1], camera), direct(animator, states[1], camera))


def test_faces_of_which_different_things_are_known_can_be_driven_ahead_too(animator: Animator) -> None:
    camera = Camera.look_at_head(0.1)
    states = [REST, FaceState(beta=torch.randn(1, 64), gaze=torch.full((1, 2), 0.2))]
    wanted = [direct(animator, state, camera) for state in states]
    animator.drive_ahead(states)
    assert all(np.array_equal(animator.frame(s, camera), picture) for s, picture in zip(states, wanted, strict=True))


def test_without_a_turn_the_torso_stays_and_a_turn_of_its_own_changes_the_picture(animator: Animator) -> None:
    subject = animator.subject
    assert subject is not None and subject.state.same_as(turned_by(subject.state, subject.camera))
    camera = Camera.look_at_head(0.3)
    stays = animator.frame(REST, camera)
    assert np.array_equal(stays, animator.frame(replace(REST, turn=subject.state.turn), camera))
    turns = animator.frame(turned_by(REST, camera.to_vector()[0].numpy()), camera)
    assert not np.array_equal(turns, stays)
    assert np.array_equal(animator.frame(REST, camera), stays)


def test_a_camera_and_its_vector_give_the_same_frame(animator: Animator) -> None:
    camera = Camera.look_at_head(0.2, 0.1)
    first = animator.frame(REST, camera)
    animator.frame(REST, Camera.look_at_head(0.0))
    assert np.array_equal(animator.frame(REST, camera.to_vector()[0].numpy()), first)


def test_a_caller_who_changes_his_numbers_in_place_gets_a_new_frame(animator: Animator) -> None:
    state, camera = FaceState(beta=torch.zeros(1, 64)), Camera.look_at_head(0.0)
    animator.frame(state, camera)
    before = animator.frame(state, camera)
    state.beta.add_(3.0)
    assert not np.array_equal(direct(animator, state, camera), before)  # or the test could not fail
    assert np.array_equal(animator.frame(state, camera), direct(animator, state, camera))


def test_a_new_portrait_replaces_the_old_one(animator: Animator, photo: np.ndarray) -> None:
    camera = Camera.look_at_head(0.0)
    before = animator.frame(REST, camera)
    animator.portrait(255 - photo)
    after = animator.frame(REST, camera)
    assert np.array_equal(after, direct(animator, REST, camera)) and not np.array_equal(after, before)


def test_frames_are_uint8_pictures_of_the_models_size(animator: Animator) -> None:
    image = animator.frame(REST, Camera.look_at_head(0.0))
    assert image.shape == (32, 32, 3) and image.dtype == np.uint8 and animator.image_size == 32


def test_the_portraits_picture_has_the_size_asked_for(animator: Animator) -> None:
    assert animator.subject is not None
    assert animator.subject.picture(48).shape == (48, 48, 3)


def test_a_frame_before_the_portrait_says_what_is_missing(
    tiny_model: PortraitModel, make_tracker: Callable[..., Tracker]
) -> None:
    with pytest.raises(RuntimeError, match="give a portrait first"):
        Animator(tiny_model, make_tracker()).frame(REST, Camera.look_at_head(0.0))


def test_a_tracker_in_another_expression_space_is_refused(tiny_model: PortraitModel) -> None:
    tracker = Tracker(GivenLandmarks([[]]), MeasuredCoefficients("arkit52"))
    with pytest.raises(UsageError, match=r"expression space 'arkit52', but the model was trained on 'ict64'"):
        Animator(tiny_model, tracker)


def test_a_portrait_without_a_face_is_named(tiny_model: PortraitModel, photo: np.ndarray) -> None:
    tracker = Tracker(GivenLandmarks([[]]), MeasuredCoefficients(), size=32)
    with pytest.raises(NoFaceError, match=r"cat\.png: no face"):
        Animator(tiny_model, tracker).portrait(photo, where="cat.png")


def test_a_missing_portrait_file_is_named(animator: Animator) -> None:
    with pytest.raises(UnreadableImageError, match=r"nobody\.jpg: no such image file"):
        animator.portrait("nobody.jpg")


def test_an_exact_animator_gives_the_models_own_picture_bit_for_bit_and_the_other_one_does_not(
    tiny_model: PortraitModel, make_tracker: Callable[..., Tracker], photo: np.ndarray
) -> None:
    camera = Camera.look_at_head(0.2)
    images = []
    for exact in (True, False):
        animator = Animator(tiny_model, make_tracker(), exact=exact)
        code = animator.portrait(photo).code
        assert (animator.fast is None) == exact and not (exact and animator.half)
        images.append(animator.render(REST, camera).raw)
    with torch.inference_mode():
        own = tiny_model.render(tiny_model.drive(code, REST), camera).raw
    assert torch.equal(images[0], own) and not torch.equal(images[1], own)


def test_the_paper_s_model_is_rendered_exactly_when_asked_to(
    make_tracker: Callable[..., Tracker], photo: np.ndarray
) -> None:
    model = build_model(preset("tiny")).eval()
    animator, camera = Animator(model, make_tracker(), exact=True), Camera.look_at_head(0.2)
    assert animator.fast is None and not animator.half
    animator.portrait(photo)
    assert np.array_equal(animator.frame(REST, camera), direct(animator, REST, camera))


@pytest.mark.parametrize("pays", [True, False])
def test_networks_calculate_in_bf16_where_that_is_faster_and_differ_by_less_than_a_step_of_a_pixel(
    pays: bool,
    monkeypatch: pytest.MonkeyPatch,
    make_tracker: Callable[..., Tracker],
    photo: np.ndarray,
) -> None:
    monkeypatch.setattr("export3d.animation.animator.uses_bf16", lambda precision, device: pays)
    # Weights as a model starts with: moved far off, as the other tests want them, they blow up every rounding.
    model = build_model(preset("tiny-portrait")).eval().requires_grad_(False)
    assert isinstance(model, PortraitModel)
    animator = Animator(model, make_tracker())
    code, camera = animator.portrait(photo).code, Camera.look_at_head(0.2)
    image = animator.render(REST, camera).image
    with torch.inference_mode():
        single = model.render(model.drive(code, REST), camera, fast=animator.fast).image
    assert image is not None and single is not None and animator.half == pays
    assert torch.equal(image, single) != pays
    assert float((image - single).square().mean().sqrt()) < 2.0 / 255.0


def test_what_is_kept_follows_every_field_of_the_face(
    tiny_model: PortraitModel, make_tracker: Callable[..., Tracker], photo: np.ndarray
) -> None:
    animator, camera = Animator(tiny_model, make_tracker(), exact=True), Camera.look_at_head(0.0)
    found = animator.tracker.portrait(photo)
    animator.encode(photo, found.crop, replace(found.state, gaze=torch.tensor([[0.1, 0.0]])), found.camera)
    states = [
        REST,
        replace(REST, gaze=torch.tensor([[0.3, -0.1]])),
        replace(REST, weights=torch.full((1, 52), 0.5)),
        replace(REST, turn=torch.tensor([[0.0, 0.3, 0.0]])),
    ]
    images = []
    for state in states:
        render = animator.render(state, camera)
        assert animator.render(state.map(torch.clone), camera) is render  # kept while nothing changes
        assert render.image is not None
        assert np.array_equal(to_uint8(render.image[0]), direct(animator, state, camera))
        images.append(render.raw)
    assert not any(torch.equal(images[0], other) for other in images[1:])
    unknown = animator.render(replace(REST, gaze=torch.full((1, 2), torch.nan)), camera)
    assert torch.equal(unknown.raw, images[0])  # eyes of unknown direction stay as the portrait's
