"""What is suggested while someone types: queries that were clicked for, attributes, brands, and titles."""

from __future__ import annotations

import logging
import threading
import time
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass
from heapq import nsmallest

import numpy as np
from rapidfuzz import fuzz, process

from gram.shop import Shop
from gram.snapshot import Snapshot
from gram.text.letters import fold_letters

MOST_SUGGESTED = 20
CLOSE = 80.0
"""How like a misspelt beginning must be to a suggestion's, of 100."""
MOST_TITLES = 100_000
"""Titles that are suggested, those of the most valued products: each is a text in memory."""
TITLE = 0.01
"""What a title weighs: it comes behind all that is said of many products."""
NEVER = (-1, -1)
"""The version of what was not read yet."""
EVERY = 5.0
"""Seconds between two readings of what is suggested, at least."""
LATEST = 600.0
"""Seconds after which a reading that failed is tried again at the latest: each failure doubles the wait."""
PAUSES = 20
"""Readings take no more than one part in so many of the time."""

log = logging.getLogger("gram.serve")


@dataclass(frozen=True, eq=False)
class _Known:
    """Beginnings of words in their order, as they are typed without marks, each with the text that goes on so and what
    this weighs. `short` are the texts that a typo is looked for in: all but titles; `negations` the words by which a
    query leaves something out."""

    version: tuple[int, int]
    beginnings: list[str]
    texts: list[str]
    weights: list[float]
    short: dict[str, float]
    negations: frozenset[str]

    @staticmethod
    def of(
        version: tuple[int, int], short: dict[str, float], titles: set[str], negations: frozenset[str] = frozenset()
    ) -> _Known:
        rows = [(fold_letters(title), title, TITLE) for title in titles - short.keys()]
        for text, weight in short.items():
            typed = fold_letters(text)
            inner = [at + 1 for at, letter in enumerate(typed) if letter == " "]
            rows += [(typed, text, weight), *((typed[at:], text, weight / 2) for at in inner)]
        rows.sort()
        return _Known(version, [r[0] for r in rows], [r[1] for r in rows], [r[2] for r in rows], short, negations)

    def complete(self, typed: str) -> list[tuple[str, float]]:
        typed = fold_letters(typed)
        begin, end = bisect_left(self.beginnings, typed), bisect_left(self.beginnings, typed + "\U0010ffff")
        found: dict[str, float] = {}
        for text, weight in zip(self.texts[begin:end], self.weights[begin:end], strict=True):
            found[text] = max(weight, found.get(text, 0.0))
        if not found and len(typed) >= 3:
            left_out = self.negations.intersection(typed.split())  # "boots with laces" is near its opposite
            texts = [text for text in self.short if left_out.issubset(text.split())]
            cut = [fold_letters(text)[: len(typed) + 1] for text in texts]
            near = process.extract(typed, cut, scorer=fuzz.ratio, score_cutoff=CLOSE, limit=MOST_SUGGESTED)
            return [(texts[i], self.short[texts[i]]) for _, _, i in near]
        return nsmallest(MOST_SUGGESTED, found.items(), key=lambda pair: (-pair[1], pair[0]))


class Suggestions:
    """Completes what is typed. What it knows is read anew, in the background, some seconds after products changed or
    clicks came. Safe to use from many threads."""

    def __init__(self, shop: Shop) -> None:
        self._shop = shop
        self._lock = threading.Lock()
        self._known: _Known | None = None
        self._reading = False
        self._read_from = 0.0  # the moment from which it may be read again
        self._failures = 0  # readings that failed since the last one that did not
        self._clicked: dict[str, float] = {}
        self._last_click = 0

    def complete(self, typed: str) -> list[tuple[str, float]]:
        """Texts that have a word beginning so, the weightiest first; what begins nearly so where none does."""
        return self._current().complete(typed.casefold())

    def _current(self) -> _Known:
        with self._lock:
            if self._known is None:  # whoever comes first waits
                self._known = _Known.of(NEVER, {}, set())
                self._read_anew()
            elif not self._reading and time.monotonic() >= self._read_from and self._known.version != self._version():
                self._reading = True
                threading.Thread(target=self._read_anew, daemon=True).start()
            return self._known

    def _version(self) -> tuple[int, int]:
        return self._shop.live.snapshot.version, self._shop.store.last_click()

    def _read_anew(self) -> None:
        try:
            self._known = self._read()
            self._failures = 0
        except Exception:  # what was read before goes on being suggested
            self._failures += 1
            wait = min(LATEST, EVERY * 2 ** min(self._failures, 20))
            self._read_from = time.monotonic() + wait
            log.exception("suggestions cannot be read anew: the next try is in %.0f seconds", wait)
        finally:
            self._reading = False

    def _read(self) -> _Known:
        begin, version, snapshot = time.monotonic(), self._version(), self._shop.live.snapshot
        for click in self._shop.store.clicks(after=self._last_click):
            text = click.query.casefold().strip()
            self._clicked[text] = self._clicked.get(text, 0.0) + 10 * click.weight
            self._last_click = click.number
        weights: dict[str, float] = {}
        lexicon = snapshot.searcher.lexicon
        for row in range(lexicon.n_learnt):
            attribute = lexicon.attributes[row]
            if attribute.slot != "marketing" and lexicon.products[row] > 0:
                weights[attribute.value.casefold()] = float(lexicon.products[row]) / 10
        for more in (_added(snapshot), _brands(snapshot), self._clicked):
            for text, weight in more.items():
                weights[text] = weights.get(text, 0.0) + weight
        known = _Known.of(version, weights, _titles(snapshot), lexicon.analyzer.tables.negations["asked"])
        end = time.monotonic()
        self._read_from = end + max(EVERY, PAUSES * (end - begin))
        return known


def _added(snapshot: Snapshot) -> Mapping[str, float]:
    """Attributes that were added without training and that products have."""
    weights: dict[str, float] = {}
    for attribute in getattr(snapshot.searcher.coder, "added", ()):
        key = snapshot.searcher.lexicon.find(*attribute)
        there = sum(len(segment.having(key)) for segment in snapshot.segments)
        if there and attribute.slot != "marketing":
            weights[attribute.value.casefold()] = there / 10
    return weights


def _brands(snapshot: Snapshot) -> Mapping[str, float]:
    weights: dict[str, float] = {}
    for segment in snapshot.segments:
        column = segment.fields.columns.get("brand")
        for brand, rows in column.rows.items() if column else ():
            if there := rows.intersection_cardinality(segment.alive):
                weights[brand] = weights.get(brand, 0.0) + there / 5
    return weights


def _titles(snapshot: Snapshot) -> set[str]:
    """The titles of the most valued products."""
    rows = [np.array(segment.alive, dtype=np.int64) for segment in snapshot.segments]
    value = np.concatenate([s.index.value[some] for s, some in zip(snapshot.segments, rows, strict=True)])
    number = np.repeat(np.arange(len(rows)), [len(some) for some in rows])
    best = np.argsort(-value, kind="stable")[:MOST_TITLES]
    every = zip(number[best].tolist(), np.concatenate(rows)[best].tolist(), strict=True)
    return {snapshot.segments[n].index.table.title(row).casefold().strip() for n, row in every}
