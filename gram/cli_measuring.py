"""The commands that measure: eval and bench; and convert and shop, which bring what they measure on."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from gram.apart import check_apart
from gram.display import printable
from gram.errors import DataError, SettingError
from gram.folders import check_free
from gram.locks import resolve

FILE = click.Path(path_type=Path, dir_okay=False)
FOLDER = click.Path(path_type=Path, file_okay=False)


def _known_device(_: click.Context, __: click.Parameter, name: str) -> str:
    if name != "cpu":
        from gram.coder.precision import check_device

        check_device(name)
    return name


def traits_option(command: Callable[..., Any]) -> Callable[..., Any]:
    help_ = "What it has beside a plain shop: rich, or some traits, comma between, as synonyms,conflicts=0.2."
    return click.option("--traits", default="plain", show_default=True, help=help_)(command)


def replace_option(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.option("--replace", is_flag=True, help="Replace what is there.")(command)


def device_option(command: Callable[..., Any]) -> Callable[..., Any]:
    help_ = "Where to compute: cpu, cuda, cuda:1, …"
    return click.option("--device", default="cpu", show_default=True, callback=_known_device, help=help_)(command)


def check_option(command: Callable[..., Any]) -> Callable[..., Any]:
    help_ = "Whether to compare files with their checksums when they are opened."
    return click.option("--check/--no-check", default=True, show_default=True, help=help_)(command)


def read_names(_: click.Context, option: click.Parameter, text: str | None) -> tuple[str, ...]:
    """Names with commas between; none where the option is not given. Raises click.UsageError for an empty one."""
    names = tuple(name.strip() for name in (text or "").split(",") if name.strip())
    if text is not None and not names:
        raise click.UsageError(f"{option.opts[0]} names nothing")
    return names


def only_option(command: Callable[..., Any]) -> Callable[..., Any]:
    groups = "codes, words, vectors, tokens"
    told = f"Find and rank by these features alone, comma between: {groups}, or some by their names."
    return click.option("--only", callback=read_names, help=told)(command)


def apart(_: click.Context, __: click.Parameter, file: Path | None) -> Path | None:
    """Of an option that names a file to write: raises DataError for one in a model or an index."""
    if file is not None and (file.is_file() or not file.exists()):
        check_apart(file)
    return file


def check_not_queries(output: Path, queries: Path) -> None:
    """Raises DataError where what is to be written would take the place of the queries that it answers."""
    if resolve(output) == resolve(queries):
        raise DataError(output, "is what the queries are in.", "name another file")


def _check_dataset(output: Path, replace: bool) -> None:
    """Raises DataError where a dataset's files would take the place of others, or come to stand in a model or index."""
    from gram.data.dataset import FILES

    check_apart(output / FILES[0])
    if not replace:
        check_free(output, *FILES)


@click.command("eval")
@click.argument("qrels", type=FILE)
@click.argument("runs", type=FILE, nargs=-1, required=True)
@click.option("--markdown", is_flag=True, help="Write the table in Markdown.")
def eval_command(qrels: Path, runs: tuple[Path, ...], markdown: bool) -> None:
    """Scores TREC runs: one row a run, with paired significance against the first.

    QRELS is query_id, product_id, grade; a grade of 2 or more is relevant where grades exceed 1.
    """
    from gram.data.log import read_qrels
    from gram.evaluation.comparison import table
    from gram.evaluation.measures import evaluate, read_run, relevant

    judged = read_qrels(qrels)
    if not relevant(judged):
        raise DataError(qrels, "no query has a relevant product.", "give grades of 1, or 2 where any is above 1.")
    names = [printable(r.name if [x.name for x in runs].count(r.name) == 1 else str(r)) for r in runs]
    results = {name: evaluate(judged, read_run(path)) for name, path in zip(names, runs, strict=True)}
    click.echo(table(results, reference=names[0] if len(names) > 1 else None, markdown=markdown))
    for name, result in results.items():
        notes = [
            f"{result.left_out} queries without a relevant product left out" if result.left_out else "",
            f"{result.unanswered} queries unanswered, counted as 0" if result.unanswered else "",
            f"{result.unknown} queries of the run are not judged" if result.unknown else "",
        ]
        if any(notes):
            click.echo(f"{name}: " + "; ".join(n for n in notes if n))


@click.command()
@click.argument("products", type=FILE, required=False)
@click.argument("log", required=False)
@click.argument("queries", type=FILE, required=False)
@click.argument("qrels", type=FILE, required=False)
@click.option("-o", "--output", type=FOLDER, required=True, help="The folder to work in; what it has is kept.")
@click.option("--shops", type=FOLDER, help="In place of the four files: a folder of shops, each a folder in it.")
@click.option("--logs", help="With --shops: parts of each shop's log. [default: whole,1/20,none]")
@click.option("--dev-queries", type=FILE, help="Queries to choose settings on; otherwise a tenth of the log's.")
@click.option("--dev-qrels", type=FILE, help="Their judgements.")
@click.option(
    "--only",
    default="",
    help="Make only these engines: names, comma between; ablation for GRAM's parts. With --shops: only these shops.",
)
@click.option("--quick", is_flag=True, help="A small part of the data and few steps: does it run at all?")
@click.option("--model", default="minilm", show_default=True, help="The encoder to start from: hub id or local folder.")
@click.option("--splade-model", default="", help="Weights that a second SPLADE row starts from.")
@click.option("--seed", default=0, type=click.IntRange(0), show_default=True)
@click.option("--steps", default=0, type=click.IntRange(0), help="Of GRAM's joint training; 0 chooses, as of `train`.")
@device_option
@click.option(
    "--max-unknown", default=0.05, show_default=True, help="Share of LOG rows that may name unknown products."
)
def bench(
    products: Path | None,
    log: str | None,
    queries: Path | None,
    qrels: Path | None,
    output: Path,
    shops: Path | None,
    logs: str | None,
    dev_queries: Path | None,
    dev_qrels: Path | None,
    only: str,
    max_unknown: float,
    **settings: Any,
) -> None:
    """Trains GRAM and its rivals on the same data, and writes one table with significance, cuts, costs and plots.

    Files as of `train` and `eval`. What the folder has is not made again, so that a stopped run goes on; it is refused
    with other data or settings than it was begun with.

    With --shops, one table of many shops: each with its log whole, a twentieth of its queries and none, by BM25, BM25 +
    published MiniLM, GRAM, and GRAM without codes, by codes and words, and by codes alone. A shop is a folder as
    `convert` and `shop` write one: products, log, test.queries, test.qrels, dev.queries, dev.qrels; log and dev may be
    missing.
    """
    from gram.bench.benchmark import run
    from gram.bench.shops import LOGS, find_shops, read_logs, run_shops
    from gram.bench.sources import Sources
    from gram.bench.workshop import Options

    options, command = Options(**settings), shlex.join(["gram", *sys.argv[1:]])
    names = [name.strip() for name in only.split(",") if name.strip()]
    if shops is not None:
        if any((products, dev_queries, dev_qrels, options.splade_model)):
            raise SettingError("--shops names all files of all shops. Fix: leave out other files and --splade-model")
        table = run_shops(find_shops(shops, names), read_logs(logs or LOGS), output, options, max_unknown, command)
    elif products is None or log is None or queries is None or qrels is None:
        raise click.UsageError("give PRODUCTS LOG QUERIES QRELS, or --shops FOLDER")
    elif logs is not None:
        raise SettingError("--logs goes with --shops. Fix: leave it out, or name a folder of shops")
    else:
        sources = Sources(products, log, queries, qrels, dev_queries, dev_qrels, max_unknown)
        table = run(sources, output, options, names, command)
    click.echo(table.read_text(encoding="utf-8"))
    click.echo(f"table: {table}")


@click.command()
@click.argument("dataset", type=click.Choice(["esci", "wands", "homedepot", "crowdflower", "chorus"]))
@click.argument("source", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=FOLDER, required=True, help="The folder to write.")
@click.option("--locale", default="us", show_default=True, help="Of ESCI.")
@click.option("--version", default="small", type=click.Choice(["small", "large"]), show_default=True, help="Of ESCI.")
@replace_option
@click.option("--brand", type=FILE, help="Home Depot: product_uid,brand.")
@click.option("--colour", type=FILE, help="Home Depot: product_uid,color.")
@click.option("--material", type=FILE, help="Home Depot: product_uid,material.")
@click.option("--attributes", type=FILE, help="Home Depot: Kaggle's attributes.csv.")
@click.option("--descriptions", type=FILE, help="Home Depot: Kaggle's product_descriptions.csv.")
@click.option(
    "--log-share",
    default=1.0,
    type=click.FloatRange(0, 1),
    show_default=True,
    help="Keep only this share of the log's queries.",
)
@click.option("--no-log", is_flag=True, help="No log: every judged query is one of dev and of test.")
def convert(
    dataset: str, source: Path, output: Path, locale: str, version: str, log_share: float, no_log: bool,
    replace: bool, **side: Path | None,
) -> None:  # fmt: skip
    """Reads a public dataset as its publisher ships it and writes products, log, queries and qrels.

    SOURCE is the dataset's folder (of Chorus a checkout of github.com/querqy/chorus), or Kaggle's train.csv (also
    zipped) for Home Depot and CrowdFlower.
    """
    from gram.data.public import chorus, crowdflower, esci, homedepot, wands

    if no_log and log_share < 1:
        raise click.UsageError("--no-log leaves no log of which --log-share could be kept: give one of the two")
    _check_dataset(output, replace)
    if dataset == "esci":
        data = esci.load(source, locale, "large" if version == "large" else "small")
    elif dataset == "wands":
        data = wands.load(source)
    elif dataset == "crowdflower":
        data = crowdflower.load(source)
    elif dataset == "chorus":
        data = chorus.load(source)
    else:
        data = homedepot.load(
            source,
            side["brand"],
            side["colour"],
            side["material"],
            attributes=side["attributes"],
            descriptions=side["descriptions"],
        )
    if log_share < 1:
        data = data.with_log_share(log_share)
    if no_log:
        data = data.without_log()
    data.write(output)
    click.echo(f"{len(data.products)} products, {len(data.log)} interactions: {output}")


@click.command()
@click.option("-o", "--output", type=FOLDER, required=True, help="The folder to write.")
@click.option("--products", default=4000, type=click.IntRange(1), show_default=True, help="How many products.")
@click.option("--interactions", default=0, type=click.IntRange(0), help="Rows of the log; 0 is five for each product.")
@click.option("--queries", default=0, type=click.IntRange(0), help="Of the log; 0 is three for four products.")
@click.option("--seed", default=0, type=click.IntRange(0), show_default=True)
@traits_option
@replace_option
def shop(output: Path, products: int, interactions: int, queries: int, seed: int, traits: str, replace: bool) -> None:
    """Generates a shop with searchers and writes products, log, queries and qrels, as `convert` does.

    Traits: slots, measures, synonyms, ranges, conflicts (shares from 0 to 1), head and position (exponent of how often
    queries are repeated, and bias of clicks to what stands high); docs/generated_shop.md tells what each is for.
    `rich` is all at once; `rich,synonyms=0` turns one of them off.
    """
    from gram.data.shop.generate import generate
    from gram.data.shop.traits import Traits

    chosen = Traits.parse(traits)
    _check_dataset(output, replace)
    data = generate(products, interactions or 5 * products, seed, queries or max(1, 3 * products // 4), chosen)
    data.write(output)
    click.echo(f"{len(data.products)} products, {len(data.log)} interactions: {output}; seed {seed}")
