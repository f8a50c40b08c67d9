"""The service's OpenAPI document."""

from __future__ import annotations

from typing import Any

TEXT, WHOLE, NUMBER, TRUTH = (
    {"type": "string"},
    {"type": "integer", "minimum": 0},
    {"type": "number"},
    {"type": "boolean"},
)
SEARCH: dict[str, tuple[dict[str, Any], str]] = {
    "q": (TEXT, "What is searched for; without it every product that the filter lets through"),
    "limit": (WHOLE | {"default": 10}, "How many hits"),
    "offset": (WHOLE | {"default": 0}, "How many hits to skip; with limit up to 10,000"),
    "filter": (TEXT, 'Which products may be found: brand = "nike" AND price < 50'),
    "facets": (TEXT, "Fields whose values are counted, with commas between"),
    "sort": (TEXT, "A field with numbers to sort by, -price for falling order"),
    "distinct": (TEXT, "A field of which each value is shown once"),
    "explain": (TRUTH, "Whether hits come with the codes and features behind them"),
    "value": (NUMBER, "The weight of products' value in the score"),
    "fields": (TEXT, "Fields of products to answer with, with commas between; all without it"),
}
NEUTRAL = {"name": "neutral", "in": "query", "schema": TRUTH}
ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {"error": {"type": "object", "properties": {"code": TEXT, "message": TEXT, "fix": TEXT}}},
}
_ANSWER = {"description": "Done", "content": {"application/json": {"schema": {"type": "object"}}}}
_ERRORS = {
    str(status): {"description": "An error", "content": {"application/json": {"schema": ERROR}}}
    for status in (400, 401, 403, 404, 405, 413, 503)
}
_PRODUCT = {"type": "object", "properties": {"title": TEXT, "brand": TEXT, "price": NUMBER}}
_RULE = {"type": "object", "required": ["action"], "properties": {"action": TEXT, "query": TEXT, "code": TEXT}}


def _operation(summary: str, body: dict[str, Any] | None = None, *parameters: dict[str, Any]) -> dict[str, Any]:
    made: dict[str, Any] = {"summary": summary, "responses": {"200": _ANSWER, "201": _ANSWER} | _ERRORS}
    if body is not None:
        made["requestBody"] = {"required": True, "content": {"application/json": {"schema": body}}}
    if parameters:
        made["parameters"] = list(parameters)
    return made


def _path(name: str) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "schema": TEXT}


def openapi() -> dict[str, Any]:
    """The document, OpenAPI 3.1."""
    parameters = [{"name": n, "in": "query", "schema": s, "description": d} for n, (s, d) in SEARCH.items()]
    body = {"type": "object", "properties": {name: schema for name, (schema, _) in SEARCH.items()}}
    product, rule, slot, value = map(_path, ("product_id", "rule_id", "slot", "value"))
    click = {"type": "object", "required": ["query", "product_id"], "properties": {"query": TEXT, "product_id": TEXT}}
    paths = {
        "/search": {"get": _operation("Search", None, *parameters), "post": _operation("Search", body)},
        "/suggest": {"get": _operation("Complete", None, {"name": "q", "in": "query", "schema": TEXT})},
        "/products": {
            "post": _operation("Add or replace products (NDJSON or an array)", {"type": "array", "items": _PRODUCT})
        },
        "/products/{product_id}": {
            "get": _operation("A product", None, product),
            "put": _operation("Add or replace it", _PRODUCT, product),
            "patch": _operation("Change some fields", _PRODUCT, product),
            "delete": _operation("Take it out", None, product),
        },
        "/products/{product_id}/codes": {"get": _operation("Its codes and where they are from", None, product)},
        "/products/{product_id}/codes/{slot}/{value}": {
            "put": _operation("Give it a code", None, product, slot, value),
            "delete": _operation("Take a code away from it, or the edit of it", None, product, slot, value, NEUTRAL),
        },
        "/rules": {"get": _operation("All rules")},
        "/rules/try": {"post": _operation("A query before and after rules", {"type": "object"})},
        "/rules/{rule_id}": {
            "get": _operation("A rule", None, rule),
            "put": _operation("Keep a rule", _RULE, rule),
            "delete": _operation("Take it out", None, rule),
        },
        "/attributes/{slot}/{value}": {"put": _operation("Teach the model an attribute", None, slot, value)},
        "/clicks": {"post": _operation("Keep clicks", click)},
        "/log": {"get": _operation("Clicks as a log to train on")},
        "/stats": {"get": _operation("What is asked")},
        "/reload": {"post": _operation("Take in an index written anew")},
        "/health": {"get": _operation("Alive")},
        "/ready": {"get": _operation("Ready to answer")},
        "/metrics": {"get": _operation("Prometheus metrics")},
    }
    return {"openapi": "3.1.0", "info": {"title": "GRAM", "version": "1"}, "paths": paths}
