"""Which label of one built-in label set stands for a label of another: the whole table, and how it is refused."""

import pytest

from erv.taxonomy import BUILT_IN, COARSER, DFEW, GOEMOTIONS, MAFW, counterpart

# A row for every label of every set, a column for every set to find it in. ~ is for a coarser emotion, which has to be asked
# for; - for none at all.
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
contempt        ~disgust   contempt        ~disgust   ~disgust   -          contempt        disapproval
anxiety         ~fear      anxiety         ~fear      ~fear      worried    worried         nervousness
helplessness    ~sad       helplessness    ~sad       ~sadness   ~sad       ~sad            grief
disappointment  ~sad       disappointment  ~sad       ~sadness   ~sad       ~sad            disappointment
calm            ~neutral   ~neutral        calm       ~neutral   ~neutral   ~neutral        ~neutral
joy             happy      happiness       happy      joy        happy      happy           joy
worried         ~fear      anxiety         ~fear      ~fear      worried    worried         nervousness
doubt           ~surprise  ~surprise       ~surprise  ~surprise  ~surprise  doubt           ~confusion
admiration      ~happy     ~happiness      ~happy     ~joy       ~happy     ~happy          admiration
amusement       ~happy     ~happiness      ~happy     ~joy       ~happy     ~happy          amusement
annoyance       ~angry     ~anger          ~angry     ~anger     ~angry     ~angry          annoyance
approval        ~happy     ~happiness      ~happy     ~joy       ~happy     ~happy          approval
caring          ~happy     ~happiness      ~happy     ~joy       ~happy     ~happy          caring
confusion       ~surprise  ~surprise       ~surprise  ~surprise  ~surprise  ~surprise       confusion
curiosity       ~surprise  ~surprise       ~surprise  ~surprise  ~surprise  ~surprise       curiosity
desire          ~happy     ~happiness      ~happy     ~joy       ~happy     ~happy          desire
disapproval     ~angry     ~anger          ~angry     ~anger     ~angry     ~angry          disapproval
embarrassment   ~sad       ~sadness        ~sad       ~sadness   ~sad       ~sad            embarrassment
excitement      ~happy     ~happiness      ~happy     ~joy       ~happy     ~happy          excitement
gratitude       ~happy     ~happiness      ~happy     ~joy       ~happy     ~happy          gratitude
grief           ~sad       ~sadness        ~sad       ~sadness   ~sad       ~sad            grief
love            ~happy     ~happiness      ~happy     ~joy       ~happy     ~happy          love
nervousness     ~fear      ~anxiety        ~fear      ~fear      ~worried   ~worried        nervousness
optimism        ~happy     ~happiness      ~happy     ~joy       ~happy     ~happy          optimism
pride           ~happy     ~happiness      ~happy     ~joy       ~happy     ~happy          pride
realization     ~surprise  ~surprise       ~surprise  ~surprise  ~surprise  ~surprise       realization
relief          ~happy     ~happiness      ~happy     ~joy       ~happy     ~happy          relief
remorse         ~sad       ~sadness        ~sad       ~sadness   ~sad       ~sad            remorse
"""
SETS = {taxonomy.name: taxonomy.labels for taxonomy in BUILT_IN}
HEAD, *ROWS = (line.split() for line in TABLE.strip().splitlines())
CELLS = {(row[0], name): cell for row in ROWS for name, cell in zip(HEAD[1:], row[1:], strict=True)}


def found(label, name, coarse):
    try:
        return counterpart(label, SETS[name], coarse=coarse)
    except ValueError:
        return None


def test_the_table_is_whole():
    assert HEAD[1:] == list(SETS)
    assert [row[0] for row in ROWS] == list(dict.fromkeys(label for labels in SETS.values() for label in labels))


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("coarse", [False, True], ids=["exact", "coarse"])
def test_every_label_of_every_set(name, coarse):
    cells = {label: cell for (label, other), cell in CELLS.items() if other == name}
    refused = ("-",) if coarse else ("-", "~")
    wanted = {label: None if cell.startswith(refused) else cell.lstrip("~") for label, cell in cells.items()}
    assert {label: found(label, name, coarse) for label in cells} == wanted


@pytest.mark.parametrize("name", SETS)
def test_labels_of_one_set_have_different_exact_counterparts(name):
    """A reward compares by them, so two labels of a corpus must not have the same."""
    for other in SETS:
        same = [emotion for label in SETS[name] if (emotion := found(label, other, coarse=False)) is not None]
        assert len(set(same)) == len(same), (name, other)


def test_a_word_for_the_same_emotion_goes_before_another_class():
    assert counterpart("worried", ["anxiety", "nervousness"]) == "anxiety"
    assert counterpart("contempt", ["disapproval", "contemptuous"]) == "contemptuous"
    assert counterpart("anxiety", ["fear", "worried"], coarse=True) == "worried"


def test_coarser_emotions_are_known_words():
    assert {other for others in COARSER.values() for other in others} <= {
        label for labels in SETS.values() for label in labels
    }


def test_a_refusal_says_what_to_do():
    with pytest.raises(
        ValueError, match=r"stands for 'fear'; it knows happy, sad; use a verifier trained for these labels"
    ):
        counterpart("fear", ["happy", "sad"], coarse=True)
    with pytest.raises(ValueError, match="no emotion of the verifier stands for 'contempt'"):
        counterpart("contempt", DFEW.labels)


def test_the_released_choices_stay():
    """What the released code calls MAFW's labels in GoEmotions, in MAFW's order."""
    assert [counterpart(label, GOEMOTIONS.labels) for label in MAFW.labels] == [
        "anger", "disgust", "fear", "joy", "neutral", "sadness", "surprise", "disapproval", "nervousness", "grief",
        "disappointment",
    ]  # fmt: skip
