"""How long training and writing would take, and how much memory, measured on a few steps of the very data."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from gram.coder.base import Side
from gram.records import Interaction, Product
from gram.training.causal.likelihood import LikelihoodTrainer
from gram.training.causal.stages import CausalRun, mine_lexicon
from gram.training.run import Settings

STEPS, TEXTS = 3, 16  # that are timed


class Estimate(NamedTuple):
    """Of a whole training: its parts in seconds, and the most memory that the timed steps took, in bytes."""

    training: float
    writing: float  # of codes for co-training, co-alignment and the scorer
    catalogue: float  # of the codes of every product
    memory: int

    def __str__(self) -> str:
        hours = [f"{name} {_time(seconds)}" for name, seconds in self._asdict().items() if name != "memory"]
        return f"it would take: {', '.join(hours)}; {self.memory / 2**30:.1f} GiB of memory at least"


def estimate(products: Sequence[Product], interactions: Sequence[Interaction], settings: Settings) -> Estimate:
    """Mines the lexicon, takes three steps and writes the codes of some products; nothing is kept."""
    with tempfile.TemporaryDirectory() as work:
        run = CausalRun.begin(products, interactions, settings, Path(work, "run"), resume=False)
        mine_lexicon(run)
    causal, n_queries = run.causal, len(run.samples.queries)
    trainer = LikelihoodTrainer(run.coder.model, run.samples, causal, STEPS + 1, run.seed, "joint")
    trainer.step()  # the first one also chooses kernels
    begin = time.perf_counter()
    for _ in range(STEPS):
        trainer.step()
    a_step = (time.perf_counter() - begin) / STEPS
    some = list(products[:TEXTS])
    run.coder.write(some[:1], Side.PRODUCT)  # builds the trie of tokens
    begin = time.perf_counter()
    run.coder.write(some, Side.PRODUCT)
    a_text = (time.perf_counter() - begin) / len(some)
    joint, co_training, co_alignment = causal.chosen_stages(n_queries, len(products))
    clicked = {p for row in run.samples.clicked[: causal.texts] for p in row.tolist()}
    again = min(n_queries, causal.texts) + len(clicked)
    rounds = (1 if co_training and n_queries else 0) + (causal.rounds if co_alignment and n_queries else 0)
    return Estimate(
        training=a_step * (joint + (co_training + 2 * co_alignment if n_queries else 0)),
        writing=a_text * again * rounds,
        catalogue=a_text * len(products),
        memory=_memory(run.coder.model.device),
    )


def _memory(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    try:
        import resource
    except ImportError:  # Windows
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _time(seconds: float) -> str:
    return (
        f"{seconds / 3600:.1f} h"
        if seconds >= 3600
        else f"{seconds / 60:.0f} min"
        if seconds >= 60
        else f"{seconds:.0f} s"
    )
