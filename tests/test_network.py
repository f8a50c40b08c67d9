"""The encoder coder's arithmetic, against plain forms of the same."""

from __future__ import annotations

import math
from collections import defaultdict
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from gram.coder.base import Side
from gram.coder.beam import TorchTrie
from gram.coder.encoder.decoder import Decoder, Memory
from gram.coder.encoder.match import SMALL, best_match
from gram.codes.trie import CodeTrie
from gram.training.losses import attribute_loss, code_loss, code_scores, contrastive_loss, late_scores

# --- matching -------------------------------------------------------------------------------------------------------


def plain_match(positions: Tensor, mask: Tensor, attributes: Tensor) -> Tensor:
    match = positions @ attributes.T  # (B, L, G)
    return match.masked_fill((mask == 0).unsqueeze(-1), -1e4).amax(1)


@pytest.mark.parametrize("n_texts", [1, 4, 9])
def test_the_best_match_is_the_plain_forms_and_so_is_its_gradient(n_texts: int) -> None:
    made = torch.Generator().manual_seed(n_texts)
    positions = torch.randn(n_texts, 5, 6, generator=made)
    attributes = torch.randn(7, 6, generator=made)
    mask = (torch.arange(5) < torch.randint(1, 6, (n_texts, 1), generator=made)).long()
    weight = 1 + torch.rand(n_texts, 7, generator=made)  # every gradient far above the share that is dropped
    found = []
    for form in (best_match, plain_match):
        ours, table = positions.clone().requires_grad_(), attributes.clone().requires_grad_()
        best = form(ours, mask, table)
        (best * weight).sum().backward()
        found.append((best.detach(), ours.grad, table.grad))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)


def test_a_gradient_that_is_next_to_nothing_is_dropped() -> None:
    positions = torch.eye(2)[None].requires_grad_()  # one text, two positions
    weight = torch.tensor([[1.0, SMALL / 10]])
    (best_match(positions, torch.ones(1, 2), torch.eye(2)) * weight).sum().backward()
    assert positions.grad is not None
    assert positions.grad[0].tolist() == [[1.0, 0.0], [0.0, 0.0]]


def test_no_attributes_match_nothing_and_can_be_trained() -> None:
    positions, table = torch.ones(2, 3, 4, requires_grad=True), torch.ones(0, 4, requires_grad=True)
    best = best_match(positions, torch.ones(2, 3), table)
    assert best.shape == (2, 0)
    best.sum().backward()


# --- losses ---------------------------------------------------------------------------------------------------------


def test_code_scores_are_sums_over_shared_attributes() -> None:
    rng = np.random.default_rng(0)
    n_learnt, n_all = 4, 9

    def side(n: int) -> tuple[tuple[Tensor, Tensor, Tensor], Tensor, list[defaultdict[int, float]]]:
        tags, rows = [], []
        expansion = torch.from_numpy(rng.random((n, n_learnt)).astype(np.float32))
        for row in range(n):
            lexical = rng.choice(n_all, 3, replace=False).tolist()
            expansion[row, [a for a in lexical if a < n_learnt]] = 0.0
            weights = {a: float(rng.random()) for a in lexical}
            tags += [(row, a, w) for a, w in weights.items()]
            rows.append(defaultdict(float, dict(enumerate(expansion[row].tolist())) | weights))
        row, attribute, weight = zip(*tags, strict=True)
        return (torch.tensor(row), torch.tensor(attribute), torch.tensor(weight)), expansion, rows

    query_tags, query_expansion, queries = side(3)
    product_tags, product_expansion, products = side(5)
    expected = [[sum(q[a] * p[a] for a in range(n_all)) for p in products] for q in queries]
    scores = code_scores(query_tags, query_expansion, product_tags, product_expansion)
    torch.testing.assert_close(scores, torch.tensor(expected))


def test_code_scores_without_any_rare_attribute() -> None:
    tags = (torch.tensor([0]), torch.tensor([1]), torch.tensor([2.0]))
    expansion = torch.tensor([[0.5, 0.0]])
    assert code_scores(tags, expansion, tags, expansion).tolist() == [[0.25 + 4.0]]
    none = (torch.zeros(0).long(), torch.zeros(0).long(), torch.zeros(0))
    assert code_scores(none, expansion, tags, expansion).tolist() == [[0.25]]


def test_late_scores_are_of_the_nearest_tokens() -> None:
    rng = torch.Generator().manual_seed(0)
    queries, products = torch.randn(3, 4, 8, generator=rng), torch.randn(5, 6, 8, generator=rng)
    products[1, 2:] = 0.0  # a product of two tokens
    weights = torch.softmax(torch.randn(3, 4, generator=rng), dim=1)
    scores = late_scores((queries, weights), products)
    for b in range(3):
        for m in range(5):
            tokens = [p for p in products[m] if p.any()]
            best = [max(float(q @ p) for p in tokens) for q in queries[b]]
            assert float(scores[b, m]) == pytest.approx(
                sum(w * s for w, s in zip(weights[b].tolist(), best, strict=True)), rel=1e-4
            )


def test_the_contrastive_loss_is_the_surprise_at_the_clicked_product() -> None:
    scores = torch.tensor([[0.0, math.log(3.0), 5.0], [1.0, 1.0, 1.0]])
    ignored = torch.tensor([[False, False, True], [False, False, False]])
    expected = (math.log(4.0) + math.log(3.0)) / 2  # 1 of 1 + 3; 1 of 3
    assert contrastive_loss(scores, ignored).item() == pytest.approx(expected)


def test_the_attribute_loss_is_binary_cross_entropy() -> None:
    logits = torch.tensor([[2.0, -1.0, 0.5], [0.0, 1.0, -3.0]])
    targets = (torch.tensor([0, 0, 1]), torch.tensor([0, 2, 1]), torch.tensor([1.0, 0.5, 1.0]))

    def surprise(logit: float, target: float) -> float:
        chance = 1 / (1 + math.exp(-logit))
        return -target * math.log(chance) - (1 - target) * math.log(1 - chance)

    target = [[1.0, 0.0, 0.5], [0.0, 1.0, 0.0]]
    total = sum(surprise(float(logits[b, g]), target[b][g]) for b in range(2) for g in range(3))
    assert attribute_loss(logits, targets).item() == pytest.approx(total / 2.5, rel=1e-5)
    known = sum(surprise(float(logits[0, g]), target[0][g]) for g in range(3)) + surprise(1.0, 1.0)
    only_targets = torch.tensor([False, True])  # of the second text only attribute 1 is known
    assert attribute_loss(logits, targets, only_targets).item() == pytest.approx(known / 2.5, rel=1e-5)


CODES = [(0,), (1,), (2,), (0, 1), (0, 2), (1, 2), (0, 1, 3), (0, 1, 2, 3), (1, 2, 3)]  # (0, 1, 2) and (3,) are none


@pytest.fixture
def decoding() -> tuple[Decoder, Memory, TorchTrie]:
    torch.manual_seed(0)
    width, n_texts = 12, 2
    decoder = Decoder(width)
    for parameter in decoder.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    attributes = torch.nn.functional.normalize(torch.randn(4, width), dim=-1)
    mask = torch.tensor([[1, 1, 1], [1, 1, 0]])
    memory = decoder.remember(torch.randn(n_texts, 3, width), mask, torch.randn(n_texts, 4), attributes)
    return decoder, memory, TorchTrie(CodeTrie.build(padded(CODES, 6)))


def padded(codes: list[tuple[int, ...]], length: int) -> Any:
    return np.array([code + (-1,) * (length - len(code)) for code in codes], dtype=np.int64)


def surprise_of(code: tuple[int, ...], text: int, decoder: Decoder, memory: Memory) -> float:
    """−log P(code | text, its first attribute), one step at a time over the list of codes."""
    total = 0.0
    for t in range(1, len(code) + 1):
        prefix = code[:t]
        after = decoder(memory, torch.tensor([text]), torch.tensor([prefix]), Side.PRODUCT)[:, -1]
        options = sorted({c[t] for c in CODES if len(c) > t and c[:t] == prefix})
        zeros = torch.zeros(len(options)).long()
        row = torch.tensor([text])
        logits = dict(
            zip(options, decoder.child_logits(memory, row, after, zeros, torch.tensor(options).long()), strict=True)
        )
        if prefix in CODES:
            logits[-1] = decoder.end_logits(after)[0]
        chosen = code[t] if t < len(code) else -1
        total += float(torch.logsumexp(torch.stack(list(logits.values())), 0) - logits[chosen])
    return total


@torch.no_grad()
def test_the_code_loss_is_that_of_enumerating_the_codes(decoding: tuple[Decoder, Memory, TorchTrie]) -> None:
    decoder, memory, trie = decoding
    for text in (0, 1):
        for code in CODES:
            loss = code_loss(
                decoder, memory, trie, torch.from_numpy(padded([code], 4)), torch.tensor([text]), Side.PRODUCT
            )
            assert loss.item() == pytest.approx(surprise_of(code, text, decoder, memory), rel=1e-3, abs=1e-4)


@torch.no_grad()
def test_the_codes_loss_is_the_mean_over_codes(decoding: tuple[Decoder, Memory, TorchTrie]) -> None:
    decoder, memory, trie = decoding
    rows = torch.tensor([i % 2 for i in range(len(CODES))])
    loss = code_loss(decoder, memory, trie, torch.from_numpy(padded(CODES, 4)), rows, Side.PRODUCT)
    each = [surprise_of(code, i % 2, decoder, memory) for i, code in enumerate(CODES)]
    assert loss.item() == pytest.approx(float(np.mean(each)), rel=1e-3)


@torch.no_grad()
@pytest.mark.parametrize("first", [0, 1, 2])
def test_the_chances_of_all_codes_with_one_beginning_add_up_to_one(
    decoding: tuple[Decoder, Memory, TorchTrie], first: int
) -> None:
    decoder, memory, trie = decoding
    chances = []
    for code in (c for c in CODES if c[0] == first):
        loss = code_loss(decoder, memory, trie, torch.from_numpy(padded([code], 4)), torch.tensor([1]), Side.PRODUCT)
        chances.append(math.exp(-loss.item()))
    assert sum(chances) == pytest.approx(1.0, abs=1e-4)
