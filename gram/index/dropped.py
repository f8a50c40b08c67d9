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
    """What the live index in a folder, with its store, says otherwise than a catalogue, changes that were merged into
    its segment included."""
    new = {product.product_id: product for product in products}
    meta = _meta(index)
    changes = store.changes(int(meta.get(MERGED, 0)))
    changed = {change.product_id for change in changes}
    live = [product_of(json.loads(change.product)) for change in changes if change.product is not None]
    merged = meta.get(HOLDS_LIVE) or {}
    live += _read(index, set(merged.get("changed", ())) - changed)
    gone = {change.product_id for change in changes if change.product is None} | set(merged.get("gone", ())) - changed
    return Dropped(
        [product.product_id for product in live if new.get(product.product_id) != product], sorted(gone & new.keys())
    )


def _read(index: Path, product_ids: set[str]) -> list[Product]:
    """Some products of a segment; none of one that cannot be read: to index anew is its mend."""
    if not product_ids:
        return []
    try:
        table = ProductTable.load(index)
        return [table[row] for row in sorted(map(table.row, product_ids))]
    except (IndexFolderError, KeyError):
        return []


def _meta(index: Path) -> Mapping[str, Any]:
    """What an index says of itself; nothing where there is none that can be read."""
    try:
        meta = read_json(index / META)
    except DataError:
        return {}
    return meta if isinstance(meta, dict) else {}
