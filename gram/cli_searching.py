"""The command that searches: one query answered as the service answers it, or a file's as a run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import click
from tqdm import tqdm

from gram.answer import DEEPEST, SearchRequest, SearchResult, check_request
from gram.cli_measuring import (
    FILE,
    FOLDER,
    apart,
    check_not_queries,
    check_option,
    device_option,
    only_option,
    read_names,
)
from gram.data.log import read_queries
from gram.display import format_hits, printable
from gram.evaluation.measures import Run, check_ids, ranking, write_run
from gram.index.filters import parse_filter
from gram.search import Searcher
from gram.shop import Shop
from gram.text.prices import read_price

NO_WORD = "nothing found: the query has no word"


@click.command()
@click.argument("index", type=FOLDER)
@click.argument("query", required=False)
@click.option("-k", default=10, type=click.IntRange(1, DEEPEST), show_default=True, help="How many products.")
@click.option("--explain", is_flag=True, help="Show the shared codes and the features behind each hit.")
@click.option("--queries", type=FILE, help="A file of query_id, query to answer instead of one query.")
@click.option("--run", "run_file", type=FILE, callback=apart, help="Where to write the TREC run of --queries.")
@click.option("--model", type=FOLDER, help="The model folder, where it is not where the index says.")
@click.option("--value", type=float, help="Weight of a product's value (rank in 0 … 1) in the score.")
@click.option("--filter", "filter_", default="", help='Which products may be found: brand = "nike" AND price < 50.')
@click.option("--facets", callback=read_names, help="Fields whose values are counted, comma between.")
@click.option(
    "--sort", default="", help="A field that filters know, one, to sort what fits by; -price for falling order."
)
@click.option(
    "--fit", type=float,
    help="How near to the query's best a product fits: 0 (all) to 1, .38 if not given. With --run, what "
    "does not is left out of the run.",
)  # fmt: skip
@only_option
@check_option
@device_option
def search(
    index: Path,
    query: str | None,
    k: int,
    explain: bool,
    queries: Path | None,
    run_file: Path | None,
    model: Path | None,
    value: float | None,
    filter_: str,
    facets: tuple[str, ...],
    sort: str,
    fit: float | None,
    only: tuple[str, ...],
    check: bool,
    device: str,
) -> None:
    """Answers one QUERY as the service does, or all of a file as a TREC run (query_id Q0 product_id rank score tag).

    Without a QUERY --filter, --sort or --facets list products. What fits the query comes first, then what is near.
    """
    request = SearchRequest(query or "", k, 0, filter_, facets, sort, "", explain, value, fit)
    _check(query, queries, run_file, request)
    if queries is not None and run_file is not None:
        check_not_queries(run_file, queries)
    texts = None if queries is None else read_queries(queries)
    with Shop.open(index, model, device, read_only=True, check=check, watching=False, only=only) as shop:
        searcher = shop.live.searcher
        if texts is None:
            result = shop.search(request)
            click.echo("\n".join(_tell(searcher, request, result, _notes(shop, request, result))))
            _warn(result.warnings)
        else:
            _write(run_file, _answer_all(shop, request, texts))
    spent = getattr(searcher.coder, "spent", None)
    if spent is not None:  # what a language model's codes took on the query's path, if one codes queries
        click.echo(str(spent), err=True)


def _check(query: str | None, queries: Path | None, run_file: Path | None, request: SearchRequest) -> None:
    """Raises click.UsageError for options that do not go together, SettingError for numbers out of range."""
    lists = bool(request.filter or request.sort or request.facets)
    if query is not None and queries is not None:
        raise click.UsageError("give a QUERY, or --queries FILE with --run FILE, not both")
    if query is None and queries is None and not lists:
        raise click.UsageError("give a QUERY, or --queries FILE with --run FILE, or list products by a --filter")
    if (queries is None) != (run_file is None):
        raise click.UsageError("--queries FILE needs --run FILE, where its run is written, and --run needs --queries")
    if queries is not None and request.explain:
        raise click.UsageError("--explain tells of one QUERY; a run has no room for it")
    if queries is not None and request.facets:
        raise click.UsageError("--facets counts for one QUERY; a run has no room for it")
    check_request(request)


def _tell_reading(searcher: Searcher, query: str, read_as: str) -> list[str]:
    """What of the query was left out, or what it was read as, where that is something else."""
    left_out = searcher.read(query).left_out
    return [printable(left_out or f"read as: {read_as}")] if left_out or read_as != query else []


def _notes(shop: Shop, request: SearchRequest, result: SearchResult) -> dict[str, str]:
    """Product id → what the hits are sorted by, and their price where the query or the filter asks one."""
    priced = "price" in parse_filter(request.filter).names or read_price(request.query) is not None
    names = dict.fromkeys(filter(None, [request.sort_field, "price" if priced else ""]))
    found = {hit.product_id: shop.live.snapshot.find(hit.product_id) for hit in result.hits}
    values = {p: [(n, there[0].fields.sort_value(n, there[1])) for n in names] for p, there in found.items() if there}
    shown = {p: [(n, f"{v:.12g}" if isinstance(v, float) else v) for n, v in pairs] for p, pairs in values.items()}
    return {p: ", ".join(f"{n} {value}" for n, value in pairs if value is not None) for p, pairs in shown.items()}


def _tell(searcher: Searcher, request: SearchRequest, result: SearchResult, notes: Mapping[str, str]) -> list[str]:
    """An answer as lines: how the query was read, the hits, those that do not fit behind the others as on the page, how
    many fit, and facets of these."""
    fitting, near = ([hit for hit in result.hits if hit.fits is fits] for fits in (True, False))
    lines = _tell_reading(searcher, request.query, result.read_as)
    lines += [printable(f"redirect: {result.redirect}")] if result.redirect else []
    lines += [format_hits(fitting, request.explain, notes=notes)] if fitting else []
    if near:
        lines += ["near, but not quite what was asked:" if result.found else "nothing fits; the nearest:"]
        lines += [format_hits(near, request.explain, len(fitting) + 1, notes)]
    elif not fitting:
        wordless = not (request.filter or searcher.lexicon.analyzer.stems(request.query))
        nothing = (
            "nothing fits: without --sort the nearest are shown"
            if request.sort and request.query.strip()
            else "nothing found"
        )
        lines += [NO_WORD if wordless else nothing]
    lines += [f"{result.found} product{'s fit' if result.found > 1 else ' fits'}"] if result.found else []
    for name, found in result.facets.items():
        values, ranges = found["values"], found.get("ranges", ())
        counts = [f"{value} {count}" for value, count in list(values.items())[:10]]
        if sum(part["count"] for part in ranges) >= sum(values.values()):  # one brand that is a number says little
            counts = [f"{part['from']:g} to {part['to']:g} {part['count']}" for part in ranges]
        lines.append(printable(f"{name}: {', '.join(counts) or 'nothing that was found has it'}"))
    return lines


def _answer_all(shop: Shop, request: SearchRequest, texts: Mapping[str, str]) -> Run:
    """Query id → product id → score of what the shop answers to each text, asked as the request asks; with a `fit` what
    does not fit is left out."""
    check_ids([*texts, *(i for segment in shop.live.snapshot.segments for i in segment.index.table.ids.tolist())])
    answers = tqdm(shop.search_many(list(texts.values()), request), "searching", len(texts), unit="query")
    run: Run = {}
    warnings: dict[str, None] = {}
    for query_id, result in zip(texts, answers, strict=True):
        run[query_id] = {hit.product_id: hit.score for hit in result.hits if request.fit is None or hit.fits}
        warnings |= dict.fromkeys(result.warnings)
    _warn(warnings)
    return run


def _warn(warnings: Iterable[str]) -> None:
    for warning in warnings:
        click.echo(f"warning: {printable(warning)}", err=True)


def _write(run_file: Path | None, run: Run) -> None:
    """Writes a run of products in their order: their own scores, or minus the ranks where a sort, a rule or a tie puts
    them otherwise."""
    assert run_file is not None
    ranked = {
        query_id: scores if ranking(scores) == list(scores) else {p: -float(rank) for rank, p in enumerate(scores, 1)}
        for query_id, scores in run.items()
    }
    write_run(run_file, ranked)
    click.echo(f"run: {run_file}")
