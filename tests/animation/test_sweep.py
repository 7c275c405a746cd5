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
    require_basis,
    sweep_frames,
    sweep_sheet,
    sweep_values,
    weights_along,
)
from export3d.camera import Camera
from export3d.errors import UsageError
from export3d.expression.lebs import LeBSConfig
from export3d.face_state import FaceState
from export3d.portrait import PortraitModel, build_model, drivable, preset
from export3d.tracking import Crop, ExtractorInfo


class _Coefficients:
    """Says which expression space the animator's portraits have; nothing is tracked here."""

    info = ExtractorInfo("none", "1", "", "ict64")


@pytest.fixture(scope="module")
def animator(tiny_model: PortraitModel) -> Animator:
    animator = Animator(tiny_model, _Coefficients())  # type: ignore[arg-type]
    image = np.random.default_rng(0).integers(0, 255, (48, 48, 3), dtype=np.uint8)
    state = FaceState.of(beta=np.random.default_rng(1).normal(size=64))
    camera = Camera.look_at_head().to_vector()[0].numpy()
    animator.encode(image, Crop(24.0, 24.0, 48.0), state, camera)
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
    own = require_basis(animator.model).coefficients(torch.from_numpy(beta).float()).double().numpy()
    mean, spread = coefficient_spread(animator.model, beta)
    assert mean == pytest.approx(own.mean(0)) and spread == pytest.approx(own.std(0))


def test_the_portrait_s_own_coefficient_gives_the_portrait_s_own_picture(animator: Animator) -> None:
    subject = animator.subject
    assert isinstance(subject, Subject)
    own = float(require_basis(animator.model).coefficients(subject.state.beta)[0, 2])
    seen: list[int] = []
    frames = sweep_frames(animator, {3: np.array([own, own + 20.0])}, on_frame=seen.append)
    exact = Animator(animator.model, animator.tracker, exact=True)  # sweeps leave nothing out
    exact.subject = subject
    expected = exact.frame(subject.state, subject.camera)
    assert np.abs(frames[3][0].astype(int) - expected).max() <= 1  # rounding of the same sum in another order
    assert not np.array_equal(frames[3][0], frames[3][1])
    assert seen == [1, 2]


def test_weights_go_with_the_coefficients_as_they_do_in_the_given_expressions() -> None:
    torch.manual_seed(5)
    model = a_model()
    basis, beta = require_basis(model), np.random.default_rng(3).normal(size=(400, 64))
    given = torch.from_numpy(beta).float()
    for part in model.cues.shapes:
        # The maps read off beta what the coefficients say as nearly as a straight line can: a known slope.
        wanted = torch.randn(basis.config.num_basis, len(part.names))
        part.set_map(
            torch.linalg.lstsq(given, basis.coefficients(given) @ wanted).solution, torch.zeros(len(part.names))
        )
    slope = weights_along(model, beta)
    assert slope is not None and slope.shape == (basis.config.num_basis, 52)
    weights, coefficients = model.cues.weights(given), basis.coefficients(given)
    read = ~weights.isnan().any(dim=0)
    assert 0 < int(read.sum()) < 52 and slope[:, ~read].isnan().all()
    centred = coefficients - coefficients.mean(0)
    errors = (weights - weights.mean(0))[:, read] - centred @ slope[:, read]
    # Least squares: what is left over tells nothing of the coefficients.
    assert (errors.T @ centred).abs().max() / len(given) < 1e-4
    assert slope[:, read].abs().max() > 0.1  # or the test could not fail
    assert weights_along(build_model(preset("tiny")), beta) is None


def test_a_slope_moves_the_picture_and_not_at_the_portrait_s_own_coefficient() -> None:
    torch.manual_seed(6)
    model = a_model()
    for part in model.cues.shapes:
        part.set_map(0.1 * torch.randn(64, len(part.names)), torch.zeros(len(part.names)))
    for parameter in model.parameters():
        parameter.requires_grad_(False).add_(0.05 * torch.randn_like(parameter))
    animator = Animator(model, _Coefficients())  # type: ignore[arg-type]
    image = np.random.default_rng(0).integers(0, 255, (48, 48, 3), dtype=np.uint8)
    state = FaceState.of(beta=np.random.default_rng(1).normal(size=64))
    animator.encode(image, Crop(24.0, 24.0, 48.0), state, Camera.look_at_head().to_vector()[0].numpy())
    own = float(require_basis(model).coefficients(state.beta)[0, 2])
    slope = torch.zeros(model.config.expression.num_basis, 52)
    values = {3: np.array([own, own + 2.0])}
    still, moved = sweep_frames(animator, values, slope=slope), sweep_frames(animator, values, slope=slope + 3.0)
    assert np.array_equal(still[3][0], moved[3][0]) and not np.array_equal(still[3][1], moved[3][1])


def a_model() -> PortraitModel:
    model = build_model(preset("tiny-portrait")).eval().requires_grad_(False)
    assert isinstance(model, PortraitModel)
    return model


@pytest.mark.parametrize("conditioning", ["eadaln", "cross_attention"])
def test_the_own_coefficients_drive_the_paper_s_model_as_the_expression_does(conditioning: str) -> None:
    config = preset("tiny")
    model = build_model(replace(config, generator=replace(config.generator, conditioning=conditioning))).eval()
    state, calls = FaceState(beta=torch.randn(1, 64)), drivable(model)
    with torch.inference_mode():
        code = calls.encode(torch.rand(1, 3, 32, 32), Camera.look_at_head(), state)
        own = calls.drive(code, state, require_basis(model).coefficients(state.beta))
        assert torch.allclose(own, calls.drive(code, state), atol=1e-6)


def test_a_model_without_a_basis_is_refused() -> None:
    config = preset("tiny")
    direct = LeBSConfig(kind="direct", dim=config.expression.dim, pretrained=False)
    with pytest.raises(UsageError, match="has no basis"):
        coefficient_spread(build_model(replace(config, expression=direct)))


def test_the_sheet_has_a_labelled_row_per_vector() -> None:
    frames = {i: np.full((3, 32, 32, 3), 40 * i, np.uint8) for i in (1, 4)}
    sheet = sweep_sheet(frames, {i: np.linspace(0, 1, 3) for i in (1, 4)})
    assert sheet.shape == (2 * (32 + 20), 3 * 32, 3)
    assert (sheet[20:52] == 40).all() and (sheet[72:] == 160).all()
    assert (sheet[:20] < 128).any()  # the label
    assert set(PAPER_RANGES) == {1, 3, 4, 6, 8, 9}
