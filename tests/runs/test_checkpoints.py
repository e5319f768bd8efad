"""The checkpoints of a run: which is resumed from when files of some are damaged."""

import pytest

from erv.errors import ConfigError
from erv.runs.checkpoints import Checkpoint, checkpoint_file, list_checkpoints, newest

DAMAGES = {
    "empty": b"",
    "cut": b'{"file": "step-000',
    "binary": b"\x00\xff\xfe",
    "a list": b"[]",
    "deep": b"[" * 100_000,
    "without figures": b'{"file": "step-00000002.ckpt", "bytes": 1, "sha256": "", "iter": 2}',
    "figures that are texts": b'{"file": "a", "bytes": 1, "sha256": "", "iter": 2, "figures": {"dev/fcr": "x"}}',
}


def save(folder, iteration):
    file = checkpoint_file(folder, iteration)
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(b"weights %d" % iteration)
    checkpoint = Checkpoint(file, iteration, {"dev/fcr": 0.5})
    checkpoint.write_manifest()
    return checkpoint


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_manifest_costs_its_checkpoint_only(tmp_path, caplog, damage):
    before, last = save(tmp_path, 1), save(tmp_path, 2)
    last.manifest.write_bytes(DAMAGES[damage])
    assert newest(tmp_path) == before.file
    assert "step-00000002.ckpt has a damaged manifest" in caplog.text
    assert "going on from iteration 1" in caplog.text
    assert [checkpoint.iter for checkpoint in list_checkpoints(tmp_path)] == [1, 2]
    before.manifest.write_bytes(DAMAGES[damage])
    with pytest.raises(ConfigError, match=r"no checkpoint of this run is whole: .*damaged manifest"):
        newest(tmp_path)
