"""HTML in sellers' texts."""

from __future__ import annotations

import html
import re

_INVISIBLE = re.compile(r"<(script|style)\b.*?</\1\s*>|<!--.*?-->", re.IGNORECASE | re.DOTALL)
_TAG = re.compile(r"</?[a-z][^<>]*>", re.IGNORECASE)


def plain_text(markup: str) -> str:
    """The words of a text with HTML in it, on one line; `<` before anything but a tag's name stays.

    >>> plain_text("<p>Fits pipes &lt; 2&quot;<br/>and <b>most</b> taps</p>")
    'Fits pipes < 2" and most taps'
    """
    if "<" in markup:
        markup = _TAG.sub(" ", _INVISIBLE.sub(" ", markup))
    return " ".join(html.unescape(markup).split())
