"""What every engine can do, ours and its rivals, and what the rivals have in common: numbers, folders, searching."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from gram.errors import IndexMismatch, ModelError, SettingError
from gram.evaluation.measures import Run
from gram.folders import read_json, write_json
from gram.records import Hit, Interaction, Product

Found: TypeAlias = tuple[NDArray[np.int64], NDArray[Any]]
"""Positions in a catalogue and their scores, best first."""


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


class How(NamedTuple):
    """How a rival is trained: from `model`, a hub id or a folder, on `device`, with bfloat16 where that loses little;
    `quick` takes a few steps, for trials."""

    model: str
    seed: int = 0
    quick: bool = False
    bf16: bool = False
    device: str = "cpu"


class Trained(Engine, Protocol):
    """An engine that was trained into a folder.

    `train` writes a folder that appears whole or not at all, and everything in it is made from `data`; `load` opens it
    again. Both compute on a device. `settings` are those chosen on the dev part, as JSON can hold them. `index_bytes`
    is what the engine needs on disk to answer queries: postings, vectors, weights of the query side left out.
    """

    @classmethod
    def train(cls, folder: Path, data: TrainingData, how: How) -> None: ...

    @classmethod
    def load(cls, folder: Path, products: Sequence[Product], device: str = "cpu") -> Trained: ...

    @property
    def settings(self) -> dict[str, object]: ...

    @property
    def index_bytes(self) -> int: ...


class Rival(ABC):
    """One engine over a catalogue that is numbered by product id, so that equal scores stand by id."""

    name: str

    def __init__(self, products: Iterable[Product], settings: Mapping[str, Any]) -> None:
        self._products = by_id(products)
        self._ids = [product.product_id for product in self._products]
        self._settings = dict(settings)

    @abstractmethod
    def find(self, queries: Sequence[str], k: int) -> Iterator[Found]:
        """The best `k` of each query, those that it finds at all."""

    @property
    def settings(self) -> dict[str, object]:
        return dict(self._settings)

    def search(self, query: str, k: int = 10) -> list[Hit]:
        """The best `k` products for a query, best first."""
        check_k(k)
        ((positions, scores),) = self.find([query], k)
        return [Hit(self._ids[i], float(s), self._products[i].title) for i, s in zip(positions, scores, strict=True)]

    def search_many(self, queries: Mapping[str, str], k: int = 300) -> Run:
        """The run for many queries: query id → product id → score."""
        check_k(k)
        return run_of(queries, self.find(list(queries.values()), k), self._ids)


def run_of(query_ids: Iterable[str], found: Iterable[Found], product_ids: Sequence[str]) -> Run:
    """The run of what was found for each query; `product_ids` says what is at a position."""
    return {
        query_id: {product_ids[i]: float(s) for i, s in zip(positions, scores, strict=True)}
        for query_id, (positions, scores) in zip(query_ids, found, strict=True)
    }


def check_k(k: int) -> None:
    """Raises SettingError for fewer products than one."""
    if k < 1:
        raise SettingError(f"k counts the products to find: at least 1, not {k}.")


def by_id(products: Iterable[Product]) -> list[Product]:
    """The catalogue by product id: the order in which rivals number it."""
    return sorted(products, key=lambda product: product.product_id)


def catalogue_of(data: TrainingData) -> list[Product]:
    """The products to train on, by id. Raises SettingError where there are none."""
    if not data.products:
        raise SettingError("A rival is trained on products, and there are no products. Fix: give a catalogue.")
    return by_id(data.products)


def fingerprint(products: Iterable[Product]) -> str:
    """SHA-256 of a catalogue's product ids: what a trained folder remembers of the products it was made from."""
    return hashlib.sha256("\n".join(sorted(product.product_id for product in products)).encode()).hexdigest()


def write_meta(folder: Path, engine: str, settings: Mapping[str, object], products: Iterable[Product]) -> None:
    """Writes the `meta.json` that `read_settings` reads."""
    meta = {"engine": engine, "settings": settings, "catalogue": fingerprint(products)}
    write_json(folder / "meta.json", meta)


def read_settings(folder: Path, engine: str, products: Iterable[Product]) -> dict[str, Any]:
    """The settings of a trained rival.

    Raises DataError without its `meta.json`, ModelError for another rival's folder, IndexMismatch where it was made
    from another catalogue.
    """
    meta = read_json(Path(folder) / "meta.json")
    if meta.get("engine") != engine:
        raise ModelError(f"{folder} is no folder of '{engine}' but of '{meta.get('engine')}'. Fix: name the right one")
    if meta["catalogue"] != fingerprint(products):
        raise IndexMismatch(f"{folder} was made from other products. Fix: train again, or give the same catalogue")
    found: dict[str, Any] = meta["settings"]
    return found
