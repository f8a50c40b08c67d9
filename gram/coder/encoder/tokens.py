"""Texts as the network reads them: word pieces, and the attributes that the text holds with their places.

Letters: N texts, B texts of a batch, L pieces of the longest, T attributes held by all texts of a batch together.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gram.arrays import ragged
from gram.coder.encoder.backbone import Backbone, piece_ids
from gram.codes.lexicon import Lexicon
from gram.records import Product
from gram.text.fields import FIELDS, field_texts
from gram.text.words import stem, words

QUERY_PIECES, PRODUCT_PIECES = 32, 64


class Batch(NamedTuple):
    """Texts for the network. `tag_*` list the attributes that the texts hold, row by row."""

    pieces: Tensor  # (B, L) piece ids
    mask: Tensor  # (B, L) 1 where a piece stands
    n_words: Tensor  # (B,) words of each text
    tag_row: Tensor  # (T,) which text
    tag_attribute: Tensor  # (T,)
    tag_start: Tensor  # (T,) first piece of the attribute's place
    tag_end: Tensor  # (T,) one past its last
    tag_field: Tensor  # (T,) place in FIELDS

    def to(self, device: torch.device | str) -> Batch:
        return Batch(*(t.to(device) for t in self))


class EncodedTexts:
    """Many texts, encoded once, as flat arrays with offsets; `batch(rows)` picks some."""

    def __init__(self, rows: Iterable[tuple[list[int], int, list[tuple[int, int, int, int]]]], pad_id: int) -> None:
        pieces: list[int] = []
        tags: list[tuple[int, int, int, int]] = []
        piece_start, tag_start, n_words = [0], [0], []
        for ids, count, row in rows:
            pieces += ids
            tags += row
            n_words.append(count)
            piece_start.append(len(pieces))
            tag_start.append(len(tags))
        self.pad_id = pad_id
        self.pieces = np.array(pieces, dtype=np.int32)
        self.tags = np.array(tags, dtype=np.int32).reshape(-1, 4)  # attribute, first piece, one past, field
        self.piece_start = np.array(piece_start, dtype=np.int64)  # (N + 1,)
        self.tag_start = np.array(tag_start, dtype=np.int64)  # (N + 1,)
        self.n_words = np.array(n_words, dtype=np.float32)  # (N,)

    def __len__(self) -> int:
        return len(self.n_words)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Pieces of each text, (N,)."""
        return np.diff(self.piece_start)

    def held(self, row: int) -> NDArray[np.int32]:
        """The attributes that one text holds."""
        return self.tags[self.tag_start[row] : self.tag_start[row + 1], 0]

    def by_length(self, size: int) -> list[NDArray[np.int64]]:
        """All rows in groups of like length, the longest first (so that memory runs out at once or never)."""
        order = np.argsort(-self.lengths, kind="stable")
        return [order[begin : begin + size] for begin in range(0, len(order), size)]

    def batch(self, rows: Sequence[int] | NDArray[np.int64]) -> Batch:
        rows = np.asarray(rows, dtype=np.int64)
        length = self.lengths[rows]
        at, row_of = ragged(self.piece_start[rows], length)
        pieces = np.full((len(rows), int(length.max(initial=1))), self.pad_id, dtype=np.int64)
        column = np.arange(len(at)) - np.repeat(np.cumsum(length) - length, length)
        pieces[row_of, column] = self.pieces[at]
        mask = np.arange(pieces.shape[1])[None, :] < length[:, None]
        counts = self.tag_start[rows + 1] - self.tag_start[rows]
        at, tag_row = ragged(self.tag_start[rows], counts)
        tags = torch.from_numpy(self.tags[at].astype(np.int64))
        return Batch(
            torch.from_numpy(pieces),
            torch.from_numpy(mask.astype(np.int64)),
            torch.from_numpy(self.n_words[rows]),
            torch.from_numpy(tag_row),
            *(tags[:, i] for i in range(4)),
        )


class TextEncoder:
    """Encodes queries and products against one lexicon and one backbone's pieces."""

    def __init__(self, lexicon: Lexicon, backbone: Backbone) -> None:
        self.lexicon, self.backbone = lexicon, backbone

    def queries(self, texts: Iterable[str]) -> EncodedTexts:
        return EncodedTexts((self._encode([("title", t)], QUERY_PIECES) for t in texts), self.backbone.pad_id)

    def products(self, products: Iterable[Product]) -> EncodedTexts:
        return EncodedTexts((self._encode(field_texts(p), PRODUCT_PIECES) for p in products), self.backbone.pad_id)

    def _encode(
        self, fields: Sequence[tuple[str, str]], max_pieces: int
    ) -> tuple[list[int], int, list[tuple[int, int, int, int]]]:
        """Piece ids, number of words read, and the attributes held: one tag each, where it stands first.

        The network reads the title, and then the words of brand, category and attributes that the title lacks. A
        description is not read, only copied from.
        """
        read: list[str] = []
        seen: set[str] = set()
        placed: list[tuple[str, list[str], list[int]]] = []
        for name, text in fields:
            row = words(text)
            at = []
            for word in row:
                if name == "title" or (name != "description" and word not in seen):
                    at.append(len(read))
                    read.append(word)
                    seen.add(word)
                else:
                    at.append(read.index(word) if word in seen else -1)
            placed.append((name, row, at))
        ids, spans = piece_ids(self.backbone, read, max_pieces)
        tags: dict[int, tuple[int, int, int, int]] = {}
        for name, row, at in placed:
            cut = [stem(w, self.lexicon.language) for w in row]
            for tag in self.lexicon.tagger.tag(cut):
                if tag.attribute in tags:
                    continue
                first, last = at[tag.start], at[tag.end - 1]
                start, end = (spans[first][0], spans[last][1]) if first >= 0 and last >= first else (0, 1)
                if start >= end:
                    start, end = 0, 1
                tags[tag.attribute] = (tag.attribute, start, end, FIELDS.index(name))
        return ids, len(read), list(tags.values())
