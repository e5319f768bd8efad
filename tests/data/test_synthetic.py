"""The embedded corpus: reproducible real files, a grammar that does not contradict itself, and nothing leaks."""

import asyncio
import collections
import hashlib
import json
import subprocess
import sys

import numpy as np
import pytest
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from erv.data.datasets.synthetic import SyntheticCorpus, face, generate, grammar, labels, voice
from erv.data.media.audio import read_audio
from erv.data.media.frames import read_frames
from erv.evaluation.judges.oracle import OracleJudge


def test_the_same_seed_gives_the_same_bytes_at_any_number_of_workers(corpus, tmp_path):
    again = SyntheticCorpus(str(tmp_path / "again"), seed=3, clips=48, dev=8, test=8, workers=2)
    again.prepare()
    for name in ("manifest.jsonl", "labels.jsonl", "grammar.json"):
        assert (corpus.root / name).read_bytes() == (again.root / name).read_bytes()
    row = json.loads((corpus.root / "manifest.jsonl").read_text().splitlines()[0])
    assert hashlib.sha256((again.root / row["video"]).read_bytes()).hexdigest() == row["sha256"]


def test_clips_are_real_files_with_picture_and_sound(corpus):
    clip = corpus.clips("test")[0]
    assert read_frames(clip.video, 4).shape == (4, 64, 64, 3)
    wave = read_audio(clip.video).waveform
    assert wave.shape[0] == pytest.approx(1.5 * 16000, abs=2100)  # aac pads to whole frames
    assert 0.01 < np.abs(wave).max() <= 1.0


def test_splits_are_disjoint_and_complete(corpus):
    ids = {split: {clip.id for clip in corpus.clips(split)} for split in ("train", "dev", "test")}
    assert {split: len(found) for split, found in ids.items()} == {"train": 32, "dev": 8, "test": 8}
    assert len(set.union(*ids.values())) == 48


def test_another_corpus_in_the_folder_is_refused(corpus):
    with pytest.raises(ValueError, match="holds another corpus: seed=3 there, 4 asked for"):
        SyntheticCorpus(str(corpus.root), seed=4, clips=48, dev=8, test=8).prepare()
    with pytest.raises(ValueError, match="dev \\+ test must leave clips to train on"):
        SyntheticCorpus("x", clips=10, dev=5, test=5)


def test_one_modality_of_many_clips_is_blended_never_both():
    rng = np.random.default_rng(0)
    drawn = [generate.strengths(rng, "angry") for _ in range(4000)]
    face, voice = (np.mean([len(pair[i]) == 2 for pair in drawn]) for i in (0, 1))
    assert (face, voice) == pytest.approx((0.30, 0.40), abs=0.03)
    assert not any(len(a) == len(b) == 2 for a, b in drawn)


def test_no_phrase_holds_another_emotions_phrase():
    listed = [(emotion, phrase) for emotion, phrases in grammar.phrases().items() for phrase in phrases]
    for emotion, phrase in listed:
        assert not [p for e, p in listed if e != emotion and f" {phrase} " in f" {p} "], phrase


@pytest.fixture(scope="module")
def oracle(corpus):
    return OracleJudge(str(corpus.root / "grammar.json"))


def read(oracle, texts):
    return asyncio.run(oracle.read(texts))


def test_the_oracle_reads_every_sentence_of_the_grammar(oracle):
    rng = np.random.default_rng(0)
    for emotion in grammar.EMOTIONS:
        for _ in range(20):
            texts = [
                grammar.face(rng, str(rng.choice(grammar.FACE_CUES[emotion]))),
                grammar.voice(rng, str(rng.choice(grammar.VOICE_CUES[emotion]))),
                grammar.conclusion(rng, str(rng.choice(grammar.WORDS[emotion]))),
            ]
            assert [v.emotion for v in read(oracle, texts)] == [emotion] * 3, texts


@pytest.mark.parametrize(
    ("text", "emotion"),
    [
        ("The camera holds still.", "neutral"),
        ("", "neutral"),
        ("The nose wrinkles. The jaw drops.", "surprise"),
        ("The jaw drops. The nose wrinkles.", "disgust"),
        ("The nose wrinkles. The jaw drops. So the scene conveys revulsion. The clip is short.", "disgust"),
        ("THE JAW DROPS", "surprise"),
        ("So the scene conveys enjoyment.", "neutral"),
    ],
)
def test_the_oracle_takes_the_majority_and_breaks_ties_by_the_last(oracle, text, emotion):
    assert read(oracle, [text])[0].emotion == emotion


def test_rationales_are_unfaithful_as_often_as_designed(oracle):
    rng = np.random.default_rng(0)
    drawn = [grammar.rationale(rng, "angry", "red", "blue") for _ in range(1500)]
    found = collections.Counter(v.emotion for v in read(oracle, drawn))
    assert found["angry"] / 1500 == pytest.approx(0.35, abs=0.04)
    assert found["disgust"] / 1500 > 0.55


def test_the_verifiers_sentences():
    rows = labels.rows(0)
    hidden = labels.withheld_phrases(0)
    by_split = {split: [r for r in rows if r["split"] == split] for split in ("train", "heldout", "withheld")}
    assert {split: len(found) for split, found in by_split.items()} == {"train": 3000, "heldout": 600, "withheld": 300}
    assert len(hidden) == round(0.15 * sum(map(len, grammar.phrases().values())))
    for split, rule in (("train", False), ("heldout", False), ("withheld", True)):
        holds = [any(p in r["text"].lower() for p in hidden) for r in by_split[split]]
        assert all(h is rule for h in holds), split
    phrases = {p: e for e, listed in labels.grammar.phrases().items() for p in listed}
    wrong = [
        r for r in by_split["train"]
        if (named := {e for p, e in phrases.items() if p in r["text"].lower()}) and not named & set(r["labels"])
    ]  # fmt: skip
    assert len(wrong) / 3000 == pytest.approx(
        0.08 * 0.75, abs=0.02
    )  # a quarter of sentences hold no phrase of the grammar


def seen_and_heard(index):
    """Emotion, last picture (16 x 16, standardised) and spectrum statistics of one clip, before any coding."""
    rng = np.random.default_rng([5, index])
    emotion = str(rng.choice(grammar.EMOTIONS, p=generate.PRIOR))
    shown, sounded = generate.strengths(rng, emotion)
    picture = face.render(rng, shown, "blue", "grey")[-1].mean(-1).reshape(16, 4, 16, 4).mean((1, 3))
    frames = voice.render(rng, sounded).reshape(-1, 800) * np.hanning(800)
    spectrum = np.log(np.abs(np.fft.rfft(frames))[:, :160].reshape(30, 80, 2).mean(-1) + 1e-3)
    heard = [spectrum.mean(0), spectrum.std(0), np.abs(np.diff(spectrum, axis=0)).mean(0)]
    return emotion, ((picture - picture.mean()) / picture.std()).ravel(), np.concatenate(heard)


def test_picture_or_voice_alone_tell_clearly_less_than_both():
    emotions, pictures, voices = (np.array(c) for c in zip(*map(seen_and_heard, range(1500)), strict=True))

    def accuracy(features):
        model = make_pipeline(StandardScaler(), LinearDiscriminantAnalysis(solver="lsqr", shrinkage=0.3))
        return model.fit(features[:1000], emotions[:1000]).score(features[1000:], emotions[1000:])

    picture, sound, both = accuracy(pictures), accuracy(voices), accuracy(np.hstack([pictures, voices]))
    assert 0.5 < picture < both - 0.08
    assert 0.5 < sound < both - 0.08


def test_the_command_line_makes_a_corpus(tmp_path):
    command = [
        sys.executable,
        "-m",
        "erv.data.datasets.synthetic",
        str(tmp_path / "c"),
        "--clips",
        "6",
        "--dev",
        "1",
        "--test",
        "1",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "corpus in" in done.stdout
    assert len(list((tmp_path / "c" / "clips").glob("*.mp4"))) == 6
    usage = subprocess.run([*command[:3], "--help"], capture_output=True, text=True, check=True).stdout
    assert "--seed SEED" in usage
