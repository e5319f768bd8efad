"""Grids of jobs: planning, running, killing and resuming them; help pages and error messages of the commands."""

import json
import os
import resource
import signal
import subprocess
import sys
import time

import pytest
import yaml
from commands import environment, inside, train, warm

import erv.train
from erv.cli.jobs import Job, failures, run_jobs

TINY = ["+exp=grpo_demo", "+debug=demo", "algo.iterations=2", "trainer.limit_train_batches=2", "checkpoint.every=1"]


def grid_of(demo, *overrides):
    return [sys.executable, "-m", "erv.train", "-m", *TINY, "launch.devices=[0,1]", *overrides]


def processes_below(folder):
    """The process ids of the grid that makes the runs in `folder`, and of its jobs."""
    pids = subprocess.run(["pgrep", "-f", f"name={folder.name}"], capture_output=True, text=True, check=False).stdout
    return pids.split()


def cpu_seconds_of_children():
    """CPU time of all child processes that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


@pytest.mark.faults
def test_a_grid_that_was_killed_is_finished_by_the_same_command(demo, fault):
    folder = demo / "runs" / "demo" / "killed"
    command = grid_of(demo, "name=killed", "reward.explanation.threshold=0.05,0.1,0.2")
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(command, cwd=demo, env=environment(demo), **quiet)
    deadline = time.time() + 240
    while not (done := list(folder.glob("*/metrics.json"))):
        assert process.poll() is None, "it ended before its first job had"
        assert time.time() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    while processes_below(folder):  # its jobs end with it, so that nobody works in their folders
        assert time.time() < deadline
        time.sleep(0.1)
    assert len(done) < 3
    before = {file: file.stat().st_mtime_ns for file in done}
    again = subprocess.run(command, cwd=demo, env=warm(demo), capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    assert f"3 jobs, {len(done)} done before" in again.stderr
    assert len(list(folder.glob("*/metrics.json"))) == 3
    assert {file: file.stat().st_mtime_ns for file in done} == before
    for file in done:
        log = (file.parent / "job.log").read_text()
        assert sum(line.startswith("run ") for line in log.splitlines()) == 1
    report = [sys.executable, "-m", "erv.report", str(folder)]
    table = subprocess.run(report, cwd=demo, env=environment(demo), capture_output=True, text=True, check=True)
    assert all(f"threshold={tau}" in table.stdout for tau in ("0.05", "0.1", "0.2"))
    fault(
        "SIGKILL of a grid",
        "no job is left behind; what is done is kept",
        "finished by the same command, done jobs untouched",
    )


def test_all_jobs_are_checked_before_the_first_one_starts(demo):
    done = train(demo, "-m", *TINY, "name=unplan", "seed=0,9", "reward.explanation.threshold=0.05,0.1", check=False)
    assert done.returncode == 2, done.stderr
    assert "no job was started" in done.stderr
    assert "no finished run with seed 9" in done.stderr
    assert "and 1 more" in done.stderr  # each problem once, with the jobs that have it
    assert not (demo / "runs" / "demo" / "unplan").exists()


@pytest.mark.parametrize(
    ("overrides", "messages"),
    [
        (["reward.explanation.treshold=0.2"], ["did you mean 'reward.explanation.threshold'"]),
        (["algo=none"], ["there is no algo=none", "algo is one of grpo, sft, towers, verifier"]),
        (["algo=null"], ["algo has", "'iterations'", "is not chosen", "conf/exp/grpo_demo.yaml"]),
        (["+exp=mine"], ["unknown key 'algo.group_sise'; did you mean 'algo.group_size'", "(set in", "mine.yaml)"]),
        (["+exp=mine"], ["unknown key 'checkpoint.evry'; did you mean 'checkpoint.every'"]),
        (["judge=gpt"], ["judge 'gpt' needs its key, and OPENAI_API_KEY is not set"]),
        (["algo.group_size=1"], ["algo.group_size is at least 2, got 1"]),
    ],
)
def test_typos_stop_before_training_and_say_where_they_are(tmp_path, monkeypatch, overrides, messages):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    (tmp_path / "own" / "exp").mkdir(parents=True)
    (tmp_path / "own" / "exp" / "mine.yaml").write_text(
        "# @package _global_\ndefaults: [grpo_demo]\nalgo: {group_sise: 16}\ncheckpoint: {evry: 3}\n"
    )
    chosen = [] if "+exp=mine" in overrides else ["+exp=grpo_demo"]
    done = inside(erv.train.main, tmp_path, "--config-dir", str(tmp_path / "own"), *chosen, *overrides)
    assert done.returncode == 2, done.stdout + done.stderr
    for message in messages:
        assert message in done.stderr
    assert not (tmp_path / "runs").exists()


def test_every_missing_piece_is_named_at_once_with_the_command_that_checks_it(tmp_path):
    before = cpu_seconds_of_children()
    done = train(tmp_path, "+exp=grpo_dfew", check=False)
    seconds = cpu_seconds_of_children() - before
    assert done.returncode == 2
    for piece in (
        "DFEW is not at",
        "python -m erv.doctor data=dfew",
        "runs/dfew/sft' does not exist; it is taken for a path",
        "runs/dfew/verifier' does not exist",
    ):
        assert piece in done.stderr
    assert seconds < 15


@pytest.mark.parametrize("name", ["train", "evaluate", "label", "predict", "doctor", "report"])
def test_help_is_a_page_that_comes_at_once(name, tmp_path):
    before = cpu_seconds_of_children()
    command = [sys.executable, "-m", f"erv.{name}", "--help"]
    done = subprocess.run(command, cwd=tmp_path, env=environment(tmp_path), capture_output=True, text=True, check=True)
    seconds = cpu_seconds_of_children() - before
    assert f"python -m erv.{name}" in done.stdout
    assert seconds < 4  # lightning alone takes more
    if name == "train":
        assert "grpo_dfew" in done.stdout
        assert "launch.devices" in done.stdout


def jobs_of(tmp_path, *codes):
    return [
        Job(i, f"job-{i}", [sys.executable, "-c", code], tmp_path / f"{i}.log", done=code == "done")
        for i, code in enumerate(codes)
    ]


def test_a_job_that_fails_does_not_stop_the_rest(tmp_path):
    jobs = jobs_of(
        tmp_path, "done", "print('so far'); raise SystemExit(3)", "import os; print(os.environ['CUDA_VISIBLE_DEVICES'])"
    )
    run_jobs(jobs, ["4,5"], {})
    assert [job.state for job in jobs] == ["done before", "failed", "done"]
    assert "so far" in failures(jobs)
    assert "1 of 3 jobs failed" in failures(jobs)
    assert (tmp_path / "2.log").read_text() == "4,5\n"
    assert not (tmp_path / "0.log").exists()


def test_as_many_jobs_at_once_as_there_are_devices(tmp_path):
    code = "import time; print(time.time()); time.sleep(0.6); print(time.time())"
    run_jobs(jobs := jobs_of(tmp_path, *[code] * 4), ["0", "1"], {})
    spans = [tuple(map(float, (tmp_path / f"{job.number}.log").read_text().split())) for job in jobs]
    at_once = [sum(begin <= t < end for begin, end in spans) for t, _ in spans]
    assert max(at_once) == 2


def test_a_grid_told_to_end_ends_its_jobs_first(tmp_path):
    script = (
        "import sys; from pathlib import Path; from erv.distributed import signals; from erv.cli.jobs import Job, run_jobs\n"
        "signals.listen(signals.stop)\n"
        "wait = 'import os, time; print(os.getpid(), flush=True); time.sleep(300)'\n"
        f"run_jobs([Job(0, 'waits', [sys.executable, '-c', wait], Path({str(tmp_path / 'log')!r}))], ['0'], {{}})\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script], env=environment(tmp_path), stderr=subprocess.DEVNULL)
    while not (tmp_path / "log").is_file() or not (tmp_path / "log").read_text().strip():
        assert process.poll() is None
        time.sleep(0.05)
    job = int((tmp_path / "log").read_text())
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 143
    with pytest.raises(ProcessLookupError):
        os.kill(job, 0)


def test_optuna_searches_by_a_figure_of_the_runs(demo):
    search = [
        "name=search",
        "hydra/sweeper=optuna",
        "hydra.sweeper.n_trials=2",
        "hydra.sweeper.n_jobs=2",
        "hydra.sweeper.direction=maximize",
        "launch.objective=sampled.unknown_rate",
        "reward.explanation.threshold=range(0.05,0.2,step=0.15)",
    ]
    command = [sys.executable, "-m", "erv.train", "-m", *TINY, *search]
    done = subprocess.run(command, cwd=demo, env=warm(demo), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    runs = [json.loads(file.read_text()) for file in demo.glob("runs/demo/search/*/metrics.json")]
    (result,) = demo.glob("runs/multirun/*/optimization_results.yaml")
    assert yaml.safe_load(result.read_text())["best_value"] == max(run["sampled"]["unknown_rate"] for run in runs)


@pytest.mark.slow
def test_submitit_starts_the_jobs_elsewhere(demo):
    """Its local executor has the interface of SLURM's."""
    overrides = ["name=submitted", "hydra/launcher=submitit_local", "seed=0"]
    command = [sys.executable, "-m", "erv.train", "-m", *TINY, *overrides]
    done = subprocess.run(command, cwd=demo, env=warm(demo), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (file,) = demo.glob("runs/demo/submitted/*/metrics.json")
    assert json.loads(file.read_text())["arm"] == "submitted"
