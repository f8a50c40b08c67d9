"""How the service ends: it says so, goes on for a while, and tells what it cut off."""

from __future__ import annotations

import json
import signal
import socket
import threading
import time

import httpx
import pytest
import uvicorn
from asking import PATIENCE

from gram.serve.app import make_app
from gram.serve.run import Server
from gram.shop import Shop


def test_a_service_that_stops_says_so_while_it_goes_on_answering(shop: Shop) -> None:
    app = make_app(shop)
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{listening.getsockname()[1]}"
        server = Server(uvicorn.Config(app, log_level="error"), app.state.service, drain=600)
        thread = threading.Thread(target=server.run, args=([listening],))
        thread.start()
        while not server.started:
            time.sleep(0.01)
        assert httpx.get(f"{address}/ready", timeout=PATIENCE).status_code == 200
        server.handle_exit(signal.SIGTERM, None)
        ready = httpx.get(f"{address}/ready", timeout=PATIENCE)
        assert (ready.status_code, ready.json()["status"]) == (503, "stopping")
        assert httpx.get(f"{address}/search?q=sofa", timeout=PATIENCE).json()["hits"]
        server.handle_exit(signal.SIGTERM, None)  # a second one does not wait
        thread.join(timeout=PATIENCE)
    assert not thread.is_alive()


@pytest.mark.parametrize("signals", [1, 2])
def test_what_is_cut_off_is_told_what_is_written(shop: Shop, signals: int) -> None:
    """After the time of grace, or at once at a second signal."""
    app = make_app(shop)
    lines = "".join(json.dumps({"product_id": f"cut{i}", "title": "Cut thing"}) + "\n" for i in range(201)).encode()
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        config = uvicorn.Config(app, log_level="critical", timeout_graceful_shutdown=1 if signals == 1 else 600)
        server = Server(config, app.state.service, drain=0)
        thread = threading.Thread(target=server.run, args=([listening],))
        thread.start()
        while not server.started:
            time.sleep(0.01)
        with socket.create_connection(listening.getsockname()) as client:
            client.sendall(b"POST /products HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 99999999\r\n\r\n" + lines)
            while shop.product("cut199") is None:
                time.sleep(0.01)
            while app.state.service.there["writes"]:  # until it is counted as well
                time.sleep(0.01)
            for _ in range(signals):
                server.handle_exit(signal.SIGINT, None)
            thread.join(timeout=PATIENCE)
            answer = client.recv(10_000).decode()
    assert not thread.is_alive()
    assert answer.startswith("HTTP/1.1 503")
    assert "200 products are written" in answer
    shop.delete(f"cut{i}" for i in range(201))


def test_a_service_that_was_told_to_stop_does_so_after_a_while(shop: Shop) -> None:
    app = make_app(shop)
    server = Server(uvicorn.Config(app), app.state.service, drain=0.2)
    server.handle_exit(signal.SIGTERM, None)
    assert not server.should_exit
    deadline = time.monotonic() + PATIENCE
    while not server.should_exit and time.monotonic() < deadline:
        time.sleep(0.01)
    assert server.should_exit
