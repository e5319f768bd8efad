"""Opening a media file, within limits, and reading what its header and packets say."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import av
from av.container import InputContainer

from erv.data.media.errors import CorruptMedia, MissingMedia

av.logging.set_level(None)  # FFmpeg's messages about a damaged file are raised as one MediaError instead of printed
# Only containers that hold their pictures and sound themselves: a playlist would make FFmpeg open the files or URLs it names.
_FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,flv,asf,mpeg,mpegts,mpegvideo,m4v,h264,hevc,av1,obu,ivf,gif,ogg,wav,w64,flac,mp3,"
    "aac,ac3,eac3,aiff,au,caf,amr,nut,mxf,rm,dv"
)
_OPTIONS = {"protocol_whitelist": "file", "format_whitelist": _FORMATS}
# How much earlier than its header says a sound file may end: the larger of these (seconds; share of the duration).
_TAIL_SECONDS, _TAIL_SHARE = 0.5, 0.05


@dataclass(frozen=True, slots=True)
class Limits:
    """The largest clip that is read.

    A clip of emotional expression is seconds long; a film or an 8K master in its place is a mistake that would otherwise look
    like a hang. The class and field names are part of the cache's keys (`MediaInfoStore`).
    """

    max_seconds: float = 600.0
    """Duration."""
    max_pixels: int = 4096 * 2304
    """Width times height of a frame."""
    max_bytes: int = 2 * 10**9
    """Size of the file."""

    def check(self, path: str, seconds: float = 0.0, pixels: int = 0, size: int = 0) -> None:
        """Raise CorruptMedia when the clip at `path` is over a limit, naming the limit and its key."""
        for what, value, limit, key in (
            ("lasts {:,.0f} s", seconds, self.max_seconds, "max_seconds"),
            ("has pictures of {:,.0f} pixels", pixels, self.max_pixels, "max_pixels"),
            ("is {:,.0f} bytes long", size, self.max_bytes, "max_bytes"),
        ):
            if value > limit:
                raise CorruptMedia(
                    path, f"{what.format(value)}, at most {limit:,.0f} are read", f"cut the clip, or raise media.{key}"
                )


@contextmanager
def open_container(path: str, limits: Limits | None = None) -> Iterator[InputContainer]:
    """Open the container at `path`; what PyAV raises while it is open becomes a CorruptMedia that names the file."""
    file = Path(path)
    if not file.is_file():
        raise MissingMedia(path, "no such file", "check data.root and the row that names it")
    limits = limits or Limits()
    limits.check(path, size=file.stat().st_size)
    try:
        # "file:" keeps a name such as "a:b.mp4" from being taken for a protocol
        with av.open(f"file:{path}", metadata_errors="ignore", container_options=_OPTIONS) as container:
            limits.check(path, seconds=(container.duration or 0) / av.time_base)
            yield container
    except (av.error.FFmpegError, UnicodeDecodeError, OverflowError) as error:
        raise CorruptMedia(path, f"cannot be decoded ({error})") from error


@dataclass(frozen=True, slots=True)
class VideoPackets:
    """The packets of a container's picture track, one for each frame, in the order of presentation."""

    times: list[int]
    """Presentation time of each frame, in units of the stream's time base."""
    keyframes: list[int]
    """Presentation times of the frames that a decoder can begin at."""
    timed: bool
    """Whether every frame has a time of its own. A raw stream has none, and can only be read from its beginning."""


def read_video_packets(container: InputContainer, path: str, limits: Limits) -> VideoPackets:
    """Read the whole container without decoding it, which also finds out whether it is complete.

    Raises CorruptMedia where a packet is cut or damaged, or the file ends before its header says.
    """
    stream = container.streams.video[0]
    times: list[int] = []
    keyframes: list[int] = []
    count = 0  # frames
    end = video_end = 0.0  # seconds at which the last packet of any track, and of the picture track, ends
    for packet in container.demux():
        if packet.is_corrupt:
            raise CorruptMedia(path, "ends in the middle of a packet, or holds a damaged one")
        if packet.size == 0 or packet.is_discard:
            continue
        time = packet.pts if packet.pts is not None else packet.dts
        if time is not None and packet.time_base is not None:
            packet_end = float((time + (packet.duration or 0)) * packet.time_base)
            end = max(end, packet_end)
            if packet.stream is stream:
                video_end = max(video_end, packet_end)
        if packet.stream is stream:
            count += 1
            if packet.pts is not None:
                times.append(packet.pts)
                keyframes += [packet.pts] if packet.is_keyframe else []
    if count == 0:
        return VideoPackets([], [], timed=False)
    start = (container.start_time or 0) / av.time_base
    if container.format.name == "avi" and stream.average_rate:
        # the duration of a cut AVI is an estimate of libavformat's; the number of frames is the header's
        _check_complete(path, video_end, float(stream.frames / stream.average_rate))
    elif stream.duration and stream.time_base:
        _check_complete(path, video_end - max(start, 0.0), float(stream.duration * stream.time_base))
    else:
        _check_complete(path, end - max(start, 0.0), (container.duration or 0) / av.time_base)
    limits.check(path, seconds=end - start)
    timed = len(times) == count and len(set(times)) == count and bool(keyframes)
    return VideoPackets(sorted(times), sorted(keyframes), timed)


def _check_complete(path: str, seconds: float, declared: float) -> None:
    """Raise CorruptMedia for a file whose packets end well before the duration that its header declares."""
    if declared and seconds < declared - max(_TAIL_SECONDS, _TAIL_SHARE * declared):
        raise CorruptMedia(path, f"ends after {seconds:.1f} of {declared:.1f} s")
