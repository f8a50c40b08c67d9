"""What the command line has for language models: their training's options, writing codes, and writing queries."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from gram.cli_measuring import FILE, FOLDER, apart, device_option, replace_option
from gram.errors import DataError, ModelError, SettingError

if TYPE_CHECKING:
    from gram.coder.causal.coder import CausalCoder
    from gram.training.causal.settings import CausalSettings

_OPTIONS = (
    click.option(
        "--coder",
        default="encoder",
        show_default=True,
        help="encoder, or a language model that writes the codes: a hub id, a local folder, or scratch.",
    ),
    click.option("--lora", default=16, show_default=True, type=click.IntRange(0), help="Rank of LoRA; 0: all weights."),
    click.option("--four-bit", is_flag=True, help="Hold frozen weights in four bits (needs a GPU)."),
    click.option("--checkpointing", is_flag=True, help="Save memory: compute the language model's activations twice."),
    click.option("--dtype", default="auto", show_default=True, help="auto, float32, bfloat16, float16."),
    click.option("--rate", default=0.0, type=click.FloatRange(0), help="The language model's rate; 0 chooses."),
    click.option("--batch", default=32, show_default=True, type=click.IntRange(1), help="Texts of a side in a step."),
    click.option("--co-training/--no-co-training", default=True, help="Whether a language model is co-trained."),
    click.option("--co-alignment/--no-co-alignment", default=True, help="Whether a language model is co-aligned."),
    click.option("--dry-run", is_flag=True, help="Say how long a language model's training would take, and stop."),
)


def causal_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of `gram train` that only a language model has."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def causal_settings(given: Mapping[str, Any], steps: int, backbone: str, teacher: Path | None) -> CausalSettings | None:
    """The settings of a language model; None where an encoder is trained.

    Raises SettingError for options that do not go together, and UsageError for a language model's without one.
    """
    if given["coder"] == "encoder":
        unused = _given_options([name for name in given if name != "coder"])
        if unused:
            raise click.UsageError(f"{', '.join(unused)}: of a language model's training. Name one with --coder")
        return None
    if teacher is not None or backbone != "minilm":
        raise SettingError("--backbone and --teacher are an encoder's. Fix: leave them out, or leave out --coder")
    from gram.coder.causal.language_model import LanguageModelSettings
    from gram.training.causal.settings import CausalSettings

    model = LanguageModelSettings(
        name=given["coder"],
        lora=given["lora"],
        four_bit=given["four_bit"],
        checkpointing=given["checkpointing"],
        dtype=given["dtype"],
    )
    return CausalSettings(
        model=model,
        steps=steps,
        co_training=-1 if given["co_training"] else 0,
        co_alignment=-1 if given["co_alignment"] else 0,
        batch=given["batch"],
        rate=given["rate"],
    )


def _given_options(names: Sequence[str]) -> list[str]:
    """Which of these options the command line has, as its help names them."""
    context = click.get_current_context()
    return [
        "/".join([*option.opts, *option.secondary_opts])
        for option in context.command.params
        if option.name in names and context.get_parameter_source(option.name) == ParameterSource.COMMANDLINE
    ]


@click.command()
@click.argument("model", type=FOLDER)
@click.argument("products", type=FILE, required=False)
@click.option(
    "--pending", "index", type=FOLDER, help="Code what came into this live index since, and give it the codes."
)
@click.option("--log", help="Code the queries of this log too: all, or with --head the most frequent ones.")
@click.option("--head", default=0, type=click.IntRange(0), help="So many queries; 0: all.")
@device_option
def code(model: Path, products: Path | None, index: Path | None, log: str | None, head: int, device: str) -> None:
    """Writes the codes of a catalogue, and of a log's queries, with a language model, ahead of `gram index`; or of what
    came into a live index since.

    They are kept in MODEL.codes.sqlite by text and model: what is there is not written again, a run that is stopped
    goes on, and `gram index` and `gram search` find it there.

    With --pending the index may be of another model, an encoder say, which coded its changes when they came: what MODEL
    writes of them beyond their texts they are given, for good, where nobody gave or took it. No service may be writing
    to the index meanwhile; those with --read-only take the codes in.
    """
    from gram.coder.causal.coder import CausalCoder
    from gram.coder.folder import check_model, load_coder

    if (products is None) == (index is None):
        raise click.UsageError("give PRODUCTS, or --pending INDEX")
    if log is not None and index is not None:
        raise click.UsageError("--log goes with PRODUCTS; --pending codes products alone")
    check_model(model)
    coder = load_coder(model, device)
    if not isinstance(coder, CausalCoder):
        raise ModelError(f"{model} is an encoder, which codes texts as fast as they come. Fix: use gram index at once")
    coder.cache.check_writable()
    if index is not None:
        _code_pending(coder, index)
    elif products is not None:
        _code_catalogue(coder, products, log, head)


def _code_pending(coder: CausalCoder, index: Path) -> None:
    """Gives what came into a live index the codes that a language model writes of it."""
    from gram.near_line import code_pending
    from gram.shop import Shop

    with Shop.open(index) as shop:
        done = code_pending(shop, coder)
    click.echo(f"{done.products} products coded, {done.given} codes given, {done.withdrawn} withdrawn: {index}")


def _code_catalogue(coder: CausalCoder, products: Path, log: str | None, head: int) -> None:
    """Writes the codes of a file's products, and of a log's queries, into the coder's cache."""
    from collections import Counter

    from gram.coder.base import Side
    from gram.data.catalogue import read_products
    from gram.data.log import read_log

    rows = read_products(products, progress=True)
    counts: Counter[str] = Counter()
    if log is not None:
        for interaction in read_log(log, {p.product_id for p in rows}, max_unknown=1.0, progress=True):
            counts[interaction.query] += interaction.weight  # type: ignore[assignment]
    queries = [query for query, _ in counts.most_common(head or None)]
    for texts, side in ((queries, Side.QUERY), (rows, Side.PRODUCT)):
        if texts:
            coder.write(texts, side, progress="writing codes")
    click.echo(f"codes of {len(rows)} products and {len(queries)} queries: {coder.cache.path}")


@click.command()
@click.argument("products", type=FILE)
@click.option("-o", "--output", type=FILE, required=True, callback=apart, help="The log to write, for `gram train`.")
@click.option("--endpoint", required=True, help="An OpenAI-compatible address, such as http://127.0.0.1:8000/v1.")
@click.option("--model", required=True, help="The language model's name there.")
@click.option("--per-product", default=3, show_default=True, type=click.IntRange(1, 20), help="Queries asked for.")
@click.option("--limit", default=0, type=click.IntRange(0), help="Only so many products, drawn at random; 0: all.")
@click.option("--threads", default=8, show_default=True, type=click.IntRange(1, 64), help="Requests at a time.")
@click.option("--key-variable", default="OPENAI_API_KEY", show_default=True, help="Where the key stands, if any.")
@click.option("--language", default="porter", show_default=True, help="How words are stemmed, as of `gram train`.")
@replace_option
def queries(
    products: Path, output: Path, endpoint: str, model: str, per_product: int, limit: int, threads: int,
    key_variable: str, language: str, replace: bool,
) -> None:  # fmt: skip
    """Has a language model write what searchers may type, as a log for a shop that has none.

    Sends the products' texts to the endpoint. Queries with which a keyword search does not find their product are left
    out. A run that is stopped goes on: what was written is kept in OUTPUT.written.jsonl. A log at OUTPUT that this
    command did not write is replaced with --replace only.
    """
    import numpy as np

    from gram.coder.causal.endpoint import Endpoint
    from gram.coder.causal.queries import check_output, keep_found, note_output, write_queries
    from gram.data.catalogue import read_products
    from gram.data.log import write_log
    from gram.text.analysis import Analyzer
    from gram.text.words import check_language

    source = Endpoint(endpoint, model, key_variable)
    analyzer = Analyzer(check_language(language))
    journal = output.with_name(output.name + ".written.jsonl")
    if not replace:
        check_output(output, journal)
    rows = read_products(products, progress=True)
    some = rows
    if limit and limit < len(rows):
        some = [rows[i] for i in np.sort(np.random.default_rng(0).choice(len(rows), limit, replace=False)).tolist()]
    answers = write_queries(some, source, journal, per_product, threads)
    kept = keep_found(rows, answers, analyzer)
    n = sum(len(queries) for _, queries in answers)
    if not kept:
        problem = f"would be empty: none of the {n} queries that {model} wrote finds its product."
        raise DataError(output, problem, f"look at what it wrote in {journal}, and choose a model that follows it")
    write_log(output, kept)
    note_output(output, journal)
    click.echo(f"{len(kept)} of {n} queries of {len(some)} products find their product: {output}")
