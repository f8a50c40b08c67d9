"""The commands of a live shop."""

from __future__ import annotations

import shutil
from pathlib import Path

from click.testing import CliRunner

from gram.cli import main
from gram.data.catalogue import write_products
from gram.data.shop.generate import generate
from gram.records import Product


def run(*arguments: object, code: int = 0) -> str:
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output
    return result.output


def test_update_search_merge_and_delete(index_folder: Path, tmp_path: Path) -> None:
    write_products(tmp_path / "new.jsonl", [Product("new", "Zumbrel navy sofa", price=5.0, brand="Zumbrel")])
    assert "1 products updated, 151 in all" in run("update", index_folder, tmp_path / "new.jsonl")
    assert "new  Zumbrel navy sofa" in run("search", index_folder, "zumbrel", "-k", 1)
    filtered = run("search", index_folder, "sofa", "--filter", "price < 6", "--facets", "brand", "--explain")
    assert "new  Zumbrel navy sofa" in filtered
    assert "Zumbrel 1" in filtered.splitlines()[-1]
    (tmp_path / "queries.tsv").write_text("query_id\tquery\nq1\tzumbrel\n", encoding="utf-8")
    run("search", index_folder, "--queries", tmp_path / "queries.tsv", "-k", 5, "--run", tmp_path / "run.trec")
    assert (tmp_path / "run.trec").read_text(encoding="utf-8").split()[2] == "new"
    write_products(tmp_path / "old.jsonl", [Product("new", "Zumbrel sofa")])
    command = ("index", tmp_path / "model", tmp_path / "old.jsonl", "-o", index_folder)
    assert "changed live, and the catalogue lacks of it: products 1" in run(*command, code=2)
    assert "151 products" in run("merge", index_folder)
    assert "new  Zumbrel navy sofa" in run("search", index_folder, "zumbrel", "-k", 1)
    assert "1 of 2 products deleted, 150 left" in run("delete", index_folder, "new", "unknown")
    assert "Zumbrel" not in run("search", index_folder, "zumbrel", "-k", 3)
    assert "150 products" in run("merge", index_folder)
    run("index", tmp_path / "model", index_folder / "products.jsonl", "-o", index_folder)  # the state that was live
    assert "Zumbrel" not in run("search", index_folder, "zumbrel", "-k", 3)
    assert "whole: " in run("check", index_folder)


def test_what_is_wrong_is_told(index_folder: Path, tmp_path: Path) -> None:
    assert "there are no ids" in run("delete", index_folder, code=2)
    assert "cannot be read at character 8" in run("search", index_folder, "sofa", "--filter", "price <", code=2)
    assert "is no index. Fix: gram index" in run("keys", tmp_path / "none", "list", code=2)
    model, products = tmp_path / "model", tmp_path / "products.csv"
    wanted = f"{model}: is a model, and an index is wanted. Fix: gram index {model} PRODUCTS -o INDEX"
    for command in (("search", model, "sofa"), ("serve", model), ("keys", model, "list"), ("update", model, products)):
        products.write_text("product_id,title\na,Sofa\n", encoding="utf-8")
        assert wanted in run(*command, code=2)
    other = f"{index_folder}: is an index, and a model is wanted. Fix: name the folder that gram train wrote"
    assert other in run("index", index_folder, tmp_path / "no.csv", "-o", tmp_path / "new", code=2)
    assert other in run("search", index_folder, "sofa", "--model", index_folder, code=2)
    assert not list(tmp_path.glob("none*"))
    assert "there is no key" in run("serve", index_folder, "--host", "0.0.0.0", code=2)


def test_a_run_is_written_over_no_file_of_an_index_or_a_model(index_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "queries.tsv").write_text("query_id\tquery\nq1\tsofa\n", encoding="utf-8")
    asked = ("search", index_folder, "--queries", tmp_path / "queries.tsv", "--run")
    assert "write it elsewhere" in run(*asked, index_folder / "meta.json", code=2)
    assert "write it elsewhere" in run(*asked, tmp_path / "model" / "run.trec", code=2)
    assert "whole: " in run("check", index_folder)
    assert not (tmp_path / "model" / "run.trec").exists()


def test_keys_are_made_listed_and_removed(index_folder: Path) -> None:
    key = run("keys", index_folder, "add", "page", "--role", "search").strip()
    assert key.startswith("gram_")
    assert run("keys", index_folder, "list") == "page\tsearch\n"
    run("keys", index_folder, "remove", "page")
    assert "no key 'page'" in run("keys", index_folder, "remove", "page", code=2)


def test_one_request_in_this_process(index_folder: Path) -> None:
    assert '"status":"ready"' in run("serve", index_folder, "--get", "/ready")
    assert "unknown_parameter" in run("serve", index_folder, "--get", "/search?x=1", code=1)
    run("keys", index_folder, "add", "shop", "--role", "search")
    assert '"hits"' in run("serve", index_folder, "--get", "/search?q=sofa"), "who has the files needs no key"


def test_a_run_is_filtered_and_sorted_as_one_query_is(small_shop: Path, tmp_path: Path) -> None:
    shutil.copytree(small_shop / "index", tmp_path / "index")
    index, queries, written = str(tmp_path / "index"), tmp_path / "q.tsv", tmp_path / "run.trec"
    queries.write_text("query_id\tquery\nq1\tbed\nq2\tlamp\n", encoding="utf-8")
    command = ["search", index, "--model", str(small_shop / "model"), "--queries", str(queries), "--run", str(written)]
    done = CliRunner().invoke(main, [*command, "--filter", "price < 100"])
    assert done.exit_code == 0, done.output
    products = {p.product_id: p for p in generate(products=150, interactions=600, queries=120, seed=1).products}
    found = [line.split()[2] for line in written.read_text(encoding="utf-8").splitlines()]
    assert found
    assert all((products[product_id].price or 0) < 100 for product_id in found)
    done = CliRunner().invoke(main, [*command, "--sort", "-price"])
    assert done.exit_code == 0, done.output
    rows = [line.split() for line in written.read_text(encoding="utf-8").splitlines()]
    prices = [products[row[2]].price or 0.0 for row in rows if row[0] == "q1"]
    assert len(set(prices)) > 1
    assert prices == sorted(prices, reverse=True)
    done = CliRunner().invoke(main, [*command, "--facets", "brand"])
    assert done.exit_code == 2
    assert "--facets" in done.output
