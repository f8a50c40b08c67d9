"""The paper's table on a generated shop: what co-training and co-alignment of a language model bring its codes alone.

Every row goes on from the same joint training. The controls take as many more steps without what the row is about.

    python scripts/causal_table.py OUTPUT [--products 4000] [--steps 800]
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np

from gram.coder.base import QUERY_CODING, Side
from gram.coder.causal.language_model import LanguageModelSettings
from gram.data.shop.generate import generate
from gram.evaluation.comparison import table
from gram.evaluation.measures import Result, evaluate
from gram.indexing import build_index
from gram.ranking.scorer import Scorer
from gram.search import Searcher
from gram.training.causal import stages as causal
from gram.training.causal.settings import CausalSettings
from gram.training.joint import TrainingSettings
from gram.training.pipeline import CAUSAL_STAGES, Stage, train
from gram.training.run import Settings

MEASURES = ("R@10", "R@100", "R@300", "nDCG@10")


def more_steps(steps: int) -> Callable[[causal.CausalRun], None]:
    """Joint training again, half the rate: the control of co-training."""
    return lambda run: causal.train_likelihood(run, run.samples, steps, "co-training")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    parser.add_argument("--products", type=int, default=4000)
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--model", default="scratch")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--only", default="", help="rows to run, comma-separated")
    args = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    args.output.mkdir(parents=True, exist_ok=True)
    shop = generate(args.products, 5 * args.products, args.seed, 3 * args.products // 4)
    test = shop.parts["test"]
    cot, coa = args.steps // 3, args.steps // 5
    model = LanguageModelSettings(name=args.model)
    settings = Settings(
        device=args.device,
        causal=CausalSettings(model=model, steps=args.steps, co_training=cot, co_alignment=coa),
        training=TrainingSettings(seed=args.seed),
    )
    by_name = {stage.name: stage for stage in CAUSAL_STAGES}
    first = [by_name["lexicon"], by_name["joint"]]
    control = Stage("more", more_steps(cot))
    rows = {
        "joint": [],
        "+ as many more steps": [control],
        "+ co-training": [by_name["co-training"]],
        "+ co-alignment": [by_name["co-alignment"]],
        "+ more steps + co-alignment": [control, by_name["co-alignment"]],
        "+ co-training + co-alignment": [by_name["co-training"], by_name["co-alignment"]],
    }
    only = [name.strip() for name in args.only.split(",") if name.strip()]
    results: dict[str, Result] = {}
    for name, more in rows.items():
        if only and name not in only:
            continue
        kept: list[causal.CausalRun] = []
        last = Stage("keep", kept.append)
        joint = args.output / f"joint-{args.model}-{args.products}-{args.steps}-{args.seed}.safetensors".replace(
            "/", "-"
        )
        train(shop.products, shop.log, args.output / "model", settings, joint=joint, stages=[*first, *more, last])
        coder = kept[0].coder
        index = build_index(coder, shop.products)
        scorer = Scorer.default().with_weights({"compound": 1.0})
        searcher = Searcher(coder, index, scorer).only(["compound"])
        run = searcher.search_many(test.queries, 300)
        results[name] = evaluate(test.qrels, run, MEASURES)
        queries = coder.represent(list(test.queries.values()), Side.QUERY, QUERY_CODING).compound
        touched = np.mean([index.compound.touched(queries.of(i).key) for i in range(len(test.queries))])
        print(name, {m: round(v, 4) for m, v in results[name].mean.items()}, f"postings {touched:.0f}", flush=True)
    for reference in ("joint", "+ as many more steps"):
        if reference in results:
            print(f"against {reference}:\n{table(results, reference, markdown=True)}")


if __name__ == "__main__":
    main()
