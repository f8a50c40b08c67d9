"""Clicks and purchases as they are sent."""

from __future__ import annotations

from typing import Any

from gram.data.files import one_line
from gram.index.store import Click
from gram.serve.bodies import HTTPError

CLICKED = ("click", "purchase")
CLICKS = 1_000
"""At once, at most."""
LONGEST = 2_000
"""Characters of a click's texts."""


def read_clicks(given: Any) -> list[Click]:
    """The clicks of a body, which is one or a list of them. Raises HTTPError for what is none."""
    rows = given if isinstance(given, list) else [given]
    if len(rows) > CLICKS:
        raise HTTPError(413, "too_many", f"{len(rows)} clicks at once", f"send {CLICKS} at most")
    return [_click(row) for row in rows]


def _click(row: Any) -> Click:
    fix = 'send {"query": "sofa", "product_id": "a1"}'
    if not isinstance(row, dict):
        raise HTTPError(400, "bad_click", f"a click is a {type(row).__name__}, not an object", fix)
    texts = {name: row.get(name, "") for name in ("query", "product_id", "user_id", "timestamp")}
    kind, weight = row.get("kind", "click"), row.get("weight", 1.0)
    if not all(isinstance(text, str) and len(text) <= LONGEST for text in texts.values()) or kind not in CLICKED:
        raise HTTPError(400, "bad_click", "a click has texts, and is of the kind click or purchase", fix)
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 < weight < 1e6:
        raise HTTPError(400, "bad_click", "a click's weight is a number above 0", fix)
    texts = {name: one_line(text) for name, text in texts.items()}
    if not texts["query"] or not texts["product_id"]:
        raise HTTPError(400, "bad_click", "a click needs a query and a product_id", fix)
    return Click(texts["query"], texts["product_id"], kind, float(weight), texts["user_id"], texts["timestamp"])
