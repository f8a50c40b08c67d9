"""bm25s behind the same server as `gram serve`, to load both alike.

    python scripts/serve_bm25.py PRODUCTS --port 8001
    python scripts/load_test.py http://127.0.0.1:8001 QUERIES.tsv --clients 16 --updates 0 --seconds 25

It answers GET /search?q=…&limit=… with ids, titles and scores, from as many threads, and nothing else: no typos read
right, no filters, no facets, no updates, no keys.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

import anyio
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gram.baselines.bm25 import BM25
from gram.data.catalogue import read_products


def make_app(products: Path) -> Starlette:
    """The application, on titles and brands."""
    engine = BM25(read_products(products, progress=True), fields=("title", "brand"))
    turns: list[anyio.CapacityLimiter] = []

    def answer(query: str, limit: int) -> bytes:
        hits = [{"product_id": h.product_id, "score": h.score, "title": h.title} for h in engine.search(query, limit)]
        return json.dumps({"hits": hits}, ensure_ascii=False).encode()

    async def search(request: Request) -> Response:
        if not turns:
            turns.append(anyio.CapacityLimiter(max(2, os.cpu_count() or 1)))
        asked = request.query_params
        task = answer, asked.get("q", ""), int(asked.get("limit", 10))
        return Response(await anyio.to_thread.run_sync(*task, limiter=turns[0]), media_type="application/json")

    return Starlette(routes=[Route("/search", search)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("products", type=Path)
    parser.add_argument("--port", type=int, default=8001)
    given = parser.parse_args()
    uvicorn.run(make_app(given.products), host="127.0.0.1", port=given.port, log_level="warning", access_log=False)


if __name__ == "__main__":
    main()
