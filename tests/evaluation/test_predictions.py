"""Predictions on disk: appended, cut off in the middle, merged, and read from elsewhere."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from erv.evaluation.predictions import (
    PREDICTIONS_FILE,
    IncompletePredictions,
    PredictionFile,
    key_of,
    make_prediction,
    merge_shards,
    move_aside,
    read_external,
    read_rows,
    shard_file,
    write_predictions,
)
from erv.rewards.legacy import read_lines
from erv.taxonomy import DFEW, MAFW
from erv.types import Sentence, Verdict

TEXT = "<think>She weeps.</think>\n<answer>{}</answer>"


def rows(*clips, answer="sad"):
    return [make_prediction(clip, "sad", TEXT.format(answer), DFEW) for clip in clips]


def test_rows_are_there_when_append_returns_and_a_torn_one_is_cut_off(tmp_path):
    file = PredictionFile(tmp_path / PREDICTIONS_FILE)
    file.append(rows("a", "b"))
    whole = (tmp_path / PREDICTIONS_FILE).read_bytes()
    for cut in (1, 40, len(whole) // 2 - 3):  # killed while it wrote a third row
        (tmp_path / PREDICTIONS_FILE).write_bytes(whole + whole[:cut])
        assert {key[0] for key in read_rows(tmp_path)} == {"a", "b"}
        PredictionFile(tmp_path / PREDICTIONS_FILE).append(rows("c"))
        assert [key[0] for key in read_rows(tmp_path)] == ["a", "b", "c"]
        (tmp_path / PREDICTIONS_FILE).write_bytes(whole)


def test_a_text_with_strange_line_ends_stays_one_row(tmp_path):
    strange = "<think>a\u2028b\u0085c\x0bd\r\ne</think><answer>sad</answer>"
    PredictionFile(tmp_path / PREDICTIONS_FILE).append([make_prediction("a", "sad", strange, DFEW)])
    assert len((tmp_path / PREDICTIONS_FILE).read_text().splitlines()) == 1
    (found,) = read_rows(tmp_path).values()
    assert found.text == strange


def test_shares_are_merged_in_order_and_checked(tmp_path):
    wanted = [(clip, "sampled", 0) for clip in "abcd"]
    PredictionFile(shard_file(tmp_path, (0, 2))).append(rows("c", "a"))
    PredictionFile(shard_file(tmp_path, (1, 2))).append(rows("b"))
    with pytest.raises(IncompletePredictions, match=r"1 answers are missing, first clip d \(sampled, sample 0\)"):
        merge_shards(tmp_path, wanted)
    PredictionFile(shard_file(tmp_path, (1, 2))).append(rows("d"))
    found = merge_shards(tmp_path, wanted)
    assert [p.clip_id for p in found] == list("abcd")
    write_predictions(tmp_path, found)
    assert [f.name for f in tmp_path.iterdir()] == [PREDICTIONS_FILE]
    assert merge_shards(tmp_path, wanted) == found
    with pytest.raises(
        IncompletePredictions, match="1 answers are to clips or samples that are not evaluated here, first clip d"
    ):
        merge_shards(tmp_path, wanted[:3])


def test_a_row_twice_counts_once_and_two_answers_to_one_clip_are_refused(tmp_path, caplog):
    PredictionFile(shard_file(tmp_path, (0, 2))).append(rows("a"))
    PredictionFile(shard_file(tmp_path, (1, 2))).append(rows("a"))
    assert len(merge_shards(tmp_path, [("a", "sampled", 0)])) == 1
    assert "1 rows of" in caplog.text
    PredictionFile(shard_file(tmp_path, (1, 2))).append(rows("a", answer="happy"))
    with pytest.raises(
        IncompletePredictions, match=r"clip a \(sampled, sample 0\) has two different answers, in predictions-"
    ):
        merge_shards(tmp_path, [("a", "sampled", 0)])


def test_rows_of_other_weights_are_kept_aside(tmp_path):
    assert move_aside(tmp_path) is None
    for number in (1, 2):
        PredictionFile(tmp_path / PREDICTIONS_FILE).append(rows("a"))
        assert move_aside(tmp_path) == tmp_path / f"replaced-{number}"
        assert read_rows(tmp_path) == {}
        assert len(read_rows(tmp_path / f"replaced-{number}")) == 1


def write_file(path, content):
    path.write_text(content if isinstance(content, str) else "".join(json.dumps(row) + "\n" for row in content))
    return path


def test_predictions_from_elsewhere(tmp_path):
    gold = {"1": "happy", "2": "sad"}
    file = write_file(
        tmp_path / "a.jsonl",
        [
            {"id": 1, "text": TEXT.format("Happiness")},
            {"id": "2", "text": "no tags"},
            {"id": "7", "text": TEXT.format("anger"), "gold": "Anger", "decoding": "greedy"},
        ],
    )
    found = read_external(file, gold, DFEW)
    assert [(p.clip_id, p.gold, p.answer, p.think) for p in found] == [
        ("1", "happy", "happy", "She weeps."),
        ("2", "sad", None, None),
        ("7", "angry", "angry", "She weeps."),
    ]
    assert [key_of(p)[1:] for p in found] == [("sampled", 0)] * 2 + [("greedy", 0)]
    released = write_file(tmp_path / "a.txt", "1|<think>a\nb</think>\n\n<answer>happy</answer>\n2|sad<|im_end|>\n")
    one, two = read_external(released, gold, DFEW)
    assert (one.think, one.answer, one.well_formed) == ("a b", "happy", True)
    assert (two.text, two.answer) == ("sad<|im_end|>", None)


def test_predictions_of_a_run_keep_what_they_hold(tmp_path):
    (own,) = rows("a")
    row = own.row() | {
        "verdicts": [{"judge": "x", "emotion": "sad", "status": "ok"}],
        "sentences": [{"text": "She weeps.", "emotions": ["sad"]}],
    }
    (found,) = read_external(write_file(tmp_path / "p.jsonl", [row]), {}, DFEW)
    assert found.verdicts == (Verdict("x", "sad", "ok"),)
    assert found.sentences == (Sentence("She weeps.", ("sad",)),)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "a.jsonl",
            [{"id": 1, "text": "x"}, {"name": 1}],
            r"a\.jsonl:2: a row needs 'id' \(or 'clip_id'\) and 'text'; got name",
        ),
        ("a.jsonl", [{"id": 5, "text": "x"}], r"a\.jsonl:1: clip 5 has no gold label; choose the data"),
        ("a.jsonl", [{"id": 5, "text": "x", "gold": "hapy"}], r"'hapy' is not a label of taxonomy 'dfew'"),
        ("a.jsonl", '{"id": 1, "text": "x"}\n[1]\n', r"a\.jsonl:2: a row is an object"),
        ("a.jsonl", '{"id": 1, "te', r"a\.jsonl:1: "),
        ("a.jsonl", '{"id": 1, "gold": "sad", "text": "\\ud800"}\n', r"a\.jsonl:1: .*surrogates"),
        ("a.jsonl", "\n", r"there is no prediction in it"),
        ("a.txt", '{"id": 1}\n', r"no line begins with `digits\|`"),
        ("a.txt", "9|sad\n", r"clip 9 has no gold label"),
    ],
)
def test_what_cannot_be_read_is_said_with_its_row(tmp_path, name, content, message):
    with pytest.raises(ValueError, match=message):
        read_external(write_file(tmp_path / name, content), {"1": "sad"}, DFEW)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(ValueError, match=r"no such file; set predictions to"):
        read_external(tmp_path / "gone.jsonl", {}, MAFW)


@given(st.lists(st.text(alphabet="a|<>\n 1", max_size=12), max_size=6))
def test_released_lines_hold_every_sample_once(texts):
    """Whatever the texts: a sample per id, and none of its words lost, unless a line of it looks like another sample."""
    content = "".join(f"{i + 10}|{text}\n" for i, text in enumerate(texts))
    lines = read_lines(content)
    if not any(row.split("|")[0].isdigit() for text in texts for row in text.splitlines()[1:] if "|" in row):
        assert [line.id for line in lines] == [str(i + 10) for i in range(len(texts))]
        for line, text in zip(lines, texts, strict=True):
            assert line.text.split() == text.split()
