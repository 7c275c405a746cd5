"""The head written in code: a sound mesh, and expression modes that do what their names say."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from export3d.heads.shape.parametric import EXPRESSION_NAMES, PARTS, ParametricHead
from export3d.heads.shape.procedural import procedural_head
from export3d.heads.shape.procedural_parts import EYE_RADIUS
from export3d.landmarks import MIRRORED_LANDMARKS

UPPER_LIP, LOWER_LIP, CHIN = 62, 66, 8


@pytest.fixture(scope="module")
def head() -> ParametricHead:
    return procedural_head()


def landmarks(head: ParametricHead, **weights: float) -> torch.Tensor:
    shape = head.shape(torch.zeros(1, 80), head.weights(**weights)[None])[0]
    return shape[head.landmark_vertices]


def test_it_has_the_parts_names_and_modes_of_the_imported_head(head: ParametricHead) -> None:
    assert head.part_names == PARTS
    assert head.expression_names == EXPRESSION_NAMES
    assert len(head.identity_basis) >= 91
    assert 500 < len(head.vertices) < 2200
    assert set(head.triangle_part.tolist()) == set(range(len(PARTS)))


def test_every_vertex_is_used_and_no_triangle_is_degenerate(head: ParametricHead) -> None:
    assert set(head.triangles.flatten().tolist()) == set(range(len(head.vertices)))
    a, b, c = (head.vertices[head.triangles[:, k]] for k in range(3))
    area = torch.linalg.cross(b - a, c - a).norm(dim=1) / 2
    skin = head.triangles_of("face", "head_neck", "teeth", "sclera_left", "sclera_right", "gums_tongue")
    assert float(area[skin].min()) > 1e-4  # cm^2


def test_neighbouring_triangles_agree_which_side_is_outside(head: ParametricHead) -> None:
    edges = torch.cat([head.triangles[:, [0, 1]], head.triangles[:, [1, 2]], head.triangles[:, [2, 0]]])
    # With one orientation for the whole mesh no directed edge occurs twice.
    assert len(torch.unique(edges, dim=0)) == len(edges)


@pytest.mark.parametrize("part", ["face", "head_neck", "sclera_left", "sclera_right", "gums_tongue"])
def test_the_outside_of_a_closed_part_points_away_from_its_middle(head: ParametricHead, part: str) -> None:
    chosen = head.triangles[head.triangles_of(part)]
    a, b, c = (head.vertices[chosen[:, k]] for k in range(3))
    normal = torch.linalg.cross(b - a, c - a)
    middle = head.vertices[head.vertices_of(part)].mean(0)
    if part in ("face", "head_neck"):
        middle = torch.tensor([0.0, 3.0, 0.0])
    outwards = ((a + b + c) / 3 - middle) * normal
    # The ears are shells of their own; a tenth of the triangles of the head is their inner side.
    assert float((outwards.sum(1) > 0).float().mean()) > (0.85 if part == "head_neck" else 0.97)


def test_texture_tiles_do_not_fold_over(head: ParametricHead) -> None:
    for part, tile in (("face", 0.0), ("head_neck", 1.0)):
        uv = head.uv[head.triangle_uv[head.triangles_of(part)]]  # (F, 3, 2)
        assert float(uv[..., 0].min()) >= tile and float(uv[..., 0].max()) <= tile + 1.0
        assert float(uv[..., 1].min()) >= 0.0 and float(uv[..., 1].max()) <= 1.0
    uv = head.uv[head.triangle_uv[head.triangles_of("face")]]
    first, second = uv[:, 1] - uv[:, 0], uv[:, 2] - uv[:, 0]
    area = first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0]
    assert bool((area > 0).all())  # all run the same way round: no fold, no mirror image


def test_landmarks_are_68_points_and_the_neutral_head_is_symmetric(head: ParametricHead) -> None:
    assert len(set(head.landmark_vertices.tolist())) == 68
    points = landmarks(head)
    mirrored = points[MIRRORED_LANDMARKS] * torch.tensor([-1.0, 1.0, 1.0])
    torch.testing.assert_close(points, mirrored, atol=1e-3, rtol=0)
    assert float(points[30, 2]) == float(points[:, 2].max())  # the tip of the nose is in front of all
    assert float(points[:17, 0].min()) < -6.0 and float(points[:17, 0].max()) > 6.0


def test_jaw_open_parts_the_lips_and_lowers_the_chin(head: ParametricHead) -> None:
    closed, opened = landmarks(head), landmarks(head, jawOpen=1.0)
    assert float((closed[UPPER_LIP] - closed[LOWER_LIP]).norm()) < 1e-3
    assert float(opened[UPPER_LIP, 1] - opened[LOWER_LIP, 1]) > 2.0  # cm
    assert float(closed[CHIN, 1] - opened[CHIN, 1]) > 2.0
    assert float((opened[27:48] - closed[27:48]).abs().max()) == 0.0  # nose and eyes stay


def test_mouth_close_takes_back_the_gap_of_an_open_jaw(head: ParametricHead) -> None:
    def gap(**weights: float) -> float:
        points = landmarks(head, **weights)
        return float((points[61:64] - points[[67, 66, 65]]).norm(dim=1).max())

    assert gap(jawOpen=0.5, mouthClose=0.5) < 0.2 * gap(jawOpen=0.5)


def test_a_blink_shuts_the_eye_and_the_lids_never_cut_into_the_eyeball(head: ParametricHead) -> None:
    shut = landmarks(head, eyeBlink=1.0)
    for upper, lower in ((37, 41), (38, 40), (43, 47), (44, 46)):
        assert float((shut[upper, :2] - shut[lower, :2]).norm()) < 0.05
    skin = head.vertices_of("face")
    for amount in (0.0, 0.25, 0.5, 0.75, 1.0):
        shape = head.shape(torch.zeros(1, 80), head.weights(eyeBlink=amount)[None])[0][skin]
        for center in head.eye_centers:
            assert float((shape - center).norm(dim=1).min()) > EYE_RADIUS


def test_a_one_sided_mode_moves_its_own_side(head: ParametricHead) -> None:
    left = head.vertices[:, 0] > 1.0  # the subject's left is +x
    right = head.vertices[:, 0] < -1.0
    for index, name in enumerate(head.expression_names):
        size = head.expression_basis[index].norm(dim=1)
        assert float(size.max()) > 0.05, name
        if name.endswith(("_L", "_R")):
            own, other = (left, right) if name.endswith("_L") else (right, left)
            assert float(size[other].max()) < 0.02 * float(size[own].max()), name


def test_left_and_right_modes_are_mirror_images(head: ParametricHead) -> None:
    basis = head.expression_basis[:, head.landmark_vertices]
    flip = torch.tensor([-1.0, 1.0, 1.0])
    swap = {"_L": "_R", "_R": "_L", "Left": "Right", "Right": "Left"}
    for index, name in enumerate(head.expression_names):
        ending = next((e for e in swap if name.endswith(e)), "")
        partner = head.expression_index[name.removesuffix(ending) + swap[ending] if ending else name]
        mirrored = basis[partner][MIRRORED_LANDMARKS] * flip
        torch.testing.assert_close(basis[index], mirrored, atol=2e-3, rtol=0, msg=name)


def test_named_expressions_move_the_right_points_the_right_way(head: ParametricHead) -> None:
    rest = landmarks(head)
    smile = landmarks(head, mouthSmile=1.0) - rest
    assert float(smile[54, 1]) > 0.4 and float(smile[54, 0]) > 0.4 and float(smile[48, 0]) < -0.4
    assert float((landmarks(head, mouthFrown=1.0) - rest)[[48, 54], 1].max()) < -0.3
    assert float((landmarks(head, browInnerUp=1.0) - rest)[[21, 22], 1].min()) > 0.4
    assert float((landmarks(head, browDown=1.0) - rest)[19, 1]) < -0.3
    pucker = landmarks(head, mouthPucker=1.0)
    assert float(pucker[54, 0] - pucker[48, 0]) < 0.8 * float(rest[54, 0] - rest[48, 0])
    assert float((landmarks(head, jawLeft=1.0) - rest)[CHIN, 0]) > 0.5  # the subject's left is +x
    assert float((landmarks(head, eyeWide=1.0) - rest)[37, 1]) > 0.15


def test_identity_modes_fall_in_size_and_eighty_of_them_are_nearly_all(head: ParametricHead) -> None:
    face = head.vertices_of("face")
    energy = (head.identity_basis[:, face] ** 2).sum(-1).mean(1)
    assert float(energy[:80].sum() / energy.sum()) > 0.99
    assert bool((energy[10:].sqrt()[1:] < energy[10:].sqrt()[:-1] * 1.25).all())
    assert 0.3 < float(energy.sum().sqrt()) < 0.7  # cm, as scanned heads: about 0.5


def test_identity_carries_an_eyeball_without_bending_it(head: ParametricHead) -> None:
    for name in ("sclera_left", "sclera_right"):
        moved = head.identity_basis[:, head.vertices_of(name)]
        assert float((moved - moved[:, :1]).abs().max()) < 1e-3


def test_random_people_differ_by_millimetres_not_by_centimetres(head: ParametricHead) -> None:
    alphas = torch.from_numpy(np.random.default_rng(0).normal(size=(50, 80)).astype(np.float32)) * 0.85
    shapes = head.shape(alphas, torch.zeros(50, 53))[:, head.landmark_vertices]
    assert 0.3 < float((shapes[:25] - shapes[25:]).norm(dim=2).mean()) < 1.0  # cm


def test_the_head_is_the_same_object_and_bytes_each_time() -> None:
    assert procedural_head() is procedural_head()
