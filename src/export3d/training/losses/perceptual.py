"""Perceptual distances of Eq. 13: LPIPS with VGG16, or features of a face network trained on our renders."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from export3d.errors import CheckpointError
from export3d.expression.image_encoder import ImageEncoder
from export3d.files import file_sha256
from export3d.tensor_files import read_weights

_VGG_STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
_VGG_LAYERS = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)  # places of the convolutions in torchvision's list
_SHIFT = (-0.030, -0.088, -0.188)  # LPIPS's input statistics for images in [-1, 1]
_SCALE = (0.458, 0.448, 0.450)


class VGG16Features(nn.Module):
    """The thirteen convolutions of VGG16 in five stages; the last activation of each stage is a feature map."""

    def __init__(self) -> None:
        super().__init__()
        channels = 3
        stages = []
        for widths in _VGG_STAGES:
            convs = []
            for width in widths:
                convs.append(nn.Conv2d(channels, width, 3, padding=1))
                channels = width
            stages.append(nn.ModuleList(convs))
        self.stages = nn.ModuleList(stages)

    def forward(self, image: Tensor) -> list[Tensor]:
        """Normalised image ``(B, 3, H, W)`` -> five maps of 64 to 512 channels, strides 1, 2, 4, 8, 16."""
        found = []
        x = image
        for index, stage in enumerate(self.stages):
            if index:
                x = F.max_pool2d(x, 2)
            for conv in stage:  # pyright: ignore[reportGeneralTypeIssues]
                x = F.relu(conv(x))
            found.append(x)
        return found


class LPIPS(nn.Module):
    """Learned perceptual image patch similarity on VGG16 (Zhang et al. 2018), the paper's choice.

    Features of both images are scaled to unit length at each pixel; squared differences are weighted per channel by
    non-negative heads, averaged over the image and summed over the five stages.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.vgg = VGG16Features()
        self.heads = nn.ParameterList(nn.Parameter(torch.full((widths[-1],), 0.1)) for widths in _VGG_STAGES)
        self.register_buffer("shift", torch.tensor(_SHIFT)[:, None, None])
        self.register_buffer("scale", torch.tensor(_SCALE)[:, None, None])
        self.requires_grad_(False)

    def forward(self, given: Tensor, wanted: Tensor) -> Tensor:
        """Two batches ``(B, 3, H, W)`` in [-1, 1], sides of at least 16 -> ``(B,)``; no gradient flows to `wanted`."""
        with torch.no_grad():
            targets = [_unit(f, 1e-10) for f in self.vgg((wanted - self.shift) / self.scale)]
        distance = given.new_zeros(given.shape[0])
        for a, b, head in zip(self.vgg((given - self.shift) / self.scale), targets, self.heads, strict=True):
            difference = (_unit(a, 1e-10) - b).square()  # (B, C, h, w)
            distance = distance + torch.einsum("bchw,c->bhw", difference, head).mean(dim=(1, 2))
        return distance


class FaceNetworkDistance(nn.Module):
    """Substitute for LPIPS that needs no outside weights: features of f_I's trunk, each pixel scaled to unit length.

    The network has seen only renders of heads, so it knows faces but not natural images; it is not LPIPS and its numbers
    cannot be compared with it.

    Args:
        encoder: trained image encoder, frozen here.
        stages: how many feature maps are compared, from the finest (stride 2) on.
    """

    def __init__(self, encoder: ImageEncoder, stages: int = 4) -> None:
        super().__init__()
        self.encoder = encoder.eval().requires_grad_(False)
        self.stages = stages

    def forward(self, given: Tensor, wanted: Tensor) -> Tensor:
        """Two batches ``(B, 3, H, W)`` in [-1, 1] -> ``(B,)``; no gradient flows to `wanted`."""
        with torch.no_grad():
            targets = self.encoder.features(wanted, self.stages)
        distance = given.new_zeros(given.shape[0])
        for a, b in zip(self.encoder.features(given, self.stages), targets, strict=True):
            distance = distance + (_unit_squared(a) - _unit_squared(b)).square().sum(dim=1).mean(dim=(1, 2))
        return distance

    def train(self, mode: bool = True) -> FaceNetworkDistance:
        """Stays in evaluation mode: its batch norms keep the statistics of its own training."""
        return super().train(False)


def load_lpips(vgg: str | Path, heads: str | Path) -> tuple[LPIPS, dict[str, str]]:
    """LPIPS from two published files, and their SHA-256 digests for the record.

    Args:
        vgg: torchvision's `vgg16-397923af.pth` (a state dict; its classifier is not read).
        heads: the `vgg.pth` of the lpips package (five 1x1 convolutions).

    Raises:
        CheckpointError: A file is missing, damaged, or not what its name says.
    """
    vgg_path, heads_path = Path(vgg), Path(heads)
    digests = {"vgg_sha256": _sha256(vgg_path), "heads_sha256": _sha256(heads_path)}
    named = vgg_path.stem.split("-")[-1]  # torchvision puts the first digits of the digest into the name
    if named != vgg_path.stem and len(named) == 8 and not digests["vgg_sha256"].startswith(named):
        raise CheckpointError(
            f"{vgg_path}: damaged: SHA-256 begins with {digests['vgg_sha256'][:8]}; its name says {named}. Copy it again."
        )
    model = LPIPS()
    tensors = read_weights(vgg_path, "a PyTorch weight file", CheckpointError)
    convs = [conv for stage in model.vgg.stages for conv in stage]  # pyright: ignore[reportGeneralTypeIssues]
    for place, conv in zip(_VGG_LAYERS, convs, strict=True):
        for part in ("weight", "bias"):
            _fill(getattr(conv, part), tensors, f"features.{place}.{part}", vgg_path)
    tensors = read_weights(heads_path, "a PyTorch weight file", CheckpointError)
    for index, head in enumerate(model.heads):
        _fill(head, tensors, f"lin{index}.model.1.weight", heads_path)
    return model, digests


def _fill(target: Tensor, tensors: dict[str, Tensor], name: str, path: Path) -> None:
    if name not in tensors:
        raise CheckpointError(f"{path}: tensor '{name}' is missing; this is not the published file.")
    value = tensors[name]
    if value.numel() != target.numel():
        raise CheckpointError(
            f"{path}: tensor '{name}' has shape {tuple(value.shape)}; expected {target.numel()} numbers."
        )
    with torch.no_grad():
        target.copy_(value.reshape(target.shape))


def _sha256(path: Path) -> str:
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file. docs/training.md says where the published weights are.")
    return file_sha256(path)


def _unit(features: Tensor, epsilon: float) -> Tensor:
    """Scale each pixel's channels to unit length (LPIPS: x / (|x| + epsilon))."""
    # The square root has no finite gradient at 0, where ReLU features often lie; a tiny floor changes no digit.
    return features / ((features.square().sum(dim=1, keepdim=True) + 1e-20).sqrt() + epsilon)


def _unit_squared(features: Tensor) -> Tensor:
    """The same with a floor that keeps nearly empty pixels from being blown up."""
    return features * (features.square().sum(dim=1, keepdim=True) + 1e-3).rsqrt()
