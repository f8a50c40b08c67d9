"""Which number format the encoder computes in: measured, not hoped for."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from functools import lru_cache

import torch

from gram.errors import SettingError

ROWS, FEW = 512, 16
"""Rows of a matrix product of the encoder's size, and of one that tells whether bfloat16 is emulated."""
EMULATED = 8
"""Times as slow as float32 in the small product: no machine that computes in bfloat16 natively, however busy, is."""


@lru_cache(maxsize=4)
def fast_dtype(device_type: str) -> torch.dtype:
    """bfloat16 where its matrix product beats float32's by half, else float32.

    A CPU without native bfloat16 runs such products up to 100 times slower than float32; a GPU of the last years,
    faster. Such a CPU is told by a small product: a large one takes it more than a second, in a shop's first change.
    """
    if device_type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    if device_type != "cpu":
        return torch.float32
    few = _seconds(torch.float32, FEW, limit=1.0)
    if _seconds(torch.bfloat16, FEW, limit=few) > EMULATED * few:
        return torch.float32
    slow = _seconds(torch.float32, ROWS, limit=1.0)
    return torch.bfloat16 if _seconds(torch.bfloat16, ROWS, limit=slow) * 1.5 < slow else torch.float32


def _seconds(dtype: torch.dtype, rows: int, limit: float) -> float:
    """The best of a few timings of a matrix product; stops early once far past `limit` seconds."""
    a = torch.ones(rows, 384).to(dtype)
    b = torch.ones(384, 1536).to(dtype)
    best = float("inf")
    for turn in range(12):
        begin = time.perf_counter()
        _ = a @ b
        best = min(best, time.perf_counter() - begin)
        if turn > 2 and best > 4 * limit:  # the first turns also choose and compile the kernel
            break
    return best


def check_device(name: str) -> None:
    """Raises SettingError for a device that PyTorch cannot compute on here."""
    try:
        torch.autocast(torch.empty(1, device=name).device.type, enabled=False)
    except (RuntimeError, AssertionError) as error:
        why = str(error).splitlines()[0]
        raise SettingError(f"'{name}' is no device that PyTorch can compute on here ({why}). Fix: use cpu") from error


@contextlib.contextmanager
def computing(device: torch.device, dtype: torch.dtype | None = None) -> Iterator[None]:
    """Runs the body in `dtype` (by default the device's fast one)."""
    dtype = dtype or fast_dtype(device.type)
    with torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32):
        yield
