"""The rows of the benchmark's table: each engine's name, how it is trained and how it is opened again."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Protocol

from gram.baselines.base import Engine, TrainingData
from gram.baselines.bm25 import TunedBM25
from gram.errors import SettingError
from gram.evaluation.measures import Run, evaluate
from gram.folders import new_folder, read_json, write_json
from gram.records import Hit

REFERENCE: dict[str, object] = {"k1": 0.3, "b": 0.6, "fields": ["title"]}
"""A fixed BM25 over titles, to compare figures of other days with."""
QUICK_STEPS = 6


@dataclass(frozen=True)
class Options:
    """What every engine of one benchmark is trained with."""

    model: str = "minilm"  # the backbone of GRAM, and the encoder that the dense rivals start from
    splade_model: str = ""  # weights that a second SPLADE row starts from
    seed: int = 0
    quick: bool = False


class Contender(Engine, Protocol):
    """An engine that tells the settings it chose and what it needs on disk to answer, as `Trained` does."""

    @property
    def settings(self) -> dict[str, object]: ...

    @property
    def index_bytes(self) -> int: ...


class Workshop:
    """One benchmark's engines, trained into `folder`/engines and opened once."""

    def __init__(self, folder: Path, data: TrainingData, options: Options) -> None:
        self.folder, self.data, self.options = folder, data, options
        self._open: dict[str, Contender] = {}

    def place(self, name: str) -> Path:
        return self.folder / "engines" / name

    def engine(self, name: str) -> Contender:
        """An engine that was trained before."""
        if name not in self._open:
            self._open[name] = ROWS[name].load(self, self.place(name))
        return self._open[name]

    def close(self) -> None:
        """Forgets the opened engines and frees their memory."""
        self._open.clear()

    def pretrained(self) -> str:
        """The folder or hub id of the encoder that rivals start from."""
        return _source(self.options.model)


@dataclass(frozen=True)
class Row:
    """One engine of the table. `needs` names the rows whose engines it stands on: they are made before it."""

    name: str
    train: Callable[[Workshop, Path], None]
    load: Callable[[Workshop, Path], Contender]
    needs: tuple[str, ...] = ()


class Stages(Protocol):
    """What of GRAM's training is other than by default."""

    @property
    def training(self) -> Mapping[str, Any]: ...

    @property
    def alignment(self) -> Mapping[str, Any]: ...


class Gram:
    """GRAM as `gram train` and `gram index` make it, in the shape of its rivals."""

    name = "gram"

    def __init__(self, folder: Path) -> None:
        from gram.search import Searcher

        self.folder = folder
        self.searcher = Searcher.load(folder / "index", folder / "model")

    @staticmethod
    def train(
        folder: Path,
        data: TrainingData,
        options: Options,
        variant: Stages | None = None,
        begun: Path | None = None,
    ) -> None:
        """Trains, from where a run that was stopped had come, and indexes.

        `variant` has settings that differ from the defaults; joint training, which they leave as it is, is then taken
        over from the engine in `begun`.
        """
        from gram.training.co_alignment import AlignmentSettings
        from gram.training.joint import TrainingSettings
        from gram.training.pipeline import Settings, index, train

        training, alignment = TrainingSettings(seed=options.seed), AlignmentSettings()
        if variant is not None:
            training, alignment = replace(training, **variant.training), replace(alignment, **variant.alignment)
        if options.quick:
            training = replace(training, steps=QUICK_STEPS, co_training=min(2, training.co_training))
            alignment = replace(alignment, steps=min(2, alignment.steps))
        settings = Settings(backbone=options.model, training=training, alignment=alignment)
        joint = None if begun is None else begun / "joint.pt"
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / "model" / "config.json").is_file():
            train(
                data.products,
                data.log,
                folder / "model",
                settings,
                resume=(folder / "model.work").is_dir(),
                joint=joint,
                keep_joint=None if joint else folder / "joint.pt",
            )
        index(folder / "model", data.products, folder / "index")

    def search(self, query: str, k: int = 10) -> list[Hit]:
        return self.searcher.search(query, k)

    def search_many(self, queries: Mapping[str, str], k: int = 300) -> Run:
        return self.searcher.search_many(queries, k)

    @property
    def settings(self) -> dict[str, object]:
        config = read_json(self.folder / "model" / "config.json")
        return {"training": config["settings"]["training"], "scorer": config["scorer"]}

    @property
    def index_bytes(self) -> int:
        """All of the index folder but the product table, which other engines need as well to show titles."""
        files = [file for file in (self.folder / "index").iterdir() if not file.name.startswith("products.")]
        return sum(file.stat().st_size for file in files)


def _of(module: str, name: str) -> Any:
    return getattr(importlib.import_module(f"gram.baselines.{module}"), name)


def _rival(name: str, module: str, kind: str, weights: Callable[[Workshop], str] = Workshop.pretrained) -> Row:
    """A rival of the protocol `Trained`; its module is imported only when the row is wanted."""

    def train(shop: Workshop, folder: Path) -> None:
        seed, quick = shop.options.seed, shop.options.quick
        _of(module, kind).train(folder, shop.data, model=weights(shop), seed=seed, quick=quick, bf16=bf16())

    return Row(name, train, lambda shop, folder: _of(module, kind).load(folder, shop.data.products))


def _graph() -> Row:
    """The dense engine's vectors searched by a graph: `Dense.train` writes both."""

    def load(shop: Workshop, _: Path) -> Contender:
        found: Contender = _of("dense", "DenseHNSW").load(shop.place("dense"), shop.data.products)
        return found

    return Row("dense-hnsw", lambda shop, folder: None, load, ("dense",))


def _hybrid(first: str, second: str, how: str) -> Row:
    """Two rows' engines as one, the sum tuned on the dev part."""

    def train(shop: Workshop, folder: Path) -> None:
        chosen = _of("hybrid", "tune")(shop.engine(first), shop.engine(second), shop.data, (how,))
        with new_folder(folder) as made:
            write_json(made / "meta.json", chosen)

    def load(shop: Workshop, folder: Path) -> Contender:
        chosen = read_json(folder / "meta.json")
        found: Contender = _of("hybrid", "Hybrid")(shop.engine(first), shop.engine(second), **chosen)
        return found

    return Row(f"{first}+{second}-{how}", train, load, (first, second))


HYBRIDS = {
    row.name: row
    for row in (_hybrid(first, "dense", how) for first in ("bm25", "splade") for how in ("rrf", "weighted"))
}


def _cross_encoder() -> Row:
    """Reorders the first 100 of the hybrid that has the best R@100 on the dev part, the first one without such."""

    def train(shop: Workshop, folder: Path) -> None:
        worth = dict.fromkeys(HYBRIDS, 0.0)
        for name in HYBRIDS if shop.data.dev_queries else ():
            run = shop.engine(name).search_many(shop.data.dev_queries, 100)
            worth[name] = evaluate(shop.data.dev_qrels, run, ("R@100",)).mean["R@100"]
        first = max(worth, key=lambda name: worth[name])
        seed, quick, model = shop.options.seed, shop.options.quick, shop.pretrained()
        kind = _of("cross_encoder", "CrossEncoderReranker")
        engine = _of("cross_encoder", "First")(shop.engine(first), shop.engine("dense").settings["fields"])
        kind.train(folder, shop.data, engine, model=model, seed=seed, quick=quick, bf16=bf16())
        write_json(folder.with_suffix(".first.json"), {"first": first})

    def load(shop: Workshop, folder: Path) -> Contender:
        first = shop.engine(read_json(folder.with_suffix(".first.json"))["first"])
        found: Contender = _of("cross_encoder", "CrossEncoderReranker").load(folder, shop.data.products, first)
        return found

    return Row("cross-encoder", train, load, tuple(HYBRIDS))


def selected(only: Sequence[str], options: Options) -> list[Row]:
    """The rows named, or all, each after those it needs; a row without its weights stands in no table.

    Raises SettingError for a name that no row has.
    """
    known = {name: row for name, row in ROWS.items() if name != "splade-init" or options.splade_model}
    unknown = [name for name in only if name not in known]
    if unknown:
        fix = f"choose from {', '.join(known)}" + ("" if options.splade_model else "; splade-init: give --splade-model")
        raise SettingError(f"no row is called '{unknown[0]}'. Fix: {fix}")
    wanted = set(only or known)
    for name in reversed(known):
        if name in wanted:
            wanted |= set(known[name].needs)
    return [row for name, row in known.items() if name in wanted]


def _gram() -> Row:
    def train(shop: Workshop, folder: Path) -> None:
        Gram.train(folder, shop.data, shop.options)

    return Row("gram", train, lambda _, folder: Gram(folder))


def _bm25(name: str, fixed: Mapping[str, object] | None = None) -> Row:
    """BM25 tuned on the dev part, or with fixed settings."""

    def train(shop: Workshop, folder: Path) -> None:
        if fixed:
            TunedBM25.write(folder, fixed)
        else:
            TunedBM25.train(folder, shop.data, quick=shop.options.quick)

    return Row(name, train, lambda shop, folder: TunedBM25.load(folder, shop.data.products))


def _spelled() -> Row:
    """Tuned BM25 with queries read through the shop's speller; words that the encoder has a token for stay."""

    def train(shop: Workshop, folder: Path) -> None:
        _of("spelled", "SpelledBM25").train(folder, shop.data, quick=shop.options.quick)

    def load(shop: Workshop, folder: Path) -> Contender:
        kind = _of("spelled", "SpelledBM25")
        if shop.options.model == "scratch":
            found: Contender = kind.load(folder, shop.data.products)
        else:
            found = kind.load(folder, shop.data.products, _words_of(shop.pretrained()))
        return found

    return Row("bm25-speller", train, load)


def _words_of(model: str) -> Callable[[str], bool]:
    """Whether a pretrained model has a token for a whole word."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    return lambda word: len(tokenizer.tokenize(word)) == 1


ROWS = {
    row.name: row
    for row in (
        _bm25("bm25"),
        _bm25("bm25-titles", REFERENCE),
        _spelled(),
        _rival("dense", "dense", "Dense"),
        _graph(),
        _rival("splade", "splade", "Splade"),
        _rival("splade-init", "splade", "Splade", lambda shop: shop.options.splade_model),
        *HYBRIDS.values(),
        _rival("semantic-ids", "semantic_ids", "SemanticIds"),
        _rival("term-sets", "term_sets", "TermSets"),
        _rival("doc2query", "expansion", "ExpandedBM25"),
        _cross_encoder(),
        _gram(),
    )
}
"""Every row by its name, in the order of the table; a row stands after those it needs."""


@cache
def _source(model: str) -> str:
    from gram.coder.encoder.backbone import load_backbone

    if model == "scratch":
        raise SettingError("rivals start from pretrained weights. Fix: give --model minilm, a hub id, or a folder")
    return load_backbone(model).source


def bf16() -> bool:
    """Whether this machine computes faster in bfloat16: measured."""
    from gram.coder.precision import fast_dtype

    return fast_dtype("cpu").itemsize == 2
