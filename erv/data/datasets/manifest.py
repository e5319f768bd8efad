"""A user's own clips: a CSV, JSONL or Parquet file with a line per clip."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

from erv.data.datasets.base import CorpusError, CorpusMissing, Row
from erv.data.datasets.file_corpus import FileCorpus
from erv.data.datasets.file_index import VIDEO_SUFFIXES, FileIndex, as_on_disk, path_below
from erv.taxonomy import Taxonomy
from erv.types import Split
from erv.utils.tables import read_table

COLUMNS = ("id", "video", "label", "rationale", "split", "subject", "language", "audio", "weight")
TEMPLATE = """\
video,label,split,subject,rationale
clips/anna_01.mp4,happy,train,anna,The corners of her mouth rise and her voice is bright. All of this points to joy.
clips/ben_04.mp4,sad,test,ben,"""
_SPLIT_NAMES: dict[str, Split] = {
    "": "train",
    "train": "train",
    "training": "train",
    "dev": "dev",
    "val": "dev",
    "valid": "dev",
    "validation": "dev",
    "test": "test",
    "testing": "test",
}


@dataclass(kw_only=True)
class ManifestCorpus(FileCorpus):
    """The clips of one file. Only video and label are needed; the first line of a CSV names the columns.

    | column | |
    |---|---|
    | video | a file or folder of pictures, relative to the root (default: where `file` lies); any video suffix if it has none |
    | label | a label of `taxonomy`, or a synonym |
    | rationale | the text between the think tags, for SFT |
    | split | train (default), dev or test |
    | subject | who is seen; a subject is never in both train and dev |
    | language | of the rationale, a code such as en (default) or zh |
    | audio | a file with the sound, if it is not in the video |
    | id | default: video without its suffix |
    | weight | how often a pass over the data shows the clip, on average (default 1) |

    Args:
        file: The manifest; required.
        root: Folder that paths in the file begin at; empty: the file's.
        taxonomy: A built-in name, or a list of labels; required.
        columns: Column -> what it is called in the file: {video: name, label: discrete}.
        neutral: Of a list of labels, the one of no emotion.
    """

    name: ClassVar[str] = "manifest"
    default_taxonomy: ClassVar[Taxonomy] = Taxonomy("not given", ())
    how_to_get: ClassVar[str] = f"it begins like this:\n{TEMPLATE}"

    root: str = ""
    file: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    neutral: str = "neutral"

    def __post_init__(self) -> None:
        """Check the columns, and make the root."""
        unknown = [name for name in self.columns if name not in COLUMNS]
        if unknown:
            raise ValueError(f"data.columns names some of {', '.join(COLUMNS)}; got {', '.join(unknown)}")
        super().__post_init__()
        self.root = self.root or (str(Path(self.file).parent) if self.file else "")

    def _make_taxonomy(self, labels: Taxonomy | str | Sequence[str] | None) -> Taxonomy:
        taxonomy = super()._make_taxonomy(labels)
        return taxonomy if labels is None or isinstance(labels, str) else replace(taxonomy, neutral=self.neutral)

    def rows(self) -> Iterator[Row]:
        """The lines of the file."""
        if self.file is None or not Path(self.file).is_file():
            raise CorpusMissing(
                f"data.file={self.file} is not there; set it to a CSV, JSONL or Parquet file. {self.how_to_get}"
            )
        try:
            lines = list(read_table(self.file))
        except ValueError as error:
            raise CorpusError(str(error)) from error
        if not lines:
            raise CorpusMissing(f"{self.file} holds no clips; {self.how_to_get}")
        if self.taxonomy is self.default_taxonomy:  # none was given
            counts = Counter(str(line.get(self.columns.get("label", "label"), "")).strip() for _, line in lines)
            labels = ",".join(sorted(counts))
            raise CorpusError(
                f"{self.file} holds the labels {', '.join(f'{label} ({n})' for label, n in counts.most_common())}; say which "
                f"labels there are: data.taxonomy=[{labels}], or a built-in one such as data.taxonomy=dfew"
            )
        for source, line in lines:
            yield self._row(line, source)

    def _row(self, line: Mapping[str, Any], source: str) -> Row:
        cells = {name: line.get(self.columns.get(name, name)) for name in COLUMNS}
        values = {name: "" if cell is None else str(cell).strip() for name, cell in cells.items()}
        video, split = values["video"], values["split"].lower()
        if not video or not values["label"]:
            raise CorpusError(
                f"{source}: a line needs {self.columns.get('video', 'video')} and {self.columns.get('label', 'label')}; "
                f"got { ({k: str(v)[:40] for k, v in line.items() if k}) }"
            )
        if split not in _SPLIT_NAMES:
            raise CorpusError(f"{source}: split is train, dev or test; got {values['split']!r}")
        try:
            weight = float(values["weight"] or 1)
        except ValueError:
            weight = -1.0
        if not 0 < weight < 1000:
            raise CorpusError(f"{source}: weight is a number above 0, got {values['weight']!r}")
        return Row(
            id=values["id"] or str(Path(video).with_suffix("") if Path(video).suffix else video),
            video=self._video_path(video, source),
            label=values["label"],
            split=_SPLIT_NAMES[split],
            source=source,
            rationale=values["rationale"] or None,
            subject=values["subject"] or None,
            language=values["language"] or "en",
            audio=str(as_on_disk(path_below(self.root, values["audio"], source))) if values["audio"] else None,
            weight=weight,
        )

    def _video_path(self, name: str, source: str) -> str:
        """The file that a line names, with or without its suffix."""
        path = as_on_disk(path_below(self.root, name, source))
        if path.suffix.lower() in VIDEO_SUFFIXES or path.exists():
            return str(path)
        return FileIndex(path.parent, (".",)).path_of(path.name)
