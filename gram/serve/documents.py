"""The service's OpenAPI document: `/openapi.json`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gram.answer import DEEPEST
from gram.export import FORMS
from gram.serve.schemas import COMPONENTS, COUNT, SEARCH, TEXT, TRUTH, Schema, list_of, map_of, object_of, refer

_PATH: dict[str, tuple[str, str]] = {
    "product_id": ("", "Slashes as %2F, or as they are"),
    "rule_id": ("/", "Without slashes"),
    "slot": ("/", "Such as colour"),
    "value": ("", "Such as red"),
}
"""Parts of a path: characters that may not be in them, beside control characters, and what they are."""
_MEANINGS = {
    200: "Done",
    201: "Done; it is new",
    400: "It cannot be read, or asks for what is not there",
    401: "A key is needed",
    403: "The key may not do this",
    404: "There is none of this name",
    405: "This address takes other methods",
    413: "Too long",
    500: "Something broke",
    503: "The service stops, or too many ask at once: come again",
    507: "The disk of the service is full",
}
_KEYED = (401, 403, 500, 503, 507)
"""What every request that needs a key may be answered."""


@dataclass(frozen=True)
class _Operation:
    """One request: what it is for, what it is answered with success, and with which errors it
    may be, beside those of `_KEYED` and of any name in a path. `body` has what is sent by its media type."""

    summary: str
    answer: Schema
    errors: Sequence[int] = ()
    body: Mapping[str, Schema] = field(default_factory=dict)
    query: Sequence[dict[str, Any]] = ()
    success: Sequence[int] = (200,)
    media: str = "application/json"
    open: bool = False  # to everyone, without a key
    any_query: bool = False  # parameters that it does not know are passed over: of addresses that machines ask

    def document(self, path: str) -> dict[str, Any]:
        in_path = [
            {"name": name, "in": "path", "required": True, "schema": _part(barred), "description": meaning}
            for name, (barred, meaning) in _PATH.items()
            if f"{{{name}}}" in path
        ]
        problem = {"application/json": {"schema": refer("Error")}}
        errors = sorted({*self.errors, *((400, 404) if in_path else ()), *((500,) if self.open else _KEYED)})
        made: dict[str, Any] = {
            "summary": self.summary,
            "parameters": [*in_path, *self.query],
            "security": [{}] if self.open else [{}, {"key": []}],
            "responses": {
                **{str(n): _response(n, {self.media: {"schema": self.answer}}) for n in self.success},
                **{str(n): _response(n, problem) for n in errors},
            },
        }
        if self.body:
            content = {media: {"schema": schema} for media, schema in self.body.items()}
            made["requestBody"] = {"required": "application/x-ndjson" not in self.body, "content": content}
        return made


def _part(barred: str) -> Schema:
    inner = rf"[^{barred}\x00-\x1f\x7f-\x9f\u2028\u2029]*"
    return {"type": "string", "pattern": rf"^{inner}[^{barred}\s\x00-\x1f\x7f-\x9f\u2028\u2029]{inner}$"}


def _response(status: int, content: dict[str, Any]) -> dict[str, Any]:
    return {"description": _MEANINGS[status], "content": content}


def _in_query(name: str, schema: Schema) -> dict[str, Any]:
    meaning = {"description": schema["description"]} if "description" in schema else {}
    return {"name": name, "in": "query", "schema": schema, **meaning}


def _json(name: str) -> dict[str, Schema]:
    return {"application/json": refer(name)}


def _done(what: str) -> Schema:
    return object_of({what: TEXT})


_READY = object_of({"status": {"enum": ["ready", "stopping", "store away"]}, "products": COUNT})
_EDITED = {"anyOf": [_done("taken"), _done("neutral")]}
_NEUTRAL = _in_query("neutral", TRUTH | {"description": "Leave the code to the text and the model again"})
_LISTED = [
    _in_query("slot", TEXT | {"description": "Of this slot alone"}),
    _in_query("prefix", TEXT | {"description": "How their values begin, the words in any form"}),
    _in_query("limit", COUNT | {"maximum": DEEPEST, "default": 100}),
    _in_query("offset", COUNT | {"maximum": 10**9 - 1, "default": 0}),
]
_KEPT = {"anyOf": [refer("Rule"), refer("UnreadRule")]}
_TAUGHT = object_of({"attribute": TEXT, "new": TRUTH, "coded_anew": COUNT})
_MANY = {"application/x-ndjson": TEXT, "application/json": list_of(refer("SentProduct") | {"required": ["product_id"]})}
_CLICKS = object_of({"accepted": COUNT, "rejected": COUNT})
_TRIED = object_of({"before": refer("Answer"), "after": refer("Answer"), "warnings": refer("Warnings")})

OPERATIONS: dict[str, dict[str, _Operation]] = {
    "/search": {
        "get": _Operation(
            "Search", refer("Answer"), [400], query=[_in_query(name, schema) for name, schema in SEARCH.items()]
        ),
        "post": _Operation("Search", refer("Answer"), [400, 413], _json("Search")),
    },
    "/suggest": {
        "get": _Operation("Complete what is typed", refer("Suggestions"), [400], query=[_in_query("q", TEXT)])
    },
    "/codes": {
        "get": _Operation("The codes that there are", refer("CodeList"), [400], query=_LISTED),
    },
    "/vector": {
        "get": _Operation(
            "A query's codes as a sparse vector",
            refer("Vector"),
            [400],
            query=[_in_query("q", TEXT), _in_query("form", {"type": "string", "enum": list(FORMS)})],
        )
    },
    "/products": {
        "post": _Operation(
            "Add or replace products, a product a line or an array", refer("Accepted"), [400, 413], _MANY
        )
    },
    "/products/{product_id}": {
        "get": _Operation("A product", refer("Product"), [405]),
        "put": _Operation("Add or replace it", refer("Product"), [405, 413], _json("SentProduct"), success=(200, 201)),
        "patch": _Operation("Change some fields", refer("Product"), [405, 413], _json("Patch")),
        "delete": _Operation("Take it out", _done("deleted"), [405]),
    },
    "/products/{product_id}/codes": {"get": _Operation("Its codes and where they are from", refer("Codes"))},
    "/products/{product_id}/codes/{slot}/{value}": {
        "put": _Operation("Give it a code", _done("given")),
        "delete": _Operation("Take a code away from it, or the edit of it", _EDITED, query=[_NEUTRAL]),
    },
    "/rules": {"get": _Operation("All rules", object_of({"rules": map_of(_KEPT)}), [400])},
    "/rules/try": {"post": _Operation("A query before and after rules", _TRIED, [400, 413], _json("Try"))},
    "/rules/{rule_id}": {
        "get": _Operation("A rule", _KEPT),
        "put": _Operation("Keep a rule", refer("KeptRule"), [413], _json("SentRule")),
        "delete": _Operation("Take it out", _done("deleted")),
    },
    "/attributes/{slot}/{value}": {"put": _Operation("Teach the model an attribute", _TAUGHT, success=(200, 201))},
    "/clicks": {"post": _Operation("Keep clicks", _CLICKS, [400, 413], _json("Clicks"), (), (201,))},
    "/log": {"get": _Operation("Clicks as a log to train on", TEXT, [400], media="text/tab-separated-values")},
    "/stats": {"get": _Operation("What is asked", refer("Statistics"), [400])},
    "/reload": {
        "post": _Operation("Take in an index written anew", object_of({"reloaded": TRUTH, "products": COUNT}), [400])
    },
    "/health": {"get": _Operation("Alive", object_of({"status": {"const": "ok"}}), open=True, any_query=True)},
    "/ready": {"get": _Operation("Ready to answer", _READY, success=(200, 503), open=True, any_query=True)},
    "/metrics": {"get": _Operation("Prometheus metrics", TEXT, media="text/plain", any_query=True)},
}


def openapi() -> dict[str, Any]:
    """The document, OpenAPI 3.1."""
    return {
        "openapi": "3.1.0",
        "info": {"title": "GRAM", "version": "1"},
        "paths": {
            path: {method: operation.document(path) for method, operation in methods.items()}
            for path, methods in OPERATIONS.items()
        },
        "components": {
            "schemas": COMPONENTS,
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
    }
