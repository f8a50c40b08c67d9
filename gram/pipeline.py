"""The two long verbs: train a model on a catalogue and a log, and index a catalogue with a model."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from gram.codes.mining import MiningSettings, field_texts, mine
from gram.codes.text import stems
from gram.codes.trie import CodeTrie
from gram.errors import SettingError
from gram.folders import new_folder, read_json, write_json
from gram.health import health
from gram.index.evidence import gather
from gram.index.folder import Index, value_scores
from gram.index.postings import Postings
from gram.index.table import ProductTable
from gram.index.words import Words
from gram.model.backbone import ScratchSettings, load_backbone
from gram.model.coding import PRODUCT_CODING, QUERY_CODING, CodingSettings, code_texts
from gram.model.encoding import TextEncoder
from gram.model.generator import Generator, model_hash
from gram.model.network import PRODUCT
from gram.model.samples import Samples
from gram.model.scorer import Scorer, fit
from gram.model.training import Trainer, TrainingSettings
from gram.records import Interaction, Product
from gram.search import Searcher

log = logging.getLogger("gram.train")
FITTED_ON = 20_000  # products at most that the scorer is fitted among
FITTED_CANDIDATES = 200


@dataclass(frozen=True)
class Settings:
    """Everything that `train` can be told; saved with the model."""

    backbone: str = "minilm"
    training: TrainingSettings = field(default_factory=TrainingSettings)
    mining: MiningSettings = field(default_factory=MiningSettings)
    scratch: ScratchSettings = field(default_factory=ScratchSettings)
    device: str = "cpu"


def train(
    products: Sequence[Product],
    interactions: Sequence[Interaction],
    output: str | Path,
    settings: Settings | None = None,
    resume: bool = False,
) -> Path:
    """Trains a model and writes its folder; the log may be empty.

    A part of the log's queries (a tenth, at most 1,000) is held out: to stop early, to fit the scorer, to report
    health. While it runs, checkpoints lie in `<output>.work`; `resume` goes on from there.

    Raises:
        SettingError: no products, or `resume` with other data or settings than the checkpoint's.
        ModelError: a backbone that cannot be loaded.
    """
    settings, output = settings or Settings(), Path(output)
    if not products:
        raise SettingError("there are no products to train on")
    trained, held_out = _hold_out(interactions, settings.training.seed)
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
    trainer = Trainer(generator, samples, settings.training)
    if resume and (work / "checkpoint.pt").is_file():
        trainer.restore(work / "checkpoint.pt")
        log.info("going on from step %d", trainer.done)
    else:
        generator.read_attributes()
    trainer.run(work / "training.jsonl", work / "checkpoint.pt", _validation(samples, held_out, settings.training))
    searcher, judged = _fitted(generator, products, held_out, settings.training.seed)
    report = health(searcher, judged, samples.space)
    config: dict[str, Any] = {"settings": asdict(settings), "scorer": searcher.scorer.named(), "health": report}
    with new_folder(output, marker="config.json") as folder:
        generator.save(folder, config)
        write_json(folder / "health.json", report)
        shutil.copy(work / "training.jsonl", folder / "training.jsonl")
    shutil.rmtree(work)
    return output


def build_index(
    generator: Generator,
    products: Sequence[Product],
    meta: dict[str, Any],
    coding: CodingSettings = PRODUCT_CODING,
) -> Index:
    """Codes products and gathers everything a search needs, in memory."""
    language = generator.lexicon.language
    rows = list(product_stems(products, language))
    words = Words.build(rows)
    counts = Counter(stem for row in rows for stem in set(row))
    missing = {stem: n for stem, n in counts.items() if generator.lexicon.id_of((stem,)) < 0}
    generator = generator.with_words(missing)
    lexicon = generator.lexicon
    encoded = generator.texts.products(products)
    coded = code_texts(generator, encoded, PRODUCT, coding, progress="coding products")
    extra = sorted(missing)
    return Index(
        table=ProductTable.build(products),
        words=words,
        own=Postings.build(coded.own[1], coded.own[0], coded.own[2], len(lexicon)),
        written=Postings.build(coded.written[1], coded.written[0], coded.written[2], len(lexicon)),
        deep=Postings.build(coded.deep[1], coded.deep[0], coded.deep[2], generator.trie.n_code_ids),
        trie=generator.trie,
        vectors=coded.vectors.astype(np.float16),
        value=value_scores(products),
        extra_words=extra,
        extra_counts=np.array([missing[w] for w in extra], dtype=np.int64),
        meta=meta | {"coding": asdict(coding)},
    )


def index(model: str | Path, products: Sequence[Product], output: str | Path, device: str = "cpu") -> Path:
    """Codes a catalogue with a trained model and writes the index folder."""
    if not products:
        raise SettingError("there are no products to index")
    generator, _ = Generator.load(Path(model), device)
    meta = {"model": str(model), "model_hash": model_hash(Path(model))}
    build_index(generator, products, meta).save(output)
    return Path(output)


def product_stems(products: Sequence[Product], language: str) -> list[list[str]]:
    """The stems of all fields of each product, for the keyword evidence."""
    return [[s for _, text in field_texts(p) for s in stems(text, language)] for p in products]


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
    n_batches = 4
    if not held_out:
        size = min(settings.batch, len(samples.products))
        return [samples.batch(size, settings.hard_negatives, 1.0, random) for _ in range(n_batches)]
    apart = samples.with_log(held_out)
    size = min(settings.batch, len(apart.queries))
    return [apart.batch(size, settings.hard_negatives, 0.0, random) for _ in range(n_batches)]


def _fitted(
    generator: Generator, products: Sequence[Product], held_out: Sequence[Interaction], seed: int
) -> tuple[Searcher, dict[str, dict[str, float]]]:
    """A searcher over a part of the catalogue, its scorer fitted on held-out interactions, and these: {query: {id:
    weight}}."""
    judged: dict[str, dict[str, float]] = {}
    for i in held_out:
        row = judged.setdefault(i.query, {})
        row[i.product_id] = row.get(i.product_id, 0.0) + i.weight
    part = _part_of(products, judged, generator.lexicon.language, seed)
    made = build_index(generator, part, {"model": "", "model_hash": ""})
    searcher = Searcher(generator, made, Scorer.default(), QUERY_CODING)
    if judged:
        features, gains = [], []
        place = {p.product_id: i for i, p in enumerate(part)}
        for coded, wanted in zip(searcher.code(list(judged)), judged.values(), strict=True):
            found = gather(made, coded, searcher.scorer.weights, FITTED_CANDIDATES)
            gain = np.zeros(len(part), dtype=np.float32)
            for product_id, weight in wanted.items():
                gain[place[product_id]] = weight
            features.append(found.features)
            gains.append(gain[found.positions])
        searcher = searcher.with_scorer(fit(features, gains))
        log.info("scorer: %s", json.dumps(searcher.scorer.named()))
    return searcher, judged


def _part_of(
    products: Sequence[Product], judged: dict[str, dict[str, float]], language: str, seed: int
) -> list[Product]:
    """At most FITTED_ON products: the wanted ones, those a keyword engine finds for the same queries, and random
    others."""
    if len(products) <= FITTED_ON:
        return list(products)
    chosen = {product_id for wanted in judged.values() for product_id in wanted}
    words = Words.build([stems(p.title, language) for p in products])
    near: Counter[int] = Counter()
    for query in judged:
        scores = words.score(stems(query, language))
        near.update(np.argpartition(-scores, 30)[:30].tolist())
    chosen |= {products[i].product_id for i, _ in near.most_common(FITTED_ON // 2)}
    order: NDArray[np.int64] = np.random.default_rng(seed).permutation(len(products))
    for i in order.tolist():
        if len(chosen) >= FITTED_ON:
            break
        chosen.add(products[i].product_id)
    return [p for p in products if p.product_id in chosen]


def _told_apart(products: Sequence[Product], interactions: Sequence[Interaction]) -> str:
    """A hash of the data: another catalogue or log has another one."""
    digest = hashlib.sha256()
    for row in (*products, *interactions):
        digest.update(repr(row).encode())
    return digest.hexdigest()


def _work_folder(output: Path, settings: Settings, data: str, resume: bool) -> Path:
    """Where checkpoints lie; refuses to resume what was begun with other data or settings."""
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
