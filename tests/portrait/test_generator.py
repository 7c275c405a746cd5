"""portrait/generator.py: the high-resolution branch and the motion planes beside the paper's generator."""

from __future__ import annotations

import torch
from torch import nn

from export3d.model.generator import TriPlaneGenerator
from export3d.model.triplane import RunningMeanPlanes
from export3d.portrait.config import TINY_PORTRAIT
from export3d.portrait.generator import PortraitGenerator

CONFIG = TINY_PORTRAIT.generator


def _generator(*, trained: bool = True) -> PortraitGenerator:
    generator = PortraitGenerator(CONFIG, plane_channels=8, condition_dim=32).eval()
    for parameter in generator.parameters() if trained else ():
        nn.init.normal_(parameter, std=0.1)
    return generator


def test_planes_come_out_with_three_displacements_beside_them() -> None:
    generator, source = _generator(), torch.randn(2, 3, 32, 32)
    detail = generator.detail(source)
    assert detail.shape == (2, 8, 16, 16)
    planes = generator.drive(generator.encode(source), detail, torch.randn(2, 32))
    assert planes.shape == (2, 3, 8 + 3, 16, 16) and planes.dtype == torch.float32


def test_the_high_resolution_branch_reaches_the_planes_past_the_tokens() -> None:
    generator, source = _generator(), torch.randn(1, 3, 32, 32)
    tokens, detail, condition = generator.encode(source), generator.detail(source), torch.randn(1, 32)
    one, other = generator.drive(tokens, detail, condition), generator.drive(tokens, detail + 1.0, condition)
    assert not torch.allclose(one[:, :, :8], other[:, :, :8], atol=1e-4)


def test_motion_planes_start_without_motion() -> None:
    generator, source = _generator(trained=False), torch.randn(1, 3, 32, 32)
    planes = generator.drive(generator.encode(source), generator.detail(source), torch.randn(1, 32))
    assert not planes[:, :, 8:].any() and planes[:, :, :8].any()


def test_motion_planes_are_the_basis_fields_summed_with_the_expressions_weights() -> None:
    part = _generator().motion
    features, condition = torch.randn(1, part.fields.in_channels, 4, 4), torch.randn(1, 32)
    with torch.no_grad():
        planes = part(features, condition)
        weights = part.weights(8.0 * condition)[0]
        fields = part.fields(features)[0].reshape(3, 3, CONFIG.motion_basis, 4, 4)  # plane, axis, basis field
    expected = torch.stack([float(weights[k]) * fields[:, :, k] for k in range(CONFIG.motion_basis)]).sum(dim=0)
    assert torch.allclose(planes[0], expected, atol=1e-5)


def test_the_running_mean_leaves_the_motion_planes_alone() -> None:
    running, residual = RunningMeanPlanes(TINY_PORTRAIT.triplane), torch.randn(2, 3, 11, 16, 16)
    running.mean.fill_(2.0)
    summed = running(residual)
    assert torch.equal(summed[:, :, :8], residual[:, :, :8] + 2.0) and torch.equal(summed[:, :, 8:], residual[:, :, 8:])
    running.update(residual)
    assert running.mean.shape == (3, 8, 16, 16)


def test_every_weight_of_the_papers_generator_is_there_under_its_name() -> None:
    paper = TriPlaneGenerator(CONFIG, 8, 32).state_dict()
    more = {name.split(".")[0] for name in _generator().state_dict() if name not in paper}
    assert set(paper) <= set(_generator().state_dict()) and more == {"highres", "motion"}
