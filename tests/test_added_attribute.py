"""An attribute added after training: it can be written, and nothing else changes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gram.coder.encoder.backbone import ScratchSettings, scratch_backbone
from gram.coder.encoder.generator import Generator
from gram.coder.encoder.network import QUERY
from gram.codes.mining import mine
from gram.codes.trie import CodeTrie
from gram.errors import SettingError
from gram.records import Attribute, Product

PRODUCTS = [
    Product(str(i), f"{brand} {colour} {kind}", brand=brand, attributes={"colour": (colour,)})
    for i, (brand, colour, kind) in enumerate(
        (b, c, k) for b in ("acme", "zenit") for c in ("red", "blue") for k in ("garden hose", "desk lamp")
    )
]


@pytest.fixture(scope="module")
def generator() -> Generator:
    torch.manual_seed(0)
    lexicon = mine(PRODUCTS, [])
    backbone = scratch_backbone([p.title for p in PRODUCTS], ScratchSettings(width=48, layers=1, heads=2))
    codes = np.arange(lexicon.n_generated)[:, None]
    made = Generator(backbone, lexicon, CodeTrie.build(codes)).eval()
    made.read_attributes()
    return made


def logits(generator: Generator, text: str) -> dict[str, float]:
    batch = generator.texts.queries([text]).batch([0])
    with torch.inference_mode():
        row = generator.network(batch, QUERY).logits[0].tolist()
    return {str(a): v for a, v in zip(generator.lexicon.attributes, row, strict=False)}


def test_the_new_attribute_is_written_and_the_others_stay(generator: Generator) -> None:
    wider = generator.with_attribute(Attribute("brand", "novabrand"))
    before, after = logits(generator, "red hose"), logits(wider, "red hose")
    assert set(after) - set(before) == {"brand: novabrand"}
    assert all(after[name] == pytest.approx(value, abs=1e-4) for name, value in before.items())
    own = logits(wider, "novabrand")
    assert own["brand: novabrand"] > np.median(list(own.values()))
    assert (generator.lexicon.n_generated,) in wider.trie
    assert (generator.lexicon.n_generated,) not in generator.trie


def test_a_copied_word_that_becomes_generated_is_still_one_attribute(generator: Generator) -> None:
    lexicon = generator.lexicon.extended({"novabrand": 1})
    generator = Generator(generator.backbone, lexicon, generator.trie).eval()
    wider = generator.with_attribute(Attribute("brand", "novabrand"))
    assert [a.value for a in wider.lexicon.attributes].count("novabrand") == 1
    assert wider.lexicon.id_of(("novabrand",)) == generator.lexicon.n_generated


def test_an_unknown_slot_or_a_known_attribute_is_refused(generator: Generator) -> None:
    with pytest.raises(SettingError, match="no slot"):
        generator.with_attribute(Attribute("flavour", "mint"))
    with pytest.raises(ValueError, match="already"):
        generator.with_attribute(generator.lexicon.attributes[0])
