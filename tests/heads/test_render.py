"""The renderer: landmarks, depth, mask and parts agree with the picture; the same seed gives the same bytes."""

from __future__ import annotations

import dataclasses
import math
import os

import pytest
import torch

from export3d.camera import Camera
from export3d.heads.look.appearance import AppearanceOptions
from export3d.heads.look.identity import Identity
from export3d.heads.look.props import Props
from export3d.heads.look.render import HeadFrames, render_frames
from export3d.heads.raster.light import sphere_directions
from export3d.heads.shape.model_file import read_head
from export3d.heads.shape.parametric import WORLD_ORIGIN_CM, WORLD_SCALE, ParametricHead
from export3d.heads.shape.procedural import procedural_head

_FAST = AppearanceOptions(quality="fast", accessories=False)
_MARKS = (30, 8, 36, 45, 48, 54, 19, 24)  # nose tip, chin, outer eye and mouth corners, brows


@pytest.fixture(scope="module")
def head() -> ParametricHead:
    if "EXPORT3D_HEAD_MODEL" in os.environ:
        return read_head(os.environ["EXPORT3D_HEAD_MODEL"])
    return procedural_head()


@pytest.fixture(scope="module")
def person(head: ParametricHead) -> Identity:
    return Identity.create(head, 5, dataclasses.replace(_FAST, style="short"))


@pytest.fixture(scope="module")
def camera() -> Camera:
    return Camera.look_at_head(torch.tensor([0.0, 0.45]), torch.tensor([0.1, -0.1]))


@pytest.fixture(scope="module")
def weights(head: ParametricHead) -> torch.Tensor:
    return torch.stack([head.weights(), head.weights(jawOpen=0.4, mouthSmile=0.6, browDown=0.5)])


@pytest.fixture(scope="module")
def frames(person: Identity, weights: torch.Tensor, camera: Camera) -> HeadFrames:
    return render_frames(person, weights, torch.zeros(2, 2), camera, size=96)


def test_values_lie_in_their_ranges(frames: HeadFrames) -> None:
    assert frames.color.shape == (2, 3, 96, 96) and frames.alpha.shape == frames.depth.shape == (2, 96, 96)
    assert 0.0 <= float(frames.color.min()) and float(frames.color.max()) <= 1.0
    assert 0.0 <= float(frames.alpha.min()) and float(frames.alpha.max()) <= 1.0 + 1e-6
    assert 0.2 < float((frames.alpha > 0.5).float().mean()) < 0.9


def test_depth_and_parts_exist_exactly_where_the_mask_does(frames: HeadFrames) -> None:
    assert torch.equal(frames.depth > 0, frames.alpha > 0)
    assert torch.equal(frames.parts >= 0, frames.alpha > 0)
    depth = frames.depth[frames.depth > 0]
    assert 2.0 < float(depth.min()) and float(depth.max()) < 3.3  # the camera is 2.7 from the head's middle


def test_depth_is_the_distance_along_the_ray(
    person: Identity, weights: torch.Tensor, camera: Camera, frames: HeadFrames
) -> None:
    tip = person.landmarks_world(weights)[:, 30]
    place, _ = camera.project(tip[:, None])
    column, row = (place[:, 0] * 96).long().unbind(1)
    distance = (tip - camera.cam_to_world[:, :3, 3]).norm(dim=1)
    # Half a pixel is 2.7 / 4.26 / 96 / 2 = 0.003 scene units across; the nose's slope makes that a few times more.
    torch.testing.assert_close(frames.depth[torch.arange(2), row, column], distance, atol=0.012, rtol=0)


def test_landmarks_project_onto_the_picture_within_half_a_pixel(person: Identity, weights: torch.Tensor) -> None:
    """Small balls put at the landmarks are found in the picture at the places that Camera.project gives."""
    camera = Camera.look_at_head(torch.tensor([0.0, 0.2]), torch.tensor([0.0, 0.1]), torch.tensor([0.05, 0.0]))
    world = person.landmarks_world(weights)[:, list(_MARKS)]
    ball = 0.35 * sphere_directions(64)
    for k in range(2):
        centers = world[k] / WORLD_SCALE + torch.tensor(WORLD_ORIGIN_CM)
        # Towards the camera, so that the face does not cover part of the balls.
        eye = camera.cam_to_world[k, :3, 3] / WORLD_SCALE + torch.tensor(WORLD_ORIGIN_CM)
        centers = centers + 1.2 * torch.nn.functional.normalize(eye - centers, dim=1)
        vertices = (centers[:, None] + ball).reshape(-1, 3)
        hull = _ball_triangles(ball)
        triangles = torch.cat([hull + 64 * m for m in range(len(_MARKS))])
        props = Props(
            vertices=vertices,
            normals=ball.repeat(len(_MARKS), 1) / 0.35,
            triangles=triangles,
            colors=torch.zeros_like(vertices),
            shine=torch.zeros(len(vertices)),
        )
        marked = dataclasses.replace(person, props=props, hair=())
        f = render_frames(marked, weights[k : k + 1], torch.zeros(1, 2), camera[k : k + 1], size=192, supersample=3)
        rows, columns = (f.parts[0] == marked.prop_part).nonzero().unbind(1)
        found = torch.stack([columns, rows], 1) + 0.5
        expected = camera[k : k + 1].project(world[k : k + 1])[0][0] * 192
        owner = torch.cdist(found, expected).argmin(1)
        for m in range(len(_MARKS)):
            assert float((found[owner == m].mean(0) - expected[m]).norm()) < 0.5


def _ball_triangles(ball: torch.Tensor) -> torch.Tensor:
    """Any closed enough cover of a ball's points: every point with its nearest neighbours."""
    nearest = torch.cdist(ball, ball).topk(7, largest=False).indices  # itself and six neighbours
    return torch.cat([nearest[:, [0, a, b]] for a in range(1, 7) for b in range(a + 1, 7)])


def test_same_seed_gives_the_same_bytes_in_any_batch(head: ParametricHead, person: Identity, camera: Camera) -> None:
    again = Identity.create(head, 5, dataclasses.replace(_FAST, style="short"))
    one = render_frames(person, torch.zeros(2, 53), torch.zeros(2, 2), camera, size=48)
    two = render_frames(again, torch.zeros(2, 53), torch.zeros(2, 2), camera, size=48, frames_per_pass=1)
    assert torch.equal(one.parts, two.parts)
    quantised = [(f.color * 255).round() for f in (one, two)]
    assert float((quantised[0] - quantised[1]).abs().max()) <= 1.0
    three = render_frames(again, torch.zeros(2, 53), torch.zeros(2, 2), camera, size=48)
    for name in ("color", "alpha", "depth", "parts"):
        assert torch.equal(getattr(one, name), getattr(three, name)), name
    other = Identity.create(head, 6, _FAST)
    assert not torch.equal(other.alpha, person.alpha)


def test_zero_coefficients_give_the_mean_head(head: ParametricHead) -> None:
    options = dataclasses.replace(_FAST, style="bald", resting_lids=False)
    mean = Identity.create(head, 0, options, alpha=torch.zeros(80), residual=torch.zeros(11))
    torch.testing.assert_close(mean.vertices(torch.zeros(1, 53))[0], head.vertices, atol=1e-5, rtol=0)
    expected = (head.vertices[head.landmark_vertices] - torch.tensor(WORLD_ORIGIN_CM)) * WORLD_SCALE
    torch.testing.assert_close(mean.landmarks_world(torch.zeros(1, 53))[0], expected, atol=1e-6, rtol=0)


def test_background_is_untouched_where_alpha_is_zero(person: Identity, frames: HeadFrames) -> None:
    background = person.background(96)
    outside = (frames.alpha[0] == 0) & (frames.alpha[1] == 0)
    assert int(outside.sum()) > 500
    for k in range(2):
        assert torch.equal(frames.color[k][:, outside], background[:, outside])


def test_transparent_frames_composite_to_the_same_picture(
    person: Identity, weights: torch.Tensor, camera: Camera, frames: HeadFrames
) -> None:
    clear = render_frames(person, weights, torch.zeros(2, 2), camera, size=96, transparent_background=True)
    assert torch.equal(clear.alpha, frames.alpha)
    assert float(clear.color[:, :, clear.alpha[0] == 0][0].max()) == 0.0
    composite = clear.color + (1 - clear.alpha[:, None]) * person.background(96)
    opaque = (clear.alpha > 0.999)[:, None].expand_as(composite)
    torch.testing.assert_close(composite[opaque], frames.color[opaque], atol=2e-3, rtol=0)
    assert float((composite - frames.color).abs().mean()) < 0.01


def test_gaze_turns_the_eyeballs_and_nothing_else(person: Identity, head: ParametricHead) -> None:
    straight = person.vertices(torch.zeros(1, 53), torch.zeros(1, 2))[0]
    turned = person.vertices(torch.zeros(1, 53), torch.tensor([[0.3, 0.1]]))[0]
    eyes = head.vertices_of("sclera_left", "sclera_right")
    assert torch.equal(straight[~eyes], turned[~eyes])
    assert float((straight[eyes] - turned[eyes]).norm(dim=1).max()) > 0.2
    left = head.vertices_of("sclera_left")
    before, after = (((v[left] - person.eye_centers[0]).norm(dim=1)) for v in (straight, turned))
    torch.testing.assert_close(before, after, atol=1e-4, rtol=0)


def test_a_full_blink_just_closes_the_lids(person: Identity, head: ParametricHead) -> None:
    def gap(value: float) -> float:
        points = person.landmarks_world(head.weights(eyeBlink=value)[None])[0]
        return float((points[[37, 38, 43, 44], 1] - points[[41, 40, 47, 46], 1]).mean())

    assert gap(0.0) > 0.0
    assert abs(gap(1.0)) < 0.12 * gap(0.0)


def test_torso_stays_behind_only_when_the_scene_is_not_static(person: Identity, head: ParametricHead) -> None:
    turned = Camera.look_at_head(0.6)
    zero = torch.zeros(1, 53), torch.zeros(1, 2)
    static = render_frames(person, *zero, turned, size=64, supersample=1)
    moving = render_frames(person, *zero, turned, size=64, supersample=1, static_scene=False)
    face = slice(22, 36)  # rows above the neck
    apart = (static.depth[0, face] - moving.depth[0, face]).abs() > 1e-4
    assert float(apart.float().mean()) < 0.02  # all but single samples of the outline
    assert not torch.equal(static.parts == person.cloth_part, moving.parts == person.cloth_part)
    frontal = Camera.look_at_head(0.0)
    first = render_frames(person, *zero, frontal, size=64, supersample=1)
    second = render_frames(person, *zero, frontal, size=64, supersample=1, static_scene=False)
    torch.testing.assert_close(first.depth, second.depth, atol=1e-4, rtol=0)
    assert math.isclose(float(first.color.mean()), float(second.color.mean()), abs_tol=1e-3)
