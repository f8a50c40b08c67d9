"""Spelling: a query's word that the shop does not know, read as the word it most likely means.

Symmetric deletes (Garbe 2012): two words one edit apart share a form with one letter left out, so looking up a word
costs as many dictionary reads as it has letters, whatever the size of the vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from typing import TypeAlias

from rapidfuzz.distance import OSA

from gram.text.stemming import has_digit, stem

SHORTEST = 4
"""Letters of a word that may be misspelt. Not tuned."""

LONG = 8
"""Letters from which two edits are looked for; in one letter less they are taken where they turn up (docs/log.md,
"Words: sizes, numbers, misspellings")."""

LONGEST = 40
"""Letters of a word that is still looked up: forms with two letters left out grow by the square of its length."""

RARE = 2
"""Products or queries that must know a word before an unknown one is read as it (docs/log.md, the same)."""

RUN_TOGETHER = 10
"""The same of either of two words that were run together. Not tuned."""

_Far: TypeAlias = tuple[int, int, bool]
"""Edits of word and stem together, edits of the word, and whether it begins with another letter."""


class Speller:
    """Reads unknown words as known ones, one edit away, or two in a long word that begins with the same letter.

    Edits are counted between words as they are spelt and between their stems: "taope" is "tape" rather than "tarp",
    though its stem is nearer to the latter's, and "chinking" is no "china".

    >>> speller = Speller({"velcro": 12, "faucet": 900, "fauce": 1})
    >>> speller.correct("veclro"), speller.correct("faucett"), speller.correct("faucets"), speller.correct("sofa")
    ('velcro', 'faucet', None, None)
    >>> Speller({"light": 50, "bulb": 60}).correct("lightbulb")
    'light bulb'
    """

    def __init__(
        self, counts: Mapping[str, float], spellings: Mapping[str, str] | None = None, stem: Callable[[str], str] = stem
    ) -> None:
        """`counts` says how many products or queries hold each known stem, `spellings` how it is spelt, if not so;
        `stem` gives the stem of a word."""
        self.counts, self.spellings, self.stem = dict(counts), spellings or {}, stem
        # of what changed since: stems that are not read as others, and nothing is read as them
        self.known_since: Callable[[str], bool] = lambda stem: False
        self._known_by_form: dict[str, list[str]] | None = None

    def correct_query(
        self,
        row: Sequence[str],
        known: Callable[[str], bool],
        together: Callable[[Sequence[str], str], float],
        kept: Collection[int] = (),
    ) -> list[str]:
        """The words of a query with those read right that `known` does not know.

        `together(others, stem)` says how well a known stem goes with the query's other words; those at the positions
        `kept` stay as they are.
        """
        read: list[str] = []
        for i, word in enumerate(row):
            others = [*row[:i], *row[i + 1 :]]
            right = None if i in kept or known(word) else self.correct(word, partial(together, others))
            read += [word] if right is None else right.split()
        return read

    def learn(self, stems: Iterable[str]) -> None:
        """Knows these stems from now on, so that they are not read as others; nothing is read as them."""
        self.counts.update({stem: 1.0 for stem in stems if stem not in self.counts})

    def correct(self, word: str, together: Callable[[str], float] = lambda known: 0.0) -> str | None:
        """The known word, or the two run together, that `word` is read as, as they are spelt; None when it is known,
        short, over-long or like no other.

        Of words as near, the one that goes best with the rest of the query is taken, then the most common one:
        `together` says how well a known stem goes with it.
        """
        cut = self.stem(word)
        if cut in self.counts or self.known_since(cut) or not SHORTEST <= len(word) <= LONGEST or has_digit(word):
            return None
        forms = self._find_forms()
        looked_up = _delete_each(word) | _delete_each(cut)
        if len(word) >= LONG:
            looked_up |= {form for once in _delete_each(word) for form in _delete_each(once)}
        near = {known for form in looked_up for known in forms.get(form, ())}
        allowed = 1 if len(word) < LONG - 1 else 2
        ranked = []
        for known in near:
            far = OSA.distance(word, self.spellings.get(known, known))
            of_stems = OSA.distance(cut, known)
            if min(far, of_stems) <= allowed and max(far, of_stems) <= allowed + 1:
                ranked.append(((far + of_stems, far, word[0] != known[0]), known))
        sure = [row for row in ranked if row[0][0] <= 2]  # what one edit does to a word and its stem
        if sure:
            return self._choose(sure, together)
        guessed = [row for row in ranked if row[0][0] > 2 and not row[0][2]]
        return self._split(word) or (self._choose(guessed, together) if guessed else None)

    def _choose(self, ranked: Sequence[tuple[_Far, str]], together: Callable[[str], float]) -> str:
        """How the nearest known word is spelt; `together`, which takes long, is asked only where several are."""
        nearest = min(far for far, _ in ranked)
        tied = [known for far, known in ranked if far == nearest]
        if len(tied) > 1:
            tied = [min(tied, key=lambda k: (-together(k), -self.counts[k], self.spellings.get(k, k)))]
        return self.spellings.get(tied[0], tied[0])

    def _split(self, word: str) -> str | None:
        """Two known words that were run together, the pair whose rarer one is the most common."""
        pairs = [(word[:i], word[i:]) for i in range(3, len(word) - 2)]
        known = [(min(self._count(a), self._count(b)), a, b) for a, b in pairs]
        best = max(known, default=(0.0, "", ""))
        return f"{best[1]} {best[2]}" if best[0] >= RUN_TOGETHER else None

    def _count(self, word: str) -> float:
        return self.counts.get(self.stem(word), 0.0)

    def _find_forms(self) -> dict[str, list[str]]:
        if self._known_by_form is None:
            forms: dict[str, list[str]] = {}
            for known, count in list(self.counts.items()):  # other threads may learn words
                if count >= RARE and SHORTEST <= len(known) <= LONGEST and not has_digit(known):
                    for form in _delete_each(known) | _delete_each(self.spellings.get(known, known)):
                        forms.setdefault(form, []).append(known)
            self._known_by_form = forms  # whole, for other threads may read it
        return self._known_by_form


def _delete_each(word: str) -> set[str]:
    return {word} | {word[:i] + word[i + 1 :] for i in range(len(word))}
