"""WAR, UAR, EEA, EPC, FCR, their intervals and tests."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from commands import ROOT
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, recall_score

from erv.evaluation.metrics.answer_table import QUADRANTS, AnswerTable, confusion, label_indices, quadrants
from erv.evaluation.metrics.bootstrap import bootstrap_scores, draw_weights, interval, paired_difference
from erv.evaluation.metrics.running import RunningMetrics
from erv.evaluation.metrics.scores import scores, text_scores, weighted_scores
from erv.evaluation.metrics.summary import MetricSettings, summarise, table_of
from erv.evaluation.metrics.text_stats import Answers
from erv.taxonomy import DFEW
from erv.types import Prediction, Sentence, Verdict

CLASSES = 7
ROWS = st.lists(
    st.tuples(st.integers(0, 6), st.integers(-1, 6), st.integers(-1, 6)), min_size=1, max_size=60
)  # gold, answer, judged


def columns(rows):
    return (np.array(column) for column in zip(*rows, strict=True))


def table(gold, answer, judged, classes=CLASSES, clip=None, **settings):
    return AnswerTable.of(gold, answer, judged, classes, clip, **settings)


@given(ROWS)
def test_the_inequalities_that_always_hold(rows):
    s = scores(table(*columns(rows)))
    assert s["fcr"] <= min(s["war"], s["eea"], s["epc"]) + 1e-12
    assert s["fcr"] >= s["war"] + s["eea"] - 1 - 1e-12
    assert s["fcr"] == pytest.approx(s["war"] - s["right_answer_wrong_reason"])
    assert all(0 <= value <= 1 for value in s.values())


@given(ROWS)
def test_war_and_uar_are_sklearns(rows):
    gold, answer, judged = columns(rows)
    s = scores(table(gold, answer, judged))
    assert s["war"] == pytest.approx(accuracy_score(gold, answer))
    recalls = recall_score(gold, answer, labels=range(CLASSES), average="macro", zero_division=0)
    assert s["uar"] == pytest.approx(recalls)
    assert confusion(gold, answer, CLASSES).sum() == len(rows)


@given(ROWS)
def test_quadrants_are_the_figures(rows):
    study = table(*columns(rows))
    s, q = scores(study), quadrants(study)
    assert tuple(q) == QUADRANTS
    assert sum(q.values()) == pytest.approx(1)
    assert q["right_coherent"] == pytest.approx(s["fcr"])
    assert q["right_incoherent"] == pytest.approx(s["right_answer_wrong_reason"])
    assert q["right_coherent"] + q["wrong_coherent"] == pytest.approx(s["eea"])


@given(ROWS)
def test_uar_in_the_other_codes_ways_is_sklearns(rows):
    """HumanOmni's over the union of labels; the released ERV's on MAFW without the answers it does not know."""
    gold, answer, judged = columns(rows)
    union = recall_score(gold, answer, average=None, zero_division=0).mean()
    named = np.where(answer == -1, CLASSES + 2, answer)  # one answer off the list, whatever its number
    assert scores(table(gold, named, judged, recall_over="union"))["uar"] == pytest.approx(union)
    known = answer != -1
    recalls = [((answer == c) & (gold == c)).sum() / max((known & (gold == c)).sum(), 1) for c in range(CLASSES)]
    assert scores(table(gold, answer, judged, recall_over="labels_without_unknown"))["uar"] == pytest.approx(
        np.mean(recalls)
    )


@given(ROWS, st.integers(0, 60))
def test_running_metrics_add_up_over_batches_and_processes(rows, cut):
    """What two processes have counted, added up as torchmetrics does, gives the figures of all answers."""
    found = [as_prediction(i, *row) for i, row in enumerate(rows)]
    first, second = (RunningMetrics(DFEW, "oracle") for _ in range(2))
    for metric, part in ((first, found[:cut]), (second, found[cut:])):
        for batch in (part[:3], part[3:]):
            if batch:
                metric.update(batch, [0.5] * len(batch))
    whole = RunningMetrics(DFEW, "oracle")
    whole.update(found[:1], [0.5])  # its state is replaced
    whole.joint, whole.sums = first.joint + second.joint, first.sums + second.sums
    figures = whole.compute()
    expected = scores(table_of(found, DFEW, "oracle"))
    assert {name: figures[name] for name in expected} == pytest.approx(expected)
    assert figures["judge_reward"] == pytest.approx(0.5)
    assert figures["format_rate"] == pytest.approx(np.mean([p.well_formed for p in found]))


def test_running_metrics_over_real_processes(tmp_path):
    """Two processes that reduce through torch.distributed, each with a share of the answers."""
    script = tmp_path / "share.py"
    script.write_text(
        "import json, sys, torch.distributed as dist\n"
        "from erv.taxonomy import DFEW\n"
        "from erv.evaluation.metrics.running import RunningMetrics\n"
        "from erv.types import Prediction, Verdict\n"
        "rank = int(sys.argv[1])\n"
        "dist.init_process_group('gloo', init_method=sys.argv[2], rank=rank, world_size=2)\n"
        "metric = RunningMetrics(DFEW, 'o')\n"
        "for i in range(10 + rank):\n"
        "    v = Verdict('o', 'sad' if i % 2 else 'fear', 'ok')\n"
        "    metric.update([Prediction(str(i), 'sad', '', answer='sad' if rank else 'happy', verdicts=(v,))], [float(rank)])\n"
        "print(json.dumps(metric.compute()))\n"
        "dist.destroy_process_group()\n"
    )
    command = [sys.executable, str(script)]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    both = [
        subprocess.Popen([*command, str(r), f"file://{tmp_path}/meet"], env=env, stdout=subprocess.PIPE)
        for r in range(2)
    ]
    figures = [json.loads(process.communicate()[0]) for process in both]
    assert figures[0] == figures[1]
    assert figures[0]["war"] == pytest.approx(11 / 21)
    assert figures[0]["eea"] == pytest.approx(10 / 21)
    assert figures[0]["fcr"] == pytest.approx(5 / 21)
    assert figures[0]["judge_reward"] == pytest.approx(11 / 21)


def as_prediction(number, gold, answer, judged):
    name = [*DFEW.labels, None]
    verdict = Verdict("oracle", name[judged], "ok" if judged >= 0 else "failed")
    return Prediction(
        f"c{number}", name[gold], "", answer=name[answer], verdicts=(verdict,), well_formed=number % 2 == 0
    )


def test_frozen_figures():
    gold, answer, judged = np.array([0, 0, 1, 1, 2]), np.array([0, 1, 1, -1, 2]), np.array([0, 0, 1, 1, 0])
    s = scores(table(gold, answer, judged, 3))
    assert s == pytest.approx(
        {
            "war": 0.6,
            "uar": (0.5 + 0.5 + 1) / 3,
            "eea": 0.8,
            "epc": 0.4,
            "fcr": 0.4,
            "right_answer_wrong_reason": 0.2,
            "unknown_rate": 0.2,
        }
    )


def test_an_unknown_answer_never_agrees_with_an_unread_explanation():
    s = scores(table([0], [-1], [-1], 3))
    assert (s["epc"], s["fcr"], s["unknown_rate"]) == (0, 0, 1)


def test_off_list_labels_are_an_error():
    assert label_indices(["sad", None], DFEW.labels).tolist() == [1, -1]
    with pytest.raises(KeyError):
        label_indices(["gloomy"], DFEW.labels)


def studies(rng, counts, count):
    """`count` simulated test sets with the classes of a benchmark; what each figure is in truth, and a table of each study.

    Recall and coherence differ by class and depend on each other, as they do in a policy.
    """
    classes = len(counts)
    gold = np.repeat(np.arange(classes), counts)
    recall, after_right, after_wrong = (np.linspace(*ends, classes) for ends in ((0.9, 0.3), (0.8, 0.4), (0.2, 0.5)))
    right = rng.random((count, len(gold))) < recall[gold]
    coherent = rng.random((count, len(gold))) < np.where(right, after_right[gold], after_wrong[gold])
    answers, judged = (np.where(yes, gold, (gold + 1) % classes) for yes in (right, coherent))
    share = np.array(counts) / sum(counts)
    truth = {
        "war": share @ recall,
        "uar": recall.mean(),
        "fcr": share @ (recall * after_right),
        "eea": share @ (recall * after_right + (1 - recall) * after_wrong),
    }
    return truth, [table(gold, a, j, classes) for a, j in zip(answers, judged, strict=True)]


def test_intervals_cover_the_truth_as_often_as_they_say():
    """1,000 studies on a test set whose classes are as uneven as DFEW's: 95 % intervals hold the truth in 93 to 97 %."""
    truth, tables = studies(np.random.default_rng(0), [100, 80, 110, 90, 60, 29, 36], 1000)
    covered = dict.fromkeys(truth, 0)
    drawn = draw_weights(tables[0].gold_of_clips, 500, 0)  # they do not depend on what a study found
    for study in tables:
        draws = weighted_scores(study)(drawn)
        for name, value in truth.items():
            low, high = interval(draws[name])
            covered[name] += low <= value <= high
    assert all(930 <= hits <= 970 for hits in covered.values()), covered


def test_plain_intervals_cover_where_the_classes_are_drawn_too():
    rng = np.random.default_rng(1)
    covered = 0
    for trial in range(300):
        gold = rng.choice(3, 300, p=[0.6, 0.3, 0.1])
        right = rng.random(300) < np.array([0.9, 0.5, 0.1])[gold]
        study = table(gold, np.where(right, gold, -1), gold, 3)
        low, high = interval(bootstrap_scores(study, 400, trial, stratified=False)["war"])
        covered += low <= 0.6 * 0.9 + 0.3 * 0.5 + 0.1 * 0.1 <= high
    assert 0.92 <= covered / 300 <= 0.98


def test_draws_within_classes_keep_every_class():
    strata = np.repeat([0, 1, 2], [50, 9, 1])
    drawn = draw_weights(strata, 300, 0)
    for label, size in enumerate((50, 9, 1)):
        assert (drawn[:, strata == label].sum(1) == size).all()
    assert (draw_weights(np.zeros(60, dtype=int), 300, 0)[:, strata == 2].sum(1) == 0).any()


def test_many_clips_are_drawn_in_parts():
    gold = np.arange(40) % 3
    study = table(gold, (gold + 1) % 3, gold, 3)
    draws = bootstrap_scores(study, 1201, 0)
    assert draws["war"].shape == (1201,)
    assert len(np.unique(draws["uar"])) == 1  # every answer is wrong


def test_samples_of_one_clip_are_drawn_together():
    gold, clip = np.zeros(400, dtype=int), np.arange(400) // 4
    answer = clip % 2  # all four samples of a clip agree: 100 clips, not 400 rows
    width = np.ptp(interval(bootstrap_scores(table(gold, answer, answer, 2, clip), 2000, 0)["war"]))
    assert width == pytest.approx(2 * 1.96 * 0.5 / 10, rel=0.15)


def test_resampled_figures_centre_on_the_figures():
    rng = np.random.default_rng(1)
    gold, answer, judged = (rng.integers(low, 7, 900) for low in (0, -1, -1))
    study = table(gold, answer, judged)
    s, draws = scores(study), bootstrap_scores(study, 1000, 0)
    for name, values in draws.items():
        assert values.mean() == pytest.approx(s[name], abs=0.005), name


def test_paired_difference():
    value, (low, high) = paired_difference(np.zeros(400), np.array([0.0, 1.0] * 200))
    assert value == 0.5
    assert (low, high) == pytest.approx((0.451, 0.549), abs=0.01)


def predictions():
    rows = [("a", "sad", "sad", "sad"), ("a", "sad", "happy", "sad"), ("b", "happy", None, "fear")]
    return [
        Prediction(
            clip, gold, "text", sample=i, answer=answer, think=f"{i}", verdicts=(Verdict("oracle", judged, "ok"),)
        )
        for i, (clip, gold, answer, judged) in enumerate(rows)
    ]


def test_summary():
    s = summarise(predictions(), DFEW, "oracle")
    assert (s["war"], s["eea"], s["fcr"], s["unknown_rate"]) == pytest.approx((1 / 3, 2 / 3, 1 / 3, 1 / 3))
    assert s["per_class"]["sad"] == {"recall": 0.5, "eea": 1.0, "count": 2}
    assert s["verdict_status"] == {"ok": 1.0}
    low, high = s["intervals"]["war"]
    assert 0 <= low <= s["war"] <= high <= 1


def test_summary_without_a_judge_leaves_out_what_needs_one():
    s = summarise(predictions(), DFEW, None)
    assert (s["eea"], s["fcr"], s["intervals"]["fcr"]) == (None, None, None)
    assert s["war"] == pytest.approx(1 / 3)


def test_only_an_ok_verdict_has_an_emotion():
    with pytest.raises(ValueError, match="set emotion=None for every other status"):
        Verdict("oracle", "sad", "failed")
    with pytest.raises(ValueError, match="no prediction has a verdict of judge 'gpt'"):
        summarise(predictions(), DFEW, "gpt")


def test_predictions_survive_the_file():
    for p in predictions():
        assert Prediction.from_row(p.row()) == p


def test_humanomnis_way_takes_every_strange_answer_for_a_class():
    """Right on the only gold class; "gloom" and "dread" are two classes more, without a right answer."""
    texts = ["<answer>sad</answer>", "<answer>gloom</answer>", "<answer> gloom </answer>", "<answer>dread</answer>"]
    found = [Prediction(f"c{i}", "sad", t, answer="sad" if "sad" in t else None) for i, t in enumerate(texts)]
    s = summarise(found, DFEW, None, settings=MetricSettings("legacy_humanomni", resamples=10))
    assert s["uar"] == pytest.approx((1 / 4 + 0 + 0) / 3)
    assert s["unknown_rate"] == 0.75
    assert summarise(found, DFEW, None, settings=MetricSettings(resamples=10))["uar"] == pytest.approx(1 / 4 / 7)


def test_bad_settings_are_refused():
    with pytest.raises(ValueError, match=r"metrics\.unknown is one of wrong, legacy_erv, legacy_humanomni, got 'drop'"):
        MetricSettings("drop")
    with pytest.raises(ValueError, match=r"metrics\.resamples is at least 1, got 0"):
        MetricSettings(resamples=0)


def test_several_judges_and_what_they_agree_on():
    marks = [("sad", "sad", "sad"), ("sad", "happy", "sad"), ("happy", "happy", None), ("fear", "fear", "fear")]
    names = ("a", "b", "human")
    found = []
    for i, row in enumerate(marks):
        verdicts = [Verdict(n, e, "ok" if e else "off_list") for n, e in zip(names, row, strict=True)]
        found.append(Prediction(f"c{i}", "sad", "", answer="sad", verdicts=tuple(verdicts[: 3 if i < 3 else 2])))
    s = summarise(found, DFEW, "a", settings=MetricSettings(resamples=50), judges=names)
    assert s["eea"] == s["judges"]["a"]["eea"] == 0.5
    assert s["judges"]["b"]["eea"] == 0.25
    assert (s["judges"]["human"]["answers"], s["judges"]["human"]["eea"]) == (3, pytest.approx(2 / 3))
    assert s["judges"]["human"]["verdict_status"] == {"ok": pytest.approx(2 / 3), "off_list": pytest.approx(1 / 3)}
    pair = s["agreement"][0]
    assert (pair["judges"], pair["percent"]["value"], pair["percent"]["n"]) == (["a", "b"], 0.75, 4)
    assert s["agreement"][1]["percent"] == {"value": 1.0, "interval": pytest.approx([0.342, 1], abs=1e-3), "n": 2}
    assert s["agreement"][1]["kappa"]["value"] is None  # one label only
    assert s["agreement"][3]["judges"] == list(names)


def test_how_rationales_are_written():
    def said(clip, *texts):
        return Prediction(clip, "sad", "", think=" ".join(texts), sentences=tuple(Sentence(t, ("sad",)) for t in texts))

    found = [said("a", "He cries.", "It rains."), said("a", "He cries."), said("b", "he  cries.", "She waits.")]
    s = text_scores(Answers(found, DFEW, taught=["It rains."]), "rationales")
    assert s["sentences_mean"] == pytest.approx(5 / 3)
    assert s["distinct_rationales"] == 1
    assert s["repeated_sentences"] == pytest.approx(
        3 / 5
    )  # in another clip's rationale; twice about one clip is no repetition
    assert s["copy_rate"] == pytest.approx(1 / 5)
    assert text_scores(Answers(found, DFEW), "rationales")["copy_rate"] is None
