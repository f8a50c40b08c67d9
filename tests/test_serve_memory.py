"""Memory that is freed goes back to the system."""

from __future__ import annotations

import re
import subprocess
import sys
from textwrap import dedent
from types import SimpleNamespace
from typing import Any, cast

import pytest

from gram.coder.memory import ARENAS
from gram.serve.run import _watch


@pytest.mark.skipif(sys.platform != "linux", reason="of glibc, and reads /proc")
def test_memory_that_threads_freed_can_be_given_back() -> None:
    code = """
        import threading
        from pathlib import Path
        import numpy as np
        from gram.coder.memory import give_memory_back
        def resident():
            return int(Path("/proc/self/statm").read_text().split()[1]) * 4096
        kept = []
        def use():
            np.ones(30_000_000, np.uint8)
            for _ in range(20):
                large = []
                for _ in range(10):
                    large.append(np.ones(4_000_000, np.uint8))
                    kept.append(bytearray(10_000))  # between them: what is freed is then not at the end
        before = resident()
        for _ in range(3):
            thread = threading.Thread(target=use)
            thread.start()
            thread.join()
        kept_by_itself = resident() - before
        give_memory_back()
        print(kept_by_itself, resident() - before)
    """
    done = subprocess.run([sys.executable, "-c", dedent(code)], capture_output=True, text=True, check=True)
    by_itself, left = map(int, done.stdout.split())
    assert left < 30_000_000 < 60_000_000 < by_itself


@pytest.mark.skipif(sys.platform != "linux", reason="of glibc")
@pytest.mark.parametrize("shared", [True, False])
def test_threads_of_a_service_take_memory_from_the_same_pools(shared: bool) -> None:
    code = f"""
        import ctypes, threading
        from gram.coder.memory import share_arenas
        if {shared}:
            share_arenas()
        malloc, waiting = ctypes.CDLL(None).malloc, threading.Barrier(6)
        def use():
            malloc(ctypes.c_size_t(5_000))
            waiting.wait()
        threads = [threading.Thread(target=use) for _ in range(6)]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
        ctypes.CDLL(None).malloc_stats()
    """
    done = subprocess.run([sys.executable, "-c", dedent(code)], capture_output=True, text=True, check=True)
    assert (len(re.findall("^Arena ", done.stderr, re.M)) <= ARENAS) is shared


def test_memory_is_given_back_once_something_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[int] = []
    live = SimpleNamespace(snapshot=SimpleNamespace(version=0))
    versions = iter([7, 7, 8, 8, 8])

    def wait(_: float) -> bool:
        live.snapshot.version = next(versions, 0)
        return live.snapshot.version == 0

    monkeypatch.setattr("gram.serve.run.give_memory_back", lambda: given.append(live.snapshot.version))
    _watch(cast(Any, SimpleNamespace(live=live, refresh=bool)), cast(Any, SimpleNamespace(wait=wait)))
    assert given == [7, 8]
