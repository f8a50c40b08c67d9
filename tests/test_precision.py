"""The number format is measured, and measuring it takes no time that a user would see."""

from __future__ import annotations

import pytest
import torch

from gram.coder import precision

NATIVE = {torch.float32: 14e-6, torch.bfloat16: 5e-6}
"""Seconds a row of a matrix product on a CPU that computes in bfloat16."""
SLOW_NATIVE = {torch.float32: 14e-6, torch.bfloat16: 12e-6}
EMULATING = {torch.float32: 14e-6, torch.bfloat16: 620e-6}


@pytest.mark.parametrize(
    ("machine", "chosen"),
    [(NATIVE, torch.bfloat16), (SLOW_NATIVE, torch.float32), (EMULATING, torch.float32)],
)
def test_the_faster_format_is_chosen_quickly(
    machine: dict[torch.dtype, float], chosen: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    spent = []

    def seconds(dtype: torch.dtype, rows: int, limit: float) -> float:
        once = rows * machine[dtype]
        spent.append(once * (4 if once > 4 * limit else 12))
        return once

    monkeypatch.setattr(precision, "_seconds", seconds)
    assert precision.fast_dtype.__wrapped__("cpu") == chosen
    assert sum(spent) < 0.2


def test_a_product_that_is_far_past_its_limit_is_timed_four_times(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[float] = []

    def clock() -> float:
        looks.append(len(looks) * 1.0)
        return looks[-1]

    monkeypatch.setattr(precision.time, "perf_counter", clock)
    assert precision._seconds(torch.float32, 1, limit=0.2) == 1.0
    assert len(looks) == 8
