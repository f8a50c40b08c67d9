"""The health of a model's codes: do they cover both sides, do the sides meet in them, do they mean what they say?

Letters: N products, Q queries, I interactions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gram.arrays import top_k
from gram.codes.space import CodeSpace
from gram.index.postings import Postings
from gram.ranking.candidates import CodedQuery
from gram.search import Searcher

BEST_OF_QUERY, BEST_OF_PRODUCT = 3, 10


def health(
    searcher: Searcher, judged: Mapping[str, Mapping[str, float]], space: CodeSpace | None = None
) -> dict[str, Any]:
    """Figures by name. `judged` maps each query to its wanted products; the log may be empty, then they are left out.

    Groundedness of queries: of the three best generated attributes of a query, its own left out, the share that a
    wanted product holds; `chance` is the same with random products. Of products: of the ten best, the share that the
    product itself or a query linked to it holds.
    """
    index, lexicon = searcher.index, searcher.lexicon
    n, generated = index.n_products, lexicon.n_generated
    own, written, deep = (p.transpose(n) for p in (index.own, index.written, index.deep))
    counts = [np.diff(p.start) for p in (own, written, deep)]
    report: dict[str, Any] = {
        "lexicon": {"attributes": len(lexicon), "generated": generated},
        "products": {
            "held_attributes": _mean(counts[0]),
            "written_attributes": _mean(counts[1]),
            "codes": _mean(counts[2]),
            "without_attribute": _mean(counts[0] + counts[1] == 0),
            "without_code": _mean(counts[2] == 0),
        },
        "codes": {"written_by_products": int((np.diff(index.deep.start) > 0).sum()), "space": len(index.trie)},
    }
    if space is not None:
        lengths = np.bincount((space.codes >= 0).sum(axis=1), minlength=5)
        report["codes"] |= {
            "by_length": {str(i): int(c) for i, c in enumerate(lengths) if c},
            "products_per_code": _mean(space.products[space.products > 0]),
        }
    report["products"]["grounded"] = _product_grounded(own, written, _linked(searcher, judged))
    if judged:
        queries = list(judged)
        coded = searcher.code(queries)
        wanted = [[index.table.position(p) for p in row] for row in judged.values()]
        report["queries"] = _queries(searcher, coded, wanted, own, written, deep)
    return report


def _queries(
    searcher: Searcher,
    coded: Sequence[CodedQuery],
    wanted: Sequence[Sequence[int]],
    own: Postings,
    written: Postings,
    deep: Postings,
) -> dict[str, Any]:
    n, random = searcher.index.n_products, np.random.default_rng(0)
    grounded, chance, silent, before, after, coded_at_all = [], [], 0, [], [], 0
    lengths: list[int] = []
    sizes = (searcher.generator.trie.table() >= 0).sum(axis=1)
    for query, products in zip(coded, wanted, strict=True):
        best = query.written[0][np.argsort(-query.written[1], kind="stable")][:BEST_OF_QUERY]
        silent += len(best) == 0
        coded_at_all += bool(len(query.own[0]) or len(query.written[0]))
        lengths += sizes[query.deep[0]].tolist()
        for product in products:
            held = own.of(product)[0]
            if len(best):
                grounded.append(float(np.isin(best, held).mean()))
                chance.append(float(np.isin(best, own.of(int(random.integers(n)))[0]).mean()))
            mine = np.concatenate([query.own[0], query.written[0]])
            theirs = np.concatenate([held, written.of(product)[0]])
            before.append(bool(np.isin(query.own[0], held).any()))
            after.append(bool(np.isin(mine, theirs).any() or np.isin(query.deep[0], deep.of(product)[0]).any()))
    reach = recall_of_codes(searcher.index.deep, [q.deep for q in coded], wanted, n)
    return {
        "held_out": len(coded),
        "without_attribute": round(1 - coded_at_all / len(coded), 4),
        "without_code": _mean(np.array([len(q.deep[0]) == 0 for q in coded])),
        "nothing_generated": round(silent / len(coded), 4),
        "held_attributes": _mean(np.array([len(q.own[0]) for q in coded])),
        "written_attributes": _mean(np.array([len(q.written[0]) for q in coded])),
        "code_lengths": {str(i): int(c) for i, c in enumerate(np.bincount(lengths, minlength=5)) if c},
        "interactions_that_meet_before_training": _mean(np.array(before)),
        "interactions_that_meet_after_training": _mean(np.array(after)),
        "codes_alone": reach,
        "grounded": _mean(np.array(grounded)),
        "grounded_by_chance": _mean(np.array(chance)),
    }


def recall_of_codes(
    postings: Postings,
    queries: Sequence[tuple[NDArray[np.int64], NDArray[np.float32]]],
    wanted: Sequence[Sequence[int]],
    n_products: int,
) -> dict[str, float]:
    """What codes of two and more attributes bring back alone: R@300, and the postings touched for it, a query.

    Args:
        postings: code → products.
        queries: the codes of each query and their weights.
        wanted: the positions of each query's wanted products.
    """
    recall, touched = [], []
    for (codes, weights), products in zip(queries, wanted, strict=True):
        best, scores = top_k(postings.score(codes, weights, n_products), 300)
        recall.append(float(np.isin(products, best[scores > 0]).mean()))
        touched.append(postings.touched(codes))
    return {"R@300": _mean(np.array(recall)), "postings_touched": _mean(np.array(touched))}


def _product_grounded(own: Postings, written: Postings, linked: Mapping[int, set[int]]) -> float:
    """Of every product's ten best attributes, the mean share that it or a query linked to it holds."""
    shares = []
    for product in range(own.n_keys):
        held, held_weight = own.of(product)
        new, new_weight = written.of(product)
        keys = np.concatenate([held, new])
        weights = np.concatenate([held_weight, new_weight])
        best = np.argsort(-weights, kind="stable")[:BEST_OF_PRODUCT]
        if len(best):
            known = best < len(held)
            asked = linked.get(product)
            if asked:
                known |= np.isin(keys[best], list(asked))
            shares.append(float(known.mean()))
    return _mean(np.array(shares))


def _linked(searcher: Searcher, judged: Mapping[str, Mapping[str, float]]) -> dict[int, set[int]]:
    """The attributes that queries linked to a product hold, by its position."""
    linked: dict[int, set[int]] = {}
    if judged:
        encoded = searcher.texts.queries(judged)
        for i, row in enumerate(judged.values()):
            for product_id in row:
                linked.setdefault(searcher.index.table.position(product_id), set()).update(encoded.held(i).tolist())
    return linked


def _mean(values: NDArray[Any]) -> float:
    return round(float(np.mean(values)), 4) if len(values) else 0.0


def text(report: Mapping[str, Any]) -> str:
    """The figures as lines for a person."""
    lines = []
    for part, figures in report.items():
        shown = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in figures.items())
        lines.append(f"{part}: {shown}")
    return "\n".join(lines)
