"""One training run: its settings, its data, its work folder, and what the stages hand on to each other."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from gram.coder import precision
from gram.coder.encoder.backbone import ScratchSettings
from gram.coder.encoder.coder import EncoderCoder
from gram.codes.mining import MiningSettings
from gram.data.catalogue import check_products
from gram.data.dataset import hold_out
from gram.errors import SettingError
from gram.folders import read_json, write_json
from gram.index.bm25 import BM25Index
from gram.indexing import unique_ids
from gram.locks import resolve
from gram.ranking.scorer import Scorer
from gram.records import Interaction, Product
from gram.training.causal.settings import CausalSettings
from gram.training.co_alignment import CoAlignmentSettings
from gram.training.joint import TrainingSettings
from gram.training.samples import Samples, TrainingBatch

if TYPE_CHECKING:
    from typing_extensions import Self

log = logging.getLogger("gram.train")

BEGUN = "begun.json"
"""What a training is of: its settings, a hash of its data, and the number format that it is computed in."""
VALIDATION_BATCHES = 12  # four were noisy by ±.03, and chose the wrong step

Clicks = Mapping[str, Mapping[str, float]]
"""Query → product id → weight of the interactions."""


@dataclass(frozen=True)
class Settings:
    """Everything that `train` can be told; saved with the model."""

    backbone: str = "minilm"
    training: TrainingSettings = field(default_factory=TrainingSettings)
    alignment: CoAlignmentSettings = field(default_factory=CoAlignmentSettings)
    mining: MiningSettings = field(default_factory=MiningSettings)
    scratch: ScratchSettings = field(default_factory=ScratchSettings)
    causal: CausalSettings | None = None  # a language model writes the codes; None for the encoder
    teacher: str = ""  # a model folder whose codes are targets of the encoder too
    device: str = "cpu"
    without: tuple[str, ...] = ()  # features, or groups of them, that the scorer leaves out: for controls


@dataclass
class Run:
    """What stages read and write, whichever coder is trained: a later stage makes `scorer` and `report`."""

    products: Sequence[Product]
    logged: list[Interaction]  # what is trained on
    held_out: list[Interaction]  # what stops training early, fits the scorer and reports health
    settings: Settings
    work: Path  # checkpoints, and the record of every step
    dtype: torch.dtype = torch.float32  # an encoder's; a language model's is its own
    resume: bool = False
    joint: Path | None = None  # weights of joint training to begin with, or to write where there are none
    scorer: Scorer = field(default_factory=Scorer.default)
    alone: dict[tuple[str, ...], Scorer] = field(default_factory=dict)  # of some groups of features alone
    report: dict[str, Any] = field(default_factory=dict)
    bm25: BM25Index = field(init=False)  # of all products

    @classmethod
    def begin(
        cls, products: Sequence[Product], interactions: Sequence[Interaction], settings: Settings, work: Path,
        resume: bool,
    ) -> Self:  # fmt: skip
        """Checks the data and holds out a part of the log's queries.

        Raises SettingError for no products, an id twice, or `resume` with other data or settings than the work
        folder's, BadRow for a product that a catalogue's readers refuse.
        """
        products = check_products(products)
        if not products:
            raise SettingError("there are no products to train on")
        ids = unique_ids(products)
        known = [i for i in interactions if i.product_id in ids]
        if len(known) < len(interactions):
            log.warning("%d interactions are with unknown products: passed over", len(interactions) - len(known))
        resume, dtype = _begin_work(work, settings, _fingerprint(products, interactions), resume)
        return cls(products, *hold_out(known, settings.training.seed), settings, work, dtype, resume)

    @property
    def record(self) -> Path:
        """A line of figures for every step of every stage."""
        return self.work / "training.jsonl"

    @property
    def seed(self) -> int:
        return self.settings.training.seed

    @cached_property
    def clicks(self) -> Clicks:
        """The held-out interactions."""
        return sum_clicks(self.held_out)

    def write_record(self, stage: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Appends a stage's figures to the record."""
        with self.record.open("a", encoding="utf-8") as out:
            for row in rows:
                shown = {k: round(v, 5) if isinstance(v, float) else v for k, v in row.items()}
                out.write(json.dumps({"stage": stage} | shown) + "\n")


@dataclass
class TrainingRun(Run):
    """A run that trains an encoder. The first stage makes `coder` and `samples`."""

    coder: EncoderCoder = field(init=False)
    samples: Samples = field(init=False)

    @cached_property
    def validation(self) -> list[TrainingBatch]:
        """Batches of held-out interactions; of pseudo-queries where nothing is held out."""
        training, rng = self.settings.training, np.random.default_rng(self.seed)
        samples, share = (self.samples.with_log(self.held_out), 0.0) if self.held_out else (self.samples, 1.0)
        size = min(training.batch, len(samples.queries) if self.held_out else len(samples.products))
        return [samples.batch(size, training.hard_negatives, share, rng) for _ in range(VALIDATION_BATCHES)]


def sum_clicks(interactions: Iterable[Interaction]) -> Clicks:
    """What was clicked for each query; weights of a pair that stands twice add up."""
    clicks: dict[str, dict[str, float]] = {}
    for i in interactions:
        row = clicks.setdefault(i.query, {})
        row[i.product_id] = row.get(i.product_id, 0.0) + i.weight
    return clicks


def _fingerprint(products: Sequence[Product], interactions: Sequence[Interaction]) -> str:
    """A hash of the data: another catalogue or log has another one."""
    digest = hashlib.sha256()
    for row in (*products, *interactions):
        digest.update(repr(row).encode())
    return digest.hexdigest()


def is_begun(output: Path) -> bool:
    """Whether a training that was stopped lies beside a model folder, to be resumed."""
    return (work_folder(resolve(output)) / BEGUN).is_file()


def work_folder(output: Path) -> Path:
    """Where a training keeps its checkpoints, beside the model folder `output`, links followed."""
    return output.with_name(output.name + ".work")


def _begin_work(work: Path, settings: Settings, data: str, resume: bool) -> tuple[bool, torch.dtype]:
    """Empties the work folder unless it is to be resumed; whether there is something to resume, and the number format:
    the fast one here, or that in which it was begun, wherever that was."""
    begun = {"settings": json.loads(json.dumps(asdict(settings))), "data": data}
    if resume and (work / BEGUN).is_file():
        found = read_json(work / BEGUN)
        name = found.pop("dtype", "") if isinstance(found, dict) else ""
        dtype = next((dtype for dtype in (torch.float32, torch.bfloat16) if _name_of(dtype) == name), None)
        if dtype is None or found != begun:
            raise SettingError(
                f"{work} was begun with other data or settings, or by another version. Fix: train without --resume"
            )
        return True, dtype
    if resume:
        log.info("nothing to resume at %s: starting from the beginning", work)
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    fast = precision.fast_dtype(settings.device.partition(":")[0])
    write_json(work / BEGUN, begun | {"dtype": _name_of(fast)})
    return False, fast


def _name_of(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
