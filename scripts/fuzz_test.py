"""Sends a running service what no one should send it, and looks at every answer.

    python scripts/fuzz_test.py http://127.0.0.1:8000 QUERIES.tsv --requests 1000000 [--key KEY] [--index INDEX]

The requests are those of `fuzz_requests.py`, drawn by the seed: searches, filters, suggestions, products, rules, codes,
clicks, and what is no HTTP. They change the shop, so give it one of its own, on this machine. With the index
that it serves, `--index`, this is merged in each tenth beside the requests, and with `--key` a key is made and removed
as well. An answer is at fault with a status of 5xx
(but for 503 with Retry-After), JSON that is none, an error not in the form of docs/http.md, a redirect, a script of the
request in HTML, a header that it injected, a file that is not the page's; or with another status than 200 where
whatever is asked is answered. A connection that ends without an answer is a fault too, and a crash where /health does
not answer then. It prints the service's memory (resident, by its /metrics) at each tenth, at the end how many requests
of each kind had which status, why connections ended, and the first faults with their requests. It exits with 1 for a
fault, and where memory grew by more than a tenth after the warm-up: a tenth of the requests, and at least 2,000.

    python scripts/fuzz_test.py http://127.0.0.1:8000 QUERIES.tsv --seed 0 --only 4711

sends one of them alone, and prints it and its answer.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
from fuzz_draws import Request
from fuzz_requests import draw_request
from fuzz_wire import PATIENCE, Answer, Connection

from gram.data.log import read_queries
from gram.serve.run import is_loopback

WARM = 2_000
"""Requests, at least, before memory counts."""
GROWTH = 1.1
"""How many times the memory after the warm-up is too much."""
SLOW = 10.0
"""Seconds after which an answer is told as slow."""
UNFINISHED = 0.5
"""Seconds to wait for an answer to what is no HTTP: the service may wait for more of it."""
SETTLED = 2.0
"""Seconds after which memory is read: a second after a change the service gives back what it does not need."""
UNREAD = 64_000
"""Bytes of a body from which on an answer may be lost: the service closes the connection with the rest unread."""
TOLD, SHOWN = 20, 600
"""Faults that are printed, and bytes of each one's request."""


@dataclass
class Tally:
    """What came back: of each kind how many requests had which class of statuses, why connections ended, what was told
    with a 503, and by their numbers the requests at fault and the slow ones. Safe to use from many threads."""

    classes: defaultdict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    ended: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    faults: dict[int, str] = field(default_factory=dict)
    slow: dict[int, float] = field(default_factory=dict)
    seconds: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))  # that a kind took in all
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def note(self, number: int, kind: str, what: str, fault: str = "", seconds: float = 0.0) -> None:
        """`what` came of a request: a class of statuses, or another word where there was no answer."""
        with self._lock:
            self.classes[kind][what] += 1
            self.seconds[kind] += seconds
            if fault:
                self.faults[number] = fault
            if seconds > SLOW:
                self.slow[number] = seconds

    def note_end(self, why: str) -> None:
        with self._lock:
            self.ended[why] += 1

    def note_refusal(self, code: str) -> None:
        with self._lock:
            self.refused[code] += 1


@dataclass
class Fuzzer:
    """Sends the requests of a seed to one address, and notes what came back."""

    host: str
    port: int
    queries: Sequence[str]
    seed: int = 0
    key: str = ""
    tally: Tally = field(default_factory=Tally)

    def written(self, request: Request) -> bytes:
        """A request as it goes over the wire, but for what is `cut`."""
        named = {name.lower() for name, _ in request.headers}
        headers = list(request.headers)
        if "host" not in named:
            headers.insert(0, ("Host", f"{self.host}:{self.port}"))
        if self.key and "authorization" not in named:
            headers.append(("Authorization", f"Bearer {self.key}"))
        if request.body and not named & {"content-length", "transfer-encoding"}:
            headers.append(("Content-Length", str(len(request.body))))
        lines = [f"{request.method} {request.target} {request.version}", *(f"{n}: {v}" for n, v in headers), "", ""]
        return "\r\n".join(lines).encode("utf-8", "surrogatepass") + request.body

    def run(self, numbers: Iterable[int]) -> None:
        """Sends them one after another over one connection, a new one where it ended."""
        connection = Connection(self.host, self.port)
        for number in numbers:
            kind, request = draw_request(self.seed, number, self.queries)
            self._ask(connection, number, kind, request)
        connection.close()

    def _ask(self, connection: Connection, number: int, kind: str, request: Request) -> None:
        data, begin = self.written(request), time.perf_counter()
        if request.cut:
            with suppress(OSError):
                connection.send(data[: -request.cut])
            self._end(connection, "a body was cut off")
            self.tally.note(number, kind, "cut")
            return
        answer, problem = self._exchange(connection, data, request)
        seconds = time.perf_counter() - begin
        if answer is None:
            self.tally.note(number, kind, "none", self._without_answer(request, problem), seconds)
            return
        self.tally.note(number, kind, f"{answer.status // 100}xx", find_fault(request, answer), seconds)
        if answer.status in (429, 503):
            self.tally.note_refusal(answer.body.decode("utf-8", "replace")[:120])
        if request.broken:
            self._end(connection, "what is no HTTP was answered")
        elif answer.header(b"connection") == b"close":
            self._end(connection, "the service closed it with its answer")

    def _exchange(self, connection: Connection, data: bytes, request: Request) -> tuple[Answer | None, str]:
        """The answer; or None and why there is none. Sent again on a new connection where an old one ended."""
        while True:
            kept, problem = connection.kept, ""
            try:
                connection.send(data)
            except OSError as error:  # it may have answered before it read all
                problem = describe(error)
            try:
                patience = UNFINISHED if request.broken else PATIENCE
                return connection.receive(request.method == "HEAD", patience), ""
            except (OSError, ValueError) as error:
                problem = problem or describe(error)
                late = isinstance(error, TimeoutError)
            if not kept or late or request.broken:
                self._end(connection, f"no answer to {'what is no HTTP' if request.broken else 'a request'}: {problem}")
                return None, problem
            self._end(connection, "it was closed between two requests")

    def _without_answer(self, request: Request, problem: str) -> str:
        """The fault, if it is one: a body of some length may be left unread, and what is no HTTP unanswered."""
        if not self.is_there():
            return f"crash: {problem}, and then /health did not answer"
        return "" if request.broken or len(request.body) > UNREAD else problem

    def _end(self, connection: Connection, why: str) -> None:
        connection.close()
        self.tally.note_end(why)

    def ask(self, path: str) -> Answer:
        """Asks on a connection of its own."""
        connection = Connection(self.host, self.port)
        try:
            connection.send(self.written(Request("GET", path)))
            return connection.receive()
        finally:
            connection.close()

    def is_there(self) -> bool:
        try:
            return self.ask("/health").status == 200
        except OSError:
            return False

    def memory(self) -> float:
        """Bytes that the service holds, NaN where it does not say."""
        try:
            found = re.search(rb"^process_resident_memory_bytes (\S+)", self.ask("/metrics").body, re.MULTILINE)
        except OSError:
            found = None
        return float(found[1]) if found else float("nan")


def describe(error: Exception) -> str:
    """Why there was no answer."""
    return "no answer in time" if isinstance(error, TimeoutError) else str(error).partition("] ")[2] or str(error)


def find_fault(request: Request, answer: Answer) -> str:
    """What is wrong with an answer; nothing, most often."""
    status, head, body = answer
    busy = status in (429, 503) and bool(answer.header(b"retry-after"))
    if status >= 500 and not busy:
        return f"status {status}"
    if 300 <= status < 400 and status != 304:
        return f"status {status}, which leads to {answer.header(b'location')!r}"
    if request.status and status != request.status and not busy:
        return f"status {status} where {request.status} belongs"
    if b"\r\nx-injected" in head:
        return "a header of the request's"
    if b"root:x:" in body or b"import annotations" in body:
        return "a file that is not the page's"
    media = answer.header(b"content-type").partition(b";")[0]
    if request.broken and status == 400 and media == b"text/plain":
        return ""
    if answer.header(b"x-content-type-options") != b"nosniff" or b"default-src 'none'" not in head:
        return "without the headers of every answer"
    if media == b"text/html" and b"alert(1)" in body:
        return "a script of the request in HTML"
    return "" if request.method == "HEAD" else find_fault_of_body(status, media, body)


def find_fault_of_body(status: int, media: bytes, body: bytes) -> str:
    """What is wrong with JSON, and with an error, which always is that."""
    if media != b"application/json":
        return f"an error in {media.decode()}" if status >= 400 else ""
    try:
        told = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        return f"no JSON: {error}"
    if status < 400:
        return ""
    inner = told.get("error") if isinstance(told, dict) and len(told) == 1 else None
    texts = [inner.get(name) for name in ("code", "message", "fix")] if isinstance(inner, dict) else []
    return "" if len(texts) == len(inner or ()) == 3 and all(texts) else "an error in another form"


def shown(data: bytes) -> str:
    """The begin of some bytes, for a person."""
    return repr(data[:SHOWN])[2:-1] + (f"… ({len(data):,} bytes)" if len(data) > SHOWN else "")


def report(fuzzer: Fuzzer, begun: float, used: float, requests: int) -> None:
    """Prints what came back."""
    tally, seconds = fuzzer.tally, time.monotonic() - begun
    columns = sorted({name for counts in tally.classes.values() for name in counts})
    print(f"\n{'':18}" + "".join(f"{name:>9}" for name in (*columns, "ms")))
    for kind, counts in sorted(tally.classes.items()):
        mean = 1000 * tally.seconds[kind] / counts.total()
        print(f"{kind:18}" + "".join(f"{counts[name] or '':>9}" for name in columns) + f"{mean:9.1f}")
    print(f"{requests / seconds:.0f} requests/s; the fuzzer itself took {used / seconds:.0%} of a core")
    for name, told in (("connections ended", tally.ended), ("refused", tally.refused)):
        for why, times in told.most_common():
            print(f"{name}: {times} times: {why}")
    for number, took in sorted(tally.slow.items())[:TOLD]:
        print(f"slow, {took:.1f} s: --only {number}: {shown(fuzzer.written(request_of(fuzzer, number)))}")
    print(f"{len(tally.faults)} faults")
    for number, fault in sorted(tally.faults.items())[:TOLD]:
        print(f"fault: {fault}: --only {number}: {shown(fuzzer.written(request_of(fuzzer, number)))}")


def request_of(fuzzer: Fuzzer, number: int) -> Request:
    return draw_request(fuzzer.seed, number, fuzzer.queries)[1]


def change_beside(index: Path, keyed: bool) -> None:
    """Merges an index while it is served, and with keys makes one and removes it; RuntimeError where one fails. The
    service merges too, and whoever is behind leaves what is there."""
    keys = [["keys", str(index), "add", "fuzz"], ["keys", str(index), "remove", "fuzz"]] if keyed else []
    for given in (["merge", str(index)], *keys):
        done = subprocess.run([sys.executable, "-m", "gram.cli", *given], capture_output=True, text=True, check=False)
        if done.returncode and "was written anew while it was merged" not in done.stderr:
            raise RuntimeError(f"gram {' '.join(given)}: {done.stderr}")


def fuzz(fuzzer: Fuzzer, requests: int, clients: int, index: Path | None = None) -> bool:
    """Sends that many requests, a tenth after another, while an index that is named is merged; whether all is well."""
    begun, used = time.monotonic(), time.process_time()
    warm = now = float("nan")
    for tenth in range(10):
        begin, end = requests * tenth // 10, requests * (tenth + 1) // 10
        with ThreadPoolExecutor(clients + 1) as pool:
            beside = [] if index is None else [pool.submit(change_beside, index, bool(fuzzer.key))]
            for sent in [*beside, *(pool.submit(fuzzer.run, range(begin + n, end, clients)) for n in range(clients))]:
                sent.result()  # what was raised is told
        time.sleep(SETTLED if end >= WARM else 0)
        now = fuzzer.memory()
        if warm != warm and end >= WARM:
            warm = now
        rate = end / (time.monotonic() - begun)
        print(f"{end:,} requests, {rate:.0f}/s: {now / 1e6:.1f} MB, {len(fuzzer.tally.faults)} faults", flush=True)
    report(fuzzer, begun, time.process_time() - used, requests)
    if now != now or warm != warm:
        print(f"memory: not judged, of fewer than {WARM:,} requests or a service that does not tell it")
        return not fuzzer.tally.faults
    print(f"memory: {warm / 1e6:.1f} MB after the warm-up, {now / 1e6:.1f} MB at the end ({now / warm - 1:+.1%})")
    return not fuzzer.tally.faults and now <= warm * GROWTH


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("address")
    parser.add_argument("queries", type=Path)
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--key", default="")
    parser.add_argument("--index", type=Path)
    parser.add_argument("--only", type=int, metavar="NUMBER")
    given = parser.parse_args()
    named = urlsplit(given.address)
    host = named.hostname or ""
    if not is_loopback(host):
        parser.error("the service must be on this machine")
    queries = list(read_queries(given.queries).values())
    fuzzer = Fuzzer(host, named.port or 80, queries, given.seed, given.key)
    print(f"seed {given.seed}")
    if given.only is None:
        sys.exit(not fuzz(fuzzer, given.requests, given.clients, given.index))
    request = request_of(fuzzer, given.only)
    print(shown(fuzzer.written(request)))
    connection = Connection(fuzzer.host, fuzzer.port)
    connection.send(fuzzer.written(request))
    answer = connection.receive(request.method == "HEAD")
    print(shown(answer.head), shown(answer.body), find_fault(request, answer), sep="\n")


if __name__ == "__main__":
    main()
