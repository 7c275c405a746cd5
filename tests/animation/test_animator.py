"""The animator gives what the model gives, whatever it has kept from earlier frames."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from export3d.animation import Animator
from export3d.animation.animator import head_turn
from export3d.camera import Camera
from export3d.errors import NoFaceError, UnreadableImageError, UsageError
from export3d.images import to_uint8
from export3d.model import Export3D, preset
from export3d.model.config import TINY
from export3d.model.neck import NeckConfig
from export3d.model.pixel_aligned import PixelAlignedConfig
from export3d.tracking import Tracker
from export3d.tracking.standin import GivenLandmarks, MeasuredCoefficients


def direct(animator: Animator, beta: np.ndarray, camera: Camera) -> np.ndarray:
    """The same picture by the model's three verbs, with nothing kept."""
    subject = animator.subject
    assert subject is not None
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=animator.half):
        planes = animator.model.planes(subject.code, torch.from_numpy(beta)[None])
        image = animator.model.render(planes, camera, subject.code, fast=animator.fast).image
    assert image is not None
    return to_uint8(image[0])


def test_frames_equal_the_model_in_any_order_of_expressions_and_cameras(animator: Animator) -> None:
    generator = np.random.default_rng(0)
    betas = [generator.normal(size=64).astype(np.float32) for _ in range(2)]
    cameras = [Camera.look_at_head(yaw) for yaw in (0.0, 0.4)]
    for b, c in [(0, 0), (0, 0), (0, 1), (1, 1), (0, 1), (1, 0), (1, 0)]:
        assert np.array_equal(animator.frame(betas[b], cameras[c]), direct(animator, betas[b], cameras[c]))
    pictures = [direct(animator, beta, camera) for beta in betas for camera in cameras]
    assert len({picture.tobytes() for picture in pictures}) == 4  # or the test could not fail


def test_without_a_turn_the_torso_stays_and_a_turn_of_its_own_changes_the_picture(
    photo: np.ndarray, make_tracker: Callable[..., Tracker]
) -> None:
    torch.manual_seed(1)
    model = Export3D(replace(TINY, neck=NeckConfig(enabled=True))).eval().requires_grad_(False)
    for parameter in model.parameters():
        parameter.add_(0.1 * torch.randn_like(parameter))
    animator = Animator(model, make_tracker())
    subject = animator.portrait(photo)
    assert np.array_equal(subject.turn, head_turn(subject.camera))
    beta, camera = np.zeros(64, dtype=np.float32), Camera.look_at_head(0.3)
    stays = animator.frame(beta, camera)
    assert np.array_equal(stays, animator.frame(beta, camera, turn=subject.turn))
    turns = animator.frame(beta, camera, turn=head_turn(camera.to_vector()[0].numpy()))
    assert not np.array_equal(turns, stays)
    assert np.array_equal(animator.frame(beta, camera), stays)


def test_a_camera_and_its_vector_give_the_same_frame(animator: Animator) -> None:
    camera = Camera.look_at_head(0.2, 0.1)
    beta = np.zeros(64, dtype=np.float32)
    first = animator.frame(beta, camera)
    animator.frame(beta, Camera.look_at_head(0.0))
    assert np.array_equal(animator.frame(beta, camera.to_vector()[0].numpy()), first)


def test_a_caller_who_changes_his_array_in_place_gets_a_new_frame(animator: Animator) -> None:
    beta, camera = np.zeros(64, dtype=np.float32), Camera.look_at_head(0.0)
    animator.frame(beta, camera)
    before = animator.frame(beta, camera)
    beta += 3.0
    assert not np.array_equal(direct(animator, beta, camera), before)  # or the test could not fail
    assert np.array_equal(animator.frame(beta, camera), direct(animator, beta, camera))


def test_a_new_portrait_replaces_the_old_one(animator: Animator, photo: np.ndarray) -> None:
    beta, camera = np.zeros(64, dtype=np.float32), Camera.look_at_head(0.0)
    before = animator.frame(beta, camera)
    animator.portrait(255 - photo)
    after = animator.frame(beta, camera)
    assert np.array_equal(after, direct(animator, beta, camera)) and not np.array_equal(after, before)


def test_frames_are_uint8_pictures_of_the_models_size(animator: Animator) -> None:
    image = animator.frame(np.zeros(64, dtype=np.float32), Camera.look_at_head(0.0))
    assert image.shape == (32, 32, 3) and image.dtype == np.uint8 and animator.image_size == 32


def test_the_portraits_picture_has_the_size_asked_for(animator: Animator) -> None:
    assert animator.subject is not None
    assert animator.subject.picture(48).shape == (48, 48, 3)


def test_a_frame_before_the_portrait_says_what_is_missing(
    tiny_model: Export3D, make_tracker: Callable[..., Tracker]
) -> None:
    with pytest.raises(RuntimeError, match="give a portrait first"):
        Animator(tiny_model, make_tracker()).frame(np.zeros(64), Camera.look_at_head(0.0))


def test_a_tracker_in_another_expression_space_is_refused(tiny_model: Export3D) -> None:
    tracker = Tracker(GivenLandmarks([[]]), MeasuredCoefficients("arkit52"))
    with pytest.raises(UsageError, match=r"expression space 'arkit52', but the model was trained on 'ict64'"):
        Animator(tiny_model, tracker)


def test_a_portrait_without_a_face_is_named(tiny_model: Export3D, photo: np.ndarray) -> None:
    tracker = Tracker(GivenLandmarks([[]]), MeasuredCoefficients(), size=32)
    with pytest.raises(NoFaceError, match=r"cat\.png: no face"):
        Animator(tiny_model, tracker).portrait(photo, where="cat.png")


def test_a_missing_portrait_file_is_named(animator: Animator) -> None:
    with pytest.raises(UnreadableImageError, match=r"nobody\.jpg: no such image file"):
        animator.portrait("nobody.jpg")


def test_an_exact_animator_gives_the_models_own_picture_bit_for_bit_and_the_other_one_does_not(
    tiny_model: Export3D, make_tracker: Callable[..., Tracker], photo: np.ndarray
) -> None:
    beta, camera = np.zeros(64, dtype=np.float32), Camera.look_at_head(0.2)
    images = []
    for exact in (True, False):
        animator = Animator(tiny_model, make_tracker(), exact=exact)
        code = animator.portrait(photo).code
        assert (animator.fast is None) == exact and not (exact and animator.half)
        images.append(animator.render(beta, camera).raw)
    with torch.inference_mode():
        own = tiny_model.render(tiny_model.planes(code, torch.from_numpy(beta)[None]), camera, code).raw
    assert torch.equal(images[0], own) and not torch.equal(images[1], own)


def test_a_model_that_cannot_be_fast_is_rendered_exactly(make_tracker: Callable[..., Tracker]) -> None:
    aligned = replace(TINY, pixel_aligned=PixelAlignedConfig(enabled=True, channels=3, width=8))
    animator = Animator(Export3D(aligned).eval(), make_tracker())
    assert animator.fast is None and not animator.half


@pytest.mark.parametrize("pays", [True, False])
def test_networks_calculate_in_bf16_where_that_is_faster_and_differ_by_less_than_a_step_of_a_pixel(
    pays: bool,
    monkeypatch: pytest.MonkeyPatch,
    looking_model: Export3D,
    make_tracker: Callable[..., Tracker],
    photo: np.ndarray,
) -> None:
    monkeypatch.setattr("export3d.animation.animator.uses_bf16", lambda precision, device: pays)
    animator = Animator(looking_model, make_tracker())
    code = animator.portrait(photo).code
    beta, camera = np.zeros(64, dtype=np.float32), Camera.look_at_head(0.2)
    image = animator.render(beta, camera).image
    with torch.inference_mode():
        planes = looking_model.planes(code, torch.from_numpy(beta)[None])
        single = looking_model.render(planes, camera, code, fast=animator.fast).image
    assert image is not None and single is not None and animator.half == pays
    assert torch.equal(image, single) != pays
    assert float((image - single).square().mean().sqrt()) < 2.0 / 255.0


@pytest.fixture(scope="module")
def looking_model() -> Export3D:
    """A tiny model with gaze, its weights moved off their start values."""
    torch.manual_seed(2)
    model = Export3D(replace(preset("tiny"), gaze=True)).eval().requires_grad_(False)
    for parameter in model.parameters():
        parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def test_planes_follow_a_changed_gaze(
    looking_model: Export3D, make_tracker: Callable[..., Tracker], photo: np.ndarray
) -> None:
    animator = Animator(looking_model, make_tracker(), exact=True)
    beta, camera = np.zeros(64, dtype=np.float32), Camera.look_at_head(0.0)
    found = animator.tracker.portrait(photo)
    subject = animator.encode(photo, found.crop, found.beta, found.camera, np.array([0.1, 0.0], dtype=np.float32))
    gaze = np.array([0.3, -0.1], dtype=np.float32)
    first = animator.render(beta, camera, gaze)
    assert animator.render(beta, camera, gaze.copy()) is first  # kept while nothing changes
    wanted = looking_model.planes(subject.code, torch.zeros(1, 64), torch.tensor([[0.3, -0.1]]))
    assert torch.allclose(looking_model.render(wanted, camera, subject.code).raw, first.raw, atol=1e-5)
    gaze[0] = -0.3
    other = animator.render(beta, camera, gaze)
    assert not torch.equal(other.raw, first.raw)
    unknown = animator.render(beta, camera)
    assert not torch.equal(unknown.raw, other.raw)
    assert animator.render(beta, camera, np.full(2, np.nan)) is unknown


def test_a_model_without_gaze_keeps_its_planes_whatever_the_gaze(animator: Animator) -> None:
    beta, camera = np.zeros(64, dtype=np.float32), Camera.look_at_head(0.0)
    assert animator.render(beta, camera, np.array([0.3, 0.0])) is animator.render(beta, camera)
