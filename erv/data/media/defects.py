"""What is done about a defect of a clip: one choice per defect, made by the user, counted and listed (spec: datasets.md).

Nothing is ever replaced by silence or by another clip.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from erv.data.media.decode import Facts

Defect = Literal["missing", "corrupt", "no_audio", "short"]
Action = Literal["error", "skip", "mask", "repeat", "silence"]
SHORT_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Note:
    """One defect of one clip, and what was done: "skip" leaves the clip out, "mask" the modality, "repeat" repeats frames."""

    clip: str
    split: str
    defect: Defect
    action: Action
    reason: str


@dataclass(frozen=True, slots=True)
class Defects:
    """What to do about clips that are `missing`, `corrupt`, have `no_audio`, or are `short`.

    Corrupt are also those over a limit, too slow, or without a picture. "mask" leaves out the modality that cannot be used, in
    the prompt too, and the clip when none is left. A short clip has fewer frames than the policy takes, or lasts less than a
    second; "repeat" shows frames more than once, by the paper's rule. "silence" is for the paper's preprocessing only.
    """

    missing: Literal["error", "skip", "mask"] = "error"
    corrupt: Literal["error", "skip", "mask"] = "error"
    no_audio: Literal["error", "skip", "mask", "silence"] = "mask"
    short: Literal["error", "skip", "repeat"] = "repeat"

    def settle(
        self, clip: str, split: str, facts: Facts, modalities: Sequence[str], num_frames: int
    ) -> tuple[tuple[str, ...], list[Note]]:  # fmt: skip
        """(The modalities to use, the defects found); without a modality the clip is left out, or stops the run."""
        notes = [
            Note(clip, split, defect, getattr(self, defect), reason)
            for defect, reason in _found(facts, modalities, num_frames)
        ]
        if any(note.action in ("error", "skip") for note in notes):
            return (), notes
        silent = any(note.action == "silence" for note in notes)
        kept = tuple(name for name in modalities if _usable(facts, name) or (name == "audio" and silent))
        if not kept:  # everything was masked
            notes = [Note(n.clip, n.split, n.defect, "skip", n.reason) for n in notes]
        return kept, notes


def _usable(facts: Facts, modality: str) -> bool:
    problem, codec = (facts.video_problem, facts.video) if modality == "video" else (facts.audio_problem, facts.audio)
    return modality not in facts.missing and problem is None and codec is not None


def _found(facts: Facts, modalities: Sequence[str], num_frames: int) -> Iterable[tuple[Defect, str]]:
    for name in facts.missing:
        if name in modalities:
            yield "missing", f"its {name} file is not there"
    problems = [facts.video_problem if name == "video" else facts.audio_problem for name in modalities]
    for problem in dict.fromkeys(problems):
        if problem is not None:
            yield "corrupt", problem
    if "audio" in modalities and facts.audio is None and facts.audio_problem is None and "audio" not in facts.missing:
        yield "no_audio", "has no sound track"
    if "video" in modalities and facts.frames:
        if facts.frames < num_frames:
            yield "short", f"has {facts.frames} frames, the policy takes {num_frames}"
        elif facts.seconds < SHORT_SECONDS:
            yield "short", f"lasts {facts.seconds:.2f} s"


def tally(notes: Iterable[Note]) -> dict[str, dict[str, int]]:
    """Action -> defect -> clips, for the figures: {"skip": {"corrupt": 3}, "mask": {"no_audio": 12}}."""
    counts = Counter({(n.action, n.defect, n.clip) for n in notes})
    found: dict[str, dict[str, int]] = {}
    for action, defect, _ in sorted(counts):
        found.setdefault(action, Counter())[defect] += 1
    return {action: dict(defects) for action, defects in found.items()}


def refusal(notes: Iterable[Note], most: int = 5) -> str | None:
    """The message that stops a run, or None: every defect whose choice is "error", with counts, examples and the way on."""
    by_defect: dict[Defect, dict[str, str]] = {}
    for note in notes:
        if note.action == "error":
            by_defect.setdefault(note.defect, {}).setdefault(note.clip, note.reason)
    if not by_defect:
        return None
    lines = []
    for defect, clips in by_defect.items():
        choices = "repeat or skip" if defect == "short" else "skip or mask"
        lines.append(f"clips {_SPOKEN[defect]}: {len(clips)}; replace them, or set media.on_{defect}={choices}:")
        lines += [f"  {clip}: {reason}" for clip, reason in list(clips.items())[:most]]
        lines += [f"  … and {len(clips) - most} more"] if len(clips) > most else []
    return "\n  ".join(lines)


_SPOKEN = {
    "missing": "that are not there", "corrupt": "that are corrupt", "no_audio": "without sound",
    "short": "that are short",
}  # fmt: skip


def as_row(note: Note) -> dict[str, Any]:
    """The note as a line of media.jsonl."""
    return {"clip": note.clip, "split": note.split, "defect": note.defect, "action": note.action, "reason": note.reason}
