"""The losses of joint training: contrastive, likelihood of attributes, likelihood of codes.

Letters: B queries, M products, G learnt attributes, T lexical attributes of a batch, U attributes that the score adds
over, Q and P tokens of a query and of a product, W width of a token's vector, X target codes, t attributes of a code, E
allowed children.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from gram.coder.base import Side
from gram.coder.beam import TorchTrie
from gram.coder.encoder.decoder import Decoder, Memory

MASKED = -1e4


def code_scores(
    query_tags: tuple[Tensor, Tensor, Tensor],
    query_expansion: Tensor,
    product_tags: tuple[Tensor, Tensor, Tensor],
    product_expansion: Tensor,
) -> Tensor:
    """Σ over attributes of w(a|q) · w(a|p), (B, M).

    Tags are (row, attribute, weight), (T,) each, of lexical attributes; `*_expansion` (B, G) and (M, G) are the weights
    of the others. An attribute that is not learnt counts when a query holds it: products share no other with it.
    """
    n_learnt = query_expansion.shape[1]
    rare = torch.unique(query_tags[1][query_tags[1] >= n_learnt])  # (U − G,)

    def weights(tags: tuple[Tensor, Tensor, Tensor], expansion: Tensor) -> Tensor:
        row, attribute, weight = tags
        number = torch.searchsorted(rare, attribute.contiguous()).clamp(max=max(len(rare) - 1, 0))
        common = attribute < n_learnt
        known = common if len(rare) == 0 else common | (rare[number] == attribute)
        column = torch.where(common, attribute, n_learnt + number)
        wide = F.pad(expansion, (0, len(rare)))  # (·, U)
        return wide.index_put((row[known], column[known]), weight[known].to(wide.dtype), accumulate=True)

    return weights(query_tags, query_expansion) @ weights(product_tags, product_expansion).T


def late_scores(queries: tuple[Tensor, Tensor], products: Tensor) -> Tensor:
    """How well each query's tokens are matched in each product, their weighted mean, (B, M).

    Args:
        queries: vectors (B, Q, W) and weights (B, Q) of the queries' tokens.
        products: (M, P, W) vectors of the products' tokens, 0 where there is none; a product without any scores 0.
    """
    vectors, weights = queries
    met = vectors.flatten(0, 1) @ products.flatten(0, 1).T  # (B·Q, M·P)
    met = met.view(*weights.shape, *products.shape[:2])  # (B, Q, M, P)
    none = products.detach().abs().amax(-1) == 0  # (M, P)
    best = met.masked_fill(none, -1.0).max(-1).values.masked_fill(none.all(1), 0.0)  # (B, Q, M)
    return (best * weights.unsqueeze(-1)).sum(1)


def contrastive_loss(scores: Tensor, ignored: Tensor) -> Tensor:
    """Cross-entropy of each query's clicked product, the one in the query's row, among the batch's; ignored ones left
    out."""
    return F.cross_entropy(scores.masked_fill(ignored, MASKED), torch.arange(len(scores), device=scores.device))


def attribute_loss(
    logits: Tensor, targets: tuple[Tensor, Tensor, Tensor], only_targets: Tensor | None = None
) -> Tensor:
    """Cross-entropy of attributes, each one present or not (Eq. 3, on single codes), per unit of target weight.

    Args:
        logits: (B, G).
        targets: (row, attribute, weight in (0, 1]).
        only_targets: (B,) True for texts of which only target attributes are known: the others are not taken as absent.
    """
    row, attribute, weight = targets
    absent = F.softplus(logits)  # (B, G)
    if only_targets is not None:
        known = torch.zeros_like(absent).index_put((row, attribute), torch.ones_like(weight))
        absent = absent * torch.maximum(known, (~only_targets).to(absent.dtype)[:, None])
    return (absent.sum() - (weight * logits[row, attribute]).sum()) / weight.sum().clamp(min=1)


def code_log_probs(
    decoder: Decoder, memory: Memory, trie: TorchTrie, codes: Tensor, rows: Tensor, side: Side
) -> Tensor:
    """log P of what follows each attribute of a code, the next one or the end, normalised over what the trie allows.

    (X, t), 0 past a code's end; a row's sum is log P(code | text, first attribute).

    Args:
        codes: (X, t) attributes padded with −1, each a code of the trie.
        rows: (X,) the text of each.
    """
    after = decoder(memory, rows, codes, side)  # (X, t, D)
    first = trie.child_token[: int(trie.first_child[1])]  # the root's children, by rising attribute
    node = torch.searchsorted(first, codes[:, 0].contiguous()) + 1  # (X,)
    steps = []
    for step in range(codes.shape[1]):
        token = codes[:, step]  # (X,)
        live = token >= 0
        if step:
            node = torch.where(live, _child(trie, node, token), node)
        chosen = codes[:, step + 1] if step + 1 < codes.shape[1] else torch.full_like(token, -1)  # (X,) −1: the end
        at = live.nonzero().squeeze(1)
        parent, children, _ = trie.children(node[at])  # (E,)
        state = after[at, step]
        child = decoder.child_logits(memory, rows[at], state, parent, children)  # (E,)
        may_end = trie.code_id[node[at]] >= 0
        end = decoder.end_logits(state).masked_fill(~may_end, MASKED)
        norm = torch.logaddexp(_segment_logsumexp(child, parent, len(at)), end)  # (X,)
        is_chosen = children == chosen[at][parent]
        picked = end.masked_fill(chosen[at] >= 0, 0.0)
        picked = picked.index_put((parent[is_chosen],), child[is_chosen], accumulate=True)
        steps.append(norm.new_zeros(len(codes)).index_put((at,), picked - norm))
    return torch.stack(steps, dim=1) if steps else after.new_zeros(len(codes), 0)


def code_loss(decoder: Decoder, memory: Memory, trie: TorchTrie, codes: Tensor, rows: Tensor, side: Side) -> Tensor:
    """Mean negative log-likelihood of codes after their first attribute; arguments as of `code_log_probs`."""
    return -code_log_probs(decoder, memory, trie, codes, rows, side).sum() / max(len(codes), 1)


def _child(trie: TorchTrie, node: Tensor, token: Tensor) -> Tensor:
    parent, children, nodes = trie.children(node)
    hit = children == token[parent]
    return torch.zeros_like(node).index_put((parent[hit],), nodes[hit])


def _segment_logsumexp(values: Tensor, segment: Tensor, n: int) -> Tensor:
    """log Σ exp of each segment's values, (n,); −10,000 for an empty one."""
    top = torch.full((n,), MASKED, device=values.device).scatter_reduce(0, segment, values.detach(), "amax")
    total = torch.zeros(n, device=values.device).index_add(0, segment, (values - top[segment]).exp())
    return torch.where(total > 0, total.clamp(min=1e-30).log() + top, torch.full_like(top, MASKED))
