"""What is done about a defective clip: one choice per kind of defect, made by the user, counted and listed.

Nothing is ever replaced by silence or by another clip (spec: datasets.md), except in the paper's preprocessing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from erv.data.media.decode import MediaInfo

Defect = Literal["missing", "corrupt", "no_audio", "short"]
Action = Literal["error", "skip", "mask", "repeat", "silence"]
SHORT_SECONDS = 1.0
_DESCRIPTIONS: dict[Defect, str] = {
    "missing": "that are not there",
    "corrupt": "that are corrupt",
    "no_audio": "without sound",
    "short": "that are short",
}


@dataclass(frozen=True, slots=True)
class Note:
    """One defect of one clip, and what was done about it. The field names are those of media.jsonl."""

    clip: str
    """The clip's id."""
    split: str
    defect: Defect
    action: Action
    """Error stops the run, skip leaves the clip out, mask leaves the modality out, repeat shows frames again."""
    reason: str
    """What is wrong, for the message."""


@dataclass(frozen=True, slots=True)
class DefectActions:
    """What to do about each kind of defect.

    "mask" leaves out the modality that cannot be used, in the prompt too, and the clip when none is left.
    """

    missing: Literal["error", "skip", "mask"] = "error"
    """The file does not exist."""
    corrupt: Literal["error", "skip", "mask"] = "error"
    """It cannot be decoded, is over a limit or too slow, or has no picture track."""
    no_audio: Literal["error", "skip", "mask", "silence"] = "mask"
    """It has no sound track; "silence" is for the paper's preprocessing only."""
    short: Literal["error", "skip", "repeat"] = "repeat"
    """It has fewer frames than the policy takes, or lasts less than a second; "repeat" shows frames again (the paper's rule)."""

    def apply(
        self, clip: str, split: str, info: MediaInfo, modalities: Sequence[str], num_frames: int
    ) -> tuple[tuple[str, ...], list[Note]]:
        """The modalities to use of a clip, and its defects. Without a modality, the clip is left out or stops the run.

        Args:
            clip: The clip's id.
            split: Its split.
            info: What its files hold.
            modalities: What the policy takes of a clip.
            num_frames: How many frames the policy takes.
        """
        notes = [
            Note(clip, split, defect, getattr(self, defect), reason)
            for defect, reason in _defects_of(info, modalities, num_frames)
        ]
        if any(note.action in ("error", "skip") for note in notes):
            return (), notes
        silence = any(note.action == "silence" for note in notes)
        usable = tuple(name for name in modalities if _is_usable(info, name) or (name == "audio" and silence))
        if not usable:  # every modality is masked
            notes = [Note(n.clip, n.split, n.defect, "skip", n.reason) for n in notes]
        return usable, notes


def _is_usable(info: MediaInfo, modality: str) -> bool:
    problem, codec = (info.video_problem, info.video) if modality == "video" else (info.audio_problem, info.audio)
    return modality not in info.missing and problem is None and codec is not None


def _defects_of(info: MediaInfo, modalities: Sequence[str], num_frames: int) -> Iterator[tuple[Defect, str]]:
    """(Kind, reason) of each defect of the modalities in use."""
    for name in info.missing:
        if name in modalities:
            yield "missing", f"its {name} file is not there"
    problems = [info.video_problem if name == "video" else info.audio_problem for name in modalities]
    for problem in dict.fromkeys(problems):  # a problem of the whole file is both modalities'
        if problem is not None:
            yield "corrupt", problem
    if "audio" in modalities and info.audio is None and info.audio_problem is None and "audio" not in info.missing:
        yield "no_audio", "has no sound track"
    if "video" in modalities and info.frames:
        if info.frames < num_frames:
            yield "short", f"has {info.frames} frames, the policy takes {num_frames}"
        elif info.seconds < SHORT_SECONDS:
            yield "short", f"lasts {info.seconds:.2f} s"


def tally(notes: Iterable[Note]) -> dict[str, dict[str, int]]:
    """Count clips by action and defect, for metrics.json: {"skip": {"corrupt": 3}, "mask": {"no_audio": 12}}."""
    counts: dict[str, dict[str, int]] = {}
    for action, defect, _ in sorted({(n.action, n.defect, n.clip) for n in notes}):  # a clip once per defect
        counts.setdefault(action, Counter())[defect] += 1
    return {action: dict(by_defect) for action, by_defect in counts.items()}


def refusal(notes: Iterable[Note], examples: int = 5) -> str | None:
    """The message that stops a run, or None without a defect whose action is "error".

    It has every such kind of defect with its number of clips, `examples` of them, and what can be set instead.
    """
    reasons: dict[Defect, dict[str, str]] = {}  # defect -> clip -> its first reason
    for note in notes:
        if note.action == "error":
            reasons.setdefault(note.defect, {}).setdefault(note.clip, note.reason)
    if not reasons:
        return None
    lines = []
    for defect, clips in reasons.items():
        choices = "repeat or skip" if defect == "short" else "skip or mask"
        lines.append(f"clips {_DESCRIPTIONS[defect]}: {len(clips)}; replace them, or set media.on_{defect}={choices}:")
        lines += [f"  {clip}: {reason}" for clip, reason in list(clips.items())[:examples]]
        lines += [f"  … and {len(clips) - examples} more"] if len(clips) > examples else []
    return "\n  ".join(lines)


def as_row(note: Note) -> dict[str, Any]:
    """The note as a line of media.jsonl."""
    return asdict(note)
