"""A public dataset ready for training and judging, and the split that does not depend on who makes it."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from gram.data.catalogue import write_products
from gram.data.log import write_log, write_qrels, write_queries
from gram.records import Interaction, Product
from gram.text.stemming import stem
from gram.text.words import words

Part = Literal["train", "dev", "test"]
PRODUCTS, LOG, QUERIES, QRELS = "products.jsonl.gz", "log.tsv", "{}.queries.tsv", "{}.qrels.tsv"
FILES = (PRODUCTS, LOG, *(name.format(part) for part in ("dev", "test") for name in (QUERIES, QRELS)))
"""What a dataset is written to."""
LEAST_QUERIES = 50
"""A log of fewer distinct queries is not split."""


class Judged(NamedTuple):
    """Queries (query_id -> query) with their judgements (query_id -> product_id -> grade, ≥ 2 relevant)."""

    queries: dict[str, str]
    qrels: dict[str, dict[str, float]]


class Dataset(NamedTuple):
    """`log` holds interactions of training queries only; `parts` has the keys "dev" and "test". `training` are the
    judgements of training queries, where there are any, and is not written."""

    products: list[Product]
    log: list[Interaction]
    parts: Mapping[str, Judged]
    training: Judged = Judged({}, {})

    def with_log_share(self, share: float) -> Dataset:
        """The same with only a share of the log's queries: what a shop with a small log has."""
        return self._replace(log=draw_queries(self.log, share))

    def without_log(self) -> Dataset:
        """The same as a shop without a log: every judged query is one of test, and of dev too, on which rivals are
        tuned."""
        every = (self.training, *self.parts.values())
        whole = Judged(
            {query_id: query for part in every for query_id, query in part.queries.items()},
            {query_id: grades for part in every for query_id, grades in part.qrels.items()},
        )
        return self._replace(log=[], parts=dict.fromkeys(("dev", "test"), whole), training=Judged({}, {}))

    def write(self, folder: str | Path) -> None:
        """Writes products.jsonl.gz, log.tsv, and for each part {part}.queries.tsv and {part}.qrels.tsv."""
        folder = Path(folder)
        write_products(folder / PRODUCTS, self.products)
        write_log(folder / LOG, self.log)
        for part, judged in self.parts.items():
            write_queries(folder / QUERIES.format(part), judged.queries)
            write_qrels(folder / QRELS.format(part), judged.qrels)


@lru_cache(maxsize=4096)  # a dataset's rows of one query mostly stand together
def query_key(query: str) -> str:
    """What a query and its variants have in common: its distinct stems, with the marks of letters, sorted.

    >>> query_key("rubber mats") == query_key("mat, rubber")
    True
    """
    return " ".join(sorted({stem(word, folded=False) for word in words(query)}))


def hold_out(interactions: Sequence[Interaction], seed: int) -> tuple[list[Interaction], list[Interaction]]:
    """The log without, and with only, a tenth of its queries, at most 1,000, variants of a query together; nothing is
    held out of a log of under LEAST_QUERIES."""
    keys = {i.query: query_key(i.query) for i in interactions}
    distinct = sorted(set(keys.values()))
    if len(distinct) < LEAST_QUERIES:
        return list(interactions), []
    order = np.random.default_rng(seed).permutation(len(distinct))
    apart = {distinct[i] for i in order[: min(1000, len(distinct) // 10)]}
    return [i for i in interactions if keys[i.query] not in apart], [i for i in interactions if keys[i.query] in apart]


def draw_queries(interactions: Sequence[Interaction], share: float) -> list[Interaction]:
    """The interactions of a share (0 to 1) of the log's queries, rounded up.

    They are the first by their SHA-1 of "log " and the query: the same ones each time and on every machine, whatever
    order the log is in, and those of a smaller share are among those of a larger one.
    """
    queries = {i.query for i in interactions}
    order = sorted(queries, key=lambda query: hashlib.sha1(b"log " + query.encode()).digest())
    kept = set(order[: math.ceil(round(share * len(order), 6))])  # .05 of 100 is 5, whatever floats say
    return [i for i in interactions if i.query in kept]


def split_part(query: str) -> Part:
    """The part a query belongs to: seven tenths train, one dev, two test, on every machine and in every dataset.

    Taken modulo 10 is the SHA-1 of "2 " (the second split: what the first called test had been looked at) and the
    query's distinct stems in alphabetical order, so that no variant of a query stands on the other side.

    >>> split_part("rubber mats"), split_part("mat, Rubber"), split_part("drills"), split_part("hammer")
    ('train', 'train', 'dev', 'test')
    """
    tenth = int(hashlib.sha1(f"2 {query_key(query)}".encode()).hexdigest(), 16) % 10
    return "train" if tenth < 7 else "dev" if tenth == 7 else "test"


class Judgement(NamedTuple):
    """One row of a public dataset: the weight it has in the log if its query trains, 0 for none, and its grade."""

    part: Part
    query_id: str
    query: str
    product_id: str
    weight: float
    grade: float


def split_judgements(products: list[Product], judgements: list[Judgement]) -> Dataset:
    """The dataset that these judgements make; of a pair judged twice the higher grade counts."""
    log: list[Interaction] = []
    parts = {"train": Judged({}, {}), "dev": Judged({}, {}), "test": Judged({}, {})}
    for part, query_id, query, product_id, weight, grade in judgements:
        judged = parts[part]
        judged.queries[query_id] = query
        grades = judged.qrels.setdefault(query_id, {})
        grades[product_id] = max(grade, grades.get(product_id, grade))
        if part == "train" and weight:
            log.append(Interaction(query, product_id, weight))
    return Dataset(products, log, parts, parts.pop("train"))
