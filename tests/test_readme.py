"""The README is true: its commands and options exist, and what it marks as tested runs as it is written."""

from __future__ import annotations

import csv
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

import gram.training.stages
from gram.cli import main
from gram.coder.encoder.backbone import Backbone, ScratchSettings, scratch_backbone
from gram.data.log import write_log, write_qrels, write_queries
from gram.data.shop.generate import generate
from gram.display import CODES
from gram.records import SharedCode
from gram.text.shop_tables import NAMES
from gram.training.joint import TrainingSettings

README = Path(__file__).parent.parent / "README.md"
TEXT = README.read_text(encoding="utf-8")
GUIDE = README.parent / "docs" / "command_line.md"
BOTH = f"{TEXT}\n{GUIDE.read_text(encoding='utf-8')}"
LINES = 150
"""What a newcomer may be asked to read."""
TINY = ScratchSettings(width=24, layers=1, heads=2, vocabulary=600)


def marked(language: str) -> list[str]:
    """The blocks of code that the README marks as tested."""
    return re.findall(rf"<!-- tested -->\n```{language}\n(.*?)```", TEXT, flags=re.DOTALL)


def commands() -> Iterator[list[str]]:
    """Every command in the README and its guide that begins with `gram`, in blocks and between backticks."""
    for line in re.findall(r"^gram .*$|(?<=`)gram [^`]+(?=`)", BOTH, flags=re.MULTILINE):
        yield shlex.split(line)[1:]


def options(command: click.Command) -> set[str]:
    return {"--help", "-h"} | {name for parameter in command.params for name in parameter.opts}


def test_it_has_two_set_up_commands_and_they_can_be_run() -> None:
    blocks = re.findall(r"```sh\n(scripts/.*?)\n```", TEXT)
    assert blocks == ["scripts/demo", "scripts/test"]
    for name in (*blocks, "scripts/setup", "scripts/check", ".ci/run"):
        assert (README.parent / name).stat().st_mode & 0o100, name


def test_every_command_in_it_exists_with_its_options() -> None:
    named = set()
    for name, *arguments in commands():
        if name == "COMMAND":
            continue
        assert name in main.commands, name
        named.add(name)
        given = {word.split("=")[0] for word in arguments if word.startswith("-")}
        assert given <= options(main.commands[name]), f"gram {name} {' '.join(arguments)}"
    assert named == set(main.commands)
    assert all(f"gram {name}" in TEXT for name in named), "each of them in the README"


def test_every_option_in_it_exists() -> None:
    known = set().union(*map(options, main.commands.values()))
    assert set(re.findall(r"`(--[a-z-]+)", BOTH)) <= known


def test_it_is_short() -> None:
    assert len(TEXT.splitlines()) <= LINES


def test_every_command_and_option_tells_what_it_is_for() -> None:
    for name, command in main.commands.items():
        assert command.help, name
        for parameter in command.params:
            if isinstance(parameter, click.Option) and parameter.name != "seed":
                assert parameter.help, f"gram {name} {parameter.opts[0]}"


def test_it_names_the_sources_of_codes_and_how_many_are_explained() -> None:
    for source in ("lexical", "expansion", "compound", "given", "near", "left_out"):
        assert f"`{source}`" in str(SharedCode.__doc__)
        assert f"`{source}`" in TEXT, source
    assert (CODES, "the eight with the greatest shares" in TEXT) == (8, True)


def test_it_and_the_help_name_the_tables_that_a_shop_can_replace() -> None:
    (option,) = (one for one in main.commands["train"].params if one.name == "tables")
    for name in NAMES:
        assert (README.parent / "gram" / "text" / "tables" / f"{name}.json").is_file()
        assert f"`{name}.json`" in TEXT
        assert f"{name}.json" in str(option.help)


def test_files_that_it_names_are_there() -> None:
    for file in (README, GUIDE):
        for target in re.findall(r"\]\(([^)#:]+)\)", file.read_text(encoding="utf-8")):
            assert (file.parent / target).exists(), target


@pytest.fixture
def tiny_shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The files that the README speaks of in the current folder, and training so small that it takes seconds."""
    data = generate(products=60, interactions=150, queries=30, seed=2)
    with (tmp_path / "products.csv").open("w", encoding="utf-8", newline="") as file:
        rows = [(p.product_id, p.title, p.brand) for p in data.products]
        csv.writer(file).writerows([("product_id", "title", "brand"), *rows])
    write_log(tmp_path / "log.tsv", data.log)
    write_queries(tmp_path / "queries.tsv", data.parts["test"].queries)
    write_qrels(tmp_path / "qrels.tsv", data.parts["test"].qrels)
    monkeypatch.chdir(tmp_path)

    def tiny(name: str, texts: list[str], scratch: ScratchSettings) -> Backbone:
        return scratch_backbone(texts, TINY)

    monkeypatch.setattr(gram.training.stages, "load_backbone", tiny)
    monkeypatch.setattr(TrainingSettings, "chosen_steps", lambda *_: 2)


@pytest.mark.usefixtures("tiny_shop")
def test_its_shell_commands_run() -> None:
    (block,) = marked("sh")
    for line in block.splitlines():
        result = CliRunner().invoke(main, shlex.split(line)[1:], catch_exceptions=False)
        assert result.exit_code == 0, f"{line}: {result.output}"
    assert Path("gram.trec").is_file()


@pytest.mark.usefixtures("tiny_shop")
def test_its_python_runs(capsys: pytest.CaptureFixture[str]) -> None:
    (block,) = marked("python")
    exec(block, {})
    assert re.search(r"^-?\d+\.\d\d  \w", capsys.readouterr().out, flags=re.MULTILINE)
