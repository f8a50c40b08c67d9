"""Codes as sparse vectors: the dot product of two exported texts is what their shared codes say of them."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
from click.testing import CliRunner

import gram.export
from gram.arrays import SparseRow
from gram.bench.variants import ExportedCodes
from gram.cli import main
from gram.coder.base import QueryCodes, QueryRepresentation, QueryTerms
from gram.errors import SettingError
from gram.export import OF_PRODUCTS, OF_QUERIES, named, product_vectors, query_vector, write_queries
from gram.index.postings import Postings
from gram.index.segment import Index
from gram.ranking.features import SharedKeys
from gram.records import Product
from gram.shop import Shop

QUERIES = ("black sofa", "womens running shoes", "lamp 20 in")


def sparse(*entries: tuple[int, float]) -> SparseRow:
    return SparseRow(np.array([k for k, _ in entries], np.int64), np.array([w for _, w in entries], np.float32))


def test_expansion_counts_four_times_for_a_query_and_once_for_a_product() -> None:
    assert (OF_QUERIES, OF_PRODUCTS) == (4.0, 1.0)
    nothing, none = sparse(), np.zeros(0, np.float32)
    codes = QueryCodes(np.zeros(0, np.int64), none, np.zeros(0, np.int32), np.zeros((0, 0), bool))
    query = QueryRepresentation(
        QueryTerms(("sofa",), ("sofa",), ()),
        codes,
        sparse((4, 0.5)),
        sparse((1, 0.25)),
        nothing,
        none,
        np.zeros((0, 4)),
        none,
    )
    assert query_vector(query).key.tolist() == [4, 1]
    assert query_vector(query).weight.tolist() == [0.5, 1.0]
    lexical = Postings.build([4, 4], [0, 1], [0.5, 1.0], n_keys=5)
    expansion = Postings.build([1], [1], [0.25], n_keys=5)
    index = cast(Index, SimpleNamespace(lexical=lexical, expansion=expansion, n_products=2))
    vectors = product_vectors(index, np.arange(2))
    assert vectors.of(0).key.tolist() == [4]
    assert dict(zip(vectors.of(1).key.tolist(), vectors.of(1).weight.tolist(), strict=True)) == {4: 1.0, 1: 0.25}


def test_the_dot_product_is_the_sum_over_shared_codes(index_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "q.tsv").write_text("".join(f"q{i}\t{text}\n" for i, text in enumerate(QUERIES)))
    run = CliRunner()
    for extra, name in (((), "p.jsonl.gz"), (("--queries", str(tmp_path / "q.tsv")), "q.jsonl")):
        done = run.invoke(main, ["export", str(index_folder), "-o", str(tmp_path / name), "--form", "ids", *extra])
        assert done.exit_code == 0, done.output
    products = [json.loads(line) for line in gzip.decompress((tmp_path / "p.jsonl.gz").read_bytes()).splitlines()]
    queries = [json.loads(line) for line in (tmp_path / "q.jsonl").read_text().splitlines()]
    shop = Shop.open(index_folder, read_only=True)
    searcher, index = shop.live.snapshot.searcher, shop.live.searcher.index
    assert [row["product_id"] for row in products] == index.table.ids.tolist()
    assert [row["query_id"] for row in queries] == ["q0", "q1", "q2"]
    best = 0.0
    for row, query in zip(queries, searcher.represent(QUERIES, compound=False), strict=True):
        asked = dict(zip(row["indices"], row["values"], strict=True))
        dot = [sum(asked.get(k, 0.0) * w for k, w in zip(p["indices"], p["values"], strict=True)) for p in products]
        sums = np.zeros(len(products))
        for of_query, a in (("lexical", 1.0), ("expansion", OF_QUERIES)):
            for of_product, b in (("lexical", 1.0), ("expansion", OF_PRODUCTS)):
                part = SharedKeys(of_query, of_product)(index, query)
                sums += 0 if part is None else a * b * part
        np.testing.assert_allclose(dot, sums, atol=1e-3)
        best = max(best, *dot)
    assert best > 0.1  # they do share codes
    shop.close()


def test_what_changed_since_is_exported(index_folder: Path, tmp_path: Path) -> None:
    shop = Shop.open(index_folder)
    gone = str(shop.live.searcher.index.table.ids[0])
    shop.update([Product("new", "Black sofa 2.5 in")])
    shop.delete([gone])
    asked = shop.vector("black sofa")["codes"]
    numbered = shop.vector("black sofa", "ids")
    assert sorted(numbered["values"], reverse=True) == list(asked.values())
    assert numbered["indices"] == sorted(numbered["indices"])
    with pytest.raises(SettingError, match="names, ids"):
        shop.vector("black sofa", "bytes")
    shop.close()
    done = CliRunner().invoke(main, ["export", str(index_folder), "-o", str(tmp_path / "p.jsonl")])
    assert done.exit_code == 0, done.output
    rows = {row["product_id"]: row["codes"] for row in map(json.loads, (tmp_path / "p.jsonl").read_text().splitlines())}
    assert gone not in rows
    assert set(asked) & set(rows["new"])
    assert sum(weight * rows["new"].get(name, 0.0) for name, weight in asked.items()) > 0
    assert not any("." in name for codes in rows.values() for name in codes)  # Elasticsearch before 8.16 refuses them


def test_names_are_the_heaviest_first_and_hold_no_dot(index_folder: Path) -> None:
    shop = Shop.open(index_folder, read_only=True)
    lexicon = shop.live.snapshot.searcher.lexicon.extend({"2.5": 3})
    key = lexicon.id_of(["2.5"])
    assert list(named(sparse((0, 0.25), (key, 0.5)), lexicon).items()) == [
        (str(lexicon.attributes[key]).replace(".", "·"), 0.5),
        (str(lexicon.attributes[0]), 0.25),
    ]
    shop.close()


@pytest.mark.parametrize("name", ["index.shop.sqlite", "index/dense.npy", "model/lexicon.jsonl", "q.tsv"])
def test_an_export_takes_the_place_of_nothing_that_it_is_made_of(index_folder: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "q.tsv").write_text("q0\tblack sofa\n")
    Shop.open(index_folder).close()
    before = (tmp_path / name).read_bytes()
    done = CliRunner().invoke(
        main, ["export", str(index_folder), "-o", str(tmp_path / name), "--queries", f"{tmp_path}/q.tsv"]
    )
    assert done.exit_code == 2
    assert "Fix: " in done.output
    assert (tmp_path / name).read_bytes() == before


def test_many_queries_are_coded_in_parts_behind_a_bar(
    index_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gram.export, "PROGRESS_FROM", 300)
    monkeypatch.setattr(gram.export, "PART", 128)
    shop = Shop.open(index_folder, read_only=True)
    queries = {f"q{i}": f"{('black', 'oak', 'red')[i % 3]} sofa" for i in range(300)}
    write_queries(shop.live.snapshot, queries, tmp_path / "many.jsonl")
    shop.close()
    assert "coding queries: 100%" in capfd.readouterr().err
    rows = [json.loads(line) for line in (tmp_path / "many.jsonl").read_text().splitlines()]
    assert [row["query_id"] for row in rows] == list(queries)
    assert rows[299]["codes"].keys() == rows[2]["codes"].keys()


def test_an_output_that_is_a_folder_is_refused(index_folder: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["export", str(index_folder), "-o", str(tmp_path)])
    assert done.exit_code == 2
    assert "Traceback" not in done.output
    missing = CliRunner().invoke(main, ["export", str(tmp_path / "none"), "-o", str(tmp_path / "x.jsonl")])
    assert missing.exit_code == 2
    assert not (tmp_path / "x.jsonl").exists()


def test_the_row_of_the_benchmark_ranks_by_the_dot_product(index_folder: Path) -> None:
    engine = ExportedCodes(index_folder.parent)
    hits = engine.search(QUERIES[0], 5)
    scores = [hit.score for hit in hits]
    assert hits
    assert scores == sorted(scores, reverse=True)
    assert engine.index_bytes == 8 * len(engine.postings) > 0
    assert engine.search("!", 5) == []
