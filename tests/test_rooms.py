"""The rooms of the package, and which may import which: a module knows its own room and those above it, no others."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

import gram

PACKAGE = Path(gram.__file__).parent

ROOMS = (
    "records", "errors", "locks", "apart", "folders", "arrays", "remembered",
    "text", "data", "codes", "index", "coder", "ranking", "indexing", "search",
    "rules", "code_edits", "snapshot", "export", "backups", "live", "ranked", "names", "answer", "shop", "near_line",
    "training", "evaluation", "baselines", "bench",
    "serve", "display", "demo",
    "cli_measuring", "cli_causal", "cli_serving", "cli_searching", "cli", "__init__",
)  # fmt: skip
"""From the top down, every room on a floor of its own: no two may import each other."""

FLOOR = {room: floor for floor, room in enumerate(ROOMS)}

WITHOUT_TORCH = (
    "records", "errors", "locks", "apart", "folders", "arrays", "remembered", "text", "data", "codes", "index",
    "coder/base", "coder/added", "coder/folder", "ranking/features", "ranking/candidates", "ranking/scorer",
    "ranking/fits", "indexing", "search", "rules", "code_edits", "snapshot", "export", "backups", "live", "ranked",
    "names", "answer", "shop", "near_line", "serve", "evaluation", "display", "cli_measuring", "cli_causal",
    "cli_serving", "cli_searching", "cli", "__init__",
)  # fmt: skip
"""Rooms and modules that do not compute with it. What they import inside a function is theirs to choose, so that the
one place that opens an encoder may."""

TORCH = ("torch", "transformers", "tokenizers", "safetensors.torch")

OURS = ("coder", "ranking", "search", "indexing", "training")
"""What a rival must not lean on: it is to be measured against these."""

MODULES = sorted(PACKAGE.rglob("*.py"))


def name_of(path: Path) -> str:
    """The module in full: gram.codes.trie; a package is named by its folder."""
    parts = ("gram", *path.relative_to(PACKAGE).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 2 else parts)


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def computes(path: Path) -> bool:
    """Whether a module may import torch."""
    inside = path.relative_to(PACKAGE).with_suffix("").as_posix()
    return not any(inside == named or inside.startswith(f"{named}/") for named in WITHOUT_TORCH)


def imports_of(source: str, deferred: bool = True) -> Iterator[tuple[int, str]]:
    """(line, module) of every import; `deferred` ones, inside functions and for type checkers only, too."""
    todo: list[ast.AST] = [ast.parse(source)]
    while todo:
        node = todo.pop()
        if not deferred and (isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or for_types_only(node)):
            continue
        todo += ast.iter_child_nodes(node)
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.level or node.module == "gram":
                raise AssertionError(f"line {node.lineno}: name the module in full, as `from gram.data.log import …`")
            for alias in node.names:  # `from gram.training import stages` imports gram.training.stages
                module = f"{node.module}.{alias.name}"
                yield node.lineno, module if is_module(module) else str(node.module)


def for_types_only(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


def is_module(name: str) -> bool:
    inside = PACKAGE.joinpath(*name.split(".")[1:])
    return name.startswith("gram.") and (inside.with_suffix(".py").is_file() or inside.is_dir())


def imports_in(path: Path) -> list[tuple[int, str]]:
    """(line, module) of every import of the package's own modules."""
    found = imports_of(path.read_text(encoding="utf-8"))
    return [(line, name) for line, name in found if name.startswith("gram.")]


def circle_in(imports: Mapping[str, set[str]]) -> list[str]:
    """Modules that import each other in a ring, or nothing."""
    sound: set[str] = set()

    def walk(module: str, path: list[str]) -> list[str]:
        if module in path:
            return [*path[path.index(module) :], module]
        if module not in sound:
            for other in sorted(imports.get(module, ())):
                if found := walk(other, [*path, module]):
                    return found
            sound.add(module)
        return []

    return next((found for module in sorted(imports) if (found := walk(module, []))), [])


def test_every_module_has_a_room() -> None:
    assert {room_of(path) for path in MODULES} <= FLOOR.keys()
    assert len(FLOOR) == len(ROOMS)


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_arrows_point_only_upward(path: Path) -> None:
    room = room_of(path)
    down = [f"line {line}: {name}" for line, name in imports_in(path) if FLOOR[name.split(".")[1]] > FLOOR[room]]
    assert not down, f"{path.relative_to(PACKAGE)} imports from a lower room: {down}"


def test_no_modules_import_each_other_in_a_circle() -> None:
    imports = {name_of(path): {name for _, name in imports_in(path)} for path in MODULES}
    assert sum(map(len, imports.values())) > len(MODULES)
    assert not circle_in(imports), "also where an import inside a function keeps it from failing"


def test_a_circle_is_found_wherever_it_stands() -> None:
    assert circle_in({"a": {"b"}, "b": {"c", "d"}, "c": set(), "d": {"b"}}) == ["b", "d", "b"]
    assert circle_in({"a": {"a"}}) == ["a", "a"]
    assert circle_in({"a": {"b", "c"}, "b": {"c"}, "c": {"d"}}) == []


@pytest.mark.parametrize("path", [path for path in MODULES if not computes(path)], ids=name_of)
def test_what_does_not_compute_imports_no_torch(path: Path) -> None:
    """Neither itself nor through what it imports."""
    todo, seen = [path], {path}
    while todo:
        module = todo.pop()
        for line, name in imports_of(module.read_text(encoding="utf-8"), deferred=False):
            assert not name.startswith(TORCH), f"{module.relative_to(PACKAGE)}, line {line}"
            other = PACKAGE.joinpath(*name.split(".")[1:]).with_suffix(".py")
            if name.startswith("gram.") and other.is_file() and other not in seen:
                seen.add(other)
                todo.append(other)


def test_rivals_do_not_lean_on_what_they_are_compared_with() -> None:
    for path in MODULES:
        if room_of(path) == "baselines":
            assert not {name.split(".")[1] for _, name in imports_in(path)} & set(OURS), path.name


def test_imports_are_found_wherever_they_stand() -> None:
    source = "import torch\ndef f():\n    from gram.coder.beam import Start\n    import gram.cli as cli\n"
    assert sorted(imports_of(source)) == [(1, "torch"), (3, "gram.coder.beam"), (4, "gram.cli")]
    assert list(imports_of(source, deferred=False)) == [(1, "torch")]
    typed = "if TYPE_CHECKING:\n    import torch\n"
    assert (list(imports_of(typed)), list(imports_of(typed, deferred=False))) == ([(2, "torch")], [])
    assert list(imports_of("from gram.training import stages")) == [(1, "gram.training.stages")]
