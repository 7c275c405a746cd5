"""Deep3DFaceRecon as a coefficient model: its ResNet-50, its 257 numbers, its 224 crop (Sec. 4.1).

The weights are not part of this package: Deep3DFaceRecon_pytorch publishes them (`epoch_20.pth`). The face model
(BFM) is not needed, only the coefficients are. This module knows the layout of the 257 numbers; nobody else does.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from export3d.camera import Camera
from export3d.checks import check_choice, check_shape
from export3d.errors import CheckpointError
from export3d.reading import shortened
from export3d.tensor_files import read_weights
from export3d.tracking.alignment import EG3D_ALIGNMENT, Alignment, Crop, crop_transform
from export3d.tracking.faces import ExtractorInfo, Face

INPUT_PX = 224
"""Side of the network's input."""

NETWORK_ALIGNMENT = Alignment(rescale=102.0, target=224.0, crop=224.0)
"""The crop that the network was trained on: 102 pixels per model unit, 224 pixels wide."""

HEAD_SIZES = (80, 64, 80, 3, 27, 2, 1)
"""Outputs of the heads, concatenated: identity, expression, texture, angles, light, translation xy, translation z."""

NUM_COEFFICIENTS = sum(HEAD_SIZES)  # 257

_BLOCKS = ((64, 3), (128, 4), (256, 6), (512, 3))  # width and number of blocks of the four stages of ResNet-50
_EXPANSION = 4
_STATE_KEY = "net_recon"


@dataclass(frozen=True)
class Coefficients:
    """The 257 numbers by name, ``(B, ...)``."""

    identity: Tensor  # (B, 80)
    expression: Tensor  # (B, 64): beta of the space bfm64
    texture: Tensor  # (B, 80)
    angles: Tensor  # (B, 3) radians: x pitch, y yaw, z roll
    light: Tensor  # (B, 27): 3 x 9 spherical harmonics
    translation: Tensor  # (B, 3) model units

    @staticmethod
    def from_vector(vector: Tensor) -> Coefficients:
        """``(B, 257)`` -> named parts."""
        check_shape("coefficients", vector, None, NUM_COEFFICIENTS)
        identity, expression, texture, angles, light, shift, depth = vector.split(HEAD_SIZES, dim=1)
        return Coefficients(identity, expression, texture, angles, light, torch.cat([shift, depth], dim=1))


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 with a shortcut."""

    def __init__(self, num_in: int, width: int, stride: int) -> None:
        super().__init__()
        num_out = width * _EXPANSION
        self.conv1 = nn.Conv2d(num_in, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, num_out, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(num_out)
        self.downsample = (
            nn.Sequential(nn.Conv2d(num_in, num_out, 1, stride, bias=False), nn.BatchNorm2d(num_out))
            if stride != 1 or num_in != num_out
            else None
        )

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = torch.relu(self.bn1(self.conv1(x)))
        x = torch.relu(self.bn2(self.conv2(x)))
        return torch.relu(self.bn3(self.conv3(x)) + shortcut)


class Backbone(nn.Module):
    """ResNet-50 without its classifier: ``(B, 3, 224, 224)`` -> ``(B, 2048, 1, 1)``."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        num_in = 64
        for number, (width, count) in enumerate(_BLOCKS):
            blocks = []
            for place in range(count):
                stride = 2 if place == 0 and number > 0 else 1
                blocks.append(Bottleneck(num_in, width, stride))
                num_in = width * _EXPANSION
            self.add_module(f"layer{number + 1}", nn.Sequential(*blocks))

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.bn1(self.conv1(x)))
        x = nn.functional.max_pool2d(x, 3, 2, 1)
        for number in range(len(_BLOCKS)):
            x = self.get_submodule(f"layer{number + 1}")(x)
        return x.mean(dim=(2, 3), keepdim=True)


class ReconstructionNetwork(nn.Module):
    """Backbone and one 1x1 convolution for each group of coefficients; names follow the published checkpoint."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = Backbone()
        num_features = _BLOCKS[-1][0] * _EXPANSION  # 2048
        self.final_layers = nn.ModuleList(nn.Conv2d(num_features, size, 1) for size in HEAD_SIZES)

    def forward(self, image: Tensor) -> Tensor:
        """``(B, 3, 224, 224)`` RGB in [0, 1] -> ``(B, 257)``."""
        features = self.backbone(image)
        return torch.cat([layer(features) for layer in self.final_layers], dim=1).flatten(1)


class Deep3DModel:
    """An `ObservingModel`: beta in the space `bfm64` and EG3D's camera from Deep3DFaceRecon.

    Args:
        checkpoint: the published `epoch_20.pth` or one of the same structure.
        position_mode: how the camera's position is derived, see `Camera.from_deep3d`; `orig` is EG3D's.

    Raises:
        CheckpointError: Missing, unreadable, or of another structure; names what is missing or unexpected.
    """

    alignment: Alignment = EG3D_ALIGNMENT

    def __init__(self, checkpoint: str | Path, position_mode: str = "orig", device: str = "cpu") -> None:
        self.position_mode = check_choice("position_mode", position_mode, ("orig", "cor", "exact"))
        self.device = device
        path = Path(checkpoint)
        self.network = load_network(path).to(device)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        self.info = ExtractorInfo("deep3dfacerecon", f"1-{position_mode}", digest, "bfm64")

    def observe(self, frame: np.ndarray, face: Face, crop: Crop) -> tuple[np.ndarray, np.ndarray]:
        """Frame and one of its faces -> beta ``(64,)``, camera p ``(25,)``. `crop` plays no part: the network has its own.

        `Camera.from_deep3d` assumes the EG3D crop of the same landmarks, which is what preparation cuts out.
        """
        picture = network_input(frame, face.landmarks_px)
        batch = torch.from_numpy(picture).permute(2, 0, 1)[None].float().to(self.device) / 255.0
        with torch.inference_mode():
            found = Coefficients.from_vector(self.network(batch).float().cpu())
        camera = Camera.from_deep3d(found.angles.double(), found.translation.double(), self.position_mode)
        return found.expression[0].numpy(), camera.to_vector()[0].float().numpy()


def pose_numbers(cameras: np.ndarray) -> np.ndarray:
    """Deep3DFaceRecon's own six numbers from cameras ``(T, 25)`` that `Deep3DModel` made in the mode `exact`.

    Returns:
        ``(T, 6)`` = [x pitch, y yaw, z roll in radians | translation x, y, z in model units].
    """
    world = torch.from_numpy(np.asarray(cameras, dtype=np.float64))[:, :16].reshape(-1, 4, 4)
    rotation = (world[:, :3, :3] * world.new_tensor([1.0, -1.0, -1.0])).transpose(1, 2)  # Rz Ry Rx
    x = torch.atan2(rotation[:, 2, 1], rotation[:, 2, 2])
    y = torch.asin((-rotation[:, 2, 0]).clamp(-1.0, 1.0))
    z = torch.atan2(rotation[:, 1, 0], rotation[:, 0, 0])
    translation = world.new_tensor([0.0, 0.0, 10.0]) - (rotation @ world[:, :3, 3:])[..., 0] / 0.27
    return torch.cat([torch.stack([x, y, z], dim=1), translation], dim=1).numpy()


def load_network(path: Path) -> ReconstructionNetwork:
    """Read the published checkpoint: a dictionary whose entry `net_recon` is the network's state.

    Raises:
        CheckpointError: See :class:`Deep3DModel`.
    """
    if not path.is_file():
        raise CheckpointError(
            f"{path}: no such Deep3DFaceRecon checkpoint. Get epoch_20.pth from the authors of Deep3DFaceRecon_pytorch "
            "and pass its path with --extractor (prepare, evaluate: --deep3d-checkpoint)."
        )
    content = read_weights(path, "a PyTorch checkpoint", CheckpointError)
    if not isinstance(content.get(_STATE_KEY), dict):
        keys = shortened(", ".join(sorted(map(str, content))[:8]))
        raise CheckpointError(
            f"{path}: expected a Deep3DFaceRecon checkpoint with an entry '{_STATE_KEY}'; got {keys}."
        )
    state = content[_STATE_KEY]
    network = ReconstructionNetwork()
    wanted = network.state_dict()
    missing, unexpected = sorted(wanted.keys() - state.keys()), sorted(state.keys() - wanted.keys())
    if missing or unexpected:
        raise CheckpointError(
            f"{path}: the network is not Deep3DFaceRecon's ResNet-50: {len(missing)} entries missing "
            f"({', '.join(missing[:3])}), {len(unexpected)} unexpected ({', '.join(unexpected[:3])})."
        )
    for name, value in wanted.items():
        if state[name].shape != value.shape:
            raise CheckpointError(
                f"{path}: entry '{name}' must have shape {tuple(value.shape)}; got {tuple(state[name].shape)}."
            )
    network.load_state_dict(state)
    return network.eval()


def network_input(frame: np.ndarray, landmarks_px: np.ndarray) -> np.ndarray:
    """The aligned picture that the network was trained on.

    The whole frame is resized by 102 / (fitted scale), bicubic; a square of 224 pixels is cut out around the fitted
    centre; sizes and corners are truncated to whole pixels; outside the frame is black.

    Args:
        frame: uint8 ``(H, W, 3)``.
        landmarks_px: ``(68, 2)`` in pixels of the frame.

    Returns:
        uint8 ``(224, 224, 3)``.
    """
    crop = crop_transform(landmarks_px, NETWORK_ALIGNMENT)
    scale = INPUT_PX / crop.side
    height, width = frame.shape[:2]
    new_width, new_height = max(int(width * scale), 1), max(int(height * scale), 1)
    left = int(new_width / 2 - INPUT_PX / 2 + (crop.center_x - width / 2) * scale)
    top = int(new_height / 2 - INPUT_PX / 2 + (crop.center_y - height / 2) * scale)
    # Only the part that the square can see is computed: a large frame around a tiny face would need too much memory.
    x0, y0 = max(left, 0), max(top, 0)
    x1, y1 = min(left + INPUT_PX, new_width), min(top + INPUT_PX, new_height)
    canvas = Image.new("RGB", (INPUT_PX, INPUT_PX))
    if x0 < x1 and y0 < y1:
        per_x, per_y = width / new_width, height / new_height
        box = (x0 * per_x, y0 * per_y, min(x1 * per_x, width), min(y1 * per_y, height))
        part = Image.fromarray(frame).resize((x1 - x0, y1 - y0), Image.Resampling.BICUBIC, box=box)
        canvas.paste(part, (x0 - left, y0 - top))
    return np.array(canvas)
