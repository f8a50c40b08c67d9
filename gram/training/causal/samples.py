"""What a language model is trained on: prompts of both sides, and the codes that should follow them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gram.arrays import offsets
from gram.coder.base import Side
from gram.coder.causal.text import write_code, write_prompt
from gram.codes.lexicon import Lexicon
from gram.codes.pseudo_queries import pseudo_query, pseudo_share
from gram.codes.space import CodeSpace, CodeTargets, make_space
from gram.codes.targets import Targets, make_targets
from gram.errors import SettingError
from gram.records import Interaction, Product
from gram.text.fields import FIELDS, field_texts
from gram.training.samples import vary

SINGLE = 0.3
"""How often a text is asked for a code of one attribute where it has longer ones too. Not tuned."""
TRIES = 20
"""Products that are asked for each pseudo-query of a batch at most: those without attributes have none."""
DROPPED = 0.2
"""How often a product's field other than its title is hidden: its codes must then be known, not copied. Not tuned."""


class Examples(NamedTuple):
    """Prompts and the code that each should be followed by."""

    prompts: list[str]
    codes: list[str]


@dataclass
class CodeSamples:
    """Everything that batches are drawn from; rows of `clicked` are the products of each query."""

    lexicon: Lexicon
    products: Sequence[Product]
    queries: list[str]
    clicked: list[NDArray[np.int64]]
    tags: list[NDArray[np.int32]]  # of each product (T, 4): attribute, first word, one past the last, field
    query_targets: Targets
    product_targets: Targets
    space: CodeSpace
    of_queries: CodeTargets  # codes of two and more attributes; co-training adds to them
    of_products: CodeTargets

    @classmethod
    def collect(cls, lexicon: Lexicon, products: Sequence[Product], log: Sequence[Interaction]) -> CodeSamples:
        """From a catalogue and what was clicked in it, which may be nothing."""
        row_of = {p.product_id: i for i, p in enumerate(products)}
        queries = list(dict.fromkeys(i.query for i in log))
        number = {query: i for i, query in enumerate(queries)}
        weight: dict[tuple[int, int], float] = {}
        for i in log:
            pair = (number[i.query], row_of[i.product_id])
            weight[pair] = weight.get(pair, 0.0) + i.weight
        pairs = np.array(list(weight), dtype=np.int64).reshape(-1, 2)
        weights = np.array(list(weight.values()), dtype=np.float32)
        tags = [_tags(lexicon, field_texts(product)) for product in products]
        of_queries, of_products = make_targets(
            lexicon,
            [_tags(lexicon, [("title", query)])[:, 0] for query in queries],
            [row[row[:, 3] < FIELDS.index("description"), 0] for row in tags],
            pairs,
            weights,
        )
        order = np.argsort(pairs[:, 0], kind="stable")
        ends = np.cumsum(np.bincount(pairs[:, 0], minlength=len(queries)))[:-1]
        clicked = [pairs[rows, 1] for rows in np.split(order, ends)] if queries else []
        if not of_products.weight.sum() > 0:
            raise SettingError("the products' texts hold no attribute that a searcher could name. Fix: see titles")
        space = make_space(lexicon, of_queries, of_products)
        return cls(
            lexicon, products, queries, clicked, tags, of_queries, of_products, space, space.of_queries,
            space.of_products,
        )  # fmt: skip

    def with_targets(self, of_queries: CodeTargets, of_products: CodeTargets) -> CodeSamples:
        """The same texts with other codes to write."""
        return replace(self, of_queries=of_queries, of_products=of_products)

    def in_space(self, space: CodeSpace) -> CodeSamples:
        """The same texts with the numbers that another space has for their codes, without those that it lacks."""
        number = {tuple(row): i for i, row in enumerate(space.codes.tolist())}
        there = np.array([number.get(tuple(row), -1) for row in self.space.codes.tolist()], dtype=np.int64)

        def renumber(targets: CodeTargets) -> CodeTargets:
            code = there[targets.code]
            kept = code >= 0
            text = np.repeat(np.arange(len(targets.start) - 1), np.diff(targets.start))[kept]
            start = offsets(np.bincount(text, minlength=len(targets.start) - 1))
            return CodeTargets(start, code[kept], targets.weight[kept])

        return replace(self, space=space, of_queries=renumber(self.of_queries), of_products=renumber(self.of_products))

    @cached_property
    def _with_codes(self) -> NDArray[np.int64]:
        """The products that have a code to write."""
        return self._rows_with_codes(self.of_products, self.product_targets)

    @cached_property
    def _queries_with_codes(self) -> NDArray[np.int64]:
        return self._rows_with_codes(self.of_queries, self.query_targets)

    def draw(self, size: int, rng: np.random.Generator) -> tuple[Examples, Examples]:
        """So many queries, logged ones and pseudo-queries, and as many products, with a code each.

        Where products have no pseudo-queries, logged queries stand in. Raises SettingError where there are none either.
        """
        share = pseudo_share(len(self.queries))
        n_logged = min(size - round(size * share), len(self.queries))
        queries = Examples([], [])
        for q in rng.choice(len(self.queries), n_logged, replace=False).tolist() if n_logged else []:
            self._add_logged(queries, q, rng)
        for _ in range(TRIES * size):
            if len(queries.prompts) >= size:
                break
            self._add_pseudo(queries, self._draw_product(rng), rng)
        if len(queries.prompts) < size and not len(self._queries_with_codes):
            problem = "neither the log nor the products' texts give a query with a code to learn"
            raise SettingError(f"{problem}. Fix: see titles, or give a log")
        while len(queries.prompts) < size:
            self._add_logged(queries, int(rng.choice(self._queries_with_codes)), rng)
        products = Examples([], [])
        for _ in range(size):
            p = self._draw_product(rng)
            products.codes.append(self._draw_code(self.of_products, self.product_targets, p, rng))
            products.prompts.append(write_prompt(hide_fields(self.products[p], rng), Side.PRODUCT))
        return queries, products

    def all_of(self, rows: Sequence[int], limit: int, rng: np.random.Generator) -> Examples:
        """A code of each of some queries, at most `limit` of them: for validation."""
        found = Examples([], [])
        for q in rows[:limit]:
            code = self._draw_code(self.of_queries, self.query_targets, q, rng)
            if code:
                found.prompts.append(write_prompt(self.queries[q], Side.QUERY))
                found.codes.append(code)
        return found

    def line(self, attributes: Sequence[int]) -> str:
        """A code as its line."""
        return write_code([self.lexicon.attributes[a] for a in attributes])

    def line_of(self, code: int) -> str:
        row = self.space.codes[code]
        return self.line(row[row >= 0].tolist())

    def _draw_product(self, rng: np.random.Generator) -> int:
        return int(self._with_codes[rng.integers(len(self._with_codes))])

    def _add_logged(self, queries: Examples, q: int, rng: np.random.Generator) -> None:
        code = self._draw_code(self.of_queries, self.query_targets, q, rng)
        if code:
            queries.prompts.append(write_prompt(vary(self.queries[q], rng), Side.QUERY))
            queries.codes.append(code)

    def _add_pseudo(self, queries: Examples, p: int, rng: np.random.Generator) -> None:
        made = pseudo_query(self.lexicon, self.tags[p], rng)
        if made:
            code = self._draw_said(p, set(made[1]), rng)
            queries.prompts.append(write_prompt(made[0], Side.QUERY))
            queries.codes.append(code or self._draw_code(self.of_products, self.product_targets, p, rng))

    def _rows_with_codes(self, codes: CodeTargets, targets: Targets) -> NDArray[np.int64]:
        """The texts that `_draw_code` finds a code of."""
        long = _sums(codes.start, codes.weight)
        single = _sums(targets.start, targets.weight * self.lexicon.idf[targets.attribute])
        return np.flatnonzero((long > 0) | (single > 0))

    def _draw_code(self, codes: CodeTargets, targets: Targets, text: int, rng: np.random.Generator) -> str:
        at = slice(codes.start[text], codes.start[text + 1])
        weight = codes.weight[at]
        attributes, sure = targets.row(text)
        value = sure * self.lexicon.idf[attributes]
        if weight.sum() > 0 and (rng.random() >= SINGLE or not value.sum() > 0):
            return self.line_of(int(rng.choice(codes.code[at], p=_shares(weight))))
        return self.line([int(rng.choice(attributes, p=_shares(value)))]) if value.sum() > 0 else ""

    def _draw_said(self, product: int, named: set[int], rng: np.random.Generator) -> str:
        """A code of a product that says something of what a pseudo-query asks, the more the likelier; "" for none."""
        at = slice(self.of_products.start[product], self.of_products.start[product + 1])
        codes, weight = self.of_products.code[at], self.of_products.weight[at].astype(np.float64)
        table = self.space.codes[codes]
        length = np.maximum((table >= 0).sum(axis=1), 1)
        said = np.isin(table, list(named)).sum(axis=1) / length
        weight = weight * said**2
        return self.line_of(int(rng.choice(codes, p=_shares(weight)))) if weight.sum() > 0 else ""


def hide_fields(product: Product, rng: np.random.Generator) -> Product:
    """A product without some of what it says beside its title: what it is must then be known, not copied."""
    gone = rng.random(4) < DROPPED
    return product._replace(
        brand="" if gone[0] else product.brand,
        category=() if gone[1] else product.category,
        description="" if gone[2] else product.description,
        attributes={k: v for k, v in product.attributes.items() if rng.random() >= DROPPED},
    )


def _tags(lexicon: Lexicon, fields: Sequence[tuple[str, str]]) -> NDArray[np.int32]:
    tags = lexicon.lexical_of(fields)
    rows = [(a, where.start, where.end, FIELDS.index(where.field)) for a, where in tags.items()]
    return np.array(rows, dtype=np.int32).reshape(-1, 4)


def _sums(start: NDArray[np.int64], weight: NDArray[np.floating]) -> NDArray[np.float64]:
    """The sum of each row's weights, (rows,)."""
    row = np.repeat(np.arange(len(start) - 1), np.diff(start))
    return np.bincount(row, weight, minlength=len(start) - 1).astype(np.float64)


def _shares(weight: NDArray[np.floating]) -> NDArray[np.float64]:
    shares = weight.astype(np.float64)
    return shares / shares.sum()
