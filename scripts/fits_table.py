"""Which rule tells a product that fits a query from one that is only near: what each keeps of the relevant ones.

    python scripts/fits_table.py SHOP …

Every SHOP is a folder with `model`, `index`, `queries.tsv` and `qrels.tsv`. For each rule and shop it prints: the share
of relevant products that fit, of those among a query's first 300; of judged products that fit among these, the share
that is relevant; of the first ten of those that fit by rising price, the share that is relevant (- without prices); the
median number of products that fit a query; the share of its queries that nothing fits; and that of 40 queries which
few shops have anything for. Where qrels name relevant products alone, all others count as judged
irrelevant, so that the second and third figures are lower bounds.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from gram.coder.base import QueryRepresentation
from gram.data.log import read_qrels, read_queries
from gram.evaluation.measures import threshold
from gram.ranking.candidates import Candidates, Part, find_in_parts
from gram.ranking.features import NAMES
from gram.ranking.fits import ORDINARY, find_fitting
from gram.search import Searcher

FIRST = 300
NOWHERE = [
    "zebra submarine", "qwxzv plorf", "asdfgh jklqw", "nuclear reactor fuel rods", "giraffe saddle",
    "moon rock meteorite", "cathedral organ pipes", "live octopus", "helicopter rotor blades", "wedding priest",
    "used passport", "dinosaur fossil egg", "kangaroo", "parliament election ballot", "unicorn milk",
    "airline ticket to paris", "crocodile sushi", "opera tickets", "submarine periscope", "antique viking longship",
    "mortgage loan", "astronaut helmet", "volcano insurance", "xylotomous frobnicator", "fjord ferry timetable",
    "penguin egg omelette", "pterodactyl", "orchestra conductor", "glacier", "quantum entanglement textbook",
    "elephant ivory tusk", "heart transplant", "satellite launch", "sarcophagus pharaoh", "hockey zamboni",
    "iceberg lettuce seeds tractor", "kidney", "lawyer divorce", "blorptastic wug", "tax refund",
]  # fmt: skip


class Row(NamedTuple):
    """What a rule does to a shop's queries; `by_price` is not a number where nothing has a price."""

    recall: float
    precision: float
    by_price: float
    fitting: float
    none: float
    none_of_nowhere: float

    def __str__(self) -> str:
        by_price = "-" if np.isnan(self.by_price) else f"{self.by_price:.3f}"
        none = f"{self.none:.3f} {self.none_of_nowhere:.2f}"
        return f"{self.recall:.3f} {self.precision:.3f} {by_price} {self.fitting:.0f} {none}"


class Found(NamedTuple):
    """One query's candidates, the best first."""

    query: QueryRepresentation
    candidates: Candidates
    scores: NDArray[np.float32]  # (C,)
    grades: NDArray[np.float32]  # (C,) −1 where nobody judged


Rule: TypeAlias = Callable[[Searcher, Found], NDArray[np.bool_]]


def at_least(name: str, least: float) -> Rule:
    column = NAMES.index(name)
    return lambda _, found: found.candidates.features[:, column] >= least


def behind_best(most: float) -> Rule:
    return lambda _, found: found.scores >= found.scores.max(initial=0) - most


def built(fit: float) -> Rule:
    """What a shop's search does among the candidates."""
    return lambda searcher, found: find_fitting(found.candidates, found.query, searcher.lexicon, fit).fits


def _either(found: Found) -> NDArray[np.float32]:
    shares = found.candidates.features[:, [NAMES.index("code_share"), NAMES.index("idf_coverage")]]
    return np.asarray(shares.max(1), dtype=np.float32)


RULES: dict[str, Rule] = {
    "every candidate": built(0),
    **{f"share of codes ≥ {t}": at_least("code_share", t) for t in (0.2, 0.3, 0.5)},
    **{f"weakest code ≥ {t}": at_least("weakest_code", t) for t in (0.01, 0.3)},
    **{f"share of words by idf ≥ {t}": at_least("idf_coverage", t) for t in (0.2, 0.3, 0.5)},
    "share of codes or words ≥ 0.3": lambda _, found: _either(found) >= 0.3,
    **{f"score ≥ best − {d}": behind_best(d) for d in (4, 8, 11)},
    **{f"fit {fit}": built(fit) for fit in (0.3, 0.38, 0.5, 0.6, 0.7)},
    "fit 0.38, share of codes or words ≥ 0.1": lambda searcher, found: (
        built(0.38)(searcher, found) & (_either(found) >= 0.1)
    ),
}


def search(searcher: Searcher, query: str, grades: Mapping[str, float]) -> Found:
    read, first_phase = searcher.represent([query], compound=False)[0], searcher.scorer.first_phase
    found = find_in_parts([Part(searcher.index)], read, first_phase, ordinary=ORDINARY)
    scores = searcher.scorer.score(found.features)
    order = np.argsort(-scores, kind="stable")
    ids = searcher.index.table.ids[found.rows[order]].tolist()
    candidates = Candidates(found.rows[order], found.features[order], found.ordinary)
    return Found(read, candidates, scores[order], np.array([grades.get(i, -1) for i in ids], dtype=np.float32))


def relevant_by_price(found: Found, fits: NDArray[np.bool_], prices: NDArray[np.float64], least: float) -> float:
    """The share of relevant ones among the first ten that fit by rising price."""
    price = prices[found.candidates.rows]
    rows = np.flatnonzero(fits & ~np.isnan(price))
    return (
        float((found.grades[rows[np.argsort(price[rows], kind="stable")[:10]]] >= least).mean()) if len(rows) else 0.0
    )


def measure(folder: Path) -> dict[str, Row]:
    searcher = Searcher.load(folder / "index", folder / "model", check=False)
    queries, qrels = read_queries(folder / "queries.tsv"), read_qrels(folder / "qrels.tsv")
    least = threshold(qrels)
    unjudged = not any(grade < least for grades in qrels.values() for grade in grades.values())
    found = [search(searcher, text, qrels.get(query_id, {})) for query_id, text in queries.items()]
    nowhere = [search(searcher, text, {}) for text in NOWHERE]
    prices = np.array([np.nan if product.price is None else product.price for product in searcher.index.table])
    table = {}
    for name, rule in RULES.items():
        fits = [rule(searcher, one) for one in found]
        first, grade = (np.concatenate([row[:FIRST] for row in rows]) for rows in (fits, [one.grades for one in found]))
        relevant, judged = grade >= least, (grade >= 0) | unjudged
        counts = np.array([row.sum() for row in fits])
        none = np.mean([not rule(searcher, one).any() for one in nowhere])
        precision = float((first & relevant).sum() / max((first & judged).sum(), 1))
        recall = float((first & relevant).sum() / relevant.sum())
        by_price = [relevant_by_price(one, row, prices, least) for one, row in zip(found, fits, strict=True)]
        cheap = float("nan") if np.isnan(prices).all() else float(np.mean(by_price))
        empty = float(np.mean(counts == 0))
        table[name] = Row(recall, precision, cheap, float(np.median(counts)), empty, float(none))
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shops", type=Path, nargs="+")
    given = parser.parse_args()
    tables = [measure(folder) for folder in given.shops]
    print(f"| rule | {' | '.join(folder.name for folder in given.shops)} |\n|---|{'---|' * len(tables)}")
    for name in RULES:
        cells = [str(table[name]) for table in tables]
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
