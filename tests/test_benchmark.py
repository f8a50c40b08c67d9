"""The benchmark's folder: what is made, what is kept, what is refused, and its figures against hand-worked ones."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

import gram.bench.benchmark as benchmark
import gram.indexing
import gram.training.pipeline
import gram.training.stages
from gram.arrays import SparseRow
from gram.baselines.base import TrainingData
from gram.bench.ablation import VARIANTS
from gram.bench.benchmark import measure_run
from gram.bench.cuts import by_training, misspelt_queries, query_cuts
from gram.bench.latency import latency, measure
from gram.bench.report import beside, results_of
from gram.bench.rows import ENTRANTS, select_entrants
from gram.bench.sources import Sources, dev_part, read_sources
from gram.bench.variants import Gram, train_gram
from gram.bench.workshop import Options, Shop, open_workshop, read_shop
from gram.cli import main
from gram.coder.encoder.backbone import Backbone, ScratchSettings, scratch_backbone
from gram.data.catalogue import read_products
from gram.data.shop.generate import generate
from gram.errors import DataError, SettingError
from gram.folders import read_json, write_json
from gram.ranking.features import NAMES, columns, other_groups
from gram.records import Interaction, Product

TINY = ScratchSettings(width=24, layers=1, heads=2, vocabulary=600)


def small_backbone(name: str, texts: list[str], scratch: ScratchSettings) -> Backbone:
    return scratch_backbone(texts, TINY)


CONTROLS = {  # the groups of features that each weighs
    "everything-but-codes": {"vectors", "words", "tokens", "value"},
    "all-but-codes": {"vectors", "words", "tokens", "value"},
    "codes-and-words": {"codes", "words"},
    "codes-alone": {"codes"},
}


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shop")
    generate(products=90, interactions=400, queries=90, seed=4).write(folder)
    return folder


def sources(shop: Path, **changed: Any) -> Sources:
    files = (shop / "products.jsonl.gz", str(shop / "log.tsv"), shop / "test.queries.tsv", shop / "test.qrels.tsv")
    return replace(Sources(*files), **changed)


def bench(shop: Path, output: Path, *options: str, log: str = "") -> Result:
    files = [shop / "products.jsonl.gz", log or shop / "log.tsv", shop / "test.queries.tsv", shop / "test.qrels.tsv"]
    return CliRunner().invoke(main, ["bench", *map(str, files), "-o", str(output), "--model", "scratch", *options])


@pytest.fixture
def _in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiny networks, and no process of its own for times."""
    monkeypatch.setattr(gram.training.stages, "load_backbone", small_backbone)
    monkeypatch.setattr(benchmark, "latency", measure)


@pytest.fixture(scope="module")
def made(shop: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A benchmark of BM25, GRAM, its controls and its ablation."""
    output = tmp_path_factory.mktemp("bench") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gram.training.stages, "load_backbone", small_backbone)
        patch.setattr(benchmark, "latency", measure)
        result = bench(
            shop, output, "--quick", "--only", f"bm25,bm25+speller,bm25-titles,{','.join(CONTROLS)},ablation"
        )
    assert result.exit_code == 0, f"{result.output}\n{result.exception!r}"
    assert f"table: {output / 'table.md'}" in result.stdout
    return output


def test_the_folder_holds_tables_runs_figures_and_plots(made: Path) -> None:
    found = {str(path.relative_to(made)) for path in made.rglob("*") if path.is_file()}
    plots = {f"plots/{name}.{suffix}" for name in ("recall", "latency") for suffix in ("png", "svg")}
    rows = {f"{kind}/{name}" for name in ("bm25", "gram") for kind in ("figures", "times")}
    runs = {f"runs/{name}{kind}.trec" for name in ("bm25", "gram") for kind in ("", ".misspelt")}
    assert plots | runs | {f"{row}.json" for row in rows} | {"table.md", "results.json", "bench.json"} <= found


def test_the_table_has_every_engine_and_every_part(made: Path) -> None:
    text = (made / "table.md").read_text(encoding="utf-8")
    assert f"    {read_json(made / 'bench.json')['commands'][0]}\n" in text
    for heading in ("## Cost", "## Groups of queries", "no training interaction", "## Misspelt", "## What each part"):
        assert heading in text
    assert text.count("| gram |") == text.count("| bm25 |") == text.count("| codes-alone |") == 8
    assert "cut short by `--quick`" in text


def test_results_tell_means_significance_and_costs(made: Path) -> None:
    results = read_json(made / "results.json")
    assert list(results["all"]) == ["bm25", "bm25+speller", "bm25-titles", "gram", *CONTROLS]
    assert results["all"]["gram"]["R@100"]["p"] is None
    assert 0 <= results["all"]["bm25"]["R@100"]["p"] <= 1
    assert 0 < results["all"]["bm25"]["R@100"]["mean"] <= 1
    for engine in results["engines"].values():
        assert min(engine[k] for k in ("p50_ms", "p99_ms", "queries_per_second", "index_bytes")) > 0
    assert {"head", "tail", "numbers"} <= results["cuts"].keys()
    assert {row["way"] for row in results["ablation"]} == {
        "as trained", "weight 0", "trained", "default weights", "refitted",
    }  # fmt: skip
    assert {v.name for v in VARIANTS if v.training} <= {row["name"] for row in results["ablation"]}


def test_circumstances_are_kept(made: Path) -> None:
    told = read_json(made / "bench.json")
    assert [command.split()[0] for command in told["commands"]] == ["gram"]
    assert {"torch", "numpy", "gram"} <= told["versions"].keys()
    assert all(len(digest) == 64 for digest in told["data"].values())
    assert read_json(made / "figures" / "gram.json")["device"].startswith("cpu, ")
    assert told["settings"] == {"model": "scratch", "seed": 0, "steps": 0, "quick": True}


@pytest.mark.usefixtures("_in_this_process")
def test_what_is_there_is_not_made_again(made: Path, shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {p: p.stat().st_mtime_ns for kind in ("figures", "runs", "engines") for p in (made / kind).rglob("*")}
    monkeypatch.setattr(benchmark, "measure_run", None)  # what measures would fail
    (made / "table.md").unlink()
    result = bench(shop, made, "--quick", "--only", "bm25")
    assert result.exit_code == 0, result.output
    assert {p: p.stat().st_mtime_ns for p in before} == before
    assert "| gram |" in (made / "table.md").read_text(encoding="utf-8")  # rows made before stay


def test_other_settings_or_data_are_refused(made: Path, shop: Path) -> None:
    for options, what in ((["--quick", "--seed", "5"], r"settings \(seed\)"), ([], r"settings \(quick\)")):
        result = bench(shop, made, "--only", "bm25", *options)
        assert result.exit_code == 2
        assert "was begun with other " + what.replace("\\", "") in result.stderr
        assert "Fix: name another folder" in result.stderr
    result = bench(shop, made, "--quick", "--only", "bm25", log="none")
    assert "was begun with other data (log)" in result.stderr


def test_a_stopped_engine_goes_on_where_it_was(shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(folder: Path, name: str) -> dict[str, float]:
        raise SettingError("the power went")

    monkeypatch.setattr(benchmark, "latency", stopped)
    assert "the power went" in bench(shop, tmp_path / "out", "--quick", "--only", "bm25").stderr
    run = (tmp_path / "out" / "runs" / "bm25.trec").stat().st_mtime_ns
    monkeypatch.setattr(benchmark, "latency", latency)  # in a process of its own, as outside of tests
    assert bench(shop, tmp_path / "out", "--quick", "--only", "bm25").exit_code == 0
    assert (tmp_path / "out" / "runs" / "bm25.trec").stat().st_mtime_ns == run
    assert read_json(tmp_path / "out" / "figures" / "bm25.json")["latency"]["p50_ms"] > 0


def test_a_folder_of_a_refused_benchmark_may_be_used_again(shop: Path, tmp_path: Path) -> None:
    (tmp_path / "qrels.tsv").write_text("q1\tnobody\t2\n", encoding="utf-8")
    output, options = tmp_path / "out", Options()
    with pytest.raises(DataError, match="no query has a relevant product"):
        benchmark.run(sources(shop, qrels=tmp_path / "qrels.tsv"), output, options, ["bm25"], "gram bench")
    assert benchmark.begin(output, sources(shop).hashes(), options)["data"] == sources(shop).hashes()


@pytest.mark.usefixtures("_in_this_process")
def test_without_a_log_settings_are_untuned(shop: Path, tmp_path: Path) -> None:
    result = bench(shop, tmp_path / "out", "--quick", "--only", "bm25", log="none")
    assert result.exit_code == 0, f"{result.output}\n{result.exception!r}"
    assert read_json(tmp_path / "out" / "engines" / "bm25" / "meta.json")["k1"] == 1.2
    results = read_json(tmp_path / "out" / "results.json")
    assert "head" not in results["cuts"]
    assert results["products"]["seen"]["queries"] == 0


def test_what_cannot_be_is_refused_before_anything_is_made(shop: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    assert "no engine is called 'bm52'. Fix: choose from bm25" in bench(shop, output, "--only", "bm52").stderr
    assert "give --splade-model" in bench(shop, output, "--only", "splade-init").stderr
    assert "give both --dev-queries" in bench(shop, output, "--dev-queries", str(shop / "dev.queries.tsv")).stderr
    assert "gone.tsv" in bench(shop, output, "--only", "bm25", log=str(shop / "gone.tsv")).stderr
    assert not output.exists()
    assert "pretrained weights" in bench(shop, output, "--quick", "--only", "dense").stderr
    assert "no benchmark's folder" in bench(shop, shop, "--only", "bm25").stderr


def test_engines_stand_after_those_they_need() -> None:
    names = list(ENTRANTS)
    assert all(names.index(need) < i for i, entrant in enumerate(ENTRANTS.values()) for need in entrant.needs)
    chosen = [entrant.name for entrant in select_entrants(["bm25+dense-rrf", "codes-alone"], Options())]
    assert chosen == ["bm25", "dense", "bm25+dense-rrf", "gram", "codes-alone"]
    assert "splade-init" in [entrant.name for entrant in select_entrants([], Options(splade_model="x"))]
    assert set(CONTROLS) <= {
        entrant.name for entrant in select_entrants([], Options())
    }  # in the table of every benchmark


def test_a_group_alone_goes_without_all_others() -> None:
    assert other_groups(("codes",)) == ("vectors", "words", "tokens", "value")
    assert other_groups(("codes", "words")) == ("vectors", "tokens", "value")


@pytest.mark.parametrize(("name", "groups"), CONTROLS.items())
def test_a_control_finds_and_scores_by_its_own_features_alone(made: Path, name: str, groups: set[str]) -> None:
    engine = open_workshop(made, ENTRANTS)[0].engine(name)
    assert isinstance(engine, Gram)
    scorer, others = engine.searcher.scorer, ~columns(tuple(groups))
    assert not scorer.weights[others].any()
    assert not scorer.first_phase[others].any()
    assert scorer.weights.any()
    features = np.zeros((1, len(NAMES)), np.float32)
    features[:, others] = 9.0
    assert scorer.score(features) == scorer.score(np.zeros_like(features))


def test_codes_alone_find_nothing_where_no_code_is_shared(made: Path) -> None:
    shop, queries = open_workshop(made, ENTRANTS)
    nothing = SparseRow(np.zeros(0, np.int64), np.zeros(0, np.float32))
    for name, finds in (("gram", True), ("codes-and-words", True), ("codes-alone", False)):
        engine = shop.engine(name)
        assert isinstance(engine, Gram)
        (query,) = engine.searcher.represent([next(iter(queries.values()))])
        assert engine.searcher.rank(query, 10)
        without = query._replace(lexical=nothing, expansion=nothing, compound=nothing)
        assert bool(engine.searcher.rank(without, 10)) == finds


def test_an_index_without_features_is_without_their_files(made: Path) -> None:
    shop, _ = open_workshop(made, ENTRANTS)
    size = {name: shop.engine(name).index_bytes for name in ("gram", "codes-and-words", "codes-alone")}
    files = {file.name: file.stat().st_size for file in (made / "engines" / "gram" / "index").iterdir()}

    def of(*starts: str) -> int:
        return sum(size for name, size in files.items() if name.split(".")[0] in starts)

    assert size["gram"] - size["codes-and-words"] == of("dense", "sketch", "token_vectors") > 0
    assert size["codes-and-words"] - size["codes-alone"] == of("bm25", "titles") > 0


def test_everything_but_codes_is_trained_without_them(made: Path) -> None:
    config = read_json(made / "engines" / "everything-but-codes" / "model" / "config.json")
    assert config["settings"]["training"]["code_losses"] is False
    assert config["settings"]["without"] == ["codes"]
    record = made / "engines" / "everything-but-codes" / "model" / "training.jsonl"
    rows = [json.loads(line) for line in record.read_text(encoding="utf-8").splitlines()]
    assert {row["stage"] for row in rows} == {"joint"}
    assert not any("contrastive_codes" in row or "query" in row for row in rows)


def test_dev_queries_are_kept_from_all_engines(shop: Path) -> None:
    log = [Interaction(f"query {i}", f"p{i % 7}", 1.0) for i in range(200)]
    dev, rest = dev_part(log, seed=1)
    assert len(dev.queries) == 20
    assert dev.qrels.keys() == dev.queries.keys()
    assert not {i.query for i in rest} & set(dev.queries.values())
    assert len(rest) == 180
    assert dev_part(log[:40], seed=1) == (({}, {}), log[:40])
    data = read_sources(sources(shop), seed=0)
    assert not {i.query for i in data.log} & set(data.parts["dev"].queries.values())
    logged = data.log[0].query
    queries, qrels = shop / "given.queries.tsv", shop / "given.qrels.tsv"
    queries.write_text(f"query_id\tquery\nq1\t{logged}\n", encoding="utf-8")
    qrels.write_text(f"q1\t{data.products[0].product_id}\t2\n", encoding="utf-8")
    given = read_sources(sources(shop, dev_queries=queries, dev_qrels=qrels), seed=0)
    assert logged not in {i.query for i in given.log}


def test_judgements_of_another_catalogue_are_refused(shop: Path, tmp_path: Path) -> None:
    wrong = tmp_path / "qrels.tsv"
    wrong.write_text("q1\tnobody\t2\n", encoding="utf-8")
    with pytest.raises(DataError, match="no query has a relevant product"):
        read_sources(sources(shop, qrels=wrong), seed=0)


SHELF = [Product("a", "Red Shoe", "Velanto"), Product("b", "Blue Hat"), Product("c", "Sofa")]
LOG = [Interaction("red shoe", "a"), Interaction("red hat", "b"), Interaction("red", "a")]
QUERIES = {"1": "red hat", "2": "couch", "3": "velanto 12", "4": "nothing"}
QRELS = {"1": {"b": 2.0, "a": 1.0}, "2": {"c": 2.0}, "3": {"a": 3.0, "c": 2.0}, "4": {"a": 0.0}}


def test_cuts_by_hand() -> None:
    cuts = query_cuts(SHELF, LOG, QUERIES, QRELS)
    assert cuts["head"] == ["1"]  # "hat" is in one logged query, "couch" and "velanto" in none
    assert cuts["tail"] == ["3"]  # equal demand: by id
    assert cuts["no common word (title)"] == ["2", "3"]
    assert cuts["no common word (any field)"] == ["2"]
    assert cuts["numbers"] == ["3"]
    assert by_training(QRELS, LOG) == {
        "seen": {"1": {"b": 2.0}, "3": {"a": 3.0}},
        "unseen": {"2": {"c": 2.0}, "3": {"c": 2.0}},
    }


def test_a_querys_typo_is_its_own() -> None:
    one = misspelt_queries(QUERIES, 7)
    assert one.keys() == {"2", "3", "4"}  # no word of "red hat" is long enough
    assert misspelt_queries({"2": "couch"}, 7)["2"] == one["2"] != "couch"
    assert any(misspelt_queries(QUERIES, seed) != one for seed in range(5))


def test_judgements_of_queries_that_are_not_asked_are_left_out(
    shop: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    product = read_products(shop / "products.jsonl.gz")[0].product_id
    (tmp_path / "queries.tsv").write_text("query_id\tquery\nq1\tshoe\n", encoding="utf-8")
    (tmp_path / "qrels.tsv").write_text(f"q1\t{product}\t2\nq2\t{product}\t2\nq1\tgone\t2\n", encoding="utf-8")
    with caplog.at_level("WARNING"):
        data = read_sources(sources(shop, queries=tmp_path / "queries.tsv", qrels=tmp_path / "qrels.tsv"), seed=0)
    assert data.parts["test"].qrels == {"q1": {product: 2.0}}
    assert "1 judged queries are not in" in caplog.text
    assert "1 judgements name products that the catalogue lacks" in caplog.text


def test_figures_of_a_run_by_hand(shop: Path) -> None:
    data = TrainingData(SHELF, LOG, {}, {})
    run = {"1": {"a": 2.0, "b": 1.0}, "3": {"a": 1.0}}
    wrong = {"3": {"c": 1.0}}
    figures = measure_run(run, wrong, Shop(data, QUERIES, QRELS), seed=7)
    assert figures["mean"]["R@10"] == pytest.approx((1 + 0 + 0.5) / 3)
    assert figures["per_query"]["relevance"] == {"1": 0.5, "3": 1.0}
    assert figures["seen"]["R@100"] == {"1": 1.0, "3": 1.0}
    assert figures["unseen"]["R@100"] == {"2": 0.0, "3": 0.0}
    assert figures["misspelt"]["R@100"] == {"2": 0.0, "3": 0.5}


def test_markers_say_which_side_is_better() -> None:
    many = {str(i): 1.0 for i in range(12)}
    none = dict.fromkeys(many, 0.0)
    rows = beside({"gram": {"RR": none}, "good": {"RR": many}, "same": {"RR": none}}, ["RR"])
    assert [rows[name]["RR"]["marker"] for name in ("gram", "good", "same")] == ["", "+", ""]
    assert rows["good"]["RR"]["p"] < 0.001 < rows["same"]["RR"]["p"] == 1.0
    assert beside({"gram": {"RR": many}, "bad": {"RR": none}}, ["RR"])["bad"]["RR"]["marker"] == "-"


def test_a_shop_reads_back_as_it_was_written(shop: Path, tmp_path: Path) -> None:
    data = read_sources(sources(shop), seed=0)
    data.write(tmp_path)
    again = read_shop(tmp_path)
    assert list(again.data.products) == data.products
    assert list(again.data.log) == data.log
    assert again.queries == data.parts["test"].queries


def test_a_report_of_nothing_is_empty(tmp_path: Path) -> None:
    results = results_of({}, [], {"head": []})
    assert results["all"] == results["engines"] == {}
    write_json(tmp_path / "results.json", results)


def test_plots_need_their_extra_before_anything_is_made(
    shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert "[bench]" in bench(shop, tmp_path / "out", "--only", "bm25").stderr
    assert not (tmp_path / "out").exists()


def test_training_that_was_stopped_is_taken_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = TrainingData([Product("a", "Red shoes")], [], {}, {})
    resumed, indexed = [], []
    monkeypatch.setattr(gram.training.pipeline, "train", lambda *_, resume, **__: resumed.append(resume))
    monkeypatch.setattr(gram.indexing, "make_index", lambda *_: indexed.append(True))
    train_gram(tmp_path, data, Options())
    (tmp_path / "model.work").mkdir()
    train_gram(tmp_path, data, Options())
    assert resumed == [False, True]
    (tmp_path / "model").mkdir()
    write_json(tmp_path / "model" / "config.json", {})  # stopped while it was indexed
    train_gram(tmp_path, data, Options())
    assert resumed == [False, True]
    assert len(indexed) == 3
