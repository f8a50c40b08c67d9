"""The script that loads a service."""

from __future__ import annotations

import runpy
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from gram.errors import DataError

SCRIPT = str(Path(__file__).parents[1] / "scripts" / "load_test.py")


def test_the_load_test_loads_services_of_this_machine_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By whichever of its addresses."""
    main = runpy.run_path(SCRIPT)["main"]
    for address, refused in (("http://shop.example", True), ("127.0.0.1:8000", True), ("http://127.0.0.2:8000", False)):
        monkeypatch.setattr("sys.argv", ["load_test.py", address, str(tmp_path / "none.tsv")])
        with pytest.raises(SystemExit if refused else DataError):
            main()
        assert ("on this machine" in capsys.readouterr().err) == refused, address


def test_the_load_test_updates_at_its_rate_however_slow_the_answers_are() -> None:
    waiting, most = set[int](), [0]

    class Slow(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            waiting.add(threading.get_ident())
            most[0] = max(most[0], len(waiting))
            time.sleep(0.2)
            waiting.discard(threading.get_ident())
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    took: list[float] = []
    failed: list[int] = []
    updater = runpy.run_path(SCRIPT)["updater"]
    with ThreadingHTTPServer(("127.0.0.1", 0), Slow) as server:
        threading.Thread(target=server.serve_forever).start()
        updater(f"http://127.0.0.1:{server.server_port}", 40, 1.0, took, failed)
        server.shutdown()
    assert most[0] >= 3, "they are not sent one after another"
    assert min(took) >= 200
    assert failed == []
