"""An attribute added after training: the coder can write it, and nothing else changes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gram.coder.base import Side
from gram.coder.encoder.backbone import ScratchSettings, scratch_backbone
from gram.coder.encoder.coder import EncoderCoder
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
def coder() -> EncoderCoder:
    torch.manual_seed(0)
    lexicon = mine(PRODUCTS, [])
    backbone = scratch_backbone([p.title for p in PRODUCTS], ScratchSettings(width=48, layers=1, heads=2))
    codes = np.arange(lexicon.n_learnt)[:, None]
    made = EncoderCoder(backbone, lexicon, CodeTrie.build(codes)).eval()
    made.read_attributes()
    return made


def logits(coder: EncoderCoder, text: str) -> dict[str, float]:
    batch = coder.texts.queries([text]).batch([0])
    with torch.inference_mode():
        row = coder.network(batch, Side.QUERY).logits[0].tolist()
    return {str(a): v for a, v in zip(coder.lexicon.attributes, row, strict=False)}


def test_the_new_attribute_has_a_logit_and_the_others_stay(coder: EncoderCoder) -> None:
    wider = coder.with_attribute(Attribute("brand", "novabrand"))
    before, after = logits(coder, "red hose"), logits(wider, "red hose")
    assert set(after) - set(before) == {"brand: novabrand"}
    assert all(after[name] == pytest.approx(value, abs=1e-4) for name, value in before.items())
    said = logits(wider, "novabrand")
    assert said["brand: novabrand"] > np.median(list(said.values()))
    assert (coder.lexicon.n_learnt,) in wider.trie
    assert (coder.lexicon.n_learnt,) not in coder.trie


def test_a_lexical_word_that_is_learnt_later_is_still_one_attribute(coder: EncoderCoder) -> None:
    lexicon = coder.lexicon.extend({"novabrand": 1})
    coder = EncoderCoder(coder.backbone, lexicon, coder.trie).eval()
    wider = coder.with_attribute(Attribute("brand", "novabrand"))
    assert [a.value for a in wider.lexicon.attributes].count("novabrand") == 1
    assert wider.lexicon.id_of(("novabrand",)) == coder.lexicon.n_learnt


def test_an_unknown_slot_or_a_known_attribute_is_refused(coder: EncoderCoder) -> None:
    with pytest.raises(SettingError, match="no slot"):
        coder.with_attribute(Attribute("flavour", "mint"))
    with pytest.raises(ValueError, match="already"):
        coder.with_attribute(coder.lexicon.attributes[0])
