"""What each group of features is worth on a shop, by one trained model: all, all but codes, codes, codes and words.

With a log each row's scorer is fitted anew to the queries that training held out; without one it has the default
weights. The network is the same for all rows, also where it was trained with codes.

    python scripts/groups_table.py MODEL PRODUCTS LOG QUERIES QRELS [RUN …]
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from gram.coder.base import PRODUCT_CODING
from gram.coder.folder import load_coder
from gram.data.catalogue import read_products
from gram.data.log import read_log, read_qrels, read_queries
from gram.evaluation.comparison import table
from gram.evaluation.measures import Result, evaluate, read_run
from gram.folders import read_json
from gram.indexing import build_index
from gram.ranking.features import GROUPS, other_groups
from gram.ranking.scorer import Scorer
from gram.search import Searcher
from gram.training.scoring import fit_groups

MEASURES = ("R@10", "R@100", "R@300", "nDCG@10")
ROWS = {
    "all": GROUPS,
    "all but codes": other_groups(("codes",)),
    "codes": ("codes",),
    "codes and words": ("codes", "words"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("model", "products", "queries", "qrels"):
        parser.add_argument(name, type=Path)
        if name == "products":
            parser.add_argument("log")
    parser.add_argument("runs", type=Path, nargs="*", help="runs of other engines to set beside")
    args = parser.parse_args()
    products = read_products(args.products)
    log = read_log(args.log, {product.product_id for product in products})
    queries, qrels = read_queries(args.queries), read_qrels(args.qrels)
    coder = load_coder(args.model)
    searcher = Searcher(coder, build_index(coder, products, coding=replace(PRODUCT_CODING, codes=0)), Scorer.default())
    seed = read_json(args.model / "config.json")["settings"]["training"]["seed"]
    asked = dict(zip(queries, searcher.represent(list(queries.values()), compound=False), strict=True))
    results: dict[str, Result] = {}
    for name, scorer in fit_groups(searcher, log, seed, ROWS).items():
        ranking = searcher.with_scorer(scorer)
        results[name] = evaluate(qrels, {i: ranking.rank(query, 300) for i, query in asked.items()}, MEASURES)
    results |= {path.stem: evaluate(qrels, read_run(path), MEASURES) for path in args.runs}
    print(f"{len(products):,} products, {len(log):,} interactions, {len(queries):,} queries")
    print(table(results, "all", markdown=True))


if __name__ == "__main__":
    main()
