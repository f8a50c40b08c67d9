"""Looks into a trained model and its index on judged queries: what `gram bench` and `gram eval` do not show.

    python scripts/measure.py codes INDEX PRODUCTS QUERIES > docs/codes.md
    python scripts/measure.py health INDEX QUERIES QRELS
    python scripts/measure.py losses INDEX PRODUCTS QUERIES QRELS

`codes`: 50 random queries and products with the five best codes of each, as a table to judge by eye. `health`: the
health of the codes on these queries, and what single and compound codes bring back alone for how many postings.
`losses`: the queries on which GRAM loses most to BM25 over titles.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from gram.baselines.bm25 import BM25
from gram.coder.base import QueryRepresentation
from gram.data.catalogue import read_products
from gram.data.log import read_qrels, read_queries
from gram.evaluation.measures import evaluate, ranking, relevant
from gram.index.segment import Index
from gram.ranking.features import FEATURES, SharedKeys
from gram.records import code_text
from gram.search import Searcher
from gram.training.health import format_health, measure_health

MEASURES = ("nDCG@10", "R@10", "R@100")
PARTS = {
    "single codes": ("lexical_lexical", "lexical_expansion", "expansion_lexical", "expansion_expansion"),
    "single codes, lexical on both sides": ("lexical_lexical",),
    "compound codes": ("compound",),
}


def health(args: argparse.Namespace) -> None:
    searcher, queries = Searcher.load(args.index), read_queries(args.queries)
    answers = {queries[q]: dict.fromkeys(products, 1.0) for q, products in relevant(read_qrels(args.qrels)).items()}
    print(format_health(measure_health(searcher, answers)))
    index, represented = searcher.index, searcher.represent(list(answers))
    rows = [np.array([index.table.row(p) for p in products]) for products in answers.values()]
    for part, names in PARTS.items():
        reached = [_reach(index, query, names, row) for query, row in zip(represented, rows, strict=True)]
        recall, products, postings = np.mean(reached, axis=0)
        print(f"{part}: {recall:.3f} of the relevant products among {products:.0f}, touching {postings:.0f} postings")


def _reach(
    index: Index, query: QueryRepresentation, names: tuple[str, ...], rows: np.ndarray
) -> tuple[float, int, int]:
    """The share of the products in `rows` that these features bring back, of how many, and the postings touched."""
    found, touched = np.zeros(index.n_products, bool), 0
    for feature in FEATURES:
        shared = feature.first_phase
        if feature.name in names and isinstance(shared, SharedKeys):
            sums, (keys, _), postings = shared(index, query), shared.keys(query), shared.postings(index)
            found |= sums > 0 if sums is not None else False
            touched += postings.touched(keys[keys < postings.n_keys])
    return float(found[rows].mean()), int(found.sum()), touched


def losses(args: argparse.Namespace) -> None:
    searcher = Searcher.load(args.index)
    products, queries, qrels = read_products(args.products), read_queries(args.queries), read_qrels(args.qrels)
    title, answers = {p.product_id: p.title for p in products}, relevant(qrels)
    ours, theirs = searcher.search_many(queries), BM25(products).search_many(queries)
    a, b = (evaluate(qrels, run, MEASURES).per_query for run in (ours, theirs))
    for q in sorted(answers, key=lambda q: sum(a[m][q] - b[m][q] for m in MEASURES))[:20]:
        figures = ", ".join(f"{m} {a[m][q]:.2f} (BM25 {b[m][q]:.2f})" for m in MEASURES)
        expansion = searcher.represent([queries[q]])[0].expansion
        best = expansion.key[np.argsort(-expansion.weight)[:6]].tolist()
        print(f"\n{queries[q]!r}: {figures}")
        print("  expansion:", ", ".join(searcher.lexicon.attributes[key].value for key in best))
        ranks, ranks_there = ({p: i for i, p in enumerate(ranking(run[q]), start=1)} for run in (ours, theirs))
        for p in answers[q]:
            print(f"  relevant, at {ranks.get(p, '-')} (BM25 {ranks_there.get(p, '-')}): {title[p][:110]}")
        for p in list(ranks)[:3]:
            print(f"  found: {title[p][:110]}" + (f"  [judged {qrels[q][p]:g}]" if p in qrels[q] else ""))


def codes(args: argparse.Namespace) -> None:
    searcher = Searcher.load(args.index)
    products, queries = read_products(args.products), list(read_queries(args.queries).values())
    rng = np.random.default_rng(0)
    some = [queries[i] for i in rng.permutation(len(queries))[:50]]
    print("# Fifty random queries and products, and what the model writes for them\n")
    print("| Query | Its five likeliest codes |\n|---|---|")
    for query, represented in zip(some, searcher.represent(some), strict=True):
        print(f"| {_cell(query)} | {_best(searcher, *represented.compound)} |")
    print("\n| Product | Its five likeliest codes |\n|---|---|")
    by_product = searcher.index.compound.transpose(len(products))
    for i in rng.permutation(len(products))[:50].tolist():
        print(f"| {_cell(searcher.index.table[i].title)} | {_best(searcher, *by_product.of(i))} |")


def _best(searcher: Searcher, ids: np.ndarray, weights: np.ndarray) -> str:
    best = ids[np.argsort(-weights, kind="stable")[:5]].tolist()
    return "<br>".join(_cell(code_text(searcher.code_of(i))) for i in best)


def _cell(text: str) -> str:
    return text.replace(" | ", " · ").replace("|", " ")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    files = {codes: "index products queries", health: "index queries qrels", losses: "index products queries qrels"}
    for run, names in files.items():
        command = commands.add_parser(run.__name__)
        for name in names.split():
            command.add_argument(name, type=Path)
        command.set_defaults(run=run)
    args = parser.parse_args()
    args.run(args)


if __name__ == "__main__":
    main()
