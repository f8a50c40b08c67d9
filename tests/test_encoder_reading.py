"""What the encoder coder reads of texts, and says of them."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from tiny_encoder import PRODUCTS, make_backbone

from gram.arrays import SparseRow
from gram.coder.base import QUERY_CODING, SURE_CODING, CodingSettings, NearAttributes, QueryCodes, Side
from gram.coder.encoder import backbone as backbones
from gram.coder.encoder.backbone import (
    LONGEST_CACHED,
    Backbone,
    tokenize_words,
)
from gram.coder.encoder.coder import EncoderCoder
from gram.coder.encoder.coding import NEAR_FROM, Unsaid, center_embeddings, heaviest_expansions
from gram.coder.encoder.network import FirstStep
from gram.coder.encoder.tokens import PRODUCT_TOKENS, TextTokenizer
from gram.codes.mining import mine
from gram.codes.slots import SLOTS
from gram.codes.trie import CodeTrie
from gram.records import Product
from gram.text.fields import FIELDS


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return make_backbone()


@pytest.fixture(scope="module")
def tokenizer(backbone: Backbone) -> TextTokenizer:
    return TextTokenizer(mine(PRODUCTS, []), backbone)


def test_a_words_span_holds_its_tokens(backbone: Backbone) -> None:
    ids, spans = tokenize_words(backbone, ["red", "hose", "xylophone", "lamp"], 64)
    assert ids[0] == backbone.start_id
    assert ids[-1] == backbone.end_id
    for word, (start, end) in zip(["red", "hose", "xylophone", "lamp"], spans, strict=True):
        assert ids[start:end] == backbone.tokens_of(word)


def test_tokens_are_remembered_of_so_many_words_of_some_length(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backbones, "WORDS_CACHED", 8)
    bounded = Backbone(backbone.encoder, backbone.tokenizer, "scratch")
    words = [f"{word}{i}" for i in range(20) for word in ("hose", "lamp", "x" * LONGEST_CACHED)]
    assert [bounded.tokens_of(word) for word in words * 2] == [backbone.tokens_of(word) for word in words * 2]
    assert bounded._cached_tokens.cache_info().currsize == 8
    bounded._cached_tokens.cache_clear()
    bounded.tokens_of("x" * (LONGEST_CACHED + 1))
    assert bounded._cached_tokens.cache_info().currsize == 0


def test_a_word_beyond_the_limit_points_at_the_start(backbone: Backbone) -> None:
    ids, spans = tokenize_words(backbone, ["red"] * 50, 10)
    assert len(ids) <= 10
    assert spans[0] == (1, 1 + len(backbone.tokens_of("red")))
    assert spans[-1] == (0, 1)


def test_a_lexical_attribute_stands_at_its_words(tokenizer: TextTokenizer) -> None:
    tokenized = tokenizer.products(PRODUCTS)
    seen = set()
    for row in range(len(PRODUCTS)):
        ids = tokenized.token_ids[tokenized.token_start[row] : tokenized.token_start[row + 1]].tolist()
        for attribute, start, end, field in tokenized.tags[
            tokenized.tag_start[row] : tokenized.tag_start[row + 1]
        ].tolist():
            words = tokenizer.lexicon.attributes[attribute].value.split()
            seen.add(FIELDS[field])
            if FIELDS[field] == "description":
                assert (start, end) == (0, 1)  # not read, but its attributes are lexical
            else:
                assert ids[start:end] == [token for word in words for token in tokenizer.backbone.tokens_of(word)]
    assert {"title", "brand", "category", "description"} <= seen


def test_a_product_of_many_values_is_read_in_the_time_of_its_words(tokenizer: TextTokenizer) -> None:
    """A megabyte of values that repeat each other's words took twenty seconds, in which nothing else was written."""

    def seconds(n_different: int) -> float:
        product = Product("x", "Hose", attributes={"size": tuple(f"w{n % n_different}x" for n in range(20_000))})
        best = math.inf
        for _ in range(3):  # a busy machine has taken twice as long for one
            begin = time.process_time()
            tokenizer.products([product])
            best = min(best, time.process_time() - begin)
        return best

    assert seconds(10_000) < 3 * seconds(20_000)


def test_an_attribute_is_lexical_once_in_the_first_field_that_has_it(tokenizer: TextTokenizer) -> None:
    tokenized = tokenizer.products([Product("x", "Red hose", brand="Red", description="red red")])
    red = tokenizer.lexicon.id_of(("red",))
    (tag,) = [row for row in tokenized.tags.tolist() if row[0] == red]
    assert FIELDS[tag[3]] == "title"


def test_a_batch_is_what_its_texts_are_alone(tokenizer: TextTokenizer) -> None:
    tokenized = tokenizer.queries(["red hose", "lamp", "", "dark blue desk lamp of acme"])
    batch = tokenized.batch([3, 1, 2])
    assert batch.mask.sum(1).tolist() == tokenized.lengths[[3, 1, 2]].tolist()
    for i, row in enumerate((3, 1, 2)):
        alone = tokenized.batch([row])
        n = int(alone.mask.sum())
        assert batch.token_ids[i, :n].tolist() == alone.token_ids[0].tolist()
        its = batch.tag_row == i
        for name in ("tag_attribute", "tag_start", "tag_end", "tag_field"):
            assert getattr(batch, name)[its].tolist() == getattr(alone, name).tolist()


def test_represented_tokens_are_the_networks_without_the_marks(backbone: Backbone, tokenizer: TextTokenizer) -> None:
    coder = EncoderCoder(backbone, tokenizer.lexicon, CodeTrie.build(np.array([[0]]))).eval()
    texts = ["red hose", "lamp", "", "dark blue desk lamp of acme"]
    represented = coder.represent_tokenized(tokenizer.queries(texts), Side.QUERY, replace(QUERY_CODING, codes=0))
    start = represented.token_vectors.start
    for i, text in enumerate(texts):
        tokenized = tokenizer.queries([text])
        n = int(tokenized.lengths[0]) - 2
        with torch.no_grad():
            step = coder.network(tokenized.batch([0]), Side.QUERY)
        assert start[i + 1] - start[i] == n
        assert np.abs(represented.token_vectors.of(i) - step.token_vectors[0, 1 : n + 1].numpy()).max(initial=0) < 0.01
        assert represented.token_weights[start[i] : start[i + 1]].sum() == pytest.approx(1 if n else 0, abs=1e-5)


def test_what_comes_near_to_what_a_query_says(backbone: Backbone, tokenizer: TextTokenizer) -> None:
    lexicon = tokenizer.lexicon
    coder = EncoderCoder(backbone, lexicon, CodeTrie.build(np.array([[0]]))).eval()
    coder.read_attributes()
    texts, settings = ["red hose", "", "dark blue lamp"], replace(QUERY_CODING, codes=0)
    found = coder.represent(texts, Side.QUERY, settings).near
    assert found is not None
    assert set(found.text.tolist()) == {0, 2}
    assert not (found.lexical == found.key).any()
    assert (found.likeness > 0).all()
    assert (found.likeness <= 1).all()
    assert NEAR_FROM == 0.3, "docs/log.md tells where it was taken from"
    for number, text in enumerate(texts):
        batch = tokenizer.queries([text]).batch([0])
        with torch.no_grad():
            states = coder.network(batch, Side.QUERY).states[0]
            states = torch.nn.functional.normalize(coder.network.match(states), dim=-1)
        keys = np.unique(batch.tag_attribute.numpy())
        near = found.of(number).by_key(keys)
        for start, end, held in zip(batch.tag_start, batch.tag_end, batch.tag_attribute.tolist(), strict=True):
            cosines = torch.stack([states[at] @ coder.attributes().T for at in range(start, end)]).mean(0)
            like = {a: (float(c) - 0.3) / 0.7 for a, c in enumerate(cosines) if c > 0.3 and a != held}
            row = near.of(keys.tolist().index(held))
            assert dict(zip(row.key.tolist(), row.weight.tolist(), strict=True)) == pytest.approx(like, abs=1e-4)
    batch = tokenizer.queries(["dark blue lamp"]).batch([0])
    with torch.no_grad():
        step = coder.network(batch, Side.QUERY)
        each = coder.network.near(step, batch, coder.attributes())
        both = coder.network.near(step, batch._replace(tag_end=batch.tag_end + 1), coder.attributes())
    assert both[0].numpy() == pytest.approx(((each[0] + each[1]) / 2).numpy(), abs=1e-5), "the mean of its tokens"
    assert coder.represent(texts, Side.QUERY, replace(settings, near=0)).near is None
    beyond = coder.represent(["lamp " * 40 + "red"], Side.QUERY, settings).near
    assert beyond is not None
    assert lexicon.id_of(("red",)) not in beyond.lexical, "what is not read stands nowhere"
    few = coder.represent(texts, Side.QUERY, replace(settings, near=1)).near
    assert few is not None
    assert np.unique(few.lexical[few.text == 0], return_counts=True)[1].max() == 1


def test_what_excludes_each_other_is_not_near() -> None:
    slots = np.array([SLOTS.index(s) for s in ("colour", "colour", "type", "type")], dtype=np.int32)
    near = NearAttributes(np.zeros(4, np.int64), np.array([0, 0, 2, 0]), np.array([1, 2, 3, 3]), np.ones(4, np.float32))
    assert near.agreeing(slots).key.tolist() == [2, 3, 3]


def test_near_is_what_says_it_otherwise(tokenizer: TextTokenizer) -> None:
    lexicon = tokenizer.lexicon
    lamp, red, hose = (lexicon.id_of((word,)) for word in ("lamp", "red", "hose"))
    near = NearAttributes(
        *(np.array(part) for part in ([0, 0, 0], [lamp] * 3, [red, hose, lamp])), np.ones(3, np.float32)
    )
    assert near.otherwise({"red", "lamp"}, lexicon).key.tolist() == [hose]
    read = QueryCodes.read(SparseRow(np.array([lamp, red]), np.ones(2, np.float32)), lexicon, near)
    assert read.near is not None
    assert read.near.of(read.key.tolist().index(lamp)).key.tolist() == [hose], "red is asked itself"
    assert not len(read.near.of(read.key.tolist().index(red)).key)


def test_words_that_no_attribute_says_are_told_of_queries_alone(
    tokenizer: TextTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert tokenizer.queries(["red hem"]).unsaid == [[]], "an encoder that has read nothing but this shop"
    monkeypatch.setattr(tokenizer.backbone, "source", "minilm")
    texts = [
        "red hem",
        "lamp for hems in home",
        "hem 12v x45",
        "lamp without hem",
        "lamp not any hem bed",
        "red lamp",
    ]
    spans = {text: tokenizer.queries([text]).unsaid[0] for text in texts}
    words = {text: [text.split()[span[0] - 1] for span in here] for text, here in spans.items() if "x45" not in text}
    assert words == {
        "red hem": ["hem"],
        "lamp for hems in home": ["hems"],
        "lamp without hem": [],
        "lamp not any hem bed": [],
        "red lamp": [],
    }
    assert len(spans["hem 12v x45"]) == 1, "letters and what has a digit are like nothing"
    assert tokenizer.queries(["red чайник"]).unsaid == [[]], "what it has no token for"
    assert tokenizer.queries(["lamp " * 40 + "hem"]).unsaid == [[]], "what is not read"
    assert tokenizer.products([Product("1", "hem")]).unsaid == [[]]


def test_a_word_that_no_attribute_says_gives_a_query_the_nearest(
    backbone: Backbone, tokenizer: TextTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backbone, "source", "minilm")
    lexicon = tokenizer.lexicon
    coder = EncoderCoder(backbone, lexicon, CodeTrie.build(np.array([[0]]))).eval()
    coder.read_attributes()
    texts, settings = ["red hem", "home red", "hem dear", "red"], replace(QUERY_CODING, codes=0, least=1.1)
    found = coder.represent(texts, Side.QUERY, settings)
    assert not coder.represent(texts, Side.QUERY, replace(settings, near=0)).expansion.key.size, "none is likely enough"
    base = coder.network.lexical_base.detach().exp().numpy()
    for number, text in enumerate(texts):
        tokenized = tokenizer.queries([text])
        batch, expected = tokenized.batch([0]), dict[int, float]()
        with torch.no_grad():
            states = coder.network(batch, Side.QUERY).states[0]
            states = torch.nn.functional.normalize(coder.network.match(states), dim=-1)
            for start, end in tokenized.unsaid[0]:
                cosines = (states[start:end] @ coder.attributes().T).mean(0)
                for attribute in cosines.argsort(descending=True)[:6].tolist():
                    like = (float(cosines[attribute]) - 0.3) / 0.7
                    if like > expected.get(attribute, 0.0) and attribute not in batch.tag_attribute:
                        expected[attribute] = like
        row = found.expansion.of(number)
        at = slice(*found.expansion.start[number : number + 2])
        weights = {attribute: 0.7 * like * base[attribute] for attribute, like in expected.items()}
        assert dict(zip(row.key.tolist(), row.weight.tolist(), strict=True)) == pytest.approx(weights, abs=1e-4)
        chances = dict(zip(row.key.tolist(), found.probability[at].tolist(), strict=True))
        assert all(chances[attribute] >= like - 1e-4 for attribute, like in expected.items())
        assert bool(expected) == ("hem" in text)
    nothing = torch.zeros(0, backbone.width)
    assert Unsaid.read(coder.network, step_of(coder, tokenizer, "hem"), batch, [[(1, 2)]], nothing) is None
    usual = replace(QUERY_CODING, codes=0)
    both, alone = (coder.represent(texts, Side.QUERY, replace(usual, near=near)) for near in (64, 0))
    for number in range(len(texts)):
        was, now = (dict(zip(*map(list, made.expansion.of(number)), strict=True)) for made in (alone, both))
        found_alone = dict(zip(*map(list, found.expansion.of(number)), strict=True))
        most = {key: max(was.get(key, 0.0), found_alone.get(key, 0.0)) for key in now}
        assert now == pytest.approx(most, abs=1e-5), "the more of what is written and what is nearest"
    before = coder.code_vectors()
    assert coder.code_vectors() is before
    coder.train()
    with torch.no_grad():
        coder.network.attribute_shift += torch.randn_like(coder.network.attribute_shift)
    assert not np.allclose(coder.eval().code_vectors(), before, atol=1e-2), "made anew of what was trained"


def step_of(coder: EncoderCoder, tokenizer: TextTokenizer, text: str) -> FirstStep:
    with torch.no_grad():
        return coder.network(tokenizer.queries([text]).batch([0]), Side.QUERY)


def test_codes_vectors_are_centred_on_what_products_have(tokenizer: TextTokenizer) -> None:
    lexicon = tokenizer.lexicon
    g = lexicon.n_learnt
    embeddings = np.random.default_rng(0).normal(size=(g, 5)).astype(np.float32) + 3
    made = center_embeddings(embeddings, lexicon)
    share = (lexicon.products[:g] + 0.5) * np.sqrt(lexicon.idf[:g])
    mean = (share[:, None] * embeddings).sum(0) / share.sum()
    assert made.shape == (g, 5)
    assert made @ made.T == pytest.approx((embeddings - mean) @ (embeddings - mean).T, abs=1e-3), "turned, no more"
    spread = (share[:, None] * made**2).sum(0)
    assert (np.diff(spread) < 1e-3).all(), "the main axes first"
    wide = np.random.default_rng(0).normal(size=(g, 200)).astype(np.float32)
    assert center_embeddings(wide, lexicon).shape == (g, 128)


def test_many_queries_are_read_as_each_alone(backbone: Backbone, tokenizer: TextTokenizer, monkeypatch: Any) -> None:
    coder = EncoderCoder(backbone, tokenizer.lexicon, CodeTrie.build(np.array([[0]]))).eval()
    texts, settings = ["red hose", "dark blue lamp"], replace(QUERY_CODING, codes=0)
    monkeypatch.setattr("gram.coder.precision.fast_dtype", lambda _: torch.float32)
    exact = coder.represent(texts, Side.QUERY, settings).dense
    monkeypatch.setattr("gram.coder.precision.fast_dtype", lambda _: torch.bfloat16)
    together = coder.represent(texts, Side.QUERY, settings).dense
    alone = [coder.represent([text], Side.QUERY, settings).dense[0] for text in texts]
    assert np.abs(together - np.array(alone)).max() < 1e-5
    assert np.abs(together - exact).max() < 1e-5, "in float32, also where bfloat16 is fast"


def test_expansions_weigh_by_how_likely_they_are() -> None:
    nothing = torch.zeros(1, 0)
    chance = torch.tensor([[0.5, 0.02, 0.1, 0.8, 0.9]])
    weight = torch.tensor([[1.0, 9.0, 3.0, 2.0, 0.0]])
    step = FirstStep(torch.logit(chance), weight, *(nothing,) * 5)

    def kept(settings: CodingSettings) -> dict[int, float]:
        _, attribute, found, _ = heaviest_expansions(step, settings)
        return dict(zip(attribute.tolist(), found.round(4).tolist(), strict=True))

    assert kept(CodingSettings(expansion=2, least=0.03)) == {2: 3.0, 3: 2.0}  # the one too unlikely takes no room
    assert kept(CodingSettings(expansion=2, least=0.03, certainty=1.0)) == pytest.approx({3: 1.6, 0: 0.5})
    assert kept(CodingSettings(expansion=9, least=0.03, certainty=1.0)) == pytest.approx({3: 1.6, 0: 0.5, 2: 0.3})
    assert kept(SURE_CODING) == {3: 2.0, 0: 1.0}
    assert kept(QUERY_CODING) == pytest.approx({3: 1.6, 0: 0.5, 2: 0.3})
    many = FirstStep(torch.zeros(1, 50), torch.ones(1, 50), *(nothing,) * 5)
    assert len(heaviest_expansions(many, QUERY_CODING)[0]) == 32


def test_no_text_is_longer_than_the_network_reads(tokenizer: TextTokenizer) -> None:
    tokenized = tokenizer.products([Product("x", "red " * 500 + "gizmo")])
    assert tokenized.lengths[0] <= PRODUCT_TOKENS
    assert (
        tokenizer.lexicon.id_of(("gizmo",)) in tokenized.attributes_of(0).tolist()
    )  # beyond what is read, still lexical
