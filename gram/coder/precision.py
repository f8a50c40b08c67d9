"""Which number format the encoder computes in: told by the machine or measured, not hoped for."""

from __future__ import annotations

import contextlib
import platform
import time
from collections.abc import Iterator
from contextvars import ContextVar
from functools import lru_cache

import torch

from gram.errors import SettingError

ROWS, FEW = 512, 16
"""Rows of a matrix product of the encoder's size, and of one that tells whether bfloat16 is emulated."""
EMULATED = 8
"""Times as slow as float32 in the small product: no machine that computes in bfloat16 natively is."""
FASTER = 1.5
"""Times as fast as float32 in the large product, from which bfloat16 is taken on a CPU that does not tell."""
TURNS = 12

_FORMATS = (torch.float32, torch.bfloat16)
_kept: ContextVar[torch.dtype | None] = ContextVar("kept", default=None)


@lru_cache(maxsize=4)
def fast_dtype(device_type: str) -> torch.dtype:
    """bfloat16 on a GPU or a CPU that computes in it natively, else float32.

    A CPU without native bfloat16 runs such products up to 100 times slower than float32; a GPU of the last years, and a
    CPU that has instructions for it, several times faster. An x86 tells whether it has them, so that a busy one is read
    as an idle one; any other is measured. One whose products are slow all the same, since the library does without
    them, is told by a small product: a large one takes it more than a second, in a shop's first change.
    """
    if device_type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    native = _is_native() if device_type == "cpu" else False
    if native is False:
        return torch.float32
    full, half = _seconds(FEW)
    if half > EMULATED * full:
        return torch.float32
    if native is None:
        full, half = _seconds(ROWS)
    return torch.bfloat16 if native or half * FASTER < full else torch.float32


def _is_native() -> bool | None:
    """Whether the CPU has instructions for products in bfloat16; None where it, or this torch, does not tell."""
    tells = [getattr(torch.cpu, f"_is_{name}_supported", None) for name in ("avx512_bf16", "amx_tile")]
    if platform.machine().lower() not in ("x86_64", "amd64") or None in tells:
        return None
    return any(has() for has in tells if has is not None)


def _seconds(rows: int) -> tuple[float, float]:
    """What a matrix product takes of this thread in float32 and in bfloat16, the least of some turns about: what other
    work of the machine takes is not counted, and meets both alike."""
    both = [[torch.ones(shape).to(dtype) for shape in ((rows, 384), (384, 1536))] for dtype in _FORMATS]
    best = [float("inf")] * len(both)
    for _ in range(TURNS):
        for which, (a, b) in enumerate(both):
            begin = time.thread_time()
            _ = a @ b
            best[which] = min(best[which], time.thread_time() - begin)
    return best[0], best[1]


def check_device(name: str) -> None:
    """Raises SettingError for a device that PyTorch cannot compute on here."""
    try:
        torch.autocast(torch.empty(1, device=name).device.type, enabled=False)
    except (RuntimeError, AssertionError) as error:
        why = str(error).splitlines()[0]
        raise SettingError(f"'{name}' is no device that PyTorch can compute on here ({why}). Fix: use cpu") from error


@contextlib.contextmanager
def computing(device: torch.device, dtype: torch.dtype | None = None) -> Iterator[None]:
    """Runs the body in `dtype`; by default in the one that is kept, or the device's fast one."""
    dtype = dtype or _kept.get() or fast_dtype(device.type)
    with torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32):
        yield


@contextlib.contextmanager
def keeping(dtype: torch.dtype) -> Iterator[None]:
    """Within the body `computing` takes this format where none is given: that of a training that goes on."""
    before = _kept.set(dtype)
    try:
        yield
    finally:
        _kept.reset(before)
