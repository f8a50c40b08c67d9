"""A live index: a segment on disk, small ones in memory for what came since, and the store that keeps what changed.

An update is coded, committed and visible before it is answered. Readers work on a snapshot that never changes. Rarity
of words, mean lengths and ranks of values are those of the segment on disk until a merge writes a new one.
"""

from __future__ import annotations

import hashlib
import json
import logging
import threading
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pyroaring import BitMap

from gram.code_edits import KIND, CodeEdit, CodeEdits
from gram.coder.added import Tried, add_attribute, make_harder, read_tried, too_easy
from gram.coder.base import PRODUCT_CODING, SURE_CODING, Coder, Representations, Side
from gram.coder.packing import SPARSE, choose, pack, read_back, unpack
from gram.errors import DataError, IndexFolderError, ModelError, SettingError
from gram.index.bm25 import BM25Index
from gram.index.fields import Fields
from gram.index.segment import Index, value_scores
from gram.index.state import Identity, State, identity_of, scores_of, state_of
from gram.index.store import FROM_MODEL, MERGED, PENDING, Change, Entry, Store, store_path
from gram.index.table import product_of, to_json
from gram.indexing import NO_MODEL, assemble_index, product_stems, unique_ids
from gram.locks import lock_folder
from gram.records import Attribute, Product
from gram.search import Searcher
from gram.snapshot import LiveSegment, Snapshot, join_segments, merge_segments

log = logging.getLogger("gram.live")

MOST_FRESH = 4
"""Segments in memory; with more the smaller ones are joined."""
TRIED = 256
"""Products, and queries, on which an attribute is tried that is added."""
ATTRIBUTE = "attribute"
"""What the store calls an attribute that was added without training."""
NUMBERING = "numbering"
"""What the store calls its note of how codes are numbered in its changes: see `_numbering`."""


class LiveIndex:
    """Takes changes and hands out snapshots. One process at a time may write."""

    def __init__(
        self, folder: Path, searcher: Searcher, store: Store, read_only: bool, model: Path | None = None,
        device: str = "cpu", only: Sequence[str] = (),
    ) -> None:  # fmt: skip
        """`model` is where the model was found, if not where the index says; `only` names what it searches by."""
        self._device, self._only = device, only
        self.folder, self.searcher, self.store, self.read_only = folder, searcher, store, read_only
        self.model = model
        self._writing = threading.RLock()
        self._lock = ExitStack()
        self._identity: Identity = (0, 0, 0)
        self._scored = scores_of(searcher.model)
        self.refused: State = frozenset()  # of the files that could not be taken in, until they change
        self._seen = 0
        self._values: NDArray[np.float64] = np.zeros(0)  # of the segment on disk, in rising order
        self._edits = CodeEdits()
        self._attributes: list[tuple[Attribute, tuple[float, float]]] = []
        self._tried: tuple[Tried, Tried] | None = None  # queries and products, once an attribute was added
        self.snapshot = Snapshot(searcher)

    @classmethod
    def open(
        cls, folder: str | Path, model: str | Path | None = None, device: str = "cpu", read_only: bool = False,
        check: bool = True, watching: bool = True, only: Sequence[str] = (),
    ) -> LiveIndex:  # fmt: skip
        """Opens an index folder and its store; a reader that is not `watching` for what others will write makes none.
        With `only` it finds and ranks by these groups of features alone, as of `Searcher.only`. Errors as of
        `Searcher.load` and `Searcher.only`; DataError where another process writes."""
        folder, path = Path(folder), store_path(folder)
        lock = ExitStack()
        if not read_only:
            try:
                lock.enter_context(lock_folder(path))
            except DataError as error:
                fix = "if that is a service, send it the changes (PUT /products/ID, POST /products); to read,"
                fix += " open it with --read-only (in Python, read_only)"
                raise DataError(folder, error.problem, fix) from error
        try:
            identity = identity_of(folder) if folder.is_dir() else (0, 0, 0)
            searcher = Searcher.load(folder, model, device, check, only)
            new = read_only and not path.exists()
            store = _empty_store(path if watching else ":memory:") if new else Store.open(path, read_only)
            live = cls(folder, searcher, store, read_only, None if model is None else Path(model), device, only)
            live._lock = lock
            live._read(searcher.index, identity)
        except BaseException:
            lock.close()
            raise
        return live

    def close(self) -> None:
        """Gives back the lock and the store."""
        self.store.close()
        self._lock.close()

    # --- changes ----------------------------------------------------------------------------------------------------

    def update(self, products: Iterable[Product]) -> int:
        """Adds products, or replaces those of the same id; how many. Durable and visible when it returns.

        Raises SettingError for an id twice.
        """
        products = list(products)
        unique_ids(products)
        if not products:
            return 0
        self._check_writable()
        searcher, represented = self.searcher, self._represent(products)
        with self._writing:
            if self.searcher is not searcher:  # another index was taken in meanwhile, and may number codes otherwise
                represented = self._represent(products)
            self._commit(products, represented, entries=[(PENDING, p.product_id, {}) for p in products])
        return len(products)

    def _represent(self, products: Sequence[Product]) -> Representations:
        weighed = self.searcher.weighs_compound
        read = bool(self.searcher.index.meta.get("coding", {}).get("descriptions"))  # as the products that are there
        codes = PRODUCT_CODING.codes if weighed else 0  # they take half of the time
        coding = replace(PRODUCT_CODING, codes=codes, descriptions=read)
        return self.searcher.coder.represent(products, Side.PRODUCT, coding, progress="coding products")

    def replace(self, product: Product) -> None:
        """Other fields of a product that is there, with the codes it has: nothing is coded. Raises KeyError if it is
        not there."""
        self._check_writable()
        with self._writing:
            found = self.snapshot.find(product.product_id)
            if found is None:
                raise KeyError(product.product_id)
            segment, row = found
            self._commit([product], read_back(segment.index, np.array([row])))

    def edit_code(self, edit: CodeEdit, *entries: Entry) -> None:
        """Gives an attribute to a product that is there, takes it away, or leaves it to the coder again, for good:
        durable and visible when it returns, with what else is to be kept of it. Raises KeyError if the product is not
        there."""
        self._check_writable()
        with self._writing:
            found = self.snapshot.find(edit.product_id)
            if found is None:
                raise KeyError(edit.product_id)
            segment, row = found
            product = segment.index.table[row]
            anew = edit.given is None  # what was laid over is lost
            represented = self._represent([product]) if anew else read_back(segment.index, np.array([row]))
            self._commit([product], represented, edit, [edit.entry(), *entries])

    def add_attribute(self, attribute: Attribute) -> bool:
        """Teaches the coder an attribute, for good; whether it is new. What was coded before stays as it is: see
        `code_anew`. Raises SettingError as of `gram.coder.added.add_attribute`."""
        self._check_writable()
        with self._writing:
            before = self.searcher.coder
            coder = add_attribute(before, attribute)
            if coder is before:
                return False
            if self._tried is None:
                self._tried = self._read_tried(coder)
            harder = (too_easy(coder, attribute, self._tried[0]), too_easy(coder, attribute, self._tried[1]))
            make_harder(coder, harder)
            key = f"{len(self._attributes):06d}"  # in the order in which they are numbered
            self.store.put(ATTRIBUTE, key, {"attribute": attribute, "harder": harder})
            self.searcher = self.searcher.with_coder(coder, [attribute])
            self._attributes = [*self._attributes, (attribute, harder)]
            self._show(self.snapshot.segments)
            return True

    def _read_tried(self, coder: Coder) -> tuple[Tried, Tried]:
        """The queries, and the products, on which attributes are tried that are added: some of the segment on disk."""
        lexicon, table = coder.lexicon, self.searcher.index.table
        learnt = [attribute.value for attribute in lexicon.attributes[: lexicon.n_learnt]]
        queries = learnt[:: max(1, len(learnt) // TRIED)]
        products = [table[row] for row in range(0, len(table), max(1, len(table) // TRIED))]
        return (
            read_tried(coder, queries, Side.QUERY, SURE_CODING.least),
            read_tried(coder, products, Side.PRODUCT, PRODUCT_CODING.least),
        )

    def code_anew(self, product_ids: Iterable[str]) -> int:
        """Codes products as they are by what the coder knows now; how many are there. Those whose codes change are
        written."""
        self._check_writable()
        with self._writing:
            found = [one for one in map(self.snapshot.find, dict.fromkeys(product_ids)) if one is not None]
            products = [segment.index.table[row] for segment, row in found]
            represented, before = self._represent(products), _keys_of(found)
            after = self._edited(self._edits, [product.product_id for product in products], represented)
            weighed = self.searcher.weighs_compound  # else compound codes are not coded
            compared = len(SPARSE) if weighed else SPARSE.index("compound")
            others = [row for row, keys in enumerate(before) if keys[:compared] != _keys(after, row)[:compared]]
            if others:
                changed, made = [products[row] for row in others], choose(represented, others)
                self._commit(changed, made, entries=[(PENDING, product.product_id, {}) for product in changed])
        return len(found)

    def delete(self, product_ids: Iterable[str]) -> int:
        """Takes products out, and the edits of their codes; how many were there."""
        self._check_writable()
        with self._writing:
            gone = [p for p in dict.fromkeys(product_ids) if self.snapshot.find(p) is not None]
            if gone:
                dropped = [CodeEdit(p, attribute, None).entry() for p in gone for attribute in self._edits.of(p)]
                dropped += [(kind, p, None) for p in gone for kind in (PENDING, FROM_MODEL)]
                self.store.write((Change(p) for p in gone), *dropped)
                self._edits = self._edits.without(gone)
                self._show([segment.without(gone) for segment in self.snapshot.segments])
            return len(gone)

    def _check_writable(self) -> None:
        if self.read_only:
            fix = "open it without --read-only (in Python, read_only)"
            raise SettingError(f"the index is open for reading only. Fix: {fix}")

    def _commit(
        self, products: Sequence[Product], represented: Representations, edit: CodeEdit | None = None,
        entries: Sequence[Entry] = (),
    ) -> None:  # fmt: skip
        ids = [p.product_id for p in products]
        with self._writing:
            edits = self._edits if edit is None else self._edits.plus(edit)
            represented = self._edited(edits, ids, represented)
            segment = self._make(products, represented)  # what cannot be shown is not kept
            self._write(products, represented, *entries)
            self._edits = edits
            self._show([*(s.without(ids) for s in self.snapshot.segments), segment])

    def _write(self, products: Sequence[Product], represented: Representations, *entries: Entry) -> None:
        changes = [Change(p.product_id, to_json(p), pack(represented, row)) for row, p in enumerate(products)]
        numbering = (NUMBERING, "changes", {"is": _numbering(self.searcher.index)})
        self.store.write(changes, numbering, *entries)

    def _edited(self, edits: CodeEdits, ids: Sequence[str], represented: Representations) -> Representations:
        if not edits:
            return represented
        return edits.lay_over(ids, represented, self.searcher.lexicon, self.searcher.codes, self._usual_weight)

    def _usual_weight(self, key: int) -> float:
        """What an attribute weighs where texts hold it; where none does, what its rarity says."""
        lexical = self.searcher.index.lexical
        weights = lexical.of(key)[1] if key < lexical.n_keys else ()
        return float(np.mean(weights)) if len(weights) else float(self.searcher.lexicon.idf[key]) ** 0.5

    def _make(self, products: Sequence[Product], represented: Representations) -> LiveSegment:
        """A segment in memory whose scores compare with those of the one on disk."""
        searcher = self.searcher
        stems = product_stems(products, searcher.lexicon.analyzer)
        bm25 = BM25Index.build(stems, like=searcher.index.bm25)
        index = assemble_index(searcher.coder, products, represented, bm25, {}, NO_MODEL)
        index = replace(index, value=value_scores(products, like=self._values))
        return LiveSegment(index, Fields(products), BitMap(range(len(products))))

    def _show(self, segments: Sequence[LiveSegment]) -> None:
        """The next snapshot; small segments in memory are joined where there are too many."""
        base, fresh = segments[0], [segment for segment in segments[1:] if segment.alive]
        while len(fresh) > MOST_FRESH:
            fresh.sort(key=lambda segment: len(segment.alive))
            fresh = [*fresh[2:], self._make(*join_segments(fresh[:2]))]
        self.searcher.speller.known_since = lambda stem: any(segment.holds(stem) for segment in fresh)
        self.snapshot = Snapshot(self.searcher, (base, *fresh), self.snapshot.version + 1, self._edits)

    # --- what is on disk --------------------------------------------------------------------------------------------

    def _read(self, index: Index, identity: Identity) -> None:
        """Shows a segment of the disk and what the store holds beyond it; `identity` is the folder's before it was
        opened."""
        self._identity, self._attributes, self._tried = identity, [], None
        self._learn_attributes()
        base = LiveSegment(index, Fields(index.table), BitMap(range(index.n_products)))
        self._values = base.fields.numbers("value")
        self._edits = CodeEdits.read(self.store.all(KIND))
        merged = int(index.meta.get(MERGED, 0))
        if not self.read_only:
            self.store.number_from(merged)
        self._take_in(self._lay_over(base), merged)

    def _lay_over(self, base: LiveSegment) -> list[LiveSegment]:
        """A segment that was written anew, and one in memory of its products whose codes are not as edits have them."""
        rows = [row for product_id in self._edits.by_product if (row := base.row(product_id)) is not None]
        if not rows:
            return [base]
        products = [base.index.table[row] for row in rows]
        ids = [product.product_id for product in products]
        before = read_back(base.index, np.array(rows))
        after = self._edited(self._edits, ids, before)
        others = [row for row in range(len(ids)) if _keys(before, row) != _keys(after, row)]
        if not others:
            return [base]
        made = self._make([products[row] for row in others], choose(after, others))
        return [base.without(ids[row] for row in others), made]

    def _take_in(self, segments: Sequence[LiveSegment], after: int) -> None:
        """Shows segments with the store's changes behind a number."""
        self._seen = self.store.last()  # before they are read: what another process writes meanwhile is not seen yet
        changes = self.store.changes(after)
        self._learn_attributes()  # changes may hold them
        self._edits = CodeEdits.read(self.store.all(KIND))
        gone = [change.product_id for change in changes]
        segments = [segment.without(gone) for segment in segments]
        there = [change for change in changes if change.product is not None]
        if there:
            products = [product_of(json.loads(str(change.product))) for change in there]
            segments.append(self._make(products, self._read_packed(there, products)))
        self._show(segments)

    def _learn_attributes(self) -> None:
        """Teaches the searcher the attributes that the store has and it lacks."""
        entries = self.store.all(ATTRIBUTE).values()
        known = [(Attribute(*entry["attribute"]), (entry["harder"][0], entry["harder"][1])) for entry in entries]
        if known != self._attributes:
            self.searcher = self.searcher.with_attributes(known[len(self._attributes) :])
            self._attributes = known

    def _read_packed(self, changes: Sequence[Change], products: Sequence[Product]) -> Representations:
        """The representations of changes; coded anew where another index numbered their codes."""
        index, known = self.searcher.index, self.store.get(NUMBERING, "changes")
        if known is None or known["is"] == _numbering(index):
            return unpack([c.representation for c in changes], index.width, index.token_vectors.vectors.shape[1])
        represented = self._edited(self._edits, [p.product_id for p in products], self._represent(products))
        if not self.read_only:
            self._write(products, represented)
        return represented

    def refresh(self) -> bool:
        """Takes in what other processes wrote: a new segment, changes. Whether there was something.

        Raises IndexFolderError or ModelError, once, for a segment that cannot be used; until its files change what was
        there goes on.
        """
        with self._writing:
            scored, identity = self._score_anew(), identity_of(self.folder)
            if self.read_only and self.store.renew():
                self._identity = (0, 0, 0)  # what was read of the other one is read again
            if identity != self._identity and (state := state_of(self.folder, self.model)) != self.refused:
                try:
                    searcher = self._open_anew()
                except (IndexFolderError, ModelError):
                    self.refused = state
                    raise
                self.searcher, self._scored = searcher, scores_of(searcher.model)
                self._read(searcher.index, identity)
                if not self.read_only:
                    self.store.forget(int(searcher.index.meta.get(MERGED, 0)))
                return True
            learnt = len(self.store.all(ATTRIBUTE)) != len(self._attributes)
            if self.read_only and (learnt or self.store.last() != self._seen):
                self._take_in(self.snapshot.segments, self._seen)
                return True
            return scored

    def _score_anew(self) -> bool:
        """Takes in a score that was fitted anew. Whether there was one."""
        scored = scores_of(self.searcher.model)
        if scored == self._scored:
            return False
        self._scored = scored  # one that cannot be read is told once
        self.searcher = self.searcher.scored_anew(self._only)
        self._show(self.snapshot.segments)
        return True

    def _open_anew(self) -> Searcher:
        opened = Index.open(self.folder, check=True)  # what is damaged is not taken in
        if opened.meta["model_hash"] != self.searcher.index.meta["model_hash"]:  # trained anew: by the model it names
            return Searcher.load(self.folder, self.model, self._device, only=self._only)
        searcher = Searcher(self.searcher.model_coder, opened, self.searcher.scorer)
        searcher.model, searcher.alone, searcher.reads = self.searcher.model, self.searcher.alone, self.searcher.reads
        return searcher

    def merge(self) -> int:
        """Writes one segment of all, in the old one's place; how many products it holds.

        It reads a snapshot, so that searching and changing go on meanwhile; what changes meanwhile stays in the store.
        """
        with self._writing:
            number = self._seen if self.read_only else self.store.last()  # what a reader has not read is not merged
            snapshot, identity = self.snapshot, self._identity
        merged = merge_segments(self.searcher, snapshot.segments, number)
        if identity_of(self.folder) != identity:
            raise SettingError(f"{self.folder} was written anew while it was merged: the new one stays")
        merged.save(self.folder)
        self.refresh()
        return merged.n_products


def _keys(represented: Representations, row: int) -> list[list[int]]:
    return [sorted(getattr(represented, name).of(row).key.tolist()) for name in SPARSE]


def _keys_of(found: Sequence[tuple[LiveSegment, int]]) -> list[list[list[int]]]:
    """The keys of products where they stand; each segment is read once."""
    keys: dict[int, list[list[int]]] = {}
    for segment in {id(segment): segment for segment, _ in found}.values():
        here = [at for at, (other, _) in enumerate(found) if other is segment]
        before = read_back(segment.index, np.array([found[at][1] for at in here]))
        keys |= {at: _keys(before, row) for row, at in enumerate(here)}
    return [keys[at] for at in range(len(found))]


def _empty_store(path: str | Path) -> Store:
    """The store of an index that nothing has changed yet: a new file, so that a reader sees what a writer will write;
    where this process may not write one, nothing."""
    try:
        return Store.open(path)
    except IndexFolderError:
        return Store.open(":memory:")


def _numbering(index: Index) -> str:
    """Tells two indexes apart where an attribute's id in one is not its id in the other."""
    named = "\n".join([index.meta["model_hash"], *index.extra_words])
    return hashlib.sha256(named.encode()).hexdigest()[:16]
