"""Tests of the five-point alignment."""

import numpy as np
import pytest

from export3d.tracking.alignment import (
    EG3D_ALIGNMENT,
    STANDARD_POINTS,
    Alignment,
    Crop,
    crop_image,
    crop_squares,
    crop_transform,
    five_points,
)


def landmarks_with_five(five: np.ndarray) -> np.ndarray:
    """68 points, of which only those that the alignment reads are set."""
    points = np.zeros((68, 2))
    points[[36, 39]] = five[0] + np.array([[-3.0, 0.5], [3.0, -0.5]])
    points[[42, 45]] = five[1] + np.array([[-3.0, 0.5], [3.0, -0.5]])
    points[30], points[48], points[54] = five[2], five[3], five[4]
    return points


def orthographic(scale: float, centre: tuple[float, float]) -> np.ndarray:
    """The standard face seen frontally: x right, y down."""
    return STANDARD_POINTS[:, :2] * [scale, -scale] + centre


def test_five_points_are_eye_centres_nose_tip_and_mouth_corners():
    five = orthographic(100.0, (300.0, 200.0))
    assert np.allclose(five_points(landmarks_with_five(five)), five)


def test_a_frontal_standard_face_lands_on_the_golden_positions_at_256():
    # EG3D's crop: 700 / 300 model units wide, so one unit is 256 * 300 / 700 = 109.714 px; the left eye is at
    # 128 - 0.3115 * 109.714 = 93.8 and 128 - 0.2904 * 109.714 = 96.1.
    face = orthographic(431.0, (777.0, 555.0))
    crop = crop_transform(landmarks_with_five(face))
    golden = [[93.8, 96.1], [162.0, 96.2], [128.4, 133.1], [100.3, 169.8], [155.3, 169.8]]
    assert np.abs(crop.to_crop(face) * 256.0 - golden).max() < 0.06


def test_the_102_of_224_crop_gives_the_golden_positions_of_the_network_input():
    # Deep3DFaceRecon's crop: rescale 102, target 224, seen at 256.
    face = orthographic(80.0, (100.0, 90.0))
    crop = crop_transform(landmarks_with_five(face), Alignment(rescale=102.0, target=224.0, crop=224.0))
    golden = [[91.7, 94.2], [164.1, 94.2], [128.4, 133.4], [98.6, 172.5], [157.0, 172.4]]
    assert np.abs(crop.to_crop(face) * 256.0 - golden).max() < 0.11


def test_the_crop_does_not_depend_on_where_and_how_large_the_face_is():
    one = crop_transform(landmarks_with_five(orthographic(40.0, (60.0, 70.0))))
    two = crop_transform(landmarks_with_five(orthographic(120.0, (610.0, 320.0))))
    assert two.side == pytest.approx(3.0 * one.side)
    assert one.side == pytest.approx(40.0 * 700.0 / 300.0)
    assert (one.center_x, one.center_y) == pytest.approx((60.0, 70.0))


def test_roll_of_the_head_is_kept():
    face = orthographic(100.0, (0.0, 0.0))
    angle = np.deg2rad(20.0)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    rolled = face @ turn.T
    crop = crop_transform(landmarks_with_five(rolled))
    eyes = crop.to_crop(rolled)[:2]
    seen = np.arctan2(*(eyes[1] - eyes[0])[::-1])
    upright = np.arctan2(*(face[1] - face[0])[::-1])
    assert seen - upright == pytest.approx(angle, abs=1e-5)


def test_the_origin_moves_the_centre_by_its_projection():
    face = landmarks_with_five(orthographic(50.0, (200.0, 300.0)))
    moved = crop_transform(face, Alignment(origin=(0.1, 0.2, -0.4)))
    # Frontal: x moves by 0.1 * 50 px, y up by 0.2 * 50 px; the depth is not seen.
    assert (moved.center_x, moved.center_y) == pytest.approx((205.0, 290.0))


def test_many_faces_at_once_equal_one_by_one():
    rng = np.random.default_rng(0)
    points = rng.normal(size=(5, 68, 2)) * 30.0 + 200.0
    together = crop_squares(points, EG3D_ALIGNMENT)
    for row, single in zip(together, points, strict=True):
        crop = crop_transform(single)
        assert np.allclose(row, [crop.center_x, crop.center_y, crop.side])


def test_the_fit_equals_a_slow_reference_in_float64():
    rng = np.random.default_rng(1)
    five = rng.normal(size=(5, 2)) * 40.0 + 100.0
    rows = []
    for values in (five[:, 0], -five[:, 1]):
        normal = np.zeros((4, 4))
        right = np.zeros(4)
        for point, value in zip(STANDARD_POINTS, values, strict=True):
            row = np.append(point, 1.0)
            normal += np.outer(row, row)
            right += row * value
        rows.append(np.linalg.solve(normal, right))
    scale = (np.linalg.norm(rows[0][:3]) + np.linalg.norm(rows[1][:3])) / 2.0
    crop = crop_transform(landmarks_with_five(five))
    assert crop.side == pytest.approx(scale * 700.0 / 300.0, rel=1e-9)
    assert (crop.center_x, crop.center_y) == pytest.approx((rows[0][3], -rows[1][3]), rel=1e-9)


def test_to_crop_and_from_crop_are_inverse():
    crop = Crop(123.4, 56.7, 89.0)
    points = np.random.default_rng(2).normal(size=(4, 68, 2)) * 100.0
    assert np.allclose(crop.from_crop(crop.to_crop(points)), points, atol=1e-3)
    assert np.allclose(crop.to_crop(np.array([[123.4, 56.7]])), 0.5)


def test_a_crop_that_is_the_frame_returns_the_frame():
    frame = np.random.default_rng(3).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    assert np.array_equal(crop_image(frame, Crop(32.0, 32.0, 64.0), 64), frame)


def test_outside_the_frame_is_black():
    frame = np.full((40, 40, 3), 255, dtype=np.uint8)
    image = crop_image(frame, Crop(0.0, 20.0, 40.0), 40)
    assert not image[:, :16].any()
    assert (image[:, 24:] == 255).all()
    assert not crop_image(frame, Crop(500.0, 500.0, 40.0), 16).any()


def test_shrinking_averages_instead_of_skipping():
    # A one-pixel checkerboard must become grey, whatever the factor.
    board = (np.indices((1200, 1200)).sum(axis=0) % 2 * 255).astype(np.uint8)
    frame = np.repeat(board[..., None], 3, axis=2)
    for side in (300.0, 1100.0):
        image = crop_image(frame, Crop(600.0, 600.0, side), 64)
        assert np.abs(image.astype(int) - 127).max() < 12


def test_a_point_of_light_lands_where_to_crop_says_also_when_shrunk():
    frame = np.zeros((900, 900, 3), dtype=np.uint8)
    frame[396:405, 506:515] = 255  # centre of the patch: (510.5, 400.5)
    for side, size in ((97.3, 97), (880.0, 128), (411.7, 256)):
        crop = Crop(480.2, 390.7, side)
        image = crop_image(frame, crop, size).astype(float).sum(axis=2)
        at = np.array(
            [(image.sum(axis=0) * (np.arange(size) + 0.5)).sum(), (image.sum(axis=1) * (np.arange(size) + 0.5)).sum()]
        )
        seen = at / image.sum() / size
        assert np.abs(seen - crop.to_crop(np.array([510.5, 400.5]))).max() * size < 0.35


def test_impossible_alignments_and_sizes_are_refused():
    with pytest.raises(ValueError, match="0 < crop <= target"):
        Alignment(crop=2000.0)
    with pytest.raises(ValueError, match="size must be at least 1"):
        crop_image(np.zeros((8, 8, 3), np.uint8), Crop(4.0, 4.0, 8.0), 0)
    with pytest.raises(ValueError, match=r"\(\.\.\., 68, 2\)"):
        crop_transform(np.zeros((5, 2)))
