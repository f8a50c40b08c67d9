"""Codes by hand: given to a product and taken from it, and attributes that the coder is taught without training."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from asking import ids

from gram.code_edits import CodeEdit, CodeEdits
from gram.coder.packing import SPARSE, read_back
from gram.display import format_hit
from gram.errors import SettingError
from gram.indexing import make_index
from gram.ranking.scorer import Scorer
from gram.records import Attribute, Product
from gram.shop import Shop


def restarted_and_merged(shop: Shop, index_folder: Path, check: Callable[[Shop], None]) -> Shop:
    """The shop opened anew, with one segment, and looked at before and after the merge."""
    shop.close()
    shop = Shop.open(index_folder)
    check(shop)
    shop.live.merge()
    assert len(shop.live.snapshot.segments) == 1
    check(shop)
    return shop


def test_codes_are_given_and_taken_for_good(index_folder: Path, small_shop: Path) -> None:
    """Through an update, a restart, a merge and an index written anew, for a reader as well."""
    shop = Shop.open(index_folder)
    product_id = ids(shop, "", filter='code = "type: sofa" AND code = "colour: navy"')[0]
    product, kind, colour = shop.product(product_id), "type: sofa", "colour: navy"
    assert product is not None

    def has(shop: Shop) -> list[bool]:
        return [
            product_id in ids(shop, "", filter=f'code = "{code}"', limit=1000)
            for code in (kind, colour, "type: console")
        ]

    def check(shop: Shop) -> None:
        assert has(shop) == [True, False, True]
        codes = shop.codes(product_id)
        assert codes is not None
        assert [str(code) for code in codes.taken] == [colour]
        assert [str(one.code) for one in codes.codes if one.source == "given"] == ["type: console"]
        hits = shop.search("console", explain=True, limit=1000).hits
        shared = next(hit for hit in hits if hit.product_id == product_id).codes
        assert {s.product_source for s in shared if s.code == (Attribute("type", "console"),)} == {"given"}

    assert has(shop) == [True, True, False]
    score = {h.product_id: h.score for h in shop.search("console", limit=1000).hits}.get(product_id, -99.0)
    reader = Shop.open(index_folder, read_only=True)
    assert shop.edit_code(product_id, "type", "consoles", given=True) == Attribute("type", "console")
    shop.edit_code(product_id, "colour", "navy", given=False)
    check(shop)
    assert {h.product_id: h.score for h in shop.search("console", limit=1000).hits}[product_id] > score
    assert reader.refresh()
    check(reader)
    reader.close()
    shop.update([product._replace(description="A navy sofa, written anew.")])
    shop.patch(product_id, {"price": 5.0})
    check(shop)
    shop = restarted_and_merged(shop, index_folder, check)
    make_index(
        index_folder.parent / "model", [p for s in shop.live.snapshot.segments for p in s.index.table], index_folder
    )
    assert shop.refresh()
    check(shop)
    shop.edit_code(product_id, "type", "console", given=False)
    shop.edit_code(product_id, "colour", "navy", given=True)
    assert has(shop) == [True, True, False]
    reader = Shop.open(index_folder, read_only=True)
    for slot, value in (("type", "console"), ("colour", "navy")):
        shop.edit_code(product_id, slot, value, given=None)
    assert has(shop) == [True, True, False]
    assert not shop.live.snapshot.edits
    shop.edit_code(product_id, "type", "console", given=True)
    shop.delete([product_id])
    shop.update([product])
    assert has(shop) == [True, True, False], "edits go with the product"
    assert reader.refresh()
    assert has(reader) == [True, True, False]
    assert not reader.live.snapshot.edits
    reader.close()
    with pytest.raises(SettingError, match=r"no code colour: sofa\. Fix: write type: sofa"):
        shop.edit_code(product_id, "colour", "sofa", given=True)
    with pytest.raises(KeyError):
        shop.edit_code("unknown", "type", "sofa", given=True)
    shop.close()


def test_edits_lie_over_what_the_coder_says(index_folder: Path) -> None:
    """Of two products the second is edited; a compound code with what was taken goes with it."""
    shop = Shop.open(index_folder, read_only=True)
    index, searcher = shop.live.searcher.index, shop.live.searcher
    row = int(np.flatnonzero(np.bincount(index.compound.product, minlength=index.n_products))[0])
    other = (row + 1) % index.n_products
    before = read_back(index, np.array([other, row]))
    lost = int(searcher.codes[before.compound.of(1).key[0]][0])
    product_ids = [str(index.table.ids[i]) for i in (other, row)]
    edits = CodeEdits().plus(CodeEdit(product_ids[1], searcher.lexicon.attributes[lost], given=False))
    after = edits.lay_over(product_ids, before, searcher.lexicon, searcher.codes, lambda _: 1.0)
    for name in SPARSE:
        assert getattr(after, name).of(0).key.tolist() == getattr(before, name).of(0).key.tolist()
    assert lost not in {*after.lexical.of(1).key.tolist(), *after.expansion.of(1).key.tolist()}
    kept = [key for key in before.compound.of(1).key.tolist() if lost not in searcher.codes[key]]
    assert after.compound.of(1).key.tolist() == kept
    assert len(after.probability) == len(after.expansion.key)
    back = edits.plus(CodeEdit(product_ids[1], searcher.lexicon.attributes[lost], given=True))
    again = back.lay_over(product_ids, after, searcher.lexicon, searcher.codes, lambda _: 0.7)
    assert dict(zip(*map(np.ndarray.tolist, again.lexical.of(1)), strict=True))[lost] == pytest.approx(0.7)
    elsewhere = searcher.lexicon.attributes[lost]._replace(slot="another slot")  # as the words were once
    moved = CodeEdits().plus(CodeEdit(product_ids[1], elsewhere, given=False))
    after = moved.lay_over(product_ids, before, searcher.lexicon, searcher.codes, lambda _: 1.0)
    assert lost not in {*after.lexical.of(1).key.tolist(), *after.expansion.of(1).key.tolist()}
    shop.close()


def test_an_attribute_is_added_for_good(index_folder: Path) -> None:
    """Through a restart, a merge and an index written anew, for a reader as well; no other code changes its id."""
    shop = Shop.open(index_folder)
    shop.update([Product("v", "Mumbrel Vantor sofa"), Product("w", "Another Mumbrel lamp")])
    old = str(shop.live.searcher.index.table.ids[3])

    def held(shop: Shop, product_id: str) -> set[str]:
        codes = shop.codes(product_id)
        assert codes is not None
        return {str(one.code) for one in codes.codes if one.source == "lexical"}

    before = held(shop, old)
    reader = Shop.open(index_folder, read_only=True)
    attributes = [shop.add_attribute("brand", "Mumbrel Vantor")[0], shop.add_attribute("style", "mumbrels")[0]]
    assert [str(a) for a in attributes] == ["brand: mumbrel vantor", "style: mumbrels"]
    assert shop.add_attribute("style", "Mumbrel") == (attributes[1], False)
    for attribute in attributes:
        due = shop.live.snapshot.like(attribute)
        assert due[0] in ("v", "w"), "those that hold its words first"
        assert shop.live.code_anew(due[:2]) == 2
    assert reader.refresh()

    def check(shop: Shop) -> None:
        assert {"brand: mumbrel vantor", "style: mumbrels", "type: sofa"} <= held(shop, "v")
        assert "style: mumbrels" in held(shop, "w")
        assert "brand: mumbrel vantor" not in held(shop, "w")
        assert held(shop, old) == before
        assert "v" in ids(shop, "", filter='code = "brand: mumbrel vantor"', limit=1000)
        codes = [code for code, source, _ in shop.search("mumbrel vantor sofa").codes if source == "lexical"]
        assert {"brand: mumbrel vantor", "style: mumbrels", "type: sofa"} <= set(codes)

    check(shop)
    check(reader)
    reader.close()
    shop = restarted_and_merged(shop, index_folder, check)
    make_index(index_folder.parent / "model", list(shop.live.searcher.index.table), index_folder)
    assert shop.refresh()
    assert "style: mumbrels" in held(shop, "v"), "a word of the catalogue, by the number of the new index"
    shop.live.code_anew(shop.live.snapshot.like(attributes[0]))
    check(shop)
    shop.close()


def test_those_nearest_to_an_attribute_are_sought_among_all_segments(
    index_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many however many segments there are: each of them is coded anew before the attribute is answered."""
    monkeypatch.setattr("gram.snapshot.NEAREST", 12)
    with closing(Shop.open(index_folder)) as shop:
        table = shop.live.searcher.index.table
        for begin in (0, 20, 40):
            shop.update(table[row]._replace(price=9.0) for row in range(begin, begin + 20))
        attribute, _ = shop.add_attribute("brand", "zumbrel")
        snapshot = shop.live.snapshot
        assert len(snapshot.segments) == 4
        query = snapshot.searcher.represent(["zumbrel"], compound=False)[0].dense
        near = {
            str(segment.index.table.ids[row]): float(segment.index.dense[row] @ query)
            for segment in snapshot.segments
            for row in segment.alive
        }
        assert sorted(snapshot.like(attribute)) == sorted(sorted(near, key=near.__getitem__)[-12:])


def test_only_what_changes_is_written_and_the_codes_are_those_of_all_coded_anew(index_folder: Path) -> None:
    """And of as many attributes as are added the texts that they are tried on are read once."""
    copied = shutil.copytree(index_folder, index_folder.with_name("copy"))
    with closing(Shop.open(index_folder)) as shop, closing(Shop.open(copied)) as slow:
        product_ids, tried = [*shop.live.searcher.index.table.ids.tolist(), "n"], []
        for other in (shop, slow):
            other.update([Product("n", "Novabrand Zumbrel in Petrol Mist")])
            other.edit_code(product_ids[4], "colour", "navy", given=True)
        for slot, value in (("brand", "novabrand"), ("colour", "petrol mist"), ("type", "zumbrel")):
            for other in (shop, slow):
                other.add_attribute(slot, value)
            tried.append(shop.live._tried)
            before = {p: codes_of(shop, p) for p in product_ids}
            written = shop.live.store.last()
            assert shop.live.code_anew(product_ids) == len(product_ids)
            slow.update([slow.product(product_id) for product_id in product_ids])  # type: ignore[misc]
            after = {p: codes_of(shop, p) for p in product_ids}
            assert after == {p: codes_of(slow, p) for p in product_ids}
            changed = {p for p in product_ids if after[p] != before[p]}
            assert {change.product_id for change in shop.store.changes(written)} == changed
            assert 0 < len(changed) < len(product_ids)
        assert tried[0] is tried[1] is tried[2]
        assert shop.live.code_anew(["none"]) == 0
        biases = [one.live.searcher.coder.inner.network.logit_bias for one in (shop, slow)]  # type: ignore[attr-defined]
        assert biases[0].equal(biases[1])
    with closing(Shop.open(index_folder)) as again:
        assert again.live.searcher.coder.inner.network.logit_bias.equal(biases[0])  # type: ignore[attr-defined]


def codes_of(shop: Shop, product_id: str) -> dict[str, str]:
    found = shop.codes(product_id)
    assert found is not None
    return {str(one.code): one.source for one in found.codes}


def test_an_added_attribute_is_written_where_the_text_lacks_it(index_folder: Path) -> None:
    """By the ids outside: each lexical and written code is the one that the coder itself gives."""
    from gram.coder.added import add_attribute
    from gram.coder.base import PRODUCT_CODING, Side

    coder = Shop.open(index_folder, read_only=True).live.searcher.model_coder.with_words({"aword": 1, "novabrand": 2})
    first = add_attribute(coder, Attribute("brand", "novabrand"))
    made = add_attribute(first, Attribute("brand", "zenit"))
    assert made.lexicon.attributes[: len(coder.lexicon) - 1] == coder.lexicon.attributes[:-1]
    assert [str(a) for a in made.lexicon.attributes[-2:]] == ["brand: novabrand", "brand: zenit"]
    assert made.with_words({"aword": 1}) is made
    texts = ["red novabrand sofa", "zenit aword lamp", "sofa"]
    settings = replace(PRODUCT_CODING, expansion=1000, least=0.0, near=64)
    inside = made.inner.represent(texts, Side.QUERY, settings)  # type: ignore[attr-defined]
    outside = made.represent(texts, Side.QUERY, settings)
    written = set()
    for name in ("lexical", "expansion"):
        for row in range(3):
            a, b = getattr(inside, name).of(row), getattr(outside, name).of(row)
            names = [made.inner.lexicon.attributes[key] for key in a.key]  # type: ignore[attr-defined]
            assert [made.lexicon.attributes[key] for key in b.key] == names
            written |= {str(n) for n in names} if name == "expansion" else set()
    assert {"brand: novabrand", "brand: zenit"} <= written
    known = made.inner.lexicon.attributes  # type: ignore[attr-defined]
    for one in ("brand: novabrand", "brand: zenit", "type: sofa"):
        a, b = ([str(attribute) for attribute in names].index(one) for names in (known, made.lexicon.attributes))
        assert outside.code_vectors[b].tolist() == inside.code_vectors[a].tolist()
    for part in ("lexical", "key"):
        a, b = getattr(inside.near, part).tolist(), getattr(outside.near, part).tolist()
        names = [made.inner.lexicon.attributes[key] for key in a]  # type: ignore[attr-defined]
        assert [made.lexicon.attributes[key] for key in b] == names


def test_a_code_that_is_near_is_shown_with_its_part_of_the_score(shop: Shop) -> None:
    searcher = shop.live.searcher.with_scorer(Scorer.default(("codes", "words")))
    shown = 0
    for query in ("couch", "womens sneakers", "navy gown", "comforter"):
        for hit in searcher.search(query, 50, explain=True):
            near = [code for code in hit.codes if code.query_source == "near"]
            speaking_for = sum(part for name, part in hit.features.items() if part > 0 and name != "base")
            part = hit.features.get("soft_share", 0.0)
            assert sum(c.share for c in near) * speaking_for == pytest.approx(part, abs=1e-4)
            assert all(code.product_weight > 0 and 0 < code.query_weight <= 1 for code in near)
            shown += len(near)
            told = format_hit(hit._replace(codes=tuple(near[:8])))
            assert all(code.near_to is not None and f"query near {code.near_to}" in told for code in near[:8])
    assert shown, "some product lacks what is searched for and has a code that is near"
    with_it, without = searcher.represent(["red sofa", "sofa without red"])
    red = searcher.lexicon.find("colour", "red")
    assert red in searcher.left_out(without)
    near = [query.codes.near.of(query.codes.key.tolist().index(red)) for query in (with_it, without)]
    assert len(near[0].key)
    assert not len(near[1].key), "nothing is near to what is left out"


def test_an_added_attribute_is_written_no_more_than_others_of_its_slot(index_folder: Path) -> None:
    from gram.coder.added import add_attribute, read_tried, too_easy
    from gram.coder.base import Coder, CodingSettings, Side

    searcher = Shop.open(index_folder, read_only=True).live.searcher
    products, attribute = [searcher.index.table[row] for row in range(60)], Attribute("brand", "novabrand")

    def count(coder: Coder) -> tuple[int, int]:
        """Products that get it, and those that get a brand which was learnt, on average."""
        found = coder.represent(products, Side.PRODUCT, CodingSettings(expansion=5000, least=0.3, codes=0)).expansion
        brands = [a for a in range(coder.lexicon.n_learnt) if coder.lexicon.attributes[a].slot == "brand"]
        usual = np.isin(found.key, brands).sum() / len(brands)
        return int((found.key == coder.lexicon.find(*attribute)).sum()), round(usual)

    easy = add_attribute(searcher.coder, attribute)
    assert count(easy)[0] == 60
    tried = read_tried(easy, products, Side.PRODUCT, 0.3)
    found = easy.represent(products, Side.PRODUCT, CodingSettings(expansion=5000, least=0.3, codes=0))
    chances = found.probability[found.expansion.key == easy.lexicon.find(*attribute)]
    assert easy.inner.chances(tried) == pytest.approx(np.sort(chances)[::-1], abs=1e-3)  # type: ignore[attr-defined]
    for key in range(easy.lexicon.n_learnt):
        assert tried.counts[key] == (found.expansion.key == key).sum()
    harder = too_easy(easy, attribute, tried)
    made = add_attribute(searcher.coder, attribute, (0.0, harder))
    written, usual = count(made)
    assert usual - 5 < written <= usual < 60
    assert too_easy(made, attribute, read_tried(made, products, Side.PRODUCT, 0.3)) == 0.0
