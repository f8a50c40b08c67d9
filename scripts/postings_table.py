"""What it costs to keep of a query's expansions those that are worth their postings, against all.

    python scripts/postings_table.py SHOP …

Every SHOP is a folder with `model`, `index`, `queries.tsv` and `qrels.tsv`. For codes alone, codes and words, and the
whole, under the declared weights, it prints R@10, R@100, R@300 and nDCG@10 with all expansions and with those that are
affordable, the p of each difference, and the mean and median of the postings of single codes that a query touches.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from gram.coder.base import QUERY_CODING, QueryRepresentation
from gram.data.log import read_qrels, read_queries
from gram.evaluation.measures import evaluate
from gram.evaluation.significance import significance
from gram.index.segment import Index
from gram.ranking.features import GROUPS
from gram.ranking.scorer import Scorer
from gram.search import Searcher

MEASURES = ("R@10", "R@100", "R@300", "nDCG@10")
SCORES = {"codes alone": ("codes",), "codes and words": ("codes", "words"), "the whole": GROUPS}


def touched(index: Index, queries: Sequence[QueryRepresentation]) -> str:
    """Mean and median of the postings of single codes that the queries touch."""
    counts = []
    for query in queries:
        keys = np.concatenate([query.lexical.key, query.expansion.key]).astype(np.int64)
        counts.append(int((index.lexical.lengths(keys) + index.expansion.lengths(keys)).sum()))
    return f"{np.mean(counts):,.0f} (median {np.median(counts):,.0f})"


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shops", type=Path, nargs="+")
    for folder in parser.parse_args().shops:
        measure(folder)


if __name__ == "__main__":
    main()
