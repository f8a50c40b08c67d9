"""The code trie: which attribute may follow which prefix, and which prefixes are codes.

Whatever the catalogue's size, one step from a node costs as much as the node has children. The trie is arrays that can
be memory-mapped.

Dimension letters:
    C  codes                  N  nodes, the root included; node 0 is the root
    L  longest code, 6        E  edges, N − 1
    H  nodes looked at at once
    X  children found
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gram.arrays import offsets, ragged
from gram.errors import IndexFolderError, ModelError
from gram.folders import load_array

MAX_LENGTH = 6
ARRAYS = ("first_child", "child_token", "is_end", "code_id")

Ints = NDArray[np.integer[Any]]


class Children(NamedTuple):
    """The children of several nodes, in the order of the nodes, each node's by rising attribute id."""

    row: NDArray[np.int64]  # (X,) position of the parent among the nodes looked at
    token: NDArray[np.int32]  # (X,) attribute id on the edge
    node: NDArray[np.int64]  # (X,) node that the edge leads to


class CodeTrie:
    """Codes, as sequences of attribute ids ≥ 0, by their common prefixes. A code may be a prefix of another.

    `CodeTrie.build(codes)` makes one, in which a code's id is its row; an added code gets the next id.

    Nodes are numbered breadth first and each node's children stand together by rising attribute, so edge e leads to
    node e + 1.

    >>> trie = CodeTrie.build(np.array([[7, 3], [7, -1]]))
    >>> trie.add((7, 5)), trie.find((7, 5)), (7, 3) in trie, (3,) in trie
    (2, 3, True, False)
    >>> [list(map(int, part)) for part in trie.children([trie.find((7,))])]
    [[0, 0], [3, 5], [2, 3]]
    """

    def __init__(
        self,
        first_child: Ints,  # (N + 1,) node n's edges are first_child[n] … first_child[n + 1] − 1
        child_token: Ints,  # (E,) the attribute on an edge
        is_end: NDArray[np.bool_],  # (N,) whether a code ends at a node: the end-of-code continuation
        code_id: Ints,  # (N,) the code that ends at a node, −1 for none
    ) -> None:
        self.first_child, self.child_token, self.is_end, self.code_id = first_child, child_token, is_end, code_id
        self._n_codes = int(np.count_nonzero(is_end))

    @staticmethod
    def build(codes: Ints, longest: int = MAX_LENGTH) -> CodeTrie:
        """A trie of codes (C, L), each row padded with −1 at its end; a code's id is its row.

        `longest` is the most that L may be: more than six where the rows are not attributes but a text's tokens. Such a
        trie is not to be added to. Raises ValueError for an empty row, a gap in a row, a negative attribute other than
        −1, and a repeated code.
        """
        return CodeTrie(*_build(codes, longest))

    @property
    def n_nodes(self) -> int:
        return len(self.is_end)

    def __len__(self) -> int:
        return self._n_codes

    def __contains__(self, code: Sequence[int]) -> bool:
        node = self.find(code)
        return node >= 0 and bool(self.is_end[node])

    def children(self, nodes: Ints | Sequence[int]) -> Children:
        """The children of nodes (H,). Work grows with H and with what is found, nothing else. Node N has none."""
        parents = np.asarray(nodes, dtype=np.int64)  # (H,)
        first = self.first_child[parents].astype(np.int64)  # (H,)
        last = self.first_child[np.minimum(parents + 1, self.n_nodes)].astype(np.int64)  # (H,)
        edge, row = ragged(first, last - first)  # (X,) (X,)
        return Children(row, self.child_token[edge].astype(np.int32), edge + 1)

    def find(self, code: Sequence[int]) -> int:
        """The node that a sequence of attribute ids leads to, whether a code ends there or not; −1 for none."""
        node = 0
        for attribute in code:
            start, stop = int(self.first_child[node]), int(self.first_child[node + 1])
            edge = start + int(np.searchsorted(self.child_token[start:stop], attribute))
            if edge == stop or self.child_token[edge] != attribute:
                return -1
            node = edge + 1
        return node

    def add(self, code: Sequence[int]) -> int:
        """Adds a code, also below or above old ones, and returns its id; a code already there keeps its own.

        Nodes get new numbers: the arrays are built anew, in a third of a second for 250,000 codes.
        """
        code = tuple(int(attribute) for attribute in code)
        if not 1 <= len(code) <= MAX_LENGTH or min(code) < 0:
            raise ValueError(f"a code is one to {MAX_LENGTH} attribute ids ≥ 0, not {code}")
        if code in self:
            return int(self.code_id[self.find(code)])
        row = code + (-1,) * (MAX_LENGTH - len(code))
        wider = np.concatenate([self.table(), np.array([row], dtype=np.int32)])  # (C + 1, L)
        self.first_child, self.child_token, self.is_end, self.code_id = _build(wider)
        self._n_codes = len(wider)
        return self._n_codes - 1

    def table(self) -> NDArray[np.int32]:
        """(C, L) every code at the row of its id, padded with −1."""
        parent = np.zeros(self.n_nodes, dtype=np.int64)  # (N,)
        parent[1:] = np.repeat(np.arange(self.n_nodes), np.diff(self.first_child))
        token = np.concatenate([np.zeros(1, np.int32), self.child_token])  # (N,)
        depth = np.zeros(self.n_nodes, dtype=np.int64)  # (N,)
        above = np.arange(self.n_nodes)  # (N,) climbs to the root
        while above.any():
            depth += above > 0
            above = parent[above]
        table = np.full((len(self), MAX_LENGTH), -1, dtype=np.int32)  # (C, L)
        node = np.flatnonzero(self.is_end)  # (C,)
        row = self.code_id[node]  # (C,)
        while len(node):
            table[row, depth[node] - 1] = token[node]
            inner = parent[node] > 0  # (C,)
            row, node = row[inner], parent[node[inner]]
        return table

    def save(self, folder: str | Path) -> None:
        """Writes the arrays into an existing folder as `trie.*.npy`."""
        for name in ARRAYS:
            np.save(Path(folder, f"trie.{name}.npy"), getattr(self, name))

    @staticmethod
    def load(folder: str | Path, mmap: bool = True) -> CodeTrie:
        """The trie that `save` wrote into a model's folder, read page by page when `mmap`.

        Raises ModelError for files that are missing or are no trie: what they say is checked before it is believed.
        """
        try:
            arrays = [load_array(folder, f"trie.{name}.npy", mmap) for name in ARRAYS]
        except IndexFolderError as error:
            problem = str(error).partition(" Fix: ")[0]
            raise ModelError(f"{problem} The code trie is damaged. Fix: train the model again") from None
        problem = _find_damage(*arrays)
        if problem:
            raise ModelError(f"{folder}: the code trie is damaged: {problem}. Fix: train the model again")
        return CodeTrie(*arrays)


def _find_damage(first_child: Ints, child_token: Ints, is_end: NDArray[np.bool_], code_id: Ints) -> str:
    """What is wrong with a trie's arrays, nothing where they are right."""
    arrays = (first_child, child_token, is_end, code_id)
    if any(a.ndim != 1 or not (np.issubdtype(a.dtype, np.signedinteger) or a is is_end) for a in arrays):
        return "an array is not a row of whole numbers"
    n_nodes = len(is_end)
    if is_end.dtype != bool or not len(first_child) - 1 == len(code_id) == len(child_token) + 1 == n_nodes:
        return f"its arrays disagree: {[len(a) for a in arrays]}"
    counts = np.diff(first_child)  # (N,) children of each node
    if first_child[0] or first_child[-1] != n_nodes - 1 or (counts < 0).any():
        return "its offsets do not rise from 0 to the number of edges"
    inner, leaves = np.flatnonzero(counts), np.flatnonzero(counts == 0)
    if (first_child[inner] < inner).any():
        return "a node stands before its parent"
    begins = np.zeros(n_nodes, dtype=bool)  # (E + 1,) where a node's edges begin
    begins[first_child[inner]] = True
    if (child_token < 0).any() or ((np.diff(child_token) <= 0) & ~begins[1:-1]).any():
        return "a node's attributes do not rise"
    if is_end[0] or not np.array_equal(code_id >= 0, is_end) or not is_end[leaves[leaves > 0]].all():
        return "a path ends where no code does"
    if not np.array_equal(np.sort(code_id[is_end]), np.arange(np.count_nonzero(is_end))):
        return "its ids are not those of its codes"
    return ""


def _build(codes: Ints, longest: int = MAX_LENGTH) -> tuple[Ints, Ints, NDArray[np.bool_], Ints]:
    """The arrays of a trie of codes (C, L).

    Sorted, the codes that share a prefix stand together, so a node begins wherever a row's prefix differs from the one
    before it. Counting those beginnings depth by depth numbers the nodes breadth first.
    """
    _check(codes, longest)
    order = np.lexsort(codes.T[::-1]) if len(codes) else np.zeros(0, dtype=np.int64)  # (C,)
    rows = codes[order]  # (C, L)
    fresh = np.ones(rows.shape, dtype=bool)  # (C, L) whether the prefix up to here differs from the last row's
    fresh[1:] = np.logical_or.accumulate(rows[1:] != rows[:-1], axis=1)
    if not fresh[:, -1:].all():
        later = int(np.flatnonzero(~fresh[:, -1])[0])
        raise ValueError(f"codes[{order[later - 1]}] and codes[{order[later]}] are the same: {rows[later].tolist()}")
    begins = fresh & (rows >= 0)  # (C, L) whether a node begins here
    lengths = (rows >= 0).sum(axis=1)  # (C,)

    node = np.zeros(len(rows), dtype=np.int64)  # (C,) the node of the row's prefix, the root at first
    n_nodes = 1
    parents, tokens = [node[:0]], [rows[:0, 0].astype(np.int32)]
    is_end_at = np.zeros(len(rows), dtype=np.int64)  # (C,)
    for depth in range(rows.shape[1]):
        new = begins[:, depth]  # (C,)
        parents.append(node[new])
        tokens.append(rows[new, depth].astype(np.int32))
        node = n_nodes + np.cumsum(new) - 1  # (C,) right wherever the row reaches this depth
        n_nodes += int(new.sum())
        ends = lengths == depth + 1  # (C,)
        is_end_at[ends] = node[ends]

    counts = np.bincount(np.concatenate(parents), minlength=n_nodes)  # (N,)
    is_end = np.zeros(n_nodes, dtype=bool)  # (N,)
    code_id = np.full(n_nodes, -1, dtype=np.int32)  # (N,)
    is_end[is_end_at] = True
    code_id[is_end_at] = order
    return offsets(counts).astype(np.int32), np.concatenate(tokens), is_end, code_id


def _check(codes: Ints, longest: int) -> None:
    if codes.ndim != 2 or not 1 <= codes.shape[1] <= longest or not np.issubdtype(codes.dtype, np.integer):
        raise ValueError(f"codes must be whole numbers (C, 1 to {longest}), not {codes.dtype} {codes.shape}")
    filled = codes >= 0  # (C, L)
    wrong = ~filled[:, 0] | (codes < -1).any(axis=1) | (filled[:, 1:] & ~filled[:, :-1]).any(axis=1)  # (C,)
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise ValueError(
            f"codes[{row}] = {codes[row].tolist()} is not a code: one to {longest} attribute ids ≥ 0, then only −1"
        )
