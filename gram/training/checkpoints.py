"""Checkpoints and the record of steps: what a training that goes on reads of the one that was stopped."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from gram.errors import DataError, ModelError
from gram.folders import new_file

ANEW = "train without --resume, to begin anew"
CHECKPOINT_SECONDS = 180  # between checkpoints at most, where validation does not come sooner


def write_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """Writes a checkpoint, whole or not at all. Raises DataError where it cannot be written."""
    with new_file(path) as draft:
        try:
            torch.save(state, draft)
        except RuntimeError as error:  # what torch makes of a full disk
            problem = f"the checkpoint cannot be written ({str(error).splitlines()[0]})."
            raise DataError(path, problem, "make room on the disk, then go on with --resume") from error


@contextmanager
def reading_weights(path: Path, fix: str) -> Iterator[None]:
    """Raises ModelError, which names the file and the fix, for whatever is wrong with weights that are read."""
    try:
        yield
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # torch, pickle and zip fail at a damaged file in ways of their own
        problem = (str(error).splitlines() or [repr(error)])[0]
        raise ModelError(f"{path}: its weights cannot be used ({problem[:200]}). Fix: {fix}") from error


def forget_after(record: Path, step: int, stage: str) -> None:
    """Takes steps out of the record that were done after the checkpoint, and will be done again."""
    if record.is_file():
        kept = [
            row for row in record.read_text(encoding="utf-8", errors="replace").splitlines() if _stays(row, step, stage)
        ]
        record.write_text("".join(f"{row}\n" for row in kept), encoding="utf-8")


def _stays(row: str, step: int, stage: str) -> bool:
    try:
        found = json.loads(row)
        return bool(found["stage"] != stage or found["step"] <= step)
    except (ValueError, LookupError, TypeError):  # a line that a kill cut off
        return False
