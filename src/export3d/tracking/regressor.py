"""The landmark regressor: 68 points of an aligned crop to beta and the camera, by a small network (Sec. 4, data).

It is the bundled stand-in for the paper's 3DMM extractor: trained on projected landmarks of the synthetic heads
(`export3d.fitting.regressor`) to give the coefficients of their per-frame fit, in the expression space `ict64`. Where a
face brings MediaPipe's dense mesh, a second network reads that instead (`mesh_regressor.py`).
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field, replace
from functools import cache, cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor, nn

from export3d import __version__
from export3d.camera import Camera, default_intrinsics
from export3d.checks import check_shape
from export3d.errors import CheckpointError
from export3d.files import write_atomically
from export3d.reading import parse_json, reading
from export3d.tensor_files import read_tensor_file, sealed
from export3d.tracking.alignment import Alignment, Crop
from export3d.tracking.faces import ExtractorInfo, Face
from export3d.tracking.head_fit import HeadFit
from export3d.tracking.mesh_regressor import NUM_MESH, NUM_POSE, BetaReader, MeshConfig, MeshNet

FORMAT = "export3d-regressor"
VERSION = 2
NAME = "landmark-regressor"
MESH_PREFIX = "mesh."
"""Begins the names of the second network's tensors in the file."""

POSE_DIM = NUM_POSE
"""Two columns of the camera rotation (6), then the world origin in camera coordinates (3)."""


@dataclass(frozen=True, kw_only=True)
class RegressorConfig:
    """Size of the network and the crop it reads."""

    hidden: int = 256
    """Width of the hidden layers."""
    layers: int = 3
    """Number of hidden layers."""
    beta_dim: int = 64
    """Length of beta."""
    expression_space: str = "ict64"
    """What beta means."""
    alignment: Alignment = field(default_factory=Alignment)
    """The crop whose landmarks the network reads."""

    def __post_init__(self) -> None:
        if self.hidden < 1 or self.layers < 1 or self.beta_dim < 1:
            raise ValueError("RegressorConfig: hidden, layers and beta_dim must be at least 1")

    @staticmethod
    def from_dict(values: dict[str, Any]) -> RegressorConfig:
        """The inverse of `dataclasses.asdict`; unknown keys raise a TypeError."""
        return RegressorConfig(**{**values, "alignment": _alignment(values["alignment"])})


class RegressorNet(nn.Module):
    """Points and their presence -> camera and beta. Inputs and outputs are standardised by stored statistics."""

    def __init__(self, config: RegressorConfig) -> None:
        super().__init__()
        self.config = config
        widths = [3 * 68] + [config.hidden] * config.layers
        blocks: list[nn.Module] = []
        for num_in, num_out in pairwise(widths):
            blocks += [nn.Linear(num_in, num_out), nn.SiLU()]
        self.body = nn.Sequential(*blocks)
        self.head = nn.Linear(config.hidden, POSE_DIM + config.beta_dim)
        self.register_buffer("point_mean", torch.full((68, 2), 0.5))
        self.register_buffer("point_scale", torch.full((68, 2), 0.1))
        self.register_buffer("pose_mean", torch.tensor([1.0, 0, 0, 0, -1.0, 0, 0, 0, 2.7]))
        self.register_buffer("pose_scale", torch.ones(POSE_DIM))

    def forward(self, landmarks: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        """Landmarks ``(N, 68, 2)`` in [0, 1] and presence ``(N, 68)`` in {0, 1} -> pose ``(N, 9)``, beta ``(N, 64)``."""
        check_shape("landmarks", landmarks, None, 68, 2)
        check_shape("present", present, landmarks.shape[0], 68)
        points = (landmarks - self.get_buffer("point_mean")) / self.get_buffer("point_scale")
        points = torch.where(present[..., None] > 0, points, torch.zeros_like(points))
        out = self.head(self.body(torch.cat([points.flatten(1), present], dim=1)))
        pose = out[:, :POSE_DIM] * self.get_buffer("pose_scale") + self.get_buffer("pose_mean")
        return pose, out[:, POSE_DIM:]


class LandmarkRegressor:
    """A `CoefficientModel`: landmarks in, beta and camera out; nothing but its weights file is needed.

    It is an `ObservingModel` too: of a face with a dense mesh it reads the mesh, of another the 68 points.

    Args:
        net: the network.
        info: name, version, hash of the file, expression space.
        offsets: ``(68, 2)`` in [0, 1] of the crop: mean difference of the face tracker's points from the head model's;
            taken off before the network.
        alignment: the crop for that tracker's points; default: the one that the network was trained with.
        notes: how it was trained, for `export3d info`.
        mesh_net: the network for dense meshes; None reads the 68 points of every face.
    """

    def __init__(
        self,
        net: RegressorNet,
        info: ExtractorInfo,
        offsets: np.ndarray | None = None,
        alignment: Alignment | None = None,
        *,
        notes: dict[str, Any] | None = None,
        mesh_net: MeshNet | None = None,
    ) -> None:
        self.net = net.eval().requires_grad_(False)
        self.mesh_net = None if mesh_net is None else mesh_net.eval().requires_grad_(False)
        self.info = info
        self.alignment = alignment or net.config.alignment
        self.offsets = np.zeros((68, 2), np.float32) if offsets is None else np.asarray(offsets, np.float32)
        self.notes = notes or {}

    @cached_property
    def _beta_reader(self) -> BetaReader:
        assert self.mesh_net is not None
        return BetaReader(self.mesh_net)

    def coefficients(self, landmarks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Coefficients from a face tracker's points.

        Args:
            landmarks: ``(N, 68, 2)`` in [0, 1] of the crop; points that are not finite count as missing.

        Returns:
            beta ``(N, 64)`` and camera p ``(N, 25)``, float32.
        """
        points = np.asarray(landmarks, dtype=np.float32)
        if points.ndim != 3 or points.shape[1:] != (68, 2):
            raise ValueError(f"landmarks must have shape (N, 68, 2); got {points.shape}")
        return self.coefficients_of_head_points(points - self.offsets)

    def observe(self, frame: np.ndarray, face: Face, crop: Crop) -> tuple[np.ndarray, np.ndarray]:
        """One face and its crop -> beta ``(64,)`` and camera p ``(25,)``, float32. The pixels are not looked at.

        Of a face with a dense mesh, the camera is that of the head fit (`head_fit.py`), at any roll; beta is read with the
        face levelled.
        """
        if self.mesh_net is None or face.mesh is None:
            beta, camera = self.coefficients(crop.to_crop(face.landmarks_px)[None])
            return beta[0], camera[0]
        beta = self._beta_reader.read(mesh_in_crop(face.mesh, replace(crop, angle=face.roll)))
        return beta, HeadFit.load().fit(mesh_in_crop(face.mesh, crop)).camera()

    @torch.no_grad()
    def coefficients_of_meshes(self, meshes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Coefficients from dense meshes ``(N, 478, 3)`` as :func:`mesh_in_crop` gives them; ValueError without a network
        for them, or where a value is not finite."""
        if self.mesh_net is None:
            raise ValueError("this regressor has no network for dense meshes")
        points = np.ascontiguousarray(meshes, dtype=np.float32)
        if points.ndim != 3 or points.shape[1:] != (NUM_MESH, 3) or not np.isfinite(points).all():
            raise ValueError(f"meshes must be finite and of shape (N, {NUM_MESH}, 3); got {points.shape}")
        pose, beta = self.mesh_net(torch.from_numpy(points))
        return beta.numpy(), camera_from_pose(pose).to_vector().numpy()

    @torch.no_grad()
    def coefficients_of_head_points(self, landmarks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The same from the head model's own points (exact or noisy), to which no tracker's offset applies."""
        points = torch.from_numpy(np.ascontiguousarray(landmarks, dtype=np.float32))
        present = torch.isfinite(points).all(dim=-1)
        points = torch.where(present[..., None], points, torch.zeros_like(points))
        pose, beta = self.net(points, present.float())
        return beta.numpy(), camera_from_pose(pose).to_vector().numpy()

    @staticmethod
    def load(path: str | Path | None = None) -> LandmarkRegressor:
        """Read a regressor file; None is the bundled one.

        Raises:
            CheckpointError: Missing, damaged, another format or version, or tensors that do not fit its configuration.
        """
        return _load_bundled() if path is None else _load(Path(path))

    def save(self, path: str | Path) -> str:
        """Write the file under a temporary name, rename it, and return its SHA-256."""
        path = Path(path)
        metadata = {
            "format": FORMAT,
            "version": str(VERSION),
            "config": json.dumps(asdict(self.net.config)),
            "tracker_alignment": json.dumps(asdict(self.alignment)),
            "notes": json.dumps(self.notes),
            "created_by": f"export3d {__version__}",
        }
        tensors = {name: tensor.contiguous() for name, tensor in self.net.state_dict().items()}
        if self.mesh_net is not None:
            metadata["mesh_config"] = json.dumps(asdict(self.mesh_net.config))
            tensors |= {MESH_PREFIX + name: tensor.contiguous() for name, tensor in self.mesh_net.state_dict().items()}
        tensors["offsets"] = torch.from_numpy(self.offsets)
        content = save(tensors, metadata=sealed(metadata, tensors))
        write_atomically(path, content)
        return hashlib.sha256(content).hexdigest()


def mesh_in_crop(mesh: np.ndarray, crop: Crop) -> np.ndarray:
    """Mesh ``(478, 3)`` in pixels of the frame -> the same in units of the crop's side, x and y from its corner."""
    return np.concatenate([crop.to_crop(mesh[:, :2]), mesh[:, 2:] / np.float32(crop.side)], axis=1).astype(np.float32)


def camera_from_pose(pose: Tensor) -> Camera:
    """Pose ``(N, 9)`` -> cameras: Gram-Schmidt on the two columns; position c = -R o from the origin o it sees."""
    check_shape("pose", pose, None, POSE_DIM)
    first = nn.functional.normalize(pose[:, 0:3], dim=1)
    second = pose[:, 3:6] - (first * pose[:, 3:6]).sum(1, keepdim=True) * first
    second = nn.functional.normalize(second, dim=1)
    rotation = torch.stack([first, second, torch.linalg.cross(first, second)], dim=2)
    world = torch.eye(4, dtype=pose.dtype).repeat(pose.shape[0], 1, 1)
    world[:, :3, :3] = rotation
    world[:, :3, 3] = -(rotation @ pose[:, 6:9, None])[..., 0]
    return Camera(world, default_intrinsics(pose.shape[0], dtype=pose.dtype))


def pose_from_camera(camera: Camera) -> Tensor:
    """Cameras -> pose ``(N, 9)``: the inverse of :func:`camera_from_pose`. The intrinsics are the fixed ones."""
    rotation = camera.cam_to_world[:, :3, :3]
    origin = -(rotation.transpose(1, 2) @ camera.cam_to_world[:, :3, 3, None])[..., 0]
    return torch.cat([rotation[:, :, 0], rotation[:, :, 1], origin], dim=1)


def _alignment(values: dict[str, Any]) -> Alignment:
    return Alignment(**{**values, "origin": tuple(values["origin"])})


@cache
def _load_bundled() -> LandmarkRegressor:
    return _load(Path(__file__).resolve().parent.parent / "assets" / "regressor.safetensors")


def _load(path: Path) -> LandmarkRegressor:
    metadata, tensors = read_tensor_file(
        path,
        kind="regressor",
        format_name=FORMAT,
        version=str(VERSION),
        error=CheckpointError,
        remedy="Install export3d again, or run: export3d train-regressor",
        framework="pt",
    )
    with reading(path, "the contents do not fit the configuration in its header", CheckpointError, "Train it again."):
        config = RegressorConfig.from_dict(parse_json(metadata["config"]))
        alignment = _alignment(parse_json(metadata["tracker_alignment"]))
        notes = parse_json(metadata["notes"])
        offsets = tensors.pop("offsets").numpy()
        of_mesh = {name: tensors.pop(name) for name in list(tensors) if name.startswith(MESH_PREFIX)}
        mesh_net = None
        if "mesh_config" in metadata:
            mesh_net = MeshNet(MeshConfig.from_dict(parse_json(metadata["mesh_config"])))
            mesh_net.load_state_dict({name.removeprefix(MESH_PREFIX): tensor for name, tensor in of_mesh.items()})
        net = RegressorNet(config)
        net.load_state_dict(tensors)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    info = ExtractorInfo(NAME, str(VERSION), digest, config.expression_space)
    return LandmarkRegressor(net, info, offsets, alignment, notes=notes, mesh_net=mesh_net)
