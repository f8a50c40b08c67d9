"""BM25 over products: unlearned, the floor under everything that the model learns.

    score(q, p) = Σ_w∈q  idf(w) · f_w / (f_w + k1·(1 − b + b·|p|/mean|p|)),   idf(w) = log(1 + (N − n_w + ½)/(n_w + ½))

with N products, n_w of them holding the word w, and w standing f_w times among the |p| words of p (Lucene's variant:
Kamphuis et al., ECIR 2020; bm25s calls it "lucene"). All but the sum is known when the index is built, so each word's
share of a product's score is what is stored.

Dimension letters:
    N  products                    V  different stems
    T  stems of all the products   P  postings: (stem, product) pairs
"""

from __future__ import annotations

import json
import math
from array import array
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gram.errors import IndexFolderError, SettingError
from gram.index.postings import Postings


@dataclass(frozen=True, eq=False)
class BM25Index:
    """Which products hold which stem, and what it adds to their score. Stems are as `gram.text.words.stems` cuts them.

    >>> bm25 = BM25Index.build([["red", "shoe"], ["red", "red", "hat"], ["coat"]])
    >>> [round(score, 3) for score in bm25.score(["red", "parrot"]).tolist()]
    [0.247, 0.29, 0.0]
    >>> bm25.holding("hat").tolist(), bm25.document_frequency("red"), "parrot" in bm25
    ([1], 2, False)
    """

    ids: Mapping[str, int]  # V stems → keys of the postings, 0 … V − 1 in their order
    postings: Postings  # V keys, P postings, over N products
    n_products: int
    k1: float
    b: float
    mean_length: float  # stems of a product
    statistics: BM25Index | None = None  # whose idf counts, of a segment that is too small to say how rare a stem is

    @staticmethod
    def build(
        texts: Iterable[Sequence[str]], k1: float = 0.9, b: float = 0.75, like: BM25Index | None = None
    ) -> BM25Index:
        """From the stems of each product, all its fields together; a product without any keeps its row.

        With `like`, settings, rarities and the mean length are those of that index, so that scores of both compare.
        `k1` says how slowly repetition stops counting, `b` how much a long text is discounted (both measured:
        docs/log.md, "A long text's words"). Raises SettingError for
        settings out of range, ValueError for a stem that is empty or holds a line break.
        """
        if like is not None:
            k1, b = like.k1, like.b
        if not (k1 >= 0 and 0 <= b <= 1):
            raise SettingError(f"BM25 needs k1 ≥ 0 and 0 ≤ b ≤ 1, not k1={k1}, b={b}.")
        ids: defaultdict[str, int] = defaultdict()
        ids.default_factory = ids.__len__  # a stem met for the first time gets the next id
        met, counts = array("i"), array("i")
        for text in texts:
            met.extend(map(ids.__getitem__, text))
            counts.append(len(text))
        for stem in ids:
            if not stem or "\n" in stem:
                raise ValueError(f"{stem!r} is no stem: it must be one word on one line")
        n_products, n_stems = len(counts), len(ids)
        stem_id = np.array(met, dtype=np.int64)  # (T,)
        length = np.array(counts, dtype=np.int64)  # (N,)
        product = np.repeat(np.arange(n_products), length)  # (T,)
        pair, frequency = np.unique(stem_id * n_products + product, return_counts=True)  # (P,) (P,)
        key, holder = np.divmod(pair, max(n_products, 1))  # (P,) (P,)
        n_holding = np.bincount(key, minlength=n_stems)  # (V,) products that hold the stem
        mean = len(stem_id) / max(n_products, 1)
        if like is None:
            idf = _rarity(n_holding, n_products)  # (V,)
        else:
            idf, mean = np.array([like.idf(stem) for stem in ids]), like.mean_length
        damping = k1 * (1 - b + b * length / mean) if mean else np.zeros(n_products)  # (N,)
        weight = idf[key] * frequency / (frequency + damping[holder])  # (P,)
        postings = Postings.build(key, holder, weight, n_stems)
        return BM25Index(dict(ids), postings, n_products, k1, b, mean, like)

    def __len__(self) -> int:
        return len(self.ids)

    def __contains__(self, stem: object) -> bool:
        return stem in self.ids

    @cached_property
    def stems(self) -> list[str]:
        """(V,) the stems by their keys."""
        return list(self.ids)

    def score(self, stems: Sequence[str], out: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
        """(N,) the BM25 score of every product. A stem that the query repeats counts each time, an unknown one adds 0.

        With `out` (N,), that array is overwritten and returned, which spares a caller with many queries the new one.
        """
        scores = np.empty(self.n_products, dtype=np.float32) if out is None else out  # (N,)
        if scores.shape != (self.n_products,):
            raise ValueError(f"out must have one number for each of {self.n_products} products, not {scores.shape}")
        keys = [self.ids[stem] for stem in stems if stem in self.ids]
        scores.fill(0)
        self.postings.accumulate(keys, np.ones(len(keys)), scores)
        return scores

    def holding(self, stem: str) -> NDArray[np.int32]:
        """Rows of the products that hold a stem, those it says most about first; empty for an unknown stem."""
        key = self.ids.get(stem)
        return np.empty(0, dtype=np.int32) if key is None else self.postings.of(key)[0]

    def document_frequency(self, stem: str) -> int:
        """How many products hold a stem."""
        return len(self.holding(stem))

    def idf(self, stem: str) -> float:
        """How rare a stem is; an unknown one is rarer than any, as one that no product holds."""
        if self.statistics is not None:
            return self.statistics.idf(stem)
        n_holding = self.document_frequency(stem)
        return math.log1p((self.n_products - n_holding + 0.5) / (n_holding + 0.5))

    def idf_of(self, keys: NDArray[np.int32]) -> NDArray[np.float32]:
        """`idf` of many stems by their keys, in the shape of `keys`."""
        if self.statistics is not None:
            rarity = np.array([self.idf(self.stems[key]) for key in keys.tolist()], dtype=np.float32)
            return rarity
        n_holding = self.postings.start[keys + 1] - self.postings.start[keys]
        return _rarity(n_holding, self.n_products).astype(np.float32)

    def save(self, folder: str | Path) -> None:
        """Writes `bm25.txt`, `bm25.json` and the postings `bm25.*.npy` into an existing folder."""
        save_lines(Path(folder, "bm25.txt"), self.ids)
        settings = {"n_products": self.n_products, "k1": self.k1, "b": self.b, "mean_length": self.mean_length}
        Path(folder, "bm25.json").write_text(json.dumps(settings) + "\n", encoding="utf-8")
        self.postings.save(folder, "bm25")

    @staticmethod
    def load(folder: str | Path, mmap: bool = True) -> BM25Index:
        """What `save` wrote, postings read page by page when `mmap`. Raises IndexFolderError if it cannot be used."""
        path, settings_path = Path(folder, "bm25.txt"), Path(folder, "bm25.json")
        ids = {stem: i for i, stem in enumerate(load_lines(path))}
        try:
            settings = json.loads(settings_path.read_bytes())
            n_products, k1, b = int(settings["n_products"]), float(settings["k1"]), float(settings["b"])
            mean_length = float(settings["mean_length"])
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            problem = f"the settings of BM25 cannot be read ({error!r})"
            raise IndexFolderError(f"{settings_path}: {problem}. Fix: build the index again") from None
        postings = Postings.load(folder, "bm25", mmap)
        if postings.n_keys != len(ids):
            problem = f"there are {len(ids)} different words, but postings for {postings.n_keys}"
            raise IndexFolderError(f"{path}: {problem}. Fix: build the index again")
        return BM25Index(ids, postings, n_products, k1, b, mean_length)


def _rarity(n_holding: NDArray[np.int64], n_products: int) -> NDArray[np.float64]:
    """idf of stems that so many of the products hold."""
    idf: NDArray[np.float64] = np.log1p((n_products - n_holding + 0.5) / (n_holding + 0.5))
    return idf


def save_lines(path: Path, lines: Iterable[str]) -> None:
    """Writes words one a line, in UTF-8."""
    path.write_bytes("".join(f"{line}\n" for line in lines).encode())


def load_lines(path: Path) -> list[str]:
    """What `save_lines` wrote. Raises IndexFolderError for a file that is missing, cut off or not UTF-8."""
    try:
        *lines, end = path.read_bytes().decode().split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise IndexFolderError(f"{path}: the words cannot be read ({error}). Fix: build the index again") from None
    if end:
        raise IndexFolderError(f"{path}: the file ends in the middle of a word. Fix: build the index again")
    return lines
