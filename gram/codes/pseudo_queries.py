"""Pseudo-queries: what a searcher might type to find a product, made of the product's attributes.

They stand in where the log is poor or empty, and keep the model from forgetting products that nobody has searched for.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gram.codes.lexicon import Lexicon
from gram.text.typos import misspell

_LENGTHS = (0.25, 0.35, 0.25, 0.1, 0.05)
"""Shares of pseudo-queries of one to five attributes. Not tuned."""

_FIELD_CHANCE = (1.0, 0.8, 0.8, 0.6, 0.15)
"""By number in FIELDS: searchers name what titles name. Not tuned."""

MISSPELT = 0.08
"""Share of pseudo-queries with a typo. Not tuned."""

NEVER = 1e-6
"""The chance of what searchers never name, such as stop words: taken only where a product has nothing else."""


def pseudo_query(lexicon: Lexicon, tags: NDArray[np.int32], rng: np.random.Generator) -> tuple[str, list[int]] | None:
    """A pseudo-query for a product and the attributes it names, or None when the product has none.

    Args:
        tags: the product's attributes, (T, 4): attribute, first token, one past the last, field.
    """
    if not len(tags):
        return None
    chance = lexicon.mention_rate[tags[:, 0]] * np.take(_FIELD_CHANCE, tags[:, 3]) + NEVER
    length = 1 + int(rng.choice(len(_LENGTHS), p=_LENGTHS))
    order = np.argsort(-np.log(chance) - rng.gumbel(size=len(chance)))  # sampling without replacement, by chance
    chosen: list[int] = []
    taken: set[str] = set()
    for i in order.tolist():
        form = set(lexicon.forms[tags[i, 0]][0])
        if form & taken or (chosen and chance[i] <= NEVER):
            continue
        chosen.append(i)
        taken |= form
        if len(chosen) == length:
            break
    position = np.where(tags[:, 3] == 0, tags[:, 1], 0)  # what the title lacks stands before what it says, in its order
    chosen.sort(key=lambda i: (position[i], tags[i, 1]))
    attributes = [int(tags[i, 0]) for i in chosen]
    text = " ".join(lexicon.attributes[a].value for a in attributes)
    return misspell(text, rng) if rng.random() < MISSPELT else text, attributes


def pseudo_share(n_queries: int) -> float:
    """The part of a training batch that pseudo-queries take: a fifth with a rich log, all with none. Not tuned."""
    return max(0.2, 1.0 - 0.8 * n_queries / 1500)
