"""Pseudo-labelled sentences for the verifier: wider than the grammar, noisy, and without some of its phrases.

Made from the grammar alone, never from clips, so the verifier cannot see a held-out clip's label.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from erv.data.datasets.synthetic import grammar

NOISE = 0.08
WITHHELD = 0.15


def _cues(emotion: str) -> dict[str, list[str]]:
    return {
        "face": [*grammar.FACE_CUES[emotion], *grammar.EXTRA_FACE_CUES[emotion]],
        "voice": list(grammar.VOICE_CUES[emotion]),
        "conclusion": list(grammar.WORDS[emotion]),
    }


def withheld_phrases(seed: int) -> set[str]:
    """The share `WITHHELD` of the grammar's phrases that the verifier's training text must not hold."""
    rng = np.random.default_rng([seed, 71])
    every = sorted(phrase for phrases in grammar.phrases().values() for phrase in phrases)
    return {every[i] for i in rng.choice(len(every), round(WITHHELD * len(every)), replace=False)}


def _draw(rng: np.random.Generator, allowed: dict[str, dict[str, list[str]]]) -> dict[str, Any]:
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


def _restrict(keep: bool, withheld: set[str]) -> dict[str, dict[str, list[str]]]:
    """Emotion -> kind -> phrases, either without the withheld ones (`keep` False) or only those."""
    table = {
        e: {kind: [c for c in cues if (c in withheld) == keep] for kind, cues in _cues(e).items()}
        for e in grammar.EMOTIONS
    }
    return {e: {kind: cues for kind, cues in kinds.items() if cues} for e, kinds in table.items()}


def rows(seed: int, train: int = 3000, heldout: int = 600, withheld: int = 300) -> list[dict[str, Any]]:
    """Rows of labels.jsonl: {"text", "labels", "split"}, with 8 % wrong labels in split "train" only.

    "heldout" has clean labels of phrases that training saw; "withheld" of phrases that it did not.
    """
    rng = np.random.default_rng([seed, 72])
    hidden = withheld_phrases(seed)
    known, unknown = _restrict(False, hidden), _restrict(True, hidden)
    result = []
    for _ in range(train):
        row = _draw(rng, known)
        if rng.random() < NOISE:
            row["labels"] = [str(rng.choice([e for e in grammar.EMOTIONS if e not in row["labels"]]))]
        result.append({**row, "split": "train"})
    result += [{**_draw(rng, known), "split": "heldout"} for _ in range(heldout)]
    while len(result) < train + heldout + withheld:
        row = _draw(rng, unknown)
        if any(phrase in row["text"].lower() for phrase in hidden):  # context sentences hold no phrase at all
            result.append({**row, "split": "withheld"})
    return result


def clean_rows(seed: int, count: int, stream: int, split: str) -> list[dict[str, Any]]:
    """Clean labels of known phrases, drawn apart from those of `rows` and of any other `stream`."""
    rng = np.random.default_rng([seed, stream])
    known = _restrict(False, withheld_phrases(seed))
    return [{**_draw(rng, known), "split": split} for _ in range(count)]


def audit_rows(seed: int) -> list[dict[str, Any]]:
    """Rows of audit.jsonl, for figures that no choice saw."""
    return clean_rows(seed, 300, 74, "audit")
