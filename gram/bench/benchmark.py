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

import logging
import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from gram.bench.cuts import by_training, misspelt_queries, relevance_rate
from gram.bench.latency import latency
from gram.bench.plots import CURVE, figure_class
from gram.bench.rows import ENTRANTS, select_entrants
from gram.bench.sources import Sources, cut_short, read_sources
from gram.bench.workshop import Entrant, Options, Shop, Workshop, bf16, read_shop
from gram.coder.memory import keep_freed_memory
from gram.errors import DataError, SettingError
from gram.evaluation.measures import Run, evaluate, read_run, relevant, write_run
from gram.folders import new_folder, read_json, write_json
from gram.locks import lock_folder

log = logging.getLogger("gram.bench")

DEPTH = 300
MEASURES = ("R@10", "R@50", "R@100", "R@300", "nDCG@10", "RR")
PACKAGES = ("numpy", "torch", "transformers", "sentence-transformers", "bm25s", "ir-measures", "hnswlib", "faiss-cpu")


def run(sources: Sources, output: Path, options: Options, only: Sequence[str] = (), command: str = "") -> Path:
    """Makes what is missing of the benchmark's folder and writes its table; returns the table's path.

    `only` names engines, and "ablation" for GRAM without its parts; empty for all. Those made before stay in the table.

    Raises:
        SettingError: a folder begun with other data or settings; an engine that is not known.
        DataError: a folder of something else, one that another process works in, or a file that cannot be read.
        MissingExtra: without the extras `eval` and `bench`.
    """
    from gram.bench.ablation import ablate
    from gram.bench.report import write_report

    figure_class()  # what is needed at the end had better be missed now
    evaluate({}, {})

    if (sources.dev_queries is None) != (sources.dev_qrels is None):
        raise SettingError("a dev part is queries and judgements. Fix: give both --dev-queries and --dev-qrels")
    with_ablation = not only or "ablation" in only
    named = [name for name in only if name != "ablation"]
    entrants = select_entrants(named + ["gram"] * (with_ablation and bool(only)), options)
    with lock_folder(output):
        mark = begin(output, sources.hashes(), options)
        shop = open_shop(output, sources, options)
        write_json(output / "bench.json", circumstances(mark, [*commands_of(output), command], shop))
        keep_freed_memory()  # as GRAM's own training does
        workshop = Workshop(output, shop.data, options, ENTRANTS)
        for entrant in entrants:
            make(workshop, entrant, shop)
        if with_ablation:
            ablate(workshop, shop.queries, shop.qrels)
        return write_report(output, shop.data, shop.queries, shop.qrels)


def begin(output: Path, data: Mapping[str, str], options: Options) -> dict[str, Any]:
    """Marks a new folder with its data, as hashes, and settings, or checks that they are those it was begun with."""
    mark = {
        "data": dict(data),
        "settings": {k: v for k, v in asdict(options).items() if v != "" and k != "device"},
    }
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
        others = [file for file in output.iterdir() if file != path]  # a mark alone: of a benchmark that was refused
        if changed and others:
            what = f"other {part} ({', '.join(changed)})"
            raise SettingError(f"{output} was begun with {what}. Fix: name another folder with -o, or give the same")
    mark["settings"] = old["settings"] | mark["settings"]
    write_json(path, mark)
    return mark


def make(workshop: Workshop, entrant: Entrant, shop: Shop) -> None:
    """Trains one engine, searches, times and measures it: each stage once."""
    folder, name = workshop.folder, entrant.name
    if (folder / "figures" / f"{name}.json").is_file():
        return
    times = train_engine(workshop, entrant)
    clean, wrong = search_queries(workshop, times, shop.queries), folder / "runs" / f"{name}.misspelt.trec"
    if not wrong.is_file():
        write_run(wrong, workshop.engine(name).search_many(misspelt_queries(shop.queries, workshop.options.seed), 100))
    if "index_bytes" not in times:
        engine = workshop.engine(name)
        times["index_bytes"], times["settings"] = engine.index_bytes, engine.settings
    if "latency" not in times:
        workshop.close()
        times["latency"] = latency(folder, name)
    figures = measure_run(read_run(clean), read_run(wrong), shop, workshop.options.seed) | times.kept
    write_json(folder / "figures" / f"{name}.json", figures | {"name": name})
    log.info("%s: %s", name, ", ".join(f"{m} {figures['mean'][m]:.3f}" for m in MEASURES))


def train_engine(workshop: Workshop, entrant: Entrant) -> Times:
    """Trains one engine, unless it was; what its stages took."""
    times = Times(workshop.folder / "times" / f"{entrant.name}.json")
    if times.take("training_seconds", lambda: entrant.train(workshop, workshop.folder_of(entrant.name))):
        times["device"] = device_name(workshop.options.device)
        log.info("%s: trained in %.0f s", entrant.name, times["training_seconds"])
    return times


def search_queries(workshop: Workshop, times: Times, queries: Mapping[str, str]) -> Path:
    """The file of a trained engine's run for the test queries, searched for unless it was; `times` are the engine's."""
    name = times.path.stem
    path = workshop.folder / "runs" / f"{name}.trec"
    if not path.is_file() or "search_seconds" not in times:
        engine = workshop.engine(name)
        begun = time.perf_counter()
        found = engine.search_many(queries, DEPTH)
        times["search_seconds"] = time.perf_counter() - begun
        write_run(path, found, tag=name)
    return path


def measure_run(found: Run, misspelt: Run, shop: Shop, seed: int) -> dict[str, Any]:
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


def open_shop(output: Path, sources: Sources, options: Options) -> Shop:
    """The shop that the engines get, kept in `output`/data, where the timing process reads it too."""
    if not (output / "data" / "meta.json").is_file():
        read = read_sources(sources, options.seed)
        if options.quick:
            read = cut_short(read, options.seed)
        with new_folder(output / "data") as folder:
            read.write(folder)
            write_json(folder / "meta.json", {"products": len(read.products), "interactions": len(read.log)})
    return read_shop(output / "data")


def commands_of(output: Path) -> list[str]:
    """The commands that the folder's figures were made by so far, the first one first."""
    path = output / "bench.json"
    found: list[str] = read_json(path)["commands"] if path.is_file() else []
    return found


def circumstances(mark: Mapping[str, Any], commands: Sequence[str], shop: Shop) -> dict[str, Any]:
    """What one needs to know to repeat the benchmark, and to judge its times."""
    queries = {i.query for i in shop.data.log}
    return {
        "commands": list(dict.fromkeys(commands)),
        "data": mark["data"],
        "settings": mark["settings"],
        "products": len(shop.data.products),
        "interactions": len(shop.data.log),
        "queries": len(relevant(shop.qrels)),
        "queries_in_log": sum(query in queries for query in shop.queries.values()),
        "dev_queries": len(shop.data.dev_queries),
        **machine(),
    }


def machine() -> dict[str, Any]:
    """What figures are computed on and with."""
    versions = {}
    for name in ("gram", *PACKAGES):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return {"python": platform.python_version(), "versions": versions, "cpu": cpu_name(), "cores": os.cpu_count()}


def device_name(device: str) -> str:
    """A device, by its name where it is a GPU, and what it computes in."""
    import torch

    name = torch.cuda.get_device_name(device) if device.startswith("cuda") else device
    return f"{name}, {'bfloat16' if bf16(device) else 'float32'}"


def cpu_name() -> str:
    """The processor's name as the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
