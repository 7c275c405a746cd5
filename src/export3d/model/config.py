"""Model presets as a table of data; a decision where the paper is silent is a field here or in a part's config."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from export3d.checks import check_choice
from export3d.errors import UsageError
from export3d.expression.lebs import LeBSConfig
from export3d.model.background import BackgroundConfig
from export3d.model.decoder import DecoderConfig
from export3d.model.generator import GeneratorConfig
from export3d.model.neck import NeckConfig
from export3d.model.pixel_aligned import PixelAlignedConfig
from export3d.model.source_depth import SourceDepthConfig
from export3d.model.source_lookup import SourceLookupConfig
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
    pixel_aligned: PixelAlignedConfig = field(default_factory=PixelAlignedConfig)
    source_lookup: SourceLookupConfig = field(default_factory=SourceLookupConfig)
    source_depth: SourceDepthConfig = field(default_factory=SourceDepthConfig)
    background: BackgroundConfig = field(default_factory=BackgroundConfig)
    neck: NeckConfig = field(default_factory=NeckConfig)
    source_beta: bool = False
    """The portrait's own expression joins the condition of G. Not in the paper."""
    gaze: bool = False
    """The gaze of portrait and driver joins the condition of G. Not in the paper."""
    upper_face: bool = False
    """Brows and lids of portrait and driver, read off beta by a fixed map, join the condition of G. Not in the paper."""
    lower_face: bool = False
    """The same for jaw, mouth and the sides of the nose. Not in the paper."""

    def __post_init__(self) -> None:
        if self.generator.plane_resolution != self.triplane.resolution:
            raise UsageError(
                f"model: the generator makes planes of {self.generator.plane_resolution} texels, but "
                f"triplane.resolution is {self.triplane.resolution}; change generator.up_channels or triplane.resolution."
            )
        if self.generator.conditioning == "cross_attention" and self.expression.kind == "direct":
            raise UsageError("model: cross-attention needs basis vectors; use expression.kind=lebs.")
        if self.generator.motion_basis and not self.source_lookup.enabled:
            raise UsageError("model: generator.motion_basis serves the source lookup; set source_lookup.enabled.")
        if self.source_depth.enabled and not self.source_lookup.enabled:
            raise UsageError(
                "model: source_depth asks the source lookup where points were in the portrait; set source_lookup.enabled."
            )
        if self.decoder.colour_channels < 3:
            raise UsageError("model: decoder.colour_channels must be at least 3 (the first three are RGB).")

    @property
    def image_size(self) -> int:
        """Side of the source and of the output image, pixels."""
        return self.generator.image_size


PAPER = ModelConfig()

SMALL = ModelConfig(
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
        highres_channels=(24, 32),
        head_channels=(48,),
        head_vit_dim=0,
        tail_channels=(),
        slope=0.1,
        motion_basis=24,
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
    source_lookup=SourceLookupConfig(enabled=True, sharpen=0.2),
    source_depth=SourceDepthConfig(enabled=True),
    background=BackgroundConfig(mode="apart"),
    neck=NeckConfig(enabled=True),
    source_beta=True,
    gaze=True,
    upper_face=True,
    lower_face=True,
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

PRESETS: dict[str, ModelConfig] = {
    "paper": PAPER,
    "lp3d": replace(PAPER, generator=replace(PAPER.generator, highres_channels=(64, 96, 96, 96, 96))),
    "small": SMALL,
    "small-literal": replace(
        SMALL,
        source_lookup=SourceLookupConfig(),
        source_depth=SourceDepthConfig(),
        background=BackgroundConfig(),
        neck=NeckConfig(),
        source_beta=False,
        gaze=False,
        upper_face=False,
        lower_face=False,
        generator=replace(SMALL.generator, highres_channels=(), motion_basis=0),
    ),
    "tiny": TINY,
}
"""`paper`: the paper's sizes. `lp3d`: the same with LP3D's high-resolution branch. `small`: what we train and ship.
`small-literal`: small sizes, but only what the paper describes. `tiny`: tests."""

ABLATIONS: dict[str, dict[str, object]] = {
    "full": {},
    "direct-3dmm": {"kind": "direct", "pretrained": False},
    "e2e-lebs-n25": {"pretrained": False, "num_basis": 25},
    "e2e-lebs-n10": {"pretrained": False, "num_basis": 10},
    "e2e-lebs-n5": {"pretrained": False, "num_basis": 5},
    "cross-attention": {"conditioning": "cross_attention"},
}
"""Variants of Tables 3 and 4, as changes to a preset."""


def preset(name: str) -> ModelConfig:
    """The preset of that name.

    Raises:
        UsageError: Unknown name; suggests the nearest.
    """
    return PRESETS[check_choice("model preset", name, PRESETS)]


def ablation(config: ModelConfig, name: str) -> ModelConfig:
    """A preset changed into one of the paper's ablations (Tables 3 and 4)."""
    changes = dict(ABLATIONS[check_choice("ablation", name, ABLATIONS)])
    generator = config.generator
    if "conditioning" in changes:
        generator = replace(generator, conditioning=str(changes.pop("conditioning")))
    return replace(config, generator=generator, expression=replace(config.expression, **changes))  # type: ignore[arg-type]
