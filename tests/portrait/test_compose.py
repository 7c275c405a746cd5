"""portrait/compose.py and what it takes of portrait/layers.py: pictures at the photograph's own size."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from export3d import checkpoint
from export3d.camera import Camera
from export3d.checkpoint import write_checkpoint
from export3d.configs import config_to_dict
from export3d.errors import CheckpointError
from export3d.face_state import FaceState
from export3d.portrait import PortraitModel, compose, load_model
from export3d.portrait import layers as layers_module
from export3d.portrait.layers import AGREEMENT, Choice, Layers, mixed, sharper, trusting
from export3d.portrait.state import DrivenPlanes

Make = Callable[..., PortraitModel]
States = Callable[..., FaceState]


def _driven(model: PortraitModel, make_state: States, photo: Tensor, batch: int = 1) -> tuple[DrivenPlanes, Camera]:
    """A portrait whose 32-pixel source is the photograph made small, driven."""
    source = F.interpolate(photo, size=(32, 32), mode="area")
    yaw = torch.linspace(-0.2, 0.3, batch)
    code = model.encode(source, Camera.look_at_head(yaw), make_state(1, batch), photo=photo)
    return model.drive(code, make_state(2, batch)), Camera.look_at_head(-yaw, 0.1 + 0.0 * yaw)


def _photo(size: int, batch: int = 1) -> Tensor:
    return torch.rand(batch, 3, size, size) * 2 - 1


@torch.no_grad()
def test_at_the_models_own_size_a_photograph_changes_nothing_but_its_sharpness(
    make_model: Make, make_state: States, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compose, "GAIN", 0.0)
    monkeypatch.setattr(layers_module, "AGREEMENT", 1e-9)
    model = make_model()
    driven, camera = _driven(model, make_state, _photo(32, 2), 2)
    without = replace(driven, code=replace(driven.code, maps=replace(driven.code.maps, photo=None)))
    with_photo, plain = model.render(driven, camera), model.render(without, camera)
    for name in ("image", "raw", "image_opacity"):
        assert torch.allclose(getattr(with_photo, name), getattr(plain, name), atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("size", [32, 48, 50, 64, 96])
def test_a_picture_has_the_photographs_size_or_the_one_asked_for(
    make_model: Make, make_state: States, size: int
) -> None:
    model = make_model()
    driven, camera = _driven(model, make_state, _photo(64))
    own, other = model.render(driven, camera), model.render(driven, camera, size=size)
    assert own.image is not None and own.image.shape == (1, 3, 64, 64)
    assert other.image is not None and other.image.shape == (1, 3, size, size)
    assert other.image_opacity is not None and other.image_opacity.shape == (1, 1, size, size)
    assert torch.isfinite(other.image).all() and 0.0 <= other.image_opacity.min() <= other.image_opacity.max() <= 1.0


@torch.no_grad()
def test_a_window_shows_what_the_whole_picture_shows_there(make_model: Make, make_state: States) -> None:
    model = make_model()
    driven, camera = _driven(model, make_state, _photo(64, 2), 2)
    whole = model.render(driven, camera).image
    top, left = torch.tensor([2, 1]), torch.tensor([4, 0])
    part = model.render(driven, camera, window=(top, left, 12)).image
    assert whole is not None and part is not None and part.shape == (2, 3, 48, 48)
    for b, (t, s) in enumerate(zip(top.tolist(), left.tolist(), strict=True)):
        there = whole[b, :, 4 * t : 4 * t + 48, 4 * s : 4 * s + 48]
        # Near the edge enlarging and the super-resolution miss what lies beside the window.
        assert torch.allclose(part[b, :, 20:-20, 20:-20], there[:, 20:-20, 20:-20], atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("size", [48, 64, 80])
def test_composing_only_where_the_head_is_gives_the_same_picture(
    make_model: Make, make_state: States, size: int
) -> None:
    model = make_model()
    driven, camera = _driven(model, make_state, _photo(64))
    left = model.trace(driven, camera)
    left.opacity[:, :, :5] = 0.0
    left.opacity[..., 11:] = 0.0
    left.choice.more.clamp_(max=0.0)
    boxed, opacity = model.compose(left, driven.code, size=size)
    with torch.enable_grad():  # then all of it is composed
        whole, whole_opacity = model.compose(left, driven.code, size=size)
    assert opacity[0, 0, : size // 8].max() == 0.0 < opacity.max()
    # What was left out is less than half a level.
    assert (boxed - whole).abs().max() < 2 / 255 and (opacity - whole_opacity).abs().max() < 1 / 256


@torch.no_grad()
def test_without_a_head_the_photographs_background_is_shown(make_model: Make, make_state: States) -> None:
    model = make_model()
    driven, camera = _driven(model, make_state, _photo(64))
    model.superres.high_rgb.bias.data[-1] = -100.0  # type: ignore[union-attr]  # opacity 0 everywhere
    render = model.render(driven, camera)
    photo = driven.code.maps.photo
    assert photo is not None and render.image is not None and render.image_opacity is not None
    assert torch.equal(render.image, photo.background) and not render.image_opacity.any()


@torch.no_grad()
def test_fine_detail_of_the_photograph_is_in_the_picture(make_model: Make, make_state: States) -> None:
    model = make_model(scale=0.0)
    model.superres.high_rgb.bias.data[4] = 30.0  # type: ignore[union-attr]  # the portrait's own colours alone
    model.superres.high_rgb.bias.data[-1] = 100.0  # type: ignore[union-attr]  # all of it is head
    stripes = torch.where(torch.arange(128) % 4 < 2, 1.0, -1.0).expand(1, 3, 128, 128)
    camera, state = Camera.look_at_head(0.0), make_state(1)
    driven = model.drive(model.encode(torch.zeros(1, 3, 32, 32), camera, state, photo=stripes), state)
    with torch.enable_grad():
        image = model.render(driven, camera).image
    assert image is not None and image[..., 40:80, 40:80].detach().std() > 0.5


def test_refused_sizes_are_named(make_model: Make, make_state: States) -> None:
    model, corner = make_model(), torch.zeros(1, dtype=torch.int64)
    driven, camera = _driven(model, make_state, _photo(64))
    bare = replace(driven, code=replace(driven.code, maps=replace(driven.code.maps, photo=None)))
    with torch.no_grad():
        with pytest.raises(ValueError, match="size 64 needs a photograph"):
            model.render(bare, camera, size=64)
        with pytest.raises(ValueError, match="size must be even; got 63"):
            model.render(driven, camera, size=63)
        with pytest.raises(ValueError, match="multiple of the 16 rays; got 40"):
            model.render(driven, camera, size=40, window=(corner, corner, 8))
        with pytest.raises(ValueError, match="photo: expected an even side; got 33"):
            model.encode(torch.zeros(1, 3, 32, 32), camera, make_state(1), photo=_photo(33))


# ----- the mixture --------------------------------------------------------------------------------------------------


def _choice(size: int) -> tuple[Choice, Layers]:
    return Choice(*(torch.randn(1, n, size, size) for n in (3, 3, 3, 1))), Layers(
        colours=torch.randn(1, 2, 3, size, size),
        prior=torch.rand(1, 3, size, size) + 0.01,
        clues=torch.rand(1, 4, size, size),
        opacity=torch.rand(1, 1, size, size),
    )


def test_only_the_portrait_itself_gets_more_of_its_fine_detail() -> None:
    _, layers = _choice(4)
    layers.colours[:] = 0.2
    layers.colours[0, 0, :, 2, 1] = 1.0  # its 3x3 binomial mean is 0.2 + 0.8 / 4
    found = sharper(layers, 0.5).colours
    assert torch.allclose(found[0, 0, :, 2, 1], torch.tensor(1.0 + 0.5 * 0.6))
    assert torch.allclose(found[0, 0, :, 1, 1], torch.tensor(0.2 - 0.5 * 0.1)) and torch.equal(
        found[:, 1], layers.colours[:, 1]
    )


def test_the_mixture_is_the_sum_of_shares_and_the_residual() -> None:
    choice, layers = _choice(4)
    image, opacity = mixed(choice, layers)
    weights = choice.logits[0, :, 1, 2].exp() * layers.prior[0, :, 1, 2]
    weights = weights / weights.sum()
    pictures = torch.stack([choice.rgb[0, :, 1, 2], layers.colours[0, 0, :, 1, 2], layers.colours[0, 1, :, 1, 2]])
    assert torch.allclose(image[0, :, 1, 2], weights @ pictures + choice.residual[0, :, 1, 2], atol=1e-5)
    assert torch.equal(opacity, (layers.opacity + choice.more).clamp(0.0, 1.0))


def test_a_file_with_the_network_of_version_3_loads_without_it(
    tmp_path: Path, make_model: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_model()
    tensors = {**model.state_dict(), "detail.out.weight": torch.ones(8, 4, 3, 3)}
    config = {"model": "portrait", **config_to_dict(model.config), "detail": {"width": 4, "state": 2, "slope": 0.1}}
    for version, path in ((3, tmp_path / "old.safetensors"), (4, tmp_path / "new.safetensors")):
        monkeypatch.setattr(checkpoint, "VERSION", version)
        write_checkpoint(path, tensors, kind="export3d", config=config)
    loaded = load_model(tmp_path / "old.safetensors").state_dict()
    assert loaded.keys() == model.state_dict().keys()
    assert all(torch.equal(loaded[name], t) for name, t in model.state_dict().items())
    with pytest.raises(CheckpointError, match="detail"):
        load_model(tmp_path / "new.safetensors")


def test_the_portrait_has_the_share_of_the_raw_image_where_both_agree() -> None:
    rgb = torch.zeros(1, 3, 2, 2)
    own = rgb.clone()
    own[..., 1] = 3.0 * AGREEMENT
    layers = Layers(
        colours=torch.stack([own, own + 1.0], dim=1),
        prior=torch.tensor([0.11, 0.4, 0.2])[None, :, None, None].expand(1, 3, 2, 2),
        clues=torch.zeros(1, 0, 2, 2),
        opacity=torch.ones(1, 1, 2, 2),
    )
    choice = Choice(rgb, torch.randn(1, 3, 2, 2), torch.zeros(1, 3, 2, 2), torch.zeros(1, 1, 2, 2))
    before, after = (torch.softmax(x.logits + layers.prior.log(), dim=1) for x in (choice, trusting(choice, layers)))
    assert torch.allclose(after[:, :, :, 1], before[:, :, :, 1], atol=2e-4)  # they differ
    assert after[:, 0, :, 0].max() < 2e-4
    assert torch.allclose(after[:, 1, :, 0], (before[:, 0] + before[:, 1])[:, :, 0], atol=3e-4)
    assert torch.allclose(after[:, 2], before[:, 2], atol=2e-4)
