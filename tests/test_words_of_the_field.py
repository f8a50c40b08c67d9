"""The package speaks the field's words: no identifier holds a word that was retired for one of them."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import gram

PACKAGE = Path(gram.__file__).parent

RETIRED = {
    "own": "lexical", "held": "lexical", "copied": "lexical",
    "written": "expansion", "generated": "expansion, learnt",
    "deep": "compound",
    "evidence": "features", "kinds": "features, groups",
    "meet": "contrastive", "meeting": "contrastive",
    "wanted": "relevant, clicked", "linked": "clicked", "asked": "mention_rate",
    "coded": "represented, representations",
    "place": "row, position", "places": "rows, positions",
    "alike": "prf_title", "covered": "idf_coverage", "contradicted": "measure_conflict", "adjacent": "bigram_proximity",
    "piece": "token", "pieces": "tokens, token_vectors",
    "random": "rng",
}  # fmt: skip
"""Each retired word, and what is said instead."""

EXCEPTIONS = {
    ("held", "out"): "of interactions: kept from training, as the field says",
    ("word", "piece"): "how BERT cuts words, as the tokenizers library calls it",
    ("random", "state"): "a parameter of SciPy and scikit-learn",
    ("random", "seed"): "a parameter of hnswlib",
}
"""Words that hold a retired one and stay, each with its reason. `random` alone stays where a library is called so."""

PARTS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")


def words_of(identifier: str) -> list[str]:
    """The identifier's words, in small letters, split at underscores, digits and capitals."""
    return [part.lower() for part in PARTS.findall(identifier)]


def identifiers_in(source: str) -> Iterator[tuple[int, str, bool]]:
    """(line, identifier, whether it is given a meaning here) of every name, argument, attribute and keyword."""
    for node in ast.walk(ast.parse(source)):
        line = getattr(node, "lineno", 0)
        if isinstance(node, ast.Name):
            yield line, node.id, isinstance(node.ctx, ast.Store)
        elif isinstance(node, ast.Attribute):
            yield line, node.attr, isinstance(node.ctx, ast.Store)
        elif isinstance(node, ast.arg):
            yield line, node.arg, True
        elif isinstance(node, ast.keyword) and node.arg:
            yield node.value.lineno, node.arg, False
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield line, node.name, True
        elif isinstance(node, ast.alias):
            yield line, node.asname or node.name.split(".")[0], node.asname is not None
        elif isinstance(node, ast.ExceptHandler | ast.MatchAs | ast.MatchStar) and node.name:
            yield line, node.name, True
        elif isinstance(node, ast.Global | ast.Nonlocal):
            yield from ((line, name, False) for name in node.names)


def retired_in(source: str) -> list[str]:
    """What is to be renamed: `line: identifier (what is said instead)`."""
    found = set()
    for line, identifier, given in identifiers_in(source):
        if identifier == "random" and not given:
            continue
        words = words_of(identifier)
        for i in reversed(range(len(words) - 1)):
            if tuple(words[i : i + 2]) in EXCEPTIONS:
                del words[i : i + 2]
        found |= {(line, identifier, RETIRED[word]) for word in words if word in RETIRED}
    return [f"line {line}: {identifier} (say {instead})" for line, identifier, instead in sorted(found)]


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_identifier_speaks_a_retired_word(path: Path) -> None:
    found = retired_in(path.read_text(encoding="utf-8"))
    if found:
        pytest.fail(f"{path.relative_to(PACKAGE)}: {'; '.join(found)}", pytrace=False)


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("written = 1", ["line 1: written (say expansion, learnt)"]),
        ("def f(n_generated): pass", ["n_generated"]),
        ("class WordPieces: pass", ["WordPieces"]),
        ("x.own_own", ["own_own"]),
        ("f(wanted=1)", ["wanted"]),
        ("for place in x: pass", ["place"]),
        ("MAX_GENERATED = 3", ["MAX_GENERATED"]),
        ("import x as meeting", ["meeting"]),
        ("def f(random): pass", ["random"]),
        ("random = x", ["random"]),
        ("rng = np.random.default_rng(0); rng.random(3); import random", []),
        ("held_out = 1; HELD_OUT = 2; n_held_out = 3; f(random_state=0); WordPieceTrainer()", []),
        ("withheld = 1; known = owner = placed = replace = generate = linkedin = 2", []),
    ],
)
def test_retired_words_are_found_wherever_they_stand(source: str, told: list[str]) -> None:
    found = retired_in(source)
    assert len(found) == len(told)
    for one, identifier in zip(found, told, strict=True):
        assert identifier.split(" (")[0] in one


def test_words_of_an_identifier() -> None:
    assert words_of("own_ownBM25Index_ofHTTPPieces2") == [
        "own",
        "own",
        "bm",
        "25",
        "index",
        "of",
        "http",
        "pieces",
        "2",
    ]
