"""Write media files with every property and defect that loaders must handle; each frame shows its own number."""

import struct
import wave as wave_files
from fractions import Fraction

import av
import numpy as np
from PIL import Image


def picture(index, width=64, height=48, seed=0):
    """A picture that shows its number in two grey fields, units of 16 beside it, over texture that moves."""
    rng = np.random.default_rng(seed)
    base = rng.integers(0, 60, (height // 4, width // 4, 3), dtype=np.uint8).repeat(4, 0).repeat(4, 1)
    moved = np.roll(base, index * 2, axis=1)
    moved[: height // 2, : width // 2] = 8 + 15 * (index % 16)
    moved[: height // 2, width // 2 :] = 8 + 15 * (index // 16)
    return moved


def tone(seconds, rate=44100, channels=2, pitch=440.0):
    time = np.arange(int(rate * seconds)) / rate
    return np.stack([0.3 * np.sin(2 * np.pi * pitch * (c + 1) * time) for c in range(channels)]).astype(np.float32)


def write_clip(
    path,
    frames=25,
    fps=25,
    size=(64, 48),
    video="libx264",
    audio="aac",
    rate=44100,
    channels=2,
    gop=None,
    times=None,
    faststart=False,
    bframes=2,
    form=None,
    seed=0,
    sound_s=None,
):
    """A file with `frames` pictures (None: no picture track) and as many seconds (or `sound_s`) of a tone (audio None: none).

    `times`: presentation times in seconds, for a variable frame rate.
    """
    form = (
        form or {".mp4": "mp4", ".avi": "avi", ".mkv": "matroska", ".mov": "mov", ".webm": "webm"}[path.suffix.lower()]
    )
    options = {"movflags": "+faststart"} if faststart else {}
    times = times if times is not None else [i / fps for i in range(frames or 0)]
    with av.open(str(path), "w", format=form, options=options) as container:
        pictures = sounds = None
        if frames is not None:
            coding = {"preset": "ultrafast", "crf": "18", "bf": str(bframes)} if video == "libx264" else {}
            pictures = container.add_stream(video, rate=fps, options=coding)
            pictures.width, pictures.height, pictures.pix_fmt = *size, "yuv420p"
            pictures.gop_size = gop or 250
            if len(set(np.round(np.diff(times), 4))) > 1:
                pictures.codec_context.time_base = Fraction(1, 1000)
        if audio is not None:
            sounds = container.add_stream(audio, rate=rate)
            sounds.layout = {1: "mono", 2: "stereo"}[channels]
        for index, time in enumerate(times):
            frame = av.VideoFrame.from_ndarray(picture(index, *size, seed=seed), format="rgb24")
            frame.time_base = Fraction(1, 1000)
            frame.pts = round(time * 1000)
            container.mux(pictures.encode(frame))
        if pictures is not None:
            container.mux(pictures.encode(None))
        if sounds is not None:
            length = sound_s or max((times[-1] + 1 / fps) if times else 1.0, 0.1)
            block = av.AudioFrame.from_ndarray(tone(length, rate, channels), format="fltp", layout=sounds.layout.name)
            block.sample_rate, block.pts, block.time_base = rate, 0, Fraction(1, rate)
            resampler = av.AudioResampler(format=sounds.format.name, layout=sounds.layout.name, rate=rate)
            for piece in resampler.resample(block):
                container.mux(sounds.encode(piece))
            container.mux(sounds.encode(None))
    return str(path)


def write_wav(path, seconds=1.0, rate=22050, channels=1):
    samples = (tone(seconds, rate, channels).T * 32767).astype(np.int16)
    with wave_files.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(samples.tobytes())
    return str(path)


def write_folder(path, frames=10, size=(64, 48)):
    """A folder of pictures."""
    path.mkdir(parents=True)
    for index in range(frames):
        Image.fromarray(picture(index, *size)).save(path / f"{path.name}_{index + 1:05d}.png")
    return str(path)


def cut(source, target, share):
    """The first `share` of a file."""
    content = source.read_bytes()
    target.write_bytes(content[: int(len(content) * share)])
    return str(target)


def turned(path, degrees):
    """Mark the mp4 at `path` as recorded on a rotated phone: to be shown turned clockwise by 90, 180 or 270 degrees."""
    data = bytearray(path.read_bytes())
    matrix = data.index(b"tkhd") + 4 + 4 + 20 + 16  # of a header of version 0
    whole = struct.unpack(">9i", data[matrix : matrix + 36])
    assert whole == (65536, 0, 0, 0, 65536, 0, 0, 0, 2**30)
    cos, sin = {90: (0, 1), 180: (-1, 0), 270: (0, -1)}[degrees]
    data[matrix : matrix + 20] = struct.pack(">5i", *(65536 * v for v in (cos, sin, 0, -sin, cos)))
    path.write_bytes(data)
    return str(path)


def without_pictures(path):
    """A container with a picture track that holds no picture."""
    with av.open(str(path), "w", format="matroska") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        sound = container.add_stream("aac", rate=16000)
        sound.layout = "mono"
        container.start_encoding()
        block = av.AudioFrame.from_ndarray(tone(1, 16000, 1), format="fltp", layout="mono")
        block.sample_rate = 16000
        container.mux(sound.encode(block))
        container.mux(sound.encode(None))
    return str(path)


def number_of(shown):
    """Which pictures of `picture` these are, from their grey fields `[T, H, W, 3]`."""
    height, width = shown.shape[1:3]
    left = shown[:, 3 : height // 2 - 4, 3 : width // 2 - 4].mean((1, 2, 3))
    right = shown[:, 3 : height // 2 - 4, width // 2 + 4 : -3].mean((1, 2, 3))
    return [round((b - 8) / 15) * 16 + round((a - 8) / 15) for a, b in zip(left, right, strict=True)]
