"""Default weights by leaving one shop out: fitted on all other shops, tried on the one left.

    python scripts/shops.py FOLDER [--groups codes,words] [--pull 30]

Every folder in FOLDER is a shop: `model` and `index`, trained without a log, `queries.tsv` and `qrels.tsv`. Or FOLDER
is what `gram bench --shops` left: then the shops are its cells without a log and their queries the dev part, so that
what is chosen here has not seen the test queries that it is reported on. For each shop it prints R@10 R@100 R@300
nDCG@10 of BM25 (k1 and b of the index, all fields), of the declared weights, of weights fitted on the other shops, each
shop counting the same, and of weights fitted on the shop itself, cross-validated. At the end stand the weights of all
shops together. Features of candidates are kept, so that a second run takes seconds.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gram.data.log import read_qrels, read_queries
from gram.evaluation.measures import Result, evaluate, threshold
from gram.folders import read_json
from gram.index.segment import META, Index
from gram.ranking.candidates import FROM_POSTINGS, NEAREST, find_candidates
from gram.ranking.features import GROUPS, NAMES, columns, other_groups
from gram.ranking.fit import JudgedQuery, fit_scorer
from gram.ranking.scorer import COMPARED, Scorer
from gram.search import Searcher

MEASURES = ("R@10", "R@100", "R@300", "nDCG@10")
QUERIES = 300  # that each shop counts as, drawn again where it has fewer
FOLDS = 5


class Shop(NamedTuple):
    """A shop's judged queries: products, features and grades of each query's candidates."""

    name: str
    ids: list[list[str]]
    features: list[NDArray[np.float32]]
    qrels: dict[str, dict[str, float]]
    bm25: Result

    def judged(self, rows: Sequence[int]) -> list[JudgedQuery]:
        least, names = threshold(self.qrels), list(self.qrels)
        return [
            JudgedQuery(
                self.features[i][:COMPARED],
                np.array(
                    [float(self.qrels[names[i]].get(p, 0.0) >= least) for p in self.ids[i][:COMPARED]], np.float32
                ),
            )
            for i in rows
        ]

    def measure(self, scorers: Sequence[Scorer]) -> Result:
        """When each query's candidates are ranked by its scorer."""
        rows = zip(self.qrels, self.ids, self.features, scorers, strict=True)
        run = {q: dict(zip(ids, s.score(f).tolist(), strict=True)) for q, ids, f, s in rows}
        return evaluate(self.qrels, run, MEASURES)


class Files(NamedTuple):
    """Where a shop is: `folder` has `model`, `index` and the features that are kept; its judged queries."""

    name: str
    folder: Path
    queries: Path
    qrels: Path


def find(folder: Path) -> list[Files]:
    """The shops in a folder, those of a benchmark of many shops by their cells without a log."""
    found = []
    for path in sorted(folder.iterdir()):
        cell = path / "none"
        if (path / "qrels.tsv").is_file():
            found.append(Files(path.name, path, path / "queries.tsv", path / "qrels.tsv"))
        elif (cell / "cell.json").is_file():
            dev = cell / "data" / "dev.queries.tsv", cell / "data" / "dev.qrels.tsv"
            if read_queries(dev[0]):
                found.append(Files(path.name, cell / "engines" / "gram", *dev))
            else:
                print(f"{path.name}: no dev queries to fit on, left out")
    return found


def load(files: Files, groups: Sequence[str]) -> Shop:
    """A shop's candidates with their features, found by the declared weights of some groups, or as kept before."""
    folder, queries, qrels = files.folder, read_queries(files.queries), read_qrels(files.qrels)
    least = threshold(qrels)
    qrels = {q: qrels[q] for q in queries if any(g >= least for g in qrels.get(q, {}).values())}
    kept = folder / f"features.{'+'.join(groups)}.npz"
    first_phase = Scorer.default(groups).first_phase
    model = read_json(folder / "index" / META)["model_hash"]
    made_of = f"{model} {first_phase.tobytes().hex()} {' '.join(NAMES)}"
    if kept.is_file() and str(np.load(kept).get("made_of")) == made_of:
        arrays = np.load(kept)
        ids = [part.tolist() for part in np.split(arrays["ids"], arrays["start"])]
        features = np.split(arrays["features"], arrays["start"])
        bm25 = evaluate(qrels, json.loads(str(arrays["bm25"])), MEASURES)
        return Shop(files.name, ids, features, qrels, bm25)
    searcher = Searcher.load(folder / "index", folder / "model", check=False)
    index = searcher.index
    found, words = [], {}
    for query_id in qrels:
        query = searcher.represent([queries[query_id]], compound=False)[0]
        found.append(find_candidates(index, query, first_phase, FROM_POSTINGS + NEAREST))
        words[query_id] = best_by_words(index, searcher, queries[query_id])
    ids = [index.table.ids[c.rows].tolist() for c in found]
    np.savez(
        kept,
        made_of=made_of,
        ids=np.array([p for row in ids for p in row]),
        features=np.concatenate([c.features for c in found]),
        start=np.cumsum([len(row) for row in ids])[:-1],
        bm25=json.dumps(words),
    )
    return Shop(files.name, ids, [c.features for c in found], qrels, evaluate(qrels, words, MEASURES))


def best_by_words(index: Index, searcher: Searcher, query: str) -> dict[str, float]:
    """BM25's first 300, of the query as it is typed."""
    scores = index.bm25.score(searcher.lexicon.analyzer.stems(query))
    best = np.argsort(-scores, kind="stable")[:300]
    return {str(index.table.ids[row]): float(scores[row]) for row in best.tolist() if scores[row] > 0}


def fit(shops: Sequence[Shop], groups: Sequence[str], pull: float, rng: np.random.Generator) -> Scorer:
    """Weights that these shops ask for, each as much as any other."""
    judged = []
    for shop in shops:
        n = len(shop.ids)
        rows = rng.permutation(n)[:QUERIES] if n >= QUERIES else np.resize(rng.permutation(n), QUERIES)
        judged += shop.judged(rows.tolist())
    return fit_scorer(judged, Scorer.default(groups), without=left_out(groups), refine=False, pull=pull)


def left_out(groups: Sequence[str]) -> list[str]:
    return ["compound", *other_groups(groups)]


def cross_validate(shop: Shop, groups: Sequence[str]) -> Result:
    """Weights of the shop's own queries, each query ranked by weights fitted without it."""
    folds = np.random.default_rng(0).permutation(len(shop.ids)) % FOLDS
    start = Scorer.default(groups)
    fitted = [
        fit_scorer(shop.judged(np.flatnonzero(folds != n).tolist()), start, without=left_out(groups), refine=False)
        for n in range(FOLDS)
    ]
    return shop.measure([fitted[n] for n in folds.tolist()])


def show(name: str, result: Result) -> None:
    print(f"  {name:24}" + " ".join(f"{result.mean[m]:.4f}" for m in MEASURES), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--groups", default=",".join(GROUPS))
    parser.add_argument("--pull", type=float, default=30.0)
    given = parser.parse_args()
    groups, rng = given.groups.split(","), np.random.default_rng(0)
    columns(groups)
    found = find(given.folder)
    if len(found) < 2:
        parser.error(f"{given.folder} holds {len(found)} shops with queries to fit on; to leave one out takes two")
    shops = [load(files, groups) for files in found]
    for shop in shops:
        others = [other for other in shops if other is not shop]
        print(f"{shop.name} ({len(shop.ids)} queries)")
        show("bm25", shop.bm25)
        show("declared weights", shop.measure([Scorer.default(groups)] * len(shop.ids)))
        show("fitted on the others", shop.measure([fit(others, groups, given.pull, rng)] * len(shop.ids)))
        show("fitted on itself, cv", cross_validate(shop, groups))
    weights: Mapping[str, float] = fit(shops, groups, given.pull, rng).by_name()
    print(json.dumps({name: weight for name, weight in weights.items() if weight}, indent=1))


if __name__ == "__main__":
    main()
