"""Every input of hostile.py is refused or neutralised: configs, names, paths, files, texts, replies, secrets.

What is not a text, such as a pickled checkpoint, is made here.
"""

import ast
import contextlib
import io
import json
import os
import pickle
import struct
import sys
import zipfile
from pathlib import Path

import pytest
import torch
import yaml
from commands import ROOT, inside, train
from hostile import (
    CELLS,
    FORMS,
    HTML,
    JSON,
    NAMES,
    NO_NAMES,
    NODES,
    ODD_PATHS,
    OFF_LIST,
    ORDERS,
    PATHS,
    PLAYLISTS,
    REPLIES,
    SECRETS,  # fmt: skip
    TABLES,
    TARGETS,
    TERMINAL,
    YAML,
)
from omegaconf import OmegaConf
from PIL import Image
from report_runs import prediction, write_run

from erv import config
from erv.config import validate
from erv.data.datasets.base import CorpusError
from erv.data.datasets.file_index import path_below
from erv.data.datasets.mafw import MAFWCorpus
from erv.data.datasets.manifest import ManifestCorpus
from erv.data.media.audio import read_audio
from erv.data.media.errors import MediaError
from erv.data.media.frames import read_frames
from erv.errors import ConfigError
from erv.evaluation.judges.api import APIJudge
from erv.evaluation.judges.local import LocalJudge
from erv.evaluation.predictions import read_external
from erv.labeling.labeler import LabelPrompt
from erv.labeling.texts import read_texts
from erv.llm import Chat
from erv.policy.checkpoint import CheckpointError, read_state, read_tokenizer
from erv.rationale import parse
from erv.report.__main__ import main as report
from erv.taxonomy import DFEW
from erv.training.callbacks.checkpoint import AtomicCheckpointIO
from erv.utils.sanitize import cell, visible
from erv.utils.secrets import masked, refused_arguments
from erv.verifier import build_verifier, load_verifier

SECRET = "sk-hostile-0123456789abcdef"


def short(value):
    return ascii(value)[:40]


# Configs


@pytest.mark.parametrize("target", [*TARGETS, *NO_NAMES], ids=short)
def test_a_target_that_is_no_component_is_never_called(target):
    node = {"_target_": "erv.training.Optimizer", "lr": {"_target_": target, "command": "true"}}
    with pytest.raises(ConfigError, match=r"is not allowed|cannot be imported"):
        config.build(node)
    with pytest.raises(ConfigError, match=r"is not allowed|cannot be imported"):
        config.check(OmegaConf.create({"optim": node}))


@pytest.mark.parametrize("place", NODES)
def test_wherever_a_target_stands(place):
    node = {"_target_": "erv.training.Optimizer", **NODES[place]}
    with pytest.raises(ConfigError, match="is not allowed"):
        config.build(node)


@pytest.mark.parametrize("name", NAMES, ids=short)
@pytest.mark.parametrize("key", ["name", "group"])
def test_a_run_cannot_lie_elsewhere(key, name):
    found = [problem.text for problem in validate.problems_in({key: name}, [key], set()) if problem.key == key]
    assert found
    assert "is a folder's name" in found[0]


@pytest.mark.parametrize("text", YAML, ids=short)
def test_a_run_of_somebody_else_is_read_as_plain_values(tmp_path, monkeypatch, text):
    from erv.runs.resolve import training_config

    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(yaml.YAMLError):
        training_config({"policy": {"checkpoint": str(tmp_path / "model")}, "seed": 0})
    assert not (tmp_path / "marker").exists()


@pytest.mark.parametrize("argument", SECRETS, ids=short)
def test_a_secret_on_the_command_line_is_not_written_down(monkeypatch, argument):
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    (problem,) = refused_arguments([argument.format(SECRET)])
    assert SECRET not in problem
    assert masked(argument.format(SECRET)) == argument.format("***")


# Paths and files


@pytest.mark.parametrize("path", PATHS, ids=short)
def test_a_manifest_names_nothing_outside_its_root(tmp_path, path):
    (tmp_path / "clips").mkdir()
    (tmp_path / "x.mp4").write_bytes(b"outside")
    (tmp_path / "m.csv").write_text(f"video,label\n{path},happy\n")
    corpus = ManifestCorpus(root=str(tmp_path / "clips"), file=str(tmp_path / "m.csv"), taxonomy="dfew", expect="none")
    with pytest.raises(CorpusError, match=r"lies outside data\.root"):
        list(corpus.rows())


@pytest.mark.parametrize("path", ODD_PATHS, ids=short)
def test_a_manifest_names_files_not_addresses(tmp_path, path):
    full = path_below(tmp_path, path, "m.csv:2")
    assert full.is_relative_to(tmp_path)
    if "\n" not in path and len(path) < 256:
        with pytest.raises(MediaError):
            read_frames(str(full), 4)


@pytest.mark.parametrize("name", PLAYLISTS)
def test_a_clip_opens_no_other_file(tmp_path, corpus, name):
    (tmp_path / "real.mp4").write_bytes(Path(corpus.clips("test")[0].video).read_bytes())
    (tmp_path / name).write_text(PLAYLISTS[name])
    assert read_frames(str(tmp_path / "real.mp4"), 4).shape[0] == 4
    for read in (lambda path: read_frames(path, 4), read_audio):
        with pytest.raises(MediaError):
            read(str(tmp_path / name))


def bmp(width, height):
    head = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + head


def png(width, height):
    buffer = io.BytesIO()
    Image.new("RGB", (1, 1)).save(buffer, "png")
    content = bytearray(buffer.getvalue())
    content[16:24] = struct.pack(">II", width, height)
    import zlib

    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    return bytes(content)


def wav(rate=16000, channels=1, size=64, claimed=64, bits=16):
    head = struct.pack("<4sI4s4sIHHIIHH4sI", b"RIFF", (36 + claimed) % 2**32, b"WAVE", b"fmt ", 16, 1, channels, rate,
                       rate * channels * bits // 8 % 2**32, channels * bits // 8 % 2**16, bits, b"data", claimed)  # fmt: skip
    return head + bytes(size)


GIF = (
    b"GIF89a"
    + struct.pack("<HH", 65535, 65535)
    + b"\x80\0\0\0\0\0\xff\xff\xff,"
    + struct.pack("<HHHH", 0, 0, 65535, 65535)
)
BOMBS = {
    "pixels.bmp": bmp(60_000, 60_000), "negative.bmp": bmp(-60_000, -60_000), "pixels.png": png(100_000, 100_000), "most.png": png(2**31 - 1, 2**31 - 1),
    "pixels.gif": GIF + b"\0\2\2D\1\0;", "cut.gif": GIF, "empty.mp4": b"", "zeros.mp4": bytes(4096), "header.mp4": b"\0\0\0\x20ftypisom" + bytes(20),
    "box.mp4": b"\xff\xff\xff\xffftypisom" + bytes(64), "box64.mp4": b"\0\0\0\1ftyp" + b"\xff" * 8, "loop.mp4": b"\0\0\0\0moov" * 1000,
    "ebml.mkv": b"\x1a\x45\xdf\xa3" + b"\xff" * 64, "riff.avi": b"RIFF\xff\xff\xff\xffAVI LIST\xff\xff\xff\xff" + bytes(64), "flv.flv": b"FLV\1\5\xff\xff\xff\xff",
    "ogg.ogg": b"OggS" + b"\xff" * 64, "zip.mp4": b"PK\3\4" + bytes(64), "elf.mp4": b"\x7fELF" + bytes(64), "pickle.mp4": pickle.dumps([1, 2]),
}  # fmt: skip
SOUNDS = {
    "rate0.wav": wav(rate=0), "channels0.wav": wav(channels=0), "cut.wav": wav()[:20], "riff.wav": b"RIFF", "nothing.wav": b"",
    "empty.flac": b"fLaC", "flac.flac": b"fLaC" + b"\xff" * 64, "text.wav": b"x" * 100,
}  # fmt: skip


@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", BOMBS)
def test_a_header_that_lies_is_a_corrupt_clip(tmp_path, name):
    file = tmp_path / name
    file.write_bytes(BOMBS[name])
    with pytest.raises(MediaError):
        read_frames(str(file), 4)
    if file.suffix in (".png", ".bmp"):
        with pytest.raises(MediaError):
            read_frames(str(tmp_path), 4)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", SOUNDS)
def test_sound_that_is_none(tmp_path, name):
    (tmp_path / name).write_bytes(SOUNDS[name])
    with pytest.raises(MediaError):
        read_audio(str(tmp_path / name))


@pytest.mark.parametrize(
    "sound", [wav(claimed=2**32 - 1), wav(rate=2**31), wav(channels=1000)], ids=["length", "rate", "channels"]
)
def test_sound_that_claims_more_than_it_is(tmp_path, sound):
    (tmp_path / "x.wav").write_bytes(sound)
    try:
        found = read_audio(str(tmp_path / "x.wav"))
    except MediaError:
        return
    assert found is None or len(found.waveform) < 10_000


def test_what_is_no_file_is_not_opened(tmp_path):
    os.mkfifo(tmp_path / "fifo.mp4")
    (tmp_path / "device.mp4").symlink_to("/dev/zero")
    (tmp_path / "loop.mp4").symlink_to(tmp_path / "loop.mp4")
    with (tmp_path / "huge.mp4").open("wb") as file:
        file.truncate(10**12)
    for name, problem in (
        ("fifo", "no such file"),
        ("device", "no such file"),
        ("loop", "no such file"),
        ("huge", "bytes long"),
    ):
        for read in (lambda path: read_frames(path, 4), read_audio):
            with pytest.raises(MediaError, match=problem):
                read(str(tmp_path / f"{name}.mp4"))


def test_a_spreadsheet_that_unpacks_without_end(tmp_path):
    (tmp_path / "Labels").mkdir()
    with zipfile.ZipFile(tmp_path / "Labels" / "single-set.xlsx", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("xl/worksheets/sheet1.xml", bytes(250 * 10**6))
    with pytest.raises(CorpusError, match="unpacks to 250,000,000 bytes"):
        _ = MAFWCorpus(root=str(tmp_path), expect="none")._spreadsheet_labels
    (tmp_path / "Labels" / "single-set.xlsx").write_bytes(b"no spreadsheet")
    with pytest.raises(CorpusError, match="is no spreadsheet"):
        _ = MAFWCorpus(root=str(tmp_path), expect="none")._spreadsheet_labels


# Weights


class Payload:
    """Does something when it is unpickled; what, is `call`."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def payloads(marker):
    import subprocess

    return {
        "os.system": Payload(os.system, f"touch {marker}"),
        "eval": Payload(eval, f"open({str(marker)!r}, 'w').close()"),
        "exec": Payload(exec, f"open({str(marker)!r}, 'w').close()"),
        "subprocess": Payload(subprocess.check_call, ["touch", str(marker)]),
        "mkdir": Payload(os.mkdir, str(marker)),
        "__import__": Payload(__import__, "antigravity"),
        "torch.hub": Payload(torch.hub.load, "x/y", "z"),
    }


@pytest.mark.parametrize("how", ["zip", "legacy", "pickle", "nested"])
@pytest.mark.parametrize("what", payloads("x"))
def test_pickled_weights_run_nothing(tmp_path, what, how):
    marker = tmp_path / "marker"
    payload = payloads(marker)[what]
    value = {"state_dict": {"weight": torch.zeros(1), "deep": [payload]}} if how == "nested" else payload
    file = tmp_path / "pytorch_model.bin"
    if how == "pickle":
        file.write_bytes(pickle.dumps(value))
    else:
        torch.save(value, file, _use_new_zipfile_serialization=how != "legacy")
    with pytest.raises(CheckpointError, match="cannot be read as weights alone"):
        read_state(tmp_path)
    with pytest.raises(Exception, match=r"[Ww]eights.only|mmap|zip archive|torch.load"):
        AtomicCheckpointIO().load_checkpoint(file)
    (tmp_path / "config.json").write_text('{"model_type": "roberta", "architectures": ["RobertaForSequenceClassification"], '
                                          '"num_hidden_layers": 1, "hidden_size": 8, "num_attention_heads": 1, "vocab_size": 9}')  # fmt: skip
    with pytest.raises(Exception, match=r"[Ww]eights.only|[Uu]npickl|load"):
        load_verifier(str(tmp_path))
    assert not marker.exists()


def safetensors(header, body=b"", length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + body


_ONE = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
WEIGHTS = {
    "nothing": b"", "cut": b"\1\2", "a long header": safetensors({}, length=2**63), "a header of all memory": safetensors({}, length=10**12),
    "no JSON": safetensors(b"{{{{"), "deep JSON": safetensors(b"[" * 100_000), "no UTF-8": safetensors(b"\xff\xfe\xfd"), "a list": safetensors([1]),
    "beyond the end": safetensors({"a": {**_ONE, "data_offsets": [0, 400]}}, bytes(4)), "backwards": safetensors({"a": {**_ONE, "data_offsets": [4, 0]}}, bytes(4)),
    "negative": safetensors({"a": {**_ONE, "data_offsets": [-4, 0]}}, bytes(4)), "overlapping": safetensors({"a": _ONE, "b": {**_ONE, "data_offsets": [2, 6]}}, bytes(6)),
    "of no type": safetensors({"a": {**_ONE, "dtype": "OBJ"}}, bytes(4)), "a huge shape": safetensors({"a": {**_ONE, "shape": [2**40, 2**40]}}, bytes(4)),
    "another shape": safetensors({"a": {**_ONE, "shape": [3]}}, bytes(4)), "a pickle": pickle.dumps({"a": 1}),
}  # fmt: skip


@pytest.mark.parametrize("name", WEIGHTS)
def test_safetensors_that_are_none(tmp_path, name):
    (tmp_path / "model.safetensors").write_bytes(WEIGHTS[name])
    with pytest.raises(CheckpointError, match="cannot be read as weights alone"):
        read_state(tmp_path)


@pytest.mark.parametrize("shard", ["../x.safetensors", "/etc/passwd", "a/b.safetensors", "./../../x.bin"])
def test_an_index_names_files_of_its_folder_only(tmp_path, shard):
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": shard}}))
    with pytest.raises(CheckpointError, match="names files outside its folder"):
        read_state(tmp_path)


def loaders(folder):
    judge = LocalJudge(DFEW, checkpoint=str(folder), name="local", cache=str(folder / "llm.sqlite"))
    return {
        "load_verifier": lambda: load_verifier(str(folder)),
        "build_verifier": lambda: build_verifier(labels=DFEW.labels, checkpoint=str(folder)),
        "tokenizer": lambda: read_tokenizer(folder),
        "judge": judge.require,
        "judge's weights": lambda: judge.loaded,
    }


@pytest.mark.parametrize("loader", ["load_verifier", "build_verifier", "tokenizer", "judge", "judge's weights"])
@pytest.mark.parametrize("where", ["config.json", "tokenizer_config.json"])
def test_a_folder_with_code_is_not_run(tmp_path, loader, where):
    """What `auto_map` names would be imported with trust_remote_code, which is never set."""
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'marker')!r}, 'w').close()\n")
    named = {"AutoConfig": "evil.Evil", "AutoModel": "evil.Evil", "AutoModelForSequenceClassification": "evil.Evil",
             "AutoModelForCausalLM": "evil.Evil", "AutoTokenizer": ["evil.Evil", "evil.Evil"]}  # fmt: skip
    (tmp_path / "config.json").write_text(
        json.dumps({"model_type": "evil", "trust_remote_code": True, "auto_map": named})
    )
    if where == "tokenizer_config.json":
        (tmp_path / "config.json").write_text('{"model_type": "roberta"}')
        (tmp_path / where).write_text(
            json.dumps({"tokenizer_class": "Evil", "trust_remote_code": True, "auto_map": named})
        )
    with contextlib.suppress(Exception):  # most refuse; what counts is that nothing is imported
        loaders(tmp_path)[loader]()
    assert not (tmp_path / "marker").exists()
    assert not any(name.endswith("evil") for name in sys.modules)


def test_no_loader_trusts_what_it_loads():
    """`torch.load` reads weights only, and what could import a folder's code is told not to."""
    asked = {"load": ("torch", "weights_only", True), "from_pretrained": ("Auto", "trust_remote_code", False)}
    found = []
    for file in sorted((ROOT / "erv").rglob("*.py")):
        for call in (node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Call)):
            owner, _, name = ast.unparse(call.func).rpartition(".")
            prefix, keyword, value = asked.get(name, ("no module", "", None))
            if owner.lower().startswith(prefix.lower()):
                given = {k.arg: getattr(k.value, "value", None) for k in call.keywords}
                found.append((f"{file.name}:{call.lineno}", given.get(keyword) is value))
    assert len(found) >= 8
    assert [place for place, safe in found if not safe] == []


# JSON, replies and forms


@pytest.mark.parametrize("name", JSON)
def test_rows_that_are_none_are_named(tmp_path, name):
    file = tmp_path / "rows.jsonl"
    file.write_text(JSON[name] + "\n")
    with pytest.raises(ValueError, match=r"rows.jsonl"):
        read_external(file, {"1": "happy"}, DFEW)
    with pytest.raises(CorpusError, match=r"rows.jsonl"):
        list(ManifestCorpus(file=str(file), taxonomy="dfew").rows())
    with pytest.raises(ValueError, match=r"rows.jsonl"):
        read_texts(str(file), "text", "clip")


@pytest.fixture(scope="module")
def judge(tmp_path_factory):
    return APIJudge(
        DFEW, Chat(model="m", cache=str(tmp_path_factory.mktemp("cache") / "llm.sqlite"), key_variable=None)
    )


@pytest.mark.parametrize("reply", REPLIES, ids=short)
def test_a_reply_that_is_no_answer_is_asked_for_again(judge, reply):
    with pytest.raises(ValueError):  # noqa: PT011 - of any kind: it says that the reply cannot be read
        judge._emotion(reply)
    with pytest.raises(ValueError):  # noqa: PT011
        LabelPrompt(DFEW).parse(reply)


@pytest.mark.parametrize("named", OFF_LIST, ids=short)
def test_a_reply_off_the_list_is_no_emotion(judge, named):
    from erv.llm.reply_cache import Reply

    verdict = judge._verdict(Reply("answered", json.dumps({"emotion": named})))
    assert (verdict.emotion, verdict.status) == (None, "off_list")
    assert LabelPrompt(DFEW).labels(Reply("answered", json.dumps({"emotions": [named]}))) == ([], "off_list")


@pytest.mark.parametrize("text", FORMS, ids=short)
def test_an_answer_without_the_form_is_not_well_formed(text):
    assert not parse(text).well_formed


# Texts


@pytest.mark.parametrize("text", ORDERS, ids=short)
def test_an_explanation_that_gives_orders_is_data(judge, policy, text):
    (question,) = judge._questions([text])
    assert json.loads(question.user) == {"text": text}
    assert "<" not in question.user
    assert question.system == judge._questions(["x"])[0].system
    asked = LabelPrompt(DFEW).question(text)
    assert json.loads(asked.user) == {"text": text}
    tokenizer = policy.processor.tokenizer
    ids = policy.processor.target_ids(text)
    control = {tokenizer.convert_tokens_to_ids(token) for token in tokenizer.get_added_vocab()}
    assert [token for token in ids if token in control] == [policy.processor.end_id]  # the one that ends every answer


@pytest.mark.parametrize("text", ORDERS, ids=short)
def test_a_sentence_ends_no_sequence_of_the_verifier(verifier, text):
    tokenizer = verifier.tokenizer
    ids = tokenizer([text], truncation=True, max_length=64, split_special_tokens=True)["input_ids"][0]
    special = {tokenizer.convert_tokens_to_ids(token) for token in tokenizer.all_special_tokens} - {
        tokenizer.unk_token_id
    }
    assert [token for token in ids if token in special] == [ids[0], ids[-1]]
    verifier.tokenizer = recorder = RecordingTokenizer(tokenizer)
    try:
        verifier.logits([text])
    finally:
        verifier.tokenizer = tokenizer
    assert [arguments["split_special_tokens"] for arguments in recorder.calls] == [True]


class RecordingTokenizer:
    """A tokenizer that notes the keyword arguments of its calls."""

    def __init__(self, tokenizer):
        self.tokenizer, self.calls = tokenizer, []

    def __call__(self, texts, **arguments):
        self.calls.append(arguments)
        return self.tokenizer(texts, **arguments)

    def __getattr__(self, name):
        return getattr(self.tokenizer, name)


@pytest.fixture(scope="module")
def verifier():
    sizes = {
        "model_type": "roberta",
        "hidden_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 1,
        "intermediate_size": 8,
    }
    return build_verifier(labels=DFEW.labels, config=sizes, sentences=["a jaw drops", "the voice is sharp"] * 20)


@pytest.mark.parametrize("text", TERMINAL, ids=short)
def test_a_text_takes_no_hold_of_a_terminal(text):
    shown = visible(f"clip {text} is corrupt")
    assert all(char.isprintable() or char == "\n" for char in shown)
    assert shown.startswith("clip ")


@pytest.mark.parametrize("text", CELLS, ids=short)
def test_a_text_is_no_formula(text):
    assert cell(text) == f"'{text}"
    assert cell(-0.25) == -0.25


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """The report of runs in which everything is hostile, and of the same ones with plain words; its CSV too."""
    root = tmp_path_factory.mktemp("report")
    made = {}
    for kind, of in (("hostile", lambda i: HTML[i % len(HTML)]), ("plain", lambda i: f"word {i}")):
        rows = [
            prediction(i, 2, 4, text=of(i), gold="sad", clip_id=of(i) + str(i), answer=None if i % 5 == 0 else "sad")
            for i in range(len(HTML) * 2)
        ]
        for arm, number in (("one", 1), ("two", 2)):
            settings = {"threshold": 0.1 * number, "words": [of(number), of(number + 1)]}
            write_run(root / kind, of(number).replace("/", "") or arm, 0, rows=rows, settings=settings)
        page = root / f"{kind}.html"
        done = inside(report, root, str(root / kind), "--html", str(page))
        assert done.returncode == 0, done.stderr
        made[kind] = page.read_text()
    return made


@pytest.mark.parametrize("text", HTML, ids=short)
def test_a_text_is_text_on_the_page(pages, text):
    assert text not in pages["hostile"] or (text.isprintable() and not set(text) & set("<>\"'"))


def test_the_page_has_no_element_that_it_would_not_have_with_plain_words(pages):
    from html.parser import HTMLParser

    class Elements(HTMLParser):
        def __init__(self):
            super().__init__()
            self.found = []

        def handle_starttag(self, tag, attributes):
            self.found.append((tag, tuple(name for name, _ in attributes)))

    found = {}
    for kind, page in pages.items():
        elements = Elements()
        elements.feed(page)
        found[kind] = set(elements.found)
    assert found["hostile"] <= found["plain"]


def test_the_commands_meet_them_too(demo):
    """A few through a real command: nothing is left of them but a message and exit code 2."""
    for override, message in (("optim._target_=os.system", "is not allowed"), ("group=../x", "is a folder's name"),
                              ("+optim.hook._target_=erv.cli.jobs.run_jobs", "is not allowed|unknown key")):  # fmt: skip
        done = train(demo, "+exp=sft_demo", "+debug=demo", override, check=False)
        assert done.returncode == 2
        assert any(part in done.stderr for part in message.split("|"))
    assert not (demo / "x").exists()
    assert not (demo / "runs" / "x").exists()


def test_there_are_enough_of_them():
    here = len(BOMBS) + len(SOUNDS) + 3 + 4 + 2 + 4 * len(payloads("x")) + len(WEIGHTS) + 4 + 10
    assert sum(map(len, TABLES.values())) >= 300
    assert sum(map(len, TABLES.values())) + here >= 450
    for name, table in TABLES.items():
        values = list(table.items()) if isinstance(table, dict) else table
        assert len({repr(value) for value in values}) == len(values), name
