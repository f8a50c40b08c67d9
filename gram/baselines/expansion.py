"""BM25 over products that are expanded with what searchers may type to find them (doc2query).

Predicted queries are added to a product's text before it is indexed (Nogueira et al., Document Expansion by Query
Prediction, 2019; with T5 sampling: Nogueira & Lin, 2019), and searching stays BM25. Two predictors:

- a sequence-to-sequence model of the user's, by hub id or folder, such as a doc2query T5: sampled queries a product;
- without one, the encoder with a term head (as in `TermNetwork`), trained on product → words of the queries linked to
  it: the idea of doc2query as a prediction of terms (TILDE: Zhuang & Zuccon, SIGIR 2021). A word counts as new or as
  more weight for one that is there, and both help BM25.

Products that the log links get its queries as well, as often as chosen.

Dimension letters:
    B  products of a batch    V  terms
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import Stemmer
import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from gram.baselines.base import Run, TrainingData
from gram.baselines.bm25 import BM25, FIELDS, field_text
from gram.baselines.encoder import (
    PRODUCT_PIECES,
    TextEncoder,
    by_id,
    computing,
    dev_sample,
    dev_score,
    fit,
    open_meta,
    vectors,
    write_meta,
)
from gram.baselines.term_sets import TermNetwork
from gram.errors import ModelError, SettingError
from gram.folders import new_folder, read_json, write_json
from gram.records import Hit, Interaction, Product

PREDICTED = 50
"""Terms kept of each product, of which the dev part chooses how many count."""
_WORD = re.compile(r"\w+")  # as BM25 reads words


class Additions(NamedTuple):
    """What may be added to each product: predicted terms or queries, likeliest first, and the log's queries."""

    predicted: list[list[str]]
    logged: list[list[str]]


class Choice(NamedTuple):
    """Settings chosen on the dev part: BM25's, how many predictions to add, and how often the log's queries."""

    k1: float = 0.9
    b: float = 0.4
    fields: tuple[str, ...] = FIELDS
    predictions: int = 0
    repeats: int = 0


class ExpandedBM25:
    """BM25 over products' fields, predicted terms and logged queries.

    With an empty log and no sequence-to-sequence model nothing can be predicted: it is then BM25, its k1, b and fields
    chosen on the dev part.
    """

    name = "expanded bm25"

    def __init__(
        self, products: Sequence[Product], additions: Additions, choice: Choice, settings: Mapping[str, object] = {}
    ) -> None:
        rows = zip(products, additions.predicted, additions.logged, strict=True)
        expanded = [expand(product, predicted, logged, choice) for product, predicted, logged in rows]
        self._bm25 = BM25(expanded, choice.k1, choice.b, ("title", "description"))
        self._texts = [field_text(product, ("title", "description")) for product in expanded]
        self._settings = {**settings, **choice._asdict(), "fields": list(choice.fields)}

    @classmethod
    def train(
        cls, folder: Path, data: TrainingData, *, model: str, seed: int = 0, quick: bool = False, bf16: bool = False,
        steps: int = 200, batch: int = 64, seq2seq: str = "", samples: int = 20,
    ) -> None:  # fmt: skip
        """Trains into `folder`; `model` is the encoder's folder or hub id, `quick` a run of 30 steps for a check.

        With `seq2seq`, a hub id or folder, that model's queries are sampled, `samples` of each product, and nothing is
        trained. Raises ModelError for a model that cannot be loaded, MissingExtra without the extra `eval`, and
        SettingError for no products or a setting out of range.
        """
        if min(steps, batch, samples) < 1:
            raise SettingError(f"Training needs steps, batch and samples ≥ 1, not {steps}, {batch} and {samples}.")
        products = by_id(data.products)
        logged = _logged(products, data.log)
        predicted: list[list[str]] = [[] for _ in products]
        queries, answers = dev_sample(data, 100 if quick else 500, seed)
        settings: dict[str, object] = {"predictor": "none", "seed": seed}
        if seq2seq:
            predicted = sampled_queries(products, seq2seq, 2 if quick else samples, seed)
            settings |= {"predictor": seq2seq, "samples": samples}
        elif any(logged):
            steps = min(steps, 30) if quick else steps
            predicted, trained = predicted_terms(products, logged, model, steps, batch, seed, bf16)
            settings |= {"predictor": "terms", "batch": batch, **trained}
        additions = Additions(predicted, logged)

        def dev(choice: Choice) -> float:
            return dev_score(cls(products, additions, choice).search_many(queries, 100), answers)

        choice, score = choose(dev, additions, quick)
        engine = cls(products, additions, choice, settings | {"dev": score})
        with new_folder(folder) as written:
            write_json(written / "additions.json", [
                [row[: choice.predictions], queries if choice.repeats else []]
                for row, queries in zip(*additions, strict=True)
            ])  # fmt: skip
            write_meta(written, cls.name, engine.settings, products)

    @classmethod
    def load(cls, folder: Path, products: Sequence[Product]) -> ExpandedBM25:
        """Opens what `train` wrote for these products, and builds the index again."""
        meta, ordered = open_meta(folder, products, cls.name)
        settings = meta["settings"]
        chosen = {name: settings[name] for name in Choice._fields}
        rows = read_json(folder / "additions.json")
        additions = Additions([row[0] for row in rows], [row[1] for row in rows])
        return cls(ordered, additions, Choice(**chosen | {"fields": tuple(chosen["fields"])}), settings)

    @property
    def settings(self) -> dict[str, object]:
        return dict(self._settings)

    @property
    def index_bytes(self) -> int:
        """Four bytes for the product and four for the weight of every (word, product)."""
        cut = Stemmer.Stemmer("porter").stemWords
        return 8 * sum(len(set(cut(_WORD.findall(text.lower())))) for text in self._texts)

    def search(self, query: str, k: int = 10) -> list[Hit]:
        """The best `k` products for a query, best first."""
        return self._bm25.search(query, k)

    def search_many(self, queries: Mapping[str, str], k: int = 300) -> Run:
        """The run for many queries: query id → product id → score."""
        return self._bm25.search_many(queries, k)


def expand(product: Product, predicted: Sequence[str], logged: Sequence[str], choice: Choice) -> Product:
    """The product with its chosen fields, predictions and logged queries as its description; the title stays.

    >>> choice = Choice(fields=("title", "brand"), predictions=1, repeats=2)
    >>> expand(Product("1", "Oak Desk", "Velanto"), ["table", "wood"], ["desk oak"], choice).description
    'Velanto table desk oak desk oak'
    """
    own = field_text(product, [field for field in choice.fields if field != "title"])
    more = [*predicted[: choice.predictions], *(query for query in logged for _ in range(choice.repeats))]
    return product._replace(description=" ".join(filter(None, [own, *more])))


def choose(dev: Callable[[Choice], float], additions: Additions, quick: bool = False) -> tuple[Choice, float]:
    """The best settings one after the other, and their score: fields, k1 and b, what is added, k1 and b again."""
    seen: dict[Choice, float] = {}

    def best(options: Sequence[Choice]) -> Choice:
        for option in options:
            if option not in seen:
                seen[option] = dev(option)
        return max(options, key=lambda option: seen[option])  # the first of equals

    def weighed(choice: Choice) -> Choice:
        choice = best(
            [choice, *(choice._replace(k1=k1) for k1 in ((0.3, 1.5) if quick else (0.1, 0.3, 0.6, 1.5, 2.5)))]
        )
        return best([choice, *(choice._replace(b=b) for b in ((0.75,) if quick else (0.2, 0.6, 0.75, 0.9)))])

    choice = weighed(best([Choice(), Choice(fields=("title",)), Choice(fields=("title", "brand", "category"))]))
    if any(additions.predicted) or any(additions.logged):
        if any(additions.logged):
            choice = best([choice._replace(repeats=n) for n in (0, 1, 2)])
        if any(additions.predicted):
            choice = best([choice._replace(predictions=n) for n in ((0, 10) if quick else (0, 3, 6, 12, 20, 30, 50))])
        choice = weighed(choice)
    return choice, seen[choice]


def predicted_terms(
    products: Sequence[Product],
    logged: Sequence[Sequence[str]],
    model: str,
    steps: int,
    batch: int,
    seed: int,
    bf16: bool,
) -> tuple[list[list[str]], dict[str, object]]:
    """For every product the `PREDICTED` words that its searchers most likely type, and how training went.

    A word's target is the share of a product's queries that hold it. A twentieth of the linked products is held out,
    and the checkpoint that predicts theirs best is kept.
    """
    cut = Stemmer.Stemmer("porter").stemWord
    forms: dict[str, Counter[str]] = defaultdict(Counter)
    for queries in logged:
        for query in queries:
            for word in _WORD.findall(query.lower()):
                forms[cut(word)][word] += 1
    ranked = sorted(forms, key=lambda stem: (-forms[stem].total(), stem))
    known = [stem for stem in ranked if forms[stem].total() > 1][:10_000] or ranked
    if not known:
        return [[] for _ in products], {}
    number = {stem: i for i, stem in enumerate(known)}
    words = [min(forms[stem].items(), key=lambda form: (-form[1], form[0]))[0] for stem in known]

    def target(place: int) -> Tensor:
        row = torch.zeros(len(words))  # (V,)
        for query in logged[place]:
            held = {number[s] for s in map(cut, _WORD.findall(query.lower())) if s in number}
            row[list(held)] += 1 / len(logged[place])
        return row

    linked = np.random.default_rng(seed).permutation([i for i, queries in enumerate(logged) if queries])
    held_out = linked[: min(512, len(linked) // 20)]
    training = linked[len(held_out) :]
    encoder = TextEncoder.load(model)
    network = TermNetwork(encoder, len(words))
    prior = torch.stack([target(i) for i in training[:2000].tolist()]).mean(0).clamp(1e-5, 1 - 1e-5).logit()  # (V,)
    with torch.no_grad():
        network.terms.copy_(vectors(encoder, words, 8, bf16, "terms"))
    texts = [field_text(product) for product in products]
    pieces = encoder.pieces(texts, PRODUCT_PIECES)

    def loss(places: Sequence[int]) -> Tensor:
        targets = torch.stack([target(i) for i in places])  # (B, V)
        logits = prior + network([pieces[i] for i in places])
        return F.binary_cross_entropy_with_logits(logits, targets, reduction="sum") / targets.sum().clamp(min=1)

    @torch.no_grad()
    def score() -> float:
        with computing(bf16):
            parts = [loss(held_out[i : i + 64].tolist()).item() for i in range(0, len(held_out), 64)]
        return -sum(parts) / max(1, len(parts))

    step, held_out_score = fit(
        network, lambda random: loss(random.choice(training, batch).tolist()), score, steps=steps, seed=seed, bf16=bf16
    )
    predicted: list[list[str]] = [[] for _ in products]
    with tqdm(total=len(texts), desc="expanding", unit=" products", disable=len(texts) < 1000) as bar:
        for places, gains in network.read(texts, PRODUCT_PIECES, bf16):
            order = (prior + torch.from_numpy(gains)).topk(min(PREDICTED, len(words)), dim=1).indices.tolist()
            for place, row in zip(places, order, strict=True):
                predicted[place] = [words[i] for i in row]
            bar.update(len(places))
    return predicted, {"step": step, "steps": steps, "held_out_nats": -held_out_score}


@torch.no_grad()
def sampled_queries(products: Sequence[Product], seq2seq: str, samples: int, seed: int) -> list[list[str]]:
    """`samples` queries of each product by a sequence-to-sequence model, of the ten likeliest pieces at each place.

    Raises ModelError for a model that cannot be loaded.
    """
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(seq2seq)
        model = AutoModelForSeq2SeqLM.from_pretrained(seq2seq).eval()
    except (OSError, ValueError) as error:
        raise ModelError(
            f"The model '{seq2seq}' cannot be loaded: {str(error).splitlines()[0]} "
            "Fix: give a sequence-to-sequence model's folder, or its hub id while online"
        ) from error
    texts = [field_text(product) for product in products]
    written: list[list[str]] = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for first in tqdm(range(0, len(texts), 8), desc="expanding", unit=" batches", disable=len(texts) < 1000):
            inputs = tokenizer(
                texts[first : first + 8], truncation=True, max_length=128, padding=True, return_tensors="pt"
            )
            out = model.generate(
                input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], max_new_tokens=24,
                do_sample=True, top_k=10, num_return_sequences=samples,
            )  # fmt: skip
            queries = tokenizer.batch_decode(out, skip_special_tokens=True)
            written += [queries[i : i + samples] for i in range(0, len(queries), samples)]
    return written


def _logged(products: Sequence[Product], log: Sequence[Interaction]) -> list[list[str]]:
    """The log's different queries of each product, in its order."""
    found: dict[str, dict[str, None]] = defaultdict(dict)
    for interaction in log:
        found[interaction.product_id][interaction.query] = None
    return [list(found.get(product.product_id, ())) for product in products]
