"""What is kept of media: tower outputs, hashes and media information, by any number of processes, killed at any moment."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
import torch
from clips import write_clip, write_folder, write_wav

from erv.data.media.container import Limits
from erv.data.media.decode_pool import DecoderPool
from erv.data.media.feature_builder import TowerEncoding, build_features, probe
from erv.data.media.feature_cache import CacheTooLarge, FeatureCache
from erv.data.media.file_records import FileHashes, Journal, MediaInfoStore
from erv.types import MediaSpec
from erv.utils.tensors import tensors_sha256

SMALL = MediaSpec(num_frames=4, side=16)
BUILD = """
import sys, torch
from erv.data.media.feature_builder import TowerEncoding, build_features
from erv.data.media.feature_cache import FeatureCache
from erv.data.media.container import Limits
from erv.types import MediaSpec
from erv.data.media.file_records import MediaInfoStore, FileHashes
from erv.data.media.decode_pool import DecoderPool
root, pause, *files = sys.argv[1:]
def encode(decoded):
    import os, time
    time.sleep(float(pause))
    with open(f"{root}/encoded", "a") as log:
        log.write("".join(f"{os.getpid()}\\n" for _ in decoded))
    return [{"video": torch.from_numpy(d.frames).float().mean((1, 2))} for d in decoded]
if __name__ == "__main__":
    hashes = FileHashes(f"{root}/hashes")
    clips = {hashes.of_clip(file): (file, None) for file in files}
    with DecoderPool(MediaSpec(num_frames=4, side=16), Limits(), 1) as pool:
        towers = TowerEncoding(FeatureCache(root, "w", "p"), encode, 1000, batch_size=2)
        print(len(build_features(clips, pool, MediaInfoStore(f"{root}/facts", "8"), towers)))
"""


def features(key, value=1.0):
    return {key: {"video": torch.full((2, 3), value), "audio": torch.ones(1)}}


def test_what_is_written_is_read_back_in_half_precision(tmp_path):
    FeatureCache(str(tmp_path), "weights", "224").write({**features("a", 0.1), **features("b", 7.0)})
    cache = FeatureCache(str(tmp_path), "weights", "224")  # another process
    cache.write(features("c", 3.0))
    assert cache.missing(["c", "x", "a", "x"]) == ["x"]
    assert cache.read("b")["video"].tolist() == [[7.0] * 3] * 2
    assert cache.read("a")["video"].dtype == torch.float16
    assert set(cache.read("c")) == {"video", "audio"}
    with pytest.raises(LookupError, match="no tower features of the clip with sha256 x; build them first"):
        cache.read("x")


def test_other_towers_or_other_preprocessing_are_other_entries(tmp_path):
    FeatureCache(str(tmp_path), "w", "p").write(features("a"))
    assert FeatureCache(str(tmp_path), "other", "p").missing(["a"]) == ["a"]
    assert FeatureCache(str(tmp_path), "w", "other").missing(["a"]) == ["a"]
    assert FeatureCache(str(tmp_path), "w", "p").missing(["a"]) == []
    assert tensors_sha256({"w": torch.zeros(2)}) != tensors_sha256({"w": torch.zeros(1, 2)})


def test_a_shard_that_was_never_finished_is_no_entry(tmp_path):
    cache = FeatureCache(str(tmp_path), "w", "p")
    cache.write(features("a"))
    (cache.folder / "half.tmp").write_bytes(b"killed while writing")
    assert FeatureCache(str(tmp_path), "w", "p").missing(["a", "half"]) == ["half"]


def test_a_disk_that_is_too_small_is_said_before_anything_is_decoded(tmp_path):
    free = shutil.disk_usage(tmp_path).free

    def never(_):
        raise AssertionError("nothing may be encoded")

    towers = TowerEncoding(FeatureCache(str(tmp_path), "w", "p"), never, free)
    with pytest.raises(
        CacheTooLarge, match=r"2 clips take .* GB, .* free; set paths.cache .* or media.cache_towers=false"
    ):
        build_features({"a": ("a.mp4", None), "b": ("b.mp4", None)}, None, MediaInfoStore(tmp_path, ""), towers)


def clip_files(folder, count):
    folder.mkdir(exist_ok=True)
    return [write_clip(folder / f"{i:02d}.mp4", frames=5 + i) for i in range(count)]


def building(root, files, pause=0.0):
    script = root / "build.py"
    script.write_text(BUILD)
    return subprocess.Popen(
        [sys.executable, str(script), str(root), str(pause), *files], stdout=subprocess.PIPE, text=True
    )


def encoded(root):
    log = root / "encoded"
    return log.read_text().split() if log.is_file() else []


def test_two_processes_share_the_work_and_do_none_of_it_twice(tmp_path, monkeypatch):
    files = clip_files(tmp_path / "clips", 24)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    text = BUILD.replace(
        "from erv.data.media.feature_builder import",
        "import erv.data.media.feature_builder as b\nb.PART_SIZE = 4\nfrom erv.data.media.feature_builder import",
    )
    monkeypatch.setattr(sys.modules[__name__], "BUILD", text)
    both = [building(tmp_path, files, 0.1) for _ in range(2)]
    assert [process.communicate()[0].strip() for process in both] == ["24", "24"]
    by_process = Counter(encoded(tmp_path))
    assert sum(by_process.values()) == 24
    assert len(by_process) == 2
    cache = FeatureCache(str(tmp_path), "w", "p")
    hashes = FileHashes(tmp_path / "hashes")
    assert cache.missing(hashes.of_clip(file) for file in files) == []
    assert len({float(cache.read(hashes.of_clip(file))["video"].sum()) for file in files}) > 1


@pytest.mark.faults
def test_a_build_killed_anywhere_goes_on_where_it_was(tmp_path, monkeypatch, fault):
    files = clip_files(tmp_path / "clips", 20)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    text = BUILD.replace(
        "from erv.data.media.feature_builder import",
        "import erv.data.media.feature_builder as b\nb.PART_SIZE = 4\nfrom erv.data.media.feature_builder import",
    )
    monkeypatch.setattr(sys.modules[__name__], "BUILD", text)
    process = building(tmp_path, files, 0.3)
    deadline = time.monotonic() + 60
    while len(list(tmp_path.glob("*/*.safetensors"))) < 2:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = 20 - len(
        FeatureCache(str(tmp_path), "w", "p").missing(FileHashes(tmp_path / "hashes").of_clip(f) for f in files)
    )
    assert 0 < done < 20
    before = len(encoded(tmp_path))
    again = building(tmp_path, files)
    assert again.communicate()[0].strip() == "20"
    assert len(encoded(tmp_path)) - before == 20 - done
    fault("killed while the cache is built", "goes on where it was", "nothing made twice, nothing half")


def test_bad_clips_are_known_the_next_time(tmp_path):
    good = write_clip(tmp_path / "a.mp4")
    silent = write_clip(tmp_path / "b.mp4", audio=None, frames=7)
    (tmp_path / "c.mp4").write_bytes(b"nothing" * 99)
    clips = {"a": (good, None), "b": (silent, None), "c": (str(tmp_path / "c.mp4"), None)}
    seen = []

    def encode(decoded):
        seen.extend(d.info.frames for d in decoded)
        return [{"video": torch.zeros(1)} for _ in decoded]

    cache, store = FeatureCache(str(tmp_path / "cache"), "w", "p"), MediaInfoStore(tmp_path / "facts", "8")
    with DecoderPool(SMALL, Limits(), 1) as pool:
        infos = build_features(clips, pool, store, TowerEncoding(cache, encode, 1000))
    assert sorted(seen) == [7, 25]
    assert (infos["b"].audio, infos["c"].video_problem is None) == (None, False)
    again = build_features(
        clips, None, MediaInfoStore(tmp_path / "facts", "8"), TowerEncoding(cache, encode, 1000)
    )  # decodes nothing
    assert again == infos
    assert probe(clips, DecoderPool(SMALL, Limits(), 1), MediaInfoStore(tmp_path / "facts", "8")) == infos
    other = MediaInfoStore(tmp_path / "facts", "other limits")
    assert other.get(clips) == {}


def test_a_hash_is_read_again_when_the_file_changed(tmp_path, monkeypatch):
    clip = tmp_path / "a.mp4"
    clip.write_bytes(b"one")
    os.utime(clip, (1, 1))
    monkeypatch.setattr("erv.data.media.file_records._CLOCK_TICK_S", -1)
    hashes = FileHashes(tmp_path / "hashes")
    first = hashes.of_clip(str(clip))
    opened = []
    plain_open = Path.open
    monkeypatch.setattr(Path, "open", lambda path, *a, **k: opened.append(path) or plain_open(path, *a, **k))
    assert FileHashes(tmp_path / "hashes").of_clip(str(clip)) == first
    assert clip not in opened
    clip.write_bytes(b"two")
    os.utime(clip, (1, 1))  # same size, same modification time: the time of the change still differs
    assert FileHashes(tmp_path / "hashes").of_clip(str(clip)) != first
    assert hashes.of_clip(str(tmp_path / "absent.mp4")) is None
    assert hashes.of_clip(str(clip), str(clip)) != hashes.of_clip(str(clip))


def test_a_file_that_was_just_written_is_not_trusted_to_stay(tmp_path):
    clip = tmp_path / "a.mp4"
    clip.write_bytes(b"one")
    FileHashes(tmp_path / "hashes").of_clip(str(clip))
    assert list(Journal(tmp_path / "hashes").rows()) == []


def test_folders_of_pictures_and_separate_sound_have_hashes_of_all_of_it(tmp_path):
    folder, sound = write_folder(tmp_path / "00001"), write_wav(tmp_path / "a.wav")
    hashes = FileHashes(tmp_path / "hashes")
    first = hashes.of_clip(folder, sound)
    (tmp_path / "00001" / "00001_00003.png").unlink()
    assert hashes.of_clip(folder, sound) != first
    assert hashes.of_clip(str(tmp_path / "absent"), sound) != first


def test_a_line_cut_by_a_kill_is_passed_over(tmp_path):
    first = Journal(tmp_path)
    first.append({"path": "a"})
    file = next(tmp_path.glob("*.jsonl"))
    with file.open("a") as half:
        half.write('{"path": "b')
    second = Journal(tmp_path)
    assert list(second.rows()) == [{"path": "a"}]
    with file.open("a") as rest:
        rest.write('"}\n' + json.dumps({"path": "c"}) + "\n")
    assert list(second.rows()) == [{"path": "b"}, {"path": "c"}]
