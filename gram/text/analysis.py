"""Analysis, Lucene's word for it: one way from texts to words, for titles, queries, attribute values and BM25.

Sellers write `5-gal.`, `12"` and `2x4`; searchers write `5 gallon`, `12 inch` and `2 x 4`. Both become the same words
here.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any, NamedTuple

from gram.errors import DataError
from gram.text.letters import compose, fold_letters
from gram.text.scripts import cut_runs
from gram.text.shop_tables import Tables
from gram.text.stemming import DERIVED, MAX_WORD, bases, check_language, has_digit, stem, stem_short

MAX_QUERY_WORDS = 100
"""Words of a query that are read. The longest query of Home Depot has 15; a pasted title has fewer than 50. Not tuned:
each word costs a reading of its postings."""

MAX_QUERY = 2_000
"""Characters of a query that are looked at at all."""

_MARKS = (
    "\u0300-\u036f\u0591-\u05c7\u064b-\u065f\u0900-\u0963\u0970-\u0e7f"
    "\u0eb1-\u0ece\u1000-\u109f\u17b4-\u17d3\u3099\u309a"
)
"""Accents and vowel signs, which are parts of words in many scripts but no letters to Python's `\\w`."""
_WORD = re.compile(rf"\d+\.\d+|(?<![\w.])\.\d+|\d+/\d+|[\w{_MARKS}]+")
_FRACTION = re.compile(r"(?<=\d)(?=[¼-¾⅐-⅞])")
_DECIMAL = re.compile(r"(\d*)\.(\d+)")
_FRACTIONS = {f"{k / d:.6f}".rstrip("0"): f"{k}/{d}" for d in (2, 4, 8, 16) for k in range(1, d, 2)}
"""What is below 1 stays a fraction, as most write it: 0.375 is 3/8."""


class ClippedQuery(NamedTuple):
    """A query as far as it is read, and a sentence on what is left out of it, empty where nothing is."""

    text: str
    left_out: str


@dataclass(frozen=True)
class Analyzer:
    """How a shop's texts are read: by which stemmer, with which units, stop words and words that tell a slot.

    Args:
        language: a Snowball stemmer's name, or nothing, as `check_language` gives it.
        nouns: words whose derivations in -ed and -ing are words of their own: what is rugged is no rug. English only.
        folded: whether stems have Latin letters without marks, as searchers type them, so that "lodz" finds "Łódź".

    >>> Analyzer().stems("2 Red Openers")
    ['2', 'red', 'open']
    >>> Analyzer(nouns=frozenset(["rug"])).stems("Rugged rugs, hinged")
    ['rugged', 'rug', 'hing']
    """

    language: str = "porter"
    tables: Tables = field(default_factory=Tables.load)
    nouns: frozenset[str] = frozenset()
    folded: bool = True

    @classmethod
    def load(cls, language: str, folder: str | Path, slots: Collection[str]) -> Analyzer:
        """With the tables of a folder, as `Tables.load` reads them. Raises DataError as that does, and for a negation
        or a purpose that no text is read to have."""
        analyzer = cls(language, Tables.load(folder, slots))
        lists = {f"negations, {where!r}": words for where, words in analyzer.tables.negations.items()}
        for name, words in (lists | {"purposes": analyzer.tables.purposes}).items():
            for word in sorted(words):
                if (read := analyzer.words(word)) != [word]:
                    problem = f"{name}: {word!r} is never met: texts that have it are read as {read}."
                    fix = f"write {read[0]!r}" if len(read) == 1 else "take it out: it must be one word"
                    raise DataError(Path(folder, f"{name.split(',')[0]}.json"), problem, fix)
        return analyzer

    @cached_property
    def purposes(self) -> frozenset[str]:
        """The stems behind which titles say what a product is for."""
        return frozenset(map(self.stem, self.tables.purposes))

    @property
    def stopwords(self) -> frozenset[str]:
        """Words that say nothing of a product."""
        return self.tables.stopwords

    @cached_property
    def units(self) -> dict[str, str]:
        """Every known way to write a unit, and the one we keep."""
        return {form: unit for unit, forms in self.tables.units.items() for form in forms}

    @cached_property
    def unit_names(self) -> frozenset[str]:
        """The units as they stand in words."""
        return frozenset(self.units.values())

    @cached_property
    def _edits(self) -> list[tuple[re.Pattern[str], str]]:
        """What is replaced, in this order, before a text is taken apart; a unit behind its number comes last."""
        unit = "|".join(sorted(self.units, key=len, reverse=True)) or "(?!)"
        return [
            (re.compile(r"(?<=\d),(?=\d{3}(?!\d))"), ""),  # 1,500
            (re.compile(rf"(?<![\d.,])(\d+),(\d\d?)(?=\s*(?:{unit})\b)"), r"\1.\2"),  # 0,5 l
            # "iphone 12" is not 12 in
            (re.compile(r"(?<![^\s(])[\"“](?!\s|x\s*[\d.])([^\"“”]*[^\s\"“”])[\"”](?!\w)"), r"\1"),
            (re.compile(r"(?<![^\s(])['‘](?!x\s*[\d.])(?=[^\W\d])([^'‘’]*\w)['’](?!\w)"), r"\1"),
            (re.compile(r"(?<=\d)\s*['′’][\s-]*(?=\d+(?:[\s-]\d+/\d+|[./]\d+)?\s*(?:[\"”]|''))"), " ft "),  # 8'6"
            (
                re.compile(r"(?<=\d)((?:\s?(?:in|inch|ft|feet|cm|mm|m)\.?|\s*[\"”'′’]{1,2})?)\s*[x×*]\s*(?=\.?\d)"),
                r"\1 x ",
            ),
            (re.compile(r"(?<=\d)\s*(?:\"|”|'')"), " in "),
            (re.compile(r"(?<=\d)\s*['′’](?!\w)"), " ft "),
            (re.compile(r"['’]s\b"), "s"),
            (re.compile(r"['’`]"), ""),
            (re.compile(r"\b(?:sq|square)\W*(?:ft|feet|foot)\b\.?"), "sqft"),
            (re.compile(rf"(?<=\d)(?=(?:{unit})\b)"), " "),
        ]

    def words(self, text: str) -> list[str]:
        """The words of a text: lower case, units and dimensions in one form, punctuation gone, scripts without blanks
        in pairs of letters, none of more than MAX_WORD characters.

        >>> words = Analyzer().words
        >>> words('BEHR 5-gal. Men\\'s 1/2" x 10ft. Pipe, 2x4')
        ['behr', '5', 'gal', 'mens', '1/2', 'in', 'x', '10', 'ft', 'pipe', '2', 'x', '4']
        >>> words("11.0 cu ft, 2.50 inch, .5 hp")
        ['11', 'cu', 'ft', '2.5', 'in', '1/2', 'hp']
        """
        read = self._read(text)
        if len(text) > MAX_WORD:
            read = [w if len(w) <= MAX_WORD else w[:MAX_WORD].rstrip("./") for w in read]
        return read

    def stem(self, word: str) -> str:
        """The word's stem in this shop's language."""
        return self._derived_stem(word) or stem(word, self.language, self.folded)

    def stems(self, text: str) -> list[str]:
        """The stems of a text's words, in order."""
        language, folded = self.language, self.folded
        if not self.nouns:
            return [stem_short(w, language, folded) for w in self.words(text)]
        return [self._derived_stem(w) or stem_short(w, language, folded) for w in self.words(text)]

    def _derived_stem(self, word: str) -> str:
        """The stem of a word that the stemmer would take for a form of a noun, and is none; nothing for any other."""
        if not self.nouns or not word.endswith(DERIVED):
            return ""
        cut = stem(word, self.language, self.folded)
        made = any(base in self.nouns and stem(base, self.language, self.folded) == cut for base in bases(word))
        if not made:
            return ""
        word = word.removesuffix("s")
        return fold_letters(word) if self.folded else word

    def find_negated(self, words: Sequence[str]) -> list[int]:
        """For each of a query's words by which it leaves something out, where the first behind it stands that says
        something.

        >>> Analyzer().find_negated("boots without any laces not red".split())
        [3, 5]
        """
        negations, stopwords = self.tables.negations["asked"], self.stopwords
        behind = [at for at, word in enumerate(words, start=1) if word in negations]
        firsts = [next((at for at in range(begin, len(words)) if words[at] not in stopwords), -1) for begin in behind]
        return [at for at in firsts if at >= 0]

    def clip_query(self, query: str) -> ClippedQuery:
        """A query cut to what is read of it: MAX_QUERY characters, MAX_QUERY_WORDS words.

        >>> Analyzer().clip_query("red sofa")
        ClippedQuery(text='red sofa', left_out='')
        >>> Analyzer().clip_query("sofa " * 200).left_out
        'The query has 200 words: only its first 100 are read.'
        """
        text, left_out = query, []
        if len(query) > MAX_QUERY:
            text = query[:MAX_QUERY]
            left_out.append(f"The query has {len(query):,} characters: only its first {MAX_QUERY:,} are read.")
        read = self._read(text)
        if len(read) > MAX_QUERY_WORDS:
            left_out.append(f"The query has {len(read):,} words: only its first {MAX_QUERY_WORDS} are read.")
            text = " ".join(self.words(text)[:MAX_QUERY_WORDS])
        longest = max(map(len, read[:MAX_QUERY_WORDS]), default=0)
        if longest > MAX_WORD:
            left_out.append(f"A word has {longest:,} characters: only its first {MAX_WORD} are read.")
        return ClippedQuery(text, " ".join(left_out))

    def _read(self, text: str) -> list[str]:
        """The words of a text at whatever length."""
        text = _FRACTION.sub(" ", text.replace("″", '"').replace("´", "'").replace("_", " "))  # 5½ is 5 1/2, not 51/2
        text = text.lower() if text.isascii() else cut_runs(compose(text).lower().replace("⁄", "/"))
        for pattern, new in self._edits:
            text = pattern.sub(new, text)
        found = [_DECIMAL.sub(_shorten, w) if "." in w else w for w in _WORD.findall(text)]
        units = self.units
        return [units.get(w, w) if (i and has_digit(found[i - 1])) or len(w) > 4 else w for i, w in enumerate(found)]

    def to_json(self) -> dict[str, Any]:
        """As it is saved with a model."""
        saved = {"language": self.language, "tables": self.tables.to_json(), "nouns": sorted(self.nouns)}
        return saved | {"folded": self.folded}

    @classmethod
    def from_json(cls, saved: Mapping[str, Any], path: Path) -> Analyzer:
        """What `to_json` gave. Raises DataError, which names `path`, or SettingError for anything else."""
        language, nouns = check_language(saved["language"] or "none"), frozenset(map(str, saved.get("nouns", ())))
        folded = saved.get("folded", False) is True  # a model of before has its stems with marks
        return cls(language, Tables.from_json(saved["tables"], path), nouns, folded)


@cache
def default_analyzer() -> Analyzer:
    """English, with the tables that come with GRAM."""
    return Analyzer()


def _shorten(decimal: re.Match[str]) -> str:
    """One way to write a number: 11.0 is 11, 2.50 is 2.5, .5 is 1/2."""
    whole, rest = decimal[1].lstrip("0") or "0", decimal[2].rstrip("0")
    if whole != "0" and len(decimal[2]) == 3:
        return decimal[0]  # 1.500 may be a thousand and a half
    number = f"{whole}.{rest}" if rest else whole
    return _FRACTIONS.get(number, number)
