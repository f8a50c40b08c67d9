"""What the service reads and answers, as JSON Schemas: the components of its OpenAPI document."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

from gram.answer import DEEPEST, MOST_NAMES
from gram.data.catalogue import DEEPEST_CATEGORY, LONGEST_ID, LONGEST_TITLE
from gram.ranking.fits import FIT
from gram.rules import ACTIONS, KEYS, LONGEST_TEXT, MOST_PRODUCTS, STRONGEST, TOLD
from gram.serve.bodies import LONGEST_QUERY
from gram.serve.clicks import CLICKED, CLICKS, LONGEST

Schema: TypeAlias = dict[str, Any]

TEXT: Schema = {"type": "string"}
_VISIBLE = r"[^\s\x00-\x1f\x7f-\x9f\xad]"
SEEN: Schema = {"type": "string", "pattern": _VISIBLE}
COUNT: Schema = {"type": "integer", "minimum": 0}
NUMBER: Schema = {"type": "number"}
TRUTH: Schema = {"type": "boolean"}
SCALAR: Schema = {"type": ["string", "number", "boolean", "null"]}
_SHARE = r"^$|^\s*[+]?(0|1|[01]\.0*|0?\.[0-9]+)\s*$"
_NUMERIC = r"([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,2})?\s*$"


def refer(name: str) -> Schema:
    """A component by its name."""
    return {"$ref": f"#/components/schemas/{name}"}


def list_of(items: Schema, **more: Any) -> Schema:
    return {"type": "array", "items": items, **more}


def map_of(values: Schema) -> Schema:
    return {"type": "object", "additionalProperties": values}


def object_of(fields: dict[str, Schema], optional: Sequence[str] = (), **more: Any) -> Schema:
    """An object that has these fields, all but the `optional` ones always, and no others unless `more` says so."""
    required = [name for name in fields if name not in optional]
    made = {"type": "object", "properties": fields, "additionalProperties": False, **more}
    return made | ({"required": required} if required else {})


def _or_text(schema: Schema, pattern: str) -> Schema:
    """A number or a truth that may be written as a text as well."""
    return {"anyOf": [schema, {"type": "string", "pattern": pattern}]}


SEARCH: dict[str, Schema] = {
    "q": {"type": "string", "maxLength": LONGEST_QUERY}
    | {"description": "What is searched for; without it every product that the filter lets through"},
    "limit": COUNT | {"maximum": DEEPEST, "default": 10, "description": "How many hits"},
    "offset": COUNT
    | {"maximum": DEEPEST, "default": 0, "description": f"How many hits to skip; with limit up to {DEEPEST:,}"},
    "filter": TEXT | {"description": 'Which products may be found: brand = "nike" AND price < 50'},
    "facets": TEXT | {"description": f"Fields whose values are counted, with commas between, {MOST_NAMES} at most"},
    "sort": TEXT | {"description": "A field that filters know, one, to sort by; -price for falling order"},
    "distinct": TEXT | {"description": "A field of which each value is shown once"},
    "explain": TRUTH | {"default": False, "description": "Whether hits come with the codes and features behind them"},
    "value": {"type": "number", "exclusiveMinimum": -1e9, "exclusiveMaximum": 1e9}
    | {"description": "The weight of products' value in the score"},
    "fit": {"type": "number", "minimum": 0, "maximum": 1, "default": FIT}
    | {"description": "How near to the query's best a product has to come to fit; 0 for every candidate"},
    "fields": TEXT | {"description": "Fields of products to answer with, with commas between; all without it"},
}
"""The parameters of a search, as a query string has them."""

_NAMES: Schema = {"anyOf": [TEXT, list_of(TEXT, maxItems=MOST_NAMES)]}
_SEARCH_BODY = SEARCH | {
    "limit": _or_text(SEARCH["limit"], "^[0-9]{1,9}$"),
    "offset": _or_text(SEARCH["offset"], "^[0-9]{1,9}$"),
    "facets": _NAMES,
    "fields": _NAMES,
    "explain": _or_text(TRUTH, "^(|0|1|[Tt][Rr][Uu][Ee]|[Ff][Aa][Ll][Ss][Ee])$"),
    "value": {"anyOf": [SEARCH["value"], {"type": "null"}, {"type": "string", "pattern": rf"^$|^\s*[+-]?{_NUMERIC}"}]},
    "fit": {"anyOf": [SEARCH["fit"], {"type": "null"}, {"type": "string", "pattern": _SHARE}]},
}

_FLAT: Schema = {"anyOf": [SCALAR, list_of(SCALAR)]}


def _number_or_text(number: Schema, sign: str) -> Schema:
    return {"anyOf": [number, {"type": "null"}, {"type": "string", "pattern": rf"^\s*$|^\s*{sign}?{_NUMERIC}"}]}


_SENT = {
    "title": {"type": ["string", "number", "boolean"], "pattern": _VISIBLE, "maxLength": LONGEST_TITLE},
    "brand": SCALAR,
    "category": _FLAT | {"description": f"A > B > C, or a list from the root to the leaf; {DEEPEST_CATEGORY} at most"},
    "description": SCALAR,
    "price": _number_or_text(NUMBER | {"minimum": 0}, "[+]"),
    "value": _number_or_text(NUMBER, "[+-]") | {"description": "How much the shop wants to sell it"},
    "attributes": {"anyOf": [map_of(_FLAT), {"type": "null"}]},
}
"""A product's fields as they are sent; any other is an attribute."""

_VALUES: Schema = {"anyOf": [TEXT, list_of(TEXT, minItems=2)]}
_SHOWN = {
    "product_id": TEXT,
    "title": TEXT,
    "brand": TEXT,
    "category": TEXT,
    "description": TEXT,
    "price": NUMBER,
    "value": NUMBER,
    "attributes": map_of(_VALUES) | {"description": "Those whose names are a field's"},
}
"""A product's fields as they are answered; any other is an attribute."""

_WHY = {
    "codes": {
        "anyOf": [
            list_of(
                object_of(
                    {"code": TEXT, "share": NUMBER, "query": TEXT, "product": TEXT, "near": TEXT}, optional=["near"]
                )
            ),
            _VALUES,
        ],
        "description": "With explain the codes that it shares with the query; else an attribute of this name",
    },
    "features": {"anyOf": [map_of(NUMBER), _VALUES], "description": "With explain what each adds to the score"},
}
_RULE: dict[str, Schema] = {
    "action": {"type": "string", "enum": list(ACTIONS)},
    **{name: {"type": "string", "maxLength": LONGEST_TEXT} for name in ("query", "code", "filter", "target")},
    "products": list_of(TEXT, maxItems=MOST_PRODUCTS),
    "weight": {"type": "number", "minimum": -STRONGEST, "maximum": STRONGEST},
    **{name: {"type": ["string", "null"], "description": "ISO 8601"} for name in ("from", "until")},
    "draft": TRUTH,
}
_PASSED_OVER: dict[str, Schema] = {name: {"description": "As it was shown: passed over"} for name in TOLD}
_CLICK_TEXT: Schema = {"type": "string", "maxLength": LONGEST}

COMPONENTS: dict[str, Schema] = {
    "Error": object_of({"error": object_of({"code": TEXT, "message": TEXT, "fix": TEXT})}),
    "Search": object_of(_SEARCH_BODY, optional=list(_SEARCH_BODY)),
    "Hit": object_of(
        _SHOWN | {"score": NUMBER, "fits": TRUTH | {"description": "Whether it fits, or is only near"}} | _WHY,
        optional=[*(set(_SHOWN) - {"product_id", "title"}), *_WHY],
        additionalProperties=_VALUES,
    ),
    "Answer": object_of(
        {
            "hits": list_of(refer("Hit")),
            "found": COUNT,
            "facets": map_of(map_of(COUNT)),
            "ranges": map_of(list_of(object_of({"from": NUMBER, "to": NUMBER, "count": COUNT}))),
            "refinements": list_of(object_of({"code": TEXT, "products": COUNT, "filter": TEXT})),
            "query": object_of(
                {"read_as": TEXT, "codes": list_of(object_of({"code": TEXT, "source": TEXT, "weight": NUMBER}))}
            ),
            "rules": list_of(TEXT),
            "warnings": refer("Warnings"),
            "took_ms": NUMBER,
            "redirect": TEXT,
        },
        optional=["redirect"],
    ),
    "Warnings": list_of(TEXT, description="What is asked by a name that nobody has, and is no error"),
    "Suggestions": object_of({"suggestions": list_of(object_of({"text": TEXT, "weight": NUMBER}))}),
    "Vector": object_of(
        {"codes": map_of(NUMBER), "indices": list_of(COUNT), "values": list_of(NUMBER)},
        optional=["codes", "indices", "values"],
    ),
    "Product": object_of(_SHOWN, optional=list(set(_SHOWN) - {"product_id", "title"}), additionalProperties=_VALUES),
    "SentProduct": object_of(
        {"product_id": {"type": ["string", "number"], "maxLength": LONGEST_ID}} | _SENT,
        optional=["product_id", *(set(_SENT) - {"title"})],
        additionalProperties=_FLAT,
    ),
    "Patch": object_of(_SENT, optional=list(_SENT), additionalProperties=_FLAT, minProperties=1)
    | {"not": {"required": ["product_id"]}, "description": "null takes a field away, of attributes all"},
    "Accepted": object_of(
        {
            "accepted": COUNT,
            "rejected": list_of(object_of({"line": COUNT, "error": TEXT})),
            "rejected_count": COUNT,
        }
    ),
    "Codes": object_of(
        {
            "codes": list_of(
                object_of(
                    {"code": TEXT, "source": {"enum": ["lexical", "expansion", "given"]}, "weight": NUMBER},
                )
            ),
            "taken": list_of(TEXT),
        }
    ),
    "CodeList": object_of(
        {
            "codes": list_of(object_of({"code": TEXT, "products": COUNT})),
            "found": COUNT,
            "slots": map_of(COUNT) | {"description": "How many codes of each slot begin as asked"},
        }
    ),
    "Rule": object_of({name: _RULE[name] for name in KEYS}, optional=[name for name in KEYS if name != "action"]),
    "SentRule": object_of(_RULE | _PASSED_OVER, optional=[name for name in (*KEYS, *TOLD) if name != "action"]),
    "KeptRule": object_of(
        {name: _RULE[name] for name in KEYS} | {"warnings": refer("Warnings")},
        optional=[name for name in KEYS if name != "action"],
    ),
    "UnreadRule": object_of(
        {"error": TEXT | {"description": "Why a rule that is kept cannot be read, and does nothing, and the fix"}},
        additionalProperties=True,
    ),
    "TriedRule": object_of(
        {"id": SCALAR} | _RULE | _PASSED_OVER,
        optional=["id", *(name for name in (*KEYS, *TOLD) if name != "action")],
    ),
    "Try": object_of(
        {
            "q": SEARCH["q"],
            "limit": _SEARCH_BODY["limit"],
            "rules": list_of(refer("TriedRule"), minItems=1),
        },
        optional=["q", "limit"],
        additionalProperties=True,
    ),
    "Click": object_of(
        {
            "query": _CLICK_TEXT | SEEN,
            "product_id": _CLICK_TEXT | SEEN,
            "kind": {"type": "string", "enum": list(CLICKED)},
            "weight": {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1e6},
            "user_id": _CLICK_TEXT,
            "timestamp": _CLICK_TEXT,
        },
        optional=["kind", "weight", "user_id", "timestamp"],
        additionalProperties=True,
    ),
    "Clicks": {"anyOf": [refer("Click"), list_of(refer("Click"), maxItems=CLICKS)]},
    "Statistics": object_of(
        {
            "searches": COUNT,
            "timed": COUNT,
            "took_ms": object_of({"p50": NUMBER, "p95": NUMBER, "p99": NUMBER}),
            **{
                name: list_of(list_of({"type": ["string", "integer"]}, minItems=2, maxItems=2))
                for name in ("top", "without_hits", "without_clicks")
            },
        }
    ),
}
