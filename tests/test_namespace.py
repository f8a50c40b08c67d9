"""`import gram` offers what callers need, and brings in torch only for what computes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

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
            *("open", "Shop", "SearchRequest", "backup"),
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


HEAVY = (
    "transformers", "sentence_transformers", "torch._dynamo", "torch.distributed.tensor", "sympy", "scipy.stats",
    "sklearn", "pandas", "pyarrow", "jax", "matplotlib",
)  # fmt: skip
"""What takes as long to import as all the rest of a start, or near it."""


def test_a_shop_is_opened_searched_and_changed_without_heavy_imports(small_shop: Path) -> None:
    """With a filter, facets and a product to code: else one of these would wait for an import, once it is served."""
    code = f"""
import sys
import gram, gram.cli, gram.serve.run
shop = gram.open({str(small_shop / "index")!r}, {str(small_shop / "model")!r}, read_only=True)
assert shop.search(gram.SearchRequest("red sofa", filter="EXISTS brand", facets=("brand",), explain=True)).hits
shop.live._represent([gram.Product("x", "Velvet sofa")])
print(*(name for name in {HEAVY!r} if name in sys.modules))
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == []
