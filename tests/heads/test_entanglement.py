"""The entanglement table: its numbers by hand, and that a fit to landmarks does carry identity."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from export3d.cli import main
from export3d.errors import UsageError
from export3d.heads.clips.entanglement import (
    EntanglementConfig,
    between_identity_share,
    measure_entanglement,
    nearest_identity_accuracy,
    regression_errors,
)
from export3d.heads.clips.extractor import ExtractorConfig, LinearExtractor
from export3d.heads.shape.procedural import procedural_head


def test_between_identity_share_by_hand() -> None:
    # Two people, two frames, one number: 1, 3 and 5, 7. Means 2 and 6, variance of the means 4.
    # All frames: mean 4, squared deviations 9, 1, 1, 9, variance 5. Share 4 / 5.
    beta = torch.tensor([[[1.0], [3.0]], [[5.0], [7.0]]])
    assert between_identity_share(beta) == pytest.approx(0.8)


def test_nearest_identity_accuracy_by_hand() -> None:
    # Person 0 is at 0 in the first half and at 1 in the second, person 1 at 4 and then at 1.9. 1 is nearest to 0, its
    # own first half: right. 1.9 is 1.9 away from 0 and 2.1 away from 4: wrong. One of two.
    beta = torch.tensor([[[0.0], [1.0]], [[4.0], [1.9]]])
    assert nearest_identity_accuracy(beta) == pytest.approx(0.5)


def test_regression_errors_agree_with_a_plain_least_squares_fit() -> None:
    generator = torch.Generator().manual_seed(0)
    train_x, test_x = (torch.randn(4, 30, 3, generator=generator, dtype=torch.float64) * 10 for _ in range(2))
    matrix = torch.randn(3, 2, generator=generator, dtype=torch.float64)
    noise = torch.randn(4, 30, 2, generator=generator, dtype=torch.float64)
    train_y, test_y = train_x @ matrix + 2.0 + noise, test_x @ matrix + 2.0
    error, deviation = regression_errors(train_x, train_y, test_x, test_y)
    ones = torch.ones(120, 1, dtype=torch.float64)
    design = torch.cat([train_x.reshape(-1, 3), ones], 1)
    solution = torch.linalg.lstsq(design, train_y.reshape(-1, 2)).solution
    answer = torch.cat([test_x.reshape(-1, 3), ones], 1) @ solution
    truth = test_y.reshape(-1, 2)
    # The ridge term is 0.01 beside a variance of 100: it changes the answer by one part in ten thousand.
    torch.testing.assert_close(error, ((truth - answer) ** 2).sum(0), rtol=0.05, atol=0)
    torch.testing.assert_close(deviation, ((truth - truth.mean(0)) ** 2).sum(0))


def test_the_table_shows_identity_in_beta_hat_and_expression_that_can_be_read() -> None:
    head = procedural_head()
    extractor = LinearExtractor.build(head, ExtractorConfig(statistics_identities=20, statistics_frames=8))
    config = EntanglementConfig(identities=10, frames=20, train_identities=20)
    rows = measure_entanglement(head, extractor, config)
    assert [(row.beta, row.resting_offset) for row in rows] == [
        ("true beta", True),
        ("beta-hat", True),
        ("true beta", False),
        ("beta-hat", False),
    ]
    true_rested, fit_rested, _, fit_plain = rows
    assert true_rested.expression_r2 is None
    # Chance is 0.1. Without resting faces true beta holds nothing of the person, the fit does.
    assert fit_rested.nearest_identity_accuracy > 0.3
    for row in (fit_rested, fit_plain):
        assert row.expression_r2 is not None and 0.5 < row.expression_r2 < 1.0
        assert row.expression_r2_within_clips is not None and 0.5 < row.expression_r2_within_clips < 1.0
    assert measure_entanglement(head, extractor, config) == rows


def test_more_people_than_the_test_split_holds_are_refused() -> None:
    with pytest.raises(UsageError, match="must be at least 2"):
        EntanglementConfig(identities=1)
    with pytest.raises(UsageError, match="the test split has 100 identities; got 60 from 50 on"):
        EntanglementConfig(identities=60, seed=50)


def test_the_command_prints_the_table_and_keeps_it_with_its_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("EXPORT3D_HEAD_MODEL", raising=False)
    output = tmp_path / "results" / "entanglement.json"
    sizes = ["--identities", "3", "--frames", "6", "--train-identities", "4"]
    assert main(["heads", "entanglement", *sizes, "-o", str(output)]) == 0
    assert "beta-hat" in capsys.readouterr().out
    result = json.loads(output.read_text())
    assert result["command"].startswith("export3d heads entanglement --identities 3")
    assert result["head"] == "procedural" and len(result["rows"]) == 4
    assert result["extractor"]["expression_space"] == "ict64"
