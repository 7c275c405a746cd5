"""The whole way once, with tiny sizes: synthetic clips, pre-training, both phases with a stop, measuring, animating."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage import data as pictures

from export3d.cli import main
from export3d.data import ClipDataset
from export3d.portrait import load_model
from export3d.tracking.faces import ExtractorInfo
from export3d.tracking.motion import Motion
from export3d.training.phases.sheets import sample_sheet
from export3d.video import VideoReader

FRAMES = 6


@pytest.mark.slow
def test_from_synthetic_clips_to_an_animated_portrait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EXPORT3D_HEAD_MODEL", raising=False)  # the built-in procedural head
    clips, codes, run = str(tmp_path / "clips"), str(tmp_path / "codes"), tmp_path / "run"
    render = ["heads", "render", "--identities", "2", "--frames", str(FRAMES), "--size", "32", "--quality", "fast"]
    assert main([*render, "--workers", "1", "-o", clips]) == 0
    assert not main(["data", "check", clips])
    pretrain = ["pretrain", "--data", clips, "--preset", "tiny", "--device", "cpu", "--held-out", clips]
    assert main([*pretrain, "-o", codes]) == 0

    # Six steps: four of phase 1, two of phase 2. A time limit of 0 stops after the first; the same command goes on.
    train = ["train", "--data", clips, "--preset", "tiny", "--device", "cpu", "--expression", codes, "-o", str(run)]
    assert main([*train, "--log-every", "1", "--max-minutes", "0"]) == 0
    assert [path.name for path in run.glob("state-*.pt")] == ["state-00000001.pt"]
    assert main([*train, "--log-every", "1"]) == 0
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    steps = [line["step"] for line in lines if "total" in line]
    assert steps == [1, 2, 3, 4, 5, 6]
    assert "adversarial" in lines[-2] or "adversarial" in lines[-1]

    dataset = ClipDataset(clips)
    model = load_model(run / "model.safetensors")
    sheet, measured = sample_sheet(model, dataset, 2)
    assert sheet.shape == (2 * 32, 7 * 32, 3)
    assert 3.0 < measured["held_out_psnr"] < 60.0

    arrays = dataset.arrays(0)
    motion = Motion(
        beta=arrays["beta"],
        camera=arrays["camera"],
        confidence=arrays["confidence"],
        found=np.ones(FRAMES, bool),
        landmarks=arrays["landmarks"],
        time_s=np.arange(FRAMES) / 25.0,
        fps=Fraction(25),
        extractor=ExtractorInfo(**dataset.extractor),
    )
    motion.save(tmp_path / "motion.safetensors")
    Image.fromarray(pictures.astronaut()).save(tmp_path / "portrait.png")
    animate = ["animate", "--source", str(tmp_path / "portrait.png"), "--model", str(run / "model.safetensors")]
    film = tmp_path / "film.mp4"
    assert main([*animate, "--driving", str(tmp_path / "motion.safetensors"), "--size", "64", "-o", str(film)]) == 0
    with VideoReader(film) as reader:
        assert reader.fps == 25
        assert sum(1 for _ in reader) == FRAMES
