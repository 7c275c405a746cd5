"""animation/long_film.py, portrait/openvino.py: a long film has OpenVINO's planes for all of it or none, and the same ones."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from clips import make_clip
from export3d.animation import Animator, ClipDriver, TransferOptions, VideoOptions, animate_video
from export3d.animation.long_film import for_film
from export3d.animation.parallel import TOGETHER
from export3d.cli import main
from export3d.portrait import PortraitModel, build_model, preset
from export3d.portrait.openvino import ALIKE_DB, PAYS_FROM, CompiledGenerator, openvino_status
from export3d.portrait.quick import QuickGenerator
from export3d.provenance import Finish, ProvenanceOptions
from export3d.tracking import Tracker

needs_openvino = pytest.mark.skipif(importlib.util.find_spec("openvino") is None, reason="openvino is not installed")


@pytest.fixture
def animator(
    make_tracker: Callable[..., Tracker], photo: np.ndarray, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Animator:
    """Of a model as it starts, with bf16 and a cache folder of its own."""
    for module in ("animation.animator", "portrait.openvino"):
        monkeypatch.setattr(f"export3d.{module}.uses_bf16", lambda precision, device: True)
    monkeypatch.setenv("EXPORT3D_CACHE", str(tmp_path / "cache"))
    torch.manual_seed(0)
    model = build_model(preset("tiny-portrait")).eval().requires_grad_(False)
    assert isinstance(model, PortraitModel)
    animator = Animator(model, make_tracker())
    animator.portrait(photo)
    return animator


@pytest.fixture
def noisy(tiny_model: PortraitModel, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> CompiledGenerator:
    """Of a generator every weight of which has a say."""
    monkeypatch.setenv("EXPORT3D_CACHE", str(tmp_path / "cache"))
    return CompiledGenerator(QuickGenerator(tiny_model.generator), [x.shape for x in _inputs(tiny_model)], threads=2)


def _inputs(model: PortraitModel, seed: int = 0) -> tuple[torch.Tensor, ...]:
    random, widths = torch.Generator().manual_seed(seed), model.generator.config
    grid, side = widths.token_grid, widths.plane_resolution
    shapes = ((grid[0] * grid[1], widths.hidden), (widths.highres_channels[-1], side, side))
    return tuple(torch.randn(TOGETHER, *x, generator=random) for x in (*shapes, (model.config.expression.dim,)))


@needs_openvino
def test_planes_are_pytorch_s_within_50_db_and_the_same_in_every_thread(
    tiny_model: PortraitModel, noisy: CompiledGenerator, tmp_path: Path
) -> None:
    given = [_inputs(tiny_model, seed) for seed in range(4)]
    with torch.inference_mode(), ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda x: noisy.drive(*x), given * 4))
        wanted = [tiny_model.generator.drive(*x) for x in given]
    for index, planes in enumerate(found):
        assert torch.equal(planes, found[index % 4])
        exact = wanted[index % 4]
        assert 20.0 * torch.log10(exact.abs().max() / (planes - exact).square().mean().sqrt()) > ALIKE_DB
    assert not torch.equal(found[0], found[1])


@needs_openvino
def test_planes_of_a_face_do_not_depend_on_its_place_in_the_batch(
    tiny_model: PortraitModel, noisy: CompiledGenerator
) -> None:
    given = _inputs(tiny_model)
    swapped = noisy.drive(*(x.flip(0) for x in given))
    assert torch.equal(noisy.drive(*given), swapped.flip(0))


@needs_openvino
def test_the_graph_is_written_once_and_a_new_one_for_other_weights(animator: Animator, tmp_path: Path) -> None:
    folder = tmp_path / "cache" / "graphs"
    assert for_film(animator, PAYS_FROM, 1) is not animator
    (path,) = folder.iterdir()
    written = path.stat().st_mtime_ns
    assert for_film(animator, PAYS_FROM, 2) is not animator
    assert [x.stat().st_mtime_ns for x in folder.iterdir()] == [written]
    path.write_bytes(b"damaged")
    assert for_film(animator, PAYS_FROM, 1) is animator
    animator.network.generator.full.to_planes.weight.data += 0.01  # type: ignore[union-attr]
    for_film(animator, PAYS_FROM, 1)
    assert len(list(folder.iterdir())) == 2


@needs_openvino
def test_a_film_is_the_same_with_one_worker_and_with_three(
    animator: Animator, make_tracker: Callable[..., Tracker], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = make_clip(tmp_path / "clip.mp4", num_frames=7)
    used = []
    call = CompiledGenerator.drive
    monkeypatch.setattr(CompiledGenerator, "drive", lambda self, *x: used.append(len(x[0])) or call(self, *x))

    def film(name: str, workers: int, least: int) -> list[bytes]:
        monkeypatch.setattr("export3d.animation.long_film.PAYS_FROM", least)
        (tmp_path / name).mkdir()
        driver = ClipDriver(clip, make_tracker(7))
        plain = Finish(ProvenanceOptions(no_mark=True, no_manifest=True))
        how = {"video": VideoOptions(workers=workers), "motion": TransferOptions(), "finish": plain}
        animate_video(animator, driver, tmp_path / name / "%02d.png", **how)
        driver.close()
        return [np.asarray(Image.open(path)).tobytes() for path in sorted((tmp_path / name).iterdir())]

    one, three = film("one", 1, 7), film("three", 3, 7)
    assert sorted(used) == 2 * [1] + 8 * [2]  # of each film the last frame alone, three pairs, the portrait's own face
    assert one == three and len(one) == 7
    film("short", 1, 8)
    assert len(used) == 10


def test_pytorch_makes_the_planes_where_openvino_is_missing_or_does_not_pay(
    animator: Animator, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert for_film(animator, PAYS_FROM - 1, 1) is animator and for_film(animator, None, 1) is animator
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert for_film(animator, PAYS_FROM, 1) is animator
    assert openvino_status() == (False, 'not installed; get it with: pip install "export3d[fast]"')


@needs_openvino
@pytest.mark.parametrize("change", [lambda x: x + 0.5, lambda x: x * torch.nan])
def test_pytorch_makes_the_planes_where_openvino_s_are_others(
    animator: Animator, monkeypatch: pytest.MonkeyPatch, change: Callable[[torch.Tensor], torch.Tensor]
) -> None:
    call = CompiledGenerator.drive
    assert for_film(animator, PAYS_FROM, 1) is not animator
    monkeypatch.setattr(CompiledGenerator, "drive", lambda self, *x: change(call(self, *x)))
    assert for_film(animator, PAYS_FROM, 1) is animator


def test_info_says_who_makes_the_planes_and_why(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for pays, found, wanted in (
        (False, True, "PyTorch (OpenVINO from 100 frames on: bf16 is not faster on this processor)"),
        (True, False, "PyTorch (OpenVINO from 100 frames on: not installed; get it with: pip install"),
    ):
        monkeypatch.setattr("export3d.portrait.openvino.uses_bf16", lambda precision, device, pays=pays: pays)
        monkeypatch.setattr("importlib.util.find_spec", lambda name, found=found: found or None)
        assert main(["info"]) == 0
        assert f"Planes of films on a CPU: {wanted}" in capsys.readouterr().out
