"""Codes as sparse vectors, for any engine that has a field for these: one vector a text, scored by the dot product.

A vector's entries are attributes. What a text holds weighs as in the index; what the model writes beside it counts by
`OF_QUERIES` or `OF_PRODUCTS`. That is what postings of codes say of a product in GRAM's own first phase, with one
weight a side in place of one for each of the four pairs.

Letters: N texts, X entries.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gram.arrays import SparseRow, SparseRows
from gram.coder.base import QueryRepresentation
from gram.coder.packing import read_keys
from gram.codes.lexicon import Lexicon
from gram.data.files import write_whole
from gram.errors import SettingError
from gram.index.segment import Index
from gram.ranking.features import NOTHING
from gram.snapshot import Snapshot

OF_QUERIES, OF_PRODUCTS = 4.0, 1.0
"""How much expansion counts beside what a text holds. Home Depot with its log loses little from 1 to 5 of the
first, three of four shops without one gain up to 8: docs/log.md, "What a query is not sure of"."""
FORMS = ("names", "ids")
PROGRESS_FROM = 2000  # queries; fewer take no time worth a bar
PART = 2048  # queries coded at a time: among many there are more of one length, which are coded together


def query_vector(query: QueryRepresentation) -> SparseRow:
    """A query's attributes and their weights; none for one without a word, which a search answers with nothing too."""
    if not query.terms.stems:
        return NOTHING
    lexical, expansion = query.lexical, query.expansion
    return SparseRow(
        np.concatenate([lexical.key, expansion.key]).astype(np.int64),
        np.concatenate([lexical.weight, np.float32(OF_QUERIES) * expansion.weight]).astype(np.float32),
    )


def product_vectors(index: Index, rows: NDArray[np.int64]) -> SparseRows:
    """The attributes of some products of an index, by their rows (N,), and their weights, (X,) in all."""
    lexical, expansion = (read_keys(index, postings, rows) for postings in (index.lexical, index.expansion))
    return SparseRows.build(
        np.concatenate([lexical.rows(), expansion.rows()]),
        np.concatenate([lexical.key, expansion.key]),
        np.concatenate([lexical.weight, np.float32(OF_PRODUCTS) * expansion.weight]),
        n_rows=len(rows),
    )


def named(row: SparseRow, lexicon: Lexicon) -> dict[str, float]:
    """{attribute: weight}, the heaviest first; a dot in a name, which some engines refuse, is written as `·`.

    Two attributes that this makes one share the sum of their weights.
    """
    names: dict[str, float] = {}
    for at in np.argsort(-row.weight, kind="stable").tolist():
        name = str(lexicon.attributes[int(row.key[at])]).replace(".", "·")
        names[name] = names.get(name, 0.0) + float(row.weight[at])
    return {name: round(weight, 5) for name, weight in names.items()}


def shown(row: SparseRow, lexicon: Lexicon, form: str) -> dict[str, Any]:
    """A vector in one of the `FORMS`: {"codes": {name: weight}}, or {"indices": […], "values": […]}, indices rising.

    Raises SettingError for another form.
    """
    if form == "names":
        return {"codes": named(row, lexicon)}
    if form != "ids":
        raise SettingError(f"there is no form {form!r} of a vector. Fix: choose from {', '.join(FORMS)}")
    order = np.argsort(row.key)
    return {"indices": row.key[order].tolist(), "values": [round(weight, 5) for weight in row.weight[order].tolist()]}


def write_products(snapshot: Snapshot, path: Path, form: str = "names") -> int:
    """Writes a line of JSON for every product that is sold, codes given and taken included; how many there are.

    Raises DataError where `path` cannot be written.
    """
    _write(path, "product_id", _sold(snapshot), snapshot.searcher.lexicon, form)
    return len(snapshot)


def _sold(snapshot: Snapshot) -> Iterator[tuple[str, SparseRow]]:
    for segment in snapshot.segments:
        rows = np.array(segment.alive, dtype=np.int64)
        vectors = product_vectors(segment.index, rows)
        yield from ((product_id, vectors.of(i)) for i, product_id in enumerate(segment.index.table.ids[rows].tolist()))


def write_queries(snapshot: Snapshot, queries: Mapping[str, str], path: Path, form: str = "names") -> int:
    """The same for queries {id: text}, read as a search reads them: misspelt words are read right. A bar tells how far
    many of them are."""
    progress = "coding queries" if len(queries) >= PROGRESS_FROM else ""
    represented = snapshot.searcher.represent_in_parts(list(queries.values()), progress, PART)
    rows = zip(queries, map(query_vector, represented), strict=True)
    _write(path, "query_id", rows, snapshot.searcher.lexicon, form)
    return len(queries)


def _write(path: Path, id_name: str, rows: Iterable[tuple[str, SparseRow]], lexicon: Lexicon, form: str) -> None:
    with write_whole(path) as stream:
        for line in _lines(id_name, rows, lexicon, form):
            stream.write(line)


def _lines(id_name: str, rows: Iterable[tuple[str, SparseRow]], lexicon: Lexicon, form: str) -> Iterator[str]:
    for text_id, row in rows:
        yield json.dumps({id_name: text_id} | shown(row, lexicon, form), ensure_ascii=False) + "\n"
