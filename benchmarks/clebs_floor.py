"""What an expression code could reach at best: how much of the person the true expression itself tells, and what bounds R^2.

    python benchmarks/clebs_floor.py --runs out/pretrain --val out/val --head-model head.npz --save

Test people are drawn without rendering, with and without a resting face of their own (`resting_offset` of `heads render`), and
their landmarks with and without the extractor's noise. Per code: identity by the nearest person and by single frames, and R^2
of the true expression by a ridge regression over people. With --val the code that f_I reads off pictures is measured, too.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from export3d.data import ClipDataset
from export3d.evaluation.scores import expression_content as content
from export3d.evaluation.scores.expression_sample import ExpressionSample, sample_of_clips
from export3d.expression.image_encoder import ImageEncoder
from export3d.files import file_sha256
from export3d.heads.clips.acting import independent
from export3d.heads.clips.extractor import NUM_EXPRESSION, LinearExtractor
from export3d.heads.clips.people import add_noise, draw_person
from export3d.heads.clips.splits import identity_seeds
from export3d.heads.shape.model_file import load_head
from export3d.heads.shape.parametric import ParametricHead
from export3d.images import to_tensor
from export3d.training.batches.clip_batches import around_nose
from export3d.training.batches.frame_store import FrameStore
from export3d.training.phases.pretrain_config import kept_size
from export3d.training.phases.pretrain_files import (
    EXPRESSION_FILE,
    FACE_NETWORK_FILE,
    load_expression,
    load_face_network,
)
from material import save

SHOWN = ("numbers", "identity_1nn", "identity_1nn_frames", "r2", "r2_leading", "r2_within", "r2_quadratic")


def main() -> None:
    """Measure the people of both kinds and, on request, the pictures; save on request."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, nargs="+", required=True, help="run folders of `export3d pretrain`")
    parser.add_argument("--val", type=Path, required=True, help="rendered clips of other people, with their extractor")
    parser.add_argument("--head-model", type=Path)
    parser.add_argument("--people", type=int, default=100)
    parser.add_argument("--frames", type=int, default=34)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--save", action="store_true", help="write results/clebs_floor.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    head = load_head(options.head_model)
    extractor = LinearExtractor.load(options.val / "extractor.safetensors")
    spread = extractor.mode_spread[:NUM_EXPRESSION].numpy()
    tables = {}
    for resting in (True, False):
        for noise in (True, False):
            sample = draw(head, extractor, options, resting=resting, noise=noise)
            name = f"{'own' if resting else 'no'} resting face, {'noisy' if noise else 'exact'} landmarks"
            tables[name] = rows_of(codes_of(sample, spread, options.runs), sample, spread, name)
    dataset = ClipDataset(options.val)
    sample = sample_of_clips(dataset)
    seen = {f"f_I of {run.name}": picture_codes(run, dataset) for run in options.runs}
    tables["pictures"] = rows_of(codes_of(sample, spread, options.runs) | seen, sample, spread, "pictures")
    if options.save:
        facts = {
            "seed": options.seed,
            "people": options.people,
            "frames": options.frames,
            "chance": 1.0 / options.people,
            "chance_pictures": 1.0 / sample.identities,
            "runs": {
                run.name: {
                    "weights_sha256": file_sha256(run / EXPRESSION_FILE),
                    "steps": load_expression(run)[1]["step"],
                }
                for run in options.runs
            },
            "tables": tables,
        }
        print(f"saved {save('clebs_floor', facts)}")


def draw(
    head: ParametricHead, extractor: LinearExtractor, options: argparse.Namespace, *, resting: bool, noise: bool
) -> ExpressionSample:
    """As `draw_sample`, with or without resting faces and noise."""
    betas, truths = [], []
    for seed in identity_seeds("test", 0, options.people):
        person = draw_person(
            head,
            seed,
            lambda s, rest: independent(s, options.frames, resting=rest if resting else None),
            resting_offset=resting,
        )
        landmarks = person.landmarks
        if noise:
            landmarks = add_noise(landmarks, np.random.default_rng([options.seed, seed]), extractor.config.noise_px)
        betas.append(extractor.fit(landmarks, person.motion.camera()).double().numpy())
        truths.append(extractor.true_beta(torch.from_numpy(person.motion.weights)).double().numpy()[:, :NUM_EXPRESSION])
    numbers = np.repeat(np.arange(options.people), options.frames)
    return ExpressionSample(beta=np.concatenate(betas), truth=np.concatenate(truths), identity=numbers, clip=numbers)


def codes_of(sample: ExpressionSample, spread: np.ndarray, runs: list[Path]) -> dict[str, np.ndarray]:
    """Code -> ``(N, numbers)``."""
    truth = sample.truth * spread
    read = content.cross_fitted(sample.beta, truth, sample.identity)
    coefficients = {run.name: content.lambda_of(load_expression(run)[0], sample.beta) for run in runs}
    numbers = coefficients[runs[0].name].shape[1]
    return {
        "true expression": truth,
        f"true expression, its leading {numbers} numbers": leading(truth, numbers),
        "beta": sample.beta,
        f"expression read linearly off beta, its leading {numbers} numbers": leading(read, numbers),
        **{f"lambda of {name}": values for name, values in coefficients.items()},
    }


def leading(values: np.ndarray, numbers: int) -> np.ndarray:
    """The principal components with most variance."""
    centred = values - values.mean(axis=0)
    return centred @ np.linalg.svd(centred, full_matrices=False)[2][:numbers].T


@torch.inference_mode()
def picture_codes(run: Path, dataset: ClipDataset) -> np.ndarray:
    """What f_I says of every frame."""
    encoder: ImageEncoder = load_face_network(run / FACE_NETWORK_FILE)[0]
    store, share = FrameStore(dataset, 0, size=kept_size(encoder.config)), encoder.config.face_share
    codes = []
    for index in range(len(dataset)):
        pictures = np.stack([store.frame(index, time) for time in range(dataset.num_frames(index))])
        if share < 1.0:
            pictures, _ = around_nose(pictures, dataset.arrays(index)["landmarks"], share)
        codes.append(encoder(to_tensor(pictures)).double().numpy())
    return np.concatenate(codes)


def rows_of(
    codes: dict[str, np.ndarray], sample: ExpressionSample, spread: np.ndarray, title: str
) -> dict[str, object]:
    """Code -> the numbers of `SHOWN`; prints them."""
    print(title, flush=True)
    rows: dict[str, object] = {}
    for name, values in codes.items():
        found = asdict(content.measure_code(name, values, sample, spread))
        rows[name] = {key: found[key] for key in SHOWN}
        print(f"  {name:70s}", *(f"{found[key]:8.3f}" for key in SHOWN), flush=True)
    return rows


if __name__ == "__main__":
    main()
