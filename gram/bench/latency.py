"""How long one query takes: a fresh process with one thread, so that no engine gains from another's or from more cores.

Run by the benchmark as `python -m gram.bench.latency FOLDER NAME`; prints the figures as JSON.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from gram.bench.rows import ENTRANTS
from gram.bench.workshop import open_workshop
from gram.errors import GramError

HITS = 100
TIMED, WARM_UP = 200, 20
QUICK_TIMED = 30

_ONE = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS", "RAYON_NUM_THREADS")


def latency(folder: Path, name: str) -> dict[str, float]:
    """p50 and p99 in milliseconds of one query to 100 hits, of the engine `name` in a benchmark's folder."""
    alone = {"CUDA_VISIBLE_DEVICES": "", "TOKENIZERS_PARALLELISM": "false"}
    environment = os.environ | dict.fromkeys(_ONE, "1") | alone
    command = [sys.executable, "-m", "gram.bench.latency", str(folder), name]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise GramError(f"timing {name} failed:\n{done.stderr.strip()}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def measure(folder: Path, name: str) -> dict[str, float]:
    """The same, in this process and with the threads that it has.

    Queries are searched one by one through `search_many`: looking up titles is no engine's own cost.
    """
    shop, queries = open_workshop(folder, ENTRANTS)
    timed = QUICK_TIMED if shop.options.quick else TIMED
    order = np.random.default_rng(shop.options.seed).permutation(len(queries))
    texts = [list(queries.values())[i] for i in np.resize(order, timed + WARM_UP)]
    engine = shop.engine(name)
    for query in texts[:WARM_UP]:
        engine.search_many({"": query}, HITS)
    times = []
    for query in texts[WARM_UP:]:
        begin = time.perf_counter()
        engine.search_many({"": query}, HITS)
        times.append(1000 * (time.perf_counter() - begin))
    p50, p99 = np.percentile(times, (50, 99))
    return {"p50_ms": round(float(p50), 3), "p99_ms": round(float(p99), 3)}


if __name__ == "__main__":
    print(json.dumps(measure(Path(sys.argv[1]), sys.argv[2])))
