"""The baseline that a verifier has to beat: TF-IDF with logistic regression, trained on the same rows.

An absolute score says little about a verifier: macro F1 is .99 on templated sentences and .64 for the best models of
GoEmotions' seven classes. A bag of words on the same rows says how much of the task is a matter of single words.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from erv.verifier.metrics import chosen

RESAMPLES = 1000


def tfidf_probabilities(train: Sequence[str], targets: np.ndarray, texts: Sequence[str]) -> np.ndarray:
    """Probabilities `[S, E]` of `texts` by one logistic regression a class on TF-IDF of words and word pairs.

    train, targets `[R, E]`: the verifier's training rows, multi-hot. Rare classes are weighted up, since macro F1 counts
    them like the others. A class that all or none of the rows have gets its
    share as probability.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    # characters that are no words matter too: Chinese has no spaces, and "!" is part of what a sentence conveys
    vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"[^\W\d_]+|[^\w\s]", min_df=1)
    features, asked = vectorizer.fit_transform(train), vectorizer.transform(texts)
    probabilities = np.empty((len(texts), targets.shape[1]))
    for column in range(targets.shape[1]):
        labels = targets[:, column]
        if labels.min() == labels.max():
            probabilities[:, column] = labels.mean()
            continue
        model = LogisticRegression(C=3.0, class_weight="balanced", solver="liblinear", random_state=0).fit(
            features, labels
        )
        probabilities[:, column] = model.predict_proba(asked)[:, 1]
    return probabilities


@dataclass(frozen=True, slots=True)
class Difference:
    """Macro F1 of a verifier minus that of the baseline on the same sentences, with a 95 % interval."""

    value: float
    low: float
    high: float


def difference(
    verifier: np.ndarray,
    baseline: np.ndarray,
    targets: np.ndarray,
    columns: Sequence[int],
    thresholds: tuple[float, float],
    top_k: int,
) -> Difference:
    """Compare two sets of probabilities `[S, E]` by macro F1 over the classes `columns`, each at its own threshold.

    The interval is a paired percentile bootstrap over sentences.
    """
    kept = list(columns)
    gold = targets[:, kept].astype(bool)
    pairs = zip((verifier, baseline), thresholds, strict=True)
    picked = [chosen(probabilities, threshold, top_k)[:, kept] for probabilities, threshold in pairs]
    rng = np.random.default_rng(0)
    counts = rng.multinomial(len(gold), np.full(len(gold), 1 / len(gold)), RESAMPLES)  # how often a sentence is drawn
    weights = np.concatenate([np.ones((1, len(gold))), counts])
    scores = [_weighted_macro_f1(weights, mine, gold) for mine in picked]
    gain = scores[0] - scores[1]
    low, high = np.percentile(gain[1:], [2.5, 97.5])
    return Difference(float(gain[0]), float(low), float(high))


def _weighted_macro_f1(weights: np.ndarray, picked: np.ndarray, gold: np.ndarray) -> np.ndarray:
    """Macro F1 `[W]` for each row of sentence weights `[W, S]`; a class with neither labels nor picks scores 0."""
    hits = weights @ (picked & gold).astype(float)
    sizes = weights @ (picked.astype(float) + gold.astype(float))
    scores: np.ndarray = np.divide(2 * hits, sizes, out=np.zeros_like(hits), where=sizes > 0).mean(1)
    return scores
