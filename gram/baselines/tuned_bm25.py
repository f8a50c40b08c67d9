"""BM25 with the settings that are best on the dev part, as a rival that is trained into a folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product as pairs
from pathlib import Path

from gram.baselines.base import TrainingData
from gram.baselines.bm25 import BM25, FIELDS
from gram.evaluation.measures import evaluate
from gram.folders import new_folder, read_json, write_json
from gram.records import Product

K1 = (0.3, 0.6, 0.9, 1.2, 1.5)
B = (0.3, 0.6, 0.75)
FIELD_SETS = (("title",), FIELDS)
MEASURES = ("nDCG@10", "R@100")
"""Settings are chosen by the sum of these."""
UNTUNED: dict[str, object] = {"k1": 1.2, "b": 0.75, "fields": FIELDS}
"""Where there is no dev part: the textbook's settings over all fields."""


class TunedBM25(BM25):
    """BM25 with k1, b and the fields chosen on the dev part; the log is not read.

    The folder holds the settings only: indexing a catalogue takes seconds, so `load` does it.
    """

    def __init__(self, products: Sequence[Product], k1: float, b: float, fields: Sequence[str]) -> None:
        super().__init__(products, k1, b, fields)
        self._settings: dict[str, object] = {"k1": k1, "b": b, "fields": list(fields), "stemmer": "porter"}

    @classmethod
    def train(cls, folder: Path, data: TrainingData, *, model: str = "", seed: int = 0, quick: bool = False) -> None:
        """Tries every setting on the dev part (`quick`: four of them) and writes the best; `model` is not used."""
        best, settings = 0.0, UNTUNED  # where no setting finds anything, as without a dev part
        k1s, bs = (K1[::4], B[1:2]) if quick else (K1, B)
        if data.dev_queries:
            for fields, k1, b in pairs(FIELD_SETS, k1s, bs):
                run = BM25(data.products, k1, b, fields).search_many(data.dev_queries, 100)
                mean = evaluate(data.dev_qrels, run, MEASURES).mean
                if sum(mean.values()) > best:
                    best, settings = sum(mean.values()), {"k1": k1, "b": b, "fields": fields}
        cls.write(folder, settings)

    @staticmethod
    def write(folder: Path, settings: Mapping[str, object]) -> None:
        """A folder with given settings: k1, b, fields."""
        with new_folder(folder) as made:
            write_json(made / "meta.json", dict(settings))

    @classmethod
    def load(cls, folder: Path, products: Sequence[Product]) -> TunedBM25:
        return cls(products, **read_json(Path(folder) / "meta.json"))

    @property
    def settings(self) -> dict[str, object]:
        return self._settings

    @property
    def index_bytes(self) -> int:
        """Postings: product, score, and where each word's begin."""
        return sum(array.nbytes for array in self._arrays())

    def _arrays(self) -> list:  # type: ignore[type-arg]
        return [] if self._index is None else [self._index.scores[name] for name in ("data", "indices", "indptr")]
