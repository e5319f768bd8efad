"""The verifier's classifier, scores and gate."""

import numpy as np
import pytest
import torch

from erv.emotions import DFEW
from erv.verifier import UnfitVerifier, build_verifier, gate, load_verifier, scores

SIZES = {
    "model_type": "roberta", "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32,
    "max_position_embeddings": 34, "initializer_range": 0.1,
}  # fmt: skip
SENTENCES = ["The jaw drops.", "The nose wrinkles as the clip goes on.", "A person looks into the camera."]


@pytest.fixture
def verifier():
    torch.manual_seed(0)
    return build_verifier(DFEW.labels, config=SIZES, sentences=SENTENCES)


def test_probabilities_do_not_depend_on_company_or_order(verifier):
    together = verifier(SENTENCES)
    verifier.forget()
    alone = np.concatenate([verifier([s]) for s in SENTENCES[::-1]])[::-1]
    np.testing.assert_allclose(together, alone, atol=1e-6)
    assert together.shape == (3, 7)
    assert verifier([]).shape == (0, 7)


def test_each_distinct_sentence_is_scored_once(verifier, monkeypatch):
    seen = []
    plain = verifier.logits
    monkeypatch.setattr(verifier, "logits", lambda batch: seen.extend(batch) or plain(batch))
    verifier([*SENTENCES, *SENTENCES])
    verifier(SENTENCES)
    assert sorted(seen) == sorted(SENTENCES)


def test_a_long_sentence_is_cut_not_an_error(verifier):
    assert verifier(["The jaw drops and " * 60]).shape == (1, 7)


def test_saving_and_loading(verifier, tmp_path):
    verifier.save(tmp_path)
    again = load_verifier(str(tmp_path))
    assert again.labels == DFEW.labels
    np.testing.assert_allclose(again(SENTENCES), verifier(SENTENCES), atol=1e-7)


def test_training_learns_two_sentences(verifier):
    targets = verifier.targets([["surprise"], ["disgust"]])
    optimiser = torch.optim.Adam(verifier.model.parameters(), lr=1e-2)
    for _ in range(40):
        optimiser.zero_grad()
        verifier.loss(SENTENCES[:2], targets).backward()
        optimiser.step()
    verifier.forget()
    assert [DFEW.labels[i] for i in verifier(SENTENCES[:2]).argmax(1)] == ["surprise", "disgust"]


def test_a_label_it_does_not_know_is_refused(verifier):
    with pytest.raises(ValueError, match="labels gloomy are not among the verifier's: happy"):
        verifier.targets([["gloomy"]])


def test_frozen_scores():
    p = np.array([[0.9, 0.2, 0.0], [0.05, 0.04, 0.01], [0.3, 0.2, 0.15]])
    t = np.array([[1, 0, 0], [1, 0, 0], [0, 1, 0]])
    found = scores(p, t, threshold=0.1, top_k=2)
    assert found["labels_per_sentence"] == pytest.approx(5 / 3)  # two, the likeliest alone, two
    assert found["macro_f1"] == pytest.approx((0.8 + 2 / 3 + 0) / 3)


@pytest.mark.parametrize(
    ("f1", "labels", "problem"),
    [(0.94, 1.1, "macro F1 is 0.940, at least 0.95"), (0.97, 1.9, "1.90 emotions a sentence, 1.2 are too many")],
)
def test_the_gate_refuses_a_weak_verifier(f1, labels, problem):
    with pytest.raises(UnfitVerifier, match=problem):
        gate({"macro_f1": f1, "labels_per_sentence": labels})
    gate({"macro_f1": 0.95, "labels_per_sentence": 1.19})
