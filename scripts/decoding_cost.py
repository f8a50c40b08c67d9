"""What it costs a language model to write codes that exist and no others, by how many there are.

The same small model with random weights reads the same prompts and searches with the same beam: along the trie of all
codes, and freely, by transformers' own `generate`, for as many tokens. Texts are read 16 at once.

    python scripts/decoding_cost.py [--codes 10000,250000,2000000] [--width 512] [--layers 8]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch

from gram.coder.base import Side
from gram.coder.beam import BeamOptions, TorchTrie, beam_search
from gram.coder.causal.decoding import NextToken, TokenTrie, code_tokens
from gram.coder.causal.language_model import LanguageModelSettings
from gram.coder.causal.loading import load_language_model
from gram.coder.causal.text import write_code, write_prompt
from gram.records import Attribute

PARTS = (("type", 200), ("brand", 120), ("colour", 24), ("size", 40), ("material", 30))
PROMPTS, ROUNDS = 16, 5


def made_codes(count: int, rng: np.random.Generator) -> list[str]:
    """So many different codes of three to five attributes, as lines."""
    lines: dict[str, None] = {}
    while len(lines) < count:
        values = [rng.integers(n, size=count).tolist() for _, n in PARTS]
        lengths = rng.integers(3, len(PARTS) + 1, size=count).tolist()
        for row, length in zip(zip(*values, strict=True), lengths, strict=True):
            named = zip(PARTS[:length], row, strict=False)
            lines[write_code([Attribute(slot, f"{slot} {value}") for (slot, _), value in named])] = None
            if len(lines) == count:
                break
    return list(lines)


def seconds(work: Callable[[], object]) -> float:
    """The median of some rounds, after one to warm up."""
    work()
    times = []
    for _ in range(ROUNDS):
        begin = time.perf_counter()
        work()
        times.append(time.perf_counter() - begin)
    return float(np.median(times))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--codes", default="10000,250000,2000000")
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--beam", type=int, default=10)
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    counts = [int(count) for count in args.codes.split(",")]
    lines = made_codes(max(counts), rng)
    settings = LanguageModelSettings(width=args.width, layers=args.layers, dtype="float32")
    model = load_language_model(settings, lines[:20_000], "cpu").eval()
    prompts = model.read_prompts([write_prompt(f"type {i} brand {i % 7}", Side.QUERY) for i in range(PROMPTS)])
    every = code_tokens(model, lines)
    longest = max(map(len, every))
    ids, mask = model.pad(prompts)
    free = {"num_beams": args.beam, "num_return_sequences": args.beam, "do_sample": False, "pad_token_id": model.pad_id}

    @torch.inference_mode()
    def generate() -> object:
        return model.model.generate(ids, attention_mask=mask, min_new_tokens=longest, max_new_tokens=longest, **free)

    unbound = seconds(generate) / PROMPTS
    print(
        f"{sum(p.numel() for p in model.parameters()):,} weights, codes of {longest} tokens at most, beam {args.beam}"
    )
    print(f"free: {1000 * unbound:.1f} ms a text")
    print("| codes | trie built, s | trie, MB | ms a text | times free |\n| ---: | ---: | ---: | ---: | ---: |")
    for count in counts:
        begin = time.perf_counter()
        tokens = TokenTrie.build(every[:count])
        trie = TorchTrie(tokens.trie)
        built = time.perf_counter() - begin
        size = sum(array.nbytes for array in (trie.first_child, trie.child_token, trie.code_id)) / 1e6
        options = BeamOptions(width=args.beam, n_codes=args.beam)

        def bound(trie: TorchTrie = trie, options: BeamOptions = options) -> object:
            with torch.inference_mode():
                return beam_search(trie, NextToken(model, prompts), len(prompts), options)

        taken = seconds(bound) / PROMPTS
        print(f"| {count:,} | {built:.1f} | {size:.0f} | {1000 * taken:.1f} | {taken / unbound:.2f} |", flush=True)


if __name__ == "__main__":
    main()
