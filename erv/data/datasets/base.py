"""The contract that a data set implements, and the errors when its files are not what they should be.

A new data set is an adapter, a YAML and a test.

1. The adapter, a module beside this one. It says what is in the data set's own files and nothing else:

        @dataclass(kw_only=True)
        class MyCorpus(FileCorpus):
            name: ClassVar[str] = "mine"  # the data set: first part of "mine/17", the name of a clip in every record
            default_taxonomy: ClassVar[Taxonomy] = of_labels("mine", ("calm", "angry"))  # of the labels in its files
            how_to_get: ClassVar[str] = "Mine is at https://example.org"  # for the message when files are missing

            session: int = 1  # a key of the config, data.session

            def rows(self) -> Iterator[Row]:
                file = Path(self.root) / f"session_{self.session}.csv"
                if not file.is_file():
                    raise CorpusMissing(f"Mine is not at {self.root}: {file.name} is expected there; {self.how_to_get}")
                clips = FileIndex(self.root, ("clips",))
                for source, line in read_table(file):  # source is "FILE:LINE", for messages
                    yield Row(line["id"], clips.path_of(line["id"]), line["emotion"], "train", source)

   Optional: `published_counts` (clips by split and label as the authors count them), `warnings` (known defects of the
   release), `identity` (where ids differ between packagings). Each label is a string as it stands in the file.

2. `conf/data/mine.yaml`: `_target_: erv.data.Mine`, `root` and the adapter's own keys. Its defaults list
   `base/files@_here_` and `_self_`, which adds the keys that all data sets in files share. The public name goes into
   `erv/data/__init__.py` and into COMPONENTS of `erv/config/targets.py`. Outside of this repository, the adapter lies in a
   package that ERV_PLUGINS names, and the YAML in a folder for --config-dir.

3. The test, in `tests/data/test_datasets.py`: a small tree in the published layout (`tests/support/trees.py`); which clips
   with which labels are read from it, and which message names a missing or wrong file. `test_configs_compose_for_every_corpus`
   covers the YAML.

`FileCorpus` does the rest: labels read into any taxonomy, synonyms included; a dev split held out (stratified, whole subjects);
clips listed twice; the counts checked against the published ones; stratified `limit` and `dev_limit`; the digest that names a
run; leak checks by `identity`. A data set that is not in files implements `Corpus` itself, as `synthetic` and `mixture` do.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol

from erv.errors import UserError
from erv.taxonomy import Taxonomy
from erv.types import Clip, Split

SPLITS: tuple[Split, ...] = ("train", "dev", "test")


class CorpusMissing(UserError):
    """The data set's files are absent or incomplete; the message says what is expected where, and how to get it."""


class CorpusError(UserError, ValueError):
    """The data set's files contradict themselves or the taxonomy; the message names the row and the remedy."""


class Corpus(Protocol):
    """A data set: its clips by split, and what must be known of it before a run begins.

    `name` is the data set, whatever the packaging; `taxonomy` the label set that its clips' labels belong to.
    """

    name: ClassVar[str]
    taxonomy: Taxonomy

    @property
    def root(self) -> str | Path:
        """The folder of the files, for messages and records."""

    def require(self) -> None:
        """Check the files before a run begins.

        Raises:
            CorpusMissing: Files are absent or incomplete, and `prepare` cannot make them.
            CorpusError: The files contradict themselves or the taxonomy.
        """

    def prepare(self) -> None:
        """Make the files, for a data set that is generated; does nothing for any other."""

    def clips(self, split: Split) -> list[Clip]:
        """The clips of one split, in an order that does not change."""

    def digest(self) -> str:
        """A text that changes when the clips do (not when they are moved): a run's signature depends on it."""

    def identity(self, clip: Clip) -> str:
        """The name of a clip that is the same in every packaging, fold and mixture: "dfew/17"."""

    def warnings(self) -> list[str]:
        """What a user should know of these clips: what was left out, and how the files differ from the published ones."""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a data set's annotation files, as it stands there."""

    id: str
    """The clip's name within the data set."""
    video: str
    """Path of the video file, or of a folder of frames."""
    label: str
    """The label as the file spells it; `FileCorpus` reads it into the taxonomy."""
    split: Split
    """The published split. Without a dev split, part of the training clips becomes one."""
    source: str
    """The file and the line, for messages."""
    rationale: str | None = None
    """The text between the think tags that SFT imitates."""
    subject: str | None = None
    """The person in the clip; nobody is in both train and the held-out dev split."""
    language: str = "en"
    """Code of the rationale's language."""
    audio: str | None = None
    """Path of the sound, where it is not in the video."""
    weight: float = 1.0
    """How often a pass over the data shows the clip, on average."""


@dataclass(frozen=True, slots=True)
class PublishedCounts:
    """What the authors of a data set say that one split holds."""

    clips: int
    """Clips of the split."""
    by_label: Mapping[str, int] | None = None
    """Clips of each label, where that is published."""


def refuse_overlap(corpus: Corpus, clips: Iterable[str], what: str) -> None:
    """Raise ValueError when the text `what` was written about clips that `corpus` evaluates on (its dev and test splits).

    The verifier's training text was made from clips; with an evaluation clip among them the verifier would know what it
    is to judge, and its reward would leak into the figures.

    Args:
        corpus: The data set whose dev and test splits are evaluated.
        clips: Ids or identities of the clips that the text was written about.
        what: The config key of the text, for the message.
    """
    evaluated = {name for s in ("dev", "test") for c in corpus.clips(s) for name in (c.id, corpus.identity(c))}
    shared = sorted(evaluated.intersection(clips))
    if shared:
        raise ValueError(
            f"{what}: {len(shared)} of its clips are evaluation clips of this corpus, first {', '.join(shared[:3])}; only the "
            "train split may feed the verifier: make the text again from train clips of the fold in use"
        )
