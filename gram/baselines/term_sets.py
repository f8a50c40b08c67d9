"""Retrieval by generated sets of terms: no order, no lexical copy, one pass of the network a query.

A product's identifier is a set of its telling terms. The network reads a query and says of every term t of the
vocabulary how much likelier it makes it,

    gain(t|q) = log-odds P(t|q) − log-odds P(t) = s · max over l of cos(M hₗ, e_t) + b_t

with hₗ the encoder's states (max over the tokens: Formal et al., SPLADE v2, 2021). Products are scored over an inverted
index by the sum of their terms' scores. With terms taken as independent, Σ log-odds P(t|q) over a product's set is the
log-likelihood of that set but for a constant of the query, and Σ gain(t|q) is the same with the prior divided out.

The family: SEAL (Bevilacqua et al., 2022), Term-Sets Can Be Strong Document Identifiers (Zhang et al., SIGIR 2024:
sets of 12 terms whose order is free), and learning to rank on top of the likelihood (LTRGR: Li et al., AAAI 2024). Like
them it has no lexical path: a query's word counts only as far as the network predicts it.

Dimension letters:
    B  texts of a batch    L  tokens of the longest    D  width
    V  terms               N  products                 S  terms of a product's set
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from gram.arrays import top_k
from gram.baselines.base import Found, How, Rival, TrainingData, catalogue_of, read_settings, run_of, write_meta
from gram.baselines.bm25 import BM25
from gram.baselines.encoder import (
    QUERY_TOKENS,
    PretrainedEncoder,
    by_length,
    computing,
    groups_of,
    load_weights,
    save_weights,
    vectors,
)
from gram.baselines.training import DevSample, Negatives, Pairs, Plan, contrastive, fit, plan_for
from gram.errors import SettingError
from gram.folders import new_folder
from gram.index.postings import Postings
from gram.records import Interaction, Product
from gram.text.fields import joined_text
from gram.text.words import stem, stems, words


class TermNetwork(nn.Module):
    """Scores every term of a vocabulary for a text: its gain, in nats. `terms` start as the encoder reads them."""

    def __init__(self, encoder: PretrainedEncoder, n_terms: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.match = nn.Linear(encoder.width, encoder.width, bias=False)
        self.terms = nn.Parameter(torch.zeros(n_terms, encoder.width))  # (V, D)
        self.bias = nn.Parameter(torch.full((n_terms,), -4.0))  # (V,)
        self.log_scale = nn.Parameter(torch.tensor(math.log(10.0)))
        with torch.no_grad():
            self.match.weight.copy_(torch.eye(encoder.width))

    def forward(self, token_ids: Sequence[Sequence[int]]) -> Tensor:
        """(B, V) gains."""
        states, mask = self.encoder(token_ids)
        read = F.normalize(self.match(states), dim=-1)  # (B, L, D)
        read = torch.where(mask[..., None], read, read[:, :1])  # padding repeats a token: the maximum stays
        return self.log_scale.exp() * (read @ self.terms.T).amax(1).float() + self.bias

    @torch.no_grad()
    def read(
        self, texts: Sequence[str], limit: int, bf16: bool = False
    ) -> Iterator[tuple[list[int], NDArray[np.float32]]]:
        """Batches of positions in `texts` with their gains (batch, V)."""
        self.eval()
        token_ids = self.encoder.token_ids(texts, limit)
        for batch in by_length(token_ids, 64):
            with computing(bf16, self.terms.device):
                gains = self([token_ids[i] for i in batch])
            yield batch, gains.float().cpu().numpy()

    @staticmethod
    def load(folder: Path, n_terms: int, device: str = "cpu") -> TermNetwork:
        network = TermNetwork(PretrainedEncoder.load(folder / "encoder"), n_terms)
        load_weights(network, folder)
        return network.to(device).eval()


class Terms(NamedTuple):
    """The vocabulary, and for every product its terms of it, most telling first."""

    words: list[str]  # (V,) each stem's commonest form
    of: list[list[int]]  # (N,)


def telling_terms(
    products: Sequence[Product],
    log: Sequence[Interaction],
    most: int = 20_000,
    fields: Sequence[str] = ("title", "brand", "category"),
) -> Terms:
    """Stems of some fields that two products or more hold, the `most` frequent.

    A term tells as much as its idf times how often those who look for a product that holds it name it, by the log.
    """
    stems_of = [list(dict.fromkeys(stems(joined_text(p, fields)))) for p in products]
    frequency = Counter(term for row in stems_of for term in row)
    known = sorted((t for t, n in frequency.items() if n > 1), key=lambda t: (-frequency[t], t))[:most]
    number = {term: i for i, term in enumerate(known)}
    named, seen = np.zeros(len(known)), np.zeros(len(known))  # (V,) (V,)
    position = {product.product_id: i for i, product in enumerate(products)}
    for query, product_id, weight, *_ in log:
        searched = set(stems(query))
        for term in stems_of[position[product_id]] if product_id in position else ():
            if term in number:
                seen[number[term]] += weight
                named[number[term]] += weight * (term in searched)
    usual = (named.sum() + 1) / (seen.sum() + 1)
    rate = (named + 10 * usual) / (seen + 10)  # (V,)
    idf = np.log(len(products) / np.array([frequency[t] for t in known], dtype=np.float64))  # (V,)
    telling = (idf + 0.1) * rate  # (V,) a term of every product still tells a little
    rows = ([number[t] for t in row if t in number] for row in stems_of)
    forms: dict[str, Counter[str]] = {term: Counter() for term in known}
    for product in products:
        for word in words(joined_text(product, fields)):
            if (cut := stem(word)) in forms:
                forms[cut][word] += 1
    names = [min(forms[term].items(), key=lambda form: (-form[1], form[0]))[0] for term in known]
    return Terms(names, [sorted(row, key=lambda i: (-telling[i], i)) for row in rows])


SCORINGS = ("ratio", "likelihood", "best 32", "best 128", "best 512")
"""How a query's terms count: every gain, every log-odds, or only the so many greatest gains above 0."""
TRAINED_SIZE = 16


class TermSets(Rival):
    """An engine that generates terms of a query, without order, and finds products by the sets of theirs.

    Trained by the likelihood of the clicked product's set (each term's binary cross-entropy) and by ranking the clicked
    product before the batch's others and hard negatives. Chosen on the dev part: rate and checkpoint, how terms count
    (`SCORINGS`) and how many terms a product's set has.
    """

    name = "term sets"

    def __init__(
        self,
        products: Sequence[Product],
        network: TermNetwork,
        prior: NDArray[np.float32],
        postings: Postings,
        settings: Mapping[str, Any],
    ) -> None:
        super().__init__(products, settings)
        self._network, self._prior, self._postings = network, prior, postings
        self._with_set = np.unique(postings.product)

    @classmethod
    def train(
        cls,
        folder: Path,
        data: TrainingData,
        how: How,
        plan: Plan | None = None,
    ) -> None:
        """Trains into `folder`; `model` is the encoder's folder or hub id, `quick` a run of a few steps for a check.

        Raises ModelError for an encoder that cannot be loaded, SettingError for no products or no two with one word.
        """
        model, seed, quick, bf16, device = how
        products = catalogue_of(data)
        terms = telling_terms(products, data.log)
        if not terms.words:
            raise SettingError("No word stands in two products, so there are no terms. Fix: give a larger catalogue.")
        pairs = Pairs(products, data.log, seed)
        plan = plan or plan_for(pairs, quick, seed, bf16)
        network = TermNetwork(PretrainedEncoder.load(model), len(terms.words)).to(device)
        with torch.no_grad():
            network.terms.copy_(vectors(network.encoder, terms.words, 8, bf16, "terms"))
        targets = postings_of(terms, TRAINED_SIZE).transpose(len(products))  # product → its terms
        prior = _prior(targets, pairs, len(terms.words))
        dev = DevSample(data, products, seed)

        def engine(scoring: str = "best 128", size: int = TRAINED_SIZE) -> TermSets:
            return cls(products, network, prior, postings_of(terms, size), {"scoring": scoring, "set_size": size})

        def score() -> float:
            return dev.score(engine().search_many(dev.queries, 100))

        loss = _Loss(network, pairs, targets, prior, pairs.mine(BM25(products).find), plan.batch)
        outcome = fit(network, groups_of(network), loss, plan, score if dev else None)
        gains = engine().gains(list(dev.queries.values()))

        def by_settings(scoring: str, size: int) -> float:
            found = engine(scoring, size).rank(gains, 100)
            return dev.score(run_of(dev.queries, found, [product.product_id for product in products])) if dev else 0.0

        scoring = max(SCORINGS, key=lambda s: by_settings(s, TRAINED_SIZE))
        size = max((TRAINED_SIZE, 8, 12, 32), key=lambda s: by_settings(scoring, s))
        chosen = engine(scoring, size)
        settings = outcome.settings(plan) | chosen.settings | {"dev": by_settings(scoring, size)}
        with new_folder(folder) as draft:
            save_weights(network, draft)
            np.save(draft / "prior.npy", prior)
            chosen._postings.save(draft, "terms")
            write_meta(draft, cls.name, settings, products)

    @classmethod
    def load(cls, folder: Path, products: Sequence[Product], device: str = "cpu") -> TermSets:
        """Opens what `train` wrote for these products."""
        settings = read_settings(folder, cls.name, products)
        prior = np.load(folder / "prior.npy")
        network = TermNetwork.load(folder, len(prior), device)
        return cls(products, network, prior, Postings.load(folder, "terms"), settings)

    @property
    def index_bytes(self) -> int:
        return sum(array.nbytes for array in (self._postings.start, self._postings.product, self._postings.weight))

    def find(self, queries: Sequence[str], k: int) -> Iterator[Found]:
        return self.rank(self.gains(queries), k)

    def gains(self, queries: Sequence[str]) -> list[NDArray[np.float32]]:
        """The gains (V,) of each query's terms."""
        found = {
            i: row
            for batch, rows in self._network.read(queries, QUERY_TOKENS)
            for i, row in zip(batch, rows, strict=True)
        }
        return [found[i] for i in range(len(queries))]

    def rank(self, gains: Iterable[NDArray[np.float32]], k: int) -> Iterator[Found]:
        """The best `k` of each query whose gains are known."""
        scoring = self._settings["scoring"]
        for row in gains:
            if scoring.startswith("best"):
                keys, _ = top_k(row, int(scoring.split()[1]))
                keys = keys[row[keys] > 0]
                weights = row[keys]
            else:
                keys = np.arange(len(row))
                weights = row + self._prior if scoring == "likelihood" else row
            scores = self._postings.score(keys, weights, len(self._ids))  # (N,)
            found = np.flatnonzero(scores > 0) if scoring.startswith("best") else self._with_set
            yield top_k(scores[found], k, found)


def postings_of(terms: Terms, size: int) -> Postings:
    """Term → the products that have it among their `size` most telling ones."""
    kept = [row[:size] for row in terms.of]
    keys = [term for row in kept for term in row]
    positions = np.repeat(np.arange(len(kept)), [len(row) for row in kept])
    return Postings.build(keys, positions, np.ones(len(keys)), len(terms.words))


def _prior(targets: Postings, pairs: Pairs, n_terms: int) -> NDArray[np.float32]:
    """(V,) log-odds that a training pair's product has the term."""
    positions = [*range(targets.n_keys), *(position for _, position in pairs.rows if pairs.from_log)]
    count = np.zeros(n_terms)
    for position in positions:
        count[targets.of(position)[0]] += 1
    share = (count + 0.5) / (len(positions) + 1)
    return np.log(share / (1 - share)).clip(-12, 12).astype(np.float32)


class _Loss:
    """Likelihood of the clicked products' sets, in nats a term, plus cross-entropy of the clicked products."""

    def __init__(
        self,
        network: TermNetwork,
        pairs: Pairs,
        targets: Postings,
        prior: NDArray[np.float32],
        negatives: Negatives,
        count: int,
    ) -> None:
        self.network, self.pairs, self.targets, self.negatives, self.count = network, pairs, targets, negatives, count
        self.prior = torch.from_numpy(prior).to(network.terms.device)

    def __call__(self, rng: np.random.Generator, _: float) -> Tensor:
        batch = self.pairs.batch(self.count, rng, self.negatives)
        token_ids = self.network.encoder.token_ids(batch.queries, QUERY_TOKENS)
        gains = self.network(token_ids)  # (B, V)
        sets = torch.zeros(len(batch.columns), gains.shape[1])  # (C, V)
        for i, position in enumerate(batch.columns):
            sets[i, torch.from_numpy(self.targets.of(position)[0].astype(np.int64))] = 1.0
        sets = sets.to(gains.device)
        clicked = sets[: self.count]  # (B, V)
        nats = F.binary_cross_entropy_with_logits(self.prior + gains, clicked, reduction="sum")
        with computing(False, gains.device):  # sums over a set need more digits than bfloat16 has
            return nats / clicked.sum().clamp(min=1) + contrastive(gains @ sets.T, batch.ignored)
