"""The encoder coder's arithmetic, and what it reads of texts, against plain forms of the same."""

from __future__ import annotations

import math
import time
from collections import defaultdict
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from tiny_encoder import PRODUCTS, make_backbone
from torch import Tensor

from gram.arrays import SparseRow
from gram.coder.base import QUERY_CODING, SURE_CODING, CodingSettings, NearAttributes, QueryCodes, Side
from gram.coder.beam import TorchTrie
from gram.coder.encoder import backbone as backbones
from gram.coder.encoder.backbone import (
    LONGEST_CACHED,
    Backbone,
    tokenize_words,
)
from gram.coder.encoder.coder import EncoderCoder
from gram.coder.encoder.coding import NEAR_FROM, Unsaid, center_embeddings, heaviest_expansions
from gram.coder.encoder.decoder import Decoder, Memory
from gram.coder.encoder.match import SMALL, best_match
from gram.coder.encoder.network import FirstStep
from gram.coder.encoder.tokens import PRODUCT_TOKENS, TextTokenizer
from gram.codes.mining import mine
from gram.codes.slots import SLOTS
from gram.codes.trie import CodeTrie
from gram.records import Product
from gram.text.fields import FIELDS
from gram.training.losses import attribute_loss, code_loss, code_scores, contrastive_loss, late_scores


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return make_backbone()


@pytest.fixture(scope="module")
def tokenizer(backbone: Backbone) -> TextTokenizer:
    return TextTokenizer(mine(PRODUCTS, []), backbone)


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


# --- reading --------------------------------------------------------------------------------------------------------


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
