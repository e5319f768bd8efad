"""Clips as a policy reads them: screened once, then read from the tower cache or decoded anew, one by one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, overload

import numpy as np
import torch
from torch import Tensor

from erv.data.media.augmentation import Augment
from erv.data.media.decode import Decoded, Facts, decode
from erv.data.media.decode_pool import Decoders
from erv.data.media.defects import Defects, Note, refusal
from erv.data.media.errors import CorruptMedia
from erv.data.media.feature_builder import Files, Towers, build, screen
from erv.data.media.feature_cache import TowerCache
from erv.data.media.file_facts import FactBook, Hashes
from erv.data.media.settings import TOWERS, MediaSettings
from erv.types import Clip, Wanted

Sample = tuple[Clip, dict[str, Tensor]]
PIXELS = {"video": "pixels", "audio": "mel"}  # what a decoded modality is called until the towers have seen it


class UnusableClips(Exception):
    """Clips with defects that the settings do not allow, or settings that contradict each other."""


@dataclass(frozen=True)
class Samples(Sequence[Sample]):
    """Clips with their tensors, read when they are wanted.

    `read(place, turn)` gives the tensors of the clip at `place` when it is shown for the `turn`-th time: tower features
    "video" and "audio", or "pixels" and "mel", which `encode` turns into features.
    """

    clips: Sequence[Clip]
    read: Callable[[int, int], dict[str, Tensor]]
    encode: Callable[[Sequence[Sample]], list[Sample]]

    def __len__(self) -> int:
        return len(self.clips)

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> list[Sample]: ...
    def __getitem__(self, index: int | slice) -> Sample | list[Sample]:
        """The features of one clip, or of several at once."""
        if isinstance(index, slice):
            return self.encode([self.raw(i) for i in range(len(self))[index]])
        return self.encode([self.raw(index)])[0]

    def raw(self, index: int, turn: int = 0) -> Sample:
        """The clip as it was read; its towers may not have seen it yet."""
        place = range(len(self))[index]
        return self.clips[place], self.read(place, turn)


class Preprocessor(Protocol):
    """What makes tensors of a decoded clip."""

    @property
    def fills_silence(self) -> bool:
        """Whether a missing sound track is replaced by silence."""

    def wanted(self, modalities: Sequence[str]) -> Wanted:
        """What is to be decoded of a clip."""

    def tensors(self, pictures: np.ndarray | None, wave: np.ndarray | None) -> dict[str, Tensor]:
        """The towers' inputs: "video" and "audio", those that the clip has."""

    def identity(self) -> str:
        """Everything that changes these tensors, as a text: part of the cache's key."""


class ReadsClips(Protocol):
    """What a policy offers to whoever reads clips for it; `erv.policy.policy.Policy` is one."""

    @property
    def model(self) -> Any:
        """The model: `trained` names its trained parts, `config.feature_bytes` is the size of a clip's features."""

    @property
    def processor(self) -> Preprocessor:
        """Its preprocessing."""

    def encode(self, media: Sequence[Mapping[str, Tensor]], batch_size: int | None = None) -> list[dict[str, Tensor]]:
        """Tower features of what `processor.tensors` gave for each clip."""

    def towers_sha256(self) -> str:
        """The identity of the towers' weights."""


class ClipReader:
    """Reads clips for `policy`; `notes` collects the defects that were met."""

    def __init__(
        self, settings: MediaSettings, policy: ReadsClips, augment: Augment | None = None, seed: int = 0
    ) -> None:
        self.settings, self.policy, self.seed = settings, policy, seed
        self.augment = augment if augment != Augment() else None
        self.wanted = policy.processor.wanted(settings.modalities)
        self.hashes = Hashes(f"{settings.cache}/hashes")
        self.book = FactBook.of(settings, self.wanted)
        self.notes: list[Note] = []

    def samples(self, clips: Sequence[Clip], training: bool = False) -> Samples:
        """The usable ones of `clips`; raises UnusableClips when the settings do not allow what is found.

        With `training`, clips are augmented and towers may be trained.
        """
        changed = training and self.augment is not None
        if training and (message := self.settings.contradiction(self.policy.model.trained, changed)):
            raise UnusableClips(message)
        keys = self._keys(clips)
        cache = self._cache if self.settings.cache_towers else None
        facts = self._facts(clips, keys, cache)
        kept = self._settle(clips, facts)
        chosen = [i for i, names in enumerate(kept) if names]
        usable, names, found = [clips[i] for i in chosen], [kept[i] for i in chosen], [keys[i] for i in chosen]

        def cached(place: int, turn: int) -> dict[str, Tensor]:
            assert cache is not None
            features = cache.read(found[place] or "")
            return {name: features[name] for name in names[place]}

        def decoded(place: int, turn: int) -> dict[str, Tensor]:
            clip = usable[place]
            change = self.augment.of(self.seed, turn, clip.id) if changed and self.augment else None
            seen = decode(clip.video, clip.audio, self.wanted, self.settings.limits, change)
            media = self.policy.processor.tensors(seen.pictures, seen.wave)
            if gone := [name for name in names[place] if name not in media]:
                problem = seen.facts.video_problem or seen.facts.audio_problem or "is not there"
                raise CorruptMedia(
                    clip.video, f"was sound and is not any more ({gone[0]}: {problem})", "look at the disk"
                )
            return {PIXELS[name]: media[name] for name in names[place]}

        return Samples(usable, cached if cache else decoded, self.encode)

    def pixels(self, clips: Sequence[Clip]) -> list[Sample]:
        """Decoded frames and log-mel of all usable clips at once, half precision, for training towers from scratch."""
        found: list[Decoded] = []
        with self._decoders() as decoders:
            found += [d for _, d in decoders.map((clip.id, clip.video, clip.audio) for clip in clips)]
        kept = self._settle(clips, [d.facts for d in found])
        media = [self.policy.processor.tensors(d.pictures, d.wave) for d in found]
        return [
            (clip, {name: row[name].half() for name in names})
            for clip, row, names in zip(clips, media, kept, strict=True)
            if names
        ]

    def encode(self, samples: Sequence[Sample]) -> list[Sample]:
        """Samples with tower features where they were only decoded. Without gradient but for a tower that is trained."""
        media = [{name: row[raw] for name, raw in PIXELS.items() if raw in row} for _, row in samples]
        if not any(media):
            return list(samples)
        with torch.set_grad_enabled(torch.is_grad_enabled() and bool(set(TOWERS) & set(self.policy.model.trained))):
            features = self.policy.encode(media)
        return [(clip, found) for (clip, _), found in zip(samples, features, strict=True)]

    def _keys(self, clips: Sequence[Clip]) -> list[str | None]:
        return [self.hashes.of(clip.video, clip.audio) for clip in clips]

    @cached_property
    def _cache(self) -> TowerCache:
        """The towers' outputs; they are hashed once, since towers that change have no cache."""
        processor, names = self.policy.processor, " ".join(self.settings.modalities)
        return TowerCache(self.settings.cache, self.policy.towers_sha256(), f"{processor.identity()} {names}")

    def _facts(self, clips: Sequence[Clip], keys: Sequence[str | None], cache: TowerCache | None) -> list[Facts]:
        """What is known of each clip; unknown ones are decoded, and encoded where there is a cache."""
        files: dict[str, Files] = {k: (c.video, c.audio) for c, k in zip(clips, keys, strict=True) if k is not None}
        with self._decoders() as decoders:
            if cache is None:
                facts = screen(files, decoders, self.book)
            else:
                size = self.policy.model.config.feature_bytes
                towers = Towers(cache, self._towers, size, self.settings.tower_batch)
                facts = build(files, decoders, self.book, towers)
        absent = Facts(missing=tuple(self.settings.modalities))
        return [facts[key] if key is not None else absent for key in keys]

    def _towers(self, decoded: Sequence[Decoded]) -> list[dict[str, Tensor]]:
        media = [self.policy.processor.tensors(d.pictures, d.wave) for d in decoded]
        wanted = [{name: row[name] for name in row if name in self.settings.modalities} for row in media]
        with torch.no_grad():
            found = self.policy.encode(wanted, self.settings.tower_batch)
        return [{name: value.cpu() for name, value in features.items()} for features in found]

    def _decoders(self) -> Decoders[str]:
        settings = self.settings
        return Decoders(self.wanted, settings.limits, settings.processes, settings.timeout_s, settings.memory_gb)

    def _settle(self, clips: Sequence[Clip], facts: Sequence[Facts]) -> list[tuple[str, ...]]:
        """The modalities to use of each clip, none for one that is left out."""
        defects = self.settings.defects
        if self.policy.processor.fills_silence:
            defects = Defects(defects.missing, defects.corrupt, "silence", defects.short)
        frames, modalities = self.wanted.num_frames, tuple(self.settings.modalities)
        kept, notes = [], []
        for clip, known in zip(clips, facts, strict=True):
            names, found = defects.settle(clip.id, clip.split, known, modalities, frames)
            kept.append(names)
            notes += found
        before = set(self.notes)
        self.notes += [note for note in notes if note not in before]
        if message := refusal(notes):
            raise UnusableClips(message)
        return kept
