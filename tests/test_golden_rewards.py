"""The rewards of the released code, record by record, on the numbers in the folder ERV_FIXTURES (default tests/fixtures)."""

import json

import numpy as np
import pytest
import torch
from released import file

from erv.rewards.answer import AnswerReward
from erv.rewards.composite import CompositeReward
from erv.rewards.explanation import ExplanationReward
from erv.rewards.format import FormatReward
from erv.rewards.legacy import released_dfew, released_mafw
from erv.taxonomy import DFEW, GOEMOTIONS, MAFW, Taxonomy, counterpart

GOLDEN = json.loads(file("erv_reward.json").read_text())
RECORDS = GOLDEN["records"]


def table(found):
    """The fixture's classifier: stored logits per sentence, in the precision they were stored in."""
    rows = [GOLDEN["classifier_table"][sentence]["logits"] for sentence in found]
    return torch.tensor(rows, dtype=torch.float32).sigmoid().numpy()


def paper(taxonomy):
    part = ExplanationReward(threshold=GOLDEN["threshold"])
    names = GOLDEN["goemotions_names"]
    return CompositeReward(taxonomy, FormatReward(), AnswerReward(), part, table, names, preset="paper")


def taxonomy_of(video):
    """The released code tells the data set by the clip's path, and normalises nothing on any other."""
    return MAFW if "MAFW" in video else DFEW if "DFEW" in video else Taxonomy("other", MAFW.labels)


@pytest.mark.parametrize("record", RECORDS, ids=[str(i) for i in range(len(RECORDS))])
def test_every_record(record):
    reward = paper(taxonomy_of(record["video"]))
    (found,) = reward([record["completion"]], [record["solution"]])
    assert [s.text for s in found.sentences] == record["sentences"]
    assert found.parts["format"] == record["format"]
    assert found.parts["answer"] == record["accuracy"]
    assert found.parts["explanation"] == pytest.approx(record["think_step"], abs=1e-9)
    assert found.total == pytest.approx(record["format"] + record["accuracy"] + record["think_step"], abs=1e-9)


@pytest.mark.parametrize("taxonomy", [DFEW, MAFW], ids=["dfew", "mafw"])
def test_all_records_of_a_data_set_in_one_call(taxonomy):
    rows = [r for r in RECORDS if taxonomy_of(r["video"]) is taxonomy]
    found = paper(taxonomy)([r["completion"] for r in rows], [r["solution"] for r in rows])
    np.testing.assert_allclose([f.parts["explanation"] for f in found], [r["think_step"] for r in rows], atol=1e-9)


def test_the_normalisation_table():
    for row in GOLDEN["label_normalisation"]:
        assert (released_mafw(row["in"]), released_dfew(row["in"])) == (row["mafw"], row["dfew"]), row["in"]


def test_the_label_map():
    assert tuple(GOLDEN["goemotions_names"]) == GOEMOTIONS.labels
    for label, index in GOLDEN["label_to_index"].items():
        assert counterpart(label, GOEMOTIONS.labels) == GOEMOTIONS.labels[index]


def test_golds_that_stop_the_released_code_are_refused_by_name():
    for gold in GOLDEN["gt_label_errors"]:
        with pytest.raises(ValueError, match=f"got '{gold}'; correct the label, or set reward.preset=fixed"):
            paper(DFEW)(["<think>He is sad.</think><answer>sad</answer>"], [gold])


def test_without_any_sentence_the_released_code_stops_and_this_gives_zero():
    found = paper(DFEW)(["sad", "<answer>sad</answer>"], ["sad", "sad"])
    assert [f.parts["explanation"] for f in found] == [0.0, 0.0]
