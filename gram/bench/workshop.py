"""One benchmark's folder from inside: the shop that all engines get, and the engines trained into it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple, Protocol

from gram.baselines.base import Engine, TrainingData
from gram.data.catalogue import read_products
from gram.data.log import read_log, read_qrels, read_queries
from gram.errors import SettingError
from gram.folders import read_json


@dataclass(frozen=True)
class Options:
    """What every engine of one benchmark is trained with."""

    model: str = "minilm"  # the backbone of GRAM, and the encoder that the dense rivals start from
    splade_model: str = ""  # weights that a second SPLADE starts from
    seed: int = 0
    steps: int = 0  # of GRAM's joint training; 0 chooses by the size of the data
    quick: bool = False
    device: str = "cpu"  # where networks are trained and queries answered; one query is timed on the CPU


class Shop(NamedTuple):
    """What all engines get, and what they are judged by."""

    data: TrainingData
    queries: dict[str, str]
    qrels: dict[str, dict[str, float]]


class MeasuredEngine(Engine, Protocol):
    """An engine that tells the settings it chose and what it needs on disk to answer, as `Trained` does."""

    @property
    def settings(self) -> dict[str, object]: ...

    @property
    def index_bytes(self) -> int: ...


@dataclass(frozen=True)
class Entrant:
    """How one engine of the table is trained into a folder and opened again; `needs` names those it stands on."""

    name: str
    train: Callable[[Workshop, Path], None]
    load: Callable[[Workshop, Path], MeasuredEngine]
    needs: tuple[str, ...] = ()
    about: str = ""  # what the name does not tell


class Workshop:
    """One benchmark's engines, trained into `folder`/engines and opened once."""

    def __init__(self, folder: Path, data: TrainingData, options: Options, entrants: Mapping[str, Entrant]) -> None:
        self.folder, self.data, self.options = folder, data, options
        self._entrants = entrants
        self._open: dict[str, MeasuredEngine] = {}

    def folder_of(self, name: str) -> Path:
        return self.folder / "engines" / name

    def engine(self, name: str) -> MeasuredEngine:
        """An engine that was trained before."""
        if name not in self._open:
            self._open[name] = self._entrants[name].load(self, self.folder_of(name))
        return self._open[name]

    def close(self) -> None:
        """Forgets the opened engines and frees their memory."""
        self._open.clear()

    def pretrained(self) -> str:
        """The folder or hub id of the encoder that rivals start from. Raises SettingError for the backbone scratch."""
        return _source(self.options.model)


@cache
def _source(model: str) -> str:
    from gram.coder.encoder.backbone import load_backbone

    if model == "scratch":
        raise SettingError("rivals start from pretrained weights. Fix: give --model minilm, a hub id, or a folder")
    return load_backbone(model).source


def bf16(device: str) -> bool:
    """Whether a device computes faster in bfloat16: measured."""
    from gram.coder.precision import fast_dtype

    return fast_dtype(device.partition(":")[0]).itemsize == 2


def read_shop(folder: Path) -> Shop:
    """The shop that `Dataset.write` wrote."""
    products = read_products(folder / "products.jsonl.gz")
    interactions = read_log(folder / "log.tsv", {p.product_id for p in products})
    dev, test = (
        (read_queries(folder / f"{p}.queries.tsv"), read_qrels(folder / f"{p}.qrels.tsv")) for p in ("dev", "test")
    )
    return Shop(TrainingData(products, interactions, *dev), *test)


def open_workshop(folder: Path, entrants: Mapping[str, Entrant]) -> tuple[Workshop, dict[str, str]]:
    """A benchmark's engines and its test queries, from its folder alone."""
    shop, options = read_shop(folder / "data"), Options(**read_json(folder / "begun.json")["settings"])
    return Workshop(folder, shop.data, options, entrants), shop.queries
