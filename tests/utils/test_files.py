"""Files that are written and read with care: permissions, and limits of JSON and YAML of others."""

import os
import stat

import pytest
from safetensors.numpy import save_file

from erv.utils import documents
from erv.utils.documents import DocumentError, read_json, read_json_lines, read_yaml
from erv.utils.io import obey_umask, replacing, write_json

BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join(['*' + before] * 9)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)
DEEP = "[" * 200_000
BAD = {
    "empty": (b"", "is empty"),
    "blank": (b" \n\n", "is empty"),
    "cut": (b'{"a": [1,', "is no "),
    "binary": (b"\x89PNG\xff\x00\x00", "is no text"),
    "list": (b"[1, 2]", "holds a list, not a mapping"),
    "number": (b"1", "holds a int, not a mapping"),
    "deep": (DEEP.encode(), "nested"),
    "deep mapping": (b'{"a":' * 70 + b"1" + b"}" * 70, "nested more than 64 deep"),
}


@pytest.fixture
def umask():
    """Set the umask for a test."""
    before = os.umask(0o022)
    yield os.umask
    os.umask(before)


def mode(file):
    return stat.S_IMODE(file.stat().st_mode)


@pytest.mark.parametrize(("mask", "expected"), [(0o022, 0o644), (0o002, 0o664), (0o077, 0o600)])
def test_a_file_has_the_permissions_of_the_umask_whatever_writes_it(tmp_path, umask, mask, expected):
    import numpy as np

    umask(mask)
    with replacing(tmp_path / "a.safetensors") as temporary:
        save_file({"a": np.zeros(2)}, temporary)
    save_file({"a": np.zeros(2)}, tmp_path / "b.safetensors")
    obey_umask([tmp_path / "b.safetensors"])
    write_json(tmp_path / "c.json", {})
    assert {file.name: mode(file) for file in tmp_path.iterdir()} == dict.fromkeys(
        ("a.safetensors", "b.safetensors", "c.json"), expected
    )


@pytest.mark.parametrize("kind", BAD)
@pytest.mark.parametrize("read", [read_json, read_yaml])
def test_a_file_that_is_not_what_it_should_be_is_named_with_the_reason(tmp_path, read, kind):
    content, message = BAD[kind]
    file = tmp_path / "x"
    file.write_bytes(content)
    with pytest.raises(DocumentError, match=message) as error:
        read(file)
    assert str(error.value).startswith(f"{file}: ")


def test_limits_of_files(tmp_path, monkeypatch):
    file = tmp_path / "x.yaml"
    file.write_text(BOMB)
    with pytest.raises(DocumentError, match=r"x\.yaml: holds more than 1,000,000 lists and mappings"):
        read_yaml(file)
    file.write_text("a: &a [1]\nb: *a\n")
    assert read_yaml(file) == {"a": [1], "b": [1]}
    file.write_text("a: &a [*a]\n")
    with pytest.raises(DocumentError, match="nested more than 64 deep"):
        read_yaml(file)
    file.write_text(BOMB)
    monkeypatch.setattr(documents, "MAX_BYTES", 100)
    with pytest.raises(DocumentError, match="has more than the 0 MB that are read"):
        read_yaml(file)
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path, tmp_path / "absent"):
        with pytest.raises(DocumentError, match="is no file"):
            read_json(path)


def test_json_lines_end_at_line_feeds_only(tmp_path, monkeypatch):
    file = tmp_path / "x.jsonl"
    file.write_text('\ufeff{"a": "one\u2028two\x85"}\n\n{"a": 2}\n')
    assert list(read_json_lines(file)) == [{"a": "one\u2028two\x85"}, {"a": 2}]
    for content, message in (
        (b"{}\n[1]", ":2: a line is an object, got a list"),
        (b"{}\n{", ":2: is no JSON"),
        (b"{}\n\xff", ":2: is no JSON"),
        (b"{}\n" + DEEP.encode(), ":2: is no JSON"),
    ):
        file.write_bytes(content)
        with pytest.raises(DocumentError, match=message):
            list(read_json_lines(file))
    monkeypatch.setattr(documents, "MAX_LINE", 10)
    file.write_bytes(b"x" * 100)
    with pytest.raises(DocumentError, match=":1: a line has at most"):
        list(read_json_lines(file))
