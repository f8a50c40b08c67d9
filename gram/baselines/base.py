"""What every engine, ours and its rivals, can do: the shape that benchmarks and reports are written against."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol, TypeAlias, runtime_checkable

from gram.records import Hit, Interaction, Product

Run: TypeAlias = dict[str, dict[str, float]]
"""Query id → product id → score, higher is better."""


@runtime_checkable
class Engine(Protocol):
    """A search engine over one catalogue.

    `search` answers one query, best first, with at most `k` hits. `search_many` answers many at once, with the same
    scores up to the number format it computes in: a query that finds nothing stands in the run with no products.
    """

    @property
    def name(self) -> str: ...

    def search(self, query: str, k: int = 10) -> list[Hit]: ...

    def search_many(self, queries: Mapping[str, str], k: int = 300) -> Run: ...


class TrainingData(NamedTuple):
    """What a rival may learn from: the same for all, and the same that GRAM gets.

    `log` is empty where the shop has none. `dev_queries` (query id → query) and `dev_qrels` (query id → product id →
    grade) are for choosing settings only; no query of theirs is in the log.
    """

    products: Sequence[Product]
    log: Sequence[Interaction]
    dev_queries: Mapping[str, str]
    dev_qrels: Mapping[str, Mapping[str, float]]


def fingerprint(products: Sequence[Product]) -> str:
    """SHA-256 of a catalogue's product ids: what a trained folder remembers of the products it was made from."""
    return hashlib.sha256("\n".join(sorted(product.product_id for product in products)).encode()).hexdigest()


class Trained(Engine, Protocol):
    """An engine that was trained into a folder.

    `train` writes a folder that appears whole or not at all, and everything in it is made from `data`; `load` opens it
    again. `settings` are those chosen on the dev part, as JSON can hold them. `index_bytes` is what the engine needs
    on disk to answer queries: postings, vectors, weights of the query side left out.
    """

    @classmethod
    def train(cls, folder: Path, data: TrainingData, *, model: str, seed: int = 0, quick: bool = False) -> None: ...

    @classmethod
    def load(cls, folder: Path, products: Sequence[Product]) -> Trained: ...

    @property
    def settings(self) -> dict[str, object]: ...

    @property
    def index_bytes(self) -> int: ...
