"""A language model as a coder: what it writes of a text, as a representation.

It has no vectors. Lexical weights are what rarity says; the codes that it writes are the compound codes, single ones
among them, and what they say beyond the text is expansion.

Letters: N texts, B texts of a batch, C codes of the space, K codes written for a text.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from tqdm import tqdm

from gram.arrays import SparseRows, offsets
from gram.coder.base import FORMAT, LEXICON, SURE_CODING, WEIGHTS, CodingSettings, Representations, Side
from gram.coder.beam import BeamOptions, TorchTrie, beam_search
from gram.coder.causal.cache import CodeCache, TextCodes
from gram.coder.causal.decoding import NextToken, TokenTrie, code_tokens
from gram.coder.causal.language_model import LanguageModel
from gram.coder.causal.loading import rebuild
from gram.coder.causal.text import write_code, write_prompt
from gram.coder.precision import computing
from gram.codes.lexicon import Lexicon
from gram.codes.trie import ARRAYS, CodeTrie
from gram.errors import ModelError
from gram.folders import write_json
from gram.index.token_vectors import TokenVectors
from gram.records import Code, Product
from gram.text.fields import FIELDS, field_texts

PROGRESS_FROM = 200  # texts; fewer take no time worth a bar
FIELD_WEIGHTS = {"title": 1.0, "brand": 0.9, "category": 0.8, "attribute": 0.7, "description": 0.35}
EXPANSION_WEIGHT = 0.3
"""What an attribute that is sure weighs beside a lexical one; as the encoder begins. Not tuned."""
LARGEST = 2**14
"""Hypotheses of a batch at most: the beam of each text takes the memory of as many texts."""


@dataclass(frozen=True)
class WritingSettings:
    """How many codes are written of a text, and how widely they are searched for."""

    query_codes: int = 16
    product_codes: int = 24
    beam: int = 24


@dataclass
class Spent:
    """What texts cost so far: `known` ones nothing, the `texts` that the model was asked for `seconds` in all."""

    known: int = 0
    texts: int = 0
    seconds: float = 0.0

    def __str__(self) -> str:
        if not self.texts:
            why = "it wrote these codes before" if self.known else "the score does not weigh its codes"
            return f"the language model was not asked: {why}"
        each = 1000 * self.seconds / self.texts
        before = f", {self.known:,} it had written before" if self.known else ""
        return f"the language model wrote the codes of {self.texts:,}: {each:,.0f} ms each{before}"


class CausalCoder:
    """A `Coder` of a language model. `codes` (C,) tells of each code how many texts of training had it as a target."""

    query_coding = SURE_CODING  # what it half knows was tried with the encoder alone

    def __init__(
        self,
        model: LanguageModel,
        lexicon: Lexicon,
        trie: CodeTrie,
        products: NDArray[np.int64],
        writing: WritingSettings | None = None,
        cache: Path | None = None,
        fingerprint: str = "",
    ) -> None:
        """`products` (C,) that each code is of; `fingerprint` names the model in the cache, where there is one."""
        self.model, self.lexicon, self.trie, self.products = model, lexicon, trie, products
        self.writing = writing or WritingSettings()
        self.fingerprint = fingerprint
        widths = "-".join(map(str, asdict(self.writing).values()))
        self.cache = CodeCache(cache if fingerprint else None, f"{fingerprint} {widths}", len(trie))
        self.spent = Spent()

    @cached_property
    def table(self) -> NDArray[np.int32]:
        """(C, 6) the attributes of each code, padded with −1."""
        return self.trie.table()

    @cached_property
    def tokens(self) -> TokenTrie:
        lines = [write_code(self.code_of(code)) for code in range(len(self.trie))]
        return TokenTrie.build(code_tokens(self.model, lines))

    @cached_property
    def _torch_trie(self) -> TorchTrie:
        return TorchTrie(self.tokens.trie, self.model.device)

    @cached_property
    def _rarity(self) -> NDArray[np.float32]:
        """(C,) what a code weighs: a code of many products tells little, whatever its probability."""
        n = self.lexicon.n_products
        return np.sqrt(np.log((n + 1) / (self.products + 0.5)).clip(0.1)).astype(np.float32)

    def code_of(self, code: int) -> Code:
        """The code of an id."""
        return tuple(self.lexicon.attributes[a] for a in self.table[code].tolist() if a >= 0)

    def represent(
        self, texts: Sequence[str] | Sequence[Product], side: Side, settings: CodingSettings, progress: str = ""
    ) -> Representations:
        """As `Coder.represent`; where no compound codes are asked for, the language model is not asked at all."""
        lexical = [self._hold(text) for text in texts]
        said = self.write(texts, side, progress) if settings.codes else [_NOTHING] * len(texts)
        expansion, chances, compound = [], [], []
        for row, codes in zip(lexical, said, strict=True):
            share = _shares(codes.log_prob)  # (K,)
            weight = np.sqrt(share) * self._rarity[codes.code]  # shared ones add up as Bhattacharyya's coefficient
            compound.append(dict(zip(codes.code.tolist(), weight.tolist(), strict=True)))
            chance = self._chances(codes.code, share)
            new = {a: p for a, p in chance.items() if a not in row and p >= settings.least}
            best = sorted(sorted(new, key=lambda a: -new[a])[: settings.expansion])
            expansion.append({a: EXPANSION_WEIGHT * self._base(a) * new[a] for a in best})
            chances += [new[a] for a in best]
        none = np.zeros((len(texts), 1), dtype=np.float32)
        start = offsets(np.zeros(len(texts), dtype=np.int64))
        return Representations(
            _rows(lexical),
            _rows(expansion),
            np.array(chances, dtype=np.float32),
            _rows(compound),
            none,
            TokenVectors(start, np.zeros((0, 1), dtype=np.int8)),
            np.zeros(0, dtype=np.float32),
        )

    def write(self, texts: Sequence[str] | Sequence[Product], side: Side, progress: str = "") -> list[TextCodes]:
        """The codes that the model writes of each text, the likeliest first, from the cache as far as they are there.

        Texts of like length are written together, the longest first; each batch is kept as soon as it is written, so
        that a run that is stopped goes on where it was.
        """
        prompts = [write_prompt(text, side) for text in texts]
        known = self.cache.find(prompts)
        new = [prompt for prompt in dict.fromkeys(prompts) if prompt not in known]
        self.spent.known += len(known)
        rows = self.model.read_prompts(new) if new else []
        order = sorted(range(len(new)), key=lambda i: -len(rows[i]))
        size = max(1, min(64, LARGEST // self.writing.beam))
        quiet = not progress or len(new) < PROGRESS_FROM
        n_codes = self.writing.query_codes if side == Side.QUERY else self.writing.product_codes
        with tqdm(total=len(new), desc=progress, unit="text", disable=quiet) as bar:
            for begin in range(0, len(order), size):
                part = order[begin : begin + size]
                found = self._search([rows[i] for i in part], n_codes)
                codes = {new[i]: row for i, row in zip(part, found, strict=True)}
                self.cache.keep(codes)
                known |= codes
                bar.update(len(part))
        return [known[prompt] for prompt in prompts]

    @torch.inference_mode()
    def _search(self, prompts: Sequence[Sequence[int]], n_codes: int) -> list[TextCodes]:
        self.model.eval()
        trie, begin = self._torch_trie, time.perf_counter()  # the trie is built once: it is no part of what texts take
        options = BeamOptions(width=self.writing.beam, n_codes=n_codes)
        with computing(self.model.device, self.model.dtype):
            found = beam_search(trie, NextToken(self.model, prompts), len(prompts), options)
        ids, log_probs = found.code_ids.cpu().numpy(), found.log_probs.float().cpu().numpy()
        self.spent.seconds += time.perf_counter() - begin
        self.spent.texts += len(prompts)
        code_id = self.tokens.code_id
        return [
            TextCodes(code_id[row[row >= 0]].astype(np.int32), log_prob[row >= 0])
            for row, log_prob in zip(ids, log_probs, strict=True)
        ]

    def _hold(self, text: str | Product) -> dict[int, float]:
        """The attributes that a text holds and what they weigh."""
        fields = field_texts(text) if isinstance(text, Product) else [("title", text)]
        lexical = self.lexicon.lexical_of(fields)
        weight = FIELD_WEIGHTS if isinstance(text, Product) else dict.fromkeys(FIELDS, 1.0)
        return {a: self._base(a) * weight[where.field] for a, where in lexical.items()}

    def _base(self, attribute: int) -> float:
        """What an attribute weighs that is sure: as the encoder's lexical weights begin."""
        return float(0.35 * min(self.lexicon.idf[attribute], 9) ** 0.5 / len(self.lexicon.forms[attribute][0]) ** 0.5)

    def _chances(self, codes: NDArray[np.int32], share: NDArray[np.float32]) -> dict[int, float]:
        """How likely each attribute is of a text: the probability of the codes that it stands in."""
        chance: dict[int, float] = {}
        for code, p in zip(codes.tolist(), share.tolist(), strict=True):
            for attribute in self.table[code].tolist():
                if attribute >= 0:
                    chance[attribute] = chance.get(attribute, 0.0) + p
        return chance

    def knows(self, word: str) -> bool:
        """Whether the lexicon has a word; a language model's tokens say nothing of words."""
        return self.lexicon.id_of(self.lexicon.analyzer.stems(word)) >= 0

    def with_words(self, words: Mapping[str, int]) -> CausalCoder:
        """The same for a catalogue with words that the lexicon lacks: {stem: products that hold it}, lexical only."""
        lexicon = self.lexicon.extend(dict(words))
        if len(lexicon) == len(self.lexicon):
            return self
        made = CausalCoder(self.model, lexicon, self.trie, self.products, self.writing)
        made.cache, made.fingerprint, made.spent = self.cache, self.fingerprint, self.spent
        for name in ("table", "tokens", "_torch_trie"):  # of the codes, which are the same
            if name in self.__dict__:
                made.__dict__[name] = self.__dict__[name]
        return made

    def with_writing(self, writing: WritingSettings) -> CausalCoder:
        """The same model writing so many codes; what it writes is kept apart from what it wrote in other widths."""
        path, mark = self.cache.path, self.fingerprint
        return CausalCoder(self.model, self.lexicon, self.trie, self.products, writing, path, mark)

    def save(self, folder: Path, extra: dict[str, Any]) -> None:
        """Writes `config.json`, `model.safetensors`, `tokenizer.json`, `lexicon.jsonl` and the trie into a folder."""
        kept = {name: weight.detach().clone().contiguous() for name, weight in self.model.trainable().items()}
        save_file(kept, folder / WEIGHTS)
        self.lexicon.save(folder / LEXICON)
        self.trie.save(folder)
        np.save(folder / "codes.products.npy", self.products)
        (folder / "tokenizer.json").write_text(self.model.tokenizer.to_str(), encoding="utf-8")
        described = self.model.describe()
        config = {
            "format_version": FORMAT,
            "coder": "causal",
            "backbone": described["settings"]["name"],
            "encoder": described,
            "writing": asdict(self.writing),
        }
        write_json(folder / "config.json", config | extra)

    @classmethod
    def load(cls, folder: Path, config: Mapping[str, Any], device: str | torch.device = "cpu") -> CausalCoder:
        """What `save` wrote, with the codes that it wrote before, in `<folder>.codes.sqlite`.

        Raises ModelError for a folder that lacks a part, or holds a damaged one.
        """
        try:
            weights = load_file(folder / WEIGHTS)
            tokenizer = (folder / "tokenizer.json").read_text(encoding="utf-8")
            try:
                model = rebuild(config["encoder"], tokenizer, weights)
            except ModelError as error:
                problem = str(error).partition(" Fix: ")[0].rstrip(".")
                fix = "put the language model back as it was, or train again"
                raise ModelError(f"{folder}: {problem}. Fix: {fix}") from error
            products = np.load(folder / "codes.products.npy", allow_pickle=False)
            lexicon, trie = Lexicon.load(folder / LEXICON), CodeTrie.load(folder)
            writing = WritingSettings(**config["writing"])
        except (OSError, KeyError, RuntimeError, ValueError, TypeError, SafetensorError) as error:
            raise ModelError(f"{folder}: the model cannot be read ({error}). Fix: train it again") from error
        if len(products) != len(trie):
            raise ModelError(f"{folder}: codes.products.npy is not of its trie. Fix: train it again")
        digest = hashlib.sha256(repr(config["encoder"]).encode())
        for name in (WEIGHTS, LEXICON, "tokenizer.json", *(f"trie.{array}.npy" for array in ARRAYS)):
            digest.update((folder / name).read_bytes())
        mark = digest.hexdigest()[:16]
        return cls(model.to(device).eval(), lexicon, trie, products, writing, cache_path(folder), mark)


_NOTHING = TextCodes(np.zeros(0, dtype=np.int32), np.zeros(0, dtype=np.float32))


def cache_path(model: Path) -> Path:
    """Where a model's written codes are kept: beside its folder, which is replaced whole when it is trained again."""
    return model.with_name(model.name + ".codes.sqlite")


def _shares(log_prob: NDArray[np.float32]) -> NDArray[np.float32]:
    """(K,) probabilities of the kept codes alone, that sum to 1."""
    share = np.exp(log_prob - log_prob.max(initial=-np.inf)) if len(log_prob) else log_prob
    return share / max(float(share.sum()), 1e-9)


def _rows(rows: Sequence[Mapping[int, float]]) -> SparseRows:
    lengths = np.array([len(row) for row in rows], dtype=np.int64)
    key = np.array([k for row in rows for k in row], dtype=np.int64)
    weight = np.array([w for row in rows for w in row.values()], dtype=np.float32)
    return SparseRows.build(np.repeat(np.arange(len(rows)), lengths), key, weight, len(rows))
