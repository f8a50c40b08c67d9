"""The phrases of titles and queries, counted: what mining knows of free text."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator

from gram.codes.lexicon import Stems
from gram.codes.slots import head_of
from gram.text.analysis import Analyzer

_PAUSE = re.compile(r"[;:|()\[\]{}、，。（）【】]|,(?!\d)|\s[-–—]\s")
_NUMBER = re.compile(r"(?<!\S)\S*\d\S*")


class Reader:
    """Words of texts, each distinct one read once: titles, brands and queries come back at every stage."""

    def __init__(self, analyzer: Analyzer) -> None:
        self.analyzer = analyzer
        self._read: dict[str, tuple[list[str], Stems]] = {}

    def __call__(self, text: str) -> tuple[list[str], Stems]:
        """The words of a text and their stems."""
        found = self._read.get(text)
        if found is None:
            row = self.analyzer.words(text)
            found = self._read[text] = row, tuple(map(self.analyzer.stem, row))
        return found


class PhraseCounts:
    """Word sequences of one kind of text: how many texts hold each, how it is spelt, where it stands."""

    def __init__(self, reader: Reader, max_words: int) -> None:
        self.reader, self.max_words = reader, max_words
        self.texts = 0
        self.holding: Counter[Stems] = Counter()
        self.spellings: Counter[tuple[Stems, str]] = Counter()
        self.last: Counter[Stems] = Counter()

    def add(self, text: str) -> None:
        row, cut = self.reader(text)
        stopwords = self.reader.analyzer.stopwords
        self.texts += 1
        seen: dict[Stems, str] = {}
        for n in range(1, self.max_words + 1):
            for i in range(len(row) - n + 1):
                gram = cut[i : i + n]
                if n > 1 and (row[i] in stopwords or row[i + n - 1] in stopwords):
                    continue
                if gram not in seen:
                    seen[gram] = " ".join(row[i : i + n])
        self.holding.update(seen.keys())
        self.spellings.update(seen.items())
        head = self._find_head(text)
        self.last.update(head[-n:] for n in range(1, min(self.max_words, len(head)) + 1))

    def _find_head(self, text: str) -> Stems:
        """The stems that end in what the text is about, as far as punctuation, numbers and stop words tell.

        "(2 Pack) Steel Rake, 24 in.", "Acme 24 in. Steel Rake in Red" and "steel rake for leaves": all about a rake.
        """
        for part in _PAUSE.split(text):
            runs = [run for run in self._split_runs(part) if run]
            if runs:
                return next((run for run in reversed(runs) if len(run) > 1), runs[0])
        return ()

    def _split_runs(self, text: str) -> Iterator[Stems]:
        """The stems between a text's numbers, without their units, up to its first stop word."""
        units, stopwords = self.reader.analyzer.units, self.reader.analyzer.stopwords
        for part in _NUMBER.split(text):
            row, cut = self.reader(part)
            start = next((i for i, w in enumerate(row) if w not in units and w not in stopwords), len(row))
            end = start + head_of(row[start:], stopwords)
            yield cut[start:end]
            if end < len(row):
                return

    def npmi(self, gram: Stems) -> float:
        """Normalised pointwise mutual information of a phrase's two weakest-joined parts (Bouma 2009), in [-1, 1]."""
        together = self.holding[gram] / max(self.texts, 1)
        if not together or together == 1:
            return float(bool(together))
        apart = max(self.holding[gram[:i]] * self.holding[gram[i:]] for i in range(1, len(gram)))
        # parts with a stop word at the edge have no count
        apart = apart or self.holding[gram[:1]] * self.holding[gram[-1:]]
        return math.log(together * self.texts**2 / apart) / -math.log(together)
