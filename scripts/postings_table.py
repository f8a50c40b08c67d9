"""What it costs to keep of a query's expansions those that are worth their postings, against all.

    python scripts/postings_table.py SHOP …

Every SHOP is a folder with `model`, `index`, `queries.tsv` and `qrels.tsv`. For codes alone, codes and words, and the
whole, under the declared weights, it prints R@10, R@100, R@300 and nDCG@10 with all expansions and with those that are
affordable, the p of each difference, and the mean and median of the postings of single codes that a query touches.

Then the same queries by what is found within a budget: those lists of postings of single codes of the greatest weight a
posting, as many as have no more postings in all, say which products are candidates, and these alone are scored (beside
the 300 nearest by dense vector where that is weighed). The last row looks at 5,000 candidates in place of some 900.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gram.arrays import top_k
from gram.coder.base import QUERY_CODING, QueryRepresentation
from gram.data.log import Qrels, read_qrels, read_queries
from gram.evaluation.measures import evaluate
from gram.evaluation.significance import significance
from gram.index.segment import Index
from gram.ranking.candidates import FROM_POSTINGS, NEAREST, Part, find_in_parts
from gram.ranking.features import GROUPS, NAMES
from gram.ranking.scorer import Scorer
from gram.search import Searcher

MEASURES = ("R@10", "R@100", "R@300", "nDCG@10")
BUDGETS = (1_500, 3_000, 5_000)
MANY = 5_000
SCORES = {"codes alone": ("codes",), "codes and words": ("codes", "words"), "the whole": GROUPS}


def touched(index: Index, queries: Sequence[QueryRepresentation]) -> str:
    """Mean and median of the postings of single codes that the queries touch."""
    counts = []
    for query in queries:
        keys = np.concatenate([query.lexical.key, query.expansion.key]).astype(np.int64)
        counts.append(int((index.lexical.lengths(keys) + index.expansion.lengths(keys)).sum()))
    return f"{np.mean(counts):,.0f} (median {np.median(counts):,.0f})"


def found_within(index: Index, query: QueryRepresentation, most: int) -> tuple[NDArray[np.int64], int]:
    """The rows of products that a query's codes bring by so many postings at most, and how many these are."""
    weights, lists = Scorer.default(("codes",)).by_name(), []
    for mine in ("lexical", "expansion"):
        row = getattr(query, mine)
        for theirs, postings in (("lexical", index.lexical), ("expansion", index.expansion)):
            for key, weight in zip(row.key.tolist(), row.weight.tolist(), strict=True):
                products, given = postings.of(key) if 0 <= key < postings.n_keys else (row.key[:0], row.weight[:0])
                if len(products):
                    worth = weights[f"{mine}_{theirs}"] * weight * float(given.mean())
                    lists.append((worth / len(products), products))
    found, used = np.zeros(index.n_products, dtype=bool), 0
    for _, products in sorted(lists, key=lambda one: -one[0]):
        if used + len(products) <= most or not used:
            found[products], used = True, used + len(products)
    return np.flatnonzero(found), used


def rank_within(searcher: Searcher, query: QueryRepresentation, most: int) -> tuple[dict[str, float], int]:
    """The 300 best of what is found within a budget, and the postings that it took; every candidate for 0."""
    index, scorer = searcher.index, searcher.scorer
    rows, used = found_within(index, query, most) if most else (np.arange(index.n_products), 0)
    if most and scorer.first_phase[NAMES.index("dense")]:
        rows = np.union1d(rows, index.sketch.nearest(index.dense, query.dense, NEAREST))
    from_postings = FROM_POSTINGS if most else MANY
    found = find_in_parts([Part(index).only(rows)], query, scorer.first_phase, from_postings + NEAREST, from_postings)
    order, best = top_k(scorer.score(found.features), 300)
    return dict(zip(index.table.ids[found.rows[order]].tolist(), best.tolist(), strict=True)), used


def measure_budgets(searcher: Searcher, queries: Mapping[str, QueryRepresentation], qrels: Qrels) -> None:
    for name, groups in SCORES.items():
        ranking = searcher.with_scorer(Scorer.default(groups))
        usual = evaluate(qrels, {query_id: ranking.rank(query, 300) for query_id, query in queries.items()}, MEASURES)
        print(f"  {name}: {', '.join(f'{usual.mean[m]:.4f}' for m in MEASURES)}")
        for most in (*BUDGETS, 0):
            made = {query_id: rank_within(ranking, query, most) for query_id, query in queries.items()}
            result = evaluate(qrels, {query_id: run for query_id, (run, _) in made.items()}, MEASURES)
            chances = [significance(usual.per_query[m], result.per_query[m]) for m in MEASURES]
            cells = (f"{result.mean[m]:.4f} (p {p:.3f})" for m, p in zip(MEASURES, chances, strict=True))
            label = f"{np.mean([used for _, used in made.values()]):,.0f} postings" if most else f"{MANY:,} candidates"
            print(f"    {label}: {', '.join(cells)}")


def measure(folder: Path) -> None:
    searcher = Searcher.load(folder / "index", folder / "model", check=False)
    texts, qrels = read_queries(folder / "queries.tsv"), read_qrels(folder / "qrels.tsv")
    kept = {}
    for name, postings in (("all", 0), ("affordable", QUERY_CODING.postings)):
        searcher.coding = replace(QUERY_CODING, postings=postings)
        kept[name] = searcher.represent(list(texts.values()), compound=False)
        print(f"{folder.name}, {name}: {touched(searcher.index, kept[name])} postings a query")
    for name, groups in SCORES.items():
        ranking = searcher.with_scorer(Scorer.default(groups))
        runs = [
            {query_id: ranking.rank(query, 300) for query_id, query in zip(texts, queries, strict=True)}
            for queries in kept.values()
        ]
        before, after = (evaluate(qrels, run, MEASURES) for run in runs)
        chances = (significance(before.per_query[m], after.per_query[m]) for m in MEASURES)
        cells = (
            f"{before.mean[m]:.4f} -> {after.mean[m]:.4f} (p {p:.3f})" for m, p in zip(MEASURES, chances, strict=True)
        )
        print(f"  {name}: {', '.join(cells)}")
    print(f"{folder.name}, found within a budget")
    measure_budgets(searcher, dict(zip(texts, kept["affordable"], strict=True)), qrels)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shops", type=Path, nargs="+")
    for folder in parser.parse_args().shops:
        measure(folder)


if __name__ == "__main__":
    main()
