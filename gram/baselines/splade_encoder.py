"""SPLADE's encoder: a masked-language model as a sparse encoder, with a head fitted where it has none, made lighter.

Letters: B texts of a batch, L tokens of the longest, D width, V vocabulary, A active terms of a batch, T tokens of a
sample, N texts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from gram.baselines.encoder import computing
from gram.baselines.training import features_of
from gram.errors import MissingExtra, ModelError


class MaxLogit(torch.autograd.Function):
    """The largest logit of each token over the positions of a text, (B, V), zero at least, and its sparse gradient.

    The plain way keeps logits (B, L, V) and as large a gradient, nearly all of it zero; this keeps the positions only.
    """

    @staticmethod
    def forward(ctx: Any, states: Tensor, mask: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        rows, positions = [], []
        for some in torch.arange(len(states)).split(1 if states.device.type == "cpu" else 64):  # what memory holds
            logits = (states[some] @ weight.T).masked_fill(~mask[some].bool()[..., None], -math.inf)  # (b, L, V)
            best, position = logits.max(dim=1)
            rows.append((best.float() + bias.float()).relu())
            positions.append(position)
        best = torch.cat(rows)
        row, term = best.nonzero(as_tuple=True)
        ctx.save_for_backward(states, weight, row, term, torch.cat(positions)[row, term])
        return best

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, Tensor, Tensor]:
        states, weight, row, term, position = ctx.saved_tensors
        grad = grads[0][row, term].float()  # (A,) of the active terms; sums are float32 also where states are not
        to_states, to_weight, to_bias = (
            torch.zeros(shape, device=states.device) for shape in (states.shape, weight.shape, weight.shape[:1])
        )
        size = 200_000  # active terms at once: at the start of training there may be millions
        for at in range(0, len(row), size):
            r, t, p, g = (x[at : at + size] for x in (row, term, position, grad))
            to_states.view(-1, states.shape[-1]).index_add_(0, r * states.shape[1] + p, g[:, None] * weight[t].float())
            to_weight.index_add_(0, t, g[:, None] * states[r, p].float())
            to_bias.index_add_(0, t, g)
        return to_states, None, to_weight, to_bias


def open_encoder(model: str, max_tokens: int, new_head: bool | None = None, device: str = "cpu") -> tuple[Any, bool]:
    """A SparseEncoder, and whether its head is one of ours; `new_head` None means to look whether it has its own."""
    try:
        from sentence_transformers.sparse_encoder import SparseEncoder
        from sentence_transformers.sparse_encoder.modules import SpladePooling, Transformer
    except ImportError as error:
        raise MissingExtra("SPLADE", "bench") from error
    from transformers import AutoConfig

    try:
        if new_head is None:
            built_as = AutoConfig.from_pretrained(model).architectures or []
            new_head = not any("MaskedLM" in name for name in built_as)
            if new_head:
                transformer = Transformer(model, transformer_task="fill-mask")
                encoder = SparseEncoder(modules=[transformer, SpladePooling("max")], device=device)
            else:
                encoder = SparseEncoder(model, device=device)
        else:
            encoder = SparseEncoder(model, device=device)
    except (OSError, ValueError) as error:
        raise ModelError(f"The model {model!r} cannot be loaded as a SparseEncoder: {error}") from error
    if new_head:
        predictions: Any = getattr(getattr(encoder[0].model, "cls", None), "predictions", None)
        if not hasattr(getattr(predictions, "transform", None), "transform_act_fn"):
            raise ModelError(
                f"{model!r} has no masked-language head and is no BERT. Fix: give a masked-language model."
            )
        predictions.transform.transform_act_fn = torch.nn.Identity()  # a linear map, so that it can be fitted
    encoder.max_seq_length = max_tokens
    _lighten(encoder)
    encoder.eval()
    return encoder, new_head


def _lighten(encoder: Any) -> None:
    """Joins decoder and pooling into `MaxLogit`, where the pooling is a maximum: the same for less."""
    decoder, pooling = encoder[0].model.get_output_embeddings(), encoder[1]
    if decoder is None or pooling.pooling_strategy != "max":
        return
    twice = pooling.activation_function == "log1p_relu"

    def pool(features: dict[str, Any]) -> dict[str, Any]:
        states, kind = features["token_embeddings"], encoder.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else states.dtype
        bias = decoder.bias if decoder.bias is not None else decoder.weight.new_zeros(len(decoder.weight))
        best = MaxLogit.apply(states.to(dtype), features["attention_mask"], decoder.weight.to(dtype), bias)
        weights = best.log1p()
        features["sentence_embedding"] = weights.log1p() if twice else weights
        return features

    decoder.forward = lambda states: states
    pooling.forward = pool


@torch.no_grad()
def fit_head(encoder: Any, texts: Sequence[str], seed: int, sample: int = 2000, level_of_self: float = 6.0) -> None:
    """Fits a new head's linear map to a sample of products, so that training starts near word matching.

    Ridge regression takes a token's last state to its (centred) embedding; the LayerNorm's scale then gives the logit
    of the token itself a mean of about `level_of_self`, and the bias shuts all tokens but about 60 a text.
    """
    rng = np.random.default_rng(seed)
    drawn = [texts[i] for i in rng.permutation(len(texts))[:sample]]
    bert = encoder[0].model
    head, table = bert.cls.predictions.transform, bert.get_input_embeddings().weight
    centred = table - table.mean(0)
    special = torch.tensor(encoder.tokenizer.all_special_ids, device=table.device)
    inputs, targets = [], []
    for at in range(0, len(drawn), 64):
        batch = features_of(encoder, drawn[at : at + 64])
        keep = batch["attention_mask"].bool() & ~torch.isin(batch["input_ids"], special)
        inputs.append(bert.base_model(batch["input_ids"], batch["attention_mask"]).last_hidden_state[keep])
        targets.append(batch["input_ids"][keep])
    x, ids = torch.cat(inputs), torch.cat(targets)  # (T, D), (T,)
    mean = x.mean(0)
    gram = (x - mean).T @ (x - mean)
    ridge = 1e-2 * gram.diagonal().mean() * torch.eye(len(gram), device=x.device)
    head.dense.weight.copy_(torch.linalg.solve(gram + ridge, (x - mean).T @ centred[ids]).T)
    head.dense.bias.copy_(centred[ids].mean(0) - head.dense.weight @ mean)
    head.LayerNorm.weight.fill_(1.0)
    head.LayerNorm.bias.zero_()
    states = head(x)
    some = rng.permutation(len(x))[:1000]
    logits = states[some] @ table.T  # (1000, V)
    level = logits.mean(0)
    above = logits - level
    scale = level_of_self / above[torch.arange(len(some)), ids[some]].mean().clamp(min=1e-3)
    tokens_a_text = max(1.0, len(x) / len(drawn))
    share = min(0.5, 60 / tokens_a_text / len(table))
    threshold = above.flatten().kthvalue(max(1, int((1 - share) * above.numel()))).values
    head.LayerNorm.weight.mul_(scale)
    bias = bert.get_output_embeddings().bias
    bias.copy_(-scale * (level + threshold))
    bias[special] = -100.0  # they stand in every text and would only lengthen every posting


@torch.no_grad()
def encode(
    encoder: Any, texts: Sequence[str], max_terms: int, bf16: bool, batch: int = 0, progress: bool = False
) -> Any:
    """Weights of the terms of texts as a SciPy CSR matrix (N, V), the heaviest `max_terms` of each; (0, V) for none.

    `batch` 0 chooses by the device.
    """
    from scipy.sparse import csr_matrix

    encoder.eval()
    batch = batch or (32 if encoder.device.type == "cpu" else 256)
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))  # texts of like length share a batch: less padding
    rows: list[tuple[NDArray[np.int64], NDArray[np.float32]]] = [
        (np.empty(0, np.int64), np.empty(0, np.float32))
    ] * len(texts)
    for at in tqdm(range(0, len(order), batch), desc="splade terms", disable=not progress):
        positions = order[at : at + batch]
        with computing(bf16, encoder.device):
            found = encoder(features_of(encoder, [texts[i] for i in positions]))["sentence_embedding"].float()
        weights, terms = found.topk(min(max_terms, found.shape[1]))
        for i, w, t in zip(positions, weights.cpu().numpy(), terms.cpu().numpy(), strict=True):
            rows[i] = (t[w > 0], w[w > 0])
    size = encoder[0].model.get_output_embeddings().weight.shape[0]
    indptr = np.concatenate([[0], np.cumsum([len(terms) for terms, _ in rows])]).astype(np.int64)
    if not rows:
        return csr_matrix((0, size), dtype=np.float32)
    terms, weights = np.concatenate([t for t, _ in rows]), np.concatenate([w for _, w in rows])
    return csr_matrix((weights, terms, indptr), shape=(len(texts), size))
