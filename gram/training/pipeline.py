"""The two long verbs: train a model on a catalogue and a log, and index a catalogue with a model."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gram.coder.encoder.backbone import ScratchSettings, load_backbone
from gram.coder.encoder.generator import LEXICON, Generator, model_hash
from gram.coder.encoder.tokens import TextEncoder
from gram.codes.mining import MiningSettings, mine
from gram.codes.trie import CodeTrie
from gram.errors import SettingError
from gram.folders import check_replaceable, new_folder, read_json, write_json
from gram.index.bm25 import Words
from gram.index.table import OFFSETS
from gram.indexing import build_index, product_stems
from gram.records import Interaction, Product
from gram.text.fields import field_texts
from gram.training.co_alignment import AlignmentSettings
from gram.training.joint import Trainer, TrainingSettings, forget_after
from gram.training.samples import Samples
from gram.training.stages import REPORTED_ON, aligned, co_trained, codes_alone, fitted, part_of, reported

log = logging.getLogger("gram.train")


@dataclass(frozen=True)
class Settings:
    """Everything that `train` can be told; saved with the model."""

    backbone: str = "minilm"
    training: TrainingSettings = field(default_factory=TrainingSettings)
    alignment: AlignmentSettings = field(default_factory=AlignmentSettings)
    mining: MiningSettings = field(default_factory=MiningSettings)
    scratch: ScratchSettings = field(default_factory=ScratchSettings)
    device: str = "cpu"


def train(
    products: Sequence[Product],
    interactions: Sequence[Interaction],
    output: str | Path,
    settings: Settings | None = None,
    resume: bool = False,
    joint: Path | None = None,
    keep_joint: Path | None = None,
) -> Path:
    """Trains a model and writes its folder; the log may be empty.

    A part of the log's queries (a tenth, at most 1,000) is held out: to stop early, to fit the scorer, to report
    health. While it runs, checkpoints lie in `<output>.work`; `resume` goes on from there. `keep_joint` keeps the
    checkpoint of joint training under that name, and `joint` begins with such a one, of the same data and seed: to
    compare what comes after.

    Raises:
        SettingError: no products, an id twice, or `resume` with other data or settings than the checkpoint's.
        ModelError: a backbone that cannot be loaded.
    """
    settings, output = settings or Settings(), Path(output)
    if joint is not None and not joint.is_file():
        raise SettingError(f"{joint}: no checkpoint of joint training. Fix: train with keep_joint first")
    if not products:
        raise SettingError("there are no products to train on")
    known = _ids(products)
    check_replaceable(output, marker=LEXICON)
    linked = [i for i in interactions if i.product_id in known]
    if len(linked) < len(interactions):
        log.warning("%d interactions are with unknown products: passed over", len(interactions) - len(linked))
    trained, held_out = _hold_out(linked, settings.training.seed)
    log.info("finding the attributes of %d products and %d interactions", len(products), len(trained))
    lexicon = mine(products, trained, settings.mining)
    log.info("lexicon: %d attributes, %d of them generated; encoding texts", len(lexicon), lexicon.n_generated)
    torch.manual_seed(settings.training.seed)
    backbone = load_backbone(settings.backbone, (t for p in products for _, t in field_texts(p)), settings.scratch)
    encoder = TextEncoder(lexicon, backbone)
    encoded = encoder.products(products)
    words = Words.build(product_stems(products, lexicon.language))
    samples = Samples.gather(products, encoded, trained, encoder, words)
    log.info("code space: %d codes", len(samples.space.codes))
    generator = Generator(backbone, lexicon, CodeTrie.build(samples.space.codes)).to(settings.device)
    generator.texts = encoder
    work = _work_folder(output, settings, _told_apart(products, interactions), resume)
    record = work / "training.jsonl"
    validation = _validation(samples, held_out, settings.training)
    trainer = Trainer(generator, samples, settings.training)
    if not _taken_up(trainer, joint or work / "checkpoint.pt", resume or joint is not None):
        generator.read_attributes()
    trainer.run(record, work / "checkpoint.pt", validation)
    if keep_joint is not None:
        trainer.save(keep_joint)
    seed = settings.training.seed
    if settings.training.co_training and trained:
        log.info("co-training: coding %d products and %d queries", len(products), len(samples.queries))
        samples = co_trained(generator, samples)
        again = settings.training.again(settings.training.co_training)
        trainer = Trainer(generator, samples, again, stage="co-training")
        _taken_up(trainer, work / "co-training.pt", resume)
        trainer.run(record, work / "co-training.pt", validation)
    wanted = _wanted(held_out)
    part = part_of(products, words, wanted, lexicon.language, REPORTED_ON, seed)
    if settings.alignment.steps and trained:
        rows: list[dict[str, Any]] = [{"step": 0, "before": codes_alone(generator, part, wanted)}] if wanted else []
        rows += aligned(generator, samples, settings.alignment, seed)
        forget_after(record, -1, "co-alignment")  # a run that was stopped after it did it already
        _append(record, "co-alignment", rows)
    scorer = fitted(generator, products, words, wanted, seed)
    report = reported(generator, scorer, part, wanted, samples.space)
    config: dict[str, Any] = {"settings": asdict(settings), "scorer": scorer.named(), "health": report}
    with new_folder(output, marker=LEXICON) as folder:
        generator.save(folder, config)
        scorer.save(folder)
        write_json(folder / "health.json", report)
        shutil.copy(record, folder / "training.jsonl")
    shutil.rmtree(work)
    return output


def index(model: str | Path, products: Sequence[Product], output: str | Path, device: str = "cpu") -> Path:
    """Codes a catalogue with a trained model and writes the index folder.

    Raises SettingError where there are no products or an id stands twice, ModelError for a model that cannot be read.
    """
    if not products:
        raise SettingError("there are no products to index")
    _ids(products)
    check_replaceable(output, marker=OFFSETS)
    generator, _ = Generator.load(Path(model), device)
    meta = {"model": str(model), "model_hash": model_hash(Path(model))}
    build_index(generator, products, meta).save(output)
    return Path(output)


def _ids(products: Sequence[Product]) -> set[str]:
    """The products' ids. Raises SettingError for one that stands twice."""
    ids: set[str] = set()
    for product in products:
        if product.product_id in ids:
            raise SettingError(f"the product id {product.product_id!r} stands twice. Fix: keep one product of an id")
        ids.add(product.product_id)
    return ids


def _wanted(interactions: Sequence[Interaction]) -> dict[str, dict[str, float]]:
    """{query: {product id: weight}}."""
    wanted: dict[str, dict[str, float]] = {}
    for i in interactions:
        row = wanted.setdefault(i.query, {})
        row[i.product_id] = row.get(i.product_id, 0.0) + i.weight
    return wanted


def _append(record: Path, stage: str, rows: Sequence[Mapping[str, Any]]) -> None:
    with record.open("a", encoding="utf-8") as out:
        for row in rows:
            shown = {k: round(v, 5) if isinstance(v, float) else v for k, v in row.items()}
            out.write(json.dumps({"stage": stage} | shown) + "\n")


def _taken_up(trainer: Trainer, checkpoint: Path, resume: bool) -> bool:
    """Whether the trainer goes on from a checkpoint."""
    if not (resume and checkpoint.is_file()):
        return False
    trainer.restore(checkpoint)
    log.info("%s training goes on from step %d", trainer.stage, trainer.done)
    return True


def _hold_out(log_rows: Sequence[Interaction], seed: int) -> tuple[list[Interaction], list[Interaction]]:
    """The log without, and with only, a tenth of its queries; nothing is held out of a log of under 50 queries."""
    queries = sorted({i.query for i in log_rows})
    if len(queries) < 50:
        return list(log_rows), []
    order = np.random.default_rng(seed).permutation(len(queries))
    held = {queries[i] for i in order[: min(1000, len(queries) // 10)]}
    return [i for i in log_rows if i.query not in held], [i for i in log_rows if i.query in held]


def _validation(samples: Samples, held_out: list[Interaction], settings: TrainingSettings) -> list[Any]:
    random = np.random.default_rng(settings.seed)
    n_batches = 12  # four were noisy by ±.03, and chose the wrong step
    if not held_out:
        size = min(settings.batch, len(samples.products))
        return [samples.batch(size, settings.hard_negatives, 1.0, random) for _ in range(n_batches)]
    apart = samples.with_log(held_out)
    size = min(settings.batch, len(apart.queries))
    return [apart.batch(size, settings.hard_negatives, 0.0, random) for _ in range(n_batches)]


def _told_apart(products: Sequence[Product], interactions: Sequence[Interaction]) -> str:
    """A hash of the data: another catalogue or log has another one."""
    digest = hashlib.sha256()
    for row in (*products, *interactions):
        digest.update(repr(row).encode())
    return digest.hexdigest()


def _work_folder(output: Path, settings: Settings, data: str, resume: bool) -> Path:
    """Where checkpoints lie; refuses to resume what was begun with other data or settings."""
    output = output.resolve()
    work = output.with_name(output.name + ".work")
    mark = {"settings": json.loads(json.dumps(asdict(settings))), "data": data}
    if resume and (work / "begun.json").is_file():
        if read_json(work / "begun.json") != mark:
            raise SettingError(f"{work} was begun with other data or settings. Fix: train without --resume")
        return work
    if resume:
        log.info("nothing to resume at %s: starting from the beginning", work)
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    write_json(work / "begun.json", mark)
    return work
