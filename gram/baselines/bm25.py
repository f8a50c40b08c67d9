"""BM25, the keyword engine that every other has to beat.

    score(q, p) = Σ_w∈q  log(1 + (N − n_w + ½)/(n_w + ½)) · f_w / (f_w + k1·(1 − b + b·|p|/mean|p|))

with N products, n_w of them holding the word w, and w standing f_w times in the |p| words of p (Lucene's variant:
Kamphuis et al., ECIR 2020). A word that stands twice in the query counts twice.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import Stemmer

from gram.baselines.base import Run
from gram.errors import MissingExtra, SettingError
from gram.records import Hit, Product

FIELDS = ("title", "brand", "category", "description", "attributes")
"""Every field of a product that holds words."""

_WORD = re.compile(r"\w+")


def field_text(product: Product, fields: Sequence[str] = FIELDS) -> str:
    """The words of a product's fields as one text: of a map of attributes the values, not the column names.

    >>> field_text(Product("1", "Oak Desk", category=("Home", "Desks")), ("title", "category"))
    'Oak Desk Home Desks'
    """
    parts: list[str] = []
    for field in fields:
        if field == "category":
            parts += product.category
        elif field == "attributes":
            parts += [value for values in product.attributes.values() for value in values]
        elif field in FIELDS:
            parts.append(str(getattr(product, field)))
        else:
            raise SettingError(f"'{field}' is no field of words. Fix: choose from {', '.join(FIELDS)}.")
    return " ".join(part for part in parts if part)


class BM25:
    """BM25 over the chosen fields of a catalogue.

    The defaults suit short texts such as titles. `stemmer` names a PyStemmer algorithm ("porter", "german", …), or is
    empty for none. No word is dropped as a stop word. Products that share no word with the query are not returned, and
    equal scores stand in the order of their product ids. Raises MissingExtra without the extra `eval`, and SettingError
    for a setting out of range.
    """

    name = "bm25"

    def __init__(
        self,
        products: Iterable[Product],
        k1: float = 0.3,
        b: float = 0.6,
        fields: Sequence[str] = ("title",),
        stemmer: str = "porter",
    ) -> None:
        if k1 < 0 or not 0 <= b <= 1:
            raise SettingError(f"BM25 needs k1 ≥ 0 and 0 ≤ b ≤ 1, not k1={k1}, b={b}.")
        try:
            import bm25s
        except ImportError as error:
            raise MissingExtra("BM25", "eval") from error
        try:
            self._stemmer = Stemmer.Stemmer(stemmer) if stemmer else None
        except KeyError as error:
            known = ", ".join(Stemmer.algorithms())
            raise SettingError(f"PyStemmer knows no '{stemmer}'. Fix: choose from {known}, or '' for none.") from error
        by_id = sorted(products, key=lambda product: product.product_id)  # so equal scores need no second sort key
        self._ids = [product.product_id for product in by_id]
        self._titles = [product.title for product in by_id]
        documents = [self._tokens(field_text(product, fields)) for product in by_id]
        self._index = None
        if any(documents):
            self._index = bm25s.BM25(k1=k1, b=b, method="lucene")
            self._index.index(documents, show_progress=False)

    def search(self, query: str, k: int = 10) -> list[Hit]:
        """The best `k` products for a query, best first."""
        places, scores = self._best(query, k)
        return [Hit(self._ids[i], float(s), self._titles[i]) for i, s in zip(places, scores, strict=True)]

    def search_many(self, queries: Mapping[str, str], k: int = 300) -> Run:
        """The run for many queries: query id → product id → score."""
        run: Run = {}
        for query_id, query in queries.items():
            places, scores = self._best(query, k)
            run[query_id] = {self._ids[i]: float(s) for i, s in zip(places, scores, strict=True)}
        return run

    def _tokens(self, text: str) -> list[str]:
        tokens = _WORD.findall(text.lower())
        return tokens if self._stemmer is None else list(self._stemmer.stemWords(tokens))

    def _best(self, query: str, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Places in the catalogue and their scores, best first, at most k of each."""
        if k < 1:
            raise SettingError(f"k counts the products wanted: at least 1, not {k}.")
        tokens = self._tokens(query)
        if self._index is None or not tokens:
            return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.float32)
        scores: np.ndarray = self._index.get_scores(tokens)  # (N,)
        found = np.flatnonzero(scores > 0)
        if len(found) > k:  # keep all that tie with the k-th, so that the order of ids decides among them
            least = np.partition(scores[found], len(found) - k)[len(found) - k]
            found = found[scores[found] >= least]
        order = found[np.argsort(-scores[found], kind="stable")][:k]
        return order, scores[order]
