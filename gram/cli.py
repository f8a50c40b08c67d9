"""The command line: train, index, search, check, eval, bench, convert, demo."""

from __future__ import annotations

import logging
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import click

from gram.display import format_hit, printable
from gram.errors import DataError, GramError, IndexFolderError, ModelError
from gram.folders import check_folder, explain_os_error, read_json

INTERRUPTED = 130
"""The exit code that shells give a program ended by Ctrl-C: 128 and the number of SIGINT."""
FILE = click.Path(path_type=Path, dir_okay=False)
FOLDER = click.Path(path_type=Path, file_okay=False)


class _Commands(click.Group):
    """Shows the errors that GRAM raises on purpose, and those of the system, as one line, without a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except GramError as error:
            _fail(ctx, str(error))
        except BrokenPipeError:
            raise  # nobody reads on, as with `| head`: click ends without a word
        except OSError as error:
            _fail(ctx, str(explain_os_error(error)))
        except KeyboardInterrupt:
            _fail(ctx, "stopped", INTERRUPTED)


def _fail(ctx: click.Context, problem: str, code: int = 2) -> NoReturn:
    click.echo(f"gram: {printable(problem)}", err=True)
    ctx.exit(code)


class _OneLine(logging.Formatter):
    """A message holds ids and titles as shops have them."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="gram")
@click.option("-v", "--verbose", is_flag=True, help="Say more of what is being done.")
def main(verbose: bool) -> None:
    """Generative retrieval for shops: finds products by readable codes that queries and products share."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_OneLine("%(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("gram").setLevel(logging.DEBUG if verbose else logging.INFO)


def _known_device(_: click.Context, __: click.Parameter, name: str) -> str:
    if name != "cpu":
        from gram.coder.precision import check_device

        check_device(name)
    return name


def _device_option(command: Callable[..., Any]) -> Callable[..., Any]:
    help_ = "Where to compute: cpu, cuda, cuda:1, …"
    return click.option("--device", default="cpu", show_default=True, callback=_known_device, help=help_)(command)


def _check_option(command: Callable[..., Any]) -> Callable[..., Any]:
    help_ = "Whether to compare files with their checksums when they are opened."
    return click.option("--check/--no-check", default=True, show_default=True, help=help_)(command)


@main.command()
@click.argument("products", type=FILE)
@click.argument("log")
@click.option("-o", "--output", type=FOLDER, required=True, help="The model folder to write.")
@click.option("--backbone", default="minilm", show_default=True, help="minilm, scratch, a hub id, or a local folder.")
@click.option(
    "--language",
    default="porter",
    show_default=True,
    help="How words are stemmed: porter (English), german, french, … or none, for whole words.",
)
@click.option("--tables", type=FOLDER, help="A folder of the shop's own units, stop words and seeds of slots.")
@click.option("--steps", default=0, type=click.IntRange(0), help="Training steps; 0 chooses by the size of the data.")
@click.option("--seed", default=0, type=click.IntRange(0), show_default=True)
@click.option(
    "--max-unknown", default=0.05, show_default=True, help="Share of LOG rows that may name unknown products."
)
@click.option("--resume", is_flag=True, help="Go on from the last checkpoint of a run that was stopped.")
@_device_option
def train(
    products: Path,
    log: str,
    output: Path,
    backbone: str,
    language: str,
    tables: Path | None,
    steps: int,
    seed: int,
    max_unknown: float,
    resume: bool,
    device: str,
) -> None:
    """Trains a model on a catalogue and a search log.

    PRODUCTS is Parquet, CSV, TSV or JSONL, also gzipped, with product_id and title; brand, category (A > B > C),
    description, price, value and attributes are known, any other column is an attribute. LOG has query, product_id and
    optionally weight, user_id, timestamp; the word `none` stands for no log.
    """
    from gram.codes.mining import MiningSettings
    from gram.data.catalogue import read_products
    from gram.data.log import read_log
    from gram.text.words import check_language
    from gram.training.health import format_health
    from gram.training.joint import TrainingSettings
    from gram.training.pipeline import train as run
    from gram.training.run import Settings

    mining = MiningSettings(language=check_language(language), tables=str(tables or ""))
    rows = read_products(products, progress=True)
    interactions = read_log(log, {p.product_id for p in rows}, max_unknown=max_unknown, progress=True)
    click.echo(f"{len(rows)} products, {len(interactions)} interactions; seed {seed}", err=True)
    training = TrainingSettings(steps=steps, seed=seed)
    settings = Settings(backbone=backbone, training=training, mining=mining, device=device)
    run(rows, interactions, output, settings, resume=resume)
    click.echo(format_health(read_json(output / "health.json")))
    click.echo(f"model: {output}")


@main.command("index")
@click.argument("model", type=FOLDER)
@click.argument("products", type=FILE)
@click.option("-o", "--output", type=FOLDER, required=True, help="The index folder to write.")
@_check_option
@_device_option
def index_command(model: Path, products: Path, output: Path, check: bool, device: str) -> None:
    """Reads a catalogue with a trained model and writes an index folder."""
    from gram.data.catalogue import read_products
    from gram.indexing import make_index

    make_index(model, read_products(products, progress=True), output, device, check=check)
    click.echo(f"index: {output}")


@main.command()
@click.argument("index", type=FOLDER)
@click.argument("query", required=False)
@click.option("-k", default=10, show_default=True, help="How many products.")
@click.option("--explain", is_flag=True, help="Show the shared codes and the features behind each hit.")
@click.option("--queries", type=FILE, help="A file of query_id, query to answer instead of one query.")
@click.option("--run", "run_file", type=FILE, help="Where to write the TREC run of --queries.")
@click.option("--model", type=FOLDER, help="The model folder, where it is not where the index says.")
@click.option("--value", type=float, help="Weight of a product's value (rank in 0 … 1) in the score.")
@click.option("--only", default="", help="Find and rank by these alone, comma between: codes, words, vectors, tokens.")
@_check_option
@_device_option
def search(
    index: Path,
    query: str | None,
    k: int,
    explain: bool,
    queries: Path | None,
    run_file: Path | None,
    model: Path | None,
    value: float | None,
    only: str,
    check: bool,
    device: str,
) -> None:
    """Answers one QUERY, or all of a file as a TREC run (query_id Q0 product_id rank score tag)."""
    from gram.search import Searcher

    if (query is None) == (queries is None):
        raise click.UsageError("give a QUERY, or --queries FILE with --run FILE")
    if queries is not None and run_file is None:
        raise click.UsageError("--queries needs --run FILE, where the run is written")
    if queries is not None and explain:
        raise click.UsageError("--explain tells of one QUERY; a run has no room for it")
    if queries is None and run_file is not None:
        raise click.UsageError("--run needs --queries FILE, which it answers")
    searcher = Searcher.load(index, model, device, check=check)
    if value is not None:
        searcher = searcher.with_scorer(searcher.scorer.with_value(value))
    if only:
        searcher = searcher.only([name.strip() for name in only.split(",") if name.strip()])
    if queries is not None and run_file is not None:
        from gram.data.log import read_queries
        from gram.evaluation.measures import check_ids, write_run

        texts = read_queries(queries)
        check_ids([*texts, *searcher.index.table.ids.tolist()])
        write_run(run_file, searcher.search_many(texts, k, progress=True), tag="gram")
        click.echo(f"run: {run_file}")
        return
    read, left_out = searcher.read(str(query))
    for line in ([] if read == query or left_out else [f"read as: {read}"]) + ([left_out] if left_out else []):
        click.echo(printable(line))
    hits = searcher.search(str(query), k, explain)
    if not hits:
        click.echo("nothing found: the query has no word")
    for rank, hit in enumerate(hits, start=1):
        click.echo(f"{rank:3d}  {hit.score:7.3f}  {printable(hit.product_id)}  {printable(hit.title)}")
        if explain:
            click.echo(format_hit(hit))


@main.command("fit")
@click.argument("model", type=FOLDER)
@click.argument("index", type=FOLDER)
@click.argument("queries", type=FILE)
@click.argument("qrels", type=FILE, required=False)
@click.option("--seed", default=0, type=click.IntRange(0), show_default=True)
@_device_option
def fit_command(model: Path, index: Path, queries: Path, qrels: Path | None, seed: int, device: str) -> None:
    """Fits the score of MODEL anew to judged queries of the shop in INDEX; nothing is trained again.

    QUERIES is query_id, query, and QRELS query_id, product_id, grade; or QUERIES alone is a log of clicks, as of
    `train`. It takes 30 queries with a relevant product. MODEL is changed where cross-validated
    measures are better than before by more than chance. Clicks should be others than it was trained on.
    """
    from gram.bench.refit import read_judged, refit, write_scorer
    from gram.search import Searcher

    searcher = Searcher.load(index, model, device)
    texts, judged = read_judged(queries, qrels, searcher.index.table.ids.tolist())
    fitted = refit(searcher, texts, judged, seed)
    for name, before in fitted.before.items():
        click.echo(f"{name:8}  {before:.4f} -> {fitted.after[name]:.4f}")
    click.echo(f"{fitted.queries} queries, cross-validated; p = {fitted.p:.3f}")
    if not fitted.better:
        click.echo(f"no better by more than chance: {model} stays as it is")
        return
    write_scorer(model, fitted.scorer)
    click.echo(f"model: {model}")


@main.command()
@click.argument("folder", type=FOLDER)
def check(folder: Path) -> None:
    """Tells whether a model or an index is whole: every file in FOLDER is as it was written.

    The exit code is 0 where it is, and 2 where a file is missing or damaged, which is then named.
    """
    from gram.coder.base import LEXICON
    from gram.index.table import OFFSETS

    if any((folder / name).exists() for name in (OFFSETS, "products.jsonl")):
        check_folder(folder, f"gram index MODEL PRODUCTS -o {folder}", IndexFolderError)
    elif any((folder / name).exists() for name in (LEXICON, "config.json")):
        check_folder(folder, f"gram train PRODUCTS LOG -o {folder}", ModelError)
    else:
        raise DataError(folder, "is no model and no index.", "name a folder that gram train or gram index wrote")
    click.echo(f"whole: {folder}")


@main.command("eval")
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


@main.command()
@click.argument("products", type=FILE)
@click.argument("log")
@click.argument("queries", type=FILE)
@click.argument("qrels", type=FILE)
@click.option("-o", "--output", type=FOLDER, required=True, help="The folder to work in; what it has is kept.")
@click.option("--dev-queries", type=FILE, help="Queries to choose settings on; otherwise a tenth of the log's.")
@click.option("--dev-qrels", type=FILE, help="Their judgements.")
@click.option("--only", default="", help="Make only these engines: names, comma between; ablation for GRAM's parts.")
@click.option("--quick", is_flag=True, help="A small part of the data and few steps: does it run at all?")
@click.option("--model", default="minilm", show_default=True, help="The encoder to start from: hub id or local folder.")
@click.option("--splade-model", default="", help="Weights that a second SPLADE row starts from.")
@click.option("--seed", default=0, type=click.IntRange(0), show_default=True)
@click.option(
    "--max-unknown", default=0.05, show_default=True, help="Share of LOG rows that may name unknown products."
)
def bench(
    products: Path,
    log: str,
    queries: Path,
    qrels: Path,
    output: Path,
    dev_queries: Path | None,
    dev_qrels: Path | None,
    only: str,
    max_unknown: float,
    **settings: Any,
) -> None:
    """Trains GRAM and its rivals on the same data, and writes one table with significance, cuts, costs and plots.

    Files as of `train` and `eval`. What the folder has is not made again, so that a stopped run goes on; it is refused
    with other data or settings than it was begun with.
    """
    from gram.bench.benchmark import run
    from gram.bench.sources import Sources
    from gram.bench.workshop import Options

    sources = Sources(products, log, queries, qrels, dev_queries, dev_qrels, max_unknown)
    names = [name.strip() for name in only.split(",") if name.strip()]
    table = run(sources, output, Options(**settings), names, shlex.join(["gram", *sys.argv[1:]]))
    click.echo(table.read_text(encoding="utf-8"))
    click.echo(f"table: {table}")


@main.command()
@click.argument("dataset", type=click.Choice(["esci", "wands", "homedepot", "crowdflower"]))
@click.argument("source", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=FOLDER, required=True, help="The folder to write.")
@click.option("--locale", default="us", show_default=True, help="Of ESCI.")
@click.option("--version", default="small", type=click.Choice(["small", "large"]), show_default=True, help="Of ESCI.")
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
def convert(
    dataset: str, source: Path, output: Path, locale: str, version: str, log_share: float, **side: Path | None
) -> None:
    """Reads a public dataset as its publisher ships it and writes products, log, queries and qrels.

    SOURCE is the dataset's folder, or Kaggle's train.csv (also zipped) for Home Depot and CrowdFlower.
    """
    from gram.data.public import crowdflower, esci, homedepot, wands

    if dataset == "esci":
        data = esci.load(source, locale, "large" if version == "large" else "small")
    elif dataset == "wands":
        data = wands.load(source)
    elif dataset == "crowdflower":
        data = crowdflower.load(source)
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
    data.write(output)
    click.echo(f"{len(data.products)} products, {len(data.log)} interactions: {output}")


@main.command()
@click.option("-o", "--output", type=FOLDER, default=Path("gram-demo"), show_default=True, help="Where to work.")
@click.option("--products", default=4000, show_default=True, help="Products of the generated shop.")
@click.option(
    "--steps",
    default=90,
    type=click.IntRange(0),
    show_default=True,
    help="Training steps; 0 chooses by the size of the shop.",
)
@click.option("--backbone", default="minilm", show_default=True, help="minilm, scratch, a hub id, or a local folder.")
@click.option("--seed", default=0, type=click.IntRange(0), show_default=True)
def demo(output: Path, products: int, steps: int, backbone: str, seed: int) -> None:
    """Everything on a generated shop, in minutes: shop, training, index, search, and GRAM beside BM25."""
    from gram.demo import run

    run(output, products, steps, backbone, seed)
