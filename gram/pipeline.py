"""The two long verbs: train a model on a catalogue and a log, and index a catalogue with a model."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from gram.codes.mining import MiningSettings, field_texts, mine
from gram.codes.targets import co_targets
from gram.codes.text import stems
from gram.codes.trie import CodeTrie
from gram.errors import SettingError
from gram.folders import new_folder, read_json, write_json
from gram.health import health, retrieval_efficiency
from gram.index.cells import Cells
from gram.index.evidence import gather
from gram.index.folder import Index, value_scores
from gram.index.postings import Postings
from gram.index.table import ProductTable
from gram.index.titles import Titles
from gram.index.words import Words
from gram.model.alignment import Alignment, AlignmentSettings, WrittenCodes
from gram.model.backbone import ScratchSettings, load_backbone
from gram.model.coding import PRODUCT_CODING, QUERY_CODING, Coded, CodingSettings, code_texts
from gram.model.encoding import TextEncoder
from gram.model.generator import Generator, model_hash
from gram.model.network import PRODUCT, QUERY
from gram.model.samples import HARD_TO, Samples
from gram.model.scorer import Scorer, fit
from gram.model.training import Trainer, TrainingSettings
from gram.records import Interaction, Product
from gram.search import Searcher

log = logging.getLogger("gram.train")
FITTED_ON = 60_000  # products at most that the scorer is fitted among
FITTED_CANDIDATES = 200


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
    record = work / "training.jsonl"
    validation = _validation(samples, held_out, settings.training)
    trainer = Trainer(generator, samples, settings.training)
    if not _taken_up(trainer, joint or work / "checkpoint.pt", resume or joint is not None):
        generator.read_attributes()
    trainer.run(record, work / "checkpoint.pt", validation)
    if keep_joint is not None:
        trainer.save(keep_joint)
    if settings.training.co_training and trained:
        log.info("co-training: coding %d products and %d queries", len(products), len(samples.queries))
        samples = _co_trained(generator, samples)
        again = settings.training.again(settings.training.co_training)
        trainer = Trainer(generator, samples, again, stage="co-training")
        _taken_up(trainer, work / "co-training.pt", resume)
        trainer.run(record, work / "co-training.pt", validation)
    if settings.alignment.steps and trained:
        _align(generator, samples, settings, held_out, record)
    searcher, judged = _fitted(generator, products, held_out, settings.training.seed)
    report = health(searcher, judged, samples.space)
    config: dict[str, Any] = {"settings": asdict(settings), "scorer": searcher.scorer.named(), "health": report}
    with new_folder(output, marker="config.json") as folder:
        generator.save(folder, config)
        searcher.scorer.save(folder)
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
    words = Words.build(product_stems(products, generator.lexicon.language))
    extra = _missing(generator, words)
    generator = generator.with_words(extra)
    coded = code_texts(generator, generator.texts.products(products), PRODUCT, coding, progress="coding products")
    return _assembled(generator, products, coded, words, extra, meta | {"coding": asdict(coding)})


def _missing(generator: Generator, words: Words) -> dict[str, int]:
    """The words of a catalogue that a lexicon lacks: {stem: products that hold it}."""
    lexicon = generator.lexicon
    return {stem: words.document_frequency(stem) for stem in sorted(words.ids) if lexicon.id_of((stem,)) < 0}


def _assembled(
    generator: Generator,
    products: Sequence[Product],
    coded: Coded,
    words: Words,
    extra: dict[str, int],
    meta: dict[str, Any],
) -> Index:
    """The index of coded products; `extra` are the words that the lexicon had to learn for them."""
    lexicon = generator.lexicon
    return Index(
        table=ProductTable.build(products),
        words=words,
        own=Postings.build(coded.own[1], coded.own[0], coded.own[2], len(lexicon)),
        written=Postings.build(coded.written[1], coded.written[0], coded.written[2], len(lexicon)),
        deep=Postings.build(coded.deep[1], coded.deep[0], coded.deep[2], generator.trie.n_code_ids),
        trie=generator.trie,
        vectors=coded.vectors,
        cells=Cells.build(coded.vectors),
        titles=Titles.build([stems(p.title, lexicon.language) for p in products], words),
        value=value_scores(products),
        extra_words=list(extra),
        extra_counts=np.array(list(extra.values()), dtype=np.int64),
        meta=meta,
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


def _taken_up(trainer: Trainer, checkpoint: Path, resume: bool) -> bool:
    """Whether the trainer goes on from a checkpoint."""
    if not (resume and checkpoint.is_file()):
        return False
    trainer.restore(checkpoint)
    log.info("%s training goes on from step %d", trainer.stage, trainer.done)
    return True


def _co_trained(generator: Generator, samples: Samples) -> Samples:
    """The same samples with targets that each side's codes give the other, and negatives from the model's own ranks."""
    queries = code_texts(generator, samples.encoder.queries(samples.queries), QUERY, replace(QUERY_CODING, codes=0))
    coded = code_texts(
        generator, samples.encoded, PRODUCT, replace(PRODUCT_CODING, codes=0), progress="coding products"
    )
    pairs = [(q, p) for q, row in enumerate(samples.linked) for p in row.tolist()]
    of_queries, of_products = co_targets(
        samples.query_targets,
        samples.product_targets,
        _said(queries, len(samples.queries)),
        _said(coded, len(samples.products)),
        np.array(pairs, dtype=np.int64).reshape(-1, 2),
    )
    index = _assembled(generator, samples.products, coded, samples.words, {}, {"model": "", "model_hash": ""})
    searcher = Searcher(generator, index, Scorer.default())
    near = []
    for begin in tqdm(range(0, len(samples.queries), 256), desc="finding hard negatives", unit="batch"):
        for query in searcher.code(samples.queries[begin : begin + 256], deep=False):
            near.append(gather(index, query, searcher.scorer.weights, keep=HARD_TO).positions)
    return replace(samples, query_targets=of_queries, product_targets=of_products, near=near)


def _said(coded: Coded, n: int, least: float = 0.3) -> list[NDArray[np.int64]]:
    """The attributes that were generated for each of n texts and are likely to be right, the surest first."""
    text, attribute, _ = coded.written
    order = np.lexsort((-coded.sure, text))
    order = order[coded.sure[order] >= least]
    cuts = np.searchsorted(text[order], np.arange(n + 1))
    return [attribute[order[cuts[i] : cuts[i + 1]]] for i in range(n)]


def _align(
    generator: Generator, samples: Samples, settings: Settings, held_out: Sequence[Interaction], record: Path
) -> None:
    """Co-alignment of codes of two and more attributes, and how they served held-out queries before it."""
    n, n_codes = len(samples.products), generator.trie.n_code_ids
    queries = samples.encoder.queries(samples.queries)
    of_queries = code_texts(generator, queries, QUERY, QUERY_CODING).deep
    of_products = code_texts(generator, samples.encoded, PRODUCT, PRODUCT_CODING, progress="coding products").deep
    rows: list[dict[str, Any]] = []
    if held_out:
        apart = samples.with_log(held_out)
        coded = code_texts(generator, samples.encoder.queries(apart.queries), QUERY, QUERY_CODING).deep
        cuts = np.searchsorted(coded[0], np.arange(len(apart.queries) + 1))
        each = [(coded[1][a:b], coded[2][a:b]) for a, b in pairwise(cuts.tolist())]
        postings = Postings.build(of_products[1], of_products[0], of_products[2], n_codes)
        before = retrieval_efficiency(postings, each, [row.tolist() for row in apart.linked], n)
        log.info("codes of two and more attributes alone, before alignment: %s", json.dumps(before))
        rows.append({"before": before})
    aligner = Alignment(
        generator,
        queries,
        samples.encoded,
        samples.linked,
        (WrittenCodes.of(of_queries, len(queries), n_codes), WrittenCodes.of(of_products, n, n_codes)),
        generator.trie.table().astype(np.int32),
        settings.alignment,
        settings.training.seed,
    )
    rows += aligner.run()
    with record.open("a", encoding="utf-8") as out:
        for row in rows:
            shown = {k: round(v, 5) if isinstance(v, float) else v for k, v in row.items()}
            out.write(json.dumps({"stage": "co-alignment"} | shown) + "\n")


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
        coded = searcher.code(list(judged))
        for _ in range(2):  # what is found depends on the weights: the second time, on fitted ones
            first = searcher.scorer.weights
            found = [gather(made, query, first, keep=FITTED_CANDIDATES) for query in coded]
            gains = [_gains(part, f.positions, wanted) for f, wanted in zip(found, judged.values(), strict=True)]
            features = [f.features for f in found]
            searcher = searcher.with_scorer(fit(features, gains, first=first, without=("deep",), seed=seed))
        log.info("scorer: %s", json.dumps(searcher.scorer.named()))
    return searcher, judged


def _gains(products: Sequence[Product], positions: NDArray[np.int64], wanted: dict[str, float]) -> NDArray[np.float32]:
    """(C,) the weights of the interactions that candidates have."""
    return np.array([wanted.get(products[i].product_id, 0.0) for i in positions.tolist()], dtype=np.float32)


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
