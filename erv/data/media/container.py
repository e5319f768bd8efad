"""Opening a media file, within limits, and what its header and packets say of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import av
from av.container import InputContainer

from erv.data.media.errors import CorruptMedia, MissingMedia

av.logging.set_level(None)  # what a decoder has to say about a damaged file comes out as a MediaError, once
# Containers that hold their own sound and pictures. A playlist would make the library open what it names: other files, or URLs.
_FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,flv,asf,mpeg,mpegts,mpegvideo,m4v,h264,hevc,av1,obu,ivf,gif,ogg,wav,w64,flac,mp3,"
    "aac,ac3,eac3,aiff,au,caf,amr,nut,mxf,rm,dv"
)
_OPTIONS = {"protocol_whitelist": "file", "format_whitelist": _FORMATS}
_TAIL_SECONDS, _TAIL_SHARE = 0.5, 0.05  # how much earlier than its header says a sound file may end


@dataclass(frozen=True, slots=True)
class Limits:
    """What a clip may be at most: seconds, pixels of a picture, bytes of the file.

    A clip of emotional expression is seconds long; a film or an 8K master in its place is a mistake that would
    otherwise show as a hang.
    """

    max_seconds: float = 600.0
    max_pixels: int = 4096 * 2304
    max_bytes: int = 2 * 10**9

    def refuse(self, path: str, seconds: float = 0.0, pixels: int = 0, size: int = 0) -> None:
        """Raise CorruptMedia when a clip is larger than that, naming the limit and its key."""
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
def opened(path: str, limits: Limits | None = None) -> Iterator[InputContainer]:
    """The container at `path`; what PyAV raises while it is open comes out as a MediaError naming the file."""
    file = Path(path)
    if not file.is_file():
        raise MissingMedia(path, "no such file", "check data.root and the row that names it")
    limits = limits or Limits()
    limits.refuse(path, size=file.stat().st_size)
    try:
        with av.open(f"file:{path}", metadata_errors="ignore", container_options=_OPTIONS) as container:
            limits.refuse(path, seconds=(container.duration or 0) / av.time_base)
            yield container
    except (av.error.FFmpegError, UnicodeDecodeError, OverflowError) as error:
        raise CorruptMedia(path, f"cannot be decoded ({error})") from error


@dataclass(frozen=True, slots=True)
class Packets:
    """The picture packets of a container, in the order of presentation.

    `times`: presentation time of each picture, in units of the stream; `keys`: those a decoder can begin at. `timed` is False
    where the container gives no times (raw streams): such a track can only be read from its beginning.
    """

    times: list[int]
    keys: list[int]
    timed: bool


def picture_packets(container: InputContainer, path: str, limits: Limits) -> Packets:
    """Read the whole container without decoding it.

    Raises CorruptMedia where a packet is cut or damaged, or the file ends before its header says.
    """
    stream = container.streams.video[0]
    times: list[int] = []
    keys: list[int] = []
    count, end, shown = 0, 0.0, 0.0  # seconds up to which there is anything, and pictures
    for packet in container.demux():
        if packet.is_corrupt:
            raise CorruptMedia(path, "ends in the middle of a packet, or holds a damaged one")
        if packet.size == 0 or packet.is_discard:
            continue
        time = packet.pts if packet.pts is not None else packet.dts
        if time is not None and packet.time_base is not None:
            end = max(end, until := float((time + (packet.duration or 0)) * packet.time_base))
            shown = max(shown, until) if packet.stream is stream else shown
        if packet.stream is not stream:
            continue
        count += 1
        if packet.pts is not None:
            times.append(packet.pts)
            keys += [packet.pts] if packet.is_keyframe else []
    start = (container.start_time or 0) / av.time_base
    if count == 0:
        return Packets([], [], timed=False)
    if container.format.name == "avi" and stream.average_rate:  # of a cut one, libavformat makes up a duration
        _refuse_early_end(path, shown, float(stream.frames / stream.average_rate))
    elif stream.duration and stream.time_base:
        _refuse_early_end(path, shown - max(start, 0.0), float(stream.duration * stream.time_base))
    else:
        _refuse_early_end(path, end - max(start, 0.0), (container.duration or 0) / av.time_base)
    limits.refuse(path, seconds=end - start)
    timed = len(times) == count and len(set(times)) == count and bool(keys)
    return Packets(sorted(times), sorted(keys), timed)


def _refuse_early_end(path: str, found: float, declared: float) -> None:
    if declared and found < declared - max(_TAIL_SECONDS, _TAIL_SHARE * declared):
        raise CorruptMedia(path, f"ends after {found:.1f} of {declared:.1f} s")
