"""Measures a trained model and its index on judged queries, beside BM25 and sentence-transformers.

    python scripts/measure.py quality INDEX PRODUCTS QUERIES QRELS [--log LOG] [--curve]
    python scripts/measure.py losses INDEX PRODUCTS QUERIES QRELS
    python scripts/measure.py speed INDEX PRODUCTS QUERIES
    python scripts/measure.py codes INDEX PRODUCTS QUERIES > docs/codes.md

`quality`: the table beside BM25, groundedness and its curve against recall, what codes of two and more attributes bring
back alone and the postings touched for it. `losses`: the queries on which GRAM loses most to BM25. `speed`: coding a
catalogue and one query, beside the sentence-transformers library with the same weights (extra `minilm`). `codes`: 50
random queries and products with the five best codes of each, as a table to judge by eye.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import resource
import time
from pathlib import Path

import numpy as np
import torch

from gram.baselines.bm25 import BM25
from gram.data.catalogue import read_products
from gram.data.log import read_log, read_qrels, read_queries
from gram.evaluation.comparison import table
from gram.evaluation.measures import evaluate, threshold
from gram.index.postings import Postings
from gram.ranking.candidates import CodedQuery
from gram.records import code_text
from gram.search import Searcher
from gram.text.fields import FIELDS
from gram.training.health import health, text

THRESHOLDS = (0.03, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5)


def quality(args: argparse.Namespace) -> None:
    searcher = Searcher.load(args.index)
    products, queries, qrels = read_products(args.products), read_queries(args.queries), read_qrels(args.qrels)
    runs = {"BM25 titles": BM25(products).search_many(queries)}
    if any(p.brand or p.category or p.description or p.attributes for p in products):
        runs["BM25 all fields"] = BM25(products, fields=FIELDS).search_many(queries)
    runs["GRAM"] = searcher.search_many(queries, progress=True)
    results = {name: evaluate(qrels, run) for name, run in runs.items()}
    print(table(results, reference="BM25 titles"))
    for name in ("R@100", "R@300"):
        mean = {n: r.mean[name] for n, r in results.items()}
        print(f"misses at {name[2:]}: GRAM {(1 - mean['GRAM']) / (1 - mean['BM25 titles']):.1%} of BM25 titles'")
    print("weights:", json.dumps(searcher.scorer.named()))
    least = threshold(qrels)
    wanted = {queries[q]: {p: g for p, g in row.items() if g >= least} for q, row in qrels.items()}
    wanted = {q: row for q, row in wanted.items() if row}
    print(text(health(searcher, wanted)))
    if args.log:
        log = read_log(args.log, {p.product_id for p in products})
        linked: dict[str, dict[str, float]] = {}
        for i in log:
            linked.setdefault(i.query, {})[i.product_id] = i.weight
        print(
            "products' ten best attributes held by them or a linked query:",
            health(searcher, linked)["products"]["grounded"],
        )
    _depths(searcher, wanted)
    if args.curve:
        _curve(searcher, queries, qrels, wanted)


def _depths(searcher: Searcher, wanted: dict[str, dict[str, float]]) -> None:
    """The share of relevant products that codes of one depth alone bring back, and the postings touched for it."""
    index, trie = searcher.index, searcher.generator.trie
    rows: dict[str, list[tuple[float, int, int]]] = {}
    outside = 0
    for coded, row in zip(searcher.code(list(wanted)), wanted.values(), strict=True):
        positions = np.array([index.table.position(p) for p in row])
        outside += (
            sum(trie.find(tuple(a for a in c if a >= 0)) < 0 for c in trie.table()[coded.deep[0]].tolist())
            if len(coded.deep[0])
            else 0
        )
        for name, found in _found(index.n_products, coded, index.own, index.written, index.deep).items():
            scores, touched = found
            rows.setdefault(name, []).append((float((scores[positions] > 0).mean()), touched, int((scores > 0).sum())))
    print(f"codes outside the code space: {outside}")
    for name, figures in rows.items():
        recall, touched, products = np.mean(figures, axis=0)
        print(
            f"{name}: brings back {recall:.3f} of the relevant products among {products:.0f}, "
            f"touching {touched:.0f} postings"
        )


def _found(
    n: int, query: CodedQuery, own: Postings, written: Postings, deep: Postings
) -> dict[str, tuple[np.ndarray, int]]:
    def reach(parts: list[tuple[tuple[np.ndarray, np.ndarray], Postings]]) -> tuple[np.ndarray, int]:
        scores, touched = np.zeros(n, np.float32), 0
        for (keys, weights), postings in parts:
            known = keys < postings.n_keys
            scores += postings.score(keys[known], weights[known], n)
            touched += postings.touched(keys[known])
        return scores, touched

    return {
        "one-attribute codes": reach(
            [(query.own, own), (query.own, written), (query.written, own), (query.written, written)]
        ),
        "one-attribute codes, copied on both sides": reach([(query.own, own)]),
        "codes of two and more attributes": reach([(query.deep, deep)]),
    }


def _curve(
    searcher: Searcher, queries: dict[str, str], qrels: dict[str, dict[str, float]], wanted: dict[str, dict[str, float]]
) -> None:
    """Groundedness against recall, by how sure a generated attribute must be to be kept."""
    coding = searcher.coding
    print("least probability: grounded, by chance, nothing generated; R@10 R@100 R@300 nDCG@10")
    for least in THRESHOLDS:
        searcher.coding = dataclasses.replace(coding, least=least)
        figures = health(searcher, wanted)["queries"]
        mean = evaluate(qrels, searcher.search_many(queries)).mean
        shown = " ".join(f"{mean[m]:.3f}" for m in ("R@10", "R@100", "R@300", "nDCG@10"))
        print(
            f"  {least:.2f}: {figures['grounded']:.3f} {figures['grounded_by_chance']:.3f} "
            f"{figures['nothing_generated']:.3f}; {shown}"
        )
    searcher.coding = coding


def losses(args: argparse.Namespace) -> None:
    searcher = Searcher.load(args.index)
    products, queries, qrels = read_products(args.products), read_queries(args.queries), read_qrels(args.qrels)
    title = {p.product_id: p.title for p in products}
    engine, least = BM25(products), threshold(qrels)
    ours, theirs = searcher.search_many(queries), engine.search_many(queries)
    a, b = evaluate(qrels, ours).per_query, evaluate(qrels, theirs).per_query
    lost = sorted(a["nDCG@10"], key=lambda q: sum(a[m][q] - b[m][q] for m in ("nDCG@10", "R@10", "R@100")))
    for q in lost[:20]:
        print(
            f"\n{queries[q]!r}: "
            + ", ".join(f"{m} {a[m][q]:.2f} (BM25 {b[m][q]:.2f})" for m in ("nDCG@10", "R@10", "R@100"))
        )
        coded = searcher.code([queries[q]])[0]
        best = np.argsort(-coded.written[1])[:6]
        print("  writes:", ", ".join(searcher.lexicon.attributes[k].value for k in coded.written[0][best]))
        place = {p: i + 1 for i, p in enumerate(sorted(ours[q], key=lambda p: -ours[q][p]))}
        place_b = {p: i + 1 for i, p in enumerate(sorted(theirs[q], key=lambda p: -theirs[q][p]))}
        for p, g in qrels[q].items():
            if g >= least:
                print(f"  wanted at {place.get(p, '-')} (BM25 {place_b.get(p, '-')}): {title[p][:110]}")
        for p in sorted(ours[q], key=lambda p: -ours[q][p])[:3]:
            print(f"  found: {title[p][:110]}" + (f"  [judged {qrels[q][p]:g}]" if p in qrels[q] else ""))


def speed(args: argparse.Namespace) -> None:
    from sentence_transformers import SentenceTransformer

    from gram.coder.encoder.backbone import MINILM_HUB_ID, _minilm_package
    from gram.indexing import build_index

    products, queries = read_products(args.products), list(read_queries(args.queries).values())[:300]
    rival = SentenceTransformer(str(_minilm_package() or MINILM_HUB_ID), device="cpu")
    titles = [p.title for p in products]
    searcher = Searcher.load(args.index)
    part = products[: args.products_timed] if args.products_timed else products
    begin = time.perf_counter()
    rival.encode(titles[: len(part)], batch_size=64)
    embed = time.perf_counter() - begin
    begin = time.perf_counter()
    build_index(searcher.generator, part)
    ours = time.perf_counter() - begin
    print(
        f"{len(part)} products: index {ours:.1f} s, sentence-transformers embeds the titles in {embed:.1f} s: "
        f"{ours / embed:.2f} times"
    )
    torch.set_num_threads(1)
    for query in queries[:20]:
        searcher.search(query, 100)
        rival.encode(query)
    mine, other = [], []
    for query in queries:
        begin = time.perf_counter()
        searcher.search(query, 100)
        mine.append(time.perf_counter() - begin)
        begin = time.perf_counter()
        rival.encode(query)
        other.append(time.perf_counter() - begin)
    p50, p99 = np.percentile(mine, [50, 99]) * 1000
    base = np.percentile(other, 50) * 1000
    print(
        f"one query, one thread, to 100 hits: p50 {p50:.1f} ms, p99 {p99:.1f} ms; "
        f"embedding it alone p50 {base:.1f} ms: {p50 / base:.2f} times"
    )
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB (both libraries loaded)")


def codes(args: argparse.Namespace) -> None:
    searcher = Searcher.load(args.index)
    products, queries = read_products(args.products), list(read_queries(args.queries).values())
    random = np.random.default_rng(0)
    some = [queries[i] for i in random.permutation(len(queries))[:50]]
    print("# Fifty random queries and products, and what the model writes for them\n")
    print("| Query | Its five likeliest codes |\n|---|---|")
    for query, coded in zip(some, searcher.code(some), strict=True):
        print(f"| {_cell(query)} | {_best(searcher, *coded.deep)} |")
    print("\n| Product | Its five likeliest codes |\n|---|---|")
    by_product = searcher.index.deep.transpose(len(products))
    for i in random.permutation(len(products))[:50].tolist():
        product = searcher.index.table[i]
        print(f"| {_cell(product.title)} | {_best(searcher, *by_product.of(i))} |")


def _best(searcher: Searcher, ids: np.ndarray, weights: np.ndarray) -> str:
    best = ids[np.argsort(-weights, kind="stable")[:5]].tolist()
    return "<br>".join(_cell(code_text(searcher.written_code(i))) for i in best)


def _cell(text: str) -> str:
    return text.replace(" | ", " · ").replace("|", " ")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    for run, names in (
        (quality, "index products queries qrels"),
        (losses, "index products queries qrels"),
        (speed, "index products queries"),
        (codes, "index products queries"),
    ):
        command = commands.add_parser(run.__name__)
        for name in names.split():
            command.add_argument(name, type=Path)
        command.set_defaults(run=run)
        if run is quality:
            command.add_argument("--log", type=Path)
            command.add_argument("--curve", action="store_true", help="groundedness against recall; eight searches")
        if run is speed:
            command.add_argument("--products-timed", type=int, default=0)
    args = parser.parse_args()
    args.run(args)


if __name__ == "__main__":
    main()
