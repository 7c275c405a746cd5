"""model/generator.py: the shapes of Secs. 3.2 and 6.2, what depends on what, and the switches."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from export3d.errors import UsageError
from export3d.model.config import PAPER, TINY
from export3d.model.generator import GeneratorConfig, TriPlaneGenerator
from export3d.nn.transformer import CrossAttentionViTBlock, EAdaLNViTBlock, ViTBlock

CONFIG = TINY.generator


def _generator(config: GeneratorConfig = CONFIG) -> TriPlaneGenerator:
    return TriPlaneGenerator(config, plane_channels=8, condition_dim=32).eval()


def _randomise(module: nn.Module) -> None:
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.1)


def test_the_papers_numbers_follow_from_the_preset() -> None:
    config = PAPER.generator
    assert config.image_size == 256 and config.hidden == 1024
    assert config.stem_channels[-1] == config.hidden // 4 == 256  # h/4 at H/8
    assert config.token_stride == 16 and config.token_grid == (16, 16)  # H W / 2^8 = 256 tokens
    assert config.plane_resolution == 128  # H/2
    assert config.heads == 4 and config.head_vit_dim == 1024


def test_the_stem_and_merge_give_the_shapes_of_section_3_2() -> None:
    with torch.device("meta"):
        generator = TriPlaneGenerator(PAPER.generator, 32, 256)
        feature = generator.stem(torch.empty(1, 5, 256, 256))
        assert feature.shape == (1, 256, 32, 32)
        assert generator.merge(feature).shape == (1, 256, 1024)


def test_planes_come_out_in_float32_with_the_right_shape() -> None:
    generator = _generator()
    tokens = generator.encode(torch.randn(2, 3, 32, 32))
    assert tokens.shape == (2, 16, 32)
    planes = generator(tokens, torch.randn(2, 32))
    assert planes.shape == (2, 3, 8, 16, 16) and planes.dtype == torch.float32


def test_an_untrained_generator_ignores_the_expression_and_a_trained_one_does_not() -> None:
    generator = _generator()
    tokens = generator.encode(torch.randn(1, 3, 32, 32))
    a, b = torch.randn(1, 32), torch.randn(1, 32)
    assert torch.equal(generator(tokens, a), generator(tokens, b))
    _randomise(generator)
    assert not torch.allclose(generator(tokens, a), generator(tokens, b), atol=1e-4)


def test_tokens_do_not_depend_on_the_expression_so_they_can_be_cached() -> None:
    """`encode` takes only the portrait; every block that sees the condition comes later."""
    generator = _generator()
    for name, module in generator.named_modules():
        if isinstance(module, EAdaLNViTBlock):
            assert name.startswith("blocks.")


def test_the_low_pass_follows_each_pixel_shuffle() -> None:
    generator = _generator()
    grid_of_period_two = torch.zeros(1, 16, 32)
    grid_of_period_two[..., 0::4] = 1.0  # one of the four channels of each group: one pixel of each 2 x 2
    shuffled = generator._shuffle(grid_of_period_two, (4, 4))
    assert shuffled.shape == (1, 8, 8, 8)
    assert torch.allclose(shuffled, torch.full_like(shuffled, 0.25), atol=1e-6)


def test_the_low_pass_follows_the_second_shuffle_too(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = _generator()
    seen: list[torch.Tensor] = []
    generator.tail.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))

    def one_pixel_of_four(tokens: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
        tokens = torch.zeros_like(tokens)
        tokens[..., 0::4] = 1.0
        return tokens

    monkeypatch.setattr(generator.head_vit, "forward", one_pixel_of_four)
    with torch.no_grad():
        generator(generator.encode(torch.randn(1, 3, 32, 32)), torch.randn(1, 32))
    shuffled = seen[0][:, : CONFIG.head_vit_dim // 4]
    assert torch.allclose(shuffled, torch.full_like(shuffled, 0.25), atol=1e-6)


def test_the_two_kinds_of_blocks_stand_where_the_paper_puts_them() -> None:
    generator = _generator()
    assert all(isinstance(block, EAdaLNViTBlock) for block in generator.blocks)
    assert isinstance(generator.head_vit, ViTBlock)
    crossed = _generator(replace(CONFIG, conditioning="cross_attention"))
    assert all(isinstance(block, CrossAttentionViTBlock) for block in crossed.blocks)


def test_cross_attention_takes_the_scaled_basis() -> None:
    generator = _generator(replace(CONFIG, conditioning="cross_attention"))
    tokens = generator.encode(torch.randn(2, 3, 32, 32))
    assert generator(tokens, torch.randn(2, 10, 32)).shape == (2, 3, 8, 16, 16)


def test_coordinates_run_from_minus_one_to_one_right_and_down() -> None:
    seen: list[torch.Tensor] = []
    generator = _generator()
    generator.stem.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    generator.encode(torch.zeros(1, 3, 32, 32))
    x, y = seen[0][0, 3], seen[0][0, 4]
    assert (x[5, 0], x[5, -1], y[0, 5], y[-1, 5]) == (-1, 1, -1, 1)


def test_without_coordinates_the_stem_has_three_inputs() -> None:
    generator = _generator(replace(CONFIG, coordinate_channels=False))
    assert generator.encode(torch.zeros(1, 3, 32, 32)).shape == (1, 16, 32)


def test_what_joins_beside_the_tokens_reaches_the_planes_past_them() -> None:
    generator = TriPlaneGenerator(CONFIG, 8, 32, beside=6).eval()
    tokens, beside, condition = (
        generator.encode(torch.randn(1, 3, 32, 32)),
        torch.randn(1, 6, 16, 16),
        torch.randn(1, 32),
    )
    one, other = (generator.as_planes(generator.features(tokens, condition, x)) for x in (beside, beside + 1.0))
    assert not torch.allclose(one, other, atol=1e-4)


def test_the_second_vit_can_be_left_out() -> None:
    generator = _generator(replace(CONFIG, head_vit_dim=0, tail_channels=()))
    tokens = generator.encode(torch.randn(1, 3, 32, 32))
    assert generator(tokens, torch.randn(1, 32)).shape == (1, 3, 8, 16, 16)


def test_the_last_norm_gives_every_token_unit_variance_however_little_it_had() -> None:
    tokens = 0.01 * torch.randn(1, 16, CONFIG.hidden)
    spread = _generator(replace(CONFIG, final_norm=True)).norm(tokens).std(dim=-1, unbiased=False)
    assert torch.allclose(spread, torch.ones_like(spread), atol=0.02)


@pytest.mark.parametrize("ups", [(12,), (12, 20), (12, 20, 8)])
@pytest.mark.parametrize("head_vit_dim", [0, CONFIG.head_vit_dim])
def test_any_number_of_convolutions_may_follow_the_shuffle(ups: tuple[int, ...], head_vit_dim: int) -> None:
    config = replace(CONFIG, up_channels=ups, head_vit_dim=head_vit_dim)
    generator = _generator(config)
    planes = generator(generator.encode(torch.randn(1, 3, 32, 32)), torch.randn(1, 32))
    assert planes.shape == (1, 3, 8, config.plane_resolution, config.plane_resolution)


def test_a_portrait_of_another_size_is_named() -> None:
    with pytest.raises(ValueError, match=r"source must have shape \(\*, 3, 32, 32\); got \(1, 3, 48, 48\)"):
        _generator().encode(torch.zeros(1, 3, 48, 48))


def test_bad_settings_name_the_option() -> None:
    with pytest.raises(ValueError, match=r"generator\.image_size must be a multiple of 16; got 250"):
        GeneratorConfig(image_size=250)
    with pytest.raises(UsageError, match=r"generator\.conditioning: 'film' is not known"):
        GeneratorConfig(conditioning="film")
