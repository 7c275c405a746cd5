"""Skin painted on the atlas: pigments, lips, brows, lids, stubble, scalp, gloss and bumps (no paper section)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from export3d.heads.hair.styles import STYLES, hairline, parting, parting_side, recession_of, spherical
from export3d.heads.look.appearance import Traits
from export3d.heads.look.atlas import ALBEDO, BANK, GLOSS, Canvas, canvas
from export3d.heads.raster.fields import shared_noise, smoothstep
from export3d.heads.shape.parametric import ParametricHead


def paint(head: ParametricHead, traits: Traits, size: int) -> Tensor:
    """Paint an identity's skin -> ``(size, 2 size, 10)``: albedo, gloss, bump (3), lip mask, beard density and strands."""
    c = canvas(head, size)
    rng = np.random.default_rng([traits.seed, 4])

    age = _oldness(traits)
    feminine = traits.is_feminine

    broad, middle, fine, bump = (_mix(bank, rng) for bank in (c.broad, c.middle, c.fine, c.bump))
    melanin, blood = _pigments(c, traits, rng, (broad, middle, fine))
    albedo = _skin(melanin, blood)
    beard = _beard_mask(c, rng) * (1.0 if not feminine else 0.0)
    hair = albedo.new_tensor(traits.hair_color)
    # Stubble takes the skin towards the hair, but never to full grey: light hair is thin at this length.
    stubble_color = torch.minimum(hair * 0.8 + 0.01, albedo.mean(0) * 0.75)
    density = beard * (0.13 + 0.62 * traits.beard) * (0.85 + 0.25 * c.strands[:, 0] + 0.1 * fine)
    density = (density.clamp(0, 0.9) if not feminine else density * 0)[:, None]
    albedo = albedo * (1 - density) + density * stubble_color
    lip_mask = smoothstep(0.14, -0.22, c.lip + 0.04 * middle) * smoothstep(6, 8, c.position[:, 2])
    albedo = _paint_lips(albedo, c, traits, rng, (lip_mask, middle))
    albedo = _paint_brows(albedo, c, traits, rng)
    albedo = _paint_lids(albedo, c, feminine)
    spot = _spots(c)
    gloss = 0.35 + 0.35 * spot(0, 1.5, 1.3, 3.0) + 0.25 * spot(0, 9, 5, 2) + 0.2 * spot(3.5, 1, 2, 1.5)
    gloss = gloss + 0.55 * lip_mask + 0.2 * middle.clamp(-1, 1)
    values = torch.cat(
        [
            albedo.clamp(0.003, 0.95),
            gloss.clamp(min=0)[:, None],
            bump * (0.85 + 0.5 * age),
            lip_mask[:, None],
            (beard * (traits.beard >= 0.5))[:, None],
            c.strands[:, :1],
        ],
        1,
    )
    return c.assemble(values)


def paint_scalp(head: ParametricHead, atlas: Tensor, traits: Traits) -> Tensor:
    """Darken the scalp under the hair, fading out over the hairline."""
    style = STYLES[traits.style]
    if style is None:
        return atlas
    c = canvas(head, atlas.shape[0])
    x, y, _ = c.position.unbind(1)
    azimuth, polar = spherical(c.position)
    recession = 0.0 if style.curtain is not None or style.fringe > 0.2 else recession_of(traits)
    line = hairline(azimuth, traits.femininity, recession) + 0.5 * style.shift
    line = line + parting(azimuth, style, parting_side(traits.seed))
    cropped = traits.style == "buzz"
    amount = smoothstep(0.10, -0.10, polar - line + 0.06 * c.middle[:, 0] + 0.04 * c.strands[:, 1])
    ear = (x.abs() > 7.4) & (y < 6.5) & (y > -3)
    amount = amount * (0.72 if cropped else 0.9) * (~ear) * (0.85 + 0.15 * c.fine[:, 0].clamp(-1, 1))
    flat = atlas.reshape(-1, atlas.shape[2]).clone()
    under = flat[c.texel]
    k = amount.clamp(0, 0.95)[:, None]
    under[:, ALBEDO] = under[:, ALBEDO] * (1 - k) + k * (under.new_tensor(traits.hair_color) * 0.8 + 0.008)
    under[:, GLOSS] = under[:, GLOSS] * (1 - k[:, 0])
    flat[c.texel] = under
    flat[c.fill_to] = under[c.fill_from]
    return flat.reshape(atlas.shape)


def _pigments(
    c: Canvas, traits: Traits, rng: np.random.Generator, noises: tuple[Tensor, Tensor, Tensor]
) -> tuple[Tensor, Tensor]:
    """``(N,)`` melanin and haemoglobin: an uneven ground, flushed cheeks and nose, rings under the eyes, freckles, moles."""
    broad, middle, fine = noises
    x, y, _ = c.position.unbind(1)
    front, spot = smoothstep(0.0, 0.35, c.normal[:, 2]), _spots(c)
    age = _oldness(traits)

    def uniform(low: float, high: float) -> float:
        return float(rng.uniform(low, high))

    melanin = (traits.melanin + 0.10) * (1 + 0.08 * broad) + 0.02
    melanin = melanin + min(traits.melanin, 0.45) * (0.12 * middle + 0.15 * fine) * (1.0 + 0.6 * age)
    blood = traits.haemoglobin * 1.25 * (1 + 0.2 * broad + 0.3 * middle + 0.3 * fine)
    blood = blood + traits.haemoglobin * (
        uniform(0.3, 0.8) * spot(4.3, -0.4, 2.2, 1.8)
        + uniform(0.2, 0.6) * spot(0.0, 0.2, 1.2, 1.2)
        + 0.3 * spot(3.2, 3.4, 2.2, 1.2)
        + 0.15 * spot(0.0, -6.3, 2.0, 1.2)
        + 0.5 * smoothstep(6.8, 8.5, x.abs()) * (y > -3)
    )
    under_eye = spot(3.1, 2.5, 1.7, 0.55)
    melanin = melanin + uniform(0.02, 0.16 + 0.12 * age) * under_eye
    if rng.random() < 0.35 and traits.melanin < 0.6:
        freckle = shared_noise(16)(c.position * 3.1 + uniform(0, 30))[:, 0] * shared_noise(17)(c.position * 2.3)[:, 0]
        zone = smoothstep(-5, -1, y) * (1 - smoothstep(6, 8, y)) * front
        melanin = melanin + uniform(0.15, 0.4) * smoothstep(0.2, 0.42, freckle) * zone
    for _ in range(int(rng.integers(0, 4))):
        melanin = melanin + 0.8 * smoothstep(0.16, 0.05, torch.hypot(x - uniform(-6, 6), y - uniform(-6, 8))) * front
    return melanin, blood


def _oldness(traits: Traits) -> float:
    """0 up to an age of 25, 1 from 75 on."""
    return float(np.clip((traits.age - 25.0) / 50.0, 0.0, 1.0))


def _spots(c: Canvas) -> Callable[[float, float, float, float], Tensor]:
    """Makes soft spots on the front of the face, alike on both sides: centre x and y, radius in x and y, cm."""
    ax, y, _ = c.position.unbind(1)
    ax, front = ax.abs(), smoothstep(0.0, 0.35, c.normal[:, 2])
    return lambda cx, cy, sx, sy: torch.exp(-(((ax - cx) / sx) ** 2) - ((y - cy) / sy) ** 2) * front


def _mix(bank: Tensor, rng: np.random.Generator) -> Tensor:
    """One noise out of the bank of independent ones, of the same strength."""
    weights = rng.normal(size=BANK)
    return torch.einsum("nk...,k->n...", bank, bank.new_tensor(weights / np.linalg.norm(weights)))


def _skin(melanin: Tensor, blood: Tensor) -> Tensor:
    """Pigment amounts -> ``(N, 3)`` albedo. Dark skin absorbs more evenly, or it would turn orange."""
    fair, dark = melanin.new_tensor([0.70, 1.25, 1.95]), melanin.new_tensor([0.98, 1.30, 1.62])
    melanin_absorption = torch.lerp(fair, dark, (melanin - 0.35).clamp(0, 1)[:, None])
    absorption = melanin[:, None] * melanin_absorption + blood[:, None] * melanin.new_tensor([0.10, 0.66, 0.52])
    return melanin.new_tensor([0.90, 0.86, 0.82]) * torch.exp(-absorption)


def _beard_mask(c: Canvas, rng: np.random.Generator) -> Tensor:
    """``(N,)`` where a beard grows, with a soft, uneven border."""
    x, y, z = c.position.unbind(1)
    ax = x.abs()
    rim = 0.55 * _mix(c.middle, rng) + 0.25 * c.strands[:, 0]  # cm by which the border wanders
    jaw = smoothstep(-0.6, -2.9, y - 0.75 * (ax - 3.0).clamp(min=0) + rim)
    jaw = jaw * smoothstep(-9.0, -7.0, y + rim) * smoothstep(1.5, 4.8, z + rim)
    side = smoothstep(3.0, 5.6, ax + rim) * smoothstep(4.2, -0.8, y + rim) * smoothstep(0.4, 3.2, z)
    side = side * smoothstep(-8.0, -5.8, y + rim) * smoothstep(7.5, 6.7, ax) * smoothstep(7.4, 4.3, z + rim)
    moustache = (
        torch.exp(-(((y + 2.0 + 0.12 * ax) / 0.75) ** 2)) * smoothstep(3.7, 2.4, ax + 0.5 * rim) * smoothstep(6, 8, z)
    )
    mask = torch.maximum(torch.maximum(jaw, side), moustache) * smoothstep(0.0, 0.4, c.lip)
    corner = torch.exp(-(((ax - 1.6) / 1.2) ** 2) - ((y + 3.5) / 0.9) ** 2)
    return mask * (1 - 0.7 * corner)


def _paint_lips(
    albedo: Tensor, c: Canvas, traits: Traits, rng: np.random.Generator, fields: tuple[Tensor, Tensor]
) -> Tensor:
    """`fields`: ``(N,)`` where the lips are, and the noise of middle scale."""
    (mask, middle), age = fields, _oldness(traits)
    strength = float(rng.uniform(0.5, 1.0)) * (1.0 - 0.45 * age)
    # Lips absorb relative to the skin, so a dark lip stays brown and does not turn mauve.
    tint = albedo.new_tensor([0.90, 0.60, 0.60]) ** (0.6 + 0.6 * strength)
    dark = min(max(traits.melanin - 0.5, 0.0), 1.0)
    tint = tint * (1 - dark * 0.5) + albedo.new_tensor([0.82, 0.72, 0.74]) * dark * 0.5
    lips = albedo * tint * (1 + 0.05 * middle[:, None])
    if traits.lipstick is not None:
        amount = traits.lipstick_strength * (1 - 0.35 * dark)
        shade = albedo.new_tensor(traits.lipstick) * (1 - 0.5 * min(traits.melanin, 1.2))
        lips = (1 - amount) * lips + amount * shade
    creases = shared_noise(18)(c.position * c.position.new_tensor([7.0, 1.5, 3.0]))[:, :1]
    inner = smoothstep(-0.25, -0.75, c.lip)[:, None]
    lips = lips * (1 + (0.08 + 0.08 * age) * creases) * (1 - 0.18 * inner)
    opacity = (mask * 0.88)[:, None]
    return albedo * (1 - opacity) + opacity * lips


def _paint_brows(albedo: Tensor, c: Canvas, traits: Traits, rng: np.random.Generator) -> Tensor:
    width = float(rng.uniform(0.36, 0.50)) * (0.78 if traits.is_feminine else 1.08)
    arch, lift, strength = float(rng.uniform(-0.1, 0.25)), float(rng.uniform(-0.08, 0.08)), float(rng.uniform(0.8, 1.0))
    near = (c.brow_across.abs() < 2.0).nonzero()[:, 0]
    u, strand = c.brow_along[near], c.strands[near, 1] * 0.5 + 0.5
    d = c.brow_across[near] - lift - arch * torch.sin(u * 3.1) * 0.8
    half = width * (0.75 + 0.45 * torch.sin(u * 3.1)) * smoothstep(1.02, 0.75, u) * smoothstep(-0.02, 0.10, u) + 0.02
    opacity = (
        smoothstep(1.5, 0.2, d.abs() / half + 0.25 * (strand - 0.5)) * smoothstep(0, 0.03, u) * smoothstep(1, 0.92, u)
    )
    opacity = (opacity * (0.72 + 0.28 * smoothstep(0.2, 0.7, strand)) * strength).clamp(0, 0.93)[:, None]
    color = torch.minimum(albedo.new_tensor(traits.hair_color) * 0.45 + 0.004, albedo[near] * 0.55)
    albedo = albedo.clone()
    albedo[near] = albedo[near] * (1 - opacity) + opacity * color
    return albedo


def _paint_lids(albedo: Tensor, c: Canvas, feminine: bool) -> Tensor:
    line = torch.exp(-(((c.lid - 0.05) / 0.16) ** 2)) * (0.30 + 0.5 * c.lid_upper * (1.0 if feminine else 0.6))
    shade = torch.exp(-(((c.lid - 0.6) / 0.5) ** 2)) * c.lid_upper * (0.35 if feminine else 0.15)
    albedo = albedo * (1 - line)[:, None] + line[:, None] * 0.02
    return albedo * (1 - 0.6 * shade[:, None] * albedo.new_tensor([0.5, 0.8, 0.7]))
