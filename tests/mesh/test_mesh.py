"""Meshes of a head whose density is a known ball, and the files they become, opened by another library."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from export3d.errors import UsageError
from export3d.mesh import head_mesh, shape_offsets, write_mesh
from export3d.mesh.files import METRES
from export3d.mesh.lids import blink_offsets
from export3d.portrait import PortraitModel, build_model, preset
from export3d.portrait.lookup import GUIDE_CHANNELS

trimesh = pytest.importorskip("trimesh")
pytest.importorskip("skimage")

RADIUS = 0.2


class Ball:
    """Stands in for `PortraitField`: softly dense within a radius, red to the right."""

    def __init__(self, channels: int) -> None:
        self.channels = channels

    def density(self, points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return 10_000.0 * (RADIUS - points.norm(dim=-1)), points

    def colour(self, state: torch.Tensor) -> torch.Tensor:
        red = (state[..., :1] > 0).float()
        return torch.cat([red, red.new_zeros(*red.shape[:-1], self.channels - 1)], dim=-1)


@pytest.fixture
def ball(monkeypatch: pytest.MonkeyPatch) -> tuple[PortraitModel, object]:
    """A tiny model whose field is a ball, moved up by jawOpen, and the code of a portrait."""
    from export3d.camera import Camera
    from export3d.face_state import ARKIT_NAMES, FaceState

    model = build_model(preset("tiny-portrait")).eval()
    assert isinstance(model, PortraitModel)
    size = model.config.image_size
    state = FaceState(beta=torch.zeros(1, 64), weights=torch.zeros(1, 52))
    with torch.inference_mode():
        camera = Camera.look_at_head(*torch.zeros(3, 1))
        code = model.encode(torch.zeros(1, 3, size, size), camera, state)
    real_drive = model.drive

    def drive(code, state):
        driven = real_drive(code, state)
        object.__setattr__(driven, "lift", 0.1 * float(state.weights[0, ARKIT_NAMES.index("jawOpen")]))
        return driven

    def guide(driven, points):
        return points - torch.tensor([0.0, driven.lift, 0.0]), torch.ones(*points.shape[:2], 2)

    monkeypatch.setattr(model, "drive", drive)
    monkeypatch.setattr(model, "guide", guide)
    monkeypatch.setattr(model, "field", lambda driven: Ball(model.config.decoder.colour_channels + GUIDE_CHANNELS))
    return model, code


def test_the_mesh_of_a_ball_is_closed_round_and_looks_outwards(ball) -> None:
    mesh = head_mesh(*ball, resolution=48, level=60.0)
    body = trimesh.Trimesh(mesh.vertices, mesh.triangles, process=False)
    assert body.is_watertight and body.is_winding_consistent
    radii = np.linalg.norm(mesh.vertices, axis=1)
    assert radii.std() < 0.004 and abs(radii.mean() - RADIUS) < 0.03
    assert body.volume == pytest.approx(4 / 3 * np.pi * radii.mean() ** 3, rel=0.02)
    assert np.array_equal(mesh.colours[:, 0] > 0.5, mesh.vertices[:, 0] > 0)


def test_a_level_that_nothing_reaches_is_refused_with_the_densest_value(ball) -> None:
    with pytest.raises(UsageError, match="no surface of density 1e\\+06"):
        head_mesh(*ball, resolution=32, level=1e6)


def test_a_shape_moves_the_vertices_to_where_the_warp_came_from(ball) -> None:
    model, code = ball
    mesh = head_mesh(model, code, resolution=32, level=60.0)
    offsets = shape_offsets(model, code, mesh, names=("jawOpen", "mouthPucker"))
    assert list(offsets) == ["jawOpen"]
    assert offsets["jawOpen"] == pytest.approx(np.tile([0.0, 0.1, 0.0], (len(mesh.vertices), 1)), abs=1e-5)


def test_glb_opens_with_texture_colours_and_morph_targets(half, tmp_path: Path) -> None:
    mesh, picture = half
    lift = np.tile(np.float32([0.0, 0.1, 0.0]), (len(mesh.vertices), 1))
    write_mesh(tmp_path / "a.glb", mesh, picture, {"jawOpen": lift})
    scene = trimesh.load(tmp_path / "a.glb")
    parts = list(scene.geometry.values())
    assert len(parts) == 2
    whole = trimesh.util.concatenate([trimesh.Trimesh(p.vertices, p.faces, process=False) for p in parts])
    whole.merge_vertices()
    assert whole.is_watertight and whole.volume > 0
    assert np.abs(whole.vertices).max() == pytest.approx(METRES * RADIUS, rel=1e-4)
    textured = next(p for p in parts if p.visual.kind == "texture" and p.visual.material.baseColorTexture is not None)
    assert textured.visual.material.baseColorTexture.size == (48, 32)
    content = (tmp_path / "a.glb").read_bytes()
    import json

    length = int.from_bytes(content[12:16], "little")
    tree = json.loads(content[20 : 20 + length])
    head = tree["meshes"][0]
    assert head["extras"]["targetNames"] == ["jawOpen"] and head["weights"] == [0.0]
    target = tree["accessors"][head["primitives"][0]["targets"][0]["POSITION"]]
    assert target["max"] == pytest.approx([0.0, 0.1 * METRES, 0.0]) and target["count"] == len(mesh.vertices)
    view = tree["bufferViews"][tree["images"][0]["bufferView"]]
    start = 28 + length + view["byteOffset"]
    assert Image.open(io.BytesIO(content[start : start + view["byteLength"]])).size == (48, 32)


@pytest.mark.parametrize("suffix", [".ply", ".obj"])
def test_ply_and_obj_open_closed_with_the_photographs_colour_in_front(half, suffix: str, tmp_path: Path) -> None:
    mesh, picture = half
    write_mesh(tmp_path / f"a{suffix}", mesh, picture)
    body = trimesh.load(tmp_path / f"a{suffix}", process=False)
    assert body.is_watertight and body.volume > 0 and len(body.vertices) == len(mesh.vertices)
    front = body.vertices[:, 2] > 1e-6
    colours = np.asarray(body.visual.vertex_colors)[:, :3]
    assert (colours[front] == [0, 200, 0]).all() and (colours[~front] == [255, 0, 0]).all()


def test_a_blink_draws_the_upper_lid_to_the_lower_one_and_leaves_the_rest(half) -> None:
    mesh, _ = half
    fine = trimesh.creation.icosphere(6, RADIUS)
    points = np.asarray(fine.vertices, np.float32)
    uv = 0.5 + points[:, :2] * [1.0, -1.0]
    mesh = replace(mesh, vertices=points, uv=uv, seen=points[:, 2] > 0.02)
    landmarks = np.full((68, 2), 0.9)
    # An eye 0.1 wide, on the person's right: its upper lid at 0.45, its lower one at 0.49.
    landmarks[36:42] = [(0.4, 0.47), (0.43, 0.452), (0.47, 0.452), (0.5, 0.47), (0.47, 0.488), (0.43, 0.488)]
    landmarks[42:48] = landmarks[36:42][[3, 2, 1, 0, 5, 4]] * [-1.0, 1.0] + [1.0, 0.0]
    found = blink_offsets(mesh, landmarks)
    right, left = found["eyeBlinkRight"], found["eyeBlinkLeft"]
    height = 0.018 / (0.3 * 0.7) / 4.0  # of the parabola through these points, over the corners
    rim = (np.abs(uv[:, 0] - 0.45) < 0.01) & (np.abs(uv[:, 1] - (0.47 - height)) < 0.003) & mesh.seen
    down = points[:, 1] + right[:, 1] - (0.5 - 0.47 - height)
    assert rim.sum() > 3 and np.abs(down[rim]).max() < 0.4 * height < np.abs(right[rim, 1]).min() / 3.0
    assert np.abs(np.linalg.norm(points[rim] + right[rim], axis=1) - RADIUS).max() < 0.002  # along the surface
    assert np.abs(right[(uv[:, 0] > 0.5) | (uv[:, 1] > 0.495) | (uv[:, 1] < 0.36)]).max() == 0.0
    assert np.abs(left[uv[:, 0] < 0.5]).max() == 0.0
    assert np.abs(left).max() == pytest.approx(np.abs(right).max(), rel=0.1)
