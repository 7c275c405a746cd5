"""evaluation/scores/swap.py: the exact rendering is exact, and the scores notice another person's looks in the result."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from export3d.data import ClipDataset
from export3d.errors import DataError
from export3d.evaluation.scores import swap
from export3d.evaluation.scores.protocol import Pair
from export3d.heads.shape.procedural import procedural_head


@pytest.fixture(scope="module")
def dataset(clips: Path) -> ClipDataset:
    return ClipDataset(clips)


def test_a_person_with_the_own_expression_is_the_stored_frame(dataset: ClipDataset) -> None:
    pictures, masks = swap.exact_swap(dataset, 0, 0, [0, 2], procedural_head())
    for row, time in enumerate((0, 2)):
        difference = np.abs(pictures[row].astype(int) - dataset.frame(0, time))
        assert difference.max() <= 1
        assert (masks[row] == (dataset.mask(0, time) > 127)).mean() > 0.99


def test_the_swap_shows_the_source_person_in_the_drivers_pose(dataset: ClipDataset) -> None:
    pictures, masks = swap.exact_swap(dataset, 0, 1, [1], procedural_head())
    assert np.abs(pictures[0].astype(int) - dataset.frame(1, 1)).mean() > 5  # not the driver
    both = masks[0] & (dataset.mask(1, 1) > 127)
    assert both.sum() > 0.5 * max(masks[0].sum(), 1)  # but where the driver is


@dataclass
class Perfect:
    """Stands in for `StoredPortrait`: shows the exact rendering, brighter by what is left of the driver's leak in beta."""

    model: object
    dataset: ClipDataset
    source: int
    time: int

    def views(self, state: object, cameras: object) -> list[object]:
        leak = float((state.beta - self.model.clean).abs().mean())  # type: ignore[attr-defined]
        picture = self.model.truth.astype(float) + (40.0 if leak > 1e-4 else 4.0)  # type: ignore[attr-defined]
        return [SimpleNamespace(image=np.clip(picture, 0, 255).astype(np.uint8))]


def test_the_leak_costs_what_the_picture_gains_without_it(
    dataset: ClipDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = procedural_head()
    monkeypatch.setattr(swap, "FRAMES", 1)
    monkeypatch.setattr(swap, "StoredPortrait", Perfect)
    dark = np.full((1, 32, 32, 3), 100, np.uint8)
    monkeypatch.setattr(swap, "exact_swap", lambda *_: (dark, np.ones((1, 32, 32), bool)))
    state = swap.stored_state(dataset, 1, 0)
    clean = state.beta + swap.leak_of(dataset, 0) - swap.leak_of(dataset, 1)
    pair = Pair(kind="cross", source_clip=dataset.keys[0], source_frame=0, driving_clip=dataset.keys[1])
    scores = swap.score_swap(SimpleNamespace(clean=clean, truth=dark[0]), dataset, [pair], head)  # type: ignore[arg-type]
    # 40 levels: 20 log10(255 / 40) = 16.09 dB; 4 levels: 36.09 dB
    assert scores["swap_psnr"] == pytest.approx([16.09], abs=0.01)
    assert scores["leak_cost"] == pytest.approx([20.0], abs=0.01)


def test_an_exact_rendering_is_kept_and_found_again(
    dataset: ClipDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = procedural_head()
    first = swap._kept_swap(dataset, 0, 1, [0, 2], head, folder=tmp_path)
    other = swap._kept_swap(dataset, 0, 1, [1, 2], head, folder=tmp_path)
    monkeypatch.setattr(swap, "exact_swap", lambda *_: pytest.fail("rendered again"))
    again = swap._kept_swap(dataset, 0, 1, [0, 2], head, folder=tmp_path)
    for kept, rendered in zip(again, first, strict=True):
        assert kept.dtype == rendered.dtype and np.array_equal(kept, rendered)
    assert not np.array_equal(other[0][0], first[0][0])  # other times are another rendering


def test_clips_of_another_head_or_without_their_settings_are_refused(dataset: ClipDataset, tmp_path: Path) -> None:
    other = replace(procedural_head(), name="another")
    with pytest.raises(DataError, match=r"rendered with the head 'procedural.*'; got 'another'.*--head-model"):
        swap.render_settings(dataset, other)
    shutil.copytree(dataset.folder, tmp_path / "bare")
    (tmp_path / "bare" / "render.json").unlink()
    with pytest.raises(DataError, match=r"render\.json: missing"):
        swap.render_settings(ClipDataset(tmp_path / "bare"), procedural_head())


def test_leaks_of_two_people_differ(dataset: ClipDataset) -> None:
    assert not torch.allclose(swap.leak_of(dataset, 0), swap.leak_of(dataset, 1), atol=1e-3)
