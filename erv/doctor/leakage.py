"""What of a corpus' test clips is known elsewhere: the same bytes, the same people, other folds (spec: datasets.md)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass, replace

from erv.data.datasets.base import SPLITS, Corpus, CorpusError, CorpusMissing
from erv.data.datasets.mixture import Mixture
from erv.types import Clip, Split


def find(corpus: Corpus, keys: Mapping[str, str | None]) -> list[str]:
    """A line for each kind; `keys` are the hashes of the clips' bytes, by id."""
    clips: dict[Split, Sequence[Clip]] = {split: corpus.clips(split) for split in SPLITS}
    return [*_alike([c for split in SPLITS for c in clips[split]], keys), *_subjects(clips), *_folds(corpus)]


def _alike(clips: Sequence[Clip], keys: Mapping[str, str | None]) -> list[str]:
    """Clips with the same bytes under several names; across splits that is a leak."""
    groups: dict[str, list[Clip]] = defaultdict(list)
    for clip in clips:
        if (key := keys[clip.id]) is not None:
            groups[key].append(clip)
    same = [group for group in groups.values() if len(group) > 1]
    across = [group for group in same if len({clip.split for clip in group}) > 1]
    found = []
    for what, listed in (
        ("the same file under several names", same),
        ("the same file in several splits: a leak", [_one_per_split(group) for group in across]),
    ):
        if listed:
            names = " = ".join(f"{clip.id} ({clip.split})" for clip in listed[0][:3])
            found.append(f"{what}: {len(listed)} times, first {names}")
    return found


def _one_per_split(clips: Sequence[Clip]) -> list[Clip]:
    return list({clip.split: clip for clip in reversed(clips)}.values())[::-1]


def _subjects(clips: Mapping[Split, Sequence[Clip]]) -> list[str]:
    seen = {split: {clip.subject for clip in clips[split] if clip.subject} for split in SPLITS}
    shared = sorted(seen["train"] & seen["test"])
    few = ", ".join(shared[:3])
    return (
        [f"{len(shared)} subjects are in train and in test, first {few}: results may not carry over to new people"]
        if shared
        else []
    )


def _folds(corpus: Corpus) -> list[str]:
    """How many of this fold's test clips other folds train on: weights of those folds are no use here."""
    if isinstance(corpus, Mixture):
        return [f"{name}: {line}" for name, part in corpus.parts.items() for line in _folds(part)]
    if not is_dataclass(corpus) or "fold" not in {f.name for f in fields(corpus)}:
        return []
    test = {clip.id for clip in corpus.clips("test")}
    leaking = {}
    for fold in range(1, 6):
        try:
            other = replace(corpus, fold=fold)
            trained = {clip.id for split in ("train", "dev") for clip in other.clips(split)}
        except (CorpusMissing, CorpusError):
            continue
        if shared := len(test & trained):
            leaking[fold] = shared
    listed = ", ".join(f"{count:,} by fold {fold}" for fold, count in leaking.items())
    return (
        [f"of the {len(test):,} test clips other folds train on {listed}: do not start from their weights"]
        if leaking
        else []
    )
