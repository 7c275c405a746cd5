"""Do lids, brows and mouth move, and does the way from beta to them carry? Two tables (results/face_shapes.json).

    python benchmarks/face_shapes.py --data out/test --fit-on out/train --save

Reading: R^2 of the true weights on people to whom nothing was fitted, from beta-hat by a linear map, from CLeBS's ten
numbers (linear, and with squares and products), and with beta read by the tracker from the rendered picture.

Showing: a face tracker measures eye opening, brow height and mouth opening in true frames and in the model's frames of the
same people, in widths of the eye. Slope and correlation of the model's changes against the true ones, each person's mean
taken off: 1 and 1 are right, 0 does not move. Frames whose head turns more than 25 degrees are left out, as the tracker
guesses there.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch

from export3d.data import ClipDataset
from export3d.evaluation.scores.expression_content import lambda_of, quadratic_features
from export3d.evaluation.scores.protocol import dataset_facts, same_identity_pairs
from export3d.expression.lebs import LeBS
from export3d.fitting.face_shapes import MOST_CLIPS, RIDGE
from export3d.fitting.ridge import ridge_map_with_bias
from export3d.heads.shape.parametric import EXPRESSION_NAMES
from export3d.portrait import load_model
from export3d.portrait.shapes import LOWER_FACE, UPPER_FACE
from export3d.tracking.brows import brow_heights
from export3d.tracking.mediapipe_tracker import MediaPipeTracker
from export3d.tracking.mouth import facing_front
from export3d.tracking.regressor import LandmarkRegressor
from export3d.training.batches.stored_portrait import StoredPortrait, to_size
from material import save

SHAPES = tuple(dict.fromkeys(name.removesuffix("_L").removesuffix("_R") for name in (*UPPER_FACE, *LOWER_FACE)))
"""Each as the mean of left and right, where it has both."""

LIPS = (13, 14)  # middle of the inner upper and lower lip
# Each eye from its outer corner over the upper lid, the inner corner (place 8) and the lower lid.
EYE_IMAGE_LEFT = (33, 246, 161, 160, 159, 158, 157, 173, 133, 155, 154, 153, 145, 144, 163, 7)
EYE_IMAGE_RIGHT = (263, 466, 388, 387, 386, 385, 384, 398, 362, 382, 381, 380, 374, 373, 390, 249)

MEASURED = ("eye opening", "brow height", "mouth opening")
MOST_YAW_DEG = 25.0
SIZE = 256  # px, of what the tracker sees


def main() -> None:
    """Both tables; save on request."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="synthetic clips of people whom no model saw")
    parser.add_argument("--fit-on", type=Path, required=True, help="other synthetic clips, to fit the readings to")
    parser.add_argument("--model", default=None, help="bundled name or file; the bundled model when left out")
    parser.add_argument("--clips", type=int, default=60, help="people of the second table")
    parser.add_argument("--save", action="store_true", help="write results/face_shapes.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    model = load_model(options.model)
    dataset, fit_on = ClipDataset(options.data), ClipDataset(options.fit_on)
    assert isinstance(model.expression, LeBS)
    tracker = MediaPipeTracker()
    reading = read_rows(model.expression, fit_on, dataset, tracker)
    showing = show_rows(model, dataset, tracker, options.clips)
    for name, row in {**reading, **showing}.items():
        print(f"{name:16s}" + "  ".join(f"{key} {value}" for key, value in row.items()))
    if options.save:
        facts = {
            "split": "test",
            "seed": 0,
            "people_fitted_to": min(len(fit_on), MOST_CLIPS),
            "people_read": len(dataset),
            "people_shown": min(options.clips, len(dataset)),
            "reading": reading,
            "showing": showing,
        }
        print(f"saved {save('face_shapes', facts)}")


def read_rows(
    expression: LeBS, fit_on: ClipDataset, dataset: ClipDataset, tracker: MediaPipeTracker
) -> dict[str, dict[str, Any]]:
    """R^2 by shape and way of reading."""
    beta, truth = betas_and_weights(fit_on, MOST_CLIPS)
    other_beta, other_truth = betas_and_weights(dataset, len(dataset))
    tracked_beta, tracked_truth = tracked(dataset, tracker)
    # Standardised together: the same numbers must mean the same on both sides.
    products = quadratic_features(lambda_of(expression, np.concatenate([beta, other_beta])))
    given = {
        "beta-hat": (beta, other_beta, other_truth),
        "lambda": (lambda_of(expression, beta), lambda_of(expression, other_beta), other_truth),
        "lambda, squares, products": (products[: len(beta)], products[len(beta) :], other_truth),
        "beta-hat of the tracker": (beta, tracked_beta, tracked_truth),
    }
    rows: dict[str, dict[str, Any]] = {name: {} for name in SHAPES}
    for way, (code, other, wanted) in given.items():
        weight, bias = ridge_map_with_bias(code, truth, RIDGE)
        error = other @ weight + bias - wanted
        r2 = 1.0 - (error**2).mean(axis=0) / wanted.var(axis=0)
        for name, value in zip(SHAPES, r2, strict=True):
            rows[name][way] = round(float(value), 3)
    return rows


def betas_and_weights(dataset: ClipDataset, most: int) -> tuple[np.ndarray, np.ndarray]:
    """beta-hat ``(N, 64)`` and the true weights of `SHAPES` ``(N, S)``."""
    arrays = [dataset.arrays(index) for index in range(min(len(dataset), most))]
    return np.concatenate([a["beta"] for a in arrays]).astype(np.float64), shapes_of(
        np.concatenate([a["weights"] for a in arrays])
    )


def shapes_of(weights: np.ndarray) -> np.ndarray:
    """All weights ``(N, 53)`` -> `SHAPES` ``(N, S)``."""
    sides = [[name] if name in EXPRESSION_NAMES else [f"{name}_L", f"{name}_R"] for name in SHAPES]
    columns = [weights[:, [EXPRESSION_NAMES.index(name) for name in names]].mean(axis=1) for names in sides]
    return np.stack(columns, axis=1).astype(np.float64)


def tracked(dataset: ClipDataset, tracker: MediaPipeTracker) -> tuple[np.ndarray, np.ndarray]:
    """As `betas_and_weights`, with beta read from the picture, on every second frame that shows a face."""
    meshes, weights = [], []
    for index in range(len(dataset)):
        for time in range(0, dataset.num_frames(index), 2):
            mesh = mesh_of(dataset.frame(index, time), tracker)
            if mesh is not None:
                meshes.append(mesh / SIZE)
                weights.append(dataset.arrays(index)["weights"][time])
    beta, _ = LandmarkRegressor.load().coefficients_of_meshes(np.stack(meshes).astype(np.float32))
    return beta.astype(np.float64), shapes_of(np.stack(weights))


def mesh_of(image: np.ndarray, tracker: MediaPipeTracker) -> np.ndarray | None:
    """``(478, 3)`` in pixels of a picture of side `SIZE`."""
    tracker.reset()
    faces = tracker.detect(np.ascontiguousarray(to_size(image, SIZE)))
    return max(faces, key=lambda face: face.area_px).mesh if faces else None


def show_rows(model: Any, dataset: ClipDataset, tracker: MediaPipeTracker, clips: int) -> dict[str, dict[str, Any]]:
    """Slope and correlation of what the model's frames show."""
    places = {key: index for index, key in enumerate(dataset.keys)}
    true_rows, shown_rows = [], []
    for pair in same_identity_pairs(dataset_facts(dataset))[:clips]:
        index = places[pair.driving_clip]
        portrait = StoredPortrait(model, dataset, index, pair.source_frame)
        yaw = np.degrees(dataset.head_angles(index)[:, 0])
        truth, shown = [], []
        for time in range(dataset.num_frames(index)):
            if time == pair.source_frame or abs(yaw[time]) > MOST_YAW_DEG:
                continue
            meshes = [
                mesh_of(image, tracker) for image in (dataset.frame(index, time), portrait.drive(index, time).image)
            ]
            if meshes[0] is not None and meshes[1] is not None:
                truth.append(measures(meshes[0]))
                shown.append(measures(meshes[1]))
        if len(truth) > 1:
            true_rows.append(np.stack(truth) - np.mean(truth, axis=0))
            shown_rows.append(np.stack(shown) - np.mean(shown, axis=0))
    truth_all, shown_all = np.concatenate(true_rows), np.concatenate(shown_rows)
    rows: dict[str, dict[str, Any]] = {}
    for column, name in enumerate(MEASURED):
        t, s = truth_all[:, column], shown_all[:, column]
        rows[name] = {
            "slope": round(float((t * s).sum() / (t * t).sum()), 3),
            "correlation": round(float(np.corrcoef(t, s)[0, 1]), 3),
            "frames": len(t),
        }
    return rows


def measures(mesh: np.ndarray) -> np.ndarray:
    """`MEASURED` of one face, in widths of the eye, with the head's pose taken out."""
    turned = facing_front(mesh[None])[0]
    widths, openings = [], []
    for eye in (EYE_IMAGE_LEFT, EYE_IMAGE_RIGHT):
        corners = turned[[eye[0], eye[8]], :2]
        widths.append(np.linalg.norm(corners[0] - corners[1]))
        lids = turned[list(eye[11:14]), :2].mean(axis=0) - turned[list(eye[3:6]), :2].mean(axis=0)
        openings.append(lids[1] / widths[-1])
    gap = np.linalg.norm(turned[LIPS[0], :2] - turned[LIPS[1], :2]) / np.mean(widths)
    return np.array([np.mean(openings), np.mean(brow_heights(turned)), gap])


if __name__ == "__main__":
    main()
