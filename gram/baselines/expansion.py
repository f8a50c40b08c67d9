"""BM25 over products that are expanded with what searchers may type to find them (doc2query).

What searchers may type is added to a product's text before it is indexed (Nogueira et al., Document Expansion by Query
Prediction, 2019), and searching stays BM25. The predictor is the encoder with a term head (as in `TermNetwork`),
trained on product → words of the queries that led to it: doc2query as a prediction of terms (TILDE: Zhuang & Zuccon,
SIGIR 2021). A word counts as new or as more weight for one that is there, and both help BM25.

Products that the log knows get its queries as well, as often as chosen.

Dimension letters:
    B  products of a batch    V  terms
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import Stemmer
import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from gram.baselines.base import Found, How, Rival, TrainingData, catalogue_of, read_settings, write_meta
from gram.baselines.bm25 import BM25
from gram.baselines.encoder import PRODUCT_TOKENS, PretrainedEncoder, computing, groups_of, vectors
from gram.baselines.term_sets import TermNetwork
from gram.baselines.training import DevSample, Pairs, Plan, fit, plan_for
from gram.folders import new_folder, read_json, write_json
from gram.records import Interaction, Product
from gram.text.fields import FIELDS, joined_text

PREDICTED = 50
"""Terms kept of each product, of which the dev part chooses how many count."""
_WORD = re.compile(r"\w+")  # as BM25 reads words


class Additions(NamedTuple):
    """What may be added to each product: predicted terms, likeliest first, and the log's queries."""

    predicted: list[list[str]]
    logged: list[list[str]]


class Choice(NamedTuple):
    """Settings chosen on the dev part: BM25's, how many predictions to add, and how often the log's queries."""

    k1: float = 0.9
    b: float = 0.4
    fields: tuple[str, ...] = FIELDS
    predictions: int = 0
    repeats: int = 0


class ExpandedBM25(Rival):
    """BM25 over products' fields, predicted terms and logged queries.

    With an empty log nothing can be predicted: it is then BM25, its k1, b and fields chosen on the dev part.
    """

    name = "expanded bm25"

    def __init__(
        self, products: Sequence[Product], additions: Additions, choice: Choice, settings: Mapping[str, object] = {}
    ) -> None:
        """`additions` in the order of the products' ids."""
        super().__init__(products, {**settings, **choice._asdict(), "fields": list(choice.fields)})
        rows = zip(self._products, additions.predicted, additions.logged, strict=True)
        expanded = [expand(product, predicted, logged, choice) for product, predicted, logged in rows]
        self._bm25 = BM25(expanded, choice.k1, choice.b, ("title", "description"))

    @classmethod
    def train(
        cls,
        folder: Path,
        data: TrainingData,
        how: How,
        plan: Plan | None = None,
    ) -> None:
        """Trains into `folder`; `model` is the encoder's folder or hub id, `quick` a run of a few steps for a check.

        Raises ModelError for a model that cannot be loaded, MissingExtra without the extra `eval`, and SettingError for
        no products.
        """
        model, seed, quick, bf16, device = how
        products = catalogue_of(data)
        logged = _queries_of(products, data.log)
        predicted: list[list[str]] = [[] for _ in products]
        dev = DevSample(data, products, seed, 100 if quick else 500)
        settings: dict[str, object] = {"predictor": "none", "seed": seed}
        if any(logged):
            plan = plan or plan_for(Pairs(products, data.log, seed), quick, seed, bf16)
            predicted, trained = predicted_terms(products, logged, model, plan, device)
            settings |= {"predictor": "terms", **trained}
        additions = Additions(predicted, logged)

        def score(choice: Choice) -> float:
            return dev.score(cls(products, additions, choice).search_many(dev.queries, 100)) if dev else 0.0

        choice, best = choose(score, additions, quick)
        engine = cls(products, additions, choice, settings | {"dev": best})
        kept = [
            [row[: choice.predictions], queries if choice.repeats else []]
            for row, queries in zip(*additions, strict=True)
        ]
        with new_folder(folder) as draft:
            write_json(draft / "additions.json", kept)
            write_meta(draft, cls.name, engine.settings, products)

    @classmethod
    def load(cls, folder: Path, products: Sequence[Product], device: str = "cpu") -> ExpandedBM25:
        """Opens what `train` wrote for these products, and builds the index again."""
        settings = read_settings(folder, cls.name, products)
        chosen = {name: settings[name] for name in Choice._fields}
        rows = read_json(folder / "additions.json")
        additions = Additions([row[0] for row in rows], [row[1] for row in rows])
        return cls(products, additions, Choice(**chosen | {"fields": tuple(chosen["fields"])}), settings)

    @property
    def index_bytes(self) -> int:
        return self._bm25.index_bytes

    def find(self, queries: Sequence[str], k: int) -> Iterator[Found]:
        return self._bm25.find(queries, k)


def expand(product: Product, predicted: Sequence[str], logged: Sequence[str], choice: Choice) -> Product:
    """The product with its chosen fields, predictions and logged queries as its description; the title stays.

    >>> choice = Choice(fields=("title", "brand"), predictions=1, repeats=2)
    >>> expand(Product("1", "Oak Desk", "Velanto"), ["table", "wood"], ["desk oak"], choice).description
    'Velanto table desk oak desk oak'
    """
    rest = joined_text(product, [field for field in choice.fields if field != "title"])
    more = [*predicted[: choice.predictions], *(query for query in logged for _ in range(choice.repeats))]
    return product._replace(description=" ".join(filter(None, [rest, *more])))


def choose(dev: Callable[[Choice], float], additions: Additions, quick: bool = False) -> tuple[Choice, float]:
    """The best settings one after the other, and their score: fields, k1 and b, what is added, k1 and b again."""
    seen: dict[Choice, float] = {}

    def best(options: Sequence[Choice]) -> Choice:
        for option in options:
            if option not in seen:
                seen[option] = dev(option)
        return max(options, key=lambda option: seen[option])  # the first of equals

    def weigh(choice: Choice) -> Choice:
        choice = best(
            [choice, *(choice._replace(k1=k1) for k1 in ((0.3, 1.5) if quick else (0.1, 0.3, 0.6, 1.5, 2.5)))]
        )
        return best([choice, *(choice._replace(b=b) for b in ((0.75,) if quick else (0.2, 0.6, 0.75, 0.9)))])

    choice = weigh(best([Choice(), Choice(fields=("title",)), Choice(fields=("title", "brand", "category"))]))
    if any(additions.predicted) or any(additions.logged):
        if any(additions.logged):
            choice = best([choice._replace(repeats=n) for n in (0, 1, 2)])
        if any(additions.predicted):
            choice = best([choice._replace(predictions=n) for n in ((0, 10) if quick else (0, 3, 6, 12, 20, 30, 50))])
        choice = weigh(choice)
    return choice, seen[choice]


class QueryTerms:
    """The words of the log's queries, and which of them a product's queries hold."""

    def __init__(self, logged: Sequence[Sequence[str]]) -> None:
        """Words of one query alone are left out, unless there are no others."""
        forms: dict[str, Counter[str]] = defaultdict(Counter)
        self._stems = [[_stems(query) for query in queries] for queries in logged]
        for queries, stemmed in zip(logged, self._stems, strict=True):
            for query, row in zip(queries, stemmed, strict=True):
                for word, stem in zip(_WORD.findall(query.lower()), row, strict=True):
                    forms[stem][word] += 1
        ranked = sorted(forms, key=lambda stem: (-forms[stem].total(), stem))
        known = [stem for stem in ranked if forms[stem].total() > 1][:10_000] or ranked
        self._number = {stem: i for i, stem in enumerate(known)}
        self.words = [min(forms[stem].items(), key=lambda form: (-form[1], form[0]))[0] for stem in known]

    def shares(self, position: int) -> Tensor:
        """(V,) of a product's queries, the share that holds each word."""
        row = torch.zeros(len(self.words))
        for stemmed in self._stems[position]:
            numbers = {self._number[stem] for stem in stemmed if stem in self._number}
            row[list(numbers)] += 1 / len(self._stems[position])
        return row


def predicted_terms(
    products: Sequence[Product], logged: Sequence[Sequence[str]], model: str, plan: Plan, device: str = "cpu"
) -> tuple[list[list[str]], dict[str, object]]:
    """For every product the `PREDICTED` words that its searchers most likely type, and how training went.

    A word's target is the share of a product's queries that hold it. A twentieth of the searched products is held out,
    and the rate and the checkpoint that predict theirs best are kept.
    """
    terms = QueryTerms(logged)
    if not terms.words:
        return [[] for _ in products], {}
    searched = np.random.default_rng(plan.seed).permutation([i for i, queries in enumerate(logged) if queries])
    held_out = searched[: min(512, len(searched) // 20)]
    training = searched[len(held_out) :]
    encoder = PretrainedEncoder.load(model, device)
    network = TermNetwork(encoder, len(terms.words)).to(device)
    shares = torch.stack([terms.shares(i) for i in training[:2000].tolist()]).mean(0).to(device)
    prior = shares.clamp(1e-5, 1 - 1e-5).logit()  # (V,)
    with torch.no_grad():
        network.terms.copy_(vectors(encoder, terms.words, 8, plan.bf16, "terms"))
    texts = [joined_text(product) for product in products]
    token_ids = encoder.token_ids(texts, PRODUCT_TOKENS)

    def loss(positions: Sequence[int]) -> Tensor:
        targets = torch.stack([terms.shares(i) for i in positions]).to(device)  # (B, V)
        logits = prior + network([token_ids[i] for i in positions])
        return F.binary_cross_entropy_with_logits(logits, targets, reduction="sum") / targets.sum().clamp(min=1)

    @torch.no_grad()
    def score() -> float:
        with computing(plan.bf16, encoder.device):
            parts = [loss(held_out[i : i + 64].tolist()).item() for i in range(0, len(held_out), 64)]
        return -sum(parts) / len(parts)

    def drawn_loss(rng: np.random.Generator, _: float) -> Tensor:
        return loss(rng.choice(training, plan.batch).tolist())

    outcome = fit(network, groups_of(network), drawn_loss, plan, score if len(held_out) else None)
    predicted: list[list[str]] = [[] for _ in products]
    with tqdm(total=len(texts), desc="expanding", unit=" products", disable=len(texts) < 1000) as bar:
        for positions, gains in network.read(texts, PRODUCT_TOKENS, plan.bf16):
            order = (
                (prior.cpu() + torch.from_numpy(gains)).topk(min(PREDICTED, len(terms.words)), dim=1).indices.tolist()
            )
            for position, row in zip(positions, order, strict=True):
                predicted[position] = [terms.words[i] for i in row]
            bar.update(len(positions))
    settings = outcome.settings(plan)
    return predicted, settings | {"held_out_nats": -outcome.score}


def _stems(query: str) -> list[str]:
    return list(Stemmer.Stemmer("porter").stemWords(_WORD.findall(query.lower())))


def _queries_of(products: Sequence[Product], log: Sequence[Interaction]) -> list[list[str]]:
    """The log's different queries of each product, in its order."""
    found: dict[str, dict[str, None]] = defaultdict(dict)
    for interaction in log:
        found[interaction.product_id][interaction.query] = None
    return [list(found.get(product.product_id, ())) for product in products]
