"""Decoding every clip of a data set once, and filling the feature cache, by any number of processes at once."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from filelock import Timeout
from tqdm import tqdm

from erv.data.media.decode import DecodedClip, MediaInfo
from erv.data.media.decode_pool import DecoderPool
from erv.data.media.feature_cache import FeatureCache, Features
from erv.data.media.file_records import MediaInfoStore

ClipPaths = tuple[str, str | None]  # path of the video, and of the sound where that is another file
PART_SIZE = 256  # clips that one process claims at a time
_SHARD_BYTES = 256 * 2**20  # features that are held in memory before a shard is written


@dataclass(frozen=True, slots=True)
class TowerEncoding:
    """How the feature cache is filled."""

    cache: FeatureCache
    encode: Callable[[Sequence[DecodedClip]], list[Features]]
    """Runs the towers on a batch of clips."""
    bytes_each: int
    """Size of a clip's features."""
    batch_size: int = 32
    """Clips that the towers take at a time."""


def probe(clips: Mapping[str, ClipPaths], decoders: DecoderPool[str], store: MediaInfoStore) -> dict[str, MediaInfo]:
    """What the files of each clip hold, by the clip's key; clips that are not in `store` are decoded, and entered.

    Args:
        clips: sha256 of the clip's bytes -> its paths.
        decoders: Decodes the clips.
        store: Information of earlier decoding.
    """
    infos = store.get(clips)
    todo = [key for key in clips if key not in infos]
    decoded_clips = decoders.map((key, *clips[key]) for key in todo)
    for key, decoded in tqdm(decoded_clips, total=len(todo), desc="decoding", unit="clip", disable=not todo):
        store.put(key, decoded.info)
        infos[key] = decoded.info
    return infos


def build_features(
    clips: Mapping[str, ClipPaths], decoders: DecoderPool[str], store: MediaInfoStore, encoding: TowerEncoding
) -> dict[str, MediaInfo]:
    """As `probe`; afterwards the tower features of every clip that can be decoded are in the cache.

    Clips are cut into parts by their keys. A process makes the parts that no other process is making; then it waits for
    those. Killed at any moment, it keeps all but its last shard, and others take over its part.

    Raises:
        CacheTooLarge: Before anything is decoded.
    """
    infos = store.get(clips)
    todo = _without_features(clips, infos, encoding.cache)
    if not todo:
        return infos
    encoding.cache.require_space(len(todo), encoding.bytes_each)
    num_parts = math.ceil(len(clips) / PART_SIZE)  # of all clips, so that processes with the same clips cut them alike
    parts: dict[int, list[str]] = {}
    for key in todo:
        parts.setdefault(int(key[:8], 16) % num_parts, []).append(key)
    with tqdm(total=len(todo), desc="towers", unit="clip", smoothing=0.05) as progress:
        for wait in (False, True):
            for part in [*parts]:
                try:
                    with encoding.cache.claim(part, num_parts, wait):
                        paths = {key: clips[key] for key in parts[part]}
                        _build_part(paths, infos, decoders, store, encoding, progress)
                except Timeout:  # another process has claimed it
                    continue
                del parts[part]
    return infos


def _without_features(clips: Mapping[str, ClipPaths], infos: Mapping[str, MediaInfo], cache: FeatureCache) -> list[str]:
    """The keys of clips that have not been decoded, or can be decoded and have no features."""
    missing = set(cache.missing(clips))
    return [key for key in clips if key not in infos or (key in missing and _is_decodable(infos[key]))]


def _is_decodable(info: MediaInfo) -> bool:
    return (info.video is not None and info.video_problem is None) or (
        info.audio is not None and info.audio_problem is None
    )


def _build_part(
    clips: Mapping[str, ClipPaths],
    infos: dict[str, MediaInfo],
    decoders: DecoderPool[str],
    store: MediaInfoStore,
    encoding: TowerEncoding,
    progress: tqdm,
) -> None:
    """Decode and encode the clips of one part, and write their shards; their information is entered in `infos`."""
    infos |= store.get(clips)  # another process may have made the part while this one waited
    todo = _without_features(clips, infos, encoding.cache)
    progress.update(len(clips) - len(todo))
    features: dict[str, Features] = {}
    batch: list[tuple[str, DecodedClip]] = []

    def encode_batch() -> None:
        if batch:
            encoded = encoding.encode([decoded for _, decoded in batch])
            features.update(zip((key for key, _ in batch), encoded, strict=True))
        batch.clear()

    for key, decoded in decoders.map((key, *clips[key]) for key in todo):
        infos[key] = decoded.info
        store.put(key, decoded.info)
        progress.update()
        if decoded.frames is not None or decoded.waveform is not None:
            batch.append((key, decoded))
        if len(batch) == encoding.batch_size:
            encode_batch()
            if len(features) * encoding.bytes_each >= _SHARD_BYTES:
                encoding.cache.write(features)
                features.clear()
    encode_batch()
    if features:
        encoding.cache.write(features)
