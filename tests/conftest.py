"""What several test files need: the fixtures' folder and a very small corpus."""

import os
import shutil
from pathlib import Path

import hydra
import pytest
import rich.console
import rich.markup
import rich.table
import torch
from commands import ROOT, in_a_terminal, warm
from filelock import FileLock

from erv.cli.command import conf_folder
from erv.config.instantiate import plain
from erv.data.datasets.synthetic import SyntheticCorpus
from erv.policy import load_policy
from erv.rationale import compose

FIXTURES = Path(os.environ.get("ERV_FIXTURES", Path(__file__).parent / "fixtures"))


@pytest.fixture(scope="session")
def fixtures():
    return FIXTURES


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)  # tests run side by side


@pytest.fixture
def fault(record_property):
    """Called with a fault, what is expected and what was seen: a row of the table at the end of `pytest -m faults`."""
    return lambda *row: record_property("fault", row)


def pytest_terminal_summary(terminalreporter, config):
    if config.option.markexpr != "faults":
        return
    reports = [r for kind in ("passed", "failed") for r in terminalreporter.stats.get(kind, []) if r.when == "call"]
    table = rich.table.Table("fault", "expected", "seen", title="faults", show_lines=True)
    for report in reports:
        rows = [value for name, value in report.user_properties if name == "fault"]
        for row in rows if report.passed else [(report.nodeid, "", "FAILED")]:
            table.add_row(*map(rich.markup.escape, row))
    width = shutil.get_terminal_size((140, 0)).columns
    rich.console.Console(width=max(width, 100)).print(table)


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
