"""Which label of one built-in label set stands for a label of another: the whole table, and how it is refused."""

import pytest

from erv.taxonomy import BUILT_IN, DFEW, GOEMOTIONS, MAFW, counterpart

# A row for every label of every set, a column for every set to find it in; - where none stands for it.
TABLE = """
label           dfew       mafw            ravdess    meld       mer        merr            goemotions
happy           happy      happiness       happy      joy        happy      happy           joy
sad             sad        sadness         sad        sadness    sad        sad             sadness
neutral         neutral    neutral         neutral    neutral    neutral    neutral         neutral
angry           angry      anger           angry      anger      angry      angry           anger
surprise        surprise   surprise        surprise   surprise   surprise   surprise        surprise
disgust         disgust    disgust         disgust    disgust    -          -               disgust
fear            fear       fear            fear       fear       -          fear            fear
anger           angry      anger           angry      anger      angry      angry           anger
happiness       happy      happiness       happy      joy        happy      happy           joy
sadness         sad        sadness         sad        sadness    sad        sad             sadness
contempt        -          contempt        -          -          -          contempt        disapproval
anxiety         -          anxiety         -          -          worried    worried         nervousness
helplessness    -          helplessness    -          -          -          -               grief
disappointment  -          disappointment  -          -          -          -               disappointment
calm            -          -               calm       -          -          -               -
joy             happy      happiness       happy      joy        happy      happy           joy
worried         -          anxiety         -          -          worried    worried         nervousness
doubt           -          -               -          -          -          doubt           -
admiration      -          -               -          -          -          -               admiration
amusement       -          -               -          -          -          -               amusement
annoyance       -          -               -          -          -          -               annoyance
approval        -          -               -          -          -          -               approval
caring          -          -               -          -          -          -               caring
confusion       -          -               -          -          -          -               confusion
curiosity       -          -               -          -          -          -               curiosity
desire          -          -               -          -          -          -               desire
disapproval     -          -               -          -          -          -               disapproval
embarrassment   -          -               -          -          -          -               embarrassment
excitement      -          -               -          -          -          -               excitement
gratitude       -          -               -          -          -          -               gratitude
grief           -          -               -          -          -          -               grief
love            -          -               -          -          -          -               love
nervousness     -          -               -          -          -          -               nervousness
optimism        -          -               -          -          -          -               optimism
pride           -          -               -          -          -          -               pride
realization     -          -               -          -          -          -               realization
relief          -          -               -          -          -          -               relief
remorse         -          -               -          -          -          -               remorse
"""
SETS = {taxonomy.name: taxonomy.labels for taxonomy in BUILT_IN}
HEAD, *ROWS = (line.split() for line in TABLE.strip().splitlines())
CELLS = {(row[0], name): cell for row in ROWS for name, cell in zip(HEAD[1:], row[1:], strict=True)}


def counterpart_or_none(label, name):
    try:
        return counterpart(label, SETS[name])
    except ValueError:
        return None


def test_the_table_is_whole():
    assert HEAD[1:] == list(SETS)
    assert [row[0] for row in ROWS] == list(dict.fromkeys(label for labels in SETS.values() for label in labels))


@pytest.mark.parametrize("name", SETS)
def test_every_label_of_every_set(name):
    expected = {label: None if cell == "-" else cell for (label, other), cell in CELLS.items() if other == name}
    assert {label: counterpart_or_none(label, name) for label in expected} == expected


@pytest.mark.parametrize("name", SETS)
def test_labels_of_one_set_have_different_counterparts(name):
    """A reward compares by them, so two labels of a corpus must not have the same."""
    for other in SETS:
        emotions = [emotion for label in SETS[name] if (emotion := counterpart_or_none(label, other)) is not None]
        assert len(set(emotions)) == len(emotions), (name, other)


def test_a_word_for_the_same_emotion_goes_before_another_class():
    assert counterpart("worried", ["anxiety", "nervousness"]) == "anxiety"
    assert counterpart("contempt", ["disapproval", "contemptuous"]) == "contemptuous"


def test_a_refusal_says_what_to_do():
    with pytest.raises(
        ValueError, match=r"stands for 'fear'; it knows happy, sad; use a verifier trained for these labels"
    ):
        counterpart("fear", ["happy", "sad"])
    with pytest.raises(ValueError, match="no emotion of the verifier stands for 'contempt'"):
        counterpart("contempt", DFEW.labels)


def test_the_released_choices_stay():
    """What the released code calls MAFW's labels in GoEmotions, in MAFW's order."""
    assert [counterpart(label, GOEMOTIONS.labels) for label in MAFW.labels] == [
        "anger",
        "disgust",
        "fear",
        "joy",
        "neutral",
        "sadness",
        "surprise",
        "disapproval",
        "nervousness",
        "grief",
        "disappointment",
    ]
