"""The tables that a shop can replace: units, stop words, and the words and columns that tell an attribute's slot.

They lie in `gram/text/tables/`, one JSON file a table. A shop puts its own into a folder (`MiningSettings.tables`): a
file that is there replaces the table of that name whole, the others stay as they come.

    units.json          {"in": ["in", "inch", "inches"], …}    each unit as words keep it, and all ways to write it
    stopwords.json      ["a", "the", …]                        words that say nothing of a product
    slot_seeds.json     {"colour": ["black", …], …}            words whose slot is known; the first slot that has it
    slot_columns.json   {"size": ["width", "heigh?t"], …}      what a column's name begins with, as it stands or behind
                                                               a `_`, in lower case: regular expressions; the first
                                                               slot that has one that fits
    negations.json      {"asked": ["without", …],              words by which a query leaves out what follows;
                         "before": ["no", …],                  words that deny what a title says soon after them,
                         "prefix": ["anti", …],                right after them,
                         "after": ["free", …]}                 or right before them
    purposes.json       ["for"]                                words behind which a title says what a product is for
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from gram.errors import DataError

NAMES = ("units", "stopwords", "slot_seeds", "slot_columns", "negations", "purposes")
LATER = ("negations", "purposes")
"""Tables that models of before lack: they have the default ones."""
NEGATIONS = ("asked", "before", "prefix", "after")


@dataclass(frozen=True)
class Tables:
    """One shop's tables. Slots and units keep the order of their files."""

    units: Mapping[str, tuple[str, ...]]
    stopwords: frozenset[str]
    slot_seeds: Mapping[str, frozenset[str]]
    slot_columns: Mapping[str, tuple[str, ...]]
    negations: Mapping[str, frozenset[str]]
    purposes: frozenset[str]

    @classmethod
    def load(cls, folder: str | Path = "", slots: Collection[str] = ()) -> Tables:
        """The default tables, replaced by those in a shop's own folder, which may name `slots` only (any where empty).

        Raises DataError for a folder without tables, a file of another name, and a table that cannot be used.
        """
        if not str(folder):
            return _load_defaults()
        folder = Path(folder)
        paths = sorted(folder.glob("*.json"))
        names = ", ".join(f"{name}.json" for name in NAMES)
        if not paths:
            raise DataError(folder, "has no tables.", f"put at least one of {names} there, or leave the setting empty")
        tables = _load_defaults().to_json()
        for path in paths:
            if path.stem not in NAMES:
                raise DataError(path, "is no table.", f"name it one of {names}, or remove it")
            tables[path.stem] = _read(path)
            if path.stem.startswith("slot_") and slots and isinstance(tables[path.stem], dict):
                _check_slots(path, tables[path.stem], slots)
            _check(path.stem, tables[path.stem], path)
        return cls._of(tables)

    def to_json(self) -> dict[str, Any]:
        """As `from_json` reads it."""
        return {
            "units": {unit: list(forms) for unit, forms in self.units.items()},
            "stopwords": sorted(self.stopwords),
            "slot_seeds": {slot: sorted(seeds) for slot, seeds in self.slot_seeds.items()},
            "slot_columns": {slot: list(patterns) for slot, patterns in self.slot_columns.items()},
            "negations": {where: sorted(words) for where, words in self.negations.items()},
            "purposes": sorted(self.purposes),
        }

    @classmethod
    def from_json(cls, tables: Mapping[str, Any], path: Path) -> Tables:
        """What `to_json` gave. Raises DataError, which names `path`, for anything else."""
        defaults = _load_defaults().to_json()
        tables = {**{name: defaults[name] for name in LATER}, **tables}
        for name in NAMES:
            _check(name, tables.get(name), path)
        return cls._of(tables)

    @classmethod
    def _of(cls, tables: Mapping[str, Any]) -> Tables:
        return cls(
            units={unit: tuple(forms) for unit, forms in tables["units"].items()},
            stopwords=frozenset(tables["stopwords"]),
            slot_seeds={slot: frozenset(seeds) for slot, seeds in tables["slot_seeds"].items()},
            slot_columns={slot: tuple(patterns) for slot, patterns in tables["slot_columns"].items()},
            negations={where: frozenset(tables["negations"].get(where, ())) for where in NEGATIONS},
            purposes=frozenset(tables["purposes"]),
        )


@cache
def _load_defaults() -> Tables:
    folder = Path(__file__).with_name("tables")
    return Tables._of({name: _read(folder / f"{name}.json") for name in NAMES})


def _read(path: Path) -> Any:
    def build_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        keys = [key for key, _ in pairs]
        twice = next((key for i, key in enumerate(keys) if key in keys[:i]), None)
        if twice is not None:
            raise DataError(path, f"has the key {twice!r} twice.", "make one list of both")
        return dict(pairs)

    try:
        return json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=build_object)
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(path, f"cannot be read as JSON: {error}.", "mend the file, or remove it") from None


def _check_slots(path: Path, table: Mapping[str, Any], slots: Collection[str]) -> None:
    unknown = next((slot for slot in table if slot not in slots), None)
    if unknown is not None:
        raise DataError(path, f"{unknown!r} is no slot of this shop.", f"choose from {', '.join(slots)}")


def _check(name: str, table: Any, path: Path) -> None:
    """Raises DataError where a table is not what its name says."""
    listed = name in ("stopwords", "purposes")
    kind, shape = (list, "a list of words") if listed else (dict, "an object with lists of words")
    if not isinstance(table, kind):
        raise DataError(path, f"{name} must be {shape}, not {type(table).__name__}.", "see the default table")
    lists = table if isinstance(table, dict) else {"": table}
    unknown = sorted(set(lists) - set(NEGATIONS)) if name == "negations" else []
    if unknown:
        raise DataError(path, f"negations: {unknown[0]!r} is no list of it.", f"choose from {', '.join(NEGATIONS)}")
    for key, row in lists.items():
        where = f"{name}, {key!r}" if isinstance(table, dict) else name
        if not isinstance(row, list):
            raise DataError(path, f"{where}: a list is expected, not {row!r}.", 'write ["…", "…"]')
        for value in row:
            problem = _find_problem(name, value)
            if problem:
                raise DataError(path, f"{where}: {value!r} {problem}.", "correct it, or take it out")
    if name == "units":
        _check_units(lists, path)


def _find_problem(name: str, value: Any) -> str:
    """What is wrong with one entry of a table, nothing where it is right."""
    if not isinstance(value, str) or not value or not value.isprintable():
        return "is no word"
    if name == "slot_columns":
        try:
            re.compile(value)
        except (re.error, OverflowError, RecursionError) as error:
            return f"is no regular expression ({error})"
    elif value != value.lower() or len(value.split()) != 1:
        return "is not one word in lower case"
    elif name == "units" and not value.isalpha():
        return "is no unit: they are written in letters"
    return ""


def _check_units(units: Mapping[str, list[str]], path: Path) -> None:
    unit_of: dict[str, str] = {}
    for unit, forms in units.items():
        if unit not in forms:
            raise DataError(path, f"units, {unit!r}: is not among the ways to write it.", f"add {unit!r} to its list")
        for form in forms:
            if unit_of.setdefault(form, unit) != unit:
                raise DataError(path, f"units: {form!r} is {unit_of[form]!r} and {unit!r}.", "leave it with one unit")
