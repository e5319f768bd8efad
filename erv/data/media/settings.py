"""The settings of reading clips: the config group `media`."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Literal

from erv.data.media.container import Limits
from erv.data.media.defects import DefectActions

MODALITIES = ("video", "audio")
TOWERS = ("vision_tower", "audio_tower")


@dataclass(frozen=True)
class MediaSettings:
    """How clips are read, and what is done about those that cannot be.

    Args:
        modalities: What the policy is given of a clip, "video", "audio" or both.
        on_missing, on_corrupt, on_no_audio, on_short: What to do about defects, see `DefectActions`.
        max_seconds, max_pixels, max_bytes: The largest clip that is read, see `Limits`.
        timeout_s: Seconds after which decoding one clip is given up.
        memory_gb: Address space of a decoding process, in GiB.
        workers: Decoding processes. None: one per core.
        cache: Folder of hashes, media information and the towers' outputs.
        cache_towers: Compute the towers' outputs once and keep them; False: run the towers for every batch.
        tower_batch: Clips that the towers take at a time when the cache is built.
    """

    modalities: Sequence[str] = MODALITIES
    on_missing: Literal["error", "skip", "mask"] = "error"
    on_corrupt: Literal["error", "skip", "mask"] = "error"
    on_no_audio: Literal["error", "skip", "mask"] = "mask"
    on_short: Literal["error", "skip", "repeat"] = "repeat"
    max_seconds: float = 600.0
    max_pixels: int = 4096 * 2304
    max_bytes: int = 2 * 10**9
    timeout_s: float = 60.0
    memory_gb: float = 8.0
    workers: int | None = None
    cache: str = "cache"
    cache_towers: bool = True
    tower_batch: int = 16
    limits: Limits = field(init=False)
    defect_actions: DefectActions = field(init=False)

    def __post_init__(self) -> None:
        """Check the values, and group them."""
        if not self.modalities or not set(self.modalities) <= set(MODALITIES):
            raise ValueError(f"media.modalities is one or both of {', '.join(MODALITIES)}, got {list(self.modalities)}")
        for name in ("max_seconds", "max_pixels", "max_bytes", "timeout_s", "memory_gb"):
            if getattr(self, name) <= 0:
                raise ValueError(f"media.{name} must be above 0, got {getattr(self, name)}")
        if self.tower_batch < 1:
            raise ValueError(f"media.tower_batch is at least 1, got {self.tower_batch}")
        if self.workers is not None and self.workers < 1:
            raise ValueError(f"media.workers is at least 1, or null for one per core; got {self.workers}")
        actions = DefectActions(self.on_missing, self.on_corrupt, self.on_no_audio, self.on_short)
        object.__setattr__(self, "limits", Limits(self.max_seconds, self.max_pixels, self.max_bytes))
        object.__setattr__(self, "defect_actions", actions)

    def cache_conflict(self, trained: Collection[str], augmented: bool) -> str | None:
        """Why the towers' outputs cannot be cached in a training, or None when they can, or are not to be.

        Args:
            trained: The parts of the model that are trained.
            augmented: Whether clips are augmented.
        """
        towers = [part for part in TOWERS if part in trained]
        if not self.cache_towers or not (towers or augmented):
            return None
        why = f"policy.train has {', '.join(towers)}" if towers else "clips are augmented"
        return (
            f"{why}, so the towers see other inputs or change at every step, and their cached outputs would be wrong; set "
            "media.cache_towers=false (they then run for every batch), or leave that out"
        )

    @property
    def num_workers(self) -> int:
        """The number of decoding processes."""
        return self.workers or len(os.sched_getaffinity(0))  # the cores of this job, not of the machine
