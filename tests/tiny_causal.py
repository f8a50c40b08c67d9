"""A language model so small that it is trained in seconds, on a shop of its own."""

from __future__ import annotations

from gram.coder.causal.language_model import LanguageModelSettings
from gram.data.dataset import Dataset
from gram.data.shop.generate import generate
from gram.training.causal.settings import CausalSettings
from gram.training.joint import TrainingSettings
from gram.training.run import Settings

TINY = LanguageModelSettings(name="scratch", width=64, layers=2, vocabulary=600, dtype="float32")
SETTINGS = Settings(
    causal=CausalSettings(
        model=TINY,
        steps=140,
        co_training=10,
        co_alignment=6,
        batch=16,
        validate_every=50,
        rounds=2,
        texts=40,
        rate=3e-3,
    ),
    training=TrainingSettings(seed=3),
)


def make_data() -> Dataset:
    return generate(products=120, interactions=500, queries=100, seed=1)
