"""The lexicon: the attributes that a shop's catalogue and its searchers use, with what is known of each.

Two layers share one numbering. Ids below `n_generated` are **generated** attributes: frequent enough to learn, they can
be written for any text. The others are **copied** only: model numbers, rare names and sizes that a text must hold
itself.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gram.codes.slots import SLOTS
from gram.codes.tagger import TrieTagger
from gram.errors import ModelError, SettingError
from gram.folders import new_file
from gram.records import Attribute

Stems = tuple[str, ...]


@dataclass(frozen=True)
class Lexicon:
    """Attributes and their counts. A letters: A attributes, G ≤ A generated ones, N products, Q distinct queries.

    `forms[a]` are the stems of attribute a, one tuple a surface form; `products[a]` and `queries[a]` count those that
    hold it; `asked[a]` is the rate at which searchers name it when the product they want has it.
    """

    attributes: list[Attribute]
    forms: list[list[Stems]]
    n_learnt: int
    products: NDArray[np.float32]  # (A,)
    queries: NDArray[np.float32]  # (A,)
    mention_rate: NDArray[np.float32]  # (A,)
    n_products: int
    language: str = "porter"
    slots: tuple[str, ...] = SLOTS
    _ids: dict[Stems, int] = field(default_factory=dict, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.attributes)

    def id_of(self, stems: Sequence[str]) -> int:
        """The attribute with this surface form, or -1."""
        if not self._ids:
            self._ids.update({f: a for a in reversed(range(len(self))) for f in self.forms[a]})
        return self._ids.get(tuple(stems), -1)

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
        """The place of each attribute's slot in slot order, (A,)."""
        order = {slot: i for i, slot in enumerate(self.slots)}
        return np.array([order[a.slot] for a in self.attributes], dtype=np.int32)

    def extended(self, words: dict[str, int]) -> Lexicon:
        """With copied attributes for words that a catalogue has and the lexicon lacks: {stem: products that hold it}.

        Ids of the attributes that were there do not change.
        """
        new = sorted(w for w in words if self.id_of((w,)) < 0)
        counts = np.array([words[w] for w in new], dtype=np.float32)
        slot = "modifier" if "modifier" in self.slots else self.slots[-1]
        return Lexicon(
            attributes=self.attributes + [Attribute(slot, w) for w in new],
            forms=self.forms + [[(w,)] for w in new],
            n_learnt=self.n_learnt,
            products=np.concatenate([self.products, counts]),
            queries=np.concatenate([self.queries, np.zeros(len(new), np.float32)]),
            mention_rate=np.concatenate([self.mention_rate, np.full(len(new), 0.02, np.float32)]),
            n_products=self.n_products,
            language=self.language,
            slots=self.slots,
        )

    def with_learnt(self, attribute: Attribute, form: Stems, mention_rate: float) -> Lexicon:
        """With one more generated attribute, which gets the id `n_generated`; copied ones move up by one.

        A copied attribute of the same form becomes the generated one, so that no form names two. Raises ValueError
        for a form that a generated attribute has already, SettingError for an unknown slot.
        """
        if attribute.slot not in self.slots:
            raise SettingError(f"no slot {attribute.slot!r}. Known: {', '.join(self.slots)}")
        old = self.id_of(form)
        if 0 <= old < self.n_learnt:
            raise ValueError(f"{attribute} is there already, as {self.attributes[old]}")
        g = self.n_learnt
        order = [*range(g), -1, *(a for a in range(g, len(self)) if a != old)]

        def moved(values: NDArray[np.float32], new: float) -> NDArray[np.float32]:
            return np.array([new if a < 0 else values[a] for a in order], dtype=np.float32)

        return Lexicon(
            attributes=[attribute if a < 0 else self.attributes[a] for a in order],
            forms=[[form] if a < 0 else self.forms[a] for a in order],
            n_learnt=g + 1,
            products=moved(self.products, float(self.products[old]) if old >= 0 else 1.0),
            queries=moved(self.queries, float(self.queries[old]) if old >= 0 else 0.0),
            mention_rate=moved(self.mention_rate, mention_rate),
            n_products=self.n_products,
            language=self.language,
            slots=self.slots,
        )

    def save(self, path: Path) -> None:
        """One JSON object a line, the first for the whole: a file that a person can read, search and edit."""
        head = {
            "n_generated": self.n_learnt,
            "n_products": self.n_products,
            "language": self.language,
            "slots": self.slots,
        }
        with new_file(path) as part:
            rows = (
                {"slot": a.slot, "value": a.value, "forms": [" ".join(f) for f in forms]}
                | {"products": round(float(p), 2), "queries": round(float(q), 2), "asked": round(float(r), 5)}
                for a, forms, p, q, r in zip(
                    self.attributes, self.forms, self.products, self.queries, self.mention_rate, strict=True
                )
            )
            with part.open("w", encoding="utf-8") as out:
                for row in [head, *rows]:
                    out.write(json.dumps(row, ensure_ascii=False) + "\n")

    @classmethod
    def load(cls, path: Path) -> Lexicon:
        """What `save` wrote. Raises ModelError for a file that is missing or is no lexicon."""
        try:
            with path.open(encoding="utf-8") as lines:
                head, *rows = [json.loads(line) for line in lines]
            return cls._of_rows(head, rows)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ModelError(f"{path}: the lexicon cannot be read ({error!r}). Fix: train the model again") from error

    @classmethod
    def _of_rows(cls, head: dict[str, Any], rows: list[dict[str, Any]]) -> Lexicon:
        return cls(
            attributes=[Attribute(r["slot"], r["value"]) for r in rows],
            forms=[[tuple(f.split()) for f in r["forms"]] for r in rows],
            n_learnt=head["n_generated"],
            products=np.array([r["products"] for r in rows], dtype=np.float32),
            queries=np.array([r["queries"] for r in rows], dtype=np.float32),
            mention_rate=np.array([r["asked"] for r in rows], dtype=np.float32),
            n_products=head["n_products"],
            language=head["language"],
            slots=tuple(head["slots"]),
        )
