"""A language model as coder: codes as text, decoding along codes that exist, training, and the command line.

Models are made on the spot, of the true architectures, with random weights and a tokenizer learnt from the texts; a
pretrained one is saved as Hugging Face saves it and loaded as a user's would be.
"""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from tiny_causal import SETTINGS, TINY

import gram.coder.causal.cache
import gram.training.causal.stages
from gram.arrays import SparseRows
from gram.cli import main
from gram.coder.base import PRODUCT_CODING, QUERY_CODING, Side
from gram.coder.beam import BeamOptions, TorchTrie, beam_search
from gram.coder.causal.cache import CodeCache, TextCodes
from gram.coder.causal.coder import CausalCoder, WritingSettings
from gram.coder.causal.decoding import NextToken, TokenTrie, code_tokens
from gram.coder.causal.language_model import LanguageModel, LanguageModelSettings
from gram.coder.causal.loading import check_language_model, load_language_model, rebuild
from gram.coder.causal.text import read_code, write_code, write_prompt
from gram.coder.folder import load_coder
from gram.codes.mining import mine
from gram.codes.space import CodeTargets, add_targets
from gram.data.dataset import Dataset
from gram.errors import DataError, ModelError, SettingError
from gram.indexing import make_index
from gram.records import Attribute, Interaction, Product
from gram.search import Searcher
from gram.training.causal.co_alignment import CausalCoAlignment
from gram.training.causal.co_training import make_co_training_samples
from gram.training.causal.likelihood import LikelihoodTrainer
from gram.training.causal.samples import CodeSamples
from gram.training.causal.settings import CausalSettings
from gram.training.pipeline import CAUSAL_STAGES, train
from gram.training.preferences import CompoundCodes, draw_preferences, efficiency
from gram.training.run import Settings

LINES = ["type: sofa", "type: couch", "type: sofa | colour: blue", "type: sofa | colour: navy", "brand: x, y & z"]
PROMPTS = ["query: blue couch\ncode:", "product: a large sofa from nowhere ; Aldo\ncode:"]
KINDS = ("scratch-qwen3", "scratch-llama", "scratch-t5")


def tiny(name: str, **more: Any) -> LanguageModel:
    torch.manual_seed(0)
    return load_language_model(LanguageModelSettings(name=name, vocabulary=400, **more), [*LINES, *PROMPTS]).eval()


class TestText:
    @given(
        st.lists(st.builds(Attribute, st.text(max_size=8), st.text(max_size=20)), min_size=1, max_size=6),
    )
    @settings(max_examples=300)
    def test_a_code_is_read_back_as_it_was_written(self, code: list[Attribute]) -> None:
        line = write_code(code)
        assert read_code(line) == tuple(code)
        assert "\n" not in line

    def test_a_line_that_is_no_code(self) -> None:
        with pytest.raises(ValueError, match="no attribute"):
            read_code("just words")

    def test_sides_differ_and_a_product_says_each_thing_once(self) -> None:
        product = Product("1", "Oak Desk", brand="Oak Desk", description="word " * 100)
        prompt = write_prompt(product, Side.PRODUCT)
        assert prompt.count("Oak Desk") == 1
        assert prompt.count("word") == 24
        assert write_prompt("Oak Desk", Side.QUERY) != write_prompt(product, Side.PRODUCT)


class TestDecoding:
    @pytest.mark.parametrize("kind", KINDS)
    def test_the_beam_is_brute_force(self, kind: str) -> None:
        """Every code's log-probability, normalised over what may follow, is what the model says token by token."""
        model = tiny(kind)
        codes = code_tokens(model, LINES)
        trie = TokenTrie.build(codes).trie
        prompts = model.read_prompts(PROMPTS)
        assert len(set(map(len, prompts))) > 1  # so that one of them is padded
        with torch.inference_mode():
            found = beam_search(TorchTrie(trie), NextToken(model, prompts), 2, BeamOptions(8, 8))
            for row, prompt in enumerate(prompts):
                expected = {code: self._log_prob(model, trie, prompt, tokens) for code, tokens in enumerate(codes)}
                ids = found.code_ids[row][found.code_ids[row] >= 0].tolist()
                assert ids == sorted(expected, key=lambda code: -expected[code])
                np.testing.assert_allclose(found.log_probs[row][: len(ids)], sorted(expected.values())[::-1], atol=1e-4)
        assert sum(np.exp(found.log_probs[0][:5].tolist())) == pytest.approx(1, abs=1e-4)

    @staticmethod
    def _log_prob(model: LanguageModel, trie: Any, prompt: list[int], code: list[int]) -> float:
        total = 0.0
        for t, token in enumerate([*code, model.end_id]):
            node = trie.find(code[:t])
            allowed = sorted({*trie.children([node]).token.tolist(), *([model.end_id] if trie.is_end[node] else [])})
            said = torch.stack([model.log_probs([prompt], [[*code[:t], a]])[0, t] for a in allowed])
            total += float(torch.log_softmax(said, 0)[allowed.index(token)])
        return total

    @pytest.mark.parametrize("kind", KINDS)
    def test_what_a_batch_says_of_a_text_is_what_is_said_of_it_alone(self, kind: str) -> None:
        model = tiny(kind)
        prompts, codes = model.read_prompts(PROMPTS), model.read_codes(LINES[1:3])
        both = model.log_probs(prompts, codes)
        for row in range(2):
            alone = model.log_probs(prompts[row : row + 1], codes[row : row + 1])[0]
            torch.testing.assert_close(both[row, : len(alone)], alone, atol=1e-4, rtol=1e-4)
            assert not both[row, len(alone) :].any()

    def test_codes_of_the_same_tokens_are_one(self) -> None:
        trie = TokenTrie.build([[5, 6], [5], [5, 6], []])
        assert len(trie.trie) == 2
        assert trie.code_id.tolist() == [0, 1]

    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("tied", [True, False])
    def test_rebuilt_it_says_the_same(self, kind: str, tied: bool, tmp_path: Path) -> None:
        settings = LanguageModelSettings(name=str(save_pretrained(tmp_path, kind, tied)), lora=0)
        model = load_language_model(settings).eval()
        weights = {name: weight.clone() for name, weight in model.trainable().items()}
        described = json.loads(json.dumps(model.describe()))
        again = rebuild(described, model.tokenizer.to_str(), weights).eval()
        prompts, codes = model.read_prompts(PROMPTS), model.read_codes(LINES[:2])
        torch.testing.assert_close(again.log_probs(prompts, codes), model.log_probs(prompts, codes))
        embeddings, head = again.model.get_input_embeddings().weight, again.model.get_output_embeddings().weight
        assert (embeddings.data_ptr() == head.data_ptr()) == tied

    def test_a_long_text_is_cut_and_still_asks_for_a_code(self) -> None:
        model = tiny("scratch-qwen3")
        (short,), (long,) = model.read_prompts(["query: x\ncode:"]), model.read_prompts([f"query: {'x ' * 999}\ncode:"])
        assert len(long) <= 160
        assert long[-2:] == short[-2:]


ROW = TextCodes(np.array([3, 1], np.int32), np.array([-0.5, -2.0], np.float32))


class TestCache:
    def test_what_is_kept_is_found_by_the_same_model_alone(self, tmp_path: Path) -> None:
        CodeCache(tmp_path / "c", "a", 4).keep({"p": ROW})
        found = CodeCache(tmp_path / "c", "a", 4).find(["p", "q"])
        assert list(found) == ["p"]
        assert found["p"].code.tolist() == [3, 1]
        assert found["p"].log_prob.tolist() == [-0.5, -2.0]
        assert CodeCache(tmp_path / "c", "b", 4).find(["p"]) == {}

    def test_another_file(self, tmp_path: Path) -> None:
        (tmp_path / "c").write_text("no database " * 100)
        with pytest.raises(DataError, match="no cache of written codes"):
            CodeCache(tmp_path / "c", "a", 4)
        with sqlite3.connect(tmp_path / "d") as other:
            other.execute("CREATE TABLE written (name TEXT)")
        with pytest.raises(DataError, match="its columns are name"):
            CodeCache(tmp_path / "d", "a", 4)

    def test_threads_share_one(self, tmp_path: Path) -> None:
        cache = CodeCache(tmp_path / "c", "a", 4)

        def use(thread: int) -> int:
            for i in range(60):
                cache.keep({f"{thread} {i}": ROW})
                cache.find([f"{thread} {j}" for j in range(60)])
            return len(cache.find([f"{thread} {j}" for j in range(60)]))

        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(use, range(8))) == [60] * 8

    @pytest.mark.parametrize(
        ("code", "log_prob"),
        [
            (b"\1\0\0", b"\0\0\0"),
            (b"\1\0\0\0", b""),
            (np.array([4], np.int32).tobytes(), np.zeros(1, np.float32).tobytes()),
            (np.array([-1], np.int32).tobytes(), np.zeros(1, np.float32).tobytes()),
            (np.array([1], np.int32).tobytes(), np.array([np.nan], np.float32).tobytes()),
            ("text", "text"),
        ],
    )
    def test_a_damaged_row_is_as_good_as_none(self, tmp_path: Path, code: object, log_prob: object) -> None:
        cache = CodeCache(tmp_path / "c", "a", 4)
        cache.keep({"p": ROW, "q": ROW})
        with sqlite3.connect(tmp_path / "c") as other:
            other.execute("UPDATE written SET code = ?, log_prob = ? WHERE key = ?", (code, log_prob, cache.key("p")))
        assert list(cache.find(["p", "q"])) == ["q"]

    def test_a_cache_that_another_process_holds_is_not_to_be_removed(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(gram.coder.causal.cache, "WAIT", 0.0)
        cache = CodeCache(tmp_path / "c", "a", 4)
        cache.check_writable()
        other = sqlite3.connect(tmp_path / "c", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        for use in (cache.check_writable, lambda: cache.keep({"p": ROW})):
            with pytest.raises(DataError, match="database is locked") as caught:
                use()
            assert "remove it" not in str(caught.value)
        other.execute("ROLLBACK")
        cache.keep({"p": ROW})

    def test_codes_are_not_written_where_they_cannot_be_kept(
        self, causal_data: Dataset, causal_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        causal_data.write(tmp_path)
        shutil.copytree(causal_model, tmp_path / "model")
        (tmp_path / "model.codes.sqlite").mkdir()
        monkeypatch.setattr(CausalCoder, "write", lambda *_, **__: pytest.fail("codes were written"))
        done = CliRunner().invoke(main, ["code", str(tmp_path / "model"), str(tmp_path / "products.jsonl.gz")])
        assert done.exit_code == 2
        assert "model.codes.sqlite: written codes cannot be kept" in done.output


class TestTraining:
    def test_the_folder_is_opened_indexed_and_searched_like_any_other(
        self, causal_data: Dataset, causal_model: Path, tmp_path: Path
    ) -> None:
        index = make_index(causal_model, causal_data.products, tmp_path / "index")
        searcher = Searcher.load(index, causal_model)
        query = next(iter(causal_data.parts["test"].queries.values()))
        hits = searcher.search(query, k=5, explain=True)
        assert len(hits) == 5
        assert searcher.only(["codes"]).search(query, k=5)
        coder = searcher.coder
        assert isinstance(coder, CausalCoder)
        found = coder.represent(causal_data.products[:9], Side.PRODUCT, PRODUCT_CODING)
        assert (found.compound.key < len(coder.trie)).all()
        assert (found.compound.counts() > 0).all()
        assert found.dense.shape == (9, 1)

    def test_nothing_is_asked_of_the_model_where_no_codes_are_wanted(self, causal_model: Path) -> None:
        coder = load_coder(causal_model)
        assert isinstance(coder, CausalCoder)
        coder.model.model = None
        found = coder.represent(["red sofa"], Side.QUERY, replace(QUERY_CODING, codes=0))
        assert not len(found.compound.key)

    def test_what_was_written_is_not_written_again(self, causal_model: Path) -> None:
        coder = load_coder(causal_model)
        assert isinstance(coder, CausalCoder)
        first = coder.write(["red sofa", "blue lamp"], Side.QUERY)
        again = load_coder(causal_model)
        assert isinstance(again, CausalCoder)
        again.model.model = None
        second = again.write(["blue lamp", "red sofa"], Side.QUERY)
        assert [row.code.tolist() for row in second] == [row.code.tolist() for row in first][::-1]

    def test_more_codes_are_written_where_they_are_asked_for(self, causal_model: Path) -> None:
        coder = load_coder(causal_model)
        assert isinstance(coder, CausalCoder)
        wide = coder.with_writing(WritingSettings(40, 50, 50))
        (few,), (many,) = (one.write(["blue sofa"], Side.QUERY) for one in (coder, wide))
        assert (len(few.code), len(many.code)) == (16, 40)  # though the cache knows the query's sixteen
        assert many.log_prob[:16].sum() >= few.log_prob.sum() - 1e-3  # a wider beam finds none less likely
        (again,) = load_coder(causal_model).write(["blue sofa"], Side.QUERY)
        assert again.code.tolist() == few.code.tolist()

    def test_saved_and_loaded_it_writes_the_same(
        self, causal_data: Dataset, causal_model: Path, tmp_path: Path
    ) -> None:
        coder = load_coder(causal_model)
        assert isinstance(coder, CausalCoder)
        coder.save(tmp_path, {})
        again = load_coder(tmp_path)
        assert isinstance(again, CausalCoder)
        texts = causal_data.products[:5]
        for a, b in zip(coder.write(texts, Side.PRODUCT), again.write(texts, Side.PRODUCT), strict=True):
            assert a.code.tolist() == b.code.tolist()

    def test_a_stopped_run_ends_in_the_same_weights(
        self, causal_data: Dataset, causal_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        step, taken = LikelihoodTrainer.step, 0

        def stop(trainer: LikelihoodTrainer) -> dict[str, float]:
            nonlocal taken
            taken += 1
            if taken == 65:
                raise KeyboardInterrupt
            return step(trainer)

        monkeypatch.setattr(LikelihoodTrainer, "step", stop)
        with pytest.raises(KeyboardInterrupt):
            train(causal_data.products, causal_data.log, tmp_path / "model", SETTINGS)
        train(causal_data.products, causal_data.log, tmp_path / "model", SETTINGS, resume=True)
        assert taken < 65 + 140  # it did not begin anew
        assert (tmp_path / "model" / "model.safetensors").read_bytes() == (
            causal_model / "model.safetensors"
        ).read_bytes()

    @pytest.mark.parametrize("content", [b"", b"damaged", None])
    def test_a_damaged_checkpoint(
        self, content: bytes | None, causal_data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from gram.training.causal.likelihood import LikelihoodTrainer

        causal = CausalSettings(model=TINY, steps=3, batch=4, validate_every=2)
        step = LikelihoodTrainer.step

        def stop(trainer: LikelihoodTrainer) -> dict[str, float]:
            if trainer.done == 2:
                raise KeyboardInterrupt
            return step(trainer)

        monkeypatch.setattr(LikelihoodTrainer, "step", stop)
        with pytest.raises(KeyboardInterrupt):
            train(causal_data.products, causal_data.log, tmp_path / "model", Settings(causal=causal))
        checkpoint = tmp_path / "model.work" / "joint.pt"
        if content is None:
            torch.save({"weights": {}, "origin": ""}, checkpoint)
        else:
            checkpoint.write_bytes(content)
        with pytest.raises(ModelError, match=r"joint.pt: its weights cannot be used .* Fix: train without --resume"):
            train(causal_data.products, causal_data.log, tmp_path / "model", Settings(causal=causal), resume=True)

    def test_a_damaged_file_of_joint_weights(self, causal_data: Dataset, tmp_path: Path) -> None:
        joint = tmp_path / "joint.safetensors"
        joint.write_bytes(b"damaged" * 9)
        for chosen in (SETTINGS, Settings(backbone="scratch")):
            with pytest.raises(ModelError, match=r"joint.safetensors: its weights cannot be used .* Fix: remove it"):
                train(causal_data.products[:40], causal_data.log, tmp_path / "model", chosen, joint=joint)

    def test_without_a_log(self, causal_data: Dataset, tmp_path: Path) -> None:
        folder = train(causal_data.products[:60], [], tmp_path / "model", SETTINGS)
        searcher = Searcher.load(make_index(folder, causal_data.products[:60], tmp_path / "index"), folder)
        assert searcher.search("sofa")

    def test_every_stage_did_something(self, causal_model: Path) -> None:
        rows = [json.loads(line) for line in (causal_model / "training.jsonl").open()]
        steps = Counter(row["stage"] for row in rows)
        assert steps["joint"] == 140
        assert steps["co-training"] == 10
        assert 0 < steps["co-alignment"] <= 6
        aligned = [row for row in rows if row["stage"] == "co-alignment"]
        assert all(np.isfinite(row["preference"]) for row in aligned)

    def test_likelihood_falls(self, causal_data: Dataset, tmp_path: Path) -> None:
        longer = Settings(causal=CausalSettings(model=TINY, steps=60, batch=16, validate_every=20))
        stages = [stage for stage in CAUSAL_STAGES if stage.name in ("lexicon", "joint")]
        train(causal_data.products, causal_data.log, tmp_path / "model", longer, stages=stages)
        rows = [json.loads(line) for line in (tmp_path / "model" / "training.jsonl").open()]
        assert rows[-1]["query"] < 0.8 * rows[0]["query"]
        assert rows[-1]["product"] < 0.8 * rows[0]["product"]

    def test_a_run_that_only_gets_worse_ends_where_it_began(
        self, causal_data: Dataset, causal_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        coder = load_coder(causal_model)
        assert isinstance(coder, CausalCoder)
        samples = CodeSamples.collect(coder.lexicon, causal_data.products, causal_data.log)
        before = {name: weight.clone() for name, weight in coder.model.trainable().items()}
        chosen = replace(SETTINGS.causal or CausalSettings(), validate_every=1, patience=2, rate=1e-3)
        trainer = LikelihoodTrainer(coder.model, samples, chosen, 9, 0, "co-training")
        worse = iter([1.0, 2.0, 1.5])
        monkeypatch.setattr(trainer, "validate", lambda _: next(worse))
        some = samples.all_of([0], 1, np.random.default_rng(0))
        trainer.run(tmp_path / "record.jsonl", tmp_path / "checkpoint.pt", some)
        assert trainer.done == 2
        assert all(torch.equal(weight, before[name]) for name, weight in coder.model.trainable().items())

    def test_co_training_stops_by_targets_of_its_kind(
        self, causal_data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """By joint training's it would only seem to get worse, and all of it be thrown away."""
        stages, validated, made = gram.training.causal.stages, [], []
        run = stages.CausalRun.begin(causal_data.products, causal_data.log, SETTINGS, tmp_path / "work", resume=False)
        stages.mine_lexicon(run)

        def make(*args: Any) -> CodeSamples:
            made.append(make_co_training_samples(*args))
            return made[-1]

        monkeypatch.setattr(stages, "make_co_training_samples", make)
        monkeypatch.setattr(stages.LikelihoodTrainer, "run", lambda *args: validated.append(args[-1]))
        stages.co_train(run)
        stages.train_likelihood(run, run.samples, 3, "joint")
        held_out = {i.query for i in run.held_out}
        assert [set(samples.queries) == held_out for samples in made] == [False, True]
        assert made[1].space is run.samples.space
        assert validated[0].prompts == validated[1].prompts
        assert validated[0] == made[1].all_of(range(len(held_out)), 500, np.random.default_rng(run.seed))
        assert validated[0] != validated[1]

    def test_co_training_adds_what_the_other_side_writes(self, causal_data: Dataset, causal_model: Path) -> None:
        coder = load_coder(causal_model)
        assert isinstance(coder, CausalCoder)
        samples = CodeSamples.collect(coder.lexicon, causal_data.products, causal_data.log)
        taught = make_co_training_samples(coder, samples, 30, 0)
        before, after = np.diff(samples.of_queries.start), np.diff(taught.of_queries.start)
        assert (after >= before).all()
        assert (after - before).max() <= 10
        assert (after > before).any()
        sums = np.add.reduceat(taught.of_queries.weight, taught.of_queries.start[:-1][after > 0])
        np.testing.assert_allclose(sums, 1, atol=1e-5)

    def test_gained_targets(self) -> None:
        targets = CodeTargets(np.array([0, 1, 1]), np.array([7]), np.array([1.0], np.float32))
        made = add_targets(targets, {1: {4: 1.0, 5: 1.0}})
        assert made.start.tolist() == [0, 1, 3]
        assert made.weight.tolist() == pytest.approx([1, 0.5, 0.5])


class TestSamples:
    def test_the_codes_of_another_space(self, causal_data: Dataset) -> None:
        """The same lines as before, of codes that both spaces have."""
        lexicon = mine(causal_data.products, causal_data.log)
        whole = CodeSamples.collect(lexicon, causal_data.products, causal_data.log)
        part = CodeSamples.collect(lexicon, causal_data.products, causal_data.log[:100])
        moved = part.in_space(whole.space)
        shared = {whole.line_of(code) for code in range(len(whole.space.codes))}
        kept = 0
        for text in range(len(part.queries)):
            before, after = (
                {one.line_of(code) for code in one.of_queries.code[slice(*one.of_queries.start[text : text + 2])]}
                for one in (part, moved)
            )
            assert after == before & shared
            kept += len(after)
        assert kept > 20
        assert moved.of_products.start[-1] == len(moved.of_products.code) == len(moved.of_products.weight)

    """Products whose texts hold no attribute, as targets have them that come of clicks alone."""

    @staticmethod
    def silent(data: Dataset, log: list[Interaction]) -> CodeSamples:
        lexicon = mine(data.products, data.log)
        samples = CodeSamples.collect(lexicon, data.products, log)
        return replace(samples, tags=[row[:0] for row in samples.tags])

    def test_logged_queries_stand_in_for_pseudo_queries(self, causal_data: Dataset) -> None:
        samples = self.silent(causal_data, causal_data.log[:20])
        queries, products = samples.draw(8, np.random.default_rng(0))
        logged = {query for i in causal_data.log[:20] for query in i.query.split()}
        assert len(queries.prompts) == len(queries.codes) == len(products.prompts) == len(products.codes) == 8
        assert all(queries.codes)
        assert logged & {word for prompt in queries.prompts for word in prompt.split()}

    def test_nothing_to_draw(self, causal_data: Dataset) -> None:
        with pytest.raises(SettingError, match="give a query with a code"):
            self.silent(causal_data, []).draw(4, np.random.default_rng(0))

    def test_products_without_a_code_are_not_drawn(self, causal_data: Dataset) -> None:
        samples = CodeSamples.collect(
            mine(causal_data.products, causal_data.log), causal_data.products, causal_data.log
        )
        bare = Product("bare", "1")
        one_more = [
            part._replace(start=np.append(part.start, part.start[-1]))
            for part in (samples.product_targets, samples.of_products)
        ]
        samples = replace(
            samples,
            products=[*samples.products, bare],
            tags=[*samples.tags, samples.tags[0][:0]],
            product_targets=one_more[0],
            of_products=one_more[1],
        )
        _, products = samples.draw(300, np.random.default_rng(0))
        assert all(products.codes)
        assert write_prompt(bare, Side.PRODUCT) not in products.prompts


def save_pretrained(folder: Path, kind: str, tied: bool = True) -> Path:
    """A model as a user has it: config.json, model.safetensors and a fast tokenizer."""
    from transformers import PreTrainedTokenizerFast

    made = tiny(kind)
    made.model.config.tie_word_embeddings = tied
    torch.manual_seed(1)
    type(made.model)(made.model.config).save_pretrained(folder)
    fast = PreTrainedTokenizerFast(tokenizer_object=made.tokenizer, eos_token="<end>", pad_token="<pad>")
    fast.save_pretrained(folder)
    return folder


class TestCoAlignment:
    def test_the_loss_worked_out_by_hand(self) -> None:
        """A pair of codes of 3 and 4 tokens, the end among them, of which the first is the same."""
        said = {
            ("q", 2): [-1.0, -1.0, -1.0],
            ("q", 3): [-1.0, -2.0, -2.0, -1.0],
            ("p", 2): [-0.5, -0.5, -0.5],
            ("p", 3): [-0.5, -3.0, -2.0, -1.0],
        }

        class Model:
            device, dtype = torch.device("cpu"), torch.float32

            def log_probs(self, prompts: list[str], codes: list[list[int]]) -> torch.Tensor:
                return torch.tensor([said[prompts[0], len(codes[0])]])

        coder: Any = SimpleNamespace(model=Model())
        made = CausalCoAlignment(coder, None, CausalSettings(), 0)  # type: ignore[arg-type]
        reference = torch.tensor([[[-6.0, -3.0]], [[-1.5, -6.0]]])
        pairs: Any = SimpleNamespace(
            prompts=(["q"], ["p"]), codes=([[5, 6]], [[5, 7, 8]]), same=torch.tensor([1]),
            weight=torch.tensor([2.0]), reference=reference,
        )  # fmt: skip
        loss, figures = made.loss(pairs)
        # the query's margin is .5 · (6 - 3)/3 + .2 · (5 - 3)/4 = .6, the product's 0; ten times as much a code
        preferred = 2 * (np.log1p(np.exp(-6)) + np.log(2)) / 2
        assert float(loss) == pytest.approx(preferred - 0.2 * (-1 - 0.5) / 2)
        assert figures["preferred"] == 0.5

    def test_each_token_is_pushed_alike_and_shared_ones_are_not(self) -> None:
        """Rejected codes of four tokens, of which the chosen code begins with all but the last one, and with none."""
        pushed = {}
        for same in (3, 0):
            chosen, rejected = (torch.full((1, 4), -1.0, requires_grad=True) for _ in range(2))
            said = iter([chosen, rejected] * 2)
            model = SimpleNamespace(device=torch.device("cpu"), dtype=torch.float32, log_probs=lambda *_: next(said))  # noqa: B023
            made = CausalCoAlignment(SimpleNamespace(model=model), None, CausalSettings(), 0)  # type: ignore[arg-type]
            pairs: Any = SimpleNamespace(
                prompts=(["q"], ["p"]), codes=([[5, 6, 7]], [[5, 6, 8]]), same=torch.tensor([same]),
                weight=torch.tensor([1.0]), reference=torch.tensor([[[-4.0, same - 4.0]]] * 2),
            )  # fmt: skip
            made.loss(pairs)[0].backward()
            pushed[same] = rejected.grad
        # both sides' margins are 0: each token of the rejected code moves the loss by 10 · .2/4 · σ(0)
        assert pushed[3].tolist() == [pytest.approx([0, 0, 0, 0.25])]  # type: ignore[union-attr]
        assert pushed[0].tolist() == [pytest.approx([0.25] * 4)]  # type: ignore[union-attr]

    def test_what_is_preferred(self) -> None:
        """Of 4 products a query's two wrote code 0, which no other did; code 1 is everybody's."""
        products = CompoundCodes.of(codes_of([[0, 1], [0, 1], [1, 2], [1]]), 4)
        queries = CompoundCodes.of(codes_of([[0, 3]]), 4)
        clicked = np.array([0, 1])
        assert efficiency(0, clicked, products) == pytest.approx(0.5)
        assert efficiency(1, clicked, products) == 0
        assert efficiency(2, clicked, products) == 0
        drawn = draw_preferences(np.array([[0, 0]]), queries, products, [clicked], 20, np.random.default_rng(0))
        assert {(row.chosen, row.rejected) for row in drawn} == {(0, 1), (0, 3)}
        assert {row.weight for row in drawn} == {0.5}
        assert not draw_preferences(np.array([[0, 2]]), queries, products, [clicked], 9, np.random.default_rng(0))

    def test_the_margin_grows(self, causal_data: Dataset, causal_model: Path) -> None:
        coder = load_coder(causal_model)
        assert isinstance(coder, CausalCoder)
        samples = CodeSamples.collect(coder.lexicon, causal_data.products, causal_data.log)
        chosen = replace(SETTINGS.causal or CausalSettings(), rounds=1, rate=1e-2)
        rows = CausalCoAlignment(coder, samples, chosen, 0).run(12)
        assert np.mean([row["preferred"] for row in rows[-4:]]) > 0.6
        assert np.mean([row["preference"] for row in rows[-4:]]) < rows[0]["preference"]
        assert rows[0]["preference"] == pytest.approx(np.log(2), abs=1e-3)  # the reference is the model itself

    def test_a_loss_that_is_no_number(
        self, causal_data: Dataset, causal_model: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        coder = load_coder(causal_model)
        assert isinstance(coder, CausalCoder)
        samples = CodeSamples.collect(coder.lexicon, causal_data.products, causal_data.log)
        dropping = []

        def loss(aligning: CausalCoAlignment, _: Any) -> tuple[torch.Tensor, dict[str, float]]:
            dropping.append(aligning.coder.model.training)
            return torch.tensor(np.nan, requires_grad=True), {}

        monkeypatch.setattr(CausalCoAlignment, "loss", loss)
        with pytest.raises(ModelError, match="no number at step 1 of co-alignment"):
            CausalCoAlignment(coder, samples, SETTINGS.causal or CausalSettings(), 0).run(2)
        assert dropping == [False]


def codes_of(rows: list[list[int]]) -> SparseRows:
    key = np.array([code for row in rows for code in row], dtype=np.int64)
    row = np.repeat(np.arange(len(rows)), [len(row) for row in rows])
    return SparseRows.build(row, key, np.ones(len(key), np.float32), len(rows))


def causal_of(folder: Path) -> CausalSettings:
    lm = LanguageModelSettings(name=str(folder), lora=4)
    return CausalSettings(model=lm, steps=2, batch=4, co_training=0, co_alignment=0)


class TestPretrained:
    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("lora", [0, 4])
    def test_a_folder_of_hugging_face_is_trained_saved_and_opened(
        self, kind: str, lora: int, causal_data: Dataset, tmp_path: Path
    ) -> None:
        pretrained = save_pretrained(tmp_path / "lm", kind)
        lm = LanguageModelSettings(name=str(pretrained), lora=lora, checkpointing=lora > 0)
        settings = Settings(
            causal=CausalSettings(model=lm, steps=3, co_training=1, co_alignment=2, batch=4, texts=10, rounds=1)
        )
        folder = train(causal_data.products[:40], causal_data.log, tmp_path / "model", settings)
        coder = load_coder(folder)
        assert isinstance(coder, CausalCoder)
        assert coder.write(["red sofa"], Side.QUERY)[0].code.size
        names = set(coder.model.trainable())
        assert all("lora" in name for name in names) == (lora > 0)

    def test_adapters_change_what_is_written_and_are_kept(self, causal_data: Dataset, tmp_path: Path) -> None:
        pretrained = save_pretrained(tmp_path / "lm", "scratch-qwen3")
        lm = LanguageModelSettings(name=str(pretrained), lora=4)
        settings = Settings(causal=CausalSettings(model=lm, steps=8, rate=1e-2, batch=4, co_training=0, co_alignment=0))
        folder = train(causal_data.products[:40], causal_data.log, tmp_path / "model", settings)
        coder = load_coder(folder)
        assert isinstance(coder, CausalCoder)
        plain = load_language_model(lm)
        prompts, codes = coder.model.read_prompts(PROMPTS), coder.model.read_codes(LINES[:2])
        assert not torch.allclose(coder.model.log_probs(prompts, codes), plain.log_probs(prompts, codes), atol=1e-3)

    def test_adapters_stand_on_the_very_weights_they_were_trained_on(
        self, causal_data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pretrained = save_pretrained(tmp_path / "lm", "scratch-qwen3")
        monkeypatch.chdir(tmp_path)
        folder = train(
            causal_data.products[:40], causal_data.log, tmp_path / "model", Settings(causal=causal_of(Path("lm")))
        )
        assert json.loads((folder / "config.json").read_text())["backbone"] == str(pretrained)
        monkeypatch.chdir("/")
        load_coder(folder)
        weights = pretrained / "model.safetensors"
        changed = {name: weight + 0.1 for name, weight in load_file(weights).items()}
        save_file(changed, weights, {"format": "pt"})
        with pytest.raises(ModelError, match=r"model: .*lm has other weights than.* Fix: put the language model back"):
            load_coder(folder)
        shutil.rmtree(pretrained)
        with pytest.raises(ModelError, match=rf"{folder}: .*is gone: {pretrained}. Fix: "):
            load_coder(folder)

    def test_a_part_of_the_weights_is_not_enough(self, causal_model: Path, tmp_path: Path) -> None:
        shutil.copytree(causal_model, tmp_path / "model")
        weights = load_file(tmp_path / "model" / "model.safetensors")
        weights.popitem()
        save_file(weights, tmp_path / "model" / "model.safetensors")
        with pytest.raises(ModelError, match="do not fit"):
            load_coder(tmp_path / "model")

    @pytest.mark.parametrize("name", ["nothing/to/see", "./nothing", "/nothing", "no thing"])
    def test_no_model_there(self, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """It is told before anything is mined, and without asking a hub for what is no hub's id."""
        monkeypatch.chdir(tmp_path)
        with pytest.raises(ModelError, match="cannot be loaded: there is no such folder"):
            load_language_model(LanguageModelSettings(name=name))
        monkeypatch.setattr(gram.training.causal.stages, "mine", lambda *_: pytest.fail("it was mined"))
        causal = CausalSettings(model=LanguageModelSettings(name=name))
        with pytest.raises(ModelError, match="cannot be loaded: there is no such folder"):
            train([Product("1", "Sofa")], [], tmp_path / "model", Settings(causal=causal))

    def test_a_folder_that_is_no_model(self, tmp_path: Path) -> None:
        with pytest.raises(ModelError, match="cannot be loaded"):
            check_language_model(LanguageModelSettings(name=str(tmp_path)))
        pretrained = save_pretrained(tmp_path / "lm", "scratch-llama")
        check_language_model(LanguageModelSettings(name=str(pretrained)))
        (pretrained / "model.safetensors").write_bytes(b"damaged" * 99)
        with pytest.raises(ModelError, match="cannot be loaded"):
            load_language_model(LanguageModelSettings(name=str(pretrained), lora=0))

    def test_settings_that_make_no_sense(self) -> None:
        with pytest.raises(SettingError, match="dtype"):
            LanguageModelSettings(dtype="int8")
        with pytest.raises(SettingError, match="4-bit"):
            LanguageModelSettings(name="scratch", four_bit=True)
        with pytest.raises(SettingError, match="LoRA"):
            LanguageModelSettings(lora=-1)
        with pytest.raises(SettingError, match="no name"):
            LanguageModelSettings(name=" ")
        for rate in (float("nan"), float("inf"), -1.0):
            with pytest.raises(SettingError, match="the rate"):
                CausalSettings(rate=rate)


def test_the_command_line(causal_data: Dataset, tmp_path: Path) -> None:
    causal_data.write(tmp_path)
    run = CliRunner().invoke
    products, log = str(tmp_path / "products.jsonl.gz"), str(tmp_path / "log.tsv")
    model = str(tmp_path / "model")
    done = run(main, ["train", products, log, "-o", model, "--coder", "scratch", "--steps", "6", "--no-co-training"])
    assert done.exit_code == 0, done.output
    done = run(main, ["code", model, products, "--log", log])
    assert done.exit_code == 0, done.output
    assert "120 products" in done.output
    done = run(main, ["index", model, products, "-o", str(tmp_path / "index")])
    assert done.exit_code == 0, done.output
    search = ["search", str(tmp_path / "index"), "red sofa", "--explain"]
    again = "was not asked: it wrote these codes before"
    for more, told in (([], r"wrote the codes of 1: [\d,]+ ms each"), ([], again), (["--facets", "brand"], again)):
        done = run(main, [*search, *more])
        assert done.exit_code == 0, done.output
        assert re.search(f"^the language model {told}$", done.stderr, flags=re.MULTILINE)
    done = run(main, ["train", products, log, "-o", str(tmp_path / "x"), "--coder", "scratch", "--dry-run"])
    assert done.exit_code == 0, done.output
    assert "it would take" in done.output
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    "options",
    [["--lora", "8"], ["--rate", "0.0"], ["--no-co-training"], ["--dry-run"], ["--batch", "32"]],
)
def test_options_of_a_language_model_without_one(options: list[str], tmp_path: Path) -> None:
    (tmp_path / "products.csv").write_text("product_id,title\n1,Sofa\n")
    command = ["train", str(tmp_path / "products.csv"), "none", "-o", str(tmp_path / "m"), *options]
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 2
    assert f"{options[0]}" in done.output
    assert "Name one with --coder" in done.output


def test_a_rate_that_is_no_number(tmp_path: Path) -> None:
    (tmp_path / "products.csv").write_text("product_id,title\n1,Sofa\n")
    command = ["train", str(tmp_path / "products.csv"), "none", "-o", str(tmp_path / "m"), "--coder", "scratch"]
    for rate in ("nan", "inf", "-1"):
        done = CliRunner().invoke(main, [*command, "--rate", rate])
        assert done.exit_code == 2, done.output
        assert "rate" in done.output
