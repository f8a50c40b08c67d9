"""One thread: tensors of tests are so small that threads only wait for each other, and sums come out the same
anywhere."""

import os

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings

hypothesis_settings.register_profile(
    "any machine", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
"""However busy it is, and with the same examples each time."""
hypothesis_settings.load_profile("any machine")

if TYPE_CHECKING:
    from collections.abc import Iterator

    from starlette.testclient import TestClient

    from gram.data.dataset import Dataset
    from gram.shop import Shop


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


@pytest.fixture
def index_folder(small_shop: Path, tmp_path: Path) -> Path:
    """A copy of the small shop's index, with its model beside it."""
    for name in ("index", "model"):
        shutil.copytree(small_shop / name, tmp_path / name)
    return tmp_path / "index"


@pytest.fixture(scope="session")
def causal_data() -> "Dataset":
    """The shop that `causal_model` is trained on."""
    from tiny_causal import make_data

    return make_data()


@pytest.fixture(scope="session")
def causal_model(causal_data: "Dataset", tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model folder of a tiny language model as coder, trained for some steps."""
    from tiny_causal import SETTINGS

    from gram.training.pipeline import train

    return train(causal_data.products, causal_data.log, tmp_path_factory.mktemp("causal") / "model", SETTINGS)


@pytest.fixture(scope="module")
def shop(small_shop: Path, tmp_path_factory: pytest.TempPathFactory) -> "Iterator[Shop]":
    """A copy of the small shop, open for changes; many files have a shop of their own in its place."""
    from gram.shop import Shop

    folder = tmp_path_factory.mktemp("serve")
    shutil.copytree(small_shop / "index", folder / "index")
    opened = Shop.open(folder / "index", small_shop / "model")
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def client(shop: "Shop") -> "Iterator[TestClient]":
    """Asks a service of it."""
    from starlette.testclient import TestClient

    from gram.serve.app import make_app

    with TestClient(make_app(shop), "http://127.0.0.1", raise_server_exceptions=False) as asking:
        yield asking
