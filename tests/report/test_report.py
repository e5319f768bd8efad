"""Tables and pages from run folders; the folders are written as runs write them."""

import csv
import fnmatch
import io
import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace

import pytest
from report_runs import CLIPS, prediction, unpacked, write_run

from erv.config.schema import UNSIGNED
from erv.evaluation.metrics.summary import MetricSettings, summarise
from erv.report.__main__ import main
from erv.report.compare import against
from erv.report.config_diff import _NO_SETTINGS, OF_A_SEED
from erv.report.rows import load, rows_of
from erv.taxonomy import DFEW, MAFW
from erv.types import Verdict


@pytest.fixture
def runs(tmp_path):
    write_run(tmp_path, "sft", 0, 2, 4)
    write_run(tmp_path, "grpo", 0, 2, 4)
    write_run(tmp_path, "grpo_erv", 0, 2, 2)
    return tmp_path


def test_json_is_one_object_per_row_and_line(runs, capsys):
    write_run(runs, "grpo_erv", 1, 2, 4)
    main([str(runs), "--json"])
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(row["arm"], row["seeds"]) for row in rows] == [("sft", [0]), ("grpo", [0]), ("grpo_erv", [0, 1])]
    for row in rows:
        for name in ("war", "uar", "eea", "epc", "fcr"):
            low, high = row["intervals"][name]
            assert 0 <= low <= row[name] <= high <= 1
    assert rows[0] | {"war": 0.5, "eea": 0.25, "fcr": 0.25} == rows[0]
    assert [run["fcr"] for run in rows[2]["runs"]] == [0.5, 0.25]
    assert rows[2]["fcr"] == 0.375
    assert rows[2]["sd"]["fcr"] == pytest.approx(0.1768, abs=1e-4)
    found = rows[2]["against"]["grpo"]["fcr"]
    assert found["difference"] == pytest.approx(0.125)
    assert found["p"] <= found["p_holm"] <= 1


def test_csv_reads_back(runs, capsys):
    main([str(runs), "--csv"])
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [float(row["fcr"]) for row in rows] == [0.25, 0.25, 0.5]
    assert float(rows[0]["war_low"]) < 0.5 < float(rows[0]["war_high"])
    assert [row["baseline"] for row in rows] == ["", "", "grpo"]
    assert float(rows[2]["fcr_difference"]) == 0.25
    assert float(rows[2]["fcr_p"]) == pytest.approx(2 * 0.5**10)  # ten clips more, none fewer


def test_table_shows_rows_and_paired_differences(runs, capsys):
    main([str(runs), "--table", str(runs / "table.md")])
    text = capsys.readouterr().out
    assert (runs / "table.md").read_text() == text
    assert re.search(r"\| grpo_erv +\| 1 +\| 50.0 \[.*\| 50.0 ▲ \[", text)
    assert re.search(
        r"\| grpo_erv - grpo +\| 40 +\| \+0.0 \[\+0.0, \+0.0\] p = 1.000 .*\| \+25.0 \[.*p = .0\d\d +\|\n", text
    )
    assert "exact McNemar, paired bootstrap; corrected by Holm over the 5 tests" in text
    assert "sft - grpo" not in text


def test_a_baseline_can_be_chosen_by_arm_or_by_row(runs, capsys):
    write_run(runs, "grpo_erv", 0, 2, 1, {"threshold": 0.2})
    main([str(runs), "--baseline", "grpo_erv (threshold=0.2)"])
    text = capsys.readouterr().out
    assert "| sft - grpo_erv (threshold=0.2) " in text
    assert "| grpo_erv (threshold=0.1) - grpo_erv (threshold=0.2) " in text
    assert re.search(r"\| sft +\|.* ▼ \[", text)


def test_table_shows_how_rationales_are_written_and_what_the_mean_hides(runs, capsys):
    main([str(runs)])
    text = capsys.readouterr().out
    assert re.search(r"\| row +\| R_E verifier +\| R_E judge +\| sentences", text)
    assert re.search(r"\| EEA of +\| happy +\| sad ", text)
    row = re.search(r"\| grpo_erv +((?:\| [-\d.]+ +){7})\|", text.split("EEA of")[1]).group(1)
    assert [cell.strip() for cell in row.split("|")[1:]] == ["0.0", "50.0", *["0.0"] * 5]


def test_several_seeds_give_mean_and_spread(runs, capsys):
    for seed, faithful in ((1, 4), (2, 2)):
        write_run(runs, "sft", seed, 2, faithful)
    main([str(runs)])
    assert re.search(r"\| sft +\| 3 .*\| 33.3 ± 14.4 \[.*\| 25.0 25.0 50.0 \|", capsys.readouterr().out)


def test_the_keys_that_vary_are_columns(tmp_path, capsys):
    """The grid of two keys and two seeds that users run: tau, filter, mean ± sd."""
    for seed in (0, 1):
        for tau in (0.05, 0.1):
            for neutral in (True, False):
                explanation = {"_target_": "E", "threshold": tau, "neutral_filter": neutral, "weight": 1.0}
                write_run(tmp_path, "grid", seed, 2, 4, {"explanation": explanation})
    main([str(tmp_path)])
    head, _, *rows = capsys.readouterr().out.splitlines()[:6]
    assert re.match(r"\| arm +\| explanation.neutral_filter \| explanation.threshold \| seeds \| WAR ", head)
    cells = [[cell.strip() for cell in row.split("|")[1:5]] for row in rows]
    assert cells == [["grid", flag, tau, "2"] for flag in ("false", "true") for tau in ("0.05", "0.1")]
    assert "50.0 ± 0.0 [" in rows[0]


def test_runs_of_one_arm_with_other_settings_are_other_rows(runs):
    write_run(runs, "grpo_erv", 0, 2, 1, {"threshold": 0.2})
    labels = [result.label for result in load([runs])]
    assert labels == ["sft", "grpo", "grpo_erv (threshold=0.1)", "grpo_erv (threshold=0.2)"]


def test_two_runs_with_one_seed_are_told_apart(tmp_path):
    """The same command evaluated two checkpoints, under two seeds each: four runs, two rows."""
    for model in ("sft", "erv"):
        for seed in (0, 1):
            policy = {"checkpoint": f"runs/demo/{model}/{seed}abc/model"}
            write_run(tmp_path, "evaluate", seed, config={"policy": policy}, stage="evaluate")
    rows = rows_of(load([tmp_path]))
    assert [(row.label, len(row.runs)) for row in rows] == [
        ("evaluate (checkpoint=runs/demo/erv)", 2),
        ("evaluate (checkpoint=runs/demo/sft)", 2),
    ]


def test_answers_made_elsewhere_lack_no_settings(tmp_path, capsys):
    """A file of predictions has no policy, reward or temperature: those are no columns beside a run that has them."""
    own = {"policy": {"checkpoint": "a"}, "evaluation": {"temperature": 0.7}, "predictions": None}
    write_run(tmp_path, "own", 0, config=own, stage="evaluate")
    how = {"evaluation": {"split": "test", "samples": 1, "temperature": None}}
    theirs = {"predictions": "answers.txt", "reward": None}
    write_run(tmp_path, "theirs", 0, config=theirs, stage="evaluate", metrics=how)
    main([str(tmp_path)])
    text = capsys.readouterr().out
    assert re.match(r"\| arm +\| seeds \| WAR", text)
    assert "40 test clips a run, 1 answer each at T = 0.7, explanations" in text
    assert "40 test clips a run, 1 answer each, made elsewhere, explanations" in text


def test_what_is_only_trained_on_is_no_difference_between_stages(tmp_path):
    for stage, limit, fold in (("sft", 1000, 5), ("grpo", None, 5), ("evaluate", None, 4)):
        write_run(tmp_path, stage, 0, config={"data": {"_target_": "D", "limit": limit, "fold": fold}}, stage=stage)
    found = {result.arm: result.settings for result in load([tmp_path])}
    assert found == {"sft": {"data.fold": 5}, "grpo": {"data.fold": 5}, "evaluate": {"data.fold": 4}}
    write_run(tmp_path, "sft", 0, config={"data": {"_target_": "D", "limit": 500, "fold": 5}}, stage="sft")
    assert [r.label for r in load([tmp_path])][:2] == ["sft (limit=500)", "sft (limit=1000)"]


def test_folds_are_averaged_when_asked(tmp_path):
    for fold in (1, 2):
        write_run(tmp_path, "grpo", 0, 2, 2 * fold, config={"data": {"_target_": "D", "fold": fold}})
    assert len(rows_of(load([tmp_path]))) == 2
    (row,) = rows_of(load([tmp_path], ["seed", "data.fold"]))
    assert (row.label, len(row.runs)) == ("grpo", 2)
    for over in (["seed", "data.fold"], ["seed", "data"]):
        (row,) = rows_of(load([tmp_path], over), over)
        assert row.estimate("fcr").value == 0.375  # every second and every fourth
        assert row.estimate("fcr").sd == pytest.approx(0.1768, abs=1e-4)


def differences(folder, baseline):
    rows = rows_of(load([folder]))
    (base,) = (row for row in rows if row.label == baseline)
    return {compared.row.label: compared for compared in against(base, rows).rows}


def test_differences_are_on_the_clips_that_both_answered(runs):
    rows = [prediction(i, 2, 2, gold="fear") for i in range(CLIPS)]
    write_run(runs, "other", 0, rows=rows)  # the same ids, other clips
    write_run(runs, "few", 5, rows=[prediction(i, 1, 2) for i in range(10)])
    found = differences(runs, "sft")
    assert set(found) == {"grpo", "grpo_erv", "few"}
    assert found["grpo_erv"].differences["fcr"].value == pytest.approx(0.25)
    assert (found["few"].clips, found["few"].differences["war"].value) == (10, 0.5)


def test_seeds_on_the_same_clips_are_answers_to_the_same_clips(tmp_path):
    for seed in (0, 1, 2):
        write_run(tmp_path, "a", seed, 2, 4)
        write_run(tmp_path, "b", seed, 2, 2)
    found = differences(tmp_path, "a")["b"]
    assert found.clips == CLIPS
    assert found.differences["fcr"].p == pytest.approx(2 * 0.5**10)  # three times the same answers are no more evidence


def test_two_judges_are_two_scales(tmp_path):
    write_run(tmp_path, "a", 0, judge="gpt")
    write_run(tmp_path, "b", 0, judge="gemini")
    assert set(differences(tmp_path, "a")["b"].differences) == {"war", "uar"}


def test_answers_that_a_person_did_not_see_are_not_counted(tmp_path):
    """A human judge reads every second answer: quadrants and confusion are of those, and differences lack what needs him."""
    rows = [prediction(i, 2, 4, "human" if i % 2 else None) for i in range(CLIPS)]
    write_run(tmp_path, "a", 0, rows=rows, judge="human")
    write_run(tmp_path, "b", 0, rows=rows, judge="human")
    assert set(differences(tmp_path, "a")["b"].differences) == {"war", "uar"}
    main([str(tmp_path), "--html", str(tmp_path / "page.html")])
    confusion = unpacked((tmp_path / "page.html").read_text(), "data")["runs"][0]["confusion"]
    assert sum(map(sum, confusion["answer"])) == CLIPS
    assert sum(map(sum, confusion["explanation"])) == CLIPS // 2


def test_several_judges_stand_beside_each_other(tmp_path):
    rows = [prediction(i, 2, 2, "gpt") for i in range(CLIPS)]
    rows = [replace(p, verdicts=(*p.verdicts, Verdict("gemini", "sad", "ok"))) for p in rows]
    figures = summarise(rows, DFEW, "gpt", settings=MetricSettings(resamples=100), judges=("gpt", "gemini"))
    known = {"gpt": {"kind": "api", "model": "gpt-4.1-mini-2025-04-14", "prompt": "judge-1"}, "gemini": {"kind": "api"}}
    write_run(tmp_path, "a", 0, rows=rows, judge="gpt", metrics={"sampled": figures, "judges": known})
    main([str(tmp_path), "--html", str(tmp_path / "page.html")])
    html = (tmp_path / "page.html").read_text()
    assert re.search(r"<th[^>]*>a, seed 0</th><td>gemini</td><td>40</td><td>100.0 \[100.0, 100.0\]</td>", html)
    assert "<td>gpt · gemini</td><td>0.50 [0." in html
    assert "gpt (api, gpt-4.1-mini-2025-04-14, judge-1); gemini (api)" in html


def test_an_agreement_that_is_not_defined_is_a_dash(tmp_path):
    """Kappa of two judges that give every explanation the same label."""
    rows = [prediction(i, 2, 1, "gpt") for i in range(CLIPS)]
    rows = [replace(p, verdicts=(*p.verdicts, Verdict("gemini", "sad", "ok"))) for p in rows]
    figures = summarise(rows, DFEW, "gpt", settings=MetricSettings(resamples=100), judges=("gpt", "gemini"))
    write_run(tmp_path, "a", 0, rows=rows, judge="gpt", metrics={"sampled": figures})
    main([str(tmp_path), "--html", str(tmp_path / "page.html")])
    html = (tmp_path / "page.html").read_text()
    assert "<td>gpt · gemini</td><td>1.00 [0.91, 1.00], n = 40</td><td>–</td><td>–</td>" in html


def test_without_a_judge_only_what_was_measured_is_shown(tmp_path, capsys):
    write_run(tmp_path, "sft", 0, 2, 2, judge=None)
    write_run(tmp_path, "grpo", 0, 1, 2, judge=None)
    main([str(tmp_path), "--baseline", "sft"])
    text = capsys.readouterr().out
    assert re.search(r"\| sft .*\| 50.0 \[.*\| – +\| – +\| – +\|", text)
    assert re.search(r"\| grpo - sft +\| 40 +\| \+50.0 \[.*\| – +\|", text)


def test_other_label_sets_stand_side_by_side(tmp_path, capsys):
    write_run(tmp_path, "grpo", 0, config={"data": {"_target_": "erv.data.DFEW"}})
    rows = [prediction(i, 2, 2, gold="contempt", answer="contempt") for i in range(CLIPS)]
    mafw = {"data": {"_target_": "erv.data.MAFW"}}
    write_run(tmp_path, "grpo", 0, rows=rows, labels=MAFW, config=mafw)
    main([str(tmp_path), "--html", str(tmp_path / "page.html")])
    text = capsys.readouterr().out
    assert [line.split("|")[2].strip() for line in text.splitlines()[2:4]] == ["DFEW", "MAFW"]
    assert text.count("| EEA of") == 2
    assert "difference" not in text


def test_unfinished_runs_are_named(runs, capsys):
    folder = next((runs / "grpo").iterdir())
    (folder / "metrics.json").unlink()
    main([str(runs), "--html", str(runs / "page.html")])
    assert f"Unfinished, not in the tables:\n- {folder}\n" in capsys.readouterr().out
    assert "80 answers so far" in (runs / "page.html").read_text()
    main([str(runs), "--csv"])
    assert f"unfinished, left out: {folder}" in capsys.readouterr().err
    with pytest.raises(SystemExit, match=f"unfinished: {folder}"):
        main([str(folder)])


@pytest.mark.parametrize("name", ["metrics.json", "config.yaml"])
@pytest.mark.parametrize("content", [b"", b"{", b"\x00\xff", b"[1]", b'{"a":' * 70 + b"1" + b"}" * 70])
def test_a_run_with_a_damaged_file_is_left_out_and_named(runs, capsys, caplog, name, content):
    damaged, *_ = sorted((runs / "grpo").iterdir())
    (damaged / name).write_bytes(content)
    main([str(runs)])
    assert f"left out: {damaged / name}: " in caplog.text
    assert "| sft" in capsys.readouterr().out


def test_the_page_holds_everything_and_escapes_what_models_say(tmp_path, capsys):
    hostile = "<script>alert(1)</script> The jaw drops."
    write_run(tmp_path, "grpo", 0, 2, 4, text=hostile)
    main([str(tmp_path), "--html", str(tmp_path / "page.html"), "--clips", "3"])
    html = (tmp_path / "page.html").read_text()
    assert "alert(1)" not in html
    assert len(unpacked(html, "data")["clips"]) == 3
    answers = unpacked(html, "run-0")
    assert len(answers) == 6
    assert answers[0]["sentences"] == [[hostile, ["sad", "fear"]]]
    assert [curve["metric"] for curve in unpacked(html, "data")["curves"]] == ["train/reward", "dev/fcr"]
    assert not re.search(r'<(script|link|img|video|iframe)\b[^>]*\b(src|href)="http', html)


def test_clips_are_played_from_where_they_lie_or_are_inside_the_page(tmp_path, corpus):
    video = corpus.clips("test")[0].video
    write_run(tmp_path, "grpo", 0, 2, 4, videos={"c0": video})
    page = tmp_path / "pages" / "page.html"
    main([str(tmp_path), "--html", str(page)])
    clips = unpacked(page.read_text(), "data")["clips"]
    assert (page.parent / clips[0]["source"]).resolve().samefile(video)
    assert (clips[1]["source"], clips[1]["file"]) == (None, "gone.mp4")
    main([str(tmp_path), "--html", str(page), "--embed"])
    assert unpacked(page.read_text(), "data")["clips"][0]["source"].startswith("data:video/mp4;base64,")


def test_numbers_that_are_none_do_not_break_the_page(tmp_path):
    rows = [prediction(i, 2, 4, rewards={"total": float("nan"), "explanation": None}) for i in range(CLIPS)]
    folder = write_run(tmp_path, "grpo", 0, rows=rows)
    (folder / "logs" / "version_0" / "metrics.csv").write_text("step,train/kl\n0,nan\n1,0.5\n2,inf\n")
    main([str(tmp_path), "--html", str(tmp_path / "page.html")])
    data = unpacked((tmp_path / "page.html").read_text(), "data")
    assert data["curves"][0]["lines"][0]["y"] == [0.5]


def test_half_a_surrogate_pair_is_no_error(tmp_path):
    folder = write_run(tmp_path, "grpo", 0)
    rows = (folder / "predictions.jsonl").read_text().replace("The jaw", "\\ud83d jaw")
    (folder / "predictions.jsonl").write_text(rows)
    main([str(tmp_path), "--html", str(tmp_path / "page.html")])
    answers = unpacked((tmp_path / "page.html").read_text(), "run-0")
    assert answers[0]["sentences"][0][0] == "\ud83d jaw drops."


def test_nothing_to_report_is_said(tmp_path, runs):
    (tmp_path / "empty").mkdir()
    with pytest.raises(SystemExit, match="no evaluated run below"):
        main([str(tmp_path / "empty")])
    with pytest.raises(SystemExit, match=r"there is no .*nowhere"):
        main([str(tmp_path / "nowhere")])
    with pytest.raises(SystemExit, match="no run of baseline nobody; there are grpo, grpo_erv, sft"):
        main([str(runs), "--baseline", "nobody"])


def test_a_resumed_curve_counts_repeated_steps_once(runs):
    folder = next((runs / "grpo").iterdir())
    (folder / "logs" / "version_1").mkdir()
    (folder / "logs" / "version_1" / "metrics.csv").write_text("train/reward,step\n1.75,1\n2.0,2\n")
    (result,) = load([folder])
    assert result.curves["train/reward"] == ([0.0, 1.0, 2.0], [1.0, 1.75, 2.0])


def test_an_evaluated_checkpoint_has_the_curves_of_its_training(tmp_path):
    trained = write_run(tmp_path / "trained", "grpo", 0)
    folder = write_run(tmp_path, "evaluate", 0, config={"policy": {"checkpoint": str(trained / "model")}})
    shutil.rmtree(folder / "logs")
    (result,) = load([folder])
    assert result.curves["dev/fcr"] == ([1.0], [0.3])


def test_the_report_imports_neither_torch_nor_lightning():
    for modules, heavy in (
        ("__main__", ["numpy", "jinja2", "plotly"]),
        ("__main__, erv.report.page", ["torch", "lightning", "hydra"]),
    ):
        code = f"import sys, erv.report.{modules}; print([m for m in {heavy} if m in sys.modules])"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == "[]"


def test_no_column_is_made_of_a_key_that_changes_nothing():
    """The report may not import the list from the config, so it has its own."""
    of_labels = {"data", "llm.*", "mode", "results", "max_failed", "task.input", "predictions", "paths"}
    for key in UNSIGNED:
        known = any(fnmatch.fnmatchcase(key, pattern) for pattern in (*_NO_SETTINGS, *OF_A_SEED, *of_labels))
        assert known, f"{key} is not signed: add it to _NO_SETTINGS in erv/report/config_diff.py"
