"""What each trait of a generated shop does to a keyword engine and to the log: the table of docs/generated_shop.md.

    python scripts/trait_table.py [--products 4000] [--seed 0]

For the plain shop, each trait alone and the rich one: the test queries; R@10 and R@100 of BM25 over all fields, and the
R@10 that a perfect engine has, which is less than 1 where more than ten products are relevant; the
share of test queries without a stem in any field of a relevant product; the shares of the log that its commonest
hundredth of queries has, and its most clicked tenth of products.
"""

from __future__ import annotations

import argparse
from collections import Counter
from dataclasses import fields

from gram.baselines.bm25 import BM25
from gram.data.dataset import Dataset
from gram.data.shop.generate import generate
from gram.data.shop.traits import Traits
from gram.evaluation.groups import keyword_gap_queries
from gram.evaluation.measures import evaluate, relevant
from gram.text.fields import FIELDS

HEAD = (
    "traits",
    "test queries",
    "BM25 R@10",
    "R@10 at best",
    "BM25 R@100",
    "no stem shared",
    "clicks of the head",
    "clicks of the top tenth",
)


def row(name: str, shop: Dataset) -> list[str]:
    """A shop's figures."""
    test = shop.parts["test"]
    mean = evaluate(test.qrels, BM25(shop.products, fields=FIELDS).search_many(test.queries, k=100)).mean
    found = [len(products) for products in relevant(test.qrels).values()]
    best = sum(min(10, n) / n for n in found) / len(found)
    gap = len(keyword_gap_queries(shop)) / len(test.queries)
    of_query, of_product = (Counter(getattr(i, field) for i in shop.log) for field in ("query", "product_id"))
    head = sum(n for _, n in of_query.most_common(len(of_query) // 100)) / len(shop.log)
    top = sum(n for _, n in of_product.most_common(len(shop.products) // 10)) / len(shop.log)
    return [name, f"{len(test.queries):,}", *(f"{x:.3f}" for x in (mean["R@10"], best, mean["R@100"], gap, head, top))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--products", type=int, default=4000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    print("| " + " | ".join(HEAD) + " |\n|---|" + "---:|" * (len(HEAD) - 1))
    for name in ("plain", *(trait.name for trait in fields(Traits)), "rich"):
        n = args.products
        shop = generate(n, 5 * n, args.seed, max(1, 3 * n // 4), Traits.parse(name))
        print("| " + " | ".join(row(name, shop)) + " |", flush=True)


if __name__ == "__main__":
    main()
