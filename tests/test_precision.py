"""The number format is told or measured, and measuring it takes no time that a user would see."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace

import pytest
import torch

from gram.coder import precision

NATIVE = {torch.float32: 14e-6, torch.bfloat16: 5e-6}
"""Seconds a row of a matrix product on a CPU that computes in bfloat16."""
SLOW_NATIVE = {torch.float32: 14e-6, torch.bfloat16: 12e-6}
EMULATING = {torch.float32: 14e-6, torch.bfloat16: 620e-6}


@pytest.mark.parametrize(
    ("machine", "native", "chosen"),
    [
        (NATIVE, None, torch.bfloat16),
        (SLOW_NATIVE, None, torch.float32),
        (EMULATING, None, torch.float32),
        (NATIVE, True, torch.bfloat16),
        (SLOW_NATIVE, True, torch.bfloat16),  # as a busy one looks
        (EMULATING, True, torch.float32),  # the library does without the instructions
        (NATIVE, False, torch.float32),
    ],
)
def test_the_faster_format_is_chosen_quickly(
    machine: dict[torch.dtype, float], native: bool | None, chosen: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    spent = []

    def seconds(rows: int) -> tuple[float, float]:
        full, half = (rows * machine[dtype] for dtype in (torch.float32, torch.bfloat16))
        spent.append((full + half) * precision.TURNS)
        return full, half

    monkeypatch.setattr(precision, "_seconds", seconds)
    monkeypatch.setattr(precision, "_is_native", lambda: native)
    assert precision.fast_dtype.__wrapped__("cpu") == chosen
    assert sum(spent) < 0.2


@pytest.mark.parametrize(
    ("machine", "flags", "native"),
    [
        ("x86_64", {"avx512_bf16": True, "amx_tile": False}, True),
        ("AMD64", {"avx512_bf16": False, "amx_tile": True}, True),
        ("x86_64", {"avx512_bf16": False, "amx_tile": False}, False),
        ("x86_64", {"amx_tile": True}, None),  # an older torch
        ("aarch64", {"avx512_bf16": False, "amx_tile": False}, None),
    ],
)
def test_an_x86_tells_whether_it_computes_in_bfloat16(
    machine: str, flags: dict[str, bool], native: bool | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    cpu = SimpleNamespace(**{f"_is_{name}_supported": partial(bool, has) for name, has in flags.items()})
    monkeypatch.setattr(precision.torch, "cpu", cpu)
    monkeypatch.setattr(precision.platform, "machine", lambda: machine)
    assert precision._is_native() is native


def test_the_least_of_turns_about_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """However busy the machine is in all turns but one, and in whichever: float32 takes 3 then, bfloat16 2."""
    quiet = {torch.float32: 7, torch.bfloat16: 2}
    clock = [0.0]
    begins = 0

    def look() -> float:
        nonlocal begins
        turn, second = divmod(begins // 2, 2)
        if begins % 2:
            dtype = (torch.float32, torch.bfloat16)[second]
            clock[0] += (3.0, 2.0)[second] if turn == quiet[dtype] else 100.0
        begins += 1
        return clock[0]

    monkeypatch.setattr(precision.time, "thread_time", look)
    assert precision._seconds(1) == (3.0, 2.0)


def test_a_format_is_kept_within_a_body() -> None:
    a, device = torch.ones(2, 2), torch.device("cpu")
    for dtype in (torch.float32, torch.bfloat16):
        with precision.keeping(dtype):
            with precision.computing(device):
                assert (a @ a).dtype == dtype
            with precision.computing(device, torch.float32):
                assert (a @ a).dtype == torch.float32
