"""GRAM: generative retrieval for shops, by codes that queries and products share.

    >>> import gram
    >>> searcher = gram.load("index")  # doctest: +SKIP
    >>> searcher.search("couch", k=3)[0].title  # doctest: +SKIP
    'Velvet Sofa, 3-Seater'

Names are loaded when they are first used: importing `gram` alone takes no time and no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from gram.errors import GramError
from gram.records import Attribute, Code, Hit, Interaction, Product, SharedCode, code_text

if TYPE_CHECKING:
    from gram.answer import SearchRequest
    from gram.backups import backup
    from gram.codes.mining import MiningSettings
    from gram.data.catalogue import read_products
    from gram.data.log import read_log, read_queries
    from gram.indexing import make_index
    from gram.search import Searcher
    from gram.shop import Shop
    from gram.training.joint import TrainingSettings
    from gram.training.pipeline import train
    from gram.training.run import Settings

    load = Searcher.load
    open = Shop.open

_LATER = {
    "MiningSettings": ("gram.codes.mining", "MiningSettings"),
    "Searcher": ("gram.search", "Searcher"),
    "Settings": ("gram.training.run", "Settings"),
    "TrainingSettings": ("gram.training.joint", "TrainingSettings"),
    "SearchRequest": ("gram.answer", "SearchRequest"),
    "Shop": ("gram.shop", "Shop"),
    "backup": ("gram.backups", "backup"),
    "load": ("gram.search", "Searcher.load"),
    "make_index": ("gram.indexing", "make_index"),
    "open": ("gram.shop", "Shop.open"),
    "read_log": ("gram.data.log", "read_log"),
    "read_products": ("gram.data.catalogue", "read_products"),
    "read_queries": ("gram.data.log", "read_queries"),
    "train": ("gram.training.pipeline", "train"),
}

__all__ = [
    "Attribute",
    "Code",
    "GramError",
    "Hit",
    "Interaction",
    "MiningSettings",
    "Product",
    "SearchRequest",
    "Searcher",
    "Settings",
    "SharedCode",
    "Shop",
    "TrainingSettings",
    "backup",
    "code_text",
    "load",
    "make_index",
    "open",
    "read_log",
    "read_products",
    "read_queries",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module 'gram' has no attribute {name!r}")
    module, path = _LATER[name]
    found: Any = import_module(module)
    for part in path.split("."):
        found = getattr(found, part)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
