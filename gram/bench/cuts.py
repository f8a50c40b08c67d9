"""What the benchmark looks at beside the mean: groups of queries, groups of products, misspelt queries.

Q queries, P products.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Mapping, Sequence

from gram.data.log import Qrels
from gram.evaluation.groups import misspell_query, no_common_word, with_numbers
from gram.evaluation.measures import ranking, relevant, threshold
from gram.records import Interaction, Product
from gram.text.analysis import default_analyzer
from gram.text.fields import FIELDS
from gram.text.words import stems


def query_cuts(
    products: Sequence[Product], log: Sequence[Interaction], queries: Mapping[str, str], qrels: Qrels
) -> dict[str, list[str]]:
    """Groups of the judged queries by name, query ids in each.

    `head` and `tail` are the thirds of the queries that searchers ask for most and least (see `demand`); without a log
    there are none. Groups may be empty.
    """
    judged = {query_id: queries[query_id] for query_id in relevant(qrels) if query_id in queries}
    cuts: dict[str, list[str]] = {}
    if log:
        times = demand(judged, log)
        order = sorted(judged, key=lambda query_id: (-times[query_id], query_id))
        third = len(order) // 3
        if third:
            cuts |= {"head": order[:third], "tail": order[-third:]}
    kept = {query_id: qrels[query_id] for query_id in judged}
    cuts["no common word (title)"] = no_common_word(judged, kept, products, ("title",))
    cuts["no common word (any field)"] = no_common_word(judged, kept, products, FIELDS)
    cuts["numbers"] = with_numbers(judged)
    return cuts


def demand(queries: Mapping[str, str], log: Sequence[Interaction]) -> dict[str, int]:
    """How often searchers ask for each query: how many of the log's queries hold its rarest word.

    Where most of the queries stand in the log themselves, their own interactions are counted instead. Test queries are
    mostly kept out of the log, so that a query's own count says nothing; how usual its words are still does.

    >>> log = [Interaction("red shoe", "a"), Interaction("blue shoe", "b")]
    >>> demand({"1": "shoes", "2": "red shoes", "3": "the green shoe"}, log)
    {'1': 2, '2': 1, '3': 0}
    """
    times = Counter(i.query for i in log)
    if 2 * sum(query in times for query in queries.values()) > len(queries):
        return {query_id: times[query] for query_id, query in queries.items()}
    holding = Counter(stem for query in times for stem in set(stems(query)))
    found = {}
    for query_id, query in queries.items():
        words = set(stems(query)) - default_analyzer().stopwords
        found[query_id] = min((holding[word] for word in words), default=0)
    return found


def by_training(qrels: Qrels, log: Sequence[Interaction]) -> dict[str, dict[str, dict[str, float]]]:
    """The relevant judgements in two parts: products `seen` in training interactions, and `unseen` ones.

    A query stands in a part only with relevant products there.
    """
    seen = {i.product_id for i in log}
    parts: dict[str, dict[str, dict[str, float]]] = {"seen": {}, "unseen": {}}
    for query_id, relevant_ids in relevant(qrels).items():
        for product_id in relevant_ids:
            part = parts["seen" if product_id in seen else "unseen"]
            part.setdefault(query_id, {})[product_id] = qrels[query_id][product_id]
    return parts


def relevance_rate(qrels: Qrels, run: Mapping[str, Mapping[str, float]], k: int = 10) -> dict[str, float]:
    """Of the judged products among a query's first k, the share that is relevant; queries with none are left out.

    >>> relevance_rate({"q": {"a": 1, "b": 0}, "r": {"a": 1}}, {"q": {"a": 3.0, "x": 2.0, "b": 1.0}, "r": {"x": 1.0}})
    {'q': 0.5}
    """
    least = threshold(qrels)
    found = {}
    for query_id in relevant(qrels):
        grades = [qrels[query_id][p] for p in ranking(run.get(query_id, {}))[:k] if p in qrels[query_id]]
        if grades:
            found[query_id] = sum(grade >= least for grade in grades) / len(grades)
    return found


def misspelt_queries(queries: Mapping[str, str], seed: int) -> dict[str, str]:
    """Each query with one typo, those left out that have no word long enough for one.

    A query's typo depends on its id and the seed, not on the other queries.
    """
    made = {q: misspell_query(query, zlib.crc32(f"{seed} {q}".encode())) for q, query in queries.items()}
    return {query_id: query for query_id, query in made.items() if query != queries[query_id]}
