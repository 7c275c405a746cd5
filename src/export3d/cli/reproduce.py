"""`export3d reproduce`: every table and figure of the paper's evaluation from one command (docs/evaluation.md)."""

from __future__ import annotations

import shlex
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from export3d.cli.common import entry, pick_device, progress_bar, say, set_threads
from export3d.errors import UsageError
from export3d.reproduce.settings import STAGES, Reporter, Settings, Stage, Stopped

if TYPE_CHECKING:
    from export3d.reproduce.scores import OpenBackends

STOPPED_CODES = {"SIGINT": 130, "SIGTERM": 143, "SIGHUP": 129, "max_minutes": 0}


@dataclass(frozen=True, kw_only=True)
class ReproduceOptions(Settings):
    """Train every variant of Tables 3 and 4 on the same clips, score and draw them, and write their tables.

    Each stage goes on where it was stopped and is skipped when it is finished: give the same command again.
    """

    stages: tuple[Stage, ...] = STAGES
    """Which stages to do; they are done in this order."""
    results: Path | None = None
    """Folder for reproduce_*.json, clebs.json and tables.md; WORK/results when left out."""
    pictures: Path | None = None
    """Folder for the figures; WORK/pictures when left out."""
    landmarks: Literal["scale", "mediapipe", "none"] = "scale"
    """What finds faces, as in `evaluate`; scale takes that of the scale (small: mediapipe, smoke: none)."""
    identity: str = "scale"
    """What measures CSIM, as in `evaluate`; scale takes that of the scale (small: bundled, smoke: none)."""
    max_minutes: float | None = None
    """Stop after this time; the same command goes on later."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where networks run."""
    threads: int = 0
    """Threads of the networks; 0 is automatic."""
    dry_run: bool = False
    """Measure a few steps of each stage and print how long everything would take; make nothing."""


def recorded_command(typed: str) -> str:
    """The command as the results name it: of absolute paths only the last part, which is all that matters elsewhere."""
    return shlex.join([Path(word).name if word.startswith("/") else word for word in shlex.split(typed)])


def run(options: ReproduceOptions, command: str) -> int:
    """Do the stages, one after the other."""
    from export3d.training.loop.memory import keep_freed_memory

    set_threads(options.threads)
    settings = replace(options, device=pick_device(options.device))
    stages = [stage for stage in STAGES if stage in options.stages]
    if not stages:
        raise UsageError(f"--stages: name at least one of {', '.join(STAGES)}.")
    keep_freed_memory()
    if options.dry_run:
        from export3d.reproduce.estimate import estimate

        for line in estimate(settings, stages, _backends(options, settings)[1]):
            say(line)
        return 0
    reporter = Reporter(line=_tell, max_minutes=options.max_minutes)
    began = time.monotonic()
    for stage in stages:
        started = time.monotonic()
        try:
            with progress_bar(stage, None) as bar:
                reporter.progress = lambda label, done, total, bar=bar: bar(done)
                _do(stage, options, settings, recorded_command(command), reporter)
        except Stopped as stop:
            _tell(f"{stage}: stopped by {stop.reason}; the same command goes on from here.")
            return STOPPED_CODES[stop.reason]
        _tell(f"{stage}: done in {_duration(time.monotonic() - started)}")
    say(f"{options.output}: {', '.join(stages)} done in {_duration(time.monotonic() - began)}")
    return 0


reproduce_main = entry("reproduce", ReproduceOptions, run, typed=True)


def _do(stage: str, options: ReproduceOptions, settings: Settings, command: str, reporter: Reporter) -> None:
    from export3d.reproduce import figures, scores, tables, training

    results = options.results or options.output / "results"
    pictures = options.pictures or options.output / "pictures"
    if stage == "data":
        training.render_data(settings, reporter)
    elif stage == "pretrain":
        training.pretrain(settings, reporter)
    elif stage == "train":
        for variant in settings.variants:
            training.train(settings, variant, reporter)
    elif stage == "evaluate":
        scores.score_models(settings, *_backends(options, settings), reporter)
    elif stage == "figures":
        figures.draw_figures(settings, pictures, reporter)
        if settings.variants:  # the bundled model brings no pre-training run
            _measure_expression(options, settings, results, pictures, reporter)
    else:
        from export3d.files import write_atomically
        from export3d.reproduce.page import paper_page, tables_page

        written = tables.write_results(settings, results, command, reporter)
        pages = {"tables.md": tables_page(written)}
        pages |= {"paper_results.md": paper_page(results, pictures)} if settings.variants else {}
        for name, text in pages.items():
            write_atomically(results / name, text.encode())
            reporter.line(f"page: wrote {results / name}")


def _backends(options: ReproduceOptions, settings: Settings) -> tuple[dict[str, str], OpenBackends]:
    """Names of the back ends, and what opens them."""
    from export3d.evaluation.metrics.opened import open_backends

    sizes = settings.sizes
    landmarks = sizes.landmarks if options.landmarks == "scale" else options.landmarks
    identity = sizes.identity if options.identity == "scale" else options.identity
    if landmarks == "none" and options.identity == "scale":
        identity = "none"
    device = pick_device(options.device)
    return {"landmarks": landmarks, "identity": identity}, lambda: open_backends(landmarks, identity, device=device)


def _measure_expression(
    options: ReproduceOptions, settings: Settings, results: Path, pictures: Path, reporter: Reporter
) -> None:
    """Fig. 8 and its numbers, by `export3d measure-expression`."""
    from export3d.cli import measure
    from export3d.data.manifest import MANIFEST_NAME
    from export3d.files import file_sha256, make_folder, write_json
    from export3d.reproduce.tables import read_result
    from export3d.training.phases.pretrain_files import EXPRESSION_FILE

    if not (settings.test_folder / measure.EXTRACTOR_FILE).is_file():
        reporter.line(f"figures: {settings.test_folder} holds no synthetic clips; t-SNE is left out")
        return
    run_folder = settings.expression_run
    file = run_folder / EXPRESSION_FILE if run_folder.is_dir() else run_folder
    output, figure = make_folder(results) / "clebs.json", pictures / "clebs_tsne.png"
    notes = options.output / "expression.json"
    fingerprint = {
        "files": [str(output.absolute()), str(figure.absolute())],
        "expression": file_sha256(file) if file.is_file() else "",
        "data": file_sha256(settings.test_folder / MANIFEST_NAME),
        "seed": settings.seed,
    }
    if output.is_file() and figure.is_file() and notes.is_file() and read_result(notes) == fingerprint:
        reporter.line(f"figures: {figure} is finished")
        return
    chosen = measure.MeasureOptions(
        expression=run_folder,
        data=settings.test_folder,
        identities=settings.sizes.drawn_identities,
        output=output,
        figure=figure,
        head_model=settings.head_model,
        seed=settings.seed,
    )
    words = ["--expression", run_folder.name, "--data", settings.test_folder.name, "--seed", str(settings.seed)]
    if chosen.identities:
        words += ["--identities", str(chosen.identities)]
    line = shlex.join(["export3d", "measure-expression", *words])
    measure.run(chosen, line)
    write_json(notes, fingerprint)


def _tell(line: str) -> None:
    """Stages report on stderr with the time of day."""
    print(f"[{time.strftime('%H:%M:%S')}] {line}", file=sys.stderr, flush=True)


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
