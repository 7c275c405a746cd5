"""From a configuration and files to a training task: the variants of Tables 3 and 4 and what each of them starts from."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from export3d.data.source import ClipSource
from export3d.expression.lebs import LeBS
from export3d.model.config import ABLATIONS, ablation
from export3d.training.loop.distributed import World
from export3d.training.phases.config import TrainConfig
from export3d.training.phases.pretrain_files import load_expression
from export3d.training.phases.train import TrainTask
from export3d.training.phases.train_inputs import (
    check_same_extractor,
    expression_of_model,
    find_perceptual,
    start_weights,
)


@dataclass(frozen=True, kw_only=True)
class TrainSetup:
    """Everything that a training run needs besides its clips.

    Attributes:
        config: with the model of the variant.
        notes: what the run folder and the model file say about the inputs; JSON-ready.
        expression: the pre-trained expression encoder, or None for a variant that learns its own.
        perceptual: the perceptual distance, or None.
        start: weights to begin with, or None.
    """

    config: TrainConfig
    notes: dict[str, Any]
    expression: LeBS | None
    perceptual: nn.Module | None
    start: dict[str, Tensor] | None

    def task(
        self, dataset: ClipSource, world: World, *, sheet_clips: ClipSource | None = None, cache_gb: float = 4.0
    ) -> TrainTask:
        """The task for `loop.run_loop`.

        Raises:
            UsageError: The variant needs a pre-trained expression encoder and there is none.
        """
        return TrainTask(
            self.config,
            dataset,
            world,
            expression=self.expression,
            perceptual=self.perceptual,
            start=self.start,
            notes=self.notes,
            sheet_clips=sheet_clips,
            cache_gb=cache_gb,
        )


def prepare_training(
    config: TrainConfig,
    variant: str,
    extractor: dict[str, str],
    *,
    expression: Path | None = None,
    face_network: Path | None = None,
    vgg: Path | None = None,
    lpips_heads: Path | None = None,
    start: Path | None = None,
) -> TrainSetup:
    """Read what a run of this variant needs.

    Args:
        config: with the model of a preset; the variant changes it.
        variant: a name of `ABLATIONS`.
        extractor: of the training clips.
        expression: run of `export3d pretrain`; None takes the frozen one of `start`. Variants that learn their own
            expression encoder do not take it.
        face_network: run whose image encoder is the perceptual distance; by default that of `expression`.
        vgg, lpips_heads: files of LPIPS.
        start: model file to begin with.

    Raises:
        UsageError: Unknown variant, or a file that the configuration needs was not given.
        CheckpointError: A file cannot be read.
        TrainingError: The expression encoder or the start do not fit.
    """
    config = replace(config, model=ablation(config.model, variant))
    notes: dict[str, Any] = {}
    encoder = None
    if expression is not None and ABLATIONS[variant].get("pretrained") is not False:
        encoder, stored = load_expression(expression)
        check_same_extractor(stored, extractor)
        notes["expression_step"] = stored["step"]
    elif start is not None and config.model.expression.pretrained:
        encoder, stored = expression_of_model(start)
        check_same_extractor(stored, extractor)
    perceptual, notes["perceptual"] = find_perceptual(config, face_network or expression, vgg, lpips_heads)
    weights = None
    if start is not None:
        weights, notes["start"] = start_weights(start, config.model)
    return TrainSetup(config=config, notes=notes, expression=encoder, perceptual=perceptual, start=weights)
