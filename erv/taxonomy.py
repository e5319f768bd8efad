"""Emotion taxonomies (label sets), their synonyms, and which label of one stands for a label of another."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

_WORD = re.compile(r"[^\W_]+")

# Words for the same emotion. If a taxonomy has one of them as a label, the others are synonyms of it.
_WORD_FORMS = (
    ("happy", "happiness", "joy", "joyful"),
    ("sad", "sadness", "sorrow", "sorrowful"),
    ("angry", "anger", "angered"),
    ("surprise", "surprised", "astonished", "astonishment"),
    ("disgust", "disgusted"),
    ("fear", "fearful", "afraid", "scared"),
    ("contempt", "contemptuous"),
    ("anxiety", "anxious", "worried", "worry"),
    ("helplessness", "helpless"),
    ("disappointment", "disappointed"),
    ("doubt", "doubtful"),
    ("calm", "calmness"),
)


def _forms_of(label: str) -> tuple[str, ...]:
    """All words for the emotion of `label`, itself included."""
    return next((forms for forms in _WORD_FORMS if label in forms), (label,))


@dataclass(frozen=True)
class Taxonomy:
    """An ordered set of emotion labels.

    Attributes:
        name: Its name in configs and messages.
        labels: The labels in the order of the classes of every tensor `[..., E]`. A label of several emotions joins them with
            "_", as MAFW's compound labels do: anger_disgust.
        synonyms: Other words for the labels: {word: label}.
        neutral: The label for no emotion; it need not be one of `labels`.
    """

    name: str
    labels: tuple[str, ...]
    synonyms: Mapping[str, str] = field(default_factory=dict)
    neutral: str = "neutral"

    def index(self, label: str) -> int:
        """The class index of `label`; ValueError, with the nearest labels, if it is not in the taxonomy."""
        if label not in self.labels:
            raise ValueError(self._unknown_message(label))
        return self.labels.index(label)

    def label_of(self, text: str) -> str:
        """Like `normalise`, but raises ValueError, with the nearest labels, if `text` names no label or several."""
        label = self.normalise(text)
        if label is None:
            raise ValueError(self._unknown_message(text))
        return label

    def normalise(self, text: str | None) -> str | None:
        """Find the one label that `text` names, directly or by a synonym; None if it names none or several.

        Whole words are compared, so that "unhappy" is not happy. A text with several emotions names the compound label of
        exactly these, if there is one.
        """
        if text is None:
            return None
        words = [word.lower() for word in _WORD.findall(text)]
        emotions = [word if word in self.labels else self.synonyms.get(word) for word in words]
        return self._label_by_emotions.get(frozenset(emotion for emotion in emotions if emotion is not None))

    @cached_property
    def _label_by_emotions(self) -> dict[frozenset[str], str]:
        return {frozenset(label.split("_")): label for label in self.labels}

    def _unknown_message(self, text: str) -> str:
        nearest = difflib.get_close_matches(text.lower(), [*self.labels, *self.synonyms], n=3)
        return (
            f"{text!r} is not a label of taxonomy {self.name!r} ({', '.join(self.labels)}); nearest: "
            f"{', '.join(nearest) or 'none'}; correct the label or add it to the synonyms"
        )


def of_labels(name: str, labels: Sequence[str]) -> Taxonomy:
    """Make a taxonomy of `labels`, in their order, with the usual synonyms.

    Raises:
        ValueError: If a label is not made of lower-case words, occurs twice, or is another word for the emotion of another.
    """
    emotions = list(dict.fromkeys(emotion for label in labels for emotion in label.split("_")))
    if invalid := [word for word in emotions if not _WORD.fullmatch(word) or word != word.lower()]:
        raise ValueError(
            f"a label is one word in lower case, or several joined by _; got {', '.join(map(repr, invalid))}"
        )
    synonyms: dict[str, str] = {}
    for emotion in emotions:
        for form in _forms_of(emotion):
            other = synonyms.setdefault(form, emotion)
            if other != emotion:
                raise ValueError(f"labels {other!r} and {emotion!r} are forms of one emotion; keep one of them")
    if len(set(labels)) != len(labels) or not labels:
        raise ValueError(f"labels must be some, each once; got {', '.join(labels) or 'none'}")
    return Taxonomy(name, tuple(labels), {form: emotion for form, emotion in synonyms.items() if form not in labels})


def compound(base: Taxonomy, labels: Iterable[str]) -> Taxonomy:
    """Extend `base` by the compound labels among `labels`.

    Their emotions are put into the order of `base`, and the labels are sorted by the number of emotions, then by these: the
    result does not depend on the order in which a data set's files name them.
    """
    combinations = {tuple(sorted(label.split("_"), key=base.index)) for label in labels if "_" in label}
    ordered = sorted(combinations, key=lambda emotions: (len(emotions), [base.index(emotion) for emotion in emotions]))
    return of_labels(f"{base.name}_compound", [*base.labels, *("_".join(emotions) for emotions in ordered)])


# The order is that of the label ids 1.. in the published files (spec: DFEW 1..7, MAFW 1..11; RAVDESS 01..08).
DFEW = of_labels("dfew", ("happy", "sad", "neutral", "angry", "surprise", "disgust", "fear"))
MAFW = of_labels(
    "mafw",
    (
        "anger",
        "disgust",
        "fear",
        "happiness",
        "neutral",
        "sadness",
        "surprise",
        "contempt",
        "anxiety",
        "helplessness",
        "disappointment",
    ),
)
RAVDESS = of_labels("ravdess", ("neutral", "calm", "happy", "sad", "angry", "fear", "disgust", "surprise"))
MELD = of_labels("meld", ("neutral", "surprise", "fear", "sadness", "joy", "disgust", "anger"))
MER = of_labels("mer", ("neutral", "angry", "happy", "sad", "worried", "surprise"))  # MER2023, and EMER's first release
MERR = of_labels("merr", (*MER.labels, "fear", "contempt", "doubt"))
# The 28 classes of GoEmotions in the order of its published classifiers. The synonyms are the released code's choice of a
# class for each label of DFEW and MAFW (spec: policy.md 8); contempt and helplessness have no class of their own there.
GOEMOTIONS = Taxonomy(
    "goemotions",
    (
        "admiration",
        "amusement",
        "anger",
        "annoyance",
        "approval",
        "caring",
        "confusion",
        "curiosity",
        "desire",
        "disappointment",
        "disapproval",
        "disgust",
        "embarrassment",
        "excitement",
        "fear",
        "gratitude",
        "grief",
        "joy",
        "love",
        "nervousness",
        "optimism",
        "pride",
        "realization",
        "relief",
        "remorse",
        "sadness",
        "surprise",
        "neutral",
    ),
    {
        "happiness": "joy",
        "happy": "joy",
        "angry": "anger",
        "sad": "sadness",
        "anxiety": "nervousness",
        "helplessness": "grief",
        "contempt": "disapproval",
    },
)
BUILT_IN = (DFEW, MAFW, RAVDESS, MELD, MER, MERR, GOEMOTIONS)


def counterpart(label: str, labels: Sequence[str]) -> str:
    """Find the label among `labels` (a verifier's) that stands for `label`.

    Tried in this order: `label` itself; another word for the same emotion; what a built-in taxonomy calls it. A coarser emotion
    does not stand for a finer one: two labels of a data set could share it, and a reward could not tell them apart.

    Raises:
        ValueError: If none of `labels` stands for it.
    """
    forms = _forms_of(label)
    for candidate in (label, *forms, *(taxonomy.normalise(form) for form in forms for taxonomy in BUILT_IN)):
        if candidate in labels:
            return str(candidate)
    raise ValueError(
        f"no emotion of the verifier stands for {label!r}; it knows {', '.join(labels)}; use a verifier trained for these "
        "labels"
    )


def named_taxonomy(name: str) -> Taxonomy:
    """The built-in taxonomy with this name; raises ValueError listing their names for any other."""
    taxonomies = {taxonomy.name: taxonomy for taxonomy in BUILT_IN}
    if name not in taxonomies:
        raise ValueError(f"unknown taxonomy {name!r}; known: {', '.join(taxonomies)}")
    return taxonomies[name]
