"""rendering/fused/pictures.py: the compiled composition and pasting against the PyTorch code that they stand for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from export3d.animation.crown import Crown
from export3d.animation.head import HAZE, HeadLayer, Place, faded
from export3d.animation.paste import Pasteboard
from export3d.camera import Camera
from export3d.face_state import FaceState
from export3d.images import to_uint8
from export3d.portrait import FastConfig, PortraitModel, build_model, preset
from export3d.portrait.layers import Choice
from export3d.portrait.march import read_portrait
from export3d.rendering.fused import (
    add_pattern,
    binding,
    fused_status,
    head_layer,
    interleaved,
    paste_head,
    pictures,
    repainted,
    rgb_to_yuv,
    rounded,
)
from export3d.tracking.alignment import plane_turn
from export3d.tracking.head_fit import HeadPose

RUNS, REASON = fused_status()
needs_kernel = pytest.mark.skipif(not RUNS, reason=f"the fused renderer does not run here: {REASON}")


def _kernels() -> Iterator[str]:
    if RUNS:
        yield from (x for x in ("plain", "avx2", "avx512") if binding.library().export3d_fused_kernel(x.encode()))


@pytest.fixture(scope="module")
def model() -> PortraitModel:
    """A tiny model whose every part has a say."""
    torch.manual_seed(0)
    model = build_model(preset("tiny-portrait"))
    assert isinstance(model, PortraitModel)
    for parameter in (*model.detail.out.parameters(), model.superres.high_rgb.weight, model.lookup.guide.weight):
        torch.nn.init.normal_(parameter, std=0.3)
    return model.eval().requires_grad_(False)


def _pass(model: PortraitModel, photo_px: int, turn: Tensor | None):
    """A pass with a head of all opacities, and the portrait's code."""
    size, rays = model.config.image_size, model.config.renderer.raw_size
    beta = 0.3 * torch.randn(1, 64)
    photo = torch.rand(1, 3, photo_px, photo_px) * 2 - 1
    state = FaceState(beta=beta, turn=turn)
    with torch.inference_mode():
        source = F.interpolate(photo, size=(size, size), mode="area")
        code = model.encode(source, Camera.look_at_head(0.2, 0.1), state, photo=photo)
        left = model.trace(model.drive(code, state), Camera.look_at_head(-0.1))
    opacity = torch.rand(1, 1, rays, rays)
    place = (torch.rand(1, 3, rays, rays) - 0.5) * torch.tensor([0.8, 0.8, 0.3]).reshape(1, 3, 1, 1)
    guide = torch.cat([place, torch.rand(1, 2, rays, rays)], dim=1) * opacity
    choice = Choice(*(torch.randn_like(x) for x in left.choice))
    return replace(left, guide=guide, opacity=opacity, choice=choice), code


@needs_kernel
@pytest.mark.parametrize("kernel", list(_kernels()))
@pytest.mark.parametrize("photo_px", [64, 70, 130])
def test_a_composed_picture_is_that_of_pytorch(
    kernel: str, photo_px: int, model: PortraitModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(binding.VARIABLE, kernel)
    torch.manual_seed(photo_px)
    left, code = _pass(model, photo_px, 0.4 * torch.randn(1, 3))
    with torch.inference_mode():
        expected, opacity = model.compose(left, code)
        found, found_opacity = model.compose(left, code, fast=FastConfig())
    assert expected.shape == (1, 3, photo_px, photo_px) and expected.std() > 0.1
    assert torch.allclose(found_opacity, opacity, atol=1e-4)
    # A read beside the portrait by a rounded place shows most in noise, which no photograph is.
    assert torch.allclose(found, expected, atol=1e-3)


@needs_kernel
@pytest.mark.parametrize("kernel", list(_kernels()))
def test_the_portrait_is_read_as_by_pytorch(kernel: str, model: PortraitModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(binding.VARIABLE, kernel)
    torch.manual_seed(6)
    left, code = _pass(model, 64, 0.4 * torch.randn(1, 3))
    maps, side, turn = code.maps, model.config.image_size, code.state.turn
    where = {"size": (side, side), "camera": code.camera, "pose": model.neck.posed(turn)}
    with torch.inference_mode():
        expected = model.lookup.layers(left.guide, left.opacity, maps.picture, **where)
        found = read_portrait(left.guide, left.opacity, side, code=code, neck=model.neck.config)
    assert maps.picture[:, 3].std() > 0.0 and expected.prior.std() > 0.1
    for part in ("colours", "prior", "clues", "opacity"):
        assert getattr(found, part).shape == getattr(expected, part).shape
        assert torch.allclose(getattr(found, part), getattr(expected, part), atol=1e-3), part


@needs_kernel
@pytest.mark.parametrize("kernel", list(_kernels()))
@pytest.mark.parametrize(("side", "room"), [(16, 0.0), (50, 0.0), (50, 0.15)])
def test_a_head_before_its_crown_is_that_of_pytorch(
    kernel: str, side: int, room: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(binding.VARIABLE, kernel)
    torch.manual_seed(7)
    picture, behind = (2.0 * torch.rand(3, side, side) - 1.0 for _ in range(2))
    opacity = (1.4 * torch.rand(1, side, side) - 0.2).clamp(0.0, 1.0)
    head = HeadLayer.of_picture(picture, opacity, behind).with_room(room)
    height, width = head.opacity.shape[1:]
    home = HeadPose.of_camera(Camera.look_at_head().to_vector()[0].numpy())
    light = (
        torch.rand(1, 4, height - 5, width).tril(width // 4).triu(-width // 3)
    )  # each row shows something else of it
    light[..., : height // 8, :] = 0.0
    crown = Crown(light=light, home=home, size=side)
    camera = Camera.look_at_head(0.3, roll=0.4).to_vector()[0].numpy()
    placed = HeadLayer.of_picture(picture, opacity, behind, place=Place()).with_room(room)
    assert not torch.equal(placed.opacity, head.opacity)
    for expected, light, shown in (
        (head, None, None),
        (placed, None, faded(side, side)),
        (crown.behind(head, camera), (crown.framed, crown.spans, crown.places(camera)), None),
    ):
        how = {"haze": HAZE, "room": width - height, "crown": light, "shown": shown}
        colours, clear = head_layer(picture, opacity, behind, **how)
        assert torch.allclose(colours, expected.colours, atol=2e-2) and torch.allclose(
            clear, expected.opacity, atol=1e-4
        )
    assert (clear - head.opacity).max() > 0.3


@pytest.fixture
def silent(model: PortraitModel) -> Iterator[PortraitModel]:
    """The model without corrections."""
    kept = [p.clone() for p in model.detail.out.parameters()]
    for parameter in model.detail.out.parameters():
        parameter.zero_()
    assert model.detail.is_silent
    yield model
    for parameter, value in zip(model.detail.out.parameters(), kept, strict=True):
        parameter.copy_(value)


@needs_kernel
def test_without_corrections_and_a_turn_it_is_the_same_too(silent: PortraitModel) -> None:
    torch.manual_seed(1)
    left, code = _pass(silent, 96, None)
    with torch.inference_mode():
        expected, found = silent.compose(left, code)[0], silent.compose(left, code, fast=FastConfig())[0]
    assert torch.allclose(found, expected, atol=1e-3)


@needs_kernel
@pytest.mark.parametrize("kernel", list(_kernels()))
@pytest.mark.parametrize("photo_px", [64, 130, 260])
def test_a_head_with_gaps_is_the_same_too_and_nothing_is_left_where_it_does_not_show(
    kernel: str, photo_px: int, silent: PortraitModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(binding.VARIABLE, kernel)
    torch.manual_seed(photo_px)
    left, code = _pass(silent, photo_px, None)
    spots = torch.zeros_like(left.opacity)  # in two corners, and empty rows between them
    spots[..., :2, -3:] = spots[..., -3:, :2] = 1.0
    wide = F.interpolate(spots, size=left.choice.more.shape[-2:])
    left = replace(left, opacity=left.opacity * spots, guide=left.guide * spots)
    left = replace(left, choice=left.choice._replace(more=0.2 * left.choice.more - 2.0 * (1.0 - wide)))
    with torch.inference_mode():
        expected, opacity = silent.compose(left, code)
        found, found_opacity = silent.compose(left, code, fast=FastConfig())
    assert code.maps.photo is not None
    nothing = opacity[:, 0] == 0.0
    assert 0.5 < nothing.float().mean() < 0.95
    assert torch.equal(found_opacity[:, 0] == 0.0, nothing)
    assert torch.equal(found.movedim(1, -1)[nothing], code.maps.photo.background.movedim(1, -1)[nothing])
    assert torch.allclose(found_opacity, opacity, atol=1e-4) and torch.allclose(found, expected, atol=1e-3)


@needs_kernel
def test_only_the_rectangle_of_the_head_changes_and_threads_change_nothing(model: PortraitModel) -> None:
    torch.manual_seed(2)
    left, code = _pass(model, 96, None)
    opacity = torch.zeros_like(left.opacity)
    opacity[..., 3:6, 2:5] = 0.7
    choice = left.choice._replace(more=torch.zeros_like(left.choice.more))
    left = replace(left, opacity=opacity, guide=left.guide * opacity, choice=choice)
    with torch.inference_mode():
        expected, found = model.compose(left, code)[0], model.compose(left, code, fast=FastConfig())[0]
        before = torch.get_num_threads()
        torch.set_num_threads(3)
        again = model.compose(left, code, fast=FastConfig())[0]
        torch.set_num_threads(before)
    assert code.maps.photo is not None
    outside = (expected == code.maps.photo.background).all(dim=1)
    assert 0.2 < outside.float().mean() < 1.0
    assert torch.equal(found.movedim(1, -1)[outside], expected.movedim(1, -1)[outside])
    assert torch.equal(found, again)


@needs_kernel
def test_what_is_no_number_does_not_lead_out_of_memory(model: PortraitModel) -> None:
    torch.manual_seed(3)
    left, code = _pass(model, 64, None)
    left.guide[..., 1, 1] = torch.nan
    left.guide[..., 2, 2] = torch.inf
    left.guide[..., 4, 4] = 1e30
    with torch.inference_mode():
        found = model.compose(left, code, fast=FastConfig())[0]
    assert found.shape == (1, 3, 64, 64) and torch.isfinite(found[..., 48:, 48:]).all()


def test_with_the_renderer_switched_off_pytorch_composes(model: PortraitModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(binding.VARIABLE, "0")
    torch.manual_seed(4)
    left, code = _pass(model, 64, None)
    with torch.inference_mode():
        assert torch.equal(model.compose(left, code)[0], model.compose(left, code, fast=FastConfig())[0])


@needs_kernel
@pytest.mark.parametrize("turn", [0.0, 0.4, 3.0])
@pytest.mark.parametrize("side", [9.0, 40.0])
def test_a_pasted_head_is_that_of_pytorch_to_a_level(side: float, turn: float) -> None:
    torch.manual_seed(5)
    rng = np.random.default_rng(5)
    opacity = torch.rand(1, 20, 20).round(decimals=1)
    opacity[..., :9] = 0.0  # where no head is, the photograph without one stays
    head = HeadLayer(255.0 * torch.rand(3, 20, 20) * opacity, opacity, Place(1.2, -0.1, 0.05))
    places = np.concatenate([[[-0.4], [-0.1]], plane_turn(turn) / 25.0], axis=1)
    share = torch.rand(1, 14, 17).sub(0.3).clamp_min(0.0)
    board = Pasteboard(
        photo=rng.integers(0, 256, (24, 30, 3), dtype=np.uint8),
        **dict(rows=slice(4, 18), columns=slice(7, 24), places=places, share=share, hole=torch.zeros(14, 17) > 1),
        **dict(behind=255.0 * torch.rand(3, 14, 17), side=side, resting=np.linspace(0.0, 1.0, 14)),
    )
    expected, found = board.paste(head), replace(board, fused=True).paste(head)
    assert np.abs(expected.astype(int) - found).max() <= 1 and (expected == found).mean() > 0.99
    assert (expected != board.photo).mean() > 0.1
    untouched = np.ones((24, 30), dtype=bool)
    untouched[4:18, 7:24] = (share[0] == 0.0).numpy()
    assert np.array_equal(found[untouched], board.photo[untouched])


@needs_kernel
def test_wrong_pictures_are_refused_with_a_reason() -> None:
    photo, head = np.zeros((4, 6, 3), dtype=np.uint8), torch.zeros(4, 8, 8)
    lines, share = np.zeros((4, 2, 2)), torch.zeros(4, 6)
    with pytest.raises(ValueError, match="photo must be uint8"):
        paste_head(photo.astype(np.float32), head, lines, share)
    with pytest.raises(ValueError, match=r"lines of \(4, 2, 2\); got \(3, 2, 2\)"):
        paste_head(photo, head, lines[:3], share)
    with pytest.raises(ValueError, match="add_pattern"):
        add_pattern(photo, np.zeros((128, 128), dtype=np.int16), np.zeros((1, 1), dtype=np.int16))


def test_a_square_of_sixteen_pixels_meets_the_head_where_any_of_them_does() -> None:
    opacity = torch.zeros(6, 7)
    opacity[2, 3] = 0.5
    met = pictures._met(opacity)
    assert met.shape == (14, 15)  # four pixels more on each side
    wanted = np.zeros_like(met)
    wanted[3:7, 4:8] = True  # squares that begin up to three pixels before it, above or to the left
    assert np.array_equal(met, wanted)


@needs_kernel
@pytest.mark.parametrize("kernel", list(_kernels()))
@pytest.mark.parametrize("width", [2, 64, 150])
def test_a_picture_becomes_bt709_video(kernel: str, width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(binding.VARIABLE, kernel)
    image = np.random.default_rng(8).integers(0, 256, (6, width, 3), dtype=np.uint8)
    image[:2, :2] = [[(255, 255, 255)] * 2, [(255, 255, 255)] * 2]
    planes = [np.full((6 // n, width // n + 9), 77, dtype=np.uint8) for n in (1, 2, 2)]
    rgb_to_yuv(image, planes)
    grey = image @ np.array([0.2126, 0.7152, 0.0722])
    means = image.reshape(3, 2, width // 2, 2, 3).mean(axis=(1, 3))
    apart = means[..., [2, 0]] - (means @ np.array([0.2126, 0.7152, 0.0722]))[..., None]
    expected = [16 + grey * 219 / 255, *np.moveaxis(128 + apart * 224 / 255 / np.array([1.8556, 1.5748]), -1, 0)]
    for found, wanted in zip(planes, expected, strict=True):
        assert np.abs(found[:, : wanted.shape[1]] - wanted).max() <= 0.501
        assert (found[:, wanted.shape[1] :] == 77).all()
    assert planes[0][0, 0] == 235 and planes[1][0, 0] == planes[2][0, 0] == 128
    with pytest.raises(ValueError, match="even sides"):
        rgb_to_yuv(image[:5], planes)
    with pytest.raises(ValueError, match="planes of"):
        rgb_to_yuv(image, [planes[0][:, : width - 1], *planes[1:]])


@needs_kernel
@pytest.mark.parametrize("kernel", list(_kernels()))
@pytest.mark.parametrize("width", [3, 64, 150])
def test_a_picture_becomes_the_bytes_of_pytorch(kernel: str, width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(binding.VARIABLE, kernel)
    levels = torch.linspace(-1.2, 1.2, 3 * 8 * width)  # some lie halfway between two bytes
    halves = (torch.arange(511.0) / 255.0 - 1.0)[: len(levels)]
    levels[: len(halves)] = halves
    picture = levels[torch.randperm(len(levels), generator=torch.Generator().manual_seed(1))].reshape(3, 8, width)
    assert np.array_equal(rounded(picture), to_uint8(picture))


@needs_kernel
def test_a_repainted_picture_is_that_of_the_changed_one() -> None:
    picture, part = torch.rand(3, 9, 12), torch.rand(1, 3, 2, 4)
    box, known = (slice(1, 3), slice(5, 9)), interleaved(picture)
    before, changed = known.clone(), picture.clone()
    changed[:, 1:3, 5:9] = part[0]
    assert torch.equal(repainted(known, [(box, part)]), interleaved(changed)) and torch.equal(known, before)


@needs_kernel
def test_an_interleaved_picture_repeats_its_border() -> None:
    picture = torch.arange(3 * 5 * 6.0).reshape(3, 5, 6)
    found = interleaved(picture)
    assert found.shape == (13, 14, 4) and torch.equal(found[4:-4, 4:-4, :3], picture.permute(1, 2, 0))
    assert torch.equal(found[0, 0, :3], picture[:, 0, 0]) and torch.equal(found[-1, 7, :3], picture[:, -1, 3])
