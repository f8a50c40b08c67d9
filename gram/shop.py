"""A shop: a live index with filters, facets, rules and refinements; what the service and `gram.open` hand out."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from heapq import nsmallest
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gram.answer import (
    DEEPEST,
    Answer,
    SearchRequest,
    SearchResult,
    check_counts,
    check_request,
    check_texts,
    read_query,
)
from gram.code_edits import CodeEdit
from gram.coder.folder import check_model
from gram.coder.packing import read_back
from gram.data.catalogue import check_patch, check_products, patch_product
from gram.errors import GramError, SettingError
from gram.export import query_vector, shown
from gram.index.filters import parse_filter
from gram.index.segment import check_index
from gram.index.store import FROM_MODEL, Entry, Store
from gram.live import LiveIndex
from gram.names import check_names, missing_code, warn_of_rule
from gram.records import Attribute, Product
from gram.remembered import Remembered
from gram.rules import Rule, check_rule_id, in_force, next_moment, parse_rule, without_told
from gram.search import BATCH, find_model
from gram.text.fields import UNREAD

log = logging.getLogger(__name__)

REMEMBERED = 100
"""Hits of an answer that is remembered, at most."""
ANSWERS, ANSWER_BYTES = 2_000, 64_000_000
"""Answers that are remembered, and what they take of memory in all."""


class ProductCode(NamedTuple):
    """A single code of a product, where it is from (lexical, expansion or given), and what it weighs."""

    code: Attribute
    source: str
    weight: float


class ProductCodes(NamedTuple):
    """What a product has, and what was taken away from it."""

    codes: list[ProductCode]
    taken: list[Attribute]


class CodeCount(NamedTuple):
    """A single code, and how many products hold it or were given it."""

    code: Attribute
    products: int


class CodeList(NamedTuple):
    """Some of the `found` codes, and how many of each slot the shop's lexicon has that begin as asked."""

    codes: list[CodeCount]
    found: int
    slots: dict[str, int]


class Shop:
    """Answers searches and takes changes; safe to use from many threads."""

    def __init__(self, live: LiveIndex) -> None:
        self.live = live
        self._remembered: Remembered[SearchResult] = Remembered(ANSWERS, ANSWER_BYTES)
        self._lock = threading.Lock()
        self._ruling = threading.Lock()  # held while rules are read or written, and shown
        self._rules_version = 0
        self._unread: set[str] = set()
        self._set_rules(self._read_rules())

    @classmethod
    def open(
        cls, folder: str | Path, model: str | Path | None = None, device: str = "cpu", read_only: bool = False,
        check: bool = True, watching: bool = True, only: Sequence[str] = (),
    ) -> Shop:  # fmt: skip
        """The shop of an index folder; it must be closed, which `with gram.open(…) as shop:` does at its end.

        Open, it locks the index for writing: no other process may change it. Not so with `read_only`, which takes no
        changes and, by `refresh`, sees those of the process that writes; where it is not `watching` for them, it makes
        no store beside an index that has none. `check` compares every file of index and model with its checksum;
        without, it opens sooner, and damage shows later or never. `model` is where the model is, if not where the
        index says; `only` is a list of the groups of features, `["codes", "words"]` say, that it finds and ranks by
        alone. Errors as of `Searcher.load` and `Searcher.only`; DataError where another process writes.
        """
        return cls(LiveIndex.open(folder, model, device, read_only, check, watching, only))

    def close(self) -> None:
        """Gives back the files, and the lock for writing."""
        self.live.close()

    def __enter__(self) -> Shop:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __len__(self) -> int:
        return len(self.live.snapshot)

    @property
    def store(self) -> Store:
        return self.live.store

    # --- changes ----------------------------------------------------------------------------------------------------

    def update(self, products: Iterable[Product]) -> int:
        """Adds or replaces products; how many. Durable and visible when it returns. Raises BadRow for a product that a
        catalogue's readers refuse, SettingError for an id twice."""
        return self.live.update(check_products(products))

    def delete(self, product_ids: Iterable[str]) -> int:
        """Takes products out; how many were there. Durable and visible when it returns. Raises SettingError for what is
        no list of texts."""
        if isinstance(product_ids, str):
            raise SettingError(f"ids are given in a list, not as one text. Fix: delete([{product_ids!r}])")
        if not isinstance(product_ids, Iterable):
            raise SettingError(f"ids are {product_ids!r:.60}. Fix: give a list of texts")
        ids = list(product_ids)
        for product_id in ids:
            check_texts(product_id=product_id)
        return self.live.delete(ids)

    def patch(self, product_id: str, fields: Mapping[str, Any]) -> Product:
        """Changes some fields of a product; price, value, stock, image and url code nothing anew.

        `fields` are named as those of `Product`, any other is an attribute with its values; None takes one away, and
        every attribute with `attributes`: see `patch_product`. Raises KeyError for an unknown product, BadRow for what
        a catalogue's readers refuse.
        """
        check_patch(fields)
        old = self.product(product_id)
        if old is None:
            raise KeyError(product_id)
        product = patch_product(old, fields)
        self.replace(product)
        return product

    def replace(self, product: Product) -> None:
        """Puts a product in the place of the one of its id; where these differ in price, value, stock, image or url
        alone, nothing is coded. Durable and visible when it returns. Raises KeyError for an unknown product, BadRow as
        `update` does."""
        (product,) = check_products([product])
        old = self.product(product.product_id)
        if old is None:
            raise KeyError(product.product_id)
        if _said_by(old) == _said_by(product):
            self.live.replace(product)
        else:
            self.live.update([product])

    def product(self, product_id: str) -> Product | None:
        """A product as it is now. Raises SettingError for an id that is no text."""
        check_texts(product_id=product_id)
        found = self.live.snapshot.find(product_id)
        return None if found is None else found[0].index.table[found[1]]

    def codes(self, product_id: str) -> ProductCodes | None:
        """The single codes of a product as it is now, the weightiest first. Raises SettingError for an id that is no
        text."""
        check_texts(product_id=product_id)
        snapshot = self.live.snapshot
        found = snapshot.find(product_id)
        if found is None:
            return None
        (segment, row), edits, lexicon = found, snapshot.edits.of(product_id), snapshot.searcher.lexicon
        represented = read_back(segment.index, np.array([row]))
        codes: dict[Attribute, ProductCode] = {}
        for source in ("lexical", "expansion"):
            keys, weights = getattr(represented, source).of(0)
            for key, weight in zip(keys.tolist(), weights.tolist(), strict=True):
                attribute = lexicon.attributes[key]
                before = codes[attribute].weight if attribute in codes else 0.0  # what stands in several fields adds up
                codes[attribute] = ProductCode(
                    attribute, "given" if edits.get(attribute) else source, round(before + weight, 5)
                )
        taken = [attribute for attribute, given in edits.items() if not given]
        return ProductCodes(sorted(codes.values(), key=lambda code: -code.weight), taken)

    def list_codes(self, slot: str = "", prefix: str = "", limit: int = 100, offset: int = 0) -> CodeList:
        """The single codes that there are, of a slot or of all, whose values begin with `prefix`, its words in any
        form: those of most products first, and those of none last. Raises SettingError for an unknown slot, texts that
        are none, and numbers out of range."""
        check_texts(slot=slot, prefix=prefix)
        check_counts(limit=limit, offset=offset)
        snapshot, slot = self.live.snapshot, slot.strip().lower()
        lexicon, counts = snapshot.searcher.lexicon, snapshot.code_counts.tolist()
        if slot and slot not in lexicon.slots:
            raise SettingError(f"there is no slot {slot!r:.40}. Fix: choose from {', '.join(lexicon.slots)}")
        if limit > DEEPEST:
            raise SettingError(f"limit is {limit}. Fix: give a limit from 0 to {DEEPEST}")
        known = zip(counts, lexicon.attributes, lexicon.forms, strict=True)
        words, stems = " ".join(lexicon.analyzer.words(prefix)), tuple(lexicon.analyzer.stems(prefix))
        there = [
            (-products, code)
            for products, code, forms in known
            if code.value.casefold().startswith(words) or any(form[: len(stems)] == stems for form in forms)
        ]
        there = there if words or not prefix.strip() else []  # of signs alone
        slots = Counter(code.slot for _, code in there)
        best = nsmallest(offset + limit, (one for one in there if slot in ("", one[1].slot)))[offset:]
        found = slots[slot] if slot else len(there)
        return CodeList([CodeCount(code, -less) for less, code in best], found, dict(slots.most_common()))

    def vector(self, query: str, form: str = "names") -> dict[str, Any]:
        """A query's codes as a sparse vector, to ask another engine that holds the products' (`gram export`).

        {"codes": {attribute: weight}}, or with the form `ids` {"indices": […], "values": […]}. Raises SettingError for
        a query that is no text, and for another form.
        """
        searcher = self.live.snapshot.searcher
        return shown(query_vector(searcher.represent([query], compound=False)[0]), searcher.lexicon, form)

    def edit_code(self, product_id: str, slot: str, value: str, given: bool | None) -> Attribute:
        """Gives a single code to a product, or takes it away, whatever its text and the model say, or leaves it to
        these again (None); the code as the lexicon has it. Durable and visible when it returns.

        It stays when the product is written anew. Raises KeyError for an unknown product, SettingError for a code that
        the lexicon lacks, and for texts that are none.
        """
        check_texts(product_id=product_id, slot=slot, value=value)
        if given is not None and not isinstance(given, bool):
            raise SettingError(f"given is {given!r:.60}. Fix: write True, False or None")
        lexicon = self.live.searcher.lexicon
        key = lexicon.find(slot, value)
        if key < 0:
            raise SettingError(missing_code(self.live.searcher, Attribute(slot, value)))
        attribute = lexicon.attributes[key]
        noted = self.store.get(FROM_MODEL, product_id)
        entries: list[Entry] = []
        if noted is not None:  # from now on it is a person's, whatever a language model had said of it
            left = [code for code in noted["codes"] if Attribute(*code) != attribute]
            entries = [(FROM_MODEL, product_id, {"codes": left})]
        self.live.edit_code(CodeEdit(product_id, attribute, given), *entries)
        return attribute

    def add_attribute(self, slot: str, value: str) -> tuple[Attribute, bool]:
        """Teaches the model an attribute without training, for good; the attribute, and whether it is new.

        Queries have it at once, a product when it is coded the next time: `live.snapshot.like` names those that may
        have it, and `live.code_anew` codes them. Raises SettingError for one that cannot be added.
        """
        check_texts(slot=slot, value=value)
        attribute = Attribute(slot.strip(), " ".join(self.live.searcher.lexicon.analyzer.words(value)))
        new = self.live.add_attribute(attribute)
        lexicon = self.live.searcher.lexicon
        return lexicon.attributes[lexicon.find(*attribute)], new

    def rules(self) -> list[Rule]:
        """All rules, drafts too."""
        return list(self._rules)

    def kept_rules(self) -> dict[str, dict[str, Any]]:
        """All rules as they were put, by their ids; one that cannot be read, and does nothing, with an `error`: why
        not, and the fix."""
        return {rule_id: _told(rule_id, data) for rule_id, data in self.store.all("rule").items()}

    def kept_rule(self, rule_id: str) -> dict[str, Any] | None:
        """One rule, as of `kept_rules`; None where there is none."""
        data = self.store.get("rule", rule_id)
        return None if data is None else _told(rule_id, data)

    def put_rule(self, rule_id: str, data: Mapping[str, Any]) -> Rule:
        """Keeps a rule in place of one of the same id; what it names in vain `warnings` tells. Raises RuleError for one
        that cannot be kept, SettingError for a filter by a field that no product has."""
        check_rule_id(rule_id)
        rule = parse_rule(rule_id, data)
        if rule.filter:
            check_names(self.live.snapshot, parse_filter(rule.filter).names)
        with self._ruling:
            self.store.put("rule", rule_id, without_told(data))
            others = [r for r in self._rules if r.rule_id != rule_id]
            self._set_rules(sorted([*others, rule], key=lambda rule: rule.rule_id))  # as they are read from the store
        return rule

    def warnings(self, rule: Rule) -> list[str]:
        """Sentences on what a rule names and nobody has: it is kept all the same, for products that have it may
        come."""
        return warn_of_rule(self.live.snapshot, rule)

    def remove_rule(self, rule_id: str) -> bool:
        """Takes a rule out; whether there was one. Raises SettingError for an id that is no text."""
        check_texts(rule_id=rule_id)
        with self._ruling:
            there = self.store.remove("rule", rule_id)
            self._set_rules([r for r in self._rules if r.rule_id != rule_id])
        return there

    def _set_rules(self, rules: list[Rule]) -> None:
        with self._lock:
            self._rules = rules
            self._put_in_force()

    def _read_rules(self) -> list[Rule]:
        """The rules that are kept. Those that cannot be read are passed over, which is said once, in one line: they
        could be kept by another version, and keep nobody from searching."""
        read = {rule_id: _read_rule(rule_id, data) for rule_id, data in self.store.all("rule").items()}
        unread = {rule_id: rule for rule_id, rule in read.items() if isinstance(rule, str)}
        if new := sorted(unread.keys() - self._unread):
            more = f" ({len(new)} rules are passed over; GET /rules tells why)" if len(new) > 1 else ""
            log.warning("the rule %r is passed over: %s%s", new[0], unread[new[0]], more)
        self._unread = set(unread)
        return [rule for rule in read.values() if isinstance(rule, Rule)]

    def _put_in_force(self) -> None:
        now = datetime.now(timezone.utc)
        self._in_force, self._until = in_force(self._rules, now), next_moment(self._rules, now)
        self._rules_version += 1

    def _rules_now(self) -> tuple[list[Rule], int]:
        """The rules in force, and a number that grows when they change or their time comes or goes."""
        with self._lock:
            if datetime.now(timezone.utc) >= self._until:
                self._put_in_force()
            return self._in_force, self._rules_version

    def refresh(self) -> bool:
        """Takes in what other processes wrote: a segment, changes, rules. Whether there was something."""
        fresh = self.live.refresh()
        with self._ruling:
            rules = self._read_rules()
            if rules != self._rules:
                self._set_rules(rules)
                fresh = True
        return fresh

    def reload(self) -> bool:
        """The same once every file of the index and its model was read and found as it was written: some tenths of a
        second. Raises IndexFolderError or ModelError, which names the file, where one is not; nothing is taken in then.
        """
        meta = check_index(self.live.folder)
        check_model(self.live.model or find_model(self.live.folder, meta))
        self.live.refused = frozenset()  # whatever it was refused for
        return self.refresh()

    # --- searching --------------------------------------------------------------------------------------------------

    def search(self, request: SearchRequest | str, rules: Sequence[Rule] | None = None, **options: Any) -> SearchResult:
        """Answers a request, or a query with options named as its fields; `rules` are tried in place of the shop's own.

        Raises SettingError for a limit, offset or query out of range, FilterError for a filter that cannot be read.
        """
        if isinstance(request, str):
            request = SearchRequest(request, **options)
        elif options:
            raise SettingError(f"{next(iter(options))} is given beside a request. Fix: give it in the SearchRequest")
        check_request(request)
        if rules is not None:
            if not isinstance(rules, Iterable):
                raise SettingError(f"rules are {rules!r:.60}. Fix: give a list of what parse_rule of gram.rules read")
            for rule in rules:
                if not isinstance(rule, Rule):
                    raise SettingError(f"a rule is {rule!r:.60}. Fix: give what parse_rule of gram.rules read")
            return Answer(self.live.snapshot, request, rules).run()
        rules, version = self._rules_now()
        key = (self.live.snapshot.version, version, request)
        if (cached := self._remembered.get(key)) is not None:
            return cached.copy()
        result = Answer(self.live.snapshot, request, rules).run()
        if request.limit <= REMEMBERED:  # so that no single one takes the place of many
            self._remembered.put(key, result.copy(), _bytes_of(result))
        return result

    def search_many(self, queries: Sequence[str], request: SearchRequest) -> Iterator[SearchResult]:
        """The answers to many queries, each asked as the request asks: those of `search`, sooner, for queries are
        represented together. Errors as of `search`."""
        if isinstance(queries, str):
            raise SettingError(f"queries are texts in a list, not one text. Fix: search_many([{queries!r:.60}], …)")
        for query in queries:
            check_texts(query=query)
        check_request(request)
        rules, _ = self._rules_now()
        snapshot = self.live.snapshot
        for begin in range(0, len(queries), BATCH):
            some = queries[begin : begin + BATCH]
            texts = [read_query(snapshot, query, rules)[0] for query in some]
            ready = replace(snapshot, searcher=snapshot.searcher.with_ready(texts))
            yield from (Answer(ready, replace(request, query=query), rules).run() for query in some)


def _read_rule(rule_id: str, data: Any) -> Rule | str:
    """A rule that is kept, or why it cannot be read, and the fix."""
    try:
        return parse_rule(rule_id, data)
    except GramError as error:
        return f"{error}; or remove the rule"


def _told(rule_id: str, data: Any) -> dict[str, Any]:
    """A rule as it was put, with an `error` where it cannot be read."""
    rule, fields = _read_rule(rule_id, data), data if isinstance(data, dict) else {}
    return fields | {"error": rule} if isinstance(rule, str) else fields


def _bytes_of(answer: SearchResult) -> int:
    """What an answer takes of memory, about: measured of CPython's tuples, dicts, floats and texts."""
    hits = sum(400 + len(hit.title) + 300 * len(hit.codes) + 80 * len(hit.features) for hit in answer.hits)
    values = sum(len(found["values"]) + 5 * len(found.get("ranges", ())) for found in answer.facets.values())
    warnings = sum(100 + len(warning) for warning in answer.warnings)
    return 3_000 + hits + 100 * values + 300 * (len(answer.codes) + len(answer.refinements)) + warnings


def _said_by(product: Product) -> Product:
    """What of a product its codes are read from."""
    attributes = {name: values for name, values in product.attributes.items() if name.casefold() not in UNREAD}
    return product._replace(price=None, value=None, attributes=attributes)
