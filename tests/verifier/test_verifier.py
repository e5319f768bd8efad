"""The verifier's classifier, scores and gate."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors import safe_open
from transformers import RobertaForSequenceClassification

from erv.taxonomy import DFEW, GOEMOTIONS, MAFW
from erv.verifier import Loss, Verifier, build_verifier, load_verifier
from erv.verifier.baseline import macro_f1_difference, tfidf_probabilities
from erv.verifier.metrics import UnfitVerifier, gate, per_class, scores
from erv.verifier.model_card import model_card
from erv.verifier.pooling import MeanPoolingClassifier

SIZES = {
    "model_type": "roberta",
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 34,
    "initializer_range": 0.1,
}
AP_FIRST = 1 / 2 + 1 / 2 * 2 / 3  # the two positives of the first class are ranked first and third
SENTENCES = ["The jaw drops.", "The nose wrinkles as the clip goes on.", "A person looks into the camera."]


@pytest.fixture
def verifier():
    torch.manual_seed(0)
    return build_verifier(DFEW.labels, config=SIZES, sentences=SENTENCES)


def test_probabilities_do_not_depend_on_company_or_order(verifier):
    together = verifier(SENTENCES)
    verifier.clear_cache()
    alone = np.concatenate([verifier([s]) for s in SENTENCES[::-1]])[::-1]
    np.testing.assert_allclose(together, alone, atol=1e-6)
    assert together.shape == (3, 7)
    assert verifier([]).shape == (0, 7)


def test_each_distinct_sentence_is_scored_once(verifier, monkeypatch):
    scored = []
    tokenize = verifier._tokenize
    monkeypatch.setattr(verifier, "_tokenize", lambda batch: scored.extend(batch) or tokenize(batch))
    verifier([*SENTENCES, *SENTENCES])
    verifier(SENTENCES)
    assert sorted(scored) == sorted(SENTENCES)


def test_batches_hold_sentences_of_one_length_within_the_budget(verifier, monkeypatch):
    shapes = []
    plain = verifier._forward
    monkeypatch.setattr(verifier, "_forward", lambda batch: shapes.append(batch["input_ids"].shape) or plain(batch))
    verifier.batch_tokens = 24
    verifier([" ".join(["the jaw"] * n) for n in (1, 5, 1, 2, 5, 3, 3, 9)])
    assert sum(rows for rows, _ in shapes) == 5
    assert all(rows * length <= 24 or rows == 1 for rows, length in shapes)
    assert [length for _, length in shapes] == sorted(length for _, length in shapes)
    whole = verifier(["the jaw " * 9])
    verifier.batch_tokens = 1
    verifier.clear_cache()
    np.testing.assert_allclose(verifier(["the jaw " * 9]), whole, atol=1e-6)


def test_memory_is_bounded(verifier):
    verifier.cache_size = 3
    for i in range(5):
        verifier([f"sentence {i}", "The jaw drops."])
    assert len(verifier._cache) <= 4


def test_bfloat16_gives_nearly_the_same(verifier):
    plain = verifier(SENTENCES)
    low = Verifier(verifier.model, verifier.tokenizer, verifier.labels, bf16=True)(SENTENCES)
    assert low.dtype == np.float32
    assert 0 < np.abs(low - plain).max() < 0.02


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
        Loss()(verifier.logits(SENTENCES[:2])[0], targets).backward()
        optimiser.step()
    verifier.clear_cache()
    assert [DFEW.labels[i] for i in verifier(SENTENCES[:2]).argmax(1)] == ["surprise", "disgust"]


def test_a_label_it_does_not_know_is_refused(verifier):
    with pytest.raises(ValueError, match="no emotion of the verifier stands for 'gloomy'; it knows happy, sad"):
        verifier.targets([["gloomy"]])


def test_frozen_scores():
    p = np.array([[0.9, 0.2, 0.0], [0.05, 0.04, 0.01], [0.3, 0.2, 0.15]])
    t = np.array([[1, 0, 0], [1, 0, 0], [0, 1, 0]])
    result = scores(p, t, threshold=0.1, top_k=2)
    assert result["labels_per_sentence"] == pytest.approx(5 / 3)  # two, the likeliest alone, two
    # per class (tp, fp, fn): (2, 1, 0), (1, 1, 0), none at all
    assert result["macro_f1"] == pytest.approx((0.8 + 2 / 3 + 0) / 3)
    assert result["micro_f1"] == pytest.approx(3 * 2 / (3 * 2 + 2))
    assert result["map"] == pytest.approx((AP_FIRST + 0.5) / 2)
    two_classes = scores(p, t, threshold=0.1, top_k=2, columns=[0, 1])
    assert two_classes["macro_f1"] == pytest.approx((0.8 + 2 / 3) / 2)
    assert two_classes["labels_per_sentence"] == result["labels_per_sentence"]
    classes = per_class(p, t, 0.1, 2, {"happy": 0, "sad": 1})
    assert classes["happy"] == pytest.approx({"precision": 2 / 3, "recall": 1, "f1": 0.8, "sentences": 2})
    assert classes["sad"]["precision"] == 0.5


def test_calibration_error_of_a_verifier_that_is_sure_and_half_right():
    p, t = np.full((10, 2), 0.9, np.float32), np.tile([[1, 0]], (10, 1))
    assert scores(p, t, 0.1, 2)["ece"] == pytest.approx(0.4, abs=1e-6)


@pytest.mark.parametrize(
    ("f1", "labels", "problem"),
    [
        (0.94, 1.1, r"macro F1 is 0.940, verifier.gate.macro_f1 asks for at least 0.95"),
        (0.97, 1.9, r"1.90 emotions a sentence, verifier.gate.labels_per_sentence allows fewer than 1.2"),
    ],
)
def test_the_gate_has_absolute_limits(f1, labels, problem):
    with pytest.raises(UnfitVerifier, match=problem):
        gate({"heldout": {"macro_f1": f1, "labels_per_sentence": labels}}, macro_f1=0.95, labels_per_sentence=1.2)
    gate({"heldout": {"macro_f1": 0.95, "labels_per_sentence": 1.19}}, macro_f1=0.95, labels_per_sentence=1.2)
    gate({"heldout": {"macro_f1": f1, "labels_per_sentence": labels}})


@pytest.mark.parametrize(
    ("high", "margin", "refused"),
    [(-0.01, 0.0, True), (0.01, 0.0, False), (0.01, 0.05, True), (-0.01, None, False)],
)
def test_the_gate_asks_for_the_baseline(high, margin, refused):
    """A real verifier at .5 passes where a bag of words has .45; one that is worse than it beyond the interval does not."""
    baseline = {
        "measured_on": "audit",
        "macro_f1": 0.45,
        "verifier_macro_f1": 0.5,
        "difference": 0.05,
        "low": -0.02,
        "high": high,
    }
    metrics = {"heldout": {"macro_f1": 0.5, "labels_per_sentence": 1.9}, "baseline": baseline}
    if not refused:
        return gate(metrics, margin_over_baseline=margin)
    with pytest.raises(UnfitVerifier, match=r"0.500, that of TF-IDF with logistic regression on the same rows 0.450"):
        gate(metrics, margin_over_baseline=margin)


def test_the_baseline_learns_words_and_is_deterministic():
    train = ["she is happy", "what a happy day", "he is sad", "a sad day", "nothing here", "plain words"] * 3
    targets = np.array([[1, 0, 0], [1, 0, 0], [0, 1, 0], [0, 1, 0], [0, 0, 0], [0, 0, 0]] * 3)
    texts = ["a happy child", "sad news"]
    first, second = (tfidf_probabilities(train, targets, texts) for _ in range(2))
    assert np.array_equal(first, second)
    assert first.argmax(1).tolist() == [0, 1]
    assert first[:, 2].tolist() == [0, 0]  # a class that no row has


def test_the_difference_is_that_of_macro_f1_and_its_interval_holds_it():
    rng = np.random.default_rng(1)
    targets = rng.integers(0, 2, (200, 3))
    better, worse = (np.clip(targets + rng.normal(0, noise, targets.shape), 0, 1) for noise in (0.3, 0.8))
    gain = macro_f1_difference(better, worse, targets, [0, 1, 2], (0.5, 0.4), 2)
    expected = scores(better, targets, 0.5, 2)["macro_f1"] - scores(worse, targets, 0.4, 2)["macro_f1"]
    assert gain.value == pytest.approx(expected, abs=1e-6)
    assert 0 < gain.low < gain.value < gain.high


def saved(tmp_path, model_type, labels, **sizes):
    """A small random classifier of another family with our tokenizer, as a folder; what a hub id would bring."""
    torch.manual_seed(1)
    common = {
        "hidden_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "max_position_embeddings": 34,
        **sizes,
    }
    made = build_verifier(labels, config={"model_type": model_type, **common}, sentences=SENTENCES)
    folder = tmp_path / model_type
    made.save(folder)
    return str(folder), made


@pytest.mark.parametrize("model_type", ["roberta", "bert", "deberta-v2", "xlm-roberta", "distilbert"])
def test_any_encoder_is_a_verifier(model_type, tmp_path):
    names = {"dim": 32, "n_layers": 1, "n_heads": 2, "hidden_dim": 32} if model_type == "distilbert" else {}
    folder, _ = saved(tmp_path, model_type, MAFW.labels, **names)
    built = build_verifier(DFEW.labels, checkpoint=folder)
    assert built(SENTENCES).shape == (3, 7)
    logits, embeddings = built.logits(SENTENCES, embeddings=True)
    assert (logits.shape, embeddings.shape) == ((3, 7), (3, 32))


def test_a_goemotions_classifier_keeps_its_head(tmp_path):
    order = (*GOEMOTIONS.labels[14:], *GOEMOTIONS.labels[:14])
    folder, made = saved(tmp_path, "roberta", order)
    built = build_verifier(MAFW.labels, checkpoint=folder, head="goemotions28")
    assert built.labels == order
    np.testing.assert_allclose(built(SENTENCES), made(SENTENCES), atol=1e-7)
    targets = built.targets([["happiness"], ["contempt", "helplessness"]])
    assert [{order[i] for i in row.nonzero().flatten()} for row in targets] == [{"joy"}, {"disapproval", "grief"}]
    assert built.columns(["neutral"]) == {"neutral": order.index("neutral")}


def test_unnamed_goemotions_classes_are_in_the_usual_order(tmp_path):
    folder, _ = saved(tmp_path, "roberta", [f"LABEL_{i}" for i in range(28)])
    assert load_verifier(folder).labels == GOEMOTIONS.labels
    assert build_verifier(DFEW.labels, checkpoint=folder, head="goemotions28").labels == GOEMOTIONS.labels


def test_another_head_is_not_taken_for_goemotions(tmp_path):
    folder, _ = saved(tmp_path, "roberta", DFEW.labels)
    with pytest.raises(
        ValueError, match=r"28 GoEmotions classes; .* has 7: happy, sad.*set verifier.model.head=taxonomy"
    ):
        build_verifier(MAFW.labels, checkpoint=folder, head="goemotions28")


def test_calibrated_loading_needs_a_temperature(verifier, tmp_path):
    verifier.save(tmp_path)
    with pytest.raises(ValueError, match=r"calibrated=true needs a temperature, and .* has no erv.json"):
        load_verifier(str(tmp_path), calibrated=True)
    (tmp_path / "erv.json").write_text('{"temperature": 0.5}')
    logits = torch.from_numpy(verifier.predict_logits(SENTENCES))
    np.testing.assert_allclose(
        load_verifier(str(tmp_path), calibrated=True)(SENTENCES), (logits / 0.5).sigmoid().numpy(), atol=1e-6
    )


@pytest.fixture
def mean_verifier():
    torch.manual_seed(0)
    return build_verifier(DFEW.labels, config=SIZES, sentences=SENTENCES, pooling="mean")


def test_mean_pooling_is_the_mean_over_real_tokens_by_hand(mean_verifier):
    mean_verifier.model.eval()
    logits, embeddings = mean_verifier.logits(SENTENCES, embeddings=True)
    head = mean_verifier.model.head
    for i, sentence in enumerate(SENTENCES):
        ids = mean_verifier.tokenizer(sentence, return_tensors="pt")["input_ids"]  # alone: nothing is padding
        mean = mean_verifier.model.encoder(ids).last_hidden_state[0].sum(0) / ids.shape[1]
        torch.testing.assert_close(embeddings[i], mean, atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(logits[i], head.weight @ mean + head.bias, atol=1e-6, rtol=1e-5)
    assert len({len(mean_verifier.tokenizer(s)["input_ids"]) for s in SENTENCES}) > 1  # so together there is padding


def test_mean_pooling_in_training_drops_out_and_leaves_no_weight_without_gradient(mean_verifier):
    mean_verifier.model.train()
    assert mean_verifier.model.dropout.p == 0.1
    first, second = (mean_verifier.logits(SENTENCES)[0] for _ in range(2))
    assert not torch.equal(first, second)
    first.sum().backward()
    assert [name for name, weight in mean_verifier.model.named_parameters() if weight.grad is None] == []


def test_mean_pooling_is_saved_and_loaded(mean_verifier, tmp_path):
    mean_verifier.save(tmp_path)
    again = load_verifier(str(tmp_path))
    assert isinstance(again.model, MeanPoolingClassifier)
    assert again.labels == DFEW.labels
    np.testing.assert_allclose(again(SENTENCES), mean_verifier(SENTENCES), atol=1e-7)
    further = build_verifier(DFEW.labels, checkpoint=str(tmp_path))  # training goes on with the same pooling and head
    np.testing.assert_allclose(further(SENTENCES), mean_verifier(SENTENCES), atol=1e-7)
    with pytest.raises(ValueError, match=r"is a verifier with mean pooling; set verifier.model.pooling=null or mean"):
        build_verifier(DFEW.labels, checkpoint=str(tmp_path), pooling="cls")


def test_transformers_alone_refuses_a_verifier_with_mean_pooling(mean_verifier, tmp_path):
    """The stock head would read the first token of an encoder whose weights it does not have."""
    mean_verifier.save(tmp_path)
    code = "import sys, transformers; transformers.AutoModelForSequenceClassification.from_pretrained(sys.argv[1])"
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "model type `erv_mean_pooling`" in done.stderr
    with safe_open(tmp_path / "model.safetensors", framework="pt") as weights:
        missing = set(RobertaForSequenceClassification(mean_verifier.model.config.encoder).state_dict())
        assert not missing & set(weights.keys())  # nor does the encoder's own class take a weight from it


def write_pooling(folder, **settings):
    """Write the config with which sentence-transformers says how an encoder was trained."""
    file = Path(folder, "1_Pooling", "config.json")
    file.parent.mkdir()
    file.write_text(json.dumps({"word_embedding_dimension": 32, **settings}))


@pytest.mark.parametrize(("file", "mean"), [(True, True), (False, False), (None, False)])
@pytest.mark.parametrize("model_type", ["roberta", "bert"])
def test_without_pooling_the_encoder_is_used_as_it_was_trained(model_type, file, mean, tmp_path):
    folder, made = saved(tmp_path, model_type, MAFW.labels)
    if file is not None:
        write_pooling(folder, pooling_mode_mean_tokens=file)
    built = build_verifier(DFEW.labels, checkpoint=folder)
    assert isinstance(built.model, MeanPoolingClassifier) == mean
    assert built.base_model == model_type
    states = [v.logits(SENTENCES, embeddings=True)[1] for v in (built, made) if not v.model.eval().training]
    assert torch.equal(*states) == (not mean)
    for pooling in ("mean", "cls"):
        chosen = build_verifier(DFEW.labels, checkpoint=folder, pooling=pooling).model
        assert isinstance(chosen, MeanPoolingClassifier) == (pooling == "mean")
        weights = dict(made.model.base_model.named_parameters())
        for name, weight in chosen.base_model.named_parameters():
            assert torch.equal(weight, weights[name])


def test_the_first_token_is_read_where_sentence_transformers_says_so(tmp_path):
    folder, _ = saved(tmp_path, "roberta", MAFW.labels)
    write_pooling(folder, pooling_mode_cls_token=True, pooling_mode_mean_tokens=False)
    assert build_verifier(DFEW.labels, checkpoint=folder).loads_without_erv


@pytest.mark.parametrize(
    ("modes", "named"),
    [
        ({"max_tokens": True, "cls_token": False}, "pooling_mode_max_tokens"),
        ({"mean_tokens": True, "max_tokens": True}, "pooling_mode_mean_tokens, pooling_mode_max_tokens"),
        ({"lasttoken": True, "mean_tokens": False}, "pooling_mode_lasttoken"),
    ],
)
def test_an_encoder_trained_with_another_pooling_is_refused_unless_one_is_set(modes, named, tmp_path):
    """The first token of a max-pooled encoder means nothing: a verifier on it would be trained from a poor start, silently."""
    folder, _ = saved(tmp_path, "roberta", MAFW.labels)
    write_pooling(folder, **{f"pooling_mode_{name}": enabled for name, enabled in modes.items()})
    with pytest.raises(
        ValueError, match=rf"1_Pooling/config.json sets {named}; set verifier.model.pooling=cls \(first token\) or"
    ):
        build_verifier(DFEW.labels, checkpoint=folder)
    for pooling in ("mean", "cls"):
        built = build_verifier(DFEW.labels, checkpoint=folder, pooling=pooling)
        assert built.loads_without_erv == (pooling == "cls")


def test_pooling_that_does_not_fit_is_refused(tmp_path):
    folder, _ = saved(tmp_path, "roberta", GOEMOTIONS.labels)
    with pytest.raises(ValueError, match=r"verifier.model.pooling is cls, mean or null, got 'max'"):
        build_verifier(DFEW.labels, checkpoint=folder, pooling="max")
    with pytest.raises(ValueError, match=r"head=goemotions28 keeps the head of .*set verifier.model.pooling=null"):
        build_verifier(DFEW.labels, checkpoint=folder, head="goemotions28", pooling="mean")


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_a_batch_in_parts_has_the_logits_and_gradients_of_one_pass(pooling, monkeypatch):
    torch.manual_seed(0)
    made = build_verifier(DFEW.labels, config=SIZES, sentences=SENTENCES, pooling=pooling)
    sentences = [" ".join(["the jaw"] * n) for n in (1, 5, 2, 1, 6, 3, 3, 7)]
    weight, shapes, plain = torch.randn(8, 7), [], made._forward

    def forward(batch, **arguments):
        shapes.append(tuple(batch["input_ids"].shape))
        return plain(batch, **arguments)

    monkeypatch.setattr(made, "_forward", forward)
    made.model.eval()
    results = []
    for made.batch_tokens in (10_000, 24):
        logits, embeddings = made.logits(sentences, embeddings=True)
        made.model.zero_grad()
        ((logits * weight).sum() + embeddings[:, 0] @ weight[:, 0]).backward()
        gradients = [parameter.grad for parameter in made.model.parameters() if parameter.grad is not None]
        results.append([logits, embeddings, *gradients])
    assert len(shapes) > 2
    assert all(rows * length <= 24 or rows == 1 for rows, length in shapes[1:])
    assert len(results[0]) == len(results[1])
    for one, parts in zip(*results, strict=True):
        torch.testing.assert_close(one, parts, atol=1e-5, rtol=1e-4)
    made.batch_tokens = 10_000
    assert torch.equal(
        made.logits(sentences)[0], made._forward_fn(**_batch(made, sentences)).logits
    )  # as it always was


def _batch(verifier, sentences):
    batch = verifier.tokenizer(
        sentences, padding=True, truncation=True, max_length=verifier.max_length, return_tensors="pt"
    )
    return {name: batch[name] for name in ("input_ids", "attention_mask")}


CHOICE = {"threshold": 0.4, "temperature": 1.2}
TRAINING = {"rows": 3, "threshold": 0.1, "top_k": 2}
HUMAN = {
    "source": "goemotions",
    "file": "train.tsv",
    "format": "goemotions",
    "rows": {"train": 3, "heldout": 1},
    "languages": ["en"],
    "labelled_by": "human",
    "licence": "CC BY 4.0",
}
MODEL = {
    **HUMAN,
    "source": "pseudo",
    "file": "labels.jsonl",
    "labelled_by": "model-1",
    "languages": [],
    "licence": None,
}


def read_card(sources, **settings):
    """The front matter and the text of a card."""
    _, matter, text = model_card(DFEW.labels, "(tables)\n", CHOICE, TRAINING, sources, **settings).split("---\n", 2)
    return yaml.safe_load(matter), " ".join(text.split())


def test_the_card_of_human_labels_names_base_model_data_language_and_licence():
    matter, text = read_card([HUMAN], base_model="org/encoder")
    assert matter["base_model"] == "org/encoder"
    assert matter["language"] == ["en"]
    assert matter["license"] == "cc-by-4.0"
    assert "base model: org/encoder" in text
    assert "| goemotions | train.tsv | 3 train, 1 heldout | en | CC BY 4.0 | human |" in text
    assert "language model" not in text
    assert "`AutoModelForSequenceClassification` of transformers loads it" in text


def test_the_card_says_which_labels_are_a_language_models():
    matter, text = read_card([HUMAN, MODEL], loads_without_erv=False)
    assert "Labels by a language model (pseudo) hold that model's mistakes." in text
    assert "| pseudo | labels.jsonl | 3 train, 1 heldout | not recorded | not recorded | model-1 |" in text
    assert "license" not in matter  # not known of all the data
    assert "base_model" not in matter
    assert "base model: none, random weights" in text
    assert "`erv.verifier.load_verifier(folder)`" in text
    _, unknown = read_card([{**MODEL, "labelled_by": None}])
    assert "language model" not in unknown
