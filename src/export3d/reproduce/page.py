"""The sections of docs/results.md about a reproduction: our numbers beside what the paper says (Secs. 4.2, 4.3).

Every number comes from the result file; words without numbers are fixed.
"""

from __future__ import annotations

from typing import Any

from export3d.evaluation.figures.markdown import shown, table
from export3d.reproduce.claims import NOT_MEASURED, NOT_TESTED

TITLES = {"same": "Same identity", "cross": "Cross identity"}
METHOD = "method"
BUDGET_COLUMNS = (
    *("samples", "share_of_the_papers_samples", "steps", "batch", "hours"),
    *("expression", "expression_pretrained", "basis_vectors", "conditioning"),
)
SHOWN_METRICS = (
    *("psnr", "ssim_gaussian", "akd", "csim_source", "aed", "apd", "lpips"),
    *("depth_error", "camera_angle_error", "expression_error", "view_error"),
)
"""The paper's metrics and those against exact truth; the file holds all of them."""

NO_CLAIM_TESTED = (
    "What the paper's text says about these tables compares it with other authors' methods. This project does not hold "
    "them, so none of it is tested here."
)
CLAIMS_INTRO = (
    "What the paper's text says about these rows, one line per ordering. The metric is our reading of the words. The "
    "difference is that of the two variants over the same clips, its sign turned so that positive agrees with the paper; "
    "a verdict is given only where the interval lies on one side of zero. One training seed each: the intervals know of "
    "clips, not of seeds, and are not corrected for the number of orderings. "
    "An ordering 'no_change' agrees where the interval holds zero, which few clips make easy."
)
SECOND_HAND_INTRO = "Second-hand values of the paper's table, **unverified**:"
LOW_BUDGET = (
    "The budget of each row is below; the paper's training is much longer, and on real videos. These tables show whether "
    "the orderings appear at this budget, not what the method can reach."
)
UNEQUAL = (
    "**The rows were trained with different numbers of samples; their differences are not those of the variants.**"
)
UNEQUAL_TEST = "**The rows were scored on different clips or by different back ends.**"


def reproduction_section(content: dict[str, Any]) -> list[str]:
    """Lines of Markdown of one result file.

    Args:
        content: a file of `tables.write_results`.
    """
    lines: list[str] = [LOW_BUDGET, ""]
    if content.get("equal_budget") is False:
        lines += [UNEQUAL, ""]
    if content.get("equal_test") is False:
        lines += [UNEQUAL_TEST, ""]
    lines += _budget(content)
    for kind, title in TITLES.items():
        if content.get(kind):
            pairs, level = content["pairs"][kind], content["bootstrap"]["level"]
            lines += [
                f"{title}, {pairs} pairs; in brackets the bootstrap interval over clips, level {shown(level)}.",
                "",
            ]
            lines += [*_scores(content[kind]), ""]
    if content.get("quality"):
        lines += ["Against exact truth, same identity (decibels; depth in scene units):", ""]
        lines += [*_grid(content["quality"]), ""]
    lines += _claims(content)
    second = content["second_hand"]
    lines += [SECOND_HAND_INTRO, "", f"From {second['source']}", "", *_grid(second["rows"]), ""]
    data = content["data"]
    for name, facts in data.items():
        if facts:
            lines.append(
                f"- {name} clips: {facts['people']} people, {facts['clips']} clips, {facts['frames']} frames, "
                f"{facts['size']} px, extractor {facts['extractor']['name']}"
            )
    for what, info in content["backends"].items():
        lines.append(f"- {what}: {info['name']} {info['version']}, sha256 {info['sha256'] or 'not recorded'}")
    versions = "; ".join(f"{name} {value}" for name, value in content["versions"].items())
    lines.append(f"- made with {versions}; scale `{content['scale']}`")
    return lines


def _budget(content: dict[str, Any]) -> list[str]:
    paper = content["paper_budget"]
    head = [
        f"The paper trains on {paper['samples']} samples ({paper['steps']} steps of {paper['batch']}) before its second "
        "phase.",
        "",
    ]
    rows = {
        member: {column: facts.get(column) for column in BUDGET_COLUMNS} for member, facts in content["budget"].items()
    }
    return [*head, *_grid(rows), ""]


def _scores(methods: dict[str, Any]) -> list[str]:
    cells = {
        method: {
            metric: f"{shown(row['mean'])} [{shown(row['low'])}, {shown(row['high'])}]"
            for metric, row in metrics.items()
            if metric in SHOWN_METRICS
        }
        for method, metrics in methods.items()
    }
    lines = _grid(cells)
    missing = {
        method: max((row["missing"] for row in metrics.values()), default=0) for method, metrics in methods.items()
    }
    named = [f"{method} {count}" for method, count in missing.items() if count]
    return [*lines, *(["", f"Pairs without any value of some metric: {', '.join(named)}."] if named else [])]


def _claims(content: dict[str, Any]) -> list[str]:
    claims = content["claims"]
    if all(claim["verdict"] == NOT_TESTED for claim in claims):
        return [NO_CLAIM_TESTED, "", *(f'- {c["source"]}: "{c["quote"]}"' for c in claims), ""]
    lines = [CLAIMS_INTRO, ""]
    if content["verdicts"]:
        lines += ["; ".join(f"{verdict}: {count}" for verdict, count in content["verdicts"].items()) + ".", ""]
    rows = []
    before = None
    for claim in claims:
        difference = claim["difference"]
        cell = "-"
        if difference is not None:
            cell = f"{shown(difference['mean'])} [{shown(difference['low'])}, {shown(difference['high'])}]"
        sign = "as good as" if claim["relation"] == "no_change" else "better than"
        rows.append(
            {
                "the paper": "as above" if claim["quote"] == before else _quote(claim),
                "measured as": f"{claim['metric']}, {claim['protocol']} identity: {claim['better']} {sign} {claim['worse']}",
                "difference": cell,
                "ours": claim["verdict"] if claim["verdict"].startswith(NOT_MEASURED) else f"**{claim['verdict']}**",
            }
        )
        before = claim["quote"]
    return [*table(rows), ""]


def _quote(claim: dict[str, Any]) -> str:
    return f'{claim["source"]}: "{claim["quote"]}"'


def _grid(rows: dict[str, dict[str, Any]]) -> list[str]:
    return table([{METHOD: name, **cells} for name, cells in rows.items()])
