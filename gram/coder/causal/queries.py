"""Pseudo-queries written by a language model behind an OpenAI-compatible endpoint: for shops without a log.

Searchers' words for what products say otherwise. A query is kept only where a keyword search finds its product with it,
so that what the model makes up is left out.
"""

from __future__ import annotations

import hashlib
import json
import logging
import queue
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO, TypeVar

import numpy as np
from tqdm import tqdm

from gram.coder.base import Side
from gram.coder.causal.endpoint import Endpoint
from gram.coder.causal.text import write_prompt
from gram.data.files import format_of
from gram.errors import DataError
from gram.index.bm25 import BM25Index
from gram.locks import lock_folder
from gram.records import Interaction, Product
from gram.text.analysis import Analyzer
from gram.text.fields import field_texts

log = logging.getLogger("gram.queries")

LONGEST = 12  # words of a query; what is longer is an answer of another kind
LONGEST_LINE = 300  # characters
INSTRUCTION = (
    "You write what shoppers type into a shop's search box. For the product below write {n} different queries,"
    " one a line, nothing else: one to five words each, lower case, in the shop's language."
    " Use words that shoppers use, also ones that the text lacks, such as synonyms;"
    " never say anything of the product that is not so."
)
_MARKS = re.compile(r"""^\s*(?:[-*•]|\d+[.)])?\s*["'“”]?(.*?)["'“”.]?\s*$""")
_THOUGHTS = re.compile(r"<think>.*?(?:</think>|\Z)|\A.*?</think>", re.DOTALL)  # some templates begin inside them

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def write_queries(
    products: Sequence[Product], endpoint: Endpoint, journal: Path, per_product: int = 3, threads: int = 8
) -> list[tuple[str, list[str]]]:
    """(product id, its queries as the model wrote them) of each product, in their order.

    What is written is kept in `journal` line by line, by model and prompt, and not asked for again. Raises DataError
    where the endpoint fails, or no answer holds a query.
    """
    instruction = INSTRUCTION.format(n=per_product)
    prompts = [f"{instruction}\n\n{write_prompt(p, Side.PRODUCT).rpartition(chr(10))[0]}" for p in products]
    keys = [_key(endpoint.model, per_product, prompt) for prompt in prompts]
    with lock_folder(journal):
        known = _read_journal(journal)
        missing = {key: prompt for key, prompt in zip(keys, prompts, strict=True) if key not in known}

        def ask(row: tuple[str, str]) -> tuple[str, list[str]]:
            key, prompt = row
            return key, read_answer(endpoint.ask(prompt), per_product)

        with _open_journal(journal) as out:
            answers = _ask_many(ask, list(missing.items()), threads)
            for key, queries in tqdm(answers, total=len(missing), desc="writing", unit="product"):
                known[key] = queries
                if queries:
                    out.write(json.dumps({"key": key, "queries": queries}, ensure_ascii=False) + "\n")
                    out.flush()
    found = [(product.product_id, known[key]) for product, key in zip(products, keys, strict=True)]
    if found and not any(queries for _, queries in found):
        problem = f"no answer of the model {endpoint.model!r} holds a query."
        raise DataError(endpoint.url, problem, "choose a model that follows instructions, with its thinking turned off")
    return found


def keep_found(
    products: Sequence[Product], answers: Sequence[tuple[str, list[str]]], analyzer: Analyzer, depth: int = 100
) -> list[Interaction]:
    """The queries with which BM25 finds their product among the first `depth`, as a log."""
    bm25 = BM25Index.build([s for _, text in field_texts(p) for s in analyzer.stems(text)] for p in products)
    row_of = {product.product_id: row for row, product in enumerate(products)}
    kept = []
    for product_id, queries in answers:
        row = row_of[product_id]
        for query in dict.fromkeys(queries):
            scores = bm25.score(analyzer.stems(query))
            if scores[row] > 0 and int(np.count_nonzero(scores > scores[row])) < depth:
                kept.append(Interaction(query, product_id))
    return kept


def read_answer(answer: str, at_most: int) -> list[str]:
    """The queries of an answer, one a line, without thoughts, numbering, bullets and quotation marks.

    >>> read_answer('<think>A couch…</think>1. "Blue Couch"\\n\\n- sofa for two\\nblue couch', 3)
    ['blue couch', 'sofa for two']
    """
    found: dict[str, None] = {}
    for line in _THOUGHTS.sub("\n", answer).splitlines():
        matched = _MARKS.match(line) if len(line) <= LONGEST_LINE else None
        query = " ".join(matched[1].lower().replace("\0", " ").split()) if matched else ""
        if len(query.split()) <= LONGEST and any(map(str.isalnum, query)):
            found[query] = None
    return list(found)[:at_most]


def check_output(output: Path, journal: Path) -> None:
    """Raises DataError for a log that cannot be written, or is not, word for word, what `note_output` was told of."""
    if format_of(output) != "tsv":
        raise DataError(output, "would be written as TSV.", "end its name in .tsv or .tsv.gz")
    if output.is_file() and _hash(output) not in {row.get("log") for row in _read_rows(journal)}:
        raise DataError(
            output, "is there, and was not written by this command.", "name another, or replace it with --replace"
        )


def note_output(output: Path, journal: Path) -> None:
    """Remembers in the journal that this log was written by it, and may be written again."""
    if output.is_file():
        with lock_folder(journal, wait=True), _open_journal(journal) as out:
            out.write(json.dumps({"log": _hash(output)}) + "\n")


def _ask_many(ask: Callable[[_Item], _Result], items: Sequence[_Item], threads: int) -> Iterator[_Result]:
    """What `ask` gives of the items, as it comes in. Who stops here waits for no answer, and nor does the process."""
    todo: queue.SimpleQueue[_Item] = queue.SimpleQueue()
    done: queue.SimpleQueue[_Result | BaseException] = queue.SimpleQueue()
    stopped = threading.Event()
    for item in items:
        todo.put(item)

    def work() -> None:
        while not stopped.is_set():
            try:
                done.put(ask(todo.get_nowait()))
            except queue.Empty:
                return
            except BaseException as error:  # raised where the answers are read
                done.put(error)

    for _ in range(min(threads, len(items))):
        threading.Thread(target=work, daemon=True).start()
    try:
        for _ in items:
            found = done.get()
            if isinstance(found, BaseException):
                raise found
            yield found
    finally:
        stopped.set()


def _key(model: str, n: int, prompt: str) -> str:
    return hashlib.sha256(json.dumps([model, n, prompt]).encode()).hexdigest()[:32]


def _hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _open_journal(journal: Path) -> TextIO:
    """The journal, to append to; a line that a kill cut off is ended first."""
    before = journal.read_bytes() if journal.is_file() else b""
    out = journal.open("a", encoding="utf-8")
    if before and not before.endswith(b"\n"):
        out.write("\n")
    return out


def _read_journal(journal: Path) -> dict[str, list[str]]:
    """The queries by key."""
    known: dict[str, list[str]] = {}
    for row in _read_rows(journal):
        key, queries = row.get("key"), row.get("queries")
        if isinstance(key, str) and isinstance(queries, list) and all(isinstance(query, str) for query in queries):
            known[key] = queries
    return known


def _read_rows(journal: Path) -> Iterator[Mapping[str, Any]]:
    if not journal.is_file():
        return
    for line in journal.read_text(encoding="utf-8", errors="replace").split("\n"):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):  # a line that a kill cut off
            continue
        if isinstance(row, dict):
            yield row
