"""Loads a running service: clients search, while products are updated.

    python scripts/load_test.py http://127.0.0.1:8000 QUERIES.tsv --clients 16 --updates 20 --seconds 30

Queries are drawn by frequency as in a log (a Zipf law over the file's order). The service must be on this machine. It
prints searches a second, p50 and p99, first without and then with updates, the same of the updates, and answers that
are no success.

    python scripts/load_test.py http://127.0.0.1:8000 QUERIES.tsv --clients 4 --read-after-write 10000

While clients search, products are put one after another by each of `WRITERS` threads, and each is searched by its title
and by a filter once its PUT is answered, every time on a connection of its own. It prints how many were missed.
"""

from __future__ import annotations

import argparse
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlparse

import httpx
import numpy as np

from gram.data.log import read_queries
from gram.serve.run import is_loopback

IN_FLIGHT = 64
"""Updates that wait for their answer, at most."""
WRITERS = 8
"""Threads that read what they wrote."""


def client(
    address: str, queries: list[str], ended: Callable[[], bool], seed: int, took: list[float], failed: list[int]
) -> None:
    """Searches until it has ended; adds milliseconds to `took` and statuses that are no success to `failed`."""
    rng = np.random.default_rng(seed)
    chance = 1 / np.arange(1, len(queries) + 1)
    chance /= chance.sum()
    with httpx.Client(base_url=address, timeout=60) as http:
        while not ended():
            query = queries[int(rng.choice(len(queries), p=chance))]
            begin = time.perf_counter()
            status = http.get("/search", params={"q": query, "limit": 10}).status_code
            took.append((time.perf_counter() - begin) * 1000)
            if status != 200:
                failed.append(status)


def updater(address: str, rate: float, seconds: float, took: list[float], failed: list[int]) -> None:
    """Puts `rate` products a second, whether the ones before are answered or not, with `IN_FLIGHT` unanswered at most.

    Adds to `took` the milliseconds from when each was due to its answer.
    """
    begin = time.monotonic()

    def put(number: int) -> None:
        body = {"title": f"Load test lamp number {number}", "price": number % 100}
        status = http.put(f"/products/load-{number % 500}", json=body).status_code
        took.append((time.monotonic() - begin - number / rate) * 1000)
        if status not in (200, 201):
            failed.append(status)

    with httpx.Client(base_url=address, timeout=60) as http, ThreadPoolExecutor(IN_FLIGHT) as pool:
        free, sent = threading.Semaphore(IN_FLIGHT), []
        for number in range(int(rate * seconds)):
            time.sleep(max(0.0, begin + number / rate - time.monotonic()))
            free.acquire()
            if time.monotonic() - begin >= seconds:
                break
            sent.append(pool.submit(put, number))
            sent[-1].add_done_callback(lambda _: free.release())
        for one in sent:
            one.result()  # what was raised is told


def measure(address: str, queries: list[str], clients: int, rate: float, seconds: float) -> None:
    """One run: prints what it gave."""
    took: list[float] = []
    updates: list[float] = []
    failed: list[int] = []
    end = time.monotonic() + seconds
    threads = [
        threading.Thread(target=client, args=(address, queries, lambda: time.monotonic() >= end, seed, took, failed))
        for seed in range(clients)
    ]
    threads.append(threading.Thread(target=updater, args=(address, rate, seconds, updates, failed)))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    begun = end - seconds
    print(f"{describe('searches', took, seconds)}; errors {failed}")
    if rate:
        print(f"  {rate:g} updates/s asked: {describe('updates', updates, time.monotonic() - begun)}")


def write_and_read(address: str, numbers: range, missed: list[str], failed: list[int]) -> None:
    """Puts a product for each number and looks for it; adds what is not found to `missed`, and statuses that are no
    success to `failed`."""
    with httpx.Client(base_url=address, timeout=60, limits=httpx.Limits(max_keepalive_connections=0)) as http:
        for number in numbers:
            key, word, price = f"raw-{number % 400}", f"Quorvex{number}", 1_000_000 + number
            put = http.put(f"/products/{key}", json={"title": f"{word} lamp", "price": price})
            searches = [{"q": word.lower(), "limit": 1}, {"filter": f"price = {price}"}]
            answers = [put, *(http.get("/search", params=asked) for asked in searches)]
            failed += [answer.status_code for answer in answers if answer.status_code not in (200, 201)]
            for asked, answer in zip(searches, answers[1:], strict=True):
                if answer.status_code == 200 and [hit["product_id"] for hit in answer.json()["hits"]] != [key]:
                    missed.append(f"{key}: {asked}")


def measure_visibility(address: str, queries: list[str], clients: int, times: int) -> None:
    """Writes and reads that many times while clients search: prints how many reads missed what was written before."""
    took: list[float] = []
    missed: list[str] = []
    failed: list[int] = []
    begin, ended = time.monotonic(), threading.Event()
    with ThreadPoolExecutor(clients + WRITERS) as pool:
        parts = (range(part, times, WRITERS) for part in range(WRITERS))
        writers = [pool.submit(write_and_read, address, part, missed, failed) for part in parts]
        for seed in range(clients):
            pool.submit(client, address, queries, ended.is_set, seed, took, failed)
        try:
            for writer in writers:
                writer.result()
        finally:
            ended.set()
    seconds = time.monotonic() - begin
    print(f"{times} written and each read twice in {seconds:.0f} s: {len(missed)} missed {missed[:5]}; errors {failed}")
    print(f"  meanwhile {describe('searches', took, seconds)}")


def describe(what: str, took: list[float], seconds: float) -> str:
    """How many a second were answered, and in how many milliseconds."""
    p50, p99 = np.percentile(took or [0], [50, 99])
    return f"{len(took) / seconds:.1f} {what}/s, p50 {p50:.1f} ms, p99 {p99:.1f} ms"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("address")
    parser.add_argument("queries", type=Path)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--updates", type=float, default=20)
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--read-after-write", type=int, metavar="TIMES")
    given = parser.parse_args()
    if not is_loopback(urlparse(given.address).hostname or ""):
        parser.error("the service must be on this machine")
    queries = list(read_queries(given.queries).values())
    if given.read_after_write:
        measure_visibility(given.address, queries, given.clients, given.read_after_write)
        return
    for rate in (0.0, given.updates):
        measure(given.address, queries, given.clients, rate, given.seconds)


if __name__ == "__main__":
    main()
