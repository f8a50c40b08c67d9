"""Co-alignment of codes (Eq. 6): of what either side of an interaction writes, that which both write is preferred.

It moves the decoder alone: the first step is aligned by meeting at its own depth (L_meet). The encoder's states are
then the same before and after, and so is every other kind of evidence.

Letters: B interactions of a batch, X pairs of codes, t attributes, G generated attributes.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from gram.coder.encoder.beam import TorchTrie
from gram.coder.encoder.decoder import Decoder, Memory
from gram.coder.encoder.generator import Generator
from gram.coder.encoder.network import PRODUCT, QUERY
from gram.coder.encoder.tokens import EncodedTexts
from gram.coder.precision import computing
from gram.training.losses import code_log_probs

PASSES = 4
"""Times at most that a small log's interactions are gone through."""


@dataclass(frozen=True)
class AlignmentSettings:
    """How codes of two and more attributes are aligned. `steps` = 0 leaves them as joint training made them."""

    steps: int = 120
    batch: int = 48
    rate: float = 5e-4
    beta_chosen: float = 0.5  # β_w
    beta_rejected: float = 0.2  # β_l
    likelihood: float = 0.1  # of the chosen codes: without it both likelihoods fall (Pang et al. 2024)
    pairs: int = 2  # preferences of an interaction


class WrittenCodes(NamedTuple):
    """The codes that a model wrote for many texts, in CSR form, and which texts wrote each."""

    start: NDArray[np.int64]  # (texts + 1,)
    code: NDArray[np.int64]
    by_code: NDArray[np.int64]  # (codes of the space,) how many texts wrote it

    @classmethod
    def of(
        cls, deep: tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]], n: int, n_codes: int
    ) -> WrittenCodes:
        """From coded texts' triples (text, code, weight), ordered by text."""
        text, code, _ = deep
        start = np.concatenate([[0], np.cumsum(np.bincount(text, minlength=n))]).astype(np.int64)
        return cls(start, code, np.bincount(code, minlength=n_codes))

    def row(self, i: int) -> NDArray[np.int64]:
        return self.code[self.start[i] : self.start[i + 1]]


class Preferences(NamedTuple):
    """X pairs: the interaction's place in the batch, the code chosen and the one rejected, and the pair's weight."""

    place: Tensor
    chosen: Tensor
    rejected: Tensor
    weight: Tensor


def efficiency(code: int, wanted: NDArray[np.int64], products: WrittenCodes) -> float:
    """How much of what a query wants a code brings back, against how much else it brings: in [0, 1].

    The share of the wanted products that wrote the code × log(N / products that wrote it) / log N.
    """
    n = len(products.start) - 1
    found = sum(code in products.row(p) for p in wanted.tolist()) / max(len(wanted), 1)
    return found * float(np.log(n / max(products.by_code[code], 1)) / np.log(max(n, 2)))


class Alignment:
    """Aligns a generator's decoder on a log's interactions."""

    def __init__(
        self,
        generator: Generator,
        queries: EncodedTexts,
        products: EncodedTexts,
        linked: list[NDArray[np.int64]],
        written: tuple[WrittenCodes, WrittenCodes],
        codes: NDArray[np.int32],
        settings: AlignmentSettings | None = None,
        seed: int = 0,
    ) -> None:
        """`linked` are the products of each query, `written` what queries and products wrote, `codes` the space."""
        self.generator, self.queries, self.products, self.linked = generator, queries, products, linked
        self.of_queries, self.of_products = written
        self.settings, self.seed = settings or AlignmentSettings(), seed
        self.codes = torch.from_numpy(codes.astype(np.int64)).to(generator.device)
        self.reference = copy.deepcopy(generator.decoder).eval().requires_grad_(False)
        pairs = [(q, int(p)) for q, row in enumerate(linked) for p in row if len(self.of_queries.row(q))]
        self.pairs = np.array([x for x in pairs if len(self.of_products.row(x[1]))], dtype=np.int64).reshape(-1, 2)

    def run(self) -> list[dict[str, float]]:
        """Trains the decoder; a row of figures a step."""
        settings, generator = self.settings, self.generator
        if not len(self.pairs):
            return []
        generator.eval()
        decoder = generator.decoder
        optimizer = torch.optim.AdamW(decoder.parameters(), lr=settings.rate, weight_decay=0.01)
        rows = []
        steps = min(settings.steps, 1 + PASSES * len(self.pairs) // settings.batch)
        for step in tqdm(range(steps), desc="aligning codes", unit="step"):
            random = np.random.default_rng((self.seed, step))
            for group in optimizer.param_groups:
                group["lr"] = settings.rate * min(1.0, (step + 1) / 10) * max(0.05, 1 - step / steps)
            total, figures = self.loss(random)
            if not figures:  # no interaction of this batch has a code that both sides write and one that one does
                continue
            optimizer.zero_grad()
            total.backward()
            nn.utils.clip_grad_norm_(decoder.parameters(), 1.0)
            optimizer.step()
            rows.append({"step": step + 1, **figures})
        return rows

    def loss(self, random: np.random.Generator) -> tuple[Tensor, dict[str, float]]:
        """The loss of one drawn batch, and its parts."""
        settings, generator = self.settings, self.generator
        picked = self.pairs[random.choice(len(self.pairs), min(settings.batch, len(self.pairs)), replace=False)]
        preferences = self._preferences(picked, random)
        figures: dict[str, float] = {}
        if not len(preferences.place):
            return torch.zeros((), device=generator.device), figures
        now, before = [], []
        for side, encoded, at in ((QUERY, self.queries, picked[:, 0]), (PRODUCT, self.products, picked[:, 1])):
            batch = encoded.batch(at).to(generator.device)
            with torch.no_grad(), computing(generator.device):
                step = generator.network(batch, side, generator.attributes())
                first = torch.log_softmax(step.logits.float(), dim=1)  # (B, G)
                old = self.reference.remember(step.states, batch.mask, step.logits, generator.attributes())
            with computing(generator.device):
                new = generator.decoder.remember(step.states, batch.mask, step.logits, generator.attributes())
            now.append(_Side(generator.decoder, new, first, side))
            before.append(_Side(self.reference, old, first, side))
        preferred, chosen = self._preference_loss(preferences, now, before, figures)
        return preferred - settings.likelihood * chosen, figures

    def _preferences(self, picked: NDArray[np.int64], random: np.random.Generator) -> Preferences:
        """Pairs of a code that both sides wrote and one that only one of them did, weighted by efficiency."""
        rows: list[tuple[int, int, int, float]] = []
        for i, (query, product) in enumerate(picked.tolist()):
            of_query, of_product = self.of_queries.row(query), self.of_products.row(product)
            both = np.intersect1d(of_query, of_product)
            either = np.setxor1d(of_query, of_product)
            if len(both) and len(either):
                wanted = self.linked[query]
                for _ in range(self.settings.pairs):
                    chosen, rejected = int(random.choice(both)), int(random.choice(either))
                    gain = efficiency(chosen, wanted, self.of_products) - efficiency(rejected, wanted, self.of_products)
                    if gain > 0:  # a near miss that serves other wanted products is rejected less, or not at all
                        rows.append((i, chosen, rejected, gain))
        table = np.array(rows, dtype=np.float64).reshape(-1, 4)
        device = self.generator.device
        whole = torch.from_numpy(table[:, :3].astype(np.int64)).to(device)
        weight = torch.from_numpy(table[:, 3]).float().to(device)
        return Preferences(whole[:, 0], whole[:, 1], whole[:, 2], weight / weight.mean().clamp(min=1e-6))

    def _preference_loss(
        self, pairs: Preferences, now: list[_Side], before: list[_Side], figures: dict[str, float]
    ) -> tuple[Tensor, Tensor]:
        """Eq. 6, and the mean log-likelihood of the chosen codes."""
        settings, trie = self.settings, self.generator.torch_trie
        chosen, rejected = self.codes[pairs.chosen], self.codes[pairs.rejected]
        same = (chosen == rejected).cumprod(dim=1).sum(1)  # (X,) attributes that both begin with

        def ratio(codes: Tensor, after: Tensor) -> tuple[Tensor, Tensor]:
            new = _joint([side.steps(trie, codes, pairs.place, after) for side in now])
            with torch.no_grad():
                old = _joint([side.steps(trie, codes, pairs.place, after) for side in before])
            length = (codes >= 0).sum(1).clamp(min=1)  # so that a code does not win by its length alone
            return (new - old) / length, new

        # what chosen and rejected share is not punished: the rejected code's shared attributes are left out
        better, chosen_now = ratio(chosen, torch.zeros_like(same))
        worse, rejected_now = ratio(rejected, same)
        margin = settings.beta_chosen * better - settings.beta_rejected * worse  # (X,)
        figures["preference"] = float((pairs.weight * -F.logsigmoid(margin)).mean().detach())
        figures["preferred"] = float((margin > 0).float().mean())
        figures["chosen"], figures["rejected"] = float(chosen_now.mean().detach()), float(rejected_now.mean().detach())
        return (pairs.weight * -F.logsigmoid(margin)).mean(), (chosen_now / (chosen >= 0).sum(1)).mean()


class _Side(NamedTuple):
    """One side of a batch as one decoder sees it."""

    decoder: Decoder
    memory: Memory
    first: Tensor  # (texts, G) log P of first attributes
    side: int

    def steps(self, trie: TorchTrie, codes: Tensor, rows: Tensor, after: Tensor) -> Tensor:
        """log π(code | text), (X,), without the part that falls to its first `after` (X,) attributes."""
        table = self._table(trie, codes, rows)
        place = torch.arange(table.shape[1], device=table.device)[None, :]
        return (table * (place >= after[:, None])).sum(1)

    def _table(self, trie: TorchTrie, codes: Tensor, rows: Tensor) -> Tensor:
        """log P of the first attribute, and of what follows each attribute, (X, 1 + t)."""
        codes = codes[:, : int((codes >= 0).sum(1).max())]
        with computing(codes.device):
            later = code_log_probs(self.decoder, self.memory, trie, codes, rows, self.side)
        return torch.cat([self.first[rows, codes[:, 0]][:, None], later], dim=1)


def _joint(sides: list[Tensor]) -> Tensor:
    """log ½(π(c|q) + π(c|p)) from both sides' logarithms."""
    return torch.logaddexp(sides[0], sides[1]) - float(np.log(2))
