"""Co-alignment of a language model (Eq. 6): codes that both sides write are preferred to codes that one side does.

Each round writes codes anew, and draws from them which to prefer, by retrieval efficiency. What the model thought of
them before the round is computed once, so no second model is held.

Letters: X preferences, t tokens of the longest code.
"""

from __future__ import annotations

import logging
import math
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from gram.arrays import SparseRows
from gram.coder.base import Side
from gram.coder.causal.coder import CausalCoder
from gram.coder.causal.text import write_code, write_prompt
from gram.coder.precision import computing
from gram.errors import ModelError
from gram.training.causal.likelihood import SMALLER
from gram.training.causal.samples import CodeSamples
from gram.training.causal.settings import CausalSettings
from gram.training.preferences import CompoundCodes, Preference, draw_preferences

log = logging.getLogger("gram.train")

SIDES = (Side.QUERY, Side.PRODUCT)
SCALE = 10.0
"""Of margins, which are by token: Eq. 6's are of whole codes, and some ten tokens make one. Not tuned."""


class _Pairs(NamedTuple):
    """One step's preferences as tokens: both sides' prompts, the two codes, what both begin with, and how much each
    pair counts; and the reference's log-probabilities (2, X, 2) of sides, pairs and of chosen and rejected."""

    prompts: tuple[list[list[int]], list[list[int]]]
    codes: tuple[list[list[int]], list[list[int]]]
    same: Tensor  # (X,) tokens that both codes begin with
    weight: Tensor  # (X,)
    reference: Tensor


class CausalCoAlignment:
    """Aligns a language model on a log's interactions."""

    def __init__(self, coder: CausalCoder, samples: CodeSamples, settings: CausalSettings, seed: int) -> None:
        self.coder, self.samples, self.settings, self.seed = coder, samples, settings, seed

    def run(self, steps: int) -> list[dict[str, float]]:
        """Trains in rounds; a row of figures a step."""
        rows: list[dict[str, float]] = []
        model, settings = self.coder.model, self.settings
        for turn in range(settings.rounds):
            drawn = self._draw(-(-steps // settings.rounds), turn)
            if not drawn:
                log.info("co-alignment: no interaction has a code that both sides write and one that one side does")
                break
            trained = [weight for weight in model.parameters() if weight.requires_grad]
            optimizer = torch.optim.AdamW(trained, weight_decay=0.0)
            for step, pairs in enumerate(tqdm(drawn, desc=f"aligning codes, round {turn + 1}", unit="step")):
                for group in optimizer.param_groups:
                    warm = min(1.0, (step + 1) / 10)
                    group["lr"] = settings.chosen_rate() / 5 * warm * max(0.05, 1 - step / len(drawn))
                model.train(settings.model.checkpointing)  # which needs it; the reference was without dropout
                loss, figures = self.loss(pairs)
                if not math.isfinite(float(loss.detach())):
                    raise ModelError(f"the loss is no number at step {len(rows) + 1} of co-alignment. {SMALLER}")
                optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(trained, 1.0)
                optimizer.step()
                rows.append({"step": len(rows) + 1, **figures})
        model.eval()
        return rows

    def loss(self, pairs: _Pairs) -> tuple[Tensor, dict[str, float]]:
        """Eq. 6 with the chosen codes' likelihood beside it, and its parts.

        A pair's margin on one side, of a chosen code w of t_w tokens and a rejected one l of t_l, the end among them,
        whose first s both begin with, r being log π − log π of the reference for one token:

            β_w / t_w · Σ over all tokens of w of r  −  β_l / t_l · Σ over the tokens of l from s on of r

        Each token counts by the length of its whole code, and the shared ones of l count nothing. So each token that
        differs is pushed down as hard as in a code that differs throughout, and a near miss in all by as much less as
        it has less of its own. Divided by the t_l − s tokens that are left, the one token in which "colour: navy" is
        not "colour: blue" would be pushed down as hard as a whole wrong code.
        """
        settings = self.settings
        parts = self._log_probs(pairs)  # (2, X, 2) of sides, pairs, chosen and rejected
        length = torch.tensor([[len(code) + 1 for code in codes] for codes in pairs.codes], device=parts.device).T
        ratio = (parts - pairs.reference) / length  # so that a code does not win by its length alone
        margin = settings.beta_chosen * ratio[..., 0] - settings.beta_rejected * ratio[..., 1]  # (2, X)
        preferred = (pairs.weight * -F.logsigmoid(SCALE * margin)).mean()
        chosen = (parts[..., 0] / length[:, 0]).mean()
        figures = {
            "preference": float(preferred.detach()),
            "preferred": float((margin > 0).float().mean()),
            "chosen": float(parts[..., 0].mean().detach()),
            "rejected": float(parts[..., 1].mean().detach()),
        }
        return preferred - settings.likelihood * chosen, figures

    def _log_probs(self, pairs: _Pairs) -> Tensor:
        """log π of both codes under both sides, (2, X, 2); of the rejected one without what the chosen one begins with
        too, which is not to be punished."""
        model, sides = self.coder.model, []
        for prompts in pairs.prompts:
            with computing(model.device, model.dtype):
                chosen = model.log_probs(prompts, pairs.codes[0]).sum(1)
                rejected = model.log_probs(prompts, pairs.codes[1])  # (X, t + 1)
            after = torch.arange(rejected.shape[1], device=rejected.device) >= pairs.same[:, None]
            sides.append(torch.stack([chosen, (rejected * after).sum(1)], dim=1))
        return torch.stack(sides)

    def _draw(self, steps: int, turn: int) -> list[_Pairs]:
        """The preferences of as many steps, from codes written now."""
        samples, settings = self.samples, self.settings
        rng = np.random.default_rng((self.seed, turn))
        queries = np.sort(rng.permutation(len(samples.queries))[: settings.texts]).tolist()
        products = sorted({int(p) for q in queries for p in samples.clicked[q]})
        number = {p: i for i, p in enumerate(products)}
        texts = ([samples.queries[q] for q in queries], [samples.products[p] for p in products])
        of_queries, of_products = (self._codes_of(part, side) for part, side in zip(texts, SIDES, strict=True))
        clicked = [np.array([number[int(p)] for p in samples.clicked[q]], dtype=np.int64) for q in queries]
        every = np.array([(i, int(p)) for i, row in enumerate(clicked) for p in row], dtype=np.int64).reshape(-1, 2)
        drawn: list[_Pairs] = []
        for _ in range(steps if len(every) else 0):
            picked = every[rng.choice(len(every), min(settings.batch, len(every)), replace=False)]
            pairs = draw_preferences(picked, of_queries, of_products, clicked, 1, rng)
            if pairs:
                prompts = ([texts[0][q] for q in picked[:, 0]], [texts[1][p] for p in picked[:, 1]])
                drawn.append(self._tokens(pairs, prompts))
        return drawn

    def _codes_of(self, texts: list[str] | list, side: Side) -> CompoundCodes:  # type: ignore[type-arg]
        found = self.coder.write(texts, side, progress="writing codes")
        lengths = [len(row.code) for row in found]
        key = np.concatenate([row.code for row in found]).astype(np.int64)
        log_prob = np.concatenate([row.log_prob for row in found])
        rows = SparseRows.build(np.repeat(np.arange(len(texts)), lengths), key, log_prob, len(texts))
        return CompoundCodes.of(rows, len(self.coder.trie))

    @torch.no_grad()
    def _tokens(self, pairs: list[Preference], texts: tuple[list, list]) -> _Pairs:  # type: ignore[type-arg]
        model = self.coder.model
        model.eval()
        prompts = tuple(
            model.read_prompts([write_prompt(part[pair.interaction], side) for pair in pairs])
            for part, side in zip(texts, SIDES, strict=True)
        )
        chosen = model.read_codes([write_code(self.coder.code_of(pair.chosen)) for pair in pairs])
        rejected = model.read_codes([write_code(self.coder.code_of(pair.rejected)) for pair in pairs])
        same = [_shared(a, b) for a, b in zip(chosen, rejected, strict=True)]
        weight = torch.tensor([pair.weight for pair in pairs], device=model.device)
        weight = weight / weight.mean().clamp(min=1e-6)
        nothing = torch.zeros(2, len(pairs), 2, device=model.device)
        made = _Pairs(prompts, (chosen, rejected), torch.tensor(same, device=model.device), weight, nothing)  # type: ignore[arg-type]
        return made._replace(reference=self._log_probs(made))


def _shared(a: list[int], b: list[int]) -> int:
    """Tokens that two codes begin with both."""
    n = 0
    for x, y in zip(a, b, strict=False):
        if x != y:
            break
        n += 1
    return n
