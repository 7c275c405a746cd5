"""One synthetic clip: what is rendered, and one identity's pictures and arrays, a pure function of its seed (Sec. 4.1)."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import numpy as np
import torch

from export3d.checks import check_choice
from export3d.data import Clip, make_meta
from export3d.data.clip import DEPTH_STEPS
from export3d.errors import UsageError
from export3d.heads.clips.acting import independent, trajectory
from export3d.heads.clips.extractor import LinearExtractor
from export3d.heads.clips.motion import Motion
from export3d.heads.clips.motion_csv import from_csv
from export3d.heads.clips.people import add_noise
from export3d.heads.clips.splits import identity_seeds
from export3d.heads.clips.surface import surface_points
from export3d.heads.look.appearance import AppearanceOptions
from export3d.heads.look.identity import Identity
from export3d.heads.look.render import render_frames
from export3d.heads.shape.parametric import ParametricHead
from export3d.landmarks import mirror_points

NOVEL_VIEWS_DEG = (-30.0, 0.0, 30.0)
"""Yaw of the frames that `novel_views` adds; a clip's `extra` names them."""


@dataclass(frozen=True, kw_only=True)
class ClipSettings:
    """What is rendered, but for the motion's file and length."""

    identities: int
    """Heads, one clip each."""
    size: int = 256
    """Side of a frame in pixels."""
    seed: int = 0
    """Position of the first identity in its split: runs with other positions share no identity."""
    split: Literal["train", "validation", "test"] = "train"
    """Which identities. The splits share none."""
    motion: Literal["independent", "wide", "trajectory"] = "independent"
    """Frames drawn one by one; the same with lids, brows and gaze at their ends (training); or a continuous sequence."""
    fps: int = 25
    """Frames per second of a continuous sequence."""
    supersample: int = 2
    """Rendered at this many times the size, then averaged."""
    quality: Literal["fast", "full"] = "full"
    """`fast` takes smaller textures, fewer light directions and fewer hair layers."""
    static_share: float = 0.7
    """Share of heads whose light, body and backdrop are fixed to the head (exactly consistent views); the
    others turn in front of a fixed light and body, as people in real videos do."""
    resting_offset: bool = True
    """Give each head a resting face of its own."""
    novel_views: bool = False
    """Three more frames at the end: the middle frame's expression from yaw -30, 0, +30 degrees (export3d quality)."""


@dataclass(frozen=True, kw_only=True)
class ClipsConfig(ClipSettings):
    """Everything that decides a render. All but the number of identities is the same in all clips of a folder."""

    frames: int
    """Frames of a clip."""
    motion_file: str | None = None
    """A CSV of blendshape weights that drives every head instead; see :func:`from_csv`."""

    def __post_init__(self) -> None:
        for name, least in (("frames", 1), ("size", 16), ("fps", 1), ("supersample", 1)):
            if getattr(self, name) < least:
                raise UsageError(f"--{name}: expected at least {least}; got {getattr(self, name)}.")
        if not 0.0 <= self.static_share <= 1.0:
            raise UsageError(f"--static-share: expected a share in 0..1; got {self.static_share}.")
        check_choice("--motion", self.motion, ("independent", "wide", "trajectory"))
        check_choice("--quality", self.quality, ("fast", "full"))
        identity_seeds(self.split, self.seed, self.identities)

    def seeds(self) -> list[int]:
        """The identity seeds, in the order of the clips."""
        return identity_seeds(self.split, self.seed, self.identities)


def clip_key(split: str, seed: int) -> str:
    """Key and identity name of a synthetic clip."""
    return f"head-{split}-{seed:07d}"


def render_clip(head: ParametricHead, extractor: LinearExtractor, seed: int, config: ClipsConfig) -> Clip:
    """Render one identity: a pure function of its arguments, on one thread.

    Returns:
        The clip with every synthetic member of the format (docs/data.md).
    """
    identity, motion = _draw(head, seed, config)
    static = static_scene(seed, config)
    camera = motion.camera()
    weights = torch.from_numpy(motion.weights)
    gaze = torch.from_numpy(motion.gaze)
    rendered = render_frames(
        identity, weights, gaze, camera, size=config.size, supersample=config.supersample, static_scene=static
    )
    masks = _to_uint8(rendered.alpha)
    depths = (rendered.depth * DEPTH_STEPS).round().clamp(0, 65535).cpu().numpy()
    key = clip_key(config.split, seed)
    split = "val" if config.split == "validation" else config.split
    return Clip(
        key=key,
        frames=_to_uint8(rendered.color.movedim(1, -1)),
        masks=masks,
        depths=np.where(masks == 0, 0, depths).astype(np.uint16),  # a trace of hair that the mask rounds away is none
        background=_to_uint8(identity.background(config.size, config.supersample).movedim(0, -1)),
        arrays=_arrays(identity, extractor, motion, seed),
        meta=make_meta(
            key=key,
            num_frames=len(motion),
            size=config.size,
            fps=Fraction(config.fps),
            identity=key,
            source="export3d heads render",
            extractor=extractor.info,
            split=split,
            extra={
                "seed": seed,
                "motion": "file" if config.motion_file else config.motion,
                "static_scene": static,
                **({"novel_views_deg": list(NOVEL_VIEWS_DEG)} if config.novel_views else {}),
                "head": head.name,
                "style": identity.style,
                "age": round(identity.traits.age, 1),
                "melanin": round(identity.traits.melanin, 3),
                "femininity": round(identity.traits.femininity, 3),
            },
        ),
    )


def static_scene(seed: int, config: ClipsConfig) -> bool:
    """Whether light and torso are fixed to the head in the clip of this identity."""
    return bool(_rng(seed, "scene").random() < config.static_share)


def clip_arrays(
    head: ParametricHead, extractor: LinearExtractor, seed: int, config: ClipsConfig
) -> dict[str, np.ndarray]:
    """The arrays of :func:`render_clip` without its pictures."""
    identity, motion = _draw(head, seed, config)
    return _arrays(identity, extractor, motion, seed)


def _draw(head: ParametricHead, seed: int, config: ClipsConfig) -> tuple[Identity, Motion]:
    options = AppearanceOptions(quality=config.quality, resting_offset=config.resting_offset)
    identity = Identity.create(head, seed, options)
    motion = _acted(seed, config, identity.resting_weights.cpu().numpy())
    if config.novel_views:
        motion = motion.with_views(config.frames // 2, np.radians(NOVEL_VIEWS_DEG))
    return identity, motion


def _acted(seed: int, config: ClipsConfig, resting: np.ndarray) -> Motion:
    if config.motion_file is not None:
        motion = from_csv(config.motion_file)
        if len(motion) < config.frames:
            raise UsageError(f"--frames: {config.motion_file} has {len(motion)} rows; got {config.frames}.")
        return motion.first(config.frames, resting=resting)
    if config.motion != "trajectory":
        return independent(seed, config.frames, resting=resting, wide=config.motion == "wide")
    return trajectory(seed, config.frames, config.fps, resting=resting)


def _arrays(identity: Identity, extractor: LinearExtractor, motion: Motion, seed: int) -> dict[str, np.ndarray]:
    """Every array of the clip. Noise is drawn anew for the mirrored picture, as a detector would err anew."""
    rng, camera = _rng(seed, "landmark noise"), motion.camera()
    weights, gaze = torch.from_numpy(motion.weights), torch.from_numpy(motion.gaze)
    landmarks = camera.project(identity.landmarks_world(weights.to(identity.rest.device)).cpu())[0]
    noise_px = extractor.config.noise_px
    beta = extractor.fit(add_noise(landmarks, rng, noise_px), camera)
    mirrored = extractor.fit(add_noise(mirror_points(landmarks), rng, noise_px), camera.mirrored())
    tensors = {
        "beta": beta,
        "camera": camera.to_vector(),
        "landmarks": landmarks,
        "confidence": torch.ones(len(motion)),
        "crop": torch.zeros(len(motion), 3),
        "true_beta": extractor.true_beta(weights),
        "weights": weights,
        "alpha": identity.alpha,
        "gaze": gaze,
        "beta_mirror": mirrored,
        "surface": surface_points(identity, weights.to(identity.rest.device), gaze.to(identity.rest.device)),
    }
    return {name: np.ascontiguousarray(tensor.float().cpu().numpy()) for name, tensor in tensors.items()}


def _to_uint8(values: torch.Tensor) -> np.ndarray:
    return np.ascontiguousarray((values * 255.0).round().clamp(0, 255).to(torch.uint8).cpu().numpy())


def _rng(seed: int, purpose: str) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence([seed, *purpose.encode()]))
