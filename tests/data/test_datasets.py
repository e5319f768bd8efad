"""Every data set in its published layout: what is read, what is refused, and what does not add up."""

import json
import shutil
import textwrap
import unicodedata
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import trees
from clips import write_wav
from hypothesis import given
from hypothesis import strategies as st

from erv.data.datasets import base
from erv.data.datasets.base import CorpusError, CorpusMissing
from erv.data.datasets.dfew import DFEWCorpus
from erv.data.datasets.file_corpus import FileCorpus
from erv.data.datasets.file_index import FileIndex
from erv.data.datasets.mafw import MAFWCorpus
from erv.data.datasets.manifest import TEMPLATE, ManifestCorpus
from erv.data.datasets.meld import MELDCorpus
from erv.data.datasets.mer2023 import EMERCorpus, MERRCorpus
from erv.data.datasets.mixture import Mixture
from erv.data.datasets.r1omni import InstructionCorpus
from erv.data.datasets.ravdess import RAVDESSCorpus
from erv.data.datasets.subset import stratified_holdout, stratified_subset
from erv.data.media.container import Limits
from erv.data.media.decode import decode
from erv.doctor import leakage
from erv.taxonomy import DFEW, MAFW, Taxonomy, of_labels
from erv.types import Clip, MediaSpec
from erv.utils.tables import read_table

ROWS = {"train": [(1, 4), (2, 1), (3, 7), (5, 1)], "test": [(4, 2)]}
PART = {"expect": "none", "dev": 0.0}


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    return trees.one_clip(tmp_path_factory.mktemp("one"))


def opens(clip):
    info = decode(clip.video, clip.audio, MediaSpec(side=16), Limits()).info
    return info.video is not None and info.video_problem is None and not info.missing


def labels(corpus, split):
    return {clip.id: clip.label for clip in corpus.clips(split)}


@pytest.mark.parametrize(("packaging", "clips"), [("label", None), ("EmoLabel_DataSplit", None), ("label", "folders")])
def test_dfew_in_both_packagings_and_as_pictures(tmp_path, one, packaging, clips):
    trees.dfew(tmp_path, packaging, ROWS, one, clips=clips)
    (tmp_path / "sound").mkdir()
    write_wav(tmp_path / "sound" / "00004.wav")
    corpus = DFEWCorpus(root=str(tmp_path), audio="sound" if clips else None, **PART)
    corpus.require()
    assert labels(corpus, "test") == {"4": "sad"}
    assert labels(corpus, "train") == {"1": "angry", "2": "happy", "3": "fear", "5": "happy"}
    assert all(opens(clip) for clip in corpus.clips("train")) is (not clips)  # no sound file there but for clip 4
    (test,) = corpus.clips("test")
    assert opens(test)
    assert test.source.endswith("5.csv:2")
    assert corpus.identity(test) == "dfew/4"


def test_dfew_has_the_published_counts_or_says_what_is_different(tmp_path):
    rows = trees.published_dfew()
    trees.dfew(tmp_path, "label", rows, None, clips="none")
    corpus = DFEWCorpus(root=str(tmp_path))
    corpus.require()
    assert corpus.warnings() == []
    sizes = {split: len(corpus.clips(split)) for split in ("train", "dev", "test")}
    assert sizes["test"] == 2336
    assert sizes["train"] + sizes["dev"] == 9361
    assert sizes["dev"] == pytest.approx(0.05 * 9361, abs=4)
    counts = {split: Counter(clip.label for clip in corpus.clips(split)) for split in ("train", "dev")}
    for label in DFEW.labels:  # stratified
        share = counts["dev"][label] / (counts["dev"][label] + counts["train"][label])
        assert share == pytest.approx(0.05, abs=0.006)
    moved = {"train": rows["train"][1:], "test": [*rows["test"], (99999, 7)]}
    shutil.rmtree(tmp_path)
    trees.dfew(tmp_path, "label", moved, None, clips="none")
    with pytest.raises(CorpusMissing) as caught:
        DFEWCorpus(root=str(tmp_path)).require()
    for line in (
        "train: 9,360 clips, published are 9,361", "train: 1,955 clips of happy, published are 1,956",
        "test: 181 clips of fear, published are 180", "set data.expect=none",
    ):  # fmt: skip
        assert line in str(caught.value)
    part = DFEWCorpus(root=str(tmp_path), expect="none")
    part.require()
    (warning,) = part.warnings()
    assert warning.startswith("not as published: train: 9,360 clips, published are 9,361; train: 1,955 clips of happy")


PUBLISHED = [  # spec: datasets.md, the table of folds
    (DFEWCorpus, 1, 9356, (489, 379, 534, 435, 294, 29, 181)), (DFEWCorpus, 2, 9356, (489, 379, 534, 435, 294, 29, 181)),
    (DFEWCorpus, 3, 9357, (489, 379, 534, 435, 294, 29, 180)), (DFEWCorpus, 4, 9358, (489, 379, 534, 434, 294, 29, 180)),
    (MAFWCorpus, 1, 7333, 1839), (MAFWCorpus, 2, 7335, 1837), (MAFWCorpus, 3, 7339, 1833), (MAFWCorpus, 4, 7340, 1832),
]  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "fold", "train", "test"),
    [pytest.param(*row, marks=[] if row[1] == 1 else [pytest.mark.slow]) for row in PUBLISHED],
)
def test_the_other_folds_have_their_published_counts(tmp_path, kind, fold, train, test):
    def write(train, test):
        if kind is DFEWCorpus:
            numbers = iter(range(1, 20000))
            rows = {
                "train": [(next(numbers), 1 + i % 7) for i in range(train)],
                "test": [(next(numbers), label) for label, count in enumerate(test, start=1) for _ in range(count)],
            }
            trees.dfew(tmp_path, "EmoLabel_DataSplit", rows, None, fold, clips="none")
        else:
            names = [f"{i:05d}.mp4" for i in range(train + test)]
            listed = [(name, MAFW.labels[i % 11]) for i, name in enumerate(names)]
            trees.mafw(tmp_path, {"train": listed[:train], "test": listed[train:]}, fold=fold)

    write(train, test)
    corpus = kind(root=str(tmp_path), fold=fold)
    corpus.require()
    assert corpus.warnings() == []
    whole = train + (sum(test) if kind is DFEWCorpus else test)
    assert sum(len(corpus.clips(split)) for split in ("train", "dev", "test")) == whole
    write(train - 1, test)
    with pytest.raises(CorpusMissing, match=f"train: {train - 1:,} clips, published are {train:,}"):
        kind(root=str(tmp_path), fold=fold).require()


def test_dfew_that_is_not_there_says_what_is_expected_where_and_how_to_get_it(tmp_path):
    with pytest.raises(CorpusMissing) as caught:
        DFEWCorpus(root=str(tmp_path), fold=3).require()
    for words in (f"DFEW is not at {tmp_path}", "label/single_{train,test}set_3.csv", "set_3.csv", "00001.mp4", "academic use",
                  "dfew-dataset.github.io", "data.root"):  # fmt: skip
        assert words in str(caught.value)
    trees.dfew(tmp_path, "label", ROWS, None, clips="none")
    (tmp_path / "clip").rmdir()
    with pytest.raises(CorpusMissing, match="its clips are nowhere"):
        DFEWCorpus(root=str(tmp_path), expect="none").require()
    (tmp_path / "label" / "single_trainset_5.csv").write_text("id,label\n1,9\n")
    with pytest.raises(
        CorpusError, match=r"single_trainset_5.csv:2: a row is id,label with a label id from 1 to 7; got"
    ):
        DFEWCorpus(root=str(tmp_path), expect="none", clips_in="label").require()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"fold": 6}, "data.fold is 1 to 5, got 6"), ({"dev": 1.0}, "data.dev is the share"),
        ({"limit": 0}, "data.limit is at least 1"),
        ({"taxonomy": "ck"}, "unknown taxonomy 'ck'"), ({"taxonomy": ["sad", "Sad"]}, "one word in lower case"),
        ({"taxonomy": ["sad", "sadness"]}, "forms of one emotion"),
    ],
)  # fmt: skip
def test_settings_that_cannot_be(given, message):
    with pytest.raises(ValueError, match=message):
        DFEWCorpus(root="x", **given)


def test_a_clip_in_train_and_test_or_twice_is_an_error_or_dropped(tmp_path, one):
    trees.dfew(tmp_path, "label", {"train": [(1, 4), (4, 2)], "test": [(4, 2)]}, one)
    message = r"clip 4 is listed twice, in test .*testset_5.csv:2\) and in train .*on_repeat=drop"
    with pytest.raises(CorpusError, match=message):
        DFEWCorpus(root=str(tmp_path), **PART).require()
    trees.dfew(tmp_path, "label", {"train": [(1, 4), (2, 1), (2, 1), (4, 2)], "test": [(4, 2)]}, one)
    with pytest.raises(CorpusError, match="clip 2 is listed twice, in train"):
        DFEWCorpus(root=str(tmp_path), **PART).require()
    corpus = DFEWCorpus(root=str(tmp_path), on_repeat="drop", **PART)
    corpus.require()
    assert labels(corpus, "train") == {"1": "angry", "2": "happy"}
    assert labels(corpus, "test") == {"4": "sad"}
    assert {w for w in corpus.warnings() if "twice" in w} == {
        "1 rows left out: listed twice, in test and train", "1 rows left out: listed twice, in train and train",
    }  # fmt: skip
    trees.dfew(tmp_path, "label", {"train": [(1, 4), (1, 2)], "test": [(4, 2)]}, one)
    with pytest.raises(CorpusError, match="clip 1 is sad here and angry in"):
        DFEWCorpus(root=str(tmp_path), on_repeat="drop", **PART).require()


def test_limits_draw_evenly_and_always_the_same(tmp_path):
    rows = {"train": [(i, 1 + i % 7) for i in range(1, 211)], "test": [(999, 1)]}
    trees.dfew(tmp_path, "label", rows, None, clips="none")
    small = DFEWCorpus(root=str(tmp_path), expect="none", dev=0.1, limit=35, dev_limit=7)
    counts = {split: Counter(clip.label for clip in small.clips(split)) for split in ("train", "dev")}
    assert counts["train"].total() == 35
    assert counts["dev"].total() == 7
    assert all(4 <= n <= 6 for n in counts["train"].values())
    whole = DFEWCorpus(root=str(tmp_path), expect="none", dev=0.1)
    assert set(labels(small, "train")) < set(labels(whole, "train"))
    assert not set(labels(whole, "train")) & set(labels(whole, "dev"))
    again = DFEWCorpus(root=str(tmp_path), expect="none", dev=0.1, limit=35, dev_limit=7)
    assert small.digest() == again.digest() != whole.digest()
    trees.dfew(tmp_path / "elsewhere", "label", rows, None, clips="none")
    assert DFEWCorpus(root=str(tmp_path / "elsewhere"), expect="none", dev=0.1).digest() == whole.digest()


CLIPS = st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 6)), min_size=1, max_size=120)


@given(CLIPS, st.floats(0.02, 0.5))
def test_whole_subjects_are_held_out_and_others_do_not_move(drawn, share):
    clips = [Clip(str(i), "", label, "train", subject=f"s{s}") for i, (label, s) in enumerate(drawn)]
    held = stratified_holdout(clips, share)
    subjects = {clip.subject for clip in clips if clip.id in held}
    assert not subjects & {clip.subject for clip in clips if clip.id not in held}
    alone = [Clip(c.id, "", c.label, "train") for c in clips]
    for label, count in Counter(c.label for c in alone).items():
        taken = sum(c.label == label and c.id in stratified_holdout(alone, share) for c in alone)
        assert abs(taken - share * count) <= 1
    assert [c.id for c in stratified_subset(alone, 5)] == [
        c.id for c in alone if c.id in {d.id for d in stratified_subset(alone, 5)}
    ]
    assert len(stratified_subset(alone, 5)) == min(5, len(alone))


def test_mafw_with_spaces_in_its_paths_and_labels_in_a_spreadsheet(tmp_path, one):
    rows = {"train": [("00025.mp4", "anger"), ("00026.mp4", "disappointment")], "test": [("00030.mp4", "neutral")]}
    trees.mafw(tmp_path, rows, one, spreadsheet={"00025.mp4": "1", "00026.mp4": "11", "00030.mp4": "5"})
    corpus = MAFWCorpus(root=str(tmp_path), **PART)
    corpus.require()
    assert labels(corpus, "train") == {"00025": "anger", "00026": "disappointment"}
    assert opens(corpus.clips("test")[0])
    trees.mafw(tmp_path, rows, one, spreadsheet={"00025.mp4": "6"})
    with pytest.raises(
        CorpusError, match=r"train.txt:1: 00025.mp4 is anger here and sadness in Labels/single-set.xlsx"
    ):
        MAFWCorpus(root=str(tmp_path), **PART).require()
    trees.mafw(tmp_path, rows, one, spreadsheet={"00025.mp4": "12"})
    with pytest.raises(CorpusError, match=r"single-set.xlsx, row 3: column 13 holds label ids from 1 to 11, got '12'"):
        MAFWCorpus(root=str(tmp_path), **PART).require()
    with pytest.raises(
        CorpusMissing, match=r"(?s)MAFW is not at .*the spaces belong to the names.*mafw-database.github.io"
    ):
        MAFWCorpus(root=str(tmp_path / "nowhere")).require()


def test_mafw_has_the_published_counts(tmp_path):
    trees.mafw(tmp_path, trees.published_mafw())
    corpus = MAFWCorpus(root=str(tmp_path))
    corpus.require()
    assert Counter(c.label for c in corpus.clips("test"))["anxiety"] == 183
    with pytest.raises(CorpusMissing, match="MAFW is not at"):
        MAFWCorpus(root=str(tmp_path), fold=4).require()


def test_mafws_compound_classes_are_those_of_its_files(tmp_path, one):
    trees.mafw(tmp_path, trees.published_compound(), kind="compound", fold=1)
    corpus = MAFWCorpus(root=str(tmp_path), kind="compound", fold=1)
    corpus.require()
    assert len(corpus.taxonomy.labels) == 43
    assert corpus.taxonomy.labels[:11] == MAFW.labels
    assert corpus.taxonomy.labels[-1] == "anger_disgust_anxiety"
    assert corpus.taxonomy.normalise("anxious, and angry; also disgusted") == "anger_disgust_anxiety"
    small = {"train": [("1.mp4", "anger_sadness"), ("2.mp4", "fear")], "test": [("3.mp4", "sadness_anger")]}
    trees.mafw(tmp_path / "b", small, one, kind="compound", spreadsheet={"1.mp4": "1,6", "3.mp4": "6,1"})
    part = MAFWCorpus(root=str(tmp_path / "b"), kind="compound", **PART)
    part.require()
    assert labels(part, "test") == {"3": "anger_sadness"}
    assert any("1 combinations of emotions, published are 32" in warning for warning in part.warnings())


def test_both_releases_of_emer_in_both_languages(tmp_path, one):
    trees.emer(tmp_path, 1, [["sample_00000001", "worried", "Oh", "He  frowns.\nHe sighs."]])
    trees.emer(tmp_path, 1, [["sample_00000001", "worried", "哦", "他皱眉。"]], "chi")
    trees.emer(
        tmp_path, 2, [["sample_00000007", "她微笑。", "She smiles."], ["sample_00000008", "他皱眉。", "He frowns."]]
    )
    trees.clip_at(tmp_path / "video" / "sample_00000001.avi", one)
    english = EMERCorpus(root=str(tmp_path), **PART)
    english.require()
    (clip,) = english.clips("train")
    assert (clip.label, clip.rationale, clip.language) == ("worried", "He frowns. He sighs.", "en")
    assert opens(clip)
    assert english.clips("test") == []
    (chinese,) = EMERCorpus(root=str(tmp_path), language="zh", **PART).clips("train")
    assert (chinese.rationale, chinese.language) == ("他皱眉。", "zh")
    with pytest.raises(
        CorpusMissing, match=r"second release has no labels: set data.labels to a CSV .*emer_cold_start"
    ):
        EMERCorpus(root=str(tmp_path), release=2, **PART).require()
    trees.table(tmp_path / "train-label.csv", ["name", "discrete", "valence"], [["sample_00000007", "happy", 1]])
    second = {"root": str(tmp_path), "release": 2, "labels": str(tmp_path / "train-label.csv"), **PART}
    with pytest.raises(
        CorpusError, match=r"final-EMER-reason.csv:3: a row needs name, english, and a label in data.labels"
    ):
        EMERCorpus(**second).require()
    trees.table(tmp_path / "train-label.csv", ["name", "discrete"], [[f"sample_0000000{i}", "happy"] for i in (7, 8)])
    assert labels(EMERCorpus(**second), "train") == {"sample_00000007": "happy", "sample_00000008": "happy"}
    with pytest.raises(CorpusMissing, match="train: 2 clips, published are 332"):
        EMERCorpus(**{**second, "expect": "published"}).require()


def test_both_grains_of_merr(tmp_path, one):
    fine = {"sample_00000047": {"pseu_emotion": "doubt", "smp_reason_caption": "He raises a brow.", "text": "Eh"}}
    trees.merr(tmp_path, fine)
    trees.merr(tmp_path, {"sample_00000001": {"pseu_emotion": "happy", "caption": "A smile."}}, "coarse")
    trees.clip_at(tmp_path / "video" / "sample_00000047.mp4", one)
    (clip,) = MERRCorpus(root=str(tmp_path), **PART).clips("train")
    assert (clip.label, clip.rationale) == ("doubt", "He raises a brow.")
    assert opens(clip)
    (coarse,) = MERRCorpus(root=str(tmp_path), grain="coarse", **PART).clips("train")
    assert (coarse.label, coarse.rationale) == ("happy", "A smile.")
    assert coarse.video.endswith("sample_00000001.mp4")  # not there: where it should have been
    with pytest.raises(CorpusMissing, match="train: 1 clips, published are 4,487"):
        MERRCorpus(root=str(tmp_path)).require()
    trees.merr(tmp_path, [])
    with pytest.raises(CorpusError, match="an object with one entry per clip is expected, got a list"):
        MERRCorpus(root=str(tmp_path), **PART).require()


def test_ravdess_is_in_its_file_names(tmp_path, one):
    for name in ("Actor_01/01-01-03-01-01-01-01", "Actor_24/01-01-08-02-01-01-24", "Actor_01/02-01-03-01-01-01-01",
                 "Actor_01/01-02-02-01-01-01-01", "Actor_01/01-01-99-01-01-01-01"):  # fmt: skip
        trees.clip_at(tmp_path / f"{name}.mp4", one)
    corpus = RAVDESSCorpus(root=str(tmp_path), **PART)
    corpus.require()
    assert labels(corpus, "test") == {"01-01-03-01-01-01-01": "happy", "01-01-08-02-01-01-24": "surprise"}
    assert [clip.subject for clip in corpus.clips("test")] == ["01", "24"]
    song = RAVDESSCorpus(root=str(tmp_path), channel="song", **PART)
    assert labels(song, "test") == {"01-02-02-01-01-01-01": "calm"}
    split = RAVDESSCorpus(root=str(tmp_path), test_actors=[24], **PART)
    assert (list(labels(split, "train")), list(labels(split, "test"))) == (
        ["01-01-03-01-01-01-01"], ["01-01-08-02-01-01-24"],
    )  # fmt: skip
    with pytest.raises(CorpusMissing, match="test: 2 clips, published are 1,440"):
        RAVDESSCorpus(root=str(tmp_path)).require()
    with pytest.raises(CorpusError, match=r"'calm' is not a label of taxonomy 'dfew'.*data.on_unknown=skip"):
        RAVDESSCorpus(root=str(tmp_path), channel="song", taxonomy="dfew", **PART).require()
    skipping = RAVDESSCorpus(root=str(tmp_path), channel="song", taxonomy="dfew", on_unknown="skip", **PART)
    assert skipping.clips("test") == []
    assert skipping.warnings()[0] == "1 rows left out: label 'calm' is not in taxonomy dfew"
    with pytest.raises(ValueError, match=r"data.test_actors are numbers from 1 to 24, got 25"):
        RAVDESSCorpus(root="x", test_actors=[25])


def test_meld_with_its_own_dev_split_and_numbers_used_again(tmp_path, one):
    rows = {
        "train": [(0, 0, "surprise", "Joey"), (125, 3, "joy", "Ross")], "dev": [(0, 0, "neutral", "Joey")],
        "test": [(0, 0, "anger", "Monica")],
    }  # fmt: skip
    trees.meld(tmp_path, rows, one)
    corpus = MELDCorpus(root=str(tmp_path), expect="none")
    corpus.require()
    assert labels(corpus, "train") == {"train_dia0_utt0": "surprise", "train_dia125_utt3": "joy"}
    assert labels(corpus, "dev") == {"dev_dia0_utt0": "neutral"}
    assert labels(corpus, "test") == {"test_dia0_utt0": "anger"}
    assert all(opens(clip) for split in ("train", "dev", "test") for clip in corpus.clips(split))
    assert corpus.clips("test")[0].subject == "Monica"
    with pytest.raises(CorpusMissing, match="dev: 1 clips, published are 1,109"):
        MELDCorpus(root=str(tmp_path)).require()
    assert not any("minutes" in warning for warning in corpus.warnings())
    trees.meld(tmp_path, {"test": [(220, 0, "anger", "Monica")]})
    warning = MELDCorpus(root=str(tmp_path), expect="none").warnings()[-1]
    assert warning.startswith("test_dia220_utt0 is cut wrongly in the release, to minutes")
    mapped = MELDCorpus(root=str(tmp_path), expect="none", taxonomy="dfew")
    assert labels(mapped, "train")["train_dia125_utt3"] == "happy"


def test_instructions_of_both_flavours(tmp_path, one):
    sft = "<think>She smiles.\nHer voice is bright.</think>\n<answer>happy</answer>"
    trees.instructions(tmp_path / "sft.json", [("EMER/sample_00000001.avi", sft)])
    trees.instructions(tmp_path / "rl.json", [("DFEW/videos/00017.mp4", "sad"), ("MAFW/clips/00025.mp4", "anxiety")])
    trees.clip_at(tmp_path / "EMER" / "sample_00000001.avi", one)
    cold = InstructionCorpus(root=str(tmp_path), train="sft.json", test="rl.json", **PART)
    cold.require()
    (clip,) = cold.clips("train")
    assert (clip.label, clip.rationale) == ("happiness", "She smiles.\nHer voice is bright.")
    assert opens(clip)
    assert cold.identity(clip) == "mer2023/sample_00000001"
    assert [cold.identity(c) for c in cold.clips("test")] == ["dfew/17", "mafw/00025"]
    assert [c.label for c in cold.clips("test")] == ["sadness", "anxiety"]
    with pytest.raises(CorpusMissing, match=r"(?s)train: 1 clips, published are 331.*115"):
        InstructionCorpus(root=str(tmp_path), train="sft.json", release="emer_cold_start").require()
    for content, message in (
        ("{}", "a list of entries is expected, got a dict"), ("[", "is no JSON"),
        ('[{"video": "a.mp4"}]', r"bad.json, entry 0: an entry has video and conversations with a turn from gpt"),
    ):  # fmt: skip
        (tmp_path / "bad.json").write_text(content)
        with pytest.raises(CorpusError, match=message):
            InstructionCorpus(root=str(tmp_path), train="bad.json", **PART).require()
    trees.instructions(tmp_path / "out.json", [("../../etc/passwd.mp4", "sad")])
    with pytest.raises(CorpusError, match=r"out.json, entry 0: '../../etc/passwd.mp4' lies outside data.root"):
        InstructionCorpus(root=str(tmp_path), train="out.json", **PART).require()
    with pytest.raises(CorpusMissing, match=r"set data.train"):
        InstructionCorpus(root=str(tmp_path)).require()


def own(tmp_path, text, name="own.csv", **given):
    (tmp_path / name).write_text(text)
    return ManifestCorpus(file=str(tmp_path / name), **{"taxonomy": "dfew", **PART, **given})


def test_the_template_is_a_manifest(tmp_path, one):
    for name in ("anna_01", "ben_04"):
        trees.clip_at(tmp_path / "clips" / f"{name}.mp4", one)
    corpus = own(tmp_path, TEMPLATE)
    corpus.require()
    (anna,), (ben,) = corpus.clips("train"), corpus.clips("test")
    assert (anna.id, anna.label, anna.subject, ben.rationale) == ("clips/anna_01", "happy", "anna", None)
    assert anna.rationale.startswith("The corners of her mouth rise")
    assert opens(anna)


def test_a_manifest_as_csv_jsonl_and_parquet_is_the_same(tmp_path):
    rows = [
        {"name": "a b", "discrete": "Happiness", "split": "train", "rationale": None, "weight": 2.5},
        {"name": "ç.avi", "discrete": "surprised", "split": "VAL", "rationale": "Oh!", "weight": None},
        {"name": "sub/c", "discrete": " angry ", "split": "test", "rationale": "", "weight": 1.0},
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "m.parquet")
    (tmp_path / "m.jsonl").write_text("\n".join(json.dumps(row) for row in rows) + "\n\n")
    trees.table(tmp_path / "m.csv", list(rows[0]), [["" if v is None else v for v in row.values()] for row in rows])
    found = [
        ManifestCorpus(
            file=str(tmp_path / f"m.{kind}"), taxonomy="dfew", columns={"video": "name", "label": "discrete"}, **PART
        )
        for kind in ("csv", "jsonl", "parquet")
    ]
    assert len({corpus.digest() for corpus in found}) == 1
    assert [labels(found[0], s) for s in ("train", "dev", "test")] == [
        {"a b": "happy"}, {"ç": "surprise"}, {"sub/c": "angry"},
    ]  # fmt: skip
    assert found[0].clips("train")[0].weight == 2.5


def test_names_are_problems_of_any_case_suffix_and_unicode_form(tmp_path, one):
    composed = unicodedata.normalize("NFC", "é 陰")
    trees.clip_at(tmp_path / f"{unicodedata.normalize('NFD', composed)}.mp4", one)
    trees.clip_at(tmp_path / "Upper.AVI", one)
    corpus = own(tmp_path, f"video,label\n{composed}.mp4,sad\nupper,sad\n{composed},angry\n", on_repeat="error")
    with pytest.raises(CorpusError, match="is angry here and sad in"):
        corpus.require()
    corpus = own(tmp_path, f"video,label\n{composed}.mp4,sad\nupper,sad\n")
    assert all(opens(clip) for clip in corpus.clips("train"))


@pytest.mark.parametrize(
    ("text", "given", "message"),
    [
        ("video,label\na.mp4,unhappy\n", {},
         r"own.csv:2: 'unhappy' is not a label of taxonomy 'dfew'.*nearest: happy.*on_unknown=skip"),
        ("video,label\n,sad\n", {}, r"own.csv:2: a line needs video and label; got"),
        ("name,label\na.mp4,sad\n", {}, r"own.csv:2: a line needs video and label; got \{'name': 'a.mp4'"),
        ("video,label,split\na.mp4,sad,tset\n", {}, "split is train, dev or test; got 'tset'"),
        ("video,label,weight\na.mp4,sad,-1\n", {}, "weight is a number above 0, got '-1'"),
        ("video,label\n/etc/passwd.mp4,sad\n", {}, r"own.csv:2: '/etc/passwd.mp4' lies outside data.root"),
        ("video,label\n../a.mp4,sad\n", {}, r"'../a.mp4' lies outside data.root"),
        ("video,label,audio\na.mp4,sad,../a.wav\n", {}, r"'../a.wav' lies outside data.root"),
        ("video,label\na.mp4,calm\nb.mp4,bored\nc.mp4,calm\n", {"taxonomy": None},
         r"holds the labels calm \(2\), bored \(1\); say which labels there are: data.taxonomy=\[bored,calm\]"),
    ],
)  # fmt: skip
def test_a_bad_line_is_named(tmp_path, text, given, message):
    with pytest.raises(CorpusError, match=message):
        own(tmp_path, text, **given).require()


def test_own_labels(tmp_path):
    corpus = own(tmp_path, "video,label\na.mp4,calm\nb.mp4,bored\n", taxonomy=["bored", "calm"], neutral="calm")
    corpus.require()
    assert corpus.taxonomy == Taxonomy("manifest_labels", ("bored", "calm"), {"calmness": "calm"}, neutral="calm")
    with pytest.raises(
        CorpusMissing, match=r"(?s)data.file=None is not there.*it begins like this:\nvideo,label,split"
    ):
        ManifestCorpus(taxonomy="dfew").require()
    with pytest.raises(ValueError, match=r"data.columns names some of id, video, .*; got clip"):
        ManifestCorpus(taxonomy="dfew", columns={"clip": "video"})
    (tmp_path / "own.txt").write_text("x")
    with pytest.raises(CorpusError, match=r"a table is a .csv, .tsv, .jsonl, .parquet file, got '.txt'"):
        ManifestCorpus(file=str(tmp_path / "own.txt"), taxonomy="dfew").require()
    assert of_labels("x", ["joy", "sad"]).normalise("happy") == "joy"


def test_dfew_and_mafw_together(tmp_path, one):
    trees.dfew(tmp_path / "D", "label", ROWS, one)
    trees.mafw(tmp_path / "M", {"train": [("00025.mp4", "anxiety")], "test": [("1.mp4", "happiness")]}, one)

    def mixture(**given):
        parts = {
            "dfew": DFEWCorpus(root=str(tmp_path / "D"), **PART),
            "mafw": MAFWCorpus(root=str(tmp_path / "M"), **PART),
        }
        return Mixture(parts=parts, taxonomy="mafw", **given)

    both = mixture(weights={"mafw": 2.5})
    both.require()
    assert labels(both, "train") == {
        "dfew/1": "anger", "dfew/2": "happiness", "dfew/3": "fear", "dfew/5": "happiness", "mafw/00025": "anxiety",
    }  # fmt: skip
    assert labels(both, "test") == {"dfew/4": "sadness", "mafw/1": "happiness"}
    assert [clip.weight for clip in both.clips("train")] == [1, 1, 1, 1, 2.5]
    assert {both.identity(clip) for clip in both.clips("test")} == {"dfew/4", "mafw/1"}
    assert len(mixture(limit=3).clips("train")) == 3
    trees.dfew(tmp_path / "D", "label", {"train": [(4, 2), (5, 1)], "test": [(1, 4)]}, one, fold=2)
    names = [clip.id for split in ("train", "dev", "test") for clip in both.clips(split)]
    assert leakage.find(both, {name: name for name in names}) == [
        "dfew: of the 1 test clips other folds train on 1 by fold 2: do not start from their weights"
    ]
    assert mixture().digest() != both.digest()
    with pytest.raises(ValueError, match=r"data.weights gives a number above 0 to dfew, mafw; got mawf=1"):
        mixture(weights={"mawf": 1})
    trees.instructions(tmp_path / "rl.json", [("DFEW/4.mp4", "sad")])
    parts = {
        "dfew": DFEWCorpus(root=str(tmp_path / "D"), **PART),
        "rl": InstructionCorpus(root=str(tmp_path), train="rl.json", **PART),
    }
    with pytest.raises(
        CorpusError, match=r"dfew/4 is in two of data.parts, test in .* and train in .*leave one of them out"
    ):
        Mixture(parts=parts, taxonomy="mafw").require()


def test_the_example_of_the_contract_is_a_data_set(tmp_path):
    """The adapter in the docstring of base.py, run as it stands there."""
    lines = base.__doc__.split("\n")
    begin = next(i for i, line in enumerate(lines) if line.strip() == "@dataclass(kw_only=True)")
    end = next(i for i, line in enumerate(lines) if line.strip().startswith("Optional:"))
    names = {"Path": Path, "dataclass": dataclass, "ClassVar": ClassVar, "Iterator": Iterator, "Taxonomy": Taxonomy,
             "of_labels": of_labels, "FileCorpus": FileCorpus, "Row": base.Row, "FileIndex": FileIndex,
             "read_table": read_table, "CorpusMissing": CorpusMissing, "__name__": __name__}  # fmt: skip
    exec(textwrap.dedent("\n".join(lines[begin:end])), names)
    corpus = names["MyCorpus"](root=str(tmp_path), session=2, dev=0.25)
    with pytest.raises(CorpusMissing, match=r"session_2.csv is expected there; Mine is at https://example.org"):
        corpus.require()
    trees.table(tmp_path / "session_2.csv", ["id", "emotion"], [[i, "anger" if i % 2 else "calm"] for i in range(16)])
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips" / "3.avi").touch()
    corpus = names["MyCorpus"](root=str(tmp_path), session=2, dev=0.25)
    corpus.require()
    clips = {split: corpus.clips(split) for split in ("train", "dev", "test")}
    assert {split: Counter(clip.label for clip in clips[split]) for split in clips} == {
        "train": {"calm": 6, "angry": 6}, "dev": {"calm": 2, "angry": 2}, "test": {},
    }  # fmt: skip
    (third,) = (clip for split in clips for clip in clips[split] if clip.id == "3")
    assert third.video == str(tmp_path / "clips" / "3.avi")
    assert (third.source, corpus.identity(third)) == (f"{tmp_path / 'session_2.csv'}:5", "mine/3")


def test_configs_compose_for_every_corpus():
    import hydra

    from erv import config
    from erv.cli.command import conf_folder
    from erv.config.schema import PROVIDED

    names = sorted(file.stem for file in (conf_folder() / "data").glob("*.yaml"))
    assert len(names) >= 11
    assert "files" not in names  # the shared keys are no data set: --help lists the files of this folder
    for name in names:
        with hydra.initialize_config_dir(str(conf_folder()), version_base="1.3"):
            cfg = hydra.compose("train", overrides=[f"data={name}", "algo=sft", "name=a", "group=b", "stage=sft"])
        config.check(cfg, PROVIDED)
        corpus = config.build(config.plain(cfg)["data"])
        assert corpus.name
        if name != "synthetic":
            with pytest.raises(
                CorpusMissing, match=r"https://|it begins like this|set data.taxonomy to a built-in one"
            ):
                corpus.require()
    assert Path(conf_folder() / "data" / "dfew_mafw.yaml").is_file()
