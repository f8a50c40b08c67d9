r"""Codes as text, and the prompts that a language model continues with them.

A code is one line, `type: sofa | colour: blue`. What a value says is never taken for what separates: a bar, a colon, a
backslash and what would end the line are written with a backslash before them, and read back the same.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from gram.coder.base import Side
from gram.records import Attribute, Code, Product
from gram.text.fields import field_texts

MARKERS = {Side.QUERY: "query", Side.PRODUCT: "product"}
DESCRIPTION_WORDS = 24
"""Words of a description that a prompt holds: the first ones say what a product is."""

_ESCAPES = {"\\": "\\\\", "|": "\\|", ":": "\\:", "\n": "\\n", "\r": "\\r"}
_READ = {escaped: plain for plain, escaped in _ESCAPES.items()}
_ESCAPE = re.compile("|".join(re.escape(plain) for plain in _ESCAPES))


def write_code(code: Sequence[Attribute]) -> str:
    r"""A code as a line of text.

    >>> write_code((Attribute("type", "sofa"), Attribute("size", "3:4 | x")))
    'type: sofa | size: 3\\:4 \\| x'
    """
    return " | ".join(f"{_escape(slot)}: {_escape(value)}" for slot, value in code)


def read_code(line: str) -> Code:
    r"""The code that `write_code` wrote. Raises ValueError for a line that is none.

    >>> read_code(r"type: sofa | size: 3\:4 \| x")
    (Attribute(slot='type', value='sofa'), Attribute(slot='size', value='3:4 | x'))
    """
    code = []
    for part in _split(line, " | "):
        pair = _split(part, ": ")
        if len(pair) != 2:
            raise ValueError(f"no attribute, which is escaped `slot: value`: {part!r} in {line!r}")
        code.append(Attribute(*map(_unescape, pair)))
    return tuple(code)


def write_prompt(text: str | Product, side: Side) -> str:
    """What the model reads of a text: which side it is on, and what it says; codes follow it.

    >>> write_prompt("blue couch", Side.QUERY)
    'query: blue couch\\ncode:'
    """
    if isinstance(text, Product):
        parts: list[str] = []
        for field, value in field_texts(text):
            words = value.split()
            parts.append(" ".join(words[:DESCRIPTION_WORDS] if field == "description" else words))
        text = " ; ".join(dict.fromkeys(parts))
    return f"{MARKERS[side]}: {' '.join(text.split())}\ncode:"


def _escape(text: str) -> str:
    return _ESCAPE.sub(lambda found: _ESCAPES[found[0]], text)


def _unescape(text: str) -> str:
    return re.sub(r"\\.", lambda found: _READ.get(found[0], found[0]), text)


def _split(line: str, separator: str) -> list[str]:
    """The parts between separators; a backslash takes what follows it out of the count."""
    parts, part, at = [], "", 0
    while at < len(line):
        if line[at] == "\\":
            part += line[at : at + 2]
            at += 2
        elif line.startswith(separator, at):
            parts.append(part)
            part, at = "", at + len(separator)
        else:
            part += line[at]
            at += 1
    return [*parts, part]
