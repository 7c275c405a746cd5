"""EG3D's order of operations against our renderers: milliseconds and errors, on one and two threads, in one run.

    python benchmarks/renderer.py
    python benchmarks/renderer.py --repeats 15 --save

The paper's sizes: 64 x 64 rays of 48 + 48 samples, planes of 128 texels and 32 channels, a decoder 32 -> 64 -> 1 + 32. The
scene is a solid head-like shape put into planes and decoder by hand. All renderers meet the same samples; those that are
compared take turns. The whole table is made twice, in processes of their own: with the C library's allocator as it is, and
told to keep memory (PyTorch's temporaries cost a page fault for every 4 KiB otherwise, and the reference most of all).

The portrait model: the bundled weights and sample portrait, the compiled renderer against PyTorch's fast path, with the
error against the exact renderer.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from export3d.animation import Animator
from export3d.camera import Camera
from export3d.checkpoint import read_checkpoint
from export3d.model.decoder import COLOUR_MARGIN, DecoderConfig, RadianceDecoder
from export3d.model.export3d import TriPlaneField
from export3d.model.triplane import TriPlaneConfig
from export3d.portrait.fast_field import FoldedField
from export3d.portrait.loading import checkpoint_path, load_model
from export3d.portrait.march import paper_scene, portrait_scene
from export3d.portrait.model import PortraitModel
from export3d.rendering.fast import FastConfig, render_square
from export3d.rendering.fused import fused_status, render_fused
from export3d.rendering.rays import cast_rays
from export3d.rendering.renderer import RayResult, RendererConfig, render_rays
from material import save

KEEP_MEMORY = {
    "MALLOC_MMAP_THRESHOLD_": str(1 << 32),
    "MALLOC_TRIM_THRESHOLD_": str(1 << 33),
    "MALLOC_TOP_PAD_": str(1 << 28),
}
"""glibc's settings; other systems ignore them."""

SAMPLE = Path(__file__).resolve().parents[1] / "src/export3d/assets/samples/portrait_1.png"
EARLIER = FastConfig(fine_share=0.5)
"""What films left out before there was a compiled renderer."""

Render = Callable[[], RayResult]


def main() -> None:
    """Start one process for each allocator; print, save on request."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=9, help="runs of each renderer; the median counts")
    parser.add_argument("--save", action="store_true", help="write results/renderer.json")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(measure(options.repeats)))
        return
    runs, kernel = fused_status()
    weights = read_checkpoint(checkpoint_path(None), kind="export3d").sha256
    result: dict = {
        "unit": "ms per picture",
        "compiled": kernel if runs else f"no: {kernel}",
        "weights_sha256": weights,
    }
    for name, settings in (("stock", {}), ("malloc_tuned", KEEP_MEMORY)):
        command = [sys.executable, __file__, "--child", "--repeats", str(options.repeats)]
        done = subprocess.run(command, env=os.environ | settings, capture_output=True, text=True, check=True)
        result[name] = json.loads(done.stdout.splitlines()[-1])
        print(f"\n{name}\n{table(result[name])}")
    if options.save:
        print(f"saved {save('renderer', result)}")


def measure(repeats: int) -> list[dict]:
    """One row for each scene, number of threads and renderer."""
    rows = []
    with torch.inference_mode():
        for scene, renderers in (("paper", paper_renderers()), ("portrait", portrait_renderers())):
            names = list(renderers)
            results = {name: render() for name, render in renderers.items()}
            for threads in (1, 2):
                torch.set_num_threads(threads)
                times = interleaved(renderers, repeats)
                for name in names:
                    row = {"scene": scene, "threads": threads, "renderer": name, **times[name]}
                    row["times faster"] = times[names[0]]["cpu"] / times[name]["cpu"]
                    row["times faster, wall"] = times[names[0]]["wall"] / times[name]["wall"]
                    rows.append(row | errors(results[name], results[names[-1] if scene == "portrait" else names[0]]))
    return rows


def interleaved(renderers: dict[str, Render], repeats: int) -> dict[str, dict[str, float]]:
    """Median processor and wall milliseconds of renderers that take turns."""
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in renderers}
    for turn in range(repeats + 1):
        for name, render in renderers.items():
            cpu, wall = time.process_time(), time.perf_counter()
            render()
            if turn:  # the first warms up
                found[name].append((1000 * (time.process_time() - cpu), 1000 * (time.perf_counter() - wall)))
    return {
        name: {"cpu": statistics.median(t[0] for t in times), "wall": statistics.median(t[1] for t in times)}
        for name, times in found.items()
    }


def errors(found: RayResult, reference: RayResult) -> dict[str, float]:
    """Of the features: the largest difference, and decibels relative to a range of 1."""
    difference = (found.features - reference.features).double()
    square = max(float(difference.square().mean()), 1e-20)
    return {"largest error": float(difference.abs().max()), "dB": -10 * float(torch.tensor(square).log10())}


def paper_renderers() -> dict[str, Render]:
    """The reference first."""
    planes, decoder = head_scene()
    config, triplane = RendererConfig(), TriPlaneConfig()
    rays = cast_rays(Camera.look_at_head(0.3, 0.1), config.raw_size)
    field = TriPlaneField.__new__(TriPlaneField)  # a field needs no whole model
    field.planes_, field.decoder, field.config = planes[None], decoder, triplane
    renderers: dict[str, Render] = {
        "EG3D's order": lambda: eg3d_render(planes, decoder, *rays, config),
        "ours, PyTorch": lambda: render_rays(field, *rays, config),
    }
    if fused_status()[0]:
        renderers["ours, compiled"] = lambda: render_fused(paper_scene(field), *rays, config)
    return renderers


def head_scene() -> tuple[Tensor, RadianceDecoder]:
    """A smooth solid (an ellipsoid with a bump) written into the planes, with random colours: (3, 32, 128, 128), decoder.

    Each plane holds a third of the height of a paraboloid in its own two axes; the decoder's first units sum them.
    """
    torch.manual_seed(0)
    side, channels = 128, 32
    planes = F.avg_pool2d(torch.randn(3, channels, side, side), 9, 1, 4) * 3.0
    steps = (torch.arange(side) + 0.5) / side - 0.5
    down, right = torch.meshgrid(steps, steps, indexing="ij")
    radii = ((0.19, 0.25), (0.21, 0.25), (0.19, 0.21))  # of (width, height) of the planes xy, zy, xz
    for plane, (width, height) in enumerate(radii):
        bump = 0.15 * torch.exp(-((right - 0.05) ** 2 + (down - 0.05) ** 2) / 0.004)
        planes[plane, 0] = 1.5 * (1.0 - (right / width) ** 2 - (down / height) ** 2) / 2.0 + 0.5 + bump
    decoder = RadianceDecoder(DecoderConfig(), channels)
    decoder.first.weight[0].zero_()[0] = 8.0
    decoder.first.bias.zero_()[0] = -4.0
    decoder.to_density.weight.mul_(0.05)[0, 0] = 20.0
    decoder.to_density.bias.fill_(-8.0)
    return planes, decoder


def eg3d_render(
    planes: Tensor, decoder: RadianceDecoder, origins: Tensor, directions: Tensor, config: RendererConfig
) -> RayResult:
    """What EG3D does, in its order: all features and colours of the coarse samples, then of the fine ones; the samples of
    both sorted with their colours; midpoints of everything; weights by a running product."""
    near, far, count, more = config.near, config.far, config.num_coarse, config.num_fine
    rays = origins.shape[1]
    step = (far - near) / (count - 1)
    coarse = torch.linspace(near, far, count).reshape(1, 1, count, 1).repeat(1, rays, 1, 1) + 0.5 * step
    colours, density = eg3d_samples(planes, decoder, origins, directions, coarse)
    _, _, weights = eg3d_march(colours, density, coarse)
    fine = eg3d_importance(coarse, weights, more)
    fine_colours, fine_density = eg3d_samples(planes, decoder, origins, directions, fine)
    depths = torch.cat([coarse, fine], dim=-2)
    depths, order = torch.sort(depths, dim=-2)
    colours = torch.cat([colours, fine_colours], dim=-2)
    colours = torch.gather(colours, -2, order.expand(-1, -1, -1, colours.shape[-1]))
    density = torch.gather(torch.cat([density, fine_density], dim=-2), -2, order)
    features, depth, weights = eg3d_march(colours, density, depths)
    return RayResult(features, depth[..., 0], weights.sum(dim=2)[..., 0])


def eg3d_samples(
    planes: Tensor, decoder: RadianceDecoder, origins: Tensor, directions: Tensor, depths: Tensor
) -> tuple[Tensor, Tensor]:
    """Colours (1, R, S, C) and raw densities (1, R, S, 1) at depths (1, R, S, 1)."""
    rays, count = depths.shape[1:3]
    points = (origins[:, :, None] + depths * directions[:, :, None]).reshape(1, -1, 3)
    x, y, z = (2.0 * points).unbind(-1)
    places = torch.stack([torch.stack(p, -1) for p in ((x, -y), (z, -y), (x, z))], dim=1)  # (1, 3, N, 2)
    read = F.grid_sample(planes, places[0][:, None], padding_mode="zeros", align_corners=False)  # (3, C, 1, N)
    features = read.permute(0, 3, 2, 1).reshape(1, 3, -1, planes.shape[1]).mean(1).reshape(-1, planes.shape[1])
    hidden = F.softplus(F.linear(features, decoder.first.weight, decoder.first.bias))
    layers = (decoder.to_density, decoder.to_colour)
    out = F.linear(hidden, torch.cat([x.weight for x in layers]), torch.cat([x.bias for x in layers]))
    out = out.reshape(1, rays, count, -1)
    return torch.sigmoid(out[..., 1:]) * (1 + 2 * COLOUR_MARGIN) - COLOUR_MARGIN, out[..., :1]


def eg3d_march(colours: Tensor, density: Tensor, depths: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Composited colours (1, R, C), depth (1, R, 1) and weights (1, R, S - 1, 1)."""
    lengths = depths[:, :, 1:] - depths[:, :, :-1]
    colours = (colours[:, :, :-1] + colours[:, :, 1:]) / 2
    sigma = F.softplus((density[:, :, :-1] + density[:, :, 1:]) / 2 - 1)
    middles = (depths[:, :, :-1] + depths[:, :, 1:]) / 2
    alpha = 1 - torch.exp(-sigma * lengths)
    passed = torch.cat([torch.ones_like(alpha[:, :, :1]), 1 - alpha + 1e-10], dim=-2)
    weights = alpha * torch.cumprod(passed, dim=-2)[:, :, :-1]
    features = torch.sum(weights * colours, dim=-2)
    depth = torch.sum(weights * middles, dim=-2) / weights.sum(dim=2)
    depth = torch.clamp(torch.nan_to_num(depth, float("inf")), depths.min(), depths.max())
    return features, depth, weights


def eg3d_importance(depths: Tensor, weights: Tensor, count: int) -> Tensor:
    """Depths (1, R, count, 1) by inverting the running sum of the smoothed weights, at even quantiles."""
    rays = depths.shape[1]
    depths, weights = depths.reshape(rays, -1), weights.reshape(rays, -1)
    smooth = F.avg_pool1d(F.max_pool1d(weights[:, None], 2, 1, padding=1), 2, 1)[:, 0] + 0.01
    middles = 0.5 * (depths[:, :-1] + depths[:, 1:])
    inner = smooth[:, 1:-1] + 1e-5
    share = inner / inner.sum(dim=-1, keepdim=True)
    reached = torch.cat([torch.zeros(rays, 1), torch.cumsum(share, dim=-1)], dim=-1)
    at = ((torch.arange(count) + 0.5) / count).expand(rays, count).contiguous()
    found = torch.searchsorted(reached, at, right=True)
    last = reached.shape[1] - 1
    ends = torch.stack([(found - 1).clamp_min(0), found.clamp_max(last)], dim=-1).reshape(rays, -1)
    low, high = torch.gather(reached, 1, ends).reshape(rays, count, 2).unbind(-1)
    start, end = torch.gather(middles, 1, ends.clamp_max(middles.shape[1] - 1)).reshape(rays, count, 2).unbind(-1)
    gap = torch.where(high - low < 1e-8, torch.ones_like(low), high - low)
    return (start + (at - low) / gap * (end - start)).reshape(1, rays, count, 1)


def portrait_renderers() -> dict[str, Render]:
    """The fast path of PyTorch as it was first, the exact renderer last."""
    model = load_model()
    assert isinstance(model, PortraitModel)
    animator = Animator(model)
    subject = animator.portrait(SAMPLE)
    driven, parts, config = model.drive(subject.code, subject.state), model.parts, model.config.renderer
    rays = cast_rays(Camera.look_at_head(0.15, 0.05), config.raw_size)
    renderers: dict[str, Render] = {
        "fast, PyTorch, half the fine samples": lambda: render_square(
            FoldedField(parts, driven), *rays, config, EARLIER
        ),
        "fast, PyTorch": lambda: render_square(FoldedField(parts, driven), *rays, config, FastConfig()),
    }
    if fused_status()[0]:
        renderers["fast, compiled"] = lambda: render_fused(
            portrait_scene(parts, driven), *rays, config, fast=FastConfig()
        )
        renderers["exact, compiled"] = lambda: render_fused(portrait_scene(parts, driven), *rays, config)
    renderers["exact, PyTorch"] = lambda: render_rays(model.field(driven), *rays, config)
    return renderers


def table(rows: list[dict]) -> str:
    """Plain text."""
    names = ("cpu", "wall", "times faster", "times faster, wall", "largest error", "dB")
    lines = [f"{'':52}" + "".join(f"{name:>20}" for name in names)]
    for row in rows:
        cells = "".join(f"{row[name]:>20.3g}" for name in names)
        lines.append(
            f"{row['scene']:9} {row['threads']} thread{'s' * (row['threads'] > 1):1} {row['renderer']:32}" + cells
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
