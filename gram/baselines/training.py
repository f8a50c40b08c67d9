"""What every trained rival learns from and how: one amount, one way to draw, one loop, one choice on dev.

The amount is GRAM's: `PASSES` over the log's pairs in at most as many steps of 64, a fifth of each pseudo-queries, half
as many hard negatives, mined in the whole catalogue. Of three learning rates each goes through the first sixth of the
steps, and the one that is best on dev then goes on to the end, from where it stood: that costs a third as much again as
one run. Its best checkpoint on dev is kept, the untrained weights among them.

Letters: B queries of a batch, C products of a batch, P products of the dev sample.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from gram.baselines.base import Found, TrainingData, run_of
from gram.baselines.bm25 import MEASURES
from gram.baselines.encoder import computing
from gram.evaluation.measures import Run, evaluate, relevant
from gram.records import Interaction, Product
from gram.text.fields import joined_text

BATCH = 64
PSEUDO_SHARE = 0.2
PASSES = 1.3
LEAST_STEPS, MOST_STEPS = 300, 700
"""A small log is passed more often; 700 steps are GRAM's own limit."""
RATES = (0.4, 1.0, 2.5)
"""Times a rival's usual rate."""
POOL = 20_000
"""Pseudo-queries that stand in for the pairs of an empty log."""
RETRIEVED = (15, 200)
"""Ranks of hard negatives: above stand too many products that are relevant but were not clicked."""

_DEV_PRODUCTS = 3000

Pair: TypeAlias = tuple[str, int]
"""A query, or a text that stands for one, and the position of its product."""
Negatives: TypeAlias = Mapping[str, Sequence[int]]
"""Query → positions of its hard negatives."""


class Batch(NamedTuple):
    """`columns` (C,) are the positions of the B clicked products, then of a hard negative for some of the queries.
    `ignored` (B, C) tells which of them say nothing against a query: clicked too, or of such a one's title."""

    queries: list[str]
    columns: list[int]
    ignored: Tensor


class Pairs:
    """Training pairs of a catalogue that is in the order of its ids: of the log, or pseudo-queries without one."""

    def __init__(self, products: Sequence[Product], log: Sequence[Interaction], seed: int) -> None:
        self.position = {product.product_id: i for i, product in enumerate(products)}
        self._words = [joined_text(p, ("title", "brand", "category")).split() for p in products]
        titles: dict[str, int] = {}
        self._title = [titles.setdefault(product.title.lower(), len(titles)) for product in products]
        known = [i for i in log if i.product_id in self.position]
        self.from_log = bool(known)
        self.rows: list[Pair] = [(i.query, self.position[i.product_id]) for i in known]
        weights = [i.weight for i in known]
        if not self.rows:
            rng = np.random.default_rng(seed)
            drawn = rng.permutation(len(products))[:POOL].tolist()
            self.rows = [(text, i) for i in drawn if (text := pseudo_query(self._words[i], rng))]
            weights = [1.0] * len(self.rows)
        self._until = np.cumsum(weights)
        self.clicked: dict[str, set[int]] = {}
        """Query → the titles, by number, of its products."""
        for query, position in self.rows:
            self.clicked.setdefault(query, set()).add(self._title[position])

    def draw(
        self, count: int, rng: np.random.Generator, texts: Sequence[str] = (), text_share: float = 0.0
    ) -> list[Pair]:
        """So many pairs: a fifth of pseudo-queries, `text_share` of products' own `texts`, the rest by weight."""
        from_text, from_words = round(count * text_share), round(count * PSEUDO_SHARE)
        points = rng.random(count - from_text - from_words) * self._until[-1]
        rows = np.searchsorted(self._until, points, side="right").clip(max=len(self.rows) - 1)
        drawn = [self.rows[row] for row in rows.tolist()]
        for n, position in enumerate(rng.integers(len(self._words), size=from_text + from_words).tolist()):
            text = texts[position] if n < from_text else pseudo_query(self._words[position], rng)
            drawn.append((text, position))
        return drawn

    def batch(self, count: int, rng: np.random.Generator, negatives: Negatives, hard: float = 0.5) -> Batch:
        """So many pairs, a share of them with a hard negative: a product by chance where the query has none."""
        pairs = self.draw(count, rng)
        clicked = [self.clicked.get(query, set()) | {self._title[position]} for query, position in pairs]
        columns = [position for _, position in pairs]
        for query, _ in pairs[: round(count * hard)]:
            mined = negatives.get(query, ())
            at = int(rng.integers(len(mined) or len(self._words)))
            columns.append(mined[at] if mined else at)
        titles = [self._title[position] for position in columns]
        ignored = torch.tensor([[title in row for title in titles] for row in clicked])  # (B, C)
        ignored[torch.arange(count), torch.arange(count)] = False
        return Batch([query for query, _ in pairs], columns, ignored)

    def mine(
        self, find: Callable[[list[str], int], Iterable[Found]], ranks: tuple[int, int] = RETRIEVED
    ) -> dict[str, list[int]]:
        """Hard negatives: what is found at these ranks (from 1, both included), or wherever where less is found.

        Left out are products that were clicked, and those of the same title as one of these.
        """
        queries = list(self.clicked)
        found = tqdm(find(queries, ranks[1]), desc="mining", total=len(queries), unit=" queries")
        negatives = {}
        for query, (positions, _) in zip(queries, found, strict=True):
            ranked = positions[ranks[0] - 1 :] if len(positions) >= ranks[0] else positions
            negatives[query] = [i for i in ranked.tolist() if self._title[i] not in self.clicked[query]]
        return negatives


def pseudo_query(words: Sequence[str], rng: np.random.Generator) -> str:
    """One to five of a product's words in their order: the stand-in for a query where the log has none."""
    if not words:
        return ""
    count = min(len(words), int(rng.choice(5, p=(0.15, 0.3, 0.3, 0.15, 0.1))) + 1)
    return " ".join(words[i] for i in sorted(rng.choice(len(words), count, replace=False)))


def contrastive(scores: Tensor, ignored: Tensor) -> Tensor:
    """Cross-entropy of the clicked product among a batch's (InfoNCE), from scores (B, C)."""
    open_scores = scores.float().masked_fill(ignored.to(scores.device), -math.inf)
    return F.cross_entropy(open_scores, torch.arange(len(scores), device=scores.device))


class DevSample:
    """Some dev queries that have an answer, and a part of the catalogue that may stand for all of it: every product
    judged for these queries, and others by chance. Empty without a dev part."""

    def __init__(self, data: TrainingData, products: Sequence[Product], seed: int, most: int = 300) -> None:
        rng = np.random.default_rng(seed)
        answered = sorted(relevant(data.dev_qrels).keys() & data.dev_queries.keys())
        chosen = sorted(rng.permutation(answered)[:most].tolist())
        self.queries = {query_id: data.dev_queries[query_id] for query_id in chosen}
        self.qrels = {query_id: data.dev_qrels[query_id] for query_id in chosen}
        judged = {product_id for grades in self.qrels.values() for product_id in grades}
        first = [i for i, product in enumerate(products) if product.product_id in judged]
        others = rng.permutation(len(products))[: max(0, _DEV_PRODUCTS - len(first))].tolist()
        self.positions = sorted({*first, *others})  # (P,)
        self._ids = [products[i].product_id for i in self.positions]

    def __bool__(self) -> bool:
        return bool(self.queries)

    def score(self, run: Run) -> float:
        """What settings are chosen by: the mean of nDCG@10 and R@100."""
        return sum(evaluate(self.qrels, run, MEASURES).mean.values()) / len(MEASURES)

    def score_found(self, found: Iterable[Found]) -> float:
        """The same of what was found for each query among `positions`, by its number there."""
        return self.score(run_of(self.queries, found, self._ids))


@dataclass(frozen=True)
class Plan:
    """How far to train. Each rate is tried for `trial` steps (0: a sixth of all); then dev is asked `every` so many (0:
    three times).

    With `patience`, training ends when dev has not risen that many times in a row; else at `steps`.
    """

    steps: int
    batch: int = BATCH
    every: int = 0
    trial: int = 0
    patience: int = 0
    seed: int = 0
    bf16: bool = False
    rates: tuple[float, ...] = RATES

    def stops(self) -> list[int]:
        """The steps at which dev is asked, the last one and that of the choice among rates included."""
        first = min(self.trial or math.ceil(self.steps / 6), self.steps)
        every = self.every or max(1, math.ceil((self.steps - first) / 3))
        return sorted({first, *range(first + every, self.steps, every), self.steps})


def plan_for(pairs: Pairs, quick: bool, seed: int, bf16: bool) -> Plan:
    """GRAM's amount; `quick` a few steps, for trials."""
    if quick:
        return Plan(12, batch=8, seed=seed, bf16=bf16)
    steps = math.ceil(PASSES * len(pairs.rows) / (BATCH * (1 - PSEUDO_SHARE)))
    return Plan(min(MOST_STEPS, max(LEAST_STEPS, steps)), seed=seed, bf16=bf16)


class Outcome(NamedTuple):
    """The checkpoint that was kept: its step (0 for untrained), its rate as times the usual one, its dev score; the dev
    score of the untrained weights and of every rate after its trial."""

    step: int
    rate: float
    score: float
    untrained: float
    by_rate: dict[str, float]

    def settings(self, plan: Plan) -> dict[str, object]:
        """For `meta.json`."""
        names = ("best_step", "rate", "dev", "dev_untrained", "dev_by_rate")
        return {"steps": plan.steps, "batch": plan.batch, "seed": plan.seed, **dict(zip(names, self, strict=True))}


Loss: TypeAlias = Callable[[np.random.Generator, float], Tensor]
"""Of a batch that is drawn by the generator; the number is the share of the steps that are done."""


class _Run:
    """A network's training at one rate, which can be set aside and taken up again."""

    def __init__(self, network: nn.Module, groups: Sequence[Mapping[str, Any]], rate: float, plan: Plan) -> None:
        self.network, self.plan, self.rate, self.step = network, plan, rate, 0
        self.optimizer = torch.optim.AdamW([dict(group) for group in groups], weight_decay=0.01)
        self._rates = [group["lr"] * rate for group in groups]

    def advance(self, stop: int, loss: Loss, bar: Any) -> bool:
        """Trains up to the step `stop`; False if the rate was so high that no number is left."""
        plan, device = self.plan, next(self.network.parameters()).device
        warm = max(1, plan.steps // 10)
        for step in range(self.step + 1, stop + 1):
            share = min(step / warm, (plan.steps - step + 1) / max(1, plan.steps - warm))
            for group, rate in zip(self.optimizer.param_groups, self._rates, strict=True):
                group["lr"] = rate * share
            self.network.train()
            torch.manual_seed(plan.seed * 1_000_003 + step)  # of a step all is the same at any rate
            with computing(plan.bf16, device):
                value = loss(np.random.default_rng((plan.seed, step)), step / plan.steps)
            if not torch.isfinite(value):
                return False
            self.optimizer.zero_grad(set_to_none=True)
            value.backward()
            nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
            self.optimizer.step()
            self.step = step
            bar.update()
        self.network.eval()
        return True

    def state(self) -> dict[str, Any]:
        return {"network": weights_of(self.network), "optimizer": copy.deepcopy(self.optimizer.state_dict())}

    def take_up(self, state: Mapping[str, Any]) -> None:
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])


def fit(
    network: nn.Module,
    groups: Sequence[Mapping[str, Any]],
    loss: Loss,
    plan: Plan,
    score: Callable[[], float] | None = None,
    at_half: Callable[[], None] | None = None,
) -> Outcome:
    """Trains `network` and leaves it, in eval mode, at its best checkpoint by `score`; the later of equals.

    `groups` are AdamW's, each with its usual rate `lr`; warm-up over a tenth of the steps, then linear decay. Without a
    `score` nothing is chosen: the usual rate and the last step. `at_half` is called once, half-way.
    """
    network.eval()
    kept = weights_of(network)
    untrained = score() if score else 0.0
    best = Outcome(0, 0.0, untrained, untrained, {})
    first, *stops = plan.stops()
    rates = plan.rates if score else (1.0,)
    with (
        torch.random.fork_rng(),
        tqdm(total=(len(rates) - 1) * first + plan.steps, desc="training", unit=" steps") as bar,
    ):
        run, by_rate = _try_rates([_Run(network, groups, rate, plan) for rate in rates], first, loss, score, bar)
        half, waited = plan.steps // 2, 0
        for stop in [first, *stops]:
            if at_half and run and run.step <= half < stop:
                run.advance(half, loss, bar)
                at_half()
            if not run or not run.advance(stop, loss, bar):
                break
            value = score() if score and stop > first else by_rate[f"{run.rate:g}"]
            waited = 0 if value > best.score else waited + 1
            if value >= best.score or not score:
                best, kept = best._replace(step=stop, rate=run.rate, score=value), weights_of(network)
            if plan.patience and waited >= plan.patience:
                break
    network.load_state_dict(kept)
    network.eval()
    return best._replace(by_rate=by_rate)


def _try_rates(
    runs: Sequence[_Run], stop: int, loss: Loss, score: Callable[[], float] | None, bar: Any
) -> tuple[_Run | None, dict[str, float]]:
    """The run that is best on dev after the first `stop` steps, taken up there, and the dev score of each by its rate;
    no run, and no score of one, where no number is left."""
    network = runs[0].network
    start = weights_of(network)
    leading: tuple[float, _Run, dict[str, Any]] | None = None
    by_rate: dict[str, float] = {}
    for run in runs:
        network.load_state_dict(start)
        if run.advance(stop, loss, bar):
            value = score() if score else 0.0
            by_rate[f"{run.rate:g}"] = value
            if leading is None or value > leading[0]:
                leading = value, run, run.state()
    if leading is None:
        return None, by_rate
    _, run, state = leading
    run.take_up(state)
    return run, by_rate


def weights_of(network: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}


def features_of(model: Any, texts: Sequence[Any]) -> dict[str, Any]:
    """What a model of sentence-transformers reads of a batch of texts, or of pairs of them, on its device."""
    prepared = model.preprocess(list(texts))
    return {name: value.to(model.device) if isinstance(value, Tensor) else value for name, value in prepared.items()}


def encode_batch(model: Any, texts: Sequence[str]) -> Tensor:
    """A model's vector of each text of a batch, (B, …); the shorter and the longer half apart, which spares padding."""
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    halves = [half for half in (order[: len(order) // 2], order[len(order) // 2 :]) if half]
    found = [model(features_of(model, [texts[i] for i in half]))["sentence_embedding"] for half in halves]
    back = torch.tensor(order, device=model.device).argsort()
    return torch.cat(found)[back]
