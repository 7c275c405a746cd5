"""Deep3DFaceRecon's coefficients from the command line: the recipe of docs/training.md, with a tiny preset and stand-ins.

Stand-ins: a network of Deep3DFaceRecon's structure with random weights, short films of one photo, no VGG16 (the preset `tiny`
has no perceptual term). Every line is run as it is printed otherwise.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data

from clips import make_clip, panned_frames
from export3d.checkpoint import read_checkpoint
from export3d.cli import main
from export3d.portrait import load_model
from export3d.studio.face import Wish
from export3d.studio.workshop import Workshop
from export3d.tracking.deep3d import ReconstructionNetwork
from export3d.video import VideoReader

pytest.importorskip("mediapipe")

DOCUMENT = (Path(__file__).parents[2] / "docs" / "training.md").read_text(encoding="utf-8")
LINES = [line for line in DOCUMENT.splitlines() if re.search(r"^export3d .*(data/real|--extractor)", line)]
SMALL = {
    "prepare": "--size 32 --workers 0 --min-frames 8 --min-face-px 50 --min-sharpness 1 --test-share 0.5",
    "pretrain": "--device cpu",
    "train": "--device cpu",
    "evaluate": "--device cpu --clips 1 --identity none",
    "orbit": "--seconds 0.1",
    "sweep": "--vectors 1 2 --steps 3",
}


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the recipe begins with."""
    folder = tmp_path_factory.mktemp("bfm64")
    torch.manual_seed(0)
    network = ReconstructionNetwork()
    with torch.no_grad():
        for layer in network.final_layers:
            layer.weight.mul_(0.01)
    torch.save({"net_recon": network.state_dict()}, folder / "epoch_20.pth")
    (folder / "videos").mkdir()
    for number in range(4):
        tint = np.array([1.0, 1.0 - 0.1 * number, 0.6 + 0.1 * number])
        frames = [(frame * tint).astype(np.uint8) for frame in panned_frames(8, (200, 200))]
        make_clip(folder / "videos" / f"film{number}.mp4", frames=frames, audio=None)
    make_clip(folder / "clip.mp4", num_frames=3, size=(192, 192))
    Image.fromarray(data.astronaut()[:320, 60:380]).save(folder / "photo.jpg")
    return folder


def test_the_printed_recipe_runs_from_films_to_scores_and_animates(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(work)
    assert [line.split()[1] for line in LINES] == [
        *("prepare", "pretrain", "train", "animate", "orbit", "sweep", "evaluate"),
    ]
    for line in LINES:
        words = re.sub(r" --vgg \S+ --lpips-heads \S+", "", line.replace("--preset paper", "--preset tiny"))
        words = words.replace("--test-share 0.1", "")
        command = words.split()[1:]
        assert main([*command, *SMALL.get(command[0], "").split()]) == 0, line
    stored = read_checkpoint("runs/paper/model.safetensors", kind="export3d")
    assert stored.extra["extractor"]["name"] == "deep3dfacerecon"
    assert load_model("runs/paper/model.safetensors").config.expression.space == "bfm64"
    with VideoReader("talking.mp4") as reader:
        assert len(list(reader)) == 3
    facts = json.loads(Path("scores/table.json").read_text())["facts"]["backends"]
    assert facts["expression and pose (AED, APD)"]["version"] == "1-exact"


def test_without_the_checkpoint_the_command_says_which_file_it_needs(
    work: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(work)
    words = ["animate", "--model", "runs/paper/model.safetensors", "--source", "photo.jpg", "--driving", "clip.mp4"]
    assert main([*words, "-o", "refused.mp4"]) == 2
    said = " ".join(capfd.readouterr().err.split())
    assert "expression space 'bfm64' is read by Deep3DFaceRecon" in said and "--extractor epoch_20.pth" in said
    assert not Path("refused.mp4").exists()


def test_the_studio_shows_such_a_models_portrait_and_needs_the_checkpoint_too(
    work: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    uvicorn = pytest.importorskip("uvicorn")
    monkeypatch.chdir(work)
    seen: list[Workshop] = []

    def look(self: object, sockets: object) -> None:
        made = seen[-1]
        stage = made.submit(made.stage, Path("photo.jpg").read_bytes(), "photo.jpg").result()
        assert np.ptp(stage.picture(Wish(turn=(10.0, 0.0, 0.0)))) > 0

    made_by = Workshop.__init__

    def keep(self: Workshop, *given: object, **named: object) -> None:
        made_by(self, *given, **named)
        seen.append(self)

    monkeypatch.setattr(uvicorn.Server, "run", look)
    monkeypatch.setattr(Workshop, "__init__", keep)
    words = ["studio", "--api-only", "--port", "17861", "--model", "runs/paper/model.safetensors"]
    assert main(words) == 2
    assert "--extractor epoch_20.pth" in " ".join(capfd.readouterr().err.split()) and not seen
    assert main([*words, "--extractor", "epoch_20.pth"]) == 0 and len(seen) == 1
