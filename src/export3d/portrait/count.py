"""Parameters per part: `python -m export3d.portrait.count PRESET`."""

from __future__ import annotations

import sys

from torch import nn

from export3d.portrait.loading import build_model, preset


def count_parameters(model: nn.Module) -> dict[str, int]:
    """Parameters of each direct part; G is split into its own parts; the last entry is the total."""
    counts: dict[str, int] = {}
    for name, part in model.named_children():
        if name == "generator":
            counts |= {f"generator.{inner}": _count(module) for inner, module in part.named_children()}
        counts[name] = _count(part)
    counts["total"] = _count(model)
    return {name: count for name, count in counts.items() if count}


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


if __name__ == "__main__":
    for part, number in count_parameters(build_model(preset(sys.argv[1] if len(sys.argv) > 1 else "paper"))).items():
        print(f"{part:24s} {number:>12,d}")
