"""Stratified draws from a split: by label, whole subjects, the same clips every time."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Sequence

from erv.types import Clip


def stratified_holdout(clips: Sequence[Clip], fraction: float) -> set[str]:
    """Ids of about a `fraction` of `clips`, with each label about as frequent as in all.

    Subjects (a clip without one is a subject) are visited in the order of their hash, so that adding or removing clips moves
    no others. One is taken when that brings the counts of the labels nearer to the target counts (squared distance).
    """
    groups: dict[str, list[Clip]] = defaultdict(list)
    for clip in clips:
        groups[f"subject {clip.subject}" if clip.subject else f"clip {clip.id}"].append(clip)
    target = {label: fraction * count for label, count in Counter(clip.label for clip in clips).items()}
    taken: Counter[str] = Counter()
    held_out: set[str] = set()
    for name in sorted(groups, key=_hash):
        group = Counter(clip.label for clip in groups[name])
        before = sum((target[label] - taken[label]) ** 2 for label in group)
        after = sum((target[label] - taken[label] - count) ** 2 for label, count in group.items())
        if after < before:
            taken += group
            held_out |= {clip.id for clip in groups[name]}
    return held_out


def stratified_subset(clips: Sequence[Clip], size: int | None) -> list[Clip]:
    """At most `size` of `clips` (None: all), in their order, with each label about as frequent as in all."""
    if size is None or size >= len(clips):
        return list(clips)
    by_label: dict[str, list[Clip]] = defaultdict(list)
    for clip in sorted(clips, key=lambda c: _hash(c.id)):
        by_label[clip.label].append(clip)
    # Each clip at its quantile within its label: the smallest ones are a stratified draw of any size, and a larger draw
    # contains every smaller one.
    quantile = {c.id: ((i + 0.5) / len(same), _hash(c.id)) for same in by_label.values() for i, c in enumerate(same)}
    chosen = {clip.id for clip in sorted(clips, key=lambda c: quantile[c.id])[:size]}
    return [clip for clip in clips if clip.id in chosen]


def _hash(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()
