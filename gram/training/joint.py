"""Joint training: both sides of interactions at once, by likelihood and by meeting, at every depth.

Letters: B queries of a batch, M products of a batch, G generated attributes.
"""

from __future__ import annotations

import json
import logging
import math
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from gram.coder.encoder.decoder import Memory
from gram.coder.encoder.generator import Generator
from gram.coder.encoder.network import PRODUCT, QUERY, FirstStep
from gram.coder.precision import computing
from gram.codes.pseudo_queries import pseudo_share
from gram.folders import new_file
from gram.training.losses import attribute_loss, code_loss, late_scores, meeting_loss, meeting_scores
from gram.training.samples import Samples, TrainingBatch

log = logging.getLogger("gram.train")


@dataclass(frozen=True)
class TrainingSettings:
    """How the generator is trained. `steps` = 0 chooses by the size of the log and the catalogue."""

    steps: int = 0
    batch: int = 64
    hard_negatives: int = 32
    encoder_rate: float = 1e-4
    head_rate: float = 1e-3
    weight_rate: float = 1e-2
    likelihood: float = 2.0  # weight of L_q + λ·L_p beside meeting
    product_side: float = 1.0  # λ
    codes: float = 0.15  # weight of the codes of two and more attributes
    vectors: float = 20.0  # scale of the vectors' product
    late: float = 20.0  # scale of the late interaction
    alone: float = 0.7  # weight of meeting by vectors alone, and by late interaction alone
    sparsity: float = 0.3  # of the FLOPS penalty (Paria et al. 2020)
    validate_every: int = 100
    patience: int = 3  # validations without a gain before stopping
    averaged: float = 0.98  # how much of the running mean of the weights a step leaves as it is
    co_training: int = 0  # steps of co-training; measured, it made nothing better on top of joint training
    seed: int = 0

    def chosen_steps(self, n_queries: int, n_products: int) -> int:
        if self.steps:
            return self.steps
        wanted = 4 * n_queries + n_products // 4
        return int(min(700, max(120, wanted // self.batch)))

    def again(self, steps: int) -> TrainingSettings:
        """For training on from a trained state: as many steps, half the rates."""
        rates = {f"{part}_rate": getattr(self, f"{part}_rate") / 2 for part in ("encoder", "head", "weight")}
        return replace(self, steps=steps, validate_every=max(1, steps // 3), **rates)


class Losses(dict[str, float]):
    """Figures of one step, by name."""


class Trainer:
    """Runs the steps; can be stopped and taken up again at any checkpoint."""

    def __init__(
        self, generator: Generator, samples: Samples, settings: TrainingSettings, stage: str = "joint"
    ) -> None:
        self.generator, self.samples, self.settings, self.stage = generator, samples, settings, stage
        self.steps = settings.chosen_steps(len(samples.queries), len(samples.products))
        self.share = pseudo_share(len(samples.queries))
        self.code_table = torch.from_numpy(samples.space.codes.astype(np.int64)).to(generator.device)
        groups = _groups(generator, settings)
        self.optimizer = torch.optim.AdamW(groups, weight_decay=0.01, fused=True)
        self.rates = [g["lr"] for g in self.optimizer.param_groups]
        self.done = 0
        self.best, self.stale = math.inf, 0
        self.best_state: dict[str, Tensor] | None = None
        self.mean = {k: p.detach().clone() for k, p in generator.named_parameters() if p.requires_grad}

    def run(self, record: Path, checkpoint: Path | None = None, validation: list[TrainingBatch] | None = None) -> None:
        """Trains to the end, or until validation stops getting better; appends every figure to `record`."""
        generator, settings = self.generator.train(), self.settings
        forget_after(record, self.done, self.stage)
        begin, bar = (
            time.monotonic(),
            tqdm(total=self.steps, initial=self.done, desc=f"{self.stage} training", unit="step"),
        )
        if validation and self.stage != "joint" and self.best_state is None:
            self._keep_best(self.validate(validation))  # what it starts from stays where it makes nothing better
        with record.open("a", encoding="utf-8") as out:
            while self.done < self.steps and self.stale < settings.patience:
                random = np.random.default_rng((settings.seed, self.done))
                torch.manual_seed(settings.seed * 1_000_003 + self.done)
                batch = self.samples.batch(settings.batch, settings.hard_negatives, self.share, random)
                self._set_rates()
                loss, figures = self.loss(batch)
                self.optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(generator.parameters(), 2.0)
                self.optimizer.step()
                self._average()
                self.done += 1
                row: dict[str, Any] = {
                    "stage": self.stage,
                    "step": self.done,
                    "seconds": round(time.monotonic() - begin, 2),
                    **figures,
                }
                bar.update()
                bar.set_postfix(meet=f"{figures['meet']:.2f}", refresh=False)
                if validation and (self.done % settings.validate_every == 0 or self.done == self.steps):
                    row["validation"] = self.validate(validation)
                    self._keep_best(row["validation"])
                    if checkpoint is not None:
                        self.save(checkpoint)
                out.write(json.dumps({k: round(v, 5) if isinstance(v, float) else v for k, v in row.items()}) + "\n")
                out.flush()
        bar.close()
        if self.done < self.steps:
            log.info("validation has not improved for %d checks: stopped at step %d", self.stale, self.done)
        if self.best_state is None:
            self.best_state = self._averaged_state()
        generator.load_state_dict(self.best_state)
        generator.eval()

    def loss(self, batch: TrainingBatch) -> tuple[Tensor, Losses]:
        """The joint loss of one batch, and its parts."""
        generator, settings = self.generator, self.settings
        device = generator.device
        with computing(device):
            attributes = generator.attributes()  # (G, D)
            queries = batch.queries.to(device)
            query = generator.network(queries, QUERY, attributes)
            product, product_tags, memories = self._products(batch, attributes)
        query_tags = (queries.tag_row, queries.tag_attribute, query.copied)
        scores = meeting_scores(query_tags, query.generated, product_tags, product.generated)  # (B, M)
        scores = generator.log_temperature.exp() * scores  # in float32: bfloat16 rounds scores of 20 to eighths
        near = settings.vectors * query.vectors @ product.vectors.T  # (B, M)
        late = settings.late * late_scores((query.pieces, query.piece_weights), product.pieces)  # (B, M)
        mix = generator.mix
        hidden, size = batch.hidden.to(device), len(batch.hidden)
        parts = {
            "meet": meeting_loss(scores, hidden),
            "meet_all": meeting_loss(mix[0] * scores + mix[1] * near + mix[2] * late, hidden),
            "vectors": meeting_loss(near, hidden),
            "late": meeting_loss(late, hidden),
            "query": attribute_loss(query.logits, _to(batch.query_targets, device)),
            "product": attribute_loss(
                product.logits[:size], _to(batch.product_targets, device), batch.product_unknown.to(device)
            ),
            "flops": query.generated.mean(0).square().sum() + product.generated.mean(0).square().sum(),
        }
        with computing(device):
            query_memory = generator.decoder.remember(query.states, queries.mask, query.logits, attributes)
            codes = self._code_losses(batch, query_memory, memories)
        total = parts["meet"] + parts["meet_all"] + settings.alone * (parts["vectors"] + parts["late"])
        total = total + settings.likelihood * (parts["query"] + settings.product_side * parts["product"])
        total = (
            total + settings.sparsity * parts["flops"] + settings.codes * (codes[0] + settings.product_side * codes[1])
        )
        figures = Losses({k: float(v.detach()) for k, v in parts.items()})
        figures |= {"query_codes": float(codes[0].detach()), "product_codes": float(codes[1].detach())}
        figures["query_written"] = float((query.generated > 0).float().sum(1).mean())
        figures["product_written"] = float((product.generated > 0).float().sum(1).mean())
        return total, figures

    def _products(
        self, batch: TrainingBatch, attributes: Tensor
    ) -> tuple[FirstStep, tuple[Tensor, Tensor, Tensor], list[tuple[Memory, dict[int, int]]]]:
        """The first step of all products, read in groups of like length so that little is padding.

        Also their held attributes (row, attribute, weight), and each group's decoder memory with {product's row: its
        place}.
        """
        generator, device = self.generator, self.generator.device
        encoded, rows = self.samples.encoded, batch.products
        order = np.argsort(encoded.lengths[rows], kind="stable")
        steps, tag_rows, tag_attributes, memories = [], [], [], []
        for group in np.array_split(order, max(1, len(order) // 24)):
            texts = encoded.batch(rows[group]).to(device)
            step = generator.network(texts, PRODUCT, attributes)
            steps.append(step)
            tag_rows.append(torch.from_numpy(group).to(device)[texts.tag_row])
            tag_attributes.append(texts.tag_attribute)
            memory = generator.decoder.remember(step.states, texts.mask, step.logits, attributes)
            memories.append((memory, {int(r): i for i, r in enumerate(group)}))
        back = torch.from_numpy(np.argsort(order, kind="stable")).to(device)
        copied = torch.cat([s.copied for s in steps])
        longest = max(s.pieces.shape[1] for s in steps)
        joined = FirstStep(
            torch.cat([s.logits for s in steps])[back],
            torch.cat([s.generated for s in steps])[back],
            copied,
            torch.cat([s.vectors for s in steps])[back],
            steps[0].states,
            torch.cat([F.pad(s.pieces, (0, 0, 0, longest - s.pieces.shape[1])) for s in steps])[back],
            steps[0].piece_weights,  # nobody reads a product's
        )
        return joined, (torch.cat(tag_rows), torch.cat(tag_attributes), copied), memories

    def _code_losses(
        self, batch: TrainingBatch, query_memory: Memory, memories: list[tuple[Memory, dict[int, int]]]
    ) -> tuple[Tensor, Tensor]:
        generator = self.generator
        decoder, trie, device = generator.decoder, generator.torch_trie, generator.device
        nothing = torch.zeros((), device=device)
        rows, codes = (t.to(device) for t in batch.query_codes)
        of_query = (
            code_loss(decoder, query_memory, trie, self._attributes_of(codes), rows, QUERY) if len(rows) else nothing
        )
        rows, codes = batch.product_codes
        of_product, n = nothing, max(len(rows), 1)
        for memory, places in memories:
            here = [i for i, r in enumerate(rows.tolist()) if r in places]
            if here:
                place = torch.tensor([places[int(rows[i])] for i in here], device=device)
                chosen = self._attributes_of(codes[here].to(device))
                of_product = of_product + code_loss(decoder, memory, trie, chosen, place, PRODUCT) * len(here) / n
        return of_query, of_product

    def _attributes_of(self, codes: Tensor) -> Tensor:
        table = self.code_table[codes]  # (X, 6)
        return table[:, : int((table >= 0).sum(1).max())]

    @torch.no_grad()
    def validate(self, batches: list[TrainingBatch]) -> float:
        """Mean meeting loss of held-out interactions, by attributes alone and with vectors and pieces, under the
        averaged weights."""
        last = {k: v.clone() for k, v in self.generator.state_dict().items()}
        self.generator.load_state_dict(self._averaged_state())
        self.generator.eval()
        total = 0.0
        for batch in batches:
            _, figures = self.loss(batch)
            total += figures["meet"] + figures["meet_all"]
        self.generator.load_state_dict(last)
        self.generator.train()
        return total / len(batches)

    @torch.no_grad()
    def _average(self) -> None:
        """Moves the running mean of the weights a step on: it generalises better than any one state (Izmailov et al.
        2018)."""
        kept = min(self.settings.averaged, self.done / (self.done + 10))
        named = dict(self.generator.named_parameters())
        torch._foreach_lerp_(list(self.mean.values()), [named[k].detach() for k in self.mean], 1 - kept)

    def _averaged_state(self) -> dict[str, Tensor]:
        return {k: v.detach().clone() for k, v in (self.generator.state_dict() | self.mean).items()}

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
            "generator": self.generator.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "best_state": self.best_state,
            "mean": self.mean,
            "numbers": {"done": self.done, "best": self.best, "stale": self.stale},
        }
        with new_file(path) as part:
            torch.save(state, part)

    def restore(self, path: Path) -> None:
        state = torch.load(path, map_location=self.generator.device, weights_only=True)
        self.generator.load_state_dict(state["generator"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.best_state = state["best_state"]
        self.mean = state["mean"]
        self.done, self.best, self.stale = (state["numbers"][k] for k in ("done", "best", "stale"))


def forget_after(record: Path, step: int, stage: str) -> None:
    """Takes steps out of the record that were done after the checkpoint, and will be done again."""
    if record.is_file():
        kept = [row for row in record.read_text(encoding="utf-8").splitlines() if _stays(row, step, stage)]
        record.write_text("".join(f"{row}\n" for row in kept), encoding="utf-8")


def _stays(row: str, step: int, stage: str) -> bool:
    try:
        found = json.loads(row)
    except ValueError:  # a line that a kill cut off
        return False
    return found.get("stage") != stage or found["step"] <= step


def _groups(generator: Generator, settings: TrainingSettings) -> list[dict[str, Any]]:
    """Three rates: the encoder's, the heads', and that of weights which are single numbers an attribute."""
    network = generator.network
    single = [
        network.logit_bias, network.logit_scale, network.floor, network.copied_base, network.generated_base,
        network.field, network.length_slope, generator.log_temperature, generator.mix,
    ]  # fmt: skip
    slow = list(network.encoder.parameters())
    known = {id(p) for p in single + slow}
    heads = [p for p in generator.parameters() if id(p) not in known]
    return [
        {"params": slow, "lr": settings.encoder_rate},
        {"params": heads, "lr": settings.head_rate},
        {"params": single, "lr": settings.weight_rate},
    ]


def _to(parts: tuple[Tensor, Tensor, Tensor], device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    row, attribute, weight = parts
    return row.to(device), attribute.to(device), weight.to(device)
