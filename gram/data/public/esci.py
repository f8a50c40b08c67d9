"""Amazon's Shopping Queries Dataset, ESCI (Reddy et al. 2022, arXiv 2206.06588), one locale at a time.

`load` reads a folder with the publisher's two Parquet files, or with a cut of them in text: `products.jsonl` and
`judgments.tsv` (query, product_id, esci_label). The labels are grades here: E(xact) 3, S(ubstitute) 2, C(omplement) 1,
I(rrelevant) 0, so that E and S are relevant wherever grades from 2 are.
"""

from __future__ import annotations

import html
from collections.abc import Collection
from pathlib import Path
from typing import Literal

from gram.data.columns import Record, read_records
from gram.data.dataset import Dataset, Judgement, Part, split_judgements, split_part
from gram.data.files import one_line
from gram.data.public.markup import plain_text
from gram.data.tables import read_table
from gram.errors import DataError
from gram.records import Product

GRADES = {"E": 3.0, "S": 2.0, "C": 1.0, "I": 0.0}
WEIGHTS = {"E": 1.0, "S": 0.5}
"""What a training judgement weighs in the log; complements and irrelevant products are left out of it."""

_EXAMPLES, _PRODUCTS = "shopping_queries_dataset_examples.parquet", "shopping_queries_dataset_products.parquet"
_MINI_JUDGEMENTS, _MINI_PRODUCTS = "judgments.tsv", "products.jsonl"


def load(folder: str | Path, locale: str = "us", version: Literal["small", "large"] = "small") -> Dataset:
    """The judged products of a locale and version, and their judgements.

    The publisher's split gives the test part; of its training queries those that `split_part` calls dev are the dev
    part. The text cut has no split, and takes `split_part`'s. Its `locale` and `version` are what they are.
    Errors: `DataError` if the folder holds neither form or nothing of this locale, `MissingColumn`, `BadRow`.
    """
    folder = Path(folder)
    if (folder / _EXAMPLES).exists() and (folder / _PRODUCTS).exists():
        judgements = _read_examples(folder / _EXAMPLES, locale, version)
        judged = {judgement.product_id for judgement in judgements}
        return split_judgements(_read_products(folder / _PRODUCTS, locale, judged), judgements)
    if (folder / _MINI_JUDGEMENTS).exists() and (folder / _MINI_PRODUCTS).exists():
        judgements = _read_mini(folder / _MINI_JUDGEMENTS)
        return split_judgements(_read_mini_products(folder / _MINI_PRODUCTS), judgements)
    fix = f"put {_EXAMPLES} and {_PRODUCTS} there (github.com/amazon-science/esci-data), unpacked."
    raise DataError(folder, "holds no ESCI files.", fix)


def _read_examples(path: Path, locale: str, version: str) -> list[Judgement]:
    columns = ("query", "query_id", "product_id", "product_locale", "esci_label", f"{version}_version", "split")
    judgements: list[Judgement] = []
    for record in read_records(read_table(path, columns=columns), dict.fromkeys(columns, ()), columns):
        if record.text("product_locale") != locale or record.number(columns[5]) != 1:
            continue
        split, query = record.text("split"), record.text("query", required=True)
        if split not in ("train", "test"):
            raise record.bad("split", "neither train nor test", "download the file again.")
        part: Part = "test" if split == "test" else "dev" if split_part(query) == "dev" else "train"
        label = _label(record)
        judgements.append(
            Judgement(
                part,
                record.identifier("query_id"),
                query,
                record.identifier("product_id"),
                WEIGHTS.get(label, 0.0),
                GRADES[label],
            )
        )
    if not judgements:
        raise DataError(path, f"holds nothing of locale '{locale}', version '{version}'.", "try us, es or jp.")
    return judgements


def _read_products(path: Path, locale: str, judged: Collection[str]) -> list[Product]:
    texts = ("product_title", "product_description", "product_bullet_point", "product_brand", "product_color")
    columns = ("product_id", "product_locale", *texts)
    products: list[Product] = []
    for record in read_records(read_table(path, columns=columns), dict.fromkeys(columns, ()), columns):
        if record.cell("product_locale") == locale and record.cell("product_id") in judged:
            title, description, bullets, brand, colour = (record.text(column, lines=True) for column in texts)
            product_id = record.text("product_id")
            products.append(_product(product_id, title, (description, bullets), brand, colour))
    return products


def _read_mini(path: Path) -> list[Judgement]:
    columns = ("query", "product_id", "esci_label")
    query_ids: dict[str, str] = {}
    judgements: list[Judgement] = []
    for record in read_records(read_table(path), dict.fromkeys(columns, ()), columns):
        query, label = record.text("query", required=True), _label(record)
        query_id = query_ids.setdefault(query, str(len(query_ids) + 1))
        product_id, weight = record.identifier("product_id"), WEIGHTS.get(label, 0.0)
        judgements.append(Judgement(split_part(query), query_id, query, product_id, weight, GRADES[label]))
    return judgements


def _read_mini_products(path: Path) -> list[Product]:
    columns = ("product_id", "title", "brand", "color", "description", "bullets")
    products: list[Product] = []
    for record in read_records(read_table(path), dict.fromkeys(columns, ()), columns[:2]):
        product_id, title, brand, colour, description, bullets = (record.text(c, lines=True) for c in columns)
        products.append(_product(product_id, title, (description, bullets), brand, colour))
    return products


def _product(product_id: str, title: str, texts: tuple[str, ...], brand: str, colour: str) -> Product:
    """A few products have no title: their id stands for it, for a judged product must be there to be found."""
    return Product(
        product_id,
        one_line(html.unescape(title)) or product_id,
        brand=one_line(brand),
        description=" ".join(filter(None, map(plain_text, texts))),
        attributes={"color": (one_line(colour),)} if one_line(colour) else {},
    )


def _label(record: Record) -> str:
    label = record.text("esci_label")
    if label not in GRADES:
        raise record.bad("esci_label", "not one of E, S, C, I", "download the file again.")
    return label
