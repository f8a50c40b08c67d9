"""`gram demo`: a generated shop, a model, an index, and answers that a person can judge."""

from __future__ import annotations

import time
from pathlib import Path

import click

from gram.baselines.bm25 import BM25
from gram.data.catalogue import read_products
from gram.data.log import read_log, read_qrels, read_queries
from gram.data.shop.generate import generate
from gram.data.shop.traits import PLAIN, Traits
from gram.display import format_hit, printable
from gram.evaluation.comparison import table
from gram.evaluation.groups import keyword_gap_queries
from gram.evaluation.measures import evaluate, write_run
from gram.folders import read_json
from gram.indexing import make_index
from gram.search import Searcher
from gram.text.fields import FIELDS
from gram.training.co_alignment import CoAlignmentSettings
from gram.training.health import format_health
from gram.training.joint import TrainingSettings
from gram.training.pipeline import train
from gram.training.run import Settings

SHOWN = 5
ALIGNED = 40
"""Steps of co-alignment: a third of the usual, for a shop of a twentieth."""


def run(output: Path, n_products: int, steps: int, backbone: str, seed: int, traits: Traits = PLAIN) -> None:
    """Writes the shop to files, reads them back as any shop's, trains, indexes, searches, and prints what came of
    it."""
    begin = time.monotonic()
    shop = generate(n_products, 5 * n_products, seed, 3 * n_products // 4, traits)
    shop.write(output / "shop")
    gap = keyword_gap_queries(shop)
    folder = output / "shop"
    products = read_products(folder / "products.jsonl.gz")
    log = read_log(folder / "log.tsv", {p.product_id for p in products})
    queries, qrels = read_queries(folder / "test.queries.tsv"), read_qrels(folder / "test.qrels.tsv")
    click.echo(f"A generated shop in {folder}: {len(products)} products, {len(log)} clicks; seed {seed}")
    alignment = CoAlignmentSettings(steps=min(steps or ALIGNED, ALIGNED))
    settings = Settings(backbone=backbone, training=TrainingSettings(steps=steps, seed=seed), alignment=alignment)
    train(products, log, output / "model", settings)
    click.echo(format_health(read_json(output / "model" / "health.json")))
    make_index(output / "model", products, output / "index", replace=True)
    searcher = Searcher.load(output / "index")
    runs = {
        "BM25, titles": BM25(products).search_many(queries, k=300),
        "BM25, all fields": BM25(products, fields=FIELDS).search_many(queries, k=300),
        "GRAM": searcher.search_many(queries, k=300),
    }
    for name, found in runs.items():
        write_run(output / f"{name.lower().replace(', ', '-').replace(' ', '-')}.trec", found, tag="gram-demo")
    results = {name: evaluate(qrels, found) for name, found in runs.items()}
    shown = 0
    click.echo("\nQueries whose words no relevant product's title has:")
    for query_id in gap:
        if results["GRAM"].per_query["R@10"].get(query_id, 0) > 0 and shown < SHOWN:
            shown += 1
            click.echo(f"\n  {printable(queries[query_id])}")
            for hit in searcher.search(queries[query_id], k=3, explain=True):
                judged = "relevant" if qrels[query_id].get(hit.product_id, 0) >= 2 else ""
                click.echo(f"    {judged:8}  {printable(hit.title)}")
                click.echo(format_hit(hit._replace(codes=hit.codes[:3])))
    click.echo(f"\nOn {len(queries)} held-out queries:\n")
    click.echo(table(results, reference="BM25, all fields"))
    click.echo(
        f'\n{time.monotonic() - begin:.0f} seconds in all. Try: gram search {output / "index"} "couch" --explain'
    )
