"""R_format, R_answer, R_E and their sum: by example, by property, and where the released code fails."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from erv.rationale import parse, sentences
from erv.rewards.answer import AnswerReward
from erv.rewards.composite import CompositeReward
from erv.rewards.explanation import ExplanationReward
from erv.rewards.format import FormatReward
from erv.taxonomy import DFEW, GOEMOTIONS, MAFW, of_labels
from erv.types import Clip

LABELS = DFEW.labels


def text_of(think, answer):
    return f"<think>{think}</think>\n<answer>{answer}</answer>"


def one_hot(*labels):
    return np.array([0.9 if label in labels else 0.01 for label in LABELS])


def lexicon(sentences):
    """A verifier that finds a label where its word stands."""
    return np.stack([one_hot(*[w for w in LABELS if w in s]) for s in sentences])


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
        reward = CompositeReward(DFEW, explanation=ExplanationReward(neutral_filter=neutral_filter), verifier=verifier)
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
        ({"unit": "word"}, "unit is one of sentence, window, document, got 'word'"),
        ({"context": 0}, "at least 1, got 0; set unit=sentence for none"),
        ({"fallback": "neutral"}, "fallback is one of argmax, none, got 'neutral'"),
        (
            {"neutral_filter": "likeliest"},
            "neutral_filter is true, false or one of all, argmax, margin, got 'likeliest'",
        ),
        ({"neutral_filter": 1}, "neutral_filter is true, false or one of all, argmax, margin, got 1"),
        ({"neutral_margin": -0.1}, r"neutral_margin is a difference of probabilities in \[0, 1\], got -0.1; set 0.2"),
        ({"on_neutral_gold": "zero"}, "on_neutral_gold is one of match_all, match_only, skip, got 'zero'"),
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
def test_neutral_sentences_change_nothing_with_the_filter_and_cost_without(found, gold):
    more = [*found, ("neutral",)]
    reward, plain = ExplanationReward(), ExplanationReward(neutral_filter=False)
    assert reward.value(more, gold) == reward.value(found, gold)
    assert plain.value(more, gold) < plain.value(found, gold) or plain.value(found, gold) == 0


@given(
    FOUND.flatmap(lambda found: st.tuples(st.just(found), st.permutations(found))),
    st.sampled_from(LABELS),
    st.booleans(),
)
def test_the_order_of_sentences_changes_nothing(orders, gold, neutral_filter):
    reward = ExplanationReward(neutral_filter=neutral_filter)
    assert reward.value(orders[0], gold) == reward.value(orders[1], gold)


PROBABILITIES = st.lists(st.floats(0, 0.9375, width=32), min_size=7, max_size=7).map(lambda p: np.array(p, np.float32))


@given(PROBABILITIES, st.integers(1, 7))
def test_as_the_threshold_goes_to_one_only_the_fallback_is_left(p, top_k):
    first = ExplanationReward(threshold=1.0, top_k=top_k).emotions(p, LABELS)
    assert len(first) == 1
    assert p[LABELS.index(first[0])] == p.max()
    assert ExplanationReward(threshold=1.0, top_k=top_k, fallback="none").emotions(p, LABELS) == ()


@given(PROBABILITIES, st.floats(0, 1), st.floats(0, 1))
def test_a_higher_threshold_never_finds_more(p, one, other):
    low, high = sorted((one, other))
    found = [ExplanationReward(threshold=t, top_k=7, fallback="none").emotions(p, LABELS) for t in (low, high)]
    assert set(found[1]) <= set(found[0])


def explained(rows, gold, **settings):
    """R_E of a rationale of one sentence for each row of probabilities, as the total reward reads it."""
    reward = CompositeReward(DFEW, explanation=ExplanationReward(**settings), verifier=lambda found: np.array(rows))
    (parts,) = reward([text_of(" ".join("He stands." for _ in rows), gold)], [gold])
    return parts.parts["explanation"]


@pytest.mark.parametrize(
    ("settings", "value"),
    [
        ({"neutral_filter": False}, 2 / 4),
        ({"neutral_filter": True}, 2 / 3),
        ({"neutral_filter": "all"}, 2 / 3),
        ({"neutral_filter": "argmax"}, 1 / 1),
        ({"neutral_filter": "margin"}, 2 / 2),
        ({"neutral_filter": "margin", "neutral_margin": 0.7}, 2 / 3),
        ({"neutral_filter": "margin", "neutral_margin": 0.9}, 2 / 4),
    ],
)
def test_which_sentences_the_neutral_filter_leaves_out(settings, value):
    rows = np.zeros((4, 7))
    for row, (neutral, happy, sad) in zip(
        rows, [(0.8, 0, 0), (0.8, 0.3, 0), (0.5, 0, 0.4), (0.1, 0, 0.6)], strict=True
    ):
        row[[LABELS.index(label) for label in ("neutral", "happy", "sad")]] = neutral, happy, sad
    assert explained(rows, "sad", **settings) == pytest.approx(value)


def test_a_sentence_without_an_emotion_is_left_out_where_neutral_is_the_likeliest():
    rows = np.full((2, 7), 0.01)
    rows[0, LABELS.index("neutral")], rows[1, LABELS.index("sad")] = 0.05, 0.9
    values = [explained(rows, "sad", fallback="none", neutral_filter=name) for name in ("all", "argmax", "margin")]
    assert values == [1 / 2, 1.0, 1 / 2]


ROWS = st.lists(
    st.lists(st.sampled_from([0.0, 0.05, 0.25, 0.5, 0.75, 1.0]), min_size=7, max_size=7), min_size=1, max_size=4
)
FILTERS = st.sampled_from([False, True, "all", "argmax", "margin"])
SETTINGS = st.fixed_dictionaries(
    {"neutral_filter": FILTERS, "neutral_margin": st.sampled_from([0.0, 0.2, 0.5, 1.0]), "top_k": st.integers(1, 3),
     "fallback": st.sampled_from(["argmax", "none"])}
)  # fmt: skip


@given(ROWS, SETTINGS)
def test_a_neutral_gold_label_turns_every_filter_off(rows, settings):
    assert explained(rows, "neutral", **settings) == explained(rows, "neutral", **{**settings, "neutral_filter": False})


@given(ROWS, st.sampled_from([label for label in LABELS if label != "neutral"]), SETTINGS)
def test_a_sentence_that_names_the_gold_emotion_first_always_counts(rows, gold, settings):
    part = ExplanationReward(**settings)
    found = [part.sentence("", np.array(row), LABELS) for row in rows]
    first = sum(s.emotions[:1] == (gold,) for s in found)
    value = explained(rows, gold, **settings)
    assert 0 <= value <= 1
    assert value >= first / len(rows)
    assert (value > 0) or not first


@given(ROWS.map(lambda rows: rows[0]), SETTINGS)
def test_the_filters_are_nested(row, settings):
    def left_out(name, margin):
        part = ExplanationReward(**{**settings, "neutral_filter": name, "neutral_margin": margin})
        return part.sentence("", np.array(row), LABELS).filtered

    assert not left_out(False, 0.0)
    assert left_out("all", 0.2) == left_out(True, 0.2)
    assert left_out("argmax", 0.2) >= left_out("all", 0.2)
    assert left_out("argmax", 0.2) == left_out("margin", 0.0)
    assert left_out("margin", 0.0) >= left_out("margin", 0.2) >= left_out("margin", 0.5)


@pytest.mark.parametrize("neutral_filter", [True, "argmax", "margin"])
def test_labels_without_neutral_have_nothing_to_leave_out(neutral_filter):
    labels = of_labels("four", ("anger", "fear", "joy", "sadness"))
    reward = CompositeReward(
        labels,
        explanation=ExplanationReward(neutral_filter=neutral_filter),
        verifier=lambda found: np.array([[0.9, 0, 0, 0], [0, 0, 0, 0.9]]),
    )
    (parts,) = reward([text_of("He shouts. He cries.", "anger")], ["anger"])
    assert parts.parts["explanation"] == 0.5


@pytest.mark.parametrize(
    ("choice", "value"), [("match_all", 2 / 3), ("match_only", 1 / 3), ("skip", None)]
)  # fmt: skip
def test_a_neutral_gold_label(choice, value):
    found = [("neutral",), ("neutral", "sad"), ("sad",)]
    assert ExplanationReward(on_neutral_gold=choice).value(found, "neutral") == value
    assert ExplanationReward(on_neutral_gold=choice).value(found, "sad") == 1.0


@pytest.mark.parametrize(
    ("settings", "asked", "value"),
    [
        ({"unit": "sentence"}, ["A wall.", "He is sad.", "A lamp.", "A door."], 1.0),
        ({"unit": "window"}, ["A wall. He is sad.", "A wall. He is sad. A lamp.", "He is sad. A lamp. A door.",
                              "A lamp. A door."], 1.0),
        ({"unit": "window", "neutral_filter": False}, None, 3 / 4),
        ({"unit": "window", "neutral_filter": False, "context": 2}, None, 1.0),
        ({"unit": "document", "neutral_filter": False}, ["A wall. He is sad. A lamp. A door."], 1.0),
    ],
)  # fmt: skip
def test_what_the_verifier_reads(settings, asked, value):
    seen = []

    def verifier(texts):
        seen.extend(texts)
        return np.stack([one_hot(*([w for w in LABELS if w in t] or ["neutral"])) for t in texts])

    reward = CompositeReward(DFEW, explanation=ExplanationReward(**settings), verifier=verifier)
    (parts,) = reward([text_of("A wall. He is sad. A lamp. A door.", "sad")], ["sad"])
    assert parts.parts["explanation"] == pytest.approx(value)
    assert asked is None or seen == asked


def test_sentences_of_another_language():
    reward = CompositeReward(DFEW, explanation=ExplanationReward(), verifier=lexicon, language="zh")
    (parts,) = reward([text_of("他很sad。他笑了happy！", "sad")], ["sad"])
    assert [s.text for s in parts.sentences] == ["他很sad。", "他笑了happy！"]
    assert parts.parts["explanation"] == 0.5
    with pytest.raises(ValueError, match=r"language is a code of two or three letters.*got 'klingon'"):
        CompositeReward(DFEW, language="klingon")


def goemotions(*names):
    return lambda found: np.array([[0.9 if label in names else 0.01 for label in GOEMOTIONS.labels] for _ in found])


@pytest.mark.parametrize(
    ("gold", "name"), [("happiness", "joy"), ("contempt", "disapproval"), ("helplessness", "grief")]
)
def test_a_verifier_with_labels_of_its_own(gold, name):
    def of(verifier):
        return CompositeReward(
            MAFW, explanation=ExplanationReward(), verifier=verifier, verifier_labels=GOEMOTIONS.labels
        )

    assert of(goemotions(name))([text_of("One.", gold)], [gold])[0].parts["explanation"] == 1.0
    assert of(goemotions("love"))([text_of("One.", gold)], [gold])[0].parts["explanation"] == 0.0


def test_a_verifier_that_lacks_an_emotion_of_the_corpus_is_refused():
    with pytest.raises(ValueError, match="no emotion of the verifier stands for 'contempt'; it knows happy, sad"):
        CompositeReward(MAFW, explanation=ExplanationReward(), verifier=lexicon, verifier_labels=DFEW.labels)


def test_an_unknown_gold_label_is_nobodys_fault(caplog):
    reward = CompositeReward(DFEW, FormatReward(), AnswerReward(), ExplanationReward(), lexicon)
    (parts,) = reward([text_of("He is sad.", "sad")], ["gloomy"])
    assert parts.parts == {"format": 1.0, "answer": None, "explanation": None}
    assert "'gloomy' is not a label of taxonomy 'dfew'" in caplog.text


@pytest.mark.parametrize(
    ("text", "gold", "parts"),
    [
        ("<answer>sad</answer>", "sad", (0, 1, 0)),  # no sentence anywhere: the released code stops
        ("<think>   </think><answer>sad</answer>", "sad", (0, 1, 0)),  # an empty block passed the format
        ("<think>He is sad.</think><think>x</think><answer>sad</answer>", "sad", (0, 1, 1)),  # and so did two
        (text_of("He is sad.", "sad"), "sadness", (1, 1, 1)),  # the gold label was compared as it stands
        (text_of("He is sad.", "\nsad\n"), "sad", (1, 1, 1)),  # an answer on lines of its own was none
        (text_of("He is happy.", "unhappy"), "happy", (1, 0, 1)),  # "unhappy" was happy
        (text_of('He said "Go." Then he is sad.', "sad"), "sad", (1, 1, 0.5)),  # no sentence ended at ."
    ],
)  # fmt: skip
def test_the_released_codes_defects_are_not_here(text, gold, parts):
    reward = CompositeReward(
        DFEW, FormatReward(), AnswerReward(), ExplanationReward(neutral_filter=False), lambda found: np.stack(
            [one_hot(*([w for w in LABELS if w in s] or ["neutral"])) for s in found])
    )  # fmt: skip
    assert tuple(reward([text], [gold])[0].parts.values()) == pytest.approx(parts)


def test_gold_and_answer_go_through_the_same_synonyms():
    texts = [text_of("x", "Happiness."), text_of("x", "happy"), text_of("x", "unhappy"), "no tags"]
    rows = CompositeReward(DFEW, answer=AnswerReward())(texts, ["happy", "joy", "happy", "happy"])
    assert [row.parts["answer"] for row in rows] == [1, 1, 0, 0]


def test_total_is_the_weighted_sum_of_its_parts():
    reward = CompositeReward(DFEW, FormatReward(0.5), AnswerReward(2.0), ExplanationReward(1.0), lexicon)
    good, bad = reward([text_of("He is sad. It is sad.", "sad"), "sad"], ["sad", "sad"])
    assert good.parts == {"format": 1.0, "answer": 1.0, "explanation": 1.0}
    assert (good.total, bad.total) == (3.5, 0.0)
    assert [s.text for s in good.sentences] == sentences("He is sad. It is sad.")


def test_a_reward_of_weight_zero_is_measured_only():
    reward = CompositeReward(DFEW, FormatReward(), AnswerReward(), ExplanationReward(weight=0.0), lexicon)
    (parts,) = reward([text_of("He is sad.", "sad")], ["sad"])
    assert (parts.parts["explanation"], parts.total) == (1.0, 2.0)


def test_the_verifier_is_asked_once_for_a_batch():
    calls = []

    def verifier(found):
        calls.append(list(found))
        return lexicon(found)

    CompositeReward(DFEW, explanation=ExplanationReward(), verifier=verifier)(
        [text_of("One wall. Two lamps.", "sad")] * 3, ["sad"] * 3
    )
    assert [len(call) for call in calls] == [6]


def out_of_memory(found):
    raise RuntimeError("out of memory")


@pytest.mark.parametrize(
    "verifier",
    [out_of_memory, lambda found: np.full((len(found), 7), np.nan), lambda found: np.zeros((len(found) + 1, 7)),
     lambda found: np.zeros((len(found), 6))],
    ids=["raises", "no numbers", "a row too many", "a label too few"],
)  # fmt: skip
def test_a_failing_verifier_costs_its_part_and_nothing_else(verifier, caplog):
    reward = CompositeReward(DFEW, FormatReward(), AnswerReward(), ExplanationReward(), verifier)
    (parts,) = reward([text_of("He is sad.", "sad")], ["sad"])
    assert (parts.parts["explanation"], parts.total) == (None, 2.0)
    assert "the verifier failed on 1 sentences" in caplog.text


def test_explanation_without_a_verifier_is_refused():
    with pytest.raises(ValueError, match=r"reward.explanation needs a verifier"):
        CompositeReward(DFEW, explanation=ExplanationReward())


class Brevity:
    """1 / tokens, or of characters where tokens are not given; keeps what it was called with."""

    def __init__(self, weight=1.0, values=None):
        self.weight, self.values, self.completions = weight, values, []

    def __call__(self, completions):
        self.completions = list(completions)
        return self.values or [1 / (c.tokens or len(c.text)) for c in completions]


def test_a_term_of_ones_own_is_weighted_and_named():
    brevity = Brevity(2.0)
    clip = Clip("a", "a.mp4", "sad", "test")
    reward = CompositeReward(DFEW, answer=AnswerReward(), verifier=lexicon, terms={"brevity": brevity})
    (row,) = reward([text_of("He is sad.", "sad")], ["sad"], [clip], [4])
    assert row.parts == {"answer": 1.0, "brevity": 0.25}
    assert row.total == 1.5
    assert reward.weights == {"answer": 1.0, "brevity": 2.0}
    (completion,) = brevity.completions
    assert (completion.clip, completion.tokens, completion.emotion, completion.correct) == (clip, 4, "sad", True)
    assert [s.emotions for s in completion.sentences] == [("sad",)]
    assert completion.rationale == parse(completion.text)


def test_a_term_that_cannot_be_computed_is_left_out_of_the_total():
    reward = CompositeReward(DFEW, answer=AnswerReward(), terms={"brevity": Brevity(values=[None])})
    (row,) = reward([text_of("x", "sad")], ["sad"])
    assert (row.total, row.parts) == (1.0, {"answer": 1.0, "brevity": None})


@pytest.mark.parametrize(
    ("name", "term", "message"),
    [
        ("answer", Brevity(), "this name is taken by reward.answer"),
        ("brevity", len, "an object with a number `weight`"),
        ("brevity", "text", "an object with a number `weight`"),
    ],
)
def test_what_is_no_term_is_refused(name, term, message):
    with pytest.raises(ValueError, match=message):
        CompositeReward(DFEW, terms={name: term})


@pytest.mark.parametrize(("values", "message"), [([1, 2], "got 2 for 1 completions"), ([np.nan], "got nan")])
def test_values_that_are_no_rewards_are_refused(values, message):
    reward = CompositeReward(DFEW, terms={"brevity": Brevity(values=values)})
    with pytest.raises(ValueError, match=message):
        reward([text_of("x", "sad")], ["sad"])
