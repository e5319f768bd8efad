"""Screening clips, and filling the tower cache: every clip is decoded once, by whichever process comes to it first."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from filelock import Timeout
from tqdm import tqdm

from erv.data.media.decode import Decoded, Facts
from erv.data.media.decode_pool import Decoders
from erv.data.media.feature_cache import Features, TowerCache
from erv.data.media.file_facts import FactBook

Files = tuple[str, str | None]  # where the picture is, and the sound if elsewhere
Encode = Callable[[Sequence[Decoded]], list[Features]]
PART = 256  # clips that one process claims at a time
_SHARD_BYTES = 256 * 2**20  # held in memory before a shard is written


@dataclass(frozen=True, slots=True)
class Towers:
    """The cache to fill, the towers that fill it `batch_size` clips at a time, and bytes of an entry."""

    cache: TowerCache
    encode: Encode
    bytes_each: int
    batch_size: int = 32


def screen(clips: Mapping[str, Files], decoders: Decoders[str], book: FactBook) -> dict[str, Facts]:
    """The facts about each clip, by its key; those not yet in `book` are decoded."""
    facts = book.get(clips)
    todo = [key for key in clips if key not in facts]
    for key, decoded in _progress(decoders.map((key, *clips[key]) for key in todo), len(todo), "decoding"):
        book.put(key, decoded.facts)
        facts[key] = decoded.facts
    return facts


def build(clips: Mapping[str, Files], decoders: Decoders[str], book: FactBook, towers: Towers) -> dict[str, Facts]:
    """As `screen`, with the tower features of every clip that can be decoded in the cache afterwards.

    Clips are cut into parts by their keys. A process makes the parts that no other is making; then it waits for those. Killed
    at any moment, all but the last shard is kept, and others take over its part. Raises CacheTooLarge before anything is decoded.
    """
    facts = book.get(clips)
    todo = _todo(clips, facts, towers.cache)
    if not todo:
        return facts
    towers.cache.require_space(len(todo), towers.bytes_each)
    parts = math.ceil(len(clips) / PART)  # of all clips, so that processes with the same clips cut them alike
    cut: dict[int, list[str]] = {}
    for key in todo:
        cut.setdefault(int(key[:8], 16) % parts, []).append(key)
    with tqdm(total=len(todo), desc="towers", unit="clip", smoothing=0.05) as bar:
        for wait in (False, True):
            for part in [*cut]:
                try:
                    with towers.cache.claim(part, parts, wait):
                        _make({key: clips[key] for key in cut[part]}, facts, decoders, book, towers, bar)
                except Timeout:  # another process is at it
                    continue
                del cut[part]
    return facts


def _todo(clips: Mapping[str, Files], facts: Mapping[str, Facts], cache: TowerCache) -> list[str]:
    missing = set(cache.missing(clips))
    return [key for key in clips if key not in facts or (key in missing and _decodes(facts[key]))]


def _decodes(facts: Facts) -> bool:
    return (facts.video is not None and facts.video_problem is None) or (
        facts.audio is not None and facts.audio_problem is None
    )


def _make(
    clips: Mapping[str, Files], facts: dict[str, Facts], decoders: Decoders[str], book: FactBook, towers: Towers, bar: Any
) -> None:  # fmt: skip
    facts |= book.get(clips)  # what another process found since
    todo = _todo(clips, facts, towers.cache)
    bar.update(len(clips) - len(todo))
    done: dict[str, Features] = {}
    batch: list[tuple[str, Decoded]] = []

    def encode() -> None:
        if batch:
            done.update(zip((key for key, _ in batch), towers.encode([d for _, d in batch]), strict=True))
        batch.clear()

    for key, decoded in decoders.map((key, *clips[key]) for key in todo):
        facts[key] = decoded.facts
        book.put(key, decoded.facts)
        bar.update()
        if decoded.pictures is not None or decoded.wave is not None:
            batch.append((key, decoded))
        if len(batch) == towers.batch_size:
            encode()
            if len(done) * towers.bytes_each >= _SHARD_BYTES:
                towers.cache.write(done)
                done = {}
    encode()
    if done:
        towers.cache.write(done)


def _progress(
    found: Iterator[tuple[str, Decoded]], total: int, what: str
) -> Iterator[tuple[str, Decoded]]:  # fmt: skip
    yield from tqdm(found, total=total, desc=what, unit="clip", disable=total == 0)
