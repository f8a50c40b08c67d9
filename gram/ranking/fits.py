"""Which candidates fit what was asked, rather than being the nearest of what is there.

A score has no scale of its own in a shop without a log, so candidates are read by the declared default weights, whose
features are free of a shop's scale, and beside some ordinary products of the shop, which no query chose. A candidate
fits where it stands out from these by some share of what the query's best one does, if that one stands out at all; or
where it has all that is asked: holds every word, or has every code. docs/log.md, "What fits", has what was measured.

Letters: C candidates, O ordinary products, F features.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gram.coder.base import QueryRepresentation
from gram.codes.lexicon import Lexicon
from gram.ranking.candidates import Candidates, Part
from gram.ranking.features import EVERY, FEATURES, NAMES, SharedKeys, have_left_out, reads_vectors
from gram.ranking.scorer import Scorer

FIT = 0.38
"""Of what the best candidate stands out from ordinary products, how much one has to that fits."""
STANDS_OUT = 0.34
"""Of what a product could stand out at most, how much the best one has to, or nothing fits."""
ORDINARY = 64
"""Products that no query chose which candidates are compared with."""
ORDINARY_SHARE = 0.1
"""Of these, how many are left below what counts as ordinary."""
WHOLE = 0.99
"""Share of a query's codes from which a product has all of them."""

_WEIGHTS = Scorer.default().weights
_FULL_COVERAGE, _CODE_SHARE, _LEFT_OUT, _ONLY_FOR = map(
    NAMES.index, ("full_coverage", "code_share", "left_out", "only_for")
)
# what the sum is of a product whose every share and cosine is 1; sums over shared codes have no bound, and are left out
_BOUNDED = np.array([f.weight > 0 and not isinstance(f.first_phase, SharedKeys) for f in FEATURES])
_OF_VECTORS = np.array([reads_vectors(f) for f in FEATURES])


class Fitting(NamedTuple):
    """Which of C candidates fit, and which would but have what the query leaves out."""

    fits: NDArray[np.bool_]
    unwanted: NDArray[np.bool_]


def find_fitting(
    found: Candidates,
    query: QueryRepresentation,
    lexicon: Lexicon,
    fit: float,
    reads: NDArray[np.bool_] = EVERY,
) -> Fitting:
    """By the features that are read, (F,): every candidate fits where `fit` is 0, and none where a query has no
    telling word.

    The best is looked for in the whole shop: what a filter leaves does not fit for being all that is left. Words that
    no code of the query says are asked too: a product that has its every code has not all then. Nor has one of whose
    title all that is asked is what it is for. What has in its title what the query leaves out does not fit.
    """
    none = np.zeros(len(found.rows), dtype=bool)
    if not fit or not len(found.rows):
        return Fitting(~none, none)
    if not query.terms.telling:
        return Fitting(none, none)
    sums = found.features @ _WEIGHTS  # (C,)
    ordinary = float(np.quantile(found.ordinary @ _WEIGHTS, ORDINARY_SHARE)) if len(found.ordinary) else 0.0
    best = float(np.concatenate([sums, found.beside @ _WEIGHTS]).max()) - ordinary
    bounded = _BOUNDED & reads & (~_OF_VECTORS | query.dense.any())
    most = float(_WEIGHTS[bounded].sum()) - ordinary
    fits = np.zeros(len(sums), dtype=bool) if best < STANDS_OUT * most else sums - ordinary >= fit * best
    has_all = found.features[:, _FULL_COVERAGE] > 0
    if codes_say_all(query, lexicon):
        has_all |= found.features[:, _CODE_SHARE] >= WHOLE
    fits |= has_all & (found.features[:, _ONLY_FOR] < WHOLE)
    unwanted = fits & (found.features[:, _LEFT_OUT] > 0)
    return Fitting(fits & ~unwanted, unwanted)


def codes_say_all(query: QueryRepresentation, lexicon: Lexicon) -> bool:
    """Whether a query's codes say each of its telling words."""
    said = {stem for key in query.codes.key.tolist() for stem in lexicon.forms[key][0]}
    return bool(query.terms.telling) and said.issuperset(query.terms.telling)


def having_all(
    part: Part, query: QueryRepresentation, lexicon: Lexicon, reads: NDArray[np.bool_] = EVERY
) -> NDArray[np.int64]:
    """Rows of a segment that hold every telling word of a query, or every code where its codes say all: they fit,
    however many they are and whether candidates or not. As far as features of words and codes are read."""
    index, found = part.index, np.zeros(part.index.n_products, dtype=bool)
    by_words, by_codes = reads[_FULL_COVERAGE], reads[_CODE_SHARE]
    words = [index.bm25.holding(stem) for stem in query.terms.telling] if by_words else []
    codes = [index.lexical.of(key)[0] for key in query.codes.key.tolist() if key < index.lexical.n_keys]
    every_code = by_codes and codes_say_all(query, lexicon) and len(codes) == len(query.codes.key)
    for lists in (words, codes if every_code else []):
        common = np.full(index.n_products, fill_value=bool(lists))
        for rows in lists:
            having = np.zeros(index.n_products, dtype=bool)
            having[rows] = True
            common &= having
        found |= common
    found &= part.may_be_found
    if not by_words:
        return np.flatnonzero(found)
    terms, of_purpose = query.terms, np.zeros(index.n_products, dtype=bool)
    for stem in terms.purposes:
        of_purpose[index.bm25.holding(stem)] = True
    purposed = np.flatnonzero(found & of_purpose)
    titles = index.titles.read(purposed)
    only_for = index.titles.match(index.bm25, terms.stems, terms.telling, titles, terms.purposes)[:, 3]
    found[purposed[only_for >= WHOLE]] = False
    fitting = np.flatnonzero(found)
    if terms.left_out:
        for having in have_left_out(index, query, fitting, index.titles.read(fitting)):
            found[fitting[having]] = False
    return np.flatnonzero(found)
