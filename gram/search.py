"""Search: an index and the model it was built with, as one object that answers queries."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from gram.arrays import top_k
from gram.coder.encoder.coding import QUERY_CODING, Coded, CodingSettings, code_texts
from gram.coder.encoder.generator import Generator, model_hash
from gram.coder.encoder.network import QUERY
from gram.codes.lexicon import Lexicon
from gram.codes.slots import STOPWORDS
from gram.errors import GramError, IndexFolderError, ModelError, SettingError
from gram.index.postings import Postings
from gram.index.segment import Index, same_model
from gram.ranking.candidates import EVIDENCE, FOUND, NEAR, Candidates, CodedQuery, gather
from gram.ranking.scorer import Scorer
from gram.records import Attribute, Code, Hit, SharedCode
from gram.text.spelling import RARE, Speller
from gram.text.words import stems, words

BATCH = 256  # queries coded at a time


class Searcher:
    """Finds products by the codes that they share with a query.

    >>> searcher = Searcher.load("shop.index")  # doctest: +SKIP
    >>> searcher.search("couch", k=3)[0].title  # doctest: +SKIP
    'Velvet Sofa, 3-Seater'
    """

    name = "GRAM"

    def __init__(
        self, generator: Generator, index: Index, scorer: Scorer, coding: CodingSettings = QUERY_CODING
    ) -> None:
        extra = dict(zip(index.extra_words, index.extra_counts.tolist(), strict=True))
        self.generator = generator.with_words(extra)
        self.index, self.scorer, self.coding = index, scorer, coding
        self.lexicon, self.texts = self.generator.lexicon, self.generator.texts
        self.speller = _speller(index, self.lexicon)

    @classmethod
    def load(cls, index: str | Path, model: str | Path | None = None, device: str = "cpu") -> Searcher:
        """The searcher of an index folder; the model is looked for where the index says, unless `model` is given.

        Raises:
            IndexMismatch: the model is not the one that the index was built with.
            ModelError, IndexFolderError: a folder that cannot be read.
        """
        found = Index.open(index)
        folder = Path(model) if model is not None else _model_folder(Path(index), found.meta)
        try:
            wanted = model_hash(folder)
        except OSError as error:
            raise ModelError(f"{folder}: no model there ({error}). Fix: name it with --model") from error
        same_model(index, found.meta, wanted)
        generator, _ = Generator.load(folder, device)
        return cls(generator, found, Scorer.load(folder))

    def search(self, query: str, k: int = 10, explain: bool = False) -> list[Hit]:
        """The k best products of one query, best first; with `explain`, the codes and evidence behind each."""
        return self._hits(self.code([query], deep=explain)[0], k, explain)

    def search_many(
        self, queries: Mapping[str, str], k: int = 300, progress: bool = False
    ) -> dict[str, dict[str, float]]:
        """A run: for each query id the scores of its k best products."""
        run: dict[str, dict[str, float]] = {}
        ids = list(queries)
        for begin in tqdm(range(0, len(ids), BATCH), desc="searching", unit="batch", disable=not progress):
            part = ids[begin : begin + BATCH]
            for query_id, coded in zip(part, self.code([queries[i] for i in part], deep=False), strict=True):
                run[query_id] = self.found(coded, k)
        return run

    def found(self, query: CodedQuery, k: int) -> dict[str, float]:
        """The k best products of a coded query, best first, with their scores."""
        positions, scores, _ = self._rank(query, k)
        return dict(zip(self.index.table.ids[positions].tolist(), scores.tolist(), strict=True))

    def code(self, queries: Sequence[str], deep: bool = True) -> list[CodedQuery]:
        """What the generator writes for each query. One query is computed in float32, which is faster there.

        Codes of two and more attributes are written where the scorer weighs them, or `deep` asks for them: for one
        query they take as long as all the rest.
        """
        queries = [self.spelled(q) for q in queries]
        encoded = self.texts.queries(queries)
        dtype = torch.float32 if len(queries) == 1 else None
        deep = deep or bool(self.scorer.weights[EVIDENCE.index("deep")])
        coding = self.coding if deep else dataclasses.replace(self.coding, codes=0)
        coded = code_texts(self.generator, encoded, QUERY, coding, dtype=dtype)
        return split_queries(coded, [stems(q, self.lexicon.language) for q in queries])

    def spelled(self, query: str) -> str:
        """The query with words read right that neither the shop nor the backbone knows.

        A word that the backbone has a piece of its own for is left as it is: "couch" is no misspelt "coach", even where
        nobody sells couches.
        """
        row = words(query)
        read = []
        for i, word in enumerate(row):
            right = None
            if len(self.generator.backbone.pieces(word)) > 1:
                right = self.speller.correct(word, partial(self._together, row[:i] + row[i + 1 :]))
            read += [word] if right is None else right.split()
        return query if read == row else " ".join(read)

    def _together(self, others: Sequence[str], stem: str) -> float:
        """How many products hold a stem and each of the other words of a query, each by its idf."""
        known, held = self.index.words, self.index.words.holding(stem)
        rest = {s for word in others for s in stems(word, self.lexicon.language) if s in known.ids} - STOPWORDS
        return sum(known.idf(s) * len(np.intersect1d(held, known.holding(s), assume_unique=True)) for s in rest)

    def with_scorer(self, scorer: Scorer) -> Searcher:
        """The same search under other weights."""
        made = copy.copy(self)  # the vocabulary and the network are the same: nothing is built again
        made.scorer = scorer
        return made

    def _rank(self, query: CodedQuery, k: int) -> tuple[NDArray[np.int64], NDArray[np.float32], Candidates]:
        if k < 1:
            raise SettingError(f"k must be at least 1, not {k}")
        found = max(FOUND, k)
        candidates = gather(self.index, query, self.scorer.finding, found + NEAR, found)
        scores = self.scorer.score(candidates.features)
        order, best = top_k(scores, min(k, len(scores)))
        return candidates.positions[order], best, Candidates(candidates.positions[order], candidates.features[order])

    def _hits(self, query: CodedQuery, k: int, explain: bool) -> list[Hit]:
        positions, scores, shown = self._rank(query, k)
        table = self.index.table
        hits = list(map(Hit, table.ids[positions].tolist(), scores.tolist(), map(table.title, positions.tolist())))
        if explain:
            told = zip(hits, positions.tolist(), shown.features, strict=True)
            hits = [self._explained(query, hit, position, features) for hit, position, features in told]
        return hits

    def _explained(self, query: CodedQuery, hit: Hit, position: int, features: NDArray[np.float32]) -> Hit:
        """A hit with the codes and the evidence (F,) that speak for it."""
        parts = features * self.scorer.weights
        evidence = {n: float(p) for n, p in zip(EVIDENCE, parts, strict=True) if p}
        rest = hit.score - sum(evidence.values()) - self.scorer.shift
        evidence["base"] = self.scorer.shift  # what a product without evidence would have
        if self.scorer.network is not None:
            evidence["network"] = rest
        speaking_for = float(parts[parts > 0].sum())
        return hit._replace(codes=self._shared(query, position, speaking_for), evidence=evidence)

    def _shared(self, query: CodedQuery, position: int, speaking_for: float) -> tuple[SharedCode, ...]:
        """The codes that the query and the product at `position` share, the weightiest first.

        `speaking_for` is the sum of all parts of the score that speak for the product: what shares are of.
        """
        weights = dict(zip(EVIDENCE, self.scorer.weights.tolist(), strict=True))
        index, shared = self.index, []
        for kind, (keys, by), postings, copied in (
            ("own_own", query.own, index.own, (True, True)),
            ("own_written", query.own, index.written, (True, False)),
            ("written_own", query.written, index.own, (False, True)),
            ("written_written", query.written, index.written, (False, False)),
            ("deep", query.deep, index.deep, (False, False)),
        ):
            for key, weight in zip(keys.tolist(), by.tolist(), strict=True):
                there = _weight(postings, key, position)
                if there:
                    share = weights[kind] * weight * there / max(speaking_for, 1e-9)
                    code = self.written_code(key) if kind == "deep" else (self.lexicon.attributes[key],)
                    shared.append(SharedCode(code, weight, there, *copied, share))
        return tuple(sorted(shared, key=lambda s: -s.share))

    @cached_property
    def _codes(self) -> NDArray[np.int32]:
        return self.generator.trie.table()

    def written_code(self, code_id: int) -> Code:
        """The code of an id, as its attributes."""
        row = self._codes[code_id]
        return tuple(Attribute(*self.lexicon.attributes[a]) for a in row.tolist() if a >= 0)


def _speller(index: Index, lexicon: Lexicon) -> Speller:
    """Knows the words of the catalogue, and those of several of the log's queries: of what one query alone says and no
    product, most is misspelt."""
    counts = dict(zip(index.words.ids, np.diff(index.words.postings.start).astype(float).tolist(), strict=True))
    written = {}
    for attribute, forms, queries in zip(lexicon.attributes, lexicon.forms, lexicon.queries.tolist(), strict=True):
        if len(forms[0]) == 1:
            written[forms[0][0]] = attribute.value
            if queries >= RARE:
                counts[forms[0][0]] = counts.get(forms[0][0], 0.0) + queries
    return Speller(counts, written, lexicon.language)


def split_queries(coded: Coded, query_stems: Sequence[Sequence[str]]) -> list[CodedQuery]:
    """Coded queries one by one."""
    n = len(query_stems)
    cuts = [np.searchsorted(part[0], np.arange(n + 1)) for part in (coded.own, coded.written, coded.deep)]
    rows = []
    for i in range(n):
        own, written, deep = (
            (part[1][cut[i] : cut[i + 1]], part[2][cut[i] : cut[i + 1]])
            for part, cut in zip((coded.own, coded.written, coded.deep), cuts, strict=True)
        )
        weights = coded.piece_weights[coded.pieces.start[i] : coded.pieces.start[i + 1]]
        rows.append(CodedQuery(query_stems[i], own, written, deep, coded.vectors[i], coded.pieces.of(i), weights))
    return rows


def _weight(postings: Postings, key: int, position: int) -> float:
    if not 0 <= key < postings.n_keys:
        return 0.0
    products, weights = postings.of(key)
    at = np.flatnonzero(products == position)
    return float(weights[at[0]]) if len(at) else 0.0


def _model_folder(index: Path, meta: Mapping[str, Any]) -> Path:
    """Where the model is: beside the index under the name it had when the index was built, or where it was then.

    A relative name may mean another shop's model here, so of two the one that the index was built with is taken.
    """
    named = Path(meta["model"])
    there = [f for f in dict.fromkeys((index.parent / named.name, named)) if (f / "config.json").is_file()]
    if not there:
        raise IndexFolderError(f"{index}: its model {named} is not there. Fix: name the model's folder with --model")
    for folder in there[1:]:
        with suppress(OSError, GramError):
            if model_hash(folder) == meta["model_hash"]:
                return folder
    return there[0]
