"""Decoding: the right pictures of any file, sound as it is, and every defect named."""

import pickle
import shutil
import subprocess
import sys

import av
import numpy as np
import pytest
import soundfile
from clips import (
    cut,
    number_of,
    picture,
    tone,
    turned,
    without_pictures,
    write_clip,
    write_folder,
    write_wav,
)
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from erv.data.clip_reader import UnusableClips
from erv.data.datasets.base import CorpusError, CorpusMissing
from erv.data.media.audio import read_audio
from erv.data.media.augmentation import Augmentation
from erv.data.media.container import Limits
from erv.data.media.decode import MediaInfo, decode
from erv.data.media.decode_pool import DecodersDie
from erv.data.media.defects import DefectActions, Note, refusal, tally
from erv.data.media.errors import CorruptMedia, MediaError, MissingMedia, NoVideo
from erv.data.media.feature_cache import CacheTooLarge
from erv.data.media.frames import frame_indices, read_frames
from erv.data.media.resize import fit
from erv.data.media.settings import MediaSettings
from erv.errors import ConfigError, UserError
from erv.types import MediaSpec

SMALL = MediaSpec(side=32)


def every_picture(path):
    """All pictures of a file by the plainest way to decode it."""
    with av.open(path) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def irregular(count, seed=0):
    return list(np.cumsum(np.random.default_rng(seed).uniform(0.01, 0.09, count)))


KINDS = {
    "h264.mp4": {},
    "bframes.mp4": {"frames": 60, "bframes": 3},
    "gop.mp4": {"frames": 120, "gop": 12},
    "long.mkv": {"frames": 240, "gop": 40},
    "mpeg4.avi": {"video": "mpeg4", "audio": "mp3"},
    "silent.mp4": {"audio": None},
    "variable.mp4": {"frames": 30, "times": irregular(30)},
    "variable.mkv": {"frames": 30, "times": irregular(30, 1)},
    "one.mp4": {"frames": 1},
    "five.mov": {"frames": 5},
    "vp9.webm": {"video": "libvpx-vp9", "audio": "libopus", "rate": 48000},
    "ünïcode 陰 x.mp4": {"channels": 1},
    "sound_longer.mp4": {"sound_s": 4},
    "sound_longer.mkv": {"sound_s": 4},
    "sound_longer.avi": {"sound_s": 4, "video": "mpeg4", "audio": "mp3"},
    "sound_shorter.mp4": {"frames": 100, "sound_s": 1},
}


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("num_frames", [8, 32])
def test_the_pictures_that_the_rule_names_to_the_last_pixel(tmp_path, name, num_frames):
    path = write_clip(tmp_path / name, **KINDS[name])
    whole = every_picture(path)
    chosen = frame_indices(len(whole), num_frames)
    assert number_of(whole) == list(range(len(whole)))
    for threads in (1, 2):
        assert np.array_equal(read_frames(path, num_frames, threads=threads), whole[chosen])


@given(st.integers(1, 500), st.integers(1, 64))
def test_frames_are_the_middles_of_equal_parts(total, num_frames):
    chosen = frame_indices(total, num_frames)
    assert chosen == sorted(chosen)
    assert 0 <= chosen[0] <= chosen[-1] < total
    assert all(abs(c - (total - 1) * (i + 0.5) / num_frames) <= 0.5001 for i, c in enumerate(chosen))


@pytest.mark.parametrize(("degrees", "quarters"), [(90, 3), (180, 2), (270, 1)])
def test_a_clip_of_a_telephone_is_shown_upright(tmp_path, degrees, quarters):
    lying = read_frames(write_clip(tmp_path / "a.mp4"), 8)
    path = turned(tmp_path / "a.mp4", degrees)
    upright = np.rot90(lying, quarters, axes=(1, 2))
    for threads in (1, 2):
        assert np.array_equal(read_frames(path, 8, threads=threads), upright)
    found = decode(path, None, SMALL, Limits())
    assert (found.info.height, found.info.width) == upright.shape[1:3]
    assert np.array_equal(found.frames, fit(upright, 32, "pad"))


def test_frames_that_have_no_time_are_counted(tmp_path):
    """A raw stream: no container, no times, no index."""
    source = write_clip(tmp_path / "a.mp4", frames=20, audio=None, bframes=0)
    with av.open(source) as container, av.open(str(tmp_path / "a.h264"), "w", format="h264") as target:
        stream = target.add_stream_from_template(container.streams.video[0])
        for packet in container.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    assert number_of(read_frames(str(tmp_path / "a.h264"), 8)) == frame_indices(20, 8)


def test_a_gif_and_a_file_with_another_suffix(tmp_path):
    Image.fromarray(picture(0)).save(
        tmp_path / "a.gif", save_all=True, append_images=[Image.fromarray(picture(i)) for i in range(1, 12)]
    )
    assert number_of(read_frames(str(tmp_path / "a.gif"), 4)) == frame_indices(12, 4)
    write_clip(tmp_path / "a.mp4")
    shutil.copy(tmp_path / "a.mp4", tmp_path / "lies.avi")
    assert number_of(read_frames(str(tmp_path / "lies.avi"), 8)) == frame_indices(25, 8)


def test_a_folder_of_pictures(tmp_path):
    path = write_folder(tmp_path / "00017", frames=11)
    (tmp_path / "00017" / "notes.txt").write_text("no picture")
    assert number_of(read_frames(path, 8)) == frame_indices(11, 8)
    (tmp_path / "empty").mkdir()
    with pytest.raises(NoVideo, match="holds no pictures"):
        read_frames(str(tmp_path / "empty"), 8)
    Image.fromarray(picture(0, 32, 32)).save(tmp_path / "00017" / "00017_00002.png")
    with pytest.raises(CorruptMedia, match="pictures of several sizes"):
        read_frames(path, 8)
    (tmp_path / "00017" / "00017_00002.png").write_bytes(b"\x89PNG no")
    with pytest.raises(CorruptMedia, match=r"00017_00002.png: cannot be read"):
        read_frames(path, 8)


@pytest.mark.parametrize(
    ("rate", "channels", "video"), [(44100, 2, "libx264"), (48000, 1, "libx264"), (16000, 2, None), (22050, 1, "mpeg4")]
)
def test_sound_is_16_khz_mono_at_its_own_pitch(tmp_path, rate, channels, video):
    frames = None if video is None else 50
    path = write_clip(tmp_path / "a.mkv", frames=frames, video=video or "libx264", rate=rate, channels=channels)
    sound = read_audio(path)
    assert (sound.codec, sound.rate, sound.channels) == ("aac", rate, channels)
    assert len(sound.waveform) == pytest.approx(16000 * (2 if frames else 1), abs=1600)
    spectrum = np.abs(np.fft.rfft(sound.waveform[2000:14000]))
    loudest = np.argsort(spectrum)[-channels:] * 16000 / 12000
    assert sorted(loudest) == pytest.approx([440, 880][:channels], abs=2)
    assert np.array_equal(read_audio(path, seconds=0.5).waveform, sound.waveform[:8000])


def test_wav_and_flac_are_read_by_libsndfile_whatever_their_rate(tmp_path):
    wave = tone(1.5, 44100, 2)
    for suffix, subtype in ((".wav", "FLOAT"), (".flac", "PCM_16")):
        soundfile.write(tmp_path / f"a{suffix}", wave.T, 44100, subtype=subtype)
        sound = read_audio(str(tmp_path / f"a{suffix}"))
        assert (sound.rate, sound.channels, len(sound.waveform)) == (44100, 2, 24000)
        assert sound.codec == subtype.lower()
    soundfile.write(tmp_path / "mono.wav", wave[0], 16000, subtype="FLOAT")
    assert np.abs(read_audio(str(tmp_path / "mono.wav")).waveform - wave[0]).max() < 1e-6
    shutil.copy(write_clip(tmp_path / "a.mp4"), tmp_path / "lies.wav")
    assert read_audio(str(tmp_path / "lies.wav")).codec == "aac"


def test_no_sound_is_none_and_never_silence(tmp_path):
    assert read_audio(write_clip(tmp_path / "a.mp4", audio=None)) is None
    assert read_audio(write_folder(tmp_path / "00001")) is None
    soundfile.write(tmp_path / "empty.wav", np.zeros(0), 16000)
    assert read_audio(str(tmp_path / "empty.wav")) is None
    soundfile.write(tmp_path / "nan.wav", np.full(100, np.nan), 16000, subtype="FLOAT")
    with pytest.raises(CorruptMedia, match="not a number"):
        read_audio(str(tmp_path / "nan.wav"))


def damaged_in_the_middle(path, target):
    content = bytearray(path.read_bytes())
    rng = np.random.default_rng(1)
    middle = slice(len(content) // 3, 2 * len(content) // 3)
    content[middle] = rng.integers(0, 256, middle.stop - middle.start, dtype=np.uint8).tobytes()
    target.write_bytes(content)
    return str(target)


def test_every_defect_of_a_picture_track_is_named(tmp_path):
    (tmp_path / "text.mp4").write_bytes(b"no video at all" * 50)
    (tmp_path / "empty.mp4").write_bytes(b"")
    clip = write_clip(tmp_path / "fast.mp4", frames=80, faststart=True)
    write_clip(tmp_path / "late.mp4", frames=80)
    write_clip(tmp_path / "a.mkv", frames=80)
    write_clip(tmp_path / "a.avi", frames=80, video="mpeg4", audio="mp3")
    found = {
        str(tmp_path / "absent.mp4"): (MissingMedia, "no such file"),
        str(tmp_path / "text.mp4"): (CorruptMedia, "cannot be decoded"),
        str(tmp_path / "empty.mp4"): (CorruptMedia, "cannot be decoded"),
        write_clip(tmp_path / "sound.mp4", frames=None): (NoVideo, "has no picture track"),
        without_pictures(tmp_path / "zero.mkv"): (NoVideo, "decodes to 0 frames"),
        cut(tmp_path / "fast.mp4", tmp_path / "cut1.mp4", 0.6): (CorruptMedia, "in the middle of a packet"),
        cut(tmp_path / "late.mp4", tmp_path / "cut2.mp4", 0.6): (CorruptMedia, "cannot be decoded"),
        cut(tmp_path / "a.mkv", tmp_path / "cut.mkv", 0.6): (CorruptMedia, r"ends after \d.\d of 3.2 s"),
        cut(tmp_path / "a.avi", tmp_path / "cut.avi", 0.6): (CorruptMedia, "in the middle of a packet|ends after"),
        damaged_in_the_middle(tmp_path / "fast.mp4", tmp_path / "mid.mp4"): (CorruptMedia, "decoded|damaged"),
        damaged_in_the_middle(tmp_path / "a.avi", tmp_path / "mid.avi"): (CorruptMedia, "decoded|damaged|ends"),
    }
    for path, (kind, message) in found.items():
        with pytest.raises(kind, match=f"{path}.*{message}"):
            read_frames(path, 8)
    assert read_frames(clip, 8).shape == (8, 48, 64, 3)


def test_a_film_an_8k_picture_and_a_huge_file_are_refused_by_name(tmp_path):
    clip = write_clip(tmp_path / "a.mp4", frames=50)
    for limits, message in (
        (Limits(max_seconds=1), "lasts 2 s, at most 1 are read; cut the clip, or raise media.max_seconds"),
        (Limits(max_pixels=3000), "has pictures of 3,072 pixels, at most 3,000"),
        (Limits(max_bytes=1000), "bytes long, at most 1,000"),
    ):
        with pytest.raises(CorruptMedia, match=f"a.mp4: .*{message}"):
            read_frames(clip, 8, limits)
        assert message.split(",")[0] in decode(clip, None, SMALL, limits).info.video_problem
    with pytest.raises(CorruptMedia, match="lasts 3 s"):
        read_audio(write_wav(tmp_path / "a.wav", 3.0), limits=Limits(max_seconds=2))
    with pytest.raises(CorruptMedia, match="pixels"):
        read_frames(write_folder(tmp_path / "00001"), 8, Limits(max_pixels=100))


def test_media_info_says_what_a_file_holds(tmp_path):
    info = decode(write_clip(tmp_path / "a.mp4", frames=50, rate=48000), None, SMALL, Limits()).info
    assert (info.video, info.audio, info.frames, info.width, info.height) == ("h264", "aac", 50, 64, 48)
    assert (info.fps, info.seconds, info.rate, info.channels) == (25.0, 2.0, 48000, 2)
    assert MediaInfo.from_row(info.row()) == info
    both = decode(write_folder(tmp_path / "00001"), write_wav(tmp_path / "a.wav"), SMALL, Limits())
    assert (both.info.video, both.info.audio, both.info.rate) == ("pictures", "pcm_16", 22050)
    assert both.frames.shape == (8, 32, 32, 3)
    assert len(both.waveform) == 16000
    gone = decode(str(tmp_path / "absent.mp4"), str(tmp_path / "a.wav"), SMALL, Limits())
    assert (gone.info.missing, gone.frames, len(gone.waveform)) == (("video",), None, 16000)


def test_only_what_is_wanted_is_decoded(tmp_path):
    clip = write_clip(tmp_path / "a.mp4")
    picture_only = decode(clip, None, MediaSpec(side=32, modalities=("video",)), Limits())
    assert picture_only.waveform is None
    assert picture_only.info.audio is None
    sound_only = decode(clip, None, MediaSpec(modalities=("audio",)), Limits())
    assert sound_only.frames is None
    assert sound_only.info.seconds == pytest.approx(1, abs=0.1)


GOOD = MediaInfo(video="h264", audio="aac", frames=25, seconds=2.0)
BOTH = ("video", "audio")


@pytest.mark.parametrize(
    ("info", "chosen", "kept", "noted"),
    [
        (GOOD, {}, BOTH, []),
        (MediaInfo(missing=BOTH), {}, (), [("missing", "error"), ("missing", "error")]),
        (MediaInfo(missing=BOTH), {"missing": "skip"}, (), [("missing", "skip"), ("missing", "skip")]),
        (MediaInfo(audio="aac", missing=("video",)), {"missing": "mask"}, ("audio",), [("missing", "mask")]),
        (MediaInfo(missing=BOTH), {"missing": "mask"}, (), [("missing", "skip"), ("missing", "skip")]),
        (MediaInfo(video_problem="x", audio="aac"), {}, (), [("corrupt", "error")]),
        (MediaInfo(video_problem="x", audio="aac"), {"corrupt": "skip"}, (), [("corrupt", "skip")]),
        (MediaInfo(video_problem="x", audio="aac"), {"corrupt": "mask"}, ("audio",), [("corrupt", "mask")]),
        (MediaInfo(video_problem="x"), {"corrupt": "mask"}, (), [("corrupt", "skip"), ("no_audio", "skip")]),
        (MediaInfo(video="h264", frames=9, seconds=2, audio_problem="x"), {"corrupt": "mask"}, ("video",), [("corrupt", "mask")]),
        (MediaInfo(video="h264", frames=9, seconds=2), {}, ("video",), [("no_audio", "mask")]),
        (MediaInfo(video="h264", frames=9, seconds=2), {"no_audio": "error"}, (), [("no_audio", "error")]),
        (MediaInfo(video="h264", frames=9, seconds=2), {"no_audio": "skip"}, (), [("no_audio", "skip")]),
        (MediaInfo(video="h264", frames=9, seconds=2), {"no_audio": "silence"}, BOTH, [("no_audio", "silence")]),
        (MediaInfo(video="h264", audio="aac", frames=5, seconds=2), {}, BOTH, [("short", "repeat")]),
        (MediaInfo(video="h264", audio="aac", frames=20, seconds=0.8), {"short": "skip"}, (), [("short", "skip")]),
        (MediaInfo(video="h264", audio="aac", frames=5, seconds=2), {"short": "error"}, (), [("short", "error")]),
    ],
)  # fmt: skip
def test_each_defect_has_its_policy(info, chosen, kept, noted):
    names, notes = DefectActions(**chosen).apply("7", "train", info, BOTH, 8)
    assert names == kept
    assert [(note.defect, note.action) for note in notes] == noted


def test_a_modality_that_is_not_used_may_be_as_it_likes():
    assert DefectActions().apply("7", "train", MediaInfo(video="h264", frames=9, seconds=2), ("video",), 8) == (
        ("video",),
        [],
    )
    assert DefectActions().apply("7", "train", MediaInfo(video_problem="x", audio="aac"), ("audio",), 8) == (
        ("audio",),
        [],
    )


def test_what_was_done_is_counted_by_clip():
    notes = [
        Note("1", "test", "missing", "skip", "its video file is not there"),
        Note("1", "test", "missing", "skip", "its audio file is not there"),
        Note("2", "test", "no_audio", "mask", "has no sound track"),
        Note("3", "test", "no_audio", "mask", "has no sound track"),
    ]
    assert tally(notes) == {"mask": {"no_audio": 2}, "skip": {"missing": 1}}
    assert refusal(notes) is None
    bad = [Note(str(i), "train", "corrupt", "error", "cannot be decoded") for i in range(7)]
    message = refusal([*notes, *bad])
    assert "clips that are corrupt: 7; replace them, or set media.on_corrupt=skip or mask:" in message
    assert "  4: cannot be decoded" in message
    assert message.endswith("… and 2 more")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"modalities": ["smell"]}, r"media.modalities is one or both of video, audio, got \['smell'\]"),
        ({"modalities": []}, "media.modalities is one or both"),
        ({"workers": 0}, "media.workers is at least 1"),
        ({"timeout_s": 0}, "media.timeout_s must be above 0"),
        ({"tower_batch": 0}, "media.tower_batch is at least 1"),
    ],
)
def test_settings_that_cannot_be(given, message):
    with pytest.raises(ValueError, match=message):
        MediaSettings(**given)


def test_padding_and_squashing():
    wide = np.full((2, 10, 30, 3), 200, dtype=np.uint8)
    padded, squashed = fit(wide, 30, "pad"), fit(wide, 30, "squash")
    assert padded.shape == squashed.shape == (2, 30, 30, 3)
    assert padded[0, 0, 0].tolist() == [127, 127, 127]
    assert padded[0, 15, 15].tolist() == [200, 200, 200]
    assert (squashed == 200).all()


STRONG = Augmentation(0.5, 0.4, 0.3, 0.04, 10, 0.1, 0.5)


def test_augmentation_depends_on_seed_turn_and_clip_alone(tmp_path):
    clip = write_clip(tmp_path / "a.mp4")
    plain = decode(clip, None, SMALL, Limits())

    def seen(*draw):
        return decode(clip, None, SMALL, Limits(), STRONG.transform_for(*draw))

    first = seen(0, 0, "a")
    again = seen(0, 0, "a")
    assert np.array_equal(first.frames, again.frames)
    assert np.array_equal(first.waveform, again.waveform)
    for other in (plain, seen(1, 0, "a"), seen(0, 1, "a"), seen(0, 0, "b")):
        assert not np.array_equal(first.frames, other.frames)
        assert not np.array_equal(first.waveform, other.waveform)
    assert first.frames.shape == plain.frames.shape
    assert first.waveform.shape == plain.waveform.shape
    off = decode(clip, None, SMALL, Limits(), Augmentation().transform_for(0, 0, "a"))
    assert np.array_equal(off.frames, plain.frames)
    assert np.array_equal(off.waveform, plain.waveform)


def test_each_property_is_changed_by_its_own_key():
    pictures = np.stack([picture(i) for i in range(4)])
    wave = tone(1, 16000, 1)[0]
    rng = np.random.default_rng
    assert np.array_equal(Augmentation(flip=1).augment_frames(rng(0), pictures), pictures[:, :, ::-1])
    cropped = Augmentation(crop=0.4).augment_frames(rng(2), pictures)
    assert 0.2 * 48 <= cropped.shape[1] < 48
    assert 0.2 * 64 <= cropped.shape[2] < 64
    coloured = Augmentation(colour=0.4).augment_frames(rng(0), pictures).astype(int)
    ratio = coloured[:, 5, 5].mean(-1) / pictures[:, 5, 5].mean(-1)
    assert not np.allclose(ratio, 1, atol=0.05)  # one change for all pictures of a clip
    noisy = Augmentation(noise=0.05).augment_frames(rng(0), pictures).astype(int) - pictures
    assert 5 < noisy.std() < 15
    louder = Augmentation(gain_db=6).augment_waveform(rng(1), wave)
    factor = louder[100] / wave[100]
    assert 0.5 <= factor <= 2
    assert np.allclose(louder, wave * factor, atol=1e-6)
    shifted = Augmentation(shift_s=0.2).augment_waveform(rng(3), wave)
    offset = next(s for s in range(-3200, 3201) if np.array_equal(shifted, moved(wave, s)))
    assert offset != 0
    assert 0 < np.abs(Augmentation(sound_noise=0.1).augment_waveform(rng(0), wave) - wave).std() < 0.05


def moved(wave, by):
    result = np.zeros_like(wave)
    kept = len(wave) - abs(by)
    result[max(by, 0) :][:kept] = wave[max(-by, 0) :][:kept]
    return result


@pytest.mark.parametrize(("name", "value"), [("flip", 2), ("crop", 0.5), ("gain_db", -1), ("noise", 1.5)])
def test_augmentation_that_leaves_nothing_is_refused(name, value):
    with pytest.raises(ValueError, match=f"augment.{name} is between 0 and .*, got {value}"):
        Augmentation(**{name: value})


def test_decoding_needs_no_torch():
    code = (
        "import sys, erv.data.media.decode_pool, erv.data.media.frames; "
        "print('torch' in sys.modules, 'transformers' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


def test_errors_that_a_user_can_put_right_are_user_errors():
    kinds = (CorpusMissing, CorpusError, UnusableClips, CacheTooLarge, DecodersDie, MediaError, ConfigError)
    assert all(issubclass(kind, UserError) for kind in kinds)
    error = NoVideo("a.mp4", "has no picture track", "use another")
    copy = pickle.loads(pickle.dumps(error))  # as it comes from a decoding process
    assert (type(copy), str(copy), copy.reason) == (NoVideo, str(error), error.reason)
