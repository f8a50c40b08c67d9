"""Names that nobody has: fields and values that no product has, codes that the lexicon lacks, products that the shop
lacks, told with what may be meant."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

from rapidfuzz import fuzz, process

from gram.errors import SettingError
from gram.index.fields import fold, to_number
from gram.index.filters import Filter, parse_filter
from gram.records import Attribute, read_code
from gram.rules import Rule
from gram.search import Searcher
from gram.snapshot import Snapshot
from gram.text.prices import read_price

ALWAYS = frozenset({"code", "brand", "category", "price", "value", "stock"})
"""What filters may ask of any shop, whether a product of it has one or not."""
OF_A_HIT = frozenset({"product_id", "title", "description", "attributes", "score", "fits", "codes", "features"})
"""What a hit may show beside the fields that products have."""
MOST = 10
"""Fields, codes, values and products, each, that one answer warns of."""
GIVE = "give products a {!r}, or leave it out of the filter"
"""What to do about a field of `ALWAYS` that no product has."""
SHOWN = 60
"""Characters of a name that are shown, and that another one is near to."""
GUESSED_WORDS = 6
"""Words of a code that are read right; no attribute has more."""
LOOKED_AT = 10_000
"""Values that the ones no product has are compared with, for all of them together: two thirds of a millisecond."""


def check_names(snapshot: Snapshot, names: Iterable[str], others: frozenset[str] = ALWAYS) -> None:
    """Raises SettingError for a field that no product has and that is none of the `others`: a misspelt one finds
    nothing."""
    for problem in _missing_fields(names, snapshot.field_names | others):
        raise SettingError(problem)


def check_sort(snapshot: Snapshot, name: str) -> None:
    """Raises SettingError for what is no field that products have: a sort is by one of these alone."""
    if name in snapshot.field_names:
        return
    if not name:
        raise SettingError("sort lacks a field's name. Fix: write price, or -price for falling order")
    if "," in name:
        raise SettingError(f"sort is {name!r:.{SHOWN}}, and takes one field. Fix: choose one of them")
    if name in OF_A_HIT:
        others = "leave it out for the best first, or " if name == "score" else ""
        fields = _list(snapshot.field_names)
        raise SettingError(f"{name} is no field to sort by. Fix: {others}choose from the fields {fields}")
    check_names(snapshot, [name], frozenset())


def warn_of_fields(snapshot: Snapshot, names: Iterable[str], others: frozenset[str] = frozenset()) -> list[str]:
    """A sentence for each field that no product has and that is none of the `others`."""
    return list(islice(_missing_fields(names, snapshot.field_names | others), MOST))


def warn_of_codes(searcher: Searcher, codes: Iterable[str]) -> list[str]:
    """A sentence for each attribute of some codes' texts that the lexicon lacks."""
    parts = dict.fromkeys(part.strip() for code in codes for part in code.split("|"))
    return list(islice(_missing_codes(searcher, parts), MOST))


def warn_of_filter(snapshot: Snapshot, sought: Filter) -> list[str]:
    """A sentence for each code that a filter names and the lexicon lacks, for each value that no product has, and for
    each field that is compared by size and has no numbers, or that no product has. A number in a field of numbers is
    not told: it may come and go."""
    values = list(islice((pair for pair in sought.values if not _has_value(snapshot, *pair)), MOST))
    guesses = (_guess_value(snapshot, name, value, LOOKED_AT // len(values)) for name, value in values)
    told, known = zip(values, guesses, strict=True), snapshot.field_names - snapshot.numeric_names
    empty = ALWAYS - snapshot.field_names
    numbers = _list(snapshot.numeric_names)
    fix = f"compare it by = or IN{f', or {numbers} by size' if numbers else ''}"
    return [
        *warn_of_codes(snapshot.searcher, sought.codes),
        *(f"no product has {name:.{SHOWN}} = {value!r:.{SHOWN}}. Fix: {guess}" for (name, value), guess in told),
        *islice((f"no product has a number in {n!r:.{SHOWN}}. Fix: {fix}" for n in sought.sized if n in known), MOST),
        *(f"no product has {n!r}. Fix: {GIVE.format(n)}" for n in sought.sized if n in empty),
    ]


def warn_of_price(snapshot: Snapshot, query: str) -> list[str]:
    """A sentence on the price that a query asks for, where no product has one."""
    if "price" in snapshot.field_names or not read_price(query):
        return []
    return ["no product has a price: what the query says of one is passed over. Fix: give products a price"]


def warn_of_rule(snapshot: Snapshot, rule: Rule) -> list[str]:
    """A sentence for each field, code, value and product that a rule names and nobody has."""
    sought = parse_filter(rule.filter)
    fields = warn_of_fields(snapshot, sought.names, ALWAYS)
    codes = warn_of_codes(snapshot.searcher, [rule.code] if rule.code.strip() else [])
    unknown = (product_id for product_id in rule.products if snapshot.find(product_id) is None)
    products = [f"there is no product {p!r:.{SHOWN}}. Fix: add it, or leave it out" for p in islice(unknown, MOST)]
    return list(dict.fromkeys([*fields, *codes, *warn_of_filter(snapshot, sought), *products]))


def missing_code(searcher: Searcher, attribute: Attribute, text: str = "") -> str:
    """A sentence on an attribute that the lexicon lacks, as `text` says it, with the one that has its words, or these
    read right: of words as near that of its slot."""
    lexicon, (slot, value) = searcher.lexicon, attribute

    def find(words: str) -> int:
        return lexicon.id_of(lexicon.analyzer.stems(words))

    def has_slot(stem: str) -> float:
        key = lexicon.id_of((stem,))
        return float(key >= 0 and lexicon.attributes[key].slot == slot)

    key = find(value or slot)
    if key < 0:
        words = lexicon.analyzer.words(value or slot)[:GUESSED_WORDS]
        key = find(" ".join(searcher.speller.correct(word, has_slot) or word for word in words))
    fix = f"write {lexicon.attributes[key]}" if key >= 0 else "choose one that some product has"
    return f"the lexicon has no code {text or str(attribute):.{SHOWN}}. Fix: {fix}"


def _missing_codes(searcher: Searcher, texts: Iterable[str]) -> Iterator[str]:
    for text in texts:
        (attribute,) = read_code(text)
        if searcher.lexicon.find(*attribute) < 0:
            yield missing_code(searcher, attribute, text)


def _missing_fields(names: Iterable[str], known: frozenset[str]) -> Iterator[str]:
    for name in dict.fromkeys(names):
        if name not in known:
            yield f"no product has a field {name!r:.{SHOWN}}. Fix: {_guess_field(name[:SHOWN], known)}"


def _has_value(snapshot: Snapshot, name: str, value: str) -> bool:
    """Whether a product has a value, or could have as a number; also where the field itself is told of."""
    if name not in snapshot.field_names | ALWAYS:
        return True
    folded, number = fold(value), to_number(value)
    for segment in snapshot.segments:
        column = segment.fields.columns.get(name)
        rows = column.rows.get(folded) if column else None
        if (column and column.numbers and number is not None) or (rows and not segment.alive.isdisjoint(rows)):
            return True
    return False


def _guess_value(snapshot: Snapshot, name: str, value: str, most: int) -> str:
    """What of the field's first values, at most so many, may be meant."""
    columns = ((s.alive, s.fields.columns[name]) for s in snapshot.segments if name in s.fields.columns)
    values = islice(((alive, c, folded, rows) for alive, c in columns for folded, rows in c.rows.items()), most)
    known = {folded: c.shown.get(folded, folded) for alive, c, folded, rows in values if not alive.isdisjoint(rows)}
    near = process.extractOne(fold(value)[:SHOWN], list(known), scorer=fuzz.ratio, score_cutoff=70)
    if near:
        return f"did you mean {known[near[0]]!r:.{SHOWN}}?"
    if name not in snapshot.field_names:
        return GIVE.format(name)
    return f"ask for the facet {name!r:.{SHOWN}} to see what there is"


def _guess_field(name: str, known: frozenset[str]) -> str:
    near = process.extractOne(name.lower(), sorted(known), scorer=fuzz.ratio, score_cutoff=55)
    if near:
        return f"did you mean {near[0]!r}?"
    return f"choose from {_list(known)}" if known else "leave it out"


def _list(names: Iterable[str]) -> str:
    """The first of some names, as a sentence lists them."""
    return ", ".join(sorted(names)[:30])
