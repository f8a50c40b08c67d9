"""Beam search over the code trie: the likeliest codes of many texts at once.

Only codes that exist are ever written: at each step a hypothesis goes on to a child of its node, or ends where a code
ends, and probabilities are normalised over exactly these. A step's work depends on beam and branching, not on how many
codes there are. With a beam as wide as the trie's widest level the result is that of scoring every code.

Dimension letters:
    B  texts (rows of the batch)      H  live hypotheses, of all rows together, by row and then by prefix
    K  codes returned for a row       E  children of those hypotheses, in their order, each one's by rising attribute
    S  first attributes given         t  attributes written so far
    N  nodes of the trie              W  beam width
    X  candidates of a choice         M  chosen ones
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from gram.codes.trie import MAX_LENGTH, CodeTrie
from gram.errors import ModelError, SettingError

NEVER = float("-inf")


class NextAttribute(Protocol):
    """What a decoder says of the next attribute."""

    def __call__(self, rows: Tensor, prefixes: Tensor, row_of_child: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Unnormalised logits of every allowed child (E,), and of ending here for every hypothesis (H,).

        `rows` (H,) is the text of each hypothesis and `prefixes` (H, t) the attributes it has written; all of a call
        have the same t, 0 at the root. `row_of_child` (E,) is the hypothesis that a child belongs to, 0 … H − 1, and
        `tokens` (E,) its attribute. Ending counts only where a code ends; every hypothesis given has a child.
        """
        ...


@dataclass(frozen=True)
class BeamOptions:
    """How widely to search and what to return.

    `min_length` leaves out shorter codes without changing the others' log-probabilities.
    """

    width: int = 8
    n_codes: int = 8
    min_length: int = 1

    def __post_init__(self) -> None:
        if self.width < 1 or self.n_codes < 1:
            raise SettingError(f"beam width ({self.width}) and codes returned ({self.n_codes}) must be at least 1")
        if not 1 <= self.min_length <= MAX_LENGTH:
            raise SettingError(f"min_length must be 1 to {MAX_LENGTH}, not {self.min_length}")


class Start(NamedTuple):
    """First attributes that are decided already; they stand in for the scorer's first step and are not renormalised."""

    attributes: Tensor  # (B, S) padded with −1; those that begin no code are passed over
    log_probs: Tensor  # (B, S)


class BeamResult(NamedTuple):
    """The codes of every row, best first, ties by code id."""

    code_ids: Tensor  # (B, K) int64, padded with −1
    log_probs: Tensor  # (B, K) float32, padded with −inf; log P(code | text)
    lengths: Tensor  # (B, K) int64 attributes of the code, padded with 0


class TorchTrie:
    """A code trie's arrays as tensors, made once; codes added to the trie afterwards need a new one."""

    def __init__(self, trie: CodeTrie, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)
        self.first_child = torch.tensor(trie.first_child, dtype=torch.int64, device=device)  # (N + 1,)
        self.child_token = torch.tensor(trie.child_token, dtype=torch.int64, device=device)  # (edges,)
        self.code_id = torch.tensor(trie.code_id, dtype=torch.int64, device=device)  # (N,) −1 where no code ends

    def n_children(self, nodes: Tensor) -> Tensor:
        """How many children each of the nodes (H,) has."""
        return self.first_child[nodes + 1] - self.first_child[nodes]  # (H,)

    def children(self, nodes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Of the nodes (H,): the position of each child's parent (E,), its attribute (E,) and its node (E,)."""
        counts = self.n_children(nodes)  # (H,)
        parent = torch.repeat_interleave(counts)  # (E,)
        begins = counts.cumsum(0) - counts  # (H,)
        edge = torch.arange(len(parent), device=self.device) + (self.first_child[nodes] - begins)[parent]  # (E,)
        return parent, self.child_token[edge], edge + 1


class _Live(NamedTuple):
    """Hypotheses, by row and then by prefix."""

    row: Tensor  # (H,)
    node: Tensor  # (H,)
    prefix: Tensor  # (H, t)
    log_prob: Tensor  # (H,)

    def only(self, chosen: Tensor) -> _Live:
        return _Live(self.row[chosen], self.node[chosen], self.prefix[chosen], self.log_prob[chosen])


@torch.no_grad()
def beam_search(
    trie: TorchTrie,
    scorer: NextAttribute,
    n_rows: int,
    options: BeamOptions | None = None,
    start: Start | None = None,
) -> BeamResult:
    """The likeliest codes of `n_rows` texts.

    A hypothesis without an allowed continuation ends there, and is lost unless a code ends there too; a row without
    any code comes back as padding. Raises ModelError when the scorer's logits are not numbers.
    """
    options = options or BeamOptions()
    finished = _no_codes(n_rows, options.n_codes, trie.device)
    live = _roots(trie, n_rows) if start is None else _first_attributes(trie, n_rows, start, options.width)
    while len(live.row):
        inner = trie.n_children(live.node) > 0  # (H,)
        is_end = trie.code_id[live.node] >= 0  # (H,)
        end = torch.where(is_end, 0.0, NEVER)  # (H,) a leaf has one continuation, so its probability is 1
        going = live.only(inner)
        parent, token, node = trie.children(going.node)  # (E,) (E,) (E,)
        child = torch.zeros(0, device=trie.device)  # (E,)
        if len(token):
            logits = scorer(going.row, going.prefix, parent, token)  # (E,) (H of going,)
            child, end[inner] = _log_softmax(*logits, is_end[inner], parent)
        if live.prefix.shape[1] >= options.min_length:
            finished = _with_ended(finished, live, live.log_prob + end, trie)
        score = going.log_prob[parent] + child  # (E,)
        chosen = _best(score, going.row[parent], n_rows, options.width)  # (M,)
        above = parent[chosen]  # (M,)
        prefix = torch.cat([going.prefix[above], token[chosen, None]], dim=1)  # (M, t + 1)
        live = _Live(going.row[above], node[chosen], prefix, score[chosen])
        live = live.only(_can_still_win(live, finished))
    return finished


def _no_codes(n_rows: int, n_codes: int, device: torch.device) -> BeamResult:
    shape = (n_rows, n_codes)  # (B, K)
    return BeamResult(
        torch.full(shape, -1, device=device),
        torch.full(shape, NEVER, device=device),
        torch.zeros(shape, dtype=torch.int64, device=device),
    )


def _roots(trie: TorchTrie, n_rows: int) -> _Live:
    zeros = torch.zeros(n_rows, dtype=torch.int64, device=trie.device)  # (H,) one hypothesis a row
    return _Live(torch.arange(n_rows, device=trie.device), zeros, zeros[:, None][:, :0], zeros.float())


def _first_attributes(trie: TorchTrie, n_rows: int, start: Start, width: int) -> _Live:
    """One hypothesis for each given first attribute that begins a code; of an attribute given twice, the likelier."""
    if start.attributes.shape != start.log_probs.shape or len(start.attributes) != n_rows:
        shapes = f"{tuple(start.attributes.shape)} and {tuple(start.log_probs.shape)}"
        raise ValueError(f"start must hold attributes and log-probabilities of shape ({n_rows}, S), not {shapes}")
    order = start.log_probs.argsort(dim=1, descending=True, stable=True)  # (B, S)
    order = order.gather(1, start.attributes.gather(1, order).argsort(dim=1, stable=True))  # (B, S)
    attribute = start.attributes.gather(1, order)  # (B, S) rising, so equal ones stand together
    log_prob = start.log_probs.gather(1, order).float()  # (B, S)
    first_child = trie.child_token[: int(trie.first_child[1])]  # (children of the root,)
    edge = torch.searchsorted(first_child, attribute)  # (B, S)
    known = torch.cat([first_child, first_child.new_tensor([-1])])  # (children of the root + 1,)
    allowed = (attribute >= 0) & (known[edge] == attribute) & (log_prob > NEVER)  # (B, S)
    allowed[:, 1:] &= attribute[:, 1:] != attribute[:, :-1]
    row, slot = allowed.nonzero(as_tuple=True)  # (X,) (X,)
    live = _Live(row, edge[row, slot] + 1, attribute[row, slot][:, None], log_prob[row, slot])
    return live.only(_best(live.log_prob, row, n_rows, width))


def _log_softmax(child: Tensor, end: Tensor, is_end: Tensor, parent: Tensor) -> tuple[Tensor, Tensor]:
    """Log-probabilities of children (E,) and of ending (H,): one softmax over each hypothesis's continuations."""
    if child.shape != parent.shape or end.shape != is_end.shape:
        expected, given = (tuple(parent.shape), tuple(is_end.shape)), (tuple(child.shape), tuple(end.shape))
        raise ValueError(f"the scorer must return logits of shapes {expected}, not {given}")
    child, end = child.float(), end.float().masked_fill(~is_end, NEVER)  # (E,) (H,)
    top = end.scatter_reduce(0, parent, child, "amax")  # (H,)
    top = top.masked_fill(top == NEVER, 0.0)  # (H,)
    total = (end - top).exp().index_add(0, parent, (child - top[parent]).exp())  # (H,)
    log_total = torch.where(total == 0, 0.0, top + total.log())  # (H,) 0 where the scorer forbids everything
    child, end = child - log_total[parent], end - log_total  # (E,) (H,)
    if child.isnan().any() or end.isnan().any():
        raise ModelError("the decoder's logits are not finite numbers. Fix: load a sound checkpoint")
    return child, end


def _best(score: Tensor, row: Tensor, n_rows: int, width: int) -> Tensor:
    """Positions (M,), rising, of each row's `width` best candidates: score (X,), row (X,) rising.

    −inf is never chosen; of equals at the border the earlier ones are, which are those with the smaller prefix.
    """
    if not len(score):
        return row[:0]
    counts = torch.bincount(row, minlength=n_rows)  # (B,)
    begins = counts.cumsum(0) - counts  # (B,)
    slot = torch.arange(len(row), device=row.device) - begins[row]  # (X,)
    by_row = score.new_full((n_rows, int(counts.max())), NEVER)  # (B, most candidates of a row)
    by_row[row, slot] = score
    n_kept = min(width, by_row.shape[1])
    border = by_row.topk(n_kept, dim=1).values[:, -1:]  # (B, 1)
    above = by_row > border  # (B, candidates)
    equal = (by_row == border) & (border > NEVER)  # (B, candidates)
    room = n_kept - above.sum(dim=1, keepdim=True)  # (B, 1)
    chosen_row, chosen_slot = (above | (equal & (equal.cumsum(1) <= room))).nonzero(as_tuple=True)  # (M,) (M,)
    return begins[chosen_row] + chosen_slot


def _with_ended(finished: BeamResult, live: _Live, log_prob: Tensor, trie: TorchTrie) -> BeamResult:
    """`finished` with the codes that end at live hypotheses; `log_prob` (H,) is −inf where none does."""
    n_rows, n_codes = finished.code_ids.shape
    ended = log_prob > NEVER  # (H,)
    row = live.row[ended]  # (M,)
    counts = torch.bincount(row, minlength=n_rows)  # (B,) at most W
    if not len(row):
        return finished
    slot = torch.arange(len(row), device=row.device) - (counts.cumsum(0) - counts)[row]  # (M,)
    more = _no_codes(n_rows, int(counts.max()), trie.device)  # (B, ≤ W)
    more.code_ids[row, slot] = trie.code_id[live.node[ended]]
    more.log_probs[row, slot] = log_prob[ended]
    more.lengths[row, slot] = live.prefix.shape[1]
    code_ids, log_probs, lengths = (torch.cat(pair, dim=1) for pair in zip(finished, more, strict=True))  # (B, K + ≤ W)
    order = code_ids.argsort(dim=1)  # (B, K + ≤ W) of equals the smaller id first
    order = order.gather(1, log_probs.gather(1, order).argsort(dim=1, descending=True, stable=True))  # (B, K + ≤ W)
    order = order[:, :n_codes]  # (B, K)
    return BeamResult(code_ids.gather(1, order), log_probs.gather(1, order), lengths.gather(1, order))


def _can_still_win(live: _Live, finished: BeamResult) -> Tensor:
    """(H,) whether a hypothesis may still lead to one of its row's K best.

    Further attributes only lower a log-probability. Equal to the K-th is not yet beaten: the code id decides.
    """
    return live.log_prob >= finished.log_probs[live.row, -1]
