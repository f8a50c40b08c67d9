"""The rooms of the package, and which may import which: a module knows its own room and those above it, no others."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import gram

PACKAGE = Path(gram.__file__).parent

FLOORS = (
    ("records", "errors", "folders", "arrays"),
    ("text",),
    ("data",),
    ("codes",),
    ("index",),
    ("coder",),
    ("ranking",),
    ("search", "indexing"),
    ("training",),
    ("evaluation",),
    ("baselines",),
    ("bench",),
    ("cli", "demo", "__init__"),
)
"""From the top down. Rooms of one floor may import each other."""

FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
WITHOUT_TORCH = ("records", "errors", "folders", "data", "codes", "index", "evaluation", "cli", "__init__")
OURS = ("model", "search", "indexing", "stages", "pipeline", "health")
"""What a rival must not lean on: it is to be measured against these."""

MODULES = sorted(PACKAGE.rglob("*.py"))


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports_of(source: str) -> Iterator[tuple[int, str]]:
    """(line, module) of every import, those inside functions and `if TYPE_CHECKING` too."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.level or node.module == "gram":
                raise AssertionError(f"line {node.lineno}: name the module in full, as `from gram.data.log import …`")
            yield node.lineno, str(node.module)


def rooms_imported(path: Path) -> list[tuple[int, str]]:
    found = imports_of(path.read_text(encoding="utf-8"))
    return [(line, name.split(".")[1]) for line, name in found if name.startswith("gram.")]


def test_every_module_has_a_room() -> None:
    assert {room_of(path) for path in MODULES} <= FLOOR.keys()


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_arrows_point_only_upward(path: Path) -> None:
    room = room_of(path)
    down = [f"line {line}: gram.{other}" for line, other in rooms_imported(path) if FLOOR[other] > FLOOR[room]]
    assert not down, f"{path.relative_to(PACKAGE)} imports from a lower room: {down}"


@pytest.mark.parametrize("path", [p for p in MODULES if room_of(p) in WITHOUT_TORCH], ids=lambda p: p.stem)
def test_what_does_not_compute_imports_no_torch(path: Path) -> None:
    named = [name.split(".")[0] for _, name in imports_of(path.read_text(encoding="utf-8"))]
    assert not {"torch", "transformers", "safetensors"} & set(named)


def test_rivals_do_not_lean_on_what_they_are_compared_with() -> None:
    for path in MODULES:
        if room_of(path) == "baselines":
            assert not {other for _, other in rooms_imported(path)} & set(OURS), path.name


def test_imports_are_found_wherever_they_stand() -> None:
    source = "import torch\ndef f():\n    from gram.coder.encoder.beam import Start\n    import gram.cli as cli\n"
    assert sorted(imports_of(source)) == [(1, "torch"), (3, "gram.coder.encoder.beam"), (4, "gram.cli")]
