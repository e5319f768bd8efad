"""Checking, signing and building configs; run folders and references between runs."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from erv import config
from erv.cli.command import conf_folder
from erv.config.schema import PROVIDED
from erv.errors import ConfigError
from erv.runs.resolve import find_model
from erv.runs.run import Run
from erv.utils.io import write_json

EXPERIMENTS = sorted(file.stem for file in (conf_folder() / "exp").glob("*.yaml"))


def composed(*overrides, command="train"):
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        return compose(command, overrides=list(overrides))


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_composes_and_fits_its_constructors(name):
    evaluates = name.startswith("eval")
    # the command itself fills in how long the policy answers
    overrides = ["policy.checkpoint=x", "evaluation.max_new_tokens=512"] if evaluates else []
    config.check(composed(f"+exp={name}", *overrides, command="evaluate" if evaluates else "train"), PROVIDED)


@pytest.mark.parametrize(
    "override", ["logger=wandb", "trainer=gpu", "trainer=ddp", "+debug=demo", "reward=format_answer"]
)
def test_every_choice_fits(override):
    config.check(composed("+exp=grpo_demo", override), PROVIDED)


VERIFIERS = ["roberta_base", "roberta_large", "bert_large", "deberta_v3_base", "xlmr_base", "tiny"]


@pytest.mark.parametrize("name", VERIFIERS)
def test_every_verifier_is_a_config_of_one_class(name):
    cfg = composed("+exp=verifier_roberta", f"verifier={name}", "algo.loss.name=supcon+bce")
    config.check(cfg, PROVIDED)
    assert cfg.verifier.model._target_ == "erv.verifier.build_verifier"
    assert cfg.verifier.data.noise.rate == 0.0
    assert (cfg.algo.epochs, cfg.algo.batch_size, cfg.optim.lr) == (10, 64, 3e-5)


@pytest.mark.parametrize(
    "overrides", [[], ["task=augment", "task.target=9"], ["data=dfew", "mode=batch", "llm.price=null"]]
)
def test_every_way_of_labelling_fits(overrides):
    config.check(composed("task.input=x.jsonl", *overrides, command="label"))


def test_how_labels_are_asked_for_changes_nothing_but_what_is_asked_does():
    def signed(*overrides):
        return config.signature(composed("task.input=x.jsonl", *overrides, command="label"), {"task.input": "abc"})

    same = (
        "llm.concurrency=2",
        "llm.timeout_s=5.0",
        "llm.price=null",
        "mode=batch",
        "dry_run=true",
        "task.input=y.jsonl",
    )
    other = (
        "llm.model=m",
        "llm.parameters.temperature=1",
        "task.prompt=label-2",
        "task.most=1",
        "llm.base_url=http://h/v1",
    )
    assert {signed(o) for o in same} == {signed()}
    assert len({signed(o) for o in other} | {signed()}) == 6


def test_all_problems_are_listed_at_once_with_the_nearest_name():
    cfg = composed("+exp=grpo_demo", "+reward.explanation.thresold=0.2", "+algo.grup_size=4", "+rewards=1")
    with pytest.raises(ConfigError) as error:
        config.check(cfg, PROVIDED)
    text = str(error.value)
    assert "unknown key 'reward.explanation.thresold'; did you mean 'reward.explanation.threshold'" in text
    assert "unknown key 'algo.grup_size'; did you mean 'algo.group_size'" in text
    assert "unknown key 'rewards'; did you mean 'reward'" in text


def test_a_missing_key_and_a_missing_value_are_named():
    with pytest.raises(ConfigError, match=r"missing key 'optim.lr' \(required by erv.training.Optimizer\)"):
        config.check(OmegaConf.create({"optim": {"_target_": "erv.training.Optimizer"}}))
    with pytest.raises(ConfigError, match=r"optim\.lr"):
        config.check(OmegaConf.create({"optim": {"_target_": "erv.training.Optimizer", "lr": "???"}}))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optim.lr=fast", "optim.lr must be a number, got 'fast'"),
        ("algo.group_size=8.5", "algo.group_size must be a whole number, got 8.5"),
        (
            "reward.explanation.neutral_filter=1",
            "neutral_filter must be true or false or one of all, argmax, margin, got 1",
        ),
        ("reward.explanation.neutral_filter=max", "must be true or false or one of all, argmax, margin, got 'max'"),
        ("algo.objective.loss=ppo", "algo.objective.loss must be one of grpo, bnpo, .*, got 'ppo'"),
        ("evaluation.limit=all", "evaluation.limit must be a whole number or null, got 'all'"),
    ],
)
def test_values_of_another_type_are_named(override, message):
    with pytest.raises(ConfigError, match=message):
        config.check(composed("+exp=grpo_demo", override), PROVIDED)


@pytest.mark.parametrize("target", ["os.system", "subprocess.run", "builtins.eval", "ervil.x"])
def test_a_strangers_target_runs_nothing(target):
    node = {"_target_": "erv.training.Optimizer", "lr": {"_target_": target, "command": "true"}}
    with pytest.raises(ConfigError, match=f"{target!r} is not allowed"):
        config.build(node)
    with pytest.raises(ConfigError, match="is not allowed"):
        config.check(OmegaConf.create({"optim": node}))


def test_building_with_provided_records():
    from erv.taxonomy import DFEW

    reward = config.build({"_target_": "erv.rewards.CompositeReward"}, taxonomy=DFEW)
    assert reward.taxonomy is DFEW


def test_the_signature_is_that_of_the_result():
    base = config.signature(composed("+exp=grpo_demo"))
    same = (
        "logger=wandb",
        "paths.runs=/elsewhere",
        "trainer.devices=4",
        "launch.threads=2",
        "group=other",
        "checkpoint.every=7",
    )
    other = ("seed=1", "reward.explanation.threshold=0.2", "algo.objective.beta=0", "media.modalities=[video]")
    assert {config.signature(composed("+exp=grpo_demo", o)) for o in same} == {base}
    assert len({config.signature(composed("+exp=grpo_demo", o)) for o in other} | {base}) == 5
    assert config.signature(composed("+exp=grpo_demo"), {"policy.checkpoint": "abc"}) != base


def test_a_renewed_default_signs_as_the_old_one_did():
    """The gate decides whether a run may begin, not what it computes; runs that began under the old default stay done."""
    cfg = composed("+exp=grpo_demo")
    before = OmegaConf.to_container(cfg, resolve=False)
    before["verifier"]["gate"] = {"macro_f1": 0.95, "labels_per_sentence": 1.2}
    assert config.signature(cfg) == config.signature(OmegaConf.create(before))
    assert config.signature(composed("+exp=grpo_demo", "verifier.gate=null")) != config.signature(cfg)


def test_a_key_that_is_not_read_is_not_signed():
    def signed(*overrides):
        return config.signature(composed("+exp=grpo_demo", *overrides))

    wider = "reward.explanation.neutral_margin=0.3"
    assert signed() == signed(wider)
    assert signed("reward.explanation.neutral_filter=margin") != signed(
        "reward.explanation.neutral_filter=margin", wider
    )


def finished(folder, seed):
    folder.mkdir(parents=True)
    (folder / "metrics.json").write_text(json.dumps({"seed": seed}))


def test_references_between_runs(tmp_path):
    finished(tmp_path / "demo" / "sft" / "aaa", 0)
    finished(tmp_path / "demo" / "sft" / "bbb", 1)
    sft = str(tmp_path / "demo" / "sft")
    assert find_model(sft, 1) == (f"{sft}/bbb/model", "bbb")
    assert find_model(f"{sft}/aaa", 5) == (f"{sft}/aaa/model", "aaa")
    assert find_model("org/R1-Omni-0.5B", 0) == ("org/R1-Omni-0.5B", "org/R1-Omni-0.5B")
    with pytest.raises(
        ConfigError, match=r"no finished run with seed 7 .*seeds there: 0, 1.*\n.*\+exp=sft_demo seed=7"
    ):
        find_model(sft, 7)
    finished(tmp_path / "demo" / "sft" / "ccc", 1)
    with pytest.raises(ConfigError, match=r"several finished runs with seed 1 .*; name one of them:\n.*bbb\n.*ccc"):
        find_model(sft, 1)


@pytest.mark.parametrize("name", ["gpt2", "FacebookAI/roberta-base", "org/a_name-1.5", "R1-Omni-0.5B"])
def test_any_hub_id_is_passed_on(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_model(name, 0) == (name, name)


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        (
            "here",
            r"no finished run with seed 3 in the folder 'here' \(seeds there: none\), which is no model's folder either",
        ),
        ("here/sft", r"'here/sft' does not exist; it is taken for a path since the folder 'here' exists"),
        ("runs/demo/sft", r"'runs/demo/sft' does not exist; it is taken for a path since it begins with runs/"),
        ("models/erv", r"'models/erv' does not exist; it is taken for a path since it begins with models/"),
        ("./erv", r"it is taken for a path since it begins with \."),
        ("/nowhere/erv", r"it is taken for a path since it begins with /"),
        ("~/erv", r"it is taken for a path since it begins with ~"),
        ("a/b/c", r"it is taken for a path since a hub id has at most one /"),
        ("file", r"'file' is a file, and a checkpoint is a folder"),
        ("two words", r"'two words' is no folder here, and not a hub id either \(Repo id must use alphanumeric"),
        ("org/name.git", r"'org/name.git' is no folder here, and not a hub id either \(Repo_id cannot end by"),
    ],
)
def test_a_reference_to_nothing_is_told_for_what_it_was_taken(reference, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "here").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=message) as refused:
        find_model(reference, 3)
    assert "set the key to a run's folder" in str(refused.value)
    for line in str(refused.value).splitlines():
        if line.startswith("  python -m erv.train "):
            assert composed(*line.split()[3:])["seed"] == 3


def test_the_commands_that_make_a_missing_run_are_named_with_its_group(tmp_path):
    with pytest.raises(ConfigError) as refused:
        find_model(str(tmp_path / "dfew" / "verifier"), 3)
    commands = [
        line.split()[3:] for line in str(refused.value).splitlines() if line.startswith("  python -m erv.train")
    ]
    assert ["+exp=verifier_roberta", "group=dfew", "seed=3"] in commands
    assert all(composed(*command)["group"] == "dfew" for command in commands)


def test_the_home_folder_is_read_in_a_reference(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "erv").mkdir()
    (tmp_path / "erv" / "config.json").touch()
    assert find_model("~/erv", 0) == (f"{tmp_path}/erv", "~/erv")
    finished(tmp_path / "sft" / "aaa", 0)
    assert find_model("~/sft", 0) == (f"{tmp_path}/sft/aaa/model", "aaa")


ROOT = Path(__file__).parents[2]
CHECKPOINT = re.compile(r"\bcheckpoint(?:=|: *)([^\s,}\"'`;)]+)")
PLACEHOLDER = re.compile(r"\$.*|[A-Z]+|\?\?\?|null|\{.*|models/.*|runs/.*")


def named_checkpoints():
    """The checkpoints that configs, commands and the documentation name, less those that a run of ours makes."""
    files = [ROOT / "README.md", *(f for d in ("conf", "docs", "experiments") for f in (ROOT / d).rglob("*"))]
    texts = [f.read_text() for f in files if f.suffix in (".md", ".sh", ".py")]
    texts += [re.sub("#.*", "", f.read_text()) for f in files if f.suffix == ".yaml"]
    return sorted({name for text in texts for name in CHECKPOINT.findall(text) if not PLACEHOLDER.fullmatch(name)})


def test_every_checkpoint_named_anywhere_is_a_full_hub_id(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # nothing lies here that could be taken for one
    named = named_checkpoints()
    assert {"FacebookAI/roberta-base", "SamLowe/roberta-base-go_emotions", "StarJiaxing/HumanOmni-0.5B"} <= set(named)
    assert [name for name in named if name.count("/") != 1] == []
    assert [find_model(name, 0) for name in named] == [(name, name) for name in named]


def test_looking_for_a_checkpoint_loads_no_framework(tmp_path):
    code = "import sys; from erv.runs.resolve import find_model; find_model('gpt2', 0); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert not {"torch", "transformers", "lightning"} & set(done.stdout.split())


def test_two_processes_cannot_write_one_run(tmp_path):
    run = Run(tmp_path / "run")
    with run.open({"seed": 0}, []), pytest.raises(ConfigError, match="another process is working in"):
        run.open({"seed": 0}, [])
    run.open({"seed": 0}, []).release()
    assert json.loads((run.folder / "env.json").read_text())["versions"]["torch"]
    assert not run.done
    run.finish({"seed": 0})
    assert run.done


def test_a_json_file_is_old_or_new_never_half(tmp_path):
    path = tmp_path / "x.json"
    write_json(path, {"a": 1})
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    assert json.loads(path.read_text()) == {"a": 1}
    assert os.listdir(tmp_path) == ["x.json"] or all(
        n.startswith(".x.json") for n in os.listdir(tmp_path) if n != "x.json"
    )


PLUGIN = """
import os
from subprocess import run


class Optim:
    def __init__(self, lr=1.0):
        self.lr = lr


def build_optim(lr):
    return Optim(lr)
"""


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    (tmp_path / "my_lab.py").write_text(PLUGIN)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield "my_lab"
    sys.modules.pop("my_lab", None)


def test_a_class_of_the_users_own_needs_the_environment_variable(plugin, monkeypatch):
    node = {"_target_": "my_lab.Optim", "lr": 2.0}
    message = r"'my_lab.Optim' is not allowed: .* in a package my_lab, begin the command with ERV_PLUGINS=my_lab"
    with pytest.raises(ConfigError, match=message):
        config.build(node)
    assert "my_lab" not in sys.modules
    monkeypatch.setenv("ERV_PLUGINS", "other, my_lab")
    assert config.build(node).lr == 2.0
    assert config.build({"_target_": "my_lab.build_optim", "lr": 3.0}).lr == 3.0
    with pytest.raises(ConfigError, match=r"unknown key 'optim.lrr'; did you mean 'optim.lr'"):
        config.check(OmegaConf.create({"optim": {**node, "lrr": 1}}))


@pytest.mark.parametrize("target", ["my_lab.os.system", "my_lab.run", "my_lab.nothing", "my_labs.Optim", "os.system"])
def test_only_what_a_plugin_defines_itself_can_be_built(plugin, monkeypatch, target):
    monkeypatch.setenv("ERV_PLUGINS", "my_lab")
    with pytest.raises(ConfigError, match=r"is not allowed|cannot be imported"):
        config.locate(target)
