"""Retrieval by generated semantic ids: a sequence-to-sequence network writes a product's id token by token.

A product's id is the path of its text's vector through residual k-means, three levels of at most 256 centroids, and a
last token that tells products of one path apart (TIGER: Rajput et al., NeurIPS 2023). The encoder reads a text, and a
decoder of two layers writes the id: trained by likelihood on the log's (query, product), and on products' own texts and
pseudo-queries, which is how products that nobody looked for get indexed (DSI: Tay et al., NeurIPS 2022; DSI-QG: Zhuang
et al., 2022). Beam search over the ids that exist; products rank by the likelihood of theirs.

So that little training suffices, the decoder starts where residual k-means left off (as in RIPOR: Zeng et al., WWW
2024): what goes into position j is the text's vector minus the embeddings of the tokens before it, these start as the
centroids, and the layers start as the identity. Untrained, it writes the id by rounding the query's vector level by
level.

Dimension letters:
    B  texts     L  tokens of the longest    D  width     H  heads
    N  products  W  beam                     T  tokens of an id, 4
    C  tokens of a level at most
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from gram.arrays import top_k
from gram.baselines.base import Found, How, Rival, TrainingData, catalogue_of, read_settings, write_meta
from gram.baselines.encoder import (
    PRODUCT_TOKENS,
    QUERY_TOKENS,
    PretrainedEncoder,
    by_length,
    groups_of,
    load_weights,
    pool,
    save_weights,
    two_lengths,
    vectors,
)
from gram.baselines.training import DevSample, Pairs, Plan, fit
from gram.codes.trie import ARRAYS, CodeTrie
from gram.errors import MissingExtra
from gram.folders import new_folder
from gram.records import Product
from gram.text.fields import joined_text

LEVELS, CENTROIDS = 3, 256
BEAM = 300
CAP = 3000
"""Steps of training at most, five times and more what other rivals take; half an hour of one core with the trials."""
TEXT_SHARE = 0.25


def kmeans(points: Tensor, count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Centroids (≤ count, D) of points (N, D), and each point's nearest (N,). Raises MissingExtra without `bench`."""
    try:
        from sklearn.cluster import KMeans
    except ImportError as error:
        raise MissingExtra("Semantic ids", "bench") from error
    count = min(count, len(torch.unique(points.round(decimals=5), dim=0)))  # what is as good as equal counts once
    found = KMeans(count, max_iter=20, n_init=1, random_state=seed).fit(points.numpy())
    return torch.from_numpy(found.cluster_centers_).to(points.dtype), torch.from_numpy(found.labels_).long()


def semantic_ids(
    points: Tensor, seed: int, levels: int = LEVELS, most: int = CENTROIDS
) -> tuple[NDArray[np.int64], list[Tensor]]:
    """Ids (N, levels + 1), no two the same, of vectors (N, D), and the centroids (≤ most, D) of each level."""
    rest, columns, books = points, list[NDArray[np.int64]](), list[Tensor]()
    for level in range(levels):
        centroids, nearest = kmeans(rest, min(most, max(2, len(points) // 4)), seed + level)
        rest = rest - centroids[nearest]
        columns.append(nearest.numpy())
        books.append(centroids)
    taken: dict[tuple[int, ...], int] = {}
    last = []
    for path in zip(*(column.tolist() for column in columns), strict=True):
        last.append(taken.get(path, 0))
        taken[path] = last[-1] + 1
    return np.stack([*columns, np.array(last, dtype=np.int64)], axis=1), books


class _Layer(nn.Module):
    """A pre-norm decoder layer that starts as the identity: self-attention, attention to the text, feed-forward."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
        self.self_attention = nn.ModuleList(nn.Linear(width, width) for _ in range(4))  # query, key, value, out
        self.text_attention = nn.ModuleList(nn.Linear(width, width) for _ in range(4))
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        for out in (self.self_attention[3], self.text_attention[3], self.down):
            nn.init.zeros_(out.weight)  # type: ignore[arg-type]
            nn.init.zeros_(out.bias)  # type: ignore[arg-type]

    def memory(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values (B, H, L, D/H) of a text's states (B, L, D)."""
        return self._split(self.text_attention[1](states)), self._split(self.text_attention[2](states))

    def forward(
        self, x: Tensor, keys: Tensor, values: Tensor, mask: Tensor, before: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """The layer's output, and its normed input for a later call's `before`.

        Training: x (B, T, D), causal. A step of the beam: x (B, W, D), one new token of each beam, and `before`
        (B, W, t, D) the beams' tokens so far.
        """
        normed = self.norms[0](x)
        if before is None:
            q, k, v = (self._split(self.self_attention[i](normed)) for i in range(3))
            mixed = self._join(F.scaled_dot_product_attention(q, k, v, is_causal=True))
        else:
            b, w, _ = x.shape
            before = torch.cat([before, normed[:, :, None]], dim=2)  # (B, W, t + 1, D)
            q = self._split(self.self_attention[0](normed).reshape(b * w, 1, -1))
            k, v = (self._split(self.self_attention[i](before).reshape(b * w, before.shape[2], -1)) for i in (1, 2))
            mixed = self._join(F.scaled_dot_product_attention(q, k, v)).reshape(b, w, -1)
        x = x + self.self_attention[3](mixed)
        q = self._split(self.text_attention[0](self.norms[1](x)))
        x = x + self.text_attention[3](self._join(F.scaled_dot_product_attention(q, keys, values, mask[:, None, None])))
        x = x + self.down(F.gelu(self.up(self.norms[2](x))))
        return x, normed if before is None else before

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def _join(self, x: Tensor) -> Tensor:
        return x.transpose(1, 2).flatten(2)


class IdNetwork(nn.Module):
    """Encoder and decoder. `sizes` are the tokens of each level."""

    def __init__(self, encoder: PretrainedEncoder, sizes: Sequence[int], layers: int = 2) -> None:
        super().__init__()
        self.encoder, self.sizes = encoder, list(sizes)
        heads = max(h for h in range(1, 13) if encoder.width % h == 0)
        self.layers = nn.ModuleList(_Layer(encoder.width, heads) for _ in range(layers))
        self.tokens = nn.ParameterList(torch.zeros(size, encoder.width) for size in sizes)  # (C, D) a level
        self.out = nn.ParameterList(torch.zeros(size, encoder.width) for size in sizes)
        self.bias = nn.ParameterList(torch.zeros(size) for size in sizes)
        self.log_scale = nn.Parameter(torch.full((len(sizes),), math.log(20.0)))

    @torch.no_grad()
    def start_at(self, books: Sequence[Tensor]) -> None:
        """Sets the embeddings of the first levels to centroids, so that logits are −scale/2 · squared distance."""
        for level, book in enumerate(books):
            self.tokens[level].copy_(book)
            self.out[level].copy_(book)
            self.bias[level].copy_(-book.square().sum(1) / 2)

    def log_probs(self, x: Tensor, level: int) -> Tensor:
        """(…, C) log-probabilities of a level's tokens from the decoder's output (…, D)."""
        logits = (x @ self.out[level].T).float() + self.bias[level]
        return (self.log_scale[level].exp() * logits).log_softmax(-1)

    def forward(self, token_ids: Sequence[Sequence[int]], ids: Tensor) -> Tensor:
        """(B,) −log P of the ids (B, T) given the texts."""
        states, mask = self.encoder(token_ids)
        inputs = [pool(states, mask)]
        for level in range(len(self.sizes) - 1):
            inputs.append(inputs[-1] - self.tokens[level][ids[:, level]])
        x = torch.stack(inputs, dim=1)  # (B, T, D)
        for layer in self.layers:
            x, _ = layer(x, *layer.memory(states), mask)  # type: ignore[operator]
        found = [self.log_probs(x[:, i], i).gather(1, ids[:, i : i + 1]) for i in range(len(self.sizes))]
        return -torch.cat(found, dim=1).sum(1)

    @torch.no_grad()
    def beam_search(self, token_ids: Sequence[Sequence[int]], trie: CodeTrie, beam: int) -> tuple[Tensor, Tensor]:
        """Trie nodes (B, ≤ beam) of the likeliest ids and their log-probabilities, best first; the root and −inf
        where there is none.

        A beam as wide as the catalogue is exact.
        """
        states, mask = self.encoder(token_ids)
        memories = [layer.memory(states) for layer in self.layers]  # type: ignore[operator]
        x = pool(states, mask)[:, None]  # (B, 1, D)
        b = len(x)
        nodes = torch.zeros(b, 1, dtype=torch.int64, device=x.device)  # (B, W)
        scores = torch.zeros(b, 1, device=x.device)  # (B, W)
        befores = [x.new_zeros(b, 1, 0, x.shape[-1]) for _ in self.layers]
        for level, size in enumerate(self.sizes):
            y = x
            for i, layer in enumerate(self.layers):
                y, befores[i] = layer(y, *memories[i], mask, befores[i])
            w = nodes.shape[1]
            children = trie.children(nodes.flatten().cpu().numpy())
            row, token, child = (torch.from_numpy(part).to(x.device) for part in children)
            total = torch.full((b * w, size), -math.inf, device=x.device)  # (B·W, C)
            reached = torch.full((b * w, size), trie.n_nodes, device=x.device)  # beyond the last node nothing follows
            total[row, token.long()] = (self.log_probs(y, level) + scores[..., None]).flatten(0, 1)[row, token.long()]
            reached[row, token.long()] = child
            scores, best = total.view(b, -1).sort(dim=1, descending=True, stable=True)
            scores, best = scores[:, :beam], best[:, :beam]  # (B, W')
            nodes = reached.view(b, -1).gather(1, best)
            parent, text = best // size, torch.arange(b, device=x.device)[:, None]  # (B, W'), (B, 1)
            befores = [z[text, parent] for z in befores]
            x = x[text, parent] - self.tokens[level][best % size]
        return nodes.where(scores > -math.inf, 0), scores


class SemanticIds(Rival):
    """An engine that writes products' semantic ids for a query.

    A quarter of each training batch are products' texts, a fifth pseudo-queries, the rest pairs of the log; with an
    empty log those are pseudo-queries too. It trains until dev has not risen for three checks, `CAP` steps at most:
    ids mean nothing to the encoder, so they take longer to learn than words. A search returns at most `beam` products.
    """

    name = "semantic ids"

    def __init__(
        self, products: Sequence[Product], network: IdNetwork, trie: CodeTrie, settings: Mapping[str, Any]
    ) -> None:
        super().__init__(products, settings)
        self._network, self._trie = network, trie

    @classmethod
    def train(
        cls,
        folder: Path,
        data: TrainingData,
        how: How,
        plan: Plan | None = None,
    ) -> None:
        """Trains into `folder`; `model` is the encoder's folder or hub id, `quick` a run of a few steps for a check.

        Raises ModelError for an encoder that cannot be loaded, SettingError for no products.
        """
        model, seed, quick, bf16, device = how
        if plan is None:
            plan = Plan(12, batch=8) if quick else Plan(CAP, every=250, trial=250, patience=3)
        plan = replace(plan, seed=seed, bf16=bf16)
        products = catalogue_of(data)
        encoder = PretrainedEncoder.load(model, device)
        pairs = Pairs(products, data.log, seed)
        texts = [joined_text(product) for product in products]
        ids, books = semantic_ids(vectors(encoder, texts, PRODUCT_TOKENS, bf16, "products"), seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = IdNetwork(encoder, (ids.max(0) + 1).tolist()).to(device)
        network.start_at([book[:size] for book, size in zip(books, network.sizes, strict=False)])
        trie, targets = CodeTrie.build(ids), torch.from_numpy(ids).to(device)
        dev = DevSample(data, products, seed, 200)
        settings: dict[str, object] = {"beam": BEAM, "sizes": network.sizes}
        narrow = cls(products, network, trie, settings | {"beam": 100})

        def loss(rng: np.random.Generator, _: float) -> Tensor:
            rows = pairs.draw(plan.batch, rng, texts, TEXT_SHARE)
            token_ids = encoder.token_ids([text for text, _ in rows], PRODUCT_TOKENS)
            parts = two_lengths(token_ids)
            losses = [network([token_ids[i] for i in part], targets[[rows[i][1] for i in part]]) for part in parts]
            return torch.cat(losses).mean()

        def score() -> float:
            return dev.score(narrow.search_many(dev.queries, 100))

        settings |= fit(network, groups_of(network), loss, plan, score if dev else None).settings(plan)
        with new_folder(folder) as draft:
            save_weights(network, draft)
            trie.save(draft)
            write_meta(draft, cls.name, settings, products)

    @classmethod
    def load(cls, folder: Path, products: Sequence[Product], device: str = "cpu") -> SemanticIds:
        """Opens what `train` wrote for these products."""
        settings = read_settings(folder, cls.name, products)
        network = IdNetwork(PretrainedEncoder.load(folder / "encoder"), settings["sizes"])
        load_weights(network, folder)
        return cls(products, network.to(device).eval(), CodeTrie.load(folder), settings)

    @property
    def index_bytes(self) -> int:
        return sum(getattr(self._trie, name).nbytes for name in ARRAYS)

    def find(self, queries: Sequence[str], k: int) -> Iterator[Found]:
        """The likeliest `k` of each query, by the log-probability of the product's id."""
        token_ids = self._network.encoder.token_ids(queries, QUERY_TOKENS)
        empty = np.empty(0, dtype=np.int64), np.empty(0, dtype=np.float32)
        found: list[Found] = [empty] * len(queries)
        self._network.eval()
        for batch in by_length(token_ids, 16):
            rows = [token_ids[i] for i in batch]
            nodes, scores = self._network.beam_search(rows, self._trie, self._settings["beam"])
            positions, likelihoods = self._trie.code_id[nodes.cpu().numpy()], scores.cpu().numpy()  # both (B, W)
            for i, row, likelihood in zip(batch, positions, likelihoods, strict=True):
                kept = likelihood > -math.inf
                found[i] = top_k(likelihood[kept], k, row[kept])
        return iter(found)
