"""`export3d pretrain` and `export3d train` as commands: exit codes, error texts, dry run, resumption."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

from export3d.cli import main

_SPEC = importlib.util.spec_from_file_location("training_clips", Path(__file__).parents[1] / "training" / "clips.py")
assert _SPEC is not None and _SPEC.loader is not None
clips = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(clips)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("cli-train") / "data"
    return str(clips.write_clips(folder, clips=4, splits=("train", "train", "train", "val")))


def run(*arguments: str) -> int:
    return main([*arguments, "--device", "cpu"])


@pytest.fixture(scope="module")
def expression(data: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    output = tmp_path_factory.mktemp("cli-pretrain") / "run"
    assert run("pretrain", "--data", data, "--preset", "tiny", "-o", str(output), "--log-every", "2") == 0
    return str(output)


def test_pretraining_leaves_the_files_that_the_documents_name(expression: str) -> None:
    names = {path.name for path in Path(expression).iterdir()}
    assert {"config.json", "metrics.jsonl", "expression.safetensors", "face_network.safetensors"} <= names
    last = json.loads((Path(expression) / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["step"] == 4
    assert "identity_1nn_code" in last


def test_training_writes_sheet_and_model_and_a_finished_run_is_left_alone(
    data: str, expression: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["train", "--data", data, "--preset", "tiny", "--expression", expression, "-o", str(tmp_path)]
    assert run(*arguments) == 0
    assert "step 6 of 6" in capsys.readouterr().err
    assert (tmp_path / "sheets" / "step-00000006.png").is_file()
    before = (tmp_path / "model.safetensors").stat().st_mtime_ns
    assert run(*arguments) == 0
    assert "step 6 of 6" in capsys.readouterr().err
    assert (tmp_path / "model.safetensors").stat().st_mtime_ns == before
    assert run(*arguments, "--learning-rate", "0.5") == 40
    assert "config.learning_rate: 0.001 -> 0.5" in capsys.readouterr().err


def test_the_face_network_and_its_digest_are_recorded(data: str, expression: str, tmp_path: Path) -> None:
    arguments = ["train", "--data", data, "--preset", "tiny", "--expression", expression, "-o", str(tmp_path)]
    assert run(*arguments, "--perceptual", "face_network", "--weights.perceptual", "0.5", "--samples", "2") == 0
    recorded = json.loads((tmp_path / "config.json").read_text())["data"]["inputs"]["perceptual"]
    assert recorded["kind"] == "face_network"
    assert len(recorded["sha256"]) == 64
    logged = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[0])
    assert logged["perceptual"] > 0


def test_a_dry_run_prints_the_configuration_and_an_estimate_and_writes_nothing(
    data: str, expression: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "run"
    arguments = ["train", "--data", data, "--preset", "tiny", "--expression", expression, "-o", str(output)]
    assert run(*arguments, "--dry-run", "--batch", "4") == 0
    text = capsys.readouterr().out
    assert '"batch": 4' in text
    assert "parameters: " in text and "s per step of 4 samples" in text and "peak" in text
    assert not output.exists()


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["--preset", "portait"], 2, "Did you mean 'portrait'?"),
        (["--preset", "tiny"], 2, "run 'export3d pretrain' and give --expression RUN"),
        (["--preset", "tiny", "--expression", "nowhere"], 23, "no such checkpoint"),
        (
            ["--preset", "tiny", "--perceptual", "lpips", "--weights.perceptual", "1"],
            2,
            "needs --vgg and --lpips-heads",
        ),
        (["--preset", "tiny", "--batch", "0"], 2, "batch and accumulate must be positive"),
        (["--preset", "tiny", "--ablation", "direct"], 2, "Did you mean 'direct-3dmm'?"),
    ],
)
def test_mistakes_are_named(
    data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, text: str
) -> None:
    assert run("train", "--data", data, "-o", str(tmp_path / "run"), *arguments) == code
    assert text in capsys.readouterr().err.replace("\n", " ")
    assert not (tmp_path / "run").exists()


def test_a_missing_data_set_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("pretrain", "--data", str(tmp_path / "none"), "--preset", "tiny", "-o", str(tmp_path / "run")) == 24
    assert "no manifest" in capsys.readouterr().err


def test_training_never_overwrites_the_model_it_starts_from(
    data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tmp_path / "model.safetensors"
    model.write_bytes(b"trained for days")
    assert run("train", "--data", data, "--preset", "tiny", "--start", str(model), "-o", str(tmp_path)) == 2
    assert "would overwrite the input" in capsys.readouterr().err and model.read_bytes() == b"trained for days"
