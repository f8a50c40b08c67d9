"""The endpoints that read: /search, /suggest, /codes, /vector, /rules/try."""

from __future__ import annotations

import time
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from gram.answer import SearchRequest, SearchResult
from gram.names import OF_A_HIT, warn_of_fields
from gram.rules import in_force, parse_rule
from gram.serve.bodies import (
    HTTPError,
    hit_json,
    parse_object,
    read_body,
    respond,
    result_json,
    search_request,
    tell,
    whole,
)
from gram.serve.service import Service
from gram.serve.suggestions import Suggestions


class Searching:
    """Answers searches on the service's shop."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self._suggestions = Suggestions(service.shop)

    async def search(self, request: Request) -> Response:
        posted = request.method == "POST"
        given = parse_object(await read_body(request)) if posted else dict(request.query_params)
        sought, fields = search_request(given)
        typing = "x-typing" in request.headers  # half a word is no query to count
        return respond(await self.service.work(lambda: self._answer(sought, fields, not typing)))

    def _answer(self, sought: SearchRequest, fields: list[str] | None, counted: bool) -> dict[str, Any]:
        begin = time.perf_counter()
        result = self.service.shop.search(sought)
        took = (time.perf_counter() - begin) * 1000
        if counted and not sought.offset:
            found = result.found or int(bool(sought.filter))  # what a filter leaves is no fault of the query
            self.service.statistics.note_search(sought.query.strip(), found, took)
        return self._shown(result, fields, sought.explain, took)

    def _shown(self, result: SearchResult, fields: list[str] | None, explain: bool, took: float) -> dict[str, Any]:
        shop = self.service.shop
        hits = [hit_json(hit, shop.product(hit.product_id), fields, explain) for hit in result.hits]
        unknown = warn_of_fields(shop.live.snapshot, fields or (), OF_A_HIT)
        return result_json(result, hits, [*result.warnings, *unknown], took)

    async def try_rules(self, request: Request) -> Response:
        """A query before and after some rules, which are not kept: side by side."""
        given = parse_object(await read_body(request))
        data, query = given.get("rules"), given.get("q", "")
        if not isinstance(data, list) or not data or not isinstance(query, str):
            fix = 'send {"q": "sofa", "rules": [{"action": …}]}'
            raise HTTPError(400, "bad_rules", "there are no rules to try on a query", fix)
        names = [str(d.get("id", f"draft-{n}")) if isinstance(d, dict) else "" for n, d in enumerate(data)]
        bare = [{k: v for k, v in d.items() if k != "id"} if isinstance(d, dict) else d for d in data]
        tried = [parse_rule(name, one) for name, one in zip(names, bare, strict=True)]
        kept = [rule for rule in in_force(self.service.shop.rules()) if rule.rule_id not in names]
        sought, fields = search_request({"q": query, "limit": given.get("limit", 10)})

        def both() -> dict[str, Any]:
            shop = self.service.shop
            before, after = shop.search(sought), shop.search(sought, rules=[*kept, *tried])
            shown = {name: self._shown(r, fields, False, 0) for name, r in (("before", before), ("after", after))}
            return shown | {"warnings": tell(warning for rule in tried for warning in shop.warnings(rule))}

        return respond(await self.service.work(both))

    async def suggest(self, request: Request) -> Response:
        """Completions of what is typed: queries that were clicked for, attributes, brands and titles; typos are
        forgiven."""
        typed = request.query_params.get("q", "").strip()[:100]
        found = await self.service.work(lambda: self._suggestions.complete(typed)) if typed else []
        return respond({"suggestions": [{"text": text, "weight": round(weight, 3)} for text, weight in found]})

    async def codes(self, request: Request) -> Response:
        """The codes that there are, those of most products first."""
        given = request.query_params
        slot, prefix = given.get("slot", ""), given.get("prefix", "")
        limit, offset = whole(given, "limit", 100), whole(given, "offset", 0)
        found = await self.service.work(lambda: self.service.shop.list_codes(slot, prefix, limit, offset))
        codes = [{"code": str(code), "products": products} for code, products in found.codes]
        return respond({"codes": codes, "found": found.found, "slots": found.slots})

    async def vector(self, request: Request) -> Response:
        """A query's codes as a sparse vector, for an engine that holds the products' own."""
        given = request.query_params
        query, form = given.get("q", ""), given.get("form", "names")
        return respond(await self.service.work(lambda: self.service.shop.vector(query, form)))
