"""What `export3d reproduce` is asked for: scales, folders, budgets; and how stages report and stop (Sec. 4)."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, get_args

import tyro

from export3d.checks import check_choice
from export3d.errors import DataError, UsageError

if TYPE_CHECKING:
    from export3d.data import ClipDataset

Stage = Literal["data", "pretrain", "train", "evaluate", "figures", "page"]
STAGES: tuple[Stage, ...] = get_args(Stage)
"""In this order. Each one takes from WORK what the earlier ones left there."""

Variant = Literal["full", "direct-3dmm", "e2e-lebs-n25", "e2e-lebs-n10", "e2e-lebs-n5", "cross-attention"]
VARIANTS: tuple[Variant, ...] = get_args(Variant)
"""Names of `ABLATIONS`."""

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

    Raises:
        UsageError: An option cannot be used.
    """

    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    """Folder WORK for clips, runs and scores."""
    scale: Literal["small", "paper-small", "smoke"] = "small"
    """Preset and sizes. paper-small is the budget of docs/paper_results.md; smoke shows in a minute that all
    stages work; its numbers mean nothing."""
    variants: tuple[Variant, ...] = VARIANTS
    """Which variants to train, score and draw; with none after it, the main table and its figures alone. Tables are made of
    all that have been scored."""
    samples: int = 0
    """Training samples of each variant; 0 takes the scale's."""
    pretrain_steps: int = 0
    """Steps of CLeBS pre-training; 0 takes the scale's."""
    clips: int = 0
    """Pairs of each kind that are scored; 0 takes the scale's."""
    data: Path | None = None
    """Training clips, with --test. Heads are rendered when left out."""
    test: Path | None = None
    """Test clips, with --data: other people, the same extractor."""
    expression: Path | None = None
    """Finished run of `export3d pretrain` on such clips. One is made when left out."""
    runs: Path | None = None
    """Folder of finished models VARIANT/model.safetensors, which are taken as they are."""
    model: str | None = None
    """Model of the main table and its figures: a bundled name or a .safetensors file. When left out, the figures are those of
    `full`, and with no --variants both are made for the bundled one."""
    figure_clips: int = 24
    """Rows of the figures of --model."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Of training, the same for every variant."""
    seed: int = 0
    """Seed of training, source frames and bootstrap."""
    head_model: Path | None = None
    """Head model of the rendered clips, as in `heads render`."""
    workers: int = 1
    """Processes that render heads."""
    cache_gb: float = 4.0
    """Memory for decoded training frames."""
    device: str = "cpu"
    """Where networks run."""

    def __post_init__(self) -> None:
        check_choice("--scale", self.scale, SCALES)
        for variant in self.variants:
            check_choice("--variants", variant, VARIANTS)
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
        return self.data if self.data is not None else self.output / "data" / "train"

    @property
    def test_folder(self) -> Path:
        """Where the test clips lie, or will lie."""
        return self.test if self.test is not None else self.output / "data" / "test"

    @property
    def expression_run(self) -> Path:
        """Where the pre-training run lies, or will lie."""
        return self.expression if self.expression is not None else self.output / "runs" / "pretrain"

    @property
    def asks_for_main(self) -> bool:
        """Whether --model is scored and drawn, too: it is named, or there is nothing else."""
        return self.model is not None or not self.variants

    def model_file(self, variant: str) -> Path:
        """The trained model of a variant: the one that --runs holds, else the one of WORK."""
        if self.is_given(variant):
            assert self.runs is not None
            return self.runs / variant / "model.safetensors"
        return self.output / "runs" / variant / "model.safetensors"

    def is_given(self, variant: str) -> bool:
        """Whether --runs holds this variant."""
        return self.runs is not None and (self.runs / variant / "model.safetensors").is_file()

    def open_train(self) -> ClipDataset:
        """The training clips."""
        from export3d.data import ClipDataset

        return ClipDataset(self.train_folder, split="train")

    def open_test(self) -> ClipDataset:
        """The test clips, after checks that they fit the training clips.

        Raises:
            DataError: No clips of the split test; another extractor than the training clips have; or one person in both.
        """
        from export3d.data import ClipDataset, require_same_extractor

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
