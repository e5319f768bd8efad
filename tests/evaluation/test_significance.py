"""Two runs on the same clips, and how far judges agree, against statsmodels, scikit-learn and krippendorff."""

import krippendorff
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score
from statsmodels.stats.contingency_tables import mcnemar as statsmodels_mcnemar
from statsmodels.stats.inter_rater import fleiss_kappa
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

from erv.evaluation.metrics.agreement import cohen_kappa, krippendorff_alpha, percent_agreement, wilson
from erv.evaluation.metrics.answer_table import AnswerTable
from erv.evaluation.metrics.bootstrap import paired_difference
from erv.evaluation.metrics.scores import scores
from erv.evaluation.metrics.significance import average, bootstrap_p, compare, holm, sign_flip, student

PAIRS = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=80)
MARKS = st.lists(st.tuples(st.integers(-1, 4), st.integers(-1, 4)), min_size=2, max_size=60)


def mcnemar(first, second):
    """The exact McNemar test is `sign_flip` with one answer per clip."""
    once = np.ones(len(first), dtype=np.int64)
    return sign_flip(np.asarray(first, dtype=np.int64), once, np.asarray(second, dtype=np.int64), once)


@given(PAIRS)
def test_mcnemar_is_statsmodels(pairs):
    a, b = np.array(pairs).T
    counts = [[(a & b).sum(), (a & ~b).sum()], [(~a & b).sum(), (~a & ~b).sum()]]
    expected = statsmodels_mcnemar(counts, exact=True).pvalue if (a != b).any() else 1.0
    assert mcnemar(a, b) == pytest.approx(min(expected, 1.0))


def test_mcnemar_frozen():
    first, second = [True] * 9 + [False] * 11, [False] * 8 + [True] * 2 + [False] * 10
    assert mcnemar(first, second) == pytest.approx(0.0390625)  # 8 against 1: two-sided binomial
    assert mcnemar([True], [True]) == 1


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2)), min_size=1, max_size=9))
def test_several_answers_a_clip_are_tested_by_every_flip_of_signs(clips):
    """Three answers in one run and two in the other; against the enumeration of all signs."""
    first, second = np.array(clips).T
    steps = 3 * second - 2 * first
    signs = np.array(np.meshgrid(*[[-1, 1]] * len(steps))).reshape(len(steps), -1)
    expected = (np.abs(signs.T @ steps) >= abs(steps.sum())).mean()
    found = sign_flip(first, np.full(len(steps), 3), second, np.full(len(steps), 2))
    assert found == pytest.approx(expected)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_holm_is_statsmodels(p_values):
    assert holm(p_values) == pytest.approx(multipletests(p_values, method="holm")[1])


def test_the_mean_over_seeds_has_students_interval():
    assert student([0.2, 0.3, 0.4]) == pytest.approx(
        [0.3 - 0.24841, 0.3 + 0.24841], abs=1e-5
    )  # 4.30265 * 0.1 / sqrt(3)
    with pytest.raises(ValueError, match="two of them, got 1"):
        student([0.2])


def runs(clips=300, gain=0.0, seed=0, samples=1):
    rng = np.random.default_rng(seed)
    gold = np.repeat(rng.integers(0, 4, clips), samples)
    ids = np.repeat([f"c{i:04d}" for i in range(clips)], samples)
    hard = np.repeat(rng.random(clips), samples)  # what makes a clip hard is the same for both runs
    tables = []
    for shift in (0.0, gain):
        right, coherent = (rng.random(len(gold)) * 0.5 + hard * 0.5 < 0.5 + shift for _ in range(2))
        tables.append(AnswerTable.of(gold, np.where(right, gold, -1), np.where(coherent, gold, -1), 4, ids))
    return tables


def test_a_comparison_is_the_difference_of_the_figures():
    first, second = runs(gain=0.1, samples=2)
    found = compare(first, second)
    one, other = scores(first), scores(second)
    for name, difference in found.items():
        assert difference.value == pytest.approx(other[name] - one[name])
        assert difference.interval[0] <= difference.value <= difference.interval[1]
    assert found["war"].p < 0.05
    assert (found["war"].test, found["uar"].test) == ("exact sign flips of clips", "paired bootstrap")
    assert compare(*runs())["fcr"].test == "exact McNemar"


def test_the_same_run_twice_differs_in_nothing():
    first, _ = runs()
    for difference in compare(first, first, resamples=100).values():
        assert (difference.value, difference.interval, difference.p) == (0, [0, 0], 1)


def test_p_values_are_right_where_nothing_differs():
    """400 pairs of equal runs: about 5 % of the p-values are below 0.05, for the exact tests at most."""
    found = [compare(*runs(120, seed=s), names=("war", "uar", "fcr"), resamples=300) for s in range(400)]
    share = {name: np.mean([f[name].p < 0.05 for f in found]) for name in ("war", "uar", "fcr")}
    assert share["war"] <= 0.065
    assert share["fcr"] <= 0.065
    assert 0.02 <= share["uar"] <= 0.085


def test_pairing_sees_what_two_intervals_do_not():
    first, second = runs(1500, gain=0.03, seed=4)
    paired = np.ptp(compare(first, second)["war"].interval)
    shuffled = AnswerTable.of(second.gold, second.answer, second.judged, 4)
    _, bounds = paired_difference(first.answer == first.gold, shuffled.answer == shuffled.gold)
    assert paired == pytest.approx(np.ptp(bounds), rel=0.2)
    unpaired = 2 * 1.96 * np.sqrt(2 * 0.25 / 1500)
    assert paired < 0.9 * unpaired


def test_other_clips_are_refused():
    first, second = runs(20)
    fewer = AnswerTable.of(
        first.gold[1:], first.answer[1:], first.judged[1:], 4, [first.clip_ids[i] for i in first.clip[1:]]
    )
    with pytest.raises(ValueError, match=r"1 clips are in one run only, first c0000"):
        compare(fewer, second)
    relabelled = AnswerTable.of(
        (first.gold + 1) % 4, first.answer, first.judged, 4, [first.clip_ids[i] for i in first.clip]
    )
    with pytest.raises(ValueError, match="different gold labels for 20 clips"):
        compare(first, relabelled)


def test_bootstrap_p():
    assert bootstrap_p(np.linspace(-1, 1, 1001)) == pytest.approx(1, abs=0.01)
    assert bootstrap_p(np.linspace(0.1, 1, 999)) == 2 / 1000


def test_folds_and_seeds():
    """Two folds by three seeds: the mean over folds of means over seeds, and both spreads."""
    values = {(1, 0): 0.5, (1, 1): 0.6, (1, 2): 0.7, (2, 0): 0.7, (2, 1): 0.8, (2, 2): 0.9}
    found = average(values)
    assert found.mean == pytest.approx(0.7)
    assert found.seed_sd == pytest.approx(0.1)  # of 0.6, 0.7, 0.8
    assert found.fold_sd == pytest.approx(np.std([0.6, 0.8], ddof=1))
    del values[2, 2]  # an unfinished grid: folds still count alike, and seeds are no longer comparable
    assert average(values).mean == pytest.approx((0.6 + 0.75) / 2)
    assert average(values).seed_sd is None
    assert average({(5, 0): 0.4}).fold_sd is None


@given(MARKS)
def test_kappa_is_sklearns(marks):
    a, b = np.array(marks).T
    both = (a >= 0) & (b >= 0)
    found = cohen_kappa(a, b, resamples=20)
    assert found.n == both.sum()
    if len(set(a[both]) | set(b[both])) > 1:
        assert found.value == pytest.approx(cohen_kappa_score(a[both], b[both]))
    else:
        assert found.value is None


@settings(deadline=None)
@given(st.lists(st.lists(st.integers(-1, 4), min_size=3, max_size=3), min_size=3, max_size=40))
def test_alpha_is_krippendorffs(rows):
    ratings = np.array(rows).T
    found = krippendorff_alpha(ratings, resamples=20)
    used = ratings[:, (ratings >= 0).sum(0) > 1]
    labels = set(used[used >= 0].tolist())
    if len(labels) < 2:
        assert found.value is None
        return
    floats = np.where(ratings < 0, np.nan, ratings.astype(float))
    assert found.value == pytest.approx(
        krippendorff.alpha(floats, level_of_measurement="nominal", value_domain=range(5))
    )


def test_alpha_of_many_units_is_close_to_fleiss_kappa():
    rng = np.random.default_rng(0)
    true = rng.integers(0, 5, 4000)
    ratings = np.stack([np.where(rng.random(4000) < 0.7, true, rng.integers(0, 5, 4000)) for _ in range(4)])
    counts = (ratings[:, :, None] == np.arange(5)).sum(0)
    assert krippendorff_alpha(ratings, 10).value == pytest.approx(fleiss_kappa(counts), abs=1e-4)


def test_agreement_intervals():
    """The paper's 26 of 28, whose interval is 77 to 98 %; and coverage of kappa's."""
    found = percent_agreement(np.array([0] * 28), np.array([0] * 26 + [1, 2]))
    assert found.interval == pytest.approx(proportion_confint(26, 28, method="wilson"))
    assert [round(100 * bound) for bound in found.interval] == [77, 98]
    assert wilson(0, 10)[0] == 0
    rng = np.random.default_rng(3)
    covered = 0
    for trial in range(300):
        true = rng.integers(0, 2, 150)
        a, b = (np.where(rng.random(150) < 0.8, true, 1 - true) for _ in range(2))
        low, high = cohen_kappa(a, b, 300, trial).interval
        covered += low <= 2 * (0.8**2 + 0.2**2) - 1 <= high  # chance agreement is 1/2
    assert 0.90 <= covered / 300 <= 0.98


def test_nothing_in_common_is_no_agreement():
    found = percent_agreement(np.array([-1, 2]), np.array([1, -1]))
    assert (found.value, found.interval, found.n) == (None, None, 0)
    assert cohen_kappa(np.array([-1, 2]), np.array([1, -1])).value is None
