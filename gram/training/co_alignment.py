"""Co-alignment (Eq. 6): a code that both sides of an interaction write is preferred to one that only one side does.

It moves the decoder alone, for the contrastive loss has aligned the single codes already. The encoder's states are the
same before and after, and so is every feature but that of compound codes.

Letters: B interactions of a batch, X pairs of codes, t attributes, G learnt attributes.
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

from gram.coder.base import Side
from gram.coder.beam import TorchTrie
from gram.coder.encoder.coder import EncoderCoder
from gram.coder.encoder.decoder import Decoder, Memory
from gram.coder.encoder.tokens import TokenizedTexts
from gram.coder.precision import computing
from gram.training.losses import code_log_probs
from gram.training.preferences import CompoundCodes, draw_preferences

PASSES = 4
"""Times at most that a small log's interactions are gone through."""


@dataclass(frozen=True)
class CoAlignmentSettings:
    """How compound codes are aligned. `steps` = 0 leaves them as joint training made them."""

    steps: int = 120
    batch: int = 48
    rate: float = 5e-4
    beta_chosen: float = 0.5  # β_w
    beta_rejected: float = 0.2  # β_l
    likelihood: float = 0.1  # of the chosen codes: without it both likelihoods fall (Pang et al. 2024)
    pairs: int = 2  # preferences of an interaction


class AlignedTexts(NamedTuple):
    """One side's texts and the codes that the model wrote for them."""

    texts: TokenizedTexts
    codes: CompoundCodes


class Preferences(NamedTuple):
    """X pairs: the interaction's row in the batch, the code chosen and the one rejected, and the pair's weight."""

    row: Tensor
    chosen: Tensor
    rejected: Tensor
    weight: Tensor


class CoAlignment:
    """Aligns an encoder coder's decoder on a log's interactions."""

    def __init__(
        self,
        coder: EncoderCoder,
        queries: AlignedTexts,
        products: AlignedTexts,
        clicked: list[NDArray[np.int64]],
        settings: CoAlignmentSettings | None = None,
        seed: int = 0,
    ) -> None:
        """`clicked` are the products of each query."""
        self.coder, self.queries, self.products, self.clicked = coder, queries.texts, products.texts, clicked
        self.of_queries, self.of_products = queries.codes, products.codes
        self.settings, self.seed = settings or CoAlignmentSettings(), seed
        self.codes = torch.from_numpy(coder.trie.table().astype(np.int64)).to(coder.device)
        self.reference = copy.deepcopy(coder.decoder).eval().requires_grad_(False)
        pairs = [(q, int(p)) for q, row in enumerate(clicked) for p in row if len(self.of_queries.row(q))]
        self.pairs = np.array([x for x in pairs if len(self.of_products.row(x[1]))], dtype=np.int64).reshape(-1, 2)

    def run(self) -> list[dict[str, float]]:
        """Trains the decoder; a row of figures a step."""
        settings, coder = self.settings, self.coder
        if not len(self.pairs):
            return []
        coder.eval()
        decoder = coder.decoder
        optimizer = torch.optim.AdamW(decoder.parameters(), lr=settings.rate, weight_decay=0.01)
        rows = []
        steps = min(settings.steps, 1 + PASSES * len(self.pairs) // settings.batch)
        for step in tqdm(range(steps), desc="aligning codes", unit="step"):
            rng = np.random.default_rng((self.seed, step))
            for group in optimizer.param_groups:
                group["lr"] = settings.rate * min(1.0, (step + 1) / 10) * max(0.05, 1 - step / steps)
            total, figures = self.loss(rng)
            if not figures:  # no interaction of this batch has a code that both sides write and one that one does
                continue
            optimizer.zero_grad()
            total.backward()
            nn.utils.clip_grad_norm_(decoder.parameters(), 1.0)
            optimizer.step()
            rows.append({"step": step + 1, **figures})
        return rows

    def loss(self, rng: np.random.Generator) -> tuple[Tensor, dict[str, float]]:
        """The loss of one drawn batch, and its parts."""
        settings, coder = self.settings, self.coder
        picked = self.pairs[rng.choice(len(self.pairs), min(settings.batch, len(self.pairs)), replace=False)]
        preferences = self._preferences(picked, rng)
        figures: dict[str, float] = {}
        if not len(preferences.row):
            return torch.zeros((), device=coder.device), figures
        now, before = [], []
        for side, tokenized, at in (
            (Side.QUERY, self.queries, picked[:, 0]),
            (Side.PRODUCT, self.products, picked[:, 1]),
        ):
            batch = tokenized.batch(at).to(coder.device)
            with torch.no_grad(), computing(coder.device):
                step = coder.network(batch, side, coder.attributes())
                first = torch.log_softmax(step.logits.float(), dim=1)  # (B, G)
                old = self.reference.remember(step.states, batch.mask, step.logits, coder.attributes())
            with computing(coder.device):
                new = coder.decoder.remember(step.states, batch.mask, step.logits, coder.attributes())
            now.append(_OneSide(coder.decoder, new, first, side))
            before.append(_OneSide(self.reference, old, first, side))
        preferred, chosen = self._preference_loss(preferences, now, before, figures)
        return preferred - settings.likelihood * chosen, figures

    def _preferences(self, picked: NDArray[np.int64], rng: np.random.Generator) -> Preferences:
        """Pairs of a code that both sides wrote and one that only one of them did, weighted by efficiency."""
        rows = draw_preferences(picked, self.of_queries, self.of_products, self.clicked, self.settings.pairs, rng)
        table = np.array(rows, dtype=np.float64).reshape(-1, 4)
        device = self.coder.device
        whole = torch.from_numpy(table[:, :3].astype(np.int64)).to(device)
        weight = torch.from_numpy(table[:, 3]).float().to(device)
        return Preferences(whole[:, 0], whole[:, 1], whole[:, 2], weight / weight.mean().clamp(min=1e-6))

    def _preference_loss(
        self, pairs: Preferences, now: list[_OneSide], before: list[_OneSide], figures: dict[str, float]
    ) -> tuple[Tensor, Tensor]:
        """Eq. 6, and the mean log-likelihood of the chosen codes."""
        settings, trie = self.settings, self.coder.torch_trie
        chosen, rejected = self.codes[pairs.chosen], self.codes[pairs.rejected]
        same = (chosen == rejected).cumprod(dim=1).sum(1)  # (X,) attributes that both begin with

        def ratio(codes: Tensor, after: Tensor) -> tuple[Tensor, Tensor]:
            new = _joint([side.steps(trie, codes, pairs.row, after) for side in now])
            with torch.no_grad():
                old = _joint([side.steps(trie, codes, pairs.row, after) for side in before])
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


class _OneSide(NamedTuple):
    """One side of a batch as one decoder sees it."""

    decoder: Decoder
    memory: Memory
    first: Tensor  # (texts, G) log P of first attributes
    side: Side

    def steps(self, trie: TorchTrie, codes: Tensor, rows: Tensor, after: Tensor) -> Tensor:
        """log π(code | text), (X,), without the part that falls to its first `after` (X,) attributes."""
        table = self._table(trie, codes, rows)
        step = torch.arange(table.shape[1], device=table.device)[None, :]
        return (table * (step >= after[:, None])).sum(1)

    def _table(self, trie: TorchTrie, codes: Tensor, rows: Tensor) -> Tensor:
        """log P of the first attribute, and of what follows each attribute, (X, 1 + t)."""
        codes = codes[:, : int((codes >= 0).sum(1).max())]
        with computing(codes.device):
            later = code_log_probs(self.decoder, self.memory, trie, codes, rows, self.side)
        return torch.cat([self.first[rows, codes[:, 0]][:, None], later], dim=1)


def _joint(sides: list[Tensor]) -> Tensor:
    """log ½(π(c|q) + π(c|p)) from both sides' logarithms."""
    return torch.logaddexp(sides[0], sides[1]) - float(np.log(2))
