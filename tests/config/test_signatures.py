"""The signature of every experiment is pinned: it names a run's folder, and a finished run must stay finished."""

import json

import pytest
from omegaconf import OmegaConf
from signatures import FILE, signatures
from snapshots import composed

from erv import config
from erv.config.history import first_named
from erv.config.targets import COMPONENTS


def test_signatures_are_those_of_earlier_runs(monkeypatch):
    for name in ("ERV_RUNS", "ERV_DATA", "ERV_CACHE"):
        monkeypatch.delenv(name, raising=False)
    pinned = json.loads(FILE.read_text())
    assert signatures() == pinned


def test_a_signature_does_not_depend_on_where_things_lie(monkeypatch, tmp_path):
    pinned = json.loads(FILE.read_text())
    for name in ("ERV_RUNS", "ERV_DATA", "ERV_CACHE"):
        monkeypatch.setenv(name, str(tmp_path / name))
    assert signatures() == pinned


@pytest.mark.parametrize("target", COMPONENTS)
def test_every_public_component_can_be_imported(target):
    assert callable(config.locate(target))


def test_a_config_with_older_targets_is_read_and_signed_as_before():
    tree = composed("+exp=grpo_demo")
    older = first_named(OmegaConf.to_container(tree))
    assert older["algo"]["_target_"] == "erv.lit.grpo.GRPO"
    assert config.plain(OmegaConf.create(older)) == config.plain(OmegaConf.create(tree))
    assert config.signature(OmegaConf.create(older)) == config.signature(OmegaConf.create(tree))
    optimizer = config.build({"_target_": "erv.lit.optim.Optim", "lr": 1e-3})
    assert type(optimizer) is config.locate("erv.training.Optimizer")
