"""How far lids close for a blink weight, on photographs and on rendered people, at the weights of `animation/weights.py`.

    python benchmarks/lids.py --media FOLDER --data val256 --save

The portrait's own weight is raised in steps, beta moved along (`ExpressionCues.adjusted`), and the Face Landmarker reads the
result: opening in widths of the eye and blink score. Run it again when the model changes.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from export3d.animation import Animator
from export3d.animation.weights import LID_SCORES, LID_WEIGHTS, LIDS
from export3d.data import ClipDataset
from export3d.evaluation.scores.protocol import dataset_facts, same_identity_pairs
from export3d.face_state import ARKIT_NAMES, FaceState
from export3d.files import file_sha256
from export3d.portrait import PortraitModel, load_model
from export3d.portrait.loading import checkpoint_path
from export3d.tracking import Tracker
from export3d.tracking.faces import BLENDSHAPE_NAMES
from export3d.training.batches.stored_portrait import StoredPortrait, stored_camera, stored_state
from face_shapes import measures
from material import save

SIDE = 256  # px of what the landmarker sees
COLUMNS = [ARKIT_NAMES.index(name) for name in LIDS]
SCORES = [BLENDSHAPE_NAMES.index(name) for name in LIDS]

Draw = Callable[[FaceState], np.ndarray]


def main() -> None:
    """Both curves; save on request."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--media", type=Path, help="folder with portraits/*.jpg")
    parser.add_argument("--data", type=Path, help="folder of rendered clips")
    parser.add_argument("--every", type=int, default=7, help="take every so many photographs")
    parser.add_argument("--people", type=int, default=24, help="rendered people")
    parser.add_argument("--model", default=None, help="bundled name or file; the bundled model when left out")
    parser.add_argument("--save", action="store_true", help="write results/lids.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    model = load_model(options.model)
    assert isinstance(model, PortraitModel)
    tables = {}
    with Tracker(choice="largest", size=model.config.image_size) as tracker:
        if options.media:
            animator = Animator(model, tracker)
            photos = sorted(options.media.glob("portraits/*.jpg"))[3 :: options.every]
            rows = []
            for photo in photos:
                subject = animator.portrait(photo)
                draw = lambda state, camera=subject.camera: animator.frame(state, camera)  # noqa: E731
                rows.append(curve(model, subject.state, draw, tracker))
            tables["photographs"] = table(rows)
        if options.data:
            dataset = ClipDataset(options.data)
            tables["rendered"] = table(
                [of_stored(model, dataset, pair, tracker) for pair in people(dataset, options.people)]
            )
    for name, rows_of in tables.items():
        print(name)
        for row in rows_of:
            print("  " + "  ".join(f"{key} {value}" for key, value in row.items()))
    if options.save:
        path = checkpoint_path(options.model)
        facts = {"seed": 0, "model": path.name, "weights_sha256": file_sha256(path), "used": [LID_SCORES, LID_WEIGHTS]}
        print(save("lids", {**facts, "curves": tables}))


def people(dataset: ClipDataset, count: int) -> list[tuple[int, int]]:
    """Clip and source frame of the first people."""
    places = {key: index for index, key in enumerate(dataset.keys)}
    return [
        (places[pair.driving_clip], pair.source_frame) for pair in same_identity_pairs(dataset_facts(dataset))[:count]
    ]


def of_stored(model: PortraitModel, dataset: ClipDataset, pair: tuple[int, int], tracker: Tracker) -> np.ndarray:
    """The curve of one rendered person."""
    portrait, camera = StoredPortrait(model, dataset, *pair), stored_camera(dataset, *pair)
    own = stored_state(dataset, *pair)
    own = replace(own, weights=model.cues.weights(own.beta))
    return curve(model, own, lambda state, camera=camera: portrait.views(state, [camera])[0].image, tracker)


@torch.inference_mode()
def curve(model: PortraitModel, own: FaceState, draw: Draw, tracker: Tracker) -> np.ndarray:
    """Opening and score ``(len(LID_WEIGHTS), 2)`` of one portrait for each weight above its own."""
    rows = []
    for weight in LID_WEIGHTS:
        assert own.weights is not None
        weights = own.weights.clone()
        weights[:, COLUMNS] += weight
        asked = torch.full_like(weights, torch.nan)
        asked[:, COLUMNS] = weights[:, COLUMNS]
        picture = draw(replace(own, weights=weights, beta=model.cues.maps().adjusted(own.beta, asked)))
        seen = np.asarray(Image.fromarray(picture).resize((SIDE, SIDE), Image.Resampling.BICUBIC))
        tracker.reset()
        faces = tracker.face_tracker.detect(seen)
        known = bool(faces) and faces[0].mesh is not None and faces[0].blendshapes is not None
        rows.append(
            [measures(faces[0].mesh)[0], faces[0].blendshapes[SCORES].mean()] if known else [np.nan, np.nan]  # type: ignore[index, arg-type]
        )
    return np.array(rows)


def table(rows: list[np.ndarray]) -> list[dict[str, float]]:
    """Means over portraits; the score is counted from that of the portrait itself."""
    means = np.nanmean(np.stack(rows), axis=0)
    return [
        {"weight": weight, "opening": round(float(opening), 4), "score": round(float(score - means[0, 1]), 4)}
        for weight, (opening, score) in zip(LID_WEIGHTS, means, strict=True)
    ]


if __name__ == "__main__":
    main()
