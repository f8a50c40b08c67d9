"""The command line from files to files, and what it says when something is wrong."""

from __future__ import annotations

import errno
import gzip
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import click
import pytest
from click.testing import CliRunner, Result

import gram.codes.mining
import gram.demo
import gram.indexing
import gram.training.stages
from gram.answer import SearchResult
from gram.cli import main
from gram.coder.encoder.backbone import Backbone, ScratchSettings, scratch_backbone
from gram.data.catalogue import read_products
from gram.data.dataset import Dataset
from gram.data.log import read_log, read_qrels, read_queries
from gram.data.shop.generate import generate
from gram.data.shop.traits import Traits
from gram.errors import GramError
from gram.folders import read_json
from gram.locks import lock_folder
from gram.records import Attribute, Hit, SharedCode
from gram.shop import Shop

TINY = ScratchSettings(width=24, layers=1, heads=2, vocabulary=600)


def gram_runs(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(a) for a in arguments])


def done(*arguments: str | Path) -> str:
    """What a command printed; it must succeed."""
    result = gram_runs(*arguments)
    assert result.exit_code == 0, f"gram {' '.join(map(str, arguments))}\n{result.output}\n{result.exception!r}"
    return result.stdout


def refused(*arguments: str | Path) -> str:
    """What a command said before it gave up: one line, without a traceback."""
    result = gram_runs(*arguments)
    assert result.exit_code == 2
    assert isinstance(result.exception, SystemExit)
    assert "Traceback" not in result.stderr
    return str(result.stderr)


def small_backbone(name: str, texts: list[str], scratch: ScratchSettings) -> Backbone:
    assert name == "scratch"
    return scratch_backbone(texts, TINY)


class Made(NamedTuple):
    """A shop in files, with what the commands made of it."""

    place: Path
    data: Dataset
    said: str

    def __truediv__(self, name: str) -> Path:
        return self.place / name


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    place = tmp_path_factory.mktemp("cli")
    data = generate(products=80, interactions=250, queries=60, seed=3)
    data.write(place)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gram.training.stages, "load_backbone", small_backbone)
        products, log = place / "products.jsonl.gz", place / "log.tsv"
        said = done("train", products, log, "-o", place / "model", "--backbone", "scratch", "--steps", "2")
    done("index", place / "model", products, "-o", place / "index")
    return Made(place, data, said)


def write(path: Path, *lines: str) -> Path:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def test_the_contracts_commands_are_there() -> None:
    assert {"train", "index", "search", "check", "eval", "bench", "convert", "demo"} <= set(main.commands)


@pytest.mark.parametrize("name", sorted(main.commands))
def test_every_command_explains_itself(name: str) -> None:
    text = done(name, "--help")
    assert isinstance(main.commands[name], click.Command)
    assert len(text.splitlines()) > 5


def test_the_version_is_told() -> None:
    assert re.search(r"\d+\.\d+\.\d+", done("--version"))


def test_training_tells_the_codes_health_and_where_the_model_is(made: Made) -> None:
    assert f"model: {made / 'model'}" in made.said
    assert "health of the codes (+ good, - look into it):" in made.said
    assert "queries that training did not see" in made.said


def test_a_query_is_answered_with_rank_score_id_and_title(made: Made) -> None:
    lines = done("search", made / "index", made.data.products[7].title, "-k", "3").splitlines()
    assert len(lines) == 4
    assert re.fullmatch(r"\d+ products fit", lines[3])
    assert re.fullmatch(r"  1  +-?\d+\.\d{3}  (\S+)  (.+)", lines[0])
    assert f"{made.data.products[7].product_id}  {made.data.products[7].title}" in lines[0]


def test_an_explained_hit_shows_its_codes_and_its_features(made: Made) -> None:
    text = done("search", made / "index", made.data.products[7].title, "-k", "1", "--explain")
    assert re.search(
        r"\d%  \w+: .+\(query (lexical|expansion) \d+\.\d\d × product (lexical|expansion) \d+\.\d\d\)", text
    )
    assert re.search(r"\+\d+\.\d\d words: .*bm25 \+\d", text)


@pytest.mark.parametrize("query", ["", " ", "!?"])
def test_a_query_without_a_word_is_told_so(made: Made, query: str) -> None:
    for more in ((), ("--only", "words")):
        assert done("search", made / "index", query, *more) == "nothing found: the query has no word\n"


def test_the_shops_value_can_be_weighed(made: Made) -> None:
    heavy = done("search", made / "index", "shoes", "-k", "1", "--value", "1000")
    assert float(heavy.split()[1]) > 100


def test_a_run_holds_every_query_in_trecs_columns(made: Made) -> None:
    run = made / "found.trec"
    said = done("search", made / "index", "--queries", made / "test.queries.tsv", "-k", "5", "--run", run)
    assert said.strip() == f"run: {run}"
    rows = [line.split() for line in run.read_text(encoding="utf-8").splitlines()]
    assert {len(row) for row in rows} == {6}
    assert {row[0] for row in rows} <= made.data.parts["test"].queries.keys()
    assert {row[1] for row in rows} == {"Q0"}
    assert {row[5] for row in rows} == {"gram"}
    first = [row for row in rows if row[0] == rows[0][0]]
    assert [row[3] for row in first] == ["1", "2", "3", "4", "5"]
    scores = [float(row[4]) for row in first]
    assert scores == sorted(scores, reverse=True)


def test_eval_prints_one_row_a_run(tmp_path: Path) -> None:
    qrels = write(tmp_path / "qrels.tsv", "query_id\tproduct_id\tgrade", "q1\ta\t3", "q1\tb\t0", "q2\tc\t2", "q3\td\t1")
    one = write(tmp_path / "one.trec", "q1 Q0 a 1 2.0 x", "q1 Q0 b 2 1.0 x", "q9 Q0 a 1 1.0 x")
    two = write(tmp_path / "two.trec", "q1 Q0 b 1 2.0 x", "q1 Q0 a 2 1.0 x", "q2 Q0 c 1 1.0 x")
    text = done("eval", qrels, one, two)
    header, first, second = text.splitlines()[:3]
    assert header.split()[:2] == ["run", "R@10"]
    assert "nDCG@10" in header
    assert first.split()[:2] == ["one.trec", ".500"]  # q1 found, q2 unanswered; q3 has no relevant product
    assert second.split()[:2] == ["two.trec", "1.000"]
    assert "better, - worse than one.trec" in text
    left_out = "one.trec: 1 queries without a relevant product left out; 1 queries unanswered, counted as 0; 1 queries"
    assert left_out in text
    assert done("eval", qrels, one, "--markdown").startswith("| run")


def test_eval_of_judgements_that_find_nothing_relevant_is_refused(tmp_path: Path) -> None:
    qrels = write(tmp_path / "qrels.tsv", "query_id\tproduct_id\tgrade", "q1\ta\t0")
    run = write(tmp_path / "one.trec", "q1 Q0 a 1 2.0 x")
    assert "qrels.tsv: no query has a relevant product." in refused("eval", qrels, run)


def test_eval_tells_runs_of_one_name_apart(tmp_path: Path) -> None:
    qrels = write(tmp_path / "qrels.tsv", "query_id\tproduct_id\tgrade", "q1\ta\t1")
    runs = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        runs.append(write(tmp_path / name / "run.trec", "q1 Q0 a 1 2.0 x"))
    assert all(str(run) in done("eval", qrels, *runs) for run in runs)


def test_convert_writes_what_train_reads(tmp_path: Path) -> None:
    source = tmp_path / "esci"
    source.mkdir()
    rows = [{"product_id": f"p{i}", "product_title": f"Red shoe {i}", "title": f"Red shoe {i}"} for i in range(4)]
    write(source / "products.jsonl", *map(json.dumps, rows))
    judgements = [f"red shoe {i}\tp{i % 4}\tE" for i in range(20)]
    write(source / "judgments.tsv", "query\tproduct_id\tesci_label", *judgements)
    said = done("convert", "esci", source, "-o", tmp_path / "out")
    assert said.startswith("4 products, ")
    names = {"products.jsonl.gz", "log.tsv", "dev.queries.tsv", "dev.qrels.tsv", "test.queries.tsv", "test.qrels.tsv"}
    assert names <= {p.name for p in (tmp_path / "out").iterdir()}
    with gzip.open(tmp_path / "out" / "products.jsonl.gz", "rt", encoding="utf-8") as lines:
        assert [json.loads(line)["product_id"] for line in lines] == ["p0", "p1", "p2", "p3"]
    fewer = done("convert", "esci", source, "-o", tmp_path / "fewer", "--log-share", "0")
    assert fewer.startswith("4 products, 0 interactions")
    every = done("convert", "esci", source, "-o", tmp_path / "every", "--no-log")
    assert every.startswith("4 products, 0 interactions")
    for part in ("dev", "test"):
        assert len((tmp_path / "every" / f"{part}.queries.tsv").read_text(encoding="utf-8").splitlines()) == 1 + 20
    both = refused("convert", "esci", source, "-o", tmp_path / "both", "--log-share", "0.5", "--no-log")
    assert "give one of the two" in both
    assert not (tmp_path / "both").exists()


def test_a_generated_shop_is_written_as_it_is_made(tmp_path: Path) -> None:
    said = done("shop", "-o", tmp_path, "--products", "60", "--queries", "40", "--seed", "2", "--traits", "rich,head=1")
    assert said.startswith("60 products, 300 interactions")
    shop = generate(60, 300, 2, 40, replace(Traits.rich(), head=1.0))
    assert read_products(tmp_path / "products.jsonl.gz") == shop.products
    assert read_log(tmp_path / "log.tsv", {p.product_id for p in shop.products}) == shop.log
    assert read_queries(tmp_path / "test.queries.tsv") == shop.parts["test"].queries
    assert read_qrels(tmp_path / "test.qrels.tsv") == shop.parts["test"].qrels
    assert "'synonym' is no trait" in refused("shop", "-o", tmp_path, "--traits", "synonym")


def test_the_demo_runs_from_a_shop_to_a_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gram.training.stages, "load_backbone", small_backbone)
    text = done("demo", "-o", tmp_path, "--products", "60", "--steps", "2", "--backbone", "scratch")
    assert re.search(r"^GRAM +\.?\d", text, flags=re.MULTILINE)
    assert re.search(r"^BM25, all fields +\.?\d", text, flags=re.MULTILINE)
    assert {"shop", "model", "index", "gram.trec"} <= {p.name for p in tmp_path.iterdir()}


PRODUCTS = ("product_id,title", "a,Red shoe", "b,Blue hat")


@pytest.mark.parametrize(
    ("products", "log", "message"),
    [
        (("product_id,price", "a,1"), (), r"title"),
        (("product_id,title", "a,Shoe", "a,Hat"), (), r"line 3, column 'product_id': .*on line 2 already"),
        (("product_id,title,price", "a,Shoe,cheap"), (), r"line 2, column 'price': .*'cheap'"),
        (("product_id,title",), (), r"holds no products"),
        (PRODUCTS, ("query\tsku_name", "shoe\ta"), r"product_id"),
        (
            PRODUCTS,
            ("query\tproduct_id", "shoe\ta", "hat\tc"),
            r"1 of 2 .* unknown .*50\.0% where 5\.0%",
        ),
        (PRODUCTS, ("query\tproduct_id\tweight", "shoe\ta\t-1"), r"line 2, column 'weight'"),
    ],
)
def test_a_file_that_cannot_be_used_is_named_with_its_fix(
    tmp_path: Path, products: tuple[str, ...], log: tuple[str, ...], message: str
) -> None:
    write(tmp_path / "products.csv", *products)
    named = write(tmp_path / "log.tsv", *log) if log else "none"
    said = refused("train", tmp_path / "products.csv", named, "-o", tmp_path / "model", "--backbone", "scratch")
    assert re.search(message, said), said
    assert "Fix: " in said
    assert not (tmp_path / "model").exists()


def test_more_unknown_products_can_be_allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gram.training.stages, "load_backbone", small_backbone)
    products = write(tmp_path / "products.csv", *PRODUCTS)
    log = write(tmp_path / "log.tsv", "query\tproduct_id", "shoe\ta", "hat\tc")
    done(
        *("train", products, log, "-o", tmp_path / "model", "--backbone", "scratch", "--steps", "1"),
        *("--max-unknown", "0.6", "--language", "german"),
    )
    assert read_json(tmp_path / "model" / "config.json")["settings"]["mining"]["language"] == "german"


def test_training_without_an_interaction_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gram.training.stages, "load_backbone", small_backbone)
    products, log = write(tmp_path / "products.csv", *PRODUCTS), write(tmp_path / "log.tsv", "query\tproduct_id")
    brief = ("--backbone", "scratch", "--steps", "1")
    told = gram_runs("train", products, log, "-o", tmp_path / "model", *brief)
    assert told.exit_code == 0
    assert f"{log}: it has no interaction with these products, so the model is trained without a log" in told.stderr
    assert "without a log" not in gram_runs("train", products, "none", "-o", tmp_path / "other", *brief).stderr


def test_what_is_not_there_is_named(made: Made, tmp_path: Path) -> None:
    missing = tmp_path / "nothing"
    assert str(missing) in refused("search", missing, "shoe")
    assert str(missing) in refused("index", missing, made / "products.jsonl.gz", "-o", tmp_path / "index")
    assert str(missing) in refused("eval", missing, missing)
    assert str(missing) in refused("train", missing, "none", "-o", tmp_path / "model")
    assert str(missing) in refused("search", made / "index", "shoe", "--model", missing)
    assert str(missing) in refused("check", missing)
    assert str(missing) in refused("convert", "wands", missing, "-o", tmp_path / "out")


def test_a_log_that_is_not_there_is_named(made: Made, tmp_path: Path) -> None:
    said = refused("train", made / "products.jsonl.gz", tmp_path / "gone.tsv", "-o", tmp_path / "model")
    assert "gone.tsv" in said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("shoe", "-k", "0"), "0 is not in the range 1<=x<=10000"),
        (("shoe", "-k", "many"), "not a valid integer"),
        (("shoe", "-k", "1.5"), "not a valid integer"),
        ((), "give a QUERY, or --queries"),
        (("shoe", "--queries", "q.tsv", "--run", "r"), "give a QUERY, or --queries"),
        (("--queries", "q.tsv"), "--queries FILE needs --run FILE"),
        (("--queries", "q.tsv", "--run", "r", "--explain"), "--explain tells of one QUERY"),
        (("shoe", "--run", "r"), "--run needs --queries"),
        (("--run", "r"), "give a QUERY, or --queries"),
        (("--fit", "0.5"), "give a QUERY, or --queries"),
        (("shoe", "--only", "colour"), "there is no feature 'colour'. Fix: choose from the groups codes"),
        (("shoe", "--fit", "2"), "give a number from 0"),
        (("shoe", "--sort", "prize"), "no product has a field 'prize'. Fix: did you mean 'price'?"),
        (("shoe", "--sort", "brand,price"), "sort is 'brand,price', and takes one field. Fix: choose one of them"),
        (("shoe", "--value", "nan"), "a plain number such as 0.5, not nan"),
        (("shoe", "--device", "abacus"), "no device that PyTorch can compute on"),
        (("shoe", "--device", "meta"), "no device that PyTorch can compute on"),
    ],
)
def test_a_search_that_cannot_be_is_refused(made: Made, arguments: tuple[str, ...], message: str) -> None:
    assert message in refused("search", made / "index", *arguments)


def test_a_model_does_not_take_the_place_of_other_files(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "diary.txt", "dear diary")
    products = made / "products.jsonl.gz"
    with monkeypatch.context() as patch:
        patch.setattr(gram.indexing, "build_index", None)  # refused before the work, not after it
        patch.setattr(gram.training.stages, "mine", None)
        for command in (("index", made / "model", products), ("train", products, "none")):
            assert "not ours to replace" in refused(*command, "-o", tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["diary.txt"]


def test_what_is_there_is_replaced_when_asked_to_alone(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gram.training.stages, "load_backbone", small_backbone)
    products, model = made / "products.jsonl.gz", made / "kept"
    command = ("train", products, "none", "-o", model, "--backbone", "scratch", "--steps", "1")
    done(*command)
    before = (model / "config.json").stat().st_ino
    for more in ((), ("--resume",)):  # nothing was stopped that could be resumed
        said = refused(*command, *more)
        assert f"{model}: holds lexicon.jsonl already. Fix: name another folder, or replace it with --replace" in said
    with monkeypatch.context() as patch:
        patch.setattr(gram.training.stages, "mine", lambda *_: 1 / 0)
        gram_runs(*command, "--replace")
    assert (model / "config.json").stat().st_ino == before
    done(*command, "--resume")  # of the run that was to replace it
    assert (model / "config.json").stat().st_ino != before


@pytest.mark.parametrize("command", [("shop", "--products", "20"), ("convert", "wands", "nowhere")])
def test_a_dataset_takes_the_place_of_no_other_files(command: tuple[str, ...], tmp_path: Path) -> None:
    diary = write(tmp_path / "test.qrels.tsv", "dear diary")
    assert "holds test.qrels.tsv already." in refused(*command, "-o", tmp_path)
    assert [diary] == list(tmp_path.iterdir())
    if command[0] == "shop":
        done(*command, "-o", tmp_path, "--replace")
        assert "dear" not in diary.read_text(encoding="utf-8")


def test_an_id_that_a_run_cannot_hold_is_told_before_searching(made: Made, tmp_path: Path) -> None:
    queries = write(tmp_path / "queries.tsv", "query_id\tquery", "q 1\tshoes")
    assert "A run cannot hold 'q 1'" in refused("search", made / "index", "--queries", queries, "--run", tmp_path / "r")


@pytest.fixture
def broken(made: Made, tmp_path: Path) -> Made:
    """A copy that a test may damage."""
    for folder in ("model", "index"):
        shutil.copytree(made / folder, tmp_path / folder)
    return made._replace(place=tmp_path)


def flip(path: Path) -> None:
    """Damage of the same size: the last byte."""
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))


def test_whole_folders_are_whole(made: Made) -> None:
    assert done("check", made / "index").strip() == f"whole: {made / 'index'}"
    assert done("check", made / "model").strip() == f"whole: {made / 'model'}"


@pytest.mark.parametrize(
    ("name", "fix"),
    [
        ("index/dense.npy", "Fix: gram index MODEL PRODUCTS -o"),
        ("index/value.npy", "Fix: gram index MODEL PRODUCTS -o"),
        ("index/titles.start.npy", "Fix: gram index MODEL PRODUCTS -o"),
        ("index/products.ids.npy", "Fix: gram index MODEL PRODUCTS -o"),
        ("index/trie.code_id.npy", "Fix: gram index MODEL PRODUCTS -o"),
        ("model/tokenizer.json", "Fix: gram train PRODUCTS LOG -o"),
        ("model/scorer.safetensors", "Fix: gram train PRODUCTS LOG -o"),
        ("model/trie.first_child.npy", "Fix: gram train PRODUCTS LOG -o"),
    ],
)
def test_damage_of_the_same_size_is_named_with_its_fix(broken: Made, name: str, fix: str) -> None:
    flip(broken / name)
    for said in (
        refused("check", (broken / name).parent),
        refused("search", broken / "index", "shoe", "--model", broken / "model"),
    ):
        assert f"{broken / name}: " in said
        assert "damaged" in said
        assert fix in said
    if name.startswith("model"):
        products = write(broken / "products.csv", *PRODUCTS)
        assert fix in refused("index", broken / "model", products, "-o", broken / "new")


def test_a_damaged_meta_is_named(broken: Made) -> None:
    flip(broken / "index/meta.json")
    assert "meta.json: is damaged" in refused("check", broken / "index")
    assert "meta.json: is not JSON" in refused("search", broken / "index", "shoe", "--model", broken / "model")


def test_no_check_opens_what_is_damaged_but_readable(broken: Made) -> None:
    flip(broken / "index/value.npy")
    done("search", broken / "index", "shoe", "--model", broken / "model", "--no-check")


def test_a_folder_of_something_else_is_neither_model_nor_index(tmp_path: Path) -> None:
    assert "is no model and no index" in refused("check", tmp_path)


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "/disk/model"), 2, "/disk/model: No space left on device."),
        (OSError(errno.ENOSPC, "No space left on device"), 2, "output: No space left on device. Fix: free some space"),
        (PermissionError(errno.EACCES, "Permission denied", "/shop/m"), 2, "/shop/m: Permission denied. Fix: get"),
        (OSError("20 requested and 7 written"), 2, "20 requested and 7 written. Fix: "),
        (KeyboardInterrupt(), 130, "gram: stopped"),
        (GramError("a title of\x1b[31mred\nand more"), 2, r"gram: a title of\x1b[31mred\nand more"),
    ],
)
def test_what_the_system_refuses_is_one_line(
    error: BaseException, code: int, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(gram.demo, "run", fail)
    result = gram_runs("demo", "-o", tmp_path)
    assert result.exit_code == code
    assert said in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert isinstance(result.exception, SystemExit)


def test_nobody_reading_on_and_a_full_disk_need_no_traceback(made: Made) -> None:
    command = [sys.executable, "-c", "from gram.cli import main; main()", "check", str(made / "index")]
    env = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}  # which hides the end's
    reader, writer = os.pipe()
    os.close(reader)
    gone = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, check=False, env=env)
    os.close(writer)
    assert gone.stderr == ""
    with open("/dev/full", "w") as full:  # noqa: PTH123 — a device
        result = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False, env=env)
    assert result.returncode == 2
    assert "No space left on device. Fix: free some space" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_place_that_cannot_be_written_to_is_refused_before_the_work(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    monkeypatch.setattr(gram.indexing, "build_index", None)
    monkeypatch.setattr(gram.training.stages, "mine", None)
    for output, said in ((made / "log.tsv" / "model", "Not a directory"), (tmp_path / "loop", "leads back to itself")):
        for command in (("index", made / "model"), ("train",)):
            arguments = [*command, made / "products.jsonl.gz", *(["none"] if command[0] == "train" else [])]
            assert said in refused(*arguments, "-o", output)


def test_terminal_escapes_of_a_shop_are_shown_not_obeyed(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    shared = SharedCode((Attribute("type", "s\x1b[2Jofa"),), 0.5, 0.25, "lexical", "expansion", 0.75)
    codes = (shared, shared._replace(share=0.0012), shared._replace(share=-0.0))
    hit = Hit(
        "id\x07", 1.5, "Sofa\x1b]0;owned\x07\u202e 靴 👟", codes, {"bm25": 1.25, "dense": 0.5, "base": -0.25}, fits=True
    )

    monkeypatch.setattr(Shop, "search", lambda *_: SearchResult([hit], 1, {}, [], "sofa", [], []))
    assert done("search", made / "index", "sofa", "--explain", "--only", "codes").splitlines() == [
        r"  1    1.500  id\x07  Sofa\x1b]0;owned\x07\u202e 靴 👟",
        r"        75.0%  type: s\x1b[2Jofa  (query lexical 0.50 × product expansion 0.25)",
        r"         0.1%  type: s\x1b[2Jofa  (query lexical 0.50 × product expansion 0.25)",
        r"         also  type: s\x1b[2Jofa",
        "       +1.25 words: bm25 +1.25",
        "       +0.50 vectors: dense +0.50",
        "       -0.25 other: base -0.25",
        "1 product fits",
    ]


def test_a_shops_tables_reach_mining(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[object] = []
    monkeypatch.setattr(gram.codes.mining, "MiningSettings", lambda **settings: seen.append(settings) or 1 / 0)
    products = write(tmp_path / "products.csv", *PRODUCTS)
    for tables in ((), ("--tables", tmp_path)):
        gram_runs("train", products, "none", "-o", tmp_path / "model", *tables)
    assert seen == [{"language": "porter", "tables": ""}, {"language": "porter", "tables": str(tmp_path)}]


def test_a_model_is_trained_by_one_process_at_a_time(tmp_path: Path) -> None:
    products = write(tmp_path / "products.csv", *PRODUCTS)
    with lock_folder(tmp_path / "model.work"):
        said = refused("train", products, "none", "-o", tmp_path / "model", "--backbone", "scratch")
    assert f"model.work: process {os.getpid()} is writing it. Fix: wait for process" in said
