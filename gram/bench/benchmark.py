"""`gram bench`: GRAM and its rivals on the same products and log, made, searched and measured into one folder.

    begun.json             what the folder was begun with: hashes of the data, settings
    data/                  the shop as every engine got it
    engines/NAME/          trained engines          times/NAME.json       what each stage took
    runs/NAME.trec         found products           runs/NAME.misspelt.trec
    figures/NAME.json      one engine's measures
    table.md results.json bench.json plots/         made anew from the figures at the end

Whatever is there is not made again, so a run that was stopped goes on where it was.
"""

from __future__ import annotations

import hashlib
import logging
import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gram.baselines.base import TrainingData
from gram.bench.cuts import by_training, misspelt_queries, relevance_rate
from gram.bench.latency import latency
from gram.bench.plots import CURVE, figure_class
from gram.bench.rows import Options, Row, Workshop, bf16, selected
from gram.data.catalogue import read_products
from gram.data.dataset import Dataset, Judged
from gram.data.log import read_log, read_qrels, read_queries
from gram.errors import DataError, SettingError
from gram.evaluation.measures import Run, check_ids, evaluate, read_run, relevant, write_run
from gram.folders import new_folder, read_json, write_json
from gram.records import Interaction

log = logging.getLogger("gram.bench")

DEPTH = 300
MEASURES = ("R@10", "R@50", "R@100", "R@300", "nDCG@10", "RR")
LEAST_QUERIES = 50
"""A log of fewer queries has no dev part held out of it."""
QUICK_PRODUCTS, QUICK_QUERIES, QUICK_LOG = 600, 60, 1500
PACKAGES = ("numpy", "torch", "transformers", "sentence-transformers", "bm25s", "ir-measures", "hnswlib", "faiss-cpu")


@dataclass(frozen=True)
class Sources:
    """The files of a benchmark; both dev files or none."""

    products: Path
    log: str  # or `none`
    queries: Path
    qrels: Path
    dev_queries: Path | None = None
    dev_qrels: Path | None = None
    max_unknown: float = 0.05

    def hashes(self) -> dict[str, str]:
        """SHA-256 of every file by what it is. Raises DataError for one that cannot be read."""
        found = {}
        for name, path in asdict(self).items():
            if name == "max_unknown" or path is None:
                continue
            try:
                found[name] = "none" if path == "none" else hashlib.sha256(Path(path).read_bytes()).hexdigest()
            except OSError as error:
                raise DataError(path, f"cannot be read ({error}).", "check the path.") from error
        return found


class Shop(NamedTuple):
    """What all engines get, and what they are judged by."""

    data: TrainingData
    queries: dict[str, str]
    qrels: dict[str, dict[str, float]]


def run(sources: Sources, output: Path, options: Options, only: Sequence[str] = (), command: str = "") -> Path:
    """Makes what is missing of the benchmark's folder and writes its table; returns the table's path.

    `only` names rows, and "ablation" for GRAM's variants; empty for all. Rows made before stay in the table.

    Raises:
        SettingError: a folder begun with other data or settings; a row that is not known.
        DataError: a folder of something else, or a file that cannot be read.
        MissingExtra: without the extras `eval` and `bench`.
    """
    from gram.bench.report import write_report

    figure_class()  # what is needed at the end had better be missed now
    evaluate({}, {})

    if (sources.dev_queries is None) != (sources.dev_qrels is None):
        raise SettingError("a dev part is queries and judgements. Fix: give both --dev-queries and --dev-qrels")
    with_ablation = not only or "ablation" in only
    named = [name for name in only if name != "ablation"]
    rows = selected(named + ["gram"] * (with_ablation and bool(only)), options)
    mark = begin(output, sources, options)
    shop = _shop(output, sources, options)
    write_json(output / "bench.json", circumstances(mark, command, shop))
    workshop = Workshop(output, shop.data, options)
    for row in rows:
        make(workshop, row, shop)
    if with_ablation:
        from gram.bench.ablation import ablate

        ablate(workshop, shop.queries, shop.qrels)
    return write_report(output, shop.data, shop.queries, shop.qrels)


def begin(output: Path, sources: Sources, options: Options) -> dict[str, Any]:
    """Marks a new folder with its data and settings, or checks that they are those it was begun with."""
    mark = {"data": sources.hashes(), "settings": {k: v for k, v in asdict(options).items() if v != ""}}
    path = output / "begun.json"
    if not path.is_file():
        if output.is_dir() and any(output.iterdir()):
            raise DataError(output, "holds files but no begun.json: no benchmark's folder.", "name another folder.")
        write_json(path, mark)
        return mark
    old = read_json(path)
    for part, now in mark.items():
        known = old[part]
        changed = [k for k in now if k in known and known[k] != now[k]]
        changed += [] if part == "settings" else sorted(now.keys() ^ known.keys())
        made = [file for file in output.iterdir() if file != path]  # a mark alone is of a benchmark that was refused
        if changed and made:
            what = f"other {part} ({', '.join(changed)})"
            raise SettingError(f"{output} was begun with {what}. Fix: name another folder with -o, or give the same")
    mark["settings"] = old["settings"] | mark["settings"]
    write_json(path, mark)
    return mark


def make(workshop: Workshop, row: Row, shop: Shop) -> None:
    """Trains one engine, searches, times and measures it: each stage once."""
    folder, name = workshop.folder, row.name
    if (folder / "figures" / f"{name}.json").is_file():
        return
    times = Times(folder / "times" / f"{name}.json")
    if times.take("training_seconds", lambda: row.train(workshop, workshop.place(name))):
        log.info("%s: trained in %.0f s", name, times["training_seconds"])
    clean, wrong = folder / "runs" / f"{name}.trec", folder / "runs" / f"{name}.misspelt.trec"
    if not clean.is_file() or "search_seconds" not in times:
        engine = workshop.engine(name)
        begun = time.perf_counter()
        found = engine.search_many(shop.queries, DEPTH)
        times["search_seconds"] = time.perf_counter() - begun
        write_run(clean, found, tag=name)
    if not wrong.is_file():
        write_run(wrong, workshop.engine(name).search_many(misspelt_queries(shop.queries, workshop.options.seed), 100))
    if "index_bytes" not in times:
        engine = workshop.engine(name)
        times["index_bytes"], times["settings"] = engine.index_bytes, engine.settings
    if "latency" not in times:
        workshop.close()
        times["latency"] = latency(folder, name)
    figures = measured(read_run(clean), read_run(wrong), shop, workshop.options.seed) | times.kept
    write_json(folder / "figures" / f"{name}.json", figures | {"name": name})
    log.info("%s: %s", name, ", ".join(f"{m} {figures['mean'][m]:.3f}" for m in MEASURES))


def measured(found: Run, misspelt: Run, shop: Shop, seed: int) -> dict[str, Any]:
    """All that a run's judgements tell: means, values per query, and the parts that the report shows."""
    curve = {f"R@{k}" for k in CURVE} - set(MEASURES)
    result = evaluate(shop.qrels, found, (*MEASURES, *sorted(curve)))
    rate = relevance_rate(shop.qrels, found)
    typed = misspelt_queries(shop.queries, seed)
    parts = by_training(shop.qrels, shop.data.log)
    return {
        "mean": result.mean | {"relevance": float(np.mean(list(rate.values()))) if rate else 0.0},
        "per_query": {m: result.per_query[m] for m in MEASURES} | {"relevance": rate},
        "queries": len(shop.queries),
        "unanswered": result.unanswered,
        "misspelt": evaluate({q: shop.qrels[q] for q in typed if q in shop.qrels}, misspelt, ("R@100",)).per_query,
        **{name: evaluate(part, found, ("R@100",)).per_query for name, part in parts.items()},
    }


class Times:
    """What the stages of one engine took, and whatever else is found once; on disk after every stage."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.kept: dict[str, Any] = read_json(path) if path.is_file() else {}

    def __contains__(self, name: str) -> bool:
        return name in self.kept

    def __getitem__(self, name: str) -> Any:
        return self.kept[name]

    def __setitem__(self, name: str, value: Any) -> None:
        self.kept[name] = value
        write_json(self.path, self.kept)

    def take(self, name: str, stage: Callable[[], None]) -> bool:
        """Runs a stage and keeps its seconds; False if it was run before."""
        if name in self.kept:
            return False
        begun = time.perf_counter()
        stage()
        self[name] = time.perf_counter() - begun
        return True


def _shop(output: Path, sources: Sources, options: Options) -> Shop:
    """The shop that the engines get, kept in `output`/data, where the timing process reads it too."""
    if not (output / "data" / "meta.json").is_file():
        made = _cut(gathered(sources, options.seed), options)
        with new_folder(output / "data") as folder:
            made.write(folder)
            write_json(folder / "meta.json", {"products": len(made.products), "interactions": len(made.log)})
    return read_shop(output / "data")


def read_shop(folder: Path) -> Shop:
    """The shop that `Dataset.write` wrote."""
    products = read_products(folder / "products.jsonl.gz")
    rows = read_log(folder / "log.tsv", {p.product_id for p in products})
    dev, test = (
        (read_queries(folder / f"{p}.queries.tsv"), read_qrels(folder / f"{p}.qrels.tsv")) for p in ("dev", "test")
    )
    return Shop(TrainingData(products, rows, *dev), *test)


def open_workshop(output: Path) -> tuple[Workshop, dict[str, str]]:
    """A benchmark's engines and its test queries, from its folder alone."""
    shop = read_shop(output / "data")
    return Workshop(output, shop.data, Options(**read_json(output / "begun.json")["settings"])), shop.queries


def gathered(sources: Sources, seed: int) -> Dataset:
    """Reads the files. Without dev files, a seeded tenth of the log's queries becomes the dev part.

    Dev queries that stand in the log are taken out of it, for all engines alike. Judgements of products that the
    catalogue lacks are dropped: no engine could find them.
    """
    products = read_products(sources.products, progress=True)
    ids = {p.product_id for p in products}
    check_ids(ids)
    rows = read_log(sources.log, ids, max_unknown=sources.max_unknown, progress=True)
    test = _judged(sources.queries, sources.qrels, ids)
    if not relevant(test.qrels):
        fix = "check that it names this catalogue's products and these queries."
        raise DataError(sources.qrels, "no query has a relevant product in the catalogue.", fix)
    if sources.dev_queries is None or sources.dev_qrels is None:
        dev, rows = dev_part(rows, seed)
    else:
        dev = _judged(sources.dev_queries, sources.dev_qrels, ids)
        asked = set(dev.queries.values())
        kept = [i for i in rows if i.query not in asked]
        if len(kept) < len(rows):
            log.warning("%d interactions with dev queries are left out of the log", len(rows) - len(kept))
        rows = kept
    return Dataset(products, rows, {"dev": dev, "test": test})


def dev_part(rows: list[Interaction], seed: int) -> tuple[Judged, list[Interaction]]:
    """A tenth of the log's queries, at most 1,000, as a dev part with their interactions as relevant; the log without.

    Nothing is held out of a log of under 50 queries: engines then keep their untuned defaults.
    """
    queries = sorted({i.query for i in rows})
    if len(queries) < LEAST_QUERIES:
        return Judged({}, {}), rows
    order = np.random.default_rng(seed).permutation(len(queries))[: min(1000, len(queries) // 10)]
    dev = {queries[i]: f"dev{i}" for i in order.tolist()}
    qrels: dict[str, dict[str, float]] = {}
    for i in rows:
        if i.query in dev:
            qrels.setdefault(dev[i.query], {})[i.product_id] = 2.0
    return Judged({q: text for text, q in dev.items()}, qrels), [i for i in rows if i.query not in dev]


def _judged(queries: Path, qrels: Path, products: set[str]) -> Judged:
    """Queries with their judgements of known products; judgements of other queries are warned of and left out."""
    asked, judged = read_queries(queries), read_qrels(qrels)
    check_ids(asked)
    unknown = judged.keys() - asked.keys()
    if unknown:
        log.warning("%s: %d judged queries are not in %s; they are left out", qrels, len(unknown), queries)
    kept = {q: {p: g for p, g in row.items() if p in products} for q, row in judged.items() if q in asked}
    lost = sum(len(judged[q]) - len(row) for q, row in kept.items())
    if lost:
        log.warning("%s: %d judgements name products that the catalogue lacks; they are left out", qrels, lost)
    return Judged(asked, {q: row for q, row in kept.items() if row})


def _cut(shop: Dataset, options: Options) -> Dataset:
    """With `quick` a small part of the shop: some queries, their judged products and others, what the log says of
    them."""
    if not options.quick:
        return shop
    random = np.random.default_rng(options.seed)
    parts = {name: _fewer(part, random) for name, part in shop.parts.items()}
    judged = [p for part in parts.values() for row in part.qrels.values() for p in row]
    order = [shop.products[i].product_id for i in random.permutation(len(shop.products)).tolist()]
    wanted = set(list(dict.fromkeys([*judged, *order]))[: max(QUICK_PRODUCTS, len(set(judged)))])
    products = [p for p in shop.products if p.product_id in wanted]
    rows = [i for i in shop.log if i.product_id in wanted][:QUICK_LOG]
    return Dataset(products, rows, parts)


def _fewer(part: Judged, random: np.random.Generator) -> Judged:
    ids = [q for q in part.queries if q in part.qrels]
    kept = sorted(random.permutation(len(ids))[:QUICK_QUERIES].tolist())
    return Judged({ids[i]: part.queries[ids[i]] for i in kept}, {ids[i]: part.qrels[ids[i]] for i in kept})


def circumstances(mark: Mapping[str, Any], command: str, shop: Shop) -> dict[str, Any]:
    """What one needs to know to repeat the benchmark, and to judge its times."""
    versions = {}
    for name in ("gram", *PACKAGES):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    asked = {i.query for i in shop.data.log}
    return {
        "command": command,
        "data": mark["data"],
        "settings": mark["settings"],
        "products": len(shop.data.products),
        "interactions": len(shop.data.log),
        "queries": len(relevant(shop.qrels)),
        "queries_in_log": sum(query in asked for query in shop.queries.values()),
        "dev_queries": len(shop.data.dev_queries),
        "python": platform.python_version(),
        "versions": versions,
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "precision": "bfloat16" if bf16() else "float32",
    }


def cpu_name() -> str:
    """The processor's name as the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
