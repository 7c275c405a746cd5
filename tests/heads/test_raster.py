"""The rasteriser against a slow float64 reference, hand-computed weights, and its promises about order and culling."""

from __future__ import annotations

import torch

from export3d.heads.raster.rasterize import depth_maps, rasterize


def _slow(points: torch.Tensor, depth: torch.Tensor, triangles: torch.Tensor, size: int):
    """Per-pixel loop in float64: nearest triangle, its weights, and how clear the answer is."""
    p, z = points.double(), depth.double()
    out: dict[int, tuple[int, torch.Tensor, float]] = {}
    for row in range(size):
        for column in range(size):
            x, y = column + 0.5, row + 0.5
            found: list[tuple[float, int, torch.Tensor, float]] = []
            for t, corner in enumerate(triangles.tolist()):
                (x0, y0), (x1, y1), (x2, y2) = (p[c].tolist() for c in corner)
                area = (x1 - x0) * (y2 - y0) - (x2 - x0) * (y1 - y0)
                w1 = ((x - x0) * (y2 - y0) - (y - y0) * (x2 - x0)) / area
                w2 = ((y - y0) * (x1 - x0) - (x - x0) * (y1 - y0)) / area
                w = torch.tensor([1 - w1 - w2, w1, w2], dtype=torch.float64)
                if float(w.min()) < -1e-4:
                    continue
                over_z = w / z[list(corner)]
                found.append((1 / float(over_z.sum()), t, over_z / over_z.sum(), float(w.min())))
            if found:
                found.sort(key=lambda item: item[0])
                gap = found[1][0] - found[0][0] if len(found) > 1 else 1.0
                clear = min(min(item[3] for item in found), gap)  # distance from a tie or an edge
                out[row * size + column] = (found[0][1], found[0][2], clear)
    return out


def _soup(seed: int, count: int, size: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    center = torch.rand(count, 1, 2, generator=generator) * size
    points = (center + torch.randn(count, 3, 2, generator=generator) * size / 4).reshape(-1, 2)
    depth = 1.0 + 3.0 * torch.rand(count * 3, generator=generator)
    return points, depth, torch.arange(count * 3).reshape(count, 3)


def test_nearest_triangle_and_weights_match_a_slow_float64_reference() -> None:
    size = 11
    points, depth, triangles = _soup(3, 14, size)
    f = rasterize(points[None], depth[None], triangles, (size, size))
    seen = {int(p): (int(t), w) for p, t, w in zip(f.pixel, f.triangle, f.weights, strict=True)}
    compared = 0
    for pixel, (triangle, weights, clear) in _slow(points, depth, triangles, size).items():
        if clear < 1e-3:
            continue  # on an edge or a tie float32 may differ
        assert seen[pixel][0] == triangle
        torch.testing.assert_close(seen[pixel][1].double(), weights, atol=2e-4, rtol=0)
        compared += 1
    assert compared > 25


def test_weights_are_perspective_correct() -> None:
    # A right triangle over the image; the pixel centre (2.5, 0.5) lies at 0.25 of the way from corner 0 (z = 1) to
    # corner 1 (z = 3) and at 0.05 towards corner 2 (z = 1): screen weights (0.70, 0.25, 0.05).
    # w / z = (0.70, 0.25 / 3, 0.05); their sum is 0.8333; so the weights are (0.84, 0.10, 0.06).
    points = torch.tensor([[[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]]])
    f = rasterize(points, torch.tensor([[1.0, 3.0, 1.0]]), torch.tensor([[0, 1, 2]]), (10, 10))
    weights = f.weights[f.pixel == 2]
    torch.testing.assert_close(weights, torch.tensor([[0.84, 0.10, 0.06]]), atol=1e-5, rtol=0)


def test_no_pixel_occurs_twice_and_shared_edges_leave_no_gap() -> None:
    # Two triangles that share a diagonal cover the whole image once.
    points = torch.tensor([[[0.0, 0.0], [8.0, 0.0], [8.0, 8.0], [0.0, 8.0]]])
    f = rasterize(points, torch.ones(1, 4), torch.tensor([[0, 1, 2], [0, 2, 3]]), (8, 8))
    assert sorted(f.pixel.tolist()) == list(range(64))


def test_order_of_triangles_does_not_change_the_picture() -> None:
    points, depth, triangles = _soup(5, 40, 20)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(0))
    first = rasterize(points[None], depth[None], triangles, (20, 20))
    second = rasterize(points[None], depth[None], triangles[order], (20, 20))
    one = dict(zip(first.pixel.tolist(), first.triangle.tolist(), strict=True))
    two = dict(zip(second.pixel.tolist(), order[second.triangle].tolist(), strict=True))
    assert one == two


def test_a_batch_is_the_same_as_its_images_one_by_one() -> None:
    points, depth, triangles = _soup(7, 30, 16)
    both = rasterize(torch.stack([points, points.flip(1)]), torch.stack([depth, depth]), triangles, (16, 16))
    for image, each in enumerate((points, points.flip(1))):
        alone = rasterize(each[None], depth[None], triangles, (16, 16))
        chosen = (both.image == image).nonzero()[:, 0]
        assert torch.equal(both.pixel[chosen] - image * 256, alone.pixel)
        assert torch.equal(both.triangle[chosen], alone.triangle)
        assert torch.equal(both.weights[chosen], alone.weights)


def test_culled_triangles_are_drawn_only_where_they_face_the_camera() -> None:
    points = torch.tensor([[[0.0, 0.0], [6.0, 0.0], [0.0, 6.0]]])
    depth, cull = torch.ones(1, 3), torch.tensor([True])
    # (0,0) -> (0,6) -> (6,0) runs counter-clockwise for the eye when y points down.
    assert len(rasterize(points, depth, torch.tensor([[0, 2, 1]]), (6, 6), cull)) > 0
    assert len(rasterize(points, depth, torch.tensor([[0, 1, 2]]), (6, 6), cull)) == 0
    assert len(rasterize(points, depth, torch.tensor([[0, 1, 2]]), (6, 6), ~cull)) > 0


def test_triangles_behind_the_camera_are_dropped() -> None:
    points = torch.tensor([[[0.0, 0.0], [6.0, 0.0], [0.0, 6.0]]])
    assert len(rasterize(points, torch.tensor([[1.0, -1.0, 1.0]]), torch.tensor([[0, 1, 2]]), (6, 6))) == 0


def test_interpolation_of_a_linear_function_is_exact_on_a_tilted_plane() -> None:
    # World points on the plane z = 2 + 0.5 x, seen with focal length 10 and centre 8: attribute = 3 x - y.
    world = torch.tensor([[-1.5, -1.0], [1.6, -1.2], [0.1, 1.5]])
    z = 2 + 0.5 * world[:, 0]
    points = world / z[:, None] * 10 + 8
    f = rasterize(points[None], z[None], torch.tensor([[0, 1, 2]]), (16, 16))
    value = f.interpolate((3 * world[:, 0] - world[:, 1])[:, None], f.corners(torch.tensor([[0, 1, 2]]), 3))[:, 0]
    ray = (torch.stack([f.pixel % 16, f.pixel // 16], 1) + 0.5 - 8) / 10
    # x = rx * z and z = 2 + 0.5 x give x = 2 rx / (1 - 0.5 rx).
    x = 2 * ray[:, 0] / (1 - 0.5 * ray[:, 0])
    y = ray[:, 1] * (2 + 0.5 * x)
    assert len(f) > 20
    torch.testing.assert_close(value, 3 * x - y, atol=1e-4, rtol=1e-4)


def test_depth_map_holds_the_nearest_plane() -> None:
    square = torch.tensor([[0.0, 0.0], [4.0, 0.0], [4.0, 4.0], [0.0, 4.0]])
    points = torch.cat([square, square * 0.5])[None]
    depth = torch.tensor([[9.0] * 4 + [7.0] * 4])
    triangles = torch.tensor([[0, 1, 2], [0, 2, 3], [4, 5, 6], [4, 6, 7]])
    maps = depth_maps(points, depth, triangles, 5)[0]
    assert torch.equal(maps[:2, :2], torch.full((2, 2), 7.0))
    torch.testing.assert_close(maps[2:4, 2:4], torch.full((2, 2), 9.0))
    assert torch.isinf(maps[4]).all()
