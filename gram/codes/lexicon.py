"""The lexicon: the attributes that a shop's catalogue and its searchers use, with what is known of each.

Attributes are of two sorts under one numbering. Ids below `n_learnt` are **learnt**: frequent enough for a model to
learn when a text implies them, so that it may give them expansion weight. The others are **lexical only**: model
numbers, rare names and sizes, which a text has only where it holds them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gram.codes.slots import SLOTS
from gram.codes.tagger import TrieTagger
from gram.errors import GramError, ModelError, SettingError
from gram.folders import new_file
from gram.records import Attribute
from gram.text.analysis import Analyzer, default_analyzer

Stems = tuple[str, ...]

NEW_MENTION_RATE = 0.02
"""Mention rate of a word that only a catalogue indexed later holds: half of what mining takes for a word that no log
tells of. Not tuned."""


class Tagged(NamedTuple):
    """Where a text holds an attribute: the field, and the first of its words and one past the last."""

    field: str
    start: int
    end: int


@dataclass(frozen=True)
class Lexicon:
    """Attributes and their counts. Letters: A attributes, G ≤ A learnt ones, N products.

    `forms[a]` are the stems of attribute a, one tuple a surface form; `products[a]` and `queries[a]` count the products
    and the distinct queries that hold it; `mention_rate[a]` is how often searchers name it when the product they click
    has it. `analyzer` is how the shop's texts are read.
    """

    attributes: list[Attribute]
    forms: list[list[Stems]]
    n_learnt: int
    products: NDArray[np.float32]  # (A,)
    queries: NDArray[np.float32]  # (A,)
    mention_rate: NDArray[np.float32]  # (A,)
    n_products: int
    analyzer: Analyzer = field(default_factory=default_analyzer)
    slots: tuple[str, ...] = SLOTS
    _ids: dict[Stems, int] = field(default_factory=dict, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.attributes)

    @property
    def language(self) -> str:
        """The language of the analyzer's stemmer."""
        return self.analyzer.language

    def id_of(self, stems: Sequence[str]) -> int:
        """The attribute with this surface form, or -1."""
        if not self._ids:
            self._ids.update({f: a for a in reversed(range(len(self))) for f in self.forms[a]})
        return self._ids.get(tuple(stems), -1)

    def find(self, slot: str, value: str) -> int:
        """The attribute of a slot with this value, in any form of its words, or -1."""
        found = self.id_of(self.analyzer.stems(value))
        return found if found >= 0 and self.attributes[found].slot == slot else -1

    @cached_property
    def tagger(self) -> TrieTagger:
        tagger = TrieTagger()
        for attribute, forms in enumerate(self.forms):
            for form in forms:
                tagger.add(attribute, form)
        return tagger

    @cached_property
    def idf(self) -> NDArray[np.float32]:
        """How rare an attribute is among products, (A,): log((N + 1) / (products + ½)), at least .1."""
        return np.maximum(np.log((self.n_products + 1) / (self.products + 0.5)), 0.1).astype(np.float32)

    @cached_property
    def slot_ids(self) -> NDArray[np.int32]:
        """The number of each attribute's slot in slot order, (A,)."""
        order = {slot: i for i, slot in enumerate(self.slots)}
        return np.array([order[a.slot] for a in self.attributes], dtype=np.int32)

    @cached_property
    def default_slot_ids(self) -> NDArray[np.int32]:
        """The number of each attribute's slot among the default ones, (A,); a slot of the shop's own is the one behind
        them."""
        order = {slot: i for i, slot in enumerate(SLOTS)}
        return np.array([order.get(a.slot, len(SLOTS)) for a in self.attributes], dtype=np.int32)

    def lexical_of(self, fields: Iterable[tuple[str, str]]) -> dict[int, Tagged]:
        """The attributes that a text of (field, text) pairs holds, each where it stands first."""
        found: dict[int, Tagged] = {}
        for name, text in fields:
            for attribute, start, end in self.tagger.tag(self.analyzer.stems(text)):
                found.setdefault(attribute, Tagged(name, start, end))
        return found

    def extend(self, words: dict[str, int]) -> Lexicon:
        """With lexical attributes for words that a catalogue has and the lexicon lacks: {stem: products that hold it}.

        Ids of the attributes that were there do not change.
        """
        new = sorted(w for w in words if self.id_of((w,)) < 0)
        counts = np.array([words[w] for w in new], dtype=np.float32)
        slot = "modifier" if "modifier" in self.slots else self.slots[-1]
        return replace(
            self,
            attributes=self.attributes + [Attribute(slot, w) for w in new],
            forms=self.forms + [[(w,)] for w in new],
            products=np.concatenate([self.products, counts]),
            queries=np.concatenate([self.queries, np.zeros(len(new), np.float32)]),
            mention_rate=np.concatenate([self.mention_rate, np.full(len(new), NEW_MENTION_RATE, np.float32)]),
            _ids={},
        )

    def with_learnt(self, attribute: Attribute, form: Stems, mention_rate: float) -> Lexicon:
        """With one more learnt attribute, which gets the id `n_learnt`; lexical ones move up by one.

        A lexical attribute of the same form becomes the learnt one, so that no form names two. Raises ValueError for a
        form that a learnt attribute has already, SettingError for an unknown slot.
        """
        if attribute.slot not in self.slots:
            raise SettingError(f"no slot {attribute.slot!r}. Known: {', '.join(self.slots)}")
        old = self.id_of(form)
        if 0 <= old < self.n_learnt:
            raise ValueError(f"{attribute} is there already, as {self.attributes[old]}")
        g = self.n_learnt
        order = [*range(g), -1, *(a for a in range(g, len(self)) if a != old)]

        def move(values: NDArray[np.float32], new: float) -> NDArray[np.float32]:
            return np.array([new if a < 0 else values[a] for a in order], dtype=np.float32)

        return replace(
            self,
            attributes=[attribute if a < 0 else self.attributes[a] for a in order],
            forms=[[form] if a < 0 else self.forms[a] for a in order],
            n_learnt=g + 1,
            products=move(self.products, float(self.products[old]) if old >= 0 else 1.0),
            queries=move(self.queries, float(self.queries[old]) if old >= 0 else 0.0),
            mention_rate=move(self.mention_rate, mention_rate),
            _ids={},
        )

    def save(self, path: Path) -> None:
        """One JSON object a line, the first for the whole: a file that a person can read, search and edit."""
        head = {
            "n_learnt": self.n_learnt,
            "n_products": self.n_products,
            "slots": self.slots,
            "analyzer": self.analyzer.to_json(),
        }
        counts = zip(self.products.tolist(), self.queries.tolist(), self.mention_rate.tolist(), strict=True)
        with new_file(path) as part, part.open("w", encoding="utf-8") as out:
            out.write(json.dumps(head, ensure_ascii=False) + "\n")
            for attribute, forms, (products, queries, rate) in zip(self.attributes, self.forms, counts, strict=True):
                row = {"slot": attribute.slot, "value": attribute.value, "forms": [" ".join(f) for f in forms]}
                row |= {"products": round(products, 2), "queries": round(queries, 2), "mention_rate": round(rate, 5)}
                out.write(json.dumps(row, ensure_ascii=False) + "\n")

    @classmethod
    def load(cls, path: Path) -> Lexicon:
        """What `save` wrote. Raises ModelError, which names the line, for a file that is missing or damaged."""
        line = 0
        try:
            with path.open(encoding="utf-8") as lines:
                rows = []
                for line, text in enumerate(lines, start=1):
                    rows.append(json.loads(text))
                    if line > 1:
                        _check_row(rows[-1], rows[0]["slots"])
            line = 1
            return cls._of_rows(rows[0], rows[1:], path)
        except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError, GramError) as error:
            where = f"line {line}: " if line else ""
            raise ModelError(
                f"{path}: {where}the lexicon is damaged ({error!r}). Fix: train the model again"
            ) from error

    @classmethod
    def _of_rows(cls, head: dict[str, Any], rows: list[dict[str, Any]], path: Path) -> Lexicon:
        if not 0 <= int(head["n_learnt"]) <= len(rows):
            raise ValueError(f"{len(rows)} attributes, but n_learnt is {head['n_learnt']}")
        return cls(
            attributes=[Attribute(r["slot"], r["value"]) for r in rows],
            forms=[[tuple(f.split()) for f in r["forms"]] for r in rows],
            n_learnt=int(head["n_learnt"]),
            products=np.array([r["products"] for r in rows], dtype=np.float32),
            queries=np.array([r["queries"] for r in rows], dtype=np.float32),
            mention_rate=np.array([r["mention_rate"] for r in rows], dtype=np.float32),
            n_products=int(head["n_products"]),
            analyzer=Analyzer.from_json(head["analyzer"], path),
            slots=tuple(head["slots"]),
        )


def _check_row(row: dict[str, Any], slots: Sequence[str]) -> None:
    """Raises ValueError for an attribute that cannot be used; KeyError for one that lacks a part."""
    if row["slot"] not in slots:
        raise ValueError(f"{row['slot']!r} is no slot of the lexicon")
    if not isinstance(row["value"], str) or not row["forms"] or not all(f.split() for f in row["forms"]):
        raise ValueError(f"no attribute: {row['value']!r}, {row['forms']!r}")
    for name in ("products", "queries", "mention_rate"):
        if not 0 <= row[name] < 1e9:
            raise ValueError(f"{name} is {row[name]!r}")
