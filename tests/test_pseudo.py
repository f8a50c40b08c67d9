"""Pseudo-queries: of the product's attributes, as searchers would choose them."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from gram.codes.lexicon import Lexicon
from gram.codes.pseudo_queries import MISSPELT, pseudo_query, pseudo_share
from gram.records import Attribute
from gram.text.fields import FIELDS

VALUES = ("camp chair", "chair", "blue", "acme", "the", "steel", "wobbly")
MENTION_RATES = (0.4, 0.4, 0.1, 0.2, 0.0, 0.2, 0.04)
TITLE, BRAND, DESCRIPTION = FIELDS.index("title"), FIELDS.index("brand"), FIELDS.index("description")


def _lexicon() -> Lexicon:
    ones = np.ones(len(VALUES), np.float32)
    return Lexicon(
        attributes=[Attribute("type", value) for value in VALUES],
        forms=[[tuple(value.split())] for value in VALUES],
        n_learnt=3,
        products=ones,
        queries=ones,
        mention_rate=np.array(MENTION_RATES, np.float32),
        n_products=10,
    )


def _tags(*rows: tuple[str, int, int]) -> NDArray[np.int32]:
    """(value, first token, field) of each."""
    return np.array([(VALUES.index(v), at, at + 1, field) for v, at, field in rows], np.int32).reshape(-1, 4)


PRODUCT = _tags(
    ("blue", 1, TITLE), ("camp chair", 2, TITLE), ("chair", 3, TITLE), ("acme", 5, BRAND), ("steel", 4, TITLE)
)


def _draw(tags: NDArray[np.int32], n: int, seed: int = 0) -> list[tuple[str, list[int]]]:
    lexicon, rng = _lexicon(), np.random.default_rng(seed)
    made = [pseudo_query(lexicon, tags, rng) for _ in range(n)]
    return [m for m in made if m is not None]


def test_they_name_attributes_of_the_product_and_repeat_no_word() -> None:
    misspelt = 0
    for text, attributes in _draw(PRODUCT, 500):
        assert 1 <= len(attributes) <= 4  # five, of which chair and camp chair exclude each other
        assert set(attributes) <= set(PRODUCT[:, 0].tolist())
        row = [word for a in attributes for word in VALUES[a].split()]
        assert len(set(row)) == len(row)
        misspelt += text != " ".join(row)
    assert misspelt / 500 == pytest.approx(MISSPELT, abs=0.04)


def test_the_same_seed_makes_the_same_queries() -> None:
    assert _draw(PRODUCT, 20, seed=3) == _draw(PRODUCT, 20, seed=3)
    assert _draw(PRODUCT, 20, seed=3) != _draw(PRODUCT, 20, seed=4)


def test_what_the_title_lacks_stands_before_what_it_says_in_its_order() -> None:
    order = [VALUES.index(v) for v in ("acme", "blue", "camp chair", "chair", "steel")]
    for _, attributes in _draw(PRODUCT, 200):
        assert attributes == sorted(attributes, key=order.index)


def test_one_attribute_queries_follow_the_rates_at_which_searchers_mention() -> None:
    tags = _tags(("chair", 1, TITLE), ("blue", 2, TITLE), ("steel", 3, TITLE))
    single = [attributes[0] for _, attributes in _draw(tags, 6000) if len(attributes) == 1]
    share = np.bincount(single, minlength=len(VALUES)) / len(single)
    assert len(single) / 6000 == pytest.approx(0.25, abs=0.03)
    for value in ("chair", "blue", "steel"):  # .4 : .1 : .2
        a = VALUES.index(value)
        assert share[a] == pytest.approx(MENTION_RATES[a] / 0.7, abs=0.04)


def test_a_description_is_mentioned_less_than_a_title() -> None:
    tags = _tags(("acme", 1, TITLE), ("steel", 2, DESCRIPTION))  # of the same mention rate
    single = [attributes[0] for _, attributes in _draw(tags, 3000) if len(attributes) == 1]
    share = single.count(VALUES.index("steel")) / len(single)
    assert share == pytest.approx(0.15 / 1.15, abs=0.04)


def test_stop_words_are_named_only_where_there_is_nothing_else() -> None:
    the = VALUES.index("the")
    tags = _tags(("the", 0, TITLE), ("chair", 1, TITLE))
    assert all(the not in attributes for _, attributes in _draw(tags, 300))
    assert {tuple(attributes) for _, attributes in _draw(_tags(("the", 0, TITLE)), 20)} == {(the,)}


def test_a_product_without_attributes_has_none() -> None:
    assert pseudo_query(_lexicon(), _tags(), np.random.default_rng(0)) is None


@pytest.mark.parametrize(("queries", "share"), [(0, 1.0), (750, 0.6), (1500, 0.2), (100_000, 0.2)])
def test_a_poor_log_is_made_up_for(queries: int, share: float) -> None:
    assert pseudo_share(queries) == pytest.approx(share)


def test_what_is_hidden_from_a_text_is_neither_read_nor_lexical() -> None:
    import torch

    from gram.coder.encoder.tokens import Batch, hide

    tags = torch.tensor([[0, 0, 1, 2], [0, 1, 3, 4], [0, 2, 1, 4], [1, 0, 1, 2]])  # row, attribute, start, end
    ids = torch.tensor([[101, 5, 6, 7, 102], [101, 5, 102, 0, 0]])
    batch = Batch(ids, (ids > 0).long(), torch.tensor([3.0, 1.0]), *tags.T, torch.zeros(4, dtype=torch.long))
    words = [frozenset({"oak"}), frozenset({"desk"}), frozenset({"oak", "desk"})]
    hidden = hide(batch, {0: [0]}, words, mask_id=103)
    assert hidden.token_ids.tolist() == [[101, 103, 6, 7, 102], [101, 5, 102, 0, 0]]
    assert list(zip(hidden.tag_row.tolist(), hidden.tag_attribute.tolist(), strict=True)) == [(0, 1), (1, 0)]
    assert batch.token_ids[0, 1] == 5, "the batch it is made of stays"
    assert hide(batch, {}, words, 103) is batch
