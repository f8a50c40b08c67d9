"""The code trie agrees with a plain set of tuples, through additions and the disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gram.codes.trie import CodeTrie, _find_damage
from gram.errors import ModelError

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


def check(trie: CodeTrie, codes: dict[Code, int]) -> None:
    """`codes` → id is what the trie holds."""
    assert [tuple(a for a in row if a >= 0) for row in trie.table().tolist()] == sorted(codes, key=codes.__getitem__)
    assert len(trie) == len(codes)
    prefixes = {code[:n] for code in codes for n in range(len(code) + 1)} | {()}
    assert len(prefixes) == trie.n_nodes == len(trie.is_end) == len(trie.code_id)
    assert np.array_equal(trie.is_end, trie.code_id >= 0)
    for prefix in prefixes:
        assert trie.code_id[trie.find(prefix)] == codes.get(prefix, -1)
        assert (prefix in trie) == (prefix in codes)
        assert trie.find((*prefix, 99)) == -1
    looked_at = sorted(prefixes) * 2  # a node looked at twice answers twice
    found = trie.children([trie.find(prefix) for prefix in looked_at])
    expected = [
        (row, token, node)
        for row, prefix in enumerate(looked_at)
        for token, node in sorted(children_by_hand(trie, set(codes), prefix).items())
    ]
    assert list(zip(*(part.tolist() for part in found), strict=True)) == expected


codes_of_a_space = st.lists(st.integers(0, 3), min_size=1, max_size=6).map(tuple)


@settings(max_examples=150)
@given(st.lists(codes_of_a_space, unique=True, max_size=20), st.lists(codes_of_a_space, max_size=8))
def test_the_trie_is_a_set_of_codes(first: list[Code], later: list[Code]) -> None:
    trie = build(*first)
    codes = {code: row for row, code in enumerate(first)}
    check(trie, codes)
    for code in later:
        expected = codes.setdefault(code, len(codes))
        assert trie.add(code) == expected
    check(trie, codes)


def test_arrays_by_hand() -> None:
    #        root 0
    #       2 → 1     5 → 2        (2,) is code 2
    #   1 → 3  4 → 4   2 → 5       (2, 1) code 3, (2, 4) code 0, (5, 2) code 1
    trie = build((2, 4), (5, 2), (2,), (2, 1))
    assert trie.first_child.tolist() == [0, 2, 4, 5, 5, 5, 5]
    assert trie.child_token.tolist() == [2, 5, 1, 4, 2]
    assert trie.is_end.tolist() == [False, True, False, True, True, True]
    assert trie.code_id.tolist() == [-1, 2, -1, 3, 0, 1]
    row, token, node = trie.children(np.array([2, 5, 1]))
    assert (row.tolist(), token.tolist(), node.tolist()) == ([0, 2, 2], [2, 1, 4], [5, 3, 4])
    assert len(trie.children([trie.n_nodes]).node) == 0


def test_adding_edits_not_what_the_caller_gave() -> None:
    codes = padded([(1,), (1, 2)])
    trie = CodeTrie.build(codes)
    trie.add((1, 3))
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
    check(trie, {(1,): 0})


@pytest.mark.parametrize("mmap", [True, False])
def test_saved_and_loaded(tmp_path: Path, mmap: bool) -> None:
    trie = build((1,), (1, 2), (3, 1))
    trie.add((1, 2, 5))
    trie.save(tmp_path)
    loaded = CodeTrie.load(tmp_path, mmap=mmap)
    assert isinstance(loaded.child_token.base, np.memmap) == mmap
    codes = {(1,): 0, (1, 2): 1, (3, 1): 2, (1, 2, 5): 3}
    check(loaded, codes)
    assert loaded.add((4,)) == 4
    check(CodeTrie.load(tmp_path, mmap=mmap), codes)  # the files are as they were


@given(st.lists(codes_of_a_space, unique=True, max_size=20))
def test_every_trie_can_be_loaded(codes: list[Code]) -> None:
    trie = build(*codes)
    assert _find_damage(trie.first_child, trie.child_token, trie.is_end, trie.code_id) == ""


def test_an_empty_trie_is_saved_and_grows(tmp_path: Path) -> None:
    build().save(tmp_path)
    trie = CodeTrie.load(tmp_path)
    assert trie.add((4, 2)) == 0
    check(trie, {(4, 2): 0})


def test_a_folder_without_a_trie_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"trie\.first_child\.npy.*damaged. Fix: train the model again"):
        CodeTrie.load(tmp_path)


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        # (2,) (5, 2) (2, 1) (2, 4): first_child 0 2 4 5 5 5 5, child_token 2 5 1 4 2
        ("child_token", [2], "disagree"),
        ("child_token", [2, 5, 4, 1, 2], "attributes do not rise"),
        ("child_token", [2, 2, 1, 4, 2], "attributes do not rise"),
        ("child_token", [-1, 5, 1, 4, 2], "attributes do not rise"),
        ("child_token", [2.0, 5.0, 1.0, 4.0, 2.0], "whole numbers"),
        ("first_child", [0, 2, 1, 5, 5, 5, 5], "offsets do not rise"),
        ("first_child", [0, 2, 4, 5, 5, 5, 9], "offsets do not rise"),
        ("first_child", [1, 2, 4, 5, 5, 5, 5], "offsets do not rise"),
        ("first_child", [0, 0, 4, 5, 5, 5, 5], "before its parent"),
        ("first_child", [0, 0, 0, 0, 0, 0, 0], "offsets do not rise"),
        ("is_end", [0, 1, 0, 1, 1, 1], "disagree"),
        ("is_end", [True] * 6, "a path ends"),
        ("is_end", [False, True, False, True, True, False], "a path ends"),
        ("code_id", [-1, 0, -1, 2, 3, 9], "ids are not"),
        ("code_id", [-1, 0, -1, 2, 3, 3], "ids are not"),
        ("code_id", [[-1, 0, -1, 2, 3, 1]], "whole numbers"),
    ],
)
def test_a_damaged_trie_is_found_when_it_is_loaded(tmp_path: Path, name: str, values: list[int], message: str) -> None:
    build((2,), (5, 2), (2, 1), (2, 4)).save(tmp_path)
    CodeTrie.load(tmp_path)
    np.save(tmp_path / f"trie.{name}.npy", np.array(values))
    with pytest.raises(ModelError, match=rf"trie is damaged: .*{message}.*Fix: train the model again"):
        CodeTrie.load(tmp_path)
