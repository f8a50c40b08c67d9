"""What comes into a live index, coded by a language model when it comes to it."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from gram.cli import main
from gram.coder.base import Side
from gram.coder.causal.cache import TextCodes
from gram.coder.causal.coder import CausalCoder
from gram.coder.causal.text import write_prompt
from gram.coder.folder import load_coder
from gram.codes.lexicon import Lexicon
from gram.errors import DataError
from gram.records import Attribute, Product
from gram.shop import Shop


class TestNearLine:
    """What comes into an encoder's live index gets a language model's codes later. The codes that it writes are put
    into its cache, so that what is to be given is known."""

    @staticmethod
    def written(model: Path, product: Product, lexicon: Lexicon, first: int) -> Attribute:
        """Has the model write one code of a product, that of an attribute which the index has and the text lacks, the
        so many-th of these; the attribute."""
        coder = load_coder(model)
        assert isinstance(coder, CausalCoder)
        held = lexicon.analyzer.stems(product.title)
        single = [
            (code, attribute)
            for code in range(len(coder.trie))
            if len(coder.code_of(code)) == 1
            for attribute in coder.code_of(code)
            if lexicon.find(*attribute) >= 0 and not set(lexicon.analyzer.stems(attribute.value)) & set(held)
        ]
        code, attribute = single[first]
        prompt = write_prompt(product, Side.PRODUCT)
        coder.cache.keep({prompt: TextCodes(np.array([code], np.int32), np.zeros(1, np.float32))})
        return lexicon.attributes[lexicon.find(*attribute)]

    @staticmethod
    def code(model: Path, index: Path) -> str:
        done = CliRunner().invoke(main, ["code", str(model), "--pending", str(index)])
        assert done.exit_code == 0, done.output
        return str(done.stdout)

    def test_what_came_is_given_what_the_model_writes(self, causal_model: Path, index_folder: Path) -> None:
        new = Product("new", "Zumbrel thing")
        shop = Shop.open(index_folder)
        shop.update([new, Product("gone", "Zumbrel other")])
        shop.delete(["gone"])
        attribute = self.written(causal_model, new, shop.live.searcher.lexicon, 0)
        assert attribute not in [one.code for one in shop.codes("new").codes if one.source == "lexical"]  # type: ignore[union-attr]
        with pytest.raises(DataError, match="is writing it"), closing(Shop.open(index_folder)):
            pass
        shop.close()
        assert self.code(causal_model, index_folder).startswith("1 products coded, 1 codes given, 0 withdrawn")
        assert self.code(causal_model, index_folder).startswith("0 products coded")
        with closing(Shop.open(index_folder)) as shop:
            assert [one.code for one in shop.codes("new").codes if one.source == "given"] == [attribute]  # type: ignore[union-attr]
            assert "new" in {hit.product_id for hit in shop.search("", filter=f'code = "{attribute}"', limit=200).hits}
            shop.live.merge()
        assert self.code(causal_model, index_folder).startswith("0 products coded"), "a merge is no change"
        with closing(Shop.open(index_folder)) as shop:
            assert [one.code for one in shop.codes("new").codes if one.source == "given"] == [attribute]  # type: ignore[union-attr]

    @pytest.mark.parametrize("given", [True, False])
    def test_what_a_person_says_of_a_code_that_the_model_gave_stays(
        self, causal_model: Path, index_folder: Path, given: bool
    ) -> None:
        new = Product("new", "Zumbrel thing")
        with closing(Shop.open(index_folder)) as shop:
            shop.update([new])
            attribute = self.written(causal_model, new, shop.live.searcher.lexicon, 0)
        assert "1 codes given" in self.code(causal_model, index_folder)
        with closing(Shop.open(index_folder)) as shop:
            shop.edit_code("new", *attribute, given=given)
            later = Product("new", f"Zumbrel {attribute.value}")
            shop.update([later])
            self.written(causal_model, later, shop.live.searcher.lexicon, 1)
        self.code(causal_model, index_folder)
        with closing(Shop.open(index_folder)) as shop:
            assert shop.live.snapshot.edits.of("new")[attribute] is given

    def test_what_the_model_writes_no_more_is_withdrawn_and_what_people_said_stays(
        self, causal_model: Path, index_folder: Path
    ) -> None:
        new, later = Product("new", "Zumbrel thing"), Product("new", "Zumbrel thing again")
        with closing(Shop.open(index_folder)) as shop:
            lexicon = shop.live.searcher.lexicon
            shop.update([new])
            first, second, third = (
                self.written(causal_model, one, lexicon, n) for n, one in enumerate((new, later, new))
            )
            shop.edit_code("new", *first, given=False)
            shop.edit_code("new", *second, given=True)
        assert "1 codes given" in self.code(causal_model, index_folder)
        with closing(Shop.open(index_folder)) as shop:
            shop.update([later])
            shop.edit_code("new", *first, given=None)
        assert "1 products coded, 0 codes given, 1 withdrawn" in self.code(causal_model, index_folder)
        with closing(Shop.open(index_folder)) as shop:
            assert [one.code for one in shop.codes("new").codes if one.source == "given"] == [second]  # type: ignore[union-attr]
            assert third not in [one.code for one in shop.codes("new").codes if one.source == "given"]  # type: ignore[union-attr]
            shop.update([new])
            self.written(causal_model, new, lexicon, 0)
            shop.edit_code("new", *first, given=False)
        assert "0 codes given, 0 withdrawn" in self.code(causal_model, index_folder), "a person took it"

    @pytest.mark.parametrize(
        ("options", "said"),
        [((), "give PRODUCTS, or --pending"), (("--pending", "i", "p.csv"), "give PRODUCTS, or --pending"),
         (("--pending", "i", "--log", "l.tsv"), "--log goes with PRODUCTS")],
    )  # fmt: skip
    def test_what_does_not_go_together(self, options: tuple[str, ...], said: str) -> None:
        done = CliRunner().invoke(main, ["code", "m", *options])
        assert done.exit_code == 2
        assert said in done.output
