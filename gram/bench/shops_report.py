"""The figures of many shops as one table in Markdown, with a summary over the cells, and as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gram.bench.report import (
    MEASURES,
    OURS,
    describe_engines,
    format_figure,
    markdown_table,
    marked_cells,
    tell_quick,
)
from gram.folders import new_file, write_json

Cells = Sequence[Mapping[str, Any]]
"""What `measure_cell` writes."""


def write_table(folder: Path, cells: Cells, told: Mapping[str, Any]) -> None:
    """Writes table.md and results.json; `told` are the circumstances."""
    cells = sorted(cells, key=lambda cell: (cell["shop"], -cell["share"]))
    summaries = summaries_of(cells)
    write_json(folder / "results.json", {"cells": cells, "summary": summaries})
    with new_file(folder / "table.md") as path:
        path.write_text(markdown(cells, summaries, told), encoding="utf-8")


def summaries_of(cells: Cells) -> dict[str, Any]:
    """A summary of all cells, and of those of each log, the largest share first."""
    logs = dict.fromkeys(cell["log"] for cell in sorted(cells, key=lambda cell: -cell["share"]))
    found = {name: summarise([cell for cell in cells if cell["log"] == name]) for name in logs}
    return {"all": summarise(cells)} | (found if len(logs) > 1 else {})


def summarise(cells: Cells) -> dict[str, Any]:
    """{engine: {measure: {"mean", "ahead", "behind"}}}: the mean over cells, each counting the same, and in how many of
    them GRAM is ahead of and behind the engine by more than chance."""
    found: dict[str, Any] = {}
    for name in cells[0]["engines"]:
        found[name] = {}
        for measure in MEASURES:
            figures = [cell["engines"][name][measure] for cell in cells]
            markers = [one["marker"] for one in figures]
            mean = sum(one["mean"] for one in figures) / len(figures)
            found[name][measure] = {"mean": mean, "ahead": markers.count("-"), "behind": markers.count("+")}
    return {"cells": len(cells), "engines": found}


def markdown(cells: Cells, summaries: Mapping[str, Any], told: Mapping[str, Any]) -> str:
    """The whole report as a page."""
    parts = [
        "# Many shops",
        f"{told['cpu']}, {told['cores']} cores, networks on {told['device']}, seed {told['seed']}."
        f"{tell_quick(told['quick'])} Every figure of this page is made by:",
        "\n".join(f"    {command}" for command in told["commands"]),
        "`+` better, `-` worse than GRAM: paired randomisation test on the queries, two-sided, p < .05, not corrected "
        "for the number of tests. Rivals are tuned on the shop's dev part, also where the log is none.",
        _table_of(cells),
        describe_engines(cells[0]["engines"]),
        "## Summary",
        "Means over cells, each counting the same. In brackets: in how many cells GRAM is ahead / behind by more than "
        "chance.",
        _summary_of(summaries),
        "## Cells",
        "Weights: what GRAM's score, whole or of some features, is weighed by. `fitted`: on queries of this log that "
        "training held out. `default`: the declared weights, for there is no log, or too small a one; no query of the "
        "shop moved them, its dev part included. Without dev files the dev part is a tenth of the log's queries; all "
        "of them where the log is none.",
        _sizes_of(cells),
    ]
    without_log = dict.fromkeys(cell["shop"] for cell in cells if not cell["has_log"])
    if without_log:
        parts.append(f"Shops without a log of their own, so with no other cell: {', '.join(without_log)}.")
    return "\n\n".join(parts) + "\n"


def _table_of(cells: Cells) -> str:
    """A row an engine; shop and log stand in a cell's first row."""
    rows = []
    for cell in cells:
        for number, (name, row) in enumerate(cell["engines"].items()):
            where = ("", "") if number else (cell["shop"], cell["log"])
            rows.append((*where, name, *marked_cells(row, MEASURES)))
    return markdown_table(("shop", "log", "engine", *MEASURES), rows, left=3)


def _summary_of(summaries: Mapping[str, Any]) -> str:
    rows = []
    for log, summary in summaries.items():
        for number, (name, row) in enumerate(summary["engines"].items()):
            where = "" if number else f"{log} ({summary['cells']})"
            shown = [_with_counts(row[measure], name) for measure in MEASURES]
            rows.append((where, name, *shown))
    return markdown_table(("log (cells)", "engine", *MEASURES), rows, left=2)


def _with_counts(one: Mapping[str, Any], name: str) -> str:
    return format_figure(one["mean"]) + ("" if name == OURS else f" ({one['ahead']} / {one['behind']})")


def _sizes_of(cells: Cells) -> str:
    rows = [
        (
            cell["shop"],
            cell["log"],
            *(f"{cell[part]:,}" for part in ("products", "interactions", "dev_queries", "queries")),
            "fitted" if cell["fitted"] else "default",
        )
        for cell in cells
    ]
    head = ("shop", "log", "products", "interactions", "dev queries", "test queries", "weights")
    return markdown_table(head, rows, left=2)
