"""f_I, the image encoder of CLeBS (Sec. 3.1): SE-ResNet-18 and one fully connected layer; thrown away afterwards.

The same trunk, trained on our renders, is the face network of the substitute perceptual distance (`perceptual.py`).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from export3d.checks import check_shape

SHAPE_NUMBERS = 68 * 2 + 3
"""What the landmark head predicts: 68 x, y, then yaw, pitch, roll."""

_LANDMARK_GAIN = 10.0  # movements of landmarks are hundredths of the frame


@dataclass(frozen=True, kw_only=True)
class ImageEncoderConfig:
    """Sizes of f_I."""

    width: int = 64
    """Channels of the first stage; the stages have 1, 2, 4 and 8 times as many (SE-ResNet-18: 64)."""
    image_size: int = 256
    """Side in pixels that images are resized to before the first layer (paper: 256)."""
    squeeze: int = 16
    """Reduction of the squeeze-and-excitation layers."""
    dim: int = 256
    """Length of the code: d of the expression code (paper: 256)."""
    landmark_head: bool = False
    """A second head that predicts the 68 landmarks and the head's angles (only for the face network, not the paper)."""
    code_from_landmarks: bool = False
    """The code also sees what the landmark head predicts (not the paper): fine movements of lips and brows are lost in the
    global mean of the last stage."""
    face_share: float = 1.0
    """Side of the square around the nose that f_I sees, over the frame's side; 1 is the whole frame (paper)."""

    def __post_init__(self) -> None:
        # PyTorch 2.13's channels-last 1x1 convolution of stride 2 corrupts memory on the CPU with 4 channels.
        if self.width < 8 or self.width % 8:
            raise ValueError(f"image_encoder.width must be a multiple of 8; got {self.width}")
        if self.code_from_landmarks and not self.landmark_head:
            raise ValueError("image_encoder.code_from_landmarks needs image_encoder.landmark_head")
        if not 0.1 <= self.face_share <= 1.0:
            raise ValueError(f"image_encoder.face_share must lie in 0.1..1; got {self.face_share}")
        if self.image_size < 32 or self.dim < 1 or self.squeeze < 1:
            raise ValueError(f"image encoder: squeeze and dim must be positive, image_size >= 32; got {self}")


class SqueezeExcite(nn.Module):
    """Scale each channel by a gate computed from the channels' means."""

    def __init__(self, channels: int, reduction: int) -> None:
        super().__init__()
        hidden = max(channels // reduction, 4)
        self.down = nn.Linear(channels, hidden)
        self.up = nn.Linear(hidden, channels)

    def forward(self, x: Tensor) -> Tensor:
        gate = torch.sigmoid(self.up(F.relu(self.down(x.mean(dim=(2, 3))))))  # (B, C)
        return x * gate[:, :, None, None]


class SEBasicBlock(nn.Module):
    """conv3-BN-ReLU-conv3-BN-SE plus the short cut, then ReLU."""

    def __init__(self, channels_in: int, channels: int, stride: int, reduction: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)
        self.gate = SqueezeExcite(channels, reduction)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or channels_in != channels:
            self.shortcut = nn.Sequential(
                nn.Conv2d(channels_in, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.gate(self.norm2(self.conv2(y))) + self.shortcut(x))


class ImageEncoder(nn.Module):
    """Image ``(B, 3, H, W)`` in [-1, 1] -> code ``(B, d)`` (not normalised; Eq. 1 takes cosines)."""

    def __init__(self, config: ImageEncoderConfig) -> None:
        super().__init__()
        self.config = config
        w = config.width
        self.stem = nn.Conv2d(3, w, 7, 2, 3, bias=False)
        self.stem_norm = nn.BatchNorm2d(w)
        widths = (w, 2 * w, 4 * w, 8 * w)
        stages = []
        channels = w
        for index, width in enumerate(widths):
            stride = 1 if index == 0 else 2
            stages.append(
                nn.Sequential(
                    SEBasicBlock(channels, width, stride, config.squeeze), SEBasicBlock(width, width, 1, config.squeeze)
                )
            )
            channels = width
        self.stages = nn.ModuleList(stages)
        self.head = nn.Linear(channels + (SHAPE_NUMBERS if config.code_from_landmarks else 0), config.dim)
        self.landmarks = nn.Linear(channels * 4, SHAPE_NUMBERS) if config.landmark_head else None
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def features(self, image: Tensor, count: int = 5) -> list[Tensor]:
        """Features of the stem and the four stages, strides 2, 4, 8, 16, 32, at most `count` of them.

        The image is taken at its own size.
        """
        x = F.relu(self.stem_norm(self.stem(image)))
        found = [x]
        x = F.max_pool2d(x, 3, 2, 1)
        for stage in self.stages[: count - 1]:  # pyright: ignore[reportGeneralTypeIssues]
            x = stage(x)
            found.append(x)
        return found

    def forward(self, image: Tensor) -> Tensor:
        return self.codes_and_shape(image)[0]

    def codes_and_shape(self, image: Tensor) -> tuple[Tensor, Tensor | None]:
        """Codes ``(B, d)``; with a landmark head also ``(B, 139)``: 68 x, y in [0, 1], yaw, pitch, roll (radians)."""
        check_shape("image", image, None, 3, None, None)
        size = self.config.image_size
        if image.shape[-1] != size or image.shape[-2] != size:
            image = F.interpolate(image, size=(size, size), mode="bilinear", antialias=True, align_corners=False)
        top = self.features(image)[-1]
        shape = None
        if self.landmarks is not None:
            # Four quadrants keep the position that a global mean would lose.
            shape = self.landmarks(F.adaptive_avg_pool2d(top, 2).flatten(1))
        seen = top.mean(dim=(2, 3))
        if self.config.code_from_landmarks:
            assert shape is not None
            seen = torch.cat([seen, _LANDMARK_GAIN * (shape - 0.5)], dim=1)
        return self.head(seen), shape
