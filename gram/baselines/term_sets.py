"""Retrieval by generated sets of terms: no order, no lexical copy, one pass of the network a query.

A product's identifier is a set of its telling terms. The network reads a query and says of every term t of the
vocabulary how much likelier it makes it,

    gain(t|q) = log-odds P(t|q) − log-odds P(t) = s · max over l of cos(M hₗ, e_t) + b_t

with hₗ the encoder's states (max over the pieces: Formal et al., SPLADE v2, 2021). Products are scored over an inverted
index by the sum of their terms' scores. With terms taken as independent, Σ log-odds P(t|q) over a product's set is the
log-likelihood of that set but for a constant of the query, and Σ gain(t|q) is the same with the prior divided out.

The family: SEAL (Bevilacqua et al., 2022), Term-Sets Can Be Strong Document Identifiers (Zhang et al., SIGIR 2024:
sets of 12 terms whose order is free), and learning to rank on top of the likelihood (LTRGR: Li et al., AAAI 2024). Like
them it has no lexical path: a query's word counts only as far as the network predicts it.

Dimension letters:
    B  texts of a batch    L  pieces of the longest    D  width
    V  terms               N  products                 S  terms of a product's set
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from gram.arrays import top_k
from gram.baselines.base import Run, TrainingData
from gram.baselines.bm25 import field_text
from gram.baselines.encoder import (
    PRODUCT_PIECES,
    QUERY_PIECES,
    Pairs,
    TextEncoder,
    by_id,
    by_length,
    computing,
    dev_sample,
    dev_score,
    fit,
    load_weights,
    open_meta,
    save_weights,
    two_lengths,
    vectors,
    write_meta,
)
from gram.errors import SettingError
from gram.folders import new_folder
from gram.index.postings import Postings
from gram.records import Hit, Interaction, Product
from gram.text.words import stem, stems, words


class TermNetwork(nn.Module):
    """Scores every term of a vocabulary for a text: its gain, in nats. `terms` start as the encoder reads them."""

    def __init__(self, encoder: TextEncoder, n_terms: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.match = nn.Linear(encoder.width, encoder.width, bias=False)
        self.terms = nn.Parameter(torch.zeros(n_terms, encoder.width))  # (V, D)
        self.bias = nn.Parameter(torch.full((n_terms,), -4.0))  # (V,)
        self.log_scale = nn.Parameter(torch.tensor(math.log(10.0)))
        with torch.no_grad():
            self.match.weight.copy_(torch.eye(encoder.width))

    def forward(self, pieces: Sequence[Sequence[int]]) -> Tensor:
        """(B, V) gains."""
        states, mask = self.encoder(pieces)
        places = F.normalize(self.match(states), dim=-1)  # (B, L, D)
        places = torch.where(mask[..., None], places, places[:, :1])  # padding repeats a place: the maximum stays
        return self.log_scale.exp() * (places @ self.terms.T).amax(1).float() + self.bias

    @torch.no_grad()
    def read(
        self, texts: Sequence[str], limit: int, bf16: bool = False
    ) -> Iterator[tuple[list[int], NDArray[np.float32]]]:
        """Batches of places in `texts` with their gains (batch, V)."""
        self.eval()
        pieces = self.encoder.pieces(texts, limit)
        for batch in by_length(pieces, 64):
            with computing(bf16):
                gains = self([pieces[i] for i in batch])
            yield batch, gains.float().numpy()

    @staticmethod
    def load(folder: Path, n_terms: int) -> TermNetwork:
        network = TermNetwork(TextEncoder.load(folder / "encoder"), n_terms)
        load_weights(network, folder)
        return network.eval()


class Terms(NamedTuple):
    """The vocabulary, and for every product its terms of it, most telling first."""

    words: list[str]  # (V,) each stem's commonest form
    of: list[list[int]]  # (N,)


def telling_terms(products: Sequence[Product], log: Sequence[Interaction], most: int = 20_000) -> Terms:
    """Stems of title, brand and category that two products or more hold, the `most` frequent.

    A term tells as much as its idf times how often those who look for a product that holds it name it, by the log.
    """
    held = [list(dict.fromkeys(stems(field_text(p, ("title", "brand", "category"))))) for p in products]
    frequency = Counter(term for row in held for term in row)
    known = sorted((t for t, n in frequency.items() if n > 1), key=lambda t: (-frequency[t], t))[:most]
    number = {term: i for i, term in enumerate(known)}
    named, seen = np.zeros(len(known)), np.zeros(len(known))  # (V,) (V,)
    place = {product.product_id: i for i, product in enumerate(products)}
    for query, product_id, weight, *_ in log:
        asked = set(stems(query))
        for term in held[place[product_id]] if product_id in place else ():
            if term in number:
                seen[number[term]] += weight
                named[number[term]] += weight * (term in asked)
    usual = (named.sum() + 1) / (seen.sum() + 1)
    rate = (named + 10 * usual) / (seen + 10)  # (V,)
    idf = np.log(len(products) / np.array([frequency[t] for t in known], dtype=np.float64))  # (V,)
    telling = (idf + 0.1) * rate  # (V,) a term of every product still tells a little
    rows = ([number[t] for t in row if t in number] for row in held)
    forms: dict[str, Counter[str]] = {term: Counter() for term in known}
    for product in products:
        for word in words(field_text(product, ("title", "brand", "category"))):
            if (cut := stem(word)) in forms:
                forms[cut][word] += 1
    names = [min(forms[term].items(), key=lambda form: (-form[1], form[0]))[0] for term in known]
    return Terms(names, [sorted(row, key=lambda i: (-telling[i], i)) for row in rows])


SCORINGS = ("ratio", "likelihood", "generated 32", "generated 128", "generated 512")
"""How a query's terms count: every gain, every log-odds, or only the so many greatest gains above 0."""
TRAINED_SIZE = 16


class TermSets:
    """An engine that generates terms of a query, without order, and finds products by the sets of theirs.

    Trained by the likelihood of the wanted product's set (each term's binary cross-entropy) and by ranking the wanted
    product before the batch's others. Pairs come from the log, from products' own texts and from pseudo-queries, words
    drawn from a product's title, brand and category; with an empty log from the last two only. Chosen on the dev part:
    the checkpoint, how terms count (`SCORINGS`) and how many terms a product's set has.
    """

    name = "term sets"

    def __init__(
        self, products: Sequence[Product], network: TermNetwork, prior: NDArray[np.float32], postings: Postings,
        settings: dict[str, object],
    ) -> None:  # fmt: skip
        self._products, self._network, self._prior = products, network, prior
        self._postings, self._settings = postings, settings
        self._titles = {product.product_id: product.title for product in products}
        self._with_set = np.unique(postings.product)

    @classmethod
    def train(
        cls, folder: Path, data: TrainingData, *, model: str, seed: int = 0, quick: bool = False, bf16: bool = False,
        steps: int = 700, batch: int = 128,
    ) -> None:  # fmt: skip
        """Trains into `folder`; `model` is the encoder's folder or hub id, `quick` a run of 30 steps for a check.

        Raises ModelError for an encoder that cannot be loaded, SettingError for no products or a setting out of range.
        """
        if steps < 1 or batch < 2:
            raise SettingError(f"Training needs steps ≥ 1 and batch ≥ 2, not {steps} and {batch}.")
        steps = min(steps, 30) if quick else steps
        products = by_id(data.products)
        terms = telling_terms(products, data.log)
        if not terms.words:
            raise SettingError("No word stands in two products, so there are no terms. Fix: give a larger catalogue.")
        encoder = TextEncoder.load(model)
        network = TermNetwork(encoder, len(terms.words))
        with torch.no_grad():
            network.terms.copy_(vectors(encoder, terms.words, 8, bf16, "terms"))
        pairs = Pairs(products, data.log)
        targets = postings_of(terms, TRAINED_SIZE).transpose(len(products))  # product → its terms
        prior = _prior(targets, pairs, len(terms.words))
        queries, answers = dev_sample(data, 500, seed)

        def engine(scoring: str = "generated 128", size: int = TRAINED_SIZE) -> TermSets:
            settings: dict[str, object] = {"scoring": scoring, "set_size": size}
            return cls(products, network, prior, postings_of(terms, size), settings)

        prior_tensor = torch.from_numpy(prior)
        step, _ = fit(
            network,
            lambda random: _loss(network, pairs.draw(batch, 0.7, 0.1, random), pairs, targets, prior_tensor),
            lambda: dev_score(engine().search_many(queries, 100), answers),
            steps=steps, seed=seed, bf16=bf16,
        )  # fmt: skip
        gains = engine().gains(queries)

        def dev(scoring: str, size: int) -> float:
            return dev_score(engine(scoring, size).rank_many(gains, 100), answers)

        scoring = max(SCORINGS, key=lambda s: dev(s, TRAINED_SIZE))
        size = max((TRAINED_SIZE, 8, 12, 32), key=lambda s: dev(scoring, s))
        chosen = engine(scoring, size)
        chosen._settings |= {"step": step, "steps": steps, "batch": batch, "seed": seed, "dev": dev(scoring, size)}
        with new_folder(folder) as written:
            save_weights(network, written)
            np.save(written / "prior.npy", prior)
            chosen._postings.save(written, "terms")
            write_meta(written, cls.name, chosen.settings, products)

    @classmethod
    def load(cls, folder: Path, products: Sequence[Product]) -> TermSets:
        """Opens what `train` wrote for these products."""
        meta, ordered = open_meta(folder, products, cls.name)
        prior = np.load(folder / "prior.npy")
        network = TermNetwork.load(folder, len(prior))
        return cls(ordered, network, prior, Postings.load(folder, "terms"), meta["settings"])

    @property
    def settings(self) -> dict[str, object]:
        return dict(self._settings)

    @property
    def index_bytes(self) -> int:
        return sum(array.nbytes for array in (self._postings.start, self._postings.product, self._postings.weight))

    def search(self, query: str, k: int = 10) -> list[Hit]:
        """The best `k` products for a query, best first."""
        return [Hit(i, score, self._titles[i]) for i, score in self.search_many({"": query}, k)[""].items()]

    def search_many(self, queries: Mapping[str, str], k: int = 300) -> Run:
        """The run for many queries: query id → product id → score."""
        if k < 1:
            raise SettingError(f"k counts the products wanted: at least 1, not {k}.")
        return self.rank_many(self.gains(queries), k)

    def gains(self, queries: Mapping[str, str]) -> dict[str, NDArray[np.float32]]:
        """Query id → the gains (V,) of its terms, queries in their order."""
        ids, found = list(queries), dict[int, NDArray[np.float32]]()
        for batch, gains in self._network.read(list(queries.values()), QUERY_PIECES):
            found.update(zip(batch, gains, strict=True))
        return {query_id: found[i] for i, query_id in enumerate(ids)}

    def rank_many(self, gains: Mapping[str, NDArray[np.float32]], k: int) -> Run:
        """The run for queries whose gains are known."""
        run: Run = {}
        for query_id, row in gains.items():
            places, scores = self._rank(row, k)
            run[query_id] = {self._products[i].product_id: float(s) for i, s in zip(places, scores, strict=True)}
        return run

    def _rank(self, gains: NDArray[np.float32], k: int) -> tuple[NDArray[np.int64], NDArray[Any]]:
        scoring = str(self._settings["scoring"])
        if scoring.startswith("generated"):
            keys, _ = top_k(gains, int(scoring.split()[1]))
            keys = keys[gains[keys] > 0]
            weights = gains[keys]
        else:
            keys = np.arange(len(gains))
            weights = gains + self._prior if scoring == "likelihood" else gains
        scores = self._postings.score(keys, weights, len(self._products))  # (N,)
        found = np.flatnonzero(scores > 0) if scoring.startswith("generated") else self._with_set
        return top_k(scores[found], k, found)


def postings_of(terms: Terms, size: int) -> Postings:
    """Term → the products that have it among their `size` most telling ones."""
    kept = [row[:size] for row in terms.of]
    keys = [term for row in kept for term in row]
    places = np.repeat(np.arange(len(kept)), [len(row) for row in kept])
    return Postings.build(keys, places, np.ones(len(keys)), len(terms.words))


def _prior(targets: Postings, pairs: Pairs, n_terms: int) -> NDArray[np.float32]:
    """(V,) log-odds that a training pair's product has the term."""
    places = [*range(targets.n_keys), *(place for _, place, _ in pairs.log)]
    count = np.zeros(n_terms)
    for place in places:
        count[targets.of(place)[0]] += 1
    share = (count + 0.5) / (len(places) + 1)
    return np.log(share / (1 - share)).clip(-12, 12).astype(np.float32)


def _loss(
    network: TermNetwork, rows: Sequence[tuple[str, int]], pairs: Pairs, targets: Postings, prior: Tensor
) -> Tensor:
    """Likelihood of the wanted sets, in nats a term, plus cross-entropy of the wanted products among the batch's."""
    pieces = network.encoder.pieces([text for text, _ in rows], PRODUCT_PIECES)
    parts = two_lengths(pieces)
    rows = [rows[i] for part in parts for i in part]
    gains = torch.cat([network([pieces[i] for i in part]) for part in parts])  # (B, V)
    places = [place for _, place in rows]
    sets = torch.zeros(gains.shape)  # (B, V)
    for i, place in enumerate(places):
        sets[i, torch.from_numpy(targets.of(place)[0].astype(np.int64))] = 1.0
    likelihood = F.binary_cross_entropy_with_logits(prior + gains, sets, reduction="sum") / sets.sum().clamp(min=1)
    with computing(False):  # sums over a set need more digits than bfloat16 has
        scores = gains @ sets.T  # (B, B)
    also = [[j != i and (place == own or place in pairs.wanted.get(text, ())) for j, place in enumerate(places)]
            for i, (text, own) in enumerate(rows)]  # fmt: skip
    scores = scores.masked_fill(torch.tensor(also), -math.inf)
    return likelihood + F.cross_entropy(scores, torch.arange(len(rows)))
