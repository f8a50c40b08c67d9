"""What is remembered goes by when it was last asked for, and takes no more memory than it may."""

from __future__ import annotations

from gram.remembered import Remembered


def test_what_nobody_asked_for_the_longest_goes_first() -> None:
    remembered: Remembered[int] = Remembered(2, most_bytes=10_000)
    remembered.put("a", 1, 10)
    remembered.put("b", 2, 10)
    assert remembered.get("a") == 1
    remembered.put("c", 3, 10)
    assert [remembered.get(key) for key in "abc"] == [1, None, 3]


def test_bytes_are_those_of_what_is_there() -> None:
    remembered: Remembered[int] = Remembered(100, most_bytes=1_000)
    for _ in range(50):
        remembered.put("a", 1, 300)  # in the place of itself
    remembered.put("b", 2, 300)
    assert (remembered.get("a"), remembered.get("b")) == (1, 2)
    remembered.put("c" * 300, 3, 100)  # a key takes memory too
    assert remembered.get("a") is None
    remembered.put("d", 4, 2_000)
    assert remembered.get("d") is None
