"""The clips of a run as its policy reads them, and a record of what was left out and of which bytes were read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from erv.data.clip_reader import ClipReader, Sample, Samples
from erv.data.datasets.base import Corpus
from erv.data.media.defects import Note, as_row, tally
from erv.data.media.file_records import fingerprint
from erv.policy.policy import Policy
from erv.runs.environment import update_environment
from erv.runs.run import MEDIA
from erv.types import Clip
from erv.utils.io import write_lines


class Reading:
    """Reads clips of `corpus` with `reader`; one that `writes` leaves its notes in `folder` (media.jsonl, env.json)."""

    def __init__(self, folder: Path, corpus: Corpus, reader: ClipReader, writes: bool) -> None:
        self.folder, self.corpus, self.reader, self.writes = folder, corpus, reader, writes
        self.notes: list[Note] = []
        self._readers: dict[str, ClipReader] = {}  # for policies that see clips otherwise
        self._splits: dict[str, dict[str, Any]] = {}

    def samples(self, clips: list[Clip], policy: Policy | None = None) -> Samples:
        """The usable ones of `clips`, as `policy` (default: the reader's) sees them outside training."""
        reader = self.reader
        if policy is not None and (identity := policy.processor.identity()) != reader.policy.processor.identity():
            reader = self._readers.setdefault(identity, ClipReader(reader.settings, policy))
        found = reader.samples(clips)
        self._note(reader, clips)
        return found

    def rows(self, clips: list[Clip], training: bool) -> Samples:
        """The usable ones of `clips`, augmented where they are for training."""
        found = self.reader.samples(clips, training)
        self._note(self.reader, clips)
        return found

    def pixels(self, clips: list[Clip], training: bool) -> list[Sample]:
        """The usable ones of `clips`, all decoded at once; nothing is augmented."""
        found = self.reader.pixels(clips)
        self._note(self.reader, clips)
        return found

    def tally(self) -> dict[str, Any]:
        """What was left out, masked or repeated, by split: to stand next to every figure."""
        splits = dict.fromkeys(note.split for note in self.notes)
        return {split: tally(n for n in self.notes if n.split == split) for split in splits}

    def _note(self, reader: ClipReader, clips: Sequence[Clip]) -> None:
        """Write down what was left out or masked, and which bytes the clips are, as the doctor does."""
        known = set(self.notes)
        self.notes += [note for note in reader.notes if note not in known]
        if not self.writes:
            return
        write_lines(self.folder / MEDIA, [as_row(note) for note in self.notes])
        for split in {clip.split for clip in clips} - self._splits.keys():
            mine = [clip for clip in clips if clip.split == split]
            names = ((self.corpus.identity(c), reader.hashes.of_clip(c.video, c.audio)) for c in mine)
            self._splits[split] = {"clips": len(mine), "sha256": fingerprint(names)}
            data = {"corpus": self.corpus.name, "digest": self.corpus.digest(), **self._splits}
            update_environment(self.folder, data=data)
