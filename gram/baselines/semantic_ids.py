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
    B  texts     L  pieces of the longest    D  width     H  heads
    N  products  W  beam                     T  tokens of an id, 4
    C  tokens of a level at most
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from gram.baselines.base import Run, TrainingData
from gram.baselines.encoder import (
    PRODUCT_PIECES,
    QUERY_PIECES,
    Pairs,
    TextEncoder,
    by_id,
    by_length,
    dev_sample,
    dev_score,
    fit,
    load_weights,
    open_meta,
    pooled,
    save_weights,
    two_lengths,
    vectors,
    write_meta,
)
from gram.codes.trie import ARRAYS, CodeTrie
from gram.errors import SettingError
from gram.folders import new_folder
from gram.records import Hit, Product

LEVELS, CENTROIDS = 3, 256


def kmeans(points: Tensor, count: int, seed: int, turns: int = 15) -> tuple[Tensor, Tensor]:
    """Centroids (count, D) of points (N, D) by Lloyd's algorithm, and each point's nearest (N,).

    A centroid that no point is nearest to moves to the point that is farthest from its own.
    """
    random = torch.Generator().manual_seed(seed)
    centroids = points[torch.randperm(len(points), generator=random)[:count]].clone()
    for turn in range(turns + 1):
        far, nearest = _nearest(points, centroids)
        if turn == turns:
            break
        sums = torch.zeros_like(centroids).index_add_(0, nearest, points)
        counts = torch.bincount(nearest, minlength=len(centroids))  # (count,)
        centroids = sums / counts.clamp(min=1)[:, None]
        empty = torch.nonzero(counts == 0).flatten()
        centroids[empty] = points[far.argsort(descending=True, stable=True)[: len(empty)]]
    return centroids, nearest


def _nearest(points: Tensor, centroids: Tensor) -> tuple[Tensor, Tensor]:
    """Squared distance to the nearest centroid (N,), and which it is (N,)."""
    norms = centroids.square().sum(1)
    found = [(norms - 2 * part @ centroids.T).min(1) for part in points.split(8192)]
    distance = torch.cat([f.values for f in found]) + points.square().sum(1)
    return distance, torch.cat([f.indices for f in found])


def semantic_ids(points: Tensor, seed: int) -> tuple[NDArray[np.int64], list[Tensor]]:
    """Ids (N, 4), no two the same, of vectors (N, D), and the centroids (≤ 256, D) of each of the three levels."""
    rest, columns, books = points, list[NDArray[np.int64]](), list[Tensor]()
    for level in range(LEVELS):
        centroids, nearest = kmeans(rest, min(CENTROIDS, max(2, len(points) // 4), len(points)), seed + level)
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
        self.own = nn.ModuleList(nn.Linear(width, width) for _ in range(4))  # query, key, value, out
        self.text = nn.ModuleList(nn.Linear(width, width) for _ in range(4))
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        for out in (self.own[3], self.text[3], self.down):
            nn.init.zeros_(out.weight)  # type: ignore[arg-type]
            nn.init.zeros_(out.bias)  # type: ignore[arg-type]

    def memory(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values (B, H, L, D/H) of a text's states (B, L, D)."""
        return self._split(self.text[1](states)), self._split(self.text[2](states))

    def forward(
        self, x: Tensor, keys: Tensor, values: Tensor, mask: Tensor, before: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """The layer's output, and its normed input for a later call's `before`.

        Training: x (B, T, D), causal. A step of the beam: x (B, W, D), one new token of each beam, and `before`
        (B, W, t, D) the beams' tokens so far.
        """
        normed = self.norms[0](x)
        if before is None:
            q, k, v = (self._split(self.own[i](normed)) for i in range(3))
            mixed = self._join(F.scaled_dot_product_attention(q, k, v, is_causal=True))
        else:
            b, w, _ = x.shape
            before = torch.cat([before, normed[:, :, None]], dim=2)  # (B, W, t + 1, D)
            q = self._split(self.own[0](normed).reshape(b * w, 1, -1))
            k, v = (self._split(self.own[i](before).reshape(b * w, before.shape[2], -1)) for i in (1, 2))
            mixed = self._join(F.scaled_dot_product_attention(q, k, v)).reshape(b, w, -1)
        x = x + self.own[3](mixed)
        q = self._split(self.text[0](self.norms[1](x)))
        x = x + self.text[3](self._join(F.scaled_dot_product_attention(q, keys, values, mask[:, None, None])))
        x = x + self.down(F.gelu(self.up(self.norms[2](x))))
        return x, normed if before is None else before

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def _join(self, x: Tensor) -> Tensor:
        return x.transpose(1, 2).flatten(2)


class IdNetwork(nn.Module):
    """Encoder and decoder. `sizes` are the tokens of each level."""

    def __init__(self, encoder: TextEncoder, sizes: Sequence[int], layers: int = 2) -> None:
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

    def forward(self, pieces: Sequence[Sequence[int]], ids: Tensor) -> Tensor:
        """(B,) −log P of the ids (B, T) given the texts."""
        states, mask = self.encoder(pieces)
        inputs = [pooled(states, mask)]
        for level in range(len(self.sizes) - 1):
            inputs.append(inputs[-1] - self.tokens[level][ids[:, level]])
        x = torch.stack(inputs, dim=1)  # (B, T, D)
        for layer in self.layers:
            x, _ = layer(x, *layer.memory(states), mask)  # type: ignore[operator]
        found = [self.log_probs(x[:, i], i).gather(1, ids[:, i : i + 1]) for i in range(len(self.sizes))]
        return -torch.cat(found, dim=1).sum(1)

    @torch.no_grad()
    def beam_search(self, pieces: Sequence[Sequence[int]], trie: CodeTrie, beam: int) -> tuple[Tensor, Tensor]:
        """Trie nodes (B, ≤ beam) of the likeliest ids and their log-probabilities, best first; the root and −inf
        where there is none.

        A beam as wide as the catalogue is exact.
        """
        states, mask = self.encoder(pieces)
        memories = [layer.memory(states) for layer in self.layers]  # type: ignore[operator]
        x = pooled(states, mask)[:, None]  # (B, 1, D)
        b = len(x)
        nodes, scores = torch.zeros(b, 1, dtype=torch.int64), torch.zeros(b, 1)  # (B, W)
        befores = [x.new_zeros(b, 1, 0, x.shape[-1]) for _ in self.layers]
        for level, size in enumerate(self.sizes):
            y = x
            for i, layer in enumerate(self.layers):
                y, befores[i] = layer(y, *memories[i], mask, befores[i])
            w = nodes.shape[1]
            row, token, child = map(torch.from_numpy, trie.children(nodes.flatten().numpy()))
            total = torch.full((b * w, size), -math.inf)  # (B·W, C)
            reached = torch.full((b * w, size), trie.n_nodes)  # beyond the last node nothing follows
            total[row, token.long()] = (self.log_probs(y, level) + scores[..., None]).flatten(0, 1)[row, token.long()]
            reached[row, token.long()] = child
            scores, best = total.view(b, -1).sort(dim=1, descending=True, stable=True)
            scores, best = scores[:, :beam], best[:, :beam]  # (B, W')
            nodes = reached.view(b, -1).gather(1, best)
            parent = best // size  # (B, W')
            befores = [z[torch.arange(b)[:, None], parent] for z in befores]
            x = x[torch.arange(b)[:, None], parent] - self.tokens[level][best % size]
        return nodes.where(scores > -math.inf, 0), scores


class SemanticIds:
    """An engine that writes products' semantic ids for a query.

    Half of each training batch is drawn from the log, a quarter are products' texts, a quarter pseudo-queries; with an
    empty log the log's half are pseudo-queries too. The number of steps is chosen on the dev part, by the best of four
    checkpoints. A search returns at most `beam` products.
    """

    name = "semantic ids"

    def __init__(
        self, products: Sequence[Product], network: IdNetwork, trie: CodeTrie, settings: dict[str, object]
    ) -> None:
        self._products, self._network, self._trie, self._settings = products, network, trie, settings
        self._titles = {product.product_id: product.title for product in products}

    @classmethod
    def train(
        cls, folder: Path, data: TrainingData, *, model: str, seed: int = 0, quick: bool = False, bf16: bool = False,
        steps: int = 1500, batch: int = 96, beam: int = 300,
    ) -> None:  # fmt: skip
        """Trains into `folder`; `model` is the encoder's folder or hub id, `quick` a run of 30 steps for a check.

        Raises ModelError for an encoder that cannot be loaded, SettingError for no products or a setting out of range.
        """
        if min(steps, batch, beam) < 1:
            raise SettingError(f"Training needs steps, batch and beam ≥ 1, not {steps}, {batch} and {beam}.")
        steps = min(steps, 30) if quick else steps
        products = by_id(data.products)
        encoder = TextEncoder.load(model)
        pairs = Pairs(products, data.log)
        ids, books = semantic_ids(vectors(encoder, pairs.texts, PRODUCT_PIECES, bf16, "products"), seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = IdNetwork(encoder, (ids.max(0) + 1).tolist())
        network.start_at([book[:size] for book, size in zip(books, network.sizes, strict=False)])
        trie, targets = CodeTrie.build(ids), torch.from_numpy(ids)
        queries, answers = dev_sample(data, 200, seed)
        settings: dict[str, object] = {
            "beam": beam,
            "steps": steps,
            "batch": batch,
            "seed": seed,
            "sizes": network.sizes,
        }
        engine = cls(products, network, trie, settings)
        narrow = cls(products, network, trie, settings | {"beam": min(beam, 100)})

        def loss(random: np.random.Generator) -> Tensor:
            rows = pairs.draw(batch, 0.5, 0.25, random)
            pieces = encoder.pieces([text for text, _ in rows], PRODUCT_PIECES)
            parts = two_lengths(pieces)
            losses = [network([pieces[i] for i in part], targets[[rows[i][1] for i in part]]) for part in parts]
            return torch.cat(losses).mean()

        score = lambda: dev_score(narrow.search_many(queries, 100), answers)  # noqa: E731
        step, dev = fit(network, loss, score, steps=steps, seed=seed, bf16=bf16)
        settings |= {"step": step, "dev": dev}
        with new_folder(folder) as written:
            save_weights(network, written)
            trie.save(written)
            write_meta(written, cls.name, engine.settings, products)

    @classmethod
    def load(cls, folder: Path, products: Sequence[Product]) -> SemanticIds:
        """Opens what `train` wrote for these products."""
        meta, ordered = open_meta(folder, products, cls.name)
        network = IdNetwork(TextEncoder.load(folder / "encoder"), meta["settings"]["sizes"])
        load_weights(network, folder)
        return cls(ordered, network.eval(), CodeTrie.load(folder), meta["settings"])

    @property
    def settings(self) -> dict[str, object]:
        return dict(self._settings)

    @property
    def index_bytes(self) -> int:
        return sum(getattr(self._trie, name).nbytes for name in ARRAYS)

    def search(self, query: str, k: int = 10) -> list[Hit]:
        """The best `k` products for a query, best first."""
        return [Hit(i, score, self._titles[i]) for i, score in self.search_many({"": query}, k)[""].items()]

    def search_many(self, queries: Mapping[str, str], k: int = 300) -> Run:
        """The run for many queries: query id → product id → log-probability of its id."""
        if k < 1:
            raise SettingError(f"k counts the products wanted: at least 1, not {k}.")
        run: Run = {query_id: {} for query_id in queries}
        names = list(queries)
        pieces = self._network.encoder.pieces(list(queries.values()), QUERY_PIECES)
        beam = int(str(self._settings["beam"]))
        self._network.eval()
        for batch in by_length(pieces, 16):
            nodes, scores = self._network.beam_search([pieces[i] for i in batch], self._trie, beam)
            places = self._trie.code_id[nodes.numpy()]  # (B, W)
            for i, row, likelihoods in zip(batch, places.tolist(), scores.tolist(), strict=True):
                found = [(p, s) for p, s in zip(row, likelihoods, strict=True) if s > -math.inf]
                found.sort(key=lambda pair: (-pair[1], pair[0]))
                run[names[i]] = {self._products[p].product_id: s for p, s in found[:k]}
        return run
