"""evaluation/metrics/pictures.py: against scikit-image, torchmetrics and values worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import skimage.data
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torchmetrics.functional.image import structural_similarity_index_measure

from export3d.camera import Camera
from export3d.evaluation.metrics.backends import FaceMeasures, RememberedFaces
from export3d.evaluation.metrics.pictures import aed, akd, apd, csim, psnr, ssim, summarise
from export3d.evaluation.metrics.truth import ClipTruth, score_truth
from export3d.tracking.faces import ExtractorInfo


def _frames(count: int = 3, side: int = 48) -> np.ndarray:
    photo = skimage.data.astronaut()
    return np.stack([photo[20 * i : 20 * i + side, 200 : 200 + side] for i in range(count)])


def _disturbed(frames: np.ndarray, spread: float = 12.0) -> np.ndarray:
    noise = np.random.default_rng(0).normal(0, spread, frames.shape)
    return (frames + noise).clip(0, 255).round().astype(np.uint8)


def test_psnr_equals_scikit_image() -> None:
    frames, other = _frames(), _disturbed(_frames())
    expected = [peak_signal_noise_ratio(a, b, data_range=255) for a, b in zip(frames, other, strict=True)]
    assert psnr(other, frames) == pytest.approx(expected, abs=1e-9)


def test_psnr_by_hand() -> None:
    # Every value off by 5: MSE 25, 10 log10(65025 / 25) = 34.151404 dB.
    black = np.zeros((1, 4, 4, 3), dtype=np.uint8)
    assert psnr(black + np.uint8(5), black)[0] == pytest.approx(34.151404, abs=1e-5)


def test_equal_frames_have_infinite_psnr_and_ssim_one() -> None:
    frames = _frames(1)
    assert np.isinf(psnr(frames, frames)[0])
    assert ssim(frames, frames)[0] == pytest.approx(1.0, abs=1e-12)


def test_gaussian_ssim_equals_scikit_image_and_torchmetrics() -> None:
    frames, other = _frames(), _disturbed(_frames())
    mine = ssim(other, frames, "gaussian")
    settings = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    for index, (a, b) in enumerate(zip(other, frames, strict=True)):
        theirs = structural_similarity(a, b, data_range=255, channel_axis=-1, **settings)
        assert mine[index] == pytest.approx(theirs, abs=1e-7)
    x, y = (torch.from_numpy(f).movedim(-1, 1).double() for f in (other, frames))
    torchs = structural_similarity_index_measure(x, y, data_range=255.0, reduction="none")
    # torchmetrics also counts a border of 5 pixels, whose windows see a reflection.
    borders = ((0, 0), (5, 5), (5, 5), (0, 0))
    reflected = ssim(np.pad(other, borders, mode="reflect"), np.pad(frames, borders, mode="reflect"))
    assert reflected == pytest.approx(torchs.numpy(), abs=1e-6)


def test_uniform_ssim_equals_scikit_images_default() -> None:
    frames, other = _frames(), _disturbed(_frames())
    theirs = [structural_similarity(a, b, data_range=255, channel_axis=-1) for a, b in zip(other, frames, strict=True)]
    assert ssim(other, frames, "uniform") == pytest.approx(theirs, abs=1e-7)


def test_the_two_definitions_of_ssim_differ_enough_to_be_named() -> None:
    frames, other = _frames(), _disturbed(_frames())
    assert np.abs(ssim(other, frames, "gaussian") - ssim(other, frames, "uniform")).max() > 0.005


def test_ssim_of_two_flat_images_by_hand() -> None:
    # No structure: only (2 a b + c1) / (a^2 + b^2 + c1), c1 = (0.01 * 255)^2 = 6.5025; a = 100, b = 120:
    # 24006.5025 / 24406.5025 = 0.983611.
    a, b = (np.full((1, 16, 16, 3), v, dtype=np.uint8) for v in (100, 120))
    for window in ("gaussian", "uniform"):
        assert ssim(a, b, window)[0] == pytest.approx(0.983611, abs=1e-6)


def test_a_shift_by_three_pixels_right_is_an_akd_of_one_and_a_half_and_both_ways_of_three() -> None:
    landmarks = np.random.default_rng(0).uniform(0, 256, (4, 68, 2))
    # The mean runs over x and y: (3 + 0) / 2 and (3 + 3) / 2.
    assert akd(landmarks + np.array([3.0, 0.0]), landmarks) == pytest.approx([1.5] * 4)
    assert akd(landmarks + np.array([3.0, -3.0]), landmarks) == pytest.approx([3.0] * 4)


def test_frames_without_a_face_are_counted_and_never_part_of_the_mean() -> None:
    landmarks = np.zeros((4, 68, 2))
    generated = landmarks + 2.0
    generated[1], landmarks[3] = np.nan, np.nan
    score = summarise(akd(generated, landmarks))
    assert (score.value, score.measured, score.missing) == (2.0, 2, 2)


def test_a_clip_without_any_face_has_no_score() -> None:
    score = summarise(np.full(3, np.nan))
    assert math.isnan(score.value) and (score.measured, score.missing) == (0, 3)


def test_aed_is_a_mean_over_64_numbers_not_a_sum() -> None:
    driving = np.zeros((1, 64))
    generated = driving.copy()
    generated[0, :16] = -0.4  # 16 * 0.4 / 64 = 0.1
    assert aed(generated, driving)[0] == pytest.approx(0.1)
    assert aed(generated + 3.0, driving + 3.0)[0] == pytest.approx(0.1)  # a difference: a common shift is none


def test_the_expression_error_is_the_difference_to_the_truth_in_its_own_space_only() -> None:
    truth = ClipTruth(
        camera=Camera.look_at_head(torch.zeros(2)).to_vector().numpy(),
        beta=np.full((2, 64), 1.5),
        expression_space="ict64",
        depth=np.zeros((2, 4, 4)),
    )
    measured = FaceMeasures(landmarks=np.zeros((2, 68, 2)), expression=np.full((2, 64), 2.0), pose=np.zeros((2, 6)))

    def scored(space: str) -> dict[str, np.ndarray]:
        return score_truth(truth, measured=measured, expression_space=space, depth=None, same_identity=True)

    assert scored("ict64")["expression_error"] == pytest.approx([0.5, 0.5])
    assert scored("ict64")["camera_angle_error"] == pytest.approx([0.0, 0.0], abs=1e-4)
    assert "expression_error" not in scored("bfm64")


def test_a_moving_clip_is_measured_frame_by_frame_and_a_standing_one_once() -> None:
    class Brightness:
        info = landmark_info = ExtractorInfo("brightness", "1", "", "")
        seen = 0

        def measure(self, frames: np.ndarray) -> FaceMeasures:
            self.seen += len(frames)
            value = frames.mean(axis=(1, 2, 3))
            landmarks, expression, pose = (np.ones((1, *shape)) for shape in ((68, 2), (64,), (6,)))
            return FaceMeasures(
                landmarks=value[:, None, None] * landmarks,
                expression=value[:, None] * expression,
                pose=value[:, None] * pose,
            )

    faces = Brightness()
    moving = np.stack([np.full((4, 4, 3), level, np.uint8) for level in (10, 20)])
    assert RememberedFaces(faces).measure(moving).expression[:, 0].tolist() == [10.0, 20.0]
    assert faces.seen == 2
    assert RememberedFaces(faces).measure(moving[[1, 1, 1]]).pose[:, 0].tolist() == [20.0] * 3
    assert faces.seen == 3


def test_apd_halves_are_given_apart_and_together() -> None:
    driving = np.zeros((1, 6))
    generated = np.array([[0.1, -0.2, 0.3, 0.0, 0.06, 0.0]])
    distance = apd(generated, driving)
    assert distance.rotation[0] == pytest.approx(0.2) and distance.translation[0] == pytest.approx(0.02)
    assert distance.apd[0] == pytest.approx(0.66 / 6)


def test_angles_are_compared_around_the_circle() -> None:
    driving, generated = np.zeros((1, 6)), np.zeros((1, 6))
    driving[0, 1], generated[0, 1] = math.pi - 0.05, -math.pi + 0.05  # 0.1 apart
    assert apd(generated, driving).rotation[0] == pytest.approx(0.1 / 3)


def test_csim_of_the_same_the_opposite_and_a_right_angle() -> None:
    source = np.array([2.0, 0.0])
    generated = np.array([[5.0, 0.0], [-1.0, 0.0], [0.0, 3.0], [3.0, 4.0], [np.nan, np.nan]])
    values = csim(generated, source)
    assert values[:4] == pytest.approx([1.0, -1.0, 0.0, 0.6]) and np.isnan(values[4])


def test_csim_against_driving_frames_goes_row_by_row() -> None:
    a = np.random.default_rng(0).normal(size=(3, 8))
    assert csim(a, a * [[2.0], [0.5], [9.0]]) == pytest.approx([1.0] * 3)
    assert np.isnan(csim(np.zeros((1, 8)), a[0])[0])


def test_wrong_shapes_and_types_are_named() -> None:
    frames = _frames()
    with pytest.raises(ValueError, match=r"generated must be uint8 \(T, H, W, 3\); got float64"):
        psnr(frames / 255.0, frames)
    with pytest.raises(ValueError, match=r"differ in shape: \(2, 48, 48, 3\), \(3, 48, 48, 3\)"):
        ssim(frames[:2], frames)
    with pytest.raises(ValueError, match=r"window must be one of .*; got 'box'"):
        ssim(frames, frames, "box")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"at least 11 pixels per side; got \(8, 8\)"):
        ssim(frames[:, :8, :8], frames[:, :8, :8])
    assert ssim(frames[:, :11, :11], frames[:, :11, :11]).tolist() == [1.0] * len(frames)
    with pytest.raises(ValueError, match=r"akd: driving must have shape \(T, 68, 2\); got \(3, 5, 2\)"):
        akd(np.zeros((3, 68, 2)), np.zeros((3, 5, 2)))
    with pytest.raises(ValueError, match="aed: 3 generated frames but 2 driving frames"):
        aed(np.zeros((3, 64)), np.zeros((2, 64)))
    with pytest.raises(ValueError, match=r"csim: expected .* got \(3, 8\) and \(2, 8\)"):
        csim(np.zeros((3, 8)), np.zeros((2, 8)))
