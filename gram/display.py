"""What a terminal shows: texts without what would steer it, and why a hit was found."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from gram.ranking.features import FEATURES
from gram.records import Hit, SharedCode, code_text

CODES = 8
"""Shared codes of a hit that are shown in full, the weightiest, where their share can be seen; the others are named."""

_STEERS = re.compile(
    "[\x00-\x1f\x7f-\x9f"  # control characters, C0 and C1: terminal escapes begin with one
    "\u2028\u2029"  # separators of lines and paragraphs
    "\u202a-\u202e\u2066-\u2069"  # what turns the direction of the text around it
    "\ud800-\udfff]"  # halves of characters, which no encoding can write
)


def printable(text: str) -> str:
    """The text in one line, with whatever would steer a terminal escaped; letters, marks and emoji stay.

    >>> printable("sofa\\x1b[2J naïve Ж 靴 👨‍👩‍👧")
    'sofa\\\\x1b[2J naïve Ж 靴 👨‍👩‍👧'
    """
    return _STEERS.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)


def format_hits(
    hits: Sequence[Hit], explain: bool = False, first: int = 1, notes: Mapping[str, str] | None = None
) -> str:
    """Hits as lines, best first, from the rank `first` on, each with what is noted of its product id; with `explain`,
    why each was found below it."""
    lines = []
    for rank, hit in enumerate(hits, start=first):
        lines.append(f"{rank:3d}  {hit.score:7.3f}  {printable(hit.product_id)}  {printable(hit.title)}")
        lines[-1] += f"  ({printable(notes[hit.product_id])})" if notes and notes.get(hit.product_id) else ""
        lines += [why] if explain and (why := format_hit(hit)) else []
    return "\n".join(lines)


def format_hit(hit: Hit) -> str:
    """Why a hit was found, as indented lines: the weightiest shared codes with their share and where each side has them
    from, in one line the others with the sum of theirs, then the parts of the score, each group of features with its
    sum."""
    codes: list[str] = []
    others: list[SharedCode] = []
    for rank, shared in enumerate(hit.codes):
        if rank < CODES and _in_percent(shared.share):
            codes.append(_format_code(shared))
        else:
            others.append(shared)
    if others:
        rest = _in_percent(sum(shared.share for shared in others))
        names = ", ".join(code_text(shared.code) for shared in others)
        codes.append(printable(f"{rest:6.1%}  also {names}" if rest else f"{'also':>6}  {names}"))
    return "\n".join(f"       {line}" for line in [*codes, *_format_features(hit)])


def _format_code(shared: SharedCode) -> str:
    near = "" if shared.near_to is None else f" {printable(str(shared.near_to))}"
    query = f"query {shared.query_source}{near} {shared.query_weight:.2f}"
    product = f"product {shared.product_source} {shared.product_weight:.2f}"
    return f"{_in_percent(shared.share):6.1%}  {printable(code_text(shared.code))}  ({query} × {product})"


def _in_percent(share: float) -> float:
    """A share as it is shown, to a tenth of a percent: 0 where that says nothing of it."""
    return round(share, 3) + 0.0


def _format_features(hit: Hit) -> list[str]:
    group_of = {feature.name: feature.group for feature in FEATURES}
    groups: dict[str, dict[str, float]] = {}
    for name, part in hit.features.items():
        groups.setdefault(group_of.get(name, "other"), {})[name] = part
    return [
        f"{_signed(sum(parts.values()))} {group}: {', '.join(f'{name} {_signed(p)}' for name, p in parts.items())}"
        for group, parts in groups.items()
        if group != "other" or any(parts.values())
    ]


def _signed(part: float) -> str:
    return f"{round(part, 2) + 0.0:+.2f}"  # + 0.0: no −0.00
