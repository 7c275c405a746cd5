"""The parametric head (Eq. 11), its npz file, and the importer of ICT-FaceKit's folder."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from export3d.errors import HeadModelError
from export3d.heads.shape.ict_obj import head_from_ict_folder
from export3d.heads.shape.model_file import read_head, write_head
from export3d.heads.shape.parametric import EXPRESSION_NAMES, EYE_CENTERS_CM, PARTS, ParametricHead
from export3d.heads.shape.procedural import procedural_head


@pytest.fixture(scope="module")
def head() -> ParametricHead:
    return procedural_head()


def test_zero_coefficients_give_the_mean_head(head: ParametricHead) -> None:
    assert torch.equal(head.shape(torch.zeros(1, 80), torch.zeros(1, 53))[0], head.vertices)


def test_shape_is_the_sum_of_mean_identity_and_expression(head: ParametricHead) -> None:
    alpha, weights = torch.zeros(2, 80), torch.zeros(2, 53)
    alpha[0, 3], weights[1, 26] = 1.5, 0.5
    shape = head.shape(alpha, weights)
    torch.testing.assert_close(shape[0], head.vertices + 1.5 * head.identity_basis[3])
    torch.testing.assert_close(shape[1], head.vertices + 0.5 * head.expression_basis[26])


def test_a_name_without_side_sets_both_sides(head: ParametricHead) -> None:
    weights = head.weights(eyeBlink=0.7, jawOpen=0.2, mouthSmile_L=0.1)
    index = head.expression_index
    assert float(weights[index["eyeBlink_L"]]) == float(weights[index["eyeBlink_R"]]) == pytest.approx(0.7)
    assert float(weights[index["jawOpen"]]) == pytest.approx(0.2)
    assert float(weights[index["mouthSmile_R"]]) == 0.0
    with pytest.raises(HeadModelError, match="no expression mode 'eyebling'"):
        head.weights(eyebling=1.0)


def test_the_53_modes_have_arkit_names() -> None:
    assert len(EXPRESSION_NAMES) == 53 == len(set(EXPRESSION_NAMES))
    assert {"jawOpen", "mouthClose", "eyeBlink_L", "eyeBlink_R", "browInnerUp_L", "noseSneer_R"} <= set(
        EXPRESSION_NAMES
    )


def test_npz_round_trip_keeps_the_head(head: ParametricHead, tmp_path: Path) -> None:
    write_head(tmp_path / "head.npz", head)
    again = read_head(tmp_path / "head.npz")
    for name in ("vertices", "triangles", "uv", "triangle_uv", "triangle_part", "vertex_part", "landmark_vertices"):
        assert torch.equal(getattr(head, name), getattr(again, name)), name
    assert torch.equal(head.eye_centers, again.eye_centers)
    assert again.part_names == head.part_names and again.expression_names == head.expression_names
    # Bases are stored in steps of 1/2048 cm, so half a step is the largest error.
    assert float((head.identity_basis - again.identity_basis).abs().max()) <= 0.5 / 2048 + 1e-6
    assert float((head.expression_basis - again.expression_basis).abs().max()) <= 0.5 / 2048 + 1e-6
    assert [p.name for p in tmp_path.iterdir()] == ["head.npz"]


def test_a_missing_or_damaged_file_is_named(head: ParametricHead, tmp_path: Path) -> None:
    with pytest.raises(HeadModelError, match=r"no file .*absent\.npz") as error:
        read_head(tmp_path / "absent.npz")
    assert error.value.exit_code == 25
    (tmp_path / "text.npz").write_text("not a head")
    with pytest.raises(HeadModelError, match=r"text\.npz: not a readable npz"):
        read_head(tmp_path / "text.npz")
    write_head(tmp_path / "whole.npz", head)
    (tmp_path / "cut.npz").write_bytes((tmp_path / "whole.npz").read_bytes()[:5000])
    with pytest.raises(HeadModelError, match=r"cut\.npz: not a readable npz"):
        read_head(tmp_path / "cut.npz")


def test_a_file_without_an_array_or_of_another_version_is_refused(head: ParametricHead, tmp_path: Path) -> None:
    write_head(tmp_path / "head.npz", head)
    with np.load(tmp_path / "head.npz") as archive:
        arrays = {key: archive[key] for key in archive.files}
    np.savez(tmp_path / "fewer.npz", **{k: v for k, v in arrays.items() if k != "uv"})
    with pytest.raises(HeadModelError, match="lacks the arrays uv"):
        read_head(tmp_path / "fewer.npz")
    np.savez(tmp_path / "later.npz", **{**arrays, "version": np.array(2)})
    with pytest.raises(HeadModelError, match="has version 2"):
        read_head(tmp_path / "later.npz")
    np.savez(tmp_path / "odd.npz", **{**arrays, "triangles": arrays["triangles"] + 100_000})
    with pytest.raises(HeadModelError, match="triangles must lie in 0"):
        read_head(tmp_path / "odd.npz")
    np.savez(tmp_path / "few.npz", **{**arrays, "identity_basis": arrays["identity_basis"][:80]})
    with pytest.raises(HeadModelError, match="at least 91 identity modes"):
        read_head(tmp_path / "few.npz")


def _obj(vertices: np.ndarray, faces: bool) -> str:
    lines = ["# ICT-FaceKit style", *(f"v {x:.3f} {y:.3f} {z:.3f}" for x, y, z in vertices)]
    if faces:
        lines += [f"vt {u:.4f} 0.5" for u in (0.1, 0.2, 0.3, 0.4)]
        # One quad of the face, one triangle of the inner iris (dropped), one of the right lashes.
        lines += ["f 1/1 2/2 3/3 4/4", "f 22222/1 22223/2 22224/3", "f 26036/2 26037/3 26038/4"]
    return "\n".join(lines) + "\n"


@pytest.mark.slow
def test_obj_folder_is_imported_with_quads_split_and_helper_surfaces_dropped(tmp_path: Path) -> None:
    vertices = np.random.default_rng(0).normal(size=(26719, 3)).round(3).astype(np.float32)
    vertices[21451:22221] += EYE_CENTERS_CM[0]
    vertices[23021:23791] += EYE_CENTERS_CM[1]
    moved = vertices.copy()
    moved[0] += [0.5, 0.0, -0.25]
    (tmp_path / "generic_neutral_mesh.obj").write_text(_obj(vertices, faces=True))
    (tmp_path / "identity000.obj").write_text(_obj(moved, faces=False))
    for k in range(1, 91):
        os.link(tmp_path / "generic_neutral_mesh.obj", tmp_path / f"identity{k:03d}.obj")
    for name in EXPRESSION_NAMES[:-1]:
        os.link(tmp_path / "generic_neutral_mesh.obj", tmp_path / f"{name}.obj")
    with pytest.raises(HeadModelError, match=r"noseSneer_R\.obj is missing"):
        head_from_ict_folder(tmp_path)
    os.link(tmp_path / "generic_neutral_mesh.obj", tmp_path / "noseSneer_R.obj")
    head = head_from_ict_folder(tmp_path)
    assert head.part_names == PARTS
    # Dropped: 800 + 800 inner iris, 204 + 204 tear fluid, 24 + 24 eye blend, 152 + 152 eye occlusion vertices.
    assert len(head.vertices) == 26719 - 2 * (800 + 204 + 24 + 152)
    assert head.triangles[:2].tolist() == [[0, 1, 2], [0, 2, 3]]
    assert head.triangle_uv[:2].tolist() == [[0, 1, 2], [0, 2, 3]]
    assert [PARTS[k] for k in head.triangle_part.tolist()] == ["face", "face", "lashes_right"]
    torch.testing.assert_close(head.identity_basis[0, 0], torch.tensor([0.5, 0.0, -0.25]), atol=2e-3, rtol=0)
    assert float(head.identity_basis[1:].abs().max()) == 0.0
    assert head.landmark_vertices[51] == 0


def test_an_obj_file_with_a_broken_line_is_named(tmp_path: Path) -> None:
    (tmp_path / "generic_neutral_mesh.obj").write_text("v 1.0 2.0 3.0\nv 1.0 twelve 3.0\n")
    with pytest.raises(HeadModelError, match=r"generic_neutral_mesh\.obj is not a readable OBJ file"):
        head_from_ict_folder(tmp_path)


def test_a_folder_with_another_vertex_order_is_refused(tmp_path: Path) -> None:
    (tmp_path / "generic_neutral_mesh.obj").write_text(_obj(np.zeros((26719, 3)), faces=True))
    for name in (*EXPRESSION_NAMES, *(f"identity{k:03d}" for k in range(91))):
        os.link(tmp_path / "generic_neutral_mesh.obj", tmp_path / f"{name}.obj")
    with pytest.raises(HeadModelError, match="are not an eyeball"):
        head_from_ict_folder(tmp_path)


def test_a_folder_without_the_neutral_mesh_is_refused(tmp_path: Path) -> None:
    with pytest.raises(HeadModelError, match=r"has no generic_neutral_mesh\.obj"):
        head_from_ict_folder(tmp_path)


@pytest.mark.requires_shared
@pytest.mark.skipif("EXPORT3D_HEAD_MODEL" not in os.environ, reason="EXPORT3D_HEAD_MODEL is not set")
def test_ict_facekit_has_the_documented_sizes() -> None:
    head = read_head(os.environ["EXPORT3D_HEAD_MODEL"])
    assert head.identity_basis.shape[0] >= 91 and head.expression_names == EXPRESSION_NAMES
    centers = torch.stack([head.vertices[head.vertices_of(f"sclera_{side}")].mean(0) for side in ("left", "right")])
    assert float((centers[:, :2] - head.eye_centers[:, :2]).abs().max()) < 0.2
