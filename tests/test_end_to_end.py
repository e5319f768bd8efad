"""The whole method through its commands: real clips, real processes, the demo's own script at a very small size."""

import contextlib
import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml

ROOT = Path(__file__).parent.parent
PARTS = {"format", "answer", "explanation", "total"}


def environment(root):
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    places = {f"ERV_{name}": str(root / name.lower()) for name in ("RUNS", "DATA", "CACHE")}
    return {**os.environ, **places, "PATH": path, "PYTHONPATH": str(ROOT), "PYTHON": sys.executable}


def train(root, *overrides, check=True):
    command = [sys.executable, "-m", "erv.train", *overrides]
    done = subprocess.run(command, cwd=root, env=environment(root), capture_output=True, text=True, check=False)
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """The demo's script, run once; a folder with runs/, data/ and cache/, and what it printed."""
    root = tmp_path_factory.mktemp("demo")
    script = ["bash", str(ROOT / "experiments" / "demo" / "run.sh"), "+debug=demo"]
    code, printed = in_a_terminal(script, environment(root))
    assert code == 0, printed
    (root / "printed").write_text(printed)
    return root


def in_a_terminal(command, env):
    """Exit code and output of a command that believes a user is watching."""
    master, slave = pty.openpty()
    process = subprocess.Popen(command, env=env, stdout=slave, stderr=slave, stdin=subprocess.DEVNULL)
    os.close(slave)
    chunks = []
    with contextlib.suppress(OSError):  # Linux ends a terminal's stream with an error
        while chunk := os.read(master, 65536):
            chunks.append(chunk)
    os.close(master)
    return process.wait(), b"".join(chunks).decode(errors="replace").replace("\r\n", "\n")


def run_of(root, arm, group="demo"):
    (folder,) = (root / "runs" / group / arm).iterdir()
    return folder


def test_the_script_prints_the_table_and_where_the_page_is(demo):
    printed = (demo / "printed").read_text()
    for arm in ("sft", "grpo", "grpo_erv"):
        assert f"| {arm} " in printed
    assert "Epoch 0:" in printed  # progress of what runs side by side
    page = Path(printed.splitlines()[-1].split(": ")[1])
    assert page.read_text().count('class="clip"') == 4
    assert (demo / "runs" / "demo" / "table.md").read_text().splitlines()[0] in printed


def test_a_runs_folder_holds_everything_that_is_derived_from(demo):
    folder = run_of(demo, "grpo_erv")
    for name in (
        "config.yaml",
        "overrides.yaml",
        "env.json",
        "checkpoints/last.ckpt",
        "clips.jsonl",
        "model/config.json",
    ):
        assert (folder / name).exists(), name
    metrics = json.loads((folder / "metrics.json").read_text())
    assert (metrics["arm"], metrics["seed"], metrics["clips"]) == ("grpo_erv", 0, 4)
    rows = [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]
    assert len(rows) == 4 * (2 + 1)  # two samples and a greedy answer
    assert all(row["verdicts"][0]["status"] == "ok" and set(row["rewards"]) == PARTS for row in rows)
    table = pq.read_table(folder / "completions.parquet").to_pylist()
    assert len(table) == 4 * 16 * 8  # iterations, clips, answers
    assert {row["iter"] for row in table} == {1, 2, 3, 4}
    assert all(abs(sum(r["advantage"] for r in table[i : i + 8])) < 1e-2 for i in range(0, len(table), 8))
    curves = (folder / "logs" / "version_0" / "metrics.csv").read_text().splitlines()[0].split(",")
    names = {"iter", "train/reward", "train/rewards/explanation/mean", "train/frac_reward_zero_std", "train/kl",
             "train/completions/mean_length", "dev/fcr", "dev/verifier_reward", "dev/judge_reward"}  # fmt: skip
    assert names <= set(curves)
    assert "step" in curves  # Lightning's own axis; no metric of ours has that name


def test_report_prints_one_object_per_run(demo):
    command = [sys.executable, "-m", "erv.report", "runs/demo", "--json"]
    done = subprocess.run(command, cwd=demo, env=environment(demo), capture_output=True, text=True, check=True)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["arm"] for row in rows] == ["sft", "grpo", "grpo_erv"]


def test_what_is_done_is_not_done_again(demo):
    before = run_of(demo, "sft").stat().st_mtime_ns
    done = train(demo, "+exp=sft_demo", "+debug=demo")
    assert "done already" in done.stdout
    assert run_of(demo, "sft").stat().st_mtime_ns == before


def test_an_ablation_is_one_key_and_another_run(demo):
    overrides = ("reward.explanation.neutral_filter=false", "reward.explanation.threshold=0.2", "name=ablation")
    train(demo, "+exp=grpo_demo", "+debug=demo", *overrides)
    config = (run_of(demo, "ablation") / "config.yaml").read_text()
    assert "neutral_filter: false" in config
    assert "threshold: 0.2" in config


def test_a_sweep_makes_one_run_per_value_and_leaves_nothing_where_it_was_started(demo):
    before = {f.name for f in demo.iterdir()}
    train(demo, "-m", "+exp=grpo_demo", "+debug=demo", "name=sweep", "reward.explanation.threshold=0.05,0.3")
    runs = list((demo / "runs" / "demo" / "sweep").iterdir())
    found = {yaml.safe_load((f / "config.yaml").read_text())["reward"]["explanation"]["threshold"] for f in runs}
    assert found == {0.05, 0.3}
    assert all((f / "metrics.json").exists() for f in runs)
    assert {f.name for f in demo.iterdir()} == before


def copy_of(demo, target):
    for name in ("data", "cache", "runs/demo/towers", "runs/demo/verifier", "runs/demo/sft"):
        shutil.copytree(demo / name, target / name)
    return target


def test_a_killed_run_goes_on_and_ends_as_if_it_had_not_been(demo, tmp_path):
    """Also: the same seed twice gives the same metrics, in other folders, from other processes."""
    root = copy_of(demo, tmp_path)
    command = [sys.executable, "-m", "erv.train", "+exp=grpo_demo", "+debug=demo"]
    process = subprocess.Popen(
        command, cwd=root, env=environment(root), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )  # fmt: skip
    deadline = time.time() + 240
    while not list(root.glob("runs/demo/grpo_erv/*/checkpoints/last.ckpt")):
        assert process.poll() is None, "it ended before its first checkpoint"
        assert time.time() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    killed = run_of(root, "grpo_erv")
    assert not (killed / "metrics.json").exists()
    train(root, "+exp=grpo_demo", "+debug=demo")
    whole = run_of(demo, "grpo_erv")
    assert killed.name == whole.name
    assert (killed / "predictions.jsonl").read_text() == (whole / "predictions.jsonl").read_text()
    assert (killed / "model" / "model.safetensors").read_bytes() == (whole / "model" / "model.safetensors").read_bytes()
    one, other = (json.loads((f / "metrics.json").read_text()) for f in (killed, whole))
    assert one == other
    completions = [pq.read_table(f / "completions.parquet").to_pylist() for f in (killed, whole)]
    assert completions[0] == completions[1]


def test_a_run_killed_while_it_was_evaluated_is_not_trained_again(demo, tmp_path):
    root = copy_of(demo, tmp_path)
    shutil.copytree(demo / "runs/demo/grpo", root / "runs/demo/grpo")
    folder = run_of(root, "grpo")
    before = json.loads((folder / "metrics.json").read_text())
    (folder / "metrics.json").unlink()
    train(root, "+exp=grpo_demo", "+debug=demo", "name=grpo", "reward=format_answer")
    assert json.loads((folder / "metrics.json").read_text()) == before
    assert "train/reward" not in (folder / "logs" / "version_1" / "metrics.csv").read_text()


def test_evaluate_gives_the_figures_that_training_ended_with(demo):
    command = [sys.executable, "-m", "erv.evaluate", "+exp=evaluate_demo", "data.corpus.clips=48", "data.corpus.dev=8",
               "data.corpus.test=8", "evaluation.limit=4", "policy.checkpoint=runs/demo/grpo_erv"]  # fmt: skip
    done = subprocess.run(command, cwd=demo, env=environment(demo), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads((run_of(demo, "evaluate") / "metrics.json").read_text())
    trained = json.loads((run_of(demo, "grpo_erv") / "metrics.json").read_text())
    assert found["sampled"] == trained["sampled"]
    assert found["greedy"] == trained["greedy"]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["reward.explanation.thresold=0.2"], "did you mean 'reward.explanation.threshold'"),
        (["+algo.grup_size=4"], "unknown key 'algo.grup_size'; did you mean 'algo.group_size'"),
        (["optim.lr=fast"], "optim.lr"),
        (["reward.explanation.threshold=2"], "threshold is a probability in [0, 1], got 2"),
        (["seed=9"], "no finished run with seed 9"),
        (["data.modalities=[video,smell]"], "smell"),
    ],
)
def test_bad_input_stops_before_anything_is_trained(demo, overrides, message):
    before = set((demo / "runs" / "demo").glob("*/*/metrics.json"))
    done = train(demo, "+exp=grpo_demo", "+debug=demo", *overrides, check=False)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert set((demo / "runs" / "demo").glob("*/*/metrics.json")) == before


def test_an_unfit_verifier_stops_training(demo):
    done = train(demo, "+exp=grpo_demo", "+debug=demo", "verifier.gate={macro_f1: 0.95}", "seed=0", check=False)
    assert done.returncode == 2
    assert "this verifier must not train a policy: held-out macro F1 is" in done.stderr


def test_dfew_without_data_says_what_is_missing(tmp_path):
    done = train(tmp_path, "+exp=grpo_dfew", check=False)
    assert done.returncode == 2
    assert "DFEW is not at" in done.stderr
    assert "academic use" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_wheel_finds_its_configs_from_any_folder(tmp_path):
    for name in ("erv", "conf", "pyproject.toml", "README.md", "LICENSE"):
        source = ROOT / name
        skip = shutil.ignore_patterns("__pycache__")
        shutil.copytree(source, tmp_path / "src" / name, ignore=skip) if source.is_dir() else shutil.copy(
            source, tmp_path / "src" / name
        )
    build = [
        sys.executable,
        "-m",
        "build",
        "--wheel",
        "--no-isolation",
        "--outdir",
        str(tmp_path),
        str(tmp_path / "src"),
    ]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    site = tmp_path / "site"
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(site), str(wheel)]
    subprocess.run(install, check=True)
    (tmp_path / "elsewhere").mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "erv.train", "+exp=grpo_dfew", "--cfg", "job"], cwd=tmp_path / "elsewhere",
        env={**os.environ, "PYTHONPATH": str(site)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "erv.corpora.dfew.DFEWCorpus" in done.stdout


SMALL_DFEW = [
    "data.corpus.partial=true", "evaluation.limit=2", "evaluation.max_new_tokens=16", "evaluation.samples=1",
]  # fmt: skip
SMALL_DFEW_TRAINING = [
    "trainer=cpu", "trainer.val_check_interval=1", "data.dev_limit=2", "algo.iterations=1", "algo.max_new_tokens=16",
    "verifier.gate=null",
]  # fmt: skip


def readme_commands():
    text = (ROOT / "README.md").read_text()
    return [line for block in re.findall(r"```bash\n(.*?)```", text, re.DOTALL) for line in block.splitlines() if line]


def small(command):
    """The command with what makes it small: fewer clips and steps, the same code."""
    if "erv.report" in command:
        return command
    if any("dfew" in word for word in command):
        return [*command, *SMALL_DFEW, *(SMALL_DFEW_TRAINING if "erv.train" in command else [])]
    return [*command, "+debug=demo"]


def test_every_command_of_the_readme_runs(demo, tmp_path, corpus):
    """In order, in one folder. `make demo` and `make test` are what the other tests and CI are; here they must resolve."""
    for name in ("data", "cache", "runs"):
        shutil.copytree(demo / name, tmp_path / name)
    (tmp_path / "models").mkdir()
    shutil.copytree(run_of(demo, "sft") / "model", tmp_path / "models" / "sft")
    shutil.copytree(run_of(demo, "verifier") / "model", tmp_path / "models" / "erv")
    write_dfew(tmp_path / "papers_data" / "DFEW", corpus)
    env = {k: v for k, v in environment(tmp_path).items() if not k.startswith("ERV_")}
    commands = readme_commands()
    assert len(commands) >= 9
    for line in commands:
        words = line.split()
        if words[0] == "export":
            assert words[1].startswith("ERV_DATA=")
            env["ERV_DATA"] = str(tmp_path / "papers_data")
            continue
        if words[0] == "make":
            command, folder = ["make", "-n", *words[1:]], ROOT
        else:
            assert words[:2] == ["python", "-m"], f"a command of the README that this test does not know: {line}"
            command, folder = [sys.executable, *small(words[1:])], tmp_path
            if "demo" in line:
                env.pop("ERV_DATA", None)
        done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
    assert (tmp_path / "dfew.html").stat().st_size > 1000


def write_dfew(root, corpus):
    """A DFEW-shaped tree of the embedded corpus' clips."""
    (root / "label").mkdir(parents=True)
    (root / "clip").mkdir()
    clips = {"train": corpus.clips("train"), "test": corpus.clips("test")}
    number = 0
    for split, found in clips.items():
        lines = ["id,label"]
        for clip in found:
            number += 1
            shutil.copy(clip.video, root / "clip" / f"{number}.mp4")
            lines.append(f"{number},{corpus.taxonomy.index(clip.label) + 1}")
        (root / "label" / f"single_{split}set_5.csv").write_text("\n".join(lines) + "\n")


def test_curves_and_figures_go_to_wandb(demo):
    command = [sys.executable, "-m", "erv.train", "+exp=sft_demo", "+debug=demo", "logger=wandb", "name=sft_wandb"]
    env = {**environment(demo), "WANDB_MODE": "offline"}
    done = subprocess.run(command, cwd=demo, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    folder = run_of(demo, "sft_wandb")
    (log,) = folder.glob("wandb/offline-run-*/*.wandb")
    content = log.read_bytes()
    for name in (b"train/loss", b"dev/loss", b"test/sampled/fcr"):
        assert name in content
    one, other = (json.loads((f / "metrics.json").read_text()) for f in (folder, run_of(demo, "sft")))
    assert one["sampled"] == other["sampled"]  # where curves go changes nothing


def test_no_experiment_is_said(tmp_path):
    done = train(tmp_path, check=False)
    assert done.returncode == 2
    assert "no experiment is chosen; add +exp=NAME with one of evaluate_demo, evaluate_dfew, grpo_demo" in done.stderr
