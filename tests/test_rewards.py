"""R_format, R_answer, R_E and their sum, against the released code and by property."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from erv.emotions import DFEW, MAFW
from erv.rationale import parse, sentences
from erv.rewards.answer import AnswerReward
from erv.rewards.explanation import ExplanationReward
from erv.rewards.format import FormatReward
from erv.rewards.total import TotalReward

LABELS = DFEW.labels


def text_of(think, answer):
    return f"<think>{think}</think>\n<answer>{answer}</answer>"


def one_hot(*labels):
    return np.array([0.9 if label in labels else 0.01 for label in LABELS])


def lexicon(sentences):
    """A verifier that finds a label where its word stands."""
    return np.stack([one_hot(*[w for w in LABELS if w in s]) for s in sentences])


def test_the_released_rewards(fixtures):
    golden = json.loads((fixtures / "erv_reward.json").read_text())
    names, reward = golden["goemotions_names"], ExplanationReward(threshold=golden["threshold"])
    table = {s: 1 / (1 + np.exp(-np.array(row["logits"]))) for s, row in golden["classifier_table"].items()}
    checked = 0
    for record in golden["records"]:
        gold = MAFW.normalise(parse(record["solution"]).answer or record["solution"])
        if record["tie_sensitive"] or gold is None or any(s not in table for s in record["sentences"]):
            continue
        found = [reward.emotions(table[s], names) for s in record["sentences"]]
        wanted = names[golden["label_to_index"][gold]]
        assert reward.value(found, wanted) == pytest.approx(record["think_step"], abs=1e-6), record["completion"]
        checked += 1
    assert checked >= 15


@pytest.mark.parametrize(
    ("think", "gold", "filtered", "unfiltered"),
    [
        ("He is happy. A wall. So sad.", "happy", 1 / 2, 1 / 3),
        ("A wall. A lamp.", "happy", 0.0, 0.0),
        ("A wall. He is happy.", "neutral", 1 / 2, 1 / 2),
        ("He is angry. Still angry.", "angry", 1.0, 1.0),
        ("", "angry", 0.0, 0.0),
    ],
)
def test_explanation_reward(think, gold, filtered, unfiltered):
    def verifier(found):
        return np.stack([one_hot(*([w for w in LABELS if w in s] or ["neutral"])) for s in found])

    for neutral_filter, value in ((True, filtered), (False, unfiltered)):
        reward = TotalReward(DFEW, explanation=ExplanationReward(neutral_filter=neutral_filter), verifier=verifier)
        (parts,) = reward([text_of(think, gold)], [gold])
        assert parts.parts["explanation"] == pytest.approx(value)


def test_threshold_top_k_and_fallback():
    p = np.array([0.5, 0.3, 0.2, 0.05, 0, 0, 0])
    assert ExplanationReward().emotions(p, LABELS) == ("happy", "sad")
    assert ExplanationReward(top_k=3).emotions(p, LABELS) == ("happy", "sad", "neutral")
    assert ExplanationReward(threshold=0.4).emotions(p, LABELS) == ("happy",)
    assert ExplanationReward(threshold=0.6).emotions(p, LABELS) == ("happy",)
    assert ExplanationReward(threshold=0.6, fallback="none").emotions(p, LABELS) == ()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"threshold": 1.5}, r"threshold is a probability in \[0, 1\], got 1.5"),
        ({"top_k": 0}, "top_k is how many emotions a sentence may have, at least 1, got 0"),
        ({"unit": "word"}, "unit is sentence or document"),
    ],
)
def test_bad_settings_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        ExplanationReward(**arguments)


FOUND = st.lists(st.lists(st.sampled_from(LABELS), min_size=1, max_size=2, unique=True).map(tuple), max_size=6)


@given(FOUND, st.sampled_from(LABELS))
def test_explanation_reward_is_a_share(found, gold):
    filtered, plain = ExplanationReward().value(found, gold), ExplanationReward(neutral_filter=False).value(found, gold)
    assert 0 <= plain <= filtered <= 1
    assert (filtered > 0) == any(gold in emotions for emotions in found)
    assert ExplanationReward().value([*found, (gold,)], gold) >= filtered


@given(FOUND, st.sampled_from([label for label in LABELS if label != "neutral"]))
def test_neutral_sentences_change_nothing_with_the_filter(found, gold):
    reward = ExplanationReward()
    assert reward.value([*found, ("neutral",)], gold) == reward.value(found, gold)


def test_gold_and_answer_go_through_the_same_synonyms():
    reward = AnswerReward()
    assert reward.value(parse(text_of("x", "Happiness.")), "happy", DFEW) == 1
    assert reward.value(parse(text_of("x", "happy")), "joy", DFEW) == 1
    assert reward.value(parse(text_of("x", "unhappy")), "happy", DFEW) == 0
    assert reward.value(parse("no tags"), "happy", DFEW) == 0


def test_total_is_the_weighted_sum_of_its_parts():
    reward = TotalReward(DFEW, FormatReward(0.5), AnswerReward(2.0), ExplanationReward(1.0), lexicon)
    good, bad = reward([text_of("He is sad. It is sad.", "sad"), "sad"], ["sad", "sad"])
    assert good.parts == {"format": 1.0, "answer": 1.0, "explanation": 1.0}
    assert (good.total, bad.total) == (3.5, 0.0)
    assert [s.text for s in good.sentences] == sentences("He is sad. It is sad.")


def test_a_reward_of_weight_zero_is_measured_only():
    reward = TotalReward(DFEW, FormatReward(), AnswerReward(), ExplanationReward(weight=0.0), lexicon)
    (parts,) = reward([text_of("He is sad.", "sad")], ["sad"])
    assert (parts.parts["explanation"], parts.total) == (1.0, 2.0)


def test_the_verifier_is_asked_once_for_a_batch():
    calls = []

    def verifier(found):
        calls.append(list(found))
        return lexicon(found)

    TotalReward(DFEW, explanation=ExplanationReward(), verifier=verifier)(
        [text_of("One wall. Two lamps.", "sad")] * 3, ["sad"] * 3
    )
    assert [len(call) for call in calls] == [6]


def test_a_failing_verifier_costs_its_part_and_nothing_else(caplog):
    def verifier(found):
        raise RuntimeError("out of memory")

    reward = TotalReward(DFEW, FormatReward(), AnswerReward(), ExplanationReward(), verifier)
    (parts,) = reward([text_of("He is sad.", "sad")], ["sad"])
    assert (parts.parts["explanation"], parts.total) == (None, 2.0)
    assert "the verifier failed on 1 sentences" in caplog.text


def test_explanation_without_a_verifier_is_refused():
    with pytest.raises(ValueError, match=r"reward.explanation needs a verifier"):
        TotalReward(DFEW, explanation=ExplanationReward())
