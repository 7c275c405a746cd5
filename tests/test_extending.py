"""docs/extending.md, "Add a driving signal", carried out on a copy of the source: a tongue, from the tracker to the model."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import export3d

ROOT = Path(__file__).parents[1]

# File -> (text that is there, text to put in its place). What docs/extending.md tells to do, in the same order.
CHANGES: dict[str, list[tuple[str, str]]] = {
    "face_state.py": [
        ("    turn: Tensor | None = None\n", "    turn: Tensor | None = None\n    tongue: Tensor | None = None\n"),
        ('("turn", 3))', '("turn", 3), ("tongue", 1))'),
    ],
    "tracking/tracker.py": [
        (
            "    weights: np.ndarray = field(default_factory=unknown_weights)\n",
            "    weights: np.ndarray = field(default_factory=unknown_weights)\n"
            "    tongue: np.ndarray = field(default_factory=lambda: np.zeros(1, np.float32))\n",
        ),
        (
            'the torso."""\n        return FaceState.of(beta=self.beta, gaze=self.gaze,',
            'the torso."""\n        return FaceState.of(tongue=self.tongue, beta=self.beta, gaze=self.gaze,',
        ),
    ],
    "tracking/motion.py": [
        ('    "gaze": (np.float32, (2,)),\n', '    "gaze": (np.float32, (2,)),\n    "tongue": (np.float32, (1,)),\n'),
        ('SIGNALS = ("gaze", "weights")', 'SIGNALS = ("gaze", "weights", "tongue")'),
        (
            "    weights: np.ndarray | None = None\n",
            "    weights: np.ndarray | None = None\n    tongue: np.ndarray | None = None\n",
        ),
    ],
    "portrait/cues.py": [
        (
            "        self.turn = nn.Linear(6, dim)\n",
            "        self.turn = nn.Linear(6, dim)\n        self.tongue = nn.Linear(1, dim, bias=False)\n",
        ),
        (
            "        still = beta_prime.new_zeros(batch, 3)\n",
            "        if driving.tongue is not None:\n"
            "            condition = condition + self.tongue(driving.tongue.nan_to_num())\n"
            "        still = beta_prime.new_zeros(batch, 3)\n",
        ),
    ],
}

TRY = """
import numpy as np, torch
from pathlib import Path
from export3d.animation.transfer import relative_state
from export3d.face_state import FaceState
from export3d.portrait import build_model, preset
from export3d.tracking.motion import Motion
from export3d.tracking.smoothing import smooth_motion
from export3d.tracking.tracker import lost_frame
from fractions import Fraction

torch.manual_seed(0)
T = 4
frame = lost_frame()
motion = Motion(beta=np.zeros((T, 64), np.float32), camera=np.tile(frame.camera, (T, 1)), confidence=np.ones(T, np.float32),
    found=np.ones(T, bool), landmarks=np.tile(frame.landmarks, (T, 1, 1)), time_s=np.arange(T) / 25.0, fps=Fraction(25),
    extractor=__import__("export3d.tracking.faces", fromlist=["x"]).ExtractorInfo("a", "1", "0" * 64, "ict64"),
    tongue=np.linspace(0, 1, T, dtype=np.float32)[:, None])
motion.save("motion.safetensors")
state = smooth_motion(Motion.load("motion.safetensors"), 0.01).state
assert frame.state.tongue is not None
assert torch.allclose(state.tongue[:, 0], torch.linspace(0, 1, T), atol=0.05)
moved = relative_state(state[3:4], state[:1], state[1:2])
assert abs(float(moved.tongue) - 4 / 3) < 0.1
model = build_model(preset("tiny-portrait")).eval()
size = model.config.image_size
torch.nn.init.normal_(model.generator.motion.weights[2].weight)
from export3d.camera import Camera
with torch.inference_mode():
    code = model.encode(torch.zeros(1, 3, size, size), Camera.look_at_head(0.0), FaceState(beta=torch.zeros(1, 64)))
    shut, out = (model.drive(code, state[i : i + 1]).planes for i in (0, T - 1))
assert not torch.equal(shut, out)
print("the tongue reached the planes")
"""


@pytest.mark.slow
def test_a_driving_signal_touches_at_most_six_files_and_reaches_the_model(tmp_path: Path) -> None:
    shutil.copytree(Path(export3d.__file__).parent, tmp_path / "export3d")
    for name, changes in CHANGES.items():
        path = tmp_path / "export3d" / name
        text = path.read_text(encoding="utf-8")
        for old, new in changes:
            assert text.count(old) >= 1, f"{name}: docs/extending.md speaks of a place that is not there: {old!r}"
            text = text.replace(old, new)
        path.write_text(text, encoding="utf-8")
    assert len(CHANGES) <= 6
    done = subprocess.run([sys.executable, "-c", TRY], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "the tongue reached the planes", done.stderr[-2000:]


def test_the_document_names_these_files() -> None:
    text = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
    section = text.split("## Add a driving signal")[1].split("## Add a metric")[0]
    assert re.findall(r"^\d\. `([a-z_/]+\.py)`", section, re.M)[:4] == list(CHANGES)
