"""`export3d train-gaze`, `train-mouth` and `train-camera`: what the tracker reads from MediaPipe's mesh (no paper section)."""

from __future__ import annotations

import importlib

from export3d.cli.common import Entry, check_targets, entry, progress_bar
from export3d.fitting.options import FitOptions


def _entry(command: str, module: str, builder: str) -> Entry:
    """A command that fits, measures and writes by a function of `export3d.fitting`, which gives the result line."""

    def run(options: FitOptions, typed: str) -> str:
        check_targets((options.output, ".safetensors"), (options.report, ".json"))
        build = getattr(importlib.import_module(f"export3d.fitting.{module}"), builder)
        with progress_bar(command, None) as progress:
            return build(options, typed, progress=lambda stage, done, total: progress(done))

    return entry(command, FitOptions, run, typed=True)


train_gaze_main = _entry("train-gaze", "gaze", "build_gaze_map")
train_mouth_main = _entry("train-mouth", "mouth", "build_mouth_map")
train_camera_main = _entry("train-camera", "head_fit", "build_head_fit")
