"""Texts as the network reads them: tokens, and the attributes that the text holds with their positions.

A product is read by its head, which gives its codes, and where its description says more, that is read too: it adds to
the product's vectors.

Letters: N texts, B texts of a batch, L tokens of the longest, T lexical attributes of all texts of a batch together.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gram.arrays import ragged
from gram.coder.base import LEFT_OUT
from gram.coder.encoder.backbone import Backbone, tokenize_words
from gram.codes.lexicon import Lexicon
from gram.records import Product
from gram.text.fields import FIELDS, field_texts
from gram.text.words import has_digit

QUERY_TOKENS, PRODUCT_TOKENS = 32, 64
DESCRIPTION_TOKENS, FURTHER_TOKENS = 64, 32
"""Tokens at most that are read of a product's description, and at most of these that late interaction meets beside
those of the head: docs/log.md, "Descriptions read"."""


class Batch(NamedTuple):
    """Texts for the network. `tag_*` list the attributes that the texts hold, row by row."""

    token_ids: Tensor  # (B, L)
    mask: Tensor  # (B, L) 1 where a token stands
    n_words: Tensor  # (B,) words of each text
    tag_row: Tensor  # (T,) which text
    tag_attribute: Tensor  # (T,)
    tag_start: Tensor  # (T,) the attribute's first position
    tag_end: Tensor  # (T,) one past its last
    tag_field: Tensor  # (T,) its field, by number in FIELDS

    def to(self, device: torch.device | str) -> Batch:
        return Batch(*(t.to(device) for t in self))


class Tokenized(NamedTuple):
    """One text."""

    token_ids: list[int]
    n_words: int
    tags: list[tuple[int, int, int, int]]  # attribute, first token, one past, field
    unsaid: list[tuple[int, int]]  # of a query: the first token, and one past the last, of words that no attribute says
    description: list[int]  # a product's description's token ids, where it has words that the head lacks; else none
    further: list[int]  # where in these the tokens of such words stand


class TokenizedTexts:
    """Many texts, tokenised once, as flat arrays with offsets; `batch(rows)` picks some.

    `descriptions` are those of the texts `described` (M,), and `further` says where in each of them the tokens stand
    that the text's head lacks.
    """

    def __init__(self, rows: Iterable[Tokenized], pad_id: int) -> None:
        token_ids: list[int] = []
        tags: list[tuple[int, int, int, int]] = []
        token_start, tag_start, n_words = [0], [0], []
        self.unsaid: list[list[tuple[int, int]]] = []
        descriptions: list[Tokenized] = []
        described: list[int] = []
        self.further: list[NDArray[np.int64]] = []
        for row in rows:
            token_ids += row.token_ids
            tags += row.tags
            n_words.append(row.n_words)
            token_start.append(len(token_ids))
            tag_start.append(len(tags))
            if row.description:
                described.append(len(self.unsaid))
                descriptions.append(Tokenized(row.description, row.n_words, [], [], [], []))
                self.further.append(np.array(row.further, dtype=np.int64))
            self.unsaid.append(row.unsaid)
        self.descriptions: TokenizedTexts | None = TokenizedTexts(descriptions, pad_id) if descriptions else None
        self.described = np.array(described, dtype=np.int64)
        self.pad_id = pad_id
        self.token_ids = np.array(token_ids, dtype=np.int32)
        self.tags = np.array(tags, dtype=np.int32).reshape(-1, 4)  # attribute, first token, one past, field
        self.token_start = np.array(token_start, dtype=np.int64)  # (N + 1,)
        self.tag_start = np.array(tag_start, dtype=np.int64)  # (N + 1,)
        self.n_words = np.array(n_words, dtype=np.float32)  # (N,)

    def __len__(self) -> int:
        return len(self.n_words)

    def heads(self) -> TokenizedTexts:
        """The same without their descriptions: for whom codes alone matter."""
        same = copy(self)
        same.descriptions, same.described, same.further = None, np.zeros(0, dtype=np.int64), []
        return same

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each text, (N,)."""
        return np.diff(self.token_start)

    def attributes_of(self, row: int) -> NDArray[np.int32]:
        """The attributes that one text holds."""
        return self.tags[self.tag_start[row] : self.tag_start[row + 1], 0]

    def by_length(self, size: int) -> list[NDArray[np.int64]]:
        """All rows in groups of like length, the longest first (so that memory runs out at once or never)."""
        order = np.argsort(-self.lengths, kind="stable")
        return [order[begin : begin + size] for begin in range(0, len(order), size)]

    def batch(self, rows: Sequence[int] | NDArray[np.int64]) -> Batch:
        rows = np.asarray(rows, dtype=np.int64)
        length = self.lengths[rows]
        at, row_of = ragged(self.token_start[rows], length)
        token_ids = np.full((len(rows), int(length.max(initial=1))), self.pad_id, dtype=np.int64)
        column = np.arange(len(at)) - np.repeat(np.cumsum(length) - length, length)
        token_ids[row_of, column] = self.token_ids[at]
        mask = np.arange(token_ids.shape[1])[None, :] < length[:, None]
        counts = self.tag_start[rows + 1] - self.tag_start[rows]
        at, tag_row = ragged(self.tag_start[rows], counts)
        tags = torch.from_numpy(self.tags[at].astype(np.int64))
        return Batch(
            torch.from_numpy(token_ids),
            torch.from_numpy(mask.astype(np.int64)),
            torch.from_numpy(self.n_words[rows]),
            torch.from_numpy(tag_row),
            *(tags[:, i] for i in range(4)),
        )


def hide(batch: Batch, hidden: Mapping[int, Sequence[int]], words: Sequence[frozenset[str]], mask_id: int) -> Batch:
    """The texts without some of their attributes: no text holds them, and a mark stands where they stood.

    Args:
        hidden: {row of the batch: attributes to hide}; every attribute that has a word of these goes with them.
        words: of each attribute.
    """
    if not hidden:
        return batch
    token_ids = batch.token_ids.clone()
    keep = torch.ones(len(batch.tag_row), dtype=torch.bool)
    gone = {row: frozenset().union(*(words[a] for a in attributes)) for row, attributes in hidden.items()}
    tags = zip(*(t.tolist() for t in (batch.tag_row, batch.tag_attribute, batch.tag_start, batch.tag_end)), strict=True)
    for i, (row, attribute, start, end) in enumerate(tags):
        if row in gone and not words[attribute].isdisjoint(gone[row]):
            keep[i] = False
            if start and len(words[attribute]) == 1:  # at 0 stands the start mark: the encoder does not read it
                token_ids[row, start:end] = mask_id
    return batch._replace(
        token_ids=token_ids,
        tag_row=batch.tag_row[keep],
        tag_attribute=batch.tag_attribute[keep],
        tag_start=batch.tag_start[keep],
        tag_end=batch.tag_end[keep],
        tag_field=batch.tag_field[keep],
    )


class TextTokenizer:
    """Tokenises queries and products for one lexicon and one backbone."""

    def __init__(self, lexicon: Lexicon, backbone: Backbone) -> None:
        self.lexicon, self.backbone = lexicon, backbone

    def read(self, texts: Sequence[str] | Sequence[Product]) -> TokenizedTexts:
        """Queries, or products with all their fields."""
        if texts and isinstance(texts[0], Product):
            return self.products(texts)  # type: ignore[arg-type]
        return self.queries(texts)  # type: ignore[arg-type]

    def queries(self, texts: Iterable[str]) -> TokenizedTexts:
        return TokenizedTexts(map(self._tokenize_query, texts), self.backbone.pad_id)

    def products(self, products: Iterable[Product]) -> TokenizedTexts:
        return TokenizedTexts(map(self._tokenize_product, products), self.backbone.pad_id)

    def _tokenize(
        self, fields: Sequence[tuple[str, list[str]]], max_tokens: int
    ) -> tuple[Tokenized, list[str], list[tuple[int, int]]]:
        """Of the words of each field; with the words that are read, and where their tokens stand. Each lexical
        attribute has one tag, where it stands first.

        The network reads the title, and then the words of brand, category and attributes that the title lacks. A
        description is not read, but its attributes are lexical too.
        """
        read: list[str] = []
        seen: dict[str, int] = {}  # word → where it stands first
        fields_read: list[tuple[str, list[str], list[int]]] = []
        for name, row in fields:
            at = []
            for word in row:
                if name == "title" or (name != "description" and word not in seen):
                    at.append(len(read))
                    seen.setdefault(word, len(read))
                    read.append(word)
                else:
                    at.append(seen.get(word, -1))
            fields_read.append((name, row, at))
        ids, spans = tokenize_words(self.backbone, read, max_tokens)
        tags: dict[int, tuple[int, int, int, int]] = {}
        for name, row, at in fields_read:
            cut = [self.lexicon.analyzer.stem(w) for w in row]
            for tag in self.lexicon.tagger.tag(cut):
                if tag.attribute in tags:
                    continue
                first, last = at[tag.start], at[tag.end - 1]
                start, end = (spans[first][0], spans[last][1]) if first >= 0 and last >= first else (0, 1)
                if start >= end:
                    start, end = 0, 1
                tags[tag.attribute] = (tag.attribute, start, end, FIELDS.index(name))
        return Tokenized(ids, len(read), list(tags.values()), [], [], []), read, spans

    def _tokenize_product(self, product: Product) -> Tokenized:
        """With its description, where that has words that are not read in the head. An encoder from scratch learns from
        heads alone, and reads no more."""
        fields = [(name, self.lexicon.analyzer.words(text)) for name, text in field_texts(product)]
        made, head, head_spans = self._tokenize(fields, PRODUCT_TOKENS)
        if not self.backbone.pretrained:
            return made
        words = dict(fields).get("description", [])
        words = words[: 2 * DESCRIPTION_TOKENS]  # some have no token, and those of long texts take time
        ids, spans = tokenize_words(self.backbone, words, DESCRIPTION_TOKENS)
        read = {word for word, (start, _) in zip(head, head_spans, strict=True) if start}
        further: list[int] = []
        for word, (start, end) in zip(words, spans, strict=True):
            if start and word not in read:
                further += range(start, end)
                read.add(word)
        return made._replace(description=ids, further=further[:FURTHER_TOKENS]) if further else made

    def _tokenize_query(self, text: str) -> Tokenized:
        analyzer = self.lexicon.analyzer
        made, words, spans = self._tokenize([("title", analyzer.words(text))], QUERY_TOKENS)
        known = {stem for attribute, *_ in made.tags for form in self.lexicon.forms[attribute] for stem in form}
        unwanted = {at + ahead for at in analyzer.find_negated(words) for ahead in range(LEFT_OUT)}
        nothing = analyzer.stopwords | set(analyzer.tables.negations["asked"])

        def says_more(at: int, word: str) -> bool:
            telling = len(word) > 1 and not has_digit(word) and word not in nothing
            return (
                telling and at not in unwanted and analyzer.stem(word) not in known and self.backbone.understands(word)
            )

        unsaid = [at for at, word in enumerate(words) if says_more(at, word)]
        return made._replace(unsaid=[spans[at] for at in unsaid if spans[at][0] > 0])  # of those that are read
