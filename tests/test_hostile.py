"""What a hostile or careless user found, and what is said of it since."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from gram.coder.folder import model_hash, read_config
from gram.data.catalogue import LONGEST_ID, LONGEST_TITLE, read_products
from gram.errors import BadRow, DataError, GramError, ModelError, SettingError
from gram.evaluation.measures import read_run
from gram.folders import check_folder
from gram.ranking.scorer import Scorer
from gram.text.shop_tables import Tables


@pytest.mark.parametrize("config", ["[]", "5", "null", '"x"', "{}", '{"format_version": 3}', "[" * 100_000])
def test_a_config_that_is_none_is_told(config: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(config)
    with pytest.raises(GramError, match="Fix: "):
        read_config(tmp_path)


def test_a_hash_needs_a_model(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no model there"):
        model_hash(tmp_path)


@pytest.mark.parametrize("sums", ["{}", "[]", "5"])
def test_emptied_checksums_are_no_checksums(sums: str, tmp_path: Path) -> None:
    (tmp_path / "checksums.json").write_text(sums)
    with pytest.raises(GramError, match=r"holds no checksums\. Fix: train again"):
        check_folder(tmp_path, "train again")


def test_a_pipe_is_no_catalogue(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "products.csv")
    with pytest.raises(DataError, match=r"is a pipe.*Fix: write it to a file first"):
        read_products(tmp_path / "products.csv")


def test_an_id_as_long_as_a_page_is_refused(tmp_path: Path) -> None:
    """An index of 50,000 products would keep each of their ids at its length: 20 GB for one of 100,000 characters."""
    rows = [{"product_id": "a" * length, "title": "x"} for length in (LONGEST_ID, LONGEST_ID + 1)]
    (tmp_path / "products.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(BadRow, match="line 2, column 'product_id': an id of 501 characters, where 500 are read"):
        read_products(tmp_path / "products.jsonl")


@pytest.mark.parametrize("category", [["a"] * 51, " > ".join(["a"] * 51)])
def test_a_category_that_is_deeper_than_any_shop_is_refused(category: object, tmp_path: Path) -> None:
    """Every beginning of the path is a value of the field: a body of 1 MB could ask for 50 GB."""
    row = {"product_id": "a", "title": "x", "category": category}
    (tmp_path / "products.jsonl").write_text(json.dumps(row) + "\n")
    with pytest.raises(BadRow, match="line 1, column 'category': a path of 51 categories, where 50 are read"):
        read_products(tmp_path / "products.jsonl")


def test_a_title_as_long_as_a_book_is_refused(tmp_path: Path) -> None:
    rows = [{"product_id": "a", "title": "x" * LONGEST_TITLE}, {"product_id": "b", "title": "red shoe " * 2_000}]
    (tmp_path / "products.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(BadRow, match="line 2, column 'title': a title of 17,999 characters"):
        read_products(tmp_path / "products.jsonl")


@pytest.mark.parametrize("score", ["1_0", "inf", "-inf", "nan", "x"])
def test_a_runs_scores_are_numbers(score: str, tmp_path: Path) -> None:
    (tmp_path / "run.trec").write_text(f"q Q0 p 1 {score} tag\n")
    with pytest.raises(BadRow, match="line 1, column 'score': not a number"):
        read_run(tmp_path / "run.trec")


@pytest.mark.parametrize("weight", [None, "a", float("nan"), 1e12])
def test_a_weight_is_a_number(weight: object, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="plain number"):
        Scorer.default().with_value(weight)  # type: ignore[arg-type]


def test_a_table_holds_words_that_can_be_saved(tmp_path: Path) -> None:
    (tmp_path / "stopwords.json").write_text('["\\ud800"]')
    with pytest.raises(DataError, match="is no word"):
        Tables.load(tmp_path)
