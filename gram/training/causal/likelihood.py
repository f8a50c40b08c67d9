"""Joint training of a language model, L_q + λ·L_p (Eq. 3), and co-training, which is the same on other targets."""

from __future__ import annotations

import json
import logging
import math
import time
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from gram.coder.causal.language_model import LanguageModel
from gram.coder.precision import computing
from gram.errors import ModelError
from gram.training.causal.samples import Examples
from gram.training.causal.settings import CausalSettings
from gram.training.checkpoints import ANEW, CHECKPOINT_SECONDS, forget_after, reading_weights, write_checkpoint

log = logging.getLogger("gram.train")

SMALLER = "Fix: train with a smaller --rate, or --dtype float32"
WARM = 0.06  # share of the steps in which the rate rises


class Samples(Protocol):
    """What a step's texts are drawn from, each with what is to be learnt to follow it."""

    def draw(self, size: int, rng: np.random.Generator) -> tuple[Examples, Examples]:
        """So many texts of the query side, and as many of the product side."""
        ...


class LikelihoodTrainer:
    """Runs the steps; can be stopped and taken up again at any checkpoint. Batches are decided by the step's number."""

    def __init__(
        self, model: LanguageModel, samples: Samples, settings: CausalSettings, steps: int, seed: int, stage: str
    ) -> None:
        self.model, self.samples, self.settings, self.steps = model, samples, settings, steps
        self.seed, self.stage = seed, stage
        self.rate = settings.chosen_rate() / (1 if stage == "joint" else 2)
        trained = [weight for weight in model.parameters() if weight.requires_grad]
        self.optimizer = torch.optim.AdamW(trained, lr=self.rate, weight_decay=0.01)
        self.done, self.best, self.stale = 0, math.inf, 0
        self.best_weights: dict[str, Tensor] | None = None

    def run(self, record: Path, checkpoint: Path, validation: Examples | None = None) -> None:
        """Trains to the end, or until validation stops getting better; appends every figure to `record`.

        It ends in the weights that were best, which may be those that it began with.
        """
        forget_after(record, self.done, self.stage)
        if not self.done and validation and validation.prompts:
            self._keep_best(self.validate(validation))
        begin = saved = time.monotonic()
        bar = tqdm(total=self.steps, initial=self.done, desc=f"{self.stage} training", unit="step")
        with record.open("a", encoding="utf-8") as out:
            while self.done < self.steps and self.stale < self.settings.patience:
                figures: dict[str, Any] = {"stage": self.stage, "step": self.done + 1}
                figures |= self.step()
                figures["seconds"] = round(time.monotonic() - begin, 2)
                bar.update()
                bar.set_postfix(loss=f"{figures['query']:.2f}", refresh=False)
                checked = self.done % self.settings.validate_every == 0 or self.done == self.steps
                if checked and validation and validation.prompts:
                    figures["validation"] = self.validate(validation)
                    self._keep_best(figures["validation"])
                out.write(
                    json.dumps({k: round(v, 5) if isinstance(v, float) else v for k, v in figures.items()}) + "\n"
                )
                out.flush()
                if checked or time.monotonic() - saved > CHECKPOINT_SECONDS:
                    self.save(checkpoint)
                    saved = time.monotonic()
        bar.close()
        if self.best_weights is not None:
            self.model.load_trained(self.best_weights)
        self.model.eval()

    def step(self) -> dict[str, float]:
        """One step, on a batch that its number alone decides; its figures."""
        rng = np.random.default_rng((self.seed, self.done))
        torch.manual_seed(self.seed * 1_000_003 + self.done)
        queries, products = self.samples.draw(self.settings.batch, rng)
        for group in self.optimizer.param_groups:
            warm = min(1.0, (self.done + 1) / max(1.0, WARM * self.steps))
            group["lr"] = self.rate * warm * max(0.05, 1 - self.done / self.steps)
        self.model.train()
        self.optimizer.zero_grad()
        figures = {}
        for name, part, weight in (("query", queries, 1.0), ("product", products, self.settings.product_side)):
            loss = self.loss(part)  # one side at a time: half the memory
            (weight * loss).backward()
            figures[name] = float(loss.detach())
        if not math.isfinite(sum(figures.values())):
            raise ModelError(f"the loss is no number at step {self.done + 1} of {self.stage} training. {SMALLER}")
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.done += 1
        return figures

    def loss(self, examples: Examples) -> Tensor:
        """−log P of a code, a token; the mean over the examples' tokens."""
        model = self.model
        prompts, codes = model.read_prompts(examples.prompts), model.read_codes(examples.codes)
        with computing(model.device, model.dtype):
            log_probs = model.log_probs(prompts, codes)  # (X, t + 1)
        return -log_probs.sum() / sum(len(code) + 1 for code in codes)

    @torch.no_grad()
    def validate(self, examples: Examples) -> float:
        """The loss of held-out queries' codes."""
        self.model.eval()
        total, n, size = 0.0, len(examples.prompts), self.settings.batch
        for begin in range(0, n, size):
            part = Examples(examples.prompts[begin : begin + size], examples.codes[begin : begin + size])
            total += float(self.loss(part)) * len(part.prompts)
        return total / n

    def _keep_best(self, validation: float) -> None:
        if validation < self.best - 1e-4:
            self.best, self.stale = validation, 0
            self.best_weights = {k: v.detach().clone() for k, v in self.model.trainable().items()}
        else:
            self.stale += 1

    def save(self, path: Path) -> None:
        """A checkpoint: everything that `restore` needs to go on as if nothing had happened."""
        state = {
            "origin": self.model.origin,
            "weights": self.model.trainable(),
            "optimizer": self.optimizer.state_dict(),
            "best_weights": self.best_weights,
            "numbers": {"done": self.done, "best": self.best, "stale": self.stale},
        }
        write_checkpoint(path, state)

    def restore(self, path: Path) -> None:
        """Goes on from a checkpoint. Raises ModelError for one that is damaged, or of another language model."""
        with reading_weights(path, ANEW):
            state = torch.load(path, map_location=self.model.device, weights_only=True)
            if state["origin"] != self.model.origin:
                raise ModelError(f"{self.model.settings.name} has other weights now")
            self.model.load_trained(state["weights"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.best_weights = state["best_weights"]
            self.done, self.best, self.stale = (state["numbers"][k] for k in ("done", "best", "stale"))
