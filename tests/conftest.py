"""What several test files need: the fixtures' folder and a very small corpus."""

import os
from pathlib import Path

import pytest
import torch

from erv.corpora.synthetic import SyntheticCorpus

FIXTURES = Path(os.environ.get("ERV_FIXTURES", Path(__file__).parent / "fixtures"))


@pytest.fixture(scope="session")
def fixtures():
    return FIXTURES


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)  # tests run side by side


@pytest.fixture(scope="session")
def corpus(tmp_path_factory):
    """48 real clips."""
    made = SyntheticCorpus(str(tmp_path_factory.mktemp("corpus") / "clips"), seed=3, clips=48, dev=8, test=8, workers=1)
    made.prepare()
    return made
