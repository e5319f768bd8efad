"""The released code's counts on its own prediction files: metrics_*.json of the folder ERV_FIXTURES (default tests/fixtures)."""

import json
from dataclasses import replace

import pytest
from conftest import FIXTURES

from erv.evaluation.metrics.answer_table import (
    QUADRANTS,
    UNKNOWN,
    explanation_matches_answer,
    quadrant_of_rows,
    recall_parts,
)
from erv.evaluation.metrics.legacy import compound_counts, legacy_confusion, legacy_counts, legacy_table
from erv.evaluation.metrics.scores import scores
from erv.evaluation.metrics.summary import MetricSettings, summarise
from erv.evaluation.predictions import read_released
from erv.rewards.legacy import read_lines
from erv.taxonomy import DFEW, MAFW

FILES = sorted(FIXTURES.glob("metrics_*.json"))
NAMES = dict(
    zip(("R1-True/GPT-True", "R1-True/GPT-False", "R1-False/GPT-True", "R1-False/GPT-False"), QUADRANTS, strict=True)
)


class Golden:
    """One file with what it was made from."""

    def __init__(self, file):
        self.stored = json.loads(file.read_text())
        self.taxonomy = next(t for t in (DFEW, MAFW) if set(t.labels) == set(self.stored["emotion_dict"]))
        self.label_of = {number: label for label, number in self.stored["emotion_dict"].items()}
        self.lines = read_lines(self.stored["prediction_file"])
        self.gold = {id_: self.labels(value)[0] for id_, value in self.stored["labels"].items()}
        self.table = legacy_table(self.lines, self.gold, self.stored["judge"], self.taxonomy)
        self.scores = scores(self.table)

    def labels(self, value):
        """The labels of a stored id, list of ids, or text of ids ("1,6")."""
        numbers = value if isinstance(value, list) else str(value).split(",")
        return [self.label_of[int(number)] for number in numbers]


@pytest.fixture(params=FILES, ids=[f.stem for f in FILES])
def golden(request):
    return Golden(request.param)


def test_there_is_a_file():
    assert FILES, f"no metrics_*.json in {FIXTURES}"


def test_lines(golden):
    assert [f"{line.id}|{line.text}" for line in golden.lines] == golden.stored["one_line_per_sample"]


def test_counts(golden):
    stored = golden.stored["count"]
    counts = legacy_counts(golden.lines, golden.table, golden.taxonomy)
    for ours, theirs in (
        ("correct", "correct"),
        ("unknown", "unknown"),
        ("lines", "n_lines"),
        ("unknown_list", "unknown_list"),
        ("per_class", "per_class_[correct,total]"),
    ):
        assert counts[ours] == stored[theirs], theirs
    assert legacy_confusion(golden.table).tolist() == stored["confusion_rows=gt_cols=pred+unknown"]
    totals = recall_parts(replace(golden.table, recall_over="labels"))[1].sum(0).tolist()
    assert dict(zip(golden.taxonomy.labels, totals, strict=True)) == golden.stored["true_class_totals"]


def test_war_and_uar(golden):
    found = golden.scores
    assert 100 * found["war"] == pytest.approx(golden.stored["WAR"], abs=1e-9)
    assert 100 * found["uar"] == pytest.approx(golden.stored["UAR"], abs=1e-9)
    assert (round(100 * found["war"], 3), round(100 * found["uar"], 3)) == (
        golden.stored["WAR_printed"],
        golden.stored["UAR_printed"],
    )
    whole = scores(replace(golden.table, recall_over="labels"))
    assert 100 * whole["uar"] == pytest.approx(golden.stored["UAR_if_all_ground_truth_counted"], abs=1e-9)


def test_explanations(golden):
    stored = golden.stored["compare"]
    for name in ("EEA", "EPC", "FCR"):
        assert 100 * golden.scores[name.lower()] == pytest.approx(stored[name], abs=1e-9), name
    place = quadrant_of_rows(golden.table)
    consistent = explanation_matches_answer(golden.table)
    found = {
        key: [line.id for line, q in zip(golden.lines, place, strict=True) if QUADRANTS[q] == NAMES[key]]
        for key in NAMES
    }
    found["Explanation-Consistency"] = [line.id for line, yes in zip(golden.lines, consistent, strict=True) if yes]
    assert found == stored["ids"]
    assert {key: len(ids) for key, ids in found.items()} == stored["quarter_table"]
    assert stored["total"] == len(golden.lines)
    assert stored["unknown"] == (golden.table.compared == UNKNOWN).sum()


def test_what_the_judge_is_shown(golden):
    shown = {line.id: line.seen_by_judge(golden.taxonomy) for line in golden.lines}
    stored = golden.stored["judge_side_parse"]
    assert shown == {id_: (row["reason"], row["pred_emotion"]) for id_, row in stored.items()}


def test_the_figures_of_metrics_json(golden):
    """The same through the code that evaluation runs, from the prediction file to the figures."""
    predictions = read_released(golden.stored["prediction_file"], golden.gold, golden.taxonomy)
    predictions = [replace(p, verdicts=verdicts(golden, p)) for p in predictions]
    legacy = summarise(predictions, golden.taxonomy, "judge", settings=MetricSettings("legacy_erv", resamples=20))
    for name in ("war", "uar", "eea", "epc", "fcr", "unknown_rate"):
        assert legacy[name] == pytest.approx(golden.scores[name], abs=1e-12), name
    assert legacy["confusion"] == golden.stored["count"]["confusion_rows=gt_cols=pred+unknown"]
    wrong = summarise(predictions, golden.taxonomy, None, settings=MetricSettings("wrong", "released", resamples=20))
    assert 100 * wrong["uar"] == pytest.approx(golden.stored["UAR_if_all_ground_truth_counted"], abs=1e-9)
    assert 100 * wrong["war"] == pytest.approx(golden.stored["WAR"], abs=1e-9)


def verdicts(golden, prediction):
    """The stored reply as a verdict; one that is no label is "off_list", as a judge of ours would say."""
    from erv.rewards.legacy import label
    from erv.types import Verdict

    emotion = label(golden.stored["judge"].get(prediction.clip_id), golden.taxonomy)
    return (Verdict("judge", emotion, "ok" if emotion else "off_list"),)


def compound(golden):
    """(labels of clips, facts by name) that a file keeps under names with "compound" or "multi"."""
    labels, facts = {}, {}

    def walk(node, inside):
        for key, value in node.items():
            within = inside or any(word in key.lower() for word in ("compound", "multi"))
            if within and isinstance(value, dict) and value and all(name.isdigit() for name in value):
                labels.update(value)
            elif isinstance(value, dict):
                walk(value, within)
            elif within:
                facts[key.lower()] = value

    walk(golden.stored, False)
    return labels, facts


def test_several_labels_per_clip(golden):
    """MAFW's compound count, wherever its file keeps it; DFEW's has none."""
    labels, facts = compound(golden)
    gold = {id_: golden.labels(value) for id_, value in {**golden.stored["labels"], **labels}.items()}
    lines = read_lines(facts["prediction_file"]) if "prediction_file" in facts else golden.lines
    found = compound_counts(lines, gold, golden.taxonomy)
    for name, value in facts.items():
        if "war" in name:
            assert value == pytest.approx(100 * found["war"], abs=1e-3 if "printed" in name else 1e-9), name
        for count in ("unknown_list", "unknown", "correct", "lines"):
            if count in name and type(value) is type(found[count]):  # a table may have such a word in its name, too
                assert value == found[count], name
                break
