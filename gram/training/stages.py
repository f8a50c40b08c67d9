"""The stages of training, one function each: they read and change the run they are given."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from gram.arrays import number_rows
from gram.coder.base import PRODUCT_CODING, QUERY_CODING, Side
from gram.coder.encoder.backbone import load_backbone
from gram.coder.encoder.coder import EncoderCoder
from gram.coder.encoder.tokens import TextTokenizer
from gram.coder.folder import load_coder
from gram.codes.mining import mine
from gram.codes.trie import CodeTrie
from gram.folders import new_file
from gram.index.bm25 import BM25Index
from gram.indexing import build_index, product_stems
from gram.ranking.scorer import Scorer
from gram.records import Product
from gram.search import Searcher
from gram.text.fields import field_texts
from gram.training.checkpoints import forget_after, reading_weights
from gram.training.co_alignment import AlignedTexts, CoAlignment
from gram.training.co_training import make_co_training_samples
from gram.training.health import measure_health, recall_of_codes
from gram.training.joint import JointTrainer
from gram.training.preferences import CompoundCodes
from gram.training.run import TrainingRun
from gram.training.samples import Samples
from gram.training.scoring import fit_to_clicks, sample_products
from gram.training.teaching import teach

log = logging.getLogger("gram.train")

ALIGNED_ON = 16_000  # products at most whose codes are aligned
REPORTED_ON = 8_000  # products at most that the codes' health is read from


def mine_lexicon(run: TrainingRun) -> None:
    """The shop's attributes, the space of codes, and a coder that knows them and has learnt nothing yet."""
    settings, products = run.settings, run.products
    log.info("finding the attributes of %d products and %d interactions", len(products), len(run.logged))
    lexicon = mine(products, run.logged, settings.mining)
    log.info("lexicon: %d attributes, %d of them learnt; tokenising texts", len(lexicon), lexicon.n_learnt)
    torch.manual_seed(run.seed)
    backbone = load_backbone(settings.backbone, (t for p in products for _, t in field_texts(p)), settings.scratch)
    tokenizer = TextTokenizer(lexicon, backbone)
    run.bm25 = BM25Index.build(product_stems(products, lexicon.analyzer))
    run.samples = Samples.collect(products, tokenizer.products(products), run.logged, tokenizer, run.bm25)
    log.info("code space: %d codes", len(run.samples.space.codes))
    if settings.teacher:
        run.samples = teach(run.samples, load_coder(Path(settings.teacher), settings.device))
    run.coder = EncoderCoder(backbone, lexicon, CodeTrie.build(run.samples.space.codes)).to(settings.device)


def train_jointly(run: TrainingRun) -> None:
    """Both sides of interactions at once (Eq. 3, with the contrastive loss)."""
    if run.joint is not None and run.joint.is_file():
        with reading_weights(run.joint, "remove it: joint training is done again"):
            run.coder.load_state_dict(load_file(run.joint))
        return
    trainer = JointTrainer(run.coder, run.samples, run.settings.training)
    checkpoint = run.work / "joint.pt"
    if not _restore(trainer, checkpoint, run.resume):
        run.coder.read_attributes()
    trainer.run(run.record, checkpoint, run.validation)
    if run.joint is not None:
        with new_file(run.joint) as draft:
            save_file({k: v.contiguous() for k, v in run.coder.state_dict().items()}, draft)


def co_train(run: TrainingRun) -> None:
    """More joint training, on what each side's codes say of the other side."""
    if not run.settings.training.co_training or not run.logged:
        return
    log.info("co-training: coding %d products and %d queries", len(run.products), len(run.samples.queries))
    run.samples = make_co_training_samples(run.coder, run.samples)
    again = run.settings.training.again(run.settings.training.co_training)
    trainer = JointTrainer(run.coder, run.samples, again, stage="co-training")
    _restore(trainer, run.work / "co-training.pt", run.resume)
    trainer.run(run.record, run.work / "co-training.pt", run.validation)


def co_align(run: TrainingRun) -> None:
    """Prefers compound codes that both sides write (Eq. 6); in a large catalogue, on a part of the products."""
    settings, samples, coder = run.settings.alignment, run.samples, run.coder
    if not settings.steps or not run.logged:
        return
    rows: list[dict[str, Any]] = [{"step": 0, "before": _compound_alone(run)}] if run.clicks else []
    some = np.unique(np.concatenate(samples.clicked))
    if len(some) > ALIGNED_ON:
        some = np.sort(np.random.default_rng(run.seed).choice(some, ALIGNED_ON, replace=False))
    row_of = number_rows(some, len(samples.products))
    clicked = [row_of[row][row_of[row] >= 0] for row in samples.clicked]
    aligned = []
    of_heads = replace(PRODUCT_CODING, descriptions=False)  # codes are of nothing else
    for side, coding, texts in (
        (Side.QUERY, replace(QUERY_CODING, near=0), samples.tokenizer.queries(samples.queries)),
        (Side.PRODUCT, of_heads, samples.tokenizer.products([samples.products[i] for i in some.tolist()])),
    ):
        codes = coder.represent_tokenized(texts, side, coding, progress="coding texts").compound
        aligned.append(AlignedTexts(texts, CompoundCodes.of(codes, len(coder.trie))))
    queries, products = aligned
    rows += CoAlignment(coder, queries, products, clicked, settings, run.seed).run()
    forget_after(run.record, -1, "co-alignment")  # a run that was stopped after it did it already
    run.write_record("co-alignment", rows)


def fit_scorer(run: TrainingRun) -> None:
    """The scorer that held-out interactions ask for."""
    scorers = fit_to_clicks(run.coder, run.products, run.bm25, run.clicks, run.seed, run.settings.without)
    run.scorer = scorers.pop(())
    run.alone = scorers


def report_health(run: TrainingRun) -> None:
    """The health of the codes, read from a part of the catalogue."""
    searcher = Searcher(run.coder, build_index(run.coder, _reported_products(run)), run.scorer)
    run.report = measure_health(searcher, run.clicks, run.samples.space)


def _compound_alone(run: TrainingRun) -> dict[str, float]:
    """What compound codes bring back alone in a part of the catalogue."""
    index = build_index(run.coder, _reported_products(run))
    queries = Searcher(run.coder, index, Scorer.default()).represent(list(run.clicks))
    relevant = [[index.table.row(p) for p in clicked] for clicked in run.clicks.values()]
    return recall_of_codes(index.compound, [query.compound for query in queries], relevant, index.n_products)


def _reported_products(run: TrainingRun) -> list[Product]:
    analyzer = run.coder.lexicon.analyzer
    return sample_products(run.products, run.bm25, run.clicks, analyzer, REPORTED_ON, run.seed)


def _restore(trainer: JointTrainer, checkpoint: Path, resume: bool) -> bool:
    """Whether the trainer goes on from a checkpoint."""
    if not (resume and checkpoint.is_file()):
        if resume:
            log.info("%s training has no checkpoint yet: it begins at step 0", trainer.stage)
        return False
    trainer.restore(checkpoint)
    log.info("%s training goes on from step %d", trainer.stage, trainer.done)
    return True
