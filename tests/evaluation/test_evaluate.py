"""`erv.evaluate` and `erv.predict` as users meet them: real processes, killed in the middle, and real servers that fail."""

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from commands import ROOT, environment, inside, run_of
from endpoint import Endpoint, judge
from safetensors.torch import load_file, save_file

import erv.evaluate
import erv.predict
from erv.evaluation.predictions import PREDICTIONS_FILE
from erv.taxonomy import DFEW

SMALL = ["+exp=eval_demo", "data.clips=48", "data.dev=8", "data.test=8"]
POLICY = [*SMALL, "checkpoint=runs/demo/grpo_erv"]
CONCURRENCY = 3


KEYS = {"OPENAI_API_KEY": "sk-secret", "GEMINI_API_KEY": "g-secret"}


def command(root, name, *arguments, module="evaluate"):
    main = {"evaluate": erv.evaluate.main, "predict": erv.predict.start}[module]
    return inside(main, root, *arguments, *([f"name={name}"] if name else []), **KEYS)


def started(root, name, *arguments):
    """A process of its own, to be killed."""
    line = [sys.executable, "-m", "erv.evaluate", *arguments, f"name={name}"]
    env = {**environment(root), **KEYS}
    return subprocess.Popen(line, cwd=root, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def evaluate(root, name, *arguments, group="demo"):
    done = command(root, name, *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    return run_of(root, name, group), done.stdout


def figures(folder):
    return json.loads((folder / "metrics.json").read_text())


def kill_when(process, ready):
    """SIGKILL as soon as `ready()`; the process must still be at work then."""
    deadline = time.time() + 120
    while not ready():
        assert process.poll() is None, process.communicate()[1]
        assert time.time() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL


@pytest.fixture(scope="module")
def home(demo, tmp_path_factory):
    """What evaluations need of the demo, in a folder of its own."""
    root = tmp_path_factory.mktemp("home")
    for name in ("data", "cache", "runs/demo/verifier", "runs/demo/sft", "runs/demo/grpo_erv"):
        shutil.copytree(demo / name, root / name)
    return root


@pytest.fixture(scope="module")
def whole(home):
    """An evaluation that nothing disturbed."""
    return evaluate(home, "whole", *POLICY)


def test_the_folder_of_an_evaluation(home, whole):
    folder, printed = whole
    rows = [json.loads(line) for line in (folder / PREDICTIONS_FILE).read_text().splitlines()]
    assert len(rows) == 8 * 3
    assert {"clip_id", "gold", "text", "answer", "think", "sentences", "rewards", "verdicts", "tokens"} <= rows[
        0
    ].keys()
    found = figures(folder)
    assert (found["arm"], found["clips"], found["judge"], found["judges"]) == (
        "whole",
        8,
        "oracle",
        {"oracle": {"kind": "oracle"}},
    )
    assert found["metrics"] == {"unknown": "wrong", "answers": "erv", "resamples": 2000, "stratified": True}
    assert set(found["sampled"]["quadrants"]) == {
        "right_coherent",
        "right_incoherent",
        "wrong_coherent",
        "wrong_incoherent",
    }
    assert all({"rule", "finding", "figures", "advice"} == set(d) for d in found["diagnosis"])
    assert "sampled  WAR " in printed
    for found_rule in found["diagnosis"]:
        assert f"! {found_rule['rule']}: " in printed
    assert not list(folder.glob("predictions-*"))


@pytest.mark.faults
def test_killed_while_it_answers_it_goes_on_and_ends_the_same(home, whole, fault):
    """At most the batch being made is lost: rows that were written are neither made again nor lost."""
    arguments = [*POLICY, "evaluation.batch_size=1"]
    process = started(home, "killed", *arguments)
    folder = home / "runs" / "demo" / "killed"
    kill_when(process, lambda: any(f.stat().st_size for f in folder.glob(f"*/{PREDICTIONS_FILE}")))
    (run,) = folder.iterdir()
    there = (run / PREDICTIONS_FILE).read_text()
    kept = there.count("\n")
    assert 0 < kept < 24
    assert not (run / "metrics.json").exists()
    with (run / PREDICTIONS_FILE).open("a") as file:
        file.write('{"clip_id": "0-0000')  # what a kill in the middle of a write leaves
    again, _ = evaluate(home, "killed", *arguments)
    assert again == run
    assert (run / PREDICTIONS_FILE).read_text() == (whole[0] / PREDICTIONS_FILE).read_text()
    assert figures(run)["sampled"] == figures(whole[0])["sampled"]
    fault("SIGKILL while answers are made", "at most a batch is lost", "same predictions and figures")


def test_two_processes_make_what_one_makes(home, whole):
    folder, _ = evaluate(home, "shares", *POLICY, "devices=2", "evaluation.batch_size=3")
    assert (folder / PREDICTIONS_FILE).read_text() == (whole[0] / PREDICTIONS_FILE).read_text()
    assert not list(folder.glob("predictions-*"))
    assert figures(folder)["greedy"] == figures(whole[0])["greedy"]


def test_shares_made_by_hand_and_rows_that_do_not_belong(home, whole):
    done = command(home, "byhand", *POLICY, "shard=1/2")
    assert done.returncode == 0, done.stderr
    (run,) = (home / "runs" / "demo" / "byhand").iterdir()
    (part,) = run.glob("predictions-*")
    assert part.name == "predictions-1-of-2.jsonl"
    rows = part.read_text().splitlines()
    assert len(rows) == 4 * 3
    other = json.loads(rows[0]) | {"clip_id": "of another corpus"}
    (run / "predictions-0-of-2.jsonl").write_text(json.dumps(other) + "\n")
    done = command(home, "byhand", *POLICY)
    assert done.returncode == 1
    assert "1 answers are to clips or samples that are not evaluated here, first clip of another corpus" in done.stderr
    (run / "predictions-0-of-2.jsonl").write_text("")
    folder, _ = evaluate(home, "byhand", *POLICY)
    assert (folder / PREDICTIONS_FILE).read_text() == (whole[0] / PREDICTIONS_FILE).read_text()
    done = command(home, "byhand", *POLICY, "shard=2/2")
    assert (done.returncode, "shard is k/n with k from 0 to n - 1" in done.stderr) == (2, True)


def write_predictions(path, count):
    texts = [f"Clip {i}: a {DFEW.labels[i % 7]} face." for i in range(count)]
    rows = [
        {"id": i, "gold": DFEW.labels[i % 7], "text": f"<think>{t}</think><answer>{DFEW.labels[i % 3]}</answer>"}
        for i, t in enumerate(texts)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return texts


def api(server, name="gpt"):
    at = f"judge.{name}.llm"
    return [
        f"{at}.base_url={server.url}",
        f"{at}.concurrency={CONCURRENCY}",
        f"{at}.timeout_s=1",
        f"{at}.backoff_s=0.02",
        f"{at}.max_backoff_s=0.1",
        f"{at}.attempts=3",
        f"{at}.breaker=1000",
    ]


@pytest.fixture
def endpoint():
    made = []

    def make(**settings):
        made.append(Endpoint(judge(DFEW.labels), strange={"emotion": "melancholia"}, **settings))
        return made[-1]

    yield make
    for server in made:
        server.close()


@pytest.mark.faults
def test_killed_while_it_judges_at_most_the_calls_under_way_are_lost(tmp_path, endpoint, fault):
    texts = write_predictions(tmp_path / "p.jsonl", 20)
    server = endpoint(plan={texts[3]: [500], texts[4]: ["timeout"], texts[5]: ["drop"], texts[6]: ["garbage"]})
    arguments = ["predictions=p.jsonl", "taxonomy=dfew", "judge=gpt", *api(server)]
    for after in (4, 5):
        server.hold(after)
        process = started(tmp_path, "k", *arguments)
        kill_when(process, lambda: server.held >= CONCURRENCY)
        server.let_go()
    answered = sum(server.delivered.values())
    folder, printed = evaluate(tmp_path, "k", *arguments, group="evaluate")
    assert set(server.delivered) == set(texts)
    assert max(server.delivered.values()) == 1  # nothing that was answered was asked for again
    assert answered >= 4
    found = figures(folder)
    assert found["sampled"]["verdict_status"] == {"ok": 1.0}
    assert found["sampled"]["eea"] == 1.0
    assert found["judges"]["gpt"]["model"] == "gpt-4.1-mini-2025-04-14"
    assert "judge gpt: EEA 100.0" in printed
    calls = sum(server.calls.values())
    assert "done already" in command(tmp_path, "k", *arguments).stdout
    (folder / "metrics.json").unlink()
    evaluate(tmp_path, "k", *arguments, group="evaluate")
    assert sum(server.calls.values()) == calls
    assert "sk-secret" not in "".join(f.read_text() for f in folder.iterdir() if f.is_file())
    fault(
        "SIGKILL while a judge is asked, which times out and fails",
        "nothing is asked for twice",
        "each text answered once",
    )


def test_no_verdict_is_invented_and_a_run_with_failed_ones_is_not_complete(tmp_path, endpoint):
    texts = write_predictions(tmp_path / "p.jsonl", 14)
    ways = ["off_list", "refused", 500, "broken", "timeout"]
    server = endpoint(
        plan={text: [way] * 9 for text, way in zip(texts[2:], ways, strict=False)}
    )  # the third clip is neutral
    arguments = ["predictions=p.jsonl", "taxonomy=dfew", "judge=gpt", *api(server)]
    done = command(tmp_path, "f", *arguments)
    assert done.returncode == 1
    assert "3 of 14 verdicts of judge 'gpt' failed" in done.stderr
    assert "evaluation.max_failed=SHARE accepts" in done.stderr
    (run,) = (tmp_path / "runs" / "evaluate" / "f").iterdir()
    assert not (run / "metrics.json").exists()
    rows = [json.loads(line)["verdicts"][0] for line in (run / PREDICTIONS_FILE).read_text().splitlines()]
    assert [r["status"] for r in rows[2:7]] == ["off_list", "refused", "failed", "failed", "failed"]
    assert all(r["emotion"] is None for r in rows[2:7])
    folder, _ = evaluate(tmp_path, "f", *arguments, "evaluation.max_failed=0.3", group="evaluate")
    assert folder == run
    assert figures(run)["sampled"]["verdict_status"]["failed"] == pytest.approx(3 / 14)
    assert figures(run)["sampled"]["eea"] == pytest.approx(9 / 14)


def test_several_judges_and_a_human_on_the_command_line(tmp_path, endpoint):
    texts = write_predictions(tmp_path / "p.jsonl", 14)
    gpt, gemini = endpoint(), endpoint(plan={texts[0]: ["off_list"], texts[1]: ["refused"]})
    (tmp_path / "ann.csv").write_text(
        "text,emotion\n" + "".join(f"{t},{DFEW.labels[i % 7]}\n" for i, t in enumerate(texts[:5]))
    )
    arguments = [
        "predictions=p.jsonl",
        "taxonomy=dfew",
        "judge=[gpt,gemini,human]",
        "judge.human.sheets=[ann.csv]",
        *api(gpt),
        *api(gemini, "gemini"),
    ]
    done = command(tmp_path, "m", *arguments)
    assert (done.returncode, "judge.gemini.llm.model" in done.stderr) == (2, True)
    arguments += ["judge.gemini.llm.model=gemini-x"]
    done = command(tmp_path, "m", *arguments, "dry_run=true")
    assert "judge gpt: 14 calls" in done.stdout
    assert "cost unknown" in done.stdout
    assert "judge human: free of charge" in done.stdout
    assert not gpt.calls
    folder, printed = evaluate(tmp_path, "m", *arguments, "export_human_task=true", "human_items=7", group="evaluate")
    assert gpt.keys == {"Bearer sk-secret"}
    assert gemini.keys == {"Bearer g-secret"}
    found = figures(folder)
    assert list(found["judges"]) == ["gpt", "gemini", "human"]
    assert found["judge"] == "gpt"
    assert found["sampled"]["judges"]["gemini"]["verdict_status"]["off_list"] == pytest.approx(1 / 14)
    assert "gpt and gemini agree: percent 1.000" in printed
    assert (folder / "human" / "sheet.csv").read_text().count("\n") == 8
    rows = [json.loads(line) for line in (folder / PREDICTIONS_FILE).read_text().splitlines()]
    assert [len(r["verdicts"]) for r in rows] == [3] * 5 + [2] * 9
    again, _ = evaluate(tmp_path, "n", f"predictions={folder}", "taxonomy=dfew", "judge=null", group="evaluate")
    assert figures(again)["sampled"] == found["sampled"] | {"judge_reward": None}  # verdicts are part of the file


def test_predictions_are_judged_without_a_model(home, whole):
    """Neither torch nor transformers nor lightning; the figures are those of the run that the file is of."""
    line = ["erv.evaluate", *SMALL, f"predictions={whole[0]}", "name=light", "verifier=null"]
    code = (
        f"import runpy, sys; sys.argv = {line!r}\n"
        "try:\n    runpy.run_module('erv.evaluate', run_name='__main__')\n"
        "finally:\n    print([m for m in ('torch', 'transformers', 'lightning') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=home, env=environment(home), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"
    found, of_run = figures(run_of(home, "light")), figures(whole[0])
    same = set(found["sampled"]) - {
        "judge_reward",
        "copy_rate",
    }  # these need the reward's rules and the spaCy of the corpus
    assert {k: found["sampled"][k] for k in same} == {k: of_run["sampled"][k] for k in same}
    assert found["diagnosis"] == of_run["diagnosis"]
    assert found["evaluation"] == of_run["evaluation"]


def test_the_released_figures_from_a_released_file(tmp_path):
    golden = json.loads((ROOT / "tests" / "fixtures" / "metrics_DFEW.json").read_text())
    labels = {str(v): k for k, v in golden["emotion_dict"].items()}
    rows = [
        {
            "id": line.split("|")[0],
            "gold": labels[str(golden["labels"][line.split("|")[0]])],
            "text": line.split("|", 1)[1],
        }
        for line in golden["one_line_per_sample"]
    ]
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    folder, _ = evaluate(
        tmp_path, "l", "predictions=p.jsonl", "taxonomy=dfew", "metrics.unknown=legacy_erv", group="evaluate"
    )
    found = figures(folder)["sampled"]
    assert (round(100 * found["war"], 3), round(100 * found["uar"], 3)) == (
        golden["WAR_printed"],
        golden["UAR_printed"],
    )
    folder, _ = evaluate(tmp_path, "w", "predictions=p.jsonl", "taxonomy=dfew", group="evaluate")
    assert (found["unknown_rate"], figures(folder)["sampled"]["unknown_rate"]) == (6 / 60, 5 / 60)


def test_the_released_rules_know_two_data_sets(tmp_path):
    (tmp_path / "p.jsonl").write_text('{"id": 1, "gold": "joy", "text": "<answer>joy</answer>"}\n')
    done = command(tmp_path, "g", "predictions=p.jsonl", "taxonomy=goemotions", "metrics.unknown=legacy_erv")
    assert (done.returncode, "counts answers on dfew and mafw, this is 'goemotions'" in done.stderr) == (2, True)
    found = figures(evaluate(tmp_path, "g", "predictions=p.jsonl", "taxonomy=goemotions", group="evaluate")[0])
    assert found["evaluation"] | {"samples": 1, "temperature": None} == found["evaluation"]
    assert found["sampled"]["war"] == 1


def perturbed(source, target):
    shutil.copytree(source, target)
    weights = load_file(target / "model.safetensors")
    name = next(n for n in weights if n.endswith("out_proj.bias"))
    save_file(
        weights | {name: weights[name] + 0.01 * torch.arange(len(weights[name]))},
        target / "model.safetensors",
        {"format": "pt"},
    )
    return target


def test_the_training_verifier_may_not_judge_another_one_may(home, whole):
    verifier = run_of(home, "verifier") / "model"
    shutil.copytree(verifier, home / "copied")
    own = [*POLICY, "judge=verifier", "evaluation.limit=4"]
    for place in (verifier, home / "copied"):
        for reward in ([], ["verifier=null", "reward=answers"]):  # it is known from the policy's run, too
            done = command(home, "v", *own, f"judge.verifier.verifier.checkpoint={place}", *reward)
            assert done.returncode == 2
            assert "is the verifier whose reward the policy was trained with" in done.stderr
        again = [f"predictions={whole[0]}", *SMALL, "judge=verifier", "verifier=null"]  # its answers, judged once more
        done = command(home, "v", *again, f"judge.verifier.verifier.checkpoint={place}")
        assert done.returncode == 2
        assert "is the verifier whose reward the policy was trained with" in done.stderr
    other = perturbed(verifier, home / "another")
    again_by_another, _ = evaluate(home, "v2", *again, f"judge.verifier.verifier.checkpoint={other}")
    assert list(figures(again_by_another)["judges"]) == ["verifier", "oracle"]
    folder, _ = evaluate(home, "v", *own, f"judge.verifier.verifier.checkpoint={other}")
    assert figures(folder)["judge"] == "verifier"


def test_sentences_are_read_as_in_training_without_being_told(home, whole):
    """The simplest command: verifier, reward and the most tokens are those of the policy's own run."""
    done = command(home, "simple", "checkpoint=runs/demo/grpo_erv", "data=synthetic", *SMALL[1:], "judge=oracle")
    assert done.returncode == 0, done.stderr
    assert "explanations are read by the verifier of the policy's training" in done.stdout
    found, told = figures(run_of(home, "simple", "evaluate")), figures(whole[0])
    assert found["sampled"] == told["sampled"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["data=synthetic"], "set checkpoint=RUN (or a model's folder), or predictions=FILE"),
        (["checkpoint=runs/demo/grpo_erv"], "set data=NAME"),
        (["predictions=gone.jsonl", "taxonomy=dfew"], "gone.jsonl: no such file"),
        (["predictions=gone.jsonl"], "set data=NAME, the clips the predictions are of, or taxonomy=dfew"),
        (["predictions=gone.jsonl", "taxonomy=defw"], "unknown taxonomy 'defw'"),
        ([*POLICY, "metrics.unknown=drop"], "metrics.unknown must be one of wrong, legacy_erv, legacy_humanomni"),
        (
            [*POLICY, "judge=openai", "judge.openai.llm.key_variable=NOT_SET"],
            "judge 'openai' needs its key, and NOT_SET is not set",
        ),
        ([*POLICY, "judge=openai", "judge.openai.promt=x"], "unknown key 'judge.openai.promt'"),
        (
            [*POLICY, "evaluation.samples=0", "evaluation.greedy=false"],
            "evaluation.samples=0 needs evaluation.greedy=true",
        ),
        ([*POLICY, "judge=human"], "judge.human.sheets"),
        ([*POLICY, "evaluation.max_new_tokens=900"], "must fit the decoder's 512 positions"),
    ],
)
def test_bad_input_is_said_before_anything_is_made(home, arguments, message):
    before = set((home / "runs").rglob(PREDICTIONS_FILE))
    done = command(home, None, *arguments)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert set((home / "runs").rglob(PREDICTIONS_FILE)) == before


def test_predictions_that_are_not_all_there(home, whole, tmp_path):
    lines = (whole[0] / PREDICTIONS_FILE).read_text().splitlines()
    (tmp_path / "less.jsonl").write_text("\n".join(lines[1:]) + "\n")
    (tmp_path / "twice.jsonl").write_text("\n".join([*lines, lines[0]]) + "\n")
    done = command(home, "less", *SMALL, f"predictions={tmp_path / 'less.jsonl'}", "verifier=null")
    assert (done.returncode, "1 answers are missing" in done.stderr) == (2, True)
    done = command(home, "twice", *SMALL, f"predictions={tmp_path / 'twice.jsonl'}", "verifier=null")
    assert (done.returncode, "1 clips are answered twice" in done.stderr) == (2, True)
    folder, _ = evaluate(
        home, "less", *SMALL, f"predictions={tmp_path / 'less.jsonl'}", "verifier=null", "partial=true"
    )
    assert figures(folder)["clips"] == 8


def test_predict_says_what_evaluate_says(home, whole):
    """The same text for the same clip, through a folder and an odd file name; rewards come with a gold label."""
    rows = [json.loads(line) for line in (whole[0] / PREDICTIONS_FILE).read_text().splitlines()]
    greedy = [row for row in rows if row["decoding"] == "greedy"][:2]
    clips = {
        json.loads(line)["id"]: json.loads(line)["video"]
        for line in (whole[0] / "clips.jsonl").read_text().splitlines()
    }
    folder = home / "some clips"
    folder.mkdir()
    for name, row in zip(("a.mp4", "it's = odd.MP4"), greedy, strict=True):
        shutil.copy(clips[row["clip_id"]], folder / name)
    arguments = ["some clips", "checkpoint=runs/demo/grpo_erv"]
    done = command(home, None, *arguments, "output=json", module="predict")
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["text"] for row in found] == [row["text"] for row in greedy]
    assert [row["sentences"] for row in found] == [row["sentences"] for row in greedy]
    assert [row["clip_id"] for row in found] == ["some clips/a.mp4", "some clips/it's = odd.MP4"]
    assert not {"gold", "rewards", "verdicts"} & found[0].keys()
    arguments[0] = "some clips/it's = odd.MP4"
    done = command(home, None, *arguments, "output=json", f"gold={greedy[1]['gold'].upper()}", module="predict")
    (row,) = [json.loads(line) for line in done.stdout.splitlines()]
    assert (row["gold"], row["rewards"]) == (greedy[1]["gold"], greedy[1]["rewards"])
    assert not (home / "runs" / "predict").exists()


def test_predict_to_be_read(home, whole):
    clip = json.loads((whole[0] / "clips.jsonl").read_text().splitlines()[0])["video"]
    done = command(
        home, None, clip, "checkpoint=runs/demo/grpo_erv", "gold=sad", "evaluation.max_new_tokens=40", module="predict"
    )
    assert done.returncode == 0, done.stderr
    assert "answer  " in done.stdout
    assert "gold sad" in done.stdout
    assert "rewards  format" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["clip.mp4"], "set checkpoint=RUN"),
        (["gone.mp4", "checkpoint=runs/demo/grpo_erv"], "gone.mp4: no such file or folder"),
        (["runs", "checkpoint=runs/demo/grpo_erv"], "runs: no clip is in this folder"),
        (["checkpoint=runs/demo/grpo_erv"], "no clip is given"),
        (["copied", "checkpoint=runs/demo/grpo_erv", "output=xml"], "output is panel or json, got 'xml'"),
    ],
)
def test_predict_explains_what_is_wrong(home, arguments, message):
    done = command(home, None, *arguments, module="predict")
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_bare_arguments_are_clips():
    quoted = erv.predict.with_clips(["a.mp4", "it's.mp4", "checkpoint=x", "--cfg", "job", "-m", "gold=sad"])
    assert quoted == ["checkpoint=x", "--cfg", "job", "-m", "gold=sad", "clips=['a.mp4','it\\'s.mp4']"]
    assert erv.predict.with_clips(["clips=[a.mp4]"]) == ["clips=[a.mp4]"]


def test_a_clip_that_cannot_be_read_is_left_out_of_everything(home, whole):
    """Of eight clips one is broken: with on_corrupt=skip the figures are those of the other seven, also when judged again."""
    clip = json.loads((whole[0] / "clips.jsonl").read_text().splitlines()[2])
    video = Path(clip["video"])
    sound = video.read_bytes()
    video.write_bytes(sound[:600])
    try:
        done = command(home, "refused", *POLICY)
        assert done.returncode == 2
        assert clip["id"] in done.stderr
        folder, _ = evaluate(home, "broken", *POLICY, "media.on_corrupt=skip")
    finally:
        video.write_bytes(sound)
    found = figures(folder)
    assert (found["clips"], found["media"]["test"]) == (7, found["media"]["test"])
    others = [
        row
        for row in map(json.loads, (whole[0] / PREDICTIONS_FILE).read_text().splitlines())
        if row["clip_id"] != clip["id"]
    ]
    assert [json.loads(line) for line in (folder / PREDICTIONS_FILE).read_text().splitlines()] == others
    again, _ = evaluate(home, "broken_again", *SMALL, f"predictions={folder}", "verifier=null")
    assert figures(again)["sampled"]["war"] == found["sampled"]["war"]
