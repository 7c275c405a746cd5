"""Sweeps along the basis of CLeBS: one coefficient varied, all else held (Sec. 4.3, Figs. 9 and 13)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from export3d.animation.animator import Animator
from export3d.camera import Camera
from export3d.errors import UsageError
from export3d.expression.lebs import LeBS
from export3d.face_state import FaceState
from export3d.images import to_uint8
from export3d.portrait import Model, PortraitModel, drivable

PAPER_RANGES: dict[int, tuple[float, float]] = {
    1: (1.0, -7.0),
    3: (1.0, 20.0),
    4: (1.0, 10.0),
    6: (1.0, -7.0),
    8: (1.0, 10.0),
    9: (1.0, -10.0),
}
"""Basis vector (counted from 1) -> first and last value of its coefficient (Sec. 4.3: 4 and 8; Sec. 6.6.2: 1, 3, 6, 9)."""

_LABEL_PX = 20
_SPREAD_DRAWS = 4096


@dataclass(frozen=True, kw_only=True)
class SweepOptions:
    """Which coefficients take which values."""

    ranges: Literal["spread", "paper"] = "spread"
    """`spread`: the coefficient's own mean and spread; `paper`: the paper's ranges, for the six vectors it shows."""
    vectors: tuple[int, ...] = ()
    """Basis vectors, counted from 1; all that have a range when empty."""
    steps: int = 7
    """Pictures in a row."""
    deviations: float = 2.5
    """Reach of `spread` to either side of the mean, in standard deviations."""

    def __post_init__(self) -> None:
        if self.steps < 2 or self.deviations <= 0:
            raise UsageError(
                f"sweep: --steps must be at least 2 and --deviations above 0; got {self.steps}, {self.deviations}."
            )


def sweep_values(options: SweepOptions, mean: np.ndarray, spread: np.ndarray) -> dict[int, np.ndarray]:
    """Values of each swept coefficient.

    Args:
        options: which vectors and ranges.
        mean, spread: ``(n,)`` of the coefficients (`coefficient_spread`).

    Returns:
        Basis vector, counted from 1 -> ``(steps,)`` values in order.

    Raises:
        UsageError: A vector that the basis does not have, or that has no range in the paper.
    """
    count = len(mean)
    available = [i for i in PAPER_RANGES if i <= count] if options.ranges == "paper" else list(range(1, count + 1))
    wrong = [i for i in options.vectors if i not in available]
    if wrong:
        raise UsageError(
            f"sweep: --vectors {' '.join(map(str, wrong))}: with --ranges {options.ranges} this model has the vectors "
            f"{', '.join(map(str, available))}."
        )
    values = {}
    for vector in options.vectors or available:
        if options.ranges == "paper":
            first, last = PAPER_RANGES[vector]
        else:
            reach = options.deviations * spread[vector - 1]
            first, last = mean[vector - 1] - reach, mean[vector - 1] + reach
        values[vector] = np.linspace(first, last, options.steps)
    return values


def require_basis(model: Model) -> LeBS:
    """The model's basis; `UsageError` for a model without one."""
    if not isinstance(model.expression, LeBS):
        raise UsageError(
            f"sweep: this model's expression encoder is '{model.config.expression.kind}' and has no basis; take a model "
            "with expression.kind 'lebs'."
        )
    return model.expression


def coefficient_spread(model: Model, beta: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation ``(n,)`` of lambda.

    Args:
        model: with a basis.
        beta: ``(N, 64)`` expressions to measure on. None draws independent standard normal numbers, which fits the
            space `ict64` alone: its numbers are standardised over people and frames.
    """
    basis = require_basis(model)
    if beta is None:
        if model.config.expression.space != "ict64":
            raise UsageError(
                f"sweep: the expression space '{model.config.expression.space}' is not standardised; measure the spread "
                "on clips with --spread-from, or use --ranges paper."
            )
        beta = np.random.default_rng(0).normal(size=(_SPREAD_DRAWS, 64))
    with torch.inference_mode():
        found = basis.coefficients(_on_device(model, beta)).double().cpu().numpy()
    return found.mean(axis=0), found.std(axis=0)


def basis_ends(model: Model) -> dict[str, tuple[float, float]]:
    """Vector of the basis (`v1`, ...) -> the ends of its sweep, where they are known; none of the shipped model, whose face
    single weights move."""
    if isinstance(model, PortraitModel) or not isinstance(model.expression, LeBS):
        return {}
    if model.config.expression.space == "ict64":
        ends = sweep_values(SweepOptions(steps=2), *coefficient_spread(model))
    else:
        unknown = np.zeros(model.config.expression.num_basis)
        ends = sweep_values(SweepOptions(steps=2, ranges="paper"), unknown, unknown)
    return {f"v{number}": (float(first), float(last)) for number, (first, last) in ends.items()}


def weights_along(model: Model, beta: np.ndarray) -> Tensor | None:
    """How the single expression weights that the model reads off beta go with the coefficients: ``(n, 52)``, weights per
    unit of lambda, by least squares, NaN for weights that it does not read; None for the paper's model, which reads none.

    Args:
        model: with a basis.
        beta: ``(N, 64)`` expressions to measure on; they should be real ones, since what goes together is what counts.
    """
    basis = require_basis(model)
    if not isinstance(model, PortraitModel):
        return None
    given = _on_device(model, beta)
    with torch.inference_mode():
        weights, coefficients = model.cues.weights(given), basis.coefficients(given)
    read = ~weights.isnan().any(dim=0)
    centred = [(x - x.mean(dim=0)).double().cpu() for x in (coefficients, weights[:, read])]
    slope = weights.new_full((coefficients.shape[1], weights.shape[1]), torch.nan)
    slope[:, read] = torch.linalg.lstsq(centred[0], centred[1], driver="gelsd").solution.to(weights)
    return slope


def sweep_frames(
    animator: Animator,
    values: Mapping[int, np.ndarray],
    *,
    slope: Tensor | None = None,
    camera: np.ndarray | None = None,
    on_frame: Callable[[int], None] | None = None,
) -> dict[int, np.ndarray]:
    """Pictures of the current portrait with one coefficient at a time set to the given values.

    The other coefficients are those of the portrait's own expression. A model that also reads single weights off beta has
    them changed along with the coefficient, or they would hold the face still.

    Args:
        animator: with a portrait.
        values: from `sweep_values`.
        slope: from `weights_along`; None takes the weights of the nearest beta that has the coefficients, which moves the
            face less.
        camera: ``(25,)``; None is the portrait's own.
        on_frame: called with the number of pictures that are done.

    Returns:
        Basis vector -> uint8 ``(steps, S, S, 3)``.
    """
    model, subject = animator.model, animator.current()
    basis, calls = require_basis(model), drivable(model)
    vector = subject.camera if camera is None else camera
    view = Camera.of_array(vector).to(animator.device)
    frames: dict[int, np.ndarray] = {}
    done = 0
    with torch.inference_mode():
        beta = subject.state.beta.to(animator.device)
        own = basis.coefficients(beta)
        for index, row in values.items():
            pictures = []
            for value in row:
                coefficients = own.clone()
                coefficients[:, index - 1] = float(value)
                if slope is None or not isinstance(model, PortraitModel):
                    state = FaceState(beta=basis.nearest_beta(coefficients, beta))
                else:
                    moved = model.cues.weights(beta) + (coefficients - own) @ slope.to(own)
                    state = FaceState(beta=beta, weights=moved)
                image = calls.render(calls.drive(subject.code, state, coefficients), view).image
                assert image is not None  # only raw renderings have none
                pictures.append(to_uint8(image[0]))
                done += 1
                if on_frame is not None:
                    on_frame(done)
            frames[index] = np.stack(pictures)
    return frames


def _on_device(model: Model, beta: np.ndarray) -> Tensor:
    return torch.from_numpy(beta.astype(np.float32)).to(next(model.parameters()).device)


def sweep_sheet(frames: Mapping[int, np.ndarray], values: Mapping[int, np.ndarray]) -> np.ndarray:
    """A contact sheet with one labelled row per basis vector: uint8 ``(rows * (S + 20), steps * S, 3)``."""
    size = next(iter(frames.values())).shape[1]
    steps = max(len(row) for row in frames.values())
    sheet = Image.new("RGB", (steps * size, len(frames) * (size + _LABEL_PX)), (255, 255, 255))
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
    for row, (vector, pictures) in enumerate(frames.items()):
        top = row * (size + _LABEL_PX)
        for column, (picture, value) in enumerate(zip(pictures, values[vector], strict=True)):
            sheet.paste(Image.fromarray(picture), (column * size, top + _LABEL_PX))
            name = f"v{vector}: " if column == 0 else ""
            pen.text((column * size + 4, top + 3), f"{name}{value:.2f}", fill=(30, 30, 30), font=font)
    return np.asarray(sheet)
