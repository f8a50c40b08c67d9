"""Loads a running service: clients search, while products are updated.

    python scripts/load_test.py http://127.0.0.1:8000 QUERIES.tsv --clients 16 --updates 20 --seconds 30

Queries are drawn by frequency as in a log (a Zipf law over the file's order). The service must be on this machine. It
prints searches a second, p50 and p99, first without and then with updates, and counts answers that are no success.
"""

from __future__ import annotations

import argparse
import threading
import time
from pathlib import Path
from urllib.parse import urlparse

import httpx
import numpy as np

from gram.data.log import read_queries


def client(address: str, queries: list[str], end: float, seed: int, took: list[float], failed: list[int]) -> None:
    """Searches until the end; adds milliseconds to `took` and statuses that are no success to `failed`."""
    rng = np.random.default_rng(seed)
    chance = 1 / np.arange(1, len(queries) + 1)
    chance /= chance.sum()
    with httpx.Client(base_url=address, timeout=60) as http:
        while time.monotonic() < end:
            query = queries[int(rng.choice(len(queries), p=chance))]
            begin = time.perf_counter()
            status = http.get("/search", params={"q": query, "limit": 10}).status_code
            took.append((time.perf_counter() - begin) * 1000)
            if status != 200:
                failed.append(status)


def updater(address: str, rate: float, end: float, failed: list[int]) -> None:
    """Puts `rate` products a second until the end."""
    number = 0
    with httpx.Client(base_url=address, timeout=60) as http:
        while rate and time.monotonic() < end:
            begin = time.monotonic()
            body = {"title": f"Load test lamp number {number}", "price": number % 100}
            status = http.put(f"/products/load-{number % 500}", json=body).status_code
            if status not in (200, 201):
                failed.append(status)
            number += 1
            time.sleep(max(0.0, 1 / rate - (time.monotonic() - begin)))
    print(f"{number} updates")


def measure(address: str, queries: list[str], clients: int, rate: float, seconds: float) -> None:
    """One run: prints what it gave."""
    took: list[float] = []
    failed: list[int] = []
    end = time.monotonic() + seconds
    threads = [
        threading.Thread(target=client, args=(address, queries, end, seed, took, failed)) for seed in range(clients)
    ]
    threads.append(threading.Thread(target=updater, args=(address, rate, end, failed)))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    p50, p99 = np.percentile(took, [50, 99])
    print(
        f"{rate:g} updates/s: {len(took) / seconds:.1f} searches/s, p50 {p50:.1f} ms, p99 {p99:.1f} ms, errors {failed}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("address")
    parser.add_argument("queries", type=Path)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--updates", type=float, default=20)
    parser.add_argument("--seconds", type=float, default=30)
    given = parser.parse_args()
    if urlparse(given.address).hostname not in ("127.0.0.1", "localhost", "::1"):
        parser.error("the service must be on this machine")
    queries = list(read_queries(given.queries).values())
    for rate in (0.0, given.updates):
        measure(given.address, queries, given.clients, rate, given.seconds)


if __name__ == "__main__":
    main()
