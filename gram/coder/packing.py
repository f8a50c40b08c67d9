"""Representations taken apart and put together: of some texts, of several batches, as bytes and back.

Letters: N texts, X entries.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load, save

from gram.arrays import SparseRows, number_rows, offsets, ragged
from gram.coder.base import Representations
from gram.index.postings import Postings
from gram.index.segment import Index
from gram.index.token_vectors import TokenVectors

SPARSE = ("lexical", "expansion", "compound")


def pack(represented: Representations, row: int) -> bytes:
    """One text's representation as bytes (safetensors)."""
    arrays: dict[str, NDArray[np.generic]] = {}
    for name in SPARSE:
        part = getattr(represented, name).of(row)
        arrays |= {f"{name}.key": part.key.astype(np.int32), f"{name}.weight": part.weight.astype(np.float32)}
    at = slice(int(represented.expansion.start[row]), int(represented.expansion.start[row + 1]))
    tokens = slice(int(represented.token_vectors.start[row]), int(represented.token_vectors.start[row + 1]))
    arrays |= {
        "probability": represented.probability[at],
        "dense": represented.dense[row],
        "token_vectors": represented.token_vectors.vectors[tokens],
        "token_weights": represented.token_weights[tokens],
    }
    return save({name: np.ascontiguousarray(array) for name, array in arrays.items()})


def unpack(packed: Sequence[bytes], width: int, token_width: int) -> Representations:
    """The representations of N texts, each as `pack` made it; `width` and `token_width` are of their vectors."""
    rows = [load(one) for one in packed]

    def sparse(name: str) -> SparseRows:
        keys = [row[f"{name}.key"] for row in rows]
        start = offsets(np.array([len(key) for key in keys], dtype=np.int64))
        return SparseRows(
            start,
            np.concatenate([np.zeros(0, np.int64), *keys]).astype(np.int64),
            np.concatenate([np.zeros(0, np.float32), *(row[f"{name}.weight"] for row in rows)]).astype(np.float32),
        )

    def joined(name: str, empty: NDArray[np.generic]) -> NDArray[np.generic]:
        return np.concatenate([empty, *(row[name] for row in rows)])

    lengths = np.array([len(row["token_vectors"]) for row in rows], dtype=np.int64)
    return Representations(
        sparse("lexical"),
        sparse("expansion"),
        joined("probability", np.zeros(0, np.float32)),  # type: ignore[arg-type]
        sparse("compound"),
        np.array([row["dense"] for row in rows], dtype=np.float32).reshape(len(rows), width),
        TokenVectors(offsets(lengths), joined("token_vectors", np.zeros((0, token_width), np.int8))),  # type: ignore[arg-type]
        joined("token_weights", np.zeros(0, np.float32)),  # type: ignore[arg-type]
    )


def join(parts: Sequence[Representations]) -> Representations:
    """Those of several batches, one after another."""

    def sparse(name: str) -> SparseRows:
        rows = [getattr(part, name) for part in parts]
        counts = np.concatenate([row.counts() for row in rows])
        return SparseRows(
            offsets(counts), np.concatenate([row.key for row in rows]), np.concatenate([row.weight for row in rows])
        )

    lengths = np.concatenate([np.diff(part.token_vectors.start) for part in parts])
    return Representations(
        sparse("lexical"),
        sparse("expansion"),
        np.concatenate([part.probability for part in parts]),
        sparse("compound"),
        np.concatenate([part.dense for part in parts]),
        TokenVectors(offsets(lengths), np.concatenate([part.token_vectors.vectors for part in parts])),
        np.concatenate([part.token_weights for part in parts]),
    )


def choose(represented: Representations, rows: Sequence[int]) -> Representations:
    """Those of some of the texts, as `pack` keeps them."""
    packed = [pack(represented, row) for row in rows]
    return unpack(packed, represented.dense.shape[1], represented.token_vectors.vectors.shape[1])


def read_keys(index: Index, postings: Postings, rows: NDArray[np.int64]) -> SparseRows:
    """What some postings of an index hold of some of its products, with their weights there."""
    at = number_rows(rows, index.n_products)[postings.product]
    kept = np.flatnonzero(at >= 0)
    keys = np.repeat(np.arange(postings.n_keys), np.diff(postings.start))[kept]
    return SparseRows.build(at[kept], keys, postings.weight[kept], len(rows))


def read_back(index: Index, rows: NDArray[np.int64]) -> Representations:
    """What an index holds of some of its products, as their representations: nothing is coded again.

    Probabilities and tokens' weights, which no index of products keeps, are 1.
    """

    start, lengths = index.token_vectors.start[rows], np.diff(index.token_vectors.start)[rows]
    tokens, _ = ragged(start, lengths)
    expansion = read_keys(index, index.expansion, rows)
    return Representations(
        read_keys(index, index.lexical, rows),
        expansion,
        np.ones(len(expansion.key), dtype=np.float32),
        read_keys(index, index.compound, rows),
        np.asarray(index.dense[rows]),
        TokenVectors(offsets(lengths), np.asarray(index.token_vectors.vectors[tokens])),
        np.ones(len(tokens), dtype=np.float32),
    )
