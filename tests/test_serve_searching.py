"""What the service answers to searches and vectors."""

from __future__ import annotations

import re

import pytest
from asking import error_of
from starlette.testclient import TestClient

from gram.shop import Shop


def test_search_by_get_and_by_post_is_the_same(client: TestClient) -> None:
    asked = {"q": "black sofa", "limit": 3, "facets": "brand,price", "explain": "true"}
    got = client.get("/search", params=asked).json()
    posted = client.post("/search", json=asked | {"explain": True, "facets": ["brand", "price"]}).json()
    for answer in (got, posted):
        assert answer.pop("took_ms") >= 0
    assert got == posted
    assert len(got["hits"]) == 3
    hit = got["hits"][0]
    assert {"product_id", "title", "score", "codes", "features"} <= set(hit)
    assert sum(hit["features"].values()) == pytest.approx(hit["score"], abs=1e-3)
    assert set(hit["codes"][0]) == {"code", "share", "query", "product"}
    assert sum(got["facets"]["brand"].values()) <= got["found"]
    assert got["ranges"]["price"][0].keys() == {"from", "to", "count"}
    assert got["query"]["read_as"] == "black sofa"


def test_refinements_lead_to_as_many_products_as_they_say(client: TestClient) -> None:
    answer = client.get("/search", params={"q": "sofa"}).json()
    assert answer["refinements"]
    for refinement in answer["refinements"]:
        refined = client.get("/search", params={"q": "sofa", "filter": refinement["filter"], "limit": 1000}).json()
        assert refined["found"] >= refinement["products"] > 0


def test_an_answer_tells_the_heaviest_expansions_of_a_query(shop: Shop) -> None:
    query = shop.live.snapshot.searcher.represent(["black sofa"], compound=False)[0]
    assert len(query.expansion.key) > 8
    told = [weight for _, source, weight in shop.search("black sofa").codes if source == "expansion"]
    assert told == [round(weight, 4) for weight in sorted(query.expansion.weight.tolist(), reverse=True)[:8]]


def test_a_refinement_counts_what_its_filter_lets_through_of_the_found(client: TestClient) -> None:
    def ids(**asked: str | int) -> list[str]:
        answer = client.get("/search", params={"limit": 1000, **asked}).json()
        return [hit["product_id"] for hit in answer["hits"]][: answer["found"]]

    found, refinements = set(ids(q="sofa")), client.get("/search", params={"q": "sofa"}).json()["refinements"]
    assert refinements
    for refinement in refinements:
        assert refinement["products"] == len(found.intersection(ids(filter=refinement["filter"])))


def test_a_limit_as_the_fix_says_is_answered(client: TestClient) -> None:
    for asked, told in (
        ({"limit": "20000"}, "10000"),
        ({"limit": "9" * 30}, "10000"),
        ({"limit": 20, "offset": 9990}, "10"),
    ):
        fix = error_of(client.get("/search", params=asked), 400)["fix"]
        limit = re.findall("[0-9]+", fix)[-1]
        assert limit == told
        assert client.get("/search", params=asked | {"limit": limit}).status_code == 200
    fix = error_of(client.get("/search", params={"offset": 10_000}), 400)["fix"]
    assert fix == "give an offset below 10000; a filter brings others within reach"


def test_a_filter_by_a_field_that_no_product_has_is_refused(client: TestClient) -> None:
    error = error_of(client.get("/search", params={"q": "sofa", "filter": 'color = "black" OR price < 5'}), 400)
    assert "'color'" in error["message"]
    assert "'colour'" in error["fix"]
    assert client.get("/search", params={"q": "sofa", "filter": "stock > 1000000"}).json()["hits"] == []


def test_a_query_is_given_as_a_vector_for_another_engine(client: TestClient) -> None:
    codes = client.get("/vector", params={"q": "black sofa"}).json()["codes"]
    numbered = client.get("/vector", params={"q": "black sofa", "form": "ids"}).json()
    assert codes
    assert sorted(numbered["values"], reverse=True) == list(codes.values())
    assert client.get("/vector").json() == {"codes": {}}
    refused = client.get("/vector", params={"q": "sofa", "form": "bytes"})
    assert refused.status_code == 400
    assert "names, ids" in refused.json()["error"]["fix"]


@pytest.mark.parametrize("path", ["/suggest?q=sofa&limit=3", "/vector?q=sofa&from=ids", "/codes?q=sofa"])
def test_a_parameter_that_an_address_does_not_know_is_refused(client: TestClient, path: str) -> None:
    answer = client.get(path)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "unknown_parameter")


def test_a_misspelt_parameter_takes_no_code_away(client: TestClient) -> None:
    product_id = client.get("/search?q=sofa").json()["hits"][0]["product_id"]
    before = client.get(f"/products/{product_id}/codes").json()
    assert client.delete(f"/products/{product_id}/codes/type/sofa?neutal=true").status_code == 400
    assert client.put(f"/products/{product_id}/codes/type/sofa?neutal=true").status_code == 400
    assert client.get(f"/products/{product_id}/codes").json() == before


@pytest.mark.parametrize(
    ("method", "path"),
    [
        *((method, "/products/none") for method in ("GET", "PUT", "PATCH", "DELETE")),
        *((method, "/rules/none") for method in ("GET", "PUT", "DELETE")),
        *(("GET", path) for path in ("/products/none/codes", "/rules", "/log", "/stats")),
        *(("POST", path) for path in ("/search", "/products", "/rules/try", "/clicks", "/reload")),
        ("PUT", "/products/none/codes/type/sofa"),
        ("PUT", "/attributes/type/sofa"),
    ],
)
def test_an_address_that_takes_no_parameter_refuses_each(client: TestClient, method: str, path: str) -> None:
    error = error_of(client.request(method, f"{path}?dry=true"), 400)
    assert (error["code"], error["fix"]) == ("unknown_parameter", "leave it out: this address takes none")
