"""`export3d reproduce`: files, skipped stages, resumed stages, and every mistake with its text and exit code."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from export3d.checkpoint import read_checkpoint
from export3d.cli import main
from export3d.cli.reproduce import recorded_command
from export3d.errors import DataError
from export3d.evaluation.figures.markdown import shown, table
from export3d.files import file_sha256
from export3d.heads.clips.one_clip import ClipsConfig
from export3d.heads.clips.rendering import render_clips
from export3d.model.config import ABLATIONS
from export3d.reproduce import training
from export3d.reproduce.page import paper_page, section, tables_page
from export3d.reproduce.scores import read_scores
from export3d.reproduce.settings import TABLE3, TABLE4, Reporter, Settings, Stopped
from export3d.reproduce.tables import result_file

RESULTS = ("reproduce_main", "reproduce_table3", "reproduce_table4")
FIGURES = (
    *("same_identity.jpg", "cross_identity.jpg", "novel_view.jpg", "ablation_expression.jpg"),
    *("ablation_error.jpg", "ablation_eadaln.jpg", "sweep.png", "clebs_tsne.png"),
)


def call(*arguments: object) -> int:
    return main(["reproduce", *(str(word) for word in arguments)])


def smoke(work: Path, *more: object) -> list[object]:
    model = work / "runs" / "full" / "model.safetensors"
    return ["-o", work, "--scale", "smoke", "--figure-clips", "2", "--device", "cpu", "--model", model, *more]


@pytest.fixture(scope="module", autouse=True)
def procedural_head() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("EXPORT3D_HEAD_MODEL", raising=False)
        yield


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished smoke run; tests that change something copy it."""
    folder = tmp_path_factory.mktemp("reproduce") / "work"
    assert call(*smoke(folder)) == 0
    return folder


@pytest.fixture
def given(work: Path) -> list[object]:
    """Options that take clips and pre-training from the finished run."""
    data = work / "data"
    return ["--data", data / "train", "--test", data / "test", "--expression", work / "runs" / "pretrain"]


def stamps(work: Path) -> dict[str, int]:
    kinds = (".safetensors", ".jpg", ".png", ".tar")
    return {str(path): path.stat().st_mtime_ns for path in work.rglob("*") if path.suffix in kinds}


# What is written.


def test_the_page_of_the_claims_is_made_from_the_result_files_and_says_what_was_not_run(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    assert (root / "docs" / "paper_results.md").read_text(encoding="utf-8") == paper_page(
        root / "results", root / "docs" / "pictures" / "paper"
    )
    assert paper_page(tmp_path).count("**Not yet run at this budget.**") == 2
    content = json.loads((root / "results" / "reproduce_table4.json").read_text(encoding="utf-8"))
    content |= {"scale": "paper-small", "clebs": None}
    for samples, told in ((23_999, 2), (24_000, 1)):
        for facts in content["budget"].values():
            facts["samples"] = samples
        (tmp_path / "reproduce_table4.json").write_text(json.dumps(content), encoding="utf-8")
        assert paper_page(tmp_path).count("**Not yet run at this budget.**") == told
    assert "within the confidence interval" in paper_page(tmp_path) and "Not yet run:" not in paper_page(tmp_path)
    del content["budget"]["cross-attention"]
    (tmp_path / "reproduce_table4.json").write_text(json.dumps(content), encoding="utf-8")
    assert "**Not yet run: cross-attention.**" in paper_page(tmp_path)
    assert "CLeBS of" not in paper_page(tmp_path) and "Figures" not in paper_page(tmp_path, tmp_path)
    for loss, positive, symmetric in (("Eq. 1 as printed", 0, 0), ("InfoNCE", 1, 0), ("a symmetric InfoNCE", 1, 1)):
        asked = {"include_positive": positive, "symmetric": symmetric, "steps": 3000, "frames_per_clip": 33}
        (tmp_path / "reproduce_table4.json").write_text(json.dumps(content | {"clebs": asked}), encoding="utf-8")
        assert f"`cross-attention`: {loss}, 3,000 steps, 33 frames" in paper_page(tmp_path)
    (tmp_path / "sweep.png").write_bytes(b"")
    assert paper_page(tmp_path, tmp_path).count("](pictures/paper/") == 1


def test_the_page_of_the_claims_shows_another_seed_under_its_table_and_phase_2_with_its_differences(
    tmp_path: Path,
) -> None:
    root = Path(__file__).parents[2] / "results"
    content = json.loads((root / "reproduce_table4.json").read_text(encoding="utf-8"))
    (tmp_path / "reproduce_table4.json").write_text(json.dumps(content), encoding="utf-8")
    (tmp_path / "reproduce_table4_seed7.json").write_text(json.dumps(content | {"seed": 7}), encoding="utf-8")
    page = paper_page(tmp_path)
    assert page.index("## Table 4") < page.index("### Seed 7") and page.count(section(content)[0]) == 2
    assert "## Phase 2" not in page
    gain = {"psnr, same": {"mean": -0.25, "low": -0.5, "high": 0.125}}
    made = {"command": "python benchmarks/phase2.py", "date": "2026-11-28", "differences": {"with - without": gain}}
    rows = {"with": {"sha256": "ab12", "sharpness": 0.4}, "without": {"sha256": "cd34", "sharpness": 0.375}}
    (tmp_path / "phase2.json").write_text(json.dumps(made | {"rows": rows}), encoding="utf-8")
    shown = paper_page(tmp_path).partition("## Phase 2")[2]
    assert "| with | ab12 | 0.4 |" in shown and "| without | cd34 | 0.375 |" in shown
    assert "| psnr, same | -0.25 [-0.5, 0.125] |" in shown


def test_one_command_leaves_models_scores_pictures_and_the_page(work: Path) -> None:
    for variant in ABLATIONS:
        assert (work / "runs" / variant / "model.safetensors").is_file()
        assert (work / "evaluation" / f"{variant}.json").is_file()
    for name in FIGURES:
        with Image.open(work / "pictures" / name) as picture:
            assert min(picture.size) >= 32
    page = (work / "results" / "tables.md").read_text()
    for name in RESULTS:
        assert f"`{name}.json`: `export3d reproduce" in page


def test_the_results_say_how_they_were_made(work: Path) -> None:
    table = json.loads((work / "results" / "reproduce_table3.json").read_text())
    assert table["command"].startswith("export3d reproduce -o work --scale smoke")
    assert table["seed"] == 0 and re.fullmatch(r"\d{4}-\d\d-\d\d", table["date"])
    assert table["versions"]["torch"] == torch.__version__
    assert table["data"]["train"]["people"] == 3 and table["data"]["test"]["frames"] == 12
    assert table["pairs"] == {"same": 2, "cross": 2}
    assert table["clebs"]["steps"] == 3 and table["clebs"]["include_positive"] is False
    assert set(table["same"]) == set(TABLE3) == set(table["budget"])
    for facts in table["budget"].values():
        assert facts["samples"] == 8 and facts["steps"] == 4 and facts["hours"] > 0
        assert facts["share_of_the_papers_samples"] == pytest.approx(8 / 2_400_000)
    psnr = table["same"]["full"]["psnr"]
    assert psnr["clips"] == 2 and psnr["low"] <= psnr["mean"] <= psnr["high"]
    assert table["equal_budget"] is True and table["equal_test"] is True
    main_table = json.loads((work / "results" / "reproduce_main.json").read_text())
    assert list(main_table["same"]) == ["model", "copy_source", "mean_face", "driving"]
    assert main_table["same"]["driving"]["psnr"]["mean"] == "inf"
    assert main_table["same"]["copy_source"]["ssim_gaussian"]["mean"] < 1


def test_too_few_clips_give_no_verdict(work: Path) -> None:
    claims = json.loads((work / "results" / "reproduce_table3.json").read_text())["claims"]
    verdicts = {claim["metric"]: claim["verdict"] for claim in claims}
    assert verdicts["psnr"] == "not measured: 2 clips are too few"
    assert verdicts["csim_source"] == "not measured"  # the smoke scale has no identity network


def test_every_number_of_the_sections_comes_from_the_file(work: Path) -> None:
    number = re.compile(r"(?<![\w.^-])-?\d+(?:\.\d+)?(?:e[-+]\d+)?(?!\w)")

    def leaves(value: Any) -> Iterator[Any]:
        if isinstance(value, dict):
            yield from value
            for inner in value.values():
                yield from leaves(inner)
        elif isinstance(value, list):
            for inner in value:
                yield from leaves(inner)
        else:
            yield value

    for name in RESULTS:
        content = json.loads((work / "results" / f"{name}.json").read_text())
        known = {found for leaf in leaves(content) for found in number.findall(shown(leaf))}
        text = "\n".join(section(content))
        assert [found for found in number.findall(text) if found not in known] == []
        assert len(number.findall(text)) > 25


def test_the_trained_variants_differ_where_they_should(work: Path) -> None:
    stored = {name: read_checkpoint(work / "runs" / name / "model.safetensors", kind="export3d") for name in ABLATIONS}
    basis = stored["full"].tensors["expression.stored_basis"]
    pretrained = read_checkpoint(work / "runs" / "pretrain" / "expression.safetensors", kind="lebs")
    assert torch.equal(basis, pretrained.tensors["stored_basis"])
    # Sec. 4.3: in both rows of Table 4 CLeBS serves beta'.
    assert torch.equal(basis, stored["cross-attention"].tensors["expression.stored_basis"])
    assert stored["e2e-lebs-n5"].config["expression"]["num_basis"] == 5
    assert "expression.free_basis" in stored["e2e-lebs-n10"].tensors
    assert stored["direct-3dmm"].config["expression"]["kind"] == "direct"


def test_all_variants_train_by_the_same_configuration_but_for_the_model(work: Path) -> None:
    configs = [json.loads((work / "runs" / name / "config.json").read_text())["config"] for name in ABLATIONS]
    for config in configs:
        config.pop("model")
    assert all(config == configs[0] for config in configs) and configs[0]["adversarial"]["samples"] == 0


def test_a_short_run_warms_up_over_a_tenth_of_its_steps(tmp_path: Path) -> None:
    settings = Settings(output=tmp_path, scale="small", samples=1600)
    config = training.train_config(settings)
    assert (config.phase1_steps, config.warmup_steps) == (1600 // config.batch, 1600 // config.batch // 10)
    long = training.train_config(replace(settings, samples=10_000_000))
    assert long.warmup_steps == training.TRAIN_PRESETS["paper-small"].warmup_steps


def test_the_tables_name_known_variants() -> None:
    assert {*TABLE3, *TABLE4} == set(ABLATIONS)


def test_the_recorded_command_has_no_absolute_paths() -> None:
    typed = "export3d reproduce -o /home/me/work --data data/train --test /mnt/test"
    assert recorded_command(typed) == "export3d reproduce -o work --data data/train --test test"


def test_unequal_budgets_are_said_on_the_page(work: Path) -> None:
    settings = Settings(output=work, scale="smoke")
    found = {name: read_scores(settings, name) for name in TABLE4}
    scores = {name: value for name, value in found.items() if value is not None}
    less = scores["full"].facts | {"model": scores["full"].facts["model"] | {"samples": 4}}
    content = result_file(settings, "reproduce_table4", scores | {"full": replace(scores["full"], facts=less)}, "")
    assert content["equal_budget"] is False
    assert any("different numbers of samples" in line for line in section(content))


# Skipping and resuming.


def test_a_second_call_skips_what_is_finished(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = stamps(work)
    assert call(*smoke(work)) == 0
    err = capsys.readouterr().err
    assert err.count("is finished") == 1 + len(ABLATIONS) + len(ABLATIONS) + 1 + len(FIGURES)
    assert stamps(work) == before


def test_a_stopped_training_goes_on_to_the_same_model(
    work: Path, given: list[object], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = smoke(tmp_path, *given, "--stages", "train", "--variants", "direct-3dmm")
    assert call(*arguments, "--max-minutes", "0") == 0
    assert "step 1 of 4" in capsys.readouterr().err
    assert call(*arguments) == 0
    assert "step 4 of 4" in capsys.readouterr().err
    there, here = (
        read_checkpoint(folder / "runs" / "direct-3dmm" / "model.safetensors", kind="export3d")
        for folder in (work, tmp_path)
    )
    assert there.sha256 == here.sha256


def test_an_interrupt_in_training_leaves_a_run_that_goes_on(work: Path, tmp_path: Path) -> None:
    data = work / "data"
    settings = Settings(
        output=tmp_path,
        scale="smoke",
        data=data / "train",
        test=data / "test",
        expression=work / "runs" / "pretrain",
    )

    def interrupt(label: str, done: int, total: int) -> None:
        if done == 2:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Stopped) as stop:
        training.train(settings, "full", Reporter(progress=interrupt))
    assert stop.value.reason == "SIGINT"
    lines: list[str] = []
    training.train(settings, "full", Reporter(line=lines.append))
    assert any("step 4 of 4" in line for line in lines)


def test_a_stopped_evaluation_keeps_its_pairs(
    work: Path, given: list[object], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = smoke(
        tmp_path, *given, "--runs", work / "runs", "--stages", "evaluate", "--variants", "full", "--clips", "1"
    )
    assert call(*arguments, "--max-minutes", "0") == 0
    assert "stopped by max_minutes" in capsys.readouterr().err
    assert not (tmp_path / "evaluation" / "full.json").exists()
    shutil.copytree(work / "runs", tmp_path / "runs")  # the model of the main table
    assert call(*arguments) == 0
    assert "evaluate full: 2 pairs, 1 from before" in capsys.readouterr().err


def test_rows_without_a_model_are_named_and_the_bundled_model_is_left_out_where_nobody_asks(
    work: Path, given: list[object], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(work / "runs" / "full", tmp_path / "runs" / "full")
    half = ["--stages", "train", "--variants", "direct-3dmm", "--max-minutes", "0"]
    assert call("-o", tmp_path, "--scale", "smoke", "--device", "cpu", *given, *half) == 0
    assert (tmp_path / "runs" / "direct-3dmm" / "model.safetensors").is_file()  # of its first step
    words = ["--stages", "evaluate", "figures", "--variants", "full", "direct-3dmm", "cross-attention", "--clips", "1"]
    assert call("-o", tmp_path, "--scale", "smoke", "--device", "cpu", "--figure-clips", "1", *given, *words) == 0
    err = " ".join(capsys.readouterr().err.split())
    for name in ("direct-3dmm", "cross-attention"):
        assert f"evaluate {name}: " in err
    assert err.count("model.safetensors is missing or not trained to its end; not scored") == 2
    assert {path.name for path in (tmp_path / "evaluation").iterdir()} == {"full", "full.json", "swaps"}
    assert len(list((tmp_path / "evaluation" / "swaps").iterdir())) == 1
    methods = json.loads((tmp_path / "evaluation" / "full.json").read_text())["values"]["same"]
    assert list(methods) == ["model"]  # baselines are those of the main table
    drawn = json.loads((tmp_path / "figures.json").read_text())
    models = drawn[str((tmp_path / "pictures" / "novel_view.jpg").absolute())]["models"]
    assert models == {"main": file_sha256(tmp_path / "runs" / "full" / "model.safetensors")}


def test_without_variants_the_main_model_alone_is_scored_and_drawn(
    work: Path, given: list[object], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    model = work / "runs" / "full" / "model.safetensors"
    arguments = ["-o", out, *given[:4], "--scale", "smoke", "--device", "cpu", "--model", model, "--variants"]
    stages = ["--stages", "evaluate", "figures", "page"]
    assert call(*arguments, *stages, "--clips", "1", "--figure-clips", "1") == 0
    assert sorted(path.name for path in (out / "results").iterdir()) == ["reproduce_main.json", "tables.md"]
    assert {path.stem for path in (out / "pictures").iterdir()} == {
        "same_identity",
        "cross_identity",
        "novel_view",
        "sweep",
    }


def test_a_killed_run_without_its_last_model_writes_it_again(work: Path, given: list[object], tmp_path: Path) -> None:
    shutil.copytree(work / "runs" / "e2e-lebs-n5", tmp_path / "runs" / "e2e-lebs-n5")
    model = tmp_path / "runs" / "e2e-lebs-n5" / "model.safetensors"
    digest = read_checkpoint(model, kind="export3d").sha256
    model.unlink()
    assert call(*smoke(tmp_path, *given, "--stages", "train", "--variants", "e2e-lebs-n5")) == 0
    assert read_checkpoint(model, kind="export3d").sha256 == digest


@pytest.mark.parametrize(("reason", "code"), [("SIGINT", 130), ("SIGTERM", 143), ("max_minutes", 0)])
def test_a_stopped_stage_ends_the_command_with_its_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reason: str, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    def stop(*_: object) -> None:
        raise Stopped(reason)

    monkeypatch.setattr(training, "pretrain", stop)
    assert call(*smoke(tmp_path, "--stages", "pretrain", "page")) == code
    assert f"pretrain: stopped by {reason}" in capsys.readouterr().err
    assert not (tmp_path / "results.md").exists()


def test_finished_models_from_elsewhere_are_taken_as_they_are(
    work: Path, given: list[object], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = stamps(work)
    assert call(*smoke(tmp_path, *given, "--runs", work / "runs", "--stages", "train", "--samples", "4")) == 0
    assert capsys.readouterr().err.count("is given") == len(ABLATIONS)
    assert stamps(work) == before and not (tmp_path / "runs").exists()


def test_a_dry_run_names_the_cost_of_each_stage_and_makes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["-o", tmp_path / "work", "--scale", "smoke", "--device", "cpu", "--variants", "full"]
    assert call(*arguments, "--stages", "data", "pretrain", "train", "--dry-run") == 0
    out = capsys.readouterr().out
    for text in ("s per train head of 4 frames, 3 of them", "pretrain: ", "train full: ", "4 of them", "together"):
        assert text in out
    assert not (tmp_path / "work").exists()


# Mistakes.


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["--data", "x"], 2, "--data and --test belong together"),
        (["--samples", "-1"], 2, "--samples: expected 0"),
        (["--samples", "1", "--stages", "train"], 2, "samples at least one batch"),
        (["--pretrain-steps", "-1"], 2, "--pretrain-steps: expected 0"),
        (["--clips", "-2"], 2, "--clips: expected 0"),
        (["--figure-clips", "0"], 2, "--figure-clips must be at least 1"),
        (["--variants", "full", "full"], 2, "each variant once"),
        (["--variants", "fool"], 2, "fool"),
        (["--scale", "huge"], 2, "huge"),
        (["--threads", "-1"], 2, "--threads must be 0"),
        (["--runs", "nowhere"], 24, "nowhere: no such folder"),
        (["--data", "nowhere", "--test", "nowhere", "--stages", "pretrain"], 24, "no manifest"),
        (["--expression", "nowhere", "--stages", "pretrain"], 23, "no such checkpoint"),
        (["--stages", "evaluate"], 23, "no variant is trained to its end"),
    ],
)
def test_mistakes_are_named(
    work: Path,
    given: list[object],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    code: int,
    text: str,
) -> None:
    needs_clips = "--stages" in arguments and "--data" not in arguments
    clips = given[:4] if "--expression" in arguments else given
    options = ["-o", tmp_path / "out", "--scale", "smoke", *(clips if needs_clips else []), *arguments]
    assert call(*options) == code
    found = capsys.readouterr()
    assert text in " ".join((found.err + found.out).replace("│", " ").split())


def test_other_settings_in_the_same_folder_are_refused(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(*smoke(work, "--stages", "train", "--samples", "6")) == 40
    assert "config.samples: 8 -> 6" in capsys.readouterr().err


def test_people_of_the_training_clips_are_not_scored(
    work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = ClipsConfig(identities=2, frames=2, size=32, supersample=1, quality="fast", split="test")
    render_clips(tmp_path / "test", config)
    manifest = json.loads((tmp_path / "test" / "manifest.json").read_text())
    people = json.loads((work / "data" / "train" / "manifest.json").read_text())["clips"]
    manifest["clips"][0]["identity"] = people[0]["identity"]
    (tmp_path / "test" / "manifest.json").write_text(json.dumps(manifest))
    options = ["--data", work / "data" / "train", "--test", tmp_path / "test", "--runs", work / "runs"]
    assert call(*smoke(tmp_path / "out", *options, "--stages", "evaluate")) == 24
    assert "is also among the training clips" in " ".join(capsys.readouterr().err.split())


def test_clips_of_two_extractors_are_refused(work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(work / "data" / "test", tmp_path / "test")
    manifest = json.loads((tmp_path / "test" / "manifest.json").read_text())
    manifest["extractor"]["version"] = "99"
    (tmp_path / "test" / "manifest.json").write_text(json.dumps(manifest))
    options = ["--data", work / "data" / "train", "--test", tmp_path / "test", "--runs", work / "runs"]
    assert call(*smoke(tmp_path / "out", *options, "--stages", "evaluate")) == 24
    assert "use one extractor" in " ".join(capsys.readouterr().err.split())


def test_another_head_model_is_refused_before_anything_is_scored(
    work: Path, given: list[object], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(work / "data" / "test", tmp_path / "test")
    settings = json.loads((tmp_path / "test" / "render.json").read_text())
    (tmp_path / "test" / "render.json").write_text(json.dumps(settings | {"head": "another"}))
    options = ["--data", work / "data" / "train", "--test", tmp_path / "test", "--runs", work / "runs"]
    words = ["--stages", "evaluate", "--variants", "full"]
    assert call("-o", tmp_path / "out", "--scale", "smoke", "--device", "cpu", *options, *words) == 24
    assert "rendered with the head 'another'" in " ".join(capsys.readouterr().err.split())
    assert not list((tmp_path / "out").rglob("*--by--*"))


def test_damaged_scores_are_named(work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "evaluation").mkdir()
    (tmp_path / "evaluation" / "full.json").write_text('{"format": "export3d-reproduce-scores", "version": 2}')
    assert call("-o", tmp_path, "--scale", "smoke", "--stages", "page") == 24
    assert "full.json: the scores are damaged" in " ".join(capsys.readouterr().err.split())
    (tmp_path / "evaluation" / "full.json").write_text('{"format": "export3d-reproduce-scores", "version": 7}')
    assert call("-o", tmp_path, "--scale", "smoke", "--stages", "page") == 24
    assert "another version" in capsys.readouterr().err


def test_a_page_without_scores_says_what_to_evaluate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("-o", tmp_path, "--scale", "smoke", "--stages", "page") == 0
    assert "no scores for reproduce_table4; evaluate cross-attention, full first" in capsys.readouterr().err
    assert "Nothing was scored yet" in (tmp_path / "results" / "tables.md").read_text()


def test_a_damaged_result_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(DataError, match=r"a\.json: not readable as JSON"):
        tables_page([tmp_path / "a.json"])
    (tmp_path / "a.json").write_text("[]")
    with pytest.raises(DataError, match=r"not readable as JSON .*Expected `object`, got `array`"):
        tables_page([tmp_path / "a.json"])


def test_a_table_shows_four_digits_and_a_dash_for_what_was_not_measured() -> None:
    assert table([{"": "x", "a": 1.23456}, {"": "y"}]) == ["|  | a |", "|---|---|", "| x | 1.235 |", "| y | - |"]


def test_an_output_that_cannot_be_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert call("-o", tmp_path / "file" / "work", "--scale", "smoke", "--stages", "data") == 30
    assert "cannot be made" in capsys.readouterr().err
