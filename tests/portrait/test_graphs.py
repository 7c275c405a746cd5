"""portrait/graphs.py and `export3d export`: the graphs give PyTorch's picture in other runtimes, and the example runs alone."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from export3d.camera import Camera
from export3d.cli import main
from export3d.errors import MissingExtraError, UsageError
from export3d.face_state import FaceState
from export3d.portrait import PortraitModel, build_model, load_model, preset, save_model
from export3d.portrait.graphs import STATE, export_graphs

SIZE = 48
Named = dict[str, np.ndarray]
Runtime = Callable[[Named], list[np.ndarray]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model, every part of it with a say, exported by the command."""
    for package in ("onnx", "onnxruntime"):
        pytest.importorskip(package)
    folder = tmp_path_factory.mktemp("graphs")
    torch.manual_seed(0)
    model = build_model(preset("tiny-portrait"))
    for name, parameter in model.named_parameters():
        if not parameter.any() and not name.endswith("bias"):
            torch.nn.init.normal_(parameter, std=0.2)
    save_model(folder / "model.safetensors", model)
    given = ["--model", str(folder / "model.safetensors"), "-o", str(folder), "--size", str(SIZE)]
    assert main(["export", *given]) == 0
    return folder


def _inputs(size: int) -> Named:
    torch.manual_seed(1)
    photo = torch.rand(1, 3, SIZE, SIZE) * 2 - 1
    source = torch.nn.functional.interpolate(photo, size=(size, size), mode="area")
    known = {"source": source, "photo": photo}
    known |= {"own_camera": Camera.look_at_head(0.1).to_vector(), "camera": Camera.look_at_head(-0.2, 0.1).to_vector()}
    for prefix in ("own_", ""):
        known |= {prefix + name: 0.2 * torch.randn(1, width) for name, width in STATE.items()}
    known["gaze"][0, 0] = known["weights"][0, 3] = torch.nan  # unknown
    return {name: value.numpy() for name, value in known.items()}


def _run(folder: Path, known: Named, runtime: Callable[[Path], Runtime]) -> Named:
    for name, graph in json.loads((folder / "config.json").read_text())["graphs"].items():
        made = runtime(folder / f"{name}.onnx")({k: known[k] for k in graph["inputs"]})
        known = known | dict(zip(graph["outputs"], made, strict=True))
    return known


def _onnxruntime(path: Path) -> Runtime:
    session = pytest.importorskip("onnxruntime").InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda given: session.run(None, given)


def _openvino(path: Path) -> Runtime:
    core = pytest.importorskip("openvino").Core()
    compiled = core.compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda given: [compiled(given)[i] for i in range(len(compiled.outputs))]


@pytest.mark.slow
@pytest.mark.parametrize("runtime", [_onnxruntime, _openvino])
def test_the_graphs_give_the_picture_of_pytorch(folder: Path, runtime: Callable[[Path], Runtime]) -> None:
    model = load_model(folder / "model.safetensors")
    assert isinstance(model, PortraitModel)
    given = _inputs(model.config.image_size)
    t = {name: torch.from_numpy(value) for name, value in given.items()}
    own, driving = (FaceState(**{name: t[prefix + name] for name in STATE}) for prefix in ("own_", ""))
    with torch.no_grad():
        code = model.encode(t["source"], Camera.from_vector(t["own_camera"]), own, photo=t["photo"])
        render = model.render(model.drive(code, driving), Camera.from_vector(t["camera"]))
    found = _run(folder, given, runtime)
    assert render.image is not None and render.image.std() > 0.1
    for name, expected in (("image", render.image), ("image_opacity", render.image_opacity)):
        assert expected is not None and found[name].shape == tuple(expected.shape)
        error = float(np.square((found[name] - expected.numpy()) / 2.0).mean())
        assert -10.0 * np.log10(max(error, 1e-20)) > 50.0, name


@pytest.mark.slow
def test_the_example_makes_a_picture_with_nothing_of_ours(folder: Path) -> None:
    lines = (folder / "example.py").read_text().splitlines()
    assert not [line for line in lines if "torch" in line or "import export3d" in line]
    made = folder / "frame.png"
    done = subprocess.run(
        [sys.executable, "-P", str(folder / "example.py"), "-o", str(made)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    picture = np.asarray(Image.open(made))
    assert picture.shape == (SIZE, SIZE, 3) and picture.std() > 1.0
    assert len(lines) <= 64
    assert "encode.onnx" in (folder / "README.md").read_text()


def test_a_wrong_size_the_papers_model_and_a_missing_package_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnx")
    model = build_model(preset("tiny-portrait"))
    assert isinstance(model, PortraitModel)
    with pytest.raises(UsageError, match="--size must be even and at least"):
        export_graphs(model, tmp_path, 33)
    save_model(tmp_path / "paper.safetensors", build_model(preset("tiny")))
    assert main(["export", "--model", str(tmp_path / "paper.safetensors"), "-o", str(tmp_path / "out")]) == 2
    assert "knows the portrait model only" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"needs the package onnx, not installed here.*export3d\[export\]"):
        export_graphs(model, tmp_path, 48)
