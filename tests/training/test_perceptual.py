"""LPIPS against an independent slow implementation on random weights; the face network's distance; the files."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch

from export3d.errors import CheckpointError
from export3d.expression.image_encoder import ImageEncoder, ImageEncoderConfig
from export3d.training.losses import perceptual
from export3d.training.losses.perceptual import FaceNetworkDistance, load_lpips

# torchvision's VGG16: "M" is a 2x2 maximum; every convolution is followed by ReLU.
LAYOUT = [64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512, "M", 512, 512, 512, "M"]
OUTPUTS = (3, 8, 15, 22, 29)  # places of the activations that LPIPS reads, in torchvision's numbering


def random_files(folder: Path) -> tuple[Path, Path]:
    """Weight files with the published names and shapes, small random numbers."""
    torch.manual_seed(2)
    vgg: dict[str, torch.Tensor] = {}
    place, channels = 0, 3
    for item in LAYOUT:
        if item == "M":
            place += 1
            continue
        width = int(item)
        vgg[f"features.{place}.weight"] = torch.randn(width, channels, 3, 3) * (2.0 / (9 * channels)) ** 0.5
        vgg[f"features.{place}.bias"] = 0.1 * torch.randn(width)
        channels = width
        place += 2
    vgg["classifier.0.weight"] = torch.zeros(2, 2)
    heads = {f"lin{i}.model.1.weight": torch.rand(1, w, 1, 1) for i, w in enumerate((64, 128, 256, 512, 512))}
    paths = folder / "vgg.pth", folder / "heads.pth"
    torch.save(vgg, paths[0])
    torch.save(heads, paths[1])
    return paths


def slow_convolution(x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """3x3, zero padding, float64, one kernel tap at a time."""
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1)))
    out = np.zeros((weight.shape[0], *x.shape[1:]))
    for row in range(3):
        for column in range(3):
            part = padded[:, row : row + x.shape[1], column : column + x.shape[2]]
            out += np.tensordot(weight[:, :, row, column], part, axes=1)
    return out + bias[:, None, None]


def slow_lpips(a: np.ndarray, b: np.ndarray, vgg: dict[str, torch.Tensor], heads: dict[str, torch.Tensor]) -> float:
    """LPIPS of two images ``(3, H, W)`` in [-1, 1], layer by layer in torchvision's numbering."""

    def features(image: np.ndarray) -> list[np.ndarray]:
        shift = np.array([-0.030, -0.088, -0.188])[:, None, None]
        scale = np.array([0.458, 0.448, 0.450])[:, None, None]
        x = (image - shift) / scale
        found, place = [], 0
        for item in LAYOUT:
            if item == "M":
                x = x.reshape(x.shape[0], x.shape[1] // 2, 2, x.shape[2] // 2, 2).max(axis=(2, 4))
                place += 1
                continue
            weight, bias = (vgg[f"features.{place}.{part}"].double().numpy() for part in ("weight", "bias"))
            x = np.maximum(slow_convolution(x, weight, bias), 0.0)
            if place + 1 in OUTPUTS:
                found.append(x)
            place += 2
        return found

    total = 0.0
    for index, (x, y) in enumerate(zip(features(a), features(b), strict=True)):
        x = x / (np.sqrt((x**2).sum(axis=0, keepdims=True)) + 1e-10)
        y = y / (np.sqrt((y**2).sum(axis=0, keepdims=True)) + 1e-10)
        head = heads[f"lin{index}.model.1.weight"].double().numpy()[0, :, 0, 0]
        total += float((head[:, None, None] * (x - y) ** 2).sum(axis=0).mean())
    return total


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return random_files(tmp_path_factory.mktemp("vgg"))


def test_lpips_equals_a_slow_reference_to_a_millionth(files: tuple[Path, Path]) -> None:
    model, digests = load_lpips(*files)
    assert digests["vgg_sha256"] == hashlib.sha256(files[0].read_bytes()).hexdigest()
    rng = np.random.default_rng(0)
    a, b = rng.uniform(-1, 1, (2, 3, 32, 32))
    vgg, heads = (torch.load(path, weights_only=True) for path in files)
    wanted = slow_lpips(a, b, vgg, heads)
    given = model.double()(torch.from_numpy(a)[None], torch.from_numpy(b)[None])
    assert given.shape == (1,)
    assert given.item() == pytest.approx(wanted, abs=1e-6)
    assert wanted > 0.1


def test_lpips_of_equal_images_is_zero_and_has_finite_gradients_on_black(files: tuple[Path, Path]) -> None:
    model, _ = load_lpips(*files)
    image = torch.full((2, 3, 16, 16), -1.0, requires_grad=True)
    distance = model(image, torch.full((2, 3, 16, 16), -1.0))
    distance.sum().backward()
    assert distance.abs().max().item() < 1e-9
    assert image.grad is not None
    assert torch.isfinite(image.grad).all()


def test_a_weight_file_that_does_not_match_the_digest_in_its_name_is_refused(
    files: tuple[Path, Path], tmp_path: Path
) -> None:
    named = tmp_path / "vgg16-397923af.pth"
    named.write_bytes(files[0].read_bytes())
    with pytest.raises(CheckpointError, match="its name says 397923af"):
        load_lpips(named, files[1])


def test_swapped_files_are_refused(files: tuple[Path, Path]) -> None:
    with pytest.raises(CheckpointError, match=r"tensor 'features\.0\.weight' is missing"):
        load_lpips(files[1], files[0])


def test_a_missing_file_is_named(files: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"nothing\.pth: no such file"):
        load_lpips(tmp_path / "nothing.pth", files[1])


def test_face_network_distance_is_zero_for_equal_images_and_grows_with_the_change() -> None:
    torch.manual_seed(0)
    encoder = ImageEncoder(ImageEncoderConfig(width=8, image_size=32, squeeze=4, dim=16))
    distance = FaceNetworkDistance(encoder)
    image = torch.rand(2, 3, 32, 32) * 2 - 1
    near = image + 0.02 * torch.randn_like(image)
    far = image + 0.3 * torch.randn_like(image)
    assert distance(image, image).abs().max().item() < 1e-10
    assert (distance(near, image) < distance(far, image)).all()


def test_face_features_are_compared_by_direction_and_nearly_empty_pixels_are_not_blown_up() -> None:
    # (3, 4) becomes (0.6, 0.8); (0.003, 0.004) has the square 2.5e-5 under a floor of 1e-3: length 0.156.
    pixels = torch.tensor([[[[3.0, 0.003]], [[4.0, 0.004]]]])
    unit = perceptual._unit_squared(pixels)
    assert torch.allclose(unit[0, :, 0, 0], torch.tensor([0.6, 0.8]), atol=1e-4)
    assert unit[0, :, 0, 1].norm().item() == pytest.approx(0.005 / (2.5e-5 + 1e-3) ** 0.5, rel=1e-4)


def test_face_network_distance_keeps_its_statistics_when_the_model_trains() -> None:
    encoder = ImageEncoder(ImageEncoderConfig(width=8, image_size=32, squeeze=4, dim=16))
    distance = FaceNetworkDistance(encoder).train()
    before = encoder.stem_norm.running_mean.clone()  # pyright: ignore[reportOptionalMemberAccess]
    distance(torch.rand(2, 3, 32, 32), torch.rand(2, 3, 32, 32))
    assert torch.equal(before, encoder.stem_norm.running_mean)
