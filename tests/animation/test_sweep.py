"""Sweeps along the basis: values, the pictures of a tiny model, and the refusals."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from export3d.animation import Animator, Subject
from export3d.animation.sweep import (
    PAPER_RANGES,
    SweepOptions,
    coefficient_spread,
    shapes_along,
    sweep_frames,
    sweep_sheet,
    sweep_values,
)
from export3d.camera import Camera
from export3d.errors import UsageError
from export3d.expression.lebs import LeBSConfig
from export3d.model import Export3D, preset
from export3d.tracking import Crop, ExtractorInfo


class _Coefficients:
    """Says which expression space the animator's portraits have; nothing is tracked here."""

    info = ExtractorInfo("none", "1", "", "ict64")


@pytest.fixture(scope="module")
def animator(tiny_model: Export3D) -> Animator:
    animator = Animator(tiny_model, _Coefficients())  # type: ignore[arg-type]
    image = np.random.default_rng(0).integers(0, 255, (48, 48, 3), dtype=np.uint8)
    beta = np.random.default_rng(1).normal(size=64).astype(np.float32)
    camera = Camera.look_at_head().to_vector()[0].numpy()
    animator.encode(image, Crop(24.0, 24.0, 48.0), beta, camera)
    return animator


def test_a_sweep_by_spread_reaches_the_asked_deviations() -> None:
    values = sweep_values(SweepOptions(steps=3, deviations=2.0), np.array([1.0, 0.0]), np.array([0.5, 3.0]))
    assert {k: v.tolist() for k, v in values.items()} == {1: [0.0, 1.0, 2.0], 2: [-6.0, 0.0, 6.0]}


def test_the_paper_s_ranges_are_those_of_its_figures() -> None:
    values = sweep_values(SweepOptions(ranges="paper", steps=2), np.zeros(10), np.ones(10))
    # Sec. 4.3: 4 and 8 from 1 to 10. Sec. 6.6.2: 1 and 6 from 1 to -7, 3 from 1 to 20, 9 from 1 to -10.
    expected = {1: [1, -7], 3: [1, 20], 4: [1, 10], 6: [1, -7], 8: [1, 10], 9: [1, -10]}
    assert {k: v.tolist() for k, v in values.items()} == expected
    assert set(sweep_values(SweepOptions(ranges="paper"), np.zeros(5), np.ones(5))) == {1, 3, 4}


@pytest.mark.parametrize(("ranges", "vector"), [("spread", 11), ("spread", 0), ("paper", 2)])
def test_a_vector_without_a_range_is_refused(ranges: str, vector: int) -> None:
    with pytest.raises(UsageError, match=f"--vectors {vector}: with --ranges {ranges}"):
        sweep_values(SweepOptions(ranges=ranges, vectors=(vector,)), np.zeros(10), np.ones(10))  # type: ignore[arg-type]


def test_the_spread_of_the_coefficients_is_that_of_the_given_expressions(animator: Animator) -> None:
    beta = np.random.default_rng(2).normal(size=(50, 64))
    own = animator.model.coefficients(torch.from_numpy(beta).float()).double().numpy()
    mean, spread = coefficient_spread(animator.model, beta)
    assert mean == pytest.approx(own.mean(0)) and spread == pytest.approx(own.std(0))


def test_the_portrait_s_own_coefficient_gives_the_portrait_s_own_picture(animator: Animator) -> None:
    subject = animator.subject
    assert isinstance(subject, Subject)
    own = float(animator.model.coefficients(torch.from_numpy(subject.beta)[None])[0, 2])
    seen: list[int] = []
    frames = sweep_frames(animator, {3: np.array([own, own + 20.0])}, on_frame=seen.append)
    exact = animator.twin()
    exact.fast, exact.half = None, False  # sweeps leave nothing out
    expected = exact.frame(subject.beta, subject.camera)
    assert np.abs(frames[3][0].astype(int) - expected).max() <= 1  # rounding of the same sum in another order
    assert not np.array_equal(frames[3][0], frames[3][1])
    assert seen == [1, 2]


def test_expression_weights_go_with_the_coefficients_as_they_do_in_the_given_expressions() -> None:
    torch.manual_seed(5)
    model = Export3D(replace(preset("tiny"), upper_face=True)).eval().requires_grad_(False)
    assert model.upper_face is not None
    beta = np.random.default_rng(3).normal(size=(400, 64))
    # The coefficients are mixed into the first numbers of beta, from which the weights are read: a known slope.
    given = torch.from_numpy(beta).float()
    wanted = torch.randn(model.config.expression.num_basis, len(model.upper_face.names))
    weight = torch.linalg.lstsq(given, model.coefficients(given) @ wanted).solution
    model.upper_face.set_map(weight, torch.zeros(len(model.upper_face.names)))
    slope = shapes_along(model, beta)
    assert slope is not None
    left = model.read_shapes(given)
    assert left is not None
    coefficients = model.coefficients(given)
    errors = (left - left.mean(0)) - (coefficients - coefficients.mean(0)) @ slope
    # Least squares: what is left over tells nothing of the coefficients.
    assert (errors.T @ (coefficients - coefficients.mean(0))).abs().max() / len(given) < 1e-4
    assert torch.allclose(slope, wanted, atol=0.3 * float(wanted.abs().max()))
    assert shapes_along(Export3D(preset("tiny")), beta) is None


def test_a_slope_moves_the_picture_and_not_at_the_portrait_s_own_coefficient() -> None:
    torch.manual_seed(6)
    model = Export3D(replace(preset("tiny"), upper_face=True)).eval().requires_grad_(False)
    assert model.upper_face is not None
    model.upper_face.set_map(
        0.1 * torch.randn(64, len(model.upper_face.names)), torch.zeros(len(model.upper_face.names))
    )
    for parameter in model.parameters():
        parameter.add_(0.05 * torch.randn_like(parameter))
    animator = Animator(model, _Coefficients())  # type: ignore[arg-type]
    image = np.random.default_rng(0).integers(0, 255, (48, 48, 3), dtype=np.uint8)
    beta = np.random.default_rng(1).normal(size=64).astype(np.float32)
    animator.encode(image, Crop(24.0, 24.0, 48.0), beta, Camera.look_at_head().to_vector()[0].numpy())
    own = float(model.coefficients(torch.from_numpy(beta)[None])[0, 2])
    slope = torch.zeros(model.config.expression.num_basis, len(model.upper_face.names))
    values = {3: np.array([own, own + 2.0])}
    still, moved = sweep_frames(animator, values, slope=slope), sweep_frames(animator, values, slope=slope + 3.0)
    assert np.array_equal(still[3][0], moved[3][0]) and not np.array_equal(still[3][1], moved[3][1])


def test_planes_from_the_own_code_are_the_planes_of_the_expression(animator: Animator) -> None:
    model, subject = animator.model, animator.subject
    assert subject is not None
    beta = torch.from_numpy(subject.beta)[None]
    with torch.inference_mode():
        code = model.code_of_coefficients(model.coefficients(beta))
        assert torch.allclose(model.planes_from_code(subject.code, code), model.planes(subject.code, beta), atol=1e-6)


def test_cross_attention_takes_the_scaled_basis() -> None:
    config = preset("tiny")
    model = Export3D(replace(config, generator=replace(config.generator, conditioning="cross_attention")))
    coefficients = torch.randn(2, config.expression.num_basis)
    code = model.code_of_coefficients(coefficients)
    assert code.shape == (2, config.expression.num_basis, config.expression.dim)
    # Columns of the basis have length 1, so each token is as long as its coefficient.
    assert torch.allclose(code.norm(dim=-1), coefficients.abs(), atol=1e-5)


def test_a_model_without_a_basis_is_refused() -> None:
    config = preset("tiny")
    direct = LeBSConfig(kind="direct", dim=config.expression.dim, pretrained=False)
    with pytest.raises(UsageError, match="has no basis"):
        coefficient_spread(Export3D(replace(config, expression=direct)))


def test_the_sheet_has_a_labelled_row_per_vector() -> None:
    frames = {i: np.full((3, 32, 32, 3), 40 * i, np.uint8) for i in (1, 4)}
    sheet = sweep_sheet(frames, {i: np.linspace(0, 1, 3) for i in (1, 4)})
    assert sheet.shape == (2 * (32 + 20), 3 * 32, 3)
    assert (sheet[20:52] == 40).all() and (sheet[72:] == 160).all()
    assert (sheet[:20] < 128).any()  # the label
    assert set(PAPER_RANGES) == {1, 3, 4, 6, 8, 9}
