"""Near-line coding: what comes into a live index is coded by the index's own coder at once, and by a language model
when it comes to it.

What the model writes of a product and neither its text nor a person says is given to it, as `gram.code_edits` keeps it:
for good, and under every other coder too. A product that changes again is written anew, and loses what the model gave
it before and writes no more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from tqdm import tqdm

from gram.code_edits import CodeEdit
from gram.coder.base import PRODUCT_CODING, Coder, Side
from gram.index.store import FROM_MODEL, PENDING
from gram.records import Attribute, Product
from gram.shop import Shop

CODING = replace(PRODUCT_CODING, least=0.5)
"""What is given counts as if the text held it, so the model must be rather sure. Not tuned."""
AT_ONCE = 64
"""Products between two moments at which a run that is stopped goes on."""


class Given(NamedTuple):
    """How many products were coded, and how many codes they were given and lost."""

    products: int
    given: int
    withdrawn: int


def code_pending(shop: Shop, coder: Coder) -> Given:
    """Gives the products that came or changed since they were last coded by this what a language model writes of
    them; durable and visible, product by product. `shop` is open for writing."""
    waiting = [(product_id, shop.product(product_id)) for product_id in shop.store.all(PENDING)]
    products = [product for _, product in waiting if product is not None]
    for product_id in (product_id for product_id, product in waiting if product is None):
        shop.store.remove(PENDING, product_id)  # another index was written, without it
    noted = {p: {Attribute(*code) for code in entry["codes"]} for p, entry in shop.store.all(FROM_MODEL).items()}
    given = withdrawn = 0
    for begin in tqdm(range(0, len(products), AT_ONCE), desc="coding what came", unit="batch", disable=not products):
        part = products[begin : begin + AT_ONCE]
        for product, said in zip(part, _write(shop, coder, part), strict=True):
            new, gone = _give(shop, product.product_id, said, noted.get(product.product_id, set()))
            given, withdrawn = given + new, withdrawn + gone
    return Given(len(products), given, withdrawn)


def _write(shop: Shop, coder: Coder, products: Sequence[Product]) -> list[set[Attribute]]:
    """The attributes that the model writes of each product and its text lacks, as far as the index has them, under the
    names that it has for them."""
    found = coder.represent(products, Side.PRODUCT, CODING).expansion
    lexicon, rows = shop.live.searcher.lexicon, []
    for row in range(len(products)):
        said = [coder.lexicon.attributes[key] for key in found.of(row).key.tolist()]
        known = [lexicon.id_of(lexicon.analyzer.stems(attribute.value)) for attribute in said]
        rows.append({lexicon.attributes[key] for key in known if key >= 0})
    return rows


def _give(shop: Shop, product_id: str, said: set[Attribute], before: set[Attribute]) -> tuple[int, int]:
    """Gives a product what the model says, and takes back what it gave `before` and says no more; how many of each.

    What a person gave or took stays as it is, also where the model had given it (`Shop.edit_code`). All is noted as the
    model's first, so that a run that is stopped here leaves nothing that looks like a person's.
    """
    new = said - (shop.live.snapshot.edits.of(product_id).keys() - before)
    shop.store.put(FROM_MODEL, product_id, {"codes": sorted(new | before)})
    for attribute in sorted(before - new):
        shop.live.edit_code(CodeEdit(product_id, attribute, None))
    for attribute in sorted(new - before):
        shop.live.edit_code(CodeEdit(product_id, attribute, True))
    shop.store.write((), (FROM_MODEL, product_id, {"codes": sorted(new)}), (PENDING, product_id, None))
    return len(new - before), len(before - new)
