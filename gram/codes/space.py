"""The code space: which compound codes exist, and which of them a text should write.

Letters: N texts, S attributes of a text that may combine, C codes of the space, X candidate codes of all texts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gram.arrays import offsets
from gram.codes.lexicon import Lexicon
from gram.codes.targets import Targets
from gram.codes.trie import MAX_LENGTH
from gram.errors import SettingError

LONGEST = 4
"""Attributes of the longest code that is made; the trie holds up to six, for those that a person adds."""

MAX_LEARNT = 65_535
"""Learnt attributes of the largest lexicon that a code space can be made of: a code of LONGEST fits in 64 bits."""


GAINED = 0.5
"""What the codes that a text gains weigh together beside its own, when all are sure. Not tuned."""

QUERY_SHARE = 5.0
"""Products that a query counts as that shares a code with one, where there are more codes than may be. Not tuned."""


@dataclass(frozen=True)
class SpaceSettings:
    """How many codes to make of texts' targets. No number is tuned; what they give is in docs/log.md, "Code space"."""

    combined: int = 6  # a product's best attributes that combine; of a query's two more
    max_codes: int = 250_000
    min_products: int = 2  # that a code brings back


class CodeTargets(NamedTuple):
    """Codes that each text should write, in CSR form: `code[start[i] : start[i + 1]]` with weights that sum to 1."""

    start: NDArray[np.int64]  # (N + 1,)
    code: NDArray[np.int64]  # ids of the space
    weight: NDArray[np.float32]


class CodeSpace(NamedTuple):
    """`codes` (C, 6) padded with −1, in slot order: the one-attribute codes first; `products` (C,) that write each."""

    codes: NDArray[np.int32]
    products: NDArray[np.int32]
    of_queries: CodeTargets
    of_products: CodeTargets


def make_space(
    lexicon: Lexicon, of_queries: Targets, of_products: Targets, settings: SpaceSettings | None = None
) -> CodeSpace:
    """The codes that products and their searchers share most, and each text's part of them.

    A text's candidates are all subsets of two to four of its best attributes, best by target weight × idf, none
    repeating another's words. A code exists when at least two products, or a query and a product, have it among their
    candidates. A code's weight for a text is its retrieval efficiency: how sure the text is of all its attributes,
    times how few products share it.
    """
    settings = settings or SpaceSettings()
    wide = SpaceSettings(settings.combined + 2, settings.max_codes, settings.min_products)
    query_of, query_codes, query_sure = _make_candidates(lexicon, of_queries, wide)
    product_of, product_codes, product_sure = _make_candidates(lexicon, of_products, settings)
    keys = np.concatenate([_make_keys(product_codes, lexicon.n_learnt), _make_keys(query_codes, lexicon.n_learnt)])
    unique, first, row_of = np.unique(keys, return_index=True, return_inverse=True)
    n_product_side = len(product_codes)
    by_product = np.bincount(row_of[:n_product_side], minlength=len(unique))
    by_query = np.bincount(row_of[n_product_side:], minlength=len(unique))
    exists = (by_product >= settings.min_products) | ((by_query > 0) & (by_product > 0))
    worth = np.where(exists, by_product + QUERY_SHARE * np.minimum(by_query, by_product), -1.0)
    kept = np.argsort(-worth, kind="stable")[: min(settings.max_codes, int(exists.sum()))]
    kept.sort()
    n_single = lexicon.n_learnt
    new_id = np.full(len(unique), -1, dtype=np.int64)
    new_id[kept] = n_single + np.arange(len(kept))
    codes = np.full((n_single + len(kept), MAX_LENGTH), -1, dtype=np.int32)
    codes[:n_single, 0] = np.arange(n_single)
    every = np.concatenate([product_codes, query_codes])
    codes[n_single:, :LONGEST] = every[first[kept]]
    products = np.concatenate([lexicon.products[:n_single].astype(np.int32), by_product[kept].astype(np.int32)])
    rarity = np.log((lexicon.n_products + 1) / (products + 0.5)).clip(0.1)
    ids = new_id[row_of]

    def targets(of: NDArray[np.int64], code: NDArray[np.int64], sure: NDArray[np.float32], n: int) -> CodeTargets:
        known = code >= 0
        of, code, weight = of[known], code[known], sure[known] * rarity[code[known]]
        total = np.bincount(of, weight, minlength=n)
        start = offsets(np.bincount(of, minlength=n))
        return CodeTargets(start, code, (weight / np.maximum(total[of], 1e-9)).astype(np.float32))

    return CodeSpace(
        codes,
        products,
        targets(query_of, ids[n_product_side:], query_sure, len(of_queries.start) - 1),
        targets(product_of, ids[:n_product_side], product_sure, len(of_products.start) - 1),
    )


def _make_candidates(
    lexicon: Lexicon, targets: Targets, settings: SpaceSettings
) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.float32]]:
    """Of every text in turn: its number (X,), a code (X, LONGEST) padded with −1, and how sure it is of it (X,)."""
    words = [set(forms[0]) for forms in lexicon.forms[: lexicon.n_learnt]]
    order = lexicon.slot_ids.astype(np.int64) * len(lexicon) + np.arange(len(lexicon))
    by_size: dict[int, tuple[list[int], list[list[tuple[int, float]]]]] = {}
    for i in range(len(targets.start) - 1):
        best = _choose_best(*targets.row(i), lexicon.idf, words, settings.combined)
        best.sort(key=lambda pair: order[pair[0]])
        texts, rows = by_size.setdefault(len(best), ([], []))
        texts.append(i)
        rows.append(best)
    of, codes, sure = [np.zeros(0, np.int64)], [np.zeros((0, LONGEST), np.int32)], [np.zeros(0, np.float32)]
    for size in sorted(size for size in by_size if size >= 2):
        table = np.array(by_size[size][1], dtype=np.float64).reshape(-1, size, 2)  # (texts, size, attribute and weight)
        for length in range(2, min(size, LONGEST) + 1):
            for subset in combinations(range(size), length):
                code = np.full((len(table), LONGEST), -1, dtype=np.int32)
                code[:, :length] = table[:, list(subset), 0]
                of.append(np.array(by_size[size][0], dtype=np.int64))
                codes.append(code)
                sure.append((table[:, list(subset), 1].prod(axis=1) ** (1 / length)).astype(np.float32))
    by_text = np.argsort(np.concatenate(of), kind="stable")
    return np.concatenate(of)[by_text], np.concatenate(codes)[by_text], np.concatenate(sure)[by_text]


def _choose_best(
    attributes: NDArray[np.int32],
    weights: NDArray[np.float32],
    idf: NDArray[np.float32],
    words: Sequence[set[str]],
    limit: int,
) -> list[tuple[int, float]]:
    """The best attributes by weight × idf of which none repeats a word of a better one."""
    chosen: list[tuple[int, float]] = []
    used: set[str] = set()
    for j in np.argsort(-weights * idf[attributes], kind="stable").tolist():
        attribute = int(attributes[j])
        if used.isdisjoint(words[attribute]):
            chosen.append((attribute, float(weights[j])))
            used |= words[attribute]
            if len(chosen) == limit:
                break
    return chosen


def _make_keys(codes: NDArray[np.int32], n_learnt: int) -> NDArray[np.uint64]:
    """One number a code, (X,), that rises with the code. Lexical attributes stand in none, however many there are."""
    base = n_learnt + 1
    if base**LONGEST > 2**64:
        raise SettingError(
            f"{n_learnt} learnt attributes are too many for codes of {LONGEST}."
            f" Fix: mine the lexicon with max_learnt={MAX_LEARNT} or fewer"
        )
    keys = np.zeros(len(codes), dtype=np.uint64)
    for column in codes.T:
        keys = keys * np.uint64(base) + (column + 1).astype(np.uint64)
    return keys


def add_targets(targets: CodeTargets, gained: Mapping[int, Mapping[int, float]]) -> CodeTargets:
    """Targets with what some texts gained, {text: {code: share}}; the weights of a text sum to 1 again.

    >>> none = CodeTargets(np.array([0, 1]), np.array([7]), np.array([1.0], np.float32))
    >>> add_targets(none, {0: {9: 1.0}}).weight.tolist() == [np.float32(2 / 3), np.float32(1 / 3)]
    True
    """
    rows: list[Sequence[tuple[int, float]]] = []
    for text in range(len(targets.start) - 1):
        at = slice(targets.start[text], targets.start[text + 1])
        row = dict(zip(targets.code[at].tolist(), targets.weight[at].tolist(), strict=True))
        more = gained.get(text, {})
        for code, share in more.items():
            row[code] = row.get(code, 0.0) + GAINED * share / len(more)
        total = sum(row.values()) or 1.0
        rows.append([(code, weight / total) for code, weight in row.items()])
    flat = [pair for row in rows for pair in row]
    return CodeTargets(
        offsets(np.array([len(row) for row in rows], dtype=np.int64)),
        np.array([code for code, _ in flat], dtype=np.int64),
        np.array([weight for _, weight in flat], dtype=np.float32),
    )
