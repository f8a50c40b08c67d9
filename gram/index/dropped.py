"""What changed in a live index and a catalogue lacks that is to be indexed in its place."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from gram.errors import DataError, IndexFolderError
from gram.folders import read_json
from gram.index.segment import META
from gram.index.store import HOLDS_LIVE, MERGED, Store
from gram.index.table import ProductTable, product_of
from gram.records import Product

SHOWN = 5
"""Ids that are named."""


class Dropped(NamedTuple):
    """The ids of products that came or changed live and that a catalogue has otherwise or not at all; and of those that
    went and that it has."""

    changed: list[str]
    gone: list[str]

    def __str__(self) -> str:
        parts = [
            f"{len(ids):,} {what} ({', '.join(ids[:SHOWN])}{', …' if len(ids) > SHOWN else ''})"
            for ids, what in ((self.changed, "that came or changed"), (self.gone, "that went"))
            if ids
        ]
        return "products " + ", ".join(parts)


def find_dropped(index: Path, store: Store, products: Iterable[Product]) -> Dropped:
    """What the live index in a folder, with its store, says otherwise than a catalogue.

    Once changes were merged into the segment it no longer tells which of its products they were; then each of them
    counts that the catalogue has otherwise or lacks, and none counts that went.
    """
    new = {product.product_id: product for product in products}
    changes = store.changes(int(_meta(index).get(MERGED, 0)))
    changed = {change.product_id for change in changes}
    live = [product_of(json.loads(change.product)) for change in changes if change.product is not None]
    merged = [product for product in _merged(index) if product.product_id not in changed]
    return Dropped(
        [product.product_id for product in (*live, *merged) if new.get(product.product_id) != product],
        [change.product_id for change in changes if change.product is None and change.product_id in new],
    )


def _merged(index: Path) -> list[Product]:
    """The products of a segment that changes were merged into; none of one that a catalogue was indexed to, or that
    cannot be read: to index anew is its mend."""
    if not _meta(index).get(HOLDS_LIVE):
        return []
    try:
        return list(ProductTable.load(index))
    except IndexFolderError:
        return []


def _meta(index: Path) -> Mapping[str, Any]:
    """What an index says of itself; nothing where there is none that can be read."""
    try:
        meta = read_json(index / META)
    except DataError:
        return {}
    return meta if isinstance(meta, dict) else {}
