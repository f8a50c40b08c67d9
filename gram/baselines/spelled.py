"""BM25 whose queries are read through a speller: what that is worth to the plainest engine.

The speller is the one that GRAM's queries are read through. It knows the words of the catalogue, and those of several
of the log's queries.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gram.baselines.base import Found, Rival, TrainingData, catalogue_of, read_settings, write_meta
from gram.baselines.bm25 import BM25, TunedBM25
from gram.folders import new_folder, read_json, write_json
from gram.index.postings import Postings
from gram.records import Product
from gram.text.fields import joined_text
from gram.text.spelling import RARE, Speller
from gram.text.words import stem, words


def forms_of(texts: Iterable[str]) -> dict[str, Counter[str]]:
    """Stem → each way it is written → how many of the texts write it so.

    >>> forms_of(["Red shoes", "red shoe", "shoes, red shoes"])["shoe"].most_common()
    [('shoes', 2), ('shoe', 1)]
    """
    forms: dict[str, Counter[str]] = defaultdict(Counter)
    for text in texts:
        for word in dict.fromkeys(words(text)):
            forms[stem(word)][word] += 1
    return forms


class SpelledBM25(Rival):
    """Tuned BM25 behind the shop's speller.

    `known`, if given, tells words that are left as they are though no product says them, such as those that a
    pretrained model has a token for: "couch" is no misspelt "coach", even where nobody sells couches.
    """

    name = "bm25 + speller"

    def __init__(
        self,
        products: Sequence[Product],
        settings: Mapping[str, Any],
        log_forms: Mapping[str, Mapping[str, int]],
        known: Callable[[str], bool] = lambda word: False,
    ) -> None:
        """`log_forms` are the forms of what several queries say; `settings` BM25's."""
        super().__init__(products, settings)
        self._bm25, self._known = BM25(self._products, **settings), known
        texts = [joined_text(product) for product in self._products]
        forms = forms_of(texts)
        self._key = {found: key for key, found in enumerate(forms)}
        keys = [[self._key[found] for found in dict.fromkeys(map(stem, words(text)))] for text in texts]
        positions = np.repeat(np.arange(len(keys)), [len(row) for row in keys])
        flat = [key for row in keys for key in row]
        self._postings = Postings.build(flat, positions, np.ones(len(flat)), len(forms))
        counts = dict(zip(forms, np.diff(self._postings.start).astype(float).tolist(), strict=True))
        for found, spellings in log_forms.items():
            counts[found] = counts.get(found, 0.0) + sum(spellings.values())
            forms[found].update(spellings)
        common = {found: min(row, key=lambda word: (-row[word], word)) for found, row in forms.items()}
        self._speller = Speller(counts, common)
        self._word_bytes = sum(len(word.encode()) for word in common.values())

    @classmethod
    def train(
        cls,
        folder: Path,
        data: TrainingData,
        *,
        model: str = "",
        seed: int = 0,
        quick: bool = False,
        bf16: bool = False,
    ) -> None:
        """Tunes BM25 and keeps the log's words; of what one query alone says and no product, most is misspelt."""
        products = catalogue_of(data)
        with new_folder(folder) as draft:
            TunedBM25.train(draft / "bm25", data, quick=quick)
            forms = forms_of(dict.fromkeys(interaction.query for interaction in data.log))
            write_json(draft / "log.json", {found: row for found, row in forms.items() if row.total() >= RARE})
            write_meta(draft, cls.name, read_json(draft / "bm25" / "meta.json"), products)

    @classmethod
    def load(
        cls, folder: Path, products: Sequence[Product], known: Callable[[str], bool] = lambda word: False
    ) -> SpelledBM25:
        return cls(products, read_settings(folder, cls.name, products), read_json(Path(folder) / "log.json"), known)

    @property
    def index_bytes(self) -> int:
        """BM25's, and the words that the speller knows."""
        return self._bm25.index_bytes + self._word_bytes

    def find(self, queries: Sequence[str], k: int) -> Iterator[Found]:
        return self._bm25.find([self.correct(query) for query in queries], k)

    def correct(self, query: str) -> str:
        """The query with its misspelt words read right; itself where there are none."""
        row = words(query)
        read = self._speller.correct_query(row, self._known, self._together)
        return query if read == row else " ".join(read)

    def _together(self, others: Sequence[str], candidate: str) -> float:
        """How many products hold a stem and each of the other words of a query, each by its idf."""
        n, total = len(self._products), 0.0
        holders = self._holders(candidate)
        for other in dict.fromkeys(map(stem, others)):
            also = self._holders(other)
            both = len(np.intersect1d(holders, also, assume_unique=True))
            total += both * math.log1p((n - len(also) + 0.5) / (len(also) + 0.5))
        return total

    def _holders(self, known: str) -> np.ndarray:
        """Positions of the products that hold a stem."""
        key = self._key.get(known)
        return np.empty(0, dtype=np.int32) if key is None else self._postings.of(key)[0]
