"""The experiments, their presets and ablations as configs, the snapshots of what they resolve to, and every run.sh."""

import os
import shutil
import subprocess
from functools import cache

import pytest
import yaml
from commands import ROOT, run_of, train, warm
from omegaconf import OmegaConf
from snapshots import EXPERIMENTS, FOLDER, command_of, composed, snapshot

from erv import config
from erv.cli.command import conf_folder
from erv.config.rules import grpo_settings_problem
from erv.config.schema import PROVIDED
from erv.errors import ConfigError
from erv.evaluation.metrics.learning_curves import read_curves
from erv.report.config_diff import flat

ABLATIONS = {file.stem: yaml.safe_load(file.read_text()) or {} for file in (conf_folder() / "ablation").glob("*.yaml")}
PRESETS = ["sft", "verifier", "grpo", "evaluate"]
ON_REAL_TEXT = ("real_rationales", "real_verifier")  # which the embedded corpus cannot stand in for
SCRIPTS = sorted(file.parent.name for file in (ROOT / "experiments").glob("*/run.sh"))


def preset_keys(stage):
    """The keys that a stage's presets set, one dict each."""
    found = []
    for name in ("fixed", "paper"):
        tree = yaml.safe_load((conf_folder() / "preset" / stage / f"{name}.yaml").read_text())
        found.append(dict(flat({key: value for key, value in tree.items() if key != "defaults"})))
    return found


def presets_of(experiment):
    """The stages whose preset an experiment chooses."""
    tree = yaml.safe_load((conf_folder() / "exp" / f"{experiment}.yaml").read_text())
    keys = [key for entry in tree["defaults"] if isinstance(entry, dict) for key in entry]
    return [key.removeprefix("/preset/") for key in keys if key.startswith("/preset/")]


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_the_snapshot_is_what_the_experiment_resolves_to(name, monkeypatch):
    for variable in ("ERV_RUNS", "ERV_DATA", "ERV_CACHE"):
        monkeypatch.delenv(variable, raising=False)
    file = FOLDER / f"{name}.yaml"
    assert file.is_file(), "run python tests/support/snapshots.py"
    assert snapshot(name) == file.read_text(), (
        "the configs have changed; look, then run python tests/support/snapshots.py"
    )
    assert {f.stem for f in FOLDER.iterdir()} == set(EXPERIMENTS), "run python tests/support/snapshots.py"


def test_the_papers_hyper_parameters():
    sft, verifier = composed("+exp=sft_emer"), composed("+exp=verifier_roberta")
    assert (sft.algo.epochs, sft.algo.batch_size, sft.optim.lr, sft.optim.schedule, sft.optim.warmup) == (
        5, 32, 2e-5, "cosine", 0.03,
    )  # fmt: skip
    assert (verifier.algo.epochs, verifier.optim.lr, verifier.verifier.data.augmentation) == (10, 3e-5, True)
    for name in ("grpo_dfew", "grpo_mafw", "grpo_dfew_mafw"):
        grpo = composed(f"+exp={name}")
        found = grpo.algo.group_size, grpo.algo.objective.beta, grpo.optim.lr, grpo.algo.epochs
        assert found == (4, 0.04, 1e-6, 2)
        assert (grpo.algo.sampling.temperature, grpo.algo.max_new_tokens) == (1.0, 512)


@pytest.mark.parametrize("stage", PRESETS)
def test_a_preset_is_chosen_by_the_experiment_and_changed_on_the_command_line(stage):
    fixed, paper = preset_keys(stage)
    experiments = [name for name in EXPERIMENTS if stage in presets_of(name)]
    assert experiments
    for name in experiments:
        for chosen, keys in (("fixed", fixed), ("paper", paper)):
            overrides = [f"preset/{stage}={chosen}"] if chosen == "paper" else []
            cfg = composed(f"+exp={name}", *overrides, command=command_of(name))
            assert {key: _at(cfg, key) for key in keys} == keys
            overrides += ["policy.checkpoint=x"] if stage == "evaluate" else []
            config.check(composed(f"+exp={name}", *overrides, command=command_of(name)), PROVIDED)


def _at(cfg, key):
    value = OmegaConf.select(cfg, key)
    return OmegaConf.to_container(value) if OmegaConf.is_config(value) else value


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_no_experiment_sets_what_its_presets_differ_in(name):
    tree = yaml.safe_load((conf_folder() / "exp" / f"{name}.yaml").read_text())
    own = dict(flat({key: value for key, value in tree.items() if key != "defaults"}))
    stages = presets_of(name)
    for stage in [*stages, *(["evaluate"] if stages == ["grpo"] else [])]:  # GRPO's presets bring those of evaluation
        fixed, paper = preset_keys(stage)
        differing = {key for key in fixed.keys() | paper.keys() if fixed.get(key, "unset") != paper.get(key, "unset")}
        assert not differing & own.keys()


@cache
def without_ablation(experiment):
    return composed(f"+exp={experiment}", command=command_of(experiment))


@pytest.mark.parametrize("name", sorted(set(ABLATIONS) - {"full"}))
def test_an_ablation_fits_every_experiment_of_its_stage(name):
    ablation = ABLATIONS[name]
    keys = {key for key, _ in flat(ablation)}
    experiments = [e for e in EXPERIMENTS if without_ablation(e).stage == ablation["stage"]]
    assert experiments
    for experiment in experiments:
        cfg = composed(f"+exp={experiment}", f"+ablation={name}")
        config.check(cfg, PROVIDED)
        assert cfg.name == ablation["name"]
        before, after = (list(flat(OmegaConf.to_container(c))) for c in (without_ablation(experiment), cfg))
        assert {key for key, value in after if (key, value) not in before} <= keys  # and nothing else has changed


@pytest.mark.parametrize(
    ("experiment", "name"),
    [("verifier_demo", "no_filter"), ("sft_demo", "beta_0"), ("towers_demo", "top_k_1"), ("eval_demo", "no_explanation"),
     ("grpo_demo", "noise_30"), ("grpo_dfew", "roberta_large"), ("eval_dfew", "no_augmentation")],
)  # fmt: skip
def test_an_ablation_of_another_stage_is_refused(experiment, name):
    command = command_of(experiment)
    overrides = ["policy.checkpoint=x"] if command == "evaluate" else []
    with pytest.raises(ConfigError, match=f"stage is {ABLATIONS[name]['stage']}, which algo="):
        config.check(composed(f"+exp={experiment}", f"+ablation={name}", *overrides, command=command), PROVIDED)


def test_ablations_have_arms_of_their_own_and_say_what_they_ask():
    assert not ABLATIONS["full"]
    arms = [ablation["name"] for name, ablation in ABLATIONS.items() if name != "full"]
    assert len(set(arms)) == len(arms)
    for name in ABLATIONS:
        lines = (conf_folder() / "ablation" / f"{name}.yaml").read_text().splitlines()
        assert lines[0] == "# @package _global_"
        assert lines[1].startswith("# ")
    for name in ("roberta_large", "bert_large", "deberta_v3_base", "xlmr_base"):
        own = yaml.safe_load((conf_folder() / "verifier" / f"{name}.yaml").read_text())["model"]
        assert ABLATIONS[name]["verifier"]["model"] == {key: own[key] for key in ("head", "checkpoint")}


def test_grpo_is_as_long_as_its_epochs_say(demo):
    """32 training clips in batches of 16, 1.4 times: three iterations."""
    epochs = ["algo.iterations=null", "algo.epochs=1.4", "trainer.limit_train_batches=1.0", "evaluation.samples=1"]
    train(demo, "+exp=grpo_demo", "+debug=demo", "name=epochs", *epochs)
    assert read_curves(run_of(demo, "epochs"))["train/reward"][0] == [1, 2, 3]


def test_grpo_is_told_how_long_in_one_way(demo):
    for length in (
        {"iterations": 8, "epochs": 2},
        {"iterations": None, "epochs": None},
        {"iterations": 0},
        {"epochs": -1},
    ):
        assert "set algo.iterations or algo.epochs above 0 and the other to null" in (
            grpo_settings_problem(length, ()) or ""
        )
    for length in ({"iterations": 8, "epochs": None}, {"iterations": None, "epochs": 0.5}):
        assert grpo_settings_problem(length, ()) is None
    done = train(demo, "+exp=grpo_demo", "+debug=demo", "algo.epochs=2", check=False)
    assert done.returncode == 2
    assert "set algo.iterations or algo.epochs above 0 and the other to null; got 80 and 2" in done.stderr


@pytest.fixture(scope="module")
def laboratory(demo, tmp_path_factory):
    """The first stages of the demo, made once for all scripts."""
    root = tmp_path_factory.mktemp("experiments")
    for name in ("data", "cache"):
        shutil.copytree(demo / name, root / name)
    for stage in ("towers", "verifier", "sft"):
        shutil.copytree(demo / "runs" / "demo" / stage, root / "runs" / "demo_seeds" / stage)
    return root


def script(root, name, *arguments, **extra):
    command = ["bash", str(ROOT / "experiments" / name / "run.sh"), *arguments]
    env = {**warm(root), **extra}
    return subprocess.run(command, cwd=root, env=env, capture_output=True, text=True, check=False)


FEW = {
    "demo_seeds": {"ARMS": "full,no_explanation"},  # what its figure shows
    "paper_ablations": {"ARMS": "full", "VERIFIERS": "noise_30"},
    "paper_main": {"ARMS": "full"},
    "verifier": {"NOISE": "0.3"},
}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(
            name,
            marks=[pytest.mark.slow]
            if name in ("gaming", "modalities", "paper_ablations", "demo_seeds", "verifier", "memory")
            else [],
        )
        for name in SCRIPTS
        if name not in ("demo", *ON_REAL_TEXT)  # demo is the fixture's
    ],
)
def test_every_script_runs_on_the_embedded_corpus(laboratory, name):
    before = subprocess.run(["git", "status", "--short"], cwd=ROOT, capture_output=True, text=True, check=False).stdout
    done = script(laboratory, name, "demo", "0", "+debug=demo", **FEW.get(name, {}))
    assert done.returncode == 0, done.stdout + done.stderr
    table = laboratory / "runs" / f"{name}.md"
    assert len([line for line in table.read_text().splitlines() if line.startswith("| ")]) >= 3
    after = subprocess.run(["git", "status", "--short"], cwd=ROOT, capture_output=True, text=True, check=False).stdout
    assert after == before  # a try at a small size leaves the committed tables alone


def test_a_script_without_its_data_says_what_it_needs(tmp_path):
    done = script(tmp_path, "paper_main")
    assert done.returncode == 1
    for text in ("emer_cold_start", "python -m erv.doctor data=ravdess", "experiments/paper_main/run.sh demo"):
        assert text in done.stderr
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("name", "variables"),
    [
        ("real_rationales", ["GOEMOTIONS", "MELD", "VERIFIER"]),
        ("real_verifier", ["MINILM", "GOEMOTIONS", "EKMAN", "MELD"]),
    ],
)
def test_a_script_on_real_text_says_what_to_set(tmp_path, name, variables):
    done = script(tmp_path, name, **dict.fromkeys(variables, ""))
    assert done.returncode == 1
    assert [line.split(":")[0].strip() for line in done.stderr.splitlines()[1:]] == variables
    assert not (tmp_path / "runs").exists()


def test_a_script_refuses_what_it_does_not_know(tmp_path):
    done = script(tmp_path, "demo_seeds", "demo", "zero")
    assert done.returncode == 2
    assert "usage: run.sh [demo] [SEED…] [OVERRIDE…]; got zero" in done.stderr


def test_every_script_is_documented():
    for name in SCRIPTS:
        folder = ROOT / "experiments" / name
        assert (folder / "notes.md").is_file()
        assert (folder / "table.md").is_file()
        assert os.access(folder / "run.sh", os.X_OK)
