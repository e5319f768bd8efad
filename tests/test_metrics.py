"""WAR, UAR, EEA, EPC, FCR, their intervals and tests."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, recall_score

from erv.emotions import DFEW
from erv.metrics.intervals import holm, interval, mcnemar, paired_difference, resampled
from erv.metrics.scores import confusion, indices, scores
from erv.metrics.summary import summarise
from erv.records import Prediction, Verdict

CLASSES = 7
ROWS = st.lists(
    st.tuples(st.integers(0, 6), st.integers(-1, 6), st.integers(-1, 6)), min_size=1, max_size=60
)  # gold, answer, judged


def columns(rows):
    return (np.array(column) for column in zip(*rows, strict=True))


@given(ROWS)
def test_the_inequalities_that_always_hold(rows):
    s = scores(*columns(rows), CLASSES)
    assert s["fcr"] <= min(s["war"], s["eea"], s["epc"]) + 1e-12
    assert s["fcr"] >= s["war"] + s["eea"] - 1 - 1e-12
    assert s["fcr"] == pytest.approx(s["war"] - s["right_answer_wrong_reason"])
    assert all(0 <= value <= 1 for value in s.values())


@given(ROWS)
def test_war_and_uar_are_sklearns(rows):
    gold, answer, judged = columns(rows)
    s = scores(gold, answer, judged, CLASSES)
    assert s["war"] == pytest.approx(accuracy_score(gold, answer))
    recalls = recall_score(gold, answer, labels=range(CLASSES), average="macro", zero_division=0)
    assert s["uar"] == pytest.approx(recalls)
    assert confusion(gold, answer, CLASSES).sum() == len(rows)


def test_frozen_figures():
    gold, answer, judged = np.array([0, 0, 1, 1, 2]), np.array([0, 1, 1, -1, 2]), np.array([0, 0, 1, 1, 0])
    s = scores(gold, answer, judged, 3)
    assert s == pytest.approx({
        "war": 0.6, "uar": (0.5 + 0.5 + 1) / 3, "eea": 0.8, "epc": 0.4, "fcr": 0.4, "right_answer_wrong_reason": 0.2,
        "unknown_rate": 0.2,
    })  # fmt: skip


def test_an_unknown_answer_never_agrees_with_an_unread_explanation():
    s = scores(np.array([0]), np.array([-1]), np.array([-1]), 3)
    assert (s["epc"], s["fcr"], s["unknown_rate"]) == (0, 0, 1)


def test_off_list_labels_are_an_error():
    assert indices(["sad", None], DFEW.labels).tolist() == [1, -1]
    with pytest.raises(KeyError):
        indices(["gloomy"], DFEW.labels)


def test_intervals_cover_the_truth_as_often_as_they_say():
    rng = np.random.default_rng(0)
    covered = 0
    for trial in range(200):
        gold = np.zeros(200, dtype=int)
        answer = (rng.random(200) > 0.7).astype(int)  # WAR is 0.7 in truth
        low, high = interval(resampled(gold, answer, answer, np.arange(200), 2, 400, trial)["war"])
        covered += low <= 0.7 <= high
    assert 180 <= covered <= 199


def test_samples_of_one_clip_are_drawn_together():
    gold, clip = np.zeros(400, dtype=int), np.arange(400) // 4
    answer = clip % 2  # all four samples of a clip agree: 100 clips, not 400 rows
    width = np.ptp(interval(resampled(gold, answer, answer, clip, 2, 2000, 0)["war"]))
    assert width == pytest.approx(2 * 1.96 * 0.5 / 10, rel=0.15)


def test_resampled_figures_centre_on_the_figures():
    rng = np.random.default_rng(1)
    gold, answer, judged = (rng.integers(low, 7, 900) for low in (0, -1, -1))
    s, draws = scores(gold, answer, judged, 7), resampled(gold, answer, judged, np.arange(900), 7, 1000, 0)
    for name, values in draws.items():
        assert values.mean() == pytest.approx(s[name], abs=0.005), name


def test_mcnemar_and_holm():
    first, second = [True] * 9 + [False] * 11, [False] * 8 + [True] * 2 + [False] * 10
    assert mcnemar(first, second) == pytest.approx(0.0390625)  # 8 against 1: two-sided binomial
    assert mcnemar([True], [True]) == 1
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])


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
    with pytest.raises(ValueError, match="no verdict of judge 'gpt'"):
        summarise(predictions(), DFEW, "gpt")


def test_predictions_survive_the_file():
    for p in predictions():
        assert Prediction.from_row(p.row()) == p
