"""How good a run is, per query and on the mean.

A run scores products: query id → product id → score. A judged query that a run does not answer scores 0.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from gram.data.tables import read_table
from gram.errors import BadRow, MissingExtra, SettingError
from gram.folders import new_file

Run: TypeAlias = dict[str, dict[str, float]]
"""Query id → product id → score, higher is better."""

DEFAULT = ("R@10", "R@100", "R@300", "nDCG@10", "RR", "Success@10", "Success@100")
"""Measures by their names in ir_measures. Recall, RR and Success ask whether a product is relevant, nDCG how much."""

_GRADE_STEPS = 100  # trec_eval wants whole grades; nDCG does not change when all grades are multiplied by one number
_TREC = ("query_id", "Q0", "product_id", "rank", "score", "tag")


class Result(NamedTuple):
    """A run's measures.

    `mean` maps a measure to its mean over the judged queries, `per_query` maps it to query id → value. `left_out`
    counts queries of the qrels without a relevant product, `unanswered` judged queries that the run lacks (they scored
    0), and `unknown` queries of the run that the qrels lack (they were ignored).
    """

    mean: dict[str, float]
    per_query: dict[str, dict[str, float]]
    left_out: int = 0
    unanswered: int = 0
    unknown: int = 0


def threshold(qrels: Mapping[str, Mapping[str, float]]) -> int:
    """The least relevant grade: 2 where any grade exceeds 1, else 1."""
    return 2 if any(grade > 1 for grades in qrels.values() for grade in grades.values()) else 1


def relevant(qrels: Mapping[str, Mapping[str, float]]) -> dict[str, list[str]]:
    """The relevant products of each query that has any.

    >>> relevant({"a": {"x": 1, "y": 3}, "b": {"x": 1}})
    {'a': ['y']}
    """
    least = threshold(qrels)
    found = {q: [p for p, grade in grades.items() if grade >= least] for q, grades in qrels.items()}
    return {query_id: products for query_id, products in found.items() if products}


def ranking(scores: Mapping[str, float]) -> list[str]:
    """Product ids, best first; equal scores in the order of their ids.

    >>> ranking({"b": 1.0, "a": 1.0, "c": 2.0})
    ['c', 'a', 'b']
    """
    return sorted(scores, key=lambda product_id: (-scores[product_id], product_id))


def read_run(path: str | Path) -> Run:
    """A TREC run file: query_id Q0 product_id rank score tag, apart by white space. Scores decide, ranks are not read.

    Raises DataError for a file that cannot be read, and BadRow for a row that is not of that form.
    """
    run: Run = {}
    for row in read_table(path, encoding="utf-8-sig", delimiter=" ", header=_TREC).rows:
        query_id, product_id, text = row.cells["query_id"], row.cells["product_id"], row.cells["score"]
        try:
            score = float(text if "_" not in text else "nan")  # Python reads 1_0 as 10
        except ValueError:
            score = math.nan
        if not math.isfinite(score):
            raise BadRow(path, row.line, "not a number", "write the score as a number.", "score", text)
        scores = run.setdefault(query_id, {})
        if product_id in scores:
            problem = "stands twice under one query"
            raise BadRow(path, row.line, problem, "keep one row of it.", "product_id", product_id)
        scores[product_id] = score
    return run


def check_ids(ids: Iterable[str]) -> None:
    """Raises SettingError for an id or a tag that a run file cannot hold: an empty one, or with white space in it."""
    for word in ids:
        if len(word.split()) != 1 or word.strip() != word:
            raise SettingError(f"A run cannot hold '{word}'. Fix: no white space in ids and tags, none empty.")


def write_run(path: str | Path, run: Mapping[str, Mapping[str, float]], tag: str = "gram") -> None:
    """Writes a TREC run file that appears whole or not at all; ranks follow `ranking`.

    Raises SettingError for an id or a tag with white space in it, which the format cannot hold, and for a NaN score.
    """
    rows = []
    check_ids([tag])
    for query_id, scores in run.items():
        check_ids([query_id, *scores])
        for rank, product_id in enumerate(ranking(scores), start=1):
            score = float(scores[product_id])
            if math.isnan(score):
                raise SettingError(f"Query '{query_id}', product '{product_id}': a score that is not a number.")
            rows.append(f"{query_id} Q0 {product_id} {rank} {score!r} {tag}\n")
    with new_file(path) as draft, draft.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(rows)


def evaluate(
    qrels: Mapping[str, Mapping[str, float]],
    run: Mapping[str, Mapping[str, float]],
    measures: Sequence[str] = DEFAULT,
) -> Result:
    """A run's measures against judgements.

    Relevant is a grade ≥ 2 where any grade of the qrels exceeds 1, else ≥ 1, unless a measure says otherwise, as in
    "R(rel=3)@10". Queries without a relevant product are left out. Raises MissingExtra without the extra `eval`.
    """
    least = threshold(qrels)
    parsed = _parse(measures, least)
    judged = list(relevant(qrels))
    grades = {q: {p: round(grade * _GRADE_STEPS) for p, grade in qrels[q].items()} for q in judged}
    ranked = {  # ranks as scores, so that trec_eval's own rule for ties and its 32-bit scores decide nothing
        q: {product_id: float(-rank) for rank, product_id in enumerate(ranking(run[q]))} for q in judged if run.get(q)
    }
    per_query = {name: dict.fromkeys(judged, 0.0) for name in parsed}
    if ranked:
        import ir_measures

        names: dict[Any, list[str]] = {}
        for name, measure in parsed.items():
            names.setdefault(measure, []).append(name)
        answered = {q: grades[q] for q in ranked}
        for row in ir_measures.iter_calc(list(names), answered, ranked):
            for name in names[row.measure]:
                per_query[name][row.query_id] = float(row.value)
    mean = {name: math.fsum(values.values()) / max(len(values), 1) for name, values in per_query.items()}
    unknown = sum(query_id not in qrels for query_id in run)
    return Result(mean, per_query, len(qrels) - len(judged), len(judged) - len(ranked), unknown)


def _parse(measures: Sequence[str], least: int) -> dict[str, Any]:
    """Measures by name, with the grades that count as relevant set, in steps of a hundredth of a grade."""
    try:
        import ir_measures
    except ImportError as error:
        raise MissingExtra("Evaluation", "eval") from error
    parsed = {}
    for name in measures:
        try:
            measure = ir_measures.parse_measure(name)
        except (NameError, ValueError, TypeError, SyntaxError) as error:
            raise SettingError(f"ir_measures knows no measure '{name}'. Fix: write it as in {DEFAULT}.") from error
        if "rel" in measure.SUPPORTED_PARAMS:
            measure = measure(rel=round(measure.params.get("rel", least) * _GRADE_STEPS))
        parsed[name] = measure
    return parsed
