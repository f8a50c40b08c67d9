"""A language model teaches the encoder: its codes are targets of the encoder's training."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import gram.training.stages
from gram.cli import main
from gram.coder.base import QUERY_CODING, Side
from gram.coder.causal.cache import TextCodes
from gram.coder.causal.coder import CausalCoder
from gram.coder.causal.text import write_prompt
from gram.coder.encoder.backbone import ScratchSettings, load_backbone
from gram.coder.encoder.tokens import TextTokenizer
from gram.coder.folder import load_coder
from gram.codes.mining import mine
from gram.codes.space import CodeTargets
from gram.data.dataset import Dataset
from gram.errors import ModelError, SettingError
from gram.index.bm25 import BM25Index
from gram.indexing import product_stems
from gram.training.pipeline import train
from gram.training.run import Settings
from gram.training.samples import Samples
from gram.training.teaching import _add_codes, teach


class TestTeaching:
    def test_what_the_teacher_is_sure_of_becomes_a_target(self, causal_data: Dataset, causal_model: Path) -> None:
        """A teacher of the same catalogue: its codes are codes of the encoder's space, and its expansions targets."""
        lexicon = mine(causal_data.products, causal_data.log)
        backbone = load_backbone(
            "scratch", [p.title for p in causal_data.products], ScratchSettings(width=24, layers=1)
        )
        tokenizer = TextTokenizer(lexicon, backbone)
        bm25 = BM25Index.build(product_stems(causal_data.products, lexicon.analyzer))
        tokenized = tokenizer.products(causal_data.products)
        samples = Samples.collect(causal_data.products, tokenized, causal_data.log, tokenizer, bm25)
        taught = teach(samples, load_coder(causal_model))
        for before, after in (
            (samples.query_targets, taught.query_targets),
            (samples.product_targets, taught.product_targets),
        ):
            assert (np.diff(after.start) >= np.diff(before.start)).all()
            assert after.attribute.max() < lexicon.n_learnt
            assert ((after.weight > 0) & (after.weight <= 1)).all()
        assert len(taught.query_targets.attribute) > len(samples.query_targets.attribute)
        assert len(taught.space.of_products.code) > len(samples.space.of_products.code)
        np.testing.assert_array_equal(taught.space.codes, samples.space.codes)

    def test_what_codes_count_that_the_teacher_writes(self, causal_data: Dataset, causal_model: Path) -> None:
        """A code's target is its share of the teacher's probability times its log idf, as of 1 for the best one."""
        coder = load_coder(causal_model)
        assert isinstance(coder, CausalCoder)
        log_prob = np.log(np.array([0.6, 0.3, 0.1], np.float32))
        coder.cache.keep({write_prompt("red sofa", Side.QUERY): TextCodes(np.array([5, 9, 2], np.int32), log_prob)})
        said = coder.represent(["red sofa"], Side.QUERY, QUERY_CODING).compound
        none = CodeTargets(np.array([0, 0]), np.zeros(0, np.int64), np.zeros(0, np.float32))
        made = _add_codes(none, said, np.arange(len(coder.trie)))
        n = coder.lexicon.n_products
        worth = [p * max(np.log((n + 1) / (coder.products[c] + 0.5)), 0.1) for c, p in ((2, 0.1), (5, 0.6), (9, 0.3))]
        assert dict(zip(made.code.tolist(), made.weight.tolist(), strict=True)) == pytest.approx(
            dict(zip((2, 5, 9), np.array(worth) / sum(worth), strict=True)), rel=1e-4
        )

    def test_an_encoder_is_trained_by_a_language_model(
        self, causal_data: Dataset, causal_model: Path, tmp_path: Path
    ) -> None:
        causal_data.write(tmp_path)
        products, log = str(tmp_path / "products.jsonl.gz"), str(tmp_path / "log.tsv")
        command = ["train", products, log, "-o", str(tmp_path / "m"), "--backbone", "scratch", "--steps", "2"]
        done = CliRunner().invoke(main, [*command, "--teacher", str(causal_model)])
        assert done.exit_code == 0, done.output
        assert load_coder(tmp_path / "m").represent(["red sofa"], Side.QUERY, QUERY_CODING)

    def test_a_teacher_is_not_replaced_and_is_looked_at_before_anything_is_mined(
        self, causal_data: Dataset, causal_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(gram.training.stages, "mine", lambda *_: pytest.fail("it was mined"))
        with pytest.raises(SettingError, match="take the place of its teacher"):
            train(
                causal_data.products,
                causal_data.log,
                causal_model,
                Settings(backbone="scratch", teacher=str(causal_model)),
            )
        damaged = tmp_path / "damaged"
        shutil.copytree(causal_model, damaged)
        (damaged / "model.safetensors").write_bytes(b"damaged")
        for teacher in (damaged, tmp_path / "nothing"):
            with pytest.raises(ModelError, match=teacher.name):
                train(
                    causal_data.products,
                    causal_data.log,
                    tmp_path / "m",
                    Settings(backbone="scratch", teacher=str(teacher)),
                )

    def test_teacher_and_language_model_exclude_each_other(
        self, causal_data: Dataset, causal_model: Path, tmp_path: Path
    ) -> None:
        causal_data.write(tmp_path)
        command = ["train", str(tmp_path / "products.jsonl.gz"), "none", "-o", str(tmp_path / "m")]
        done = CliRunner().invoke(main, [*command, "--teacher", str(causal_model), "--coder", "scratch"])
        assert done.exit_code == 2
        assert "--teacher" in done.output
