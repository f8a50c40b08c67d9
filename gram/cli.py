"""The command line: train, index, search, check, eval, bench, convert, shop, demo."""

from __future__ import annotations

import logging
import os
import sqlite3
import sys
from contextlib import closing
from pathlib import Path
from typing import Any, NoReturn

import click

from gram.cli_causal import causal_options, causal_settings, code, queries
from gram.cli_measuring import (
    FILE,
    FOLDER,
    bench,
    check_option,
    convert,
    device_option,
    eval_command,
    replace_option,
    shop,
    traits_option,
)
from gram.cli_searching import search
from gram.cli_serving import backup, delete, export, keys, merge, serve, update
from gram.display import printable
from gram.errors import DataError, GramError, IndexFolderError, ModelError
from gram.folders import check_folder, check_free, explain_os_error, read_json
from gram.text.shop_tables import NAMES as TABLES

INTERRUPTED = 130
"""The exit code that shells give a program ended by Ctrl-C: 128 and the number of SIGINT."""

logger = logging.getLogger("gram.train")


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
            _forget_unwritten()
            _fail(ctx, str(explain_os_error(error)))
        except sqlite3.Error as error:
            fix = "see that its disk has space, and that this process may write it"
            _fail(ctx, f"the index's store could not be written ({error}). Fix: {fix}")
        except KeyboardInterrupt:
            _fail(ctx, "stopped", INTERRUPTED)


def _fail(ctx: click.Context, problem: str, code: int = 2) -> NoReturn:
    click.echo(f"gram: {printable(problem)}", err=True)
    ctx.exit(code)


def _forget_unwritten() -> None:
    """Has what the output could not take, of a full disk, go nowhere: Python would fail on it once more at its end."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


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


@main.command()
@click.argument("products", type=FILE)
@click.argument("log", metavar="LOG|none")
@click.option("-o", "--output", type=FOLDER, required=True, help="The model folder to write.")
@click.option("--backbone", default="minilm", show_default=True, help="minilm, scratch, a hub id, or a local folder.")
@click.option(
    "--language",
    default="porter",
    show_default=True,
    help="How words are stemmed: porter (English), german, french, … or none, for whole words.",
)
@click.option(
    "--tables",
    type=FOLDER,
    help=f"A folder of the shop's own tables, any of {', '.join(f'{name}.json' for name in TABLES)}; each takes the "
    "place of the default one of its name, which lies in gram/text/tables.",
)
@click.option("--steps", default=0, type=click.IntRange(0), help="Training steps; 0 chooses by the size of the data.")
@click.option("--seed", default=0, type=click.IntRange(0), show_default=True)
@click.option(
    "--max-unknown", default=0.05, show_default=True, help="Share of LOG rows that may name unknown products."
)
@click.option("--resume", is_flag=True, help="Go on from the last checkpoint of a run that was stopped.")
@replace_option
@click.option("--teacher", type=FOLDER, help="A model whose codes are targets too, such as a language model's.")
@causal_options
@device_option
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
    replace: bool,
    teacher: Path | None,
    device: str,
    **causal: Any,
) -> None:
    """Trains a model on a catalogue and a search log.

    PRODUCTS is Parquet, CSV, TSV or JSONL, also gzipped, with product_id and title; brand, category (A > B > C),
    description, price, value and attributes are known, any other column is an attribute. LOG has query, product_id and
    optionally weight, user_id, timestamp; the word `none` stands for no log. A model that is there is replaced with
    --replace only.
    """
    from gram.coder.base import LEXICON
    from gram.codes.mining import MiningSettings
    from gram.data.catalogue import read_products
    from gram.data.log import read_log
    from gram.text.words import check_language
    from gram.training.health import format_health
    from gram.training.joint import TrainingSettings
    from gram.training.pipeline import train as run
    from gram.training.run import Settings, is_begun

    if not (replace or causal["dry_run"] or (resume and is_begun(output))):
        check_free(output, LEXICON)
    language_model = causal_settings(causal, steps, backbone, teacher)
    mining = MiningSettings(language=check_language(language), tables=str(tables or ""))
    rows = read_products(products, progress=True)
    interactions = read_log(log, {p.product_id for p in rows}, max_unknown=max_unknown, progress=True)
    if log != "none" and not interactions:
        no_log = "it has no interaction with these products, so the model is trained without a log"
        logger.warning("%s: %s", log, no_log)
    click.echo(f"{len(rows)} products, {len(interactions)} interactions; seed {seed}", err=True)
    training = TrainingSettings(steps=steps, seed=seed)
    settings = Settings(
        backbone=backbone,
        training=training,
        causal=language_model,
        mining=mining,
        teacher=str(teacher or ""),
        device=device,
    )
    if causal["dry_run"]:
        from gram.training.causal.estimate import estimate

        click.echo(str(estimate(rows, interactions, settings)))
        return
    run(rows, interactions, output, settings, resume=resume)
    click.echo(format_health(read_json(output / "health.json")))
    click.echo(f"model: {output}")


@main.command("index")
@click.argument("model", type=FOLDER)
@click.argument("products", type=FILE)
@click.option("-o", "--output", type=FOLDER, required=True, help="The index folder to write.")
@click.option("--replace", is_flag=True, help="Drop what changed in the index live and PRODUCTS lacks.")
@check_option
@device_option
def index_command(model: Path, products: Path, output: Path, replace: bool, check: bool, device: str) -> None:
    """Reads a catalogue with a trained model and writes an index folder, in place of one that is there.

    Where products of that one came, changed or went live, and PRODUCTS does not say so, it stays, unless with
    --replace. Rules, keys, clicks and codes that were given stay.
    """
    from gram.coder.folder import read_config
    from gram.data.catalogue import read_products
    from gram.indexing import make_index

    read_config(model)  # what is no model is told before a long catalogue is read
    make_index(model, read_products(products, progress=True), output, device, check=check, replace=replace)
    click.echo(f"index: {output}")


@main.command("fit")
@click.argument("model", type=FOLDER)
@click.argument("index", type=FOLDER)
@click.argument("queries", type=FILE)
@click.argument("qrels", type=FILE, required=False)
@click.option("--seed", default=0, type=click.IntRange(0), show_default=True)
@device_option
def fit_command(model: Path, index: Path, queries: Path, qrels: Path | None, seed: int, device: str) -> None:
    """Fits the score of MODEL anew to judged queries of the shop in INDEX; nothing is trained again.

    QUERIES is query_id, query, and QRELS query_id, product_id, grade; or QUERIES alone is a log of clicks, as of
    `train`. It takes 30 queries with a relevant product. MODEL is changed where cross-validated
    measures are better than before by more than chance; a service that runs takes that in. Scores of some groups alone
    (`--only`) stay as they are. Clicks should be others than it was trained on.
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
    """Tells whether a model or an index is whole: every file in FOLDER is as it was written, an index's store too.

    The exit code is 0 where it is, and 2 where a file is missing or damaged, which is then named.
    """
    from gram.coder.base import LEXICON
    from gram.index.store import Store, store_path
    from gram.index.table import OFFSETS

    if any((folder / name).exists() for name in (OFFSETS, "products.jsonl")):
        check_folder(folder, f"gram index MODEL PRODUCTS -o {folder}", IndexFolderError)
        if store_path(folder).exists():
            with closing(Store.open(store_path(folder), read_only=True)) as store:
                store.check()
    elif any((folder / name).exists() for name in (LEXICON, "config.json")):
        check_folder(folder, f"gram train PRODUCTS LOG -o {folder}", ModelError)
    else:
        raise DataError(folder, "is no model and no index.", "name a folder that gram train or gram index wrote")
    click.echo(f"whole: {folder}")


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
@traits_option
@click.option("--serve", "serving", is_flag=True, help="Serve the shop at its end; an index that is there is served.")
@click.option("--port", default=8000, type=click.IntRange(1, 65535), show_default=True, help="Of --serve.")
def demo(
    output: Path, products: int, steps: int, backbone: str, seed: int, traits: str, serving: bool, port: int
) -> None:
    """Everything on a generated shop, in minutes: shop, training, index, search, and GRAM beside BM25."""
    from gram.data.shop.traits import Traits
    from gram.demo import run

    if not (serving and (output / "index" / "meta.json").is_file()):
        run(output, products, steps, backbone, seed, Traits.parse(traits))
    if serving:
        from gram.cli_serving import need_service

        need_service()
        from gram.serve.run import Serving
        from gram.serve.run import serve as serve_shop

        serve_shop(Serving(output / "index", port=port))


for command in (
    search, eval_command, bench, convert, shop, code, queries, serve, update, delete, merge, backup, export,
    keys,
):  # fmt: skip
    main.add_command(command)


if __name__ == "__main__":
    main()
