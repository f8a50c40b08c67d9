"""The code trie agrees with a plain set of tuples, through additions, removals and the disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gram.codes.trie import CodeTrie
from gram.errors import IndexFolderError

Code = tuple[int, ...]


def padded(codes: list[Code]) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    return np.array([code + (-1,) * (6 - len(code)) for code in codes], dtype=np.int64).reshape(-1, 6)


def build(*codes: Code) -> CodeTrie:
    return CodeTrie.build(padded(list(codes)))


def children_by_hand(trie: CodeTrie, codes: set[Code], prefix: Code) -> dict[int, int]:
    """Attribute → node below a prefix, read off the set of every path."""
    depth = len(prefix)
    tokens = {code[depth] for code in codes if code[:depth] == prefix and len(code) > depth}
    return {token: trie.find((*prefix, token)) for token in tokens}


def check(trie: CodeTrie, codes: dict[Code, int], paths: set[Code]) -> None:
    """`codes` → id is what the trie holds; `paths` are all that it ever held, whose prefixes are still nodes."""
    assert dict(trie.codes()) == {code_id: code for code, code_id in codes.items()}
    assert len(trie) == len(codes)
    prefixes = {code[:n] for code in paths for n in range(len(code) + 1)} | {()}
    assert len(prefixes) == trie.n_nodes == len(trie.is_end) == len(trie.code_id)
    assert np.array_equal(trie.is_end, trie.code_id >= 0)
    for prefix in prefixes:
        node = trie.find(prefix)
        assert trie.code_of(node) == prefix
        assert trie.code_id[node] == codes.get(prefix, -1)
        assert (prefix in trie) == (prefix in codes)
        assert trie.find((*prefix, 99)) == -1
    asked = sorted(prefixes) * 2  # a node asked for twice answers twice
    found = trie.children([trie.find(prefix) for prefix in asked])
    expected = [
        (row, token, node)
        for row, prefix in enumerate(asked)
        for token, node in sorted(children_by_hand(trie, paths, prefix).items())
    ]
    assert list(zip(*(part.tolist() for part in found), strict=True)) == expected


codes_of_a_space = st.lists(st.integers(0, 3), min_size=1, max_size=6).map(tuple)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(codes_of_a_space, unique=True, max_size=20),
    st.lists(st.tuples(st.booleans(), codes_of_a_space), max_size=15),
)
def test_the_trie_is_a_set_of_codes(first: list[Code], steps: list[tuple[bool, Code]]) -> None:
    trie = build(*first)
    codes = {code: row for row, code in enumerate(first)}
    paths, next_id = set(first), len(first)
    check(trie, codes, paths)
    assert trie.compact() is trie
    for adds, code in steps:
        if adds:
            expected = codes.get(code, next_id)
            assert trie.add(code) == expected
            next_id = max(next_id, expected + 1)
            codes[code] = expected
            paths.add(code)
        elif code in codes:
            assert trie.remove(code) == codes.pop(code)
        else:
            with pytest.raises(KeyError):
                trie.remove(code)
    check(trie, codes, paths)
    compact = trie.compact()
    assert not compact.has_overlay
    assert compact.n_code_ids == next_id
    check(compact, codes, set(codes))


def test_arrays_by_hand() -> None:
    #        root 0
    #       2 → 1     5 → 2        (2,) is code 2
    #   1 → 3  4 → 4   2 → 5       (2, 1) code 3, (2, 4) code 0, (5, 2) code 1
    trie = build((2, 4), (5, 2), (2,), (2, 1))
    assert trie.first_child.tolist() == [0, 2, 4, 5, 5, 5, 5]
    assert trie.child_token.tolist() == [2, 5, 1, 4, 2]
    assert trie.child_node.tolist() == [1, 2, 3, 4, 5]
    assert trie.is_end.tolist() == [False, True, False, True, True, True]
    assert trie.code_id.tolist() == [-1, 2, -1, 3, 0, 1]
    row, token, node = trie.children(np.array([2, 5, 1]))
    assert (row.tolist(), token.tolist(), node.tolist()) == ([0, 2, 2], [2, 1, 4], [5, 3, 4])


def test_a_removed_code_never_gives_its_id_away() -> None:
    trie = build((1,), (2,))
    trie.remove((2,))
    assert trie.compact().add((3,)) == 2
    assert trie.add((2,)) == 2


def test_a_mutation_edits_neither_the_callers_codes_nor_the_compacted_trie() -> None:
    codes = padded([(1,), (1, 2)])
    trie = CodeTrie.build(codes)
    trie.add((1, 3))
    compact = trie.compact()
    compact.remove((1, 3))
    assert (1, 3) in trie
    assert codes.tolist() == padded([(1,), (1, 2)]).tolist()


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        ([[1, 2], [-1, -1]], r"codes\[1\] = \[-1, -1\] is not a code"),
        ([[1, -1, 2]], r"codes\[0\]"),
        ([[1, -2]], r"codes\[0\]"),
        ([[3, 1], [2, 2], [3, 1]], r"codes\[0\] and codes\[2\] are the same: \[3, 1\]"),
        ([1, 2], "must be whole numbers"),
        ([[1.0]], "must be whole numbers"),
        ([[0, 1, 2, 3, 4, 5, 6]], "1 to 6"),
    ],
)
def test_what_is_no_code_is_refused(codes: list[object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CodeTrie.build(np.array(codes))


@pytest.mark.parametrize("code", [(), (1, -1), (1, 2, 3, 4, 5, 6, 7)])
def test_add_refuses_what_is_no_code_and_stays_whole(code: Code) -> None:
    trie = build((1,))
    with pytest.raises(ValueError, match="one to 6 attribute ids"):
        trie.add(code)
    check(trie, {(1,): 0}, {(1,)})


@pytest.mark.parametrize("mmap", [True, False])
def test_saved_and_loaded(tmp_path: Path, mmap: bool) -> None:
    trie = build((1,), (1, 2), (3, 1))
    trie.add((1, 2, 5))
    trie.remove((3, 1))
    trie.save(tmp_path)
    loaded = CodeTrie.load(tmp_path, mmap=mmap)
    assert isinstance(loaded.child_token.base, np.memmap) == mmap
    codes = {(1,): 0, (1, 2): 1, (1, 2, 5): 3}
    check(loaded, codes, set(codes))
    assert loaded.add((4,)) == 4
    loaded.remove((1,))
    check(CodeTrie.load(tmp_path, mmap=mmap), codes, set(codes))  # the files are as they were


def test_an_empty_trie_is_saved_and_grows(tmp_path: Path) -> None:
    build().save(tmp_path)
    trie = CodeTrie.load(tmp_path)
    assert trie.add((4, 2)) == 0
    check(trie, {(4, 2): 0}, {(4, 2)})


def test_a_folder_without_a_usable_trie_is_named(tmp_path: Path) -> None:
    with pytest.raises(IndexFolderError, match="build the index again"):
        CodeTrie.load(tmp_path)
    build((1,), (2,)).save(tmp_path)
    np.save(tmp_path / "trie.child_token.npy", np.zeros(1, dtype=np.int32))
    with pytest.raises(IndexFolderError, match="disagree in length"):
        CodeTrie.load(tmp_path)
