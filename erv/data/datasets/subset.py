"""Drawing a part of a split that looks like the whole: by class, whole subjects, the same clips every time."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Sequence

from erv.types import Clip


def held_out(clips: Sequence[Clip], share: float, whole_subjects: bool = True) -> set[str]:
    """Ids of about `share` of `clips`, with each label about as frequent as in all.

    Subjects (a clip without one is its own) are gone through in the order of their hash, so that adding or removing clips moves
    no others; one is taken when that brings the counts of the labels nearer to the wanted ones.
    """
    groups: dict[str, list[Clip]] = defaultdict(list)
    for clip in clips:
        groups[f"subject {clip.subject}" if clip.subject and whole_subjects else f"clip {clip.id}"].append(clip)
    wanted = {label: share * count for label, count in Counter(clip.label for clip in clips).items()}
    taken: Counter[str] = Counter()
    held: set[str] = set()
    for name in sorted(groups, key=_rank):
        group = Counter(clip.label for clip in groups[name])
        before = sum((wanted[label] - taken[label]) ** 2 for label in group)
        after = sum((wanted[label] - taken[label] - count) ** 2 for label, count in group.items())
        if after < before:
            taken += group
            held |= {clip.id for clip in groups[name]}
    return held


def first(clips: Sequence[Clip], most: int | None) -> list[Clip]:
    """At most `most` of `clips`, in their order: a draw in which labels are about as frequent as in all."""
    if most is None or most >= len(clips):
        return list(clips)
    by_label: dict[str, list[Clip]] = defaultdict(list)
    for clip in sorted(clips, key=lambda c: _rank(c.id)):
        by_label[clip.label].append(clip)
    # each clip at its quantile within its label: the smallest ones are a stratified draw of any size
    place = {c.id: ((i + 0.5) / len(same), _rank(c.id)) for same in by_label.values() for i, c in enumerate(same)}
    kept = {clip.id for clip in sorted(clips, key=lambda c: place[c.id])[:most]}
    return [clip for clip in clips if clip.id in kept]


def _rank(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()
