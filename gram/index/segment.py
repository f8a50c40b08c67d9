"""A segment: an index folder as one object, what a search needs besides the model, memory-mapped.

    meta.json                 format version, the model's hash
    products.*                the product table
    bm25.*                    BM25 over every field
    lexical.* expansion.*     attribute → products whose text holds it; attribute → products it was written for
    compound.* trie.*         code → products; the codes
    code_rows.*               product → the attributes it holds or was given
    dense.npy value.npy       the products' vectors; how much the shop values them
    slots.npy                 in which slots a product's text holds an attribute
    sketch.* titles.*         the vectors' main coordinates; the titles' words in their order
    token_vectors.*           a vector for each of the products' tokens
    extra_words.txt extra_counts.npy   words of the catalogue that the model's lexicon lacks

Dimension letters:
    N  products     D  width of a vector
    E  extra words  M  products with a value
    P  postings     S  slots
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from gram.codes.trie import CodeTrie
from gram.errors import DataError, IndexFolderError, IndexMismatch, ModelError
from gram.folders import check_folder, load_array, new_folder, read_json, write_json
from gram.index.bm25 import BM25Index, load_lines, save_lines
from gram.index.code_rows import CodeRows
from gram.index.nearest import Sketch
from gram.index.postings import Postings
from gram.index.state import Identity, identity_of
from gram.index.table import OFFSETS, ProductTable
from gram.index.titles import Titles
from gram.index.token_vectors import TokenVectors
from gram.records import Product

T = TypeVar("T")

FORMAT_VERSION = 6
POSTINGS = ("lexical", "expansion", "compound")
META = "meta.json"


@dataclass(frozen=True, eq=False)
class Index:
    """A catalogue as a coder represents it. Rows 0 … N − 1 mean the same product in every part.

    `meta` holds at least `model_hash` and `model`, the model folder as it was given; settings of the build may follow.
    """

    table: ProductTable  # N products
    bm25: BM25Index  # over N products
    lexical: Postings  # attribute id → products whose text holds it
    expansion: Postings  # attribute id → products whose text lacks it and that it was written for
    compound: Postings  # code id → products
    code_rows: CodeRows  # product → its attributes, lexical and expansion
    slots: NDArray[np.bool_]  # (N, S) whether a product's text holds an attribute of each slot
    trie: CodeTrie  # the codes, with one id for every key of `compound`
    dense: NDArray[np.float32]  # (N, D)
    sketch: Sketch  # of N vectors
    titles: Titles  # N titles, of stems that `bm25` knows
    token_vectors: TokenVectors  # of N products
    value: NDArray[np.float32]  # (N,) from 0 to 1, see `value_scores`
    extra_words: list[str]  # (E,) stems that the lexicon lacks, in the order of their attribute ids
    extra_counts: NDArray[np.int64]  # (E,) products that would hold them among as many as the model was trained on
    meta: dict[str, Any]

    @property
    def n_products(self) -> int:
        """N, how many products there are."""
        return len(self.table)

    @property
    def width(self) -> int:
        """D, the length of a product's vector."""
        return int(self.dense.shape[1])

    def save(self, path: str | Path) -> None:
        """Writes the folder, whole or not at all, in the place of an index that is there already.

        Raises ValueError where the parts do not fit each other or `meta` lacks a key, DataError where `path` holds
        something that is no index.
        """
        problem = _misfit(self) or _stray_posting(self)
        missing = [key for key in ("model_hash", "model") if key not in self.meta]
        if problem or missing:
            raise ValueError(problem or f"meta lacks {' and '.join(missing)}")
        with new_folder(path, marker=OFFSETS) as folder:
            self.table.save(folder)
            self.bm25.save(folder)
            for name in POSTINGS:
                getattr(self, name).save(folder, name)
            self.code_rows.save(folder)
            self.trie.save(folder)
            self.sketch.save(folder)
            self.titles.save(folder)
            self.token_vectors.save(folder)
            save_lines(folder / "extra_words.txt", self.extra_words)
            for name in ("dense", "value", "slots", "extra_counts"):
                np.save(folder / f"{name}.npy", getattr(self, name), allow_pickle=False)
            made = {
                "format_version": FORMAT_VERSION,
                "created_with": f"gram {_gram_version()}",
                "n_products": self.n_products,
                "width": self.width,
            }
            write_json(folder / META, self.meta | made)

    @staticmethod
    def open(path: str | Path, mmap: bool = True, check: bool = False) -> Index:
        """The index in a folder; `mmap` leaves the arrays on disk until they are read, `check` compares every file with
        its checksum first, which takes a tenth of a second for 170 MB that lie in memory.

        Raises IndexFolderError where the folder is no index, is of an unknown format, or has a file that is missing,
        cut off or at odds with the others.
        """
        return _read_one(Path(path), lambda folder: _read(folder, mmap, check))


def check_index(path: str | Path) -> dict[str, Any]:
    """The `meta` of an index folder in which every file is as it was written. Raises IndexFolderError, which names the
    file, for any other."""
    return _read_one(Path(path), _check)


def same_model(path: str | Path, meta: dict[str, Any], model_hash: str) -> None:
    """Raises IndexMismatch unless the index at `path`, with this `meta`, was built with the model of that hash."""
    if meta["model_hash"] != model_hash:
        problem = f"was built with model {meta['model_hash']} ({meta['model']}), and this is model {model_hash}"
        raise IndexMismatch(f"{path}: {problem}. {_fix(Path(path))}")


def value_scores(products: Iterable[Product], like: NDArray[np.float64] | None = None) -> NDArray[np.float32]:
    """(N,) the products' values as ranks from 0, the least, to 1, so that any scale and any outlier will do.

    Equal values share their mean rank. A product without a value (none, or NaN) stands in the middle, at ½: nothing
    is known against it. Where no product has a value all are 0, and the shop's weight for it does nothing. With `like`,
    (M,) values of another segment in rising order, the ranks are those that the products would have there.

    >>> value_scores(Product(str(i), "", value=v) for i, v in enumerate([5, 900, None, 5, 7, 6])).tolist()
    [0.125, 1.0, 0.5, 0.125, 0.75, 0.5]
    >>> value_scores([Product("a", "", value=900), Product("b", "", value=5.5)], np.array([5.0, 5, 6, 7, 900])).tolist()
    [1.0, 0.375]
    """
    values = np.array([np.nan if p.value is None else p.value for p in products], dtype=np.float64)  # (N,)
    known = ~np.isnan(values)  # (N,)
    like = np.sort(values[known]) if like is None else like
    if not len(like):
        return np.zeros(len(values), dtype=np.float32)
    scores = np.full(len(values), 0.5, dtype=np.float32)  # (N,)
    if len(like) > 1:
        below, upto = (np.searchsorted(like, values[known], side) for side in ("left", "right"))
        mean_rank = (below + upto - 1) / 2  # from 0 to M − 1 for a value of `like`, between two ranks for another
        scores[known] = np.clip(mean_rank / (len(like) - 1), 0, 1)
    return scores


def _read_one(folder: Path, read: Callable[[Path], T]) -> T:
    """What is read of a folder, anew where that was replaced meanwhile: the parts may then be of two indexes."""
    while True:
        before = _identity(folder)
        try:
            found = read(folder)
        except IndexFolderError:
            if _identity(folder) == before:
                raise
            continue
        if _identity(folder) == before:
            return found


def _check(folder: Path) -> dict[str, Any]:
    meta = read_meta(folder)
    check_folder(folder, f"gram index MODEL PRODUCTS -o {folder}", IndexFolderError)
    return meta


def _read(folder: Path, mmap: bool, check: bool) -> Index:
    meta = _check(folder) if check else read_meta(folder)
    index = Index(
        table=ProductTable.load(folder, mmap),
        bm25=BM25Index.load(folder, mmap),
        lexical=Postings.load(folder, "lexical", mmap),
        expansion=Postings.load(folder, "expansion", mmap),
        compound=Postings.load(folder, "compound", mmap),
        code_rows=CodeRows.load(folder, mmap),
        trie=_load_trie(folder, mmap),
        dense=load_array(folder, "dense.npy", mmap),
        sketch=Sketch.load(folder, mmap),
        titles=Titles.load(folder, mmap),
        token_vectors=TokenVectors.load(folder, mmap),
        value=load_array(folder, "value.npy", mmap),
        slots=load_array(folder, "slots.npy", mmap),
        extra_words=load_lines(folder / "extra_words.txt"),
        extra_counts=load_array(folder, "extra_counts.npy", mmap),
        meta=meta,
    )
    problem = _misfit(index)
    if not problem and (index.n_products, index.width) != (meta["n_products"], meta["width"]):
        problem = (
            f"{META} tells of {meta['n_products']} products and vectors of width {meta['width']}, "
            f"the arrays of {index.n_products} and {index.width}"
        )
    if problem:
        raise IndexFolderError(f"{folder}: {problem}. {_fix(folder)}")
    return index


def read_meta(folder: Path) -> dict[str, Any]:
    """What `meta.json` of an index folder tells. Raises IndexFolderError where it is none, or of another format."""
    path = folder / META
    try:
        meta = read_json(path)
    except DataError as error:
        if (folder / "config.json").is_file():
            fix = f"gram index {folder} PRODUCTS -o INDEX, and name that INDEX"
            raise IndexFolderError(f"{folder}: is a model, and an index is wanted. Fix: {fix}") from None
        raise IndexFolderError(f"{path}: {error.problem} So this is no index. {_fix(folder)}") from None
    if not isinstance(meta, dict) or "format_version" not in meta:
        raise IndexFolderError(f"{path}: tells no format version, so this is no index. {_fix(folder)}")
    if meta["format_version"] != FORMAT_VERSION:
        maker = meta.get("created_with", "another gram")
        problem = f"{maker} wrote format version {meta['format_version']}, and this gram reads {FORMAT_VERSION}"
        raise IndexFolderError(f"{path}: {problem}. {_fix(folder)}")
    missing = [key for key in ("model_hash", "model", "n_products", "width") if key not in meta]
    if missing:
        raise IndexFolderError(f"{path}: lacks {', '.join(missing)}. {_fix(folder)}")
    return meta


def _misfit(index: Index) -> str:
    """What does not fit together among the parts, by their shapes alone; empty if all does."""
    n = index.n_products
    if index.dense.ndim != 2 or index.dense.dtype != np.float32:
        return f"dense is {index.dense.dtype} {index.dense.shape}, not float32 (N, D)"
    if index.value.dtype != np.float32:
        return f"value is {index.value.dtype}, not float32"
    lengths = {
        "bm25": (index.bm25.n_products,),
        "dense": index.dense.shape[:1],
        "value": index.value.shape,
        "sketch": index.sketch.coordinates.shape[1:],
        "code_rows": (len(index.code_rows),),
        "slots": index.slots.shape[:1],
        "titles": (len(index.titles.start) - 1,),
        "token_vectors": (len(index.token_vectors.start) - 1,),
    }
    for name, shape in lengths.items():
        if shape != (n,):
            return f"the table has {n} products, but {name} {shape}"
    if index.compound.n_keys != len(index.trie):
        return f"there are {len(index.trie)} code ids, but compound postings for {index.compound.n_keys}"
    if index.extra_counts.shape != (len(index.extra_words),):
        return f"there are {len(index.extra_words)} extra words, but counts {index.extra_counts.shape}"
    return ""


def _stray_posting(index: Index) -> str:
    """Names a posting of a product that is not there; it reads all postings, so only before they are written."""
    parts = {"bm25": index.bm25.postings} | {name: getattr(index, name) for name in POSTINGS}
    for name, postings in parts.items():
        product = postings.product  # (P,)
        if len(product) and product.max() >= index.n_products:
            return f"'{name}' has a posting of product {product.max()}, but there are {index.n_products} products"
    return ""


def _identity(folder: Path) -> Identity | None:
    """As `identity_of`; None for no folder."""
    with suppress(IndexFolderError):
        return identity_of(folder)
    return None


def _load_trie(folder: Path, mmap: bool) -> CodeTrie:
    try:
        return CodeTrie.load(folder, mmap)
    except ModelError as error:  # of the index's copy, which needs no training
        raise IndexFolderError(f"{str(error).partition(' Fix: ')[0]} {_fix(folder)}") from None


def _fix(folder: Path) -> str:
    return f"Fix: gram index MODEL PRODUCTS -o {folder}"


def _gram_version() -> str:
    try:
        return version("gram")
    except PackageNotFoundError:  # run from a checkout that is not installed
        return "unreleased"
