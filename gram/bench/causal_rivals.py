"""Rivals of a language model's codes from the very network that writes them: it writes a product's id, or its terms.

Shape, random weights, tokens learnt from the catalogue, texts of the training (`CodeSamples`: the log, pseudo-queries,
products with fields hidden), batch and rate are those of the codes' joint training; what follows a prompt is not.

- Semantic ids: the path of a product's vector through residual k-means, and a last token that tells products of one
  path apart (TIGER: Rajput et al., NeurIPS 2023), written of queries, and of products' own texts (DSI: Tay et al.,
  NeurIPS 2022). Along a trie of all ids, by the codes' own beam.
- Term sets: a product's most telling terms in any order (Zhang et al., SIGIR 2024). The order to learn is drawn by the
  network's own likelihood of each term, as theirs; decoding goes on with every term of a set that holds what is
  written, and adds up the orders in which it meets a set.

A product scores by the log-probability of what is its own, normalised over what may follow.

Dimension letters:
    B  texts    H  hypotheses of a text    V  terms    M  distinct sets    N  products    t  terms so far
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import AddedToken
from torch import Tensor

from gram.arrays import top_k
from gram.baselines.base import Found, run_of
from gram.baselines.semantic_ids import semantic_ids
from gram.baselines.term_sets import Terms
from gram.coder.base import Side
from gram.coder.beam import BeamOptions, NextAttribute, TorchTrie, beam_search
from gram.coder.causal.decoding import NextToken, TokenTrie, code_tokens
from gram.coder.causal.language_model import LanguageModel
from gram.coder.causal.text import write_prompt
from gram.codes.pseudo_queries import pseudo_query, pseudo_share
from gram.errors import MissingExtra, SettingError
from gram.evaluation.measures import Run
from gram.records import Interaction
from gram.training.causal.likelihood import LikelihoodTrainer
from gram.training.causal.samples import TRIES, CodeSamples, Examples, hide_fields
from gram.training.causal.stages import CausalRun
from gram.training.samples import vary

log = logging.getLogger("gram.bench")

BATCH = 16  # queries that are searched for together


class Writer(Protocol):
    """What the network is taught to write of a text that leads to a product, and how that is searched for."""

    model: LanguageModel

    def lines(self, prompts: Sequence[str], positions: Sequence[int], rng: np.random.Generator) -> list[str]:
        """What is to follow each prompt, which leads to the product at a position."""
        ...

    def find(self, queries: Sequence[str], beam: int) -> list[Found]:
        """At most `beam` products of each query, the likeliest first."""
        ...


@dataclass
class ProductSamples:
    """The texts that `CodeSamples` draws, each followed by what a writer writes of its product."""

    samples: CodeSamples
    log: Sequence[Interaction]
    writer: Writer

    @cached_property
    def _chance(self) -> list[NDArray[np.float64]]:
        """Of each query, how likely each of its products is drawn: by the weight of their interactions."""
        products, weight = self.samples.products, dict[tuple[str, str], float]()
        for i in self.log:
            weight[i.query, i.product_id] = weight.get((i.query, i.product_id), 0.0) + i.weight
        found = []
        for query, row in zip(self.samples.queries, self.samples.clicked, strict=True):
            chance = np.array([weight[query, products[p].product_id] for p in row.tolist()])
            found.append(chance / chance.sum())
        return found

    def draw(self, size: int, rng: np.random.Generator) -> tuple[Examples, Examples]:
        """So many queries, logged ones and pseudo-queries in the share that codes are trained on, and as many products.

        Raises SettingError where products have no pseudo-queries.
        """
        samples = self.samples
        n_logged = min(size - round(size * pseudo_share(len(samples.queries))), len(samples.queries))
        rows = rng.choice(len(samples.queries), n_logged, replace=False).tolist() if n_logged else []
        queries = [write_prompt(vary(samples.queries[q], rng), Side.QUERY) for q in rows]
        positions = [int(rng.choice(samples.clicked[q], p=self._chance[q])) for q in rows]
        for p in rng.integers(len(samples.products), size=TRIES * size).tolist():
            if len(queries) == size:
                break
            made = pseudo_query(samples.lexicon, samples.tags[p], rng)
            if made:
                queries.append(write_prompt(made[0], Side.QUERY))
                positions.append(p)
        if len(queries) < size:
            raise SettingError("the products' texts hold no words that a searcher could type. Fix: see titles")
        shown = rng.integers(len(samples.products), size=size).tolist()
        products = [write_prompt(hide_fields(samples.products[p], rng), Side.PRODUCT) for p in shown]
        lines = self.writer.lines([*queries, *products], [*positions, *shown], rng)
        return Examples(queries, lines[:size]), Examples(products, lines[size:])


class Trained(NamedTuple):
    """A writer that was trained, which of the choices it is, the step that was kept and its score on the dev part."""

    writer: Writer
    choice: str
    step: int
    score: float


def train_writer(
    run: CausalRun,
    choices: Mapping[str, Callable[[LanguageModel], Writer]],
    steps: int,
    trial: int,
    score: Callable[[Writer], float],
) -> Trained:
    """Trains what is best of the choices after `trial` steps to the end, and keeps what scores best of every so many.

    `run` has its lexicon and a network that has not been trained: each choice begins with a copy of it.
    """
    started: list[tuple[float, str, Writer, LikelihoodTrainer]] = []
    for name, make in choices.items():
        torch.manual_seed(run.seed)
        writer = make(copy.deepcopy(run.coder.model))
        samples = ProductSamples(run.samples, run.logged, writer)
        trainer = LikelihoodTrainer(writer.model, samples, run.causal, steps, run.seed, "joint")
        _advance(trainer, min(trial, steps))
        started.append((score(writer), name, writer, trainer))
        log.info("%s: %.4f after %d steps", name, started[-1][0], trainer.done)
    best, name, writer, trainer = max(started, key=lambda row: row[0])
    found = Trained(writer, name, trainer.done, best)
    kept = {key: weight.detach().clone() for key, weight in writer.model.trainable().items()}
    while trainer.done < steps:
        _advance(trainer, min(trainer.done + trial, steps))
        value = score(writer)
        log.info("%s: %.4f after %d steps", name, value, trainer.done)
        if value >= found.score:
            found = Trained(writer, name, trainer.done, value)
            kept = {key: weight.detach().clone() for key, weight in writer.model.trainable().items()}
    writer.model.load_trained(kept)
    return found


def _advance(trainer: LikelihoodTrainer, stop: int) -> None:
    while trainer.done < stop:
        trainer.step()


def search_many(writer: Writer, queries: Mapping[str, str], product_ids: Sequence[str], beam: int) -> Run:
    """The run of many queries: as many products as the beam is wide, at most."""
    return run_of(queries, writer.find(list(queries.values()), beam), product_ids)


def add_tokens(model: LanguageModel, names: Sequence[str]) -> None:
    """Gives a model a token for each name, which is read as one wherever it stands as a word; it swallows the blank
    before it."""
    model.tokenizer.add_tokens([AddedToken(name, lstrip=True, single_word=True, normalized=False) for name in names])
    model.model.resize_token_embeddings(model.tokenizer.get_vocab_size(), mean_resizing=False)


class IdWriter:
    """Writes semantic ids."""

    def __init__(self, model: LanguageModel, ids: NDArray[np.int64]) -> None:
        """`ids` (N, levels + 1), no two the same; the model is given a token for every centroid of a level."""
        self.model = model
        add_tokens(model, [_id_token(level, i) for level, column in enumerate(ids.T) for i in range(column.max() + 1)])
        self._lines = [" ".join(_id_token(level, i) for level, i in enumerate(row)) for row in ids.tolist()]
        tokens = TokenTrie.build(code_tokens(model, self._lines))
        self._trie, self._position = TorchTrie(tokens.trie, model.device), tokens.code_id

    @classmethod
    def of_vectors(cls, model: LanguageModel, points: Tensor, levels: int, centroids: int, seed: int) -> IdWriter:
        """Of products' vectors (N, D)."""
        return cls(model, semantic_ids(points, seed, levels, centroids)[0])

    def lines(self, prompts: Sequence[str], positions: Sequence[int], rng: np.random.Generator) -> list[str]:
        return [self._lines[p] for p in positions]

    @torch.inference_mode()
    def find(self, queries: Sequence[str], beam: int) -> list[Found]:
        self.model.eval()
        found: list[Found] = []
        for rows in _batches(self.model, queries):
            result = beam_search(self._trie, NextToken(self.model, rows), len(rows), BeamOptions(beam, beam))
            for ids, log_prob in zip(result.code_ids.cpu().numpy(), result.log_probs.cpu().numpy(), strict=True):
                found.append((self._position[ids[ids >= 0]], log_prob[ids >= 0]))
        return found


class TermSpace(NamedTuple):
    """The distinct sets of a catalogue's products."""

    words: list[str]  # (V,)
    holds: NDArray[np.bool_]  # (M, V) the terms of each set
    products: list[NDArray[np.int64]]  # (M,) the products of each set
    of_product: list[list[int]]  # (N,) the terms of each product

    @classmethod
    def of(cls, terms: Terms, size: int) -> TermSpace:
        """Each product by its `size` most telling terms; one without any is never found."""
        rows = [row[:size] for row in terms.of]
        by_set: dict[frozenset[int], list[int]] = {}
        for position, row in enumerate(rows):
            if row:
                by_set.setdefault(frozenset(row), []).append(position)
        holds = np.zeros((len(by_set), len(terms.words)), dtype=bool)
        for i, of_set in enumerate(by_set):
            holds[i, list(of_set)] = True
        return cls(terms.words, holds, [np.array(row) for row in by_set.values()], rows)


class TermWriter:
    """Writes sets of terms."""

    def __init__(self, model: LanguageModel, space: TermSpace) -> None:
        """Every term becomes one token of the model where it is not yet: a step of the beam is a term."""
        self.model, self.space = model, space
        add_tokens(model, [w for w, row in zip(space.words, model.read_codes(space.words), strict=True) if row[1:]])
        self.tokens = torch.tensor([row[0] for row in model.read_codes(space.words)], device=model.device)  # (V,)
        self.holds = torch.from_numpy(space.holds).to(model.device)  # (M, V)

    def lines(self, prompts: Sequence[str], positions: Sequence[int], rng: np.random.Generator) -> list[str]:
        """The products' terms, in an order that is drawn by how likely the network finds each behind the prompt."""
        with torch.inference_mode():
            logits = NextToken(self.model, self.model.read_prompts(prompts)).logits[:, self.tokens].cpu().numpy()
        lines = []
        for row, position in zip(logits, positions, strict=True):
            terms = np.array(self.space.of_product[position], dtype=np.int64)
            order = np.argsort(-(row[terms] + rng.gumbel(size=len(terms))))  # without replacement (Plackett–Luce)
            lines.append(" ".join(self.space.words[term] for term in terms[order].tolist()))
        return lines

    @torch.inference_mode()
    def find(self, queries: Sequence[str], beam: int) -> list[Found]:
        self.model.eval()
        found: list[Found] = []
        for (prompt,) in _batches(self.model, queries, 1):
            log_prob = search_sets(NextToken(self.model, [prompt]), self.holds, self.tokens, beam).cpu().numpy()  # (M,)
            sets = np.argsort(-log_prob, kind="stable")[: int((log_prob > -np.inf).sum())]
            rows = [self.space.products[s] for s in sets.tolist()]
            positions = np.concatenate([np.zeros(0, dtype=np.int64), *rows])
            scores = np.repeat(log_prob[sets], [len(row) for row in rows])
            found.append(top_k(scores, beam, positions))
        return found


def search_sets(ask: NextAttribute, holds: Tensor, tokens: Tensor, beam: int) -> Tensor:
    """log P (M,) of the sets that a beam finds for the one text that `ask` is of, −inf of the others.

    After some terms each term may follow that a set holds together with all of them, or the end where they are a set;
    what may follow is normalised. Hypotheses of the same terms are one: the likelier order goes on, with the
    probability of all. One that only one set holds ends there, for all its orders add up to 1. With a beam as wide as
    there are partial sets, and a network that does not see the order, this is the sum over all orders.
    """
    n_sets, n_terms = holds.shape
    device, incidence, size = holds.device, holds.float(), holds.sum(1)  # (M, V), (M,)
    mark = torch.from_numpy(np.random.default_rng(0).integers(2**62, size=n_terms)).to(device)  # (V,) sums name sets
    found = torch.zeros(n_sets, dtype=torch.float64, device=device)  # (M,)
    prefix = torch.zeros(1, 0, dtype=torch.int64, device=device)  # (H, t)
    log_prob = torch.zeros(1, dtype=torch.float64, device=device)  # (H,)
    fits = torch.ones(1, n_sets, dtype=torch.bool, device=device)  # (H, M) the sets that hold all of a hypothesis
    while len(prefix):
        h, t = prefix.shape
        allowed = (fits.float() @ incidence > 0).scatter(1, prefix, False)  # (H, V)
        ends = fits & (size == t)  # (H, M) one at most: the sets are distinct
        rows = torch.zeros(h, dtype=torch.int64, device=device)
        every = torch.arange(h, device=device).repeat_interleave(n_terms), tokens.repeat(h)
        after, end = ask(rows, tokens[prefix], *every)  # (H · V,) (H,)
        after = after.view(h, n_terms).masked_fill(~allowed, -torch.inf)
        end = end.masked_fill(~ends.any(1), -torch.inf)
        said = torch.cat([after, end[:, None]], dim=1).double().log_softmax(1) + log_prob[:, None]  # (H, V + 1)
        ended, at = ends.nonzero(as_tuple=True)
        found.index_add_(0, at, said[ended, -1].exp())
        score, best = said[:, :-1].flatten().topk(min(4 * beam, h * n_terms))  # orders of one set stand among these
        score, best = score[score > -torch.inf], best[score > -torch.inf]
        parent, term = best // n_terms, best % n_terms
        _, number = torch.unique(mark[prefix].sum(1)[parent] + mark[term], return_inverse=True)  # (…,) of each set
        n_distinct = int(number.max()) + 1 if len(number) else 0
        total = torch.zeros(n_distinct, dtype=torch.float64, device=device).index_add(0, number, score.exp())
        first = torch.full((n_distinct,), len(score), device=device)
        first = first.scatter_reduce(0, number, torch.arange(len(score), device=device), "amin")  # the likeliest order
        parent, term, log_prob = parent[first], term[first], total.log()
        fits = fits[parent] & holds.T[term]
        alone = fits.sum(1) == 1
        found.index_add_(0, fits[alone].nonzero()[:, 1], log_prob[alone].exp())
        least = found.topk(min(beam, n_sets)).values[-1].log()  # further terms only lower a probability
        going = (~alone & (log_prob > least)).nonzero()[:, 0]
        going = going[log_prob[going].argsort(descending=True, stable=True)[:beam]]
        prefix = torch.cat([prefix[parent[going]], term[going, None]], dim=1)
        log_prob, fits = log_prob[going], fits[going]
    return found.log()


def lsa(texts: Sequence[str], width: int, seed: int) -> Tensor:
    """(N, width) vectors of texts, by tf-idf and its singular vectors, at unit length: no encoder is needed.

    Raises MissingExtra without `bench`.
    """
    try:
        from sklearn.decomposition import TruncatedSVD
        from sklearn.feature_extraction.text import TfidfVectorizer
    except ImportError as error:
        raise MissingExtra("Semantic ids", "bench") from error
    weights = TfidfVectorizer(sublinear_tf=True).fit_transform(texts)
    points = TruncatedSVD(min(width, min(weights.shape) - 1), random_state=seed).fit_transform(weights)
    return torch.nn.functional.normalize(torch.from_numpy(points).float(), dim=1)


def _id_token(level: int, centroid: int) -> str:
    return f"<{'abcdefgh'[level]}{centroid}>"


def _batches(model: LanguageModel, queries: Sequence[str], size: int = BATCH) -> list[list[list[int]]]:
    """The prompts' tokens of queries, so many at a time."""
    rows = model.read_prompts([write_prompt(query, Side.QUERY) for query in queries])
    return [rows[begin : begin + size] for begin in range(0, len(rows), size)]
