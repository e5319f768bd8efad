"""A metric takes two edits, its function and its definition: it is then in metrics.json, the console, the tables and the page."""

import json
import re

import pytest
from report_runs import CLIPS, prediction, unpacked, write_run

from erv.evaluation.console import metric_lines
from erv.evaluation.evaluator import compute_metrics
from erv.evaluation.metrics.definitions import METRICS, AnswerShare, Chart, Column, Metric, TextMean, register
from erv.evaluation.metrics.running import RunningMetrics
from erv.evaluation.metrics.summary import MetricSettings
from erv.report.__main__ import main
from erv.taxonomy import DFEW


def explanation_alone_is_right(table):
    return (table.answer != table.gold) & (table.judged == table.gold)


def word_counts(answers):
    return [len((p.think or "").split()) for p in answers.predictions]


WRONG_ANSWER_RIGHT_REASON = Metric(
    "wrong_answer_right_reason",
    AnswerShare(explanation_alone_is_right),
    "the explanation knows better",
    label="WARR",
    higher_is_better=False,
    needs=frozenset({"labels", "judge"}),
    places=frozenset({"console", "results", "validation"}),
    chart=Chart("WARR on dev clips"),
)
WORDS = Metric(
    "words_mean",
    TextMean(word_counts),
    "words of a rationale",
    unit="number",
    places=frozenset({"validation", "run_json"}),
    columns=(Column("words"),),
)


@pytest.fixture(autouse=True)
def _registered():
    for metric in (WRONG_ANSWER_RIGHT_REASON, WORDS):
        register(metric)
    yield
    for metric in (WRONG_ANSWER_RIGHT_REASON, WORDS):
        del METRICS[metric.name]


def answers(right, faithful, judge="oracle"):
    return [prediction(i, right, faithful, judge) for i in range(CLIPS)]


def test_it_is_in_metrics_json_and_on_the_console():
    metrics = compute_metrics(answers(4, 2), DFEW, [], MetricSettings(resamples=50))
    scores = json.loads(json.dumps(metrics))["sampled"]
    assert scores["wrong_answer_right_reason"] == scores["judges"]["oracle"]["wrong_answer_right_reason"] == 0.25
    low, high = scores["intervals"]["wrong_answer_right_reason"]
    assert low < 0.25 < high
    assert scores["words_mean"] == 3
    assert "  WARR 25.0 [" in next(metric_lines(metrics))


def test_it_is_none_without_the_judge_that_it_needs():
    metrics = compute_metrics(answers(4, 2, judge=None), DFEW, [], MetricSettings(resamples=50))
    assert metrics["sampled"]["wrong_answer_right_reason"] is None
    assert "WARR" not in next(metric_lines(metrics))


def test_it_is_measured_while_a_policy_trains():
    for judge in ("oracle", None):
        running = RunningMetrics(DFEW, judge)
        rows = answers(4, 2, judge)
        for batch in (rows[:7], rows[7:]):
            running.update(batch)
        metrics = running.compute()
        assert metrics.get("wrong_answer_right_reason") == (0.25 if judge else None)
        assert metrics["words_mean"] == 3


def test_it_is_in_the_tables_and_on_the_page(tmp_path, capsys):
    write_run(tmp_path, "sft", 0, 2, 2)
    folder = write_run(tmp_path, "grpo", 0, 4, 2)
    (folder / "logs" / "version_0" / "metrics.csv").write_text("step,dev/wrong_answer_right_reason\n0,0.5\n1,0.25\n")
    main([str(tmp_path), "--baseline", "sft", "--html", str(tmp_path / "page.html")])
    text = capsys.readouterr().out
    assert re.match(r"\| arm +\| seeds \| WAR +\| UAR +\| EEA +\| EPC +\| FCR +\| WARR +\|\n", text)
    # 10 of 40 clips more than the baseline, and lower is better
    assert re.search(r"\| grpo +\| 1 +\|.*\| 25.0 ▼ \[[^|]*\] +\|\n", text)
    assert re.search(r"\| grpo - sft +\| 40 +\|.*\| \+25.0 \[[^|]*\|\n", text)
    assert re.search(r"\| row +\| R_E verifier.*\| FCR, greedy +\| words +\|\n.*\n\| sft .*\| 3.0 +\|\n", text)
    html = (tmp_path / "page.html").read_text()
    assert "<li><b>WARR</b> the explanation knows better</li>" in html
    assert '<th scope="col">WARR</th>' in html
    assert '<th scope="col">words</th>' in html
    titles = [chart["title"] for chart in unpacked(html, "data")["curves"]]
    assert titles == ["Reward of the sampled answers", "FCR on dev clips", "WARR on dev clips"]
    main([str(tmp_path), "--json"])
    sft, grpo = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert (sft["wrong_answer_right_reason"], grpo["wrong_answer_right_reason"]) == (0, 0.25)
    assert grpo["runs"][0]["words_mean"] == 3
    main([str(tmp_path), "--csv"])
    assert ",wrong_answer_right_reason_p_holm" in capsys.readouterr().out


def test_runs_that_were_evaluated_before_it_was_there_have_a_dash(tmp_path, capsys):
    folder = write_run(tmp_path, "old", 0, 4, 2)
    metrics = json.loads((folder / "metrics.json").read_text())
    for decoding in ("sampled", "greedy"):
        for scores in (metrics[decoding], metrics[decoding]["intervals"]):
            del scores["wrong_answer_right_reason"]
    (folder / "metrics.json").write_text(json.dumps(metrics))
    for option in ("--html", "--json", "--csv"):
        main([str(tmp_path), option, *([str(tmp_path / "page.html")] if option == "--html" else [])])
    assert re.search(r"\| old +\| 1 .*\| – +\|\n", capsys.readouterr().out)


def test_a_definition_that_cannot_be_shown_is_refused():
    with pytest.raises(ValueError, match="there is a metric 'war' already"):
        register(METRICS["war"])
    with pytest.raises(ValueError, match="has no bootstrap interval, so it cannot be shown in console, results"):
        Metric("x", TextMean(word_counts), "", places=frozenset({"results", "console", "validation"}))
