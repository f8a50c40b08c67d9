"""`import gram` offers what callers need, and brings in torch only for what computes."""

from __future__ import annotations

import subprocess
import sys

import pytest

import gram
from gram.data.catalogue import read_products
from gram.indexing import make_index
from gram.search import Searcher
from gram.shop import Shop
from gram.training.pipeline import train


def test_the_public_names_are_these() -> None:
    assert sorted(gram.__all__) == sorted(
        [
            *("train", "make_index", "load", "Searcher", "Settings", "TrainingSettings", "MiningSettings"),
            *("open", "Shop", "SearchRequest"),
            *("read_products", "read_log", "read_queries"),
            *("Product", "Interaction", "Attribute", "Code", "SharedCode", "Hit", "code_text", "GramError"),
        ]
    )


def test_every_public_name_is_there_and_listed() -> None:
    for name in gram.__all__:
        assert getattr(gram, name) is not None
        assert name in dir(gram)


def test_public_names_are_those_of_the_rooms() -> None:
    assert gram.train is train
    assert gram.make_index is make_index
    assert gram.Searcher is Searcher
    assert gram.load == Searcher.load
    assert gram.open == Shop.open
    assert gram.read_products is read_products


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'serach'"):
        gram.serach  # noqa: B018


@pytest.mark.parametrize(
    "module",
    [
        "gram",
        "gram.cli",
        "gram.display",
        "gram.index.segment",
        "gram.ranking.candidates",
        "gram.codes.mining",
        "gram.evaluation.measures",
    ],
)
def test_torch_is_imported_only_where_it_computes(module: str) -> None:
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
