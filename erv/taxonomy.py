"""Emotion taxonomies and their synonyms. A text is matched by whole words: "unhappy" is not happy."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

_WORD = re.compile(r"[^\W_]+", re.UNICODE)


# Words for the same emotion. Whichever of them a taxonomy has as its label, the others are its synonyms.
FORMS = (
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


def _forms(label: str) -> tuple[str, ...]:
    """The words for the same emotion, or the label alone."""
    return next((forms for forms in FORMS if label in forms), (label,))


@dataclass(frozen=True)
class Taxonomy:
    """An ordered, fixed label set; the order is the order of the classes in every tensor `[..., E]`.

    A label of several emotions joins them with "_", as MAFW's compound labels do: anger_disgust.
    """

    name: str
    labels: tuple[str, ...]
    synonyms: Mapping[str, str] = field(default_factory=dict)
    neutral: str = "neutral"

    def index(self, label: str) -> int:
        """The position of `label`; raises ValueError naming the nearest labels."""
        if label not in self.labels:
            raise ValueError(self._unknown(label))
        return self.labels.index(label)

    def label_of(self, text: str) -> str:
        """The label that `text` names; raises ValueError naming the nearest labels when it names none or several."""
        found = self.normalise(text)
        if found is None:
            raise ValueError(self._unknown(text))
        return found

    def normalise(self, text: str | None) -> str | None:
        """The one label that `text` names, by whole words and synonyms; None when it names none or several."""
        if text is None:
            return None
        words = (word.lower() for word in _WORD.findall(text))
        return self._joined.get(frozenset(label for word in words if (label := self._label(word)) is not None))

    @cached_property
    def _joined(self) -> dict[frozenset[str], str]:
        return {frozenset(label.split("_")): label for label in self.labels}

    def _label(self, word: str) -> str | None:
        return word if word in self.labels else self.synonyms.get(word)

    def _unknown(self, text: str) -> str:
        near = difflib.get_close_matches(text.lower(), [*self.labels, *self.synonyms], n=3)
        return (
            f"{text!r} is not a label of taxonomy {self.name!r} ({', '.join(self.labels)}); nearest: "
            f"{', '.join(near) or 'none'}; correct the label or add it to the synonyms"
        )


def of_labels(name: str, labels: Sequence[str]) -> Taxonomy:
    """A taxonomy of these labels, in their order, with the usual synonyms.

    Raises ValueError for labels that cannot be told apart or are no words.
    """
    parts = list(dict.fromkeys(part for label in labels for part in label.split("_")))
    if odd := [part for part in parts if not _WORD.fullmatch(part) or part != part.lower()]:
        raise ValueError(f"a label is one word in lower case, or several joined by _; got {', '.join(map(repr, odd))}")
    synonyms: dict[str, str] = {}
    for part in parts:
        for form in _forms(part):
            other = synonyms.setdefault(form, part)
            if other != part:
                raise ValueError(f"labels {other!r} and {part!r} are forms of one emotion; keep one of them")
    if len(set(labels)) != len(labels) or not labels:
        raise ValueError(f"labels must be some, each once; got {', '.join(labels) or 'none'}")
    return Taxonomy(name, tuple(labels), {form: part for form, part in synonyms.items() if form not in labels})


def compound(base: Taxonomy, labels: Iterable[str]) -> Taxonomy:
    """The labels of `base`, then those of `labels` that join several of them: by how many, in the order of `base`."""
    joined = {tuple(sorted(label.split("_"), key=base.index)) for label in labels if "_" in label}
    order = sorted(joined, key=lambda parts: (len(parts), [base.index(part) for part in parts]))
    return of_labels(f"{base.name}_compound", [*base.labels, *("_".join(parts) for parts in order)])


# The order is that of the label ids 1.. in the published files (spec: DFEW 1..7, MAFW 1..11; RAVDESS 01..08).
DFEW = of_labels("dfew", ("happy", "sad", "neutral", "angry", "surprise", "disgust", "fear"))
MAFW = of_labels(
    "mafw",
    ("anger", "disgust", "fear", "happiness", "neutral", "sadness", "surprise", "contempt", "anxiety", "helplessness",
     "disappointment"),
)  # fmt: skip
RAVDESS = of_labels("ravdess", ("neutral", "calm", "happy", "sad", "angry", "fear", "disgust", "surprise"))
MELD = of_labels("meld", ("neutral", "surprise", "fear", "sadness", "joy", "disgust", "anger"))
MER = of_labels("mer", ("neutral", "angry", "happy", "sad", "worried", "surprise"))  # MER2023, and EMER's first release
MERR = of_labels("merr", (*MER.labels, "fear", "contempt", "doubt"))
# The 28 classes of GoEmotions in the order of its published classifiers. The synonyms are the released code's choice of a
# class for each label of DFEW and MAFW (spec: policy.md 8); contempt and helplessness have no class of their own there.
GOEMOTIONS = Taxonomy(
    "goemotions",
    ("admiration", "amusement", "anger", "annoyance", "approval", "caring", "confusion", "curiosity", "desire",
     "disappointment", "disapproval", "disgust", "embarrassment", "excitement", "fear", "gratitude", "grief", "joy", "love",
     "nervousness", "optimism", "pride", "realization", "relief", "remorse", "sadness", "surprise", "neutral"),
    {"happiness": "joy", "happy": "joy", "angry": "anger", "sad": "sadness", "anxiety": "nervousness",
     "helplessness": "grief", "contempt": "disapproval"},
)  # fmt: skip
BUILT_IN = (DFEW, MAFW, RAVDESS, MELD, MER, MERR, GOEMOTIONS)

# The six groups of GoEmotions' authors (Demszky et al. 2020, "GoEmotions: A Dataset of Fine-Grained Emotions", the Ekman
# taxonomy of its released mapping), without the name of each group.
_EKMAN = {
    "anger": ("annoyance", "disapproval"),
    "joy": ("amusement", "approval", "excitement", "gratitude", "love", "optimism", "relief", "pride", "admiration", "desire",
            "caring"),
    "sadness": ("disappointment", "embarrassment", "grief", "remorse"),
    "surprise": ("realization", "confusion", "curiosity"),
}  # fmt: skip
# Coarser emotions that can stand for a finer one, the nearest first.
COARSER: dict[str, tuple[str, ...]] = {
    **{label: (group,) for group, labels in _EKMAN.items() for label in labels},
    "nervousness": ("anxiety", "fear"),  # anxiety is nervousness in GOEMOTIONS; fear is its Ekman group
    "anxiety": ("fear",),
    "helplessness": ("sadness",),
    "contempt": ("disgust",),
    "doubt": ("confusion", "surprise"),
    "calm": ("neutral",),
}


def counterpart(label: str, labels: Sequence[str], coarse: bool = False) -> str:
    """Which of `labels` (a verifier's) stands for `label`.

    Itself; or else a word for the same emotion; or else what a built-in taxonomy calls it; or else, with `coarse`, a coarser
    emotion (COARSER). In a reward a coarser one will not do: two labels of a corpus may have the same, and then cannot be told
    apart. Raises ValueError when none of `labels` stands for it.
    """
    forms = _forms(label)
    coarser = [other for form in forms for other in COARSER.get(form, ())] if coarse else []
    for emotion in (label, *coarser):
        same = _forms(emotion)
        candidates = (emotion, *same, *(t.normalise(form) for form in same for t in BUILT_IN))
        for candidate in candidates:
            if candidate in labels:
                return str(candidate)
    raise ValueError(
        f"no emotion of the verifier stands for {label!r}; it knows {', '.join(labels)}; use a verifier trained for these "
        "labels"
    )


def named_taxonomy(name: str) -> Taxonomy:
    """A built-in taxonomy by name; raises ValueError listing the known ones."""
    known = {t.name: t for t in BUILT_IN}
    if name not in known:
        raise ValueError(f"unknown taxonomy {name!r}; known: {', '.join(known)}")
    return known[name]
