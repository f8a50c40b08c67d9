"""The generator: backbone, network, decoder, lexicon and code space as one thing that is trained, saved and loaded."""

from __future__ import annotations

import copy
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from gram.coder.encoder.backbone import Backbone, rebuilt
from gram.coder.encoder.beam import TorchTrie
from gram.coder.encoder.decoder import Decoder
from gram.coder.encoder.network import QUERY, Network, NetworkSettings
from gram.coder.encoder.tokens import TextEncoder
from gram.coder.precision import computing
from gram.codes.lexicon import Lexicon
from gram.codes.trie import CodeTrie
from gram.errors import ModelError
from gram.folders import read_json, write_json
from gram.records import Attribute
from gram.text.words import stems

FORMAT = 2
LEXICON = "lexicon.jsonl"


class Generator(nn.Module):
    """Writes codes for queries and products. `device` is where its weights are."""

    def __init__(
        self, backbone: Backbone, lexicon: Lexicon, trie: CodeTrie, settings: NetworkSettings | None = None
    ) -> None:
        super().__init__()
        self.backbone, self.lexicon, self.trie = backbone, lexicon, trie
        self.texts = TextEncoder(lexicon, backbone)
        self.network = Network(backbone, lexicon, settings)
        self.decoder = Decoder(backbone.width)
        self.log_temperature = nn.Parameter(torch.tensor(6.0).log())  # of the meeting score in its loss
        self.mix = nn.Parameter(torch.full((3,), 0.5))  # of attributes, vectors and pieces where all meet at once
        self._torch_trie: TorchTrie | None = None
        self._attributes: Tensor | None = None

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

    def train(self, mode: bool = True) -> Generator:
        self._attributes = None
        super().train(mode)
        self.network.encoder.eval()  # no dropout: a fifth of a step's time, and one pass over a log overfits nothing
        return self

    def with_words(self, words: dict[str, int]) -> Generator:
        """The same for a catalogue with words that the lexicon lacks: {stem: products that hold it}, to be copied only.

        A new word weighs what its rarity says, and as much more or less as training made of other copied words.
        """
        lexicon = self.lexicon.extended(words)
        known = len(self.lexicon)
        if len(lexicon) == known:
            return self
        made = Generator(self.backbone, lexicon, self.trie)
        state, start = self.state_dict(), made.network.copied_base.detach().to(self.device)
        rare = slice(lexicon.n_generated if lexicon.n_generated < known else 0, known)
        learnt = (state["network.copied_base"][rare] - start[rare]).median()
        state["network.copied_base"] = torch.cat([state["network.copied_base"], start[known:] + learnt])
        made.load_state_dict(state)
        return made.to(self.device).eval()

    @torch.no_grad()
    def read_attributes(self) -> None:
        """Starts every generated attribute's embedding from the encoder's reading of its text, and the pieces' own
        vectors from their main directions."""
        encoded = self.texts.queries(a.value for a in self.lexicon.attributes[: self.lexicon.n_generated])
        table = self.network.attribute_text
        for rows in encoded.by_length(256):
            batch = encoded.batch(rows).to(self.device)
            with computing(self.device):
                states = self.network.read(batch, QUERY)  # (B, L, D)
            mask = batch.mask.unsqueeze(-1)
            mean = (states.float() * mask).sum(1) / mask.sum(1)  # (B, D)
            table[torch.from_numpy(rows)] = F.normalize(mean, dim=-1)
        main = torch.linalg.eigh(table.T @ table).eigenvectors.flip(1).T  # (D, D) main directions, the first one first
        self.network.piece.weight.copy_(main[: len(self.network.piece.weight)])

    @torch.no_grad()
    def with_attribute(self, attribute: Attribute) -> Generator:
        """A generator that can also write `attribute`, a new brand say, with nothing trained again.

        Its embedding is the encoder's reading of its text; its bias and weight are what attributes of its slot have in
        the middle. It gets a code of its own. An index must be built anew, since copied attributes change their ids.
        """
        old, lexicon = self.network, self.lexicon
        form = tuple(stems(attribute.value, lexicon.language))
        peers = [a for a in range(lexicon.n_generated) if lexicon.attributes[a].slot == attribute.slot]
        peers = peers or list(range(lexicon.n_generated))
        wider = lexicon.with_generated(attribute, form, float(np.median(lexicon.asked[peers])))
        trie = copy.deepcopy(self.trie)
        trie.add((lexicon.n_generated,))
        made = Generator(self.backbone, wider, trie)
        state = self.state_dict()
        g, copied = lexicon.n_generated, lexicon.id_of(form)
        base = old.copied_base
        own = base[copied : copied + 1] if copied >= 0 else base[peers].median().reshape(1)
        rest = torch.cat([base[g:copied], base[copied + 1 :]]) if copied >= 0 else base[g:]
        batch = self.texts.queries([attribute.value]).batch([0]).to(self.device)
        states = old.read(batch, QUERY).float()  # (1, L, D)
        state |= {
            "network.attribute_text": torch.cat([old.attribute_text, F.normalize(states.mean(1), dim=-1)]),
            "network.attribute_shift": F.pad(old.attribute_shift, (0, 0, 0, 1)),
            "network.logit_bias": torch.cat(
                [old.logit_bias, old.logit_bias[:, peers].median(1, keepdim=True)[0]], dim=1
            ),
            "network.generated_base": torch.cat([old.generated_base, old.generated_base[peers].median().reshape(1)]),
            "network.copied_base": torch.cat([base[:g], own, rest]),
        }
        made.load_state_dict(state)
        return made.to(self.device).eval()

    def save(self, folder: Path, extra: dict[str, Any]) -> None:
        """Writes `config.json`, `model.safetensors`, `lexicon.jsonl` and the trie into an existing folder."""
        save_file({k: v.contiguous() for k, v in self.state_dict().items()}, folder / "model.safetensors")
        self.lexicon.save(folder / LEXICON)
        self.trie.save(folder)
        encoder: Any = self.backbone.encoder
        shape = encoder.config.to_dict()
        config = {
            "format_version": FORMAT,
            "backbone": self.backbone.source if self.backbone.source in ("scratch", "minilm") else "pretrained",
            "encoder": {k: v for k, v in shape.items() if not k.startswith("_") and k not in ("dtype", "torch_dtype")},
        }
        (folder / "tokenizer.json").write_text(self.backbone.tokenizer.to_str(), encoding="utf-8")
        write_json(folder / "config.json", config | extra)

    @classmethod
    def load(cls, folder: Path, device: str | torch.device = "cpu") -> tuple[Generator, dict[str, Any]]:
        """The generator of a model folder, ready to write, and the folder's configuration.

        Raises:
            ModelError: a folder that is not a model, is of another format, or lacks a part.
        """
        if not (folder / "config.json").is_file():
            raise ModelError(
                f"{folder} is not a model folder (no config.json). Fix: gram train PRODUCTS LOG -o {folder}"
            )
        config = read_json(folder / "config.json")
        if config.get("format_version") != FORMAT:
            raise ModelError(
                f"{folder}: model format {config.get('format_version')}, this version reads {FORMAT}. Fix: train again"
            )
        try:
            shape = dict(config["encoder"])
            tokenizer = (folder / "tokenizer.json").read_text(encoding="utf-8")
            backbone = rebuilt(shape, tokenizer, config["backbone"])
            generator = cls(backbone, Lexicon.load(folder / LEXICON), CodeTrie.load(folder))
            generator.load_state_dict(load_file(folder / "model.safetensors"))
        except (OSError, KeyError, RuntimeError, ValueError, SafetensorError) as error:
            raise ModelError(f"{folder}: the model cannot be read ({error}). Fix: train it again") from error
        return generator.to(device).eval(), config


def model_hash(folder: Path) -> str:
    """What an index remembers of the model it was built with: sha256 of the weights and the lexicon, 16 digits."""
    digest = hashlib.sha256()
    for name in ("model.safetensors", LEXICON):
        digest.update((folder / name).read_bytes())
    digest.update(json.dumps(read_json(folder / "config.json")["encoder"], sort_keys=True).encode())
    return digest.hexdigest()[:16]
