"""Runs side by side: which differ from a reference by more than chance, and a table that says so."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from gram.errors import SettingError
from gram.evaluation.measures import Result

PERMUTATIONS = 10_000
LEVEL = 0.05
"""p below this is marked in tables."""


def significance(
    a: Mapping[str, float], b: Mapping[str, float], permutations: int = PERMUTATIONS, seed: int = 0
) -> float:
    """The p of a two-sided paired randomisation test: how often chance alone sets the means so far apart, or further.

    `a` and `b` are one measure's values per query, of the same queries. If neither run were better, each query's two
    values could as well be swapped (Smucker et al., CIKM 2007). Every way of swapping is tried where there are no more
    than `permutations` of them, else so many random ones, and p = (as far apart + 1) / (tried + 1).
    """
    if a.keys() != b.keys():
        raise SettingError(f"A paired test needs the same queries on both sides; {len(a.keys() ^ b.keys())} differ.")
    differences = np.array([a[q] - b[q] for q in a], dtype=np.float64)
    differences = np.abs(differences[differences != 0])  # (D,), swapping equal values changes nothing
    observed = abs(sum(a[q] - b[q] for q in a))
    if not len(differences):
        return 1.0
    far = observed - 1e-9 * max(observed, 1.0)  # sums in another order differ in their last digits
    if 2 ** len(differences) <= permutations:
        ways = np.arange(2 ** len(differences))[:, None] >> np.arange(len(differences)) & 1  # (2^D, D)
        return float(np.mean(np.abs((2 * ways - 1) @ differences) >= far))
    rng = np.random.default_rng(seed)
    as_far, step = 0, 500
    for start in range(0, permutations, step):
        size = (min(step, permutations - start), len(differences))
        swapped = rng.integers(0, 2, size=size, dtype=np.int8)  # (step, D)
        sums = 2 * (swapped @ differences) - differences.sum()  # (step,)
        as_far += int(np.count_nonzero(np.abs(sums) >= far))
    return (as_far + 1) / (permutations + 1)


class Row(NamedTuple):
    """One run in a comparison: `p` and `marker` are empty for the reference.

    `marker` maps a measure to "+" (better than the reference, p < .05), "-" (worse) or "" (not told apart).
    """

    name: str
    mean: dict[str, float]
    p: dict[str, float]
    marker: dict[str, str]


def compare(results: Mapping[str, Result], reference: str | None = None, seed: int = 0) -> list[Row]:
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
        rows.append(Row(name, dict(result.mean), p, marker))
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
