"""Rivals of a language model's codes: sets of terms held against every order of every set, ids against their beam, and
training of both on a tiny shop."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
from tiny_causal import SETTINGS, make_data
from torch import Tensor

from gram.baselines.term_sets import Terms, telling_terms
from gram.bench.causal_rivals import (
    IdWriter,
    ProductSamples,
    TermSpace,
    TermWriter,
    Writer,
    lsa,
    search_many,
    search_sets,
    train_writer,
)
from gram.coder.base import Side
from gram.coder.causal.language_model import LanguageModel
from gram.coder.causal.text import write_prompt
from gram.evaluation.measures import evaluate
from gram.text.fields import joined_text
from gram.training.causal.stages import CausalRun, mine_lexicon

SETS = [{0, 1}, {0, 1, 2}, {2, 3}, {1, 3, 4}, {4}, {0, 2, 4}]
N_TERMS = 5
END = -1

Writers = dict[str, Callable[[LanguageModel], Writer]]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> CausalRun:
    """A run with its lexicon and a network that has not been trained."""
    shop = make_data()
    begun = CausalRun.begin(shop.products, shop.log, SETTINGS, tmp_path_factory.mktemp("run") / "work", resume=False)
    mine_lexicon(begun)
    return begun


@pytest.fixture(scope="module")
def writers(run: CausalRun) -> Writers:
    points = lsa([joined_text(product) for product in run.products], 16, 0)
    space = TermSpace.of(telling_terms(run.products, run.logged), 6)
    return {
        "ids": lambda model: IdWriter.of_vectors(model, points, 2, 8, 0),
        "terms": lambda model: TermWriter(model, space),
    }


def holds_of(sets: list[set[int]]) -> Tensor:
    return torch.tensor([[term in row for term in range(N_TERMS)] for row in sets])


def logit(terms: frozenset[int], term: int) -> float:
    """What a network says that does not see the order: anything, but the same for the same terms."""
    return float(np.random.default_rng([*sorted(terms), 99, term + 1]).normal(scale=2))


def ask(rows: Tensor, prefixes: Tensor, row_of_child: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """`logit` as a beam asks for it; a term's token is its number and ten."""
    before = [frozenset(t - 10 for t in row) for row in prefixes.tolist()]
    pairs = zip(row_of_child.tolist(), tokens.tolist(), strict=True)
    children = [logit(before[row], token - 10) for row, token in pairs]
    return torch.tensor(children), torch.tensor([logit(terms, END) for terms in before])


def every_order(
    sets: list[set[int]], terms: frozenset[int] = frozenset(), p: float = 1.0
) -> dict[frozenset[int], float]:
    """The probability of each set, over all orders in which it can be written."""
    fitting = [row for row in sets if terms <= row]
    allowed = {term: logit(terms, term) for term in sorted(set().union(*fitting) - terms)}
    if set(terms) in fitting:
        allowed[END] = logit(terms, END)
    total = sum(map(np.exp, allowed.values()))
    found: dict[frozenset[int], float] = {}
    for term, value in allowed.items():
        q = p * float(np.exp(value)) / total
        more = {terms: q} if term == END else every_order(sets, terms | {term}, q)
        for key, share in more.items():
            found[key] = found.get(key, 0.0) + share
    return found


def test_a_wide_beam_adds_up_every_order_of_a_set() -> None:
    found = search_sets(ask, holds_of(SETS), torch.arange(10, 10 + N_TERMS), beam=50).exp()
    expected = every_order(SETS)
    np.testing.assert_allclose(found, [expected[frozenset(row)] for row in SETS], rtol=1e-5)
    assert float(found.sum()) == pytest.approx(1)


def test_a_narrow_beam_finds_fewer_sets_and_never_says_more_of_one() -> None:
    wide, narrow = (search_sets(ask, holds_of(SETS), torch.arange(10, 10 + N_TERMS), beam) for beam in (50, 1))
    assert (narrow <= wide + 1e-6).all()
    assert 1 <= int((narrow > -torch.inf).sum()) < len(SETS)


def test_products_of_the_same_terms_share_a_set() -> None:
    space = TermSpace.of(Terms(["a", "b", "c"], [[2, 0, 1], [0, 2], [], [1]]), size=2)
    assert space.holds.tolist() == [[True, False, True], [False, True, False]]
    assert [row.tolist() for row in space.products] == [[0, 1], [3]]  # the third product has no term


def test_a_term_is_one_token_also_beside_others(run: CausalRun, writers: Writers) -> None:
    writer = writers["terms"](copy.deepcopy(run.coder.model))
    assert isinstance(writer, TermWriter)
    assert len(set(writer.tokens.tolist())) == len(writer.space.words)
    lines = writer.lines(["query: x\ncode:"] * 30, range(30), np.random.default_rng(0))
    for position, line in enumerate(lines):
        expected = {int(writer.tokens[term]) for term in writer.space.of_product[position]}
        (tokens,) = writer.model.read_codes([line])
        assert len(tokens) == len(expected)
        assert set(tokens) == expected


@pytest.mark.parametrize("kind", ["ids", "terms"])
def test_a_beam_that_is_wide_enough_finds_each_product_once(kind: str, run: CausalRun, writers: Writers) -> None:
    writer = writers[kind](copy.deepcopy(run.coder.model))
    one, other = writer.find(["blue sofa", "a"], 5000)  # as there are sets of terms begun, or products
    assert sorted(one[0].tolist()) == list(range(len(run.products)))
    assert (np.diff(one[1]) <= 0).all()
    assert one[0].tolist() != other[0].tolist()
    if kind == "ids":  # of terms, products may share a set and the order tells a little
        assert np.exp(one[1]).sum() == pytest.approx(1, abs=1e-3)


def test_texts_are_followed_by_their_products(run: CausalRun, writers: Writers) -> None:
    """A writer that names a product by its position tells which one a text was drawn with."""

    class Positions:
        model = run.coder.model

        def lines(self, prompts: list[str], positions: list[int], rng: np.random.Generator) -> list[str]:
            return [str(p) for p in positions]

        find = None

    samples = ProductSamples(run.samples, run.logged, Positions())  # type: ignore[arg-type]
    queries, products = samples.draw(200, np.random.default_rng(0))
    assert len(queries.prompts) == len(queries.codes) == len(products.prompts) == len(products.codes) == 200
    clicked = {write_prompt(i.query, Side.QUERY): set[str]() for i in run.logged}
    for i in run.logged:
        clicked[write_prompt(i.query, Side.QUERY)].add(i.product_id)
    known = [(p, c) for p, c in zip(queries.prompts, queries.codes, strict=True) if p in clicked]
    assert len(known) > 4
    assert all(run.products[int(code)].product_id in clicked[prompt] for prompt, code in known)
    for prompt, code in zip(products.prompts, products.codes, strict=True):
        assert " ".join(run.products[int(code)].title.split()) in prompt


@pytest.mark.parametrize("kind", ["ids", "terms"])
def test_training_keeps_the_best_step_of_the_best_choice(kind: str, run: CausalRun, writers: Writers) -> None:
    dev, ids = make_data().parts["dev"], [product.product_id for product in run.products]
    scores: list[float] = []

    def score(writer: Writer) -> float:
        found = evaluate(dev.qrels, search_many(writer, dev.queries, ids, 20), ["R@10"])
        scores.append(found.mean["R@10"])
        return scores[-1]

    untrained = score(writers[kind](copy.deepcopy(run.coder.model)))
    trained = train_writer(run, {"one": writers[kind], "two": writers[kind]}, 75, 25, score)
    assert len(scores) == 5  # untrained, two trials, and two more stops of the better one
    assert scores[1] == scores[2]  # the same seed, the same weights, the same texts
    assert trained.score == max(scores[1:]) > untrained
    assert trained.step in (25, 50, 75)
    assert score(trained.writer) == trained.score
