"""docs/provenance.md says what results/watermark.json and results/allowed.json say."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from export3d.errors import CertificateError, SourceNotAllowedError
from export3d.provenance import detect, verify, waves

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs" / "provenance.md").read_text(encoding="utf-8")


def result(name: str) -> dict[str, Any]:
    return json.loads((ROOT / "results" / f"{name}.json").read_text(encoding="utf-8"))


def test_the_table_of_attacks_is_that_of_the_benchmark(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(ROOT / "benchmarks"), *sys.path])
    spec = importlib.util.spec_from_file_location("watermark", ROOT / "benchmarks" / "watermark.py")
    assert spec is not None and spec.loader is not None
    benchmark = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(benchmark)
    assert benchmark.table(result("watermark")) in DOCUMENT


def test_the_figures_of_false_alarms_are_those_measured() -> None:
    found = result("watermark")["false_alarms"]
    assert found["threshold"] == round(detect.score_threshold(), 3)
    for name in ("frames_at_their_own_size", "highest_score_of_a_frame", "videos_at_every_size", "alarms"):
        assert f"{found[name]:,}" in DOCUMENT


def test_the_figures_of_small_stills_are_those_measured() -> None:
    found = result("small_marks")
    count, psnr, text = found["pictures"], found["psnr_db"], " ".join(DOCUMENT.split())
    assert f"Of {count} pictures of {found['pixels']} pixels ({found['portraits']} people" in text
    assert all(f"{row['right']} of {count} as {name}" in text for name, row in found["found"].items())
    assert found["alarms_unmarked"] == 0 and all(row["wrong"] == 0 for row in found["found"].values())
    assert f"{psnr['mean']} dB on average ({psnr['lowest']} at least" in text


def test_the_thresholds_of_small_pictures_are_those_of_the_code() -> None:
    written, others = detect.score_threshold(0.1e-6, poses=1, shifts=1), detect.score_threshold(0.9e-6)
    assert f"Below {detect.SMALL_PX} pixels" in DOCUMENT
    assert f"{written:.2f} is enough" in DOCUMENT and round(others - detect.score_threshold(), 2) == 0.01


def test_the_figures_of_allowed_sources_are_those_measured() -> None:
    found = result("allowed")
    for name in ("portraits", "other_faces", "pairs_of_different_faces", "wrongly_passed", "fewest_different_bits"):
        assert f"{found[name]:,}" in DOCUMENT


def test_constants_and_codes_in_the_text_are_those_of_the_code() -> None:
    poses = 1 + 2 * (len(detect.all_scales()) + 5 * 6)
    said = (
        f"{len(waves.waves().y)} waves",
        f"{len(detect.all_scales())} sizes",
        f"{poses} sizes and mirrorings",
        "9.66",
    )
    assert all(text in DOCUMENT for text in said) and round(detect.score_threshold(), 2) == 9.66
    for code in (0, verify.MANIFEST_ONLY, verify.MARK_ONLY, verify.NOTHING, verify.TAMPERED):
        assert f"| {code} |" in DOCUMENT
    assert f"(exit code {CertificateError.exit_code})" in DOCUMENT
    assert f"with exit code {SourceNotAllowedError.exit_code}" in DOCUMENT.replace("\n", " ")
