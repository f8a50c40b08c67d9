"""The beam finds the likeliest codes: all of them when it is wide, and what a plain beam finds when it is narrow."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from gram.coder.beam import BeamOptions, BeamResult, Start, TorchTrie, beam_search
from gram.codes.trie import CodeTrie
from gram.errors import ModelError, SettingError

Code = tuple[int, ...]
Logit = Callable[[int, Code, int], float]
Found = list[tuple[int, float, int]]  # (code id, log-probability, length), best first
END = -1
NEVER = float("-inf")


def noise(row: int, prefix: Code, token: int) -> float:
    """A logit that every row, prefix and attribute has of its own."""
    return 2 * float(np.random.default_rng([row, token + 1, 9, *prefix]).normal())


def even(row: int, prefix: Code, token: int) -> float:
    return 0.0


class Scorer:
    """Looks logits up one by one, and keeps the prefixes that it was called with."""

    def __init__(self, logit: Logit = noise) -> None:
        self.logit = logit
        self.prefixes: list[tuple[int, Code]] = []

    def __call__(self, rows: Tensor, prefixes: Tensor, row_of_child: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        hypotheses = [(row, tuple(prefix)) for row, prefix in zip(rows.tolist(), prefixes.tolist(), strict=True)]
        self.prefixes += hypotheses
        pairs = zip(row_of_child.tolist(), tokens.tolist(), strict=True)
        child = [self.logit(hypotheses[parent][0], hypotheses[parent][1], token) for parent, token in pairs]
        end = [self.logit(row, prefix, END) for row, prefix in hypotheses]
        return torch.tensor(child), torch.tensor(end)


def build(codes: list[Code]) -> CodeTrie:
    table = [code + (-1,) * (6 - len(code)) for code in codes]
    return CodeTrie.build(np.array(table, dtype=np.int64).reshape(-1, 6))


def continuations(codes: list[Code], prefix: Code) -> list[int]:
    """The attributes that may follow, and END where a code ends, read off the list of codes."""
    below = [code for code in codes if code[: len(prefix)] == prefix]
    return sorted({code[len(prefix)] if len(code) > len(prefix) else END for code in below})


def step(codes: list[Code], logit: Logit, row: int, prefix: Code, token: int) -> float:
    logits = {follows: logit(row, prefix, follows) for follows in continuations(codes, prefix)}
    return logits[token] - math.log(sum(math.exp(value) for value in logits.values()))


def every_code(codes: list[Code], logit: Logit, row: int) -> Found:
    """Brute force: the probability of each code as the product of its steps."""
    found = [
        (i, sum(step(codes, logit, row, code[:t], token) for t, token in enumerate((*code, END))), len(code))
        for i, code in enumerate(codes)
    ]
    return sorted(found, key=lambda one: (-one[1], one[0]))


def plain_beam(codes: list[Code], logit: Logit, row: int, width: int) -> Found:
    """Beam search as a textbook has it, for one row."""
    live: list[tuple[float, Code]] = [(0.0, ())]
    found: Found = []
    while live:
        options = [
            (log_prob + step(codes, logit, row, prefix, token), (*prefix, token))
            for log_prob, prefix in live
            for token in continuations(codes, prefix)
        ]
        found += [(codes.index(path[:-1]), log_prob, len(path) - 1) for log_prob, path in options if path[-1] == END]
        live = sorted((one for one in options if one[1][-1] != END), key=lambda one: (-one[0], one[1]))[:width]
    return sorted(found, key=lambda one: (-one[1], one[0]))


def found_in(result: BeamResult, row: int) -> Found:
    """A row of a result without its padding, which must be whole."""
    assert result.code_ids.dtype == torch.int64
    assert result.log_probs.dtype == torch.float32
    rows = zip(*(part[row].tolist() for part in result), strict=True)
    full = [(code_id, log_prob, length) for code_id, log_prob, length in rows]
    n_found = sum(code_id >= 0 for code_id, _, _ in full)
    assert full[n_found:] == [(-1, NEVER, 0)] * (len(full) - n_found)
    return full[:n_found]


def same(found: Found, expected: Found) -> None:
    assert [(i, length) for i, _, length in found] == [(i, length) for i, _, length in expected]
    assert [log_prob for _, log_prob, _ in found] == pytest.approx([log_prob for _, log_prob, _ in expected], abs=1e-5)


spaces = st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=5).map(tuple), unique=True, min_size=1, max_size=14)


@settings(max_examples=80)
@given(spaces, st.integers(1, 4), st.integers(1, 16))
def test_a_wide_beam_is_brute_force_over_every_code(codes: list[Code], n_rows: int, n_codes: int) -> None:
    options = BeamOptions(width=len(codes), n_codes=n_codes)
    result = beam_search(TorchTrie(build(codes)), Scorer(), n_rows, options)
    for row in range(n_rows):
        same(found_in(result, row), every_code(codes, noise, row)[:n_codes])


@settings(max_examples=60)
@given(spaces, st.integers(1, 4), st.integers(1, 3))
def test_a_narrow_beam_is_the_textbooks(codes: list[Code], n_rows: int, width: int) -> None:
    result = beam_search(TorchTrie(build(codes)), Scorer(), n_rows, BeamOptions(width=width, n_codes=6))
    for row in range(n_rows):
        same(found_in(result, row), plain_beam(codes, noise, row, width)[:6])


@settings(max_examples=40)
@given(spaces, st.integers(2, 5))
def test_min_length_chooses_among_the_same_codes(codes: list[Code], min_length: int) -> None:
    options = BeamOptions(width=len(codes), n_codes=3, min_length=min_length)
    result = beam_search(TorchTrie(build(codes)), Scorer(), 1, options)
    long_enough = [one for one in every_code(codes, noise, 0) if one[2] >= min_length]
    same(found_in(result, 0), long_enough[:3])


@settings(max_examples=60)
@given(spaces, st.lists(st.lists(st.integers(-1, 4), min_size=4, max_size=4), min_size=1, max_size=3))
def test_a_start_stands_in_for_the_first_step(codes: list[Code], given_first: list[list[int]]) -> None:
    attributes = torch.tensor(given_first)
    log_probs = -torch.rand(attributes.shape, generator=torch.Generator().manual_seed(5))
    scorer = Scorer()
    n_rows = len(given_first)
    start = Start(attributes, log_probs)
    result = beam_search(TorchTrie(build(codes)), scorer, n_rows, BeamOptions(len(codes), n_codes=14), start)
    assert all(prefix for _, prefix in scorer.prefixes)
    for row, (firsts, values) in enumerate(zip(given_first, log_probs.tolist(), strict=True)):
        best = {first: max(v for f, v in zip(firsts, values, strict=True) if f == first) for first in firsts}
        expected = [
            (i, log_prob - step(codes, noise, row, (), codes[i][0]) + best[codes[i][0]], length)
            for i, log_prob, length in every_code(codes, noise, row)
            if codes[i][0] in best
        ]
        same(found_in(result, row), sorted(expected, key=lambda one: (-one[1], one[0])))


def test_by_hand() -> None:
    # At the root 0 and 1 have e^0 : e^0 each; after 0: end or 2, 1 : 3; after (1,) only 2 follows, then the end.
    odds: dict[tuple[Code, int], float] = {((0,), 2): math.log(3)}
    result = beam_search(
        TorchTrie(build([(0,), (0, 2), (1, 2)])), Scorer(lambda row, prefix, token: odds.get((prefix, token), 0.0)), 1
    )
    same(found_in(result, 0), [(2, math.log(1 / 2), 2), (1, math.log(3 / 8), 2), (0, math.log(1 / 8), 1)])
    assert result.code_ids.shape == (1, 8)


def test_ties_go_to_the_smaller_code_id_and_at_the_beams_border_to_the_smaller_prefix() -> None:
    codes: list[Code] = [(3,), (1,), (2,), (0,)]
    trie = TorchTrie(build(codes))
    wide = beam_search(trie, Scorer(even), 2, BeamOptions(width=4, n_codes=3))
    assert wide.code_ids.tolist() == [[0, 1, 2]] * 2
    narrow = beam_search(trie, Scorer(even), 2, BeamOptions(width=2, n_codes=3))
    assert narrow.code_ids.tolist() == [[1, 3, -1]] * 2  # prefixes (0,) and (1,)


def test_a_later_equal_with_a_smaller_id_still_wins() -> None:
    # (0,) is a sure end; (1, 5) ends a step later with the same probability and a smaller id.
    trie = TorchTrie(build([(1, 5), (0,)]))
    assert beam_search(trie, Scorer(even), 1, BeamOptions(n_codes=1)).code_ids.tolist() == [[0]]


def test_the_search_stops_when_nothing_can_win() -> None:
    codes = [(0,), (1, 2), (1, 2, 3), (1, 2, 4)]
    scorer = Scorer(lambda row, prefix, token: 5.0 if token == 0 else 0.0)
    result = beam_search(TorchTrie(build(codes)), scorer, 1, BeamOptions(n_codes=1))
    same(found_in(result, 0), every_code(codes, scorer.logit, 0)[:1])
    # (0,) ends in the second step, and (1, 2) is then out of the running.
    assert scorer.prefixes == [(0, ()), (0, (1,))]


def test_a_scorer_never_sees_leaves() -> None:
    scorer = Scorer()
    beam_search(TorchTrie(build([(0,), (1, 2)])), scorer, 1)
    assert scorer.prefixes == [(0, ()), (0, (1,))]


@pytest.mark.parametrize("start", [None, Start(torch.zeros(2, 1, dtype=torch.int64), torch.zeros(2, 1))])
def test_an_empty_trie_gives_no_codes(start: Start | None) -> None:
    result = beam_search(TorchTrie(build([])), Scorer(), 2, BeamOptions(n_codes=3), start)
    assert result.code_ids.tolist() == [[-1] * 3] * 2
    assert result.log_probs.tolist() == [[NEVER] * 3] * 2


def test_no_rows_give_no_rows() -> None:
    assert beam_search(TorchTrie(build([(0,)])), Scorer(), 0).code_ids.shape == (0, 8)


def test_a_row_whose_start_begins_no_code_is_empty_beside_others() -> None:
    start = Start(torch.tensor([[7, -1], [1, 7], [-1, -1]]), torch.zeros(3, 2))
    result = beam_search(TorchTrie(build([(0,), (1,)])), Scorer(), 3, BeamOptions(n_codes=2), start)
    assert result.code_ids.tolist() == [[-1, -1], [1, -1], [-1, -1]]
    assert result.log_probs[1].tolist() == [0.0, NEVER]


def test_what_the_scorer_forbids_is_lost_and_never_replaced() -> None:
    codes = [(0, 1), (0, 2), (1,)]
    scorer = Scorer(lambda row, prefix, token: NEVER if prefix == (0,) else 0.0)
    result = beam_search(TorchTrie(build(codes)), scorer, 1)
    same(found_in(result, 0), [(2, math.log(1 / 2), 1)])


def test_codes_added_after_the_build_count() -> None:
    trie = build([(0,), (0, 1), (2,)])
    trie.add((0, 3, 1))
    trie.add((5,))
    codes: list[Code] = [(0,), (0, 1), (2,), (0, 3, 1), (5,)]
    result = beam_search(TorchTrie(trie), Scorer(), 2)
    for row in range(2):
        same(found_in(result, row), every_code(codes, noise, row))


def test_logits_that_are_no_numbers_and_of_other_shapes_are_refused() -> None:
    trie = TorchTrie(build([(0,), (0, 1)]))
    with pytest.raises(ModelError, match="not finite numbers"):
        beam_search(trie, Scorer(lambda row, prefix, token: float("nan")), 1)
    with pytest.raises(ValueError, match=r"must return logits of shapes \(\(1,\), \(1,\)\), not \(\(2,\), \(1,\)\)"):
        beam_search(trie, lambda rows, prefixes, row_of_child, tokens: (torch.zeros(2), torch.zeros(1)), 1)
    with pytest.raises(ValueError, match=r"of shape \(3, S\)"):
        beam_search(trie, Scorer(), 3, start=Start(torch.zeros(2, 1, dtype=torch.int64), torch.zeros(2, 1)))


@pytest.mark.parametrize(
    "options",
    [{"width": 0}, {"n_codes": 0}, {"min_length": 0}, {"min_length": 7}],
)
def test_settings_outside_their_range_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(SettingError):
        BeamOptions(**options)  # type: ignore[arg-type]
