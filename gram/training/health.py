"""The health of a model's codes: do both sides have some, do they share them, do they mean what they say?

Letters: N products, Q queries, I interactions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gram.arrays import Ints, SparseRow, top_k
from gram.coder.base import SURE_CODING, QueryRepresentation
from gram.codes.space import CodeSpace
from gram.index.postings import Postings
from gram.search import Searcher

BEST_OF_QUERY, BEST_OF_PRODUCT = 3, 10
BARE, BARE_OF_CODES = 0.02, 0.1
"""Shares of texts that may lack every attribute, or every compound code, in good health. Not tuned."""
SHARED = 0.5
"""The same of interactions that must share a code."""
ABOVE_CHANCE = 2.0
"""How many times as often as by chance what the model writes must be true."""


class _Products(NamedTuple):
    """What each product has: its row's keys are attributes or codes."""

    lexical: Postings
    expansion: Postings
    compound: Postings


def measure_health(
    searcher: Searcher, clicks: Mapping[str, Mapping[str, float]], space: CodeSpace | None = None
) -> dict[str, Any]:
    """Figures by name. `clicks` maps each query to its clicked products; without any the sides' figures are left out.

    Of queries those attributes are read that the coder is sure of: with all that it half knows, nearly any two texts
    share one.

    `grounded`, of queries: of the three best expansion attributes of a query the share that a clicked product holds. Of
    products: of the ten best expansion attributes of a product the share that a query which led to it holds.
    `grounded_by_chance`: the same with random products, or random ones of these queries.
    """
    index, n = searcher.index, searcher.index.n_products
    of = _Products(*(postings.transpose(n) for postings in (index.lexical, index.expansion, index.compound)))
    lexical, expansion, compound = (np.diff(postings.start) for postings in of)
    report: dict[str, Any] = {
        "lexicon": {"attributes": len(searcher.lexicon), "learnt": searcher.lexicon.n_learnt},
        "products": {
            "lexical": _mean(lexical),
            "expansion": _mean(expansion),
            "compound": _mean(compound),
            "without_attribute": _mean(lexical + expansion == 0),
            "without_compound": _mean(compound == 0),
        },
        "codes": {"of_products": int((np.diff(index.compound.start) > 0).sum()), "space": len(index.trie)},
    }
    if space is not None:
        lengths = np.bincount((space.codes >= 0).sum(axis=1), minlength=5)
        report["codes"] |= {
            "by_length": {str(i): int(c) for i, c in enumerate(lengths) if c},
            "products_per_code": _mean(space.products[space.products > 0]),
        }
    if clicks:
        sure = Searcher(searcher.coder, index, searcher.scorer, SURE_CODING)
        queries = sure.represent(list(clicks))
        clicked = [[index.table.row(p) for p in row] for row in clicks.values()]
        report["products"] |= _ground_products(of, queries, clicked)
        report["queries"] = _measure_queries(searcher, queries, clicked, of)
    return report


def _measure_queries(
    searcher: Searcher, queries: Sequence[QueryRepresentation], clicked: Sequence[Sequence[int]], of: _Products
) -> dict[str, Any]:
    n, rng = searcher.index.n_products, np.random.default_rng(0)
    grounded, chance, before, after = [], [], [], []
    for query, rows in zip(queries, clicked, strict=True):
        best = _heaviest(query.expansion, BEST_OF_QUERY)
        said = np.concatenate([query.lexical.key, query.expansion.key])
        for row in rows:
            lexical = of.lexical.of(row)[0]
            if len(best):
                grounded.append(float(np.isin(best, lexical).mean()))
                chance.append(float(np.isin(best, of.lexical.of(int(rng.integers(n)))[0]).mean()))
            has = np.concatenate([lexical, of.expansion.of(row)[0]])
            before.append(bool(np.isin(query.lexical.key, lexical).any()))
            shares_code = np.isin(query.compound.key, of.compound.of(row)[0]).any()
            after.append(bool(np.isin(said, has).any() or shares_code))
    sizes = (searcher.coder.trie.table() >= 0).sum(axis=1)
    lengths = np.bincount(np.concatenate([sizes[query.compound.key] for query in queries]), minlength=5)
    counts = np.array([[len(part.key) for part in (q.lexical, q.expansion, q.compound)] for q in queries])  # (Q, 3)
    return {
        "held_out": len(queries),
        "without_attribute": _mean(counts[:, 0] + counts[:, 1] == 0),
        "without_expansion": _mean(counts[:, 1] == 0),
        "without_compound": _mean(counts[:, 2] == 0),
        "lexical": _mean(counts[:, 0]),
        "expansion": _mean(counts[:, 1]),
        "compound_lengths": {str(i): int(c) for i, c in enumerate(lengths) if c},
        "interactions_sharing_a_word": _mean(np.array(before)),
        "interactions_sharing_a_code": _mean(np.array(after)),
        "compound_alone": recall_of_codes(searcher.index.compound, [q.compound for q in queries], clicked, n),
        "grounded": _mean(np.array(grounded)),
        "grounded_by_chance": _mean(np.array(chance)),
    }


def recall_of_codes(
    postings: Postings, queries: Sequence[SparseRow], relevant: Sequence[Sequence[int]], n_products: int
) -> dict[str, float]:
    """What codes bring back alone: R@300, and the postings touched for it, a query.

    Args:
        postings: code → products.
        queries: the codes of each query and their weights.
        relevant: the rows of each query's relevant products.
    """
    recall, touched = [], []
    for (codes, weights), products in zip(queries, relevant, strict=True):
        best, scores = top_k(postings.score(codes, weights, n_products), 300)
        recall.append(float(np.isin(products, best[scores > 0]).mean()))
        touched.append(postings.touched(codes))
    return {"R@300": _mean(np.array(recall)), "postings_touched": _mean(np.array(touched))}


def _ground_products(
    of: _Products, queries: Sequence[QueryRepresentation], clicked: Sequence[Sequence[int]]
) -> dict[str, float]:
    """Of clicked products' best expansion attributes the share that a query which led to them holds, beside chance."""
    asking: dict[int, set[int]] = {}
    for query, rows in zip(queries, clicked, strict=True):
        for row in rows:
            asking.setdefault(row, set()).update(query.lexical.key.tolist())
    others = list(asking.values())
    rng = np.random.default_rng(0)
    grounded, chance = [], []
    for row, attributes in asking.items():
        best = _heaviest(SparseRow(*of.expansion.of(row)), BEST_OF_PRODUCT)
        if len(best):
            grounded.append(float(np.isin(best, list(attributes)).mean()))
            chance.append(float(np.isin(best, list(others[int(rng.integers(len(others)))])).mean()))
    return {"grounded": _mean(np.array(grounded)), "grounded_by_chance": _mean(np.array(chance))}


def _heaviest(row: SparseRow, at_most: int) -> Ints:
    return row.key[np.argsort(-row.weight, kind="stable")[:at_most]]


def _mean(values: NDArray[Any]) -> float:
    return round(float(np.mean(values)), 4) if len(values) else 0.0


def format_health(report: Mapping[str, Any]) -> str:
    """What the figures say, as lines for a person; after `+` what is as it should be, after `-` what is not, and what
    to do about it. Empty for a report without figures."""
    if not report:
        return ""
    lines = [*_describe_products(report), *(_describe_queries(report["queries"]) if "queries" in report else ())]
    return "\n".join(["health of the codes (+ good, - look into it):", *lines])


def _describe_products(report: Mapping[str, Any]) -> Iterator[str]:
    lexicon, products, codes = report["lexicon"], report["products"], report["codes"]
    yield (
        f"  the shop has {lexicon['attributes']:,} attributes; the model may write {lexicon['learnt']:,} of them for "
        f"texts that lack them; {codes['space']:,} codes exist, {codes['of_products']:,} are in use"
    )
    yield (
        f"  a product holds {products['lexical']:.1f} attributes; the model writes {products['expansion']:.1f} more, "
        f"and {products['compound']:.1f} compound codes"
    )
    bare = products["without_attribute"]
    yield _judge(bare <= BARE, f"{bare:.1%} of the products have no attribute", "see that they have titles")
    bare = products["without_compound"]
    yield _judge(
        bare <= BARE_OF_CODES,
        f"{bare:.1%} have no compound code",
        "train longer, or give products brands, types, columns",
    )
    if "queries" not in report:
        fix = "see gram search … --explain"
        yield f"- whether what the model writes is true is not measured: that takes a log to hold some out of; {fix}"
    if "grounded" in products:
        yield _judge_grounded(products, "product", "asked for by a query that leads to it")


def _describe_queries(queries: Mapping[str, Any]) -> Iterator[str]:
    yield (
        f"  of {queries['held_out']:,} queries that training did not see one holds {queries['lexical']:.1f} "
        f"attributes; the model is sure of {queries['expansion']:.1f} more "
        f"({queries['without_expansion']:.0%} get none)"
    )
    bare = queries["without_attribute"]
    yield _judge(bare <= BARE, f"{bare:.1%} of them have no attribute", "their words are not the catalogue's")
    yield _judge_grounded(queries, "query", "true of a product clicked for it")
    word, code = queries["interactions_sharing_a_word"], queries["interactions_sharing_a_code"]
    shared = f"{code:.1%} of clicked products share a code with the query, {word:.1%} a word of it"
    yield _judge(code >= max(word, SHARED), shared, "codes reach no further than words: train longer, on a richer log")
    found = queries["compound_alone"]
    yield (
        f"  compound codes alone find {found['R@300']:.1%} of the clicked products among their best 300, "
        f"and read {found['postings_touched']:,.0f} postings for them"
    )


def _judge_grounded(figures: Mapping[str, Any], side: str, meant: str) -> str:
    """Whether what the model writes is true more often than as many random attributes are."""
    true, chance = figures["grounded"], figures["grounded_by_chance"]
    good = true > 0 and true >= ABOVE_CHANCE * chance
    finding = f"of what the model writes of a {side} {true:.1%} is {meant}; by chance {chance:.1%}"
    return _judge(good, finding, "train longer, or on a richer log")


def _judge(good: bool, finding: str, advice: str) -> str:
    return f"+ {finding}" if good else f"- {finding}: {advice}"
