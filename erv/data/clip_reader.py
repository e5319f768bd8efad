"""Reading clips for a policy: checked once, then read from the feature cache or decoded anew, one by one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Protocol, overload

import numpy as np
import torch
from torch import Tensor

from erv.data.media.augmentation import Augmentation
from erv.data.media.decode import DecodedClip, MediaInfo, decode
from erv.data.media.decode_pool import DecoderPool
from erv.data.media.defects import Note, refusal
from erv.data.media.errors import CorruptMedia
from erv.data.media.feature_builder import ClipPaths, TowerEncoding, build_features, probe
from erv.data.media.feature_cache import FeatureCache
from erv.data.media.file_records import FileHashes, MediaInfoStore
from erv.data.media.settings import TOWERS, MediaSettings
from erv.errors import UserError
from erv.types import Clip, MediaSpec

# A clip with its tensors: tower features under "video" and "audio", or the towers' inputs under "pixels" and "mel".
Sample = tuple[Clip, dict[str, Tensor]]
INPUT_NAMES = {"video": "pixels", "audio": "mel"}  # modality -> name of the tower's input, in a sample


class UnusableClips(UserError):
    """Clips with defects that the settings do not allow, or settings that contradict each other."""


@dataclass(frozen=True)
class Samples(Sequence[Sample]):
    """Clips with their tensors, which are read when a sample is asked for. Indexing gives tower features."""

    clips: Sequence[Clip]
    read: Callable[[int, int], dict[str, Tensor]]
    """(index, epoch) -> the clip's tensors: tower features, or the towers' inputs. The epoch decides the augmentation."""
    encode: Callable[[Sequence[Sample]], list[Sample]]
    """Replaces the towers' inputs by their features."""

    def __len__(self) -> int:
        return len(self.clips)

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> list[Sample]: ...
    def __getitem__(self, index: int | slice) -> Sample | list[Sample]:
        """Tower features of one clip, or of several in one batch of the towers."""
        if isinstance(index, slice):
            return self.encode([self.raw(i) for i in range(len(self))[index]])
        return self.encode([self.raw(index)])[0]

    def raw(self, index: int, epoch: int = 0) -> Sample:
        """The clip as it was read: tower features, or the towers' inputs, which `encode` turns into features."""
        index = range(len(self))[index]  # raises IndexError, and counts a negative one from the end
        return self.clips[index], self.read(index, epoch)


class Preprocessor(Protocol):
    """What turns a decoded clip into the towers' inputs."""

    @property
    def fills_silence(self) -> bool:
        """Whether a missing sound track is replaced by silence."""

    def media_spec(self, modalities: Sequence[str]) -> MediaSpec:
        """What is to be decoded of a clip."""

    def tensors(self, pictures: np.ndarray | None, wave: np.ndarray | None) -> dict[str, Tensor]:
        """The towers' inputs, "video" and "audio", those that the clip has."""

    def identity(self) -> str:
        """Everything that changes these tensors, as a text: part of the feature cache's key."""


class ClipEncoder(Protocol):
    """What a policy offers to the reader of its clips; `erv.policy.Policy` has it."""

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
    """Reads clips as a policy sees them.

    `notes` collects the defects of the clips that were read, and what was done about them.

    Args:
        settings: How clips are read, and what is done about defects.
        policy: Whose preprocessing and towers are used.
        augmentation: Of clips that are read for training.
        seed: Of the augmentation.
    """

    def __init__(
        self,
        settings: MediaSettings,
        policy: ClipEncoder,
        augmentation: Augmentation | None = None,
        seed: int = 0,
    ) -> None:
        self.settings, self.policy, self.seed = settings, policy, seed
        self.augmentation = augmentation if augmentation != Augmentation() else None  # one without effect is none
        self.spec = policy.processor.media_spec(settings.modalities)
        self.hashes = FileHashes(f"{settings.cache}/hashes")
        self.info_store = MediaInfoStore.of(settings, self.spec)
        self.notes: list[Note] = []

    def samples(self, clips: Sequence[Clip], training: bool = False) -> Samples:
        """Check every clip once, by decoding it, and return the usable ones; their tensors are read when asked for.

        With `media.cache_towers` the features of all clips are in the cache afterwards.

        Args:
            clips: The clips of a split.
            training: Whether they are augmented, and towers may be trained on them.

        Raises:
            UnusableClips: A clip has a defect whose action is "error", or the settings contradict each other.
        """
        augmentation = self.augmentation if training else None
        if training and (message := self.settings.cache_conflict(self.policy.model.trained, augmentation is not None)):
            raise UnusableClips(message)
        keys = [self.hashes.of_clip(clip.video, clip.audio) for clip in clips]
        infos = self._build_or_probe(clips, keys)
        usable = [
            (clip, key, names)
            for clip, key, names in zip(clips, keys, self._usable_modalities(clips, infos), strict=True)
            if names
        ]

        def read_cached(index: int, epoch: int) -> dict[str, Tensor]:
            _, key, names = usable[index]
            features = self._cache.read(key or "")
            return {name: features[name] for name in names}

        def decode_anew(index: int, epoch: int) -> dict[str, Tensor]:
            clip, _, names = usable[index]
            transform = augmentation.transform_for(self.seed, epoch, clip.id) if augmentation else None
            decoded = decode(clip.video, clip.audio, self.spec, self.settings.limits, transform)
            inputs = self.policy.processor.tensors(decoded.frames, decoded.waveform)
            if lost := [name for name in names if name not in inputs]:
                problem = decoded.info.video_problem or decoded.info.audio_problem or "is not there"
                raise CorruptMedia(
                    clip.video, f"was sound and is not any more ({lost[0]}: {problem})", "look at the disk"
                )
            return {INPUT_NAMES[name]: inputs[name] for name in names}

        read = read_cached if self.settings.cache_towers else decode_anew
        return Samples([clip for clip, _, _ in usable], read, self.encode)

    def pixels(self, clips: Sequence[Clip]) -> list[Sample]:
        """Decode all clips at once: frames and log-mel of the usable ones, for training towers from scratch.

        Half precision, since all of them are held in memory; under "video" and "audio".
        """
        with self._decoders() as decoders:
            decoded = [d for _, d in decoders.map((clip.id, clip.video, clip.audio) for clip in clips)]
        modalities = self._usable_modalities(clips, [d.info for d in decoded])
        inputs = [self.policy.processor.tensors(d.frames, d.waveform) for d in decoded]
        return [
            (clip, {name: tensors[name].half() for name in names})
            for clip, tensors, names in zip(clips, inputs, modalities, strict=True)
            if names
        ]

    def encode(self, samples: Sequence[Sample]) -> list[Sample]:
        """Samples with tower features in the place of the towers' inputs; those with features already stay as they are.

        There is a gradient only where a tower is trained, and the caller asks for gradients.
        """
        inputs = [{name: row[raw] for name, raw in INPUT_NAMES.items() if raw in row} for _, row in samples]
        if not any(inputs):
            return list(samples)
        with torch.set_grad_enabled(torch.is_grad_enabled() and bool(set(TOWERS) & set(self.policy.model.trained))):
            encoded = self.policy.encode(inputs)
        return [(clip, features) for (clip, _), features in zip(samples, encoded, strict=True)]

    @cached_property
    def _cache(self) -> FeatureCache:
        """The cache of the towers' features. Their weights are hashed once: towers that are trained have no cache."""
        processor, names = self.policy.processor, " ".join(self.settings.modalities)
        return FeatureCache(self.settings.cache, self.policy.towers_sha256(), f"{processor.identity()} {names}")

    def _build_or_probe(self, clips: Sequence[Clip], keys: Sequence[str | None]) -> list[MediaInfo]:
        """What the files of each clip hold; with `media.cache_towers`, fills the cache on the way."""
        paths: dict[str, ClipPaths] = {
            key: (clip.video, clip.audio) for clip, key in zip(clips, keys, strict=True) if key is not None
        }
        with self._decoders() as decoders:
            if self.settings.cache_towers:
                size = self.policy.model.config.feature_bytes
                encoding = TowerEncoding(self._cache, self._encode_decoded, size, self.settings.tower_batch)
                infos = build_features(paths, decoders, self.info_store, encoding)
            else:
                infos = probe(paths, decoders, self.info_store)
        absent = MediaInfo(missing=tuple(self.settings.modalities))
        return [infos[key] if key is not None else absent for key in keys]

    def _encode_decoded(self, decoded: Sequence[DecodedClip]) -> list[dict[str, Tensor]]:
        """Tower features of decoded clips, on the CPU."""
        inputs = [self.policy.processor.tensors(d.frames, d.waveform) for d in decoded]
        inputs = [{name: row[name] for name in row if name in self.settings.modalities} for row in inputs]
        with torch.no_grad():
            encoded = self.policy.encode(inputs, self.settings.tower_batch)
        return [{name: value.cpu() for name, value in features.items()} for features in encoded]

    def _decoders(self) -> DecoderPool[str]:
        settings = self.settings
        return DecoderPool(self.spec, settings.limits, settings.num_workers, settings.timeout_s, settings.memory_gb)

    def _usable_modalities(self, clips: Sequence[Clip], infos: Sequence[MediaInfo]) -> list[tuple[str, ...]]:
        """The modalities to use of each clip, none of one that is left out; defects are added to `notes`.

        Raises UnusableClips for defects whose action is "error".
        """
        actions = self.settings.defect_actions
        if self.policy.processor.fills_silence:
            actions = replace(actions, no_audio="silence")
        modalities, notes = [], []
        for clip, info in zip(clips, infos, strict=True):
            names, clip_notes = actions.apply(
                clip.id, clip.split, info, tuple(self.settings.modalities), self.spec.num_frames
            )
            modalities.append(names)
            notes += clip_notes
        noted = set(self.notes)
        self.notes += [note for note in notes if note not in noted]
        if message := refusal(notes):
            raise UnusableClips(message)
        return modalities
