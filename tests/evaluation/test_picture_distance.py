"""LPIPS as a metric: from files with random weights to a row of the table; absent without files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from export3d.cli import main
from export3d.evaluation.metrics.picture_distance import LPIPSDistance
from export3d.images import to_tensor
from export3d.training.losses.perceptual import load_lpips

CONVOLUTIONS = {0: 64, 2: 64, 5: 128, 7: 128, 10: 256, 12: 256, 14: 256}
CONVOLUTIONS |= {17: 512, 19: 512, 21: 512, 24: 512, 26: 512, 28: 512}
"""Place in torchvision's list -> channels."""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Weight files with the published names and shapes, random numbers."""
    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(0)
    vgg, channels = {}, 3
    for place, width in CONVOLUTIONS.items():
        vgg[f"features.{place}.weight"] = torch.randn(width, channels, 3, 3) * (2.0 / (9 * channels)) ** 0.5
        vgg[f"features.{place}.bias"] = torch.zeros(width)
        channels = width
    heads = {f"lin{i}.model.1.weight": torch.rand(1, w, 1, 1) for i, w in enumerate((64, 128, 256, 512, 512))}
    torch.save(vgg, folder / "vgg.pth")
    torch.save(heads, folder / "heads.pth")
    return folder / "vgg.pth", folder / "heads.pth"


def test_frames_in_batches_get_the_distance_that_each_has_alone(files: tuple[Path, Path]) -> None:
    rng = np.random.default_rng(0)
    ours, theirs = (rng.integers(0, 256, (11, 16, 16, 3), dtype=np.uint8) for _ in range(2))
    theirs[3] = ours[3]
    given = LPIPSDistance(*files).distances(ours, theirs)
    network, _ = load_lpips(*files)
    expected = [network(to_tensor(a)[None], to_tensor(b)[None]).item() for a, b in zip(ours, theirs, strict=True)]
    assert given.shape == (11,)
    assert given == pytest.approx(expected, rel=1e-4)
    assert given[3] == 0.0 and (np.delete(given, 3) > 0.01).all()


def test_the_table_has_lpips_with_the_digests_of_both_files(
    clips: Path, files: tuple[Path, Path], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    arguments = ["evaluate", "--data", str(clips), "--predictions", str(_copies(clips, tmp_path)), "-o", str(out)]
    arguments += ["--landmarks", "none", "--protocol", "same"]
    assert main([*arguments, "--lpips-vgg", str(files[0]), "--lpips-heads", str(files[1])]) == 0
    content = json.loads((out / "table.json").read_text())
    rows = {
        m: {r["metric"]: float(r["interval"]["mean"]) for r in rows} for m, rows in content["tables"]["same"].items()
    }
    assert rows["driving"]["lpips"] == 0.0
    assert rows["copy_source"]["lpips"] > 0.0
    facts = content["facts"]["backends"]["pictures (LPIPS)"]
    assert facts["name"] == "lpips-vgg16" and len(facts["vgg_sha256"]) == len(facts["heads_sha256"]) == 64
    text = (out / "table.md").read_text()
    assert "LPIPS (VGG16) ↓" in text and "pictures (LPIPS): lpips-vgg16" in text and "no metric of faces" in text
    assert main(arguments) == 30  # the same folder without LPIPS holds results of other settings


def test_without_files_there_is_no_lpips_and_one_file_alone_is_a_usage_error(
    clips: Path, files: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["evaluate", "--data", str(clips), "--predictions", str(_copies(clips, tmp_path))]
    arguments += ["--landmarks", "none", "--protocol", "same", "-o", str(tmp_path / "out")]
    assert main([*arguments, "--lpips-vgg", str(files[0])]) == 2
    assert "LPIPS needs both files" in capsys.readouterr().err
    assert main([*arguments, "--lpips-vgg", str(files[0]), "--lpips-heads", str(tmp_path / "none.pth")]) == 23
    assert main(arguments) == 0
    assert "LPIPS" not in (tmp_path / "out" / "table.md").read_text()


def _copies(clips: Path, folder: Path) -> Path:
    """Predictions for the same-identity pairs: the driving frames themselves."""
    from PIL import Image

    from export3d.data import ClipDataset

    dataset = ClipDataset(clips)
    for index, key in enumerate(dataset.keys):
        (folder / "p" / "same" / key).mkdir(parents=True)
        for time in range(dataset.num_frames(index)):
            Image.fromarray(dataset.frame(index, time)).save(folder / "p" / "same" / key / f"{time:06d}.png")
    return folder / "p"
