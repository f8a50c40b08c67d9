"""The paper's table on a generated shop: what co-training and co-alignment of a language model bring its codes alone,
and what semantic ids and term sets of the very same network find.

Every row of codes goes on from the same joint training. The controls take as many more steps without what the row is
about. The rivals begin with the same random weights and take as many steps as joint training; of their shapes the one
is trained to the end that is best on the dev part after a sixth of the steps. They search with a beam of 300, so that
as many products are found; of codes `--codes` are written of each text, with a beam as wide, for with few of them fewer
products than that share one. What a row found is kept in OUTPUT, and not trained again.

    python scripts/causal_table.py OUTPUT [--products 4000] [--steps 800] [--only "joint, semantic ids, term sets"]
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeAlias

import numpy as np

from gram.baselines.term_sets import telling_terms
from gram.bench.causal_rivals import IdWriter, TermSpace, TermWriter, Writer, lsa, search_many, train_writer
from gram.coder.base import QUERY_CODING, Side
from gram.coder.causal.coder import WritingSettings
from gram.coder.causal.language_model import LanguageModel, LanguageModelSettings
from gram.data.dataset import Dataset
from gram.data.shop.generate import generate
from gram.evaluation.comparison import table
from gram.evaluation.measures import Result, Run, evaluate, read_run, write_run
from gram.indexing import build_index
from gram.ranking.scorer import Scorer
from gram.search import Searcher
from gram.text.fields import FIELDS, joined_text
from gram.training.causal import stages as causal
from gram.training.causal.settings import CausalSettings
from gram.training.joint import TrainingSettings
from gram.training.pipeline import CAUSAL_STAGES, Stage, train
from gram.training.run import Settings

MEASURES = ("R@10", "R@100", "R@300", "nDCG@10")
DEV_QUERIES = 150
DEPTH, DEV_DEPTH = 300, 100
"""Products of a query, which is how wide the rivals' beam is, on the test part and on the dev part."""

RIVALS = ("semantic ids", "term sets")
Choices: TypeAlias = dict[str, Callable[[LanguageModel], Writer]]


@dataclass
class Experiment:
    """The shop, and how everything of the table is trained on it."""

    shop: Dataset
    settings: Settings
    output: Path
    name: str  # of what all rows share
    writing: WritingSettings  # of what is searched, not of training

    @cached_property
    def steps(self) -> tuple[int, int, int]:
        """Of joint training, co-training and co-alignment."""
        assert self.settings.causal is not None
        return self.settings.causal.chosen_stages(0, 0)

    def codes(self, more: Sequence[Stage]) -> tuple[Run, str]:
        """The test part's run by written codes alone, after joint training and these stages; and what it touched."""
        first = [stage for stage in CAUSAL_STAGES if stage.name in ("lexicon", "joint")]
        kept: list[causal.CausalRun] = []
        joint = self.output / f"joint-{self.name}.safetensors"
        stages = [*first, *more, Stage("keep", kept.append)]
        train(self.shop.products, self.shop.log, self.output / "model", self.settings, joint=joint, stages=stages)
        coder, queries = kept[0].coder.with_writing(self.writing), self.shop.parts["test"].queries
        index = build_index(coder, self.shop.products)
        scorer = Scorer.default().with_weights({"compound": 1.0})
        run = Searcher(coder, index, scorer).only(["compound"]).search_many(queries, DEPTH)
        codes = coder.represent(list(queries.values()), Side.QUERY, QUERY_CODING).compound
        touched = np.mean([index.compound.touched(codes.of(i).key) for i in range(len(queries))])
        return run, f"postings {touched:.0f}"

    def rival(self, choices: Callable[[causal.CausalRun], Choices]) -> tuple[Run, str]:
        """The test part's run by what the same network writes of products, the best of some choices."""
        run = causal.CausalRun.begin(
            self.shop.products, self.shop.log, self.settings, self.output / "rival.work", resume=False
        )
        causal.mine_lexicon(run)
        ids = [product.product_id for product in run.products]
        dev = self.shop.parts["dev"]
        some = dict(list(dev.queries.items())[:DEV_QUERIES])
        qrels = {query_id: dev.qrels[query_id] for query_id in some if query_id in dev.qrels}

        def score(writer: Writer) -> float:
            found = evaluate(qrels, search_many(writer, some, ids, DEV_DEPTH), ("R@10", "R@100", "nDCG@10"))
            return sum(found.mean.values()) / len(found.mean)

        trained = train_writer(run, choices(run), self.steps[0], -(-self.steps[0] // 6), score)
        found = search_many(trained.writer, self.shop.parts["test"].queries, ids, DEPTH)
        return found, f"{trained.choice}, best after {trained.step} steps, dev {trained.score:.3f}"


def id_choices(run: causal.CausalRun) -> Choices:
    """Ids of residual k-means of products' texts, by levels and centroids."""
    points = lsa([joined_text(product) for product in run.products], 64, run.seed)

    def maker(levels: int, most: int) -> Callable[[LanguageModel], Writer]:
        return lambda model: IdWriter.of_vectors(model, points, levels, most, run.seed)

    return {f"{levels} levels of {most}": maker(levels, most) for levels, most in ((2, 64), (3, 16))}


def term_choices(run: causal.CausalRun) -> Choices:
    """Sets of so many terms, of all fields but the description."""
    terms = telling_terms(run.products, run.logged, fields=FIELDS[:4])

    def maker(size: int) -> Callable[[LanguageModel], Writer]:
        return lambda model: TermWriter(model, TermSpace.of(terms, size))

    return {f"{size} terms": maker(size) for size in (8, 12)}


def more_steps(steps: int) -> Callable[[causal.CausalRun], None]:
    """Joint training again, half the rate: the control of co-training."""
    return lambda run: causal.train_likelihood(run, run.samples, steps, "co-training")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    parser.add_argument("--products", type=int, default=4000)
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--co-training", type=int, default=-1, help="steps; a third of joint training's by default")
    parser.add_argument("--co-alignment", type=int, default=-1, help="steps; a fifth of joint training's by default")
    parser.add_argument("--rounds", type=int, default=2, help="of co-alignment")
    parser.add_argument("--codes", type=int, default=64, help="written of each text that is searched with or for")
    parser.add_argument("--model", default="scratch")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--only", default="", help="rows to run, comma-separated")
    args = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    logging.getLogger("gram.bench").setLevel(logging.INFO)
    args.output.mkdir(parents=True, exist_ok=True)
    cot = args.steps // 3 if args.co_training < 0 else args.co_training
    coa = args.steps // 5 if args.co_alignment < 0 else args.co_alignment
    model = LanguageModelSettings(name=args.model)
    settings = Settings(
        device=args.device,
        causal=CausalSettings(model=model, steps=args.steps, co_training=cot, co_alignment=coa, rounds=args.rounds),
        training=TrainingSettings(seed=args.seed),
    )
    shop = generate(args.products, 5 * args.products, args.seed, 3 * args.products // 4)
    name = f"{args.model}-{args.products}-{args.steps}-{args.seed}".replace("/", "-")
    experiment = Experiment(shop, settings, args.output, name, WritingSettings(args.codes, args.codes, args.codes))
    by_name = {stage.name: stage for stage in CAUSAL_STAGES}
    control = Stage("more", more_steps(cot))
    rows: dict[str, Callable[[], tuple[Run, str]]] = {
        "joint": lambda: experiment.codes([]),
        "+ as many more steps": lambda: experiment.codes([control]),
        "+ co-training": lambda: experiment.codes([by_name["co-training"]]),
        "+ co-alignment": lambda: experiment.codes([by_name["co-alignment"]]),
        "+ more steps + co-alignment": lambda: experiment.codes([control, by_name["co-alignment"]]),
        "+ co-training + co-alignment": lambda: experiment.codes([by_name["co-training"], by_name["co-alignment"]]),
        RIVALS[0]: lambda: experiment.rival(id_choices),
        RIVALS[1]: lambda: experiment.rival(term_choices),
    }
    only = [row.strip() for row in args.only.split(",") if row.strip()]
    results: dict[str, Result] = {}
    for row, find in rows.items():
        if only and row not in only:
            continue
        more = "" if row in RIVALS else f"-{args.codes}"
        more += f"-{cot}-{coa}-{args.rounds}" if row.startswith("+") else ""
        path, note = args.output / f"{row.replace(' ', '_')}-{name}{more}.trec", "found before"
        if path.is_file():
            run = read_run(path)
        else:
            run, note = find()
            write_run(path, run)
        results[row] = evaluate(shop.parts["test"].qrels, run, MEASURES)
        print(row, {m: round(v, 4) for m, v in results[row].mean.items()}, note, flush=True)
    for reference in (
        "joint",
        "+ as many more steps",
        "+ co-training",
        "+ co-alignment",
        "+ co-training + co-alignment",
    ):
        if reference in results:
            print(f"against {reference}:\n{table(results, reference, markdown=True)}")


if __name__ == "__main__":
    main()
