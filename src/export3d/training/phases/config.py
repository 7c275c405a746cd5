"""What decides the result of phases 1 and 2, and the presets of `export3d train` as one table (docs/training.md)."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from export3d.checks import check_choice
from export3d.model.config import PRESETS, ModelConfig
from export3d.portrait.config import PORTRAIT_PRESETS, PortraitConfig
from export3d.training.batches.augment import AugmentConfig
from export3d.training.batches.pair_batch import PairSampling
from export3d.training.losses.discriminator import DiscriminatorConfig
from export3d.training.losses.terms import LossWeights


@dataclass(frozen=True, kw_only=True)
class AdversarialConfig:
    """Phase 2 (Eq. 14)."""

    samples: int = 80_000
    """Samples of phase 2, after phase 1 (paper: 10,000 steps of 8). 0 leaves phase 2 out."""
    weight_rec: float = 1.0
    """lambda_rec (paper: 1)."""
    weight: float = 0.01
    """lambda_adv (paper: 0.01)."""
    learning_rate: float = 1e-5
    """Adam's rate for the discriminator (paper: 1e-5)."""
    betas: tuple[float, float] = (0.0, 0.99)
    """Adam's betas for the discriminator (StyleGAN2)."""
    r1_gamma: float = 1.0
    """R1 penalty's gamma; 0 switches it off."""
    r1_every: int = 16
    """Steps between R1 penalties."""
    discriminator: DiscriminatorConfig = field(default_factory=DiscriminatorConfig)
    """Sizes of the discriminator."""

    def __post_init__(self) -> None:
        if self.samples < 0 or self.r1_every < 1 or self.r1_gamma < 0:
            raise ValueError("adversarial: samples and r1_gamma must not be negative, r1_every at least 1")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Everything that decides the result of training. The defaults are the paper's (phase 1, then phase 2)."""

    model: ModelConfig = field(default_factory=ModelConfig)
    """The model that is trained."""
    samples: int = 2_400_000
    """Samples of phase 1 (paper: 300,000 steps of 8)."""
    batch: int = 8
    """Samples per optimiser step, over all processes (paper: 8)."""
    accumulate: int = 1
    """Parts into which each process cuts its share of the batch to save memory."""
    seed: int = 0
    """Seed of weights, sampling, augmentation and depth jitter."""
    weights: LossWeights = field(default_factory=LossWeights)
    """Terms of Eq. 13 and options."""
    perceptual: str = "lpips"
    """`lpips` (VGG16, files given), `face_network` (of a pre-training run) or `none`."""
    learning_rate: float = 1e-4
    """Adam's rate for the model (paper: 1e-4)."""
    rate_batch: int = 8
    """Batch that both learning rates are for; with another they grow as the root of the ratio (Adam's rule). 0: never."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Adam's betas for the model."""
    expression_rate: float = 1.0
    """Factor of the rate for an expression encoder that is trained end to end; a pre-trained one stays frozen."""
    face_shapes_rate: float = 1.0
    """Factor of the rate for the way of upper and lower face into the condition: brows show in so few pixels that it grows
    slowly."""
    warmup_steps: int = 0
    """Steps over which the rate grows from 0 (paper: none)."""
    decay_from: float = 1.0
    """Share of phase 1 after which the rate falls along a cosine (paper: never)."""
    decay_floor: float = 0.03
    """The rate's last factor; phase 2 keeps it."""
    clip_gradient: float = 0.0
    """Largest gradient norm; 0 for no limit (paper: not named)."""
    weight_mean: float = 0.0
    """Decay of the running mean of the weights; 0 for none."""
    sampling: PairSampling = field(default_factory=PairSampling)
    """Pairs and windows (paper: any two frames of a clip, whole frames)."""
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    """Changes of both frames alike (paper: none)."""
    portrait_until: float = 0.0
    """First share of phase 1 that renders nothing and trains only what is read off the portrait alone, its matte and its
    depth (paper: 0)."""
    coarse_until: float = 0.0
    """Share of phase 1 up to which whole frames are rendered with few rays and no super-resolution (paper: 0)."""
    coarse_size: int = 32
    """Rays a side in that share."""
    focus: float = 0.0
    """Extra weight of the pixel terms around eyes and mouth (paper: 0)."""
    edge_px: int = 0
    """Border pixels of a window, but not of the picture, that the final image's terms leave out."""
    jitter: bool = True
    """Random depths along the rays (as EG3D)."""
    precision: str = "auto"
    """`fp32`, `bf16` (autocast; renderer and losses stay fp32) or `auto`: what a start-up timing finds faster."""
    compile: bool = False
    """torch.compile the generator's part."""
    adversarial: AdversarialConfig = field(default_factory=AdversarialConfig)
    """Phase 2."""

    def __post_init__(self) -> None:
        check_choice("precision", self.precision, ("auto", "bf16", "fp32"))
        check_choice("perceptual", self.perceptual, ("face_network", "lpips", "none"))
        if self.batch < 1 or self.samples < self.batch or self.accumulate < 1:
            raise ValueError("train: batch and accumulate must be positive, samples at least one batch")
        shares = (self.portrait_until, self.coarse_until, self.decay_from)
        if min(shares) < 0 or max(shares) > 1:
            raise ValueError("train: portrait_until, coarse_until, decay_from are shares between 0 and 1")
        if self.perceptual == "none" and (self.weights.perceptual > 0 or self.weights.perceptual_raw > 0):
            raise ValueError("train: perceptual 'none' needs weights.perceptual and weights.perceptual_raw of 0")
        if self.portrait_until > 0 and not isinstance(self.model, PortraitConfig):
            raise ValueError(
                "train: portrait_until needs the portrait model; the paper's reads nothing off the portrait alone"
            )
        raw = self.model.renderer.raw_size
        if self.sampling.window is not None and not 1 <= self.sampling.window <= raw:
            raise ValueError(f"train: sampling.window must lie in 1..{raw} (the raw size); got {self.sampling.window}")
        if self.sampling.raw_size != raw:
            raise ValueError(f"train: sampling.raw_size must be the model's raw size, {raw}")

    @property
    def phase1_steps(self) -> int:
        """Optimiser steps of phase 1."""
        return -(-self.samples // self.batch)

    @property
    def phase2_steps(self) -> int:
        """Optimiser steps of phase 2."""
        return -(-self.adversarial.samples // self.batch)


PORTRAIT_TRAIN = TrainConfig(
    model=PORTRAIT_PRESETS["portrait"],
    samples=150_000,
    batch=16,
    perceptual="face_network",
    weights=LossWeights(
        mse_raw=2.0,
        mse=2.0,
        l1_raw=1.0,
        l1=2.0,
        gradient_raw=0.25,
        gradient=0.5,
        perceptual_raw=0.0,
        perceptual=0.3,
        depth=2.0,
        opacity=1.0,
        surface=0.2,
        occupancy=0.2,
        source_depth=10.0,
        matte=0.3,
    ),
    learning_rate=6e-4,
    rate_batch=0,
    betas=(0.9, 0.99),
    face_shapes_rate=6.0,
    warmup_steps=150,
    decay_from=0.4,
    clip_gradient=1.0,
    weight_mean=0.998,
    sampling=PairSampling(
        frontal_share=0.7, window=32, surface_points=256, moving_share=0.5, space_points=512, gaze_unknown=0.2
    ),
    augment=AugmentConfig(
        other_background=0.25, flat_background=0.2, color_gain=0.12, gamma=0.12, mirror=0.5, other_leak=0.8
    ),
    coarse_until=0.12,
    focus=1.0,
    edge_px=4,
    adversarial=AdversarialConfig(
        samples=0, discriminator=DiscriminatorConfig(channel_base=2048, channel_max=64, mapping_layers=2)
    ),
)

TINY_TRAIN = TrainConfig(
    model=PRESETS["tiny"],
    samples=8,
    batch=2,
    perceptual="none",
    weights=LossWeights(perceptual_raw=0.0, perceptual=0.0),
    learning_rate=1e-3,
    rate_batch=0,
    sampling=PairSampling(raw_size=8),
    precision="fp32",
    adversarial=AdversarialConfig(
        samples=4, discriminator=DiscriminatorConfig(channel_base=64, channel_max=16, mapping_layers=1)
    ),
)

TRAIN_PRESETS = {
    "paper": TrainConfig(),
    "paper-small": replace(PORTRAIT_TRAIN, model=PRESETS["paper-small"]),
    "portrait": PORTRAIT_TRAIN,
    "tiny": TINY_TRAIN,
    "tiny-portrait": replace(TINY_TRAIN, model=PORTRAIT_PRESETS["tiny-portrait"]),
}
"""The presets of `export3d train`."""
