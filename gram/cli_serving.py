"""The commands of a live shop: serve, update, delete, merge, backup, export, keys."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import click

from gram.cli_measuring import FILE, FOLDER, apart, check_not_queries, only_option
from gram.display import printable
from gram.errors import MissingExtra, SettingError
from gram.export import FORMS, write_products, write_queries

MERGE_FROM = 5_000
"""Changes from which `gram update` merges by itself."""


@click.command()
@click.argument("index", type=FOLDER)
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option("--port", default=8000, type=click.IntRange(1, 65535), show_default=True, help="The port to listen on.")
@click.option("--model", type=FOLDER, help="The model folder, where it is not where the index says.")
@click.option("--read-only", is_flag=True, help="Take no changes; several such processes may serve one index.")
@click.option(
    "--drain", default=2.0, type=click.FloatRange(0, 600), show_default=True,
    help="Seconds for which SIGTERM leaves it answering, while /ready says stopping.",
)  # fmt: skip
@click.option(
    "--workers", default=1, type=click.IntRange(1, 64), show_default=True,
    help="Processes that answer; one of them takes the changes.",
)  # fmt: skip
@click.option(
    "--allow-origin", "origins", multiple=True,
    help="Let pages of this site, https://shop.example, or of any (*) ask from the browser; may be repeated.",
)  # fmt: skip
@only_option
@click.option("--get", "path", help="Answer one request, such as '/search?q=sofa', print it and end.")
def serve(index: Path, workers: int, path: str | None, **options: Any) -> None:
    """Serves INDEX over HTTP, with a page at /: searching, updating, steering, collecting clicks (docs/http.md).

    On this machine's own address no key is needed until there is one (`gram keys`); on any other one is. SIGHUP, or
    POST /reload, takes in an index that was written anew.
    """
    if hasattr(signal, "SIGHUP") and not path:  # until it is heeded; what is written meanwhile is taken in anyway
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    need_service()
    from gram.serve.run import Serving, answer_once
    from gram.serve.run import serve as run
    from gram.serve.workers import serve_by_many

    if path:
        status, body = answer_once(index, options["model"], path, options["only"])
        click.echo(body)
        if status >= 400:
            click.get_current_context().exit(1)
        return
    serving = Serving(index, **options)
    if workers > 1:
        serve_by_many(serving, workers)
    else:
        run(serving)


def need_service() -> None:
    """To be called before `gram.serve` is imported. Raises MissingExtra where what it stands on is not installed.

    A folder of somebody else's that prometheus_client is told to count in is forgotten, as it looks for one when it is
    imported: one process counts for itself, and several have a folder that they make.
    """
    os.environ.pop("PROMETHEUS_MULTIPROC_DIR", None)
    try:
        import gram.serve.workers  # noqa: F401
    except ImportError as error:
        raise MissingExtra("gram serve", "serve") from error


@click.command()
@click.argument("index", type=FOLDER)
@click.argument("products", type=FILE)
@click.option("--model", type=FOLDER, help="The model folder, where it is not where the index says.")
def update(index: Path, products: Path, model: Path | None) -> None:
    """Adds the products of a file to INDEX, in place of those of the same ids; the others stay."""
    from gram.data.catalogue import read_products
    from gram.shop import Shop

    rows = read_products(products, progress=True)
    with Shop.open(index, model) as shop:
        shop.update(rows)
        if sum(len(segment.alive) for segment in shop.live.snapshot.segments[1:]) >= MERGE_FROM:
            shop.live.merge()
        click.echo(f"{len(rows)} products updated, {len(shop)} in all: {index}")


@click.command()
@click.argument("index", type=FOLDER)
@click.argument("ids", nargs=-1)
@click.option("--file", "file", type=FILE, help="A file of ids, one a line.")
@click.option("--model", type=FOLDER, help="The model folder, where it is not where the index says.")
def delete(index: Path, ids: tuple[str, ...], file: Path | None, model: Path | None) -> None:
    """Takes the products of these ids out of INDEX."""
    from gram.shop import Shop

    ids_given = [*ids, *(file.read_text(encoding="utf-8").split("\n") if file else ())]
    ids_given = [product_id.strip() for product_id in ids_given if product_id.strip()]
    if not ids_given:
        raise SettingError("there are no ids. Fix: name some, or a file of them with --file")
    with Shop.open(index, model) as shop:
        unknown = [product_id for product_id in ids_given if shop.product(product_id) is None]
        gone = shop.delete(ids_given)
        if unknown:
            click.echo(printable(f"not there: {', '.join(unknown[:20])}"), err=True)
        click.echo(f"{gone} of {len(ids_given)} products deleted, {len(shop)} left: {index}")


@click.command()
@click.argument("index", type=FOLDER)
@click.option("--model", type=FOLDER, help="The model folder, where it is not where the index says.")
def merge(index: Path, model: Path | None) -> None:
    """Writes what changed in INDEX and what did not as one segment, with statistics of its own.

    It may run beside a service, which goes on answering and takes the new segment in.
    """
    from gram.shop import Shop

    with Shop.open(index, model, read_only=True) as shop:
        click.echo(f"{shop.live.merge()} products: {index}")


@click.command()
@click.argument("index", type=FOLDER)
@click.option("-o", "--output", type=FOLDER, required=True, help="The folder to write, new or empty.")
@click.option("--model", type=FOLDER, help="The model folder, where it is not where the index says.")
def backup(index: Path, output: Path, model: Path | None) -> None:
    """Copies INDEX, with what changed in it, its rules, keys and clicks, and its model into one folder.

    The copy is served from there, or wherever the folder is moved. It may be made beside a service and whatever writes
    INDEX or its model, none of which waits for it; what was answered before it began is in it.
    """
    from gram.backups import backup as write_copy

    click.echo(f"copy: {write_copy(index, output, model)}")


@click.command()
@click.argument("index", type=FOLDER)
@click.option(
    "-o", "--output", type=FILE, required=True, callback=apart,
    help="The JSONL file to write, also gzipped (.jsonl.gz).",
)  # fmt: skip
@click.option("--queries", type=FILE, help="Export these (query_id, query) in place of the products.")
@click.option(
    "--form", type=click.Choice(FORMS), default="names", show_default=True,
    help="names: {code: weight}, for Elasticsearch and OpenSearch; ids: indices and values, for Qdrant and Milvus.",
)  # fmt: skip
@click.option("--model", type=FOLDER, help="The model folder, where it is not where the index says.")
def export(index: Path, output: Path, queries: Path | None, form: str, model: Path | None) -> None:
    """Writes the codes of INDEX's products as sparse vectors, for an engine with a field for these.

    A query's vector (`--queries`, or `gram.open(INDEX).vector(QUERY)`) and a product's score their dot product. Changes
    that came since `gram index` are in it.
    """
    from gram.data.log import read_queries
    from gram.shop import Shop

    if queries is not None:
        check_not_queries(output, queries)
    texts = None if queries is None else read_queries(queries)
    with Shop.open(index, model, read_only=True, watching=False) as shop:
        snapshot = shop.live.snapshot
        n = write_products(snapshot, output, form) if texts is None else write_queries(snapshot, texts, output, form)
    click.echo(f"{n} {'products' if texts is None else 'queries'}: {output}")


@click.group()
@click.argument("index", type=FOLDER)
@click.pass_context
def keys(ctx: click.Context, index: Path) -> None:
    """Makes, lists and removes the keys of the service of INDEX."""
    from gram.index.segment import read_meta
    from gram.index.store import Store, store_path

    read_meta(index)
    store = Store.open(store_path(index))
    ctx.call_on_close(store.close)
    ctx.obj = store


@keys.command("add")
@click.argument("name")
@click.option(
    "--role", default="search", show_default=True, help="search, write or admin; each may do the ones before."
)
@click.pass_obj
def add_key(store: object, name: str, role: str) -> None:
    """Makes a key and prints it, this once: it is kept as a hash."""
    from gram.index.store import Store
    from gram.serve.keys import make_key

    assert isinstance(store, Store)
    click.echo(make_key(store, name, role))


@keys.command("list")
@click.pass_obj
def list_keys(store: object) -> None:
    """Names the keys and their roles."""
    from gram.index.store import Store

    assert isinstance(store, Store)
    for name, entry in store.all("key").items():
        click.echo(f"{name}\t{entry['role']}")


@keys.command("remove")
@click.argument("name")
@click.pass_obj
def remove_key(store: object, name: str) -> None:
    """Removes a key; it lets nobody in from then on."""
    from gram.index.store import Store

    assert isinstance(store, Store)
    if not store.remove("key", name):
        raise SettingError(f"there is no key {name!r}. Fix: gram keys INDEX list")
