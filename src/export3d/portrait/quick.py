"""The shipped model for films: its planes are made in bf16 from end to end (no section)."""

from __future__ import annotations

from copy import copy, deepcopy

import torch
from torch import Tensor, nn

from export3d.portrait.drivable import Model
from export3d.portrait.generator import PortraitGenerator
from export3d.portrait.model import PortraitModel


class QuickGenerator(nn.Module):
    """A generator that drives in bf16; under autocast, which converts to and fro, planes take a sixth more time."""

    def __init__(self, full: PortraitGenerator) -> None:
        super().__init__()
        self.full, self.short = full, deepcopy(full).bfloat16()
        self.short.motion.fields = full.motion.fields  # places of the skin keep their digits
        self.encode, self.detail = full.encode, full.detail

    def drive(self, tokens: Tensor, detail: Tensor, condition: Tensor) -> Tensor:
        """As `PortraitGenerator.drive`."""
        with torch.autocast(tokens.device.type, enabled=False):
            return self.short.drive(*(x.bfloat16() for x in (tokens, detail, condition)))


def quick(model: Model) -> Model:
    """The same model with a `QuickGenerator` of its parameters as they are now; the paper's model as it is."""
    if not isinstance(model, PortraitModel):
        return model
    return with_generator(model, QuickGenerator(model.generator))


def with_generator(model: PortraitModel, generator: nn.Module) -> PortraitModel:
    """The same model with another generator."""
    other = copy(model)
    other._modules = {**model._modules, "generator": generator}
    return other
