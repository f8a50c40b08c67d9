"""A generated shop with searchers: catalogue, click log and judged queries in seconds, for demonstrations and tests.

Sellers and searchers use different words. A seller lists "Velanto Swift Road Runners, Engineered Mesh, US 9"; one who
wants them types "comfy sneakers size 9". A searcher has a product in mind and asks for one to four of its attributes in
a searcher's words; the words mean everything that searchers call so, and that meaning is the judgement:

    3  every attribute asked for is true of the product
    2  of three attributes or more, all are but one minor one: colour, size or brand
    0  otherwise (not listed)

Searchers of the log see the answers of a simple engine, and click what stands high, what they want and what is popular.

`traits` makes the shop richer, one property at a time. The judgement stays the same: a range, a further slot or a
measure is an attribute like others, true or not; of these only a range of sizes is minor, as a size is.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

import numpy as np

from gram.data.dataset import Dataset, Judged, split_part
from gram.data.shop.catalogue import Offer, stock
from gram.data.shop.further import furnish
from gram.data.shop.otherwise import read_range, said_otherwise, synonyms
from gram.data.shop.traits import PLAIN, Traits
from gram.data.shop.wishes import Wish, names_of, query_of, wishes_for
from gram.errors import SettingError
from gram.records import Interaction
from gram.text.typos import misspell

MINOR = ("colour", "size", "brand")
MOST_ANSWERS = 100
"""A judged query with more relevant products than this would tell no engine from another."""

_HELD_OUT = 0.1  # of the products: listed after the log ended
_SHOWN, _POOL = 24, 60  # products on a page of results; candidates that noise can bring there
_OPPOSED = ("colour", "size", "material", "brand")  # slots in which a click may go against the query
_CONFLICTS, _QUERIES = 7, 8  # of the seed: what a trait draws moves nothing else


class _Shop(NamedTuple):
    """The offers with what searchers' words mean. P products.

    `answers` maps words to the products they are true of, bool (P,); `said` maps a word of the sellers' texts to rows
    of the catalogue; `popularity` (P,) is in 0..1; `has` tells of a slot which products have a value of it, bool (P,).
    """

    offers: list[Offer]
    answers: dict[str, np.ndarray]
    said: dict[str, np.ndarray]
    popularity: np.ndarray
    has: dict[str, np.ndarray]


def generate(
    products: int = 4000, interactions: int = 20000, seed: int = 0, queries: int = 3000, traits: Traits = PLAIN
) -> Dataset:
    """The shop: its catalogue, its log, and the judged parts "dev" and "test".

    `queries` is how many different ones the log holds (fewer where the shop is too small for so many, or the log too
    short). The judged queries, a tenth and a fifth of all, stand apart by `split_part`; none is in the log. A tenth of
    the products is never in the log. The same arguments give the same shop; `traits` makes it richer.
    """
    if products < 1 or interactions < 1 or queries < 1:
        raise SettingError("The shop needs at least one product, one interaction and one query.")
    rng = np.random.default_rng(seed)
    shop = _open(furnish(stock(products, rng), traits, seed))
    logged: dict[str, tuple[Wish, ...]] = {}
    drawn: Counter[str] = Counter()
    parts = {"dev": Judged({}, {}), "test": Judged({}, {})}
    for query, wishes in _searches(shop, rng, 40 * queries, traits, seed):
        drawn[query] += 1
        part = split_part(query)
        if part == "train":
            logged.setdefault(query, wishes)
            if len(logged) == min(queries, interactions):
                break
        elif drawn[query] == 1:
            _judge(shop, f"{part}-{len(parts[part].queries) + 1:04d}", query, wishes, parts[part])
    if not logged:
        raise SettingError("A shop so small has no queries. Fix: ask for more products, or more queries.")
    by_use = sorted(logged, key=lambda query: (-drawn[query], len(query)))
    log = _log(shop, {query: logged[query] for query in by_use}, interactions, rng, traits, seed)
    return Dataset([offer.product for offer in shop.offers], log, parts)


def _judge(shop: _Shop, query_id: str, query: str, wishes: Sequence[Wish], judged: Judged) -> None:
    """Adds a query with its grades, if it has answers and not too many."""
    grades = _grades(shop, wishes)
    relevant = np.flatnonzero(grades)
    if 0 < len(relevant) <= MOST_ANSWERS:
        judged.queries[query_id] = query
        judged.qrels[query_id] = {shop.offers[i].product.product_id: float(grades[i]) for i in relevant}


def _open(offers: list[Offer]) -> _Shop:
    answers: dict[str, np.ndarray] = {}
    said: dict[str, list[int]] = {}
    for row, offer in enumerate(offers):
        for value in (value for of_slot in offer.values.values() for value in of_slot):
            for words in (*names_of(value), *synonyms().get((value.slot, value.name), ())):
                answers.setdefault(words, np.zeros(len(offers), dtype=bool))[row] = True
        text = " ".join((offer.product.title, offer.product.description, *offer.product.category))
        for word in sorted(set(_words(text))):
            said.setdefault(word, []).append(row)
    sold = np.array([offer.product.value for offer in offers], dtype=np.float64)
    rank = np.argsort(np.argsort(sold, kind="stable"), kind="stable")
    rows_of = {word: np.array(rows) for word, rows in said.items()}
    has = {slot: np.array([slot in offer.values for offer in offers]) for slot in _OPPOSED}
    return _Shop(offers, answers, rows_of, rank / len(offers), has)


def _words(text: str) -> list[str]:
    return [word.rstrip("s") or word for word in re.findall(r"\w+", text.lower())]


def _searches(
    shop: _Shop, rng: np.random.Generator, tries: int, traits: Traits, seed: int
) -> Iterator[tuple[str, tuple[Wish, ...]]]:
    """Queries with what they ask for, common ones early and often: popular products are sought most.

    A search that a trait says otherwise has no typo; the searches after it are those of the plain shop.
    """
    demand = np.cumsum(0.15 + shop.popularity**2)
    for n in range(tries):
        row = int(np.searchsorted(demand, rng.random() * demand[-1], side="right").clip(max=len(demand) - 1))
        wishes = wishes_for(shop.offers[row], rng)
        query = query_of(wishes, rng)
        if rng.random() < 0.06:
            query = misspell(query, rng)
        otherwise = said_otherwise(shop.offers[row], wishes, traits, seed, n)
        if otherwise != wishes:
            query = query_of(otherwise, np.random.default_rng([seed, _QUERIES, n]))
        yield query, otherwise


def _matches(shop: _Shop, wishes: Sequence[Wish]) -> np.ndarray:
    """Which wish each product fulfils, bool (W, P)."""
    return np.stack([_true_of(shop, wish.words) for wish in wishes])


def _true_of(shop: _Shop, words: str) -> np.ndarray:
    """The products that words are true of, bool (P,)."""
    span = read_range(words) if words not in shop.answers else None
    if span:
        shop.answers[words] = np.array([span.holds(offer) for offer in shop.offers])
    return shop.answers[words]


def _grades(shop: _Shop, wishes: Sequence[Wish]) -> np.ndarray:
    """The judgement of every product, int (P,), as the head of this file says."""
    fulfilled = _matches(shop, wishes)
    grades = np.where(fulfilled.all(axis=0), 3, 0)
    if len(wishes) >= 3:
        minor = np.array([wish.slot in MINOR for wish in wishes])
        grades[(np.sum(~fulfilled, axis=0) == 1) & fulfilled[~minor].all(axis=0)] = 2
    return grades


class _Page(NamedTuple):
    """What a query's searchers may see, C candidates.

    `rows` (C,) of the catalogue, the engine's `scores` (C,), `appeal` (C,) the chance of a click at rank 1, `fits`
    (C,) whether it is all that was asked for. `opposed` are other rows, unlike what was asked for in one thing.
    """

    rows: np.ndarray
    scores: np.ndarray
    appeal: np.ndarray
    fits: np.ndarray
    opposed: np.ndarray


def _page(shop: _Shop, query: str, wishes: Sequence[Wish], listed: np.ndarray) -> _Page:
    """The shop's engine: half of what it knows is words, half what its filters and merchandisers make of them."""
    fulfilled = _matches(shop, wishes)
    words = np.zeros(len(shop.offers))
    for word in _words(query):
        if word in shop.said:
            words[shop.said[word]] += 1 / (1 + len(shop.said[word]) / len(shop.offers) * 20)
    scores = 2 * fulfilled.mean(axis=0) + words / max(1.0, float(words.max())) + 0.4 * shop.popularity
    scores[~listed] = -1
    rows = np.argsort(-scores, kind="stable")[:_POOL]
    rows = rows[listed[rows]]
    grades = _grades(shop, wishes)[rows]
    appeal = np.choose(grades, [np.where(fulfilled[0][rows], 0.05, 0.01), 0, 0.2, 0.5]) * (
        0.7 + 0.6 * shop.popularity[rows]
    )
    return _Page(rows, scores[rows], appeal, grades == 3, _opposed(shop, wishes, fulfilled, listed))


def _opposed(shop: _Shop, wishes: Sequence[Wish], fulfilled: np.ndarray, listed: np.ndarray) -> np.ndarray:
    """Rows of listed products that are all that was asked for but for one colour, size, material or brand: theirs is
    another.

    `fulfilled` is bool (W, P).
    """
    found = np.zeros(len(shop.offers), dtype=bool)
    for i, wish in enumerate(wishes):
        if wish.slot in _OPPOSED and wishes[0].slot == "type":
            found |= ~fulfilled[i] & np.delete(fulfilled, i, axis=0).all(axis=0) & shop.has[wish.slot]
    return np.flatnonzero(found & listed)


def _log(
    shop: _Shop,
    searches: dict[str, tuple[Wish, ...]],
    interactions: int,
    rng: np.random.Generator,
    traits: Traits,
    seed: int,
) -> list[Interaction]:
    """Sessions until there are enough clicks: first one for every query, then by how common a query is (Zipf)."""
    listed = rng.random(len(shop.offers)) >= _HELD_OUT
    if not listed.any():
        listed[:] = True
    pages: dict[str, _Page] = {}
    names = list(searches)
    common = np.cumsum((np.arange(len(names)) + 8.0) ** -traits.head)
    clicks: list[_Click] = []
    session = 0
    while len(clicks) < interactions:
        if session < len(names):
            query = names[session]
        else:
            query = names[int(np.searchsorted(common, rng.random() * common[-1]).clip(max=len(names) - 1))]
        if query not in pages:
            pages[query] = _page(shop, query, searches[query], listed)
        left = interactions - len(clicks) - max(0, len(names) - session - 1)  # every query is to have its click
        chosen = _session(pages[query], rng, session < len(names), traits.position)
        clicks += [_Click(query, row, bought, session) for row, bought in chosen[: max(left, 1)]]
        session += 1
    if traits.conflicts:
        clicks = _with_conflicts(clicks, pages, traits.conflicts, np.random.default_rng([seed, _CONFLICTS]))
    return _timed(shop, clicks, session, rng)


class _Click(NamedTuple):
    """`row` of the catalogue, clicked and perhaps bought in a session."""

    query: str
    row: int
    bought: bool
    session: int


def _session(page: _Page, rng: np.random.Generator, must_click: bool, position: float) -> list[tuple[int, bool]]:
    """One searcher's clicks (row, bought or not), by rank, appeal and luck; a patient one finds something."""
    noise = rng.random((3, len(page.rows)))
    order = np.argsort(-(page.scores + 0.8 * noise[0]), kind="stable")[:_SHOWN]
    seen = 1 / (1 + position * np.arange(len(order)))  # (S,) how many look as far as that rank
    chosen = order[noise[1][order] < page.appeal[order] * seen]
    if not len(chosen) and must_click:
        chosen = order[[int(np.argmax(page.appeal[order] * seen))]]
    return [(int(page.rows[i]), bool(page.fits[i] and noise[2][i] < 0.15)) for i in chosen]


def _with_conflicts(
    clicks: Sequence[_Click], pages: dict[str, _Page], share: float, rng: np.random.Generator
) -> list[_Click]:
    """The clicks, a share of them, where the query has any such product, on one unlike what was asked in one thing."""
    found = []
    for click, (chance, luck) in zip(clicks, rng.random((len(clicks), 2)), strict=True):
        opposed = pages[click.query].opposed
        if chance < share and len(opposed):
            click = click._replace(row=int(opposed[int(luck * len(opposed))]))
        found.append(click)
    return found


def _timed(shop: _Shop, clicks: Sequence[_Click], sessions: int, rng: np.random.Generator) -> list[Interaction]:
    """The clicks as the log has them, spread over ninety days."""
    start, step = datetime(2025, 3, 1), 90 * 86400 / sessions
    order = rng.permutation(sessions)  # the first sessions are no older than the others
    users = rng.integers(1, max(2, sessions // 6), size=sessions)
    moments = sorted((int(order[click.session]), n) for n, click in enumerate(clicks))
    log = []
    for when, n in moments:
        click = clicks[n]
        moment = (start + timedelta(seconds=int(when * step))).isoformat()
        product_id = shop.offers[click.row].product.product_id
        user = f"u{users[click.session]:05d}"
        log.append(Interaction(click.query, product_id, 3.0 if click.bought else 1.0, user, moment))
    return log
