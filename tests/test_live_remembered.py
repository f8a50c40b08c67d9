"""What a live shop remembers: answers until something changes, queries until the coder does."""

from __future__ import annotations

import tracemalloc
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import SimpleNamespace

import pytest
from asking import ids

from gram.answer import SearchRequest
from gram.coder.base import QueryRepresentation
from gram.errors import ModelError
from gram.ranking.features import GROUPS
from gram.ranking.scorer import Scorer
from gram.records import Product
from gram.remembered import Remembered
from gram.search import Searcher
from gram.shop import Shop


def test_answers_are_remembered_until_a_rule_begins_or_ends(
    index_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = Shop.open(index_folder)
    first = ids(shop, "black sofa")[0]
    now = datetime.now(timezone.utc)
    clock = [now]
    monkeypatch.setattr("gram.shop.datetime", SimpleNamespace(now=lambda _: clock[0]))
    hide = {"action": "hide", "query": "black sofa", "products": [first]}
    shop.put_rule("soon", hide | {"from": (now + timedelta(seconds=1)).isoformat()})
    shop.put_rule("draft", hide | {"until": now.isoformat(), "draft": True})
    before = shop.search("black sofa")
    assert shop.search("black sofa").hits[0] is before.hits[0]
    assert before.hits[0].product_id == first
    clock[0] += timedelta(seconds=1)
    after = shop.search("black sofa")
    assert shop.search("black sofa").hits[0] is after.hits[0]
    assert first not in [hit.product_id for hit in after.hits]
    shop.close()


def test_a_query_is_coded_once_whatever_page_of_it_is_asked_for(
    index_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop, coded = Shop.open(index_folder), []
    represent = Searcher._represent

    def counting(searcher: Searcher, read: Sequence[str], compound: bool) -> list[QueryRepresentation]:
        coded.extend(read)
        return represent(searcher, read, compound)

    monkeypatch.setattr(Searcher, "_represent", counting)
    first = shop.search("black sofra")
    shop.search("black  sofra ", offset=10)
    shop.search("black sofa", value=0.1, facets=("brand",))
    shop.update([Product("other", "Green lamp")])
    assert [hit.product_id for hit in shop.search("black sofra").hits] == [hit.product_id for hit in first.hits]
    assert coded == ["black sofa"]
    shop.update([Product("new", "Sofra")])  # what was a typo is a word since
    assert "new" in ids(shop, "black sofra")
    assert coded == ["black sofa", "black sofra"]
    shop.search("8'6  1/2\" table")  # blanks may tell numbers apart
    shop.search("8'6 1/2\" table")
    assert len(coded) == 4
    del coded[2:]
    shop.add_attribute("style", "zumbrelesque")
    shop.search("black sofra")
    assert coded == ["black sofa", "black sofra", "black sofra"], "the coder may write other attributes since"
    shop.close()


def test_who_weighs_compound_codes_is_not_given_what_was_coded_without(
    index_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is remembered is shared by all weights, for `value` and the like change nothing of it."""
    coded: list[bool] = []
    represent = Searcher._represent

    def note(searcher: Searcher, read: Sequence[str], compound: bool) -> list[QueryRepresentation]:
        coded.append(compound or searcher.weighs_compound)
        return represent(searcher, read, compound)

    monkeypatch.setattr(Searcher, "_represent", note)
    with closing(Shop.open(index_folder, read_only=True)) as shop:
        searcher = shop.live.searcher
        weighed = (searcher.scorer.with_weights({"compound": weight}) for weight in (0.0, 1.0))
        light, heavy = map(searcher.with_scorer, weighed)
        assert light.recall("black sofa") is not heavy.recall("black sofa")
        assert light.recall("black sofa") is light.with_scorer(light.scorer.with_value(0.5)).recall("black sofa")
        assert coded == [False, True]


def test_many_queries_are_coded_together(index_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    coded: list[list[str]] = []
    represent = Searcher._represent

    def note(searcher: Searcher, read: Sequence[str], compound: bool) -> list[QueryRepresentation]:
        coded.append(list(read))
        return represent(searcher, read, compound)

    monkeypatch.setattr(Searcher, "_represent", note)
    with closing(Shop.open(index_folder, read_only=True)) as shop:
        asked = ["black sofa", "bedroom under $900", "black sofa"]
        answers = list(shop.search_many(asked, SearchRequest(limit=5)))
        assert coded == [["black sofa", "bedroom"]]
        found = [[hit.product_id for hit in answer.hits] for answer in answers]
        assert found == [ids(shop, query, limit=5) for query in asked]


def test_what_is_remembered_takes_no_more_memory_than_it_may(index_folder: Path) -> None:
    shop = Shop.open(index_folder, read_only=True)
    remembered = shop._remembered = Remembered(2_000, most_bytes=4_000_000)
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for offset in range(20):
        shop.search("black sofa", limit=100, offset=offset, explain=True, facets=("brand", "price"))
    taken = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert 3 < len(remembered._values) < 20
    assert 2_000_000 < taken < 5_000_000
    shop.close()


def test_nobody_can_change_an_answer_for_others(index_folder: Path) -> None:
    with closing(Shop.open(index_folder)) as shop:
        request = SearchRequest("sofa", facets=("brand", "price"), explain=True)
        first = shop.search(request)
        assert first.hits[0].features
        assert first.facets["brand"]["values"]
        for _ in range(2):  # the one that is remembered, and what is handed out of it
            spoilt = shop.search(request)
            assert spoilt == first
            spoilt.hits[0].features.clear()
            for part in (spoilt.hits, spoilt.facets["brand"]["values"], spoilt.codes, spoilt.refinements):
                part.clear()
            spoilt.warnings.append("x")
        first.hits.clear()
        assert shop.search(request).hits


@pytest.mark.parametrize("only", [(), ("codes",)])
def test_a_score_that_is_fitted_anew_is_taken_in(index_folder: Path, only: tuple[str, ...]) -> None:
    model = index_folder.parent / "model"
    with closing(Shop.open(index_folder, only=only)) as shop, closing(Shop.open(index_folder, read_only=True)) as other:
        shop.update([Product("new", "Zumbrel sofa")])
        before = shop.search("sofa").hits[0].score
        assert not shop.refresh()
        files = ["scorer.safetensors", "scorer.codes.safetensors"]
        for groups, file in zip((GROUPS, ["codes"]), files, strict=True):
            found = Scorer.default(groups)
            replace(found, weights=found.weights * 2, shift=7.0).save(model, file)
        assert shop.refresh()
        assert not shop.refresh()
        after = shop.search("sofa").hits[0].score
        assert after != before
        kept = Scorer.load(model, files[-1] if only else files[0])
        assert shop.live.searcher.scorer.by_name() == kept.by_name()
        assert "new" in {hit.product_id for hit in shop.search("zumbrel").hits}
        other.refresh()
        assert other.live.searcher.scorer.shift == 7.0
        shop.live.merge()
        assert shop.search("sofa").hits[0].score == pytest.approx(after, abs=0.5)
        (model / files[0]).write_bytes(b"broken")
        with pytest.raises(ModelError, match="scorer"):
            shop.refresh()
        assert not shop.refresh()
        assert shop.search("sofa").hits
        Scorer.default().save(model, files[0])
        shop.live.searcher.index.meta["model_hash"] = "of another model"  # as where it was trained anew
        anew = shop.live._open_anew()
        assert (not anew.reads.all()) == bool(only)
        assert anew.scorer.by_name() == (kept if only else Scorer.default()).by_name()
