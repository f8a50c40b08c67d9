"""A service's NumPy products take one thread each."""

from __future__ import annotations

from pathlib import Path

import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from gram.serve.run import Server, Serving, serve


def test_a_service_runs_on_one_thread_a_product(index_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the machine has more and nothing else bounds them; afterwards it is as before."""

    def threads() -> set[int]:
        return {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}

    seen: list[set[int]] = []
    monkeypatch.setattr("gram.serve.run.share_arenas", lambda: seen.append({0}))
    monkeypatch.setattr(Server, "run", lambda *_: seen.append(threads()))
    with threadpool_limits(2):
        before = threads()
        serve(Serving(index_folder), sockets=[])
        assert threads() == before
    if before == {1}:
        pytest.skip("this machine's library has one thread")
    assert seen == [{0}, {1}], "memory of one thread is another's, too: told first"
