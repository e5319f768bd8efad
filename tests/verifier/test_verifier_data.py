"""Text tables and published layouts as the verifier's training set, and a verifier trained on them without clips."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from commands import run_of, train
from omegaconf import OmegaConf
from snapshots import composed
from transformers import BertConfig, BertForMaskedLM, BertTokenizerFast

from erv import config
from erv.config.history import ADDED
from erv.data.datasets.base import CorpusMissing
from erv.data.datasets.labels_only import LabelsCorpus
from erv.taxonomy import DFEW, GOEMOTIONS, MELD, of_labels
from erv.utils.tables import read_table, table_files
from erv.verifier import Sentences


def put(path, text, encoding="utf-8"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode(encoding))
    return str(path)


def read(source, taxonomy=DFEW, format_="table", **settings):
    return Sentences({"mine": source}, taxonomy, formats={"mine": format_}, **settings)


def pairs(sentences, split="train"):
    return [(row["text"], row["labels"]) for row in sentences.rows(split)]


CSV = 'text,labels,split\n"Well, yes.",happy,train\nNo!,"sad, angry; fear",train\nOh.,4,dev\nAh.,surprise,test\n'


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "parquet"])
def test_tables_of_every_kind_hold_the_same_rows(kind, tmp_path):
    rows = [
        {"text": "Well, yes.", "labels": ["happy"], "split": "train"},
        {"text": "No!", "labels": ["sad", "angry", "fear"], "split": "train"},
        {"text": "Oh.", "labels": [4], "split": "dev"},
        {"text": "Ah.", "labels": ["surprise"], "split": "test"},
    ]
    file = tmp_path / f"t.{kind}"
    if kind == "parquet":
        names = [{**row, "labels": [str(label) for label in row["labels"]]} for row in rows]
        pq.write_table(pa.Table.from_pylist(names), file)
    elif kind == "jsonl":
        put(file, "".join(f"{json.dumps(row)}\n" for row in rows))
    else:
        text = (
            CSV if kind == "csv" else CSV.replace('"sad, angry; fear"', "sad angry|fear").replace('"Well, yes."', "W")
        )
        put(file, text if kind == "csv" else text.replace(",", "\t").replace("W", "Well, yes."))
    found = read(str(file))
    assert pairs(found) == [("Well, yes.", ["happy"]), ("No!", ["sad", "angry", "fear"])]
    assert pairs(found, "heldout") == [("Oh.", ["surprise"])]
    assert pairs(found, "audit") == [("Ah.", ["surprise"])]


def test_a_byte_order_mark_and_windows_line_ends_are_no_part_of_the_table(tmp_path):
    file = put(tmp_path / "t.csv", "\ufefftext,labels,split\r\nOh.,happy,train\r\n")
    assert pairs(read(file)) == [("Oh.", ["happy"])]


def test_a_line_separator_within_a_text_ends_no_row(tmp_path):
    file = put(tmp_path / "t.jsonl", '{"text": "one\u2028two", "labels": ["sad"], "split": "train"}\n')
    assert pairs(read(file)) == [("one\u2028two", ["sad"])]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("text,labels\nOh.,9\n", r"t.csv:2: label 9 is no index from 0 to 6"),
        ("text,labels\nOh.,hungry\n", "t.csv:2: label 'hungry' has no counterpart in taxonomy 'dfew'"),
        ("text,label\nOh.,happy\n", "t.csv:2: there is no column 'labels', but text, label"),
        ("words,labels\nOh.,happy\n", "t.csv:2: text is a text that is not empty, got 'no such column'"),
        ("text,labels\n,happy\n", "t.csv:2: text is a text that is not empty, got ''"),
        ("text,labels\nOh.,\n", "t.csv:2: a row has at least one label"),
        ('text,labels\nAh.,sad\n"Oh.,happy\nNo.,sad\n', "t.csv:3: is no row of a table .*is a quote left open"),
        ("text,labels\nWell, yes.,happy\n", "t.csv:2: 3 cells under 2 columns"),
        ("text,text\nOh.,happy\n", "t.csv:1: column 'text' is named twice"),
        ("text,labels,split\nOh.,happy,rest\n", "t.csv:2: split is one of train, .* got 'rest'"),
        ("", "no row of split 'train' to train on in .*t.csv"),
    ],
)
def test_bad_tables_are_refused_with_file_and_line(text, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        read(put(tmp_path / "t.csv", text)).rows("train")


def test_what_is_missing_in_a_data_frame_is_refused(tmp_path):
    file = put(tmp_path / "t.jsonl", '{"text": "Oh.", "labels": NaN}\n')
    with pytest.raises(ValueError, match=r"t.jsonl:1: a row has at least one label"):
        read(file).rows("train")
    file = put(tmp_path / "u.jsonl", '{"text": NaN, "labels": ["sad"]}\n')
    with pytest.raises(ValueError, match=r"u.jsonl:1: text is a text that is not empty, got None"):
        read(file).rows("train")


def test_other_encodings_are_told_with_the_line(tmp_path):
    file = put(tmp_path / "t.csv", "text,labels\nOh.,sad\nIt’s.,sad\n", "cp1252")
    with pytest.raises(ValueError, match=r"t.csv:3: is not UTF-8 \(byte 0x92\).*iconv -f cp1252"):
        list(read_table(file))


def test_a_file_for_each_split(tmp_path):
    for name in ("train", "dev", "test"):
        put(tmp_path / f"{name}.tsv", f"text\tlabels\n{name}\thappy\n")
    put(tmp_path / "other" / "train.tsv", "not\ta\ttable of this\tdata set\n")
    given = {name: str(tmp_path / f"{name}.tsv") for name in ("train", "dev", "test")}
    for source in (str(tmp_path), given):
        found = read(source)
        assert [pairs(found, split)[0][0] for split in ("train", "heldout", "audit")] == ["train", "dev", "test"]
    with pytest.raises(ValueError, match=r"mine: a file for each split is .*got rest"):
        read({"rest": given["train"]})
    with pytest.raises(ValueError, match=r"no table \(.csv, .tsv, .jsonl, .parquet\) lies in this folder"):
        table_files(put(tmp_path / "empty" / "x.md", "").removesuffix("/x.md"))


def goemotions(root, names="anger\njoy\nneutral", **splits):
    put(root / "labels.txt", names)
    for split, text in splits.items():
        put(root / f"{split}.tsv", text)
    return str(root)


def test_goemotions(tmp_path):
    texts = {"train": '"Oh," he said.\t0,2\ta1\n"No\t1\ta2\n', "dev": "Ah.\t2\ta3\n", "test": "Yes.\t0,1,2\ta4\n"}
    found = read(goemotions(tmp_path, **texts), DFEW, "goemotions")
    assert pairs(found) == [('"Oh," he said.', ["angry", "neutral"]), ('"No', ["happy"])]
    assert pairs(found, "audit") == [("Yes.", ["angry", "happy", "neutral"])]
    assert found.provenance() == [
        {
            "source": "mine",
            "file": "dev.tsv, test.tsv, train.tsv",
            "format": "goemotions",
            "rows": {"heldout": 1, "audit": 1, "train": 2},
            "languages": ["en"],
            "labelled_by": "human",
            "licence": "Apache-2.0",
        }
    ]
    (tmp_path / "labels.txt").unlink()
    with pytest.raises(ValueError, match=r"labels are indices, and labels.txt is not beside"):
        read(str(tmp_path), DFEW, "goemotions").rows("train")


def test_labels_without_counterpart_stop_the_run_or_leave_rows_out(tmp_path):
    folder = goemotions(tmp_path, "joy\ngratitude", train="Oh.\t0\t1\nThanks.\t0,1\t2\nTa.\t1\t3\n")
    with pytest.raises(ValueError, match=r"train.tsv:2: label 'gratitude' has no counterpart in taxonomy 'dfew'"):
        read(folder, DFEW, "goemotions").rows("train")
    found = read(folder, DFEW, "goemotions", on_unknown="skip")
    assert pairs(found) == [("Oh.", ["happy"])]
    assert found.warnings() == [
        "verifier.data: 2 rows left out: label 'gratitude' of mine has no counterpart in taxonomy 'dfew'"
    ]
    assert len(read(folder, GOEMOTIONS, "goemotions").rows("train")) == 3


def test_brighter(tmp_path):
    head = "id,text,anger,fear,joy\n"
    put(tmp_path / "train" / "chn.csv", f"{head}1,甲,1,1,0\n2,乙,0,0,0\n")
    put(tmp_path / "test" / "eng.csv", f"{head}3,Who knows,,,\n")
    found = read(str(tmp_path), DFEW, "brighter")
    assert pairs(found) == [("甲", ["angry", "fear"]), ("乙", ["neutral"])]
    assert found.warnings() == ["verifier.data: 1 rows left out: mine has no labels for them"]
    assert found.provenance()[0]["languages"] == ["zh"]
    put(tmp_path / "train" / "chn.csv", f"{head}1,甲,2,1,0\n")
    with pytest.raises(ValueError, match=r"chn.csv:2: an emotion of BRIGHTER's track A is 0 or 1, got anger 2"):
        read(str(tmp_path), DFEW, "brighter").rows("train")


@pytest.mark.parametrize(("text", "encoding"), [("It’s", "utf-8"), ("It’s", "cp1252"), ("It\x92s", "utf-8")])
def test_meld_in_each_encoding_of_its_releases(text, encoding, tmp_path):
    head = "Sr No.,Utterance,Speaker,Emotion,Dialogue_ID,Utterance_ID\n"
    put(tmp_path / "train_sent_emo.csv", f'{head}1,"{text}, no.",Ann,joy,0,1\n', encoding)
    found = read(str(tmp_path), MELD, "meld")
    assert pairs(found) == [("It’s, no.", ["joy"])]
    assert found.provenance()[0]["licence"] == "GPL-3.0"


def test_emobank_is_valence(tmp_path):
    rows = "id,split,V,A,D,text\n1,train,2.7,3,3,No.\n2,train,3.0,3,3,Well.\n3,train,3.5,3,3,Yes.\n"
    file = put(tmp_path / "emobank.csv", rows)
    valence = of_labels("valence", ("positive", "negative", "neutral"))
    assert pairs(read(file, valence, "emobank")) == [
        ("No.", ["negative"]),
        ("Well.", ["neutral"]),
        ("Yes.", ["positive"]),
    ]
    with pytest.raises(ValueError, match=r"emobank.csv:2: label 'negative' has no counterpart in taxonomy 'dfew'"):
        read(file, DFEW, "emobank").rows("train")
    for value in ("high", "nan", "7"):
        with pytest.raises(ValueError, match=f"emobank.csv:2: V is the valence, a number from 1 to 5, got .?{value}"):
            read(put(tmp_path / "emobank.csv", rows.replace("2.7", value)), valence, "emobank").rows("train")


def test_who_labelled_is_told_by_the_rows(tmp_path):
    file = put(tmp_path / "t.csv", "text,labels,split,labelled_by,language\nOh.,sad,train,model-1,de\nAh.,sad,dev,,\n")
    found = read(file).provenance()[0]
    assert (found["labelled_by"], found["languages"], found["licence"]) == ("model-1", ["de"], None)


def test_unknown_formats_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"verifier.data.formats.mine is one of table, goemotions, .*got 'xml'"):
        read(put(tmp_path / "t.csv", CSV), format_="xml")


def test_a_label_set_is_a_corpus_without_clips():
    corpus = LabelsCorpus(taxonomy=["good", "bad", "calm"], neutral="calm")
    assert (corpus.taxonomy.labels, corpus.taxonomy.neutral) == (("good", "bad", "calm"), "calm")
    assert corpus.clips("train") == []
    assert corpus.digest() != LabelsCorpus(taxonomy=["good", "bad", "calm"], neutral="bad").digest()
    with pytest.raises(CorpusMissing, match=r"set data.taxonomy to a built-in one"):
        LabelsCorpus().require()


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    """A BERT of random weights, as a folder."""
    folder = tmp_path_factory.mktemp("bert")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "i", "am", "so", *DFEW.labels, "."]
    vocabulary = Path(put(folder / "vocab.txt", "\n".join(words)))
    BertTokenizerFast(vocab_file=str(vocabulary)).save_pretrained(folder)
    size = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    BertForMaskedLM(BertConfig(vocab_size=len(words), max_position_embeddings=32, **size)).save_pretrained(folder)
    return folder


def test_a_verifier_is_trained_from_a_table_and_an_encoder_without_clips(encoder, tmp_path):
    rows = [f"I am so {label} .\t{label}" for label in DFEW.labels] * 6
    rows.append("I am .\thappy,sad,fear")
    for split in ("train", "dev", "test"):
        put(tmp_path / "table" / f"{split}.tsv", "\n".join(["text\tlabels", *rows]))
    overrides = [
        "data=labels", "data.taxonomy=dfew", "trainer=cpu", "verifier.data.augmentation=false", "algo.epochs=1",
        "algo.batch_size=8", "trainer.val_check_interval=null", f"verifier.model.checkpoint={encoder}", "group=text",
    ]  # fmt: skip
    train(tmp_path, "+exp=verifier_roberta", *overrides, f"verifier.data.files.table={tmp_path / 'table'}")
    run = run_of(tmp_path, "verifier", "text")
    assert json.loads((run / "metrics.json").read_text())["sentences"]["rows"] == 43
    card = " ".join((run / "model" / "README.md").read_text().split())
    assert f"base_model: {encoder.name}" in card
    assert "| table | dev.tsv, test.tsv, train.tsv | 43 heldout, 43 audit, 43 train | not recorded |" in card
    assert "Labels by a language model" not in card


def test_stages_that_read_clips_refuse_a_label_set(tmp_path):
    done = train(tmp_path, "+exp=sft_demo", "data=labels", "data.taxonomy=dfew", check=False)
    assert done.returncode != 0
    assert "data=labels is a label set without clips" in done.stderr
    assert "stage sft reads clips: set data=NAME" in done.stderr
    done = train(tmp_path, "+exp=verifier_roberta", "data=null", check=False)
    assert done.returncode != 0
    assert "no data is chosen: set data=NAME" in done.stderr
    assert "Traceback" not in done.stderr


def test_keys_that_came_later_change_no_signature_at_their_defaults():
    added = composed("+exp=verifier_roberta", "trainer=cpu")
    older = OmegaConf.create(OmegaConf.to_container(added))
    for dotted in ADDED:
        *parents, last = dotted.split(".")
        OmegaConf.select(older, ".".join(parents)).pop(last)
    assert config.signature(added) == config.signature(older)
    added.verifier.data.on_unknown = "skip"
    assert config.signature(added) != config.signature(older)
