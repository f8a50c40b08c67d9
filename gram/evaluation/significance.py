"""Whether one run is better than another by more than chance."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from gram.errors import MissingExtra, SettingError

PERMUTATIONS = 10_000
LEVEL = 0.05
"""p below this is marked in tables."""


def significance(
    a: Mapping[str, float], b: Mapping[str, float], permutations: int = PERMUTATIONS, seed: int = 0
) -> float:
    """The p of a two-sided paired randomisation test: how often chance alone sets the means so far apart, or further.

    `a` and `b` are one measure's values per query, of the same queries. If neither run were better, each query's two
    values could as well be swapped (Smucker et al., CIKM 2007). Every way of swapping is tried where there are no more
    than `permutations` of them, else so many drawn ones, and p = (as far apart + 1) / (tried + 1). Raises SettingError
    for different queries, MissingExtra without the extra `eval`.
    """
    if a.keys() != b.keys():
        raise SettingError(f"A paired test needs the same queries on both sides; {len(a.keys() ^ b.keys())} differ.")
    try:
        from scipy.stats import permutation_test
    except ImportError as error:
        raise MissingExtra("The test of significance", "eval") from error
    differences = np.array([a[q] - b[q] for q in a], dtype=np.float64)
    differences = differences[differences != 0]  # (D,), swapping equal values changes nothing
    if len(differences) < 2:  # swapped or not, one difference is as large
        return 1.0

    def apart(first: Any, second: Any, axis: int) -> Any:
        return np.abs((first - second).sum(axis))

    found = permutation_test(
        (differences, np.zeros_like(differences)),
        apart,
        permutation_type="samples",
        alternative="greater",  # the statistic has no sign: this is the two-sided test
        n_resamples=permutations,
        batch=500,
        rng=seed,
    )
    return float(found.pvalue)
