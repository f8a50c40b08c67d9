"""What every engine, ours and its rivals, can do: the shape that benchmarks and reports are written against."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, TypeAlias, runtime_checkable

from gram.records import Hit

Run: TypeAlias = dict[str, dict[str, float]]
"""Query id → product id → score, higher is better."""


@runtime_checkable
class Engine(Protocol):
    """A search engine over one catalogue.

    `search` answers one query, best first, with at most `k` hits. `search_many` answers many at once, with the same
    scores: a query that finds nothing stands in the run with no products.
    """

    @property
    def name(self) -> str: ...

    def search(self, query: str, k: int = 10) -> list[Hit]: ...

    def search_many(self, queries: Mapping[str, str], k: int = 300) -> Run: ...
