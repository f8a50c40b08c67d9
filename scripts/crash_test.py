"""Kills a process that changes an index, at random moments, and looks for what it had answered.

    python scripts/crash_test.py INDEX --kills 1000

A child updates, deletes, sets rules and merges, and writes a line for each change before it asks for it and another
when it is answered. It is killed (SIGKILL) at a random moment. Then everything answered must be there; the one change
that was asked for and not answered may be there whole, or not at all. One line of JSON at the end: kills, answered,
lost, half.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from gram.records import Product
from gram.shop import Shop


def child(index: str, seed: int) -> None:
    """Changes the index until it is killed; asks and answers go to standard output, a line of JSON each."""
    rng, shop = random.Random(seed), Shop.open(index, check=False)
    print(json.dumps(["ready"]), flush=True)
    number = 0
    while True:
        number += 1
        kind = rng.choices(["update", "delete", "rule", "merge"], [6, 3, 3, 0.5])[0]
        name, value = f"k{rng.randrange(30)}", f"{seed}-{number}"
        print(json.dumps(["ask", kind, name, value]), flush=True)
        if kind == "update":
            shop.update([Product(f"{name}-{half}", f"Thing {value}", price=float(number)) for half in "ab"])
        elif kind == "delete":
            shop.delete([f"{name}-a", f"{name}-b"])
        elif kind == "rule":
            shop.put_rule(name, {"action": "redirect", "query": name, "target": value})
        else:
            shop.live.merge()
        print(json.dumps(["done", kind, name, value]), flush=True)


def check(index: str, products: dict[str, str], rules: dict[str, str], open_: list[str] | None) -> tuple[int, int]:
    """(lost, half): names whose answered state is not there, and pairs of which only one half is."""
    shop = Shop.open(index, check=False)
    lost = half = 0
    kept = shop.store.all("rule")
    for name in {*products, *rules, *([open_[2]] if open_ else [])}:
        titles = {getattr(shop.product(f"{name}-{side}"), "title", "") for side in "ab"}
        half += len(titles) > 1
        wanted = {products.get(name, "")}
        if open_ and open_[2] == name and open_[1] in ("update", "delete"):
            wanted.add(f"Thing {open_[3]}" if open_[1] == "update" else "")
        lost += not titles <= wanted
        targets = {rules.get(name)}
        if open_ and open_[2] == name and open_[1] == "rule":
            targets.add(open_[3])
        lost += kept.get(name, {}).get("target") not in targets
    shop.close()
    return lost, half


def run(index: str, kills: int, seed: int) -> dict[str, int]:
    """Kills that many children, one after another, and checks after each."""
    rng = random.Random(seed)
    products: dict[str, str] = {}
    rules: dict[str, str] = {}
    report = {"kills": 0, "answered": 0, "lost": 0, "half": 0}
    for one in range(kills):
        command = [sys.executable, __file__, index, "--child", str(seed * 100_000 + one)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        if json.loads(process.stdout.readline() or "[]") != ["ready"]:
            raise SystemExit(f"the process died by itself after {one} kills")
        time.sleep(rng.uniform(0, 1.5))
        os.kill(process.pid, signal.SIGKILL)
        lines = [json.loads(line) for line in process.stdout.read().splitlines() if line.endswith("]")]
        process.wait()
        open_ = None
        for line in lines:
            open_ = line if line[0] == "ask" else None
            if line[0] == "done":
                report["answered"] += 1
                _, kind, name, value = line
                if kind == "update":
                    products[name] = f"Thing {value}"
                elif kind == "delete":
                    products[name] = ""
                elif kind == "rule":
                    rules[name] = value
        lost, half = check(index, products, rules, open_)
        report["kills"] += 1
        report["lost"] += lost
        report["half"] += half
        if open_ and open_[1] in ("update", "delete"):  # either is right: go on from what is there
            shop = Shop.open(index, check=False)
            products[open_[2]] = getattr(shop.product(f"{open_[2]}-a"), "title", "")
            shop.close()
        if open_ and open_[1] == "rule":
            shop = Shop.open(index, check=False)
            rules[open_[2]] = shop.store.all("rule").get(open_[2], {}).get("target")  # type: ignore[assignment]
            shop.close()
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("index", type=Path)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--child", type=int, default=-1, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child >= 0:
        child(str(given.index), given.child)
    report = run(str(given.index), given.kills, given.seed)
    print(json.dumps(report))
    sys.exit(bool(report["lost"] or report["half"]))


if __name__ == "__main__":
    main()
