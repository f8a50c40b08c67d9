"""The engines of the benchmark's table: each one's name, how it is trained and how it is opened again."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from gram.baselines.base import How
from gram.baselines.bm25 import TunedBM25
from gram.bench.variants import (
    ALL_BUT_CODES,
    CODES_ALONE,
    CODES_AND_WORDS,
    JOINT,
    NO_CODES,
    ExportedCodes,
    Gram,
    Variant,
    train_gram,
    weigh_anew,
)
from gram.bench.workshop import Entrant, MeasuredEngine, Options, Workshop, bf16
from gram.errors import SettingError
from gram.evaluation.measures import evaluate
from gram.folders import new_folder, read_json, write_json
from gram.ranking.scorer import Scorer

REFERENCE: dict[str, object] = {"k1": 0.3, "b": 0.6, "fields": ["title"]}
"""A fixed BM25 over titles, to compare figures of other days with."""


def _class(module: str, name: str) -> Any:
    return getattr(importlib.import_module(f"gram.baselines.{module}"), name)


def _how(shop: Workshop, model: str) -> How:
    options = shop.options
    return How(model, options.seed, options.quick, bf16(options.device), options.device)


def _rival(
    name: str, module: str, class_name: str, weights: Callable[[Workshop], str] = Workshop.pretrained, about: str = ""
) -> Entrant:
    """A rival of the protocol `Trained`; its module is imported only when the engine is called for."""

    def train(shop: Workshop, folder: Path) -> None:
        _class(module, class_name).train(folder, shop.data, _how(shop, weights(shop)))

    def load(shop: Workshop, folder: Path) -> MeasuredEngine:
        device = shop.options.device
        found: MeasuredEngine = _class(module, class_name).load(folder, shop.data.products, device)
        return found

    return Entrant(name, train, load, about=about)


def _bm25(name: str, about: str, fixed: Mapping[str, object] | None = None) -> Entrant:
    """BM25 tuned on the dev part, or with fixed settings."""

    def train(shop: Workshop, folder: Path) -> None:
        if fixed:
            TunedBM25.write(folder, fixed)
        else:
            TunedBM25.train(folder, shop.data, quick=shop.options.quick)

    return Entrant(name, train, lambda shop, folder: TunedBM25.load(folder, shop.data.products), about=about)


def _spelled_bm25() -> Entrant:
    """Tuned BM25 with queries read through the shop's speller; words that the encoder has a token for stay."""

    def train(shop: Workshop, folder: Path) -> None:
        _class("spelled", "SpelledBM25").train(folder, shop.data, quick=shop.options.quick)

    def load(shop: Workshop, folder: Path) -> MeasuredEngine:
        spelled = _class("spelled", "SpelledBM25")
        known = [] if shop.options.model == "scratch" else [_words_of(shop.pretrained())]
        found: MeasuredEngine = spelled.load(folder, shop.data.products, *known)
        return found

    return Entrant("bm25+speller", train, load, about="the same, queries read through GRAM's speller")


def _words_of(model: str) -> Callable[[str], bool]:
    """Whether a pretrained model has a token for a whole word."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    return lambda word: len(tokenizer.tokenize(word)) == 1


def _graph() -> Entrant:
    """The dense engine's vectors searched by a graph: `Dense.train` writes both."""

    def load(shop: Workshop, _: Path) -> MeasuredEngine:
        found: MeasuredEngine = _class("dense", "DenseHNSW").load(
            shop.folder_of("dense"), shop.data.products, shop.options.device
        )
        return found

    return Entrant("dense-hnsw", lambda shop, folder: None, load, ("dense",), "the same vectors, searched by a graph")


def _published() -> Entrant:
    """The encoder that dense rivals start from, as it is; dev chooses the product's text."""

    def train(shop: Workshop, folder: Path) -> None:
        as_it_is = _class("training", "Plan")(steps=0)
        _class("dense", "Dense").train(folder, shop.data, _how(shop, shop.pretrained()), as_it_is)

    return replace(
        _rival("dense-published", "dense", "Dense", about="the encoder as published, not trained"), train=train
    )


def _hybrid(first: str, second: str, how: str, about: str = "") -> Entrant:
    """Two engines as one, the sum tuned on the dev part."""

    def train(shop: Workshop, folder: Path) -> None:
        chosen = _class("hybrid", "tune")(shop.engine(first), shop.engine(second), shop.data, (how,))
        with new_folder(folder) as draft:
            write_json(draft / "meta.json", chosen)

    def load(shop: Workshop, folder: Path) -> MeasuredEngine:
        chosen = read_json(folder / "meta.json")
        found: MeasuredEngine = _class("hybrid", "Hybrid")(shop.engine(first), shop.engine(second), **chosen)
        return found

    return Entrant(f"{first}+{second}-{how}", train, load, (first, second), about)


HYBRIDS = {
    entrant.name: entrant
    for entrant in (_hybrid(first, "dense", how) for first in ("bm25", "splade") for how in ("rrf", "weighted"))
}


def _cross_encoder() -> Entrant:
    """Reorders the first 100 of the hybrid that has the best R@100 on the dev part, the first one without such."""

    def train(shop: Workshop, folder: Path) -> None:
        worth = dict.fromkeys(HYBRIDS, 0.0)
        for name in HYBRIDS if shop.data.dev_queries else ():
            run = shop.engine(name).search_many(shop.data.dev_queries, 100)
            worth[name] = evaluate(shop.data.dev_qrels, run, ("R@100",)).mean["R@100"]
        first = max(worth, key=lambda name: worth[name])
        reranker = _class("cross_encoder", "CrossEncoderReranker")
        engine = _class("cross_encoder", "First")(shop.engine(first), shop.engine("dense").settings["fields"])
        reranker.train(folder, shop.data, engine, _how(shop, shop.pretrained()))
        write_json(folder.with_suffix(".first.json"), {"first": first})

    def load(shop: Workshop, folder: Path) -> MeasuredEngine:
        first = shop.engine(read_json(folder.with_suffix(".first.json"))["first"])
        reranker = _class("cross_encoder", "CrossEncoderReranker")
        found: MeasuredEngine = reranker.load(folder, shop.data.products, first, shop.options.device)
        return found

    about = "the first 100 of the hybrid that is best on dev, reordered"
    return Entrant("cross-encoder", train, load, tuple(HYBRIDS), about)


def _gram() -> Entrant:
    def train(shop: Workshop, folder: Path) -> None:
        train_gram(folder, shop.data, shop.options, joint=folder / JOINT)

    return Entrant("gram", train, lambda shop, folder: Gram(folder, device=shop.options.device))


def _gram_trained(variant: Variant, about: str) -> Entrant:
    """GRAM under other settings."""

    def train(shop: Workshop, folder: Path) -> None:
        train_gram(folder, shop.data, shop.options, variant, folder / JOINT)

    def load(shop: Workshop, folder: Path) -> MeasuredEngine:
        return Gram(folder, variant.without, device=shop.options.device)

    return Entrant(variant.name, train, load, about=about)


def _gram_weighed(variant: Variant, about: str) -> Entrant:
    """The trained GRAM, its scorer fitted anew."""

    def train(shop: Workshop, folder: Path) -> None:
        weigh_anew(folder, shop.folder_of("gram"), shop.data, shop.options, variant)

    def load(shop: Workshop, folder: Path) -> MeasuredEngine:
        return Gram(shop.folder_of("gram"), variant.without, Scorer.load(folder), shop.options.device)

    return Entrant(variant.name, train, load, ("gram",), about)


def _exported() -> Entrant:
    def load(shop: Workshop, _: Path) -> MeasuredEngine:
        return ExportedCodes(shop.folder_of("gram"), shop.options.device)

    about = "the same model's codes as one sparse vector a product, scored by the dot product alone: `gram export`"
    return Entrant(ExportedCodes.name, lambda shop, folder: None, load, ("gram",), about)


ENTRANTS = {
    entrant.name: entrant
    for entrant in (
        _bm25("bm25", "k1, b and fields chosen on dev"),
        _spelled_bm25(),
        _bm25("bm25-titles", "over titles, k1 .3, b .6", REFERENCE),
        _rival("dense", "dense", "Dense"),
        _graph(),
        _published(),
        _rival("splade", "splade", "Splade"),
        _rival(
            "splade-init", "splade", "Splade", lambda shop: shop.options.splade_model, "begun from published weights"
        ),
        *HYBRIDS.values(),
        _hybrid("bm25", "dense-published", "weighted", "with the encoder as published; the sum chosen on dev"),
        _rival("semantic-ids", "semantic_ids", "SemanticIds"),
        _rival("term-sets", "term_sets", "TermSets"),
        _rival("doc2query", "expansion", "ExpandedBM25"),
        _cross_encoder(),
        _gram(),
        _gram_trained(
            NO_CODES,
            "GRAM's BM25, dense vectors, late interaction and speller under a scorer fitted as GRAM's; its network "
            "trained as GRAM's, but without any loss on codes",
        ),
        _gram_weighed(ALL_BUT_CODES, "the trained GRAM, codes' losses in it, without codes, its scorer fitted anew"),
        _gram_weighed(CODES_AND_WORDS, "the trained GRAM without dense and token vectors, its scorer fitted anew"),
        _gram_weighed(
            CODES_ALONE, "the trained GRAM finding and ranking by codes and nothing else, its scorer fitted anew"
        ),
        _exported(),
    )
}
"""Every engine by its name, in the order of the table; an engine stands after those it needs."""


def select_entrants(only: Sequence[str], options: Options) -> list[Entrant]:
    """The engines named, or all, each after those it needs; one without its weights stands in no table.

    Raises SettingError for a name that no engine has.
    """
    known = {name: entrant for name, entrant in ENTRANTS.items() if name != "splade-init" or options.splade_model}
    unknown = [name for name in only if name not in known]
    if unknown:
        fix = f"choose from {', '.join(known)}" + ("" if options.splade_model else "; splade-init: give --splade-model")
        raise SettingError(f"no engine is called '{unknown[0]}'. Fix: {fix}")
    names = set(only or known)
    for name in reversed(known):
        if name in names:
            names |= set(known[name].needs)
    return [entrant for name, entrant in known.items() if name in names]
