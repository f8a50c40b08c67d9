"""The texts of a product, field by field: what is mined, coded, and counted by BM25."""

from __future__ import annotations

from gram.records import Product

FIELDS = ("title", "brand", "category", "attribute", "description")
"""Every field that holds words, in the order in which a product is read."""


def field_texts(product: Product) -> list[tuple[str, str]]:
    """A product's text by field, title first: (field, text), field one of FIELDS; empty ones left out."""
    texts = [("title", product.title), ("brand", product.brand), ("category", " . ".join(product.category[-2:]))]
    texts += [("attribute", value) for values in product.attributes.values() for value in values]
    texts.append(("description", product.description))
    return [(name, text) for name, text in texts if text]
