"""The paper's orderings against hand-made scores: agrees, differs, within the interval, not measured."""

from __future__ import annotations

import numpy as np
import pytest

from export3d.evaluation.scores.scoring import METRICS, SAME_IDENTITY_ONLY
from export3d.reproduce.claims import (
    FEWEST_CLIPS,
    SECOND_HAND,
    TABLE3_CLAIMS,
    TABLE4_CLAIMS,
    Claim,
    judge,
)
from export3d.reproduce.scores import Scores
from export3d.reproduce.settings import TABLE3, TABLE4


def scores(metric: str, values: list[float], *, kind: str = "cross", pairs: list[str] | None = None) -> Scores:
    names = pairs or [str(i) for i in range(len(values))]
    return Scores(
        name="x", facts={}, pairs={kind: names}, values={kind: {"model": {metric: np.array(values)}}}, quality=None
    )


def claim(metric: str, relation: str = "better") -> Claim:
    return Claim(
        source="",
        quote="",
        kind="cross",
        metric=metric,
        better="a",
        worse="b",
        relation=relation,  # type: ignore[arg-type]
    )


A = [0.9, 0.8, 0.7, 0.9, 0.8, 0.7]


@pytest.mark.parametrize(
    ("metric", "shift", "verdict", "mean"),
    [
        ("csim_source", -0.1, "agrees", 0.1),  # higher is better, and a is 0.1 higher in every clip
        ("csim_source", 0.1, "differs", -0.1),
        ("aed", 0.1, "agrees", 0.1),  # lower is better, and b is 0.1 higher
        ("aed", -0.1, "differs", -0.1),
    ],
)
def test_a_steady_difference_gives_a_verdict(metric: str, shift: float, verdict: str, mean: float) -> None:
    row = judge(claim(metric), {"a": scores(metric, A), "b": scores(metric, [x + shift for x in A])})
    assert row["verdict"] == verdict
    assert row["difference"]["mean"] == pytest.approx(mean) and row["difference"]["clips"] == 6


def test_a_difference_of_both_signs_lies_within_the_interval() -> None:
    b = [x + (0.1 if i % 2 else -0.1) for i, x in enumerate(A)]
    row = judge(claim("psnr"), {"a": scores("psnr", A), "b": scores("psnr", b)})
    assert row["verdict"] == "within the confidence interval"
    assert row["difference"]["low"] < 0 < row["difference"]["high"]
    assert judge(claim("psnr", "no_change"), {"a": scores("psnr", A), "b": scores("psnr", b)})["verdict"] == "agrees"


def test_no_change_differs_where_there_is_a_change_of_either_sign() -> None:
    for shift in (0.1, -0.1):
        found = {"a": scores("psnr", A), "b": scores("psnr", [x + shift for x in A])}
        assert judge(claim("psnr", "no_change"), found)["verdict"] == "differs"


def test_few_clips_and_missing_variants_give_no_verdict() -> None:
    few = A[: FEWEST_CLIPS - 1]
    row = judge(claim("psnr"), {"a": scores("psnr", few), "b": scores("psnr", [x + 9 for x in few])})
    assert row["verdict"] == "not measured: 4 clips are too few"
    assert judge(claim("psnr"), {"a": scores("psnr", A)})["verdict"] == "not measured"
    assert judge(claim("psnr"), {"a": scores("psnr", A), "b": scores("aed", A)})["verdict"] == "not measured"


def test_only_clips_that_both_have_are_compared() -> None:
    a = scores("psnr", [1, 1, 1, 1, 1, 100], pairs=list("uvwxyz"))
    b = scores("psnr", [0, 0, 0, 0, 0, float("nan")], pairs=list("uvwxyz"))
    row = judge(claim("psnr"), {"a": a, "b": b})
    assert row["difference"] == {"mean": 1.0, "low": 1.0, "high": 1.0, "clips": 5, "missing": 1}
    shifted = scores("psnr", [0, 0, 0, 0, 0, 0], pairs=list("vwxyzt"))  # order and members differ
    assert judge(claim("psnr"), {"a": a, "b": shifted})["difference"]["mean"] == pytest.approx((4 + 100) / 5)


def test_every_claim_names_variants_of_its_table_and_a_metric_that_exists() -> None:
    for claims, table in ((TABLE3_CLAIMS, TABLE3), (TABLE4_CLAIMS, TABLE4)):
        for one in claims:
            assert {one.better, one.worse} <= set(table) and one.metric in METRICS
            assert one.kind == "same" or one.metric not in SAME_IDENTITY_ONLY
            assert one.quote and one.source
    assert set(SECOND_HAND["reproduce_table3"]) == set(TABLE3)
