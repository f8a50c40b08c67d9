"""What rivals with a trained encoder share: reading texts, drawing pairs, training, choosing on dev, folders.

Letters: B texts of a batch, L pieces of the longest, D width.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from gram.baselines.base import Run, TrainingData, fingerprint
from gram.baselines.bm25 import field_text
from gram.errors import IndexMismatch, ModelError, SettingError
from gram.evaluation.measures import ranking, relevant
from gram.folders import read_json, write_json
from gram.records import Interaction, Product

QUERY_PIECES, PRODUCT_PIECES = 24, 48
"""Word pieces read of a query and of a product; the rest is cut."""


class TextEncoder(nn.Module):
    """A Hugging Face encoder with its tokenizer."""

    def __init__(self, encoder: Any, tokenizer: Any) -> None:
        super().__init__()
        self.encoder, self.tokenizer = encoder, tokenizer
        self.width: int = encoder.config.hidden_size

    @staticmethod
    def load(model: str | Path) -> TextEncoder:
        """The encoder of a folder or a hub id, in float32. Raises ModelError where there is none."""
        from transformers import AutoModel, AutoTokenizer

        try:
            tokenizer = AutoTokenizer.from_pretrained(str(model))
            encoder = AutoModel.from_pretrained(str(model), dtype=torch.float32)
        except (OSError, ValueError) as error:
            raise ModelError(
                f"The encoder '{model}' cannot be loaded: {str(error).splitlines()[0]} "
                "Fix: give a folder with config.json, model.safetensors and tokenizer.json, or a hub id while online"
            ) from error
        return TextEncoder(encoder, tokenizer)

    def save(self, folder: Path) -> None:
        """Writes what `load` reads."""
        self.encoder.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)

    def pieces(self, texts: Sequence[str], limit: int) -> list[list[int]]:
        """The word pieces of each text between the tokenizer's own marks, at most `limit`."""
        limit = min(limit, self.encoder.config.max_position_embeddings)
        return self.tokenizer(list(texts), truncation=True, max_length=limit)["input_ids"] if texts else []

    def forward(self, pieces: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        """States (B, L, D) and which of them are of pieces (B, L), bool."""
        longest = max(map(len, pieces))
        mask = torch.tensor([[True] * len(row) + [False] * (longest - len(row)) for row in pieces])  # (B, L)
        ids = torch.zeros(mask.shape, dtype=torch.int64)  # (B, L)
        ids[mask] = torch.tensor([piece for row in pieces for piece in row])
        return self.encoder(input_ids=ids, attention_mask=mask.long()).last_hidden_state, mask


def pooled(states: Tensor, mask: Tensor) -> Tensor:
    """(B, D) the mean of the states (B, L, D) of a text's pieces, at unit length."""
    kept = mask[..., None].to(states.dtype)  # (B, L, 1)
    return F.normalize((states * kept).sum(1).float() / kept.sum(1).float(), dim=-1)


def by_length(pieces: Sequence[Sequence[int]], size: int) -> Iterator[list[int]]:
    """Batches of places in `pieces`, texts of like length together."""
    order = sorted(range(len(pieces)), key=lambda i: (len(pieces[i]), i))
    for first in range(0, len(order), size):
        yield order[first : first + size]


def two_lengths(pieces: Sequence[Sequence[int]]) -> list[list[int]]:
    """Places of the shorter and of the longer texts, cut where padding both parts costs least.

    A batch of queries with a few products' texts would else be padded to those: three times the work.
    """
    order = sorted(range(len(pieces)), key=lambda i: (len(pieces[i]), i))
    lengths = [len(pieces[i]) for i in order]
    cut = min(range(len(order), 0, -1), key=lambda n: n * lengths[n - 1] + (len(order) - n) * lengths[-1])
    return [part for part in (order[:cut], order[cut:]) if part]


def computing(bf16: bool) -> torch.autocast:
    """Matrix products in bfloat16 where asked for."""
    return torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16)


@torch.no_grad()
def vectors(encoder: TextEncoder, texts: Sequence[str], limit: int, bf16: bool, what: str) -> Tensor:
    """(len(texts), D) float32: `pooled` of each text; `what` names them on the progress bar."""
    encoder.eval()
    pieces = encoder.pieces(texts, limit)
    out = torch.zeros(len(texts), encoder.width)
    with computing(bf16), tqdm(total=len(texts), desc=what, unit=" texts", disable=len(texts) < 1000) as bar:
        for batch in by_length(pieces, 128):
            out[batch] = pooled(*encoder([pieces[i] for i in batch]))
            bar.update(len(batch))
    return out


def pseudo_query(words: Sequence[str], random: np.random.Generator) -> str:
    """One to five of a product's words in their order: the stand-in for a query where the log has none."""
    if not words:
        return ""
    count = min(len(words), int(random.choice(5, p=(0.15, 0.3, 0.3, 0.15, 0.1))) + 1)
    return " ".join(words[i] for i in sorted(random.choice(len(words), count, replace=False)))


class Pairs:
    """Training pairs (text, product): of the log, of products' texts, of pseudo-queries.

    `draw(count, log_share, text_share)` gives that many; the log's part is drawn by weight. Without a log its
    share goes to the pseudo-queries. `wanted` maps a text to its products' places.
    """

    def __init__(self, products: Sequence[Product], log: Sequence[Interaction]) -> None:
        self.place = {product.product_id: i for i, product in enumerate(products)}
        self.texts = [field_text(product) for product in products]
        self._words = [field_text(p, ("title", "brand", "category")).split() for p in products]
        self.log = [(i.query, self.place[i.product_id], i.weight) for i in log if i.product_id in self.place]
        self._until = np.cumsum([weight for _, _, weight in self.log])
        self.wanted: dict[str, set[int]] = {}
        for query, place, _ in self.log:
            self.wanted.setdefault(query, set()).add(place)

    def draw(
        self, count: int, log_share: float, text_share: float, random: np.random.Generator
    ) -> list[tuple[str, int]]:
        from_log = round(count * log_share) if self.log else 0
        rows = np.searchsorted(
            self._until, random.random(from_log) * (self._until[-1] if from_log else 0), side="right"
        )
        drawn = [self.log[min(int(row), len(self.log) - 1)][:2] for row in rows]
        from_text = round(count * text_share)
        for n, place in enumerate(random.integers(len(self.texts), size=count - from_log).tolist()):
            text = self.texts[place] if n < from_text else pseudo_query(self._words[place], random)
            drawn.append((text, place))
        return drawn


def fit(
    network: nn.Module,
    loss: Callable[[np.random.Generator], Tensor],
    score: Callable[[], float],
    *,
    steps: int,
    seed: int,
    bf16: bool,
    encoder_rate: float = 1e-4,
    rate: float = 1e-3,
    checks: int = 4,
) -> tuple[int, float]:
    """Trains `network` and leaves it at the best of `checks` checkpoints: (its step, its score).

    `loss` draws a batch by the generator it is given; `score` is asked at each checkpoint, the later of equals wins.
    AdamW, warm-up over a tenth, then linear decay; parameters named `encoder.` learn at `encoder_rate`.
    """
    inner = [p for name, p in network.named_parameters() if name.startswith("encoder.")]
    outer = [p for name, p in network.named_parameters() if not name.startswith("encoder.")]
    groups = [{"params": inner, "lr": encoder_rate}, {"params": outer, "lr": rate}]
    optimizer = torch.optim.AdamW(groups, weight_decay=0.01)
    warm = max(1, steps // 10)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / warm, (steps - step) / max(1, steps - warm))
    )
    random = np.random.default_rng(seed)
    best = (0, -math.inf)
    kept: dict[str, Tensor] = {}
    stops = {math.ceil(steps * (i + 1) / checks) for i in range(checks)}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for step in tqdm(range(1, steps + 1), desc="training", unit=" steps", disable=steps < 100):
            network.train()
            with computing(bf16):
                value = loss(random)
            optimizer.zero_grad(set_to_none=True)
            value.backward()
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            if step in stops:
                network.eval()
                now = score()
                if now >= best[1]:
                    best = step, now
                    kept = {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}
    network.load_state_dict(kept)
    network.eval()
    return best


def dev_sample(data: TrainingData, most: int, seed: int) -> tuple[dict[str, str], dict[str, list[str]]]:
    """At most `most` dev queries that have an answer, drawn by `seed`, and the products relevant to each."""
    answers = relevant(data.dev_qrels)
    ids = sorted(q for q in answers if q in data.dev_queries)
    chosen = np.random.default_rng(seed).permutation(len(ids))[:most]
    picked = [ids[i] for i in sorted(chosen.tolist())]
    return {q: data.dev_queries[q] for q in picked}, {q: answers[q] for q in picked}


def dev_score(run: Run, answers: Mapping[str, Sequence[str]]) -> float:
    """What settings are chosen by: the mean of R@10 and R@100 over the queries; 0 without any."""
    total = 0.0
    for query_id, wanted in answers.items():
        ranked = ranking(run[query_id])
        total += sum(len(set(wanted) & set(ranked[:k])) / len(wanted) for k in (10, 100)) / 2
    return total / max(1, len(answers))


def by_id(products: Sequence[Product]) -> list[Product]:
    """The catalogue by product id, the order in which these rivals number it, so that ties stand by id.

    Raises SettingError for a catalogue without products.
    """
    if not products:
        raise SettingError("A rival is trained on products, and there are none. Fix: give a catalogue.")
    return sorted(products, key=lambda product: product.product_id)


def write_meta(folder: Path, kind: str, settings: Mapping[str, object], products: Sequence[Product]) -> None:
    """Writes the `meta.json` that `open_meta` reads."""
    meta = {"engine": kind, "settings": settings, "catalogue": fingerprint(products)}
    write_json(folder / "meta.json", meta)


def open_meta(folder: Path, products: Sequence[Product], kind: str) -> tuple[dict[str, Any], list[Product]]:
    """`meta.json` of a trained rival and the catalogue by id.

    Raises DataError without the file, ModelError for a folder of another rival, IndexMismatch for another catalogue.
    """
    meta = read_json(folder / "meta.json")
    if meta.get("engine") != kind:
        raise ModelError(f"{folder} is no folder of '{kind}' but of '{meta.get('engine')}'. Fix: name the right one")
    ordered = by_id(products)
    if meta["catalogue"] != fingerprint(ordered):
        raise IndexMismatch(f"{folder} was made from other products. Fix: train again, or give the same catalogue")
    return meta, ordered


def save_weights(network: Any, folder: Path) -> None:
    """Writes `encoder/` by Hugging Face's own way and the other weights as `head.safetensors`."""
    from safetensors.torch import save_file

    network.encoder.save(folder / "encoder")
    head = {n: t.contiguous() for n, t in network.state_dict().items() if not n.startswith("encoder.")}
    save_file(head, folder / "head.safetensors")


def load_weights(network: nn.Module, folder: Path) -> None:
    """Reads `head.safetensors` into a network whose encoder is loaded already."""
    from safetensors.torch import load_file

    try:
        network.load_state_dict(load_file(folder / "head.safetensors"), strict=False)
    except (OSError, RuntimeError) as error:
        raise ModelError(f"{folder / 'head.safetensors'} cannot be used ({error}). Fix: train again") from None
