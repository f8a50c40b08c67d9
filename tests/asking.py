"""What tests ask of a shop, and of what a service answers."""

from __future__ import annotations

from typing import Any

from gram.shop import Shop

PATIENCE = 120
"""Seconds for a process to begin or to end, and for an answer, on a busy machine."""


def ids(shop: Shop, query: str, **options: object) -> list[str]:
    return [hit.product_id for hit in shop.search(query, **options).hits]


def error_of(response: Any, status: int) -> dict[str, str]:
    assert response.status_code == status, response.text
    error: dict[str, str] = response.json()["error"]
    assert set(error) == {"code", "message", "fix"}
    return error
