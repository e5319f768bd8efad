"""Emotion taxonomies and their synonyms. A text is matched by whole words: "unhappy" is not happy."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

_WORD = re.compile(r"[^\W_]+", re.UNICODE)


@dataclass(frozen=True)
class Taxonomy:
    """An ordered, fixed label set; the order is the order of the classes in every tensor `[..., E]`."""

    name: str
    labels: tuple[str, ...]
    synonyms: Mapping[str, str] = field(default_factory=dict)
    neutral: str = "neutral"

    def index(self, label: str) -> int:
        """The position of `label`; raises ValueError naming the nearest labels."""
        if label not in self.labels:
            near = difflib.get_close_matches(label, [*self.labels, *self.synonyms], n=3)
            raise ValueError(
                f"{label!r} is not a label of taxonomy {self.name!r} ({', '.join(self.labels)}); nearest: "
                f"{', '.join(near) or 'none'}; correct the label or add it to the synonyms"
            )
        return self.labels.index(label)

    def normalise(self, text: str | None) -> str | None:
        """The one label that `text` names, by whole words and synonyms; None when it names none or several."""
        if text is None:
            return None
        words = (word.lower() for word in _WORD.findall(text))
        found = {label for word in words if (label := self._label(word)) is not None}
        return found.pop() if len(found) == 1 else None

    def _label(self, word: str) -> str | None:
        return word if word in self.labels else self.synonyms.get(word)


_DFEW_SYNONYMS = {
    **dict.fromkeys(("happiness", "joy", "joyful"), "happy"),
    **dict.fromkeys(("sadness", "sorrow", "sorrowful"), "sad"),
    **dict.fromkeys(("anger", "angered"), "angry"),
    **dict.fromkeys(("surprised", "astonished", "astonishment"), "surprise"),
    **dict.fromkeys(("disgusted",), "disgust"),
    **dict.fromkeys(("fearful", "afraid", "scared"), "fear"),
}
_MAFW_SYNONYMS = {
    **dict.fromkeys(("angry", "angered"), "anger"),
    **dict.fromkeys(("disgusted",), "disgust"),
    **dict.fromkeys(("fearful", "afraid", "scared"), "fear"),
    **dict.fromkeys(("happy", "joy", "joyful"), "happiness"),
    **dict.fromkeys(("sad", "sorrow", "sorrowful"), "sadness"),
    **dict.fromkeys(("surprised", "astonished", "astonishment"), "surprise"),
    **dict.fromkeys(("contemptuous",), "contempt"),
    **dict.fromkeys(("anxious",), "anxiety"),
    **dict.fromkeys(("helpless",), "helplessness"),
    **dict.fromkeys(("disappointed",), "disappointment"),
}

# The order is that of the label ids 1.. in the published files (spec: DFEW 1..7, MAFW 1..11).
DFEW = Taxonomy("dfew", ("happy", "sad", "neutral", "angry", "surprise", "disgust", "fear"), _DFEW_SYNONYMS)
MAFW = Taxonomy(
    "mafw",
    ("anger", "disgust", "fear", "happiness", "neutral", "sadness", "surprise", "contempt", "anxiety", "helplessness",
     "disappointment"),
    _MAFW_SYNONYMS,
)  # fmt: skip
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


def counterpart(label: str, labels: Sequence[str]) -> str:
    """Which of `labels` (a verifier's) stands for `label`: itself, or what a built-in taxonomy calls it.

    Raises ValueError when none does.
    """
    candidates = (label, *(t.normalise(label) for t in (DFEW, MAFW, GOEMOTIONS)))
    found = next((c for c in candidates if c in labels), None)
    if found is None:
        raise ValueError(
            f"no emotion of the verifier stands for {label!r}; it knows {', '.join(labels)}; use a verifier trained for these "
            "labels"
        )
    return found


def taxonomy(name: str) -> Taxonomy:
    """A built-in taxonomy by name; raises ValueError listing the known ones."""
    known = {t.name: t for t in (DFEW, MAFW, GOEMOTIONS)}
    if name not in known:
        raise ValueError(f"unknown taxonomy {name!r}; known: {', '.join(known)}")
    return known[name]
