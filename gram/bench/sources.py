"""The files of a benchmark, read into the shop that every engine gets."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from gram.data.catalogue import read_products
from gram.data.dataset import Dataset, Judged, hold_out, query_key
from gram.data.log import read_log, read_qrels, read_queries
from gram.errors import DataError
from gram.evaluation.measures import check_ids, relevant
from gram.records import Interaction

log = logging.getLogger("gram.bench")

QUICK_PRODUCTS, QUICK_QUERIES, QUICK_LOG = 600, 60, 1500


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

    def hashes(self) -> dict[str, str]:
        """SHA-256 of every file by what it is. Raises DataError for one that cannot be read."""
        found = {}
        for name, path in asdict(self).items():
            if name == "max_unknown" or path is None:
                continue
            try:
                found[name] = "none" if path == "none" else hashlib.sha256(Path(path).read_bytes()).hexdigest()
            except OSError as error:
                raise DataError(path, f"cannot be read ({error}).", "check the path.") from error
        return found


def read_sources(sources: Sources, seed: int) -> Dataset:
    """Reads the files. Without dev files, a seeded tenth of the log's queries becomes the dev part.

    Dev queries that stand in the log are taken out of it, for all engines alike. Judgements of products that the
    catalogue lacks are dropped: no engine could find them.
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
        dev, interactions = dev_part(interactions, seed)
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
    return Dataset(products, interactions, {"dev": dev, "test": test})


def dev_part(interactions: list[Interaction], seed: int) -> tuple[Judged, list[Interaction]]:
    """A tenth of the log's queries as a dev part with their interactions as relevant; the log without.

    Where the log is too small for that, engines keep their untuned defaults.
    """
    rest, apart = hold_out(interactions, seed)
    ids: dict[str, str] = {}
    qrels: dict[str, dict[str, float]] = {}
    for i in apart:
        qrels.setdefault(ids.setdefault(i.query, f"dev{len(ids)}"), {})[i.product_id] = 2.0
    return Judged({query_id: query for query, query_id in ids.items()}, qrels), rest


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
