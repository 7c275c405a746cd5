"""The landmark fit: exact algebra against autograd and plain references, honest entanglement, a stable file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from export3d.camera import Camera
from export3d.errors import HeadModelError
from export3d.heads.clips.acting import independent
from export3d.heads.clips.extractor import (
    NUM_EXPRESSION,
    NUM_IDENTITY,
    ExtractorConfig,
    LinearExtractor,
)
from export3d.heads.clips.people import (
    add_noise,
    draw_person,
    landmarks_world,
)
from export3d.heads.shape.parametric import EXPRESSION_NAMES, WORLD_ORIGIN_CM, WORLD_SCALE, ParametricHead
from export3d.heads.shape.procedural import procedural_head
from export3d.landmarks import MIRRORED_LANDMARKS, mirror_points

SMALL = ExtractorConfig(statistics_identities=60)


@pytest.fixture(scope="module")
def head() -> ParametricHead:
    return procedural_head()


@pytest.fixture(scope="module")
def extractor(head: ParametricHead) -> LinearExtractor:
    return LinearExtractor.build(head, SMALL)


def project_landmarks(
    head: ParametricHead, identity: torch.Tensor, weights: torch.Tensor, camera: Camera
) -> torch.Tensor:
    return camera.project(landmarks_world(head, identity, weights))[0]


def mirrored_weights(weights: torch.Tensor) -> torch.Tensor:
    order = []
    for name in EXPRESSION_NAMES:
        for ending, other in (("_L", "_R"), ("_R", "_L"), ("Left", "Right"), ("Right", "Left"), ("", "")):
            if name.endswith(ending):
                order.append(EXPRESSION_NAMES.index(name.removesuffix(ending) + other if ending else name))
                break
    return weights[:, order]


def test_mirroring_landmarks_twice_gives_them_back() -> None:
    assert MIRRORED_LANDMARKS[MIRRORED_LANDMARKS].tolist() == list(range(68))
    landmarks = torch.rand(3, 68, 2)
    torch.testing.assert_close(mirror_points(mirror_points(landmarks)), landmarks)


def test_the_mirrored_camera_sees_the_mirrored_face(head: ParametricHead) -> None:
    motion = independent(3, 8)
    weights, camera = torch.from_numpy(motion.weights), motion.camera()
    nobody = torch.zeros(80)  # the mean head is symmetric
    seen = project_landmarks(head, nobody, weights, camera)
    seen_in_mirror = project_landmarks(head, nobody, mirrored_weights(weights), camera.mirrored())
    torch.testing.assert_close(mirror_points(seen), seen_in_mirror, atol=1e-4, rtol=0)


def test_projected_landmarks_follow_equation_11(head: ParametricHead) -> None:
    rng = np.random.default_rng(0)
    alpha, weights = rng.normal(size=80).astype(np.float32), rng.random((1, 53)).astype(np.float32)
    camera = Camera.look_at_head(0.3, -0.1, 0.05)
    given = project_landmarks(head, torch.from_numpy(alpha), torch.from_numpy(weights), camera)[0]
    for point in (8, 30, 54):  # slow float64 reference, one point at a time
        vertex = int(head.landmark_vertices[point])
        place = head.vertices[vertex].double().numpy().copy()
        for k in range(80):
            place += float(alpha[k]) * head.identity_basis[k, vertex].double().numpy()
        for k in range(53):
            place += float(weights[0, k]) * head.expression_basis[k, vertex].double().numpy()
        world = (place - np.array(WORLD_ORIGIN_CM)) * WORLD_SCALE
        to_camera = np.linalg.inv(camera.cam_to_world[0].double().numpy())
        x, y, z = to_camera[:3, :3] @ world + to_camera[:3, 3]
        focal = float(camera.intrinsics[0, 0, 0])
        np.testing.assert_allclose(given[point].numpy(), [focal * x / z + 0.5, focal * y / z + 0.5], atol=1e-5)


def test_the_fit_is_the_optimum_of_landmark_error_plus_prior(head: ParametricHead) -> None:
    extractor = LinearExtractor.build(head, ExtractorConfig(statistics_identities=4, statistics_frames=4, steps=8))
    person = draw_person(head, 5, lambda seed, rest: independent(seed, 3, resting=rest))
    camera = person.camera
    noisy = add_noise(person.landmarks, np.random.default_rng(0), 1.0).double()
    found = extractor.coefficients(noisy, camera).requires_grad_(True)
    view = Camera(camera.cam_to_world.double(), camera.intrinsics.double())
    tensors = extractor._tensors
    points = tensors["mean_world"] + torch.einsum("tk,klj->tlj", found, tensors["modes_world"])
    error = ((view.project(points)[0] - noisy) * 256.0 / extractor.config.noise_px) ** 2
    cost = error.sum() + (found**2).sum()
    (slope,) = torch.autograd.grad(cost, found)
    # At a random place the slope is of the order of 1e3; eight Gauss-Newton steps bring it down to rounding.
    assert float(slope.abs().max()) < 1e-4


def test_two_steps_are_close_to_converged(head: ParametricHead, extractor: LinearExtractor) -> None:
    many = LinearExtractor(ExtractorConfig(steps=8), extractor._tensors, extractor.sha256)
    person = draw_person(head, 6, lambda seed, rest: independent(seed, 10, resting=rest))
    camera = person.camera
    difference = extractor.fit(person.landmarks, camera) - many.fit(person.landmarks, camera)
    assert float(difference.abs().mean()) < 0.02


def test_the_fit_explains_the_landmarks_to_within_their_noise(head: ParametricHead, extractor: LinearExtractor) -> None:
    person = draw_person(head, 7, lambda seed, rest: independent(seed, 10, resting=rest))
    camera = person.camera
    coefficients = extractor.coefficients(person.landmarks, camera).float()
    points = extractor._tensors["mean_world"] + torch.einsum(
        "tk,klj->tlj", coefficients.double(), extractor._tensors["modes_world"]
    )
    error_px = (camera.project(points.float())[0] - person.landmarks).norm(dim=2) * 256.0
    assert float(error_px.mean()) < extractor.config.noise_px


def test_true_beta_is_whitened_and_linear_and_ends_in_zeros(extractor: LinearExtractor) -> None:
    drawn = np.concatenate([independent(900 + seed, 10).weights for seed in range(120)])
    scores = extractor.true_beta(torch.from_numpy(drawn)).double()
    assert scores.shape == (1200, 64) and float(scores[:, NUM_EXPRESSION:].abs().max()) == 0.0
    # Not the sample behind the modes, so the leading variances are 1 only up to the sampling error.
    np.testing.assert_allclose(scores[:, :8].std(0).numpy(), np.ones(8), atol=0.35)
    correlation = np.corrcoef(scores[:, :8].numpy().T)
    assert np.abs(correlation - np.eye(8)).max() < 0.35
    a, b = torch.rand(1, 53), torch.rand(1, 53)
    beta = extractor.true_beta
    torch.testing.assert_close(
        beta(a + b) - beta(torch.zeros(1, 53)), beta(a) + beta(b) - 2 * beta(torch.zeros(1, 53)), atol=1e-2, rtol=1e-3
    )


def test_the_modes_span_the_displacement_of_the_face_exactly(head: ParametricHead, extractor: LinearExtractor) -> None:
    weights = torch.rand(2, 53, dtype=torch.float64)
    scores = (weights - extractor._tensors["mean_weights"]) @ extractor._tensors["weights_to_scores"]
    expression = extractor._tensors["modes_world"][NUM_IDENTITY : NUM_IDENTITY + NUM_EXPRESSION]
    by_modes = torch.einsum("tk,klj->tlj", scores, expression)
    shapes = head.expression_basis[:, head.landmark_vertices].double() * WORLD_SCALE
    by_weights = torch.einsum("tk,klj->tlj", weights - extractor._tensors["mean_weights"], shapes)
    torch.testing.assert_close(by_modes, by_weights, atol=1e-9, rtol=0)


def test_beta_hat_is_standardised_over_new_people(head: ParametricHead, extractor: LinearExtractor) -> None:
    fitted = []
    for seed in range(400, 430):
        person = draw_person(head, seed, lambda s, rest: independent(s, 8, resting=rest))
        noisy = add_noise(person.landmarks, np.random.default_rng(seed), extractor.config.noise_px)
        fitted.append(extractor.fit(noisy, person.camera))
    beta = torch.cat(fitted)
    assert beta.dtype == torch.float32 and beta.shape == (240, 64)
    assert float(beta.mean(0)[:12].abs().max()) < 0.6  # 30 people: a mean is known to about 1 / sqrt(30) = 0.18
    assert 0.6 < float(beta.std(0)[:12].min()) and float(beta.std(0)[:12].max()) < 1.5


def test_identity_leaks_into_beta_hat_although_nothing_injects_it(
    head: ParametricHead, extractor: LinearExtractor
) -> None:
    """Two people without resting faces make the same expression, seen without noise: beta-hat differs."""
    still = torch.zeros(1, 53)
    camera = Camera.look_at_head()
    rng = np.random.default_rng(1)
    people = [torch.from_numpy((0.85 * rng.normal(size=91)).astype(np.float32)) for _ in range(2)]
    first, second = (extractor.fit(project_landmarks(head, person, still, camera), camera) for person in people)
    torch.testing.assert_close(extractor.true_beta(still), extractor.true_beta(still.clone()))
    assert float((first - second)[:, :NUM_EXPRESSION].abs().max()) > 0.3


def test_the_true_expression_can_be_read_from_beta_hat(head: ParametricHead, extractor: LinearExtractor) -> None:
    jaw = EXPRESSION_NAMES.index("jawOpen")
    weights = torch.zeros(5, 53)
    weights[:, jaw] = torch.linspace(0.0, 1.0, 5)
    camera = Camera.look_at_head(torch.zeros(5))
    person = torch.from_numpy((0.85 * np.random.default_rng(2).normal(size=80)).astype(np.float32))
    beta = extractor.fit(project_landmarks(head, person, weights, camera), camera).double()
    true = extractor.true_beta(weights).double()
    along = (true[-1] - true[0]) / (true[-1] - true[0]).norm()
    steps = (beta @ along).diff()
    assert bool((steps > 0).all())  # it grows with every quarter of the opening


def test_mirrored_landmarks_give_the_mirrored_expression(head: ParametricHead, extractor: LinearExtractor) -> None:
    motion = independent(8, 6)
    weights, camera = torch.from_numpy(motion.weights), motion.camera()
    seen = project_landmarks(head, torch.zeros(80), weights, camera)
    swapped = project_landmarks(head, torch.zeros(80), mirrored_weights(weights), camera.mirrored())
    torch.testing.assert_close(
        extractor.fit(mirror_points(seen), camera.mirrored()),
        extractor.fit(swapped, camera.mirrored()),
        atol=2e-2,
        rtol=0,
    )


def test_building_is_deterministic_and_the_hash_follows_the_settings(head: ParametricHead) -> None:
    config = ExtractorConfig(statistics_identities=4, statistics_frames=4)
    first, second = LinearExtractor.build(head, config), LinearExtractor.build(head, config)
    assert first.sha256 == second.sha256
    for name, tensor in first._tensors.items():
        assert torch.equal(tensor, second._tensors[name]), name
    other = ExtractorConfig(statistics_identities=4, statistics_frames=4, noise_px=1.0)
    assert LinearExtractor.build(head, other).sha256 != first.sha256
    assert first.info["expression_space"] == "ict64"


def test_a_saved_extractor_gives_the_same_beta(
    head: ParametricHead, extractor: LinearExtractor, tmp_path: Path
) -> None:
    extractor.save(tmp_path / "extractor.safetensors")
    loaded = LinearExtractor.load(tmp_path / "extractor.safetensors")
    person = draw_person(head, 9, lambda seed, rest: independent(seed, 2, resting=rest))
    camera = person.camera
    assert torch.equal(loaded.fit(person.landmarks, camera), extractor.fit(person.landmarks, camera))
    assert loaded.info == extractor.info and loaded.config == extractor.config
    assert [path.name for path in tmp_path.iterdir()] == ["extractor.safetensors"]


def test_a_missing_damaged_or_foreign_extractor_file_is_refused(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    with pytest.raises(HeadModelError, match="no such extractor file"):
        LinearExtractor.load(tmp_path / "none")
    (tmp_path / "damaged").write_bytes(b"not a safetensors file")
    with pytest.raises(HeadModelError, match="not a readable safetensors file"):
        LinearExtractor.load(tmp_path / "damaged")
    save_file({"a": torch.zeros(1)}, tmp_path / "foreign", {"format": "something"})
    with pytest.raises(
        HeadModelError, match="expected format 'export3d-extractor', version 1; got 'something'"
    ) as caught:
        LinearExtractor.load(tmp_path / "foreign")
    assert caught.value.exit_code == 25


@pytest.mark.parametrize("wrong", [{"noise_px": 0.0}, {"steps": 0}, {"statistics_identities": 1}])
def test_impossible_settings_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="ExtractorConfig"):
        ExtractorConfig(**wrong)  # type: ignore[arg-type]


def test_landmarks_of_another_count_than_cameras_are_refused(extractor: LinearExtractor) -> None:
    with pytest.raises(ValueError, match=r"landmarks must have shape \(1, 68, 2\); got \(2, 68, 2\)"):
        extractor.fit(torch.zeros(2, 68, 2), Camera.look_at_head())
