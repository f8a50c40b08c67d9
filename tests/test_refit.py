"""The scorer fitted to a shop's own queries: it learns what they say, and leaves alone what only chance says."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import gram.bench.refit
from gram.bench.refit import read_judged, refit, write_scorer
from gram.errors import SettingError
from gram.folders import check_folder, new_folder, write_json
from gram.ranking.candidates import Candidates
from gram.ranking.features import NAMES
from gram.ranking.scorer import Scorer

N, BM25, MAXSIM = 30, NAMES.index("bm25"), NAMES.index("maxsim")


def shop(n_queries: int, telling: float, monkeypatch: pytest.MonkeyPatch, seed: int = 0) -> tuple[Any, Any, Any]:
    """A searcher over N products, of which each query has one relevant; BM25 tells it so clearly, maxsim is noise."""
    rng = np.random.default_rng(seed)
    found, qrels = [], {}
    for q in range(n_queries):
        features = np.zeros((N, len(NAMES)), dtype=np.float32)
        features[:, BM25] = rng.normal(size=N)
        features[:, MAXSIM] = rng.normal(size=N)
        relevant = int(rng.integers(N))
        features[relevant, BM25] += telling
        found.append(Candidates(np.arange(N), features))
        qrels[f"q{q}"] = {f"p{relevant}": 1.0}
    weights = np.zeros(len(NAMES), dtype=np.float32)
    weights[[BM25, MAXSIM]] = 0.5, 2.0
    searcher = SimpleNamespace(
        index=SimpleNamespace(table=SimpleNamespace(ids=np.array([f"p{i}" for i in range(N)]))),
        represent=lambda queries, compound: list(range(len(queries))),
        scorer=Scorer(weights, weights),
    )
    monkeypatch.setattr(gram.bench.refit, "find_candidates", lambda index, query, *_: found[query])
    return searcher, {q: q for q in qrels}, qrels


def test_weights_move_to_what_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    made = refit(*shop(60, telling=3.0, monkeypatch=monkeypatch))
    assert made.better
    assert made.p < 0.05
    assert made.after["nDCG@10"] > made.before["nDCG@10"] + 0.1
    ratio = made.scorer.weights[BM25] / max(made.scorer.weights[MAXSIM], 1e-6)
    assert ratio > 1, "it was a quarter before"


def test_chance_moves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    moved = []
    for seed in range(6):
        searcher, queries, qrels = shop(40, telling=0.0, monkeypatch=monkeypatch, seed=seed)
        made = refit(searcher, queries, qrels)
        moved.append(made.better)
        assert made.better or made.scorer is searcher.scorer
    assert sum(moved) <= 1


def test_too_few_queries_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingError, match=r"29 queries have a relevant product.*takes 30"):
        refit(*shop(29, telling=3.0, monkeypatch=monkeypatch))


def test_a_log_of_clicks_is_read_as_judgements(tmp_path: Path) -> None:
    (tmp_path / "log.tsv").write_text("query\tproduct_id\nred sofa\tp1\nred sofa\tp2\nlamp\tp1\n")
    queries, qrels = read_judged(tmp_path / "log.tsv", None, ["p1", "p2"])
    assert {queries[q]: set(row) for q, row in qrels.items()} == {"red sofa": {"p1", "p2"}, "lamp": {"p1"}}


def test_a_model_gets_another_scorer_whole(tmp_path: Path) -> None:
    with new_folder(tmp_path / "model", marker="lexicon.jsonl") as folder:
        (folder / "lexicon.jsonl").write_text("{}\n")
        write_json(folder / "config.json", {"scorer": {}, "format_version": 3})
        Scorer.default().save(folder)
    weights = np.full(len(NAMES), 0.25, dtype=np.float32)
    write_scorer(tmp_path / "model", Scorer(weights, weights))
    check_folder(tmp_path / "model", "train again")
    assert Scorer.load(tmp_path / "model").weights.tolist() == weights.tolist()
    assert (tmp_path / "model" / "lexicon.jsonl").read_text() == "{}\n"
