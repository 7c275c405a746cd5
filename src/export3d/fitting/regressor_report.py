"""How well face tracker and regressor together read rendered heads: R^2, slopes, plain quantities, camera (Sec. 4)."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import torch

from export3d.camera import Camera
from export3d.fitting.detections import Detections
from export3d.fitting.mesh_regressor import meshes_in_crops, within
from export3d.heads.clips.people import REFERENCE_SIZE
from export3d.heads.shape.parametric import EXPRESSION_NAMES
from export3d.tracking.alignment import crop_squares
from export3d.tracking.regressor import LandmarkRegressor, pose_from_camera

YAW_EDGES_DEG = (0.0, 10.0, 20.0, 30.0, 40.0, 50.0)

QUANTITIES = {
    "jaw_open": ("jawOpen",),
    "blink": ("eyeBlink_L", "eyeBlink_R"),
    "smile": ("mouthSmile_L", "mouthSmile_R"),
    "brow_raise": ("browInnerUp", "browOuterUp"),
    "brow_lower": ("browDown_L", "browDown_R"),
    "pucker": ("mouthPucker",),
}
"""Plain quantities: means of weights of these shapes (a name without a side stands for both sides)."""

_RIDGE = 1e-3


def measure_detections(regressor: LandmarkRegressor, seen: Detections, probe: np.ndarray) -> dict[str, object]:
    """Measured by the 68 points, and by the dense mesh where there is one.

    Args:
        probe: beta -> plain quantities, from :func:`fit_probe` on other people.
    """
    asked = np.abs(np.rad2deg(seen.asked_yaw))
    ranges = {}
    for low, high in pairwise(YAW_EDGES_DEG):
        inside = (asked >= low) & (asked < high)
        if inside.any():
            share = rounded(seen.found[inside].mean())
            ranges[f"{low:.0f}-{high:.0f}"] = {"frames": int(inside.sum()), "found": share}
    squares = crop_squares(seen.found_landmarks, regressor.alignment)[:, None]
    found = ((seen.found_landmarks - squares[..., :2]) / squares[..., 2:] + 0.5).astype(np.float32)
    truth = (seen.true_landmarks - squares[..., :2]) / squares[..., 2:] + 0.5
    # Beta that the answer is compared with is itself a fit to noisy points: what the probe makes of it is the ceiling.
    answers: dict[str, tuple[np.ndarray, np.ndarray]] = {"points": regressor.coefficients(found)}
    if regressor.mesh_net is not None and seen.has_mesh:
        answers["mesh"] = regressor.coefficients_of_meshes(meshes_in_crops(seen, regressor.alignment))
    results: dict[str, object] = {
        "frames": len(seen.found),
        "people": len(np.unique(seen.clip)),
        "found_share": rounded(seen.found.mean()),
        "found_by_yaw_deg": ranges,
        "point_error_px_before_offsets": rounded(np.linalg.norm(found - truth, axis=-1).mean() * REFERENCE_SIZE),
        "point_error_px_after_offsets": rounded(
            np.linalg.norm(found - regressor.offsets - truth, axis=-1).mean() * REFERENCE_SIZE
        ),
        "read_by": {name: {**_beta(beta, seen), **_camera(p, seen)} for name, (beta, p) in answers.items()},
        "beta_r2_per_mode": {
            name: [rounded(v) for v in r2(beta, seen.true_beta)] for name, (beta, _) in answers.items()
        },
    }
    betas = {name: beta for name, (beta, _) in answers.items()} | {"clip_beta": seen.true_beta}
    wanted = quantities(seen.true_weights)
    results["quantities"] = [
        {
            "quantity": name,
            **{f"r2_{way}": rounded(r2(read(beta, probe), wanted)[i]) for way, beta in betas.items()},
            **{f"slope_{way}": rounded(_slope(read(beta, probe), wanted)[i]) for way, beta in betas.items()},
        }
        for i, name in enumerate(QUANTITIES)
    ]
    return results


def quantities(weights: np.ndarray) -> np.ndarray:
    """Weights ``(N, 53)`` -> plain quantities ``(N, 6)`` in [0, 1]."""
    columns = []
    for names in QUANTITIES.values():
        chosen = [i for i, name in enumerate(EXPRESSION_NAMES) if name in names or name[:-2] in names]
        columns.append(weights[:, chosen].mean(axis=1))
    return np.stack(columns, axis=1)


def fit_probe(beta: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """``(65, 6)``: ridge regression of the plain quantities on beta ``(N, 64)`` and a constant."""
    rows = np.concatenate([beta, np.ones((len(beta), 1))], axis=1).astype(np.float64)
    gram = rows.T @ rows + _RIDGE * len(rows) * np.diag([*np.ones(beta.shape[1]), 0.0])
    return np.linalg.solve(gram, rows.T @ quantities(weights))


def read(beta: np.ndarray, probe: np.ndarray) -> np.ndarray:
    """Plain quantities ``(N, 6)`` of beta ``(N, 64)``."""
    return beta @ probe[:-1] + probe[-1]


def _beta(beta: np.ndarray, seen: Detections) -> dict[str, object]:
    truth = seen.true_beta
    person = torch.from_numpy(seen.clip)
    inner, inner_truth = (within(torch.from_numpy(values), person).numpy() for values in (beta, truth))
    first = slice(0, 10)
    return {
        "beta_r2_first_10": rounded(r2(beta, truth)[first].mean()),
        "beta_r2_first_10_within_person": rounded(
            (1.0 - ((inner - inner_truth) ** 2).sum(0) / (inner_truth**2).sum(0))[first].mean()
        ),
        "beta_slope_first_10": rounded(_slope(beta, truth)[first].mean()),
        "beta_slope_first_10_within_person": rounded(_slope(inner, inner_truth)[first].mean()),
        "beta_sd_ratio_first_10": rounded((beta.std(0) / truth.std(0))[first].mean()),
    }


def _camera(p: np.ndarray, seen: Detections) -> dict[str, object]:
    camera = Camera.from_vector(torch.from_numpy(p))
    angles, wanted = camera.head_angles().rad2deg().numpy(), np.rad2deg(seen.true_angles())
    origin = pose_from_camera(camera)[:, 6:].numpy()
    columns: dict[str, Callable[[int], float]] = {
        "error_deg": lambda i: np.abs(angles[:, i] - wanted[:, i]).mean(),
        "correlation": lambda i: np.corrcoef(angles[:, i], wanted[:, i])[0, 1],
        "slope": lambda i: np.polyfit(wanted[:, i], angles[:, i], 1)[0],
    }
    names = ("yaw", "pitch", "roll")
    named: dict[str, object] = {
        f"{n}_{angle}": rounded(f(i)) for n, f in columns.items() for i, angle in enumerate(names)
    }
    return named | {
        "origin_mean": [rounded(value) for value in origin.mean(axis=0)],
        "origin_sd": [rounded(value) for value in origin.std(axis=0)],
    }


def r2(told: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """1 - residual / variance of each column; not finite where the truth does not vary."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return 1.0 - ((told - truth) ** 2).sum(axis=0) / ((truth - truth.mean(axis=0)) ** 2).sum(axis=0)


def _slope(told: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Of the answer on the truth: 1 where nothing is shrunk."""
    centred = truth - truth.mean(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return (centred * (told - told.mean(axis=0))).sum(axis=0) / (centred**2).sum(axis=0)


def rounded(value: float | np.ndarray) -> float | None:
    """Four digits; None where there was nothing to measure, such as a quantity that never moves."""
    return round(float(value), 4) if np.isfinite(value) else None
