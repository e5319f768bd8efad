"""Decoding, its errors, and the tower cache."""

import av
import numpy as np
import pytest
import torch

from erv.media.audio import read_audio
from erv.media.cache import TowerCache
from erv.media.errors import CorruptMedia, MissingMedia, NoVideo
from erv.media.frames import frame_indices, read_frames


def write_video(path, frames, audio=None):
    with av.open(str(path), "w", format="mp4") as container:
        video = container.add_stream("libx264", rate=10) if frames is not None else None
        sound = container.add_stream("aac", rate=16000) if audio is not None else None
        if video is not None:
            video.width, video.height, video.pix_fmt = 32, 32, "yuv420p"
            for picture in frames:
                container.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            container.mux(video.encode(None))
        if sound is not None:
            block = av.AudioFrame.from_ndarray(audio[None].astype(np.float32), format="fltp", layout="mono")
            block.sample_rate = 16000
            container.mux(sound.encode(block))
            container.mux(sound.encode(None))
    return str(path)


@pytest.fixture
def grey(tmp_path):
    """Ten frames, each lighter than the one before."""
    frames = [np.full((32, 32, 3), 20 * i + 20, dtype=np.uint8) for i in range(10)]
    return write_video(tmp_path / "grey.mp4", frames)


def test_the_frames_that_were_asked_for(grey):
    shades = read_frames(grey, 4).mean((1, 2, 3))
    assert shades == pytest.approx([20 * i + 20 for i in frame_indices(10, 4)], abs=6)


def test_a_short_clip_repeats_frames(tmp_path):
    path = write_video(tmp_path / "short.mp4", [np.zeros((32, 32, 3), dtype=np.uint8)] * 3)
    assert read_frames(path, 8).shape == (8, 32, 32, 3)


def test_a_silent_file_has_no_sound(grey):
    assert read_audio(grey, 16000) is None


def test_what_is_wrong_with_a_file_is_said(tmp_path, grey):
    with pytest.raises(MissingMedia, match=r"absent.mp4"):
        read_frames(str(tmp_path / "absent.mp4"), 4)
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no mp4 at all" * 50)
    with pytest.raises(CorruptMedia, match=r"broken.mp4"):
        read_frames(str(broken), 4)
    sound = write_video(tmp_path / "sound.mp4", None, np.zeros(16000))
    with pytest.raises(NoVideo, match=r"sound.mp4"):
        read_frames(sound, 4)


def encode(paths):
    encode.calls += len(paths)
    return [{"video": torch.full((2, 3), float(len(p))), "audio": torch.ones(1)} for p in paths]


def test_the_cache_encodes_each_clip_once(tmp_path):
    encode.calls = 0
    paths = []
    for i in range(7):
        paths.append(str(tmp_path / f"{'c' * (i + 1)}.bin"))
        (tmp_path / f"{'c' * (i + 1)}.bin").write_bytes(bytes([i]))
    TowerCache(str(tmp_path / "cache"), "weights", "224").build(paths, encode, batch_size=3, shard=3)
    cache = TowerCache(str(tmp_path / "cache"), "weights", "224")  # another process
    cache.build([*paths, paths[0]], encode)
    assert encode.calls == 7
    loaded = cache.load([paths[4], paths[0], paths[4]])
    assert [row["video"][0, 0].item() for row in loaded] == [len(paths[4]), len(paths[0]), len(paths[4])]
    assert loaded[0]["video"].dtype == torch.float32


def test_other_towers_other_preprocessing_or_other_bytes_are_other_entries(tmp_path):
    encode.calls = 0
    clip = tmp_path / "a.bin"
    clip.write_bytes(b"1")
    root = str(tmp_path / "cache")
    TowerCache(root, "w", "p").build([str(clip)], encode)
    assert TowerCache(root, "other", "p").missing([str(clip)])
    assert TowerCache(root, "w", "other").missing([str(clip)])
    assert not TowerCache(root, "w", "p").missing([str(clip)])
    clip.write_bytes(b"2")
    with pytest.raises(LookupError, match=r"1 clips have no tower features .* first .*a.bin; build them"):
        TowerCache(root, "w", "p").load([str(clip)])


def test_a_shard_that_was_never_finished_is_no_entry(tmp_path):
    encode.calls = 0
    clip = tmp_path / "a.bin"
    clip.write_bytes(b"1")
    cache = TowerCache(str(tmp_path / "cache"), "w", "p")
    cache.folder.mkdir(parents=True)
    (cache.folder / "half.tmp").write_bytes(b"killed while writing")
    cache.build([str(clip)], encode)
    assert encode.calls == 1
    assert len(cache.load([str(clip)])) == 1
