"""Runs side by side: which differ from a reference by more than chance, and a table that says so."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from gram.errors import SettingError
from gram.evaluation.measures import Result
from gram.evaluation.significance import LEVEL, significance


class ComparedRun(NamedTuple):
    """One run in a comparison: `p` and `marker` are empty for the reference.

    `marker` maps a measure to "+" (better than the reference, p < .05), "-" (worse) or "" (not told apart).
    """

    name: str
    mean: dict[str, float]
    p: dict[str, float]
    marker: dict[str, str]


def compare(results: Mapping[str, Result], reference: str | None = None, seed: int = 0) -> list[ComparedRun]:
    """Each run's means, with p and markers against the reference. p is not corrected for the number of runs."""
    if reference is not None and reference not in results:
        raise SettingError(f"No run is called '{reference}'. Fix: choose from {', '.join(results)}.")
    rows = []
    for name, result in results.items():
        p: dict[str, float] = {}
        marker: dict[str, str] = {}
        if reference is not None and name != reference:
            base = results[reference]
            for measure, values in result.per_query.items():
                if measure not in base.per_query:
                    raise SettingError(f"'{reference}' was not measured by {measure}, '{name}' was.")
                p[measure] = significance(values, base.per_query[measure], seed=seed)
                better = result.mean[measure] > base.mean[measure]
                marker[measure] = ("+" if better else "-") if p[measure] < LEVEL else ""
        rows.append(ComparedRun(name, dict(result.mean), p, marker))
    return rows


def table(results: Mapping[str, Result], reference: str | None = None, markdown: bool = False) -> str:
    """A table of means, one row a run, as aligned plain text or as Markdown.

    >>> print(table({"bm25": Result({"R@10": 0.5, "RR": 0.25}, {}), "gram": Result({"R@10": 0.625, "RR": 1.0}, {})}))
    run   R@10     RR
    bm25  .500   .250
    gram  .625  1.000
    """
    rows = compare(results, reference)
    measures = list(dict.fromkeys(measure for row in rows for measure in row.mean))
    marked = any(mark for row in rows for mark in row.marker.values())
    blank = " " if marked and not markdown else ""  # where a marker could stand, so that the points stay in line
    cells = [["run", *measures]]
    for row in rows:
        values = [_figure(row.mean[m]) + (row.marker.get(m) or blank) if m in row.mean else "" for m in measures]
        cells.append([row.name, *values])
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        [line[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(line[1:], widths[1:], strict=True))]
        for line in cells
    ]
    if markdown:
        rule = "|" + "|".join("-" * (w + 1) + ("-" if i == 0 else ":") for i, w in enumerate(widths)) + "|"
        text = ["| " + " | ".join(line) + " |" for line in lines]
        text.insert(1, rule)
    else:
        text = ["  ".join(line).rstrip() for line in lines]
    if reference is not None:
        text += ["", f"+ better, - worse than {reference}: paired randomisation test, two-sided, p < .05"]
    return "\n".join(text)


def _figure(value: float) -> str:
    return f"{value:.3f}".removeprefix("0") if value >= 0 else f"{value:.3f}"
