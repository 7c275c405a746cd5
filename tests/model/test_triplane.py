"""model/triplane.py, Eqs. 4, 7, 12: three truly distinct planes, their orientation, the lookup, the running mean."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from export3d.camera import Camera
from export3d.errors import UsageError
from export3d.model.triplane import RunningMeanPlanes, TriPlaneConfig, sample_planes

CONFIG = TriPlaneConfig(channels=4, resolution=8)
XY, YZ, ZX = 0, 1, 2


def _planes(batch: int = 2, *, seed: int = 0) -> Tensor:
    return torch.randn(batch, 3, 4, 8, 8, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _points(batch: int = 2, count: int = 30, *, reach: float = 0.7) -> Tensor:
    return (torch.rand(batch, count, 3, dtype=torch.float64) - 0.5) * 2 * reach


def _only(plane: int) -> Tensor:
    planes = torch.zeros(2, 3, 4, 8, 8, dtype=torch.float64)
    planes[:, plane] = _planes()[:, plane]
    return planes


@pytest.mark.parametrize(("plane", "ignored"), [(XY, 2), (YZ, 0), (ZX, 1)], ids=["xy", "yz", "zx"])
def test_each_plane_ignores_its_normal_and_only_its_normal(plane: int, ignored: int) -> None:
    planes, points = _only(plane), _points(reach=0.4)
    before = sample_planes(planes, points, CONFIG)
    for axis in range(3):
        moved = points.clone()
        moved[..., axis] += 0.08
        same = torch.allclose(sample_planes(planes, moved, CONFIG), before, atol=1e-12)
        assert same == (axis == ignored)


def test_the_three_planes_are_truly_distinct() -> None:
    """Moving a point in y and z together changes what each plane with y or z says; in particular one plane sees both.

    EG3D's released planes are (x, y), (x, z), (z, x): there no plane sees y together with z. A function of y * z, which
    needs a plane over both, tells the difference.
    """
    side = torch.linspace(-7 / 8, 7 / 8, 8, dtype=torch.float64)  # texel centres in [-1, 1]
    planes = torch.zeros(1, 3, 1, 8, 8, dtype=torch.float64)
    planes[0, YZ, 0] = -side[:, None] * side[None, :]  # row runs down in y: y = -row
    points = _points(1, 50, reach=0.4)
    _, y, z = (2 * points).unbind(-1)
    features = sample_planes(planes, points, TriPlaneConfig(channels=1, resolution=8))[..., 0]
    assert torch.allclose(features, y * z / 3, atol=1e-12)


def test_row_0_of_the_xy_plane_is_the_top_and_column_0_the_left() -> None:
    planes = torch.zeros(1, 3, 1, 8, 8)
    planes[0, XY, 0, 0, 0] = 3.0
    config = TriPlaneConfig(channels=1, resolution=8)
    # Texel (0, 0) has its centre 7/16 of the box to the left of and above the middle.
    corners = torch.tensor([[[-7 / 16, 7 / 16, 0.3], [7 / 16, 7 / 16, 0.3], [-7 / 16, -7 / 16, 0.3]]])
    assert sample_planes(planes, corners, config)[0, :, 0].tolist() == pytest.approx([1.0, 0.0, 0.0], abs=1e-6)


def test_the_xy_plane_is_aligned_with_the_image_of_a_frontal_camera() -> None:
    """A point that the frontal camera sees at the upper right lies at the upper right of the plane."""
    point = torch.tensor([[[0.2, 0.1, 0.0]]])
    seen, _ = Camera.look_at_head().project(point)
    planes = torch.zeros(1, 3, 2, 64, 64)
    centres = (torch.arange(64) + 0.5) / 64
    planes[0, XY, 0] = centres[None, :]  # the column as a share of the width
    planes[0, XY, 1] = centres[:, None]  # the row as a share of the height
    column, row = (3 * sample_planes(planes, point, TriPlaneConfig(channels=2, resolution=64)))[0, 0].tolist()
    assert (column, row) == pytest.approx((0.7, 0.4), abs=1e-5)
    assert (column > 0.5) == (seen[0, 0, 0].item() > 0.5) and (row < 0.5) == (seen[0, 0, 1].item() < 0.5)


def test_orientation_of_the_other_planes() -> None:
    """yz: width is z, row 0 is the top (high y). zx: width is x, the height index grows with z."""
    config = TriPlaneConfig(channels=1, resolution=8)
    edge = 7 / 16
    for plane, texel, point in (
        (YZ, (0, 7), (0.1, edge, edge)),
        (YZ, (7, 0), (0.1, -edge, -edge)),
        (ZX, (0, 7), (edge, 0.1, -edge)),
        (ZX, (7, 0), (-edge, 0.1, edge)),
    ):
        planes = torch.zeros(1, 3, 1, 8, 8)
        planes[0, plane, 0, texel[0], texel[1]] = 3.0
        assert sample_planes(planes, torch.tensor([[point]]), config).item() == pytest.approx(1.0, abs=1e-6)


def slow_lookup(planes: Tensor, point: Tensor, config: TriPlaneConfig) -> Tensor:
    """Eq. 7 for one point: own bilinear interpolation, one texel at a time. ``(3, C, P, P)``, ``(3,)`` -> ``(C,)``."""
    x, y, z = (float(v) * 2 / config.box_side for v in point)
    side = planes.shape[-1]
    total = torch.zeros(planes.shape[1], dtype=torch.float64)
    for plane, (across, down) in zip(planes.double(), ((x, -y), (z, -y), (x, z)), strict=True):
        column, row = ((across + 1) * side - 1) / 2, ((down + 1) * side - 1) / 2
        if config.padding == "border":
            column, row = (min(max(v, 0.0), side - 1.0) for v in (column, row))
        for i in (math.floor(row), math.floor(row) + 1):
            for j in (math.floor(column), math.floor(column) + 1):
                if 0 <= i < side and 0 <= j < side:  # zeros outside
                    total += (1 - abs(row - i)) * (1 - abs(column - j)) * plane[:, i, j]
    return total / 3


@pytest.mark.parametrize("padding", ["zeros", "border"])
def test_the_lookup_equals_the_slow_one_inside_at_the_edge_and_outside(padding: str) -> None:
    config = TriPlaneConfig(channels=4, resolution=8, box_side=0.8, padding=padding)
    planes, points = _planes(), _points(reach=0.6)  # half of the box is 0.4
    features = sample_planes(planes, points, config)
    assert features.shape == (2, 30, 4)
    for b in range(2):
        for n in range(30):
            assert torch.allclose(features[b, n], slow_lookup(planes[b], points[b, n], config), atol=1e-12)


def test_outside_the_box_there_is_nothing() -> None:
    assert not sample_planes(_planes(), torch.full((2, 1, 3), 0.6, dtype=torch.float64), CONFIG).any()


def test_points_of_another_batch_size_are_named() -> None:
    with pytest.raises(ValueError, match=r"points must have shape \(2, \*, 3\); got \(1, 5, 3\)"):
        sample_planes(_planes(), torch.zeros(1, 5, 3), CONFIG)


def test_the_running_mean_follows_its_closed_form() -> None:
    """Eq. 12 with a constant batch mean m: E_k = m (1 - 0.998^k)."""
    running = RunningMeanPlanes(CONFIG).double()
    batch = _planes(5)
    mean = batch.mean(dim=0)
    for k in range(1, 301):
        running.update(batch)
        if k in (1, 10, 300):
            assert torch.allclose(running.mean, mean * (1 - 0.998**k), atol=1e-12)


def test_the_running_mean_starts_at_zero_and_is_added_to_the_output() -> None:
    running, residual = RunningMeanPlanes(CONFIG), _planes().float()
    assert torch.equal(running(residual), residual)
    running.mean.fill_(0.5)
    assert torch.allclose(running(residual), residual + 0.5)


def test_rendering_has_no_side_effect_on_the_running_mean() -> None:
    running = RunningMeanPlanes(CONFIG)
    running.train()(_planes().float())
    assert not running.mean.any()


def test_the_running_mean_takes_no_gradient_and_is_saved() -> None:
    running = RunningMeanPlanes(CONFIG)
    residual = _planes().float().requires_grad_(True)
    running.update(residual)
    assert not running.mean.requires_grad and list(running.state_dict()) == ["mean"]
    running(residual).sum().backward()
    assert residual.grad is not None and torch.equal(residual.grad, torch.ones_like(residual))


def test_the_running_mean_can_be_switched_off() -> None:
    running = RunningMeanPlanes(TriPlaneConfig(channels=4, resolution=8, mean_planes=False))
    running.mean.fill_(0.5)
    residual = _planes().float()
    assert torch.equal(running(residual), residual)


def test_an_unknown_padding_is_named() -> None:
    with pytest.raises(UsageError, match=r"triplane\.padding: 'zero' is not known\. Did you mean 'zeros'\?"):
        TriPlaneConfig(padding="zero")
