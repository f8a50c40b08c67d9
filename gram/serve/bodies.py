"""Requests read and answers written: JSON both ways, and errors that say the way out."""

from __future__ import annotations

import errno
import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any

import msgspec
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from gram.answer import DEEPEST, MOST_NAMES, SearchRequest, SearchResult
from gram.records import Hit, Product, code_text

BODY = 1_000_000  # bytes of a body but for those of products, which are streamed
LONGEST_QUERY = 2_000
RETRY = {"Retry-After": "1"}
LONGEST_MESSAGE = 300  # characters of a message or a fix, which may repeat what was sent


@dataclass
class HTTPError(Exception):
    """What goes back as an error: a status, a code for programs, a sentence and the fix for people."""

    status: int
    code: str
    message: str
    fix: str = ""
    headers: Mapping[str, str] | None = None


def respond(content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """An answer in JSON."""
    return Response(msgspec.json.encode(content), status, dict(headers or {}), media_type="application/json")


def respond_error(error: HTTPError) -> Response:
    body = {"error": {"code": error.code, "message": shorten(error.message), "fix": shorten(error.fix)}}
    return respond(body, error.status, error.headers)


def shorten(message: str) -> str:
    """A message without the rest of what was sent, where it repeats much of it."""
    return message if len(message) <= LONGEST_MESSAGE else f"{message[: LONGEST_MESSAGE - 1]}…"


def unforeseen(error: Exception, kept: str = "nothing is kept of this") -> HTTPError:
    """A full disk, by its name and with what is kept; of all else that it is in the log."""
    is_full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    if is_full or (isinstance(error, sqlite3.Error) and "disk is full" in str(error)):
        fix = "free some space and send it again; no restart is needed"
        return HTTPError(507, "disk_full", f"there is no space left on the service's disk: {kept}", fix)
    return HTTPError(500, "internal", "something broke; it is in the service's log", "try again")


def tell(warnings: Iterable[str]) -> list[str]:
    """Warnings as an answer holds them: each once, and none too long."""
    return list(dict.fromkeys(map(shorten, warnings)))


def split_fix(message: str) -> tuple[str, str]:
    """A sentence of ours, and the fix at its end."""
    problem, _, fix = message.partition(" Fix: ")
    return problem, fix


async def read_body(request: Request, most: int = BODY) -> bytes:
    """The body, if it is no longer than it may be."""
    parts, size = [], 0
    try:
        async for part in request.stream():
            size += len(part)
            if size > most:
                raise HTTPError(413, "too_large", f"the body is longer than {most:,} bytes", "send less at once")
            parts.append(part)
    except ClientDisconnect:
        raise HTTPError(400, "cut_off", "the body was cut off", "send it again") from None
    return b"".join(parts)


def parse(body: bytes) -> Any:
    """JSON; an HTTPError for anything else."""
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise HTTPError(400, "bad_json", f"the body is no JSON: {error}", "send a JSON object, in UTF-8") from None


def parse_object(body: bytes) -> dict[str, Any]:
    found = parse(body)
    if not isinstance(found, dict):
        raise HTTPError(400, "bad_json", f"the body is a {type(found).__name__}, not an object", "send a JSON object")
    return found


def search_request(given: Mapping[str, Any]) -> tuple[SearchRequest, list[str] | None]:
    """What is asked, of a query string's or a body's parameters, and the fields of products to answer with (None: all).

    Numbers and truths may be written as texts, lists with commas between.
    """
    check_known(given, "q", "fields", *{field.name for field in fields(SearchRequest)} - {"query"})
    query = _text(given, "q")
    if len(query) > LONGEST_QUERY:
        raise _bad("too_long", f"q has {len(query):,} characters", f"send {LONGEST_QUERY:,} at most")
    value, fit = given.get("value"), given.get("fit")
    request = SearchRequest(
        query=query,
        limit=whole(given, "limit", 10),
        offset=whole(given, "offset", 0),
        filter=_text(given, "filter"),
        facets=tuple(_names(given, "facets")),
        sort=_text(given, "sort"),
        distinct=_text(given, "distinct"),
        explain=truth(given, "explain"),
        value=None if value in (None, "") else _number("value", value),
        fit=None if fit in (None, "") else _number("fit", fit),
    )
    return request, _names(given, "fields") if "fields" in given else None


def check_known(given: Mapping[str, Any], *known: str) -> None:
    """An HTTPError for a parameter of another name."""
    unknown = sorted(set(given) - set(known))
    if unknown:
        fix = f"choose from {', '.join(sorted(known))}" if known else "leave it out: this address takes none"
        raise _bad("unknown_parameter", f"there is no parameter {unknown[0]!r:.60}", fix)


def _bad(code: str, message: str, fix: str) -> HTTPError:
    return HTTPError(400, code, message, fix)


def _text(given: Mapping[str, Any], name: str) -> str:
    value = given.get(name, "")
    if not isinstance(value, str):
        raise _bad("bad_parameter", f"{name} is {value!r:.60}", "write a text")
    return value


def whole(given: Mapping[str, Any], name: str, default: int) -> int:
    """A parameter that is a number from 0; an HTTPError for any other."""
    value = given.get(name, default)
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 10:
        value = int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # JSON knows no whole numbers: 10.0 is one
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 10**9:
        raise _bad("bad_parameter", f"{name} is {value!r:.60}", f"write a whole number from 0 to {DEEPEST}")
    return value


def _number(name: str, value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        number = float("nan")
    if isinstance(value, bool) or not abs(number) < 1e9:
        raise _bad("bad_parameter", f"{name} is {value!r:.60}", "write a number such as 0.5")
    return number


def truth(given: Mapping[str, Any], name: str) -> bool:
    """A parameter that is true or false, false where it is not given."""
    value = given.get(name, False)
    if isinstance(value, str):
        value = {"": False, "0": False, "false": False, "1": True, "true": True}.get(value.lower(), value)
    if not isinstance(value, bool):
        raise _bad("bad_parameter", f"{name} is {value!r:.60}", "write true or false")
    return value


def _names(given: Mapping[str, Any], name: str) -> list[str]:
    value = given.get(name, "")
    names = value.split(",") if isinstance(value, str) else value
    if not isinstance(names, list) or len(names) > MOST_NAMES or not all(isinstance(n, str) for n in names):
        raise _bad(
            "bad_parameter", f"{name} is {value!r:.60}", f"write names with commas between, {MOST_NAMES} at most"
        )
    return [n.strip() for n in names if n.strip()]


def product_json(product: Product, only: Iterable[str] | None = None) -> dict[str, Any]:
    """A product's fields, empty ones left out; attributes beside the others, a list where there are several values.

    Those that are named as a field is stand in a map of their own, `attributes`.
    """
    found: dict[str, Any] = {"product_id": product.product_id, "title": product.title}
    filled = {
        "brand": product.brand,
        "category": " > ".join(product.category),
        "description": product.description,
        "price": product.price,
        "value": product.value,
    }
    found |= {name: value for name, value in filled.items() if value not in ("", None)}
    attributes = {name: values[0] if len(values) == 1 else list(values) for name, values in product.attributes.items()}
    found |= {name: value for name, value in attributes.items() if name not in Product._fields}
    if inner := {name: value for name, value in attributes.items() if name in Product._fields}:
        found["attributes"] = inner
    if only is not None:
        kept = {"product_id", "title", *only}
        found = {name: value for name, value in found.items() if name in kept}
    return found


def hit_json(hit: Hit, product: Product | None, only: Iterable[str] | None, explain: bool) -> dict[str, Any]:
    """A hit as the contract has it."""
    shown: dict[str, Any] = {"product_id": hit.product_id, "title": hit.title}
    if product is not None:
        shown = product_json(product, only)
    for name in ("score", "fits"):
        if name in shown:  # an attribute of this name
            shown["attributes"] = shown.get("attributes", {}) | {name: shown[name]}
    shown |= {"score": round(hit.score, 5), "fits": hit.fits is not False}
    if explain:
        shown["codes"] = [
            {
                "code": code_text(shared.code),
                "share": round(shared.share, 5),
                "query": shared.query_source,
                "product": shared.product_source,
            }
            | ({} if shared.near_to is None else {"near": str(shared.near_to)})
            for shared in hit.codes
        ]
        shown["features"] = {name: round(part, 5) for name, part in hit.features.items()}
    return shown


def result_json(
    result: SearchResult, hits: list[dict[str, Any]], warnings: Iterable[str], took_ms: float
) -> dict[str, Any]:
    """A search's answer as the contract has it."""
    answer: dict[str, Any] = {
        "hits": hits,
        "found": result.found,
        "facets": {name: found["values"] for name, found in result.facets.items()},
        "ranges": {name: found["ranges"] for name, found in result.facets.items() if "ranges" in found},
        "refinements": [refinement._asdict() for refinement in result.refinements],
        "query": {
            "read_as": result.read_as,
            "codes": [{"code": code, "source": source, "weight": weight} for code, source, weight in result.codes],
        },
        "rules": result.rules,
        "warnings": tell(warnings),
        "took_ms": round(took_ms, 3),
    }
    if result.redirect:
        answer["redirect"] = result.redirect
    return answer
