"""Everything that drives and renders makes its tensors where its inputs are, so that it runs on a GPU.

Here PyTorch's default device is the one without memory: a tensor that is made without a device cannot meet the others.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from export3d.camera import Camera
from export3d.face_state import FaceState
from export3d.model import Export3D
from export3d.portrait import FastConfig, PortraitModel, build_model, drivable, preset
from export3d.rendering.fast import make_lattice
from export3d.rendering.fused import binding

META = torch.device("meta")


def _inputs(size: int, photo_px: int | None) -> tuple[Tensor, Tensor | None, FaceState, Camera]:
    torch.manual_seed(0)
    photo = None if photo_px is None else torch.rand(1, 3, photo_px, photo_px) * 2 - 1
    state = FaceState(
        beta=0.3 * torch.randn(1, 64), weights=torch.rand(1, 52), gaze=torch.zeros(1, 2), turn=0.2 * torch.randn(1, 3)
    )
    return torch.rand(1, 3, size, size) * 2 - 1, photo, state, Camera.look_at_head(0.2, 0.1)


@pytest.mark.parametrize("photo_px", [None, 48])
@pytest.mark.parametrize("fast", [None, FastConfig()], ids=["exact", "fast"])
@pytest.mark.parametrize("name", ["tiny-portrait", "tiny"])
def test_a_picture_needs_no_default_device(
    name: str, fast: FastConfig | None, photo_px: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(binding.VARIABLE, "0")  # as on a GPU
    torch.manual_seed(0)
    model = build_model(preset(name)).eval().requires_grad_(False)
    assert isinstance(model, PortraitModel | Export3D)
    source, photo, state, camera = _inputs(model.config.image_size, photo_px)
    steps = drivable(model)

    def picture() -> Tensor:
        make_lattice.cache_clear()
        with torch.inference_mode():
            code = steps.encode(source, camera, state, photo=photo)
            image = steps.render(steps.drive(code, state), camera, fast=fast).image
        assert image is not None
        return image

    expected = picture()
    with META:
        found = picture()
    assert found.device == expected.device and torch.equal(found, expected)


@pytest.mark.parametrize("given", ["yaw", "pitch", "roll", "shift"])
def test_a_camera_is_made_where_any_of_its_numbers_is(given: str) -> None:
    numbers = {given: torch.zeros(1, 3, device=META) if given == "shift" else torch.zeros(2, device=META)}
    camera = Camera.look_at_head(**numbers)  # type: ignore[arg-type]
    assert camera.cam_to_world.device == META and camera.intrinsics.device == META


def test_rays_of_the_lattice_are_made_on_the_device_asked_for() -> None:
    make_lattice.cache_clear()
    with META:
        lattice = make_lattice(10, 5, torch.device("cpu"))
    assert {x.device.type for x in (lattice.rays, lattice.neighbours, lattice.weights)} == {"cpu"}
    assert len(lattice.rays) < 100
