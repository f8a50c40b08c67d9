"""The benchmark's figures as JSON and as tables in Markdown, each rival with its paired significance against GRAM."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from gram.baselines.base import TrainingData
from gram.bench.ablation import WHOLE
from gram.bench.cuts import query_cuts
from gram.bench.plots import plot_latency, plot_recall
from gram.bench.rows import ENTRANTS
from gram.data.log import Qrels
from gram.evaluation.significance import LEVEL, significance
from gram.folders import new_file, read_json, write_json

OURS = "gram"
MEASURES = ("R@10", "R@100", "R@300", "nDCG@10")
MORE_MEASURES = ("R@50", "RR", "relevance")
CUT_MEASURES = ("R@10", "R@100", "nDCG@10")

Values = Mapping[str, float]
"""One measure's value per query."""
Figures = Mapping[str, Mapping[str, Any]]
"""`figures/NAME.json` by name."""


def write_report(folder: Path, data: TrainingData, queries: Mapping[str, str], qrels: Qrels) -> Path:
    """Writes table.md, results.json and plots/ from the figures that `folder` has; returns the table's path.

    Raises MissingExtra without matplotlib.
    """
    figures = {name: read_json(path) for name in ENTRANTS if (path := folder / "figures" / f"{name}.json").is_file()}
    ablated = [read_json(path) for path in sorted((folder / "figures" / "ablation").glob("*.json"))]
    results = results_of(figures, [one for one in ablated if one], query_cuts(data.products, data.log, queries, qrels))
    write_json(folder / "results.json", results)
    if figures:
        means = {name: one["mean"] for name, one in figures.items()}
        plot_recall(means, folder / "plots" / "recall")
        plot_latency(means, {n: one["latency"]["p50_ms"] for n, one in figures.items()}, folder / "plots" / "latency")
    with new_file(folder / "table.md") as path:
        path.write_text(markdown(results, read_json(folder / "bench.json")), encoding="utf-8")
    return folder / "table.md"


def results_of(
    figures: Figures, ablated: Sequence[Mapping[str, Any]], cuts: Mapping[str, Iterable[str]]
) -> dict[str, Any]:
    """All that the report says. A measure is {"mean", "p", "marker"}: p of the test against GRAM, null for GRAM itself,
    and "+" or "-" where it is better or worse than GRAM by more than chance."""
    per_query = {name: one["per_query"] for name, one in figures.items()}
    found: dict[str, Any] = {"all": beside(per_query, (*MEASURES, *MORE_MEASURES))}
    found["engines"] = {
        name: {
            "queries_per_second": one["queries"] / max(one["search_seconds"], 1e-9),
            **one["latency"],
            **{k: one[k] for k in ("index_bytes", "training_seconds", "unanswered", "settings", "device")},
        }
        for name, one in figures.items()
    }
    found["cuts"] = {}
    for cut, ids in cuts.items():
        kept = set(ids)
        part = {n: {m: _only(v[m], kept) for m in CUT_MEASURES} for n, v in per_query.items()}
        found["cuts"][cut] = {"queries": len(kept), "engines": beside(part, CUT_MEASURES)}
    found["products"] = {}
    for side in ("seen", "unseen"):
        rows = {name: one[side] for name, one in figures.items()}
        n = max((len(row["R@100"]) for row in rows.values()), default=0)
        found["products"][side] = {"queries": n, "engines": beside(rows, ("R@100",))}
    found["misspelt"] = _misspelt(figures)
    found["ablation"] = _ablation(ablated, figures)
    return found


def beside(rows: Mapping[str, Mapping[str, Values]], measures: Sequence[str], ours: str = OURS) -> dict[str, Any]:
    """Each row's means, with p and marker against the row `ours` on the queries that both have."""
    found: dict[str, Any] = {}
    for name, row in rows.items():
        found[name] = {}
        for measure in measures:
            other = rows[ours][measure] if ours in rows and name != ours else {}
            both = sorted(row[measure].keys() & other.keys())
            one, other = {q: row[measure][q] for q in both}, {q: other[q] for q in both}
            p = significance(one, other) if both else None
            told_apart = p is not None and p < LEVEL
            marker = ("+" if sum(one.values()) > sum(other.values()) else "-") if told_apart else ""
            found[name][measure] = {"mean": _mean(row[measure]), "p": p, "marker": marker}
    return found


def _mean(values: Values) -> float | None:
    return sum(values.values()) / len(values) if values else None


def _only(values: Values, ids: set[str]) -> dict[str, float]:
    return {query_id: value for query_id, value in values.items() if query_id in ids}


def _misspelt(figures: Figures) -> dict[str, Any]:
    """R@100 on the queries that got a typo, with it and without, and the share kept."""
    wrong = {name: one["misspelt"] for name, one in figures.items()}
    engines = beside(wrong, ("R@100",))
    n = 0
    for name, one in figures.items():
        n = len(wrong[name]["R@100"])
        clean, typed = _mean(_only(one["per_query"]["R@100"], set(wrong[name]["R@100"]))), engines[name]["R@100"]
        kept = typed["mean"] / clean if clean else None
        engines[name] = {"clean": clean, "misspelt": typed, "kept": kept}
    return {"queries": n, "engines": engines}


def _ablation(ablated: Sequence[Mapping[str, Any]], figures: Figures) -> list[dict[str, Any]]:
    """GRAM's variants, each beside what it was made from: what was fitted anew beside all features fitted anew."""
    whole: dict[str, Mapping[str, Values]] = {WHOLE: figures[OURS]["per_query"]} if OURS in figures else {}
    refitted = {one["name"]: one["per_query"] for one in ablated if one["way"] == "refitted"}
    other = {one["name"]: one["per_query"] for one in ablated if one["way"] != "refitted"}
    ways = {one["name"]: one["way"] for one in ablated if one["way"] != "refitted"} | {WHOLE: "as trained"}
    found = []
    for rows in (whole | other, refitted):
        for name, row in beside(rows, MEASURES, WHOLE).items():
            found.append({"name": name, "way": "refitted" if rows is refitted else ways[name], **row})
    return found


def markdown(results: Mapping[str, Any], circumstances: Mapping[str, Any]) -> str:
    """The whole report as a page."""
    parts = ["# Benchmark", *_setting(circumstances), *_main_table(results), *_costs(results), *_query_groups(results)]
    parts += [*_product_groups(results), *_misspelt_queries(results), *_parts_of_gram(results)]
    return "\n\n".join(parts) + "\n"


def tell_quick(quick: bool) -> str:
    """What is to be said of a trial's figures; nothing of others'."""
    return " Everything was cut short by `--quick`: these figures say nothing." if quick else ""


def describe_engines(names: Iterable[str]) -> str:
    """What engines' names do not tell, as a list."""
    return "\n".join(f"- {name}: {ENTRANTS[name].about}." for name in names if ENTRANTS[name].about)


def _setting(circumstances: Mapping[str, Any]) -> list[str]:
    c = circumstances
    return [
        f"{c['products']:,} products, {c['interactions']:,} interactions to train on, {c['dev_queries']:,} dev "
        f"queries, {c['queries']:,} judged test queries, {c['queries_in_log']:,} of them in the log. {c['cpu']}, "
        f"{c['cores']} cores, seed {c['settings']['seed']}.{tell_quick(c['settings']['quick'])}",
        "Every figure of this page is made by:",
        "\n".join(f"    {command}" for command in c["commands"]),
    ]


def _main_table(results: Mapping[str, Any]) -> list[str]:
    costs = results["engines"]
    rows = [
        (name, *marked_cells(row, MEASURES), f"{costs[name]['p50_ms']:.1f}", f"{costs[name]['training_seconds']:,.0f}")
        for name, row in results["all"].items()
    ]
    return [
        "`+` better, `-` worse than GRAM: paired randomisation test on the queries, two-sided, p < .05, not corrected "
        "for the number of rivals. A query without an answer counts as 0. Times are explained under Cost.",
        markdown_table(("engine", *MEASURES, "one query p50 ms", "training s"), rows),
        describe_engines(results["all"]),
        "`relevance`: share of relevant ones among the judged products of the first ten.",
        markdown_table(
            ("engine", *MORE_MEASURES), [(n, *marked_cells(row, MORE_MEASURES)) for n, row in results["all"].items()]
        ),
    ]


def _costs(results: Mapping[str, Any]) -> list[str]:
    return [
        "## Cost",
        "One query: one thread of a CPU, to 100 hits. Many: to 300 hits. Index: what is needed to answer, without "
        "the product table and the weights that read queries. Training: with indexing and the choice of settings, "
        "without the engines that an engine stands on. GRAM without some features computes all and weighs the others: "
        "its times are no less than GRAM's. Where: what networks were trained and many queries searched on.",
        markdown_table(
            ("engine", "one query p50 ms", "p99 ms", "queries a second", "index MB", "training s", "where"),
            [(name, *_cost(row)) for name, row in results["engines"].items()],
        ),
    ]


def _query_groups(results: Mapping[str, Any]) -> list[str]:
    return [
        "## Groups of queries",
        "Head and tail: the thirds of the queries whose rarest word most and fewest of the log's queries hold; where "
        "most test queries stand in the log, the thirds that stand there most and least often.",
        *(_groups(results["cuts"], measure) for measure in CUT_MEASURES),
    ]


def _product_groups(results: Mapping[str, Any]) -> list[str]:
    return [
        "## Products that no training interaction names",
        "R@100 among a query's relevant products of the one sort, over the queries that have any.",
        _groups(results["products"], "R@100"),
    ]


def _misspelt_queries(results: Mapping[str, Any]) -> list[str]:
    rows = [
        (name, format_figure(row["clean"]), _cell(row["misspelt"]), format_figure(row["kept"]))
        for name, row in results["misspelt"]["engines"].items()
    ]
    return [
        "## Misspelt queries",
        f"One typo a query, {results['misspelt']['queries']:,} queries. GRAM trains on typos made in the same way, and "
        "reads queries through its speller; of its rivals only bm25+speller does.",
        markdown_table(("engine", "R@100 clean", "R@100 misspelt", "kept"), rows),
    ]


def _parts_of_gram(results: Mapping[str, Any]) -> list[str]:
    if len(results["ablation"]) < 2:
        return []
    rows = [(one["name"], one["way"], *marked_cells(one, MEASURES)) for one in results["ablation"]]
    return [
        "## What each part of GRAM is worth",
        "Weight 0: features left out, the weights of the others kept, beside GRAM as trained. Refitted: the others "
        "fitted anew on the dev part, beside all features fitted so.",
        markdown_table(("GRAM", "scorer", *MEASURES), rows),
    ]


def _groups(groups: Mapping[str, Any], measure: str) -> str:
    """One measure, a column a group."""
    head = (measure, *(f"{name} ({group['queries']:,})" for name, group in groups.items()))
    engines = next(iter(groups.values()))["engines"] if groups else {}
    rows = [(e, *(_cell(group["engines"][e][measure]) for group in groups.values())) for e in engines]
    return markdown_table(head, rows)


def _cost(row: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        f"{row['p50_ms']:.1f}",
        f"{row['p99_ms']:.1f}",
        f"{row['queries_per_second']:,.0f}",
        f"{row['index_bytes'] / 1e6:,.1f}",
        f"{row['training_seconds']:,.0f}",
        row["device"],
    )


def marked_cells(row: Mapping[str, Any], measures: Sequence[str]) -> list[str]:
    """An engine's figures by some measures, each with its marker."""
    return [_cell(row[measure]) for measure in measures]


def _cell(one: Mapping[str, Any]) -> str:
    return format_figure(one["mean"]) + str(one["marker"])


def format_figure(value: float | None) -> str:
    """Three digits, or nothing of nothing."""
    return "" if value is None else f"{value:.3f}".removeprefix("0")


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1) -> str:
    """A table in Markdown, its first `left` columns flush left."""
    lines = [head, ["---"] * left + ["---:"] * (len(head) - left), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
