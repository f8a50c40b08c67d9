"""The table of many shops: what stands in it, what is read back and what is refused; a summary worked out by hand."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path
from types import ModuleType

import pytest
from click.testing import CliRunner, Result
from test_benchmark import small_backbone
from tiny_bert import tiny_bert

import gram.bench.benchmark as benchmark
import gram.bench.shops as shops
import gram.training.stages
from gram.bench.shops import find_shops, read_logs, rows_of
from gram.bench.shops_report import markdown, summaries_of
from gram.bench.sources import read_sources
from gram.bench.workshop import Options
from gram.cli import main
from gram.data.dataset import draw_queries
from gram.data.log import read_log
from gram.data.shop.generate import generate
from gram.errors import DataError, SettingError
from gram.evaluation.measures import evaluate, read_run
from gram.folders import read_json
from gram.ranking.scorer import Scorer
from gram.records import Interaction

LOG = [Interaction(f"query {n % 50}", f"p{n % 7}") for n in range(300)]


def bench(folder: Path, output: Path, *options: str) -> Result:
    return CliRunner().invoke(main, ["bench", "--shops", str(folder), "-o", str(output), *options])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A shop with all files, one with neither log nor dev part, and a folder that is no shop."""
    folder = tmp_path_factory.mktemp("shops")
    for name, seed in (("east", 4), ("west", 5)):
        generate(products=60, interactions=600, queries=120, seed=seed).write(folder / name)
    for file in ("log.tsv", "dev.queries.tsv", "dev.qrels.tsv"):
        (folder / "west" / file).unlink()
    (folder / "west" / "test.queries.tsv").rename(folder / "west" / "queries.tsv")
    (folder / "notes").mkdir()
    (folder / "notes" / "readme.txt").write_text("nothing of a shop", encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def encoder(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    words = {word for line in (folder / "east" / "log.tsv").read_text().lower().split("\n") for word in line.split()}
    return tiny_bert(tmp_path_factory.mktemp("bert"), sorted(words))


@pytest.fixture(scope="module")
def made(folder: Path, encoder: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The table of both shops, stopped once in its second cell."""
    output = tmp_path_factory.mktemp("bench") / "out"
    options = ("--logs", "none,whole", "--steps", "2", "--model", encoder)

    def stopped(*_: object) -> Path:
        raise SettingError("the power went")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gram.training.stages, "load_backbone", small_backbone)
        assert bench(folder, output, *options, "--only", "east", "--logs", "none").exit_code == 0
        patch.setattr(shops, "search_queries", stopped)
        assert "the power went" in bench(folder, output, *options).stderr
        patch.undo()
        patch.setattr(gram.training.stages, "load_backbone", small_backbone)
        result = bench(folder, output, *options)
    assert result.exit_code == 0, f"{result.output}\n{result.exception!r}"
    assert f"table: {output / 'table.md'}" in result.stdout
    return output


def test_every_cell_has_every_engine(made: Path) -> None:
    results = read_json(made / "results.json")
    assert [(cell["shop"], cell["log"]) for cell in results["cells"]] == [
        ("east", "whole"), ("east", "none"), ("west", "none"),
    ]  # fmt: skip
    for cell in results["cells"]:
        assert list(cell["engines"]) == [
            "bm25", "bm25+dense-published-weighted", "gram", "all-but-codes", "codes-and-words", "codes-alone",
        ]  # fmt: skip
        assert cell["engines"]["gram"]["R@10"]["p"] is None
        assert 0 <= cell["engines"]["bm25"]["nDCG@10"]["p"] <= 1
    assert list(results["summary"]) == ["all", "whole", "none"]
    assert results["summary"]["all"]["cells"] == 3


def test_figures_are_those_of_the_runs(made: Path) -> None:
    (cell,) = [
        one for one in read_json(made / "results.json")["cells"] if (one["shop"], one["log"]) == ("east", "none")
    ]
    data = benchmark.read_shop(made / "east" / "none" / "data")
    for name, row in cell["engines"].items():
        run = read_run(made / "east" / "none" / "runs" / f"{name}.trec")
        assert row["R@10"]["mean"] == pytest.approx(evaluate(data.qrels, run, ("R@10",)).mean["R@10"])
    assert cell["interactions"] == 0
    assert cell["dev_queries"] == len(data.data.dev_queries) > 0


def test_the_table_tells_how_it_came_about(made: Path) -> None:
    text = (made / "table.md").read_text(encoding="utf-8")
    assert "| east | none | bm25 | ." in text
    assert text.count("| codes-alone | .") == 3 + 3  # cells, and the summary of all, none and whole
    assert "| all (3) | bm25 |" in text
    assert "| west | none | 60 | 0 | 0 |" in text
    assert "Shops without a log of their own, so with no other cell: west." in text
    commands = read_json(made / "bench.json")["commands"]
    assert all(f"    {command}\n" in text for command in commands)


def test_without_a_log_gram_has_the_declared_weights(made: Path) -> None:
    cells = {(cell["shop"], cell["log"]): cell["fitted"] for cell in read_json(made / "results.json")["cells"]}
    assert cells == {("east", "none"): False, ("east", "whole"): True, ("west", "none"): False}
    engines = made / "east" / "none" / "engines"
    assert Scorer.load(engines / "gram" / "model").by_name() == Scorer.default().by_name()
    assert Scorer.load(engines / "codes-alone").by_name() == Scorer.default(("codes",)).by_name()


def test_published_weights_stay_as_they_are(made: Path) -> None:
    settings = read_json(made / "east" / "whole" / "engines" / "dense-published" / "meta.json")["settings"]
    assert settings["best_step"] == 0
    assert "steps" not in settings


def test_a_cell_that_is_done_is_read_back(
    made: Path, folder: Path, encoder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (made / "table.md").read_text(encoding="utf-8")
    monkeypatch.setattr(shops, "open_shop", None)  # what reads a shop would fail
    (made / "table.md").unlink()
    result = bench(folder, made, "--only", "west", "--logs", "none", "--steps", "2", "--model", encoder)
    assert result.exit_code == 0, f"{result.output}\n{result.exception!r}"
    assert (made / "table.md").read_text(encoding="utf-8") == before  # cells made before stay


def test_other_settings_or_data_are_refused(made: Path, folder: Path, encoder: str, tmp_path: Path) -> None:
    refused = bench(folder, made, "--logs", "1/20", "--steps", "3", "--model", encoder)
    assert f"{made} was begun with other settings (steps)" in refused.stderr
    shutil.copytree(folder / "west", tmp_path / "east")
    refused = bench(tmp_path, made, "--logs", "none", "--steps", "2", "--model", encoder)
    assert f"{made / 'east' / 'none'} was begun with other data" in refused.stderr


def test_weights_can_be_fitted_from_what_is_left(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script = load_script("shops")
    (files,) = script.find(made)
    assert files.name == "east"
    assert "west: no dev queries" in capsys.readouterr().out
    shop = script.load(files, ["codes"])
    dev = read_json(made / "east" / "none" / "cell.json")["dev_queries"]
    assert 0 < len(shop.ids) <= dev
    again = script.load(files, ["codes"])  # read back
    assert again.measure([Scorer.default(["codes"])] * len(again.ids)).mean == shop.measure(
        [Scorer.default(["codes"])] * len(shop.ids)
    ).mean  # fmt: skip


def load_script(name: str) -> ModuleType:
    path = Path(__file__).parents[1] / "scripts" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(("share", "queries"), [(1.0, 50), (0.5, 25), (1 / 20, 3), (0.01, 1), (0.0, 0)])
def test_a_share_of_the_log_is_drawn_by_query(share: float, queries: int) -> None:
    kept = draw_queries(LOG, share)
    chosen = {i.query for i in kept}
    assert len(chosen) == queries
    assert abs(len(chosen) - share * 50) < 1
    assert kept == [i for i in LOG if i.query in chosen]  # all that was clicked for a query, in the log's order
    assert {i.query for i in draw_queries(LOG[::-1], share)} == chosen
    assert chosen <= {i.query for i in draw_queries(LOG, min(1.0, share + 0.1))}


def test_the_same_queries_are_drawn_each_time() -> None:
    assert {i.query for i in draw_queries(LOG, 1 / 20)} == {"query 0", "query 10", "query 39"}


def test_a_shop_without_a_dev_part_takes_it_from_its_log(folder: Path, tmp_path: Path) -> None:
    shop = tmp_path / "shop"
    shutil.copytree(folder / "east", shop)
    for file in ("dev.queries.tsv", "dev.qrels.tsv"):
        (shop / file).unlink()
    (found,) = find_shops(tmp_path)
    whole, part, none = (read_sources(found.sources(share, 0.05), seed=0) for share in (1.0, 0.05, 0.0))
    ids = {product.product_id for product in whole.products}
    logged = {i.query for i in read_log(shop / "log.tsv", ids)}
    assert set(none.parts["dev"].queries.values()) == logged  # nothing of the log is trained on: all may choose
    assert none.log == []
    assert part.parts["dev"] == whole.parts["dev"]
    assert not {i.query for i in part.log} & set(part.parts["dev"].queries.values())
    kept, all_ = ({i.query for i in data.log} for data in (part, whole))
    assert kept < all_
    assert abs(len(kept) - len(all_) / 20) < 1


@pytest.mark.parametrize(
    ("files", "problem"),
    [
        (["products.csv", "queries.tsv"], r"shop: holds no qrels\. Fix: put test\.qrels\.tsv or qrels\.tsv there"),
        (["products.csv", "qrels.tsv"], r"shop: holds no queries\."),
        (["test.queries.tsv", "qrels.tsv"], r"holds no products\. Fix: put products\.jsonl\.gz or catalogue"),
        (["products.csv", "queries.tsv", "qrels.tsv", "dev.qrels.tsv"], r"half a dev part: no dev\.queries\."),
        (["products.csv", "products.jsonl", "queries.tsv", "qrels.tsv"], r"holds products\.csv and products\.jsonl\."),
        (["readme.txt"], r"holds no shop\. Fix: give each shop a folder"),
    ],
)
def test_what_a_shop_lacks_is_told(tmp_path: Path, files: list[str], problem: str) -> None:
    (tmp_path / "shop").mkdir()
    for file in files:
        (tmp_path / "shop" / file).touch()
    with pytest.raises(DataError, match=problem):
        find_shops(tmp_path)


def test_a_file_goes_by_several_names(tmp_path: Path) -> None:
    shop = tmp_path / "shop"
    shop.mkdir()
    for file in ("products.jsonl.gz", "interactions.tsv", "queries.tsv", "qrels.tsv", "test.queries.csv"):
        (shop / file).touch()
    (found,) = find_shops(tmp_path)
    assert (found.log, found.queries) == (shop / "interactions.tsv", shop / "test.queries.csv")
    assert found.dev_queries is None
    assert found.sources(0.05, 0.1).log_share == 0.05


def test_what_cannot_be_is_refused_before_anything_is_made(folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    assert "holds no shop 'north'. Fix: choose from east" in bench(folder, output, "--only", "north").stderr
    assert "holds no products" in bench(folder, output, "--only", "notes").stderr
    assert "'half' is no part of a log" in bench(folder, output, "--logs", "half").stderr
    assert "none of the 1 shops has a log" in bench(folder, output, "--only", "west", "--logs", "whole").stderr
    assert "is no folder" in bench(folder / "gone", output).stderr
    products = str(folder / "east" / "products.jsonl.gz")
    both = CliRunner().invoke(main, ["bench", products, "--shops", str(folder), "-o", str(output)])
    assert "--shops names all files" in both.stderr
    assert "or --shops FOLDER" in CliRunner().invoke(main, ["bench", products, "-o", str(output)]).stderr
    alone = [str(folder / "east" / f) for f in ("products.jsonl.gz", "log.tsv", "test.queries.tsv", "test.qrels.tsv")]
    assert "--logs goes with --shops" in CliRunner().invoke(
        main, ["bench", *alone, "-o", str(output), "--logs", "none"]
    ).stderr  # fmt: skip
    assert not output.exists()


@pytest.mark.parametrize("text", ["2", "-1/20", "1/0", "", "half"])
def test_parts_of_a_log_are_shares(text: str) -> None:
    with pytest.raises(SettingError, match="part of a log"):
        read_logs(text)


def test_without_pretrained_weights_the_hybrid_is_left_out() -> None:
    assert rows_of(Options(model="scratch")) == ("bm25", "gram", "all-but-codes", "codes-and-words", "codes-alone")
    assert set(rows_of(Options())) - set(rows_of(Options(model="scratch"))) == {"bm25+dense-published-weighted"}


def test_a_summary_by_hand() -> None:
    def cell(shop: str, log: str, bm25: float, marker: str) -> dict[str, object]:
        row = {m: {"mean": bm25, "p": 0.01, "marker": marker} for m in ("R@10", "R@100", "R@300", "nDCG@10")}
        ours = {m: {"mean": 0.5, "p": None, "marker": ""} for m in row}
        sizes = {"products": 9, "interactions": 0, "dev_queries": 0, "queries": 3, "fitted": False}
        return {
            "shop": shop,
            "log": log,
            "share": float(log == "whole"),
            "has_log": True,
            **sizes,
            "engines": {"bm25": row, "gram": ours},
        }

    cells = [cell("a", "none", 0.25, "-"), cell("b", "none", 0.75, "+"), cell("b", "whole", 0.5, "-")]
    summaries = summaries_of(cells)
    assert summaries["all"]["engines"]["bm25"]["R@10"] == {"mean": 0.5, "ahead": 2, "behind": 1}
    assert summaries["none"]["engines"]["bm25"]["R@100"] == {"mean": 0.5, "ahead": 1, "behind": 1}
    assert summaries["whole"]["cells"] == 1
    told = {"cpu": "x", "cores": 2, "device": "cpu, float32", "seed": 0, "quick": False, "commands": []}
    text = markdown(cells, summaries, told)
    assert "| all (3) | bm25 | .500 (2 / 1) |" in text
    assert "|  | gram | .500 | .500 | .500 | .500 |" in text
    assert "without a log" not in text
