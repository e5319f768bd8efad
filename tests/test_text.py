"""Taxonomies, tags and sentences."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from erv.emotions import DFEW, MAFW, taxonomy
from erv.rationale import compose, parse, sentences

WORDS = st.text("abcdefg ,'", min_size=1, max_size=30).filter(str.strip)


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("happy", "happy"), (" Happiness. ", "happy"), ("surprised", "surprise"), ("unhappy", None), ("happy or sad", None),
        ("joy and happiness", "happy"), ("", None), (None, None), ("angry<|im_end|>", "angry"),
    ],
)  # fmt: skip
def test_a_label_is_found_by_whole_words(text, label):
    assert DFEW.normalise(text) == label


def test_an_unknown_label_names_its_neighbours():
    with pytest.raises(ValueError, match=r"'suprise' is not a label of taxonomy 'dfew'.*nearest: .*surprise"):
        DFEW.index("suprise")
    with pytest.raises(ValueError, match=r"unknown taxonomy 'ck'; known: dfew, mafw, ravdess"):
        taxonomy("ck")
    assert (len(DFEW.labels), len(MAFW.labels)) == (7, 11)


@given(WORDS, st.sampled_from(DFEW.labels))
def test_what_is_composed_is_parsed(think, answer):
    found = parse(compose(think, answer))
    assert (found.think, found.answer, found.well_formed) == (think.strip(), answer, True)


@pytest.mark.parametrize(
    "text",
    [
        "<think>a</think>", "<think></think><answer>sad</answer>", "<think>a</think><answer> </answer>",
        "<think>a</think><think>b</think><answer>sad</answer>", "<think>a</think><answer>sad</answer><answer>sad</answer>",
        "x <think>a</think><answer>sad</answer>", "<think>a</think><answer>sad</answer> x",
        "<answer>sad</answer><think>a</think>",
        "<think>a<think>b</think></think><answer>sad</answer>", "",
    ],
)  # fmt: skip
def test_any_other_form_is_not_well_formed(text):
    assert not parse(text).well_formed


def test_an_answer_over_several_lines_is_read():
    found = parse("<think>a\nb</think>\n\n<answer>\nsad\n</answer>\n")
    assert (found.think, found.answer, found.well_formed) == ("a\nb", "sad", True)


@pytest.mark.parametrize(
    ("text", "split"),
    [
        ("One. Two! Three?", ["One.", "Two!", "Three?"]),
        ('He said "Why?!" and left. She stayed.', ['He said "Why?!" and left.', "She stayed."]),
        ('"Stop! Go away!" he cried. Then silence.', ['"Stop! Go away!" he cried.', "Then silence."]),
        ("Is it 3.5 m? Yes", ["Is it 3.5 m?", "Yes"]),
        ("... ", []),
        ("", []),
    ],
)
def test_sentences(text, split):
    assert [s for s in sentences(text) if s != "..."] == split


@given(st.lists(st.sampled_from(["The brows rise.", "A voice is heard!", "Is it red?"]), max_size=6))
def test_no_sentence_is_lost(parts):
    assert sentences(" ".join(parts)) == parts
