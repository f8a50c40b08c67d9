"""The stages of a language model's training, in the order in which they run."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from gram.coder.base import Side
from gram.coder.causal.coder import CausalCoder
from gram.coder.causal.loading import check_language_model, load_language_model
from gram.coder.causal.text import write_prompt
from gram.codes.mining import mine
from gram.codes.trie import CodeTrie
from gram.errors import SettingError
from gram.folders import new_file
from gram.index.bm25 import BM25Index
from gram.indexing import product_stems
from gram.training.causal.co_alignment import CausalCoAlignment
from gram.training.causal.co_training import make_co_training_samples
from gram.training.causal.likelihood import LikelihoodTrainer
from gram.training.causal.samples import CodeSamples
from gram.training.causal.settings import CausalSettings
from gram.training.checkpoints import forget_after, reading_weights
from gram.training.run import Run
from gram.training.scoring import fit_to_clicks

log = logging.getLogger("gram.train")

VALIDATED_ON = 500  # held-out queries whose codes' loss decides when to stop


@dataclass
class CausalRun(Run):
    """A run that trains a language model. The first stage makes `coder` and `samples`."""

    coder: CausalCoder = field(init=False)
    samples: CodeSamples = field(init=False)

    @property
    def causal(self) -> CausalSettings:
        found = self.settings.causal
        if found is None:
            raise SettingError("no language model is named to train")
        return found

    @property
    def steps(self) -> tuple[int, int, int]:
        """Of joint training, co-training and co-alignment."""
        return self.causal.chosen_stages(len(self.samples.queries), len(self.products))


def mine_lexicon(run: CausalRun) -> None:
    """The shop's attributes, the space of codes, and a language model that has written none yet."""
    settings, products = run.settings, run.products
    check_language_model(run.causal.model)
    log.info("finding the attributes of %d products and %d interactions", len(products), len(run.logged))
    lexicon = mine(products, run.logged, settings.mining)
    samples = run.samples = CodeSamples.collect(lexicon, products, run.logged)
    log.info(
        "lexicon: %d attributes, %d of them learnt; %d codes", len(lexicon), lexicon.n_learnt, len(samples.space.codes)
    )
    torch.manual_seed(run.seed)
    lines = (samples.line_of(code) for code in range(0, len(samples.space.codes), 7))
    texts = [write_prompt(product, Side.PRODUCT) for product in products] + samples.queries
    model = load_language_model(run.causal.model, [*texts, *lines], settings.device)
    trie, counts = CodeTrie.build(samples.space.codes), samples.space.products.astype(np.int64)
    run.coder = CausalCoder(model, lexicon, trie, counts, run.causal.writing)
    run.bm25 = BM25Index.build(product_stems(products, lexicon.analyzer))
    every, trained = (sum(w.numel() for w in model.parameters() if w.requires_grad or both) for both in (True, False))
    log.info("%s: %.1f million weights, %.1f trained", run.causal.model.name, every / 1e6, trained / 1e6)


def train_jointly(run: CausalRun) -> None:
    """Both sides at once: L_q + λ·L_p (Eq. 3)."""
    model = run.coder.model
    if run.joint is not None and run.joint.is_file():
        with reading_weights(run.joint, "remove it: joint training is done again"):
            model.load_trained(load_file(run.joint))
        return
    train_likelihood(run, run.samples, run.steps[0], "joint")
    if run.joint is not None:
        with new_file(run.joint) as draft:
            save_file({k: v.detach().clone().contiguous() for k, v in model.trainable().items()}, draft)


def co_train(run: CausalRun) -> None:
    """As many more steps on what each side's codes say of the other side."""
    steps = run.steps[1]
    if not steps or not run.samples.queries:
        return
    taught = make_co_training_samples(run.coder, run.samples, run.causal.texts, run.seed)
    held_out = _held_out_samples(run)
    if held_out:
        held_out = held_out.in_space(run.samples.space)  # whose numbers the coder writes
        held_out = make_co_training_samples(run.coder, held_out, run.causal.texts, run.seed)
    train_likelihood(run, taught, steps, "co-training", held_out)


def co_align(run: CausalRun) -> None:
    """Prefers the codes that both sides write (Eq. 6)."""
    steps = run.steps[2]
    if not steps or not run.samples.queries:
        return
    forget_after(run.record, -1, "co-alignment")  # a run that was stopped after it did it already
    rows = CausalCoAlignment(run.coder, run.samples, run.causal, run.seed).run(steps)
    run.write_record("co-alignment", rows)


def fit_scorer(run: CausalRun) -> None:
    """The scorer that held-out interactions ask for; what the model writes has a part in it."""
    scorers = fit_to_clicks(
        run.coder, run.products, run.bm25, run.clicks, run.seed, run.settings.without, compound=True
    )
    run.scorer = scorers.pop(())
    run.alone = scorers


def train_likelihood(
    run: CausalRun, samples: CodeSamples, steps: int, stage: str, held_out: CodeSamples | None = None
) -> None:
    """So many steps on the samples' targets, from the checkpoint where the run is resumed.

    `held_out` are what it stops by: held-out queries with targets of the same kind. With joint training's targets
    co-training would only seem to get worse, and end where it began.
    """
    trainer = LikelihoodTrainer(run.coder.model, samples, run.causal, steps, run.seed, stage)
    checkpoint = run.work / f"{stage}.pt"
    if run.resume and checkpoint.is_file():
        trainer.restore(checkpoint)
        log.info("%s training goes on from step %d", stage, trainer.done)
    validation = None
    if held_out := held_out or _held_out_samples(run):
        rng = np.random.default_rng(run.seed)
        validation = held_out.all_of(range(len(held_out.queries)), VALIDATED_ON, rng)
    trainer.run(run.record, checkpoint, validation)


def _held_out_samples(run: CausalRun) -> CodeSamples | None:
    """Held-out queries with the codes that targets make of them; none where nothing is held out."""
    return CodeSamples.collect(run.coder.lexicon, run.products, run.held_out) if run.held_out else None
