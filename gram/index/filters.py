"""Filters: a small language that says which products may be found.

    brand = "nike" AND price < 50
    (colour IN ["red", "blue"] OR NOT category = "Shoes > Running") AND price BETWEEN 10 AND 50 AND EXISTS size
    code = "type: sofa"

Words of the language are in capitals or not; a name or value with blanks or signs stands in quotation marks, double or
single. An apostrophe between letters closes nothing, 'Levi's' is Levi's, and an unquoted value may hold one.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from pyroaring import BitMap

from gram.errors import SettingError
from gram.index.fields import Fields, Rows, to_number

LONGEST, DEEPEST = 4000, 40
"""Characters of a filter, and parentheses within each other."""

_SINGLE = r"'(?:[^'\\]|\\.|(?<=\w)'(?=\w))*'(?![\w'])"
_TOKEN = re.compile(
    rf'\s*(?:(?P<text>"(?:[^"\\]|\\.)*"|{_SINGLE})|(?P<sign><=|>=|!=|[=<>(),\[\]])|(?P<word>[^\s"=<>!(),\[\]]+))'
)
_WORDS = ("AND", "OR", "NOT", "IN", "BETWEEN", "EXISTS")
CODE = "code"
"""What a filter calls the codes of a product, which are no field."""

CodeRows = Callable[[str], Rows]
"""The products that have a code."""


class FilterError(SettingError):
    """A filter that cannot be read; `at` is the character, from 1, where."""

    def __init__(self, text: str, at: int, problem: str) -> None:
        self.at = at
        shown = f"{text[max(0, at - 21) : at - 1]}⟨here⟩{text[at - 1 : at + 20]}"
        fix = 'write it as brand = "nike" AND price < 50, a field of several words as "body wood" = "alder"'
        super().__init__(f"the filter cannot be read at character {at}: {problem}, in {shown!r}. Fix: {fix}")


class _Token(NamedTuple):
    kind: str  # text, sign, word, end
    value: str
    at: int


@dataclass(frozen=True)
class Filter:
    """A read filter: `rows` says which products of some fields it lets through, `names` which fields it asks, `codes`
    which codes, `values` which values of which other fields, `sized` of which fields it compares numbers."""

    rows: Callable[[Fields, CodeRows], Rows]
    names: tuple[str, ...] = ()
    codes: tuple[str, ...] = ()
    values: tuple[tuple[str, str], ...] = ()
    sized: tuple[str, ...] = ()


def parse_filter(text: str) -> Filter:
    """Reads a filter; an empty one lets everything through. Raises FilterError, which points at the character."""
    if len(text) > LONGEST:
        raise FilterError(text, LONGEST + 1, f"a filter has at most {LONGEST} characters, not {len(text)}")
    if not text.strip():
        return Filter(lambda fields, _: fields.every())
    parser = _Parser(text)
    rows, codes, values = parser.parse(), dict.fromkeys(parser.codes), dict.fromkeys(parser.values)
    names, sized = dict.fromkeys(parser.names), dict.fromkeys(parser.sized)
    return Filter(rows, tuple(names), tuple(codes), tuple(values), tuple(sized))


_Rows = Callable[[Fields, CodeRows], Rows]


class _Parser:
    """Recursive descent; a method for each rule of the grammar."""

    def __init__(self, text: str) -> None:
        self.text, self.tokens, self.next, self.depth = text, _split(text), 0, 0
        self.names: list[str] = []
        self.codes: list[str] = []
        self.values: list[tuple[str, str]] = []
        self.sized: list[str] = []

    def parse(self) -> _Rows:
        found = self._either()
        if self._peek().kind != "end":
            self._fail("AND, OR or the end")
        return found

    def _peek(self) -> _Token:
        return self.tokens[self.next]

    def _take(self) -> _Token:
        token = self.tokens[self.next]
        self.next += 1
        return token

    def _word(self, word: str) -> bool:
        """Takes a word of the language, or a sign, if it comes next."""
        token = self._peek()
        if token.kind in ("word", "sign") and token.value.upper() == word:
            self.next += 1
            return True
        return False

    def _fail(self, expected: str) -> None:
        token = self._peek()
        found = "the end" if token.kind == "end" else repr(token.value)
        raise FilterError(self.text, token.at, f"expected {expected}, found {found}")

    def _either(self) -> _Rows:
        parts = [self._both()]
        while self._word("OR"):
            parts.append(self._both())
        return parts[0] if len(parts) == 1 else lambda f, c: BitMap.union(*(part(f, c) for part in parts))

    def _both(self) -> _Rows:
        parts = [self._not()]
        while self._word("AND"):
            parts.append(self._not())
        return parts[0] if len(parts) == 1 else lambda f, c: BitMap.intersection(*(part(f, c) for part in parts))

    def _not(self) -> _Rows:
        self.depth += 1
        if self.depth > DEEPEST:
            self._fail(f"no more than {DEEPEST} parentheses or NOTs within each other")
        try:
            if self._word("NOT"):
                inner = self._not()
                return lambda f, c: f.every() - inner(f, c)
            if self._word("("):
                inner = self._either()
                if not self._word(")"):
                    self._fail("a closing parenthesis")
                return inner
            if self._word("EXISTS"):
                if self._peek().value.lower() == CODE:
                    self._fail(f"a field, which {CODE} is not")
                name = self._name()
                return lambda f, c: f.exists(name)
            return self._comparison()
        finally:
            self.depth -= 1

    def _comparison(self) -> _Rows:
        name = self._name()
        if self._word("="):
            return self._equal(name, [self._value()])
        if self._word("!="):
            equal = self._equal(name, [self._value()])
            return lambda f, c: f.every() - equal(f, c)
        if self._word("IN"):
            return self._equal(name, self._list())
        if name.lower() == CODE:
            self._fail(f"=, != or IN behind {CODE}, which has no size")
        self.sized.append(name)
        if self._word("BETWEEN"):
            low = self._number()
            if not self._word("AND"):
                self._fail("AND and the upper end")
            high = self._number()
            return lambda f, c: f.between(name, low, high)
        for sign, low_end in (("<=", False), (">=", True), ("<", False), (">", True)):
            if self._word(sign):
                edge, strict = self._number(), len(sign) == 1
                return _beyond(name, edge, low_end, strict)
        self._fail("=, !=, <, <=, >, >=, IN or BETWEEN")
        raise AssertionError

    def _equal(self, name: str, values: list[str]) -> _Rows:
        if name.lower() == CODE:
            self.codes += values
            return lambda f, c: BitMap.union(*(c(value) for value in values))
        self.values += [(name, value) for value in values]
        return lambda f, c: BitMap.union(*(f.equal(name, value) for value in values))

    def _name(self) -> str:
        token = self._peek()
        if token.kind not in ("word", "text") or (token.kind == "word" and token.value.upper() in _WORDS):
            self._fail("the name of a field")
        self.names.append(self._take().value)
        return self.names[-1]

    def _value(self) -> str:
        token = self._peek()
        if token.kind not in ("word", "text") or (token.kind == "word" and token.value.upper() in _WORDS):
            self._fail("a value")
        return self._take().value

    def _number(self) -> float:
        number = to_number(self._peek().value) if self._peek().kind in ("word", "text") else None
        if number is None:
            self._fail("a number")
            raise AssertionError
        self.next += 1
        return number

    def _list(self) -> list[str]:
        if not self._word("["):
            self._fail('a list such as ["red", "blue"]')
        values = [self._value()]
        while self._word(","):
            values.append(self._value())
        if not self._word("]"):
            self._fail("a comma or the end of the list")
        return values


def _beyond(name: str, edge: float, low_end: bool, strict: bool) -> _Rows:
    """Products whose number is beyond an edge: above it where that is the low end of the range, else below it."""
    low, high = (edge, float("inf")) if low_end else (float("-inf"), edge)

    def rows(fields: Fields, _: CodeRows) -> Rows:
        found = fields.between(name, low, high)
        return found - fields.between(name, edge, edge) if strict else found

    return rows


def _split(text: str) -> list[_Token]:
    tokens, at = [], 0
    while at < len(text):
        found = _TOKEN.match(text, at)
        if not found:
            rest = text[at:]
            if not rest.strip():
                break
            begin = at + len(rest) - len(rest.lstrip())
            problem = (
                "a quotation mark that is not closed" if text[begin] == '"' else f"{text[begin]!r} means nothing here"
            )
            raise FilterError(text, begin + 1, problem)
        kind = str(found.lastgroup)
        value = found[kind]
        begin = found.start(kind) + 1
        if kind == "text":
            value = re.sub(r"\\(.)", r"\1", value[1:-1], flags=re.DOTALL)
        tokens.append(_Token(kind, value, begin))
        at = found.end()
    return [*tokens, _Token("end", "", len(text) + 1)]


def quote(value: str) -> str:
    """A value as a filter writes it.

    >>> quote('5" pipe')
    '"5\\\\" pipe"'
    """
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
