"""A few frames at sample resolution: geometry, light, and the buffers that surfaces and layers are drawn into."""

from __future__ import annotations

import torch
from torch import Tensor

from export3d.camera import Camera
from export3d.heads.look.identity import Identity
from export3d.heads.look.torso import torso_lag, torso_weight
from export3d.heads.raster.rasterize import Fragments, rasterize
from export3d.heads.shape.parametric import WORLD_ORIGIN_CM, WORLD_SCALE

_FLIP = (1.0, -1.0, -1.0)


class FramePass:
    """B frames of `side` x `side` samples.

    Attributes:
        vertices: ``(B, V + C, 3)`` cm, head and garment.
        projected: Their sample positions and depths.
        light: In the head's frame.
        normals, irradiance: ``(B, V + C, 3)``; set when the opaque surfaces are drawn.
        color, alpha, depth_cm, parts: ``(B * side * side, ...)`` samples; colour is linear, premultiplied.
    """

    normals: Tensor
    irradiance: Tensor

    def __init__(
        self, identity: Identity, weights: Tensor, gaze: Tensor, camera: Camera, *, side: int, static_scene: bool
    ) -> None:
        self.identity, self.weights, self.camera = identity, weights, camera
        self.side, self.batch = side, len(camera)
        self.static = static_scene
        rest = identity.rest
        self.rotation = camera.cam_to_world[:, :3, :3]
        self.eye = camera.cam_to_world[:, :3, 3] / WORLD_SCALE + rest.new_tensor(WORLD_ORIGIN_CM)  # (B, 3) cm
        self.head_rotation = (self.rotation * rest.new_tensor(_FLIP)).transpose(1, 2)
        room_to_head = torch.eye(3, device=rest.device)[None]
        if not static_scene:
            room_to_head = self.head_rotation.transpose(1, 2)
        self.light = identity.lights.in_head(room_to_head)
        moved = identity.vertices(weights, gaze)
        clothes = identity.clothes.vertices.expand(self.batch, -1, -1)
        self.vertices = torch.cat([moved, clothes], 1)  # (B, V + C, 3)
        if not static_scene:
            self.vertices = torso_lag(self.vertices, torso_weight(identity), self.head_rotation)
        self.projected = self.project(self.vertices)
        samples = self.batch * side * side
        self.depth_cm = torch.full((samples,), torch.inf, device=rest.device)
        self.parts = torch.full((samples,), -1, dtype=torch.int64, device=rest.device)
        self.color = torch.zeros(samples, 3, device=rest.device)
        self.alpha = torch.zeros(samples, device=rest.device)

    def project(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """``(B, P, 3)`` cm -> ``(B, P, 2)`` sample positions and z-depth in cm."""
        local = (points - self.eye[:, None]) @ self.rotation
        depth = local[..., 2]
        intrinsics = self.camera.intrinsics
        x = local[..., 0] / depth * intrinsics[:, None, 0, 0] + intrinsics[:, None, 0, 2]
        y = local[..., 1] / depth * intrinsics[:, None, 1, 1] + intrinsics[:, None, 1, 2]
        return torch.stack([x, y], -1) * self.side, depth

    def visible(
        self,
        projected: tuple[Tensor, Tensor],
        triangles: Tensor,
        cull: Tensor | None = None,
        *,
        one_sided: bool = False,
    ) -> Fragments:
        """What of the triangles is in front; `one_sided` culls them all, see :func:`rasterize`."""
        if one_sided:
            cull = torch.ones(len(triangles), dtype=torch.bool, device=triangles.device)
        return rasterize(*projected, triangles, (self.side, self.side), cull)

    def over(self, pixel: Tensor, color: Tensor, opacity: Tensor, distance: Tensor, part: int) -> None:
        """Composite one layer of premultiplied colour; `pixel` must not repeat."""
        keep = 1 - opacity
        self.color[pixel] = self.color[pixel] * keep[:, None] + color
        before = self.alpha[pixel]
        self.alpha[pixel] = before * keep + opacity
        solid = (opacity > 0.5) | ((before == 0) & (opacity > 0))
        pixel = pixel[solid]
        self.depth_cm[pixel] = torch.minimum(self.depth_cm[pixel], distance[solid])
        self.parts[pixel] = part
