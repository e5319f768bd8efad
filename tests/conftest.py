"""What several test files need: the fixtures' folder and a very small corpus."""

import os
import shutil
from pathlib import Path

import hydra
import pytest
import torch
from commands import ROOT, in_a_terminal, warm
from filelock import FileLock

from erv.command import conf_folder
from erv.config import plain
from erv.corpora.synthetic import SyntheticCorpus
from erv.policy import load_policy
from erv.rationale import compose

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


@pytest.fixture(scope="session")
def policy(corpus):
    """The tiny policy with random weights; a test that changes it puts it back."""
    torch.manual_seed(0)
    with hydra.initialize_config_dir(str(conf_folder()), version_base="1.3"):
        node = plain(hydra.compose("train", overrides=["policy=tiny"]).policy)
    node.pop("_target_")
    return load_policy(**node, texts=[compose(c.rationale, c.label) for c in corpus.clips("train")])


@pytest.fixture(scope="session")
def demo(tmp_path_factory):
    """The demo's script, run once; a folder with runs/, data/ and cache/, and what it printed. Each process has a copy."""
    shared = Path(tmp_path_factory.getbasetemp())
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    first, root = shared / "demo_script", tmp_path_factory.mktemp("demo") / "copy"
    with FileLock(shared / "demo_script.lock"):
        if not (first / "printed").exists():
            first.mkdir(exist_ok=True)
            script = ["bash", str(ROOT / "experiments" / "demo" / "run.sh"), "+debug=demo"]
            code, printed = in_a_terminal(script, warm(first))
            assert code == 0, printed
            (first / "printed").write_text(printed)
    shutil.copytree(first, root)
    return root
