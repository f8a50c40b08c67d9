"""Indexing: a catalogue as one model codes it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from gram.coder.encoder.coding import PRODUCT_CODING, Coded, CodingSettings, code_texts
from gram.coder.encoder.generator import Generator
from gram.coder.encoder.network import PRODUCT
from gram.index.bm25 import Words
from gram.index.nearest import Sketch
from gram.index.postings import Postings
from gram.index.segment import Index, value_scores
from gram.index.table import ProductTable
from gram.index.titles import Titles
from gram.records import Product
from gram.text.fields import field_texts
from gram.text.words import stems

NO_MODEL = {"model": "", "model_hash": ""}
"""What an index remembers that is never saved."""


def build_index(
    generator: Generator,
    products: Sequence[Product],
    meta: dict[str, Any] | None = None,
    coding: CodingSettings = PRODUCT_CODING,
) -> Index:
    """Codes products and gathers everything a search needs, in memory."""
    words = Words.build(product_stems(products, generator.lexicon.language))
    extra = _missing(generator, words)
    generator = generator.with_words(extra)
    coded = code_texts(generator, generator.texts.products(products), PRODUCT, coding, progress="coding products")
    return assembled(generator, products, coded, words, extra, (meta or NO_MODEL) | {"coding": asdict(coding)})


def assembled(
    generator: Generator,
    products: Sequence[Product],
    coded: Coded,
    words: Words,
    extra: dict[str, int],
    meta: dict[str, Any],
) -> Index:
    """The index of coded products; `extra` are the words that the lexicon had to learn for them."""
    lexicon = generator.lexicon
    return Index(
        table=ProductTable.build(products),
        words=words,
        own=Postings.build(coded.own[1], coded.own[0], coded.own[2], len(lexicon)),
        written=Postings.build(coded.written[1], coded.written[0], coded.written[2], len(lexicon)),
        deep=Postings.build(coded.deep[1], coded.deep[0], coded.deep[2], generator.trie.n_code_ids),
        trie=generator.trie,
        vectors=coded.vectors,
        sketch=Sketch.build(coded.vectors),
        pieces=coded.pieces,
        titles=Titles.build([stems(p.title, lexicon.language) for p in products], words),
        value=value_scores(products),
        extra_words=list(extra),
        extra_counts=np.array(list(extra.values()), dtype=np.int64),
        meta=meta,
    )


def product_stems(products: Sequence[Product], language: str) -> Iterator[list[str]]:
    """The stems of all fields of each product, for the keyword evidence."""
    return ([s for _, text in field_texts(p) for s in stems(text, language)] for p in products)


def _missing(generator: Generator, words: Words) -> dict[str, int]:
    """The words of a catalogue that a lexicon lacks: {stem: products that would hold it among the lexicon's many}."""
    lexicon = generator.lexicon
    share = lexicon.n_products / words.n_products
    new = [stem for stem in sorted(words.ids) if lexicon.id_of((stem,)) < 0]
    return {stem: max(1, round(words.document_frequency(stem) * share)) for stem in new}
