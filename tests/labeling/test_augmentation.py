"""Augmentation through a real endpoint; near-duplicates."""

import json

import pytest
from endpoint import Endpoint, reader

from erv.labeling.augmentation import TextAugmentation
from erv.labeling.dedup import NearDuplicateFilter
from erv.llm import Chat
from erv.taxonomy import MAFW

HAVE = {"anger": 6, "disgust": 2, "contempt": 1}
NOUNS = [
    "table",
    "window",
    "garden",
    "letter",
    "harbour",
    "chimney",
    "violin",
    "ladder",
    "mirror",
    "engine",
    "pillow",
    "curtain",
]


@pytest.fixture
def labelled(tmp_path):
    rows = [
        {"text": f"The {NOUNS[i]} fills the person with {label}.", "labels": [label], "status": "ok", "clip": f"c{i}"}
        for label, n in HAVE.items()
        for i in range(n)
    ]
    rows += [
        {"text": "A person shows disgust off the list.", "labels": [], "status": "off_list"},
        {"text": "A held-out contempt.", "labels": ["contempt"], "status": "ok", "split": "heldout"},
    ]
    file = tmp_path / "labels.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(file)


def writer(request, user):
    """A model that writes one good sentence a call, one twice, one it has seen, and one of another emotion."""
    if "text" in user:
        return reader(MAFW.labels)(request, user)
    emotion, number = user["emotion"], sum(user["variation"].encode()) * 7
    good = f"Before the {NOUNS[number % 12]} and near some {NOUNS[number % 11]} one senses {emotion} number {number}."
    return {
        "sentences": [
            good,
            good.upper(),
            *user["avoid"][:1],
            f"Strangely, {NOUNS[number % 7]} {number} brings only fear.",
        ]
    }


@pytest.fixture
def endpoint():
    made = Endpoint(writer)
    yield made
    made.close()


def chat(endpoint, tmp_path):
    return Chat("m", str(tmp_path / "replies.sqlite"), endpoint.url, key_variable=None, backoff_s=0.01)


def augment(labelled, **settings):
    given = {"target": 5, "classes": ["anger", "disgust", "contempt"], "per_call": 2, **settings}
    return TextAugmentation(labelled, "mafw", **given)


def test_short_classes_are_filled_with_sentences_that_are_new_and_agreed_on(endpoint, labelled, tmp_path):
    asked = chat(endpoint, tmp_path)
    rows, summary = augment(labelled).run(asked)
    assert asked.ledger().calls == sum(endpoint.calls.values())
    assert summary["before"] == HAVE
    assert summary["after"] == {"anger": 6, "disgust": 5, "contempt": 5}
    assert (summary["kept"], summary["short"]) == (7, [])
    assert len({row["text"].lower() for row in rows}) == 7
    for row in rows:
        assert row["labels"][0] == row["written_for"]
        assert (row["status"], row["source"], row["clip"]) == ("ok", "augmented", None)
    assert summary["rejected"]["duplicate"] >= 7
    assert summary["rejected"]["disagreed"] >= 2  # sentences of fear, which the second call did not know the purpose of
    read_again = [
        json.loads(r["messages"][1]["content"]) for r in endpoint.requests if "text" in r["messages"][1]["content"]
    ]
    assert all(set(user) == {"text"} for user in read_again if "emotion" not in user)
    assert not any(user.get("emotion") == "anger" for user in read_again)
    assert [v.split("@")[0] for v in summary["prompts"]] == ["augment-1", "label-1"]


def test_again_costs_nothing_and_gives_the_same(endpoint, labelled, tmp_path):
    first, _ = augment(labelled).run(chat(endpoint, tmp_path))
    calls = sum(endpoint.calls.values())
    second, _ = augment(labelled).run(chat(endpoint, tmp_path))
    assert (first, calls) == (second, sum(endpoint.calls.values()))


def test_a_class_that_stays_short_is_named(endpoint, labelled, tmp_path):
    _, summary = augment(labelled, target=40, rounds=1, classes=["contempt"]).run(chat(endpoint, tmp_path))
    assert summary["short"] == ["contempt"]
    assert 1 < summary["after"]["contempt"] < 40


def test_clips_of_the_existing_texts_are_reported(labelled):
    assert augment(labelled).clips == {f"c{i}" for i in range(6)}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"classes": ["contemp"]}, "'contemp' is not a label of taxonomy 'mafw'.*nearest: contempt"),
        ({"target": 0}, "task.target is at least 1, got 0"),
        ({"prompt": "augment-9"}, "there is no prompt 'augment-9'; set it to one of augment-1, label-1"),
        ({"similarity": 1.5}, r"task.similarity is in \(0, 1\], got 1.5"),
    ],
)
def test_bad_settings_are_refused(settings, message, labelled):
    with pytest.raises(ValueError, match=message):
        augment(labelled, **settings)


@pytest.mark.parametrize(
    ("text", "new"),
    [
        ("The brows draw together, and the jaw is set!", False),
        ("the brows draw together and the jaws are set", False),
        ("The lips part and the eyes are wide.", True),
        ("Brows.", True),
        ("", True),
    ],
)
def test_near_duplicates(text, new):
    assert NearDuplicateFilter(["The brows draw together and the jaw is set."]).add(text) is new


def test_what_was_added_counts_from_then_on():
    texts = NearDuplicateFilter(similarity=0.7)
    assert [texts.add(t) for t in ("She smiles broadly.", "She smiles broadly!", "He weeps.", "he  weeps")] == [
        True,
        False,
    ] * 2
