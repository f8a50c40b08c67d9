"""Pseudo-queries written by a language model behind an OpenAI-compatible endpoint: for shops without a log.

Searchers' words for what products say otherwise. A query is kept only where a keyword search finds its product with it,
so that what the model makes up is left out.
"""

from __future__ import annotations

import json
import logging
import os
import re
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from gram.coder.base import Side
from gram.coder.causal.text import write_prompt
from gram.errors import DataError, SettingError
from gram.index.bm25 import BM25Index
from gram.locks import lock_folder
from gram.records import Interaction, Product
from gram.text.analysis import Analyzer
from gram.text.fields import field_texts

log = logging.getLogger("gram.queries")

TRIES, WAIT = 4, 1.0  # of one request, and seconds before the second, doubled each time
LONGEST = 12  # words of a query; what is longer is an answer of another kind
INSTRUCTION = (
    "You write what shoppers type into a shop's search box. For the product below write {n} different queries,"
    " one a line, nothing else: one to five words each, lower case, in the shop's language."
    " Use words that shoppers use, also ones that the text lacks, such as synonyms;"
    " never say anything of the product that is not so."
)
_MARKS = re.compile(r"""^\s*(?:[-*•]|\d+[.)])?\s*["'“”]?(.*?)["'“”.]?\s*$""")


@dataclass(frozen=True)
class Endpoint:
    """Where a language model answers: `url` ends before `/chat/completions`. The key is read from `key_variable`."""

    url: str
    model: str
    key_variable: str = "OPENAI_API_KEY"
    temperature: float = 0.8
    timeout: float = 60.0

    def __post_init__(self) -> None:
        if not self.url.startswith(("http://", "https://")):
            raise SettingError(f"the endpoint's address begins with http:// or https://, not {self.url!r}")

    def ask(self, prompt: str) -> str:
        """What the model answers. Raises DataError where the endpoint does not, after some tries."""
        body = {
            "model": self.model,
            "messages": [{"role": "user", "content": prompt}],
            "temperature": self.temperature,
            "max_tokens": 200,
        }
        headers = {"Content-Type": "application/json"}
        key = os.environ.get(self.key_variable, "")
        if key:
            headers["Authorization"] = f"Bearer {key}"
        address = self.url.rstrip("/") + "/chat/completions"
        request = urllib.request.Request(address, json.dumps(body).encode(), headers)
        problem = ""
        for attempt in range(TRIES):
            if attempt:
                time.sleep(WAIT * 2 ** (attempt - 1))
            try:
                with urllib.request.urlopen(request, timeout=self.timeout) as answer:
                    found = json.load(answer)["choices"][0]["message"]["content"]
                    return str(found or "")
            except urllib.error.HTTPError as error:
                problem = f"answered {error.code} {error.reason}"
                if error.code < 500 and error.code not in (408, 429):
                    break
            except (OSError, ValueError, LookupError, TypeError) as error:
                problem = f"gave no answer ({error!r})"
        fix = f"see that the address, the model {self.model!r} and the key in {self.key_variable} are right"
        raise DataError(address, f"{problem}.", f"{fix}; then run again: what is written already is kept")


def write_queries(
    products: Sequence[Product], endpoint: Endpoint, journal: Path, per_product: int = 3, threads: int = 8
) -> Iterator[tuple[str, list[str]]]:
    """(product id, its queries as the model wrote them) of each product, in their order.

    What is written is kept in `journal` line by line, and not asked for again.
    """
    known = _read_journal(journal)
    missing = [product for product in products if product.product_id not in known]
    instruction = INSTRUCTION.format(n=per_product)

    def ask(product: Product) -> tuple[str, list[str]]:
        text = write_prompt(product, Side.PRODUCT).rpartition("\n")[0]
        return product.product_id, read_answer(endpoint.ask(f"{instruction}\n\n{text}"), per_product)

    with lock_folder(journal), journal.open("a", encoding="utf-8") as out, ThreadPoolExecutor(threads) as pool:
        try:
            for product_id, queries in tqdm(pool.map(ask, missing), total=len(missing), desc="writing", unit="product"):
                known[product_id] = queries
                out.write(json.dumps({"product_id": product_id, "queries": queries}, ensure_ascii=False) + "\n")
                out.flush()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    for product in products:
        yield product.product_id, known[product.product_id]


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
    """The queries of an answer, one a line, without numbering, bullets and quotation marks.

    >>> read_answer('1. "Blue Couch"\\n\\n- sofa for two\\nblue couch', 3)
    ['blue couch', 'sofa for two']
    """
    found: dict[str, None] = {}
    for line in answer.splitlines():
        matched = _MARKS.match(line)
        query = " ".join(matched[1].lower().split()) if matched else ""
        if query and len(query.split()) <= LONGEST:
            found[query] = None
    return list(found)[:at_most]


def _read_journal(journal: Path) -> dict[str, list[str]]:
    known: dict[str, list[str]] = {}
    if journal.is_file():
        for line in journal.read_text(encoding="utf-8").splitlines():
            try:
                row = json.loads(line)
                known[str(row["product_id"])] = [str(query) for query in row["queries"]]
            except (ValueError, LookupError, TypeError):  # a line that a kill cut off
                continue
    return known
