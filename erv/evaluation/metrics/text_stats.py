"""How completions and rationales are written: a collapse shows as short, few, alike, copied or all neutral sentences.

Each function returns the values whose mean is a metric (one per completion or per sentence), none where nothing can be measured.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from erv.taxonomy import Taxonomy
from erv.types import Prediction


@dataclass(frozen=True)
class Answers:
    """What the text metrics are computed from."""

    predictions: Sequence[Prediction]
    taxonomy: Taxonomy
    taught: Collection[str] = ()  # sentences of the SFT data
    judge_rewards: Sequence[float] = ()  # R_E with the judge in place of the verifier, where that is free of charge


def well_formed(answers: Answers) -> list[bool]:
    """One <think> block and one <answer>, and nothing else."""
    return [p.well_formed for p in answers.predictions]


def finished(answers: Answers) -> list[bool]:
    """The completion ended by itself, before `max_new_tokens`."""
    return [p.finished for p in answers.predictions]


def sentence_counts(answers: Answers) -> list[int]:
    """Sentences of each rationale."""
    return [len(p.sentences) for p in answers.predictions]


def token_counts(answers: Answers) -> list[int]:
    """Generated tokens of each completion."""
    return [p.tokens for p in answers.predictions]


def neutral_sentences(answers: Answers) -> list[bool]:
    """Sentences that the verifier finds neutral and nothing else, among those it found any emotion in."""
    neutral = answers.taxonomy.neutral
    return [s.emotions == (neutral,) for p in answers.predictions for s in p.sentences if s.emotions]


def first_of_its_text(answers: Answers) -> list[bool]:
    """No earlier completion has the same think text; the mean is the share of distinct rationales."""
    thinks = [p.think for p in answers.predictions]
    first = {think: i for i, think in reversed(list(enumerate(thinks)))}
    return [first[think] == i for i, think in enumerate(thinks)]


def repeated_sentences(answers: Answers) -> list[bool]:
    """Sentences that occur word for word in the rationale of another clip, too."""
    occurrences = {(normalise_sentence(s.text), p.clip_id) for p in answers.predictions for s in p.sentences}
    clips = Counter(text for text, _ in occurrences)
    return [clips[normalise_sentence(s.text)] > 1 for p in answers.predictions for s in p.sentences]


def copied_sentences(answers: Answers) -> list[bool]:
    """Sentences that occur word for word in the SFT data; none where that is not known."""
    taught = {normalise_sentence(text) for text in answers.taught}
    if not taught:
        return []
    return [normalise_sentence(s.text) in taught for p in answers.predictions for s in p.sentences]


def verifier_rewards(answers: Answers) -> list[float]:
    """R_E of each completion by the verifier that rewards."""
    rewards = (p.rewards.get("explanation") for p in answers.predictions)
    return [reward for reward in rewards if reward is not None]


def judge_rewards(answers: Answers) -> Sequence[float]:
    """R_E of each completion with the judge in place of the verifier."""
    return answers.judge_rewards


def normalise_sentence(text: str) -> str:
    """A sentence by its words: case and white space make no other sentence."""
    return " ".join(text.lower().split())
