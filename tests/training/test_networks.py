"""f_I and the dual discriminator: shapes, gradients, and the properties that their parts promise."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from export3d.expression.image_encoder import ImageEncoder, ImageEncoderConfig, SqueezeExcite
from export3d.training.losses.discriminator import DiscriminatorConfig, DualDiscriminator, EqualizedConv

SMALL_ENCODER = ImageEncoderConfig(width=8, image_size=32, squeeze=4, dim=16, landmark_head=True)
SMALL_DISCRIMINATOR = DiscriminatorConfig(channel_base=64, channel_max=16, mapping_layers=1)


def test_the_paper_encoder_has_the_parameters_of_se_resnet_18() -> None:
    encoder = ImageEncoder(ImageEncoderConfig())
    # ResNet-18 without its classifier 11,176,512; SE layers (C -> C/16 -> C with biases) in two blocks per stage:
    # C = 64: 64*4+4 + 4*64+64 = 580; 128: 2,184; 256: 8,464; 512: 33,312; together 2 * 44,540 = 89,080;
    # head 512 * 256 + 256 = 131,328.
    assert sum(p.numel() for p in encoder.parameters()) == 11_176_512 + 89_080 + 131_328


def test_a_short_cut_reads_single_pixels_and_only_where_the_shape_changes() -> None:
    shortcuts = [block.shortcut for stage in ImageEncoder(SMALL_ENCODER).stages for block in stage]  # type: ignore[union-attr]
    kernels = [tuple(shortcut[0].kernel_size) for shortcut in shortcuts if isinstance(shortcut, nn.Sequential)]  # type: ignore[arg-type]
    assert kernels == [(1, 1)] * 3 and len(shortcuts) == 8


@pytest.mark.parametrize(("name", "least"), [("dim", 1), ("squeeze", 1), ("image_size", 32), ("face_share", 0.1)])
def test_the_least_sizes_of_the_encoder_are_taken_and_less_is_refused(name: str, least: float) -> None:
    assert getattr(replace(SMALL_ENCODER, **{name: least}), name) == least
    with pytest.raises(ValueError, match=name):
        replace(SMALL_ENCODER, **{name: 0.5 * least if name == "face_share" else int(least) - 1})


def test_every_encoder_parameter_gets_a_gradient_and_the_shapes_fit() -> None:
    encoder = ImageEncoder(SMALL_ENCODER)
    codes, shape = encoder.codes_and_shape(torch.randn(3, 3, 48, 48))
    assert shape is not None
    assert codes.shape == (3, 16)
    assert shape.shape == (3, 139)
    (codes.square().sum() + shape.square().sum()).backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in encoder.parameters())


def test_a_code_from_landmarks_reads_them_from_the_middle_of_the_picture_on() -> None:
    encoder = ImageEncoder(replace(SMALL_ENCODER, code_from_landmarks=True)).eval()
    read: list[torch.Tensor] = []
    encoder.head.register_forward_pre_hook(lambda _, inputs: read.append(inputs[0]))
    _, shape = encoder.codes_and_shape(torch.randn(2, 3, 32, 32))
    assert shape is not None
    centred = read[0][:, -shape.shape[1] :]
    gain = (centred / (shape - 0.5)).flatten()
    assert gain[0] > 1 and torch.allclose(gain, gain[:1].expand_as(gain), rtol=1e-3)


def test_feature_maps_halve_their_side() -> None:
    maps = ImageEncoder(SMALL_ENCODER).features(torch.randn(1, 3, 64, 64))
    assert [m.shape[-1] for m in maps] == [32, 16, 8, 4, 2]


def test_squeeze_excite_scales_each_channel_by_one_number() -> None:
    layer = SqueezeExcite(8, 4)
    x = torch.rand(2, 8, 5, 5) + 0.1
    ratio = layer(x) / x
    assert torch.allclose(ratio, ratio[:, :, :1, :1].expand_as(ratio), atol=1e-6)
    assert (ratio > 0).all() and (ratio < 1).all()


def test_a_width_that_crashes_the_convolution_library_is_refused() -> None:
    with pytest.raises(ValueError, match="multiple of 8; got 4"):
        ImageEncoderConfig(width=4)


def test_the_discriminator_reads_image_raw_and_camera() -> None:
    torch.manual_seed(0)
    network = DualDiscriminator(SMALL_DISCRIMINATOR, 32)
    image, raw, camera = torch.randn(4, 3, 32, 32), torch.randn(4, 3, 8, 8), torch.randn(4, 25)
    base = network(image, raw, camera)
    assert base.shape == (4,)
    for changed in (
        network(image + 0.5 * torch.randn_like(image), raw, camera),
        network(image, raw + 0.5 * torch.randn_like(raw), camera),
        network(image, raw, camera + torch.randn(4, 25)),
    ):
        assert (changed - base).abs().max() > 1e-6
    base.sum().backward()
    assert all(p.grad is not None for p in network.parameters())


def test_the_paper_discriminator_has_the_channels_of_eg3d() -> None:
    config = DiscriminatorConfig()
    assert [config.channels(side) for side in (256, 128, 64, 4)] == [128, 256, 512, 512]


def test_downsampling_convolution_equals_low_pass_then_every_second_pixel() -> None:
    torch.manual_seed(1)
    conv = EqualizedConv(2, 3, 3, down=True, activate=False)
    x = torch.randn(1, 2, 8, 8)
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8.0
    blurred = F.conv2d(F.pad(x, (2, 2, 2, 2)), (taps[:, None] * taps).expand(2, 1, 4, 4), groups=2)  # 9 x 9
    full = F.conv2d(blurred, conv.weight / math.sqrt(2 * 9))  # 7 x 7
    assert torch.allclose(conv(x), full[:, :, ::2, ::2], atol=1e-6)


def test_minibatch_spread_of_equal_samples_is_zero() -> None:
    network = DualDiscriminator(SMALL_DISCRIMINATOR, 16)
    same = torch.randn(1, 4, 4, 4).expand(4, -1, -1, -1)
    assert network._spread(same).abs().max().item() == pytest.approx(1e-4, abs=1e-6)  # sqrt of the floor 1e-8


def test_an_image_side_that_is_no_power_of_two_is_refused() -> None:
    with pytest.raises(ValueError, match="power of two, at least 8; got 24"):
        DualDiscriminator(SMALL_DISCRIMINATOR, 24)


@pytest.mark.parametrize("size", [(48, 32), (32, 48), (80, 80)])
def test_a_picture_of_another_size_is_read_at_the_encoders_own_without_aliasing(size: tuple[int, int]) -> None:
    encoder = ImageEncoder(SMALL_ENCODER).eval()
    image = torch.randn(1, 3, *size)
    fitted = F.interpolate(image, size=(32, 32), mode="bilinear", antialias=True, align_corners=False)
    torch.testing.assert_close(encoder(image), encoder(fitted))


def test_as_many_feature_maps_are_made_as_are_asked_for() -> None:
    encoder = ImageEncoder(SMALL_ENCODER).eval()
    image = torch.randn(1, 3, 64, 64)
    made: list[int] = []
    for number, stage in enumerate(encoder.stages):
        stage.register_forward_hook(lambda *_, number=number: made.append(number))
    few, made_for_few = encoder.features(image, 3), list(made)
    all_of_them = encoder.features(image)
    assert made_for_few == [0, 1]  # nothing is computed that nobody asked for
    assert len(few) == 3 and all(torch.equal(a, b) for a, b in zip(few, all_of_them[:3], strict=True))


def test_a_discriminator_may_read_the_camera_without_layers_between() -> None:
    module = DualDiscriminator(replace(SMALL_DISCRIMINATOR, mapping_layers=0), 16)
    assert module(torch.randn(4, 3, 16, 16), torch.randn(4, 3, 8, 8), torch.randn(4, 25)).shape[0] == 4
    with pytest.raises(ValueError, match="sizes must be positive"):
        replace(SMALL_DISCRIMINATOR, group_size=0)
