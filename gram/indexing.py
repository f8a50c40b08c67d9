"""Indexing: a catalogue as one coder represents it."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gram.arrays import SparseRows
from gram.coder.base import PRODUCT_CODING, Coder, CodingSettings, Representations, Side
from gram.coder.folder import check_model, load_coder, model_hash
from gram.codes.lexicon import Lexicon
from gram.codes.slots import SLOTS
from gram.data.catalogue import check_products
from gram.errors import DataError, SettingError
from gram.folders import check_replaceable
from gram.index.bm25 import BM25Index
from gram.index.code_rows import CodeRows
from gram.index.dropped import find_dropped
from gram.index.nearest import Sketch
from gram.index.postings import Postings
from gram.index.segment import Index, value_scores
from gram.index.store import MERGED, Store, store_path
from gram.index.table import LINES, OFFSETS, ProductTable
from gram.index.titles import Titles
from gram.records import Product
from gram.text.analysis import Analyzer
from gram.text.fields import field_texts

log = logging.getLogger("gram.index")

NO_MODEL = {"model": "", "model_hash": ""}
"""What an index remembers that is never saved."""


def make_index(
    model: str | Path, products: Sequence[Product], output: str | Path, device: str = "cpu", check: bool = True,
    replace: bool = False,
) -> Path:  # fmt: skip
    """Represents a catalogue with a trained model and writes the index folder.

    Raises SettingError where there are no products or an id stands twice, BadRow for a product that a catalogue's
    readers refuse, ModelError for a model that cannot be read, and DataError where changes of a live index would be
    lost, which `replace` allows.
    """
    products = check_products(products)
    if not products:
        raise SettingError("there are no products to index")
    unique_ids(products)
    check_replaceable(output, marker=OFFSETS)
    merged = _supersede(Path(output), products, replace)
    if check:
        check_model(Path(model))
    coder = load_coder(Path(model), device)
    meta = {"model": str(model), "model_hash": model_hash(Path(model)), MERGED: merged}
    build_index(coder, products, meta).save(output)
    return Path(output)


def _supersede(output: Path, products: Sequence[Product], replace: bool) -> int:
    """The number of the last change of the index that is there: what changed up to now is the catalogue's to say.

    Tells what the catalogue lacks of it; raises DataError unless that is to be replaced.
    """
    path = store_path(output)
    if not path.exists():
        return 0
    with closing(Store.open(path)) as store:
        last, dropped = store.last(), find_dropped(output, store, products)
    if any(dropped) and not replace:
        live = output / LINES
        fix = f"gram merge {output}, and take {live} into the catalogue; or drop the changes with --replace"
        raise DataError(output, f"changed live, and the catalogue lacks of it: {dropped}.", fix)
    if any(dropped):
        log.warning("%s: dropped of what changed live: %s; rules, keys, clicks and codes given stay", output, dropped)
    return last


def unique_ids(products: Sequence[Product]) -> set[str]:
    """The products' ids. Raises SettingError for one that stands twice."""
    ids: set[str] = set()
    for product in products:
        if product.product_id in ids:
            raise SettingError(f"the product id {product.product_id!r} stands twice. Fix: keep one product of an id")
        ids.add(product.product_id)
    return ids


def build_index(
    coder: Coder,
    products: Sequence[Product],
    meta: dict[str, Any] | None = None,
    coding: CodingSettings = PRODUCT_CODING,
) -> Index:
    """Represents products and gathers everything a search needs, in memory."""
    bm25 = BM25Index.build(product_stems(products, coder.lexicon.analyzer))
    extra = _missing_words(coder, bm25)
    coder = coder.with_words(extra)
    represented = coder.represent(products, Side.PRODUCT, coding, progress="coding products")
    meta = (meta or NO_MODEL) | {"coding": asdict(coding)}
    return assemble_index(coder, products, represented, bm25, extra, meta)


def assemble_index(
    coder: Coder,
    products: Sequence[Product],
    represented: Representations,
    bm25: BM25Index,
    extra: dict[str, int],
    meta: dict[str, Any],
) -> Index:
    """The index of represented products; `extra` are the words that the lexicon had to learn for them."""
    lexicon = coder.lexicon
    return Index(
        table=ProductTable.build(products),
        bm25=bm25,
        lexical=_postings(represented.lexical, len(lexicon)),
        expansion=_postings(represented.expansion, len(lexicon)),
        compound=_postings(represented.compound, len(coder.trie)),
        code_rows=CodeRows.build(represented.lexical, represented.expansion),
        slots=_mark_slots(represented.lexical, lexicon),
        trie=coder.trie,
        dense=represented.dense,
        sketch=Sketch.build(represented.dense),
        token_vectors=represented.token_vectors,
        titles=Titles.build([lexicon.analyzer.stems(p.title) for p in products], bm25),
        value=value_scores(products),
        extra_words=list(extra),
        extra_counts=np.array(list(extra.values()), dtype=np.int64),
        meta=meta,
    )


def product_stems(products: Sequence[Product], analyzer: Analyzer) -> Iterator[list[str]]:
    """The stems of all fields of each product, for BM25."""
    return ([s for _, text in field_texts(p) for s in analyzer.stems(text)] for p in products)


def _mark_slots(lexical: SparseRows, lexicon: Lexicon) -> NDArray[np.bool_]:
    """(N, S) whether each product's text holds an attribute of each slot."""
    marks = np.zeros((len(lexical.start) - 1, len(SLOTS) + 1), dtype=bool)
    marks[lexical.rows(), lexicon.default_slot_ids[lexical.key]] = True
    return marks


def _postings(rows: SparseRows, n_keys: int) -> Postings:
    return Postings.build(rows.key, rows.rows(), rows.weight, n_keys)


def _missing_words(coder: Coder, bm25: BM25Index) -> dict[str, int]:
    """The words of a catalogue that a lexicon lacks: {stem: products that would hold it among the lexicon's many}. Stop
    words are no attributes."""
    lexicon = coder.lexicon
    share = lexicon.n_products / bm25.n_products
    empty = {lexicon.analyzer.stem(word) for word in lexicon.analyzer.stopwords}
    new = [stem for stem in sorted(bm25.ids) if stem not in empty and lexicon.id_of((stem,)) < 0]
    return {stem: max(1, round(bm25.document_frequency(stem) * share)) for stem in new}
