"""Teaching: what another model says of the training's texts becomes targets of the encoder.

The teacher is any model folder; a language model's is meant, which knows more of the world than the encoder does and
is too slow to answer searchers itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from gram.arrays import SparseRows, offsets
from gram.coder.base import PRODUCT_CODING, Coder, Side
from gram.codes.lexicon import Lexicon
from gram.codes.space import CodeSpace, CodeTargets, add_targets
from gram.codes.targets import Targets
from gram.codes.trie import CodeTrie
from gram.records import Product
from gram.training.samples import Samples

TAUGHT = 0.5
"""What a target counts that the teacher is sure of and the text and the log do not tell of; as in co-training."""
LEAST = 0.2  # of the teacher's probability of an attribute


def teach(samples: Samples, teacher: Coder) -> Samples:
    """The samples with what the teacher says of their queries and products among the targets."""
    lexicon, space = samples.lexicon, samples.space
    attribute_of = _match(teacher.lexicon, lexicon)
    code_of = _match_codes(teacher.trie, CodeTrie.build(space.codes), attribute_of, lexicon)
    coding = replace(PRODUCT_CODING, least=LEAST)
    said: list[tuple[Targets, CodeTargets]] = []
    sides: tuple[tuple[Side, Sequence[str] | Sequence[Product], Targets, CodeTargets], ...] = (
        (Side.QUERY, samples.queries, samples.query_targets, space.of_queries),
        (Side.PRODUCT, samples.products, samples.product_targets, space.of_products),
    )
    for side, texts, targets, codes in sides:
        if not texts:
            said.append((targets, codes))
            continue
        found = teacher.represent(texts, side, coding, progress="asking the teacher")
        said.append((
            _add_attributes(targets, found.expansion, found.probability, attribute_of, lexicon.n_learnt),
            _add_codes(codes, found.compound, code_of),
        ))  # fmt: skip
    (of_queries, query_codes), (of_products, product_codes) = said
    taught = CodeSpace(space.codes, space.products, query_codes, product_codes)
    return replace(samples, query_targets=of_queries, product_targets=of_products, space=taught)


def _match(theirs: Lexicon, ours: Lexicon) -> NDArray[np.int64]:
    """(their attributes,) the number of each in our lexicon, −1 for none."""
    return np.array([ours.id_of(forms[0]) for forms in theirs.forms], dtype=np.int64)


def _match_codes(
    theirs: CodeTrie, ours: CodeTrie, attribute_of: NDArray[np.int64], lexicon: Lexicon
) -> NDArray[np.int64]:
    """(their codes,) the number of each among ours, −1 for none."""
    order = lexicon.slot_ids.astype(np.int64) * len(lexicon) + np.arange(len(lexicon))
    found = np.full(len(theirs), -1, dtype=np.int64)
    for code, row in enumerate(theirs.table().tolist()):
        mapped = [int(attribute_of[a]) for a in row if a >= 0]
        if min(mapped) < 0:
            continue
        node = ours.find(sorted(mapped, key=lambda a: order[a]))
        if node >= 0 and ours.is_end[node]:
            found[code] = ours.code_id[node]
    return found


def _add_attributes(
    targets: Targets, said: SparseRows, chance: NDArray[np.float32], attribute_of: NDArray[np.int64], n_learnt: int
) -> Targets:
    rows = []
    for text in range(len(targets.start) - 1):
        row = dict(zip(*map(np.ndarray.tolist, targets.row(text)), strict=True))
        at = slice(int(said.start[text]), int(said.start[text + 1]))
        for attribute, sure in zip(attribute_of[said.key[at]].tolist(), chance[at].tolist(), strict=True):
            if 0 <= attribute < n_learnt:
                row[attribute] = max(row.get(attribute, 0.0), TAUGHT * min(sure, 1.0))
        rows.append(sorted(row.items()))
    flat = [pair for row in rows for pair in row]
    start = offsets(np.array([len(row) for row in rows], dtype=np.int64))
    return Targets(start, np.array([a for a, _ in flat], np.int32), np.array([w for _, w in flat], np.float32))


def _add_codes(targets: CodeTargets, said: SparseRows, code_of: NDArray[np.int64]) -> CodeTargets:
    gained = {}
    for text in range(len(targets.start) - 1):
        keys, weights = said.of(text)
        known = code_of[keys] >= 0
        if known.any():
            # Coders weigh a code by a root, so that what two sides share adds up: squared it is the code's share of
            # probability, and where the coder is a language model times log idf, as the space's own targets are.
            share = np.square(weights[known])
            gained[text] = dict(zip(code_of[keys[known]].tolist(), (share / share.max()).tolist(), strict=True))
    return add_targets(targets, gained)
