"""The files of a benchmark, read into the shop that every engine gets."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from gram.data.catalogue import read_products
from gram.data.dataset import Dataset, Judged, draw_queries, hold_out, query_key
from gram.data.log import read_log, read_qrels, read_queries
from gram.errors import DataError
from gram.evaluation.measures import check_ids, relevant
from gram.records import Interaction

log = logging.getLogger("gram.bench")

QUICK_PRODUCTS, QUICK_QUERIES, QUICK_LOG = 600, 60, 1500
MOST_DEV = 1000
"""Logged queries that settings are chosen on at most, as many as are held out of a log."""


@dataclass(frozen=True)
class Sources:
    """The files of a benchmark; both dev files or none."""

    products: Path
    log: str  # or `none`
    queries: Path
    qrels: Path
    dev_queries: Path | None = None
    dev_qrels: Path | None = None
    max_unknown: float = 0.05
    log_share: float = 1.0  # of the log's queries, for the engines to train on

    def hashes(self) -> dict[str, str]:
        """SHA-256 of every file by what it is, and the log's share where it is not whole.

        Raises DataError for a file that cannot be read.
        """
        found = {"log_share": repr(self.log_share)} if self.log_share < 1 else {}
        for name, path in asdict(self).items():
            if name in ("max_unknown", "log_share") or path is None:
                continue
            try:
                found[name] = "none" if path == "none" else hashlib.sha256(Path(path).read_bytes()).hexdigest()
            except OSError as error:
                raise DataError(path, f"cannot be read ({error}).", "check the path.") from error
        return found


def read_sources(sources: Sources, seed: int) -> Dataset:
    """Reads the files. Without dev files, a seeded tenth of the log's queries becomes the dev part, or all of them (at
    most MOST_DEV) where engines get nothing of the log.

    Dev queries that stand in the log are taken out of it, for all engines alike; then the log's share is drawn.
    Judgements of products that the catalogue lacks are dropped: no engine could find them.
    """
    products = read_products(sources.products, progress=True)
    ids = {p.product_id for p in products}
    check_ids(ids)
    interactions = read_log(sources.log, ids, max_unknown=sources.max_unknown, progress=True)
    test = _judged(sources.queries, sources.qrels, ids)
    if not relevant(test.qrels):
        fix = "check that it names this catalogue's products and these queries."
        raise DataError(sources.qrels, "no query has a relevant product in the catalogue.", fix)
    if sources.dev_queries is None or sources.dev_qrels is None:
        if sources.log_share:
            dev, interactions = dev_part(interactions, seed)
        else:
            queries = len({i.query for i in interactions})
            dev = clicks_as_judgements(draw_queries(interactions, min(1.0, MOST_DEV / max(queries, 1))))
    else:
        dev = _judged(sources.dev_queries, sources.dev_qrels, ids)
        keys = set(map(query_key, dev.queries.values()))
        kept = [i for i in interactions if query_key(i.query) not in keys]
        if len(kept) < len(interactions):
            log.warning(
                "%d interactions with dev queries, or variants of them, are left out of the log",
                len(interactions) - len(kept),
            )
        interactions = kept
    return Dataset(products, interactions, {"dev": dev, "test": test}).with_log_share(sources.log_share)


def dev_part(interactions: list[Interaction], seed: int) -> tuple[Judged, list[Interaction]]:
    """A tenth of the log's queries as a dev part with their interactions as relevant; the log without.

    Where the log is too small for that, engines keep their untuned defaults.
    """
    rest, apart = hold_out(interactions, seed)
    return clicks_as_judgements(apart), rest


def clicks_as_judgements(interactions: Iterable[Interaction]) -> Judged:
    """The queries of these interactions, whose products are relevant."""
    ids: dict[str, str] = {}
    qrels: dict[str, dict[str, float]] = {}
    for i in interactions:
        qrels.setdefault(ids.setdefault(i.query, f"dev{len(ids)}"), {})[i.product_id] = 2.0
    return Judged({query_id: query for query, query_id in ids.items()}, qrels)


def _judged(queries: Path, qrels: Path, products: set[str]) -> Judged:
    """Queries with their judgements of known products; judgements of other queries are warned of and left out."""
    texts, judged = read_queries(queries), read_qrels(qrels)
    check_ids(texts)
    unknown = judged.keys() - texts.keys()
    if unknown:
        log.warning("%s: %d judged queries are not in %s; they are left out", qrels, len(unknown), queries)
    kept = {q: {p: g for p, g in row.items() if p in products} for q, row in judged.items() if q in texts}
    lost = sum(len(judged[q]) - len(row) for q, row in kept.items())
    if lost:
        log.warning("%s: %d judgements name products that the catalogue lacks; they are left out", qrels, lost)
    return Judged(texts, {q: row for q, row in kept.items() if row})


def cut_short(shop: Dataset, seed: int) -> Dataset:
    """A small part of the shop: some queries, their judged products and others, what the log says of them."""
    rng = np.random.default_rng(seed)
    parts = {name: _fewer(part, rng) for name, part in shop.parts.items()}
    judged = [p for part in parts.values() for row in part.qrels.values() for p in row]
    order = [shop.products[i].product_id for i in rng.permutation(len(shop.products)).tolist()]
    kept_ids = set(list(dict.fromkeys([*judged, *order]))[: max(QUICK_PRODUCTS, len(set(judged)))])
    products = [p for p in shop.products if p.product_id in kept_ids]
    interactions = [i for i in shop.log if i.product_id in kept_ids][:QUICK_LOG]
    return Dataset(products, interactions, parts)


def _fewer(part: Judged, rng: np.random.Generator) -> Judged:
    ids = [q for q in part.queries if q in part.qrels]
    kept = sorted(rng.permutation(len(ids))[:QUICK_QUERIES].tolist())
    return Judged({ids[i]: part.queries[ids[i]] for i in kept}, {ids[i]: part.qrels[ids[i]] for i in kept})
