"""What the encoder reads of descriptions: which, how much of them, and what of a product's vectors they are."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_encoder import PRODUCTS, make_backbone

from gram.coder.base import QUERY_CODING, Side
from gram.coder.encoder.backbone import Backbone, tokenize_words
from gram.coder.encoder.coder import EncoderCoder
from gram.coder.encoder.tokens import DESCRIPTION_TOKENS, TextTokenizer
from gram.codes.mining import mine
from gram.codes.trie import CodeTrie
from gram.records import Product


@pytest.fixture(scope="module")
def tokenizer() -> TextTokenizer:
    return TextTokenizer(mine(PRODUCTS, []), make_backbone())


def as_pretrained(backbone: Backbone) -> Backbone:
    return Backbone(backbone.encoder, backbone.tokenizer, "pretrained")


def test_a_description_is_read_where_it_has_words_that_the_head_lacks(tokenizer: TextTokenizer) -> None:
    products = [
        Product("short", "Red Garden Hose", brand="Acme"),
        Product("said", "Red Garden Hose", brand="Acme", description="Acme, red garden hose"),
        Product("more", "Red Garden Hose", brand="Acme", description="A hose of Acme, red, for the desk and the desk"),
        Product("long", "red " * 500, attributes={"colour": ("blue",)}),
        Product("cut", "red " * 500 + "hose", description="A hose"),
    ]
    learnt_here = tokenizer.products(products)
    assert learnt_here.descriptions is None
    assert len(learnt_here.described) == 0

    reader = TextTokenizer(tokenizer.lexicon, as_pretrained(tokenizer.backbone))
    read = reader.products(products)
    assert read.described.tolist() == [2, 4]
    assert read.descriptions is not None
    assert read.token_ids.tolist() == learnt_here.token_ids.tolist()  # heads are as they were
    words = tokenizer.lexicon.analyzer.words(products[2].description)
    ids, spans = tokenize_words(reader.backbone, words, DESCRIPTION_TOKENS)
    start = read.descriptions.token_start
    assert read.descriptions.token_ids[start[0] : start[1]].tolist() == ids
    assert words.count("desk") == 2
    new = [spans[words.index(word)] for word in ("a", "of", "for", "the", "desk", "and")]
    assert sorted(read.further[0].tolist()) == sorted(at for start, end in new for at in range(start, end))
    _, spans = tokenize_words(reader.backbone, ["a", "hose"], DESCRIPTION_TOKENS)
    assert read.further[1].tolist() == [at for start, end in spans for at in range(start, end)]  # cut in the head


def test_no_description_is_longer_than_the_encoder_can_read(tokenizer: TextTokenizer) -> None:
    reader = TextTokenizer(tokenizer.lexicon, as_pretrained(tokenizer.backbone))
    reader.backbone.longest = 20
    read = reader.products([Product("x", "Red Hose", description="desk lamp " * 40)])
    assert read.descriptions is not None
    assert read.descriptions.lengths.tolist() == [20]
    assert max(read.further[0]) < 20


def test_descriptions_of_several_products_are_each_ones_own(tokenizer: TextTokenizer) -> None:
    coder = EncoderCoder(as_pretrained(tokenizer.backbone), tokenizer.lexicon, CodeTrie.build(np.array([[0]]))).eval()
    said = ("desk", "", "dark lamp, desk, home", "blue", "", "a hose for the garden and the desk lamp of zenit")
    products = [Product(str(i), f"{'Red ' * (i % 3)}Hose", description=text) for i, text in enumerate(said)]
    settings = replace(QUERY_CODING, codes=0, batch=2)
    together = coder.represent(products, Side.PRODUCT, settings)
    for row, product in enumerate(products):
        alone = coder.represent([product], Side.PRODUCT, settings)
        assert np.allclose(together.dense[row], alone.dense[0], atol=1e-4)
        assert np.abs(together.token_vectors.of(row) - alone.token_vectors.of(0)).max() < 0.02
    heads = coder.texts.products(products).heads()
    bare = coder.represent([product._replace(description="") for product in products], Side.PRODUCT, settings)
    assert np.allclose(coder.represent_tokenized(heads, Side.PRODUCT, settings).dense, bare.dense, atol=1e-4)
    of_heads = coder.represent(products, Side.PRODUCT, replace(settings, descriptions=False))
    assert np.array_equal(of_heads.token_vectors.start, bare.token_vectors.start)
    assert np.abs(together.dense[2] - bare.dense[2]).max() > 0.01


def test_of_a_long_description_the_first_tokens_are_met(tokenizer: TextTokenizer) -> None:
    reader = TextTokenizer(tokenizer.lexicon, as_pretrained(tokenizer.backbone))
    reader.backbone.longest = 512
    words = [f"{a}{b}" for a in "abcdefghijkl" for b in "nopqrstuvwxy"]
    read = reader.products([Product("x", "Red Hose", description="hose " + " ".join(words))])
    ids, spans = tokenize_words(reader.backbone, ["hose", *words], 64)
    assert read.descriptions is not None
    assert read.descriptions.token_ids.tolist() == ids
    assert 60 < len(ids) <= 64
    assert read.further[0].tolist() == list(range(spans[1][0], spans[1][0] + 32))


def test_a_description_is_two_fifths_of_a_products_vector_and_adds_its_tokens(tokenizer: TextTokenizer) -> None:
    coder = EncoderCoder(as_pretrained(tokenizer.backbone), tokenizer.lexicon, CodeTrie.build(np.array([[0]]))).eval()
    with torch.no_grad():  # an untrained network reads both sides alike
        coder.network.side.normal_(std=0.5, generator=torch.Generator().manual_seed(3))
    head = Product("x", "Red Garden Hose", brand="Acme")
    described = head._replace(description="A hose for the desk lamp")
    other = Product("y", "Dark Blue Desk Lamp")
    settings = replace(QUERY_CODING, codes=0)
    one, both = (coder.represent([p, other], Side.PRODUCT, settings) for p in (head, described))
    read = coder.texts.products([described])
    assert read.descriptions is not None
    with torch.inference_mode():
        vectors, tokens = coder.network.read_vectors(read.descriptions.batch([0]), Side.PRODUCT)
        as_query, _ = coder.network.read_vectors(read.descriptions.batch([0]), Side.QUERY)
    assert np.abs((vectors - as_query).numpy()).max() > 0.01
    mean = 0.6 * one.dense[0] + 0.4 * vectors[0].numpy()
    assert np.allclose(both.dense[0], mean / np.linalg.norm(mean), atol=1e-5)
    further = tokens[0, read.further[0]].numpy()
    was, now = one.token_vectors.of(0), both.token_vectors.of(0)
    assert len(now) == len(was) + len(further)
    assert np.abs(now[: len(was)] - was).max() < 0.01
    assert np.abs(now[len(was) :] - further).max() < 0.01
    assert np.array_equal(one.dense[1], both.dense[1])  # who says no more is as it was
    assert np.abs(both.token_vectors.of(1) - one.token_vectors.of(1)).max() < 0.01
