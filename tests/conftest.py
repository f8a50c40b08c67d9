"""One thread: tensors of tests are so small that threads only wait for each other, and sums come out the same
anywhere."""

import os

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def small_shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `model` and `index` of a generated shop of 150 products, trained for some steps."""
    from gram.coder.encoder.backbone import ScratchSettings
    from gram.codes.mining import MiningSettings
    from gram.data.shop.generate import generate
    from gram.indexing import make_index
    from gram.training.joint import TrainingSettings
    from gram.training.pipeline import STAGES, train
    from gram.training.run import Settings

    folder = tmp_path_factory.mktemp("small")
    data = generate(products=150, interactions=600, queries=120, seed=1)
    settings = Settings(
        backbone="scratch",
        scratch=ScratchSettings(width=32, layers=1, heads=2, vocabulary=800),
        training=TrainingSettings(steps=6, batch=16, hard_negatives=4),
        mining=MiningSettings(),
    )
    stages = [stage for stage in STAGES if stage.name in ("lexicon", "joint")]
    train(data.products, data.log, folder / "model", settings, stages=stages)
    make_index(folder / "model", data.products, folder / "index")
    return folder
