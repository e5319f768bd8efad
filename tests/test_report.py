"""Tables and pages from run folders; the folders are written as runs write them."""

import csv
import io
import json
import re
import subprocess
import sys

import pytest
import yaml

from erv.emotions import DFEW
from erv.metrics.summary import summarise
from erv.records import Prediction, Sentence, Verdict
from erv.report.__main__ import main
from erv.report.runs import load
from erv.report.table import arms, difference

CLIPS = 40


def write_run(root, arm, seed, right, faithful, settings=None, judge="oracle", text="The jaw drops."):
    """A run in which every `right`-th answer and every `faithful`-th explanation is right."""
    folder = root / arm / f"{seed}{abs(hash(str(settings))) % 1000}"
    (folder / "logs" / "version_0").mkdir(parents=True)
    rows = []
    for i in range(CLIPS):
        answer = "sad" if i % right == 0 else "happy"
        read = "sad" if i % faithful == 0 else "fear"
        for decoding in ("sampled", "greedy"):
            rows.append(
                Prediction(
                    f"c{i}",
                    "sad",
                    text,
                    decoding,
                    answer=answer,
                    think=text,
                    sentences=(Sentence(text, ("sad", "fear")),),
                    verdicts=(Verdict(judge, read, "ok"),) if judge else (),
                )
            )
    figures = {d: summarise([p for p in rows if p.decoding == d], DFEW, judge, 200) for d in ("sampled", "greedy")}
    plan = {"split": "test", "samples": 1, "temperature": 0.7}
    metrics = {"arm": arm, "stage": "grpo", "seed": seed, "signature": folder.name, "clips": CLIPS, "judge": judge}
    (folder / "metrics.json").write_text(json.dumps({**metrics, "evaluation": plan, **figures}))
    (folder / "config.yaml").write_text(yaml.safe_dump({"seed": seed, "reward": settings or {"threshold": 0.1}}))
    (folder / "predictions.jsonl").write_text("".join(json.dumps(p.row()) + "\n" for p in rows))
    clips = [{"id": f"c{i}", "video": "gone.mp4", "label": "sad"} for i in range(CLIPS)]
    (folder / "clips.jsonl").write_text("".join(json.dumps(c) + "\n" for c in clips))
    (folder / "logs" / "version_0" / "metrics.csv").write_text("step,train/reward\n0,1.0\n1,1.5\n2,\n")
    return folder


@pytest.fixture
def runs(tmp_path):
    write_run(tmp_path, "sft", 0, 2, 4)
    write_run(tmp_path, "grpo", 0, 2, 4)
    write_run(tmp_path, "grpo_erv", 0, 2, 2)
    return tmp_path


def test_json_is_one_object_per_run_and_line(runs, capsys):
    main([str(runs), "--json"])
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["arm"] for row in rows] == ["sft", "grpo", "grpo_erv"]
    for row in rows:
        assert set(row) >= {"arm", "seed", "war", "uar", "eea", "epc", "fcr", "intervals"}
        for name in ("war", "uar", "eea", "epc", "fcr"):
            low, high = row["intervals"][name]
            assert 0 <= low <= row[name] <= high <= 1
    assert rows[0] | {"war": 0.5, "eea": 0.25, "fcr": 0.25} == rows[0]


def test_csv_reads_back(runs, capsys):
    main([str(runs), "--csv"])
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [float(row["fcr"]) for row in rows] == [0.25, 0.25, 0.5]
    assert float(rows[0]["war_low"]) < 0.5 < float(rows[0]["war_high"])


def test_table_shows_arms_and_paired_differences(runs, capsys):
    main([str(runs), "--table", str(runs / "table.md")])
    text = capsys.readouterr().out
    assert (runs / "table.md").read_text() == text
    assert re.search(r"\| grpo_erv +\| 1 +\| 50.0 \[", text)
    assert re.search(r"\| grpo_erv - grpo +\| \+0.0 \[\+0.0, \+0.0\] +\| \+25.0 \[", text)
    assert "sft - grpo" not in text


def test_table_shows_how_rationales_are_written_and_what_the_mean_hides(runs, capsys):
    main([str(runs)])
    text = capsys.readouterr().out
    assert re.search(r"\| arm +\| R_E verifier +\| R_E judge +\| sentences", text)
    assert re.search(r"\| EEA of +\| happy +\| sad ", text)
    row = re.search(r"\| grpo_erv +((?:\| [-\d.]+ +){7})\|", text.split("EEA of")[1]).group(1)
    assert [cell.strip() for cell in row.split("|")[1:]] == ["0.0", "50.0", *["0.0"] * 5]


def test_several_seeds_give_mean_and_spread(runs, capsys):
    for seed, faithful in ((1, 4), (2, 2)):
        write_run(runs, "sft", seed, 2, faithful)
    main([str(runs)])
    assert re.search(r"\| sft +\| 3 .*\| 33.3 ± 14.4 \[.*\| 25.0 25.0 50.0 \|", capsys.readouterr().out)


def test_runs_of_one_arm_with_other_settings_are_other_rows(runs):
    write_run(runs, "grpo_erv", 0, 2, 1, {"threshold": 0.2})
    labels = [result.label for result in load([runs])]
    assert labels == ["sft", "grpo", "grpo_erv (reward.threshold=0.1)", "grpo_erv (reward.threshold=0.2)"]


def test_differences_need_the_same_clips(runs):
    write_run(runs, "other", 5, 2, 2)
    by_label = {arm.label: arm for arm in arms(load([runs]))}
    assert difference(by_label["grpo_erv"], by_label["other"], "fcr") is None
    assert difference(by_label["grpo_erv"], by_label["sft"], "fcr").value == pytest.approx(0.25)


def test_without_a_judge_only_what_was_measured_is_shown(tmp_path, capsys):
    write_run(tmp_path, "sft", 0, 2, 2, judge=None)
    write_run(tmp_path, "grpo", 0, 1, 2, judge=None)
    main([str(tmp_path), "--html", str(tmp_path / "page.html")])
    text = capsys.readouterr().out
    assert re.search(r"\| sft .*\| 50.0 \[.*\| - +\| - +\| - +\|", text)
    assert re.search(r"\| grpo - sft +\| \+50.0 \[.*\| - +\|", text)


def test_the_page_holds_everything_and_escapes_what_models_say(tmp_path, capsys):
    write_run(tmp_path, "grpo", 0, 2, 4, text="<script>alert(1)</script> The jaw drops.")
    main([str(tmp_path), "--html", str(tmp_path / "page.html"), "--clips", "3"])
    html = (tmp_path / "page.html").read_text()
    assert "<script>alert(1)</script>" not in html
    assert "&lt;script&gt;alert(1)" in html
    assert html.count('class="clip"') == 3
    assert "Reward of the sampled answers" in html
    assert 'class="emotion gold">sad<' in html
    assert not re.search(r'<(script|link|img|video|iframe)\b[^>]*\b(src|href)="http', html)


def test_clips_are_inside_the_page(tmp_path, corpus):
    folder = write_run(tmp_path, "grpo", 0, 2, 4)
    video = corpus.clips("test")[0].video
    (folder / "clips.jsonl").write_text(json.dumps({"id": "c0", "video": video, "label": "sad"}) + "\n")
    main([str(tmp_path), "--html", str(tmp_path / "page.html")])
    assert '<video src="data:video/mp4;base64,' in (tmp_path / "page.html").read_text()


def test_nothing_to_report_is_said(tmp_path, runs):
    (tmp_path / "empty").mkdir()
    with pytest.raises(SystemExit, match="no evaluated run below"):
        main([str(tmp_path / "empty")])
    with pytest.raises(SystemExit, match="no run of baseline nobody; there are grpo, grpo_erv, sft"):
        main([str(runs), "--baseline", "nobody"])


def test_a_resumed_curve_counts_repeated_steps_once(runs):
    folder = next((runs / "grpo").iterdir())
    (folder / "logs" / "version_1").mkdir()
    (folder / "logs" / "version_1" / "metrics.csv").write_text("train/reward,step\n1.75,1\n2.0,2\n")
    (result,) = load([folder])
    assert result.curve("train/reward") == ([0.0, 1.0, 2.0], [1.0, 1.75, 2.0])


def test_the_report_imports_neither_torch_nor_lightning():
    heavy = "('torch', 'lightning', 'hydra')"
    code = f"import sys, erv.report.__main__, erv.report.page; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
