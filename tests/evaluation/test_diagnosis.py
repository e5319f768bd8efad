"""The diagnosis: every rule on made-up figures, and on curves that real runs logged."""

import json

import numpy as np
import pytest
from commands import ROOT

from erv.evaluation.metrics.diagnosis import EPC_FALL, RULES, diagnose
from erv.evaluation.metrics.learning_curves import Change, read_curves
from erv.taxonomy import DFEW

SOUND = {
    "war": 0.75,
    "eea": 0.62,
    "epc": 0.7,
    "fcr": 0.55,
    "unknown_rate": 0.0,
    "format_rate": 1.0,
    "finished_rate": 1.0,
    "verifier_reward": 0.72,
    "judge_reward": 0.65,
    "sentences_mean": 4.4,
    "distinct_rationales": 0.99,
    "neutral_share": 0.5,
    "per_class": {label: {} for label in DFEW.labels},
    "confusion": (np.eye(7, 8) * 30).tolist(),
}
START = SOUND | {"eea": 0.3, "verifier_reward": 0.4, "judge_reward": 0.38}
STEPS = list(range(12))


def curves(**values):
    names = {
        "reward": "train/reward",
        "eea": "dev/eea",
        "epc": "dev/epc",
        "verifier": "dev/verifier_reward",
        "judge": "dev/judge_reward",
        "length": "train/completions/mean_length",
        "silent": "train/frac_reward_zero_std",
        "neutral": "dev/neutral_share",
    }
    return {names[key]: (STEPS, list(found)) for key, found in values.items()}


def line(first, last, wiggle=0.0):
    return np.linspace(first, last, 12) + wiggle * (-1) ** np.arange(12)


def fired(figures=SOUND, start=START, **values):
    return [d.rule for d in diagnose(figures, curves(**values), start)]


def test_a_sound_run_is_left_alone():
    steady = {
        "reward": line(2.0, 2.5),
        "eea": line(0.4, 0.6),
        "epc": line(0.5, 0.7),
        "verifier": line(0.4, 0.72),
        "judge": line(0.4, 0.66),
        "length": line(45, 43),
        "silent": line(0, 0.05),
        "neutral": line(0.5, 0.48),
    }
    assert fired(**steady) == []
    assert diagnose({}) == []  # nothing was measured, so nothing is said


@pytest.mark.parametrize(
    ("rule", "figures"),
    [
        ("unexplained_answers", {"eea": 0.5}),
        ("unused_explanations", {"eea": 0.86}),
        ("reward_gaming", {"verifier_reward": 0.9}),
        ("length_collapse", {"sentences_mean": 2.0}),
        ("same_rationales", {"distinct_rationales": 0.5}),
        ("neutral_avoidance", {"neutral_share": 0.1}),
        ("off_form", {"unknown_rate": 0.1}),
        ("off_form", {"format_rate": 0.9}),
    ],
)
def test_figures_alone(rule, figures):
    (found,) = diagnose(SOUND | figures, None, START)
    assert found.rule == rule
    assert set(figures.values()) & set(found.figures.values())  # it says what it fired on
    assert found.advice
    assert found.finding


@pytest.mark.parametrize(
    ("rule", "values"),
    [
        ("epc_falls", {"epc": line(0.7, 0.55)}),
        ("reward_gaming", {"verifier": line(0.5, 0.9), "judge": line(0.5, 0.6)}),
        ("reward_gaming", {"reward": line(2, 2.6), "eea": line(0.6, 0.55)}),
        ("length_collapse", {"length": line(45, 25)}),
        ("zero_variance_groups", {"silent": line(0, 0.8)}),
        ("neutral_avoidance", {"neutral": line(0.5, 0.05)}),
    ],
)
def test_curves_alone(rule, values):
    assert fired({}, {}, **values) == [rule]


def test_what_noise_does_is_no_finding():
    """The same changes between thirds, in curves that jump as far from point to point."""
    assert fired({}, {}, epc=line(0.7, 0.62, 0.1)) == []
    assert fired({}, {}, verifier=line(0.6, 0.85, 0.3), judge=line(0.6, 0.65, 0.3)) == []
    assert fired({}, {}, reward=line(2.0, 2.1, 0.5), eea=line(0.6, 0.55)) == []
    rng = np.random.default_rng(0)
    noisy = [fired({}, {}, epc=0.6 + 0.05 * rng.standard_normal(12)) for _ in range(300)]
    assert sum(map(bool, noisy)) <= 15  # steady curves of 100 dev clips: rarely


def test_short_curves_say_nothing():
    assert Change.of(([0, 1, 2], [0.9, 0.5, 0.1])) is None
    assert diagnose({}, {"dev/epc": ([0, 1, 2], [0.9, 0.5, 0.1])}) == []
    assert Change.of((STEPS, [0.5] * 12)).error == 0
    assert not Change(0.5, 0.5, 0.5 + EPC_FALL / 2, 0).rises(EPC_FALL)


def test_a_verifier_that_was_generous_from_the_start_is_no_gaming():
    generous = START | {"verifier_reward": 0.6, "judge_reward": 0.4}
    assert "reward_gaming" not in fired(SOUND | {"verifier_reward": 0.9, "judge_reward": 0.65}, generous)


def test_neutral_answers_that_vanish():
    table = np.eye(7, 8) * 30
    table[2] = [12, 12, 3, 3, 0, 0, 0, 0]
    (found,) = diagnose(SOUND | {"confusion": table.tolist()}, None, START)
    assert found.rule == "neutral_avoidance"
    assert found.figures == {"clips answered neutral": 3 / 210, "clips that are neutral": 30 / 210}
    table[2] = [1, 1, 1, 0, 0, 0, 0, 0]  # too few to tell
    assert diagnose(SOUND | {"confusion": table.tolist()}, None, START) == []


def test_the_gaming_that_this_project_has_recorded():
    """experiments/gaming, seed 0 without the KL term, for three times the demo's iterations; and the demo itself."""
    recorded = json.loads((ROOT / "tests" / "fixtures" / "curves.json").read_text())
    rules = {name: [d.rule for d in diagnose({}, found)] for name, found in recorded.items()}
    assert rules == {"gamed": ["reward_gaming", "neutral_avoidance", "zero_variance_groups"], "sound": []}
    (gaming,) = (d for d in diagnose({}, recorded["gamed"]) if d.rule == "reward_gaming")
    assert gaming.figures["dev/verifier_reward, last third"] == pytest.approx(0.8725)
    assert gaming.figures["dev/judge_reward, last third"] == pytest.approx(0.6425)


def test_curves_are_read_over_all_starts(tmp_path):
    for version, rows in ((0, "step,a,b\n0,1.0,\n1,2.0,5\n"), (1, "step,a\n1,3.0\n2,4.0\n"), (10, "step,a\n3,5.0\n")):
        (tmp_path / "logs" / f"version_{version}").mkdir(parents=True)
        (tmp_path / "logs" / f"version_{version}" / "metrics.csv").write_text(rows)
    assert read_curves(tmp_path) == {
        "step": ([0, 1, 2, 3], [0, 1, 2, 3]),
        "a": ([0, 1, 2, 3], [1, 3, 4, 5]),
        "b": ([1], [5]),
    }
    assert read_curves(tmp_path / "nothing") == {}


def test_every_rule_was_tried():
    assert len(RULES) == 9
