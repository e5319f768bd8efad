"""How rationales are written: the signs of a collapse are short, few, alike, copied or all neutral."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence

import numpy as np

from erv.taxonomy import Taxonomy
from erv.types import Prediction


def style(
    predictions: Sequence[Prediction], taxonomy: Taxonomy, known: Collection[str] = ()
) -> dict[str, float | None]:  # fmt: skip
    """Means and shares over the answers; None where nothing was there to measure.

    `neutral_share`: sentences that the verifier finds neutral and nothing else. `distinct_rationales`: different think texts
    among all. `repeated_sentences`: sentences that stand word for word in the rationale of another clip, too. `copy_rate`:
    sentences that stand word for word in `known`, the sentences that the policy was taught.
    """
    sentences = [s for p in predictions for s in p.sentences]
    read = [s for s in sentences if s.emotions]
    rewards = [p.rewards["explanation"] for p in predictions if p.rewards.get("explanation") is not None]
    thinks = [p.think for p in predictions]
    clips = Counter(text for text, _ in {(plain(s.text), p.clip_id) for p in predictions for s in p.sentences})
    taught = {plain(text) for text in known}
    return {
        "sentences_mean": len(sentences) / len(predictions),
        "neutral_share": _share([s.emotions == (taxonomy.neutral,) for s in read]),
        "tokens_mean": float(np.mean([p.tokens for p in predictions])),
        "distinct_rationales": len(set(thinks)) / len(thinks),
        "repeated_sentences": _share([clips[plain(s.text)] > 1 for s in sentences]),
        "copy_rate": _share([plain(s.text) in taught for s in sentences]) if taught else None,
        "verifier_reward": float(np.mean(np.array(rewards, dtype=np.float64))) if rewards else None,
    }


def plain(text: str) -> str:
    """A sentence by its words: case and white space make no other sentence."""
    return " ".join(text.lower().split())


def _share(found: Sequence[bool]) -> float | None:
    return sum(found) / len(found) if found else None
