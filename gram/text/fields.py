"""The texts of a product, field by field: what is mined, coded, and counted by BM25."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from gram.errors import SettingError
from gram.records import Product

FIELDS = ("title", "brand", "category", "attribute", "description")
"""Every field that holds words, in the order in which a product is read."""
UNREAD = frozenset({"stock", "image", "url"})
"""Attributes that say nothing of what a product is: no word of theirs is read, nor of a web address in any other."""


def said_attributes(product: Product) -> Iterator[tuple[str, str]]:
    """A product's attributes as far as they say what it is: (column, value).

    >>> list(said_attributes(Product("1", "Oak Desk", attributes={"URL": ("https://a.b",), "wood": ("oak",)})))
    [('wood', 'oak')]
    """
    for column, values in product.attributes.items():
        if column.casefold() not in UNREAD:
            yield from ((column, value) for value in values if not value.startswith(("https://", "http://")))


def field_texts(product: Product) -> list[tuple[str, str]]:
    """A product's text by field, title first: (field, text), field one of FIELDS; empty ones left out."""
    texts = [("title", product.title), ("brand", product.brand), ("category", " . ".join(product.category[-2:]))]
    texts += [("attribute", value) for _, value in said_attributes(product)]
    texts.append(("description", product.description))
    return [(name, text) for name, text in texts if text]


def joined_text(product: Product, fields: Sequence[str] = FIELDS) -> str:
    """Some fields as one text, as engines read it that know no fields; the category with its whole path.

    Of a map of attributes the values are read, not the column names. Raises SettingError for no field of words.

    >>> joined_text(Product("1", "Oak Desk", category=("Home", "Desks")), ("title", "category"))
    'Oak Desk Home Desks'
    """
    texts = {
        "title": [product.title],
        "brand": [product.brand],
        "category": product.category,
        "attribute": [value for _, value in said_attributes(product)],
        "description": [product.description],
    }
    for field in fields:
        if field not in texts:
            raise SettingError(f"'{field}' is no field of words. Fix: choose from {', '.join(FIELDS)}.")
    return " ".join(text for field in fields for text in texts[field] if text)
