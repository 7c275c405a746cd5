"""Where is the head wrong, and does the source lookup move as the skin does? Three tables (results/regions.json).

    python benchmarks/regions.py --data out/val --save

Every fourth frame of synthetic people of the validation split, since these tables steer the model; same identity, at the
model's size. Parts of the head: the face inside the outline of the landmarks, the
body below the chin, the silhouette (the outermost 3 pixels of the mask outside both) and the rest, mostly hair. Borders:
the same error by the distance to the border of the picture. Errors are pooled: the PSNR of the mean squared error over all
pixels of a part, so they do not compare with means over frames.

Motion: where the lookup takes surface points of the driving frame to have been in the portrait, against where they were.
`slope` is the share of the true displacement that it makes (1 is right, 0 stands still), `explained` 1 less the squared
error over the squared displacement. Points within 0.02 of the frame's side of a landmark belong to its part.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from scipy.ndimage import binary_erosion

from export3d.data import ClipDataset
from export3d.evaluation.scores.protocol import dataset_facts, same_identity_pairs
from export3d.files import file_sha256
from export3d.heads.shape.parametric import WORLD_SCALE
from export3d.landmarks import BROWS, EYES, MOUTH
from export3d.portrait import PortraitCode, PortraitModel, load_model
from export3d.portrait.loading import checkpoint_path
from export3d.training.batches.stored_portrait import StoredPortrait, stored_camera, stored_state, to_size
from material import save

EVERY = 4
SILHOUETTE_PX = 3
RINGS_PX = ((0, 4), (4, 8), (8, 16), (16, 64))
NEAR = 0.02  # of the frame's side
MM = 10.0 / WORLD_SCALE  # of a scene unit
PARTS = {"brows": BROWS, "eyes": EYES, "mouth": MOUTH}


def main() -> None:
    """All tables; save on request."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="synthetic clips of people whom no model saw")
    parser.add_argument("--model", default=None, help="bundled name or file; the bundled model when left out")
    parser.add_argument("--clips", type=int, default=100, help="people")
    parser.add_argument("--save", action="store_true", help="write results/regions.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    model, dataset = load_model(options.model), ClipDataset(options.data)
    if others := {clip.split for clip in dataset.manifest.clips} - {"val", "validation"}:
        raise SystemExit(
            f"{options.data}: what steers the model is measured on validation people; got {sorted(others)}."
        )
    errors: dict[str, np.ndarray] = {}  # name -> (sum of squared errors, pixels)
    moves: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {name: [] for name in PARTS}
    places = {key: index for index, key in enumerate(dataset.keys)}
    pairs = same_identity_pairs(dataset_facts(dataset))[: options.clips]
    for pair in pairs:
        index = places[pair.driving_clip]
        portrait = StoredPortrait(model, dataset, index, pair.source_frame)
        for time in range(0, dataset.num_frames(index), EVERY):
            if time == pair.source_frame:
                continue
            image = portrait.drive(index, time).image.astype(np.float64)
            square = ((image - to_size(dataset.frame(index, time), len(image))) ** 2).mean(axis=-1)
            landmarks = dataset.arrays(index)["landmarks"][time]
            for name, region in regions(head_mask(dataset, index, time, len(image)), landmarks).items():
                errors[name] = errors.get(name, np.zeros(2)) + np.array([square[region].sum(), region.sum()])
            made, true, at = displacements(model, portrait.code, dataset, index, pair.source_frame, time)
            for name, part in PARTS.items():
                near = np.linalg.norm(at[:, None] - landmarks[None, part], axis=-1).min(axis=1) < NEAR
                moves[name].append((made[near], true[near]))
    parts = {name: value for name, value in errors.items() if not name.endswith("border")}
    facts = {
        "split": "validation",
        "seed": 0,
        "weights_sha256": file_sha256(checkpoint_path(options.model)),
        "people": len(pairs),
        "parts": table(parts),
        "borders": table({name: value for name, value in errors.items() if name not in parts}),
        "motion": {name: motion(rows) for name, rows in moves.items() if rows},
    }
    for title in ("parts", "borders", "motion"):
        for name, row in facts[title].items():
            print(f"{title:8s} {name:24s}" + "  ".join(f"{key} {value}" for key, value in row.items()))
    if options.save:
        print(f"saved {save('regions', facts)}")


def head_mask(dataset: ClipDataset, index: int, time: int, size: int) -> np.ndarray:
    """The head's mask of a stored frame, ``(size, size)`` bool."""
    return np.asarray(Image.fromarray(dataset.mask(index, time)).resize((size, size), Image.Resampling.BOX)) > 127


def regions(head: np.ndarray, landmarks: np.ndarray) -> dict[str, np.ndarray]:
    """Parts of the head's mask ``(S, S)`` bool: four that share it, and four rings along the border of the picture."""
    size = head.shape[0]
    points = landmarks * size
    outline = Image.new("1", (size, size))
    above = points[26:16:-1] - [0.0, size / 32]  # a little above the brows
    ImageDraw.Draw(outline).polygon([tuple(p) for p in [*points[:17], *above]], fill=1)
    face = np.array(outline) & head
    rows, columns = np.mgrid[:size, :size]
    body = head & ~face & (rows > points[8, 1])
    inner = binary_erosion(head, iterations=SILHOUETTE_PX)
    rest = head & ~face & ~body
    found = {"face": face, "body": body, "silhouette": rest & ~inner, "hair and rest": rest & inner}
    border = np.minimum.reduce([rows, size - 1 - rows, columns, size - 1 - columns])
    for low, high in RINGS_PX:
        found[f"{low} to {high} px of the border"] = head & (border >= low) & (border < high)
    return found


@torch.inference_mode()
def displacements(
    model: PortraitModel, code: PortraitCode, dataset: ClipDataset, index: int, source: int, time: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """From the driving frame to the portrait: what the lookup makes and the truth ``(N, 3)`` in scene units, and where the
    points are in the driving frame ``(N, 2)`` in [0, 1]."""
    arrays = dataset.arrays(index)
    driven = torch.tensor(arrays["surface"][time : time + 1])
    made = model.guide(model.drive(code, stored_state(dataset, index, time)), driven)[0] - driven
    true = torch.tensor(arrays["surface"][source]) - driven[0]
    position, _ = stored_camera(dataset, index, time).project(driven)
    return made[0].numpy(), true.numpy(), position[0].numpy()


def table(errors: dict[str, np.ndarray]) -> dict[str, dict[str, float]]:
    """Shares and PSNR of each part."""
    whole = np.sum(list(errors.values()), axis=0)
    return {
        name: {
            "share of the error": round(float(error / whole[0]), 3),
            "share of the area": round(float(area / whole[1]), 3),
            "PSNR": round(float(10.0 * np.log10(255.0**2 * area / error)), 2),
        }
        for name, (error, area) in errors.items()
    }


def motion(rows: list[tuple[np.ndarray, np.ndarray]]) -> dict[str, float]:
    """Slope and explained share of the displacements of one part."""
    made, true = (np.concatenate(column).astype(np.float64) for column in zip(*rows, strict=True))
    return {
        "true displacement (mm)": round(float(np.linalg.norm(true, axis=1).mean() * MM), 2),
        "slope": round(float((made * true).sum() / (true**2).sum()), 3),
        "explained": round(float(1.0 - ((made - true) ** 2).sum() / (true**2).sum()), 3),
    }


if __name__ == "__main__":
    main()
