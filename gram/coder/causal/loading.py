"""Language models from a hub or a folder, made of nothing, or made anew from what a model folder keeps of them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from tokenizers import Tokenizer
from torch import Tensor, nn

from gram.coder.causal.language_model import LanguageModel, LanguageModelSettings
from gram.errors import MissingExtra, ModelError, SettingError


def check_language_model(settings: LanguageModelSettings) -> None:
    """Raises the errors of `load_language_model` that are found without its weights: to be asked before hours of work.

    What a hub has is asked of it, once.
    """
    if settings.from_scratch:
        return
    _check_packages(settings)
    with _explained(settings.name):
        _read_config(settings.name, None)
        _read_tokenizer(settings.name, None)


def load_language_model(
    settings: LanguageModelSettings, texts: Iterable[str] = (), device: str | torch.device = "cpu", origin: str = ""
) -> LanguageModel:
    """The language model of a hub id or a folder; a `scratch` one learns its tokens from `texts`.

    `origin`, where given, is what the model's weights must be: a hub's are loaded at that commit.

    Raises:
        ModelError: a model or tokenizer that cannot be read, has no mark for the end of a text, or other weights.
        MissingExtra: LoRA without peft.
        SettingError: four bits without bitsandbytes.
    """
    if settings.from_scratch:
        model, tokenizer, end_id = _scratch(settings, texts)
        return LanguageModel(model, tokenizer, settings, end_id).to(device)
    if Path(settings.name).is_dir():
        settings = replace(settings, name=str(Path(settings.name).resolve()))  # it is opened from other folders too
    _check_packages(settings)
    with _explained(settings.name):
        found = _origin(settings.name, origin) if settings.adapted else ""
        if origin and found != origin:
            raise ModelError(f"{settings.name} has other weights than those that its adapters were trained on")
        revision = found.partition("commit:")[2] or None
        fast = _read_tokenizer(settings.name, revision)
        model = _pretrained(settings, device, revision)
    if getattr(model.config, "pad_token_id", None) is None:
        model.config.pad_token_id = fast.pad_token_id if fast.pad_token_id is not None else fast.eos_token_id
    tokenizer = Tokenizer.from_str(fast.backend_tokenizer.to_str())
    made = LanguageModel(_adapt(model, settings), tokenizer, settings, int(fast.eos_token_id), found)
    return made if settings.four_bit else made.to(device)


def rebuild(described: Mapping[str, Any], tokenizer_json: str, weights: Mapping[str, Tensor]) -> LanguageModel:
    """A trained language model, as `describe` told of it.

    Raises ModelError for weights that are another model's, or adapters whose model is not to be had as it was.
    """
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM

    settings = LanguageModelSettings(**described["settings"])
    tokenizer, end_id = Tokenizer.from_str(tokenizer_json), int(described["end_id"])
    origin = str(described["origin"])
    if settings.adapted:
        if origin.startswith("sha256:") and not Path(settings.name).is_dir():
            raise ModelError(f"the model that its adapters were trained on is gone: {settings.name}")
        base = load_language_model(settings, origin=origin).model
    else:
        shape = dict(described["shape"])
        config = AutoConfig.for_model(**{k: v for k, v in shape.items() if not k.startswith("_")})
        base = (AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM).from_config(config)
        _untie(base, weights)
    made = LanguageModel(base, tokenizer, settings, end_id, origin)
    made.load_trained(weights)
    return made


def _untie(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Gives weights a place each that are one in the model, as its configuration has it, and differ as they were saved.

    T5's successors are such: their configuration says that words are read and written by the same weights.
    """
    first: dict[int, str] = {}
    for name, weight in list(model.named_parameters(remove_duplicate=False)):
        one = first.setdefault(id(weight), name)
        if one != name and one in weights and name in weights and not torch.equal(weights[one], weights[name]):
            module, _, last = name.rpartition(".")
            setattr(model.get_submodule(module), last, nn.Parameter(weight.detach().clone()))


_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(?:/[A-Za-z0-9][\w.-]*)?")


@contextmanager
def _explained(name: str) -> Iterator[None]:
    """What transformers says of a model that cannot be loaded, as an error with a fix."""
    try:
        if not Path(name).is_dir() and not _HUB_ID.fullmatch(name):
            raise OSError("there is no such folder, and no hub id has this form.")
        yield
    except (OSError, ValueError, KeyError, RuntimeError, ImportError, SafetensorError) as error:
        problem = (str(error).splitlines() or [repr(error)])[0]
        fix = "give a folder with config.json, model.safetensors and tokenizer.json, or a hub id while online"
        raise ModelError(f"The language model {name!r} cannot be loaded: {problem} Fix: {fix}") from error


def _origin(name: str, known: str) -> str:
    """Which weights a name stands for now; of a hub id, the `known` ones as long as they are to be had."""
    if not Path(name).is_dir():
        from huggingface_hub import hf_hub_download

        revision = known.partition("commit:")[2] or None
        return f"commit:{Path(hf_hub_download(name, 'config.json', revision=revision)).parent.name}"
    files = sorted(Path(name).glob("*.safetensors")) or sorted(Path(name).glob("*.bin"))
    digest = hashlib.sha256()
    for file in (Path(name, "config.json"), *files):
        with file.open("rb") as stream:
            while chunk := stream.read(1 << 20):
                digest.update(chunk)
    return f"sha256:{digest.hexdigest()}"


def _read_config(name: str, revision: str | None) -> Any:
    from transformers import AutoConfig

    return AutoConfig.from_pretrained(name, revision=revision)


def _read_tokenizer(name: str, revision: str | None) -> Any:
    from transformers import AutoTokenizer

    fast = AutoTokenizer.from_pretrained(name, use_fast=True, revision=revision)
    if not fast.is_fast:
        raise ModelError(f"{name}: its tokenizer has no fast form (tokenizer.json). Fix: choose another model")
    if fast.eos_token_id is None:
        raise ModelError(f"{name}: its tokenizer has no mark for the end of a text. Fix: choose another model")
    return fast


def _pretrained(settings: LanguageModelSettings, device: str | torch.device, revision: str | None) -> Any:
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

    config = _read_config(settings.name, revision)
    kind = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    more: dict[str, Any] = {"dtype": _frozen_dtype(settings, torch.device(device).type), "revision": revision}
    if settings.four_bit:
        from transformers import BitsAndBytesConfig

        more["quantization_config"] = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_compute_dtype=torch.bfloat16)
        more["device_map"] = {"": device}
    model = kind.from_pretrained(settings.name, **more)
    model.config.use_cache = True
    return model


def _frozen_dtype(settings: LanguageModelSettings, device_type: str) -> torch.dtype:
    """Of weights as they are held: float32 where they are trained themselves, and mixed precision computes."""
    if settings.dtype != "auto":
        chosen: torch.dtype = getattr(torch, settings.dtype)
        return chosen
    return torch.bfloat16 if settings.adapted and device_type == "cuda" else torch.float32


def _adapt(model: Any, settings: LanguageModelSettings) -> nn.Module:
    """The model with LoRA's adapters (Hu et al. 2022) on all its linear layers, where these are trained."""
    if settings.checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        if settings.adapted:
            model.enable_input_require_grads()
    if not settings.adapted:
        return model
    import peft

    if settings.four_bit:
        model = peft.prepare_model_for_kbit_training(model, use_gradient_checkpointing=settings.checkpointing)
    task = peft.TaskType.SEQ_2_SEQ_LM if model.config.is_encoder_decoder else peft.TaskType.CAUSAL_LM
    config = peft.LoraConfig(
        r=settings.lora, lora_alpha=2 * settings.lora, target_modules="all-linear", task_type=task, lora_dropout=0.0
    )
    return peft.get_peft_model(model, config)


def _check_packages(settings: LanguageModelSettings) -> None:
    """Raises MissingExtra or SettingError where a package is not installed that these settings need."""
    if settings.adapted and find_spec("peft") is None:
        raise MissingExtra("LoRA (without it, all weights are trained: --lora 0)", "causal")
    if settings.four_bit and find_spec("bitsandbytes") is None:
        raise SettingError("frozen weights in four bits need another package. Fix: pip install bitsandbytes")


def _scratch(settings: LanguageModelSettings, texts: Iterable[str]) -> tuple[Any, Tokenizer, int]:
    """A small model of a well-known shape with random weights, and byte-level BPE trained on the texts."""
    from tokenizers import decoders, models, pre_tokenizers, trainers
    from transformers import (
        LlamaConfig,
        LlamaForCausalLM,
        Qwen3Config,
        Qwen3ForCausalLM,
        T5Config,
        T5ForConditionalGeneration,
    )

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=settings.vocabulary,
        special_tokens=["<pad>", "<end>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    heads = max(1, settings.width // 32)
    common = {"vocab_size": tokenizer.get_vocab_size(), "pad_token_id": 0, "eos_token_id": 1}
    if settings.name == "scratch-t5":
        shape = {"d_model": settings.width, "d_kv": 32, "d_ff": 4 * settings.width, "num_layers": settings.layers}
        config = T5Config(**common, **shape, num_heads=heads, decoder_start_token_id=0, dropout_rate=0.0)
        return T5ForConditionalGeneration(config), tokenizer, 1
    more: dict[str, Any] = {
        **{"hidden_size": settings.width, "intermediate_size": 3 * settings.width, "head_dim": 32},
        **{"num_hidden_layers": settings.layers, "num_attention_heads": heads, "num_key_value_heads": heads},
        **{"max_position_embeddings": 512, "tie_word_embeddings": True, "bos_token_id": None},
    }
    if settings.name == "scratch-llama":
        return LlamaForCausalLM(LlamaConfig(**common, **more)), tokenizer, 1
    return Qwen3ForCausalLM(Qwen3Config(**common, **more)), tokenizer, 1
