"""Tests of what is read of jaw, lips and brows: directions, mirror, pose, and trackers that give less."""

from dataclasses import replace

import numpy as np
import pytest

from export3d.face_state import ARKIT_NAMES
from export3d.fitting.gaze import MIRROR_SCORES
from export3d.fitting.mouth import MIRROR_WEIGHTS, mirrored_features
from export3d.tracking.brows import BROW_WEIGHTS, FALL, RISE, brow_heights, brow_weights
from export3d.tracking.faces import BLENDSHAPE_NAMES, Face, arkit_weights_of
from export3d.tracking.head_fit import HeadFit, rotation_of
from export3d.tracking.mouth import (
    COLUMNS,
    LIPS,
    MOUTH_WEIGHTS,
    SHOWN,
    MouthMap,
    facing_front,
    mouth_features,
    mouth_sizes,
)
from export3d.tracking.weights import weights_of

JAW = ARKIT_NAMES.index("jawOpen")


@pytest.fixture(scope="module")
def bundled() -> MouthMap:
    return MouthMap.load()


def face(moved: dict[int, tuple[float, float]] | None = None, seed: int = 0) -> Face:
    """The mean head in a frame of 400 pixels, some points of its mesh moved (right, down; scene units), faint scores."""
    mesh = HeadFit.load().template * np.array([1.0, -1.0, -1.0], np.float32)
    for point, (right, down) in (moved or {}).items():
        mesh[point, :2] += np.float32([right, down])
    scores = np.random.default_rng(seed).uniform(0.0, 0.1, len(BLENDSHAPE_NAMES)).astype(np.float32)
    return Face(
        box=np.array([100.0, 100.0, 300.0, 300.0]),
        landmarks_px=np.zeros((68, 2), np.float32),
        confidence=1.0,
        blendshapes=scores,
        mesh=400.0 * mesh + 200.0,
    )


def test_a_lower_lip_and_a_chin_that_go_down_open_the_jaw(bundled):
    lower = (14, 17, 152, 178, 402, 84, 314, 181, 405)
    still, opened = (weights_of(face(dict.fromkeys(lower, (0.0, down))), bundled)[JAW] for down in (0.0, 0.05))
    assert 0.15 < opened - still < 1.0


def test_corners_that_go_out_and_up_are_a_smile(bundled):
    corners = {61: (-0.02, -0.02), 291: (0.02, -0.02), 78: (-0.02, -0.02), 308: (0.02, -0.02)}
    change = weights_of(face(corners), bundled) - weights_of(face(), bundled)
    assert min(change[ARKIT_NAMES.index(f"mouthSmile{side}")] for side in ("Left", "Right")) > 0.1


def test_a_mouth_that_gets_wider_or_opens_is_told_so_by_its_weights(bundled):
    moves = {"wider": {61: (-0.01, 0.0), 291: (0.01, 0.0)}, "open": {14: (0.0, 0.03)}}
    still = (weights_of(face(), bundled), mouth_sizes(facing_front(face().mesh[None]))[0])
    for place, moved in enumerate(moves.values()):
        given = face(moved)
        shown = mouth_sizes(facing_front(given.mesh[None]))[0] - still[1]
        told = (weights_of(given, bundled) - still[0])[COLUMNS] @ SHOWN
        assert shown[place] > 0.1
        assert told[place] > 0.5 * shown[place]


def test_the_mirrored_mouth_has_the_mirrored_weights(bundled):
    given = face({61: (0.01, -0.02), 17: (0.0, 0.02)}, seed=3)
    features = mouth_features(facing_front(given.mesh[None]), given.blendshapes[None])
    told, other = (f @ bundled.weight + bundled.bias for f in (features, mirrored_features(features)))
    np.testing.assert_allclose(other[:, MIRROR_WEIGHTS], told, atol=1e-4)


def test_the_mirror_of_a_mesh_is_the_mirror_of_its_features():
    symmetric = face()
    mesh = symmetric.mesh.copy()
    mesh[61, 0] -= 8.0
    mirrored = mesh.copy()
    mirrored[61], mirrored[291] = mesh[291], mesh[61]  # of the pair that differs most
    scores = symmetric.blendshapes
    one, other = (mouth_features(m[None], s[None]) for m, s in ((mesh, scores), (mirrored, scores[MIRROR_SCORES])))
    place = 3 * LIPS.index(61)
    assert mirrored_features(one)[0, place + 3] == pytest.approx(-one[0, place])
    np.testing.assert_allclose(mirrored_features(mirrored_features(one)), one, atol=1e-6)
    np.testing.assert_allclose(other[:, 3 * len(LIPS) :], mirrored_features(one)[:, 3 * len(LIPS) :], atol=1e-6)


def test_where_a_head_lies_and_how_it_is_turned_does_not_matter(bundled):
    given = face({17: (0.0, 0.03)})
    turned = 0.5 * given.mesh @ rotation_of(np.array([0.2, -0.5, 0.3])).T + 37.0
    np.testing.assert_allclose(
        weights_of(replace(given, mesh=turned.astype(np.float32)), bundled), weights_of(given, bundled), atol=2e-3
    )


def test_only_jaw_lips_and_brows_differ_from_the_scores_and_all_of_them_without_a_mesh_do_not(bundled):
    given = face({17: (0.0, 0.03)})
    scores, told = arkit_weights_of(given), weights_of(given, bundled)
    differ = {name for name, a, b in zip(ARKIT_NAMES, scores, told, strict=True) if a != b and not np.isnan(a)}
    assert differ == {*MOUTH_WEIGHTS, *BROW_WEIGHTS}
    np.testing.assert_array_equal(weights_of(replace(given, mesh=None), bundled), scores)
    assert np.isnan(weights_of(replace(given, blendshapes=None), bundled)).all()


def test_a_brow_that_rises_by_a_tenth_of_an_eye_has_a_weight_of_one_and_the_other_none():
    fit = HeadFit.load().template * np.array([1.0, -1.0, -1.0])
    raised = fit.copy()
    width = float(np.linalg.norm(fit[33, :2] - fit[133, :2]))
    raised[[70, 63, 105, 66, 107], 1] -= RISE * width  # at the image left: the person's right
    change = dict(zip(BROW_WEIGHTS, brow_weights(raised) - brow_weights(fit), strict=True))
    assert change["browOuterUpRight"] == pytest.approx(1.0, abs=1e-4) and change["browInnerUp"] == pytest.approx(
        0.5, abs=1e-4
    )
    assert change["browDownRight"] == pytest.approx(-RISE / FALL, abs=1e-4)
    assert abs(change["browOuterUpLeft"]) < 1e-6 and abs(change["browDownLeft"]) < 1e-6
    assert brow_heights(raised)[0] - brow_heights(fit)[0] == pytest.approx(RISE, abs=1e-5)
