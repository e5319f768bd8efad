"""The commands from the command line: invalid input, sweeps, the wheel, and every command of the README."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys

import pytest
import torch
import yaml
from commands import ROOT, run_of, train, warm
from safetensors.torch import load_file
from trees import clip_at

from erv.data.datasets.manifest import TEMPLATE
from erv.policy import load_policy

SMALL_DFEW = [
    "data.expect=none",
    "evaluation.limit=2",
    "evaluation.max_new_tokens=16",
    "evaluation.samples=1",
]
SMALL_DFEW_TRAINING = [
    "trainer=cpu",
    "trainer.val_check_interval=1",
    "data.dev_limit=2",
    "algo.epochs=null",
    "algo.iterations=1",
    "algo.max_new_tokens=16",
    "verifier.gate=null",
]
SMALL_ROBERTA = [
    "verifier.model.checkpoint=models/erv",
    "data.expect=none",
    "trainer=cpu",
    "trainer.val_check_interval=1",
    "+trainer.limit_train_batches=1",
]


def test_a_sweep_makes_one_run_per_value_and_leaves_nothing_where_it_was_started(demo):
    before = {f.name for f in demo.iterdir()}
    train(demo, "-m", "+exp=grpo_demo", "+debug=demo", "name=sweep", "reward.explanation.threshold=0.05,0.3")
    runs = list((demo / "runs" / "demo" / "sweep").iterdir())
    configs = [yaml.safe_load((folder / "config.yaml").read_text()) for folder in runs]
    assert {config["reward"]["explanation"]["threshold"] for config in configs} == {0.05, 0.3}
    assert all((f / "metrics.json").exists() for f in runs)
    assert {f.name for f in demo.iterdir()} == before


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["reward.explanation.thresold=0.2"], "did you mean 'reward.explanation.threshold'"),
        (["+algo.grup_size=4"], "unknown key 'algo.grup_size'; did you mean 'algo.group_size'"),
        (["optim.lr=fast"], "optim.lr"),
        (["reward.explanation.threshold=2"], "threshold is a probability in [0, 1], got 2"),
        (["seed=9"], "no finished run with seed 9"),
        (["media.modalities=[video,smell]"], "smell"),
        (["algo.iterations=1"], "got 2 for a run of 1: set trainer.val_check_interval=1 or less, or null"),
        (
            [
                "algo.iterations=null",
                "algo.epochs=1",
                "trainer.limit_train_batches=null",
                "trainer.val_check_interval=9",
            ],
            "got 9 for a run of 2: set trainer.val_check_interval=2 or less",
        ),
        (["trainer.precision=bf16-true"], "set trainer.precision=bf16-mixed and policy.dtype=bfloat16"),
        (["trainer.precision=16-mixed"], "trainer.precision is 32-true or bf16-mixed, got 16-mixed"),
        (["+trainer.accumulate_grad_batches=2"], "micro-batches of algo.token_budget tokens"),
        (["+trainer.accumulate_grad_batches=4", "stage=sft"], "set checkpoint.every=4"),
    ],
)
def test_bad_input_stops_before_anything_is_trained(demo, overrides, message):
    before = set((demo / "runs" / "demo").glob("*/*/metrics.json"))
    done = train(demo, "+exp=grpo_demo", "+debug=demo", "name=refused", *overrides, check=False)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert set((demo / "runs" / "demo").glob("*/*/metrics.json")) == before


def test_the_papers_preprocessing_from_towers_to_evaluation(demo):
    """Pictures are padded in training and squashed in evaluation, prompts differ, and no stage sees another's features."""
    before = set((demo / "cache").rglob("*.safetensors"))
    train(demo, "+exp=towers_demo", "+debug=demo", "name=paper_towers", "policy.preprocessing=paper")
    train(demo, "+exp=sft_demo", "+debug=demo", "name=paper_sft", "policy.checkpoint=runs/demo/paper_towers")
    run = run_of(demo, "paper_sft")
    settings = json.loads((run / "model" / "processor.json").read_text())
    assert settings["preprocessing"] == "paper"
    assert len({f.parent for f in set((demo / "cache").rglob("*.safetensors")) - before}) == 2
    assert json.loads((run / "metrics.json").read_text())["sampled"]["war"] is not None
    began = json.loads((run / "env.json").read_text())["policy_sha256"]
    assert began == load_policy(str(run_of(demo, "paper_towers") / "model")).sha256()


def test_lora_and_gradient_checkpointing_through_the_commands(demo):
    saving = ["policy.lora={r: 4}", "policy.gradient_checkpointing=true"]
    done = train(demo, "+exp=sft_demo", "+debug=demo", "name=lora", *saving)
    trained = re.search(r"language_model +([\d,]+) parameters, ([\d,]+) trained", done.stdout + done.stderr)
    assert trained, done.stdout
    whole, adapters = (int(n.replace(",", "")) for n in trained.groups())
    assert 0 < adapters < whole / 4
    first, second = (load_file(run_of(demo, name) / "model" / "model.safetensors") for name in ("towers", "lora"))
    assert first.keys() == second.keys()
    changed = {n for n in first if not torch.equal(first[n], second[n])}
    assert any(".q_proj.weight" in n for n in changed)
    assert "language_model.model.embed_tokens.weight" not in changed


@pytest.mark.slow
def test_grpo_with_adapters_in_bf16_through_the_commands(demo):
    """Slow on CPUs that have no bf16 arithmetic."""
    saving = ["policy.lora={r: 4}", "policy.gradient_checkpointing=true"]
    bf16 = ["policy.dtype=bfloat16", "trainer.precision=bf16-mixed"]
    train(demo, "+exp=grpo_demo", "+debug=demo", "name=lora_grpo", "policy.checkpoint=runs/demo/sft", *saving, *bf16)
    assert load_policy(str(run_of(demo, "lora_grpo") / "model")).model.adapted is False
    written = load_file(run_of(demo, "lora_grpo") / "model" / "model.safetensors")
    wide = {name.partition(".")[0] for name, weight in written.items() if weight.dtype == torch.float32}
    assert wide == {"mm_projector", "audio_projector", "bert_gate"}


def test_an_unfit_verifier_stops_training(demo):
    done = train(demo, "+exp=grpo_demo", "+debug=demo", "verifier.gate={macro_f1: 0.95}", "name=unfit", check=False)
    assert done.returncode == 2
    assert "this verifier must not train a policy: " in done.stderr
    assert "held-out macro F1 is" in done.stderr
    assert "that of TF-IDF with logistic regression on the same rows" in done.stderr


def test_an_untrained_verifier_is_refused_as_a_reward(demo):
    done = train(demo, "+exp=grpo_demo", "+debug=demo", "verifier=roberta_large", "verifier.gate=null", check=False)
    assert done.returncode == 2
    assert "verifier=roberta_large is one to be trained, and grpo reads sentences with a trained one" in done.stderr


def test_answers_that_do_not_fit_are_refused_before_training(demo):
    done = train(
        demo,
        "+exp=grpo_demo",
        "+debug=demo",
        "evaluation.max_new_tokens=500",
        "verifier.gate=null",
        "name=long",
        check=False,
    )
    assert done.returncode == 2
    assert "must fit the decoder's 512 positions" in done.stderr
    assert not (run_of(demo, "long") / "model").exists()


def test_dfew_without_data_says_what_is_missing(tmp_path):
    done = train(tmp_path, "+exp=grpo_dfew", check=False)
    assert done.returncode == 2
    assert "DFEW is not at" in done.stderr
    assert "academic use" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_wheel_finds_its_configs_from_any_folder(tmp_path):
    for name in ("erv", "conf", "pyproject.toml", "README.md", "LICENSE"):
        source, target = ROOT / name, tmp_path / "src" / name
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target)
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation"]
    subprocess.run([*build, "--outdir", str(tmp_path), str(tmp_path / "src")], check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    site = tmp_path / "site"
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(site), str(wheel)]
    subprocess.run(install, check=True)
    (tmp_path / "elsewhere").mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "erv.train", "+exp=grpo_dfew", "--cfg", "job"],
        cwd=tmp_path / "elsewhere",
        env={**os.environ, "PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "erv.data.DFEW" in done.stdout


def readme_commands():
    texts = [(ROOT / name).read_text() for name in ("README.md", "docs/data.md")]
    blocks = [block for text in texts for block in re.findall(r"```bash\n(.*?)```", text, re.DOTALL)]
    return [line for block in blocks for line in block.splitlines() if line]


def small(command):
    """Add overrides to a command that make it small: fewer clips and steps, the same code."""
    if "erv.doctor" in command and "data=dfew" in command:
        return [*command, "data.expect=none"]
    if {"erv.report", "erv.doctor", "erv.label"} & set(command):
        return command
    if "erv.predict" in command:
        return [*command, "evaluation.max_new_tokens=16"]
    if "+exp=verifier_roberta" in command:
        without_clips = "data=labels" in command
        return [*command, *(word for word in SMALL_ROBERTA if not (without_clips and word == "data.expect=none"))]
    if "trainer=ddp" in command and "+exp=grpo_dfew" in command:  # the same run as on one device: it is done already
        fewer = [word.replace("devices=8", "devices=2") for word in command]
        rest = ["trainer.accelerator=cpu" if word == "trainer=cpu" else word for word in SMALL_DFEW_TRAINING]
        return [*fewer, *SMALL_DFEW, *rest]
    if any("dfew" in word for word in command):
        return [*command, *SMALL_DFEW, *(SMALL_DFEW_TRAINING if "erv.train" in command else [])]
    return [*command, "+debug=demo"]


def test_every_command_of_the_readme_runs(demo, tmp_path, corpus):
    """In order, in one folder. `make` commands run other tests or CI jobs, so only their targets are checked (`make -n`)."""
    for name in ("data", "cache", "runs"):
        shutil.copytree(demo / name, tmp_path / name)
    (tmp_path / "models").mkdir()
    shutil.copytree(run_of(demo, "sft") / "model", tmp_path / "models" / "sft")
    shutil.copytree(run_of(demo, "verifier") / "model", tmp_path / "models" / "erv")
    (tmp_path / "texts.jsonl").write_text('{"text": "He is sad."}\n')
    shutil.copy(next(demo.rglob("labels.jsonl")), tmp_path / "labels.jsonl")
    rows = [f"the {word} one is number {i},{word}" for i in range(40) for word in ("happy", "sad", "neutral")]
    (tmp_path / "labelled.csv").write_text("\n".join(["text,labels", *rows]) + "\n")
    write_dfew(tmp_path / "papers_data" / "DFEW", corpus)
    shutil.copytree(tmp_path / "papers_data" / "DFEW", tmp_path / "papers_data" / "été (2)" / "DFEW")
    (tmp_path / "own.csv").write_text(TEMPLATE)
    for name in ("anna_01", "ben_04"):
        clip_at(tmp_path / "clips" / f"{name}.mp4", corpus.clips("train")[0].video)
    env = {k: v for k, v in warm(tmp_path).items() if not k.startswith("ERV_") or k == "ERV_WARM"}
    commands = readme_commands()
    assert len(commands) >= 9
    for line in commands:
        words = [word.replace("/data/", f"{tmp_path}/papers_data/") for word in shlex.split(line, comments=True)]
        if words[0] == "export":
            assert words[1].startswith("ERV_DATA=")
            env["ERV_DATA"] = str(tmp_path / "papers_data")
            continue
        if words[0] == "make":
            command, folder = ["make", "-n", *words[1:]], ROOT
        else:
            assert words[:2] == ["python", "-m"], f"a command of the README that this test does not know: {line}"
            command, folder = [sys.executable, *small(words[1:])], tmp_path
        line_env = {key: value for key, value in env.items() if key != "ERV_DATA" or "demo" not in line}
        done = subprocess.run(command, cwd=folder, env=line_env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
    assert (tmp_path / "dfew.html").stat().st_size > 1000


def test_the_readmes_reward_for_other_trainers(demo, tmp_path, monkeypatch):
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    shutil.copytree(run_of(demo, "verifier") / "model", tmp_path / "models" / "erv")
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(code, names)
    text = "<think>The brows draw together.</think>\n<answer>angry</answer>"
    scored = names["compute_score"]("dfew", text, "angry")
    parts = [f(completions=[text], solution=["angry"])[0] for f in names["functions"]]
    assert scored["score"] == sum(parts)
    assert parts[:2] == [1.0, 1.0]


def write_dfew(root, corpus):
    """A DFEW-shaped tree of the embedded corpus' clips."""
    (root / "label").mkdir(parents=True)
    (root / "clip").mkdir()
    clips = {"train": corpus.clips("train"), "test": corpus.clips("test")}
    number = 0
    for split, split_clips in clips.items():
        lines = ["id,label"]
        for clip in split_clips:
            number += 1
            shutil.copy(clip.video, root / "clip" / f"{number}.mp4")
            lines.append(f"{number},{corpus.taxonomy.index(clip.label) + 1}")
        (root / "label" / f"single_{split}set_5.csv").write_text("\n".join(lines) + "\n")


def test_a_command_without_an_experiment_lists_the_experiments(tmp_path):
    done = train(tmp_path, check=False)
    assert done.returncode == 2
    assert "no experiment is chosen; add +exp=NAME with one of eval_demo, eval_dfew, eval_mafw" in done.stderr


def test_the_template_of_the_docs_is_the_one_that_is_tested():
    assert TEMPLATE.strip() in (ROOT / "docs" / "data.md").read_text()
