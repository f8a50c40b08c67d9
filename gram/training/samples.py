"""What the coder trains on: interactions and pseudo-queries, in batches with hard negatives.

Letters: B queries of a batch, M products of a batch (the B clicked ones first, then hard negatives), G learnt
attributes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gram.coder.encoder.tokens import Batch, TextTokenizer, TokenizedTexts
from gram.codes.lexicon import Lexicon
from gram.codes.pseudo_queries import MISSPELT, pseudo_query
from gram.codes.space import CodeSpace, CodeTargets, make_space
from gram.codes.targets import Targets, make_targets
from gram.errors import SettingError
from gram.index.bm25 import BM25Index
from gram.records import Interaction, Product
from gram.text.fields import FIELDS
from gram.text.typos import misspell
from gram.text.words import has_digit

DESCRIPTION = FIELDS.index("description")  # lexical, but not counted as what a product is
SHORTENED = 0.15
"""How often a logged query of three words or more is trained on without one of them."""
HIDDEN = 0.5
"""Share of pseudo-queries of two attributes and more one of which is hidden from the product they are made of, so that
the model has to write it: of what a product says anyway it learns nothing."""
HARD_FROM, HARD_TO = 15, 200  # ranks from which hard negatives are drawn


class TrainingBatch(NamedTuple):
    """One step's worth of texts and of what is known of them."""

    queries: Batch  # B texts
    products: NDArray[np.int64]  # (M,) rows of the catalogue
    ignored: Tensor  # (B, M) True where a product may be relevant too and must not count as a negative
    query_targets: tuple[Tensor, Tensor, Tensor]  # row, attribute, weight
    product_targets: tuple[Tensor, Tensor, Tensor]
    product_unknown: Tensor  # (B,) True for a clicked product that no logged query of this batch speaks for
    query_codes: tuple[Tensor, Tensor]  # row, code id of the space
    product_codes: tuple[Tensor, Tensor]
    hidden: dict[int, list[int]]  # of some pseudo-queries' products, by number in the batch, attributes to hide


@dataclass
class Samples:
    """Everything that batches are drawn from."""

    lexicon: Lexicon
    tokenizer: TextTokenizer
    products: Sequence[Product]
    tokenized: TokenizedTexts
    queries: list[str]
    clicked: list[NDArray[np.int64]]  # products of each query
    chance: list[NDArray[np.float64]]  # how likely each is to be drawn
    query_targets: Targets
    product_targets: Targets
    space: CodeSpace
    bm25: BM25Index
    same_title: NDArray[np.int64]  # (N,) number of each product's title
    near: Sequence[NDArray[np.int64]] | None = None  # of each query, products that the model ranks high, best first

    @classmethod
    def collect(
        cls,
        products: Sequence[Product],
        tokenized: TokenizedTexts,
        log: Sequence[Interaction],
        tokenizer: TextTokenizer,
        bm25: BM25Index,
    ) -> Samples:
        """`tokenized` and `bm25` are of `products`, row by row."""
        lexicon = tokenizer.lexicon
        row_of = {p.product_id: i for i, p in enumerate(products)}
        queries = list(dict.fromkeys(i.query for i in log))
        number = {q: i for i, q in enumerate(queries)}
        weight: dict[tuple[int, int], float] = {}
        for i in log:
            pair = (number[i.query], row_of[i.product_id])
            weight[pair] = weight.get(pair, 0.0) + i.weight
        pairs = np.array(list(weight), dtype=np.int64).reshape(-1, 2)
        weights = np.array(list(weight.values()), dtype=np.float32)
        say = tokenizer.queries(queries)
        of_queries, of_products = make_targets(
            lexicon,
            [say.attributes_of(i) for i in range(len(queries))],
            [_attributes_of(tokenized, i) for i in range(len(products))],
            pairs,
            weights,
        )
        clicked, chance = [], []
        order = np.argsort(pairs[:, 0], kind="stable")
        for rows in np.split(order, np.cumsum(np.bincount(pairs[:, 0], minlength=len(queries)))[:-1]):
            clicked.append(pairs[rows, 1])
            chance.append(np.sqrt(weights[rows]) / np.sqrt(weights[rows]).sum())
        titles: dict[str, int] = {}
        same = np.array([titles.setdefault(p.title.lower(), len(titles)) for p in products], dtype=np.int64)
        return cls(
            lexicon=lexicon,
            tokenizer=tokenizer,
            products=products,
            tokenized=tokenized,
            queries=queries,
            clicked=clicked,
            chance=chance,
            query_targets=of_queries,
            product_targets=of_products,
            space=make_space(lexicon, of_queries, of_products),
            bm25=bm25,
            same_title=same,
        )

    def with_log(self, log: Sequence[Interaction]) -> Samples:
        """The same catalogue with other queries, of which nothing is known but the products they lead to."""
        row_of = {p.product_id: i for i, p in enumerate(self.products)}
        by_query: dict[str, list[int]] = {}
        for i in log:
            by_query.setdefault(i.query, []).append(row_of[i.product_id])
        clicked = [np.unique(row) for row in by_query.values()]
        none = np.zeros(len(clicked) + 1, np.int64)
        return replace(
            self,
            queries=list(by_query),
            clicked=clicked,
            chance=[np.full(len(row), 1 / len(row)) for row in clicked],
            near=None,
            query_targets=Targets(none, np.zeros(0, np.int32), np.zeros(0, np.float32)),
            space=self.space._replace(of_queries=CodeTargets(none, np.zeros(0, np.int64), np.zeros(0, np.float32))),
        )

    def batch(self, size: int, n_hard: int, pseudo_share: float, rng: np.random.Generator) -> TrainingBatch:
        """`size` queries with a clicked product each, the given share of them pseudo-queries, and `n_hard` hard
        negatives."""
        n_log = min(size - round(size * pseudo_share), len(self.queries))
        rows = rng.choice(len(self.queries), n_log, replace=False).tolist() if n_log else []
        texts = [vary(self.queries[q], rng) if pseudo_share else self.queries[q] for q in rows]
        clicked = [int(rng.choice(self.clicked[q], p=self.chance[q])) for q in rows]
        said: list[set[int]] = []  # the attributes that each pseudo-query names
        hidden: dict[int, list[int]] = {}
        silent = 0
        while len(texts) < size:
            product = int(rng.integers(len(self.products)))
            made = pseudo_query(self.lexicon, self._tags(product), rng)
            if made is None:
                silent += 1
                if silent > 100 * size:
                    raise SettingError("the products' texts hold no words that a searcher could type. Fix: see titles")
            else:
                texts.append(made[0])
                clicked.append(product)
                said.append(set(made[1]))
                if len(made[1]) > 1 and rng.random() < HIDDEN:
                    hidden[len(clicked) - 1] = [int(rng.choice(made[1]))]
        drawn = rng.choice(size, min(n_hard, size), replace=False).tolist()
        hard = [self._hard_negative(texts[i], rows[i] if i < n_log else None, rng) for i in drawn]
        products = np.array(clicked + hard, dtype=np.int64)
        space, pseudo = self.space, clicked[n_log:]
        return TrainingBatch(
            queries=self.tokenizer.queries(texts).batch(np.arange(size)),
            products=products,
            ignored=torch.from_numpy(self._ignored(rows, said, products, size)),
            query_targets=self._targets([(self.query_targets, q) for q in rows] + [(None, p) for p in pseudo]),
            product_targets=self._targets([(self.product_targets, p) for p in clicked]),
            product_unknown=torch.arange(size) >= n_log,
            query_codes=_draw_codes(
                [(space.of_queries, q) for q in rows] + [(space.of_products, p) for p in pseudo], rng
            ),
            product_codes=_draw_codes([(space.of_products, p) for p in clicked], rng),
            hidden=hidden,
        )

    def _tags(self, product: int) -> NDArray[np.int32]:
        return self.tokenized.tags[self.tokenized.tag_start[product] : self.tokenized.tag_start[product + 1]]

    def _hard_negative(self, text: str, query: int | None, rng: np.random.Generator) -> int:
        """From the model's ranks every other time, once there are some; else from BM25's."""
        if self.near is not None and query is not None and rng.random() < 0.5:
            near = self.near[query][HARD_FROM:HARD_TO]
            if len(near):
                return int(rng.choice(near))
        scores = self.bm25.score(self.lexicon.analyzer.stems(text))
        last = min(HARD_TO, len(scores))
        if last <= HARD_FROM:
            return int(rng.integers(len(scores)))
        best = np.argpartition(-scores, last - 1)[:last]
        return int(rng.choice(best[np.argsort(-scores[best], kind="stable")][HARD_FROM:]))

    def _ignored(
        self, rows: list[int], said: list[set[int]], products: NDArray[np.int64], size: int
    ) -> NDArray[np.bool_]:
        ignored = self.same_title[products[:size]][:, None] == self.same_title[products][None, :]  # (B, M)
        for i, query in enumerate(rows):
            ignored[i] |= np.isin(products, self.clicked[query])
        of_products = [set(self.tokenized.attributes_of(p).tolist()) for p in products.tolist()] if said else []
        for i, attributes in enumerate(said, start=len(rows)):
            ignored[i] |= np.array([attributes <= h for h in of_products])
        ignored[np.arange(size), np.arange(size)] = False
        return ignored

    def _targets(self, texts: Sequence[tuple[Targets | None, int]]) -> tuple[Tensor, Tensor, Tensor]:
        """(row, attribute, weight) of each text; without targets, the attributes of the product in that row."""
        row, attribute, weight = [], [], []
        for i, (targets, number) in enumerate(texts):
            if targets is None:
                a = _attributes_of(self.tokenized, number)
                a = a[a < self.lexicon.n_learnt]
                w = np.ones(len(a), np.float32)
            else:
                a, w = targets.row(number)
            row.append(np.full(len(a), i))
            attribute.append(a.astype(np.int64))
            weight.append(w)
        joined = [np.concatenate(x) for x in (row, attribute, weight)]
        return torch.from_numpy(joined[0]), torch.from_numpy(joined[1]), torch.from_numpy(joined[2])


def vary(query: str, rng: np.random.Generator) -> str:
    """A query as another searcher might type it: now and then a word less, or a typo. Numbers stay.

    A log's few thousand queries pass several times; what is said a little differently each time is learnt, not
    remembered.
    """
    parts = query.split()
    loose = [i for i, part in enumerate(parts) if not has_digit(part)]
    if len(parts) > 2 and loose and rng.random() < SHORTENED:
        del parts[int(rng.choice(loose))]
    text = " ".join(parts)
    return misspell(text, rng) if rng.random() < MISSPELT else text


def _attributes_of(tokenized: TokenizedTexts, row: int) -> NDArray[np.int32]:
    """What a product is: the attributes of all its fields but the description."""
    tags = tokenized.tags[tokenized.tag_start[row] : tokenized.tag_start[row + 1]]
    return tags[tags[:, 3] < DESCRIPTION, 0]


def _draw_codes(texts: Sequence[tuple[CodeTargets, int]], rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Two codes of each text that has any, by their weights: (row, code id). A pseudo-query takes its product's."""
    of, codes = [], []
    for i, (targets, text) in enumerate(texts):
        at = slice(targets.start[text], targets.start[text + 1])
        weight = targets.weight[at]
        if len(weight) and weight.sum() > 0:
            of += [i, i]
            codes += rng.choice(targets.code[at], 2, p=weight / weight.sum(dtype=np.float64)).tolist()
    return torch.tensor(of, dtype=torch.int64), torch.tensor(codes, dtype=torch.int64)
