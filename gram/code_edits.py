"""Codes of products that a merchandiser gave or took away: kept by themselves, and laid over what the coder says.

Letters: N products, X entries, A attributes, L attributes of the longest code.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gram.arrays import SparseRows
from gram.coder.base import Representations
from gram.codes.lexicon import Lexicon
from gram.index.store import Entry
from gram.records import Attribute

KIND = "code"
"""What the store calls an edit."""


class CodeEdit(NamedTuple):
    """An attribute that was given to a product, or taken away from it; None leaves it to the text and the model."""

    product_id: str
    attribute: Attribute
    given: bool | None

    def entry(self) -> Entry:
        """The edit as the store keeps it; a later one of the same attribute takes its place."""
        key = json.dumps([self.product_id, *self.attribute], ensure_ascii=False)
        return KIND, key, None if self.given is None else {"given": self.given}


@dataclass(frozen=True)
class CodeEdits:
    """All edits: for each product its attributes, True for what was given. Never changed."""

    by_product: Mapping[str, Mapping[Attribute, bool]] = field(default_factory=dict)

    @classmethod
    def read(cls, entries: Mapping[str, Mapping[str, Any]]) -> CodeEdits:
        """Those of a store, as its `all` gives them."""
        found: dict[str, dict[Attribute, bool]] = {}
        for key, value in entries.items():
            product_id, slot, name = json.loads(key)
            found.setdefault(product_id, {})[Attribute(slot, name)] = bool(value["given"])
        return cls(found)

    def __len__(self) -> int:
        return len(self.by_product)

    def of(self, product_id: str) -> Mapping[Attribute, bool]:
        return self.by_product.get(product_id, {})

    def plus(self, edit: CodeEdit) -> CodeEdits:
        """With one more."""
        edits = {**self.of(edit.product_id), edit.attribute: edit.given}
        left = {attribute: given for attribute, given in edits.items() if given is not None}
        others = self.without([edit.product_id]).by_product
        return CodeEdits({**others, edit.product_id: left} if left else others)

    def without(self, product_ids: Iterable[str]) -> CodeEdits:
        """Without those of some products."""
        gone = set(product_ids)
        return CodeEdits({key: edits for key, edits in self.by_product.items() if key not in gone})

    def lay_over(
        self,
        product_ids: Sequence[str],
        represented: Representations,
        lexicon: Lexicon,
        codes: NDArray[np.int32],
        usual: Callable[[int], float],
    ) -> Representations:
        """The representations of N products as the edits have them.

        What was given counts as if the text held it, with its `usual` weight where texts do; what was taken away is
        neither held nor written, alone or in a code of several. `codes` (C, L) are the attributes of the compound ones.
        """
        n = len(lexicon)
        edited = [
            (row * n + key, given)
            for row, product_id in enumerate(product_ids)
            for attribute, given in self.of(product_id).items()
            if (key := _number(attribute, lexicon)) >= 0
        ]
        if not edited:
            return represented
        every = np.array([at for at, _ in edited], dtype=np.int64)
        taken = np.array([at for at, given in edited if not given], dtype=np.int64)
        lexical, expansion, compound = represented.lexical, represented.expansion, represented.compound
        there = lexical.rows() * n + lexical.key  # (X,)
        new = np.array([at for at, given in edited if given and at not in there], dtype=np.int64)
        weight = np.array([usual(at % n) for at in new.tolist()], dtype=np.float32)
        kept = ~np.isin(there, taken)
        inside = codes[compound.key]  # (X, L)
        lost = np.isin(compound.rows()[:, None] * n + inside, taken) & (inside >= 0)
        left = ~np.isin(expansion.rows() * n + expansion.key, every)
        return represented._replace(
            lexical=SparseRows.build(
                np.concatenate([lexical.rows()[kept], new // n]),
                np.concatenate([lexical.key[kept], new % n]),
                np.concatenate([lexical.weight[kept], weight]),
                len(product_ids),
            ),
            expansion=_only(expansion, left),
            probability=represented.probability[left],
            compound=_only(compound, np.flatnonzero(~lost.any(axis=1))),
        )


def _number(attribute: Attribute, lexicon: Lexicon) -> int:
    """An attribute's id, −1 for none; where its words have another slot by now, that of these."""
    key = lexicon.find(*attribute)
    return key if key >= 0 else lexicon.id_of(tuple(lexicon.analyzer.stems(attribute.value)))


def _only(rows: SparseRows, kept: NDArray[Any]) -> SparseRows:
    return SparseRows.build(rows.rows()[kept], rows.key[kept], rows.weight[kept], len(rows.start) - 1)
