"""The `export3d` command: one table of commands, each imported only when it is called."""

from __future__ import annotations

import difflib
import gc
import importlib
import io
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from export3d.cli.common import Events, complain
from export3d.errors import Export3DError, MissingExtraError, OutputError, UsageError, missing_library
from export3d.files import write_error
from export3d.stopping import StoppedBySignal, stop_behind, stop_signals


@dataclass(frozen=True)
class Command:
    """Where a command lives (its entry is `NAME_main` there), where the help lists it, and the line of help it gets."""

    module: str
    group: str
    summary: str


USE, DATA, TRAIN, MEASURE = "Use a trained model", "Make and check data", "Train", "Measure"

COMMANDS: dict[str, Command] = {
    "animate": Command("animate", USE, "drive a portrait with a clip, a photo or a motion file"),
    "batch": Command("batch", USE, "animate many portraits or drivers: one row of a table each"),
    "orbit": Command("orbit", USE, "turn the head of a portrait: novel views and depth"),
    "studio": Command("studio", USE, "the page in the browser: animate, live, face, 3D, check; and the same over HTTP"),
    "sweep": Command("sweep", USE, "vary the expression along each basis vector: a sheet of pictures"),
    "track": Command("track", USE, "turn a clip into a small motion file that can be reused"),
    "demo": Command("demo", USE, "animate the bundled sample portrait with the bundled sample clip"),
    "mesh": Command("mesh", USE, "take a portrait's head along as a mesh: glb, ply, obj"),
    "depth": Command("mesh", USE, "how far each point of a portrait's head is from the camera"),
    "verify": Command("verify", USE, "was it made with Export3D? signed manifest and invisible mark"),
    "models": Command("models", USE, "list and fetch model files that are not in the package"),
    "export": Command("export", USE, "the model as ONNX graphs, for use without PyTorch"),
    "info": Command("info", USE, "model, presets, versions, and what is missing and how to get it"),
    "heads": Command("heads", DATA, "render synthetic talking heads with exact labels"),
    "prepare": Command("prepare", DATA, "turn raw videos into training clips"),
    "data": Command("data", DATA, "look at a data set and check it"),
    "pretrain": Command("train", TRAIN, "phase 0: contrastive pre-training of the expression basis"),
    "train": Command("train", TRAIN, "phases 1 and 2: reconstruction, then adversarial training"),
    "train-regressor": Command("track", TRAIN, "fit the landmark-to-coefficients network of the tracker"),
    "train-gaze": Command("train_gaze", TRAIN, "fit the tracker's map from irises to gaze"),
    "train-mouth": Command("train_gaze", TRAIN, "fit the tracker's map from the mouth's points to jaw and lips"),
    "train-camera": Command("train_gaze", TRAIN, "fit the tracker's mean head, from which it tells the camera"),
    "train-identity": Command("train_identity", TRAIN, "fit the offline identity network behind CSIM"),
    "evaluate": Command("evaluate", MEASURE, "score a model, or frames from elsewhere, by every metric"),
    "measure-expression": Command("measure", MEASURE, "identity and expression in beta and beta', with t-SNE pictures"),
    "quality": Command("quality", MEASURE, "score a model against exact truth on synthetic clips"),
    "reproduce": Command(
        "reproduce", MEASURE, "train, score and draw all variants: every table and figure of the paper"
    ),
}

JSON_OF_THEIR_OWN = ("info", "verify")
"""Commands whose `--json` is an option of theirs: one document instead of events."""

INTERRUPTED_CODE = 130
BROKEN_PIPE_CODE = 141


def main(argv: Sequence[str] | None = None) -> int:
    """Run `export3d <command> ...`; returns the exit code. User errors are one clear message on stderr."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    _repair_streams()
    # Libraries make many objects that stay: looking through them is a tenth of the start.
    gc.set_threshold(100_000, 20, 20)
    Events.on = "--json" in arguments[1:] and arguments[0] not in JSON_OF_THEIR_OWN
    if Events.on:
        arguments = [arguments[0], *(word for word in arguments[1:] if word != "--json")]
    try:
        with stop_signals():
            code = _run(arguments)
            sys.stdout.flush()
            return code
    except Export3DError as error:
        complain(str(error), error.exit_code)
        return error.exit_code
    except KeyboardInterrupt as stop:
        return _stopped(stop)
    except BrokenPipeError:
        # The reader of our output (for example `head`) has gone; keep Python from complaining again at exit.
        _forget_stdout()
        return BROKEN_PIPE_CODE
    except OSError as error:
        # What the parts write they report themselves: here it is stdout, on a full disk.
        _forget_stdout()
        complain(str(write_error(Path("the output"), error, "Give the program another place to print to.")))
        return OutputError.exit_code
    except Exception as error:
        stop = stop_behind(error)
        if stop is None:
            raise
        return _stopped(stop)


def _stopped(stop: KeyboardInterrupt) -> int:
    code = stop.exit_code if isinstance(stop, StoppedBySignal) else INTERRUPTED_CODE
    complain("Stopped. No unfinished file was left behind.", code)
    return code


def help_text() -> str:
    """What `export3d --help` prints."""
    lines = [
        "Export3D: one portrait and a driving clip become a 3D-aware talking-head video.",
        "",
        "usage: export3d COMMAND [options]        export3d COMMAND --help shows the options of a command",
        "       --json with most commands: one line of JSON for each event (progress, result, warning, error)",
    ]
    for group in dict.fromkeys(command.group for command in COMMANDS.values()):
        lines += ["", f"{group}:"]
        lines += [f"  {name:<16} {c.summary}" for name, c in COMMANDS.items() if c.group == group]
    lines += [
        "",
        "First steps:",
        "  export3d demo --output out",
        "  export3d animate --source photo.jpg --driving clip.mp4 -o talking.mp4",
        "  export3d orbit --source photo.jpg -o turning.mp4",
    ]
    return "\n".join(lines)


def _run(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(help_text())
        return 0 if arguments else UsageError.exit_code
    if arguments[0] in ("--version", "-V"):
        from export3d import __version__

        print(f"export3d {__version__}")
        return 0
    name, rest = arguments[0], arguments[1:]
    command = COMMANDS.get(name)
    if command is None:
        near = difflib.get_close_matches(name, COMMANDS, n=1, cutoff=0.4)
        hint = f" Did you mean '{near[0]}'?" if near else ""
        raise UsageError(f"'{name}' is not a command.{hint} See them all with: export3d --help")
    if command.group == USE:  # beside other work, threads that spin for each other would double the time of a start
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        entry = getattr(importlib.import_module(f"export3d.cli.{command.module}"), f"{name.replace('-', '_')}_main")
    except ImportError as error:
        raise missing_library(f"export3d {name}", error) or _missing_module(name, error) from error
    try:
        code = entry(rest)
    except SystemExit as stop:  # the option parser has printed its own message
        code = stop.code if isinstance(stop.code, int) else (0 if stop.code is None else UsageError.exit_code)
        if code:
            Events.tell("error", message="The options cannot be used; the text on stderr says why.", code=code)
        return code
    return int(code or 0)


def _missing_module(command: str, error: ImportError) -> Export3DError | ImportError:
    missing = (error.name or "").split(".")[0]
    if missing == "export3d" or not isinstance(error, ModuleNotFoundError):
        return error  # a part of this package: a broken installation deserves its traceback
    extras = {"mediapipe": "face", "webdataset": "train", "torchmetrics": "eval", "skimage": "eval", "ray": "cluster"}
    extras |= dict.fromkeys(("onnx", "onnxruntime"), "export")
    extras |= dict.fromkeys(("c2pa", "cryptography"), "provenance")
    extras |= dict.fromkeys(("gradio", "uvicorn", "fastapi", "starlette"), "studio")
    extra = extras.get(missing)
    how = f'pip install "export3d[{extra}]"' if extra else f"pip install {missing}"
    return MissingExtraError(f"export3d {command} needs the package '{missing}', which is not installed. Run: {how}")


def _repair_streams() -> None:
    """Output never fails for a letter that the terminal lacks, nor for a stream that was closed."""
    for name, descriptor in (("stdin", 0), ("stdout", 1), ("stderr", 2)):
        try:
            os.fstat(descriptor)
        except OSError:  # else the next file that is opened would get its place, and the messages of libraries
            os.dup2(os.open(os.devnull, os.O_RDWR), descriptor)
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "r" if descriptor == 0 else "w"))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _forget_stdout() -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
