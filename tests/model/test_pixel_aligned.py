"""model/pixel_aligned.py: each point looks up its own place in the portrait (off in the paper's preset)."""

from __future__ import annotations

import torch

from export3d.camera import Camera
from export3d.model.pixel_aligned import PixelAligned, PixelAlignedConfig

CONFIG = PixelAlignedConfig(enabled=True, channels=2, width=4)


def test_the_feature_map_ends_with_the_portraits_own_colours() -> None:
    module, source = PixelAligned(CONFIG, 6), torch.rand(1, 3, 16, 16)
    features = module.encode(source)
    assert features.shape == (1, 5, 8, 8)
    # The last three channels: means of 2 x 2 pixels.
    assert torch.allclose(features[0, 2:, 1, 3], source[0, :, 2:4, 6:8].mean(dim=(1, 2)), atol=1e-6)


def _position_map(size: int = 16) -> torch.Tensor:
    """A feature map whose channels are the image position (x, y) of each texel."""
    centres = (torch.arange(size) + 0.5) / size
    return torch.stack([centres[None, :].expand(size, size), centres[:, None].expand(size, size)])[None]


def test_a_point_reads_the_place_where_the_source_camera_sees_it() -> None:
    module = PixelAligned(PixelAlignedConfig(enabled=True, offset=False, gate=False), 6)
    camera = Camera.look_at_head(0.3, 0.1)
    points = torch.randn(1, 20, 3) * 0.08
    seen, _ = camera.project(points)
    assert torch.allclose(module.lookup(_position_map(), camera, points, torch.zeros(1, 20, 6)), seen, atol=1e-5)


def test_an_untrained_guide_moves_nothing_and_its_gate_is_open() -> None:
    module, camera = PixelAligned(CONFIG, 6), Camera.look_at_head()
    points = torch.randn(1, 20, 3) * 0.08
    seen, _ = camera.project(points)
    found = module.lookup(_position_map(), camera, points, torch.randn(1, 20, 6))
    # The gate starts at sigmoid(2) = 0.880797.
    assert torch.allclose(found, 0.880797 * seen, atol=1e-5)


def test_the_offset_is_bounded_by_its_scale() -> None:
    module = PixelAligned(PixelAlignedConfig(enabled=True, gate=False, offset_scale=0.05), 6)
    torch.nn.init.constant_(module.guide.bias, 100.0)  # tanh saturates: 0.05 along x, y and z
    points = torch.zeros(1, 1, 3)
    seen, _ = Camera.look_at_head().project(points + 0.05)
    found = module.lookup(_position_map(), Camera.look_at_head(), points, torch.zeros(1, 1, 6))
    assert torch.allclose(found, seen, atol=1e-5)
