"""Model presets as a table of data; a decision where the paper is silent is a field here or in a part's config."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TypeVar

from export3d.checks import check_choice
from export3d.errors import UsageError
from export3d.expression.lebs import LeBSConfig
from export3d.model.decoder import DecoderConfig
from export3d.model.generator import GeneratorConfig
from export3d.model.superres import SuperResConfig
from export3d.model.triplane import TriPlaneConfig
from export3d.rendering.renderer import RendererConfig


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Everything that fixes the shape of a model. The defaults are the `paper` preset."""

    expression: LeBSConfig = field(default_factory=LeBSConfig)
    generator: GeneratorConfig = field(default_factory=GeneratorConfig)
    triplane: TriPlaneConfig = field(default_factory=TriPlaneConfig)
    decoder: DecoderConfig = field(default_factory=DecoderConfig)
    renderer: RendererConfig = field(default_factory=RendererConfig)
    superres: SuperResConfig = field(default_factory=SuperResConfig)

    def __post_init__(self) -> None:
        if self.generator.plane_resolution != self.triplane.resolution:
            raise UsageError(
                f"model: the generator makes planes of {self.generator.plane_resolution} texels, but "
                f"triplane.resolution is {self.triplane.resolution}; change generator.up_channels or triplane.resolution."
            )
        if self.generator.conditioning == "cross_attention" and self.expression.kind == "direct":
            raise UsageError("model: cross-attention needs basis vectors; use expression.kind=lebs.")
        if self.decoder.colour_channels < 3:
            raise UsageError("model: decoder.colour_channels must be at least 3 (the first three are RGB).")

    @property
    def image_size(self) -> int:
        """Side of the source and of the output image, pixels."""
        return self.generator.image_size


PAPER = ModelConfig()

PAPER_SMALL = ModelConfig(
    expression=LeBSConfig(hidden=128),
    generator=GeneratorConfig(
        image_size=128,
        stem_channels=(32, 96),
        stem_kernel=5,
        stem_residual_blocks=1,
        hidden=192,
        blocks=4,
        final_norm=True,
        up_channels=(32,),
        head_channels=(48,),
        head_vit_dim=0,
        tail_channels=(),
        slope=0.1,
    ),
    triplane=TriPlaneConfig(channels=16, resolution=64, box_side=0.8, padding="border"),
    decoder=DecoderConfig(hidden=40, colour_channels=24, density_bias=-2.0),
    renderer=RendererConfig(
        num_coarse=16,
        num_fine=20,
        near=0.42,
        far=0.42,
        depth_range="around_origin",
        composite_coarse=False,
        density_gain=40.0,
    ),
    superres=SuperResConfig(start_size=None, channels=(40, 32)),
)

TINY = ModelConfig(
    expression=LeBSConfig(dim=32, hidden=16),
    generator=GeneratorConfig(
        image_size=32,
        stem_channels=(8, 16),
        stem_kernel=5,
        stem_residual_blocks=1,
        hidden=32,
        blocks=2,
        up_channels=(16,),
        head_channels=(16, 16),
        head_vit_dim=16,
        tail_channels=(16,),
    ),
    triplane=TriPlaneConfig(channels=8, resolution=16),
    decoder=DecoderConfig(hidden=16, colour_channels=8),
    renderer=RendererConfig(raw_size=8, num_coarse=8, num_fine=8),
    superres=SuperResConfig(start_size=16, channels=(16, 8)),
)

PRESETS: dict[str, ModelConfig] = {"paper": PAPER, "paper-small": PAPER_SMALL, "tiny": TINY}
"""`paper`: the paper's sizes. `paper-small`: the same network, small enough for a CPU; Tables 3 and 4 run on it. `tiny`: tests.
The model that ships is another one, `portrait.config`."""

ABLATIONS: dict[str, dict[str, object]] = {
    "full": {},
    "direct-3dmm": {"kind": "direct", "pretrained": False},
    "e2e-lebs-n25": {"pretrained": False, "num_basis": 25},
    "e2e-lebs-n10": {"pretrained": False, "num_basis": 10},
    "e2e-lebs-n5": {"pretrained": False, "num_basis": 5},
    "cross-attention": {"conditioning": "cross_attention"},
}
"""Variants of Tables 3 and 4, as changes to a preset."""


Config = TypeVar("Config", bound=ModelConfig)


def ablation(config: Config, name: str) -> Config:
    """A preset changed into one of the paper's ablations (Tables 3 and 4)."""
    changes = dict(ABLATIONS[check_choice("ablation", name, ABLATIONS)])
    generator = config.generator
    if "conditioning" in changes:
        generator = replace(generator, conditioning=str(changes.pop("conditioning")))
    return replace(config, generator=generator, expression=replace(config.expression, **changes))  # type: ignore[arg-type]
