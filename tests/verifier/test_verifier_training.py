"""What the verifier is trained on and with: sentences, noise, losses, calibration; and its training through the command."""

import json
import math
import xml.etree.ElementTree as ET
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from commands import run_of, train
from hydra import compose, initialize_config_dir
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from erv import config
from erv.cli.command import conf_folder
from erv.errors import ConfigError
from erv.report.__main__ import main as report
from erv.rewards.explanation import ExplanationReward
from erv.runs.resolve import training_files
from erv.runtime.components import Parts
from erv.taxonomy import DFEW, MAFW
from erv.training.callbacks.nan_guard import NonFiniteCounter, NonFiniteGuard
from erv.training.optim import OptimizerSettings
from erv.verifier import Loss, Sentences, load_verifier
from erv.verifier.calibration import calibrate, fit_temperature, reliability_curve, sigmoid
from erv.verifier.calibration_plot import calibration_svg
from erv.verifier.label_noise import LabelNoise
from erv.verifier.losses import contrastive
from erv.verifier.metrics import predicted_labels


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture
def files(tmp_path):
    pseudo = [{"text": f"p{i}", "labels": ["sad"], "clip": f"c{i // 4}", "status": "ok"} for i in range(400)]
    pseudo += [
        {"text": "x", "labels": [], "clip": "c1", "status": status} for status in ("failed", "off_list", "refused")
    ]
    augmented = [{"text": f"a{i}", "labels": ["fear"], "clip": None, "status": "ok"} for i in range(50)]
    emer = [{"text": f"e{i}", "labels": ["angry"], "split": "train"} for i in range(9)]
    named = (("pseudo", pseudo), ("augmented", augmented), ("emer", emer))
    return {name: write(tmp_path / f"{name}.jsonl", rows) for name, rows in named}


def sources(sentences):
    return {row["source"] for row in sentences.rows("train")}


def test_sources_and_augmentation_are_the_ablation(files):
    assert sources(Sentences(files, DFEW)) == {"pseudo", "emer"}
    assert sources(Sentences(files, DFEW, augmentation=True)) == {"pseudo", "emer", "augmented"}
    assert sources(Sentences(files, DFEW, sources=["emer", "augmented"])) == {"emer"}
    assert sources(Sentences({**files, "emer": None}, DFEW)) == {"pseudo"}


def test_clips_are_held_out_whole_and_augmented_rows_never(files):
    sentences = Sentences(files, DFEW, augmentation=True, heldout=0.2, audit=0.2)
    by_split = {split: sentences.rows(split) for split in ("train", "heldout", "audit")}
    clips = {split: {row["clip"] for row in rows if row.get("clip")} for split, rows in by_split.items()}
    assert not clips["train"] & clips["heldout"]
    assert not clips["train"] & clips["audit"]
    assert not clips["heldout"] & clips["audit"]
    assert 0.1 < len(clips["heldout"]) / 100 < 0.3
    assert sum(row["source"] == "augmented" for row in by_split["train"]) == 50
    assert sum(len(rows) for rows in by_split.values()) == 459  # failed, off_list and refused rows are nowhere
    assert sentences.clips == {f"c{i}" for i in range(100)}


def test_the_audit_verifier_sees_nothing_of_the_others_text(files):
    one, other = (Sentences(files, DFEW, train=split, audit=0.3) for split in ("train", "audit"))
    assert not {row["text"] for row in one.rows("train")} & {row["text"] for row in other.rows("train")}
    assert other.rows("train") == one.rows("audit")
    assert other.rows("audit") == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"heldout": 0.6, "audit": 0.4}, r"are shares that leave rows to train on, got 0.6 \+ 0.4"),
        (
            {"sources": ["merr_fine"]},
            "no labelled sentences of source merr_fine: no file is given; set verifier.data",
        ),
        ({"files": {"pseudo": "nowhere.jsonl"}}, "source pseudo: nowhere.jsonl"),
        ({"files": {}}, "none is chosen"),
        ({"files": {"pseudo": None}, "augmentation": True}, "needs verifier.data.files.augmented"),
        ({"train": "dev"}, "verifier.data.train is train or audit, got 'dev'"),
    ],
)
def test_bad_settings_are_refused(settings, message, files):
    with pytest.raises(ValueError, match=message):
        Sentences(**{"files": files, "taxonomy": DFEW, **settings})


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"labels": ["hungry"]}, r"l.jsonl:1: label 'hungry' has no counterpart in taxonomy 'dfew'.*on_unknown=skip"),
        ({"labels": []}, "a row has at least one label"),
        ({"labels": ["sad"], "split": "rest"}, "split is one of train, .*, got 'rest'"),
    ],
)
def test_bad_rows_are_named_with_their_place(row, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        Sentences({"pseudo": write(tmp_path / "l.jsonl", [{"text": "x", **row}])}, DFEW).rows("train")


ROWS = [{"text": str(i), "labels": [MAFW.labels[i % 11]]} for i in range(2000)]


@pytest.mark.parametrize("shape", ["uniform", "confusion"])
def test_noise_spoils_its_share_and_more_noise_spoils_more_of_the_same(shape):
    low, high = (LabelNoise(rate, shape).apply(ROWS, MAFW, 3) for rate in (0.1, 0.3))
    wrong = [[i for i, row in enumerate(rows) if row["labels"] != ROWS[i]["labels"]] for rows in (low, high)]
    assert (len(wrong[0]) / 2000, len(wrong[1]) / 2000) == (pytest.approx(0.1, abs=0.02), pytest.approx(0.3, abs=0.03))
    assert set(wrong[0]) < set(wrong[1])
    assert all(low[i] == high[i] for i in wrong[0])
    assert all(high[i]["clean_labels"] == ROWS[i]["labels"] for i in wrong[1])
    assert LabelNoise(0.1, shape).apply(ROWS, MAFW, 3) == low
    assert LabelNoise(0.1, shape).apply(ROWS, MAFW, 4) != low
    assert LabelNoise(0.0, shape).apply(ROWS, MAFW, 3) == ROWS


def test_the_shape_of_noise():
    spoiled = {shape: LabelNoise(1.0, shape).apply(ROWS, MAFW, 3) for shape in ("uniform", "confusion")}
    of_anger = {
        shape: {r["labels"][0] for r in rows if r["clean_labels"] == ["anger"]} for shape, rows in spoiled.items()
    }
    assert of_anger == {"uniform": set(MAFW.labels) - {"anger"}, "confusion": {"disgust"}}
    dfew = LabelNoise(1.0, "confusion").apply(
        [{"text": "", "labels": ["sad"]}, {"text": "", "labels": ["fear"]}], DFEW, 0
    )
    assert [row["labels"] for row in dfew] == [["neutral"], ["surprise"]]


def test_sentences_are_spoiled_in_training_only(files):
    sentences = Sentences(files, DFEW, noise=LabelNoise(1.0), heldout=0.2)
    assert all("clean_labels" in row for row in sentences.rows("train"))
    assert all("clean_labels" not in row for row in sentences.rows("heldout"))


LOGITS = torch.tensor([[2.0, -1.0, 0.5], [-3.0, 0.0, 1.0]])
TARGETS = torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]])


def by_hand(entry):
    pairs = zip(LOGITS.flatten().tolist(), TARGETS.flatten().tolist(), strict=True)
    return sum(entry(1 / (1 + math.exp(-z)), t) for z, t in pairs) / 6


def focal(p, t):
    q = p if t else 1 - p
    return -((1 - q) ** 2) * math.log(q)


def asymmetric(p, t):
    shifted = max(p - 0.05, 0)
    return -(1 - p) * math.log(p) if t else -(shifted**4) * math.log(1 - shifted)


def test_losses_by_hand():
    assert Loss()(LOGITS, TARGETS).item() == pytest.approx(
        F.binary_cross_entropy_with_logits(LOGITS, TARGETS).item(), abs=0
    )
    assert Loss("focal")(LOGITS, TARGETS).item() == pytest.approx(by_hand(focal), rel=1e-5)
    assert Loss("asymmetric")(LOGITS, TARGETS).item() == pytest.approx(by_hand(asymmetric), rel=1e-5)
    assert Loss("focal", gamma=0.0)(LOGITS, TARGETS).item() == pytest.approx(Loss()(LOGITS, TARGETS).item(), rel=1e-6)
    plain = Loss("asymmetric", gamma_negative=0.0, gamma_positive=0.0, clip=0.0)(LOGITS, TARGETS)
    assert plain.item() == pytest.approx(Loss()(LOGITS, TARGETS).item(), rel=1e-6)


def test_the_contrastive_part_by_hand():
    z = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]])
    targets = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
    cosines = z @ z.T / 0.5
    want = 0.0
    for i, others in ((0, (1, 2)), (1, (0, 2)), (2, (0, 1))):
        total = sum(math.exp(cosines[i, k]) for k in others)
        jaccard = {
            k: float((targets[i] * targets[k]).sum() / (targets[i] + targets[k]).clamp(max=1).sum()) for k in others
        }
        want -= sum(j * (float(cosines[i, k]) - math.log(total)) for k, j in jaccard.items()) / sum(jaccard.values())
    assert contrastive(z, targets, 0.5).item() == pytest.approx(want / 3, rel=1e-5)
    assert contrastive(z[:1], targets[:1], 0.5).item() == 0.0
    assert contrastive(z[::2], torch.eye(2), 0.5).item() == 0.0
    both = Loss("supcon+bce", contrast=0.3, temperature=0.5)(torch.zeros(3, 2), targets, z)
    assert both.item() == pytest.approx(math.log(2) + 0.3 * want / 3, rel=1e-5)


@pytest.mark.parametrize("name", ["bce", "asymmetric", "focal", "supcon+bce"])
def test_every_loss_learns(name):
    torch.manual_seed(0)
    x, targets = torch.randn(64, 8), (torch.randn(64, 3) > 0.5).float()
    model = torch.nn.Linear(8, 8), torch.nn.Linear(8, 3)
    loss, optimiser = Loss(name, balance="inverse"), torch.optim.Adam([p for m in model for p in m.parameters()], 0.05)
    weights = loss.weights(targets)
    losses = []
    for _ in range(60):
        hidden = model[0](x).tanh()
        value = loss(model[1](hidden), targets, hidden, weights)
        optimiser.zero_grad()
        value.backward()
        optimiser.step()
        losses.append(value.item())
    assert np.isfinite(losses).all()
    assert losses[-1] < 0.8 * losses[0]


def test_balancing_weights():
    targets = torch.tensor([[1.0, 0, 0]] * 6 + [[0, 1.0, 0]] * 2)
    assert Loss().weights(targets) is None
    assert Loss(balance="inverse").weights(targets).tolist() == pytest.approx([0.5, 1.5, 1.0])
    effective = [0.001 / (1 - 0.999**n) for n in (6, 2)]
    mean = sum(effective) / 2
    assert Loss(balance="effective").weights(targets).tolist() == pytest.approx(
        [e / mean for e in effective] + [1], rel=1e-3
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "mse"}, r"algo.loss.name is one of bce, asymmetric, focal, supcon\+bce, got 'mse'"),
        ({"balance": "yes"}, "algo.loss.balance is one of none, inverse, effective, got 'yes'"),
        ({"temperature": 0.0}, "algo.loss.temperature is above 0, got 0.0"),
    ],
)
def test_bad_losses_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Loss(**settings)


def drawn(scale, seed=0):
    """Logits that are `scale` times too sure, and targets drawn from the true probabilities."""
    rng = np.random.default_rng(seed)
    true = rng.normal(0, 2, (4000, 3))
    return (true * scale).astype(np.float32), (rng.random(true.shape) < sigmoid(true)).astype(np.int64)


@pytest.mark.parametrize("scale", [0.4, 1.0, 3.0])
def test_the_temperature_undoes_over_and_underconfidence(scale):
    logits, targets = drawn(scale)
    assert fit_temperature(logits, targets) == pytest.approx(scale, rel=0.06)
    calibration = calibrate(logits, targets, 3, range(3))
    gap = [max(abs(p - t) for p, t, n in curve if n > 200) for curve in (calibration.before, calibration.after)]
    assert gap[1] < 0.06
    assert gap[1] <= gap[0] + 0.02


def test_the_threshold_is_the_best_of_the_sweep():
    logits, targets = drawn(1.0)
    calibration = calibrate(logits, targets, 3, range(3))
    by_threshold = {t: f for t, f, _ in calibration.sweep}
    assert by_threshold[calibration.threshold] == pytest.approx(max(by_threshold.values()))
    per_sentence = [n for _, _, n in calibration.sweep]
    assert per_sentence == sorted(per_sentence, reverse=True)
    assert len(reliability_curve(np.array([[0.05, 1.0]]), np.array([[0, 1]]))) == 2


@given(st.lists(st.floats(0, 1, width=32), min_size=7, max_size=7, unique=True), st.floats(0, 1), st.integers(1, 3))
def test_scores_pick_the_emotions_that_the_reward_finds(p, threshold, top_k):
    values = np.array([p], np.float32)
    reward = ExplanationReward(threshold=threshold, top_k=top_k).emotions(values[0], DFEW.labels)
    if len(set(values[0].tolist())) == 7:
        predicted = predicted_labels(values, np.float32(threshold), top_k)
        assert set(reward) == {DFEW.labels[i] for i in predicted[0].nonzero()[0]}


def test_the_plot_is_a_picture():
    logits, targets = drawn(2.0)
    root = ET.fromstring(calibration_svg(calibrate(logits, targets, 3, range(3)), (0.1, 0.01), "held-out"))
    names = [element.tag.rpartition("}")[2] for element in root.iter()]
    assert names.count("path") == 5
    assert names.count("circle") >= 12


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The demo's verifier as the command trains it, in half of its epochs; it needs few clips, but all sentences."""
    root = tmp_path_factory.mktemp("verifier")
    small = ["data.clips=48", "data.dev=8", "data.test=8", "algo.epochs=6"]
    done = train(root, "+exp=verifier_demo", *small)
    return root, done.stdout


def test_the_demo_verifier_is_good_and_says_so(trained):
    root, printed = trained
    metrics = json.loads((run_of(root, "verifier") / "metrics.json").read_text())
    assert metrics["heldout"]["macro_f1"] >= 0.9
    assert metrics["audit"]["macro_f1"] >= 0.9
    assert metrics["heldout"]["labels_per_sentence"] < 1.2
    assert metrics["chosen"]["measured_on"] == "audit"
    assert metrics["chosen"]["ece_calibrated"] < metrics["chosen"]["ece"]
    assert set(metrics["classes"]) == set(DFEW.labels)
    assert f"| macro_f1            | {metrics['heldout']['macro_f1']:.3f} " in printed
    assert "calibration.svg" in printed
    assert ET.parse(run_of(root, "verifier") / "calibration.svg").getroot().tag.endswith("svg")


def test_the_exported_folder_is_an_ordinary_classifier(trained):
    root, _ = trained
    folder = run_of(root, "verifier") / "model"
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    calibration = json.loads((folder / "erv.json").read_text())
    assert tuple(model.config.id2label.values()) == DFEW.labels
    assert model.config.erv == calibration
    assert 0 < calibration["threshold"] < 1
    batch = AutoTokenizer.from_pretrained(folder)(["The jaw drops."], return_tensors="pt")
    plain = model.eval()(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits.detach()
    np.testing.assert_allclose(load_verifier(str(folder))(["The jaw drops."]), plain.sigmoid().numpy(), atol=1e-6)
    calibrated = load_verifier(str(folder), calibrated=True)(["The jaw drops."])
    np.testing.assert_allclose(calibrated, (plain / calibration["temperature"]).sigmoid().numpy(), atol=1e-5)
    card = (folder / "README.md").read_text()
    assert "pipeline_tag: text-classification" in card
    assert f"threshold {calibration['threshold']:.2f}" in card
    assert "| heldout | audit | withheld |" in card


def test_another_head_loss_and_noise_through_the_command(trained):
    """A local checkpoint of another family takes the taxonomy's head."""
    root, _ = trained
    small = [
        "data.clips=48",
        "data.dev=8",
        "data.test=8",
        "+trainer.limit_train_batches=3",
        "trainer.val_check_interval=2",
    ]
    base = str(run_of(root, "verifier") / "model")
    other = [
        "verifier=bert_large",
        f"verifier.model.checkpoint={base}",
        "algo.loss.name=supcon+bce",
        "algo.loss.balance=effective",
        "verifier.data.noise.rate=0.2",
        "verifier.data.noise.shape=confusion",
        "verifier.data.files.pseudo=${data.root}/labels.jsonl",
    ]
    train(root, "+exp=verifier_demo", *small, "name=other", *other)
    metrics = json.loads((run_of(root, "other") / "metrics.json").read_text())
    assert metrics["sentences"]["loss"] == "supcon+bce"
    assert 400 < metrics["sentences"]["spoiled"] < 800
    assert metrics["heldout"]["macro_f1"] > 0.8  # it started from the trained one

    table = root / "table.md"
    report([str(root / "runs"), "--verifiers", "--table", str(table)])
    lines = table.read_text().splitlines()
    assert [line.split("|")[1].strip() for line in lines[2:4]] == ["other", "verifier"]
    assert f" {100 * metrics['heldout']['macro_f1']:.1f} " in lines[2]


@pytest.fixture
def tree(corpus):
    """The demo's config on the tests' small corpus."""
    p = corpus.parameters
    sizes = [f"data.{name}={p[name]}" for name in ("clips", "dev", "test")]
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        given = [f"seed={p['seed']}", f"data.root={corpus.root}", *sizes]
        return config.plain(compose("train", overrides=["+exp=verifier_demo", *given]))


def test_text_about_evaluation_clips_stops_before_training(tree, corpus, tmp_path):
    for split in ("dev", "test", "train"):
        row = {"text": "x", "labels": ["sad"], "clip": corpus.clips(split)[0].id, "split": "train"}
        tree["verifier"]["data"]["files"]["pseudo"] = write(tmp_path / "l.jsonl", [row, {**row, "split": "heldout"}])
        parts = Parts(tree, tmp_path)
        if split == "train":
            assert len(parts.labelled.rows("train")) == 1
        else:
            message = f"1 of its clips are evaluation clips of this corpus, first {corpus.clips(split)[0].id}"
            with pytest.raises(ConfigError, match=message):
                _ = parts.labelled


def test_training_text_without_held_out_rows_is_refused(tree, tmp_path):
    row = {"text": "x", "labels": ["sad"], "split": "train"}
    tree["verifier"]["data"]["files"]["pseudo"] = write(tmp_path / "l.jsonl", [row])
    with pytest.raises(ConfigError, match=r"verifier\.data has no heldout rows; raise verifier\.data\.heldout"):
        _ = Parts(tree, tmp_path).labelled


def test_other_content_at_the_same_path_is_another_run(tree, tmp_path):
    assert training_files(tree) == {}  # the corpus' own files are told by the corpus
    tree["verifier"]["data"]["files"]["pseudo"] = str(tmp_path / "own.jsonl")
    hashes = []
    for count in (1, 2):
        write(tmp_path / "own.jsonl", [{"text": "x", "labels": ["sad"]}] * count)
        hashes.append(training_files(tree)["verifier.data.files.pseudo"])
    assert len(set(hashes)) == 2


@pytest.mark.parametrize(("limit", "left"), [(0.5, 0.5), (10.0, 5.0), (0.0, 5.0)])
def test_steps_that_lightning_takes_are_clipped(tmp_path, limit, left):
    weight = torch.nn.Parameter(torch.zeros(2))
    weight.grad = torch.tensor([3.0, 4.0])
    loop = SimpleNamespace(epoch_loop=SimpleNamespace(batch_idx=0))
    trainer = SimpleNamespace(strategy=None, fit_loop=loop, default_root_dir=tmp_path)
    module = SimpleNamespace(
        automatic_optimization=True,
        optim=OptimizerSettings(1.0, max_grad_norm=limit),
        nonfinite=NonFiniteCounter(1),
        trainer=trainer,
    )
    steps = NonFiniteGuard()
    steps.loss = 1.0
    steps.on_before_optimizer_step(trainer, module, torch.optim.SGD([weight], 1.0))
    assert float(weight.grad.norm()) == pytest.approx(left, rel=1e-5)
