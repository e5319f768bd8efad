"""Decoding in processes of its own: order, crashes, hangs, memory, and 500 damaged files."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
from clips import number_of, tone, write_clip, write_wav

from erv.data.media import decode_pool
from erv.data.media.container import Limits
from erv.data.media.decode_pool import DecoderPool, DecodersDie
from erv.data.media.frames import frame_indices
from erv.types import MediaSpec

SPEC = MediaSpec(side=48, aspect="squash")


def decoders(workers=2, **settings):
    return DecoderPool(SPEC, Limits(), workers, **settings)


def test_clips_come_in_order_with_their_keys(tmp_path):
    lengths = [60, 10, 30, 9, 45, 8, 20, 12, 11, 33]
    clips = [(n, write_clip(tmp_path / f"{n}.mp4", frames=n), None) for n in lengths]
    with decoders() as pool:
        found = list(pool.map([*clips, ("absent", str(tmp_path / "absent.mp4"), None)]))
        assert [key for key, _ in found] == [*lengths, "absent"]
        for key, decoded in found[:-1]:
            assert decoded.info.frames == key
            assert number_of(decoded.frames) == frame_indices(key, 8)
        assert found[-1][1].info.missing == ("video", "audio")
        assert [key for key, _ in pool.map(clips[:3])] == lengths[:3]  # the same workers again
        assert list(pool.map([])) == []
        pids = [worker.process.pid for worker in pool._workers]
    assert all(not alive(pid) for pid in pids)


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"


@pytest.mark.faults
def test_a_killed_worker_is_replaced_and_its_clip_tried_again(tmp_path, fault):
    clips = [(i, write_clip(tmp_path / f"{i}.mp4", frames=40), None) for i in range(30)]
    with decoders() as pool:
        found = []
        for key, decoded in pool.map(clips):
            found.append((key, decoded.info.frames))
            if key in (3, 11, 19):  # so far apart that no clip meets two of them: it would be taken for a killer
                os.kill(pool._workers[0].process.pid, signal.SIGKILL)
        assert found == [(i, 40) for i in range(30)]
        assert len(pool._workers) <= 2
    fault("SIGKILL of a decoding worker", "replaced, the clip tried again", "all clips decoded")


@pytest.mark.faults
def test_a_worker_that_hangs_is_given_up_and_its_clip_tried_again(tmp_path, fault):
    clips = [(i, write_clip(tmp_path / f"{i}.mp4", frames=20), None) for i in range(12)]
    with decoders(1, timeout_s=1.0) as pool:
        found, hung = [], None
        for key, decoded in pool.map(clips):
            found.append((key, decoded.info.frames))
            if key == 4:
                hung = pool._workers[0].process.pid
                os.kill(hung, signal.SIGSTOP)
                begun = time.monotonic()
        assert found == [(i, 20) for i in range(12)]
        assert pool._workers[0].process.pid != hung
    assert 0.5 < time.monotonic() - begun < 20
    assert not alive(hung)
    fault("a decoding worker hangs", "given up, the clip tried again", "all clips decoded")


def test_a_clip_that_takes_too_long_says_so_and_is_not_remembered(tmp_path):
    clip = write_clip(tmp_path / "long.mp4", frames=250, size=(640, 480))
    with decoders(1, timeout_s=0.02) as pool:
        ((_, found),) = pool.map([("long", clip, None)])
    assert found.info.video_problem == "takes longer than 0.02 s to decode; raise media.timeout_s"
    assert not found.info.settled


def test_a_worker_has_its_share_of_memory_and_no_more(tmp_path):
    clip = write_clip(tmp_path / "a.mp4", size=(1920, 1080), frames=9)
    with decoders(1, memory_gb=0.35) as pool:
        ((_, small),) = pool.map([("a", write_clip(tmp_path / "b.mp4"), None)])
        ((_, large),) = pool.map([("a", clip, None)])
    assert small.info.video_problem is None
    assert large.info.video_problem is not None


def die(*_):
    os.abort()


def test_a_machine_that_kills_every_worker_is_suspected_not_the_files(tmp_path, monkeypatch):
    clip = write_clip(tmp_path / "a.mp4")
    monkeypatch.setattr(decode_pool, "_serve", die)
    with decoders(2) as pool, pytest.raises(DecodersDie, match=r"8 decoding processes in a row ended \(SIGABRT\)"):
        list(pool.map([(i, clip, None) for i in range(20)]))


def test_workers_end_with_the_process_that_began_them(tmp_path):
    clip = write_clip(tmp_path / "a.mp4")
    code = (
        "import sys, time\n"
        "from erv.data.media.container import Limits\n"
        "from erv.data.media.decode import MediaSpec\n"
        "from erv.data.media.decode_pool import DecoderPool\n"
        "if __name__ == '__main__':\n"
        "    pool = DecoderPool(MediaSpec(), Limits(), 2)\n"
        f"    list(pool.map([(i, {clip!r}, None) for i in range(8)]))\n"
        "    print(*(w.process.pid for w in pool._workers), flush=True)\n"
        "    time.sleep(60)\n"
    )
    script = tmp_path / "begin.py"
    script.write_text(code)
    process = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True)
    pids = [int(pid) for pid in process.stdout.readline().split()]
    assert len(pids) == 2
    process.kill()
    process.wait()
    deadline = time.monotonic() + 20
    while any(alive(pid) for pid in pids):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def mutated(rng, content):
    """The bytes of a file, damaged in one of the ways files are."""
    data = bytearray(content)
    kind = rng.integers(6)
    place = int(rng.integers(len(data)))
    if kind == 0:  # bits flip
        for _ in range(int(rng.integers(1, 60))):
            data[int(rng.integers(len(data)))] ^= 1 << int(rng.integers(8))
    elif kind == 1:  # the end is missing
        del data[place:]
    elif kind == 2:  # a header of garbage
        data[: int(rng.integers(4, 600))] = rng.integers(0, 256, int(rng.integers(4, 600)), dtype=np.uint8).tobytes()
    elif kind == 3:  # a hole of zeros
        data[place : place + int(rng.integers(1, 4000))] = bytes(int(rng.integers(1, 4000)))
    elif kind == 4:  # sizes and counts become huge
        for _ in range(8):
            start = int(rng.integers(max(len(data) - 4, 1)))
            data[start : start + 4] = b"\xff\xff\xff\x7f"
    else:  # a part comes twice
        data[place:place] = data[max(0, place - 3000) : place]
    return bytes(data)


def test_500_damaged_files_cost_themselves_and_nothing_else(tmp_path):
    rng = np.random.default_rng(2026)
    sources = [
        write_clip(tmp_path / "a.mp4", frames=30),
        write_clip(tmp_path / "b.mp4", frames=30, faststart=True, gop=8),
        write_clip(tmp_path / "c.avi", frames=30, video="mpeg4", audio="mp3"),
        write_clip(tmp_path / "d.mkv", frames=30),
        write_clip(tmp_path / "e.webm", frames=20, video="libvpx-vp9", audio="libopus", rate=48000),
        write_clip(tmp_path / "f.mov", frames=30, video="mpeg4"),
        write_wav(tmp_path / "g.wav"),
    ]
    soundfile.write(tmp_path / "h.flac", tone(1, 16000, 1).T, 16000)
    sources.append(str(tmp_path / "h.flac"))
    clips = []
    for number in range(500):
        source = Path(sources[number % len(sources)])
        file = tmp_path / f"bad{number:03d}{source.suffix}"
        file.write_bytes(mutated(rng, source.read_bytes()))
        clips.append((number, str(file), None))
    begun = time.monotonic()
    with decoders(2, timeout_s=10.0) as pool:
        found = dict(pool.map(clips))
    assert time.monotonic() - begun < 300
    assert sorted(found) == list(range(500))
    classes = {"whole": 0, "damaged": 0, "part": 0}
    for number, _, _ in clips:
        info, decoded = found[number].info, found[number]
        tracks = [
            (info.video, info.video_problem, decoded.frames),
            (info.audio, info.audio_problem, decoded.waveform),
        ]
        for codec, problem, content in tracks:
            assert (content is not None) <= (codec is not None and problem is None)
        usable = [codec is not None and problem is None for codec, problem, _ in tracks]
        if decoded.frames is not None:
            assert decoded.frames.shape == (8, 48, 48, 3)
        if decoded.waveform is not None:
            assert np.isfinite(decoded.waveform).all()
        problems = [problem for _, problem, _ in tracks if problem is not None]
        assert any(usable) or problems or info.missing or info.audio is None
        classes["whole" if all(usable) else "part" if any(usable) else "damaged"] += 1
    assert all(count > 20 for count in classes.values()), classes
