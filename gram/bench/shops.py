"""`gram bench --shops`: one table of many shops, each with its log whole, with a part of it and with none.

    OUT/SHOP/LOG/                      one cell, a benchmark's folder of its own; LOG is whole, none, or a share as 1-20
    OUT/SHOP/LOG/cell.json             what the table's engines are worth there: the cell is done
    OUT/begun.json                     the settings, the same in all cells
    OUT/table.md results.json bench.json

A cell that is done is not made again, and one that was stopped goes on with the engine it had come to. The table is
written anew after every cell, and has all that are done.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

from gram.bench.benchmark import begin, commands_of, device_name, machine, open_shop, search_queries, train_engine
from gram.bench.report import MEASURES, beside
from gram.bench.rows import ENTRANTS, select_entrants
from gram.bench.shops_report import write_table
from gram.bench.sources import Sources
from gram.bench.workshop import Options, Workshop
from gram.coder.memory import keep_freed_memory
from gram.data.dataset import hold_out
from gram.data.files import FORMATS
from gram.errors import DataError, SettingError
from gram.evaluation.measures import evaluate, read_run, relevant
from gram.folders import read_json, write_json

log = logging.getLogger("gram.bench")

HYBRID = "bm25+dense-published-weighted"
ROWS = ("bm25", HYBRID, "gram", "all-but-codes", "codes-and-words", "codes-alone")
LOGS = "whole,1/20,none"
FILES = {
    "products": ("products", "catalogue", "catalog"),
    "queries": ("test.queries", "queries"),
    "qrels": ("test.qrels", "qrels"),
    "log": ("log", "interactions"),
    "dev queries": ("dev.queries",),
    "dev qrels": ("dev.qrels",),
}
"""What each file of a shop may be called, before an ending such as .tsv or .jsonl.gz; the first name counts."""


class ShopFiles(NamedTuple):
    """The files of one shop; both dev files or none."""

    name: str
    products: Path
    queries: Path
    qrels: Path
    log: Path | None
    dev_queries: Path | None
    dev_qrels: Path | None

    def sources(self, share: float, max_unknown: float) -> Sources:
        """What a benchmark reads of the shop with this share of its log."""
        shop_log = "none" if self.log is None else str(self.log)
        dev = (self.dev_queries, self.dev_qrels)
        return Sources(self.products, shop_log, self.queries, self.qrels, *dev, max_unknown, share)


class Cell(NamedTuple):
    """One shop with a part of its log, and the folder that it is measured in."""

    shop: str
    log: str
    folder: Path
    sources: Sources


def find_shops(folder: Path, only: Sequence[str] = ()) -> list[ShopFiles]:
    """The shops in the subfolders of a folder, in the order of their names; those named `only`, or all.

    A subfolder with none of a shop's files is passed over. Raises DataError where there is no shop, or where one lacks
    its catalogue, its queries or its qrels, and SettingError for a name that no subfolder has.
    """
    if not folder.is_dir():
        raise DataError(folder, "is no folder.", "name a folder that holds a folder for each shop.")
    folders = {path.name: path for path in sorted(folder.iterdir()) if path.is_dir()}
    unknown = [name for name in only if name not in folders]
    if unknown:
        raise SettingError(f"{folder} holds no shop '{unknown[0]}'. Fix: choose from {', '.join(folders)}")
    found = {name: _files_of(path) for name, path in folders.items() if not only or name in only}
    shops = [_shop(folders[name], files) for name, files in found.items() if files or name in only]
    if not shops:
        fix = "give each shop a folder in it, with products, test.queries.tsv and test.qrels.tsv, as `gram shop` does."
        raise DataError(folder, "holds no shop.", fix)
    return shops


def read_logs(text: str) -> dict[str, float]:
    """The share of the log's queries by name: `whole`, `none`, or a fraction such as 1/20.

    >>> read_logs("whole,1/20,none")
    {'whole': 1.0, '1/20': 0.05, 'none': 0.0}

    Raises SettingError for anything else.
    """
    shares = {}
    for name in filter(None, map(str.strip, text.split(","))):
        try:
            shares[name] = float(Fraction({"whole": "1", "none": "0"}.get(name, name)))
        except (ValueError, ZeroDivisionError):
            shares[name] = -1.0
        if not 0 <= shares[name] <= 1:
            raise SettingError(f"'{name}' is no part of a log. Fix: give whole, none, or a share such as 1/20")
    if not shares:
        raise SettingError(f"no part of a log is named. Fix: give some of {LOGS}")
    return shares


def run_shops(
    shops: Sequence[ShopFiles],
    logs: Mapping[str, float],
    output: Path,
    options: Options,
    max_unknown: float = 0.05,
    command: str = "",
) -> Path:
    """Measures every cell that the folder lacks, log by log, and writes the table; returns its path.

    Shops without a log have a cell without one alone.

    Raises:
        SettingError: a cell begun with other data or settings; no cell at all.
        DataError: files that cannot be read, a folder of something else.
        MissingExtra: without the extras `eval` and `bench`.
    """
    evaluate({}, {})  # what is needed at the end had better be missed now
    cells = [
        Cell(shop.name, name, output / shop.name / name.replace("/", "-"), shop.sources(share, max_unknown))
        for name, share in logs.items()
        for shop in shops
        if shop.log is not None or not share
    ]
    if not cells:
        raise SettingError(f"none of the {len(shops)} shops has a log. Fix: measure them without one, --logs none")
    begin(output, {}, options)
    for cell in cells:
        begin(cell.folder, cell.sources.hashes(), options)  # refused, if at all, before hours of work
    commands = list(dict.fromkeys([*commands_of(output), command]))
    device = device_name(options.device)
    told = {"commands": commands, "device": device, "seed": options.seed, "quick": options.quick, **machine()}
    write_json(output / "bench.json", told)
    keep_freed_memory()  # as GRAM's own training does
    for number, cell in enumerate(cells, start=1):
        log.info("%d of %d: %s, log %s", number, len(cells), cell.shop, cell.log)
        measure_cell(cell, options)
        write_table(output, [read_json(path) for path in sorted(output.glob("*/*/cell.json"))], told)
    return output / "table.md"


def rows_of(options: Options) -> tuple[str, ...]:
    """The table's engines: all, or where there are no pretrained weights those that need none."""
    return tuple(name for name in ROWS if name != HYBRID or options.model != "scratch")


def measure_cell(cell: Cell, options: Options) -> None:
    """Writes what the table says of one cell, which was begun, unless that is there.

    `engines` are {engine: {measure: {"mean", "p", "marker"}}} as of `beside`; `fitted` tells whether GRAM's weights
    were fitted to held-out queries of the log, or are the declared ones.
    """
    path, rows, folder = cell.folder / "cell.json", rows_of(options), cell.folder
    if path.is_file() and read_json(path)["engines"].keys() >= set(rows):
        return
    shop = open_shop(folder, cell.sources, options)
    workshop = Workshop(folder, shop.data, options, ENTRANTS)
    per_query = {}
    for entrant in select_entrants(rows, options):
        times = train_engine(workshop, entrant)
        if entrant.name in rows:
            run = read_run(search_queries(workshop, times, shop.queries))
            result = evaluate(shop.qrels, run, MEASURES)
            per_query[entrant.name] = result.per_query
            log.info("%s: %s", entrant.name, ", ".join(f"{m} {v:.3f}" for m, v in result.mean.items()))
    found = {
        "shop": cell.shop,
        "log": cell.log,
        "share": cell.sources.log_share,
        "has_log": cell.sources.log != "none",
        "products": len(shop.data.products),
        "interactions": len(shop.data.log),
        "dev_queries": len(shop.data.dev_queries),
        "queries": len(relevant(shop.qrels)),
        "fitted": bool(hold_out(shop.data.log, options.seed)[1]),
        "engines": beside(per_query, MEASURES),
    }
    write_json(path, found)


def _files_of(folder: Path) -> dict[str, Path]:
    """What there is of a shop's files. Raises DataError where two could be the same one."""
    by_stem: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()):
        inner = path.with_suffix("") if path.suffix.lower() in (".gz", ".zip") else path
        if path.is_file() and inner.suffix.lower() in FORMATS:
            by_stem.setdefault(inner.stem.lower(), []).append(path)
    found: dict[str, Path] = {}
    for what, names in FILES.items():
        files = next((by_stem[name] for name in names if name in by_stem), [])
        if len(files) > 1:
            raise DataError(folder, f"holds {' and '.join(f.name for f in files)}.", "keep one of them.")
        found.update((what, file) for file in files)
    return found


def _shop(folder: Path, files: Mapping[str, Path]) -> ShopFiles:
    for what in ("products", "queries", "qrels"):
        if what not in files:
            names = " or ".join(f"{name}.{'jsonl.gz' if what == 'products' else 'tsv'}" for name in FILES[what])
            raise DataError(folder, f"holds no {what}.", f"put {names} there, or name other shops with --only.")
    if ("dev queries" in files) != ("dev qrels" in files):
        missing = "dev.qrels" if "dev queries" in files else "dev.queries"
        raise DataError(folder, f"holds half a dev part: no {missing}.", "give queries and judgements, or neither.")
    dev = files.get("dev queries"), files.get("dev qrels")
    return ShopFiles(folder.name, files["products"], files["queries"], files["qrels"], files.get("log"), *dev)
