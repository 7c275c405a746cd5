"""tables.md and docs/paper_results.md: our numbers beside what the paper's text says about them (Secs. 4.2, 4.3).

Every number comes from the result files of `reproduce.tables`; they hold all of them, the page the paper's own metrics.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from export3d.evaluation.figures.markdown import shown, table
from export3d.reproduce.claims import NOT_MEASURED
from export3d.reproduce.settings import SCALES, TABLE3, TABLE4
from export3d.reproduce.tables import read_result

TITLES = {
    "reproduce_main": "Tables 1 and 2",
    "reproduce_table3": "Table 3: expression encoding",
    "reproduce_table4": "Table 4: conditioning",
}
SHOWN_METRICS = (
    "psnr",
    "ssim_gaussian",
    "akd",
    "csim_source",
    "aed",
    "apd",
    "lpips",
    "expression_error",
    "swap_psnr",
    "leak_cost",
)
BUDGET_COLUMNS = ("samples", "share_of_the_papers_samples", "steps", "batch", "hours")
PAPER_SCALE = "paper-small"
PAPER_COMMAND = (
    "export3d reproduce -o work --scale paper-small --data data/train --test data/test --head-model ict_lite.npz "
    "--results results --pictures docs/pictures/paper"
)
FIGURES = {
    "clebs_tsne.png": "Fig. 8: t-SNE of beta and of beta', a colour for each person",
    "sweep.png": "Figs. 9 and 13: every basis vector from its low to its high end",
    "same_identity.jpg": "Fig. 4: source, driver and result of the same person",
    "cross_identity.jpg": "Fig. 5: of different persons",
    "novel_view.jpg": "Figs. 10 and 14: views with transfer",
    "ablation_expression.jpg": "Fig. 6: rows of Table 3",
    "ablation_error.jpg": "Fig. 7: their errors",
    "ablation_eadaln.jpg": "Rows of Table 4",
    "phase2.jpg": "Phase 2: with the discriminator and without it",
}
UNEQUAL = {
    "equal_budget": "**The rows were trained with different numbers of samples; their differences are not the variants'.**",
    "equal_test": "**The rows were scored on different clips or by different back ends.**",
}


def tables_page(files: Sequence[Path]) -> str:
    """The page as Markdown.

    Args:
        files: result files of `tables.write_results`; those that are missing are left out.

    Raises:
        DataError: A file is not a JSON object.
    """
    lines = ["# Tables of the reproduction", ""]
    for path in files:
        content = read_result(path)
        lines += [f"## {TITLES.get(path.stem, path.stem)}", "", f"`{path.name}`: `{content['command']}`", ""]
        lines += [*section(content), ""]
    return "\n".join(lines if files else [*lines, "Nothing was scored yet: run the stage `evaluate` first.", ""])


def paper_page(folder: Path, pictures: Path | None = None) -> str:
    """docs/paper_results.md: Tables 3 and 4 at the stated budget, or that they were not run at it, and the figures.

    Rows trained with another seed follow their table: `reproduce_table3_seed1.json`.

    Args:
        folder: with the result files.
        pictures: folder of the figures of `full`, as it lies beside the page in `pictures/paper`; None shows none.

    Raises:
        DataError: A file is not a JSON object.
    """
    samples = SCALES[PAPER_SCALE].samples
    lines = [
        *("# The paper's claims", ""),
        f"Tables 3 and 4 on the paper's own network (preset `paper-small`): {samples:,} training samples a row, the same",
        "clips, order, loss and seed for every row, 100 test people. A claim is judged by the difference of two rows on the",
        "same pairs of source and driver, with a bootstrap interval (95 %) over people: it agrees or differs where the",
        "interval leaves out 0.",
        "Beside the paper's metrics stands what exact truth tells: `swap_psnr`, the result against the exact rendering of the",
        "source person with the driver's expression; `leak_cost`, what the driver's person in beta costs of it;",
        "`expression_error`, against the true coefficients. One command makes both tables and goes on where it was stopped,",
        "row by row; another `--seed` and folder give another seed. CLeBS alone: [the expression code](results/expression.md).",
        *("", "```", PAPER_COMMAND, "```", ""),
    ]
    for name, members in (("reproduce_table3", TABLE3), ("reproduce_table4", TABLE4)):
        path = folder / f"{name}.json"
        content = read_result(path) if path.is_file() else {"scale": None, "budget": {}}
        lines += [f"## {TITLES[name]}", ""]
        rows = [facts.get("samples") or 0 for facts in content["budget"].values()]
        if content["scale"] != PAPER_SCALE or not rows or min(rows) < samples:
            lines += ["**Not yet run at this budget.**"]
            if rows:
                there = f"`{path.name}` holds {min(rows):,} samples a row"
                lines += [f"{there}, which decides nothing ([tables](results/tables.md))."]
            lines += [""]
            continue
        lines += [f"`{path.name}`: `{content['command']}`, {content['date']}, seed {content['seed']}", ""]
        missing = [row for row in members if row not in content["budget"]]
        lines += [f"**Not yet run: {', '.join(missing)}.**", ""] if missing else []
        lines += [*_pretraining(content.get("clebs")), *section(content), ""]
        for other in sorted(folder.glob(f"{name}_seed*.json")):
            content = read_result(other)
            said = f"`{other.name}`: `{content['command']}`, {content['date']}"
            lines += [f"### Seed {content['seed']}", "", said, "", *section(content), ""]
    if (path := folder / "phase2.json").is_file():
        lines += ["## Phase 2", "", *_phase2(read_result(path)), ""]
    found = [name for name in FIGURES if pictures is not None and (pictures / name).is_file()]
    if found:
        seen = pictures / "seen.txt" if pictures is not None else Path()  # what somebody who looked at them says
        lines += ["## Figures", "", seen.read_text(encoding="utf-8").strip() if seen.is_file() else "Unpicked.", ""]
        lines += [line for name in found for line in (f"{FIGURES[name]}:", "", f"![{name}](pictures/paper/{name})", "")]
    return "\n".join(lines)


def _pretraining(clebs: dict[str, Any] | None) -> list[str]:
    """How the frozen encoder of `full` and `cross-attention` was trained."""
    if clebs is None:
        return []
    printed = not clebs["include_positive"] and not clebs["symmetric"]
    loss = "Eq. 1 as printed" if printed else "a symmetric InfoNCE" if clebs["symmetric"] else "InfoNCE"
    steps, frames = clebs["steps"], clebs["frames_per_clip"]
    return [f"CLeBS of `full` and `cross-attention`: {loss}, {steps:,} steps, {frames} frames of a clip.", ""]


def _phase2(content: dict[str, Any]) -> list[str]:
    """What the discriminator changes (Eq. 14): the two models beside the one they began with, and their differences."""
    rows = {name: {key: shown(value) for key, value in row.items()} for name, row in content["rows"].items()}
    pairs = content["differences"]
    metrics = list(dict.fromkeys(metric for row in pairs.values() for metric in row))
    return [
        "One model of phase 1 (`full`), trained on with the discriminator and without it, else alike and for as long",
        f"(`phase2.json`: `{content['command']}`, {content['date']}). Against exact truth:",
        *("", *_grid(rows), "", "Paired differences, 95 %:", ""),
        *table(
            [{"metric": m, **{name: _interval(row[m]) for name, row in pairs.items() if m in row}} for m in metrics]
        ),
    ]


def section(content: dict[str, Any]) -> list[str]:
    """Budget, scores with intervals, and the paper's orderings of one result file, as lines of Markdown."""
    lines = [line for fact, warning in UNEQUAL.items() if content.get(fact) is False for line in (warning, "")]
    budget = {
        name: {column: facts.get(column) for column in BUDGET_COLUMNS} for name, facts in content["budget"].items()
    }
    lines += [*_grid(budget), ""]
    for kind in ("same", "cross"):
        if content.get(kind):
            lines += [f"{kind.capitalize()} identity, {content['pairs'][kind]} pairs:", ""]
            lines += [*_grid({method: _scores(metrics) for method, metrics in content[kind].items()}), ""]
    waiting = [claim for claim in content["claims"] if claim["verdict"] == NOT_MEASURED]
    lines += table([_claim(claim) for claim in content["claims"] if claim not in waiting])
    return lines + (["", f"{len(waiting)} more orderings wait for what was not measured."] if waiting else [])


def _scores(metrics: dict[str, Any]) -> dict[str, str]:
    return {name: _interval(row) for name, row in metrics.items() if name in SHOWN_METRICS}


def _claim(claim: dict[str, Any]) -> dict[str, str]:
    """One ordering of the paper, as we measure it, with its verdict."""
    sign = "as good as" if claim.get("relation") == "no_change" else "better than"
    ordering = f"{claim.get('better')} {sign} {claim.get('worse')}"
    return {
        "the paper": f'{claim["source"]}: "{claim["quote"]}"',
        "measured as": f"{claim['metric']}, {claim['protocol']}: {ordering}" if "metric" in claim else "-",
        "difference": _interval(claim["difference"]) if claim.get("difference") else "-",
        "verdict": claim["verdict"],
    }


def _interval(row: dict[str, Any]) -> str:
    return f"{shown(row['mean'])} [{shown(row['low'])}, {shown(row['high'])}]"


def _grid(rows: dict[str, dict[str, Any]]) -> list[str]:
    return table([{"method": name, **cells} for name, cells in rows.items()])
