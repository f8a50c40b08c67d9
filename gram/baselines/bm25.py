"""BM25, the keyword engine that every other has to beat: with given settings, or with those best on dev.

    score(q, p) = Σ_w∈q  log(1 + (N − n_w + ½)/(n_w + ½)) · f_w / (f_w + k1·(1 − b + b·|p|/mean|p|))

with N products, n_w of them holding the word w, and w standing f_w times in the |p| words of p (Lucene's variant:
Kamphuis et al., ECIR 2020). A word that stands twice in the query counts twice.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import product as combinations
from pathlib import Path

import numpy as np
import Stemmer

from gram.arrays import top_k
from gram.baselines.base import Found, Rival, TrainingData
from gram.errors import MissingExtra, SettingError
from gram.evaluation.measures import evaluate
from gram.folders import new_folder, read_json, write_json
from gram.records import Product
from gram.text.fields import FIELDS, joined_text

K1 = (0.3, 0.6, 0.9, 1.2, 1.5)
B = (0.3, 0.6, 0.75)
FIELD_SETS = (("title",), FIELDS)
MEASURES = ("nDCG@10", "R@100")
"""Settings are chosen by the sum of these."""
UNTUNED: dict[str, object] = {"k1": 1.2, "b": 0.75, "fields": FIELDS}
"""Where there is no dev part: the textbook's settings over all fields."""

_WORD = re.compile(r"\w+")


class BM25(Rival):
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
            with _jax_on_cpu():
                import bm25s
        except ImportError as error:
            raise MissingExtra("BM25", "eval") from error
        try:
            self._stemmer = Stemmer.Stemmer(stemmer) if stemmer else None
        except KeyError as error:
            known = ", ".join(Stemmer.algorithms())
            raise SettingError(f"PyStemmer knows no '{stemmer}'. Fix: choose from {known}, or '' for none.") from error
        super().__init__(products, {"k1": k1, "b": b, "fields": list(fields), "stemmer": stemmer})
        documents = [self._tokens(joined_text(product, fields)) for product in self._products]
        self._index = None
        if any(documents):
            self._index = bm25s.BM25(k1=k1, b=b, method="lucene")
            self._index.index(documents, show_progress=False)

    @property
    def index_bytes(self) -> int:
        """Postings: product, score, and where each word's begin."""
        arrays = ("data", "indices", "indptr")
        return 0 if self._index is None else sum(self._index.scores[name].nbytes for name in arrays)

    def find(self, queries: Sequence[str], k: int) -> Iterator[Found]:
        """The best `k` of each query, of those that share a word with it."""
        for query in queries:
            tokens = self._tokens(query)
            if self._index is None or not tokens:
                yield np.empty(0, dtype=np.int64), np.empty(0, dtype=np.float32)
                continue
            scores: np.ndarray = self._index.get_scores(tokens)  # (N,)
            found = np.flatnonzero(scores > 0)
            yield top_k(scores[found], k, found)

    def _tokens(self, text: str) -> list[str]:
        tokens = _WORD.findall(text.lower())
        return tokens if self._stemmer is None else list(self._stemmer.stemWords(tokens))


@contextmanager
def _jax_on_cpu() -> Iterator[None]:
    """Names the CPU to JAX, unless the environment names something, while bm25s is imported: it begins to compute with
    JAX there, where it is installed, which would take most of a GPU's memory. Then the environment is as it was."""
    if "JAX_PLATFORMS" in os.environ:
        yield
        return
    os.environ["JAX_PLATFORMS"] = "cpu"
    try:
        yield
    finally:
        del os.environ["JAX_PLATFORMS"]


class TunedBM25(BM25):
    """BM25 with k1, b and the fields chosen on the dev part; the log is not read.

    The folder holds the settings only: indexing a catalogue takes seconds, so `load` does it.
    """

    @classmethod
    def train(cls, folder: Path, data: TrainingData, *, model: str = "", seed: int = 0, quick: bool = False) -> None:
        """Tries every setting on the dev part (`quick`: four of them) and writes the best; `model` is not used."""
        best, settings = 0.0, UNTUNED  # where no setting finds anything, as without a dev part
        k1s, bs = (K1[::4], B[1:2]) if quick else (K1, B)
        if data.dev_queries:
            for fields, k1, b in combinations(FIELD_SETS, k1s, bs):
                run = BM25(data.products, k1, b, fields).search_many(data.dev_queries, 100)
                mean = evaluate(data.dev_qrels, run, MEASURES).mean
                if sum(mean.values()) > best:
                    best, settings = sum(mean.values()), {"k1": k1, "b": b, "fields": fields}
        cls.write(folder, settings)

    @staticmethod
    def write(folder: Path, settings: Mapping[str, object]) -> None:
        """A folder with given settings: k1, b, fields."""
        with new_folder(folder) as draft:
            write_json(draft / "meta.json", dict(settings))

    @classmethod
    def load(cls, folder: Path, products: Sequence[Product]) -> TunedBM25:
        return cls(products, **read_json(Path(folder) / "meta.json"))
