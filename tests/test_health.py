"""What the health of a model's codes says to a person."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from gram.training.health import format_health

GOOD: dict[str, Any] = {
    "lexicon": {"attributes": 22573, "learnt": 8000},
    "products": {
        "lexical": 13.5936, "expansion": 3.6223, "compound": 11.8494, "without_attribute": 0.004,
        "without_compound": 0.02, "grounded": 0.0534, "grounded_by_chance": 0.0042,
    },
    "codes": {"of_products": 32495, "space": 258000},
    "queries": {
        "held_out": 763, "without_attribute": 0.0039, "without_expansion": 0.8165, "without_compound": 0.0,
        "lexical": 3.6278, "expansion": 0.2988, "interactions_sharing_a_word": 0.9621,
        "interactions_sharing_a_code": 0.9759, "compound_alone": {"R@300": 0.6631, "postings_touched": 109.903},
        "grounded": 0.5631, "grounded_by_chance": 0.0261,
    },
}  # fmt: skip


def test_a_healthy_model() -> None:
    lines = format_health(GOOD).splitlines()
    assert "22,573 attributes; the model may write 8,000 of them" in lines[1]
    assert [line for line in lines if line.startswith("-")] == []
    assert [line for line in lines if line.startswith("+")] == [
        "+ 0.4% of the products have no attribute",
        "+ 2.0% have no compound code",
        "+ of what the model writes of a product 5.3% is asked for by a query that leads to it; by chance 0.4%",
        "+ 0.4% of them have no attribute",
        "+ of what the model writes of a query 56.3% is true of a product clicked for it; by chance 2.6%",
        "+ 97.6% of clicked products share a code with the query, 96.2% a word of it",
    ]


@pytest.mark.parametrize(
    ("part", "name", "value", "said"),
    [
        ("products", "without_attribute", 0.021, "- 2.1% of the products have no attribute: see that"),
        ("products", "without_compound", 0.2, "- 20.0% have no compound code: train longer, or give"),
        ("products", "grounded", 0.008, "- of what the model writes of a product 0.8% is asked for"),
        ("queries", "without_attribute", 0.5, "- 50.0% of them have no attribute: their words"),
        ("queries", "grounded", 0.0, "- of what the model writes of a query 0.0% is true"),
        ("queries", "interactions_sharing_a_code", 0.96, "- 96.0% of clicked products share a code"),
    ],
)
def test_what_is_not_as_it_should_be_is_marked_with_what_to_do(part: str, name: str, value: float, said: str) -> None:
    ill = copy.deepcopy(GOOD)
    ill[part][name] = value
    marked = [line for line in format_health(ill).splitlines() if line.startswith("-")]
    assert len(marked) == 1
    assert marked[0].startswith(said)


def test_without_a_log_it_tells_of_products_alone_and_without_figures_nothing() -> None:
    products = {name: value for name, value in GOOD["products"].items() if "grounded" not in name}
    said = format_health({**{part: GOOD[part] for part in ("lexicon", "codes")}, "products": products})
    assert "quer" not in said
    assert len(said.splitlines()) == 6
    assert said.splitlines()[-1].startswith("- whether what the model writes is true is not measured: that takes a log")
    assert format_health({}) == ""
