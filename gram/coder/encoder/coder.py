"""The encoder as a coder: backbone, network, decoder, lexicon and code space, trained, saved and loaded as one."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from tqdm import tqdm

from gram.coder.base import FORMAT, LEXICON, QUERY_CODING, WEIGHTS, CodingSettings, Representations, Side
from gram.coder.beam import TorchTrie
from gram.coder.encoder.backbone import Backbone, rebuild
from gram.coder.encoder.coding import RepresentationBuilder, Unsaid, center_embeddings, likeliest_codes
from gram.coder.encoder.decoder import Decoder
from gram.coder.encoder.network import Network, NetworkSettings
from gram.coder.encoder.tokens import TextTokenizer, TokenizedTexts
from gram.coder.encoder.tried import TriedTexts, precision_of
from gram.coder.precision import computing
from gram.codes.lexicon import Lexicon
from gram.codes.trie import CodeTrie
from gram.errors import ModelError
from gram.folders import write_json
from gram.records import Attribute, Product

PROGRESS_FROM = 2000  # texts; fewer take no time worth a bar


class EncoderCoder(nn.Module):
    """A `Coder` of one encoder pass and a small decoder. `device` is where its weights are."""

    query_coding = QUERY_CODING

    def __init__(
        self, backbone: Backbone, lexicon: Lexicon, trie: CodeTrie, settings: NetworkSettings | None = None
    ) -> None:
        super().__init__()
        self.backbone, self.lexicon, self.trie = backbone, lexicon, trie
        self.texts = TextTokenizer(lexicon, backbone)
        self.network = Network(backbone, lexicon, settings)
        self.decoder = Decoder(backbone.width)
        self.log_temperature = nn.Parameter(torch.tensor(6.0).log())  # of the codes' score in its loss
        self.mix = nn.Parameter(torch.full((3,), 0.5))  # of codes, dense vectors and token vectors in the joint score
        self._torch_trie: TorchTrie | None = None
        self._attributes: Tensor | None = None
        self._code_vectors: NDArray[np.float32] | None = None

    @property
    def device(self) -> torch.device:
        return self.log_temperature.device

    @property
    def torch_trie(self) -> TorchTrie:
        if self._torch_trie is None or self._torch_trie.device != self.device:
            self._torch_trie = TorchTrie(self.trie, self.device)
        return self._torch_trie

    def attributes(self) -> Tensor:
        """The attributes' embeddings, (G, D); computed once when not training."""
        if self.training:
            return self.network.attributes
        if self._attributes is None:
            self._attributes = self.network.attributes.detach()
        return self._attributes

    def code_vectors(self) -> NDArray[np.float32]:
        """The learnt attributes' embeddings as codes are compared by them, (G, V): less what products' codes have in
        common, along the main axes of what is left. Computed once when not training."""
        if self._code_vectors is None or self.training:
            self._code_vectors = center_embeddings(self.attributes().float().cpu().numpy(), self.lexicon)
        return self._code_vectors

    def train(self, mode: bool = True) -> EncoderCoder:
        self._attributes = self._code_vectors = None
        super().train(mode)
        self.network.encoder.eval()  # no dropout: a fifth of a step's time, and one pass over a log overfits nothing
        return self

    def represent(
        self, texts: Sequence[str] | Sequence[Product], side: Side, settings: CodingSettings, progress: str = ""
    ) -> Representations:
        """As `Coder.represent`."""
        return self.represent_tokenized(self.texts.read(texts), side, settings, progress, precision_of(side))

    @torch.inference_mode()
    def represent_tokenized(
        self,
        texts: TokenizedTexts,
        side: Side,
        settings: CodingSettings,
        progress: str = "",
        dtype: torch.dtype | None = None,
    ) -> Representations:
        """As `represent`, of texts that are tokenised already, in batches of like length."""
        if self.training:
            self.eval()
        if not settings.descriptions:
            texts = texts.heads()
        built = RepresentationBuilder(texts, self.backbone.width, self.network.token_projection.out_features)
        quiet = not progress or len(texts) < PROGRESS_FROM
        heads, read = texts.by_length(settings.batch), texts.descriptions or texts
        described = read.by_length(settings.batch) if texts.descriptions else []
        with tqdm(total=len(heads) + len(described), desc=progress, unit="batch", disable=quiet) as bar:
            for rows in heads:
                with computing(self.device, dtype):
                    self._read_heads(built, texts, rows, side, settings)
                bar.update()
            for rows in described:
                with computing(self.device, dtype):
                    built.add_descriptions(rows, *self.network.read_vectors(read.batch(rows).to(self.device), side))
                bar.update()
        built.code_vectors = self.code_vectors() if settings.near else None
        return built.build()

    def _read_heads(
        self,
        built: RepresentationBuilder,
        texts: TokenizedTexts,
        rows: NDArray[np.int64],
        side: Side,
        settings: CodingSettings,
    ) -> None:
        """Adds what one pass, and the decoder's beam, say of the texts in `rows` (B,)."""
        batch = texts.batch(rows).to(self.device)
        step = self.network(batch, side, self.attributes())
        spans = [texts.unsaid[row] for row in rows.tolist()] if settings.near else []
        built.add(rows, batch, step, settings, Unsaid.read(self.network, step, batch, spans, self.attributes()))
        if settings.near:
            built.add_near(rows, batch, self.network.near(step, batch, self.attributes()), settings.near)
        if settings.codes and len(self.trie) > self.lexicon.n_learnt:
            memory = self.decoder.remember(step.states, batch.mask, step.logits, self.attributes())
            built.compound.append(likeliest_codes(self.decoder, memory, self.torch_trie, side, rows, settings))

    def knows(self, word: str) -> bool:
        """Whether the backbone reads a word as one token."""
        return len(self.backbone.tokens_of(word)) == 1

    def with_words(self, words: Mapping[str, int]) -> EncoderCoder:
        """The same for a catalogue with words that the lexicon lacks: {stem: products that hold it}, lexical only.

        A new word weighs what its rarity says, and as much more or less as training made of other lexical words.
        """
        lexicon = self.lexicon.extend(dict(words))
        known = len(self.lexicon)
        if len(lexicon) == known:
            return self
        made = EncoderCoder(self.backbone, lexicon, self.trie)
        state, start = self.state_dict(), made.network.lexical_base.detach().to(self.device)
        rare = slice(lexicon.n_learnt if lexicon.n_learnt < known else 0, known)
        learnt = (state["network.lexical_base"][rare] - start[rare]).median()
        state["network.lexical_base"] = torch.cat([state["network.lexical_base"], start[known:] + learnt])
        made.load_state_dict(state)
        return made.to(self.device).eval()

    @torch.no_grad()
    def read_attributes(self) -> None:
        """Starts every learnt attribute's embedding from the encoder's reading of its text, and the projection to token
        vectors from the main directions of these embeddings."""
        tokenized = self.texts.queries(a.value for a in self.lexicon.attributes[: self.lexicon.n_learnt])
        table = self.network.attribute_text
        for rows in tokenized.by_length(256):
            batch = tokenized.batch(rows).to(self.device)
            with computing(self.device):
                states = self.network.read(batch, Side.QUERY)  # (B, L, D)
            mask = batch.mask.unsqueeze(-1)
            mean = (states.float() * mask).sum(1) / mask.sum(1)  # (B, D)
            table[torch.from_numpy(rows)] = F.normalize(mean, dim=-1)
        main = torch.linalg.eigh(table.T @ table).eigenvectors.flip(1).T  # (D, D) main directions, the first one first
        self.network.token_projection.weight.copy_(main[: len(self.network.token_projection.weight)])

    @torch.no_grad()
    def with_attribute(self, attribute: Attribute, harder: tuple[float, float] = (0.0, 0.0)) -> EncoderCoder:
        """A coder that can also write `attribute`, a new brand say, with nothing trained again.

        Its embedding is the encoder's reading of its text; its bias and weights are the medians of its slot's
        attributes, the bias less what makes it `harder` to write for a query and for a product. Alone it is a code. An
        index must be built anew, since attributes that are lexical only change ids (see `gram.coder.added`).
        """
        old, lexicon = self.network, self.lexicon
        form = tuple(lexicon.analyzer.stems(attribute.value))
        peers = [a for a in range(lexicon.n_learnt) if lexicon.attributes[a].slot == attribute.slot]
        peers = peers or list(range(lexicon.n_learnt))
        wider = lexicon.with_learnt(attribute, form, float(np.median(lexicon.mention_rate[peers])))
        trie = copy.deepcopy(self.trie)
        trie.add((lexicon.n_learnt,))
        made = EncoderCoder(self.backbone, wider, trie)
        state = self.state_dict()
        g, lexical = lexicon.n_learnt, lexicon.id_of(form)
        base = old.lexical_base
        known_base = base[lexical : lexical + 1] if lexical >= 0 else base[peers].median().reshape(1)
        rest = torch.cat([base[g:lexical], base[lexical + 1 :]]) if lexical >= 0 else base[g:]
        batch = self.texts.queries([attribute.value]).batch([0]).to(self.device)
        states = old.read(batch, Side.QUERY).float()  # (1, L, D)
        bias = old.logit_bias[:, peers].median(1, keepdim=True)[0] - torch.tensor(harder, device=self.device)[:, None]
        state |= {
            "network.attribute_text": torch.cat([old.attribute_text, F.normalize(states.mean(1), dim=-1)]),
            "network.attribute_shift": F.pad(old.attribute_shift, (0, 0, 0, 1)),
            "network.logit_bias": torch.cat([old.logit_bias, bias], dim=1),
            "network.expansion_base": torch.cat([old.expansion_base, old.expansion_base[peers].median().reshape(1)]),
            "network.lexical_base": torch.cat([base[:g], known_base, rest]),
        }
        made.load_state_dict(state)
        return made.to(self.device).eval()

    def read_tried(self, texts: Sequence[str] | Sequence[Product], side: Side, least: float) -> TriedTexts:
        """Texts on which attributes that are added are tried: see `chances`."""
        return TriedTexts.read(self.network, self.texts, texts, side, least)

    def chances(self, tried: TriedTexts) -> NDArray[np.float64]:
        """As of `TriedTexts.chances`: of the attribute that was learnt last."""
        return tried.chances(self.network, self.lexicon)

    @torch.no_grad()
    def make_harder(self, harder: tuple[float, float]) -> None:
        """Makes the attribute that was learnt last, as easy as the median of its slot, `harder` to write, as
        `with_attribute` would have: of a coder that nobody uses yet."""
        self.network.logit_bias[:, -1] -= torch.tensor(harder, device=self.device)

    def save(self, folder: Path, extra: dict[str, Any]) -> None:
        """Writes `config.json`, `model.safetensors`, `lexicon.jsonl` and the trie into an existing folder."""
        save_file({k: v.contiguous() for k, v in self.state_dict().items()}, folder / WEIGHTS)
        self.lexicon.save(folder / LEXICON)
        self.trie.save(folder)
        encoder: Any = self.backbone.encoder
        shape = encoder.config.to_dict()
        config = {
            "format_version": FORMAT,
            "coder": "encoder",
            "backbone": self.backbone.source if self.backbone.source in ("scratch", "minilm") else "pretrained",
            "encoder": {k: v for k, v in shape.items() if not k.startswith("_") and k not in ("dtype", "torch_dtype")},
        }
        (folder / "tokenizer.json").write_text(self.backbone.tokenizer.to_str(), encoding="utf-8")
        write_json(folder / "config.json", config | extra)

    @classmethod
    def load(cls, folder: Path, config: Mapping[str, Any], device: str | torch.device = "cpu") -> EncoderCoder:
        """What `save` wrote. Raises ModelError for a folder that lacks a part, or holds a damaged one."""
        try:
            tokenizer = (folder / "tokenizer.json").read_text(encoding="utf-8")
            backbone = rebuild(dict(config["encoder"]), tokenizer, config["backbone"])
            coder = cls(backbone, Lexicon.load(folder / LEXICON), CodeTrie.load(folder))
            coder.load_state_dict(load_file(folder / WEIGHTS))
        except (OSError, KeyError, RuntimeError, ValueError, SafetensorError) as error:
            raise ModelError(f"{folder}: the model cannot be read ({error}). Fix: train it again") from error
        return coder.to(device).eval()
