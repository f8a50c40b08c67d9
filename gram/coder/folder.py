"""A model folder from outside: which coder it holds, and what an index remembers of it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from gram.coder.base import FORMAT, LEXICON, WEIGHTS, Coder
from gram.errors import ModelError
from gram.folders import check_folder, read_json
from gram.index.segment import META


def load_coder(folder: Path, device: str = "cpu") -> Coder:
    """The coder of a model folder, ready to represent texts.

    Raises ModelError for a folder that is not a model, is of another format, or lacks a part.
    """
    config = read_config(folder)
    if config["coder"] == "encoder":
        from gram.coder.encoder.coder import EncoderCoder

        return EncoderCoder.load(folder, config, device)
    if config["coder"] == "causal":
        from gram.coder.causal.coder import CausalCoder

        return CausalCoder.load(folder, config, device)
    raise ModelError(f"{folder}: its coder {config['coder']!r} is not known here. Fix: install a newer version")


def read_config(folder: Path) -> dict[str, Any]:
    """The configuration of a model folder. Raises ModelError where there is none, or one of another format."""
    if not (folder / "config.json").is_file():
        if (folder / META).is_file():
            fix = "name the folder that gram train wrote"
            raise ModelError(f"{folder}: is an index, and a model is wanted. Fix: {fix}")
        raise ModelError(f"{folder} is not a model folder (no config.json). Fix: gram train PRODUCTS LOG -o {folder}")
    config = read_json(folder / "config.json")
    found = config.get("format_version") if isinstance(config, dict) else None
    if found != FORMAT:
        raise ModelError(f"{folder}: model format {found}, this version reads {FORMAT}. Fix: train again")
    missing = [key for key in ("coder", "encoder", "backbone") if key not in config]
    if missing:
        raise ModelError(f"{folder / 'config.json'}: lacks {', '.join(missing)}. Fix: train again")
    return dict(config)


def check_model(folder: Path) -> None:
    """Raises ModelError for a folder that is not a model, is of another format, or has a damaged file."""
    read_config(folder)
    check_folder(folder, f"gram train PRODUCTS LOG -o {folder}", ModelError)


def model_hash(folder: Path) -> str:
    """What an index remembers of the model it was built with: sha256 of the weights and the lexicon, 16 digits.

    Raises ModelError for a folder that lacks them.
    """
    digest = hashlib.sha256()
    try:
        for name in (WEIGHTS, LEXICON):
            digest.update((folder / name).read_bytes())
    except OSError as error:
        raise ModelError(f"{folder}: no model there ({error}). Fix: name it with --model") from error
    digest.update(json.dumps(read_config(folder)["encoder"], sort_keys=True).encode())
    return digest.hexdigest()[:16]
