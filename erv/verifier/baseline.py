"""The baseline that a verifier has to beat: TF-IDF with logistic regression, trained on the same rows.

An absolute score says little about a verifier: macro F1 is .99 on templated sentences and .64 for the best models of
GoEmotions' seven classes. A bag of words on the same rows shows how much of the task single words already solve.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from erv.verifier.metrics import predicted_labels

RESAMPLES = 1000


def tfidf_probabilities(train: Sequence[str], targets: np.ndarray, texts: Sequence[str]) -> np.ndarray:
    """Train the baseline and compute the probabilities `[S, E]` of `texts`.

    One logistic regression per class reads TF-IDF weights of words and word pairs.

    Args:
        train: The verifier's R training texts.
        targets: Their multi-hot labels `[R, E]`. A class that all or none of the rows have gets its share as probability.
        texts: S texts to score.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    # Runs of letters, and single other characters, because "!" is part of what a sentence conveys.
    vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"[^\W\d_]+|[^\w\s]", min_df=1)
    train_features, text_features = vectorizer.fit_transform(train), vectorizer.transform(texts)
    probabilities = np.empty((len(texts), targets.shape[1]))
    for column in range(targets.shape[1]):
        labels = targets[:, column]
        if labels.min() == labels.max():
            probabilities[:, column] = labels.mean()
            continue
        # balanced: macro F1 counts rare classes like the others
        model = LogisticRegression(C=3.0, class_weight="balanced", solver="liblinear", random_state=0)
        probabilities[:, column] = model.fit(train_features, labels).predict_proba(text_features)[:, 1]
    return probabilities


@dataclass(frozen=True, slots=True)
class Difference:
    """Macro F1 of a verifier minus that of the baseline on the same sentences."""

    value: float
    low: float  # bounds of the 95 % interval
    high: float


def macro_f1_difference(
    verifier: np.ndarray,
    baseline: np.ndarray,
    targets: np.ndarray,
    columns: Sequence[int],
    thresholds: tuple[float, float],
    top_k: int,
) -> Difference:
    """Compare two sets of probabilities `[S, E]` by macro F1, with a paired percentile bootstrap over sentences.

    Args:
        verifier: Probabilities of the verifier.
        baseline: Probabilities of the baseline.
        targets: Multi-hot labels `[S, E]`.
        columns: Classes that the mean is taken over.
        thresholds: Threshold of the verifier and of the baseline, each chosen for its own probabilities.
        top_k: The reward's most emotions per sentence.
    """
    classes = list(columns)
    gold = targets[:, classes].astype(bool)
    pairs = zip((verifier, baseline), thresholds, strict=True)
    predictions = [predicted_labels(probabilities, threshold, top_k)[:, classes] for probabilities, threshold in pairs]
    rng = np.random.default_rng(0)
    # a resample is how often each sentence is drawn; the first row of weights is the sample itself
    counts = rng.multinomial(len(gold), np.full(len(gold), 1 / len(gold)), RESAMPLES)
    weights = np.concatenate([np.ones((1, len(gold))), counts])
    verifier_f1, baseline_f1 = (_weighted_macro_f1(weights, predicted, gold) for predicted in predictions)
    difference = verifier_f1 - baseline_f1
    low, high = np.percentile(difference[1:], [2.5, 97.5])
    return Difference(float(difference[0]), float(low), float(high))


def _weighted_macro_f1(weights: np.ndarray, predicted: np.ndarray, gold: np.ndarray) -> np.ndarray:
    """Compute macro F1 `[W]` for each row of sentence weights `[W, S]`; a class without labels and predictions scores 0."""
    true_positives = weights @ (predicted & gold).astype(float)
    sizes = weights @ (predicted.astype(float) + gold.astype(float))  # predicted positives plus labels: 2 TP + FP + FN
    f1 = np.divide(2 * true_positives, sizes, out=np.zeros_like(true_positives), where=sizes > 0)
    macro: np.ndarray = f1.mean(1)
    return macro
