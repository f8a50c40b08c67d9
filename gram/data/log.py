"""Who searched for what: the log, queries to answer, and judgements (qrels) to score the answers by."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Mapping, Sequence, Set
from itertools import chain
from pathlib import Path

from tqdm import tqdm

from gram.data.columns import LOG_COLUMNS, QRELS_COLUMNS, QUERY_COLUMNS, Names, Record, normalise, read_records
from gram.data.files import format_of, read_lines
from gram.data.tables import Table, read_first_fields, read_table, write_tsv
from gram.errors import BadRow, DataError
from gram.records import Interaction

logger = logging.getLogger("gram.data")

Qrels = Mapping[str, Mapping[str, float]]
"""query_id -> product_id -> grade."""
HEAVIEST = 1e30
"""Weight of an interaction at most: sums of heavier ones have no finite number in float32."""


def read_log(
    path: str | Path,
    products: Collection[str],
    *,
    max_unknown: float = 0.05,
    progress: bool = False,
    encoding: str = "utf-8",
) -> list[Interaction]:
    """The interactions with the given products (ids), in the file's order; none for the path `none`.

    Interactions with other products are left out and warned of, for catalogues and logs are seldom of the same day.
    Errors: `BadRow` for an empty query or product or a weight that is not above 0; `DataError` when the share of
    interactions with unknown products is above `max_unknown`: then the ids are likely of another kind.
    """
    if str(path) == "none":
        return []
    known = products if isinstance(products, Set | Mapping) else frozenset(products)
    table = read_table(path, encoding=encoding)
    records = read_records(table, LOG_COLUMNS, ("query", "product_id"))
    log: list[Interaction] = []
    unknown, examples = 0, list[str]()
    for record in tqdm(records, desc=table.path.name, unit=" interactions", disable=not progress):
        interaction = _interaction(record)
        if interaction.product_id in known:
            log.append(interaction)
            continue
        unknown += 1
        if len(examples) < 3:
            examples.append(f"'{interaction.product_id}' on line {record.line}")
    if unknown:
        share = unknown / (unknown + len(log))
        found = f"{unknown} of {unknown + len(log)} interactions are with unknown products ({', '.join(examples)})"
        if share > max_unknown:
            fix = "give the catalogue that the log was written with, and the same kind of product_id in both; or, where"
            fix += " they are products that are gone, allow more with --max-unknown (in Python, max_unknown)."
            raise DataError(table.path, f"{found}, {share:.1%} where {max_unknown:.1%} are allowed.", fix)
        logger.warning("%s: %s; they are left out", table.path, found)
    return log


def read_queries(path: str | Path, *, encoding: str = "utf-8") -> dict[str, str]:
    """query_id -> query. Without a header line, the two columns of a text file are taken to be these.

    Errors: `BadRow` for an empty cell or a repeated query_id.
    """
    table = _open_table(Path(path), encoding, QUERY_COLUMNS, {2: ("query_id", "query")})
    queries: dict[str, str] = {}
    lines: dict[str, int] = {}
    for record in read_records(table, QUERY_COLUMNS, ("query_id", "query")):
        query_id = record.identifier("query_id")
        if query_id in queries:
            problem = f"query '{query_id}' is on line {lines[query_id]} already"
            raise record.bad("query_id", problem, "give each query another id.")
        queries[query_id], lines[query_id] = record.text("query", required=True), record.line
    return queries


def read_qrels(path: str | Path, *, encoding: str = "utf-8") -> dict[str, dict[str, float]]:
    """query_id -> product_id -> grade, from a table or from TREC's four columns `query_id 0 product_id grade`.

    Errors: `BadRow` for an empty cell, a grade that is no number, or a pair judged twice with different grades.
    """
    columns = {3: ("query_id", "product_id", "grade"), 4: ("query_id", "iteration", "product_id", "grade")}
    table = _open_table(Path(path), encoding, QRELS_COLUMNS, columns)
    qrels: dict[str, dict[str, float]] = {}
    lines: dict[tuple[str, str], int] = {}
    for record in read_records(table, QRELS_COLUMNS, ("query_id", "product_id", "grade")):
        query_id, product_id = record.identifier("query_id"), record.identifier("product_id")
        grade = record.number("grade")
        if grade is None:
            raise record.bad("grade", "no grade", "give one, such as 0 for irrelevant.")
        line = lines.setdefault((query_id, product_id), record.line)
        if qrels.setdefault(query_id, {}).setdefault(product_id, grade) != grade:
            problem = f"product '{product_id}' has another grade for query '{query_id}' on line {line}"
            raise record.bad("grade", problem, "keep one of the two.")
    return qrels


def write_log(path: str | Path, log: Iterable[Interaction]) -> None:
    """Writes a log as TSV; `user_id` and `timestamp` only if any interaction has one."""
    log = list(log)
    used = 5 if any(i.timestamp for i in log) else 4 if any(i.user_id for i in log) else 3
    rows = ((i.query, i.product_id, _number(i.weight), i.user_id, i.timestamp)[:used] for i in log)
    write_tsv(path, Interaction._fields[:used], rows)


def write_queries(path: str | Path, queries: Mapping[str, str]) -> None:
    """Writes queries as TSV with a header."""
    write_tsv(path, ("query_id", "query"), queries.items())


def write_qrels(path: str | Path, qrels: Qrels) -> None:
    """Writes judgements as TSV with a header."""
    rows = (
        (query_id, product_id, _number(g)) for query_id, grades in qrels.items() for product_id, g in grades.items()
    )
    write_tsv(path, ("query_id", "product_id", "grade"), rows)


def _interaction(record: Record) -> Interaction:
    weight = record.number("weight")
    if weight is not None and weight <= 0:
        raise record.bad("weight", "a weight that is not above 0", "leave out rows that count for nothing.")
    if weight is not None and weight > HEAVIEST:
        raise record.bad("weight", f"a weight above {HEAVIEST:.0e}", "give all rows smaller weights.")
    return Interaction(
        record.text("query", required=True),
        record.identifier("product_id"),
        1.0 if weight is None else weight,
        record.text("user_id"),
        record.text("timestamp"),
    )


def _number(number: float) -> str:
    return repr(float(number)).removesuffix(".0")


def _open_table(path: Path, encoding: str, names: Names, bare: Mapping[int, Sequence[str]]) -> Table:
    """A table with its columns named, by the file or by their number (`bare`) if it has no header.

    Names as TREC's, `qrels.test` say, do not tell the format: tabs, or else any blanks, then separate the fields.
    """
    kind = format_of(path)
    if kind in ("jsonl", "parquet"):
        return read_table(path, encoding=encoding)
    delimiter = "" if kind else "\t" if "\t" in next(read_lines(path, encoding), (1, ""))[1] else " "
    first = read_first_fields(path, encoding=encoding, delimiter=delimiter)
    if not first or _is_header(first, names):
        return read_table(path, encoding=encoding, delimiter=delimiter)
    if len(first) not in bare:
        expected = " or ".join("<tab>".join(columns) for columns in bare.values())
        raise BadRow(path, 1, f"{len(first)} fields and no header", f"write {expected}.", value="\t".join(first))
    header = bare[len(first)]
    logger.info("%s: no header, reading the columns as %s", path.name, ", ".join(header))
    return read_table(path, encoding=encoding, delimiter=delimiter, header=header)


def _is_header(columns: Sequence[str], names: Names) -> bool:
    """Whether any of the names is that of a field: a header that lacks another one is then told what it lacks."""
    known = {*names, *chain.from_iterable(names.values())}
    return any(normalise(column) in known for column in columns)
