"""Corners of a mouth that are carried as far as a state says: how far, which one, what stays, and when nothing is to do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from export3d.animation import Animator
from export3d.animation.bend import Bend
from export3d.camera import Camera
from export3d.face_state import ARKIT_NAMES, FaceState
from export3d.model import Render
from export3d.portrait import PortraitModel
from export3d.portrait.state import DrivenPlanes
from export3d.rendering.rays import cast_rays, met_at
from export3d.tracking import Tracker

RAYS, WIDTH, LINE = 64, 0.2, -0.08
"""Rays a side; width and height of the mouth, scene units."""

CAMERA = Camera.look_at_head()
ASIDE = 1.3
Movement = Callable[[torch.Tensor], torch.Tensor]


def plane() -> torch.Tensor:
    """``(1, 1, r, r)`` how far along each ray the plane z = 0 lies."""
    origins, directions = cast_rays(CAMERA, RAYS)
    return (-origins[..., 2] / directions[..., 2]).view(1, 1, RAYS, RAYS)


def still(points: torch.Tensor) -> torch.Tensor:
    return torch.zeros_like(points)


def picture(movement: Movement = still) -> Render:
    """A flat face whose skin, met at points ``(3, r, r)``, has come there by `movement`."""
    depth = plane()
    places = met_at(cast_rays(CAMERA, RAYS), depth)[0]
    guide = torch.cat([places - movement(places), torch.ones(2, RAYS, RAYS)])[None]
    solid = torch.ones_like(depth)
    return Render(solid, solid, depth, solid, solid, None, guide)


def state(**weights: float) -> FaceState:
    told = np.zeros(len(ARKIT_NAMES))
    for name, value in weights.items():
        told[ARKIT_NAMES.index(name)] = value
    return FaceState.of(beta=np.zeros(64), weights=told)


def landmarks() -> np.ndarray:
    ends = torch.tensor([[-WIDTH / 2, LINE, 0.0], [WIDTH / 2, LINE, 0.0]])
    marks = np.full((68, 2), 0.5, np.float32)
    marks[[48, 54]] = CAMERA.project(ends[None])[0][0].numpy()
    return marks


@pytest.fixture
def bend() -> Bend:
    found = Bend.of(picture(), CAMERA, state(), landmarks())
    assert found is not None
    return found


def guide_of(bend: Bend, told: FaceState, movement: Movement = still, opacity: float = 1.0) -> torch.Tensor:
    """``(1, 5, r, r)`` once the mouth is carried as `told` says, after the model has moved it by `movement`."""
    render = picture(movement)
    driven = DrivenPlanes(planes=torch.zeros(1), turn=None, code=None)  # type: ignore[arg-type]
    carried = bend.told(driven, told).bend
    assert render.guide is not None and carried is not None
    return (
        carried(render.guide * opacity, render.opacity * opacity, met_at(cast_rays(CAMERA, RAYS), render.depth))
        / opacity
    )


def corners_of(guide: torch.Tensor) -> np.ndarray:
    """``(2, 2)`` where the corners of the mouth are found, in its widths from its middle."""
    met, places = (
        x.flatten(1).T[:, :2].double().numpy() for x in (met_at(cast_rays(CAMERA, RAYS), plane())[0], guide[0, :3])
    )
    found = []
    for corner in np.array([[-WIDTH / 2, LINE], [WIDTH / 2, LINE]]):
        away = places - corner
        near = np.exp(-0.25 * ((away / (0.06 * WIDTH)) ** 2).sum(axis=1))[:, None]
        terms = np.concatenate([np.ones_like(near), away], axis=1)
        found.append(np.linalg.lstsq(terms * near, met * near, rcond=None)[0][0])
    return (np.array(found) - [0.0, LINE]) / WIDTH


def test_corners_are_found_where_the_landmarks_are(bend: Bend) -> None:
    assert bend.corners == pytest.approx(np.array([[-WIDTH / 2, LINE], [WIDTH / 2, LINE]]), abs=0.02 * WIDTH)
    assert bend.rest == pytest.approx([0.0, 0.0], abs=1e-3)


def test_the_portrait_itself_stays_as_it_is(bend: Bend) -> None:
    assert torch.equal(guide_of(bend, state()), picture().guide)  # type: ignore[arg-type]


def test_puckered_lips_draw_both_corners_in(bend: Bend) -> None:
    right, left = corners_of(guide_of(bend, state(mouthPucker=1.0)))
    assert right == pytest.approx([-0.5 + ASIDE * 0.091, 0.0], abs=0.012)
    assert left == pytest.approx([0.5 - ASIDE * 0.091, 0.0], abs=0.012)


def test_half_a_smile_carries_its_own_corner_out_and_up(bend: Bend) -> None:
    right, left = corners_of(guide_of(bend, state(mouthSmileLeft=0.5)))
    assert right == pytest.approx([-0.5, 0.0], abs=0.005)
    assert left == pytest.approx([0.5 + ASIDE * 0.139 / 2, 0.5 * 0.207 / 2], abs=0.015)


def test_frowning_lips_go_out_a_little_and_down(bend: Bend) -> None:
    left = corners_of(guide_of(bend, state(mouthFrownLeft=1.0)))[1]
    assert left == pytest.approx([0.5 + ASIDE * 0.037, -0.5 * 0.09], abs=0.01)


def test_half_way_to_its_corner_a_lip_is_lifted_a_quarter(bend: Bend) -> None:
    met, places = met_at(cast_rays(CAMERA, RAYS), plane())[0], guide_of(bend, state(mouthSmileLeft=1.0))[0]
    lifted = (met[1] - places[1]) / WIDTH
    at = ((places[0] - WIDTH / 4) ** 2 + (places[1] - LINE) ** 2).flatten().argmin()
    assert float(lifted.flatten()[at]) == pytest.approx(0.5 * 0.207 / 4, abs=0.008)


def test_what_seems_moved_in_the_portrait_itself_is_not_moved_back() -> None:
    def aside(points: torch.Tensor) -> torch.Tensor:
        return torch.stack([torch.full_like(points[0], 0.05 * WIDTH), points[1] * 0.0, points[2] * 0.0])

    own = picture(aside)
    bend = Bend.of(own, CAMERA, state(), landmarks())
    assert bend is not None and bend.rest == pytest.approx([0.05, 0.05], abs=1e-3)
    assert torch.equal(guide_of(bend, state(), aside), own.guide)  # type: ignore[arg-type]


def test_the_fewer_rays_find_a_corner_the_less_it_is_carried(bend: Bend) -> None:
    render = picture()
    assert render.guide is not None
    hidden = render.guide[:, :1] > 0.38 * WIDTH  # the left corner and all beyond it
    told = bend.told(DrivenPlanes(planes=torch.zeros(1), turn=None, code=None), state(mouthPucker=1.0)).bend  # type: ignore[arg-type]
    assert told is not None
    opacity = torch.where(hidden, 0.0, 1.0)
    after = told(render.guide * opacity, opacity, met_at(cast_rays(CAMERA, RAYS), render.depth))
    x, moved = render.guide[0, 0] / WIDTH, (after[0, 0] - render.guide[0, 0]).abs()
    left, right = (moved[(side * x > 0.25) & (side * x < 0.38)].max() for side in (1.0, -1.0))
    assert 0.05 * right < left < 0.7 * right


def test_of_a_smile_that_ends_less_than_half_is_taken_back() -> None:
    smiling = Bend.of(picture(), CAMERA, state(mouthSmileLeft=0.5), landmarks())
    assert smiling is not None
    left = corners_of(guide_of(smiling, state()))[1]
    assert left == pytest.approx([0.5 - 0.4 * ASIDE * 0.139 / 2, 0.0], abs=0.005)


def test_what_the_model_has_moved_is_not_moved_again(bend: Bend) -> None:
    def all_in(points: torch.Tensor) -> torch.Tensor:
        return torch.stack([-ASIDE * 0.091 * WIDTH * points[0].sign(), points[1] * 0.0, points[2] * 0.0])

    after, before = guide_of(bend, state(mouthPucker=1.0), all_in), picture(all_in).guide
    assert before is not None and (after - before).abs().max() < 0.01 * WIDTH
    half = corners_of(guide_of(bend, state(mouthPucker=1.0), lambda points: all_in(points) / 2))
    assert half[:, 0] == pytest.approx([-0.5 + ASIDE * 0.091, 0.5 - ASIDE * 0.091], abs=0.012)


def test_nose_chin_and_cheeks_stay(bend: Bend) -> None:
    after, before = guide_of(bend, state(mouthPucker=3.0, mouthSmileLeft=1.0)), picture().guide
    assert before is not None
    s, t = before[0, 0] / WIDTH, (before[0, 1] - LINE) / WIDTH
    beyond = (s.abs() > 1.2) | (t > 0.42) | (t < -0.72)
    assert torch.equal(after[0, :, beyond], before[0, :, beyond]) and not torch.equal(after, before)


def test_no_corner_goes_farther_than_an_eighth_of_the_mouth(bend: Bend) -> None:
    corners = corners_of(guide_of(bend, state(mouthPucker=9.0)))
    assert corners[:, 0] == pytest.approx([-0.38, 0.38], abs=0.02)


def test_a_corner_that_is_hidden_is_left_where_the_model_has_it(bend: Bend) -> None:
    def behind(points: torch.Tensor) -> torch.Tensor:
        return torch.stack([torch.where(points[0] > 0.0, 1.0, 0.0), points[1] * 0.0, points[2] * 0.0])

    after, before = guide_of(bend, state(mouthPucker=1.0), behind), picture(behind).guide
    assert before is not None
    left = before[0, 0] > 0.3 * WIDTH
    assert torch.equal(after[0, :, left], before[0, :, left])
    assert corners_of(after)[0, 0] == pytest.approx(-0.5 + ASIDE * 0.091, abs=0.012)


def test_hair_before_a_mouth_is_not_carried(bend: Bend) -> None:
    after, before = guide_of(bend, state(mouthPucker=1.0), opacity=0.4), picture().guide
    assert before is not None and (after - before).abs().max() < 1e-6


def test_weights_that_are_unknown_carry_nothing(bend: Bend) -> None:
    driven = DrivenPlanes(planes=torch.zeros(1), turn=None, code=None)  # type: ignore[arg-type]
    assert bend.told(driven, replace(state(), weights=None)) is driven
    assert torch.equal(guide_of(bend, state(mouthPucker=np.nan)), picture().guide)  # type: ignore[arg-type]


def test_without_skin_at_its_corners_a_mouth_is_left_to_the_model() -> None:
    empty = replace(picture(), opacity=torch.full((1, 1, RAYS, RAYS), 0.5))
    assert Bend.of(empty, CAMERA, state(), landmarks()) is None
    assert Bend.of(picture(), CAMERA, replace(state(), weights=None), landmarks()) is None


@pytest.fixture
def sharp(tiny_model: PortraitModel, make_tracker: Callable[..., Tracker], photo: np.ndarray) -> Animator:
    made = Animator(tiny_model, make_tracker(), detail=160)
    made.portrait(photo)
    return made


def test_films_look_where_the_bend_says(sharp: Animator) -> None:
    subject = sharp.current()
    before = sharp.render(subject.state, subject.camera).guide
    assert before is not None
    asked: list[FaceState] = []

    class Noted(Bend):
        def told(self, driven: DrivenPlanes, state: FaceState) -> DrivenPlanes:
            asked.append(state)
            return replace(driven, bend=lambda guide, opacity, met: guide + met.mean() * 0.0 + 0.25)

    sharp.subject = replace(subject, bend=Noted(np.zeros((2, 2)), 1.0, np.zeros(52), np.zeros(2), np.ones(2)))
    sharp._forget()
    after = sharp.render(subject.state, subject.camera).guide
    assert asked == [subject.state] and after is not None and torch.allclose(after, before + 0.25)
