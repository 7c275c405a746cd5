"""Markdown cells and tables, for every page that is made from result files (no section)."""

from __future__ import annotations

import math
from typing import Any


def shown(value: Any) -> str:
    """One cell: four digits, yes or no, a dash for what was not measured; short lists in one cell."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list):
        return ", ".join(shown(v) for v in value)
    return str(value).replace("|", "\\|").replace("\n", " ")


def table(rows: list[dict[str, Any]]) -> list[str]:
    """A Markdown table of rows by column name; cells as `shown` writes them."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    lines = ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
    return lines + ["| " + " | ".join(shown(row.get(column)) for column in columns) + " |" for row in rows]
