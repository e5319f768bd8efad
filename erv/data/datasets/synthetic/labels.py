"""Pseudo-labelled sentences for the verifier: more cues than the clips' rationales have, label noise, withheld phrases.

Generated from the grammar alone, never from clips, so that no label of an evaluation clip can reach the verifier.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from erv.data.datasets.synthetic import grammar

NOISE = 0.08  # share of training sentences with a wrong label
WITHHELD = 0.15  # share of the grammar's phrases that the training text does not contain


def _cues(emotion: str) -> dict[str, list[str]]:
    return {
        "face": [*grammar.FACE_CUES[emotion], *grammar.EXTRA_FACE_CUES[emotion]],
        "voice": list(grammar.VOICE_CUES[emotion]),
        "conclusion": list(grammar.WORDS[emotion]),
    }


def withheld_phrases(seed: int) -> set[str]:
    """The phrases that the verifier's training text must not contain, a share WITHHELD of the grammar's."""
    rng = np.random.default_rng([seed, 71])
    every = sorted(phrase for phrases in grammar.phrases().values() for phrase in phrases)
    return {every[i] for i in rng.choice(len(every), round(WITHHELD * len(every)), replace=False)}


def _draw(rng: np.random.Generator, allowed: dict[str, dict[str, list[str]]]) -> dict[str, Any]:
    """A sentence with its labels: context (one in five, neutral), two emotions (8 %), or one emotion."""
    shirt, wall = (str(c) for c in rng.choice(grammar.COLOURS, 2))
    if rng.random() < 0.2:
        return {"text": grammar.context(rng, shirt, wall), "labels": ["neutral"]}
    emotion = str(rng.choice([e for e in grammar.EMOTIONS if allowed[e]]))
    if rng.random() < 0.08 and allowed[emotion].get("face"):
        other = str(rng.choice([e for e in grammar.EMOTIONS if e != emotion]))
        if allowed.get(other, {}).get("voice"):
            cue, tone = str(rng.choice(allowed[emotion]["face"])), str(rng.choice(allowed[other]["voice"]))
            return {"text": grammar.sentence(f"{cue} but the voice is {tone}"), "labels": [emotion, other]}
    kind = str(rng.choice(list(allowed[emotion])))
    cue = str(rng.choice(allowed[emotion][kind]))
    make = {"face": grammar.face, "voice": grammar.voice, "conclusion": grammar.conclusion}[kind]
    return {"text": make(rng, cue), "labels": [emotion]}


def _cues_by_kind(withheld: set[str], only_withheld: bool) -> dict[str, dict[str, list[str]]]:
    """Emotion -> kind of sentence -> its cues, either without the withheld phrases or only those."""
    table = {
        e: {kind: [c for c in cues if (c in withheld) == only_withheld] for kind, cues in _cues(e).items()}
        for e in grammar.EMOTIONS
    }
    return {e: {kind: cues for kind, cues in kinds.items() if cues} for e, kinds in table.items()}


def rows(seed: int, train: int = 3000, heldout: int = 600, withheld: int = 300) -> list[dict[str, Any]]:
    """Rows of labels.jsonl, {"text", "labels", "split"}: `train`, `heldout` and `withheld` of them.

    Split "train" has a share NOISE of wrong labels. "heldout" has clean labels of phrases that "train" contains, "withheld"
    of phrases that it does not.
    """
    rng = np.random.default_rng([seed, 72])
    hidden = withheld_phrases(seed)
    training_cues = _cues_by_kind(hidden, only_withheld=False)
    withheld_cues = _cues_by_kind(hidden, only_withheld=True)
    result = []
    for _ in range(train):
        row = _draw(rng, training_cues)
        if rng.random() < NOISE:
            row["labels"] = [str(rng.choice([e for e in grammar.EMOTIONS if e not in row["labels"]]))]
        result.append({**row, "split": "train"})
    result += [{**_draw(rng, training_cues), "split": "heldout"} for _ in range(heldout)]
    while len(result) < train + heldout + withheld:
        row = _draw(rng, withheld_cues)
        if any(phrase in row["text"].lower() for phrase in hidden):  # context sentences contain no phrase
            result.append({**row, "split": "withheld"})
    return result


def clean_rows(seed: int, count: int, stream: int, split: str) -> list[dict[str, Any]]:
    """`count` rows with clean labels of phrases that training contains; another `stream` of the generator, other rows."""
    rng = np.random.default_rng([seed, stream])
    cues = _cues_by_kind(withheld_phrases(seed), only_withheld=False)
    return [{**_draw(rng, cues), "split": split} for _ in range(count)]


def audit_rows(seed: int) -> list[dict[str, Any]]:
    """Rows of audit.jsonl, for final figures: no threshold or checkpoint is chosen on them."""
    return clean_rows(seed, 300, 74, "audit")
