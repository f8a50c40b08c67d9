"""The code trie: which attribute may follow which prefix, and which prefixes are codes.

Whatever the catalogue's size, one step from a node costs as much as the node has children. The trie is built once as
arrays that can be memory-mapped; codes added or removed later live in a small overlay until `compact` folds them in.

Dimension letters:
    C  codes given            I  code ids ever given out (removed codes keep theirs, so I ≥ C)
    L  longest code, 6        N  nodes, the root included; node 0 is the root
    E  edges, N − 1           H  nodes asked for at once
    X  children found
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gram.errors import IndexFolderError
from gram.folders import load_array

MAX_LENGTH = 6
ARRAYS = ("first_child", "child_token", "is_end", "code_id")

Ints = NDArray[np.integer[Any]]


class Children(NamedTuple):
    """The children of several nodes, in the order of the nodes, each node's by rising attribute id."""

    row: NDArray[np.int64]  # (X,) position of the parent among the nodes asked for
    token: NDArray[np.int32]  # (X,) attribute id on the edge
    node: NDArray[np.int64]  # (X,) node that the edge leads to


class CodeTrie:
    """Codes, as sequences of attribute ids ≥ 0, by their common prefixes. A code may be a prefix of another.

    `CodeTrie.build(codes)` makes one, in which a code's id is its row. Ids last: a removed code's id is not given out
    again, and neither `compact` nor a saved copy changes any. Nodes last until `compact`.

    Nodes are numbered breadth first and each node's children stand together by rising attribute, so edge e leads to
    node e + 1. The arrays below hold the static part, `is_end` and `code_id` also the nodes added since.

    >>> trie = CodeTrie.build(np.array([[7, 3], [7, -1]]))
    >>> trie.add((7, 5)), trie.find((7, 5)), (7, 3) in trie, (3,) in trie
    (2, 3, True, False)
    >>> [list(map(int, part)) for part in trie.children([trie.find((7,))])]
    [[0, 0], [3, 5], [2, 3]]
    """

    def __init__(
        self,
        first_child: Ints,  # (N + 1,)
        child_token: Ints,  # (E,)
        is_end: NDArray[np.bool_],  # (N,)
        code_id: Ints,  # (N,)
        n_code_ids: int,
    ) -> None:
        self.first_child = first_child
        self.child_token = child_token
        self.child_node = np.arange(1, len(child_token) + 1, dtype=np.int32)  # (E,)
        self.n_static = len(first_child) - 1
        self.n_nodes = self.n_static
        self.n_code_ids = n_code_ids
        self._is_end, self._code_id = is_end, code_id  # (≥ N,) with room for nodes to come
        self._n_codes = int(np.count_nonzero(is_end))
        self._added: dict[int, dict[int, int]] = {}  # parent → attribute → added node
        self._added_edges: list[tuple[int, int]] = []  # (parent, attribute) of added node n_static + i
        self._changed = False

    @staticmethod
    def build(codes: Ints) -> CodeTrie:
        """A trie of codes (C, L), each row padded with −1 at its end; a code's id is its row.

        Raises ValueError for an empty row, a gap in a row, a negative attribute other than −1, and a repeated code.
        """
        return _build(codes, np.arange(len(codes)), len(codes))

    @property
    def is_end(self) -> NDArray[np.bool_]:
        """(N,) whether a code ends at a node: the end-of-code continuation."""
        return self._is_end[: self.n_nodes]

    @property
    def code_id(self) -> Ints:
        """(N,) the code that ends at a node, −1 for none."""
        return self._code_id[: self.n_nodes]

    @property
    def has_overlay(self) -> bool:
        """Whether codes were added or removed since the trie was built."""
        return self._changed

    def __len__(self) -> int:
        return self._n_codes

    def __contains__(self, code: Sequence[int]) -> bool:
        node = self.find(code)
        return node >= 0 and bool(self._is_end[node])

    def children(self, nodes: Ints | Sequence[int]) -> Children:
        """The children of nodes (H,), added ones included. Work grows with H and with what is found, nothing else."""
        mention_rate = np.asarray(nodes, dtype=np.int64)  # (H,)
        static = np.minimum(mention_rate, self.n_static)  # (H,) an added node has no static children
        first = self.first_child[static].astype(np.int64)  # (H,)
        last = self.first_child[np.minimum(static + 1, self.n_static)].astype(np.int64)  # (H,)
        counts = last - first  # (H,)
        row = np.repeat(np.arange(len(mention_rate)), counts)  # (X,)
        edge = np.arange(len(row)) + np.repeat(first - (np.cumsum(counts) - counts), counts)  # (X,)
        token, node = self.child_token[edge].astype(np.int32), edge + 1  # (X,) (X,)
        if not self._added:
            return Children(row, token, node)
        extra = [
            (h, attribute, child)
            for h, parent in enumerate(mention_rate.tolist())
            for attribute, child in self._added.get(parent, {}).items()
        ]
        if not extra:
            return Children(row, token, node)
        more = np.array(extra, dtype=np.int64)  # (added, 3)
        row = np.concatenate([row, more[:, 0]])  # (X,)
        token = np.concatenate([token, more[:, 1].astype(np.int32)])  # (X,)
        node = np.concatenate([node, more[:, 2]])  # (X,)
        order = np.lexsort((token, row))  # (X,)
        return Children(row[order], token[order], node[order])

    def find(self, code: Sequence[int]) -> int:
        """The node that a sequence of attribute ids leads to, whether a code ends there or not; −1 for none."""
        node = 0
        for attribute in code:
            node = self._child(node, attribute)
            if node < 0:
                return -1
        return node

    def code_of(self, node: int) -> tuple[int, ...]:
        """The attribute ids from the root to a node."""
        if not 0 <= node < self.n_nodes:
            raise ValueError(f"node {node} is not among the trie's {self.n_nodes}")
        path: list[int] = []
        while node:
            if node >= self.n_static:
                node, attribute = self._added_edges[node - self.n_static]
            else:
                attribute = int(self.child_token[node - 1])
                node = int(np.searchsorted(self.first_child, node - 1, side="right")) - 1
            path.append(attribute)
        return tuple(reversed(path))

    def add(self, code: Sequence[int]) -> int:
        """Adds a code, also below or above old ones, and returns its id; a code already there keeps its own."""
        code = tuple(int(attribute) for attribute in code)
        if not 1 <= len(code) <= MAX_LENGTH or min(code) < 0:
            raise ValueError(f"a code is one to {MAX_LENGTH} attribute ids ≥ 0, not {code}")
        node = 0
        for attribute in code:
            child = self._child(node, attribute)
            node = child if child >= 0 else self._new_node(node, attribute)
        if not self._is_end[node]:
            self._own_ends()
            self._is_end[node], self._code_id[node] = True, self.n_code_ids
            self.n_code_ids += 1
            self._n_codes += 1
        return int(self._code_id[node])

    def remove(self, code: Sequence[int]) -> int:
        """Removes a code and returns its id. Its prefix stays a path until `compact`. Raises KeyError if not there."""
        node = self.find(code)
        if node < 0 or not self._is_end[node]:
            raise KeyError(tuple(code))
        self._own_ends()
        code_id = int(self._code_id[node])
        self._is_end[node], self._code_id[node] = False, -1
        self._n_codes -= 1
        return code_id

    def table(self) -> NDArray[np.int32]:
        """(I, L) every code at the row of its id, padded with −1; the row of a removed code is all −1."""
        parent = np.zeros(self.n_nodes, dtype=np.int64)  # (N,)
        token = np.zeros(self.n_nodes, dtype=np.int32)  # (N,)
        parent[1 : self.n_static] = np.repeat(np.arange(self.n_static), np.diff(self.first_child))
        token[1 : self.n_static] = self.child_token
        if self._added_edges:
            parent[self.n_static :], token[self.n_static :] = np.array(self._added_edges).T
        depth = np.zeros(self.n_nodes, dtype=np.int64)  # (N,)
        above = np.arange(self.n_nodes)  # (N,) climbs to the root
        while above.any():
            depth += above > 0
            above = parent[above]
        table = np.full((self.n_code_ids, MAX_LENGTH), -1, dtype=np.int32)  # (I, L)
        node = np.flatnonzero(self.is_end)  # (C,)
        row = self.code_id[node]  # (C,)
        while len(node):
            table[row, depth[node] - 1] = token[node]
            inner = parent[node] > 0  # (C,)
            row, node = row[inner], parent[node[inner]]
        return table

    def codes(self) -> Iterator[tuple[int, tuple[int, ...]]]:
        """Every code with its id, by rising id."""
        for code_id, row in enumerate(self.table().tolist()):
            if row[0] >= 0:
                yield code_id, tuple(attribute for attribute in row if attribute >= 0)

    def compact(self) -> CodeTrie:
        """A trie of the same codes under the same ids, without overlay or dead paths; itself when it has neither."""
        if not self._changed:
            return self
        table = self.table()  # (I, L)
        code_ids = np.flatnonzero(table[:, 0] >= 0)  # (C,)
        return _build(table[code_ids], code_ids, self.n_code_ids)

    def save(self, folder: str | Path) -> None:
        """Writes the compacted arrays into an existing folder as `trie.*.npy`."""
        trie = self.compact()
        for name in ARRAYS:
            np.save(Path(folder, f"trie.{name}.npy"), getattr(trie, name))
        np.save(Path(folder, "trie.n_code_ids.npy"), np.int64(trie.n_code_ids))

    @staticmethod
    def load(folder: str | Path, mmap: bool = True) -> CodeTrie:
        """The trie that `save` wrote, read page by page when `mmap`. Raises IndexFolderError if it cannot be used."""
        first_child, child_token, is_end, code_id = (load_array(folder, f"trie.{name}.npy", mmap) for name in ARRAYS)
        n_code_ids = int(load_array(folder, "trie.n_code_ids.npy", mmap=False))
        n_nodes = len(first_child) - 1
        if not len(is_end) == len(code_id) == len(child_token) + 1 == n_nodes:
            raise IndexFolderError(f"{folder}: the code trie's arrays disagree in length. Fix: build the index again")
        return CodeTrie(first_child, child_token, is_end, code_id, n_code_ids)

    def _child(self, node: int, attribute: int) -> int:
        if node < self.n_static:
            start, stop = int(self.first_child[node]), int(self.first_child[node + 1])
            edge = start + int(np.searchsorted(self.child_token[start:stop], attribute))
            if edge < stop and self.child_token[edge] == attribute:
                return edge + 1
        return self._added.get(node, {}).get(attribute, -1)

    def _new_node(self, parent: int, attribute: int) -> int:
        node = self.n_nodes
        self.n_nodes += 1
        self._added.setdefault(parent, {})[attribute] = node
        self._added_edges.append((parent, attribute))
        self._own_ends()
        return node

    def _own_ends(self) -> None:
        """Makes `is_end` and `code_id` this trie's own, with room for every node; they may be mapped from a file."""
        room = len(self._is_end)
        if self._changed and self.n_nodes <= room:
            return
        grow = max(self.n_nodes - room, room // 2)
        self._is_end = np.concatenate([self._is_end, np.zeros(grow, dtype=bool)])  # (≥ N,)
        self._code_id = np.concatenate([self._code_id, np.full(grow, -1, dtype=np.int32)])  # (≥ N,)
        self._changed = True


def _build(codes: Ints, code_ids: Ints, n_code_ids: int) -> CodeTrie:
    """A trie of `codes` (C, L) whose ids are `code_ids` (C,).

    Sorted, the codes that share a prefix stand together, so a node begins wherever a row's prefix differs from the one
    before it. Counting those beginnings depth by depth numbers the nodes breadth first.
    """
    _check(codes)
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
    code_id[is_end_at] = code_ids[order]
    first_child = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)  # (N + 1,)
    return CodeTrie(first_child, np.concatenate(tokens), is_end, code_id, n_code_ids)


def _check(codes: Ints) -> None:
    if codes.ndim != 2 or not 1 <= codes.shape[1] <= MAX_LENGTH or not np.issubdtype(codes.dtype, np.integer):
        raise ValueError(f"codes must be whole numbers (C, 1 to {MAX_LENGTH}), not {codes.dtype} {codes.shape}")
    held = codes >= 0  # (C, L)
    wrong = ~held[:, 0] | (codes < -1).any(axis=1) | (held[:, 1:] & ~held[:, :-1]).any(axis=1)  # (C,)
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise ValueError(
            f"codes[{row}] = {codes[row].tolist()} is not a code: one to {MAX_LENGTH} attribute ids ≥ 0, then only −1"
        )
