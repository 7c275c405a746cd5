"""What `export3d reproduce` is asked for: scales, folders, budgets; and how stages report and stop (Sec. 4)."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from export3d.checks import check_choice
from export3d.data import ClipDataset
from export3d.data.manifest import require_same_extractor
from export3d.errors import DataError, UsageError
from export3d.model.config import ABLATIONS

STAGES = ("data", "pretrain", "train", "evaluate", "figures", "page")
"""In this order. Each one takes from WORK what the earlier ones left there."""

TABLE3 = ("direct-3dmm", "e2e-lebs-n25", "e2e-lebs-n10", "e2e-lebs-n5", "full")
"""Rows of Table 3, in the paper's order."""

TABLE4 = ("cross-attention", "full")
"""Rows of Table 4."""

MAIN = "main"
"""Name of the evaluation of --model."""


@dataclass(frozen=True, kw_only=True)
class Scale:
    """Defaults of a reproduction: preset and sizes. Single options of the command change them."""

    preset: str
    """Preset of the model, of pre-training and of training."""
    samples: int
    """Training samples of each variant."""
    pretrain_steps: int
    train_identities: int
    train_frames: int
    test_identities: int
    test_frames: int
    size: int
    """Side of a rendered frame, pixels."""
    supersample: int = 2
    quality: Literal["fast", "full"] = "full"
    clips: int
    """Pairs of each kind that are scored; also the clips with exact truth."""
    landmarks: Literal["mediapipe", "none"] = "mediapipe"
    identity: str = "bundled"
    drawn_identities: int
    """People of the t-SNE figure and its numbers, drawn without rendering; 0 takes those of the test clips."""
    log_every: int = 10


SCALES: dict[str, Scale] = {
    "small": Scale(
        preset="paper-small",
        samples=6000,
        pretrain_steps=1500,
        train_identities=300,
        train_frames=24,
        test_identities=48,
        test_frames=16,
        size=128,
        clips=24,
        drawn_identities=100,
    ),
    "paper-small": Scale(
        preset="paper-small",
        samples=24_000,
        pretrain_steps=3000,
        train_identities=500,
        train_frames=34,
        test_identities=100,
        test_frames=16,
        size=128,
        quality="fast",
        clips=100,
        drawn_identities=100,
    ),
    "smoke": Scale(
        preset="tiny",
        samples=8,
        pretrain_steps=3,
        train_identities=3,
        train_frames=4,
        test_identities=3,
        test_frames=4,
        size=32,
        supersample=1,
        quality="fast",
        clips=2,
        landmarks="none",
        identity="none",
        drawn_identities=16,
        log_every=1,
    ),
}
"""`small`: hours of one core. `paper-small`: the budget at which Tables 3 and 4 are judged, a day of two cores.
`smoke`: shows in a minute that every stage works; its numbers mean nothing."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """One reproduction.

    Attributes:
        work: folder of everything that is made on the way.
        scale: a name of `SCALES`.
        variants: names of `ABLATIONS`; with none, the main model alone is scored and drawn.
        samples, pretrain_steps, clips: 0 takes the scale's.
        data, test: folders of clips, both or none; without them heads are rendered.
        expression: run of `export3d pretrain`; without it one is made.
        runs: folder with finished models ``<variant>/model.safetensors``, which are taken as they are.
        model: name or file of the model of the main table.
        precision: of training, the same for every variant.
        figure_clips: rows of the figures of --model.

    Raises:
        UsageError: An option cannot be used.
    """

    work: Path
    scale: str = "small"
    variants: tuple[str, ...] = tuple(ABLATIONS)
    samples: int = 0
    pretrain_steps: int = 0
    clips: int = 0
    data: Path | None = None
    test: Path | None = None
    expression: Path | None = None
    runs: Path | None = None
    model: str | None = None
    seed: int = 0
    precision: str = "fp32"
    device: str = "cpu"
    figure_clips: int = 24
    head_model: Path | None = None
    workers: int = 1
    cache_gb: float = 4.0

    def __post_init__(self) -> None:
        check_choice("--scale", self.scale, SCALES)
        for variant in self.variants:
            check_choice("--variants", variant, ABLATIONS)
        if len(set(self.variants)) != len(self.variants):
            raise UsageError("--variants: name each variant once.")
        if (self.data is None) != (self.test is None):
            raise UsageError("--data and --test belong together: give both folders, or none to render heads.")
        for name in ("samples", "pretrain_steps", "clips"):
            if getattr(self, name) < 0:
                raise UsageError(
                    f"--{name.replace('_', '-')}: expected 0 (the scale's) or more; got {getattr(self, name)}."
                )
        if self.figure_clips < 1:
            raise UsageError(f"--figure-clips must be at least 1; got {self.figure_clips}.")
        if self.runs is not None and not self.runs.is_dir():
            raise DataError(f"{self.runs}: no such folder; --runs holds VARIANT/model.safetensors.")

    @property
    def sizes(self) -> Scale:
        """The defaults of the scale."""
        return SCALES[self.scale]

    @property
    def num_clips(self) -> int:
        """Pairs of each kind that are scored."""
        return self.clips or self.sizes.clips

    @property
    def train_folder(self) -> Path:
        """Where the training clips lie, or will lie."""
        return self.data if self.data is not None else self.work / "data" / "train"

    @property
    def test_folder(self) -> Path:
        """Where the test clips lie, or will lie."""
        return self.test if self.test is not None else self.work / "data" / "test"

    @property
    def expression_run(self) -> Path:
        """Where the pre-training run lies, or will lie."""
        return self.expression if self.expression is not None else self.work / "runs" / "pretrain"

    @property
    def asks_for_main(self) -> bool:
        """Whether --model is scored and drawn, too: it is named, or there is nothing else."""
        return self.model is not None or not self.variants

    def model_file(self, variant: str) -> Path:
        """The trained model of a variant: the one that --runs holds, else the one of WORK."""
        if self.is_given(variant):
            assert self.runs is not None
            return self.runs / variant / "model.safetensors"
        return self.work / "runs" / variant / "model.safetensors"

    def is_given(self, variant: str) -> bool:
        """Whether --runs holds this variant."""
        return self.runs is not None and (self.runs / variant / "model.safetensors").is_file()

    def open_train(self) -> ClipDataset:
        """The training clips."""
        return ClipDataset(self.train_folder, split="train")

    def open_test(self) -> ClipDataset:
        """The test clips, after checks that they fit the training clips.

        Raises:
            DataError: No clips of the split test; another extractor than the training clips have; or one person in both.
        """
        test = ClipDataset(self.test_folder, split="test")
        if (self.train_folder / "manifest.json").is_file():
            train = self.open_train()
            require_same_extractor(train.extractor, test.extractor, str(self.test_folder))
            seen = {train.identity(i) for i in range(len(train))} & {test.identity(i) for i in range(len(test))}
            if seen:
                raise DataError(
                    f"{self.test_folder}: '{min(seen)}' is also among the training clips. Use other people."
                )
        return test


class Stopped(Exception):
    """A stage was stopped before it was done; the same command goes on from there.

    Attributes:
        reason: `SIGINT`, `SIGTERM` or `max_minutes`.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(kw_only=True)
class Reporter:
    """What the stages tell while they work, and when they must stop.

    Attributes:
        line: takes a line of text.
        progress: takes what is done, how much of it, and of how much.
        max_minutes: raise `Stopped` when this time is over; None for never.
    """

    line: Callable[[str], None] = lambda text: None
    progress: Callable[[str, int, int], None] = lambda label, done, total: None
    max_minutes: float | None = None
    started: float = field(default_factory=time.monotonic)

    def minutes_left(self) -> float | None:
        """None without a limit."""
        return None if self.max_minutes is None else self.max_minutes - (time.monotonic() - self.started) / 60.0

    def advance(self, label: str, done: int, total: int) -> None:
        """Show progress; raises `Stopped` when the time is over and something is left to do."""
        self.progress(label, done, total)
        left = self.minutes_left()
        if left is not None and left <= 0 and done < total:
            raise Stopped("max_minutes")
