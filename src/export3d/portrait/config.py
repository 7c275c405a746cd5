"""Sizes of the model that ships, `PortraitModel`, and its presets."""

from __future__ import annotations

from dataclasses import dataclass, field, fields

from export3d.errors import UsageError
from export3d.model.config import PAPER_SMALL, TINY, ModelConfig
from export3d.model.generator import GeneratorConfig
from export3d.portrait.background import BackgroundConfig
from export3d.portrait.depth import SourceDepthConfig
from export3d.portrait.generator import PortraitGeneratorConfig
from export3d.portrait.lookup import SourceLookupConfig
from export3d.portrait.neck import NeckConfig


@dataclass(frozen=True, kw_only=True)
class PortraitConfig(ModelConfig):
    """The paper's sizes, and those of the parts that read the portrait itself (not in the paper)."""

    generator: PortraitGeneratorConfig = field(default_factory=PortraitGeneratorConfig)
    source_lookup: SourceLookupConfig = field(default_factory=SourceLookupConfig)
    source_depth: SourceDepthConfig = field(default_factory=SourceDepthConfig)
    background: BackgroundConfig = field(default_factory=BackgroundConfig)
    neck: NeckConfig = field(default_factory=NeckConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.generator.conditioning != "eadaln":
            raise UsageError(
                f"model: the portrait model knows the conditioning 'eadaln' only; got '{self.generator.conditioning}'. "
                "Table 4's cross-attention is a variant of the paper's model: take --preset paper-small or paper."
            )


def _grown(generator: GeneratorConfig, **more: object) -> PortraitGeneratorConfig:
    """The paper's generator with the two branches more."""
    same = {f.name: getattr(generator, f.name) for f in fields(GeneratorConfig)}
    return PortraitGeneratorConfig(**same, **more)  # type: ignore[arg-type]


def _portrait(paper: ModelConfig, generator: PortraitGeneratorConfig, **more: object) -> PortraitConfig:
    """A preset of the paper's model with the parts of the portrait model."""
    same = {f.name: getattr(paper, f.name) for f in fields(ModelConfig) if f.name != "generator"}
    return PortraitConfig(**same, generator=generator, **more)  # type: ignore[arg-type]


PORTRAIT = _portrait(PAPER_SMALL, _grown(PAPER_SMALL.generator))

TINY_PORTRAIT = _portrait(
    TINY,
    _grown(TINY.generator, highres_channels=(8,), motion_basis=4),
    source_lookup=SourceLookupConfig(channels=4, width=8),
    source_depth=SourceDepthConfig(channels=2, widths=(8, 8, 8, 8)),
    background=BackgroundConfig(width=4),
)

PORTRAIT_PRESETS: dict[str, PortraitConfig] = {"portrait": PORTRAIT, "tiny-portrait": TINY_PORTRAIT}
"""`portrait`: what we train and ship. `tiny-portrait`: tests."""
