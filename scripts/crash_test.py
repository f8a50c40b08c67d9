"""Kills a process that changes an index, at random moments, and looks for what it had answered.

    python scripts/crash_test.py INDEX --kills 1000
    python scripts/crash_test.py INDEX --power-cuts 200

A child updates, deletes, sets rules and merges, and says of each change that it asks for it and, later, that it was
answered. It is killed (SIGKILL) at a random moment. Then everything answered must be there; the one change that was
asked for and not answered may be there whole, or not at all. One line of JSON at the end: how many times, how many
changes were answered, how many of them were lost, and how many stood there by half.

With `--power-cuts` a copy of the index lies on an ext4 file system in a file, which is shut down under the child
without writing anything more, not even its journal, and mounted again: what was not synced is gone. Linux, root and
mkfs.ext4 are needed. Changes that are answered while it is being shut down count as not answered. What is not tried: a
disk that loses what it confirmed, and other file systems.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import multiprocessing
import os
import random
import shutil
import sqlite3
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path

import torch

from gram.coder.base import PRODUCT_CODING, Side
from gram.errors import GramError
from gram.records import Product
from gram.shop import Shop

LONGEST = 1.5
"""Seconds that a child lives after it is ready, at most."""
FS_IOC_SHUTDOWN, NO_LOG_FLUSH = 0x8004587D, 2
"""Of <linux/fs.h> and ext4: nothing that the file system still holds in memory reaches the disk."""


def child(index: str, seed: int, tell: Connection) -> None:
    """Changes the index until it is killed, and tells what it asks for and what was answered."""
    rng, shop, number = random.Random(seed), Shop.open(index, check=False), 0
    tell.send(["ready"])
    while True:
        number += 1
        kind = rng.choices(["update", "delete", "rule", "merge"], [6, 3, 3, 0.5])[0]
        asked = [kind, f"k{rng.randrange(30)}", f"{seed}-{number}"]
        tell.send(["ask", *asked])
        try:
            change(shop, *asked)
        except (OSError, sqlite3.Error, GramError):
            os._exit(1)  # the power was cut; where it was not, whoever waits tells that it died by itself
        tell.send(["done", *asked])


def change(shop: Shop, kind: str, name: str, value: str) -> None:
    """One change of a pair of products, of a rule, or of the segment."""
    if kind == "update":
        shop.update([Product(f"{name}-{half}", f"Thing {value}") for half in "ab"])
    elif kind == "delete":
        shop.delete([f"{name}-a", f"{name}-b"])
    elif kind == "rule":
        shop.put_rule(name, {"action": "redirect", "query": name, "target": value})
    else:
        shop.live.merge()


@dataclass
class Answered:
    """What every product's title and every rule's target must be ("" and None: not there), and the tally."""

    titles: dict[str, str] = field(default_factory=dict)
    targets: dict[str, str | None] = field(default_factory=dict)
    answered: int = 0
    lost: int = 0
    half: int = 0

    def note(self, messages: list[list[str]]) -> list[list[str]]:
        """Takes in what a child told; the change that it asked for last, if it was not answered."""
        open_: list[list[str]] = []
        for message in messages:
            open_ = [message] if message[0] == "ask" else []
            if message[0] == "done":
                self.answered += 1
                _, kind, name, value = message
                if kind in ("update", "delete"):
                    self.titles[name] = f"Thing {value}" if kind == "update" else ""
                elif kind == "rule":
                    self.targets[name] = value
        return open_

    def check(self, index: Path, open_: list[list[str]]) -> Answered:
        """Counts names whose answered state is not there, and pairs of which only one half is. Of open changes either
        is right: goes on from what is there, with which it returns itself."""
        shop = Shop.open(index, check=False)
        kept = shop.store.all("rule")
        for name in {*self.titles, *self.targets, *(message[2] for message in open_)}:
            titles = {getattr(shop.product(f"{name}-{side}"), "title", "") for side in "ab"}
            target = kept.get(name, {}).get("target")
            title_may_be, target_may_be = {self.titles.get(name, "")}, {self.targets.get(name)}
            for _, kind, changed, value in open_:
                if changed == name and kind == "rule":
                    target_may_be.add(value)
                elif changed == name and kind != "merge":
                    title_may_be.add(f"Thing {value}" if kind == "update" else "")
            self.half += len(titles) > 1
            self.lost += (not titles <= title_may_be) + (target not in target_may_be)
            self.titles[name], self.targets[name] = min(titles), target
        shop.close()
        return self


def warm_up(index: Path) -> None:
    """Imports and measures what a first change does, once for all children, which are forks of this process."""
    torch.set_num_threads(1)  # a fork has no others
    shop = Shop.open(index, read_only=True)
    shop.live.searcher.coder.represent([Product("thing", "Thing")], Side.PRODUCT, PRODUCT_CODING)
    shop.close()


def told(pipe: Connection, dead: bool) -> list[list[str]]:
    """What a child has told since it was asked last; all, once it is dead."""
    messages = []
    with suppress(EOFError):
        while dead or pipe.poll():
            messages.append(pipe.recv())
    return messages


class Disk:
    """An ext4 file system in a file, whose power can be cut."""

    def __init__(self, folder: Path, size: int) -> None:
        self.image, self.mount_point = folder / "disk.img", folder / "disk"
        self.mount_point.mkdir()
        with self.image.open("wb") as file:
            file.truncate(size)
        subprocess.run(["mkfs.ext4", "-q", self.image], check=True)
        self.mount()

    def mount(self) -> None:
        """Plays its journal back, in a copy: of a file that was mounted before the kernel may hold blocks as they were
        then. By its options it keeps what was not synced for longer, so that more is lost."""
        copy = self.image.with_suffix(".copy")
        shutil.copyfile(self.image, copy)
        copy.replace(self.image)
        options = "loop,noauto_da_alloc,commit=300"
        subprocess.run(["mount", "-o", options, self.image, self.mount_point], check=True)

    def unmount(self) -> None:
        subprocess.run(["umount", self.mount_point], check=True)

    def cut(self) -> None:
        handle = os.open(self.mount_point, os.O_RDONLY)
        try:
            fcntl.ioctl(handle, FS_IOC_SHUTDOWN, struct.pack("I", NO_LOG_FLUSH))
        finally:
            os.close(handle)


@contextmanager
def on_disk(index: Path) -> Iterator[tuple[Disk, Path]]:
    """A copy of an index, without its changes, on a disk of its own."""
    with tempfile.TemporaryDirectory() as folder:
        size = sum(file.stat().st_size for file in index.rglob("*"))
        disk = Disk(Path(folder), 10 * size + (64 << 20))
        try:
            shutil.copytree(index, disk.mount_point / "index")
            os.sync()
            yield disk, disk.mount_point / "index"
        finally:
            disk.unmount()


def run(index: Path, times: int, seed: int, disk: Disk | None = None) -> dict[str, int]:
    """Ends that many children, one after another, and checks after each."""
    rng, state = random.Random(seed), Answered()
    processes = multiprocessing.get_context("fork")
    for one in range(times):
        ours, theirs = processes.Pipe(duplex=False)
        process = processes.Process(target=child, args=(str(index), seed * 100_000 + one, theirs), daemon=True)
        process.start()
        theirs.close()
        ours.poll(timeout=60)  # until it is ready
        time.sleep(rng.uniform(0, LONGEST))
        if not process.is_alive():
            raise SystemExit(f"the process died by itself after {one} times")
        before = told(ours, dead=False)
        if disk is not None:
            disk.cut()
        process.kill()
        process.join()
        after = told(ours, dead=True)
        if disk is None:
            open_ = state.note(before + after)
        else:  # the shutdown lets an fsync that is under way return without an error
            open_ = [*state.note(before), *(message for message in after if message[0] == "ask")]
            disk.unmount()
            disk.mount()
        with processes.Pool(1) as pool:  # a process that ends: files that are still mapped would hold the disk
            state = pool.apply(state.check, (index, open_))
        if one % 50 == 49:
            print(f"{one + 1}: answered {state.answered}, lost {state.lost}, half {state.half}", file=sys.stderr)
    return {"times": times, "answered": state.answered, "lost": state.lost, "half": state.half}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("index", type=Path)
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--kills", type=int, default=100)
    how.add_argument("--power-cuts", type=int)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    cuts = given.power_cuts is not None
    warm_up(given.index)
    with on_disk(given.index.resolve()) if cuts else nullcontext((None, given.index)) as (disk, index):
        report = run(index, given.power_cuts if cuts else given.kills, given.seed, disk)
    print(json.dumps({"ended by": "a power cut" if cuts else "SIGKILL", **report}))
    sys.exit(bool(report["lost"] or report["half"]))


if __name__ == "__main__":
    main()
