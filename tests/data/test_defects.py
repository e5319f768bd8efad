"""Every defect in a tree in DFEW's layout, met by every policy: real files, read as training reads them."""

import shutil

import pytest
import torch
import trees
from clips import cut, without_pictures, write_clip, write_folder, write_wav

from erv.data.clip_reader import ClipReader, UnusableClips
from erv.data.datasets.dfew import DFEWCorpus
from erv.data.media.container import Limits
from erv.data.media.decode_pool import DecoderPool
from erv.data.media.settings import MediaSettings
from erv.types import MediaSpec

BOTH = {"video", "audio"}
SKIP = {"on_missing": "skip", "on_corrupt": "skip"}
GOOD = {"h264", "mpeg4", "variable", "one", "suffix"}  # with picture and sound


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """(The corpus, what is odd about each clip by id); folders and names with spaces and letters of several scripts."""
    root = tmp_path_factory.mktemp("media") / "DFEW données 陰"
    kinds = {
        "h264": lambda path: write_clip(path, frames=40),  # 44.1 kHz stereo
        "mpeg4": lambda path: write_clip(path.with_suffix(".avi"), frames=40, video="mpeg4", audio="mp3"),
        "silent": lambda path: write_clip(path, frames=40, audio=None),
        "variable": lambda path: write_clip(path, frames=40, times=[i * 0.04 + 0.3 * (i > 20) for i in range(40)]),
        "one": lambda path: write_clip(path, frames=1),
        "zero": lambda path: without_pictures(path.with_suffix(".mkv")),
        "truncated": lambda path: cut(root / "whole.mp4", path, 0.5),
        "suffix": lambda path: shutil.copy(root / "whole.mp4", path.with_suffix(".avi")),
        "absent": lambda path: None,
        "text": lambda path: path.write_bytes(b"no video at all" * 50),
    }
    rows = {"train": [(i, 1 + i % 7) for i in range(1, len(kinds) + 1)], "test": []}
    trees.dfew(root, "label", rows, None, clips="none")
    write_clip(root / "whole.mp4", frames=40, faststart=True)
    for (number, _), make in zip(rows["train"], kinds.values(), strict=True):
        make(root / "clip" / f"{number}.mp4")
    corpus = DFEWCorpus(root=str(root), expect="none", dev=0)
    return corpus, {str(i): kind for i, kind in enumerate(kinds, start=1)}


def read(tree, policy, cache, **given):
    """{kind: the modalities that are used}, and (kind, defect, action) of what is noted."""
    corpus, kinds = tree
    settings = MediaSettings(cache=str(cache), workers=1, cache_towers=False, **given)
    reader = ClipReader(settings, policy)
    samples = reader.samples(corpus.clips("train"))
    tensors = {kinds[clip.id]: set(media) for clip, media in (samples.raw(i) for i in range(len(samples)))}
    names = {"pixels": "video", "mel": "audio"}
    kept = {kind: {names[name] for name in found} for kind, found in tensors.items()}
    return kept, {(kinds[note.clip], note.defect, note.action) for note in reader.notes}


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")  # files are decoded once for all tests


LEFT_OUT = {("zero", "corrupt", "skip"), ("truncated", "corrupt", "skip"), ("text", "corrupt", "skip"),
            ("absent", "missing", "skip")}  # fmt: skip
MASKED = {("silent", "no_audio", "mask")}
REPEATED = {("one", "short", "repeat")}


@pytest.mark.parametrize(
    ("chosen", "kept", "noted"),
    [
        ({}, {**dict.fromkeys(GOOD, BOTH), "silent": {"video"}}, LEFT_OUT | MASKED | REPEATED),
        ({"on_no_audio": "skip"}, dict.fromkeys(GOOD, BOTH), LEFT_OUT | REPEATED | {("silent", "no_audio", "skip")}),
        ({"on_short": "skip"}, {**dict.fromkeys(GOOD - {"one"}, BOTH), "silent": {"video"}},
         LEFT_OUT | MASKED | {("one", "short", "skip")}),
        ({"on_corrupt": "mask"}, {**dict.fromkeys(GOOD, BOTH), "silent": {"video"}, "zero": {"audio"}},
         LEFT_OUT - {("zero", "corrupt", "skip")} | {("zero", "corrupt", "mask")} | MASKED | REPEATED),
        ({"on_missing": "mask"}, {**dict.fromkeys(GOOD, BOTH), "silent": {"video"}}, LEFT_OUT | MASKED | REPEATED),
    ],
)  # fmt: skip
def test_what_is_used_under_each_policy(tree, policy, cache, chosen, kept, noted):
    assert read(tree, policy, cache, **{**SKIP, **chosen}) == (kept, noted)


@pytest.mark.parametrize(
    ("chosen", "lines"),
    [
        ({}, ["corrupt: 3; replace them, or set media.on_corrupt=skip or mask",
              "not there: 1; replace them, or set media.on_missing=skip or mask"]),
        ({**SKIP, "on_corrupt": "error"}, ["decodes to 0 frames", "in the middle of a packet", "cannot be decoded"]),
        ({**SKIP, "on_missing": "error"}, ["not there: 1;"]),
        ({**SKIP, "on_no_audio": "error"}, ["media.on_no_audio=skip or mask", "has no sound track"]),
        ({**SKIP, "on_short": "error"}, ["media.on_short=repeat or skip", "has 1 frames, the policy takes"]),
    ],
)  # fmt: skip
def test_what_stops_a_run_under_each_policy(tree, policy, cache, chosen, lines):
    with pytest.raises(UnusableClips) as caught:
        read(tree, policy, cache, **chosen)
    for line in lines:
        assert line in str(caught.value)


def test_a_clip_of_one_frame_is_that_frame_again(tree, policy, cache):
    corpus, kinds = tree
    reader = ClipReader(MediaSettings(cache=str(cache), workers=1, cache_towers=False, **SKIP), policy)
    samples = reader.samples([clip for clip in corpus.clips("train") if kinds[clip.id] == "one"])
    pixels = samples.raw(0)[1]["pixels"]
    assert len(pixels) == policy.processor.num_frames
    assert all(torch.equal(frame, pixels[0]) for frame in pixels)


def test_pictures_without_their_sound_file_and_sound_without_pictures(tmp_path, policy):
    """Folders of pictures with the sound beside them: here one of the two can be missing alone."""
    rows = {"train": [(1, 1), (2, 2), (3, 3)], "test": []}
    trees.dfew(tmp_path, "label", rows, None, clips="none")
    (tmp_path / "sound").mkdir()
    for number in (1, 2):
        write_folder(tmp_path / "data" / f"{number:05d}", frames=9)
    for number in (1, 3):
        write_wav(tmp_path / "sound" / f"{number}.wav", seconds=3.0)
    corpus = DFEWCorpus(root=str(tmp_path), expect="none", dev=0, audio="sound", clips_in="data")
    for choice, kept, noted in (
        ("mask", {"1": BOTH, "2": {"video"}, "3": {"audio"}}, {("2", "missing", "mask"), ("3", "missing", "mask")}),
        ("skip", {"1": BOTH}, {("2", "missing", "skip"), ("3", "missing", "skip")}),
    ):
        tree = corpus, {str(i): str(i) for i in (1, 2, 3)}
        assert read(tree, policy, tmp_path / "cache", on_missing=choice) == (kept, noted)


def test_a_film_of_four_hours_and_an_8k_clip_are_refused_by_name_at_once(tmp_path):
    film = write_clip(tmp_path / "film.mkv", frames=3, times=[0, 7200, 14399], audio=None)
    master = write_clip(tmp_path / "master.mp4", frames=2, size=(7680, 4320), video="mpeg4", audio=None)
    with DecoderPool[str](MediaSpec(), Limits(), 1, timeout_s=20.0) as decoders:
        found = {key: decoded.info for key, decoded in decoders.map([("film", film, None), ("master", master, None)])}
    assert (
        "lasts 14,399 s, at most 600 are read; cut the clip, or raise media.max_seconds" in found["film"].video_problem
    )
    assert "has pictures of 33,177,600 pixels, at most 9,437,184" in found["master"].video_problem
    assert all(info.settled for info in found.values())
