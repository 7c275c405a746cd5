"""model/config.py: presets and the ablations of Tables 3 and 4 are configurations of the same code."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from export3d.camera import Camera
from export3d.errors import UsageError
from export3d.expression.lebs import build_expression
from export3d.model.config import ABLATIONS, PAPER, PRESETS, TINY, ModelConfig, ablation
from export3d.model.decoder import DecoderConfig
from export3d.model.export3d import Export3D
from export3d.model.generator import TriPlaneGenerator
from export3d.model.triplane import TriPlaneConfig
from export3d.portrait.count import count_parameters


def test_the_defaults_are_the_paper() -> None:
    assert PRESETS["paper"] == ModelConfig()
    config = PAPER
    assert (config.image_size, config.renderer.raw_size, config.triplane.resolution) == (256, 64, 128)
    assert (config.expression.num_basis, config.expression.dim, config.triplane.decay) == (10, 256, 0.998)
    assert (config.renderer.num_coarse, config.renderer.num_fine) == (48, 48)


def test_the_presets_are_the_paper_the_paper_made_small_and_one_for_tests() -> None:
    assert list(PRESETS) == ["paper", "paper-small", "tiny"]
    assert all(type(config) is ModelConfig for config in PRESETS.values())  # no part that the paper does not have


def test_the_papers_model_has_the_papers_parts_and_no_other() -> None:
    parts = [name for name, _ in Export3D(TINY).named_children()]
    assert parts == ["expression", "generator", "mean_planes", "decoder", "superres"]


def test_the_parts_add_up_to_the_total() -> None:
    counts = count_parameters(Export3D(TINY))
    inner = sum(v for k, v in counts.items() if k.startswith("generator."))
    assert inner == counts["generator"]
    assert sum(v for k, v in counts.items() if "." not in k and k != "total") == counts["total"]
    assert counts["total"] == sum(p.numel() for p in Export3D(TINY).parameters())


@pytest.mark.slow
def test_the_counts_are_printed_and_an_unknown_preset_suggests_the_nearest() -> None:
    command = [sys.executable, "-m", "export3d.portrait.count"]
    done = subprocess.run([*command, "tiny"], capture_output=True, text=True, check=True)
    printed = {k: int(v.replace(",", "")) for k, v in (line.split() for line in done.stdout.splitlines())}
    assert printed == count_parameters(Export3D(TINY))
    failed = subprocess.run([*command, "papre"], capture_output=True, text=True, check=False)
    assert failed.returncode and "preset: 'papre' is not known. Did you mean 'paper'?" in failed.stderr


def test_an_unknown_ablation_suggests_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"ablation: 'direct3dmm' is not known\. Did you mean 'direct-3dmm'\?"):
        ablation(TINY, "direct3dmm")


def test_every_variant_of_tables_3_and_4_is_there() -> None:
    assert set(ABLATIONS) == {
        "full",
        "direct-3dmm",
        "e2e-lebs-n25",
        "e2e-lebs-n10",
        "e2e-lebs-n5",
        "cross-attention",
    }
    assert ablation(TINY, "full") == TINY


@pytest.mark.parametrize("name", list(ABLATIONS))
def test_every_ablation_of_the_tiny_preset_builds_and_renders(name: str) -> None:
    config = ablation(TINY, name)
    model = Export3D(config).eval()
    with torch.no_grad():
        render = model(torch.zeros(1, 3, 32, 32), torch.randn(1, 64), Camera.look_at_head())
    assert render.image.shape == (1, 3, 32, 32) and torch.isfinite(render.image).all()


@pytest.mark.parametrize(
    ("name", "frozen", "basis"),
    [("full", True, 10), ("e2e-lebs-n25", False, 25), ("e2e-lebs-n10", False, 10), ("e2e-lebs-n5", False, 5)],
)
def test_only_the_pretrained_encoder_is_frozen(name: str, frozen: bool, basis: int) -> None:
    expression = Export3D(ablation(TINY, name)).expression
    assert expression.basis.shape == (32, basis)
    assert all(p.requires_grad != frozen for p in expression.parameters())


@pytest.mark.parametrize("name", list(PRESETS))
@pytest.mark.parametrize("variant", list(ABLATIONS))
def test_every_ablation_of_every_preset_can_be_built(name: str, variant: str) -> None:
    config = ablation(PRESETS[name], variant)
    with torch.device("meta"):  # shapes only: the paper's sizes would cost a second each
        TriPlaneGenerator(config.generator, config.triplane.channels, config.expression.dim)
    beta_prime = build_expression(config.expression)(torch.zeros(1, 64))
    assert beta_prime.shape == (1, config.expression.dim)


def test_planes_of_two_sizes_are_refused() -> None:
    with pytest.raises(UsageError, match=r"makes planes of 16 texels, but triplane\.resolution is 32"):
        replace(TINY, triplane=TriPlaneConfig(channels=8, resolution=32))


def test_cross_attention_without_a_basis_is_refused() -> None:
    with pytest.raises(UsageError, match=r"cross-attention needs basis vectors; use expression\.kind=lebs"):
        ablation(ablation(TINY, "direct-3dmm"), "cross-attention")


def test_fewer_than_three_colours_are_refused() -> None:
    with pytest.raises(UsageError, match=r"decoder\.colour_channels must be at least 3"):
        replace(TINY, decoder=DecoderConfig(colour_channels=1))
