"""Joint training: both sides of interactions at once, by likelihood and by a contrastive loss, at every depth.

Letters: B queries of a batch, M products of a batch, G learnt attributes.
"""

from __future__ import annotations

import json
import logging
import math
import time
from dataclasses import dataclass, replace
from numbers import Integral, Real
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from gram.coder.base import Side
from gram.coder.encoder.coder import EncoderCoder
from gram.coder.encoder.decoder import Memory
from gram.coder.encoder.network import FirstStep
from gram.coder.encoder.tokens import Batch, hide
from gram.coder.memory import keep_freed_memory
from gram.coder.precision import computing
from gram.codes.pseudo_queries import pseudo_share
from gram.errors import SettingError
from gram.training.checkpoints import ANEW, CHECKPOINT_SECONDS, forget_after, reading_weights, write_checkpoint
from gram.training.losses import attribute_loss, code_loss, code_scores, contrastive_loss, late_scores
from gram.training.samples import Samples, TrainingBatch

log = logging.getLogger("gram.train")

WITHOUT_LOG = 100
"""Steps without a log, for what stands on a pretrained encoder: docs/log.md, "What training on a catalogue's own words
brings"; nothing between 60 and 300 was compared."""
TEACHES_FROM = 200
"""Logged queries from which a pretrained encoder is trained on: fewer make it worse than it was. docs/log.md, "A poor
log"."""


@dataclass(frozen=True)
class TrainingSettings:
    """How the coder is trained. `steps` = 0 chooses by the size of the log and the catalogue. Raises SettingError for
    what is no number from 0, a whole one where the default is."""

    steps: int = 0
    batch: int = 64
    hard_negatives: int = 32
    encoder_rate: float = 1e-4
    encoder_rate_without_log: float = 0.0  # of a pretrained one, with a poor log too; at 0 it stays as it was
    head_rate: float = 1e-3
    weight_rate: float = 1e-2
    likelihood: float = 2.0  # weight of L_q + λ·L_p beside the contrastive loss
    product_side: float = 1.0  # λ
    codes: float = 0.15  # weight of the compound codes
    vectors: float = 20.0  # scale of the vectors' product
    late: float = 20.0  # scale of the late interaction
    alone: float = 0.7  # weight of the contrastive loss by dense vectors alone, and by late interaction alone
    sparsity: float = 0.3  # of the FLOPS penalty (Paria et al. 2020)
    validate_every: int = 100
    patience: int = 3  # validations without a gain before stopping
    code_losses: bool = True  # False trains vectors alone, without anything that makes codes: a control
    averaged: float = 0.98  # how much of the running mean of the weights a step leaves as it is
    co_training: int = 0  # steps of co-training; measured, it made nothing better on top of joint training
    seed: int = 0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            kind = type(getattr(TrainingSettings, name))
            expected = {bool: bool, int: Integral, float: Real}[kind]
            right = isinstance(value, expected) and isinstance(value, bool) == (kind is bool)
            if not right or not 0 <= value < math.inf:
                fix = {bool: "True or False", int: "a whole number from 0", float: "a number from 0"}[kind]
                raise SettingError(f"the training's {name} is {value!r:.60}. Fix: give {fix}")

    def chosen_steps(self, n_queries: int, n_products: int, pretrained: bool) -> int:
        if self.steps:
            return self.steps
        if pretrained and not n_queries:
            return WITHOUT_LOG
        clicked = 4 * n_queries + n_products // 4
        return int(min(700, max(120, clicked // self.batch)))

    def loss_weights(self) -> dict[str, float]:
        """What each part of the loss counts."""
        return {
            "contrastive": 1.0,
            "contrastive_codes": 1.0,
            "contrastive_dense": self.alone,
            "contrastive_tokens": self.alone,
            "query": self.likelihood,
            "product": self.likelihood * self.product_side,
            "flops": self.sparsity,
            "query_codes": self.codes,
            "product_codes": self.codes * self.product_side,
        }

    def again(self, steps: int) -> TrainingSettings:
        """For training on from a trained state: as many steps, half the rates."""
        rates = {f"{part}_rate": getattr(self, f"{part}_rate") / 2 for part in ("encoder", "head", "weight")}
        return replace(self, steps=steps, validate_every=max(1, steps // 3), **rates)


class ProductBatch(NamedTuple):
    """What one pass says of a batch's M products, which are read in groups of like length."""

    logits: Tensor  # (M, G)
    expansion: Tensor  # (M, G)
    lexical: tuple[Tensor, Tensor, Tensor]  # row, attribute, weight of the attributes that they hold, (T,) each
    vectors: Tensor  # (M, D)
    token_vectors: Tensor  # (M, L, W)
    memories: list[tuple[Memory, dict[int, int]]]  # each group's, and {product's row in the batch: row in the group}


class JointTrainer:
    """Runs the steps; can be stopped and taken up again at any checkpoint."""

    def __init__(self, coder: EncoderCoder, samples: Samples, settings: TrainingSettings, stage: str = "joint") -> None:
        self.coder, self.samples, self.settings, self.stage = coder, samples, settings, stage
        pretrained = coder.backbone.pretrained
        self.steps = settings.chosen_steps(len(samples.queries), len(samples.products), pretrained)
        self.share = pseudo_share(len(samples.queries))
        self.words = [frozenset(forms[0]) for forms in coder.lexicon.forms]
        self.code_table = torch.from_numpy(samples.space.codes.astype(np.int64)).to(coder.device)
        stays = pretrained and len(samples.queries) < TEACHES_FROM
        encoder_rate = settings.encoder_rate_without_log if stays else settings.encoder_rate
        if stays and samples.queries:
            told = "the log has %d queries; a pretrained encoder is trained from %d on: it stays as it is"
            log.info(told, len(samples.queries), TEACHES_FROM)
        for weight in coder.network.reading():
            weight.requires_grad_(encoder_rate > 0)
        groups = _groups(coder, settings, encoder_rate)
        self.optimizer = torch.optim.AdamW(groups, weight_decay=0.01, fused=True)
        self.rates = [g["lr"] for g in self.optimizer.param_groups]
        self.done = 0
        self.best, self.stale = math.inf, 0
        self.best_state: dict[str, Tensor] | None = None
        self.mean = {k: p.detach().clone() for k, p in coder.named_parameters() if p.requires_grad}

    def run(self, record: Path, checkpoint: Path | None = None, validation: list[TrainingBatch] | None = None) -> None:
        """Trains to the end, or until validation stops getting better; appends every figure to `record`."""
        coder, settings = self.coder.train(), self.settings
        keep_freed_memory()
        forget_after(record, self.done, self.stage)
        begin = saved = time.monotonic()
        bar = tqdm(total=self.steps, initial=self.done, desc=f"{self.stage} training", unit="step")
        if validation and self.stage != "joint" and self.best_state is None:
            self._keep_best(self.validate(validation))  # what it starts from stays where it makes nothing better
        with record.open("a", encoding="utf-8") as out:
            while self.done < self.steps and self.stale < settings.patience:
                figures = self._step()
                row: dict[str, Any] = {"stage": self.stage, "step": self.done}
                row |= {"seconds": round(time.monotonic() - begin, 2), **figures}
                bar.update()
                bar.set_postfix(loss=f"{figures['contrastive']:.2f}", refresh=False)
                validated = self.done % settings.validate_every == 0 or self.done == self.steps
                if validation and validated:
                    row["validation"] = self.validate(validation)
                    self._keep_best(row["validation"])
                out.write(json.dumps({k: round(v, 5) if isinstance(v, float) else v for k, v in row.items()}) + "\n")
                out.flush()
                if checkpoint is not None and (validated or time.monotonic() - saved > CHECKPOINT_SECONDS):
                    self.save(checkpoint)
                    saved = time.monotonic()
        bar.close()
        if self.done < self.steps:
            log.info("validation has not improved for %d checks: stopped at step %d", self.stale, self.done)
        if self.best_state is None:
            self.best_state = self._averaged_state()
        coder.load_state_dict(self.best_state)
        coder.eval()

    def _step(self) -> dict[str, float]:
        """One step, on a batch that its number alone decides; its figures."""
        settings = self.settings
        rng = np.random.default_rng((settings.seed, self.done))
        torch.manual_seed(settings.seed * 1_000_003 + self.done)
        batch = self.samples.batch(settings.batch, settings.hard_negatives, self.share, rng)
        self._set_rates()
        loss, figures = self.loss(batch)
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.coder.parameters(), 2.0)
        self.optimizer.step()
        self._average()
        self.done += 1
        return figures

    def loss(self, batch: TrainingBatch) -> tuple[Tensor, dict[str, float]]:
        """The joint loss of one batch, and its parts by name."""
        coder, settings, device = self.coder, self.settings, self.coder.device
        with computing(device):
            attributes = coder.attributes()  # (G, D)
            queries = batch.queries.to(device)
            query = coder.network(queries, Side.QUERY, attributes)
            products = self._read_products(batch, attributes)
        parts = self._contrastive_losses(batch, queries, query, products)
        if settings.code_losses:
            size = len(batch.ignored)
            parts["query"] = attribute_loss(query.logits, _to(batch.query_targets, device))
            unknown = batch.product_unknown.to(device)
            parts["product"] = attribute_loss(products.logits[:size], _to(batch.product_targets, device), unknown)
            parts["flops"] = query.expansion.mean(0).square().sum() + products.expansion.mean(0).square().sum()
            with computing(device):
                memory = coder.decoder.remember(query.states, queries.mask, query.logits, attributes)
                parts["query_codes"], parts["product_codes"] = self._code_losses(batch, memory, products.memories)
        weights = settings.loss_weights()
        total = sum((weights[name] * part for name, part in parts.items()), torch.zeros((), device=device))
        figures = {name: float(part.detach()) for name, part in parts.items()}
        figures["query_expansion"] = float((query.expansion > 0).float().sum(1).mean())
        figures["product_expansion"] = float((products.expansion > 0).float().sum(1).mean())
        return total, figures

    def _contrastive_losses(
        self, batch: TrainingBatch, queries: Batch, query: FirstStep, products: ProductBatch
    ) -> dict[str, Tensor]:
        """By codes, dense vectors and token vectors each alone, and by all of them in learnt shares."""
        coder, settings, ignored = self.coder, self.settings, batch.ignored.to(self.coder.device)
        dense = settings.vectors * query.vectors @ products.vectors.T  # (B, M)
        late = settings.late * late_scores((query.token_vectors, query.token_weights), products.token_vectors)  # (B, M)
        mix = coder.mix
        joint = mix[1] * dense + mix[2] * late
        parts = {
            "contrastive_dense": contrastive_loss(dense, ignored),
            "contrastive_tokens": contrastive_loss(late, ignored),
        }
        if settings.code_losses:
            lexical = (queries.tag_row, queries.tag_attribute, query.lexical)
            codes = code_scores(lexical, query.expansion, products.lexical, products.expansion)  # (B, M)
            codes = coder.log_temperature.exp() * codes  # in float32: bfloat16 rounds scores of 20 to eighths
            parts["contrastive_codes"] = contrastive_loss(codes, ignored)
            joint = mix[0] * codes + joint
        parts["contrastive"] = contrastive_loss(joint, ignored)
        return parts

    def _read_products(self, batch: TrainingBatch, attributes: Tensor) -> ProductBatch:
        """All products, in groups of like length so that little is padding."""
        coder, device = self.coder, self.coder.device
        tokenized, rows = self.samples.tokenized, batch.products
        order = np.argsort(tokenized.lengths[rows], kind="stable")
        steps, tag_rows, tag_attributes, memories = [], [], [], []
        for group in np.array_split(order, max(1, len(order) // 24)):
            hidden = {i: batch.hidden[r] for i, r in enumerate(group.tolist()) if r in batch.hidden}
            texts = hide(tokenized.batch(rows[group]), hidden, self.words, coder.backbone.mask_id).to(device)
            step = coder.network(texts, Side.PRODUCT, attributes)
            steps.append(step)
            tag_rows.append(torch.from_numpy(group).to(device)[texts.tag_row])
            tag_attributes.append(texts.tag_attribute)
            memory = coder.decoder.remember(step.states, texts.mask, step.logits, attributes)
            memories.append((memory, {int(r): i for i, r in enumerate(group)}))
        back = torch.from_numpy(np.argsort(order, kind="stable")).to(device)
        longest = max(s.token_vectors.shape[1] for s in steps)
        return ProductBatch(
            torch.cat([s.logits for s in steps])[back],
            torch.cat([s.expansion for s in steps])[back],
            (torch.cat(tag_rows), torch.cat(tag_attributes), torch.cat([s.lexical for s in steps])),
            torch.cat([s.vectors for s in steps])[back],
            torch.cat([F.pad(s.token_vectors, (0, 0, 0, longest - s.token_vectors.shape[1])) for s in steps])[back],
            memories,
        )

    def _code_losses(
        self, batch: TrainingBatch, query_memory: Memory, memories: list[tuple[Memory, dict[int, int]]]
    ) -> tuple[Tensor, Tensor]:
        coder = self.coder
        decoder, trie, device = coder.decoder, coder.torch_trie, coder.device
        nothing = torch.zeros((), device=device)
        rows, codes = (t.to(device) for t in batch.query_codes)
        of_query = (
            code_loss(decoder, query_memory, trie, self._attributes_of(codes), rows, Side.QUERY)
            if len(rows)
            else nothing
        )
        rows, codes = batch.product_codes
        of_product, n = nothing, max(len(rows), 1)
        for memory, rows_in_group in memories:
            here = [i for i, r in enumerate(rows.tolist()) if r in rows_in_group]
            if here:
                row = torch.tensor([rows_in_group[int(rows[i])] for i in here], device=device)
                chosen = self._attributes_of(codes[here].to(device))
                of_product = of_product + code_loss(decoder, memory, trie, chosen, row, Side.PRODUCT) * len(here) / n
        return of_query, of_product

    def _attributes_of(self, codes: Tensor) -> Tensor:
        table = self.code_table[codes]  # (X, 6)
        return table[:, : int((table >= 0).sum(1).max())]

    @torch.no_grad()
    def validate(self, batches: list[TrainingBatch]) -> float:
        """Mean contrastive loss of held-out interactions, by attributes alone and with vectors and tokens, under the
        averaged weights."""
        last = {k: v.clone() for k, v in self.coder.state_dict().items()}
        self.coder.load_state_dict(self._averaged_state())
        self.coder.eval()
        total = 0.0
        for batch in batches:
            _, figures = self.loss(batch)
            total += figures.get("contrastive_codes", 0.0) + figures["contrastive"]
        self.coder.load_state_dict(last)
        self.coder.train()
        return total / len(batches)

    @torch.no_grad()
    def _average(self) -> None:
        """Moves the running mean of the weights a step on: it generalises better than any one state (Izmailov et al.
        2018)."""
        kept = min(self.settings.averaged, self.done / (self.done + 10))
        named = dict(self.coder.named_parameters())
        torch._foreach_lerp_(list(self.mean.values()), [named[k].detach() for k in self.mean], 1 - kept)

    def _averaged_state(self) -> dict[str, Tensor]:
        return {k: v.detach().clone() for k, v in (self.coder.state_dict() | self.mean).items()}

    def _keep_best(self, validation: float) -> None:
        if validation < self.best - 1e-4:
            self.best, self.stale = validation, 0
            self.best_state = self._averaged_state()
        else:
            self.stale += 1

    def _set_rates(self) -> None:
        warm = min(1.0, (self.done + 1) / (0.1 * self.steps))
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * warm * max(0.02, 1 - self.done / self.steps)

    def save(self, path: Path) -> None:
        """A checkpoint: everything that `restore` needs to go on as if nothing had happened."""
        state = {
            "coder": self.coder.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "best_state": self.best_state,
            "mean": self.mean,
            "numbers": {"done": self.done, "best": self.best, "stale": self.stale},
        }
        write_checkpoint(path, state)

    def restore(self, path: Path) -> None:
        """Goes on from a checkpoint. Raises ModelError for one that is damaged."""
        with reading_weights(path, ANEW):
            state = torch.load(path, map_location=self.coder.device, weights_only=True)
            self.coder.load_state_dict(state["coder"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.best_state = state["best_state"]
            self.mean = state["mean"]
            self.done, self.best, self.stale = (state["numbers"][k] for k in ("done", "best", "stale"))


def _groups(coder: EncoderCoder, settings: TrainingSettings, encoder_rate: float) -> list[dict[str, Any]]:
    """Three rates: the encoder's, the heads', and that of weights which are single numbers an attribute."""
    network = coder.network
    single = [
        network.logit_bias, network.logit_scale, network.floor, network.lexical_base, network.expansion_base,
        network.field, network.length_slope, coder.log_temperature, coder.mix,
    ]  # fmt: skip
    slow = list(network.encoder.parameters())
    known = {id(p) for p in single + slow}
    heads = [p for p in coder.parameters() if id(p) not in known]
    return [
        {"params": slow, "lr": encoder_rate},
        {"params": heads, "lr": settings.head_rate},
        {"params": single, "lr": settings.weight_rate},
    ]


def _to(parts: tuple[Tensor, Tensor, Tensor], device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    row, attribute, weight = parts
    return row.to(device), attribute.to(device), weight.to(device)
