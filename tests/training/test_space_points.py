"""Points of air and of head: they lie where the depth says, mirror with the frame, and their loss is a cross-entropy."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from export3d.camera import Camera
from export3d.data import ClipDataset
from export3d.training.batches.augment import AugmentConfig
from export3d.training.batches.frame_store import FrameStore
from export3d.training.batches.pair_batches import PairSampling, pair_batch
from export3d.training.batches.space_points import SOLID_DEPTH, occupancy_loss, space_points

SIZE = 64
RADIUS = 0.2  # of a ball around the origin, which stands for the head


def ball_seen_by(camera: Camera) -> tuple[np.ndarray, np.ndarray]:
    """Distance along the ray and mask of a ball, pixel by pixel."""
    depth, mask = np.zeros((SIZE, SIZE), np.float32), np.zeros((SIZE, SIZE), np.uint8)
    pose, k = camera.cam_to_world[0].double().numpy(), camera.intrinsics[0].double().numpy()
    for row in range(SIZE):
        for column in range(SIZE):
            local = np.array([(column + 0.5) / SIZE, (row + 0.5) / SIZE, 1.0])
            direction = pose[:3, :3] @ (np.linalg.inv(k) @ local)
            direction /= np.linalg.norm(direction)
            middle = -direction @ pose[:3, 3]
            inside = RADIUS**2 - (pose[:3, 3] @ pose[:3, 3] - middle**2)
            if inside > 0:
                depth[row, column], mask[row, column] = middle - math.sqrt(inside), 255
    return depth, mask


def test_solid_points_lie_under_the_surface_and_the_others_outside_the_head() -> None:
    camera = Camera.look_at_head(0.4, -0.2, 0.1)
    depth, mask = ball_seen_by(camera)
    points, solid = space_points(depth, mask, camera.to_vector()[0].numpy(), 4000, np.random.default_rng(0))
    distance = np.linalg.norm(points, axis=1)
    assert points.shape == (4000, 3) and set(np.unique(solid)) == {0.0, 1.0}
    # Only a ray that grazes the ball meets less than SOLID_DEPTH of it.
    assert (distance[solid == 1] <= RADIUS + 1e-5).mean() > 0.99 and distance[solid == 1].max() < RADIUS + 0.002
    assert distance[solid == 1].min() >= RADIUS - SOLID_DEPTH - 1e-5
    assert distance[solid == 0].min() > RADIUS
    assert distance[solid == 0].max() < 0.75
    near_air = (distance[solid == 0] < RADIUS + 0.07).mean()
    assert 0.4 < near_air < 0.9 and 0.4 < solid.mean() < 0.5


def test_a_frame_without_a_head_gives_points_that_count_nothing() -> None:
    empty = np.zeros((8, 8), np.float32)
    camera = Camera.look_at_head(0.0).to_vector()[0].numpy()
    points, solid = space_points(empty, empty.astype(np.uint8), camera, 5, np.random.default_rng(0))
    assert points.shape == (5, 3) and np.isnan(solid).all()
    sigma = torch.ones(1, 5, requires_grad=True)
    loss = occupancy_loss(sigma, torch.from_numpy(solid)[None])
    loss.backward()
    assert float(loss.detach()) == 0.0 and sigma.grad is not None and sigma.grad.abs().sum() == 0


def test_a_head_that_fills_the_frame_gives_points_before_and_in_it_only() -> None:
    depth, mask = np.full((8, 8), 2.6, np.float32), np.full((8, 8), 255, np.uint8)
    camera = Camera.look_at_head(0.0)
    points, solid = space_points(depth, mask, camera.to_vector()[0].numpy(), 200, np.random.default_rng(0))
    along = np.linalg.norm(points - camera.cam_to_world[0, :3, 3].numpy(), axis=1)
    assert (along[solid == 0] < 2.6).all() and (along[solid == 1] >= 2.6 - 1e-5).all()
    assert (solid == 1).sum() == 90  # 45 of 100


def test_the_occupancy_term_is_the_cross_entropy_of_the_opacity_of_a_slab() -> None:
    sigma = torch.tensor([[50.0, 50.0, 10.0, 7.0]])
    solid = torch.tensor([[1.0, 0.0, 0.0, math.nan]])
    value = occupancy_loss(sigma, solid, thickness=0.02)
    wanted = (-math.log(1 - math.exp(-1.0)) + 1.0 + 0.2) / 3
    assert float(value) == pytest.approx(wanted, abs=1e-6)


def test_points_mirror_with_their_frame(clip_folder: Path) -> None:
    store = FrameStore(ClipDataset(clip_folder, split="train"), 2**28)
    sampling = PairSampling(raw_size=8, space_points=32)
    plain = pair_batch(store, 0, 1, range(3), sampling=sampling, augment=AugmentConfig(), with_truth=True)
    flipped = pair_batch(store, 0, 1, range(3), sampling=sampling, augment=AugmentConfig(mirror=1.0), with_truth=True)
    assert plain.space is not None and flipped.space is not None
    assert plain.solid is not None and flipped.solid is not None
    assert torch.equal(flipped.space, plain.space * torch.tensor([-1.0, 1.0, 1.0]))
    assert torch.equal(flipped.solid, plain.solid)
    position, _ = Camera.from_vector(flipped.camera).project(flipped.space)
    head = flipped.mask
    assert head is not None
    pixel = (position * head.shape[-1]).long().clamp(0, head.shape[-1] - 1)
    rows = torch.arange(3)[:, None]
    seen = head[rows, pixel[..., 1], pixel[..., 0]]
    assert (seen[flipped.solid == 1] == 255).all()
