"""From a catalogue and a log to a model, an index and hits, on a shop and a network so small that it takes seconds."""

from __future__ import annotations

import json
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny_bert import tiny_bert

import gram.coder.precision
import gram.training.joint
from gram.coder.encoder.backbone import ScratchSettings
from gram.data.dataset import Dataset
from gram.data.shop.generate import generate
from gram.errors import IndexFolderError, IndexMismatch, ModelError, SettingError
from gram.folders import read_json
from gram.indexing import build_index, make_index
from gram.ranking.features import FEATURES, GROUPS, NAMES
from gram.ranking.scorer import FILE, Scorer, file_of
from gram.records import Hit, Product
from gram.search import Searcher, make_speller
from gram.training.co_alignment import CoAlignmentSettings
from gram.training.joint import JointTrainer, TrainingSettings
from gram.training.pipeline import STAGES, Stage, train
from gram.training.run import Settings, TrainingRun
from gram.training.scoring import fit_groups
from gram.training.stages import train_jointly

SETTINGS = Settings(
    backbone="scratch",
    training=TrainingSettings(steps=6, batch=16, hard_negatives=4, validate_every=2, co_training=2),
    alignment=CoAlignmentSettings(steps=2, batch=8),
    scratch=ScratchSettings(width=24, layers=1, heads=2, vocabulary=600),
)


class Shop(NamedTuple):
    """A trained shop: what it was made of, and its folders."""

    data: Dataset
    model: Path
    index: Path
    searcher: Searcher


@pytest.fixture(scope="module", autouse=True)
def _float32_everywhere() -> Iterator[None]:
    """One number format whatever the machine: searching one by one and many at once must agree to the last digits."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gram.coder.precision, "fast_dtype", lambda device_type: torch.float32)
        yield


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    folder = tmp_path_factory.mktemp("shop")
    data = generate(products=150, interactions=600, queries=120, seed=1)
    train(data.products, data.log, folder / "model", SETTINGS)
    make_index(folder / "model", data.products, folder / "index")
    return Shop(data, folder / "model", folder / "index", Searcher.load(folder / "index"))


def weights_of(model: Path) -> dict[str, torch.Tensor]:
    return load_file(model / "model.safetensors")


@pytest.mark.parametrize(
    ("logged", "teaches_from", "pretrained", "moves"),
    [(False, 5, True, False), (True, 5, True, True), (True, 50, True, False), (True, 50, False, True)],
)
def test_a_pretrained_encoder_is_trained_with_a_log_of_some_queries_alone(
    logged: bool, teaches_from: int, pretrained: bool, moves: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gram.training.joint, "TEACHES_FROM", teaches_from)
    data = generate(products=40, interactions=60, queries=20, seed=1)
    words = {word for product in data.products for word in product.title.lower().split() if word.isalnum()}
    backbone = tiny_bert(tmp_path / "bert", sorted(words)) if pretrained else "scratch"
    models = []
    for steps in (1, 3):
        training = replace(SETTINGS.training, steps=steps, co_training=0)
        settings = replace(SETTINGS, backbone=backbone, training=training, alignment=CoAlignmentSettings(steps=0))
        train(data.products, data.log if logged else [], tmp_path / f"model{steps}", settings)
        models.append(weights_of(tmp_path / f"model{steps}"))
    moved = {name for name, weight in models[0].items() if not torch.equal(weight, models[1][name])}
    reading = {name for name in models[0] if name.startswith(("network.encoder.", "network.side"))}
    assert bool(moved & reading) == moves
    assert moved - reading


def test_settings_of_training_are_numbers_from_0() -> None:
    wrong: dict[str, Any]
    for wrong in (
        {"encoder_rate_without_log": -1},
        {"encoder_rate_without_log": True},
        {"head_rate": float("nan")},
        {"sparsity": float("inf")},
        {"steps": 2.5},
        {"batch": "64"},
        {"code_losses": 1},
    ):
        (name,) = wrong
        with pytest.raises(SettingError, match=rf"the training's {name} is .* Fix: give (True|a)"):
            TrainingSettings(**wrong)
    assert replace(TrainingSettings(), encoder_rate=0, steps=np.int64(3)).again(6).encoder_rate == 0


def test_steps_are_chosen_by_the_log_and_without_one_fixed() -> None:
    settings = TrainingSettings()
    assert settings.chosen_steps(0, 50, True) == settings.chosen_steps(0, 1_000_000, True) == 100
    assert settings.chosen_steps(1, 50, True) == settings.chosen_steps(0, 50, False) == 120
    assert settings.chosen_steps(5_000, 54_000, True) > settings.chosen_steps(500, 54_000, True)


def same_weights(one: Path, other: Path) -> bool:
    first, second = weights_of(one), weights_of(other)
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def figures_of(model: Path) -> list[dict[str, Any]]:
    return [json.loads(row) for row in (model / "training.jsonl").read_text(encoding="utf-8").splitlines()]


def ids(hits: list[Hit]) -> list[str]:
    return [hit.product_id for hit in hits]


def test_training_leaves_a_whole_model_folder_and_nothing_beside_it(shop: Shop) -> None:
    files = {"config.json", "model.safetensors", "lexicon.jsonl", "tokenizer.json", "training.jsonl", "health.json"}
    assert files <= {file.name for file in shop.model.iterdir()}
    assert sorted(p.name for p in shop.model.parent.iterdir()) == ["index", "model"]
    assert read_json(shop.model / "config.json")["settings"]["training"]["steps"] == 6


def test_every_step_is_recorded_and_weights_have_moved(shop: Shop) -> None:
    rows = figures_of(shop.model)
    stages = Counter(row["stage"] for row in rows)
    assert (stages["joint"], stages["co-training"]) == (6, 2)
    assert stages["co-alignment"] in (2, 3)  # what was before, and each step that found a preference
    assert all(np.isfinite(value) for row in rows for value in row.values() if isinstance(value, float))
    assert weights_of(shop.model)["network.attribute_shift"].abs().sum() > 0


def test_hits_come_best_first_and_name_their_products(shop: Shop) -> None:
    titles = {p.product_id: p.title for p in shop.data.products}
    for query in list(shop.data.parts["test"].queries.values())[:10]:
        hits = shop.searcher.search(query, k=7)
        assert 0 < len(hits) <= 7
        assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
        assert len(set(ids(hits))) == len(hits)
        assert all(hit.title == titles[hit.product_id] for hit in hits)


def test_k_may_exceed_the_catalogue_but_not_fall_below_one(shop: Shop) -> None:
    assert len(shop.searcher.search(shop.data.products[0].title, k=10_000)) <= 150
    with pytest.raises(SettingError, match="a whole number from 1, not 0"):
        shop.searcher.search("shoes", k=0)


@pytest.mark.parametrize("query", ["", "   ", "!?", "zzyzzx qwfp", "日本語", "a" * 500, "of the for"])
def test_a_strange_query_is_answered_or_finds_nothing(shop: Shop, query: str) -> None:
    assert len(shop.searcher.search(query, k=5, explain=True)) <= 5


def test_a_product_is_found_first_by_its_own_title(shop: Shop) -> None:
    titles = [p.title.lower() for p in shop.data.products]
    alone = [p for p in shop.data.products if titles.count(p.title.lower()) == 1]
    run = shop.searcher.search_many({p.product_id: p.title for p in alone}, k=1)
    missed = [p.title for p in alone if next(iter(run[p.product_id])) != p.product_id]
    assert len(alone) > 100
    assert not missed


def test_an_explanation_adds_up(shop: Shop) -> None:
    by_codes = [feature.name for feature in FEATURES if feature.group == "codes"]
    explained = 0
    for query in list(shop.data.parts["test"].queries.values())[:20]:
        plain = shop.searcher.search(query, k=5)
        for hit, same in zip(shop.searcher.search(query, k=5, explain=True), plain, strict=True):
            assert (hit.product_id, hit.score) == (same.product_id, same.score)
            assert sum(hit.features.values()) == pytest.approx(hit.score, rel=1e-3, abs=1e-4)
            from_codes = sum(max(hit.features.get(name, 0.0), 0.0) for name in by_codes)
            shares = sum(shared.share for shared in hit.codes)
            speaking_for = sum(max(hit.features.get(name, 0.0), 0.0) for name in NAMES)
            assert 0 <= shares * speaking_for <= from_codes + 1e-3, "some of codes' part is of no single one"
            assert 0 <= shares <= 1.001
            singles = [c for c in hit.codes if len(c.code) == 1]
            assert all(c.share > 0 for c in hit.codes if len(c.code) > 1)
            assert singles or not hit.codes
            assert [c.share for c in hit.codes] == sorted((c.share for c in hit.codes), reverse=True)
            assert same.codes == ()
            explained += bool(hit.codes)
    assert explained > 20


def test_a_shared_code_that_both_texts_hold_stands_in_both(shop: Shop) -> None:
    product = shop.data.products[3]
    hit = shop.searcher.search(product.title, k=1, explain=True)[0]
    lexical = [c.code[0].value for c in hit.codes if c.query_source == c.product_source == "lexical"]
    assert lexical
    assert all(
        value in hit.title.lower().replace("-", " ") for value in lexical if value.isalpha() and " " not in value
    )


def test_many_queries_are_answered_as_one_by_one(shop: Shop) -> None:
    queries = dict(list(shop.data.parts["test"].queries.items())[:12])
    run = shop.searcher.search_many(queries, k=8)
    assert list(run) == list(queries)
    for query_id, query in queries.items():
        alone = {hit.product_id: hit.score for hit in shop.searcher.search(query, k=8)}
        assert list(run[query_id].values()) == pytest.approx(list(alone.values()), rel=1e-3, abs=1e-3)
        common = run[query_id].keys() & alone.keys()
        assert len(common) >= len(alone) - 1  # the last rank may go to either of two that are level
        assert all(run[query_id][p] == pytest.approx(alone[p], rel=1e-3, abs=1e-3) for p in common)


def test_groups_are_fitted_to_a_trained_engine_as_its_training_fitted_them(shop: Shop) -> None:
    whole, codes = tuple(GROUPS), ("codes",)
    found = fit_groups(shop.searcher, shop.data.log, SETTINGS.training.seed, {"all": whole, "codes": codes})
    for name, file in (("all", FILE), ("codes", file_of(codes))):
        trained = Scorer.load(shop.model, file)
        np.testing.assert_allclose(found[name].weights, trained.weights, atol=1e-3)
        assert found[name].shift == pytest.approx(trained.shift, abs=1e-3)
    untold = fit_groups(shop.searcher, [], 0, {"codes": codes})["codes"]
    assert untold.by_name() == Scorer.default(codes).without(("compound",)).by_name()
    assert untold.by_name() != found["codes"].by_name()


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(shop: Shop, tmp_path: Path) -> None:
    train(shop.data.products, shop.data.log, tmp_path / "again", SETTINGS)
    assert same_weights(tmp_path / "again", shop.model)
    assert read_json(tmp_path / "again" / "config.json")["scorer"] == read_json(shop.model / "config.json")["scorer"]
    other = replace(SETTINGS, training=replace(SETTINGS.training, seed=7))
    train(shop.data.products, shop.data.log, tmp_path / "other", other)
    assert not same_weights(tmp_path / "other", shop.model)


def test_a_stage_can_be_left_out(shop: Shop, tmp_path: Path) -> None:
    fewer = [stage for stage in STAGES if stage.name not in ("co-alignment", "health")]
    assert len(fewer) == len(STAGES) - 2
    train(shop.data.products, shop.data.log, tmp_path / "model", SETTINGS, stages=fewer)
    assert {row["stage"] for row in figures_of(tmp_path / "model")} == {"joint", "co-training"}
    assert read_json(tmp_path / "model" / "health.json") == {}
    ours, whole = weights_of(tmp_path / "model"), weights_of(shop.model)
    different = {name for name in whole if not torch.equal(ours[name], whole[name])}
    assert different
    assert all(name.startswith("decoder.") for name in different), "what co-alignment moves, and nothing else"
    make_index(tmp_path / "model", shop.data.products[:20], tmp_path / "index")
    assert Searcher.load(tmp_path / "index").search(shop.data.products[0].title, k=1)


def test_a_stage_can_be_replaced(shop: Shop, tmp_path: Path) -> None:
    def by_value(run: TrainingRun) -> None:
        run.scorer = Scorer.default().with_value(7.5)

    stages = [Stage("scorer", by_value) if stage.name == "scorer" else stage for stage in STAGES]
    train(shop.data.products, shop.data.log, tmp_path / "model", SETTINGS, stages=stages)
    assert Scorer.load(tmp_path / "model").by_name() == Scorer.default().by_name() | {"value": 7.5}
    assert same_weights(tmp_path / "model", shop.model), "the other stages are as they were"


def test_without_code_losses_nothing_that_makes_codes_is_trained(shop: Shop, tmp_path: Path) -> None:
    moved: set[str] = set()

    def watched(run: TrainingRun) -> None:
        before = {name: value.clone() for name, value in run.coder.state_dict().items()}
        train_jointly(run)
        moved.update(name for name, value in run.coder.state_dict().items() if not torch.equal(value, before[name]))

    plain = replace(SETTINGS, training=replace(SETTINGS.training, code_losses=False, co_training=0))
    stages = [Stage("joint", watched) if stage.name == "joint" else stage for stage in STAGES]
    train(shop.data.products, shop.data.log, tmp_path / "model", plain, stages=stages)
    rows = [row for row in figures_of(tmp_path / "model") if row["stage"] == "joint"]
    parts = {"contrastive", "contrastive_dense", "contrastive_tokens"}
    of_codes = {"contrastive_codes", "query", "product", "flops", "query_codes", "product_codes"}
    assert parts | of_codes <= figures_of(shop.model)[0].keys()
    assert len(rows) == 6
    for row in rows:
        assert parts <= row.keys()
        assert not of_codes & row.keys()
    assert any(name.startswith("network.encoder.") for name in moved)
    assert {"network.token_projection.weight", "network.token_gate.weight"} <= moved
    makes_codes = ("decoder.", "network.logit_", "network.match", "network.floor", "network.expansion_base",
                   "network.lexical_base", "network.attribute_shift", "network.gate", "log_temperature")  # fmt: skip
    assert not [name for name in moved if name.startswith(makes_codes)]


def killed_at(step: int, patch: pytest.MonkeyPatch, stage: str = "joint") -> None:
    """Training stops dead before that step, as a process that is killed does."""
    loss = JointTrainer.loss

    def until_killed(trainer: JointTrainer, *args: Any) -> Any:
        if trainer.coder.training and (trainer.stage, trainer.done + 1) == (stage, step):
            raise KeyboardInterrupt
        return loss(trainer, *args)

    patch.setattr(JointTrainer, "loss", until_killed)


@pytest.mark.parametrize(
    ("stage", "step", "again"),
    [
        (
            "joint",
            6,
            [("joint", 5), ("joint", 6), ("co-training", 1), ("co-training", 2)],
        ),
        ("co-training", 2, [("co-training", 2)]),
    ],
)
def test_a_killed_training_leaves_no_model_and_is_resumed_to_the_same_weights(
    stage: str, step: int, again: list[tuple[str, int]], shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        killed_at(step, patch, stage)
        with pytest.raises(KeyboardInterrupt):
            train(shop.data.products, shop.data.log, tmp_path / "model", SETTINGS)
    assert not (tmp_path / "model").exists()
    steps: list[tuple[str, int]] = []
    loss = JointTrainer.loss

    def counted(trainer: JointTrainer, *args: Any) -> Any:
        steps.extend([(trainer.stage, trainer.done + 1)] if trainer.coder.training else [])
        return loss(trainer, *args)

    with monkeypatch.context() as patch:
        patch.setattr(JointTrainer, "loss", counted)
        patch.setattr(gram.coder.precision, "fast_dtype", lambda _: torch.bfloat16)  # on another machine, say
        train(shop.data.products, shop.data.log, tmp_path / "model", SETTINGS, resume=True)
    assert steps == again
    assert same_weights(tmp_path / "model", shop.model)
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


def test_later_stages_can_begin_with_joint_training_done_before(shop: Shop, tmp_path: Path) -> None:
    train(shop.data.products, shop.data.log, tmp_path / "one", SETTINGS, joint=tmp_path / "joint.safetensors")
    train(shop.data.products, shop.data.log, tmp_path / "two", SETTINGS, joint=tmp_path / "joint.safetensors")
    assert same_weights(tmp_path / "one", tmp_path / "two")
    only = replace(SETTINGS, training=replace(SETTINGS.training, co_training=0), alignment=CoAlignmentSettings(steps=0))
    train(shop.data.products, shop.data.log, tmp_path / "joint", only, joint=tmp_path / "joint.safetensors")
    one, joint = weights_of(tmp_path / "one"), weights_of(tmp_path / "joint")
    assert any(not torch.equal(one[name], joint[name]) for name in one if name.startswith("decoder."))


def test_a_killed_training_leaves_the_old_model_whole(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(shop.model, tmp_path / "model")
    with monkeypatch.context() as patch:
        killed_at(3, patch)
        other = replace(SETTINGS, training=replace(SETTINGS.training, seed=7))
        with pytest.raises(KeyboardInterrupt):
            train(shop.data.products, shop.data.log, tmp_path / "model", other)
    assert same_weights(tmp_path / "model", shop.model)


def test_what_was_begun_with_other_settings_is_not_resumed(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        killed_at(3, patch)
        with pytest.raises(KeyboardInterrupt):
            train(shop.data.products, shop.data.log, tmp_path / "model", SETTINGS)
    other = replace(SETTINGS, training=replace(SETTINGS.training, batch=8))
    with pytest.raises(SettingError, match="begun with other data or settings"):
        train(shop.data.products, shop.data.log, tmp_path / "model", other, resume=True)
    begun = tmp_path / "model.work" / "begun.json"
    whole = json.loads(begun.read_text())
    for damaged in ([], "x", None, whole | {"dtype": ["float32"]}, whole | {"dtype": "float16"}):
        begun.write_text(json.dumps(damaged))
        with pytest.raises(SettingError, match="begun with other data or settings"):
            train(shop.data.products, shop.data.log, tmp_path / "model", SETTINGS, resume=True)


def test_an_index_is_not_searched_with_another_model(shop: Shop, tmp_path: Path) -> None:
    shutil.copytree(shop.model, tmp_path / "other")
    with (tmp_path / "other" / "lexicon.jsonl").open("ab") as lexicon:
        lexicon.write(b"\n")
    with pytest.raises(IndexMismatch, match="was built with model"):
        Searcher.load(shop.index, tmp_path / "other", check=False)
    with pytest.raises(ModelError, match=r"lexicon\.jsonl: is damaged"):
        Searcher.load(shop.index, tmp_path / "other")


def test_a_moved_index_finds_its_model_beside_it_or_says_what_to_name(shop: Shop, tmp_path: Path) -> None:
    shutil.copytree(shop.index, tmp_path / "moved")
    meta = (tmp_path / "moved" / "meta.json").read_text(encoding="utf-8")
    gone = str(tmp_path / "gone" / "model")
    (tmp_path / "moved" / "meta.json").write_text(meta.replace(str(shop.model), gone), encoding="utf-8")
    with pytest.raises(IndexFolderError, match="--model"):
        Searcher.load(tmp_path / "moved", check=False)
    shutil.copytree(shop.model, tmp_path / "model")
    assert Searcher.load(tmp_path / "moved", check=False).search("shoes", k=1) == shop.searcher.search("shoes", k=1)


def test_what_is_no_model_is_named(shop: Shop, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="not a model folder"):
        make_index(tmp_path / "nothing", shop.data.products, tmp_path / "index")
    shutil.copytree(shop.model, tmp_path / "cut")
    weights = tmp_path / "cut" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    for check, said in ((True, r"model\.safetensors: is damaged: bytes 1000"), (False, "cannot be read")):
        with pytest.raises(ModelError, match=said):
            make_index(tmp_path / "cut", shop.data.products, tmp_path / "index", check=check)
    assert not (tmp_path / "index").exists()


def test_products_and_words_that_training_never_saw_are_found(shop: Shop, tmp_path: Path) -> None:
    new = [
        Product("n1", "Quixotrax Blorptable 9000Z", brand="Zumbrel"),
        Product("n2", "Plumbago wheelie", description="with a frobnicator"),
        Product("n3", "!!!"),
        Product("n4", "ガラス瓶"),
    ]
    make_index(shop.model, [*shop.data.products[:20], *new], tmp_path / "index")
    searcher = Searcher.load(tmp_path / "index")
    for query, product_id in (("blorptable", "n1"), ("zumbrel 9000z", "n1"), ("frobnicator", "n2"), ("wheelie", "n2")):
        assert ids(searcher.search(query, k=1)) == [product_id], query
    hit = searcher.search("blorptable", k=1, explain=True)[0]
    lexical = [c.code[0].value for c in hit.codes if c.query_source == c.product_source == "lexical"]
    assert len(lexical) == 1
    assert lexical[0].startswith("blorptabl"), "six steps of training may like an expansion better"


def test_a_word_that_one_query_says_and_no_product_is_not_known(shop: Shop) -> None:
    lexicon = shop.searcher.lexicon.extend({"shoez": 0})
    for queries, known in ((1.0, False), (2.0, True)):
        counted = replace(lexicon, queries=np.append(lexicon.queries[:-1], np.float32(queries)))
        assert ("shoez" in make_speller(shop.searcher.index, counted).counts) == known


def test_a_word_of_one_product_is_read_where_the_encoder_knows_it(shop: Shop) -> None:
    products = [*shop.data.products, Product("t", "Zorblat accordion")]
    index = build_index(shop.searcher.model_coder, products)
    searcher = Searcher(shop.searcher.model_coder, index, shop.searcher.scorer)
    assert searcher.speller.correct("accordiom") is None, "an encoder from scratch has not read of any"
    speller = make_speller(index, searcher.lexicon, lambda word: word == "accordion")
    assert (speller.correct("accordiom"), speller.correct("zorblaf")) == ("accordion", None)


def test_words_that_leave_something_out_are_never_misspelt(shop: Shop) -> None:
    searcher = shop.searcher
    speller = make_speller(searcher.index, searcher.lexicon)
    assert {"without", "not"} <= speller.counts.keys()
    assert "without" not in searcher.index.bm25.ids, "no product says it"


def test_an_id_twice_is_refused_before_the_work(shop: Shop, tmp_path: Path) -> None:
    twice = [*shop.data.products[:5], shop.data.products[0]]
    with pytest.raises(SettingError, match="stands twice"):
        train(twice, [], tmp_path / "new", SETTINGS)
    with pytest.raises(SettingError, match="stands twice"):
        make_index(shop.model, twice, tmp_path / "new")


def test_a_relative_model_name_does_not_mean_another_shops(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("ours", "theirs"):
        shutil.copytree(shop.model, tmp_path / name / "model")
    with (tmp_path / "theirs" / "model" / "lexicon.jsonl").open("a") as lexicon:
        lexicon.write("\n")
    monkeypatch.chdir(tmp_path / "ours")
    make_index("model", shop.data.products[:20], "index")
    monkeypatch.chdir(tmp_path / "theirs")
    assert Searcher.load("../ours/index").search("shoes", k=1)


def test_a_new_word_weighs_what_its_rarity_says_whatever_the_catalogues_size(shop: Shop, tmp_path: Path) -> None:
    """As many of four times the products hold it: among the lexicon's products a fourth would."""
    few = shop.searcher.lexicon.n_products
    many = [Product(f"n{i}", "Plumbago wheelie" if i < 40 else "Mug") for i in range(4 * few)]
    make_index(shop.model, many, tmp_path / "index")
    made = Searcher.load(tmp_path / "index").index
    assert dict(zip(made.extra_words, made.extra_counts.tolist(), strict=True))["wheeli"] == 10


def test_a_misspelt_word_is_read_by_the_words_beside_it(shop: Shop, tmp_path: Path) -> None:
    parts = [Product(f"p{i}", "Zumbrage door handle") for i in range(3)]
    wires = [Product(f"w{i}", "Copper wire zumbauge") for i in range(5)]
    make_index(shop.model, [*shop.data.products[:20], *parts, *wires], tmp_path / "index")
    searcher = Searcher.load(tmp_path / "index")
    # The model never saw either word, so it knows their stems alone.
    assert searcher.read("zumbrauge door").text == "zumbrag door"
    assert searcher.read("Wire Zumbrauge").text == "wire zumbaug"
    assert searcher.read("zumbrauge").text == "zumbaug", "the more common one"
    assert searcher.read("Zumbrage  Door").text == "Zumbrage  Door", "nothing to mend"


def test_what_a_query_leaves_out_is_not_read_as_something_else(shop: Shop, tmp_path: Path) -> None:
    new = [Product(f"p{i}", "Zumbage door frobnitz") for i in range(3)]
    make_index(shop.model, [*shop.data.products[:20], *new], tmp_path / "index")
    searcher = Searcher.load(tmp_path / "index")
    assert searcher.read("zumbxge frobnitx").text == "zumbag frobnitz"
    for query in ("boots without zumbxge", "boots not any zumbxge", "without zumbxge"):
        assert searcher.read(query).text == query
    assert searcher.read("frobnitx without zumbxge, zumbxge").text == "frobnitz without zumbxge zumbag"
    assert searcher.read("boots without frobnitz zumbxge").text == "boots without frobnitz zumbag", "the second word"


def test_a_catalogue_of_titles_alone_without_a_log_is_enough(shop: Shop, tmp_path: Path) -> None:
    products = [Product(p.product_id, p.title) for p in shop.data.products[:60]]
    brief = replace(SETTINGS, training=replace(SETTINGS.training, steps=2))
    train(products, [], tmp_path / "model", brief)
    make_index(tmp_path / "model", products, tmp_path / "index")
    assert "queries" not in read_json(tmp_path / "model" / "health.json")
    assert ids(Searcher.load(tmp_path / "index").search(products[5].title, k=1)) == [products[5].product_id]


def test_a_catalogue_of_one_product_is_enough(tmp_path: Path) -> None:
    brief = replace(SETTINGS, training=replace(SETTINGS.training, steps=2))
    train([Product("only", "Red garden hose")], [], tmp_path / "model", brief)
    make_index(tmp_path / "model", [Product("only", "Red garden hose")], tmp_path / "index")
    assert ids(Searcher.load(tmp_path / "index").search("hose")) == ["only"]


def test_no_products_is_refused(shop: Shop, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="no products to train on"):
        train([], [], tmp_path / "model", SETTINGS)
    with pytest.raises(SettingError, match="no products to index"):
        make_index(shop.model, [], tmp_path / "index")


def test_the_shops_own_value_moves_products_up(shop: Shop) -> None:
    values = {p.product_id: float(p.value or 0) for p in shop.data.products}
    query = next(iter(shop.data.parts["test"].queries.values()))
    heavy = shop.searcher.with_scorer(shop.searcher.scorer.with_value(1e6))
    found = [values[p] for p in ids(heavy.search(query, k=10))]
    assert found == sorted(found, reverse=True)
    assert np.mean(found) >= np.mean([values[p] for p in ids(shop.searcher.search(query, k=10))])


HOSTILE = {
    "unspaced CJK": "靴下" * 5_000,
    "combining marks": "a" + "\u0301" * 100_000,
    "Thai": "รองเท้าผ้าใบ" * 50,
    "Arabic": "حذاء رياضي للرجال",
    "emoji": "👟👨\u200d👩\u200d👧🏽" * 40,
    "punctuation": "?!#%&/()=" * 30,
    "stop words": "the of and for with",
    "nothing": "",
    "blanks": " \t\n\u3000\u200b",
    "one long word": "a" * 1_000_000,
    "many words": "sofa " * 5_000,
    "many different words": " ".join(f"w{i}x" for i in range(3_000)),
    "NUL": "so\x00fa",
    "lone surrogate": "sofa \ud800",
    "escapes": "\x1b[2J\x1b]0;x\x07sofa",
    "right to left": "\u202esofa",
    "a regular expression": "(((a+)+)+)+$" * 20,
    "quotes": "\"'`“”" * 40 + " 5'6\"",
    "numbers": "9" * 5_000 + " 1/0 0.0000 1e999 ½⅓",
    "units": "in ft gal 5 in 5 ft x x x",
    "a path": "../../etc/passwd",
    "markup": "<script>alert(1)</script>",
    "SQL": "'; DROP TABLE products; --",
    "full width": "ＳＯＦＡ　３　ｉｎ",
    "ligatures": "ﬁnish ﬀ ﷺ" * 20,
}


@pytest.mark.parametrize("query", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_query_is_answered_at_once(shop: Shop, query: str) -> None:
    begin = time.process_time()
    hits = shop.searcher.search(query, k=5, explain=True)
    assert time.process_time() - begin < 5, "some hundredths of a second"
    assert len(hits) <= 5
    assert all(np.isfinite(hit.score) for hit in hits)
    if not shop.searcher.represent([query])[0].terms.stems:
        assert hits == []


def test_many_threads_find_the_same_while_the_index_is_replaced(shop: Shop, tmp_path: Path) -> None:
    make_index(shop.model, shop.data.products, tmp_path / "index")
    queries = dict(list(shop.data.parts["test"].queries.items())[:6])
    expected = Searcher.load(tmp_path / "index", shop.model).search_many(queries, k=10)

    def answer(_: int) -> bool:
        found = Searcher.load(tmp_path / "index", shop.model)
        return all(found.search_many(queries, k=10) == expected for _ in range(3))

    with ThreadPoolExecutor(8) as pool:
        answers = pool.map(answer, range(16))
        for _ in range(3):
            make_index(shop.model, shop.data.products, tmp_path / "index")
        assert all(answers)
