"""`export3d evaluate`: every metric of a model or of anybody's frames, with trivial baselines (docs/evaluation.md)."""

from __future__ import annotations

import platform
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from export3d.cli.common import entry, pick_device, progress_bar, say, set_threads
from export3d.cli.network import NetworkOptions
from export3d.errors import UsageError
from export3d.files import make_folder

if TYPE_CHECKING:
    from export3d.data import ClipDataset
    from export3d.evaluation.scores.makers import FrameMaker
    from export3d.evaluation.scores.protocol import Pair
    from export3d.evaluation.scores.run import Backends

BASELINES = {
    "copy_source": "the source frame, unchanged",
    "mean_face": "mean picture of the source frames of all clips of the split",
    "driving": "the driving frames themselves: the upper bound",
}


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions:
    """Score a model, or frames that any other method made, by every metric of the paper; see docs/evaluation.md."""

    data: Path
    """Data set with the test clips: prepared videos or synthetic heads."""
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    """Folder for table.md, table.json, frames.csv and pairs.json. The same command goes on where it was stopped."""
    predictions: Path | None = None
    """Frames of another method, instead of a model: same/CLIP/000000.png, cross/SOURCE--by--DRIVING/000000.png."""
    split: Literal["train", "val", "test", "all"] = "test"
    """Which clips of the data set are used."""
    protocol: Literal["same", "cross", "both"] = "both"
    """Same identity: each clip drives its own frontal frame. Cross: the next person's clip drives it."""
    pairs: Path | None = None
    """Fixed pairs (the pairs.json of an earlier run) instead of those chosen by the seed."""
    pairs_only: bool = False
    """Only write OUTPUT/pairs.json and stop: what another method needs to make its frames."""
    backends_only: bool = False
    """Only measure the back ends themselves on clips with exact truth, write OUTPUT/backends.json and stop."""
    clips: int | None = None
    """Only the first so many pairs of each kind."""
    landmarks: Literal["mediapipe", "face-alignment", "none"] = "mediapipe"
    """What finds faces: AKD, AED, APD and the crops of CSIM. With none only picture metrics remain."""
    deep3d_checkpoint: Path | None = None
    """Checkpoint of Deep3DFaceRecon (epoch_20.pth): AED and APD by its coefficients instead of the bundled regressor's."""
    identity: str = "bundled"
    """What measures CSIM: bundled (rendered people), dlib (real people, `pip install 'export3d[identity]'`), none, an ArcFace
    network (.onnx), or a file of train-identity (.safetensors)."""
    lpips_vgg: Path | None = None
    """VGG16 weights (vgg16-397923af.pth, docs/training.md): adds LPIPS, together with --lpips-heads."""
    lpips_heads: Path | None = None
    """LPIPS's weights per channel (vgg.pth of the lpips package)."""
    save_frames: bool = False
    """Keep the frames in OUTPUT/frames, in the layout that --predictions reads."""
    seed: int = 0
    """Seed of the source frames and of the bootstrap."""
    network: NetworkOptions = field(default_factory=NetworkOptions)
    """Which model, and where it runs."""


def run(options: EvaluateOptions, command: str) -> None:
    """Evaluate, print the tables, write the files."""
    from export3d.data import ClipDataset
    from export3d.evaluation.metrics.bootstrap import DRAWS
    from export3d.evaluation.scores.protocol import write_pairs
    from export3d.evaluation.scores.run import choose_pairs, evaluate
    from export3d.evaluation.scores.scoring import write_frames_csv
    from export3d.evaluation.scores.tables import TITLES, make_tables, markdown, text_table, write_tables_json
    from export3d.files import write_atomically

    _check(options)
    set_threads(options.network.threads)
    dataset = ClipDataset(options.data, split=None if options.split == "all" else options.split)
    if options.backends_only:
        _measure_backends(options, command, dataset)
        return
    pairs = choose_pairs(dataset, options.protocol, pairs_file=options.pairs, clips=options.clips, seed=options.seed)
    if options.pairs_only:
        folder = make_folder(options.output)
        write_pairs(folder / "pairs.json", pairs)
        say(f"{folder / 'pairs.json'}: {len(pairs)} pairs")
        return
    maker = _maker(options, dataset, pairs)
    folder = make_folder(options.output)
    with _backends(options) as backends, progress_bar("evaluating", len(pairs)) as report:
        write_pairs(folder / "pairs.json", pairs)
        result = evaluate(
            dataset,
            maker,
            pairs,
            backends,
            folder,
            seed=options.seed,
            save_frames=options.save_frames,
            on_progress=report,
        )
        facts = _facts(options, command, dataset, backends)
    facts["protocol"] = options.protocol
    facts["pairs"] = {kind: sum(pair.kind == kind for pair in pairs) for kind in ("same", "cross")}
    facts["bootstrap"] = {"draws": DRAWS, "level": 0.95, "over": "clips"}
    facts["maker"] = maker.facts
    facts["baselines"] = BASELINES
    facts["times"] = {
        "seconds_making": round(result.seconds_making, 3),
        "seconds_scoring": round(result.seconds_scoring, 3),
        "driving_frames": result.frames,
        "pairs_taken_from_an_earlier_run": result.resumed,
    }
    tables = make_tables(result.clips, seed=options.seed)
    write_frames_csv(folder / "frames.csv", result.clips)
    write_tables_json(folder / "table.json", tables, facts)
    write_atomically(folder / "table.md", markdown(tables, facts).encode())
    for kind, methods in tables.items():
        say(f"{TITLES[kind]}, {sum(pair.kind == kind for pair in pairs)} pairs")
        say(text_table(methods) + "\n")
    for what, info in facts["backends"].items():
        say(f"{what}: {info['name']} {info['version']} {info['sha256'][:12]}")
    say(f"{folder}: table.md, table.json, frames.csv, pairs.json; {len(pairs)} pairs, {result.resumed} from before")


evaluate_main = entry("evaluate", EvaluateOptions, run, typed=True)


def _check(options: EvaluateOptions) -> None:
    if options.network.model is not None and options.predictions is not None:
        raise UsageError("evaluate: give --model or --predictions, not both.")
    if options.clips is not None and options.clips < 1:
        raise UsageError(f"--clips must be at least 1; got {options.clips}.")
    if (options.lpips_vgg is None) != (options.lpips_heads is None):
        raise UsageError("evaluate: LPIPS needs both files; give --lpips-vgg and --lpips-heads, or neither.")


def _measure_backends(options: EvaluateOptions, command: str, dataset: ClipDataset) -> None:
    from export3d.evaluation.metrics.backend_accuracy import measure_backends
    from export3d.files import write_json

    count = min(options.clips or len(dataset), len(dataset))
    with _backends(options) as backends, progress_bar("measuring back ends", count) as report:
        found = measure_backends(dataset, backends, clips=options.clips, seed=options.seed, on_progress=report)
        facts = _facts(options, command, dataset, backends)
    path = make_folder(options.output) / "backends.json"
    content = {
        "format": "export3d-backend-accuracy",
        "version": 1,
        "date": facts.pop("finished")[:10],
        **facts,
        **found,
    }
    write_json(path, content)
    faces, pose = found["faces"], found["pose"]
    say(f"{path}: {faces['found']} of {faces['frames']} faces of {faces['identities']} people found")
    say(
        f"landmarks {found['landmarks']['all']['mean_px']:.2f} px at 256; rotation {pose['rotation']['mean_deg']:.2f} degrees"
    )
    for name, row in (found["expression"] or {"means": {}})["means"].items():
        say(
            f"{name}: R^2 of the leading modes {row['r2_leading']:.3f}, within clips {row['r2_within_clips_leading']:.3f}"
        )
    if found["identity"] is not None:
        say(f"identity verification {found['identity']['accuracy']:.3f}")


def _maker(options: EvaluateOptions, dataset: ClipDataset, pairs: list[Pair]) -> FrameMaker:
    from export3d.evaluation.scores.makers import ModelFrames, PredictedFrames

    if options.predictions is not None:
        return PredictedFrames(options.predictions, dataset, pairs)
    from export3d.files import file_sha256
    from export3d.portrait.loading import checkpoint_path

    model = options.network.load()
    path = checkpoint_path(options.network.model)
    return ModelFrames(model, dataset, {"name": path.name, "sha256": file_sha256(path)})


def _backends(options: EvaluateOptions) -> AbstractContextManager[Backends]:
    from export3d.evaluation.metrics.opened import open_backends

    return open_backends(
        options.landmarks,
        options.identity,
        device=pick_device(options.network.device),
        deep3d_checkpoint=options.deep3d_checkpoint,
        lpips=(options.lpips_vgg, options.lpips_heads) if options.lpips_vgg and options.lpips_heads else None,
    )


def _facts(options: EvaluateOptions, command: str, dataset: ClipDataset, backends: Backends) -> dict[str, Any]:
    import numpy as np
    import torch

    from export3d import __version__
    from export3d.data.manifest import MANIFEST_NAME
    from export3d.files import file_sha256, measured_now

    return {
        "command": command,
        "commit": measured_now()["commit"],
        "finished": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "seed": options.seed,
        "versions": {
            "export3d": __version__,
            "torch": torch.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
        "data": {
            "name": options.data.absolute().name,
            "manifest_sha256": file_sha256(options.data / MANIFEST_NAME),
            "split": dataset.split,
            "clips": len(dataset),
            "size": dataset.size,
            "extractor": dataset.extractor,
        },
        "backends": backends.facts(),
    }
