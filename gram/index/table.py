"""The product table: every product's fields on disk, one JSON object a line; only the line that is needed is read.

Dimension letters:
    N  products
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gram.errors import IndexFolderError
from gram.folders import REBUILD, check_offsets, load_array
from gram.records import Product

LINES, OFFSETS, IDS = "products.jsonl", "products.offsets.npy", "products.ids.npy"

_AT_ONCE = 512
"""Lines that are parsed together when all are read."""
_TITLE = b',"title":"'


@dataclass(frozen=True, eq=False)
class ProductTable:
    """A catalogue by row, 0 … N − 1, the order in which everything in an index numbers products.

    Saved, the lines are a catalogue themselves: `gram index MODEL INDEX/products.jsonl` works.

    >>> table = ProductTable.build([Product("b7", "Oak desk"), Product("a1", "Red shoes", price=9.5)])
    >>> table[1].title, table.row("a1"), table.ids.tolist(), len(table)
    ('Red shoes', 1, ['b7', 'a1'], 2)
    """

    lines: bytes | mmap  # JSON, one product a line
    offsets: NDArray[np.int64]  # (N + 1,) product i's line is lines[offsets[i]:offsets[i + 1]]
    ids: NDArray[np.str_]  # (N,)
    name: str = LINES  # what errors call the table

    @staticmethod
    def build(products: Iterable[Product]) -> ProductTable:
        """A table in memory. Raises ValueError for a repeated id, and for one ending in NUL, which NumPy would drop."""
        lines: list[bytes] = []
        ids: list[str] = []
        for product in products:
            row = product._asdict() | {"attributes": dict(product.attributes)}
            text = json.dumps(row, ensure_ascii=False, separators=(",", ":")) + "\n"
            lines.append(text.encode("utf-8", "surrogatepass"))  # half an emoji in a title must not stop the shop
            ids.append(product.product_id)
        seen: set[str] = set()
        for product_id in ids:
            if product_id in seen or product_id.endswith("\0"):
                problem = "is there twice" if product_id in seen else "ends in a NUL character"
                raise ValueError(f"product id {product_id!r} {problem}")
            seen.add(product_id)
        offsets = np.zeros(len(ids) + 1, dtype=np.int64)  # (N + 1,)
        np.cumsum([len(line) for line in lines], out=offsets[1:])
        return ProductTable(b"".join(lines), offsets, np.array(ids, dtype=np.str_))

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, row: int) -> Product:
        """The product at a row. Raises IndexError outside 0 … N − 1, IndexFolderError for a damaged line."""
        fields = self._parsed(row, self._line(row))
        try:
            return product_of(fields)
        except (KeyError, TypeError, AttributeError) as error:
            raise self._damaged(row, error) from None

    def title(self, row: int) -> str:
        """The title of the product at a row, for a tenth of what the whole product costs; raises as `[]` does,
        but a line that is damaged elsewhere is not noticed."""
        line = self._line(row)
        begin = line.find(_TITLE)  # nothing else in a line can hold it: quotes within texts are escaped
        end = line.find(b'"', begin + len(_TITLE))
        text = line[begin + len(_TITLE) : end]
        if 0 <= begin < end and b"\\" not in text:
            try:
                return text.decode("utf-8", "surrogatepass")
            except UnicodeDecodeError as error:
                raise self._damaged(row, error) from None
        try:
            return str(self._parsed(row, line)["title"])
        except (KeyError, TypeError) as error:
            raise self._damaged(row, error) from None

    def _line(self, row: int) -> bytes:
        if not 0 <= row < len(self):
            raise IndexError(f"there is no product {row} among {len(self)}")
        begin, end = self.offsets[row : row + 2].tolist()
        return self.lines[begin:end]

    def _parsed(self, row: int, line: bytes) -> Any:
        try:
            return json.loads(line)
        except ValueError as error:
            raise self._damaged(row, error) from None

    def _damaged(self, row: int, error: Exception) -> IndexFolderError:
        problem = f"line {row + 1} is not a product ({error})"
        return IndexFolderError(f"{self.name}: {problem}. Fix: build the index again")

    def __iter__(self) -> Iterator[Product]:
        """All products in order, many lines parsed at once: three fifths of the time of one by one."""
        for begin in range(0, len(self), _AT_ONCE):
            end = min(begin + _AT_ONCE, len(self))
            text = self.lines[self.offsets[begin] : self.offsets[end]]
            try:
                rows = json.loads(b"[" + text.rstrip(b"\n").replace(b"\n", b",") + b"]")  # in texts it is escaped
                products = [product_of(fields) for fields in rows]
            except (ValueError, KeyError, TypeError, AttributeError):
                products = []
            yield from products if len(products) == end - begin else map(self.__getitem__, range(begin, end))

    def row(self, product_id: str) -> int:
        """Where a product stands. Raises KeyError for an id that the table lacks."""
        try:
            return self._rows[product_id]
        except KeyError:
            raise KeyError(f"no product has the id {product_id!r}") from None

    @staticmethod
    def write(folder: str | Path, products: Iterable[Product]) -> None:
        """Writes products into an existing folder; `load` reads them back."""
        ProductTable.build(products).save(folder)

    def save(self, folder: str | Path) -> None:
        """Writes `products.jsonl`, `products.offsets.npy` and `products.ids.npy` into an existing folder."""
        Path(folder, LINES).write_bytes(self.lines)
        np.save(Path(folder, OFFSETS), self.offsets)
        np.save(Path(folder, IDS), self.ids)

    @staticmethod
    def load(folder: str | Path, mmap: bool = True) -> ProductTable:
        """What `save` wrote, read page by page when `mmap`. Raises IndexFolderError if it cannot be used."""
        path = Path(folder, LINES)
        try:
            lines = _mapped(path) if mmap else path.read_bytes()
        except OSError as error:
            raise IndexFolderError(f"{path}: cannot be read ({error}). Fix: build the index again") from None
        offsets, ids = load_array(folder, OFFSETS, mmap), load_array(folder, IDS, mmap)
        check_offsets(offsets, len(lines), f"{path}, {OFFSETS}", REBUILD)
        if ids.dtype.kind != "U" or ids.shape != (len(offsets) - 1,):
            problem = f"{len(offsets) - 1} products do not fit {IDS} {ids.dtype} {ids.shape}"
            raise IndexFolderError(f"{path}: {problem}. Fix: {REBUILD}")
        return ProductTable(lines, offsets, ids, str(path))

    @cached_property
    def _rows(self) -> dict[str, int]:
        return {product_id: i for i, product_id in enumerate(self.ids.tolist())}


def product_of(fields: dict[str, Any]) -> Product:
    """A product of its fields as JSON has them. Raises KeyError, TypeError or AttributeError for what is none."""
    fields["category"] = tuple(fields["category"])
    fields["attributes"] = {name: tuple(values) for name, values in fields["attributes"].items()}
    return Product(**fields)


def to_json(product: Product) -> str:
    """A product as a store keeps it; `product_of` reads it back."""
    return json.dumps(product._asdict() | {"attributes": dict(product.attributes)}, separators=(",", ":"))


def _mapped(path: Path) -> bytes | mmap:
    with path.open("rb") as file:
        return mmap(file.fileno(), 0, access=ACCESS_READ) if path.stat().st_size else b""  # empty cannot be mapped
