"""What an identity looks like: options and the traits that are drawn from a seed (identity of Eq. 11, and all the rest)."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from export3d.checks import check_choice
from export3d.heads.shape.parametric import ParametricHead

NUM_ALPHA = 80
"""Identity coefficients alpha of Eq. 11: modes 1-80 of the head."""

NUM_RESIDUAL = 11
"""Identity modes 81-91, which the linear extractor shows in beta (expression space `ict64`)."""

HAIR_STYLES = tuple("bald buzz short quiff sidepart fringe curly bob bobfringe long wavy updo afro".split())

HAIR_COLORS = {
    "black": (0.012, 0.010, 0.009),
    "dark": (0.030, 0.019, 0.013),
    "brown": (0.075, 0.042, 0.024),
    "chestnut": (0.11, 0.05, 0.025),
    "auburn": (0.20, 0.065, 0.025),
    "dark blond": (0.25, 0.16, 0.08),
    "blond": (0.45, 0.32, 0.17),
    "grey": (0.27, 0.26, 0.25),
    "white": (0.55, 0.53, 0.51),
}

T = TypeVar("T")

_IRISES = ((0.05, 0.022, 0.010), (0.10, 0.05, 0.02), (0.10, 0.11, 0.05), (0.08, 0.15, 0.24), (0.16, 0.22, 0.26))
_LIPSTICKS = ((0.45, 0.05, 0.06), (0.55, 0.14, 0.14), (0.50, 0.10, 0.14), (0.38, 0.12, 0.09), (0.30, 0.03, 0.05))

# Fractional parts of seed * step fill [0, 1) evenly for any run of consecutive seeds (golden-ratio sequences), so
# skin tones and ages are spread evenly in small sets too; the rest of a face comes from the seeded generator.
_TONE_STEP = 0.6180339887498949
_AGE_STEP = 0.7548776662466927


@dataclass(frozen=True, kw_only=True)
class AppearanceOptions:
    """How identities are drawn; `None` leaves a trait to the seed."""

    quality: str = "full"
    """`full`: 640-texel atlas, 6 hair layers, 56 shadow maps. `fast`: 384 texels, 4 layers, 32 maps (training data)."""
    style: str | None = None
    """One of :data:`HAIR_STYLES`."""
    femininity: float | None = None
    """-1 masculine .. 1 feminine."""
    melanin: float | None = None
    """0.1 very fair .. 1.6 very dark."""
    age: float | None = None
    """Years, 18-80."""
    beard: float | None = None
    """0 shaved .. 1 full beard."""
    hair_color: str | None = None
    """One of :data:`HAIR_COLORS`."""
    glasses: bool | None = None
    earrings: bool | None = None
    accessories: bool = True
    """Whether a seed may draw glasses or earrings."""
    resting_offset: bool = True
    """A resting expression of its own for each identity (design/heads.md, section 3)."""
    resting_lids: bool = True
    """Lids a little lowered in every neutral face; off, zero coefficients give exactly the mean head."""

    def __post_init__(self) -> None:
        check_choice("quality", self.quality, ("fast", "full"))
        if self.style is not None:
            check_choice("style", self.style, HAIR_STYLES)
        if self.hair_color is not None:
            check_choice("hair_color", self.hair_color, HAIR_COLORS)

    @property
    def atlas_size(self) -> int:
        """Texels of a side of the face tile; the head tile has the same size."""
        return 384 if self.quality == "fast" else 640

    @property
    def hair_layers(self) -> int:
        """Shells of hair."""
        return 4 if self.quality == "fast" else 6

    @property
    def shadow_directions(self) -> int:
        """Depth maps for the soft self-shadow."""
        return 32 if self.quality == "fast" else 56

    @property
    def shadow_map_size(self) -> int:
        """Pixels of a side of a shadow depth map."""
        return 96 if self.quality == "fast" else 128


@dataclass(frozen=True, kw_only=True)
class Traits:
    """The drawn look of one identity, in plain numbers."""

    seed: int
    femininity: float
    age: float
    melanin: float
    haemoglobin: float
    style: str
    hair_color_name: str
    hair_color: tuple[float, float, float]
    beard: float
    iris: tuple[float, float, float]
    lipstick: tuple[float, float, float] | None
    lipstick_strength: float
    resting_blink: float
    glasses: str | None
    earrings: str | None

    @property
    def is_feminine(self) -> bool:
        """Whether make-up, lashes and styles follow the feminine side."""
        return self.femininity > 0.0


def draw_traits(seed: int, options: AppearanceOptions) -> Traits:
    """Draw the look of an identity; options that are not None replace what was drawn, and change nothing else."""
    rng = np.random.default_rng([seed, 1])

    def uniform(low: float, high: float) -> float:
        return float(rng.uniform(low, high))

    melanin = _given(options.melanin, 0.12 + 1.38 * ((0.31 + seed * _TONE_STEP) % 1.0) ** 1.3)
    haemoglobin = uniform(0.28, 0.5)
    age = _given(options.age, 18.0 + 60.0 * ((0.57 + seed * _AGE_STEP) % 1.0))
    side = 1.0 if rng.random() < 0.5 else -1.0
    femininity = _given(options.femininity, side * uniform(0.55, 1.25))
    feminine = femininity > 0.0
    name = _given(options.hair_color, _draw_hair_color(rng, melanin, age))
    shade = uniform(0.8, 1.25)
    style = options.style if options.style is not None else _draw_style(rng, feminine, melanin, age)
    beard = float(rng.choice([0.0, 0.25, 0.6, 1.0], p=[0.35, 0.3, 0.2, 0.15]))
    beard = _given(options.beard, 0.0 if feminine else beard)
    iris = _IRISES[0 if melanin > 0.8 else int(rng.integers(0, len(_IRISES)))]
    iris_shade = uniform(0.8, 1.3)
    lipstick = _LIPSTICKS[int(rng.integers(0, len(_LIPSTICKS)))] if rng.random() < 0.5 else None
    glasses_kind = str(rng.choice(["round", "square"]))
    has_glasses = rng.random() < 0.08 + 0.10 * (age > 45)
    earring_kind = str(rng.choice(["stud", "hoop"]))
    has_earrings = rng.random() < (0.35 if feminine else 0.04)
    has_glasses = _given(options.glasses, has_glasses and options.accessories)
    has_earrings = _given(options.earrings, has_earrings and options.accessories)
    color = HAIR_COLORS[name]
    return Traits(
        seed=seed,
        femininity=femininity,
        age=age,
        melanin=melanin,
        haemoglobin=haemoglobin,
        style=style,
        hair_color_name=name,
        hair_color=(color[0] * shade, color[1] * shade, color[2] * shade),
        beard=beard,
        iris=(iris[0] * iris_shade, iris[1] * iris_shade, iris[2] * iris_shade),
        lipstick=lipstick if feminine else None,
        lipstick_strength=uniform(0.35, 0.85),
        resting_blink=float(np.clip(rng.normal(0.12, 0.05), 0.02, 0.22)),
        glasses=glasses_kind if has_glasses else None,
        earrings=earring_kind if has_earrings else None,
    )


def _given(option: T | None, drawn: T) -> T:
    return drawn if option is None else option


def draw_alpha(head: ParametricHead, seed: int, femininity: float) -> tuple[Tensor, Tensor]:
    """Identity coefficients: ``(80,)`` alpha ~ 0.85 N(0, 1) clipped at 2.2, and ``(11,)`` residual modes.

    The draw is moved along the head's feminine direction, as far as `femininity` says.
    """
    rng = np.random.default_rng([seed, 2])
    drawn = np.clip(rng.normal(size=NUM_ALPHA + NUM_RESIDUAL), -2.2, 2.2) * 0.85
    coefficients = torch.tensor(drawn, dtype=torch.float32)
    alpha = coefficients[:NUM_ALPHA]
    direction = feminine_direction(head).cpu()
    along = float(alpha @ direction)
    # The spread along the direction is halved around the new mean, so that the traits agree with the face.
    alpha = alpha + direction * (1.8 * femininity - 0.6 * along)
    return alpha.clamp(-2.8, 2.8), coefficients[NUM_ALPHA:]


def draw_resting(head: ParametricHead, seed: int, options: AppearanceOptions) -> Tensor:
    """``(53,)`` resting expression of an identity: sd 0.08 on about 30 % of the shapes, never negative; or zero."""
    names = head.expression_names
    rng = np.random.default_rng([seed, 3])
    chosen = rng.random(len(names)) < 0.3
    amount = np.abs(rng.normal(0.0, 0.08, len(names))) * chosen
    # An open jaw, a shut eye or a turned gaze is a state, not a trait of a resting face.
    fixed = [name.startswith(("eyeBlink", "eyeLook", "jaw", "mouthClose")) for name in names]
    amount[np.array(fixed)] = 0.0
    if not options.resting_offset:
        amount[:] = 0.0
    return torch.tensor(amount, dtype=torch.float32)


@functools.lru_cache(maxsize=4)
def feminine_direction(head: ParametricHead) -> Tensor:
    """``(80,)`` unit direction of alpha towards a shorter chin, flatter brow ridge, finer nose, larger eyes, fuller lips.

    ICT-FaceKit has no labels, so the direction is the ridge fit of the identity modes to a wished displacement of the
    68 landmarks (in cm, written down below).
    """
    points = head.vertices[head.landmark_vertices]
    wish = torch.zeros_like(points)
    x = points[:, 0]
    wish[2:15, 0] = -0.09 * x[2:15]
    wish[5:12, 1] += 0.30
    wish[6:11, 1] += 0.25
    wish[6:11, 2] -= 0.15
    wish[17:27, 1] += 0.22
    wish[17:27, 2] -= 0.30
    wish[27:31, 2] -= 0.25
    wish[28:36, 1] += 0.15
    wish[31:36, 0] = -0.16 * x[31:36]
    wish[30:36, 2] -= 0.15
    for upper, lower in ((slice(37, 39), slice(40, 42)), (slice(43, 45), slice(46, 48))):
        wish[upper, 1] += 0.10
        wish[lower, 1] -= 0.06
    wish[36:48, 0] += 0.02 * x[36:48]
    wish[50:53, 1] += 0.10
    wish[56:59, 1] -= 0.06
    wish[48:60, 2] += 0.08
    wish[48:60, 0] -= 0.05 * x[48:60]
    modes = head.identity_basis[:NUM_ALPHA, head.landmark_vertices].reshape(NUM_ALPHA, -1).T.double()  # (204, 80)
    target = wish.reshape(-1).double()
    ridge = torch.eye(NUM_ALPHA, dtype=torch.float64, device=modes.device) * 0.6
    solution = torch.linalg.solve(modes.T @ modes + ridge, modes.T @ target)
    return (solution / solution.norm()).float()


def _draw_hair_color(rng: np.random.Generator, melanin: float, age: float) -> str:
    names = list(HAIR_COLORS)
    if melanin > 0.7:
        share = np.array([0.6, 0.3, 0.1, 0, 0, 0, 0, 0, 0])
    elif melanin > 0.45:
        share = np.array([0.35, 0.3, 0.2, 0.1, 0.02, 0.03, 0, 0, 0])
    else:
        share = np.array([0.1, 0.15, 0.22, 0.13, 0.09, 0.16, 0.15, 0, 0])
    grey = 1.0 / (1.0 + math.exp(-(age - 60.0) / 5.0))
    share = share / share.sum() * (1.0 - grey)
    share[-2:] = grey * np.array([0.65, 0.35])
    return names[int(rng.choice(len(names), p=share))]


def _draw_style(rng: np.random.Generator, feminine: bool, melanin: float, age: float) -> str:
    if melanin > 1.0:
        choices = (
            ["afro", "updo", "curly", "bob", "long", "buzz"]
            if feminine
            else ["buzz", "buzz", "afro", "short", "curly", "bald"]
        )
    elif feminine:
        choices = ["bob", "bobfringe", "long", "long", "wavy", "wavy", "updo", "curly"]
    else:
        choices = ["buzz", "short", "short", "quiff", "sidepart", "fringe", "curly", "bald"]
        if age > 50:
            choices += ["bald", "buzz"]
    return str(rng.choice(choices))
