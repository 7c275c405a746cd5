"""heads/clips/surface.py: points that keep their place on the surface from frame to frame."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from export3d.camera import Camera
from export3d.errors import HeadModelError
from export3d.heads.clips.extractor import LinearExtractor
from export3d.heads.clips.one_clip import NOVEL_VIEWS_DEG, ClipsConfig, render_clip
from export3d.heads.clips.surface import NUM_POINTS, surface_points, surface_vertices
from export3d.heads.look.appearance import AppearanceOptions
from export3d.heads.look.identity import Identity, to_world
from export3d.heads.shape.parametric import ParametricHead
from export3d.heads.shape.procedural import procedural_head


@pytest.fixture(scope="module")
def head() -> ParametricHead:
    return procedural_head()


def test_the_points_are_distinct_and_the_same_for_every_call(head: ParametricHead) -> None:
    vertices = surface_vertices(head)
    assert vertices.shape == (NUM_POINTS,) and len(vertices.unique()) == NUM_POINTS
    surface_vertices.cache_clear()
    assert torch.equal(surface_vertices(head), vertices)


def test_the_points_are_the_heads_own_vertices_in_scene_units(head: ParametricHead) -> None:
    identity = Identity.create(head, 5, AppearanceOptions(quality="fast"))
    weights = torch.rand(2, 53) * 0.5
    gaze = torch.tensor([[0.2, -0.1], [0.0, 0.1]])
    moved = to_world(identity.vertices(weights, gaze))
    found = surface_points(identity, weights, gaze)
    assert torch.equal(found, moved[:, surface_vertices(head)])
    assert (found[0] - found[1]).abs().amax() > 0.001


def test_most_points_lie_on_or_behind_what_the_frame_shows(head: ParametricHead) -> None:
    config = ClipsConfig(identities=1, frames=3, size=64, quality="fast")
    clip = render_clip(head, LinearExtractor.build(head), 4, config)
    points = torch.from_numpy(clip.arrays["surface"])
    camera = Camera.from_vector(torch.from_numpy(clip.arrays["camera"]))
    place, _ = camera.project(points)
    distance = (points - camera.cam_to_world[:, None, :3, 3]).norm(dim=-1)
    at = (place * 64).long().clamp(0, 63)
    assert clip.depths is not None
    depth = torch.from_numpy(clip.depths.astype("float32")) / 16384
    shown = torch.stack([depth[t][at[t, :, 1], at[t, :, 0]] for t in range(3)])
    in_front = (distance < shown - 0.02).float().mean()  # one pixel is 0.02 at this size
    on = ((distance - shown).abs() < 0.02).float().mean()
    assert in_front < 0.05 and on > 0.3


def test_a_head_with_too_few_vertices_is_refused(head: ParametricHead) -> None:
    small = replace(head, vertex_part=torch.full_like(head.vertex_part, head.part("teeth")))
    with pytest.raises(HeadModelError, match="surface points"):
        surface_vertices(small)


def test_novel_views_add_three_frames_with_the_middle_frames_expression(head: ParametricHead) -> None:
    config = ClipsConfig(identities=1, frames=4, size=32, quality="fast", novel_views=True)
    clip = render_clip(head, LinearExtractor.build(head), 4, config)
    assert clip.frames.shape[0] == 7 and clip.meta["extra"]["novel_views_deg"] == list(NOVEL_VIEWS_DEG)
    weights, camera = clip.arrays["weights"], Camera.from_vector(torch.from_numpy(clip.arrays["camera"]))
    assert all((weights[4 + k] == weights[2]).all() for k in range(3))
    yaw = torch.rad2deg(camera.head_angles()[4:, 0])
    assert torch.allclose(yaw, torch.tensor(NOVEL_VIEWS_DEG), atol=1e-3)
